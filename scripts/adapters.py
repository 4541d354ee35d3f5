#!/usr/bin/env python3
"""Compare an adapter with a full fine-tuning of the decoder at equal CPU time, for experts that are new to a codec.

    scripts/adapters.py gosvae-variable-camvid --expert fastestdet.onnx --seen camvid:PATH@train \\
        --data camvid:PATH@val --minutes 5 --kib 1 --out adapters.md

Both trainings are those of `gosvae adapt` with the number of steps that a trial says to fit into the time. The time is
that of the processor in this process, with one thread, so that other work on the machine does not change the result.
The streams of the images of `--data` are made once: neither training changes them. Each row of the table has the
agreement of the expert's results on the reconstructions with its own on the originals. The last column is the gain of
the task's first measure over the codec as it is, as a share of the gain of the full fine-tuning.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

import torch

from gosvae.codecs.base import ImageCodec, RateControlledCodec
from gosvae.codecs.registry import load_codec, load_trained_codec
from gosvae.codecs.trained import TrainedCodec
from gosvae.config import apply_overrides, parse, to_tree
from gosvae.datasets.base import Dataset
from gosvae.datasets.mixture import load_prepared
from gosvae.datasets.subset import EvenlySpaced
from gosvae.errors import ConfigError
from gosvae.evaluation.judges import Verdicts
from gosvae.experts.base import TaskExpert
from gosvae.experts.registry import load_task_expert
from gosvae.files import write_atomically
from gosvae.recipes.run import load_experts
from gosvae.tasks.group import ExpertGroup, balance
from gosvae.tasks.judges import Judges, Results
from gosvae.tasks.registry import load_task
from gosvae.tensors import image_to_tensor
from gosvae.training.adapters import adapt_codec, adapter_stage
from gosvae.training.machine.config import RunConfig, StageConfig

TRIAL_STEPS = (2, 10)


@dataclass(frozen=True)
class Way:
    """A way to adapt: its name in the table, the rank of the changes (None: full), and settings of the stage."""

    name: str
    rank: int | None
    overrides: tuple[str, ...]


@dataclass(frozen=True)
class Seen:
    """An image of the evaluation: its stream, and what the expert sees on the original."""

    stream: bytes
    results: Results


class Comparison:
    """A codec, an expert, and the images of both the trainings and the evaluation."""

    def __init__(self, codec: TrainedCodec, name: str, expert: str, options: argparse.Namespace) -> None:
        self.codec, self.name, self.minutes = codec, name, float(options.minutes)
        self.expert: TaskExpert = load_experts([expert])
        self.seen: Dataset = load_prepared(
            options.seen, default_split="train", centre_crop=False, cache_bytes=1024 * 2**20
        )
        if isinstance(self.expert, ExpertGroup):
            balance(self.expert, load_prepared(options.seen, default_split="train"))
        self.judge = load_task_expert(expert, gradients=False)
        self.judges = Judges({"": self.judge})
        self.columns = load_task(self.judge).columns
        self.images = self._streams(
            EvenlySpaced(load_prepared(options.data, default_split="val"), options.limit), options
        )

    def _streams(self, dataset: Dataset, options: argparse.Namespace) -> list[Seen]:
        if not isinstance(self.codec, RateControlledCodec):
            raise ConfigError(f"{self.name} has no rate to set")
        found = []
        for index in range(len(dataset)):
            image = dataset[index].image_uint8_HW3
            with torch.inference_mode():
                stream = self.codec.compress_to_budget(image, int(1024 * options.kib))
            found.append(Seen(stream, self.judges.see(image_to_tensor(image))))
        return found

    def agreement(self, codec: ImageCodec) -> list[float]:
        """Measures of the task on the reconstructions of a codec."""
        verdicts = Verdicts(self.judges)
        for each in self.images:
            with torch.inference_mode():
                picture = codec.decompress(each.stream)
            verdicts.update(each.results, self.judges.see(image_to_tensor(picture)))
        values = verdicts.values()
        return [float(values[f" {column}"] or 0.0) for column in self.columns]

    def train(self, way: Way, folder: Path) -> tuple[ImageCodec, int, float]:
        """Train as long as the time allows; return the codec, the number of steps and the CPU minutes."""
        short_s, long_s = (self._run(way, steps, folder / f"trial-{steps}") for steps in TRIAL_STEPS)
        step_s = (long_s - short_s) / (TRIAL_STEPS[1] - TRIAL_STEPS[0])  # without what is loaded once
        steps = max(1, int(60.0 * self.minutes / step_s))
        minutes = self._run(way, steps, folder / "run") / 60.0
        return load_codec(folder / "run"), steps, minutes

    def _run(self, way: Way, steps: int, folder: Path) -> float:
        """Train for a number of steps and return the CPU seconds."""
        began_s = time.process_time()
        tree = apply_overrides(to_tree(adapter_stage(steps)), list(way.overrides))
        stage = parse(StageConfig, tree, source=way.name)
        run = RunConfig(accelerator="cpu", tensorboard=False, save_minutes=1e6)
        outcome = adapt_codec(
            self.codec, self.name, self.expert, self.seen, stage, run, folder, rank=way.rank, progress=False
        )
        if not outcome.complete:
            raise KeyboardInterrupt
        return time.process_time() - began_s


def rows(comparison: Comparison, label: str, ways: Sequence[Way]) -> list[list[str]]:
    """Lines of the table for one expert: the codec as it is, then each way; the full fine-tuning is the last."""
    base = comparison.agreement(comparison.codec)
    found, gains = [[label, "as it is", "-", "-", "-", *(f"{v:.3f}" for v in base), "-"]], []
    print(found[0], file=sys.stderr, flush=True)
    for way in ways:
        with TemporaryDirectory() as folder:
            codec, steps, minutes = comparison.train(way, Path(folder))
            size = (Path(folder) / "run" / "adapter.safetensors").stat().st_size
        values = comparison.agreement(codec)
        gains.append(values[0] - base[0])
        cells = [f"{size / 1024:.0f}", f"{steps}", f"{minutes:.2f}", *(f"{v:.3f}" for v in values)]
        found.append([label, way.name, *cells])
        print(found[-1], file=sys.stderr, flush=True)
    for row, gain in zip(found[1:], gains, strict=True):
        row.append(f"{gain / gains[-1]:.2f}" if gains[-1] > 0 else "-")
    return found


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("codec", help="a VQ or variable-rate codec")
    parser.add_argument(
        "--expert", nargs="+", required=True, help="experts of any task that the codec has not imitated"
    )
    parser.add_argument("--seen", required=True, help="images of the trainings, such as camvid:PATH@train")
    parser.add_argument("--data", required=True, help="images of the evaluation, such as camvid:PATH@val")
    parser.add_argument("--limit", type=int, default=1000, help="number of images of the evaluation, evenly spaced")
    parser.add_argument("--kib", type=float, default=1.0, help="size of a stream")
    parser.add_argument("--minutes", type=float, default=5.0, help="CPU minutes of each training")
    parser.add_argument("--rank", type=int, default=4, help="rank of the adapter")
    parser.add_argument("--set", action="append", default=[], help="setting of the adapter's stage; repeatable")
    parser.add_argument("--set-full", action="append", default=[], help="setting of the full fine-tuning; repeatable")
    parser.add_argument("--only", choices=("adapter", "full"), help="one way only")
    parser.add_argument("--out", type=Path, required=True, help="Markdown file of the table")
    options = parser.parse_args()
    torch.set_num_threads(1)
    ways = [
        Way(f"adapter of rank {options.rank}", options.rank, tuple(options.set)),
        Way("full fine-tuning", None, tuple(options.set_full)),
    ]
    ways = [way for way in ways if options.only is None or (way.rank is None) == (options.only == "full")]
    codec = load_trained_codec(options.codec)
    lines: list[str] = []
    for expert in options.expert:
        comparison = Comparison(codec, options.codec, expert, options)
        columns = ["expert", "decoder", "KiB", "steps", "CPU minutes", *comparison.columns, "share of the gain"]
        lines += [f"| {' | '.join(columns)} |", "|---|---|" + "--:|" * (len(columns) - 2)]
        lines += [f"| {' | '.join(row)} |" for row in rows(comparison, comparison.judge.info.name, ways)] + [""]
        write_atomically(options.out, "\n".join(lines).encode())
    print("\n".join(lines))
    return 0


if __name__ == "__main__":
    sys.exit(main())
