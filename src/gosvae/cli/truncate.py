"""`gosvae truncate`: streams made shorter by whole slices, without a model."""

from __future__ import annotations

import argparse
from dataclasses import dataclass

from gosvae import bitstream
from gosvae.cli.batch import Result, Work, add_batch, run_all, write_result
from gosvae.cli.options import parse_kib
from gosvae.cli.streams import SUFFIX, plan_of, read_stream
from gosvae.cli.targets import Job, Naming, files_below
from gosvae.codecs.truncation import truncate
from gosvae.errors import BitstreamError, RateError
from gosvae.units import kib, rate_bpp


def add_truncate(parser: argparse.ArgumentParser) -> None:
    """Add the options of `gosvae truncate`."""
    parser.add_argument(
        "sources", nargs="+", metavar="FILE",
        help="files that gosvae compress wrote, folders of them, or - for standard input",
    )  # fmt: skip
    parser.add_argument("--kib", type=parse_kib, metavar="KIB", required=True, help="largest size of a result")
    parser.add_argument(
        "-o", "--out",
        help="output file; folder for several (FOLDER/ makes it); - for standard output; default: NAME.KIBKiB.gos "
        "beside NAME.gos",
    )  # fmt: skip
    add_batch(parser)
    parser.set_defaults(run=run_truncate)


@dataclass
class _Truncating(Work):
    """Makes streams shorter."""

    kib: float

    def prepare(self) -> None:
        pass

    def __call__(self, job: Job) -> Result:
        data = read_stream(job.source)
        try:
            shorter = truncate(data, self.kib)
        except (BitstreamError, RateError) as error:
            raise type(error)(f"{job.shown}: {error}", argument=error.argument) from None
        write_result(job.target, shorter)
        before, after = bitstream.salvage(data), bitstream.salvage(shorter)
        header = after.header
        facts = {
            "width": header.width,
            "height": header.height,
            "bytes": len(shorter),
            "bpp": rate_bpp(len(shorter), header.height, header.width),
            "slices": len(after.payloads),
            "slices_before": len(before.payloads),
        }
        slices = f"{len(after.payloads)} of {len(before.payloads)} slices"
        line = f"{kib(len(data)):.2f} -> {kib(len(shorter)):.2f} KiB, {slices}"
        return Result(job, len(data), len(shorter), facts, line)


def run_truncate(options: argparse.Namespace) -> int:
    """Make streams shorter."""
    naming = Naming(
        SUFFIX,
        beside=lambda source: source.with_name(f"{source.stem}.{options.kib:g}KiB{SUFFIX}"),
        find=lambda folder: files_below(folder, SUFFIX),
    )
    return run_all(_Truncating(options.kib), plan_of(options, naming), options)
