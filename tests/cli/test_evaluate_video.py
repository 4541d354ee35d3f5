"""`gosvae evaluate-video` and `gosvae demo --video`, from words to files."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from PIL import Image

from gosvae.cli import demo_video, evaluate_video
from gosvae.cli.main import main, make_parser
from gosvae.codecs.checkpoint import save_codec
from gosvae.codecs.classical_video import VIDEO_CODECS
from gosvae.codecs.frame_by_frame import FrameByFrame
from gosvae.codecs.sequence.codec import SequenceCodec
from gosvae.codecs.temporal_model import save_temporal_model
from gosvae.codecs.variable import VariableRateCodec
from gosvae.codecs.video import encode_sequence
from gosvae.codecs.video_registry import load_video_codec
from gosvae.errors import ConfigError
from gosvae.evaluation import load_evaluation
from gosvae.evaluation.clips import Clip
from gosvae.tensors import ImageArray
from tiny import streets, temporal_model, variable_checkpoint


@pytest.fixture
def codec(tmp_path: Path) -> str:
    save_codec(tmp_path / "tiny", variable_checkpoint())
    return str(tmp_path / "tiny")


@pytest.fixture
def frames(tmp_path: Path) -> str:
    """A folder with four frames that zoom into a scene."""
    folder = tmp_path / "frames"
    folder.mkdir()
    for number, frame in enumerate(pictures()):
        Image.fromarray(frame).save(folder / f"{number}.png")
    return str(folder)


def test_a_codec_with_a_temporal_model_is_one_unless_intra_is_asked_for(tmp_path: Path) -> None:
    folder = tmp_path / "tiny"
    save_codec(folder, variable_checkpoint())
    save_temporal_model(folder, temporal_model(VariableRateCodec(variable_checkpoint())))
    whole, level = load_video_codec(str(folder)), load_video_codec(f"{folder}:3")
    assert isinstance(whole, SequenceCodec)
    assert isinstance(level, SequenceCodec)
    assert (whole.options.level, level.options.level) == (None, 3)
    for spec in (f"{folder}@intra", f"{folder}:3@intra", f"{folder}:1.5KiB@intra"):
        assert isinstance(load_video_codec(spec), FrameByFrame)
    for rate in ("0.2KiB", "20kbps"):
        with pytest.raises(ConfigError, match=rf"{rate}' is not a level: .* \({folder}:64\); .*:1\.5KiB@intra\)$"):
            load_video_codec(f"{folder}:{rate}")
    options = make_parser().parse_args(
        ["evaluate-video", "--sweep", str(folder), f"{folder}@intra@fps=5", "--data", "x"]
    )
    entries = evaluate_video.video_entries(options, torch.device("cpu"))
    assert [type(entry.codec) for entry in entries] == 4 * [SequenceCodec] + 4 * [FrameByFrame]
    assert [entry.curve for entry in entries[3:5]] == [str(folder), "tiny-variable@intra@fps=5"]
    assert [entry.label for entry in entries[3:5]] == [f"{folder}:160", "tiny-variable:0@intra@fps=5"]


def pictures() -> list[ImageArray]:
    return demo_video.approach(streets()[0].image_uint8_HW3, 4, 64, 96)


def test_from_words_to_files(
    codec: str, frames: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(evaluate_video, "VIDEO_SWEEPS", {"x264": (20, 28, 36, 44)})
    monkeypatch.setattr(evaluate_video, "LEVELS_SWEPT", (0, 80, 160, 255))
    words = ["evaluate-video", f"{codec}:3@fps=5", "x265:40@gop=2", "--data", frames, "--fps", "10", "--device", "cpu"]
    more = ["--sweep", codec, "x264", "x264@gop=2", "--anchor", "envelope", "--pictures", "2", "--at", "0.305"]
    words += ["--quiet"]
    out = tmp_path / "out"
    assert main([*words, *more, "--out", str(out)]) == 0
    printed = capsys.readouterr().out
    evaluation = load_evaluation(out)
    labels = [row.label for row in evaluation.rows]
    assert labels[:3] == ["uncompressed", f"{codec}:3@fps=5", "x265:40@gop=2"]
    assert labels[3:7] == [f"tiny-variable:{level}" for level in (0, 80, 160, 255)]
    assert labels[7:] == [f"x264:{crf}{gop}" for gop in ("", "@gop=2") for crf in (20, 28, 36, 44)]
    assert evaluation.rows[1].age_ms == 50
    assert [row.codec for row in evaluation.rows[7:]] == ["x264"] * 8
    assert set(evaluation.curves()) == {*labels[1:3], "tiny-variable", "x264", "x264@gop=2"}
    assert evaluation.provenance.clips == "frames (4 frames, 10 Hz)"
    assert "kbit/s for 95 % of the uncompressed agreement_miou" in printed
    table = (out / "table.md").read_text(encoding="utf-8")
    assert "best rival / tiny-variable" in table
    assert "\n| 0.305 " in table
    for name in ("table.md", "pictures.png", "rate-task.png", "rate-task.svg"):
        assert f"written: {out / name}" in printed or (out / name).is_file()


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["x264:30"], "does not say how many frames a second it has: give a number above 0 (option --fps)"),
        (["x264:30", "--fps", "5", "--limit", "0"], "--limit must be at least 1, got 0"),
        (["x264:30", "--fps", "5", "--anchor", "x264"], "--anchor x264 needs its curve: add --sweep x264"),
        (["x264:30@fps=0", "--fps", "5"], "'x264:30@fps=0' sends 0.0 frames a second"),
        (["x264:99", "--fps", "5"], "x264 crf 99"),
        (["x264:30@fps=30", "--fps", "10"], "'x264:30@fps=30' sends 30 frames a second, a clip has 10"),
        (["--sweep", "x264", "--fps", "5", "--at", "0.5", "7"], "an agreement of 7: expected 0 to 1 (option --at)"),
        (["x264:30", "--fps", "5", "--at", "0.5"], "give --sweep CODEC too (option --at)"),
        (["--sweep", "gosvae-variable-camvid:64", "--fps", "5"], "several levels, leave out :64"),
        (["--sweep", "label-map", "--fps", "5"], "--sweep label-map: its rate is fixed"),
        (["x264:30", "--fps", "5", "--slices", "2"], "give --loss too (option --slices)"),
        (["x264:30", "--fps", "5", "--loss", "0.1", "--slices", "0"], "0 slices: expected at least 1"),
    ],
)
def test_what_cannot_be_is_one_line(
    words: list[str], message: str, frames: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["evaluate-video", "--data", frames, *words, "--quiet"]) == 2
    line = capsys.readouterr().err
    assert message in line
    assert line.count("\n") == 1


def test_a_table_over_a_link_says_which_link(
    codec: str, frames: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    save_temporal_model(Path(codec), temporal_model(VariableRateCodec.load(codec)))
    words = ["evaluate-video", f"{codec}:100", "--data", frames, "--fps", "10", "--quiet"]
    link = ["--loss", "0.25", "--round-trip-ms", "150", "--repeats", "2", "--out", str(tmp_path / "out")]
    assert main([*words, *link]) == 0
    printed = " ".join(capsys.readouterr().out.split())
    assert "loses 25 % of them, round trip 150 ms, every clip sent 2 times" in printed
    assert main([*words, "--reuse", str(tmp_path / "out")]) == 2
    assert "another channel" in capsys.readouterr().err


def test_the_precision_is_that_of_all_rows_of_a_codec(tmp_path: Path) -> None:
    folder = tmp_path / "tiny"
    save_codec(folder, variable_checkpoint())
    save_temporal_model(folder, temporal_model(VariableRateCodec(variable_checkpoint())))
    words = ["evaluate-video", f"{folder}", f"{folder}@intra", "--sweep", f"{folder}", "--data", "x"]
    for more, precision in (([], "32"), (["--precision", "bf16"], "bf16")):
        options = make_parser().parse_args([*words, *more])
        whole, intra, *swept = [each.codec for each in evaluate_video.video_entries(options, torch.device("cpu"))]
        assert isinstance(intra, FrameByFrame)
        assert isinstance(intra.codec, VariableRateCodec)
        assert intra.codec.options.precision == precision
        for codec in (whole, *swept):
            assert isinstance(codec, SequenceCodec)
            assert codec.codec.options.precision == precision
    picture = pictures()[0]
    reads, exact = load_video_codec(f"{folder}:100", precision="bf16"), load_video_codec(f"{folder}:100")
    data = exact.encoder(*picture.shape[:2]).encode(picture)
    assert reads.decoder().decode(data).shape == exact.decoder().decode(data).shape


def test_a_rival_on_its_own_has_no_envelope(
    codec: str, frames: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(evaluate_video, "VIDEO_SWEEPS", {"x264": (20, 28, 36, 44)})
    words = ["evaluate-video", "--sweep", codec, "x264", "--data", frames, "--fps", "10", "--anchor", "envelope"]
    assert main([*words, "--quiet"]) == 0
    error = capsys.readouterr().err
    assert "BD-rate of x264 against envelope: none (the envelope of a rival leaves out the rival itself" in error
    assert "has no classical codecs" not in error


def test_the_envelope_needs_a_classical_codec(codec: str, frames: str, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["evaluate-video", "--sweep", codec, "--data", frames, "--fps", "5", "--anchor", "envelope"]
    assert main(words) == 2
    assert "--anchor envelope is that of classical codecs: add --sweep" in capsys.readouterr().err


def test_a_film_of_a_clip_beside_av1(
    codec: str, frames: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(demo_video, "OURS", codec)
    monkeypatch.setattr(demo_video, "RIVALS", ("x264", "x264-half"))  # even they take fewer bytes than this codec
    out = tmp_path / "demo"
    assert main(["demo", "--video", frames, "--fps", "10", "--out", str(out)]) == 0
    printed = capsys.readouterr().out
    assert f"The film is in {out / 'video.webp'}" in printed
    with Image.open(out / "video.webp") as film:
        assert getattr(film, "n_frames", 1) == 4
    ours, *rivals = load_rows(printed)
    assert len(rivals) == 2
    assert all(rate <= ours for rate in rivals)


def test_a_film_at_the_lowest_rate_of_the_rival(
    codec: str, frames: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    save_temporal_model(Path(codec), temporal_model(VariableRateCodec.load(codec)))
    monkeypatch.setattr(demo_video, "OURS", codec)
    monkeypatch.setattr(demo_video, "RIVALS", ("x264",))
    least = replace(VIDEO_CODECS["x264"], largest_crf=12)
    monkeypatch.setattr(demo_video, "VIDEO_CODECS", {"x264": least})
    assert main(["demo", "--video", frames, "--fps", "10", "--out", str(tmp_path / "demo")]) == 0
    told, printed = capsys.readouterr().out.split("\n\n", 1)
    level = int(told.split(f"the film shows {codec}:")[1].split(",")[0])
    assert level > 0
    ours, rival = load_rows(printed)
    assert ours <= rival
    assert (tmp_path / "demo" / "video.webp").is_file()


def load_rows(printed: str) -> list[float]:
    """kbit/s of the codecs of a printed table."""
    lines = printed.split("\n\n")[0].splitlines()[3:]
    return [float(line.split()[1]) for line in lines]


def test_equal_bits() -> None:
    clip = Clip("a", tuple(pictures()), (None,) * 4, 10.0)
    found = demo_video.at_equal_bits("x264", clip, 3000)
    assert found is not None
    assert found.crf is not None
    sizes = [
        sum(map(len, encode_sequence(load_video_codec(f"x264:{crf}"), clip.frames, frames_per_second=10.0)))
        for crf in (found.crf, found.crf - 1)
    ]
    assert sizes[0] <= 3000 < sizes[1]
    assert demo_video.at_equal_bits("x264", clip, 10) is None
