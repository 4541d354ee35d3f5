"""Evaluation of video codecs: rates over time, maps that stand, flicker, and their tables."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from small_world import CLASSES, BlockCodec, Brightness, RawCodec, Scenes

from gosvae.codecs.frame_by_frame import FrameByFrame
from gosvae.codecs.registry import DEFAULT_CODEC, load_sequence_codec
from gosvae.errors import ConfigError, DatasetError
from gosvae.evaluation.bd_rate import ENVELOPE, bd_rate, rival_curves
from gosvae.evaluation.clips import Clip, Footage, load_footage
from gosvae.evaluation.equal_quality import equal_quality_table, rate_at_quality
from gosvae.evaluation.evaluation import Evaluation
from gosvae.evaluation.flicker import FlickerMeter
from gosvae.evaluation.plots import plot_rate_task
from gosvae.evaluation.results import load_evaluation, save_evaluation
from gosvae.evaluation.tables import markdown_table, terminal_table
from gosvae.evaluation.temporal import evaluate_video
from gosvae.evaluation.video_entry import VideoEntry, sent_frames
from gosvae.evaluation.video_link import LinkConditions


def clip(
    name: str, count: int, size_hw: tuple[int, int] = (16, 24), rate: float = 10.0, *, labels: bool = True
) -> Clip:
    scenes = Scenes([size_hw] * count, CLASSES if labels else ())
    samples = [scenes[i] for i in range(count)]
    frames = tuple(sample.image_uint8_HW3 for sample in samples)
    return Clip(name, frames, tuple(sample.labels_uint8_HW for sample in samples), rate)


def footage(*clips: Clip) -> Footage:
    return Footage("clips", CLASSES if clips and clips[0].labels[0] is not None else (), clips)


def run(entries: list[VideoEntry], *clips: Clip, **options: object) -> Evaluation:
    return evaluate_video(entries, footage(*clips), Brightness().freeze(), progress=False, **options)  # type: ignore[arg-type]


def blocks(*sizes: int, rate: float | None = None) -> list[VideoEntry]:
    return [VideoEntry(f"Block {n}", FrameByFrame(BlockCodec(n)), "Block", rate) for n in sizes]


def test_rates_count_all_bytes_over_the_time_of_the_clips() -> None:
    evaluation = run(blocks(4), clip("a", 5), clip("b", 3, rate=5.0))
    reference, row = evaluation.rows
    n_bytes = 8 * (4 + 3 * (16 // 4) * (24 // 4))
    assert row.total_bytes == n_bytes / 8
    assert row.kbit_per_second == pytest.approx(8e-3 * n_bytes / (5 / 10 + 3 / 5))
    assert row.largest_frame_bytes == n_bytes // 8
    assert row.age_ms == 0
    assert reference.kbit_per_second is None
    assert evaluation.is_video
    assert evaluation.provenance.clips == "a (5 frames, 10 Hz), b (3 frames, 5 Hz)"
    assert evaluation.provenance.shots == 2


def test_an_exact_codec_has_the_flicker_and_the_quality_of_the_originals() -> None:
    reference, row = run([VideoEntry("Raw", FrameByFrame(RawCodec()))], clip("a", 4)).rows
    assert row.agreement_miou == 1
    assert row.miou == reference.miou
    assert row.flicker == reference.flicker
    assert 0 < (row.flicker or 0) < 1
    assert row.flicker_at_rest == 0
    assert reference.flicker_at_rest is None
    assert row.parameters == RawCodec.parameter_count


def test_flicker_by_hand() -> None:
    meter = FlickerMeter()
    assert meter.share is None
    still = np.zeros((2, 2), np.int16)
    moved = np.array([[1, 0], [0, 0]], np.int16)
    meter.update(still, still)
    meter.update(np.array([[1, 1], [0, 0]], np.int16), moved)  # two of four changed; of the three at rest, one
    meter.update(still, moved)  # two changed again, all four at rest
    assert meter.share == 4 / 8
    assert meter.share_at_rest == 3 / 7
    meter.cut()
    meter.update(moved, still)  # the first of a clip is compared with none
    assert meter.share == 4 / 8


def test_the_newest_map_stands_where_fewer_frames_are_sent() -> None:
    evaluation = run([VideoEntry("slow", FrameByFrame(RawCodec()), frames_per_second=5.0)], clip("a", 5))
    row = evaluation.rows[1]
    n_bytes = 4 + 3 * 16 * 24
    assert [image.total_bytes for image in evaluation.images] == [n_bytes, 0, n_bytes, 0, n_bytes]
    assert row.age_ms == pytest.approx((0 + 100 + 0 + 100 + 0) / 5)
    assert [image.agreement_accuracy == 1 for image in evaluation.images] == [True, False, True, False, True]
    assert row.kbit_per_second == pytest.approx(8e-3 * 3 * n_bytes / 0.5)


@pytest.mark.parametrize(
    ("count", "camera", "rate", "expected"),
    [
        (4, 15.0, None, [0, 1, 2, 3]),
        (4, 15.0, 30.0, [0, 1, 2, 3]),
        (7, 15.0, 5.0, [0, 3, 6]),
        (7, 15.0, 10.0, [0, 2, 3, 5, 6]),
        (5, 10.0, 0.1, [0]),
    ],
)
def test_frames_that_are_sent(count: int, camera: float, rate: float | None, expected: list[int]) -> None:
    assert sent_frames(count, camera, rate) == expected


def test_a_rate_chooses_the_frames() -> None:
    codec = load_sequence_codec(DEFAULT_CODEC)
    camera = clip("a", 12, size_hw=(64, 96), labels=False)
    entries = [VideoEntry(f"at {kbps}", codec, kbps=kbps, max_age_ms=300.0) for kbps in (3.0, 60.0)]
    _, low, high = run(entries, camera).rows
    assert low.kbit_per_second is not None
    assert high.kbit_per_second is not None
    assert low.kbit_per_second < high.kbit_per_second < 70.0
    assert 0 < (low.age_ms or 0.0) <= 200
    assert high.age_ms == 0


def test_results_are_saved_shown_and_plotted(tmp_path: Path) -> None:
    evaluation = run(blocks(8, 4, 2), clip("a", 4), keep_frames=[1])
    save_evaluation(evaluation, tmp_path)
    loaded = load_evaluation(tmp_path)
    assert loaded.rows == evaluation.rows
    assert loaded.is_video
    table = markdown_table(loaded)
    assert (
        table.splitlines()[0].split()
        == (
            "| codec | kbit/s | largest frame (KiB) | mIoU | pixel accuracy | agreement | PSNR (dB) | flicker (%) "
            "| flicker / own | at rest (%) | age (ms) |"
        ).split()
    )
    assert "a (4 frames, 10 Hz)" in table
    assert "all images are of 1 shot" in table
    assert "kbit/s" in terminal_table(loaded)
    plot_rate_task(loaded, [tmp_path / "plot.png"])
    assert (tmp_path / "plot.png").stat().st_size > 1000
    assert [kept.name for kept in evaluation.kept] == ["a 1"]
    assert len(evaluation.kept[0].reconstructions) == 3


def test_rates_at_equal_quality() -> None:
    evaluation = run(blocks(8, 4, 2), clip("a", 4))
    (low, *_, high) = evaluation.curves()["Block"]
    target = ((low.agreement_miou or 0) + (high.agreement_miou or 0)) / 2
    rate = rate_at_quality(evaluation, "Block", target, quality="agreement_miou")
    assert rate is not None
    assert (low.kbit_per_second or 0) < rate < (high.kbit_per_second or 0)
    assert f"{rate:.2f}" in equal_quality_table(evaluation, [target])
    assert rate_at_quality(evaluation, "Block", 1.0, quality="agreement_miou") is None
    assert rival_curves(evaluation) == []
    with pytest.raises(ConfigError, match="no classical codecs"):
        bd_rate(evaluation, "Block", ENVELOPE)


def test_known_rows_are_not_measured_again(monkeypatch: pytest.MonkeyPatch) -> None:
    first = run(blocks(8), clip("a", 4))
    both = run(blocks(4, 8), clip("a", 4), known=[first])
    assert both.rows == run(blocks(4, 8), clip("a", 4)).rows[:1] + both.rows[1:]
    assert both.rows[2] == first.rows[1]
    assert [image.label for image in both.images] == ["Block 4"] * 4 + ["Block 8"] * 4
    monkeypatch.setattr(Brightness, "class_logits", None)  # nothing is looked at any more
    assert run(blocks(8, 4), clip("a", 4), known=[both]).rows == (both.rows[0], both.rows[2], both.rows[1])
    with pytest.raises(ConfigError, match=r"another clips: 'a \(4 frames, 10 Hz\)', expected 'b \("):
        run(blocks(8), clip("b", 4), known=[first])


def test_labels_can_be_left_out() -> None:
    assert run(blocks(4), clip("a", 2), use_labels=False).rows[1].miou is None
    assert run(blocks(4), clip("a", 2, labels=False)).rows[1].miou is None


@pytest.mark.parametrize(
    ("entries", "options", "message"),
    [
        (blocks(4) * 2, {}, "two rows are called 'Block 4'"),
        (blocks(4, rate=0.0), {}, "sends 0.0 frames a second: expected more than 0"),
        ([VideoEntry("a", FrameByFrame(BlockCodec(4)), kbps=9.0)], {}, "'a' has no temporal model"),
        (blocks(4), {"keep_frames": [2]}, "frame 2 cannot be kept: the first clip has frames 0 to 1"),
    ],
)
def test_what_cannot_be_measured_is_refused(
    entries: list[VideoEntry], options: dict[str, object], message: str
) -> None:
    with pytest.raises(ConfigError, match=message):
        run(entries, clip("a", 2), **options)
    with pytest.raises(ConfigError, match="has no clips"):
        run(blocks(4))


def test_a_rate_is_refused_beside_a_frame_rate_and_on_a_link() -> None:
    codec, camera = load_sequence_codec(DEFAULT_CODEC), clip("a", 2)
    with pytest.raises(ConfigError, match="both a frame rate and a rate"):
        run([VideoEntry("a", codec, frames_per_second=5.0, kbps=9.0)], camera)
    with pytest.raises(ConfigError, match="measured on links that lose nothing"):
        run([VideoEntry("a", codec, kbps=9.0)], camera, link=LinkConditions(0.1))


def save_frames(folder: Path, count: int, size_wh: tuple[int, int] = (24, 16)) -> None:
    folder.mkdir(parents=True)
    for number in range(count):
        Image.new("RGB", size_wh, (number, 0, 0)).save(folder / f"{number}.png")


def test_a_folder_of_frames_is_a_clip(tmp_path: Path) -> None:
    save_frames(tmp_path / "frames", 11)
    found = load_footage(str(tmp_path / "frames"), frames_per_second=10, limit=10)
    (one,) = found.clips
    assert repr(one) == "Clip('frames', 10 frames at 10 Hz)"
    assert [frame[0, 0, 0] for frame in one.frames] == list(range(10))
    assert one.seconds == 1
    with pytest.raises(ConfigError, match="does not say how many frames a second"):
        load_footage(str(tmp_path / "frames"))


def test_folders_in_a_folder_are_clips(tmp_path: Path) -> None:
    save_frames(tmp_path / "frames" / "a", 2)
    save_frames(tmp_path / "frames" / "b", 3, (30, 16))
    found = load_footage(str(tmp_path / "frames"), frames_per_second=10)
    assert [(one.name, len(one.frames)) for one in found.clips] == [("a", 2), ("b", 3)]
    Image.new("RGB", (8, 8)).save(tmp_path / "frames" / "a" / "5.png")
    with pytest.raises(DatasetError, match=r"frames of clip 'a' differ in size"):
        load_footage(str(tmp_path / "frames"), frames_per_second=10)


def test_a_video_file_has_its_own_rate(tmp_path: Path) -> None:
    from gosvae.evaluation.film import write_film

    frames = [np.full((32, 48, 3), 20 * number, np.uint8) for number in range(6)]
    write_film(tmp_path / "a.mp4", frames, frames_per_second=12)
    (one,) = load_footage(str(tmp_path / "a.mp4"), limit=4).clips
    assert (one.name, one.frames_per_second, len(one.frames)) == ("a", 12, 4)
    assert one.frames[0].shape == (32, 48, 3)
    with pytest.raises(ConfigError, match="has 12 frames a second of its own"):
        load_footage(str(tmp_path / "a.mp4"), frames_per_second=6)
    write_film(tmp_path / "a.webp", frames, frames_per_second=12)
    with Image.open(tmp_path / "a.webp") as film:
        assert getattr(film, "n_frames", 1) == 6
    with pytest.raises(ConfigError, match=r"take \.webp or \.mp4"):
        write_film(tmp_path / "a.avi", frames, frames_per_second=12)
