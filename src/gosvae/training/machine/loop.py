"""The training loop, for the CPU, one accelerator or several (Lightning Fabric).

A stopped run continues with the same command. The state is saved every few minutes, at the end of a stage, on Ctrl-C
and on SIGTERM. Batches are a function of the step, so on the CPU the losses that follow are bit for bit those of a run
that was never stopped.
"""

from __future__ import annotations

import atexit
import contextlib
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
from torch import nn
from tqdm import tqdm

from gosvae.config import to_tree
from gosvae.datasets.loader import TrainingBatches
from gosvae.errors import CheckpointError, ConfigError, unknown_name
from gosvae.extras import needs
from gosvae.training.machine.config import RunConfig, StageConfig
from gosvae.training.machine.records import Records
from gosvae.training.machine.resume import load_newest_state, save_state
from gosvae.training.machine.stage import StageInProgress, learning_rate, on_any_device
from gosvae.training.machine.task import TrainingTask

if TYPE_CHECKING:
    from lightning_fabric import Fabric

BatchesOf = Callable[[StageConfig, int, int], TrainingBatches]
"""Function from (stage, rank, world size) to the batches of the stage."""

StageEnd = Callable[[StageConfig, nn.Module, float], None]
"""Function that is called on the first device at the end of a stage with (stage, network, minutes of the stage)."""


@dataclass(frozen=True)
class Outcome:
    """Outcome of a call of `Trainer.train`.

    Attributes:
        complete: whether the last stage has ended; if not, the same call continues the run.
        step: number of steps done, over all stages.
    """

    complete: bool
    step: int


@dataclass
class Progress:
    """Position of a run: number of the stage, steps done in it, and minutes spent in it over all sessions."""

    stage: int = 0
    step: int = 0
    minutes: float = 0.0


def _leave_group() -> None:
    """End the process group, whose threads could otherwise abort the interpreter at its exit."""
    if torch.distributed.is_initialized():
        torch.distributed.destroy_process_group()


@dataclass(frozen=True)
class _Session:
    """Arguments of one call of `Trainer.train`, and its log."""

    batches_of: BatchesOf
    on_stage_end: StageEnd
    deadline: float
    show: bool
    records: Records | None


def make_fabric(run: RunConfig) -> Fabric:
    """Return a launched Fabric on the run's devices; `StageInProgress.step` sets the precision.

    Raises:
        ConfigError: this machine does not have the devices.
        MissingDependencyError: lightning-fabric is not installed.
    """
    with needs("train", "training"):
        from lightning_fabric import Fabric  # imported here: it takes seconds to load
        from lightning_fabric.utilities.exceptions import MisconfigurationException

    if run.accelerator in ("auto", "cuda") and torch.cuda.is_available():
        # Batches are all of one size. Context models lose nothing: their integers are exact in TF32.
        torch.backends.cudnn.benchmark = True
        torch.set_float32_matmul_precision("high")
    strategy = "ddp" if run.devices > 1 else "auto"
    try:
        fabric = Fabric(accelerator=run.accelerator, devices=run.devices, precision="32-true", strategy=strategy)
    except (RuntimeError, ValueError, MisconfigurationException) as error:
        reason = " ".join(str(error).split())
        raise ConfigError(f"cannot train on {run.devices} device(s) of {run.accelerator!r}: {reason}") from None
    fabric.launch()
    if fabric.world_size > 1:
        atexit.register(_leave_group)
    return fabric


def run_key(stages: Sequence[StageConfig], run: RunConfig, inputs: str, network: nn.Module) -> str:
    """Return the SHA-256 of all that must be the same for a run to continue.

    These are the stages, the seed, the precision, the number of devices, the inputs and the shapes of the network.
    """
    shapes = {name: tuple(value.shape) for name, value in network.state_dict().items()}
    what = [[to_tree(stage) for stage in stages], [run.seed, run.precision, run.devices, inputs], shapes]
    return hashlib.sha256(json.dumps(what, sort_keys=True).encode()).hexdigest()


