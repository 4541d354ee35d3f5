"""Data of the report: each planned row with its measured results and the paper's numbers."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean

from gosvae.evaluation.evaluation import Evaluation
from gosvae.evaluation.rows import Row
from gosvae.reproduce.paper import PaperNumbers, paper_numbers
from gosvae.reproduce.plan import RowPlan
from gosvae.reproduce.records import RowRecord
from gosvae.reproduce.runner import Runner
from gosvae.reproduce.spread import Spread


@dataclass(frozen=True)
class Result:
    """State of one row of the plan.

    Attributes:
        plan: row of the plan.
        paper: numbers of the paper for it.
        record, evaluation: record and evaluation of a row that is done, else None.
        missing: `not run` or `failed` if there is nothing to show.
        trouble: reason why a row failed, or note that it was made with settings that differ from the plan's.
        stands: whether these settings are the way of measuring alone, see `Runner.stands`.
    """

    plan: RowPlan
    paper: PaperNumbers
    record: RowRecord | None
    evaluation: Evaluation | None
    missing: str = ""
    trouble: str = ""
    stands: bool = False

    @property
    def is_done(self) -> bool:
        """Whether the row is done as planned, or stands."""
        return self.record is not None and (self.stands or not self.trouble)

    @property
    def row(self) -> Row | None:
        """Measured row, or None."""
        return None if self.evaluation is None else self.evaluation.rows[1]

    @property
    def reference(self) -> Row | None:
        """Row of the expert on the originals of the same images, or None."""
        return None if self.evaluation is None else self.evaluation.reference


@dataclass(frozen=True)
class Group:
    """Row of the plan with the results of all its seeds.

    Attributes:
        first: result of the row itself, which has the seed 0.
        seeds: results that count, by seed: those that were made with the plan's settings, or else those that stand and
            were measured in the same way as the first that stands, or else the first alone.
    """

    first: Result
    seeds: Mapping[int, Result]

    @property
    def plan(self) -> RowPlan:
        """Row of the plan."""
        return self.first.plan

    @property
    def paper(self) -> PaperNumbers:
        """Numbers of the paper."""
        return self.first.paper

    @property
    def shown(self) -> Result:
        """Result of the first seed that is done, or of the row itself if none is."""
        return next(iter(self.seeds.values()), self.first)

    def by_seed(self, quantity: Callable[[Row], float | None]) -> dict[int, float]:
        """Return a quantity of each seed that has it."""
        values = {seed: quantity(result.row) for seed, result in self.seeds.items() if result.row is not None}
        return {seed: value for seed, value in values.items() if value is not None}

    def spread(self, quantity: Callable[[Row], float | None]) -> Spread:
        """Return a quantity of all seeds."""
        return Spread(tuple(self.by_seed(quantity).values()))

    def minutes(self) -> float | None:
        """Return the mean minutes of a training; None without a training."""
        records = [result.record for result in self.seeds.values()]
        minutes = [record.training_minutes for record in records if record is not None and record.steps]
        return fmean(minutes) if minutes else None


def group(results: Mapping[str, Result], row: RowPlan) -> Group:
    """Return a row of the plan with its repetitions."""
    members = [found for found in results.values() if found.plan.plain_id == row.row_id and found.plan.experiments]
    members.sort(key=lambda result: result.plan.seed)
    counted = {member.plan.seed: member for member in members if member.row is not None and not member.trouble}
    if not counted:
        way = next((member.trouble for member in members if member.stands), None)
        counted = {member.plan.seed: member for member in members if member.stands and member.trouble == way}
    first = results[row.row_id]
    return Group(first, counted or ({first.plan.seed: first} if first.row is not None else {}))


def gather(runner: Runner, rows: Sequence[RowPlan]) -> dict[str, Result]:
    """Return the results of rows by id; rows that were made with other settings than the plan's are marked."""
    keys, paper_set = runner.keys(), runner.world.paper_set
    found = {}
    for row in rows:
        folder, paper = runner.folder_of(row.row_id), paper_numbers(row.plain_id, paper_set)
        record, evaluation, reason = folder.record(), folder.evaluation(), folder.failure()
        if record is not None and evaluation is not None:
            same = record.key == keys.get(row.row_id)
            stands = not same and runner.stands(row)
            trouble = _other_way(evaluation) if stands else "made with settings that differ from the plan's"
            trouble = "" if same else trouble
            found[row.row_id] = Result(row, paper, record, evaluation, trouble=trouble, stands=stands)
        elif reason is not None:
            found[row.row_id] = Result(row, paper, None, None, "failed", f"failed: {reason}")
        else:
            found[row.row_id] = Result(row, paper, None, None, "not run")
    return found


def _other_way(evaluation: Evaluation) -> str:
    """Return a note on a row that stands, which says how it was measured."""
    source, row = evaluation.provenance, evaluation.rows[1]
    return (
        f"measured in another way than this report's (on {source.dataset}, {source.image_count} images, by "
        f"{source.expert}; LPIPS: {source.perceptual or 'not measured'}; Fréchet distance: "
        f"{row.frechet_network or 'not measured'}), as its checkpoint is not here to measure it again"
    )


def frechet_network(results: Mapping[str, Result], rows: Sequence[RowPlan]) -> str | None:
    """Return the network whose Fréchet distance a table shows: that of a row that was measured as planned, if any."""
    found = sorted((results[row.row_id] for row in rows), key=lambda result: bool(result.trouble))
    return next((row.frechet_network for one in found if (row := one.row) is not None and row.frechet_network), None)


def task_quality(row: Row) -> tuple[float | None, float | None]:
    """Return mIoU and accuracy in per cent, against the labels if there are any, else against the expert's own map."""
    labelled = row.miou is not None
    miou = row.miou if labelled else row.agreement_miou
    accuracy = row.pixel_accuracy if labelled else row.agreement_accuracy
    return (None if miou is None else 100.0 * miou, None if accuracy is None else 100.0 * accuracy)


def miou_of(row: Row) -> float | None:
    """Return the mIoU in per cent, as `task_quality`."""
    return task_quality(row)[0]


def accuracy_of(row: Row) -> float | None:
    """Return the pixel accuracy in per cent, as `task_quality`."""
    return task_quality(row)[1]
