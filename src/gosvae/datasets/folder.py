"""Dataset of a plain folder of images, or of one image, without labels."""

from __future__ import annotations

from pathlib import Path

from gosvae.datasets.base import Dataset, Sample
from gosvae.datasets.integrity import check_image_file
from gosvae.errors import DatasetError
from gosvae.images import IMAGE_SUFFIXES, read_image


class ImageFolder(Dataset):
    """Dataset of all images below a folder, sorted by path, without hidden files; or of a single image file.

    Raises:
        DatasetError: the path does not exist or holds no images.
    """

    name = "folder"
    class_names = ()

    def __init__(self, path: Path) -> None:
        if not path.exists():
            raise DatasetError(f"no such file or folder: {path}; expected an image or a folder of images")
        self._root = path if path.is_dir() else path.parent
        self._images = [path] if path.is_file() else sorted(filter(_is_image, path.rglob("*")))
        if not self._images:
            raise DatasetError(f"no images in {path} or below it: looked for {', '.join(sorted(IMAGE_SUFFIXES))}")

    def __len__(self) -> int:
        return len(self._images)

    def check(self, index: int) -> tuple[int, int] | None:
        return check_image_file(self._images[index])

    def __getitem__(self, index: int) -> Sample:
        path = self._images[index]
        return Sample(read_image(path), None, path.relative_to(self._root).as_posix())


def _is_image(path: Path) -> bool:
    return path.suffix.lower() in IMAGE_SUFFIXES and not path.name.startswith(".") and path.is_file()
