"""The training loop: one for the CPU, one accelerator or many (Lightning Fabric), for codecs and experts alike.

A stopped run continues with the same command: the state is saved every few minutes, at a stage's end, on Ctrl-C and
on SIGTERM, and batches are a function of the step, so that on the CPU the losses that follow are bit for bit those of
a run that was never stopped.
"""

from __future__ import annotations

import contextlib
import copy
import hashlib
import json
import math
import signal
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn
from tqdm import tqdm

from gosvae.config import to_tree
from gosvae.datasets.loader import Batch, TrainingBatches
from gosvae.errors import CheckpointError, ConfigError, TrainingError, unknown_name
from gosvae.training.config import RunConfig, StageConfig
from gosvae.training.records import Records
from gosvae.training.resume import load_newest_state, save_state
from gosvae.training.task import TrainingTask

if TYPE_CHECKING:
    from lightning_fabric import Fabric

StageEnd = Callable[[StageConfig, nn.Module, float], None]
"""Called on the first device at the end of a stage with the averaged network and the minutes of the stage."""


@dataclass(frozen=True)
class Outcome:
    """How a training ended: `complete` is False when time or a signal ended it; the same command continues it."""

    complete: bool
    step: int


@dataclass
class Progress:
    """Where a run is: the stage's number, steps done in it, and the minutes spent in it over all sessions."""

    stage: int = 0
    step: int = 0
    minutes: float = 0.0


def learning_rate(stage: StageConfig, step: int) -> float:
    """Rate at a step: linear warm-up, then a cosine from `learning_rate` to `final_rate` times it."""
    if step < stage.warmup_steps:
        return stage.learning_rate * (step + 1) / stage.warmup_steps
    done = (step - stage.warmup_steps) / max(1, stage.steps - stage.warmup_steps)
    cosine = 0.5 * (1.0 + math.cos(math.pi * min(1.0, done)))
    return stage.learning_rate * (stage.final_rate + (1.0 - stage.final_rate) * cosine)


def make_fabric(run: RunConfig) -> Fabric:
    """Fabric with the run's devices, launched; the precision is `Trainer`'s, see `_step`.

    Raises:
        ConfigError: this machine does not have the devices.
    """
    from lightning_fabric import Fabric  # imported here: it takes seconds to load
    from lightning_fabric.utilities.exceptions import MisconfigurationException

    strategy = "ddp" if run.devices > 1 else "auto"
    try:
        fabric = Fabric(accelerator=run.accelerator, devices=run.devices, precision="32-true", strategy=strategy)
    except (RuntimeError, ValueError, MisconfigurationException) as error:
        reason = " ".join(str(error).split())
        raise ConfigError(f"cannot train on {run.devices} device(s) of {run.accelerator!r}: {reason}") from None
    fabric.launch()
    return fabric


