"""What the report is made from: each planned row with what has been measured of it, and what the paper prints."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from gosvae.evaluation.rows import Evaluation, Row
from gosvae.reproduce.paper import PaperNumbers, paper_numbers
from gosvae.reproduce.plan import RowPlan
from gosvae.reproduce.records import RowRecord
from gosvae.reproduce.runner import Runner


@dataclass(frozen=True)
class Result:
    """One row of the plan as it stands.

    Attributes:
        plan: the row.
        paper: what the paper prints for it.
        record, evaluation: of a row that is done, else None.
        missing: why there is nothing: `not run`, or the reason of a failure.
    """

    plan: RowPlan
    paper: PaperNumbers
    record: RowRecord | None
    evaluation: Evaluation | None
    missing: str = ""

    @property
    def row(self) -> Row | None:
        """The measured row."""
        return None if self.evaluation is None else self.evaluation.rows[1]

    @property
    def reference(self) -> Row | None:
        """The expert on the originals of the same images."""
        return None if self.evaluation is None else self.evaluation.reference


def gather(runner: Runner, rows: Sequence[RowPlan]) -> dict[str, Result]:
    """Results of rows by id; only what was made with the settings that the plan has now counts."""
    keys, paper_set = runner.keys(), runner.world.paper_set
    found = {}
    for row in rows:
        folder, paper = runner.folder_of(row.row_id), paper_numbers(row.row_id, paper_set)
        if row.row_id in keys and folder.is_done(keys[row.row_id]):
            found[row.row_id] = Result(row, paper, folder.record(), folder.evaluation())
        else:
            reason = folder.failure()
            found[row.row_id] = Result(row, paper, None, None, "not run" if reason is None else f"failed: {reason}")
    return found


def task_quality(row: Row) -> tuple[float | None, float | None]:
    """mIoU and accuracy in percent, against the labels, or where there are none against the expert's own map."""
    labelled = row.miou is not None
    miou = row.miou if labelled else row.agreement_miou
    accuracy = row.pixel_accuracy if labelled else row.agreement_accuracy
    return (None if miou is None else 100.0 * miou, None if accuracy is None else 100.0 * accuracy)