class Trainer:
    """Trainer that runs the stages of one training.

    Args:
        task: network to train and its loss terms.
        stages: stages in order.
        run: seed, devices, precision, logs.
        folder: folder of the run.
        inputs: text that names the data and the frozen networks; a run continues with the same text only.

    Raises:
        ConfigError: a stage weighs a term that the task does not have, or has an adversary that has nothing to judge.
    """

    def __init__(
        self, task: TrainingTask, stages: Sequence[StageConfig], run: RunConfig, folder: Path, *, inputs: str = ""
    ) -> None:
        for stage in stages:
            for term in stage.weights:
                if term not in task.known_terms:
                    raise ConfigError(f"stage {stage.name!r}: {unknown_name('loss term', term, task.known_terms)}")
            if stage.adversary is not None and task.last_layer is None:
                raise ConfigError(
                    f"stage {stage.name!r}: an adversary judges reconstructions, and this network makes none: "
                    "remove 'adversary'"
                )
        self._task, self._stages, self._run, self._folder = task, tuple(stages), run, folder
        self._key = run_key(stages, run, inputs, task.network)
        self._states = folder / "resume"
        self._progress = Progress()
        self._stop_requested = False

    def train(
        self,
        batches_of: BatchesOf,
        on_stage_end: StageEnd,
        *,
        max_minutes: float | None = None,
        progress: bool = True,
    ) -> Outcome:
        """Train to the end of the last stage, or until time or a signal ends it.

        Args:
            batches_of: function that returns the batches of a stage.
            on_stage_end: function that keeps the result of a stage.
            max_minutes: minutes after which this call saves the run and returns.
            progress: whether to show a bar with rate and remaining time.

        Raises:
            TrainingError: a loss term or a gradient is not finite; the last good state is kept.
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
                "or another folder",
                argument="out",
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
            session = _Session(batches_of, on_stage_end, deadline, progress, records)
            while self._progress.stage < len(self._stages):
                if not self._run_stage(fabric, state, session):
                    return self._outcome(complete=False)
                state = None
        return self._outcome(complete=True)

    def _outcome(self, *, complete: bool) -> Outcome:
        done = sum(s.steps for s in self._stages[: self._progress.stage]) + self._progress.step
        return Outcome(complete=complete, step=done)

    def _run_stage(self, fabric: Fabric, state: dict[str, Any] | None, session: _Session) -> bool:
        """Run the current stage from the current step; return whether the run goes on or is complete."""
        now = self._progress
        stage = self._stages[now.stage]
        current = StageInProgress(fabric, self._task, stage, self._run, self._states, state)
        if not self._take_steps(fabric, stage, current, session):
            return False
        kept = current.result()
        if fabric.global_rank == 0:
            session.on_stage_end(stage, kept, now.minutes)
        self._task.network.load_state_dict(kept.state_dict())
        self._progress = Progress(stage=now.stage + 1)
        self._save(fabric, {"network": kept.state_dict(), "averaged": None, "optimizer": None, "adversary": None})
        return not on_any_device(fabric, self._stop_requested) or self._progress.stage == len(self._stages)

    def _take_steps(self, fabric: Fabric, stage: StageConfig, current: StageInProgress, session: _Session) -> bool:
        """Take the stage's steps, log and save; return False if time or a signal ended the stage early."""
        now, run = self._progress, self._run
        steps_before = sum(s.steps for s in self._stages[: now.stage])
        batches = iter(session.batches_of(stage, fabric.global_rank, fabric.world_size).stream(now.step))
        saved_at = started = time.monotonic()
        minutes_before = now.minutes
        hidden = not session.show or fabric.global_rank > 0
        bar = tqdm(total=stage.steps, initial=now.step, desc=stage.name, unit="step", disable=hidden, mininterval=1.0)
        with bar:
            while now.step < stage.steps:
                values = current.step(next(batches), now.step)
                now.step += 1
                bar.update()
                now.minutes = minutes_before + (time.monotonic() - started) / 60.0
                if session.records is not None and (now.step % run.log_steps == 0 or now.step == stage.steps):
                    numbers = {name: float(value) for name, value in values.items()}
                    bar.set_postfix({"total": f"{numbers['total']:.4f}"}, refresh=False)
                    extra = {"learning_rate": learning_rate(stage, now.step - 1), "minutes": now.minutes}
                    session.records.write(steps_before + now.step, stage.name, {**numbers, **extra})
                stop = on_any_device(fabric, self._stop_requested or time.monotonic() > session.deadline)
                if stop or time.monotonic() - saved_at > 60.0 * run.save_minutes:
                    self._save(fabric, current.state_dict())
                    saved_at = time.monotonic()
                if stop and now.step < stage.steps:
                    return False
        return True

    def _save(self, fabric: Fabric, players: dict[str, Any]) -> None:
        """Save the state, on the first device. Between stages it has a network, but no average and no optimiser."""
        if fabric.global_rank == 0:
            now = self._progress
            progress = {"stage": now.stage, "step": now.step, "minutes": now.minutes}
            save_state(self._states, now.stage, now.step, {"key": self._key, "progress": progress, **players})
        fabric.barrier()

    @contextlib.contextmanager
    def _signals(self) -> Iterator[None]:
        """Let Ctrl-C and SIGTERM end the run after the current step; a second one ends it at once."""

        def request(number: int, _frame: Any) -> None:
            if self._stop_requested:
                raise KeyboardInterrupt
            self._stop_requested = True
            print(f"\n{signal.Signals(number).name}: saving after this step; repeat to stop at once", flush=True)

        try:
            old = {s: signal.signal(s, request) for s in (signal.SIGINT, signal.SIGTERM)}
        except ValueError:  # not in the main thread, which alone may handle signals
            yield
            return
        try:
            yield
        finally:
            for number, handler in old.items():
                signal.signal(number, handler)
