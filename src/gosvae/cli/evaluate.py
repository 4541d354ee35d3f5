"""`gosvae evaluate`: measure codecs with an expert on a data set, with classical codecs at similar bytes."""

from __future__ import annotations

import argparse
import sys
from contextlib import nullcontext
from pathlib import Path

import torch

from gosvae.channels import load_channel
from gosvae.cli.loading import DEFAULT_LOADING, Loading, add_loading, experts_of, loading_of
from gosvae.cli.options import (
    DATA_HELP,
    EXPERT_HELP,
    add_any_inception,
    add_device,
    add_geometry,
    add_packets,
    add_perceptual,
    add_precision,
    device_of,
    features_of,
    geometry_of,
    perceptual_of,
    plot_or_note,
    precision_of,
    stream_options,
)
from gosvae.cli.sweeps import check_anchor, image_points, print_bd_rates
from gosvae.codecs.base import ImageCodec
from gosvae.codecs.classical import CLASSICAL_CODECS, load_classical
from gosvae.codecs.gesco import give_expert
from gosvae.codecs.registry import DEFAULT_CODEC, LABEL_MAP, split_budget
from gosvae.codecs.slices import DEFAULT_OPTIONS, StreamOptions
from gosvae.datasets.common import in_classes
from gosvae.datasets.mixture import load_prepared
from gosvae.datasets.subset import EvenlySpaced
from gosvae.errors import ConfigError
from gosvae.evaluation.bd_rate import ENVELOPE
from gosvae.evaluation.evaluation import Evaluation
from gosvae.evaluation.features import FRECHET_NAMES
from gosvae.evaluation.pictures import draw_pictures
from gosvae.evaluation.plots import plot_rate_task
from gosvae.evaluation.protocol import CodecEntry, evaluate
from gosvae.evaluation.results import ImageLog, save_evaluation
from gosvae.evaluation.tables import markdown_table, terminal_table
from gosvae.evaluation.transmission import LinkSettings
from gosvae.experts.base import Expert
from gosvae.extras import require
from gosvae.files import write_atomically

EXAMPLE = """examples:
  gosvae evaluate gosvae-camvid --data camvid:PATH --baselines jpeg avif --out results
  gosvae evaluate runs/mine avif:30 --data folder:my-images --expert my-network.pt2 --trust
  gosvae evaluate runs/mine --data folder:my-images --expert embedded --expert boxes=detector.onnx
  gosvae evaluate gosvae-compact-camvid --data streets:50 --sweep jpeg avif --anchor jpeg
  gosvae evaluate gosvae-variable-camvid:1.5KiB avif:1.5KiB --data camvid:PATH --channel "packet-loss p=0.1" --fec 0.25
"""


