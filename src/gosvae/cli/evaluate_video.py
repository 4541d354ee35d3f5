"""`gosvae evaluate-video`: measure video codecs with an expert on clips, with x264, x265 and SVT-AV1 as rivals."""

from __future__ import annotations

import argparse
import re
from collections.abc import Collection
from pathlib import Path

import torch

from gosvae.cli.evaluate import write_results
from gosvae.cli.loading import DEFAULT_LOADING, Loading, add_loading, loading_of
from gosvae.cli.options import (
    DATA_HELP,
    EXPERT_HELP,
    add_device,
    add_geometry,
    add_precision,
    device_of,
    geometry_of,
    precision_of,
)
from gosvae.cli.sweeps import check_anchor, image_points, print_bd_rates
from gosvae.codecs.classical_video import VIDEO_CODECS
from gosvae.codecs.frame_by_frame import FrameByFrame
from gosvae.codecs.registry import DEFAULT_CODEC, load_sequence_codec, split_rate
from gosvae.codecs.sequence.rate import DEFAULT_MAX_AGE_MS
from gosvae.codecs.video import VideoCodec
from gosvae.codecs.video_registry import INTRA, load_video_codec, temporal_folder
from gosvae.errors import ConfigError
from gosvae.evaluation.bd_rate import ENVELOPE
from gosvae.evaluation.clips import load_footage
from gosvae.evaluation.equal_quality import equal_quality_table
from gosvae.evaluation.results import load_evaluation
from gosvae.evaluation.tables import terminal_table
from gosvae.evaluation.temporal import evaluate_video
from gosvae.evaluation.video_entry import VideoEntry
from gosvae.evaluation.video_link import LinkConditions
from gosvae.extras import require

EXAMPLE = """examples:
  gosvae evaluate-video gosvae-variable-camvid:64 svtav1:50 x265:60kbps --data camvid:PATH --fps 15
  gosvae evaluate-video --sweep gosvae-variable-camvid x264 x265 svtav1 svtav1-half --data drive.mp4 --resize 256x512 \\
      --anchor envelope --out results
  gosvae evaluate-video gosvae-variable-camvid:64@fps=5 x265:36@gop=30 --data frames/ --fps 10
"""

VIDEO_SWEEPS = {
    "x264": (33, 38, 43, 48),
    "x264-half": (22, 28, 34, 40),
    "x265": (34, 39, 44, 49),
    "x265-half": (26, 31, 36, 41),
    "svtav1": (50, 55, 59, 63),
    "svtav1-half": (36, 43, 50, 57),
}
"""Constant rate factors of the rate points of a classical video codec's curve."""
LEVELS_SWEPT = (0, 48, 96, 160)
"""Levels of the rate points of a variable-rate codec's curve."""


