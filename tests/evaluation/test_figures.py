"""Plots, pictures and palettes."""

from __future__ import annotations

import xml.etree.ElementTree as ElementTree
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from small_world import BlockCodec, RawCodec, curve_entries, run

from gosvae.datasets.palettes import CAMVID, CITYSCAPES, class_palette
from gosvae.errors import ConfigError
from gosvae.evaluation import CodecEntry, Evaluation
from gosvae.evaluation.pictures import draw_pictures
from gosvae.evaluation.plots import plot_rate_task


def text_of(svg: Path) -> str:
    """The texts that matplotlib notes as comments beside their outlines."""
    ElementTree.parse(svg)
    return svg.read_text()


@pytest.fixture(scope="module")
def evaluation() -> Evaluation:
    over = CodecEntry("Tiny", BlockCodec(1), budget_bytes=25)
    return run([*curve_entries(), over], sizes=[(16, 24), (16, 32)], keep_images=[0, 1])


def test_the_plot_names_axes_curves_and_reference(evaluation: Evaluation, tmp_path: Path) -> None:
    png, svg = tmp_path / "plots" / "rate.png", tmp_path / "plots" / "rate.svg"
    plot_rate_task(evaluation, [png, svg])
    text = text_of(svg)
    for part in (
        "Block",
        "Raw",
        "Tiny",
        "over budget",
        "uncompressed (0.",
        "mIoU against labels",
        "1 KiB = 1024 bytes",
    ):
        assert part in text
    with Image.open(png) as image:
        assert image.size == (1080, 690)
    first = svg.read_bytes()
    plot_rate_task(evaluation, [svg])
    assert svg.read_bytes() == first


def test_names_of_strangers_are_text_in_plots(tmp_path: Path) -> None:
    """A formula that Matplotlib cannot read would be an error, and markup would be part of the SVG."""
    svg, name = tmp_path / "rate.svg", "$\\no$ <script>a</script> & \x1b"
    evaluation = run([CodecEntry(name, RawCodec())])
    provenance = replace(evaluation.provenance, dataset=name, expert=name)
    plot_rate_task(replace(evaluation, provenance=provenance), [svg])
    text = text_of(svg)
    assert "<script>" not in text
    assert "\x1b" not in text


def test_the_plot_takes_the_agreement_where_there_are_no_labels(tmp_path: Path) -> None:
    svg = tmp_path / "rate.svg"
    plot_rate_task(run(curve_entries(), use_labels=False), [svg])
    assert "agreement (mIoU" in text_of(svg)
    with pytest.raises(ConfigError, match="no codec has a value for lpips"):
        plot_rate_task(run(curve_entries()), [svg], quality="lpips")
    with pytest.raises(ConfigError, match="unknown quality 'psnr'"):
        plot_rate_task(run(curve_entries()), [svg], quality="psnr")


def test_the_picture_shows_images_over_the_experts_maps(evaluation: Evaluation, tmp_path: Path) -> None:
    path = tmp_path / "pictures.png"
    draw_pictures(evaluation, path, tile_width=120, columns=5)
    page = np.asarray(Image.open(path).convert("RGB"))
    assert page.shape[1] == 2 * 16 + 3 * 120 + 2 * 8  # 5 codecs and the original: two lines of 3
    colours = class_palette(evaluation.provenance.class_names)
    assert all((page == colours[index]).all(axis=2).any() for index in (0, 2))
    text_height, height = round(2.7 * 13), round(120 * 16 / 24)
    top = page[16 + text_height : 16 + text_height + height, 16 : 16 + 120]
    original = Image.fromarray(evaluation.kept[0].image_uint8_HW3).resize((120, height), Image.Resampling.LANCZOS)
    np.testing.assert_array_equal(top, np.asarray(original))


def test_pictures_of_judges_are_named_in_their_order(evaluation: Evaluation, tmp_path: Path) -> None:
    first = evaluation.kept[0]
    seen = {"boxes": first.image_uint8_HW3, "far": first.image_uint8_HW3}
    made = tuple(replace(each, drawn=seen) for each in first.reconstructions)
    pages = []
    for kept in (first, replace(first, reconstructions=made, drawn=seen)):
        draw_pictures(replace(evaluation, kept=(kept,)), tmp_path / "page.png", tile_width=240, columns=3)
        pages.append(np.asarray(Image.open(tmp_path / "page.png").convert("L")))
    plain, judged = pages
    line = round(1.6 * 13)
    assert judged.shape[0] - plain.shape[0] == 2 * 2 * (240 * 16 // 24 + 2) + line + 16
    assert (judged[-16 - line : -16] < 128).any()  # the names


def test_extreme_shapes_make_small_pages(tmp_path: Path) -> None:
    path = tmp_path / "pictures.png"
    evaluation = run([CodecEntry("Raw", RawCodec())], sizes=[(900, 2), (2, 900)], keep_images=[0, 1])
    draw_pictures(evaluation, path, tile_width=100)
    with Image.open(path) as page:
        assert page.height < 600


def test_pictures_without_kept_images_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="keep_images"):
        draw_pictures(run([CodecEntry("Raw", RawCodec())]), tmp_path / "pictures.png")


def test_known_classes_have_their_known_colours() -> None:
    np.testing.assert_array_equal(class_palette(["Sky", "sign symbol"]), [CAMVID["sky"], CAMVID["sign"]])
    np.testing.assert_array_equal(
        class_palette(["traffic light", "road"]), [CITYSCAPES["trafficlight"], (128, 64, 128)]
    )


@pytest.mark.parametrize("count", [1, 2, 19, 150])
def test_generated_colours_differ(count: int) -> None:
    palette = class_palette([f"class {index}" for index in range(count)])
    assert palette.dtype == np.uint8
    assert len(np.unique(palette, axis=0)) == count
