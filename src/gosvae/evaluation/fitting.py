"""Whether a data set fits what is to be measured on it."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Sequence
from typing import Protocol

from gosvae.datasets.base import Dataset
from gosvae.errors import ConfigError
from gosvae.experts.base import Expert

log = logging.getLogger(__name__)


def check_indices(dataset: Dataset, keep_images: Sequence[int]) -> None:
    """Refuse a data set without images, and images to keep that it does not have."""
    if len(dataset) == 0:
        raise ConfigError(f"data set {dataset.name!r} has no images: nothing to evaluate")
    outside = [index for index in keep_images if not 0 <= index < len(dataset)]
    if outside:
        raise ConfigError(f"image {outside[0]} cannot be kept: {dataset.name!r} has images 0 to {len(dataset) - 1}")


class HasClasses(Protocol):
    """Data with a name and the names of the classes of its labels."""

    @property
    def name(self) -> str: ...

    @property
    def class_names(self) -> tuple[str, ...]: ...


def check_classes(dataset: HasClasses, expert: Expert) -> None:
    """Refuse an expert with other classes, or with another order of them; warn if a few names differ.

    Models spell the names of a data set in their own way (ADE20K's "tv" and "television receiver", "road" and
    "road, route"), so it is enough that four fifths of the names are the same, in the same places.
    """

    def plain(names: Iterable[str]) -> list[str]:
        return ["".join(c for c in name.lower() if c.isalnum()) for name in names]

    given, expected = plain(dataset.class_names), plain(expert.info.class_names)
    pairs = list(zip(dataset.class_names, expert.info.class_names, given, expected, strict=False))
    unlike = [(name, other) for name, other, a, b in pairs if not (a.startswith(b) or b.startswith(a))]
    if len(given) == len(expected) and not unlike:
        return
    what = f"{len(given)} classes against {len(expected)}"
    what += f", first {unlike[0][0]!r} against {unlike[0][1]!r}" if unlike else ""
    differ = f"labels of {dataset.name!r} and expert {expert.info.name!r} have other classes ({what})"
    if len(given) != len(expected) or 5 * len(unlike) > len(given):
        raise ConfigError(
            f"{differ}: take an expert for these classes, or evaluate without labels", argument="use_labels"
        )
    log.warning("%s: treated as other names of the same %d classes", differ, len(given))
