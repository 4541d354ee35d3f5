"""A plain folder of images, or one image, without labels."""

from __future__ import annotations

import logging
from pathlib import Path

from gosvae.datasets.base import Dataset, Sample
from gosvae.datasets.integrity import check_image_file
from gosvae.errors import DatasetError, ImageError
from gosvae.images import read_image
from gosvae.walk import find_images, printable

log = logging.getLogger(__name__)


class ImageFolder(Dataset):
    """Dataset of all images below a folder, as `find_images` lists them, or of a single image file.

    A warning in the log counts the pictures that are left out, for example because their format is not read.

    Raises:
        DatasetError: the path does not exist or holds no images.
    """

    name = "folder"
    class_names = ()

    def __init__(self, path: Path) -> None:
        if not path.exists():
            raise DatasetError(f"no such file or folder: {printable(path)}; expected an image or a folder of images")
        self._root = path if path.is_dir() else path.parent
        self._images = (path,) if path.is_file() else _images_below(path)

    def __len__(self) -> int:
        return len(self._images)

    def shot(self, index: int) -> str:
        """Return the sub-folder of an image; an image that is in none is a shot of its own."""
        path = self._images[index].relative_to(self._root)
        return path.as_posix() if path.parent == Path() else path.parent.as_posix()

    def check(self, index: int) -> tuple[int, int] | None:
        return check_image_file(self._images[index])

    def __getitem__(self, index: int) -> Sample:
        path = self._images[index]
        return Sample(read_image(path), None, printable(path.relative_to(self._root).as_posix()))


def _images_below(folder: Path) -> tuple[Path, ...]:
    try:
        found = find_images(folder)
    except ImageError as error:
        raise DatasetError(str(error)) from None
    if found.left_out:
        log.warning("%s", found.note())
    return found.files
