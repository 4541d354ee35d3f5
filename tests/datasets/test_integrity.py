"""Images that cannot be used are found before a training begins, without decoding all of them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from gosvae.datasets import integrity
from gosvae.datasets.base import Dataset
from gosvae.datasets.folder import ImageFolder
from gosvae.datasets.geometry import GeometryConfig, Prepared
from gosvae.datasets.integrity import check_image_file, check_samples
from gosvae.datasets.mixture import Mixture
from gosvae.datasets.registry import load_dataset
from gosvae.datasets.subset import EvenlySpaced
from gosvae.errors import DatasetError, ImageError

PICTURE = np.random.default_rng(0).integers(0, 256, (48, 64, 3), dtype=np.uint8)


@pytest.mark.parametrize("name", ["a.png", "a.jpg", "a.webp", "a.bmp", "a.tif", "a.ppm", "a.avif"])
def test_a_sound_file_is_not_decoded(tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    Image.fromarray(PICTURE).save(tmp_path / name)
    monkeypatch.setattr(integrity, "read_image", lambda path: pytest.fail(f"{path} is decoded"))
    assert check_image_file(tmp_path / name) == (48, 64)


def test_the_size_is_that_of_the_upright_picture(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    for name in ("a.jpg", "a.png"):
        Image.fromarray(PICTURE).save(tmp_path / name, exif=exif)
        assert check_image_file(tmp_path / name) == (64, 48)


@pytest.mark.parametrize("name", ["a.png", "a.jpg"])
@pytest.mark.parametrize("share", [0.0, 0.1, 0.6])
def test_a_file_that_was_cut_is_refused(tmp_path: Path, name: str, share: float) -> None:
    path = tmp_path / name
    Image.fromarray(PICTURE).save(path)
    path.write_bytes(path.read_bytes()[: int(share * path.stat().st_size)])
    with pytest.raises(ImageError):
        check_image_file(path)


def test_a_pointer_of_git_lfs_is_named(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_text("version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 5\n")
    with pytest.raises(ImageError, match=r"a\.png is a Git LFS pointer, .* git lfs pull"):
        check_image_file(tmp_path / "a.png")


def folder(path: Path, count: int = 5) -> Dataset:
    path.mkdir()
    for number in range(count):
        Image.fromarray(PICTURE).save(path / f"{number}.png")
    return ImageFolder(path)


def test_all_images_are_checked_and_the_bad_ones_counted(tmp_path: Path) -> None:
    dataset = Mixture([Prepared(folder(tmp_path / name), GeometryConfig()) for name in "ab"])
    check_samples(dataset, [(48, 64)])
    for name in ("a/1", "b/0", "b/1", "b/3", "b/4"):
        (tmp_path / f"{name}.png").write_bytes(b"")
    with pytest.raises(DatasetError, match=r"5 of 10 images .*a/1\.png.*b/0\.png.*b/1\.png.*; and 2 more") as caught:
        check_samples(dataset)
    assert "\n" not in str(caught.value)
    with pytest.raises(DatasetError, match="1 of 1 images"):
        check_samples(EvenlySpaced(ImageFolder(tmp_path / "b"), 1))


def test_images_that_are_smaller_than_a_crop_are_found(tmp_path: Path) -> None:
    dataset = folder(tmp_path / "a")
    with pytest.raises(
        DatasetError, match=r"5 of 5 images .*cannot cut 49x64 \(height x width\) from image 0 of 48x64"
    ):
        check_samples(dataset, [(32, 32), (49, 64)])
    check_samples(Prepared(dataset, GeometryConfig(resize_height=64, resize_width=64)), [(49, 64)])


def test_label_maps_are_checked_too(tmp_path: Path) -> None:
    images, labels = tmp_path / "camvid" / "val", tmp_path / "camvid" / "valannot"
    images.mkdir(parents=True)
    labels.mkdir()
    Image.fromarray(PICTURE).save(images / "a.png")
    Image.fromarray(np.zeros((48, 64), np.uint8)).save(labels / "a.png")
    dataset = load_dataset(f"camvid:{tmp_path / 'camvid'}", default_split="val")
    assert dataset.check(0) == (48, 64)
    Image.fromarray(np.zeros((48, 63), np.uint8)).save(labels / "a.png")
    with pytest.raises(DatasetError, match="expected one size"):
        check_samples(dataset)
