"""IDD-Lite on disk, and the splits of street data that are kept out of training."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from gosvae.datasets.camvid import CamVid
from gosvae.datasets.idd_lite import IDD_LITE_CLASSES, IddLite
from gosvae.datasets.registry import load_dataset
from gosvae.errors import DatasetError

ALL_LABELS = np.array([[0, 1, 2, 3, 4, 5, 6, 255]] * 4, np.uint8)


def save_pair(root: Path, split: str, name: str, labels: np.ndarray = ALL_LABELS) -> None:
    for folder, array in ((split, np.full((4, 8, 3), 9, np.uint8)), (f"{split}_labels", labels)):
        (root / folder).mkdir(parents=True, exist_ok=True)
        Image.fromarray(array).save(root / folder / f"{name}.{'png' if folder.endswith('labels') else 'jpg'}")


def names(dataset: CamVid | IddLite) -> list[str]:
    return [dataset[i].name for i in range(len(dataset))]


def test_images_and_labels_of_idd_lite(tmp_path: Path) -> None:
    for name in ("9_b", "10_a"):
        save_pair(tmp_path, "val", name)
    dataset = load_dataset(f"idd-lite:{tmp_path}", default_split="val")
    assert isinstance(dataset, IddLite)
    assert names(dataset) == ["10_a", "9_b"]
    sample = dataset[0]
    assert sample.image_uint8_HW3.shape == (4, 8, 3)
    assert sample.labels_uint8_HW is not None
    assert set(np.unique(sample.labels_uint8_HW)) == {*range(len(IDD_LITE_CLASSES)), 255}
    save_pair(tmp_path, "val", "10_a", np.full((4, 8), 7, np.uint8))
    with pytest.raises(DatasetError, match=r"10_a\.png: label 7 found"):
        dataset[0]
    (tmp_path / "val_labels" / "9_b.png").unlink()
    with pytest.raises(DatasetError, match="1 of 2 images"):
        IddLite(tmp_path, "val")
    with pytest.raises(DatasetError, match="unknown split of idd-lite 'vall'; did you mean 'val'"):
        IddLite(tmp_path, "vall")


def test_every_seventh_image_of_idd_lite_is_kept_out(tmp_path: Path) -> None:
    everything = [f"{i:02d}" for i in range(16)]
    for name in everything:
        save_pair(tmp_path, "train", name)
    assert names(IddLite(tmp_path, "unseen")) == ["00", "07", "14"]
    assert names(IddLite(tmp_path, "seen")) == [name for name in everything if name not in ("00", "07", "14")]
    assert names(IddLite(tmp_path, "train")) == everything


def test_a_drive_of_camvid_is_kept_out(tmp_path: Path) -> None:
    for name in ("0001TP_1", "0006R0_1", "0006R0_2", "0016E5_1"):
        for folder, mode in (("train", "RGB"), ("trainannot", "L")):
            (tmp_path / folder).mkdir(exist_ok=True)
            Image.new(mode, (8, 6)).save(tmp_path / folder / f"{name}.png")
    assert names(CamVid(tmp_path, "unseen")) == ["0006R0_1", "0006R0_2"]
    assert names(CamVid(tmp_path, "seen")) == ["0001TP_1", "0016E5_1"]
    assert len(CamVid(tmp_path, "train")) == 4
    for path in (tmp_path / "train").glob("0006R0*"):
        path.unlink()
    with pytest.raises(DatasetError, match="no frames for the split 'unseen'"):
        CamVid(tmp_path, "unseen")


def test_the_real_splits(camvid_root: Path) -> None:
    assert [len(CamVid(camvid_root, split)) for split in ("seen", "unseen")] == [266, 101]
    root = camvid_root.parent / "idd-lite"
    if not root.is_dir():
        pytest.skip(f"needs IDD-Lite in {root}")
    assert [len(IddLite(root, split)) for split in ("seen", "unseen")] == [1202, 201]
