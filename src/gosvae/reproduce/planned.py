"""Rows of a plan in a folder: which of them are finished, here or as kept files, and which are to be made."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

from gosvae.errors import ConfigError
from gosvae.reproduce.job import World
from gosvae.reproduce.keep import Keep
from gosvae.reproduce.plan import Borrowed, RowPlan, Trained
from gosvae.reproduce.records import ROWS_FOLDER, RowFolder, key_of


class PlannedRows:
    """Rows of a plan with the folder in which they are made.

    Args:
        world: data and networks of the job.
        rows: rows, each after those it needs.
        folder: folder of the whole reproduction; a row's folder is `rows/ID` in it.
        say: function that takes each line of progress.
        keep: folder of small files of finished rows; rows that it has are not made again.
    """

    def __init__(
        self,
        world: World,
        rows: Sequence[RowPlan],
        folder: Path,
        *,
        say: Callable[[str], None] = print,
        keep: Keep | None = None,
    ) -> None:
        self.world, self._rows = world, tuple(rows)
        self._by_id = {row.row_id: row for row in self._rows}
        self._folder, self._say, self._keep = folder, say, keep

    @property
    def rows(self) -> tuple[RowPlan, ...]:
        """Rows of the plan."""
        return self._rows

    @property
    def folder(self) -> Path:
        """Folder of the reproduction."""
        return self._folder

    def folder_of(self, row_id: str) -> RowFolder:
        """Return the folder of a row."""
        return RowFolder(self._folder / ROWS_FOLDER / row_id)

    def keys(self) -> dict[str, str]:
        """Return the key of each row's settings, without rows whose settings are impossible."""
        found = {row.row_id: self._key(row) for row in self._rows}
        return {row_id: key for row_id, key in found.items() if key is not None}

    def _key(self, row: RowPlan) -> str | None:
        try:
            return key_of(self.world.settings(row, self._by_id))
        except ConfigError:
            return None

    def stands(self, row: RowPlan, again: Collection[str] = ()) -> bool:
        """Return whether a finished row was measured in another way than the plan's, and cannot be measured again.

        Its training is the plan's, but the folder has no checkpoint of it, or of the row whose codec or bytes it takes.

        Args:
            again: ids of rows that are made again.
        """
        folder = self.folder_of(row.row_id)
        record, settings = folder.record(), folder.settings()
        if row.row_id in again or record is None or settings is None or record.key != key_of(settings):
            return False
        return folder.evaluation() is not None and self._stands_with(row, settings, again)

    def _stands_with(self, row: RowPlan, settings: dict[str, Any], again: Collection[str] = ()) -> bool:
        """Return whether a row that was finished with these settings stands, see `stands`."""
        world, rows, source, key = self.world, self._by_id, row.source, self._key(row)
        if key in (None, key_of(settings)):
            return False
        if world.making_key(row, rows, settings) != world.making_key(row, rows, world.settings(row, rows)):
            return False
        if isinstance(source, Trained) and not self.folder_of(row.row_id).checkpoint.exists():
            return True
        others = (row.match, source.row if isinstance(source, Borrowed) else None)
        return any(self.stands(rows[name], again) for name in others if name is not None)

    def todo(self) -> list[RowPlan]:
        """Take finished rows from the kept ones, and return the rows that are to be made.

        Raises:
            ConfigError: the file of a kept row is damaged.
            WriteError: no space or no permission.
        """
        keys = self.keys()
        self._exchange_kept(keys)
        return self._to_make(keys)

    def _exchange_kept(self, keys: Mapping[str, str]) -> None:
        """Take finished rows from the kept ones, and keep those that are finished here."""
        if self._keep is None:
            return
        for row in self._rows:
            folder, key = self.folder_of(row.row_id), keys.get(row.row_id)
            if key is not None and folder.is_done(key):
                self.put(row)
                continue
            kept = None if key is None else self._keep.read(row.row_id)
            if kept is None or folder.path.exists():
                continue
            if kept.record.key == key or self._stands_with(row, kept.settings):
                kept.restore(folder)
                self._say(f"{row.row_id} is taken from {self._keep.path(row.row_id)}")

    def put(self, row: RowPlan) -> None:
        """Keep a finished row."""
        aside = None if self._keep is None else self._keep.put(self.folder_of(row.row_id))
        if aside is not None:
            self._say(f"{row.row_id} was kept with other settings, in a file that is now {aside}")

    def _to_make(self, keys: Mapping[str, str]) -> list[RowPlan]:
        """Return rows that are not done, and those that a row to be made starts from and that have no checkpoint."""
        wanted, before = set[str](), -1
        while len(wanted) > before:  # a row that stands because of another one does not, if that is made again
            before = len(wanted)
            wanted |= {row.row_id for row in self._rows if not self.is_finished(row, keys, wanted)}
            for row in reversed(self._rows):  # each row comes after those it needs
                start = row.start if row.row_id in wanted else None
                if start is not None and not self.folder_of(start).checkpoint.exists():
                    wanted.add(start)
        return [row for row in self._rows if row.row_id in wanted]

    def is_finished(self, row: RowPlan, keys: Mapping[str, str], again: Collection[str] = ()) -> bool:
        """Return whether a row is done with the plan's settings, or stands with the numbers that it has."""
        key = keys.get(row.row_id)
        return key is not None and (self.folder_of(row.row_id).is_done(key) or self.stands(row, again))
