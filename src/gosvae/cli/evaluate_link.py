"""`gosvae evaluate-link`: measure systems over channels that get worse, at equal bytes on the air."""

from __future__ import annotations

import argparse
from pathlib import Path

import torch

from gosvae.channels.loss import PacketLoss
from gosvae.cli.loading import DEFAULT_LOADING, Loading, add_loading, loading_of
from gosvae.cli.options import (
    DATA_HELP,
    EXPERT_HELP,
    add_device,
    add_geometry,
    add_packets,
    device_of,
    geometry_of,
    plot_or_note,
    stream_options,
)
from gosvae.codecs.base import RateControlledCodec
from gosvae.codecs.gesco import give_expert
from gosvae.codecs.registry import DEFAULT_CODEC, split_budget
from gosvae.datasets.mixture import load_prepared
from gosvae.datasets.subset import EvenlySpaced
from gosvae.errors import ConfigError
from gosvae.evaluation.link_report import link_tables, plot_link
from gosvae.evaluation.link_sweep import AXES, Sweep, System, save_sweep, sweep_link
from gosvae.evaluation.transmission import LinkSettings
from gosvae.files import write_atomically
from gosvae.units import bytes_from_kib

EXAMPLE = """examples:
  gosvae evaluate-link gosvae-variable-camvid avif jpeg --kib 1.5 --fec 0 0.25 --data camvid:PATH --out link
  gosvae evaluate-link gosvae-compact-camvid --data streets:20 --axes loss --points 0 0.1 0.3
"""


def add_evaluate_link(parser: argparse.ArgumentParser) -> None:
    """Add the options of `gosvae evaluate-link`."""
    parser.epilog = EXAMPLE
    parser.add_argument(
        "codecs", nargs="*", default=[DEFAULT_CODEC], help="names from gosvae list, or checkpoint folders"
    )
    parser.add_argument("--data", required=True, metavar="DATA", help=DATA_HELP)
    parser.add_argument("--expert", default="embedded", metavar="EXPERT", help=EXPERT_HELP)
    add_loading(parser)
    parser.add_argument(
        "--kib", type=float, default=1.5, metavar="KIB",
        help="largest size of an image on the air, with headers and repair packets, for codecs of variable rate that "
        "name no budget of their own (NAME:2KiB)",
    )  # fmt: skip
    parser.add_argument(
        "--fec", nargs="+", type=float, default=[0.0, 0.25], metavar="SHARE",
        help="numbers of repair packets for each packet; every codec is measured with each of them",
    )  # fmt: skip
    parser.add_argument(
        "--axes",
        nargs="+",
        choices=list(AXES),
        default=["loss"],
        metavar="AXIS",
        help=f"impairments to sweep: {', '.join(AXES)}",
    )
    parser.add_argument(
        "--points",
        nargs="+",
        type=float,
        metavar="X",
        help="values to measure on a single axis; default: those of the axis",
    )
    parser.add_argument(
        "--repeats", type=int, default=1, metavar="N", help="number of times that each image is sent at each point"
    )
    parser.add_argument("--limit", type=int, metavar="N", help="measure N images only, evenly spaced")
    parser.add_argument("--no-labels", action="store_true", help="measure the agreement with the expert only")
    parser.add_argument("--out", type=Path, metavar="FOLDER", help="folder for results, tables and plots")
    parser.add_argument("--quiet", action="store_true", help="show no progress bar")
    add_packets(parser)
    add_geometry(parser)
    add_device(parser)
    parser.set_defaults(run=run_evaluate_link)


def systems_of(options: argparse.Namespace, device: torch.device, loading: Loading = DEFAULT_LOADING) -> list[System]:
    """Return every codec with every overhead.

    Raises:
        ConfigError: a codec that cannot be loaded, or a budget that is not above 0.
    """
    if options.kib <= 0:
        raise ConfigError(f"--kib {options.kib}: expected more than 0")
    systems = []
    for spec in options.codecs:
        name, budget_bytes = split_budget(spec)
        codec = loading.load_codec(name, options=stream_options(name, slices=options.packets), device=device)
        free = isinstance(codec, RateControlledCodec) and ":" not in name
        if budget_bytes is None and free:
            budget_bytes = bytes_from_kib(options.kib)
        for overhead in options.fec:
            label = f"{spec} + {100 * overhead:g} % FEC" if overhead else spec
            systems.append(System(label, codec, overhead, budget_bytes))
    return systems


def write_sweep(sweep: Sweep, folder: Path) -> list[Path]:
    """Write the result, the tables and a plot for each axis; return the paths of the files to open."""
    save_sweep(sweep, folder)
    paths = [folder / "table.md"]
    write_atomically(paths[0], link_tables(sweep).encode())
    for axis in dict.fromkeys(row.axis for row in sweep.rows):
        with plot_or_note():
            plot_link(sweep, axis, [folder / f"{axis}.png", folder / f"{axis}.svg"])
            paths.append(folder / f"{axis}.png")
    return paths


def run_evaluate_link(options: argparse.Namespace) -> int:
    """Measure every system on every channel and print the tables."""
    if options.points is not None and len(options.axes) > 1:
        raise ConfigError(f"--points are those of one axis, not of {', '.join(options.axes)}: choose one --axes")
    if options.limit is not None and options.limit < 1:
        raise ConfigError(f"--limit must be at least 1, got {options.limit}")
    dataset = load_prepared(options.data, default_split="val", geometry=geometry_of(options))
    if options.limit is not None:
        dataset = EvenlySpaced(dataset, options.limit)
    device, loading = device_of(options), loading_of(options)
    expert = loading.load_expert(options.expert)
    expert.to(device)
    systems = systems_of(options, device, loading)
    for system in systems:
        give_expert(system.codec, expert)
    # Each point has its own channel and each system its own overhead; those of the settings are not used.
    link = LinkSettings(PacketLoss(p=0.0), 0.0, options.packets, options.mtu, options.seed)
    sweep = sweep_link(
        systems,
        dataset,
        expert,
        dict.fromkeys(options.axes, options.points),
        link,
        repeats=options.repeats,
        use_labels=not options.no_labels,
        progress=False if options.quiet else None,
    )
    print(link_tables(sweep), end="")
    if options.out:
        for path in write_sweep(sweep, options.out):
            print(f"written: {path}")
    return 0
