"""Data of the report: each planned row with its measured results and the paper's numbers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from gosvae.evaluation.evaluation import Evaluation
from gosvae.evaluation.rows import Row
from gosvae.reproduce.paper import PaperNumbers, paper_numbers
from gosvae.reproduce.plan import RowPlan
from gosvae.reproduce.records import RowRecord
from gosvae.reproduce.runner import Runner


@dataclass(frozen=True)
class Result:
    """State of one row of the plan.

    Attributes:
        plan: row of the plan.
        paper: numbers of the paper for it.
        record, evaluation: record and evaluation of a row that is done, else None.
        missing: `not run` or `failed` if there is nothing to show.
        trouble: reason why a row failed, or note that it was made with settings that differ from the plan's.
    """

    plan: RowPlan
    paper: PaperNumbers
    record: RowRecord | None
    evaluation: Evaluation | None
    missing: str = ""
    trouble: str = ""

    @property
    def row(self) -> Row | None:
        """Measured row, or None."""
        return None if self.evaluation is None else self.evaluation.rows[1]

    @property
    def reference(self) -> Row | None:
        """Row of the expert on the originals of the same images, or None."""
        return None if self.evaluation is None else self.evaluation.reference


def gather(runner: Runner, rows: Sequence[RowPlan]) -> dict[str, Result]:
    """Return the results of rows by id; rows that were made with other settings than the plan's are marked."""
    keys, paper_set = runner.keys(), runner.world.paper_set
    found = {}
    for row in rows:
        folder, paper = runner.folder_of(row.row_id), paper_numbers(row.plain_id, paper_set)
        record, evaluation, reason = folder.record(), folder.evaluation(), folder.failure()
        if record is not None and evaluation is not None:
            same = record.key == keys.get(row.row_id)
            trouble = "" if same else "made with settings that differ from the plan's"
            found[row.row_id] = Result(row, paper, record, evaluation, trouble=trouble)
        elif reason is not None:
            found[row.row_id] = Result(row, paper, None, None, "failed", f"failed: {reason}")
        else:
            found[row.row_id] = Result(row, paper, None, None, "not run")
    return found


def task_quality(row: Row) -> tuple[float | None, float | None]:
    """Return mIoU and accuracy in per cent, against the labels if there are any, else against the expert's own map."""
    labelled = row.miou is not None
    miou = row.miou if labelled else row.agreement_miou
    accuracy = row.pixel_accuracy if labelled else row.agreement_accuracy
    return (None if miou is None else 100.0 * miou, None if accuracy is None else 100.0 * accuracy)
