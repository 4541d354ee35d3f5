"""A look at image files before a long training: header, size and end, without decoding the pixels."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from PIL import ExifTags, Image

from gosvae.errors import DatasetError, ImageError
from gosvae.files import is_lfs_pointer
from gosvae.images import MAX_PIXELS, READ_FORMATS, read_image

if TYPE_CHECKING:
    from gosvae.datasets.base import Dataset

_END_BYTES = 65536
_ENDS = {"PNG": b"IEND", "JPEG": b"\xff\xd9", "MPO": b"\xff\xd9"}
"""Last marker of a file by format. It stands near the end: some programs write more behind it."""
_TURNED = (5, 6, 7, 8)
"""EXIF orientations that exchange height and width."""
_NAMED = 3


def check_image_file(path: Path) -> tuple[int, int]:
    """Return height and width from an image's header; a file that looks damaged is decoded, which decides.

    Raises:
        ImageError: the file cannot be read as an image.
    """
    if is_lfs_pointer(path):
        raise ImageError(f"{path} is a Git LFS pointer, not the image itself: run git lfs pull")
    size = _size_of_sound_file(path)
    if size is None:
        image = read_image(path)
        size = (image.shape[0], image.shape[1])
    return size


def _size_of_sound_file(path: Path) -> tuple[int, int] | None:
    """Return height and width as they are after the orientation is applied; None where only decoding can tell."""
    try:
        with path.open("rb") as stream, warnings.catch_warnings():
            warnings.simplefilter("ignore")  # reading the image warns, or refuses
            length = stream.seek(0, 2)
            stream.seek(max(0, length - _END_BYTES))
            end = stream.read()
            stream.seek(0)
            with Image.open(stream, formats=READ_FORMATS) as image:
                width, height = image.size
                if width * height > MAX_PIXELS or _ENDS.get(image.format or "", b"") not in end:
                    return None
                if image.format == "PNG":  # the orientation may stand behind the pixels
                    return None if "exif" in image.info else (height, width)
                turned = image.getexif().get(ExifTags.Base.Orientation) in _TURNED
                return (width, height) if turned else (height, width)
    except Exception:  # Pillow raises what a damaged file makes it stumble on; reading the image finds the words
        return None


def check_samples(dataset: Dataset, crops: Sequence[tuple[int, int]] = ()) -> None:
    """Check the files of all samples without decoding them.

    Args:
        dataset: data set to check.
        crops: heights and widths that are cut from its images.

    Raises:
        DatasetError: samples cannot be read, or are smaller than a crop; the message counts them and names the first.
    """
    bad: list[str] = []
    for index in range(len(dataset)):
        try:
            size = dataset.check(index)
        except (ImageError, DatasetError) as error:
            bad.append(str(error))
            continue
        small = [crop for crop in crops if size is not None and (size[0] < crop[0] or size[1] < crop[1])]
        if small and size is not None:
            bad.append(
                f"cannot cut {small[0][0]}x{small[0][1]} (height x width) from image {index} of {size[0]}x{size[1]}"
            )
    if bad:
        more = f"; and {len(bad) - _NAMED} more" if len(bad) > _NAMED else ""
        raise DatasetError(
            f"{len(bad)} of {len(dataset)} images of {dataset.name!r} cannot be used: take them away or mend them: "
            + "; ".join(bad[:_NAMED])
            + more
        )