def add_evaluate_video(parser: argparse.ArgumentParser) -> None:
    """Add the options of `gosvae evaluate-video`."""
    parser.epilog = EXAMPLE
    parser.add_argument(
        "codecs",
        nargs="*",
        help=f"video codecs ({', '.join(VIDEO_CODECS)}, with :CRF or :RATEkbps, and @gop=N; codecs with a temporal "
        "model), or image codecs as in gosvae evaluate, which code every frame on its own, as the former do with "
        "@intra; @fps=N sends N frames a second; NAME:Nkbps chooses frames and levels by the rate; default: "
        f"{DEFAULT_CODEC}, with --sweep none",
    )
    parser.add_argument("--data", required=True, metavar="DATA", help=f"a video file, or {DATA_HELP}")
    parser.add_argument(
        "--fps",
        dest="frames_per_second",
        type=float,
        metavar="N",
        help="frames a second of images; videos have their own",
    )
    parser.add_argument("--expert", default="embedded", metavar="EXPERT", help=EXPERT_HELP)
    add_loading(parser)
    parser.add_argument(
        "--sweep", nargs="*", default=[], metavar="CODEC",
        help="classical and variable-rate codecs to measure over their range of qualities, as curves of the plot",
    )  # fmt: skip
    parser.add_argument(
        "--anchor", metavar="CURVE",
        help=f"print the BD-rate of all curves against this one, or against the {ENVELOPE} of all classical codecs "
        "other than the curve's own",
    )  # fmt: skip
    parser.add_argument(
        "--at", nargs="*", type=float, default=[], metavar="AGREEMENT",
        help="show the kbit/s of every curve at these agreements, in [0, 1]",
    )  # fmt: skip
    parser.add_argument(
        "--max-age-ms", type=float, metavar="MS",
        help=f"with NAME:Nkbps: longest time between two frames that are sent (default: {DEFAULT_MAX_AGE_MS:g})",
    )  # fmt: skip
    parser.add_argument(
        "--loss", type=float, metavar="SHARE",
        help="send codecs with a temporal model over a simulated link over UDP that loses this share of the datagrams",
    )  # fmt: skip
    parser.add_argument(
        "--round-trip-ms", type=float, metavar="MS", help="with --loss: round trip of the link; default: 100"
    )
    parser.add_argument(
        "--slices", type=int, metavar="N",
        help="with --loss: number of interleaved slices of a frame, each in a packet of its own; default: 1",
    )  # fmt: skip
    parser.add_argument(
        "--repeats", type=int, metavar="N", help="with --loss: number of times that every clip is sent; default: 1"
    )
    parser.add_argument("--limit", type=int, metavar="N", help="measure the first N frames of every clip only")
    parser.add_argument("--no-labels", action="store_true", help="measure the agreement with the expert only")
    parser.add_argument(
        "--pictures", nargs="*", type=int, default=[], metavar="FRAME",
        help="numbers of the frames of the first clip that the picture shows",
    )  # fmt: skip
    parser.add_argument(
        "--reuse", nargs="*", type=Path, default=[], metavar="FOLDER",
        help="folders of earlier results of the same clips and expert: what has a row there is not measured again",
    )  # fmt: skip
    parser.add_argument("--details", action="store_true", help="show more columns")
    parser.add_argument("--out", type=Path, metavar="FOLDER", help="folder for results, table, picture and plot")
    parser.add_argument("--quiet", action="store_true", help="show no progress bar")
    add_geometry(parser)
    add_device(parser)
    add_precision(parser)
    parser.set_defaults(run=run_evaluate_video)


def video_entries(
    options: argparse.Namespace, device: torch.device, loading: Loading = DEFAULT_LOADING
) -> list[VideoEntry]:
    """Return codecs and sweeps as entries of an evaluation.

    Raises:
        ConfigError: a name or rate that cannot be used, or `--anchor` names no curve.
    """
    entries = []
    max_age_ms = DEFAULT_MAX_AGE_MS if options.max_age_ms is None else options.max_age_ms
    for spec in options.codecs or ([] if options.sweep else [DEFAULT_CODEC]):
        name, rate = split_frame_rate(spec)
        name, kbps = split_rate_of_trained(name)
        precision = precision_of(name.removesuffix(INTRA), options)
        codec = load_video_codec(name, device=device, precision=precision, trust=loading.trust, verify=loading.verify)
        entries.append(VideoEntry(spec, codec, frames_per_second=rate, kbps=kbps, max_age_ms=max_age_ms))
    for spec in options.sweep:
        curve, points = _points(spec, options, device, loading, [entry.curve for entry in entries])
        entries += [VideoEntry(label, codec, curve, split_frame_rate(spec)[1]) for label, codec in points]
    check_anchor(options.anchor, {entry.curve: entry.codec.name for entry in entries})
    return entries


def split_frame_rate(spec: str) -> tuple[str, float | None]:
    """Return the name and the frames a second of `NAME@fps=N`, or the whole spec and None."""
    match = re.fullmatch(r"(.*)@fps=(\d+\.?\d*)", spec)
    return (match[1], float(match[2])) if match else (spec, None)


