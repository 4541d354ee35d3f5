"""Finished rows as small files, which can be kept in a repository and stand for trainings of several days."""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar

from pydantic import ConfigDict, TypeAdapter, ValidationError

from gosvae.errors import ConfigError, WriteError
from gosvae.evaluation.evaluation import Evaluation
from gosvae.evaluation.results import save_evaluation
from gosvae.evaluation.rows import ImageRow, Provenance, Row
from gosvae.files import write_atomically, write_json
from gosvae.reproduce.records import OLD, SCHEMA, SETTINGS_FILE, RowFolder, RowRecord, aside_of, key_of


@dataclass(frozen=True)
class KeptRow:
    """Finished row without its checkpoint and without the distortion of single images.

    Attributes:
        settings: all settings that the row's numbers depend on.
        record: record of the row.
        provenance: data, expert, versions and hardware of the evaluation, without its command.
        rows: reference and row of the evaluation.
        images: name, height, width, bytes of the file and of the payload, and whether these are over the budget, of
            each image; other rows may take these bytes as their budget.
    """

    __pydantic_config__: ClassVar[ConfigDict] = ConfigDict(extra="forbid", ser_json_inf_nan="strings")

    schema: int
    settings: dict[str, Any]
    record: RowRecord
    provenance: Provenance
    rows: tuple[Row, ...]
    images: tuple[tuple[str, int, int, int, int, bool], ...]

    def restore(self, folder: RowFolder) -> None:
        """Write the row into its folder, which must not exist yet; the row has no checkpoint afterwards.

        Raises:
            WriteError: no space or no permission.
        """
        folder.path.mkdir(parents=True)
        write_json(folder.path / SETTINGS_FILE, {"key": self.record.key, **self.settings})
        label = self.rows[1].label
        images = tuple(
            ImageRow(label, name, height, width, total, payload, None, None, None, None, None, over)
            for name, height, width, total, payload, over in self.images
        )
        save_evaluation(Evaluation(self.provenance, self.rows, images), folder.path)
        folder.finish(self.record)


_ADAPTER: TypeAdapter[KeptRow] = TypeAdapter(KeptRow)


class Keep:
    """Folder of kept rows, `ID.json` for each.

    Args:
        folder: folder, which is made when the first row is kept.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def path(self, row_id: str) -> Path:
        """Return the file of a row."""
        return self._folder / f"{row_id}.json"

    def read(self, row_id: str) -> KeptRow | None:
        """Return a kept row; None if there is none, or one whose settings are not those of its key.

        Raises:
            ConfigError: the file is damaged.
        """
        path = self.path(row_id)
        try:
            kept = _ADAPTER.validate_json(path.read_bytes())
        except FileNotFoundError:
            return None
        except (OSError, ValidationError) as error:
            first = str(error).splitlines()[0]
            raise ConfigError(f"{path} is no kept row: {first}; remove it, and the row is made again") from None
        return kept if kept.schema == SCHEMA and kept.record.key == key_of(kept.settings) else None

    def settings(self) -> list[dict[str, Any]]:
        """Return the settings of all kept rows; files that are none are passed over."""
        found = [self._settings_in(path) for path in sorted(self._folder.glob("*.json")) if OLD not in path.name]
        return [settings for settings in found if settings is not None]

    def put(self, folder: RowFolder) -> Path | None:
        """Keep a finished row, if its file does not hold it already.

        A file with other settings, or one that is no kept row, is moved aside, and its new path is returned.

        Raises:
            WriteError: no space or no permission.
        """
        record, evaluation, settings = folder.record(), folder.evaluation(), folder.settings()
        if record is None or evaluation is None or settings is None:
            return None
        images = tuple(
            (row.image, row.height, row.width, row.total_bytes, row.payload_bytes, row.over_budget)
            for row in evaluation.images
        )
        provenance = replace(evaluation.provenance, command="")  # it names folders of the machine
        data = _text(KeptRow(SCHEMA, settings, record, provenance, evaluation.rows, images))
        path = self.path(record.row_id)
        aside = None
        try:
            if path.exists() and self._settings_in(path) != settings:
                aside = path.rename(aside_of(path, ".json"))
            if not path.exists() or path.read_bytes() != data:
                path.parent.mkdir(parents=True, exist_ok=True)
                write_atomically(path, data)
        except OSError as error:
            raise WriteError(f"cannot keep the row {record.row_id} in {path}: {error.strerror}") from None
        return aside

    def _settings_in(self, path: Path) -> dict[str, Any] | None:
        """Return the settings of a kept row; None for another file."""
        try:
            kept = self.read(path.stem)
        except ConfigError:
            return None
        return None if kept is None else kept.settings


def _text(kept: KeptRow) -> bytes:
    """Return a kept row as JSON: a line for each attribute and for each image."""
    tree = _ADAPTER.dump_python(kept, mode="json")
    images = ",\n".join(json.dumps(image, ensure_ascii=False) for image in tree.pop("images"))
    lines = [f"{json.dumps(name)}: {json.dumps(value, ensure_ascii=False)}" for name, value in tree.items()]
    return ("{" + ",\n".join([*lines, f'"images": [\n{images}\n]']) + "}\n").encode()
