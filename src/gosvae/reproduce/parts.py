"""Parts of a reproduction, one for each data set, and the order in which their rows are made and reported."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from gosvae.reproduce.job import ADE20K, CITYSCAPES, World
from gosvae.reproduce.keep import Keep
from gosvae.reproduce.plan import RowPlan
from gosvae.reproduce.processes import Summary
from gosvae.reproduce.runner import Runner

PAPERS_EXPERIMENTS = {
    CITYSCAPES: ("table1", "table3", "table4", "fig2", "fig4"),
    ADE20K: ("table2", "table3", "fig3"),
}
"""Tables and figures that the paper has, by data set."""


@dataclass(frozen=True)
class Part:
    """Tables and figures on one data set.

    Attributes:
        world: data and networks.
        experiments: names of the tables and figures.
        rows: rows of them, each after those it needs.
        folder: folder of the rows; their own folders are `rows/ID` in it.
        name: name of the part, by which its rows are told from those of others; empty if there are no others.
        keep: folder of small files of finished rows, see `Runner`.
    """

    world: World
    experiments: tuple[str, ...]
    rows: tuple[RowPlan, ...]
    folder: Path
    name: str = ""
    keep: Keep | None = None

    def runner(
        self, say: Callable[[str], None] = print, *, tables_only: bool = False, show_bars: bool = False
    ) -> Runner:
        """Return a runner of the rows, or of those that are neither points of Fig. 4 nor there for these alone."""
        rows = [row for row in self.rows if not tables_only or (row.curve is None and row.experiments)]
        prefix = f"{self.name}: " if self.name else ""
        return Runner(
            self.world,
            rows,
            self.folder,
            say=lambda line: say(prefix + line),
            show_bars=show_bars,
            keep=self.keep,
        )


class Progress:
    """Writer of the report whenever a further table or figure is complete.

    Args:
        parts: all parts.
        write: function that writes the report.
    """

    def __init__(self, parts: Sequence[Part], write: Callable[[], None]) -> None:
        self._write = write
        self._rows = {
            (part.name, name): {row.row_id for row in part.rows if name in row.experiments}
            for part in parts
            for name in part.experiments
        }
        self._complete: set[tuple[str, str]] = set()
        self._is_current = False

    def after_row(self, part: Part, so_far: Summary) -> None:
        """Write the report if the last row completed a table or figure of a part."""
        over = {*so_far.done, *so_far.failed}
        ready = {key for key, ids in self._rows.items() if key[0] == part.name and ids and over >= ids}
        self._is_current = False
        if ready > self._complete & ready:
            self._complete |= ready
            self.end()

    def end(self) -> None:
        """Write the report, unless it has all rows already."""
        if not self._is_current:
            self._write()
            self._is_current = True


def run_parts(
    parts: Sequence[Part],
    progress: Progress,
    say: Callable[[str], None],
    *,
    show_bars: bool = False,
    max_minutes: float | None = None,
) -> Summary:
    """Make the rows of all parts and return their common summary, with rows named `PART/ID` if there are several parts.

    The order is that of the parts; the many points of Fig. 4 come after the tables of all parts.

    Args:
        max_minutes: number of minutes after which the run ends cleanly; the same call continues it.

    Raises:
        KeyboardInterrupt, GosvaeError: as for `Runner.run`.
    """
    started = time.monotonic()
    summaries: dict[str, Summary] = {}
    pace = 1.0
    for tables_only in (True, False) if len(parts) > 1 else (False,):
        for part in parts:
            before = summaries.get(part.name, Summary())
            runner = part.runner(say, tables_only=tables_only, show_bars=show_bars)
            left = None if max_minutes is None else max(0.0, max_minutes - (time.monotonic() - started) / 60.0)
            runner.pace = pace
            summaries[part.name] = runner.run(
                max_minutes=left, on_row=partial(progress.after_row, part), given_up=before.failed
            )
            pace = runner.pace
    whole = Summary()
    for name, summary in summaries.items():
        prefix = f"{name}/" if name else ""
        whole.done += [prefix + row_id for row_id in summary.done]
        whole.left += [prefix + row_id for row_id in summary.left]
        whole.standing += [prefix + row_id for row_id in summary.standing]
        whole.failed |= {prefix + row_id: reason for row_id, reason in summary.failed.items()}
    return whole