class Trainer:
    """Runs the stages of one training in a folder.

    `inputs` names the data and the frozen networks, such as fingerprints: a run continues with the same only.
    """

    def __init__(
        self, task: TrainingTask, stages: Sequence[StageConfig], run: RunConfig, folder: Path, *, inputs: str = ""
    ) -> None:
        for stage in stages:
            for term in stage.weights:
                if term not in task.known_terms:
                    raise ConfigError(f"stage {stage.name!r}: {unknown_name('loss term', term, task.known_terms)}")
        self._task, self._stages, self._run, self._folder = task, tuple(stages), run, folder
        self._inputs = inputs
        self._states = folder / "resume"
        self._progress = Progress()
        self._stop_requested = False

    @property
    def _key(self) -> str:
        """What must be the same for a run to continue: inputs, stages, seed, precision, devices, network's shapes."""
        shapes = {name: tuple(value.shape) for name, value in self._task.network.state_dict().items()}
        run = [self._run.seed, self._run.precision, self._run.devices, self._inputs]
        what = [[to_tree(s) for s in self._stages], run, shapes]
        return hashlib.sha256(json.dumps(what, sort_keys=True).encode()).hexdigest()

    def train(
        self,
        batches_of: Callable[[StageConfig, int, int], TrainingBatches],
        on_stage_end: StageEnd,
        *,
        max_minutes: float | None = None,
        progress: bool = True,
    ) -> Outcome:
        """Train to the end of the last stage, or until time or a signal ends it.

        Args:
            batches_of: batches of a stage for (stage, rank, world size).
            on_stage_end: keeps the stage's result.
            max_minutes: of this call; the run is saved and can be continued.
            progress: show a bar with rate and remaining time.

        Raises:
            TrainingError: a loss term or the gradient is not finite; the last good state is kept.
            CheckpointError: the folder holds a run of another configuration, or only damaged states.
            WriteError: a state cannot be written; earlier states are intact.
        """
        fabric = make_fabric(self._run)
        self._task.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        deadline = math.inf if max_minutes is None else time.monotonic() + 60.0 * max_minutes
        state = load_newest_state(self._states)
        if state is not None and state["key"] != self._key:
            raise CheckpointError(
                f"{self._folder} holds a run with other settings, data or expert: give those it was started with, "
                "or another --out folder"
            )
        if state is not None:
            self._progress = Progress(**state["progress"])
            if self._progress.stage >= len(self._stages):
                self._task.network.load_state_dict(state["network"])
        done_before = sum(s.steps for s in self._stages[: self._progress.stage]) + self._progress.step
        with contextlib.ExitStack() as stack:
            stack.enter_context(self._signals())
            records = None
            if fabric.global_rank == 0:
                records = Records(self._folder, from_step=done_before, tensorboard=self._run.tensorboard)
                stack.enter_context(records)
            while self._progress.stage < len(self._stages):
                if not self._run_stage(fabric, state, batches_of, on_stage_end, deadline, progress, records):
                    return self._outcome(complete=False)
                state = None
        return self._outcome(complete=True)

    def _outcome(self, *, complete: bool) -> Outcome:
        done = sum(s.steps for s in self._stages[: self._progress.stage]) + self._progress.step
        return Outcome(complete=complete, step=done)

    def _run_stage(
        self,
        fabric: Fabric,
        state: dict[str, Any] | None,
        batches_of: Callable[[StageConfig, int, int], TrainingBatches],
        on_stage_end: StageEnd,
        deadline: float,
        show: bool,
        records: Records | None,
    ) -> bool:
        """Run the current stage from the current step; True when it is finished."""
        now, network = self._progress, self._task.network
        stage = self._stages[now.stage]
        if state is not None:
            network.load_state_dict(state["network"])
        module, optimizer = fabric.setup(
            self._task,
            torch.optim.AdamW(
                [p for p in network.parameters() if p.requires_grad],
                lr=stage.learning_rate,
                weight_decay=stage.weight_decay,
            ),
        )
        averaged = AveragedModel(network, multi_avg_fn=get_ema_multi_avg_fn(stage.ema_decay))  # type: ignore[no-untyped-call]
        if state is not None and state["averaged"] is not None:
            averaged.load_state_dict(state["averaged"])
            optimizer.load_state_dict(state["optimizer"])
        steps_before = sum(s.steps for s in self._stages[: now.stage])
        batches = iter(batches_of(stage, fabric.global_rank, fabric.world_size).stream(now.step))
        saved_at = started = time.monotonic()
        minutes_before = now.minutes
        bar = tqdm(
            total=stage.steps,
            initial=now.step,
            desc=stage.name,
            unit="step",
            disable=not show or fabric.global_rank > 0,
            mininterval=1.0,
        )
        with bar:
            while now.step < stage.steps:
                for group in optimizer.param_groups:
                    group["lr"] = learning_rate(stage, now.step)
                values = self._step(fabric, module, optimizer, next(batches), stage, now.step)
                averaged.update_parameters(network)
                now.step += 1
                bar.update()
                now.minutes = minutes_before + (time.monotonic() - started) / 60.0
                if records is not None and (now.step % self._run.log_steps == 0 or now.step == stage.steps):
                    numbers = {name: float(value) for name, value in values.items()}
                    bar.set_postfix({"total": f"{numbers['total']:.4f}"}, refresh=False)
                    extra = {"learning_rate": learning_rate(stage, now.step - 1), "minutes": now.minutes}
                    records.write(steps_before + now.step, stage.name, {**numbers, **extra})
                stop = self._agree(fabric, self._stop_requested or time.monotonic() > deadline)
                if stop or time.monotonic() - saved_at > 60.0 * self._run.save_minutes:
                    self._save(fabric, network, averaged, optimizer)
                    saved_at = time.monotonic()
                if stop and now.step < stage.steps:
                    return False
        kept = copy.deepcopy(network if stage.ema_decay == 0 else averaged.module)
        if fabric.global_rank == 0:
            on_stage_end(stage, kept, now.minutes)
        network.load_state_dict(kept.state_dict())
        self._progress = Progress(stage=now.stage + 1)
        self._save(fabric, network, None, None)
        return not self._agree(fabric, self._stop_requested) or self._progress.stage == len(self._stages)

    def _step(
        self, fabric: Fabric, module: Any, optimizer: Any, batch: Batch, stage: StageConfig, step: int
    ) -> dict[str, Tensor]:
        """One optimiser step; returns the total and every term, detached."""
        x = batch.x_B3HW.to(fabric.device, memory_format=torch.channels_last)
        labels = None if batch.labels_BHW is None else batch.labels_BHW.to(fabric.device)
        # Not Fabric's "bf16-mixed": it rounds the images too, and they are the targets of the losses.
        with torch.autocast(fabric.device.type, torch.bfloat16, enabled=self._run.precision == "bf16"):
            terms = module(x, labels, frozenset(stage.weights))
        ramp = min(1.0, (step + 1) / stage.ramp_steps) if stage.ramp_steps else 1.0
        total = torch.zeros((), device=fabric.device)
        for name, weight in stage.weights.items():
            total = total + (weight * ramp if name in self._task.imitation_terms else weight) * terms[name]
        if self._agree(fabric, not bool(torch.isfinite(total))):
            bad = [name for name, value in terms.items() if not bool(torch.isfinite(value))] or ["total"]
            raise self._not_finite(f"loss term {', '.join(bad)}", stage, step)
        optimizer.zero_grad(set_to_none=True)
        fabric.backward(total)
        norm = torch.nn.utils.clip_grad_norm_(self._task.network.parameters(), stage.clip_norm)
        if self._agree(fabric, not bool(torch.isfinite(norm))):
            raise self._not_finite("gradient", stage, step)
        optimizer.step()
        return {"total": total.detach(), **{k: v.detach() for k, v in terms.items()}, "gradient_norm": norm.detach()}

    def _not_finite(self, what: str, stage: StageConfig, step: int) -> TrainingError:
        saved = (
            f"the last good state is in {self._states}" if any(self._states.glob("*.state")) else "none is saved yet"
        )
        return TrainingError(
            f"{what} is not finite at step {step + 1} of stage {stage.name!r}: stopped before the weights changed; "
            f"{saved}; lower the learning rate or the term's weight"
        )

    def _agree(self, fabric: Fabric, flag: bool) -> bool:
        """True when it is true on any device, so that all devices leave the loop together."""
        if fabric.world_size == 1:
            return flag
        return bool(fabric.all_reduce(torch.tensor(float(flag), device=fabric.device), reduce_op="sum") > 0)

    def _save(self, fabric: Fabric, network: nn.Module, averaged: nn.Module | None, optimizer: Any) -> None:
        """Save the state on the first device; between stages there is no average and no optimiser yet."""
        if fabric.global_rank == 0:
            now = self._progress
            state = {
                "key": self._key,
                "progress": {"stage": now.stage, "step": now.step, "minutes": now.minutes},
                "network": network.state_dict(),
                "averaged": None if averaged is None else averaged.state_dict(),
                "optimizer": None if optimizer is None else optimizer.state_dict(),
            }
            save_state(self._states, now.stage, now.step, state)
        fabric.barrier()

    @contextlib.contextmanager
    def _signals(self) -> Iterator[None]:
        """Ctrl-C and SIGTERM end the run after the current step; a second one ends it at once."""

        def request(number: int, _frame: Any) -> None:
            if self._stop_requested:
                raise KeyboardInterrupt
            self._stop_requested = True
            print(f"\n{signal.Signals(number).name}: saving after this step; repeat to stop at once", flush=True)

        try:
            old = {s: signal.signal(s, request) for s in (signal.SIGINT, signal.SIGTERM)}
        except ValueError:  # not in the main thread: signals are someone else's
            yield
            return
        try:
            yield
        finally:
            for number, handler in old.items():
                signal.signal(number, handler)
