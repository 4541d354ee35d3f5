"""Sweeps over channels: what is counted, tables, plots, files, and that equal deliveries are decoded once."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from pydantic import TypeAdapter
from small_world import BlockCodec, Brightness, MapCodec, RawCodec, Scenes, run

from gosvae.channels import load_channel
from gosvae.errors import ConfigError
from gosvae.evaluation import CodecEntry
from gosvae.evaluation.link_report import link_tables, plot_link
from gosvae.evaluation.link_sweep import AXES, Sweep, System, save_sweep, sweep_link
from gosvae.evaluation.transmission import LinkSettings, receive, send, transmit
from gosvae.metrics import ConfusionMatrix
from gosvae.seeding import torch_generator
from gosvae.tensors import ImageArray, image_to_tensor

LINK = LinkSettings(load_channel("packet-loss p=0"), packets=4, seed=5)
SIZES = ((16, 24), (9, 17), (12, 12))


class Counted(BlockCodec):
    """Counts how often it decodes."""

    decoded = 0

    def decompress(self, data: bytes) -> ImageArray:
        Counted.decoded += 1
        return super().decompress(data)


def sweep(
    systems: list[System] | None = None, axes: dict[str, list[float] | None] | None = None, **more: object
) -> Sweep:
    systems = systems or [System("Block", BlockCodec(2)), System("Block + FEC", BlockCodec(2), 0.5, 400)]
    axes = axes or {"loss": [0.0, 0.3, 1.0]}
    return sweep_link(systems, Scenes(SIZES), Brightness().freeze(), axes, LINK, **more)  # type: ignore[arg-type]


def test_rows_hold_what_a_simple_loop_finds() -> None:
    result = sweep(repeats=3)
    assert [(row.system, row.x) for row in result.rows] == [
        (system, x) for system in ("Block", "Block + FEC") for x in (0.0, 0.3, 1.0)
    ]
    row = result.rows[1]
    expert, scenes, codec = Brightness().freeze(), Scenes(SIZES), BlockCodec(2)
    labels, agreement, whole, air = ConfusionMatrix(3), ConfusionMatrix(3), 0, []
    for index in range(3):
        sample = scenes[index]
        original_HW = expert.class_map(image_to_tensor(sample.image_uint8_HW3))[0]
        sent = send(codec, sample.image_uint8_HW3, LINK)
        air.append(sent.air_bytes)
        for repeat in range(3):
            channel, generator = load_channel("packet-loss p=0.3"), torch_generator(5, "link", index, repeat)
            received = receive(codec, transmit(sent.datagrams, channel, generator), SIZES[index])
            seen_HW = expert.class_map(image_to_tensor(received.image_uint8_HW3))[0]
            labels.update(seen_HW, sample.labels_uint8_HW)
            agreement.update(seen_HW, original_HW)
            whole += received.outcome == "whole"
    assert row.miou == labels.mean_iou().value
    assert row.agreement_miou == agreement.mean_iou().value
    assert row.whole == whole / 9
    assert 0 < whole < 9
    assert row.whole + row.lost == 1
    assert row.air_bytes == np.mean(air)
    assert row.channel == "packet-loss p=0.3"


def test_nothing_lost_everything_lost_and_repair_packets() -> None:
    result = sweep(repeats=5)
    clean, some, none, _, repaired, _ = result.rows
    assert (clean.whole, clean.lost, clean.concealed_share) == (1.0, 0.0, 0.0)
    assert (none.whole, none.lost, none.concealed_share) == (0.0, 1.0, 1.0)
    assert clean.miou > some.miou > none.miou
    assert repaired.whole > some.whole
    assert result.reference_miou == run([CodecEntry("Raw", RawCodec())], SIZES).reference.miou
    assert result.budget_bytes == 400
    assert result.rows[3].air_bytes <= 400


def test_equal_deliveries_are_decoded_once() -> None:
    Counted.decoded = 0
    sweep([System("Block", Counted(2))], repeats=20)
    # Of each of three images: the whole file, and what stands before a gap at each of the pieces 0 to 3.
    assert 3 < Counted.decoded <= 3 * 5


def test_without_labels_the_agreement_counts(tmp_path: Path) -> None:
    result = sweep(use_labels=False)
    assert result.reference_miou is result.rows[0].miou is None
    assert "agreement (mIoU against the expert's map of the original); across: packet loss rate (%)" in link_tables(
        result
    )
    plot_link(result, "loss", [tmp_path / "loss.png"])
    with Image.open(tmp_path / "loss.png") as image:
        assert image.size == (1080, 780)


def test_tables_and_files(tmp_path: Path) -> None:
    result = sweep(axes={"loss": None, "ber": [0.0, 1e-4]})
    text = link_tables(result)
    assert "| system | KiB | 0 % | 2 % | 5 % | 10 % | 15 % | 20 % | 25 % | 30 % |" in text
    assert "| system | KiB | 0 | 0.0001 |" in text
    first = result.rows[0]
    assert f"| Block | {first.air_bytes / 1024:.2f} | {first.miou:.4f} (100 %) |" in text
    assert "packet headers and repair packets included" in text
    save_sweep(result, tmp_path)
    assert TypeAdapter(Sweep).validate_json((tmp_path / "link.json").read_bytes()) == result
    for axis in ("loss", "ber"):
        plot_link(result, axis, [tmp_path / f"{axis}.svg"])
        assert b"<svg" in (tmp_path / f"{axis}.svg").read_bytes()


def test_systems_over_their_budget_say_so() -> None:
    text = link_tables(sweep([System("Block", BlockCodec(2), 0.0, 146)]))
    assert "Block (over budget on 2 of 3 images)" in text


@pytest.mark.parametrize("axis", AXES)
def test_every_axis_has_channels_that_there_are(axis: str) -> None:
    assert AXES[axis].points[0] == 0.0
    for x in AXES[axis].points:
        assert load_channel(AXES[axis].spec.format(x)).name


def test_what_cannot_be_swept() -> None:
    with pytest.raises(ConfigError, match="unknown axis 'los'; did you mean 'loss'"):
        sweep(axes={"los": None})
    with pytest.raises(ConfigError, match="less than or equal to 1"):
        sweep(axes={"loss": [2.0]})
    with pytest.raises(ConfigError, match="labels of their own"):
        sweep([System("a", RawCodec()), System("a", RawCodec())])
    with pytest.raises(ConfigError, match="the rate of 'Raw' is fixed"):
        sweep([System("a", RawCodec(), 0.0, 100)])
    with pytest.raises(ConfigError, match="leave it out"):
        sweep([System("a", MapCodec())])
