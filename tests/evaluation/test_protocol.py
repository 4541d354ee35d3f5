from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
from small_world import CLASSES, BlockCodec, Brightness, Distance, MapCodec, RawCodec, Scenes, curve_entries, run

from gosvae.errors import ConfigError, ShapeError
from gosvae.evaluation import CodecEntry, evaluate, load_evaluation, save_evaluation
from gosvae.evaluation.fitting import check_classes
from gosvae.evaluation.tables import markdown_table
from gosvae.metrics import ConfusionMatrix
from gosvae.tensors import ImageArray, image_to_tensor


def test_bytes_and_rates_are_means_over_images_of_real_files() -> None:
    row = run([CodecEntry("Block", BlockCodec(8))]).rows[1]
    payloads = [3 * 2 * 3, 3 * 2 * 3]  # 16x24 and 9x17 take 2x3 blocks of 8 each
    assert row.payload_bytes == np.mean(payloads)
    assert row.total_bytes == np.mean(payloads) + 4
    assert row.bpp == pytest.approx(np.mean([8 * 22 / (16 * 24), 8 * 22 / (9 * 17)]))
    assert row.zero_order_bytes is None
    assert row.encode_ms is not None
    assert row.image_count == 2


def test_task_values_come_from_one_confusion_matrix_over_the_data_set() -> None:
    codec, expert, scenes = BlockCodec(4), Brightness().freeze(), Scenes([(16, 24), (9, 17)])
    labels, agreement = ConfusionMatrix(3), ConfusionMatrix(3)
    for sample in (scenes[0], scenes[1]):
        seen = expert.class_map(image_to_tensor(codec.decompress(codec.compress(sample.image_uint8_HW3))))[0]
        labels.update(seen, sample.labels_uint8_HW)
        agreement.update(seen, expert.class_map(image_to_tensor(sample.image_uint8_HW3))[0])
    row = run([CodecEntry("Block", codec)]).rows[1]
    expected_labels, expected_agreement = labels.mean_iou(), agreement.mean_iou()
    assert (row.miou, row.miou_classes) == (expected_labels.value, expected_labels.class_count)
    assert (row.agreement_miou, row.agreement_classes) == (expected_agreement.value, expected_agreement.class_count)
    assert row.pixel_accuracy == labels.pixel_accuracy()
    assert row.agreement_accuracy == agreement.pixel_accuracy()
    assert row.class_iou == labels.per_class_iou()


def test_the_reference_row_is_the_expert_on_the_originals() -> None:
    evaluation = run([CodecEntry("Raw", RawCodec())], perceptual=Distance())
    reference, raw = evaluation.rows
    assert reference is evaluation.reference
    assert reference.label == "uncompressed"
    assert reference.total_bytes is None
    assert (reference.miou, reference.pixel_accuracy) == (raw.miou, raw.pixel_accuracy)
    assert 0 < reference.miou < 1
    assert raw.agreement_miou == raw.agreement_accuracy == 1.0
    assert raw.psnr_db == math.inf
    assert raw.lpips == 0.0
    assert raw.parameters == 1_234_567
    assert raw.zero_order_bytes == raw.payload_bytes / 2 - 2


def test_matched_entries_get_the_bytes_of_the_other_codec_image_by_image() -> None:
    evaluation = run([CodecEntry("Anchor", BlockCodec(4)), CodecEntry("Matched", BlockCodec(1), match="Anchor")])
    by_label = {label: [r for r in evaluation.images if r.label == label] for label in ("Anchor", "Matched")}
    assert [r.total_bytes for r in by_label["Matched"]] == [r.total_bytes for r in by_label["Anchor"]]
    assert by_label["Anchor"][0].total_bytes != by_label["Anchor"][1].total_bytes
    assert evaluation.rows[2].encode_ms is None  # it would be the time of the search
    assert evaluation.rows[2].over_budget_images == 0


def test_an_unreachable_budget_is_counted_and_the_smallest_stream_is_used() -> None:
    evaluation = run([CodecEntry("Block", BlockCodec(1), budget_bytes=25)], sizes=[(16, 24), (16, 32), (8, 8)])
    assert evaluation.rows[1].over_budget_images == 1
    assert [(r.total_bytes, r.over_budget) for r in evaluation.images] == [(22, False), (28, True), (16, False)]


def test_per_image_rows_go_image_by_image() -> None:
    evaluation = run(curve_entries(), perceptual=Distance())
    labels = [entry.label for entry in curve_entries()]
    assert [(r.image, r.label) for r in evaluation.images] == [
        (image, label) for image in ("scene-0", "scene-1") for label in labels
    ]
    of_block = [r for r in evaluation.images if r.label == "Block 8"]
    row = evaluation.rows[1]
    assert row.mse == pytest.approx(np.mean([r.mse for r in of_block]))
    assert row.psnr_db == pytest.approx(np.mean([r.psnr_db for r in of_block]))
    assert row.lpips == pytest.approx(np.mean([r.lpips for r in of_block]))
    assert all(r.psnr_db == pytest.approx(-10 * math.log10(r.mse)) for r in of_block)


