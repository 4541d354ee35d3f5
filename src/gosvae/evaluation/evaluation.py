"""Result of an evaluation: its rows, their provenance, and the pictures that were kept."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from importlib import import_module
from typing import Any

import numpy as np
import numpy.typing as npt

from gosvae.errors import MissingDependencyError
from gosvae.evaluation.cells import html_table
from gosvae.evaluation.rows import ImageRow, Provenance, Row
from gosvae.tensors import ImageArray

ClassMapArray = npt.NDArray[np.int16]
"""Class map of an expert: the class of every pixel, (H, W)."""


@dataclass(frozen=True, repr=False)
class Reconstruction:
    """Reconstruction of an image by one codec, with the expert's map of it and pictures of what the judges see.

    Attributes:
        class_map_HW: map of the segmentation network; None without one.
        drawn: pictures by the names of the judges.
    """

    label: str
    image_uint8_HW3: ImageArray
    class_map_HW: ClassMapArray | None
    row: ImageRow
    drawn: dict[str, ImageArray] = field(default_factory=dict)

    def __repr__(self) -> str:
        return f"Reconstruction({self.label!r}, {self.row.image!r}, {self.row.total_bytes} bytes)"


@dataclass(frozen=True, repr=False)
class KeptImage:
    """An original that is kept for pictures, with its reconstructions in the order of the codecs.

    Attributes:
        class_map_HW, drawn: as of a `Reconstruction`.
    """

    name: str
    image_uint8_HW3: ImageArray
    class_map_HW: ClassMapArray | None
    reconstructions: tuple[Reconstruction, ...]
    drawn: dict[str, ImageArray] = field(default_factory=dict)

    def __repr__(self) -> str:
        return f"KeptImage({self.name!r}, {len(self.reconstructions)} reconstructions)"


@dataclass(frozen=True, repr=False)
class Evaluation:
    """Result of an evaluation.

    Attributes:
        provenance: data, expert, versions and hardware.
        rows: uncompressed reference, then one row for each codec entry.
        images: one row for each image and codec, sorted by image, then in the order of the entries.
        kept: pixels for pictures, which are not saved.
    """

    provenance: Provenance
    rows: tuple[Row, ...]
    images: tuple[ImageRow, ...]
    kept: tuple[KeptImage, ...] = ()

    def __repr__(self) -> str:
        codecs = ", ".join(repr(row.label) for row in self.rows[1:4]) + (", ..." if len(self.rows) > 4 else "")
        return f"Evaluation({self.provenance.dataset!r}, {self.provenance.image_count} images, codecs: {codecs})"

    def _repr_html_(self) -> str:
        """Return the table for a notebook."""
        return html_table(self.provenance, self.rows)

    def to_frame(self, *, images: bool = False) -> Any:
        """Return the rows as a pandas data frame, one line for each codec, or for each image and codec.

        Args:
            images: whether to return the rows of single images.

        Raises:
            MissingDependencyError: pandas is not installed.
        """
        try:
            pandas = import_module("pandas")
        except ImportError:
            raise MissingDependencyError("to_frame needs pandas, which is not installed: pip install pandas") from None
        rows: tuple[Row, ...] | tuple[ImageRow, ...] = self.images if images else self.rows
        return pandas.DataFrame([asdict(row) for row in rows])

    @property
    def reference(self) -> Row:
        """Row of the expert on the originals."""
        return self.rows[0]

    @property
    def is_video(self) -> bool:
        """Whether the images are frames of clips, whose rates are in kbit/s."""
        return self.provenance.clips is not None

    def curves(self) -> dict[str, tuple[Row, ...]]:
        """Return the rows of each curve by rising bytes; a row without a curve is a curve of its own."""
        grouped: dict[str, list[Row]] = {}
        for row in self.rows[1:]:
            grouped.setdefault(row.curve or row.label, []).append(row)
        return {name: tuple(sorted(rows, key=lambda r: r.total_bytes or 0.0)) for name, rows in grouped.items()}
