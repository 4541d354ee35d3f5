"""Whether a data set fits what is to be measured on it."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Sequence
from typing import Protocol

from gosvae.codecs.base import ImageCodec, SendsObjects
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


def sends_objects(codec: ImageCodec) -> bool:
    """Return whether a codec compresses the labelled objects of an image and not the image."""
    return isinstance(codec, SendsObjects) and bool(codec.object_names)


def check_objects(codecs: Iterable[ImageCodec], dataset: Dataset) -> None:
    """Refuse a codec that sends objects of other classes than those of the data set, or of which it has none."""
    for codec in codecs:
        if isinstance(codec, SendsObjects) and codec.object_names not in ((), dataset.object_names):
            raise ConfigError(
                f"{codec.name!r} sends labelled objects of {len(codec.object_names)} classes, and the objects of "
                f"{dataset.name!r} have {len(dataset.object_names)}: take the data set that it was trained on"
            )


class HasClasses(Protocol):
    """Data with a name and the names of the classes of its labels."""

    @property
    def name(self) -> str: ...

    @property
    def class_names(self) -> tuple[str, ...]: ...


def check_classes(dataset: HasClasses, expert: Expert) -> None:
    """Refuse an expert with other classes than the labels; see `check_class_names`."""
    check_class_names(dataset, expert.info.class_names, expert.info.name)


def check_class_names(
    dataset: HasClasses, class_names: Sequence[str], expert: str, *, needs_labels: bool = False
) -> None:
    """Refuse an expert with other classes, or with another order of them; warn if a few names differ.

    Models spell the names of a data set in their own way (ADE20K's "tv" and "television receiver", "road" and
    "road, route"), so it is enough that four fifths of the names are the same, in the same places.

    Args:
        dataset: data with labels.
        class_names: names of the expert's classes.
        expert: name of the expert, for the message.
        needs_labels: whether the labels cannot be left out, which the message proposes otherwise.

    Raises:
        ConfigError: the classes differ.
    """

    def plain(names: Iterable[str]) -> list[str]:
        return ["".join(c for c in name.lower() if c.isalnum()) for name in names]

    given, expected = plain(dataset.class_names), plain(class_names)
    pairs = list(zip(dataset.class_names, class_names, given, expected, strict=False))
    unlike = [(name, other) for name, other, a, b in pairs if not (a.startswith(b) or b.startswith(a))]
    if len(given) == len(expected) and not unlike:
        return
    what = f"{len(given)} classes against {len(expected)}"
    what += f", first {unlike[0][0]!r} against {unlike[0][1]!r}" if unlike else ""
    differ = f"labels of {dataset.name!r} and expert {expert!r} have other classes ({what})"
    if len(given) != len(expected) or 5 * len(unlike) > len(given):
        otherwise = "" if needs_labels else ", or evaluate without labels"
        raise ConfigError(f"{differ}: take an expert for these classes{otherwise}", argument="use_labels")
    log.warning("%s: treated as other names of the same %d classes", differ, len(given))