def test_without_labels_only_the_agreement_is_left() -> None:
    for evaluation in (
        run([CodecEntry("Block", BlockCodec(4))], use_labels=False),
        evaluate([CodecEntry("Block", BlockCodec(4))], Scenes([(8, 8)], class_names=()), Brightness().freeze()),
    ):
        assert all(row.miou is row.pixel_accuracy is row.class_iou is None for row in evaluation.rows)
        assert evaluation.rows[1].agreement_miou is not None


def test_kept_images_hold_pixels_and_class_maps() -> None:
    (kept,) = run(curve_entries(), keep_images=[1]).kept
    assert kept.name == "scene-1"
    assert kept.image_uint8_HW3.shape == (9, 17, 3)
    assert [r.label for r in kept.reconstructions] == [entry.label for entry in curve_entries()]
    raw = kept.reconstructions[-1]
    np.testing.assert_array_equal(raw.image_uint8_HW3, kept.image_uint8_HW3)
    np.testing.assert_array_equal(raw.class_map_HW, kept.class_map_HW)
    assert raw.row.total_bytes == 4 + 9 * 17 * 3


def test_a_codec_that_sends_the_map_is_judged_by_the_map(tmp_path: Path) -> None:
    evaluation = run([CodecEntry("Map", MapCodec())], perceptual=Distance(), keep_images=[0])
    reference, row = evaluation.rows
    assert row.agreement_miou == row.agreement_accuracy == 1.0
    assert (row.miou, row.pixel_accuracy) == (reference.miou, reference.pixel_accuracy)
    assert row.total_bytes == 4 + np.mean([16 * 24, 9 * 17])
    for found in (row, *evaluation.images):
        assert found.mse is found.psnr_db is found.lpips is None
    np.testing.assert_array_equal(evaluation.kept[0].reconstructions[0].class_map_HW, evaluation.kept[0].class_map_HW)
    save_evaluation(evaluation, tmp_path)
    assert load_evaluation(tmp_path).images == evaluation.images
    table = markdown_table(evaluation)
    assert "PSNR" not in table.splitlines()[0]
    assert "a codec that sends a class map is judged by the map" in table
    with pytest.raises(ConfigError, match=r"maps of 3 classes where the expert has 2: give it this expert"):
        evaluate([CodecEntry("Map", MapCodec())], Scenes([(8, 8)], ()), Brightness(("dark", "bright")).freeze())


def test_read_only_images_are_welcome() -> None:
    class ReadOnly(RawCodec):
        def decompress(self, data: bytes) -> ImageArray:
            image = super().decompress(data)
            image.flags.writeable = False
            return image

    evaluation = evaluate([CodecEntry("Raw", ReadOnly())], Scenes([(8, 8)]), Brightness().freeze())
    assert evaluation.rows[1].mse == 0.0


@pytest.mark.parametrize(
    ("entries", "message"),
    [
        ([CodecEntry("a", RawCodec()), CodecEntry("a", RawCodec())], "two rows are called 'a'"),
        ([CodecEntry("uncompressed", RawCodec())], "two rows are called 'uncompressed'"),
        ([CodecEntry("a", BlockCodec(1), match="b"), CodecEntry("b", RawCodec())], "unknown label 'b'"),
        ([CodecEntry("a", RawCodec()), CodecEntry("b", RawCodec(), match="a")], "rate of 'Raw' is fixed"),
        ([CodecEntry("a", RawCodec()), CodecEntry("b", BlockCodec(1), 9, match="a")], "choose one of them"),
    ],
)
def test_entries_that_do_not_fit_are_refused_before_any_work(entries: list[CodecEntry], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        run(entries)


def test_data_sets_that_do_not_fit_are_refused() -> None:
    entries, expert = [CodecEntry("Raw", RawCodec())], Brightness().freeze()
    with pytest.raises(ConfigError, match="no images"):
        run(entries, sizes=[])
    with pytest.raises(ConfigError, match="image 2 cannot be kept"):
        run(entries, keep_images=[2])
    with pytest.raises(ConfigError, match="2 classes against 3, first 'middle' against 'dark'"):
        evaluate(entries, Scenes([(8, 8)], ("middle", "dark")), expert)
    other_spelling = tuple(name.upper() + " " for name in CLASSES)
    assert evaluate(entries, Scenes([(8, 8)], other_spelling), expert).reference.miou is not None


def test_a_codec_that_changes_the_size_is_refused() -> None:
    class Cropping(RawCodec):
        def decompress(self, data: bytes) -> ImageArray:
            return super().decompress(data)[:-1]

    with pytest.raises(ShapeError):
        run([CodecEntry("Cropping", Cropping())])


def test_the_progress_bar_is_for_terminals_and_who_asks(capfd: pytest.CaptureFixture[str]) -> None:
    run([CodecEntry("Raw", RawCodec())])
    assert capfd.readouterr().err == ""
    run([CodecEntry("Raw", RawCodec())], progress=True)
    assert "image" in capfd.readouterr().err


def test_other_words_for_the_same_classes_are_taken_with_a_warning(caplog: pytest.LogCaptureFixture) -> None:
    scenes = Scenes(((16, 24),), ("sky", "building", "pole", "road", "tv"))
    check_classes(scenes, Brightness(("Sky", "building, edifice", "pole", "road, route", "screen")))
    assert "'tv' against 'screen'" in caplog.text
    with pytest.raises(ConfigError, match="other classes"):
        check_classes(scenes, Brightness(("building", "sky", "pole", "road", "tv")))
