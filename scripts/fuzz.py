#!/usr/bin/env python3
"""Feed mutated streams to every codec, or mutated datagrams to a receiver, and exit with 1 on any finding.

scripts/fuzz.py --count 200000 --seed 1 --json streams-1.json
scripts/fuzz.py --datagrams --count 100000 --seed 1 --json datagrams-1.json
scripts/fuzz.py --guided --count 100000   # guided by coverage, with atheris (pip install atheris)
scripts/fuzz.py --sum *.json              # what several runs with different seeds have tried in all

A run takes one processor for about 2.5 ms for each stream, 1 ms for each datagram, and 10 s at the start. Runs with
different seeds add up, at the same time or one after the other.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

TESTS = Path(__file__).resolve().parents[1] / "tests"
sys.path[:0] = [str(TESTS), str(TESTS / "fuzz")]

if TYPE_CHECKING:
    from fuzzing import Report


def main() -> int:
    """Run the fuzzer, print a table, and write it as JSON if a file is named."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--count", type=int, default=5000, help="number of streams or datagrams to try")
    parser.add_argument("--datagrams", action="store_true", help="send datagrams to a receiver (without --first)")
    parser.add_argument("--guided", action="store_true", help="let atheris choose the streams by what they reach")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--first", type=int, default=0, help="number of the first stream, to repeat a finding")
    parser.add_argument("--json", type=Path, help="file for the result")
    parser.add_argument("--sum", type=Path, nargs="+", metavar="FILE", help="add up results of --json and run nothing")
    options = parser.parse_args()
    if options.sum is not None:
        return add_up([json.loads(path.read_text(encoding="utf-8")) for path in options.sum])

    torch.set_num_threads(1)  # the networks are small: more threads only wait for each other

    def progress(number: int) -> None:
        if sys.stderr.isatty() or number % 10_000 == 0:
            print(f"\r{number}", end="", file=sys.stderr, flush=True)

    if options.guided:
        from guided import run_guided  # atheris must see the imports of what it measures

        return run_guided(options.count, seed=options.seed)
    from fuzz_datagrams import run_datagram_fuzz
    from fuzzing import run_fuzz

    if options.datagrams:
        report, counters = run_datagram_fuzz(options.count, seed=options.seed, progress=progress)
    else:
        report = run_fuzz(options.count, seed=options.seed, first=options.first, progress=progress)
        counters = {}
    print(file=sys.stderr)
    print(describe(report))
    for name, number in counters.items():
        print(f"  {number:>8}  {name}")
    if options.json is not None:
        options.json.write_text(json.dumps(as_tree(report, options), indent=1) + "\n", encoding="utf-8")
    return 1 if report.findings else 0


def totals(report: Report) -> Counter[str]:
    """Return the numbers of outcomes over all kinds of mutation."""
    result: Counter[str] = Counter()
    for (_, outcome), number in report.outcomes.items():
        result[outcome] += number
    return result


def describe(report: Report) -> str:
    """Return the result as lines of text."""
    kinds: Counter[str] = Counter()
    for (kind, _), number in report.outcomes.items():
        kinds[kind] += number
    frames = kinds.pop("frames", 0)
    what = (
        f"{sum(kinds.values())} datagrams, {frames} frames given back" if frames else f"{sum(kinds.values())} streams"
    )
    lines = [what, "", "mutations"]
    lines += [f"  {number:>8}  {kind}" for kind, number in kinds.most_common()]
    lines += ["", "codecs"] + [f"  {number:>8}  {name}" for name, number in report.by_target.most_common()]
    lines += ["", "outcomes"] + [f"  {number:>8}  {outcome}" for outcome, number in totals(report).most_common()]
    peak = "not measured" if report.peak_bytes is None else f"{report.peak_bytes / 2**20:.1f} MiB"
    seconds, slowest = report.slowest_seconds
    lines += ["", f"some slices saved: {report.salvaged}; memory: {peak}"]
    lines += [f"processor time: {report.seconds:.0f} s; slowest: {seconds:.2f} s (number {slowest})"]
    share, worst = report.largest_share
    lines += [f"largest share of 20 ms + 2 us a pixel until refused or decoded: {share:.2f} (number {worst})"]
    lines += [f"streams that took more than that: {report.over}"]
    return "\n".join(lines + [f"FINDING {line}" for line in report.findings[:20]])


def as_tree(report: Report, options: argparse.Namespace) -> dict[str, object]:
    """Return the result for a JSON file."""
    return {
        "what": "datagrams" if options.datagrams else "streams",
        "count": options.count,
        "seed": options.seed,
        "first": options.first,
        "by_target": dict(report.by_target.most_common()),
        "outcomes": dict(totals(report).most_common()),
        "by_mutation": [[kind, outcome, n] for (kind, outcome), n in sorted(report.outcomes.items())],
        "salvaged": report.salvaged,
        "seconds": report.seconds,
        "slowest_seconds": report.slowest_seconds[0],
        "largest_share": report.largest_share[0],
        "over": report.over,
        "peak_bytes": report.peak_bytes,
        "findings": report.findings,
    }


def add_up(results: list[dict[str, Any]]) -> int:
    """Print what several runs have tried in all; exit with 1 if one has a finding or two have the same seed."""
    print("| what | runs | tried | seeds | processor time | largest share | over | findings |")
    print("|---|--:|--:|---|--:|--:|--:|--:|")
    repeated = False
    for what in sorted({result["what"] for result in results}):
        runs = [result for result in results if result["what"] == what]
        seeds = sorted((run["seed"], run["first"]) for run in runs)
        repeated |= len(set(seeds)) < len(seeds)
        sums = {key: sum(run[key] for run in runs) for key in ("count", "seconds", "over")}
        share = max(run["largest_share"] for run in runs)
        named = f"{seeds[0][0]} to {seeds[-1][0]}" if len(seeds) > 1 else str(seeds[0][0])
        print(
            f"| {what} | {len(runs)} | {sums['count']:,} | {named} | {sums['seconds']:.0f} s | {share:.2f} | "
            f"{sums['over']} | {sum(len(run['findings']) for run in runs)} |"
        )
    if repeated:
        print("two runs have the same seed and begin with the same number: they tried the same")
    return int(repeated or any(result["findings"] for result in results))


if __name__ == "__main__":
    raise SystemExit(main())