def add_evaluate(parser: argparse.ArgumentParser) -> None:
    """Add the options of `gosvae evaluate`."""
    parser.epilog = EXAMPLE
    parser.add_argument(
        "codecs",
        nargs="*",
        help="names from gosvae list, checkpoint folders, jpeg:QUALITY, VARIABLE:LEVEL, avif:1.5KiB (for each image), "
        f"or label-map (sends the class map of --expert); default: {DEFAULT_CODEC}, with --sweep none",
    )
    parser.add_argument("--data", required=True, metavar="DATA", help=DATA_HELP)
    parser.add_argument(
        "--expert",
        action="append",
        metavar="EXPERT",
        help=f"{EXPERT_HELP}; repeatable, as NAME=EXPERT: those beside the first segmentation network judge, too",
    )
    add_loading(parser)
    parser.add_argument(
        "--baselines", nargs="*", default=[], choices=list(CLASSICAL_CODECS), metavar="CODEC",
        help="classical codecs (gosvae list codecs) at the bytes of the codecs of --match, image by image",
    )  # fmt: skip
    parser.add_argument(
        "--match", nargs="*", metavar="CODEC", help="codecs whose bytes the baselines match; default: the first codec"
    )
    parser.add_argument(
        "--sweep", nargs="*", default=[], metavar="CODEC",
        help="classical and variable-rate codecs to measure over their range of qualities, as curves of the plot",
    )  # fmt: skip
    parser.add_argument(
        "--curve", metavar="NAME", help="join the codecs as the rate points of one curve with this name"
    )
    parser.add_argument(
        "--anchor",
        metavar="CURVE",
        help="print the BD-rate of all curves against this one, which --sweep or --curve names, or against the "
        f"{ENVELOPE} of all classical codecs of the evaluation",
    )
    parser.add_argument("--limit", type=int, metavar="N", help="measure N images only, evenly spaced")
    parser.add_argument("--no-labels", action="store_true", help="measure the agreement with the expert only")
    parser.add_argument(
        "--pictures",
        nargs="*",
        type=int,
        default=[0],
        metavar="INDEX",
        help="numbers of the images that the picture shows",
    )
    parser.add_argument(
        "--frechet", choices=("none", "auto", *FRECHET_NAMES), default="none", metavar="NETWORK",
        help="network for a Frechet distance between the sets of images: inception (FID), squeezenet, expert, or auto "
        "(the first of them that is available)",
    )  # fmt: skip
    add_any_inception(parser)
    parser.add_argument(
        "--effort",
        type=int,
        default=DEFAULT_OPTIONS.effort,
        metavar="N",
        help="effort of variable-rate codecs, 0 to 9, as in gosvae compress",
    )
    add_link(parser)
    parser.add_argument("--details", action="store_true", help="show more columns: payload, zero-order entropy, times")
    parser.add_argument("--out", type=Path, metavar="FOLDER", help="folder for results, table, picture and plot")
    parser.add_argument("--quiet", action="store_true", help="show no progress bar")
    add_geometry(parser)
    add_perceptual(parser, default="none")
    add_device(parser)
    add_precision(parser)
    parser.set_defaults(run=run_evaluate)


def add_link(parser: argparse.ArgumentParser) -> None:
    """Add `--channel` and the options that belong to it."""
    parser.add_argument(
        "--channel", metavar="CHANNEL",
        help="send every stream in packets over this channel, such as 'packet-loss p=0.1' or 'awgn snr_db=8'; all "
        "bytes and budgets are those on the air then",
    )  # fmt: skip
    parser.add_argument(
        "--fec", type=float, default=0.0, metavar="SHARE", help="number of repair packets for each packet, such as 0.25"
    )
    add_packets(parser)


def link_of(options: argparse.Namespace) -> LinkSettings | None:
    """Return the link that the options ask for; None without a channel.

    Raises:
        ConfigError: an unknown channel, or repair packets without one.
    """
    if options.channel is None:
        if options.fec:
            raise ConfigError("--fec needs a channel: add --channel 'packet-loss p=0.1'")
        return None
    return LinkSettings(load_channel(options.channel), options.fec, options.packets, options.mtu, options.seed)


def entries_of(
    options: argparse.Namespace, device: torch.device, expert: Expert | None, loading: Loading = DEFAULT_LOADING
) -> list[CodecEntry]:
    """Return codecs (their networks on a device), matched baselines and sweeps as entries of an evaluation.

    `label-map` uses the expert of the evaluation, `label-map:EXPERT` the expert that it names.

    Raises:
        ConfigError: `--match` names no codec of the evaluation, or `--anchor` names none of its curves.
    """
    entries: list[CodecEntry] = []
    specs = options.codecs or ([] if options.sweep else [DEFAULT_CODEC])
    if options.baselines and not specs:
        raise ConfigError("--baselines take the bytes of a codec: name one, or leave them to --sweep")
    for spec in specs:
        if spec == LABEL_MAP and expert is None:
            raise ConfigError("label-map sends a class map: give it a segmentation expert, as in label-map:EXPERT")
        full = f"{spec}:{expert.info.source}" if spec == LABEL_MAP and expert is not None else spec
        name, budget_bytes = split_budget(full)
        codec = _load(name, options, device, loading)
        if budget_bytes is not None:
            entries.append(CodecEntry(spec, codec, budget_bytes=budget_bytes, curve=options.curve))
            continue
        taken = codec.name in [entry.label for entry in entries]  # two runs of the same recipe have the same name
        entries.append(CodecEntry(spec if ":" in spec or taken else codec.name, codec, curve=options.curve))
    by_spec = dict(zip(specs, entries, strict=True))
    matches = options.match if options.match is not None else specs[:1]
    for match in matches:
        if match not in by_spec:
            raise ConfigError(f"--match {match}: it is not among the codecs {', '.join(specs)}")
        label = by_spec[match].label
        entries += [
            CodecEntry(f"{name} at {label}" if len(matches) > 1 else name, load_classical(name), match=label)
            for name in options.baselines
        ]
    for name in options.sweep:
        curves = [entry.curve for entry in entries]
        curve, points = image_points(name, lambda spec: _load(spec, options, device, loading), taken=curves)
        entries += [CodecEntry(label, swept, curve=curve) for label, swept in points]
    check_anchor(options.anchor, {entry.curve: entry.codec.name for entry in entries})
    return entries


