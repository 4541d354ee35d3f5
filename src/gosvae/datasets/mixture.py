"""Datasets at the size that a codec sees, alone or several as one: `camvid:PATH+streets:200`."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence
from itertools import accumulate

from gosvae.datasets.base import Dataset, ObjectArray, Sample
from gosvae.datasets.common import InCommonClasses
from gosvae.datasets.geometry import GeometryConfig, Prepared
from gosvae.datasets.registry import default_geometry, load_dataset, names_existing_path
from gosvae.datasets.subset import WithoutLabels
from gosvae.errors import DatasetError


class Mixture(Dataset):
    """Several datasets, one after the other.

    Parts of the same classes keep them, parts of other classes come in the common classes (`InCommonClasses`). With a
    part that has no labels the mixture has none.

    Raises:
        DatasetError: the parts do not have the same classes, and no common ones are known.
    """

    def __init__(self, parts: Sequence[Dataset]) -> None:
        if any(part.class_names != parts[0].class_names for part in parts):
            labelled = all(part.has_labels for part in parts)
            parts = [InCommonClasses(part) if labelled else WithoutLabels(part) for part in parts]
        self.name = "+".join(f"{part.name} ({len(part)})" if len(parts) > 1 else part.name for part in parts)
        self.class_names = parts[0].class_names
        self.missing_labels = next((part.missing_labels for part in parts if part.missing_labels is not None), None)
        self._parts = tuple(parts)
        self._ends = list(accumulate(len(part) for part in parts))

    def __len__(self) -> int:
        return self._ends[-1]

    def shot(self, index: int) -> str:
        part, place = self._place(index)
        return f"{bisect_right(self._ends, index)}/{part.shot(place)}"

    def check(self, index: int) -> tuple[int, int] | None:
        part, place = self._place(index)
        return part.check(place)

    @property
    def object_names(self) -> tuple[str, ...]:
        """Names of the classes of object maps; empty if those of the parts differ."""
        first = self._parts[0].object_names
        return first if all(part.object_names == first for part in self._parts) else ()

    @property
    def has_instances(self) -> bool:
        return all(part.has_instances for part in self._parts)

    def objects(self, index: int) -> ObjectArray:
        part, place = self._place(index)
        return part.objects(place)

    def __getitem__(self, index: int) -> Sample:
        part, place = self._place(index)
        return part[place]

    def _place(self, index: int) -> tuple[Dataset, int]:
        """Return the part that a sample is in, and its index there."""
        if not 0 <= index < len(self):
            raise IndexError(f"index {index} is outside 0..{len(self) - 1}")
        part = bisect_right(self._ends, index)
        return self._parts[part], index - (self._ends[part - 1] if part else 0)


def load_prepared(
    spec: str,
    *,
    default_split: str,
    geometry: GeometryConfig | None = None,
    centre_crop: bool = True,
    cache_bytes: int = 0,
) -> Dataset:
    """Load the dataset that a string names (see `load_dataset`); each part joined by `+` has its own default geometry.

    Args:
        geometry: geometry of all parts, in place of their defaults.
        centre_crop: whether to cut out the centre; without it, training sees whole frames.
        cache_bytes: memory for decoded samples, for all parts together.

    Raises:
        DatasetError: as `load_dataset`, or parts of classes that have nothing in common.
    """
    names = _parts(spec)
    if not all(names):
        raise DatasetError(f"{spec!r} has an empty part: expected data sets joined by +, such as camvid:PATH+streets")
    parts: list[Dataset] = []
    for name in names:
        dataset = load_dataset(name, default_split=default_split)
        size = geometry or default_geometry(dataset.name)
        if not centre_crop:
            size = GeometryConfig(resize_height=size.resize_height, resize_width=size.resize_width)
        parts.append(Prepared(dataset, size, cache_bytes=cache_bytes // len(names)))
    return Mixture(parts)


def _parts(spec: str) -> list[str]:
    """Return what the plus signs of a string join: a plus sign within the longest path that exists joins nothing."""
    pieces, parts = spec.split("+"), list[str]()
    while pieces:
        lengths = (n for n in range(len(pieces), 1, -1) if names_existing_path("+".join(pieces[:n])))
        length = next(lengths, 1)
        parts.append("+".join(pieces[:length]))
        pieces = pieces[length:]
    return parts