def split_rate_of_trained(spec: str) -> tuple[str, float | None]:
    """Return the name and the kbit/s of `NAME:Nkbps` with a temporal model, or the whole spec and None."""
    match = re.fullmatch(r"(.+):(\d+\.?\d*)kbps", spec)
    trained = match is not None and temporal_folder(match[1]) is not None
    return (match[1], float(match[2])) if match is not None and trained else (spec, None)


def _points(
    spec: str, options: argparse.Namespace, device: torch.device, loading: Loading, taken: Collection[str | None]
) -> tuple[str, list[tuple[str, VideoCodec]]]:
    """Return the name of a curve, and the label and codec of each of its rate points."""
    name = split_frame_rate(spec)[0]
    plain = name.partition("@")[0]
    if plain in VIDEO_SWEEPS:
        labels = [f"{plain}:{crf}{spec.removeprefix(plain)}" for crf in VIDEO_SWEEPS[plain]]
        return spec, [(label, load_video_codec(split_frame_rate(label)[0])) for label in labels]
    if not name.endswith(INTRA) and temporal_folder(split_rate(name)[0]) is not None:
        if rate := split_rate(name)[1]:
            raise ConfigError(f"--sweep {spec}: a sweep measures several levels, leave out :{rate}")
        precision = precision_of(name, options)
        sequence = load_sequence_codec(name, device=device, precision=precision, verify=loading.verify)
        return spec, [(f"{name}:{level}{spec.removeprefix(name)}", sequence.at(level)) for level in LEVELS_SWEPT]
    image_codec = name.removesuffix(INTRA)
    curve, points = image_points(
        image_codec,
        lambda spec: loading.load_codec(spec, device=device, precision=precision_of(spec, options)),
        taken=taken,
        levels=LEVELS_SWEPT,
    )
    behind = spec.removeprefix(image_codec)
    return curve + behind, [(label + behind, FrameByFrame(codec)) for label, codec in points]


def _link_of(options: argparse.Namespace) -> LinkConditions | None:
    """Return the link of `--loss`; None without it.

    Raises:
        ConfigError: an option of the link is given without `--loss`, or a value is outside its range.
    """
    given = {name: getattr(options, name) for name in ("round_trip_ms", "slices", "repeats")}
    given = {name: value for name, value in given.items() if value is not None}
    if options.loss is not None:
        return LinkConditions(options.loss, **given)
    for name in given:
        raise ConfigError("this option is for a simulated link: give --loss too", argument=name)
    return None


def run_evaluate_video(options: argparse.Namespace) -> int:
    """Evaluate the codecs and print the table."""
    if options.limit is not None and options.limit < 1:
        raise ConfigError(f"--limit must be at least 1, got {options.limit}")
    for value in options.at:
        if not 0 <= value <= 1:
            raise ConfigError(f"an agreement of {value:g}: expected 0 to 1", argument="at")
    if options.at and not options.sweep:
        raise ConfigError("an agreement is looked up on curves: give --sweep CODEC too", argument="at")
    if options.anchor or options.at:
        require("plot", "a BD-rate")
    link = _link_of(options)
    device, loading = device_of(options), loading_of(options)
    expert = loading.load_expert(options.expert)
    expert.to(device)
    entries = video_entries(options, device, loading)
    footage = load_footage(
        options.data,
        frames_per_second=options.frames_per_second,
        geometry=geometry_of(options),
        limit=options.limit,
        expert_classes=expert.info.class_names,
    )
    evaluation = evaluate_video(
        entries,
        footage,
        expert,
        use_labels=not options.no_labels,
        keep_frames=options.pictures if options.out else (),
        known=[load_evaluation(folder) for folder in options.reuse],
        progress=False if options.quiet else None,
        link=link,
    )
    print(terminal_table(evaluation, details=options.details), end="")
    equal = equal_quality_table(evaluation, options.at) if options.at else ""
    print(f"\n{equal}" if equal else "", end="")
    if options.anchor:
        print_bd_rates(evaluation, options.anchor)
    if options.out:
        for path in write_results(evaluation, options.out, details=options.details, more=equal):
            print(f"written: {path}")
    return 0