def _load(spec: str, options: argparse.Namespace, device: torch.device, loading: Loading) -> ImageCodec:
    precision = precision_of(spec, options)
    return loading.load_codec(spec, options=_options_of(spec, options), device=device, precision=precision)


def _options_of(spec: str, options: argparse.Namespace) -> StreamOptions:
    """Return the options of a codec's streams: `--effort` if the codec has it, and slices if packets may be lost."""
    slices = 1 if options.channel is None else options.packets
    return stream_options(spec, effort=options.effort, slices=slices)


def write_results(evaluation: Evaluation, folder: Path, *, details: bool = False, more: str = "") -> list[Path]:
    """Write result JSONs, the table (and `more` Markdown below it), the picture and the plot.

    Return the paths of the files to open.
    """
    save_evaluation(evaluation, folder)
    paths = [folder / "table.md"]
    write_atomically(paths[0], (markdown_table(evaluation, details=details) + (more and f"\n{more}")).encode())
    if evaluation.kept:
        paths.append(folder / "pictures.png")
        draw_pictures(evaluation, paths[-1])
    if len(evaluation.rows) > 2 and evaluation.reference.agreement_miou is not None:
        with plot_or_note():
            plot_rate_task(evaluation, [folder / "rate-task.png", folder / "rate-task.svg"])
            paths.append(folder / "rate-task.png")
    return paths


def run_evaluate(options: argparse.Namespace) -> int:
    """Evaluate the codecs and print the table; return 1 if images were left out because they cannot be read."""
    if options.limit is not None and options.limit < 1:
        raise ConfigError(f"--limit must be at least 1, got {options.limit}")
    if options.anchor:
        require("plot", "a BD-rate")
    dataset = load_prepared(options.data, default_split="val", geometry=geometry_of(options))
    if options.limit is not None:
        dataset = EvenlySpaced(dataset, options.limit)
    device, link, loading = device_of(options), link_of(options), loading_of(options)
    expert, judges = experts_of(options, device, loading)
    if expert is not None:
        dataset = in_classes(dataset, expert.info.class_names)
    features = features_of(options, expert, device)
    entries, perceptual = entries_of(options, device, expert, loading), perceptual_of(options, device)
    if expert is not None:
        for entry in entries:
            give_expert(entry.codec, expert)
    # Made before anything is measured: it can be refused now, and rows go there as they come.
    images = ImageLog(options.out) if options.out else None
    with images or nullcontext():
        evaluation = evaluate(
            entries,
            dataset,
            expert,
            judges=judges,
            perceptual=perceptual,
            frechet=features,
            use_labels=not options.no_labels,
            keep_images=[i for i in options.pictures if i < len(dataset)] if options.out else (),
            link=link,
            progress=False if options.quiet else None,
            skip_damaged=True,
            on_image=images.add if images else None,
        )
    print(terminal_table(evaluation, details=options.details), end="")
    if options.anchor:
        print_bd_rates(evaluation, options.anchor)
    if options.out:
        for path in write_results(evaluation, options.out, details=options.details):
            print(f"written: {path}")
    if images is not None:
        images.done()
    skipped = len(evaluation.provenance.skipped)
    if skipped:
        print(f"gosvae: {skipped} of {len(dataset)} images cannot be read and are left out", file=sys.stderr)
    return 1 if skipped else 0
