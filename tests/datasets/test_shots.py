"""The shots that the images of a data set belong to."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image

from gosvae.datasets.base import Dataset
from gosvae.datasets.camvid import CAMVID_CLASSES, CamVid
from gosvae.datasets.cityscapes import Cityscapes
from gosvae.datasets.common import InCommonClasses
from gosvae.datasets.folder import ImageFolder
from gosvae.datasets.geometry import GeometryConfig, Prepared
from gosvae.datasets.idd_lite import IddLite
from gosvae.datasets.mixture import Mixture
from gosvae.datasets.subset import EvenlySpaced, WithoutLabels


def save(path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.zeros((4, 6), np.uint8)).save(path)


def shots(dataset: Dataset) -> list[str]:
    return [dataset.shot(index) for index in range(len(dataset))]


def camvid(root: Path) -> CamVid:
    for name in ("0001TP_008550", "0001TP_008580", "0016E5_07959", "Seq05VD_f00000"):
        save(root / "val" / f"{name}.png")
        save(root / "valannot" / f"{name}.png")
    return CamVid(root, "val")


def test_a_shot_of_camvid_is_a_drive(tmp_path: Path) -> None:
    assert shots(camvid(tmp_path)) == ["0001TP", "0001TP", "0016E5", "Seq05VD"]


def test_a_shot_of_cityscapes_is_a_sequence(tmp_path: Path) -> None:
    for name in ("aachen_000000_000019", "aachen_000001_000019", "aachen_000001_000020"):
        save(tmp_path / "leftImg8bit/val/aachen" / f"{name}_leftImg8bit.png")
        save(tmp_path / "gtFine/val/aachen" / f"{name}_gtFine_labelIds.png")
    assert shots(Cityscapes(tmp_path, "val")) == ["aachen_000000", "aachen_000001", "aachen_000001"]


def test_a_shot_of_idd_lite_is_a_drive(tmp_path: Path) -> None:
    for name in ("0_024541", "0_024703", "100_178149"):
        save(tmp_path / "val" / f"{name}.jpg")
        save(tmp_path / "val_labels" / f"{name}.png")
    assert shots(IddLite(tmp_path, "val")) == ["0", "0", "100"]


def test_a_shot_of_a_folder_is_a_sub_folder_or_a_single_image(tmp_path: Path) -> None:
    for name in ("one/1.png", "one/2.png", "two/deep/1.png", "two/1.png", "left.png", "right.png"):
        save(tmp_path / name)
    dataset = ImageFolder(tmp_path)
    found = {dataset[index].name: dataset.shot(index) for index in range(len(dataset))}
    assert found == {
        "one/1.png": "one",
        "one/2.png": "one",
        "two/deep/1.png": "two/deep",
        "two/1.png": "two",
        "left.png": "left.png",
        "right.png": "right.png",
    }
    assert shots(ImageFolder(tmp_path / "left.png")) == ["left.png"]


def test_parts_and_views_of_a_data_set_keep_its_shots(tmp_path: Path) -> None:
    whole = camvid(tmp_path)
    assert whole.class_names == CAMVID_CLASSES
    expected = shots(whole)
    for view in (
        InCommonClasses(whole),
        WithoutLabels(whole),
        Prepared(whole, GeometryConfig()),
        EvenlySpaced(whole, 4),
    ):
        assert shots(view) == expected
    assert shots(EvenlySpaced(whole, 2)) == [expected[0], expected[2]]


def test_parts_of_a_mixture_have_no_shot_in_common(tmp_path: Path) -> None:
    whole = camvid(tmp_path)
    assert len(set(shots(Mixture([whole, whole])))) == 6
    assert len(set(shots(Mixture([whole])))) == 3
