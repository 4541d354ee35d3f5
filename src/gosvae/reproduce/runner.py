"""Runner that makes the rows of a plan one after the other; after an interruption, the same call continues."""

from __future__ import annotations

import math
import time
import traceback
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from types import MappingProxyType
from typing import Literal

from gosvae.errors import ConfigError, GosvaeError
from gosvae.evaluation.protocol import CodecEntry, evaluate
from gosvae.evaluation.results import save_evaluation
from gosvae.files import write_atomically
from gosvae.precision import mixes
from gosvae.recipes.run import train
from gosvae.reproduce.estimate import estimated_seconds, expert_share
from gosvae.reproduce.job import Job, World, judges_looks
from gosvae.reproduce.keep import Keep
from gosvae.reproduce.plan import RowPlan, Trained, rows_text
from gosvae.reproduce.planned import PlannedRows
from gosvae.reproduce.processes import RowStarter, Summary, make_rows
from gosvae.reproduce.progress import TrainingNews
from gosvae.reproduce.records import SCHEMA, TRACE_FILE, RowFolder, RowRecord, key_of
from gosvae.units import bytes_from_kib


def make_row(
    job: Job,
    trained_with: str | None,
    rows: tuple[RowPlan, ...],
    folder: Path,
    row_id: str,
    minutes: float,
    say: Callable[[str], None],
) -> Summary:
    """Make one row in this process; see `Runner.make_one`."""
    return Runner(World(job, trained_with), rows, folder, say=say).make_one(row_id, max_minutes=minutes)


class Runner(PlannedRows):
    """Runner of rows in a folder.

    Args:
        world, rows, folder, say, keep: as for `PlannedRows`.
        show_bars: whether to show progress bars in place of lines.

    Attributes:
        pace: ratio of measured to estimated seconds of the rows so far.
    """

    def __init__(
        self,
        world: World,
        rows: Sequence[RowPlan],
        folder: Path,
        *,
        say: Callable[[str], None] = print,
        show_bars: bool = False,
        keep: Keep | None = None,
    ) -> None:
        super().__init__(world, rows, folder, say=say, keep=keep)
        self._bars = show_bars
        self._deadline = math.inf
        self.pace = 1.0

    def run(
        self,
        *,
        max_minutes: float | None = None,
        on_row: Callable[[Summary], None] = lambda _: None,
        given_up: Mapping[str, str] = MappingProxyType({}),
    ) -> Summary:
        """Make every row that is not done.

        A row that fails is reported, and all others that do not need it are made.

        Args:
            max_minutes: number of minutes after which the run ends cleanly; the same call continues it.
            on_row: function that is called with the summary so far after each row that was made or failed.
            given_up: reasons why rows failed just before, by id, which are not tried again.

        Raises:
            KeyboardInterrupt: Ctrl-C outside a training; finished rows are kept.
            GosvaeError: the data or the expert cannot be loaded.
        """
        self._deadline = math.inf if max_minutes is None else time.monotonic() + 60.0 * max_minutes
        todo, summary = self.todo(), Summary()
        for row in todo:  # rows that failed in an earlier call are tried again
            if row.row_id not in given_up and max_minutes != 0:
                self.folder_of(row.row_id).forget_failure()
        if self.world.job.run.devices > 1:
            self._run_on_devices([row for row in todo if row.row_id not in given_up], todo, summary, on_row, given_up)
        else:
            self._run_here(todo, summary, on_row, given_up)
        # A row that is left, but finished apart from the checkpoint that another one needs, is done.
        keys, left = self.keys(), summary.left
        finished = [row.row_id for row in self._rows if row.row_id in left and self.is_finished(row, keys)]
        summary.done += finished
        summary.left = [row_id for row_id in left if row_id not in finished]
        summary.standing = [row.row_id for row in self._rows if row.row_id in summary.done and self.stands(row)]
        return summary

    def _run_here(
        self,
        todo: Sequence[RowPlan],
        summary: Summary,
        on_row: Callable[[Summary], None],
        given_up: Mapping[str, str],
    ) -> None:
        """Make rows in this process, and add all rows of the plan to the summary."""
        for row in self._rows:
            if row not in todo:
                summary.done.append(row.row_id)
                continue
            if row.row_id in given_up:
                summary.failed[row.row_id] = given_up[row.row_id]
                continue
            head = self._head(row)
            missing = [name for name in row.needs if name in summary.failed]
            if missing:
                summary.failed[row.row_id] = f"it needs the row {missing[0]}, which failed"
                self._give_up(row, summary.failed[row.row_id])
            elif summary.left or time.monotonic() >= self._deadline:
                summary.left.append(row.row_id)
                continue
            else:
                self._attempt(row, head, todo, summary)
            if row.row_id in summary.failed:
                self._say(f"{head}: FAILED: {summary.failed[row.row_id]}")
            on_row(summary)

    def make_one(self, row_id: str, *, max_minutes: float) -> Summary:
        """Make one row, whose needs are done, and return its summary; a failure is written to its folder."""
        self._deadline = time.monotonic() + 60.0 * max_minutes
        row, summary = self._by_id[row_id], Summary()
        self._attempt(row, self._head(row), (), summary)
        return summary

    def _run_on_devices(
        self,
        wanted: Sequence[RowPlan],
        todo: Sequence[RowPlan],
        summary: Summary,
        on_row: Callable[[Summary], None],
        given_up: Mapping[str, str],
    ) -> None:
        """Make rows on several devices, and add all rows of the plan to the summary."""
        world = self.world
        summary.done += [row.row_id for row in self._rows if row not in todo]
        summary.failed |= {row.row_id: given_up[row.row_id] for row in todo if row.row_id in given_up}
        start = RowStarter(make_row, world.job, world.trained_with, self._rows, self._folder, self._deadline)
        start.check()

        def after(row: RowPlan) -> None:
            if row.row_id in summary.failed:
                self._say(f"{self._head(row)}: FAILED: {summary.failed[row.row_id]}")
            elif row.row_id in summary.done:
                self.put(row)
            on_row(summary)

        devices = world.job.run.devices
        make_rows(
            wanted, summary, devices, start, say=self._say, on_row=after, give_up=self._give_up, deadline=self._deadline
        )

    def _head(self, row: RowPlan) -> str:
        return f"row {self._rows.index(row) + 1} of {len(self._rows)}, {row.row_id}"

    def _give_up(self, row: RowPlan, reason: str) -> None:
        """Note why a row failed in its folder."""
        self.folder_of(row.row_id).path.mkdir(parents=True, exist_ok=True)
        self.folder_of(row.row_id).fail(reason)

    def _attempt(self, row: RowPlan, head: str, todo: Sequence[RowPlan], summary: Summary) -> None:
        """Make one row and add it to the summary."""
        folder, started, expected = self.folder_of(row.row_id), time.monotonic(), self._seconds(row)
        try:
            if self._make(row, head, self._time_left(row, todo)):
                summary.done.append(row.row_id)
                self.put(row)
                if expected > 1.0:
                    self.pace = 0.5 * self.pace + 0.5 * (time.monotonic() - started) / expected
            else:
                summary.left.append(row.row_id)
            return
        except GosvaeError as error:
            reason = str(error)
        except Exception as error:  # a defect in one row must not stop the others
            trace = folder.path / TRACE_FILE
            folder.path.mkdir(parents=True, exist_ok=True)
            write_atomically(trace, traceback.format_exc().encode())
            reason = f"{type(error).__name__}: {str(error).splitlines()[0] if str(error) else ''} (see {trace})"
        summary.failed[row.row_id] = reason
        self._give_up(row, reason)

    def _make(self, row: RowPlan, head: str, time_left: str) -> bool:
        """Train and evaluate a row; return False if time or a signal ended it early."""
        settings = self.world.settings(row, self._by_id)
        if row.match is not None and (self.folder_of(row.match).settings() or {}).get("test") != settings["test"]:
            raise ConfigError(
                f"it takes the bytes of {row.match}, whose kept numbers are of other images: measure on those, or "
                f"remove {self.folder_of(row.match).path} and the kept file, so that {row.match} is trained again"
            )
        folder = self.folder_of(row.row_id)
        aside = folder.begin(settings, partial(self.world.training_key, row, self._by_id))
        if aside is not None and folder.checkpoint.exists():
            self._say(
                f"{head}: it is measured in another way than before; its training stays, and its numbers are now "
                f"in {aside.name}"
            )
        elif aside is not None:
            self._say(f"{head}: its settings have changed; what was there is now {aside.name}")
        self._say(f"{head}: {row.title}{time_left}")
        steps: dict[str, int] = {}
        batch_size = None
        if isinstance(row.source, Trained):
            stages = settings["recipe"]["stages"]
            steps = {str(stage["name"]): int(stage["steps"]) for stage in stages}
            batch_size = self.world.batch_size_of(row)
            if not self._train(row, head, folder, sum(steps.values())):
                return False
        if time.monotonic() > self._deadline:
            return False
        minutes = self._evaluate(row, folder)
        start = self._start_steps(row)
        folder.finish(
            RowRecord(
                schema=SCHEMA,
                row_id=row.row_id,
                title=row.title,
                key=key_of(settings),
                seed=row.source.seed if isinstance(row.source, Trained) else None,
                steps=steps,
                batch_size=batch_size,
                start_steps=start,
                training_minutes=round(folder.training_minutes(), 2),
                evaluation_minutes=round(minutes, 2),
                precision=self._precision() if steps else None,
            )
        )
        return True

    def _precision(self) -> Literal["bf16", "32"]:
        """Return the arithmetic that trainings have on this machine."""
        return "bf16" if mixes(self.world.device.type, self.world.job.run.precision) else "32"

    def _start_steps(self, row: RowPlan) -> int:
        if not isinstance(row.source, Trained) or row.source.init is None:
            return 0
        before = self.folder_of(row.source.init).record()
        return 0 if before is None else before.own_steps + before.start_steps

    def _train(self, row: RowPlan, head: str, folder: RowFolder, steps: int) -> bool:
        job, source = self.world.job, row.source
        assert isinstance(source, Trained)
        left = None if math.isinf(self._deadline) else (self._deadline - time.monotonic()) / 60.0
        with TrainingNews(folder, head, steps, self._say, quiet=self._bars):
            outcome = train(
                source.recipe,
                job.data,
                expert=job.expert,
                trust=job.trust,
                out=folder.checkpoint,
                overrides=self.world.changes_of(row),
                geometry=job.geometry,
                lpips=self.world.training_distance or job.train_lpips or job.lpips,
                weights=job.weights,
                init=None if source.init is None else self.folder_of(source.init).checkpoint,
                run=self.world.run_of(row),
                max_minutes=left,
                progress=self._bars,
            )
        if not outcome.complete:
            self._say(f"{head}: stopped at step {outcome.step}; the same command continues")
        return outcome.complete

    def _evaluate(self, row: RowPlan, folder: RowFolder) -> float:
        """Measure the row's codec on all images and return the minutes."""
        started = time.monotonic()
        codec = self.world.codec(row, lambda row_id: self.folder_of(row_id).checkpoint)
        images = self.world.images_of(row)
        budget: int | list[int] | None = None
        if row.budget_kib is not None:
            budget = bytes_from_kib(row.budget_kib)
        if row.match is not None:
            reference = self.folder_of(row.match).evaluation()
            assert reference is not None  # the runner has made it before
            budget = [image.total_bytes for image in reference.images]
        evaluation = evaluate(
            [CodecEntry(row.row_id, codec, budget_bytes=budget)],
            images,
            self.world.expert,
            perceptual=self.world.perceptual if judges_looks(row) else None,
            frechet=self.world.features if judges_looks(row) and len(images) > 1 else None,
            progress=self._bars,
        )
        save_evaluation(evaluation, folder.path)
        return (time.monotonic() - started) / 60.0

    def _seconds(self, row: RowPlan) -> float:
        """Return the estimated seconds of what is left of a row, on the machine of `estimate`."""
        try:
            trains = isinstance(row.source, Trained)
            steps = self.world.real_steps(row, self.world.changes_of(row)) if trains else 0
            batch = self.world.batch_size_of(row) if trains else None
            steps = max(0, steps - self._steps_taken(row))
            share = expert_share(self.world.job.expert, self.world.train_images.name)
            return estimated_seconds(row, self.world.job.scale, steps, len(self.world.images_of(row)), batch, share)
        except ConfigError:
            return 0.0

    def _steps_taken(self, row: RowPlan) -> int:
        """Return the number of steps that an earlier call took with the present settings."""
        folder = self.folder_of(row.row_id)
        before, log = folder.settings(), folder.log()
        same = before is not None and key_of(before) == key_of(self.world.settings(row, self._by_id))
        return int(log[-1].get("step", 0)) if same and log else 0

    def _time_left(self, row: RowPlan, todo: Sequence[RowPlan]) -> str:
        """Return a remark on the minutes from a row of `todo` to the last one; empty for a row alone."""
        if not todo:
            return ""
        rest = todo[list(todo).index(row) :]
        minutes = self.pace * sum(map(self._seconds, rest)) / 60.0
        return f" (about {minutes:.0f} min left for {rows_text(len(rest))})"
