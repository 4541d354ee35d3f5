"""Datasets by name."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from gosvae.datasets.camvid import CAMVID_CLASSES, CamVid
from gosvae.datasets.folder import ImageFolder
from gosvae.datasets.geometry import GeometryConfig, prepare
from gosvae.datasets.registry import DATASETS, contents, default_geometry, load_dataset
from gosvae.errors import DatasetError


@pytest.fixture
def camvid(tmp_path: Path) -> Path:
    root = tmp_path / "cam@vid"
    for split, count in [("train", 3), ("val", 2)]:
        for kind, mode in [(split, "RGB"), (f"{split}annot", "L")]:
            (root / kind).mkdir(parents=True)
            for i in range(count):
                Image.new(mode, (8, 6)).save(root / kind / f"{i}.png")
    return root


def test_the_split_is_given_or_the_default(camvid: Path) -> None:
    assert len(load_dataset(f"camvid:{camvid}", default_split="train")) == 3
    assert len(load_dataset(f"camvid:{camvid}", default_split="val")) == 2
    dataset = load_dataset(f"camvid:{camvid}@val", default_split="train")
    assert isinstance(dataset, CamVid)
    assert len(dataset) == 2


def test_a_path_is_a_folder(camvid: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for spec in (str(camvid / "train"), f"folder:{camvid / 'train'}"):
        dataset = load_dataset(spec, default_split="val")
        assert isinstance(dataset, ImageFolder)
        assert len(dataset) == 3
    assert len(load_dataset(str(camvid / "train" / "0.png"), default_split="val")) == 1
    monkeypatch.chdir(camvid)
    assert len(load_dataset("val", default_split="train")) == 2


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("camvod:data", "unknown dataset 'camvod'; did you mean 'camvid'"),
        ("nowhere", "and there is no file or folder 'nowhere'"),
        ("camvid", "'camvid' needs a path: .*camvid:PATH"),
        ("nowhere/photos", "no such file or folder: nowhere/photos"),
        ("folder:nowhere", "no such file or folder: nowhere"),
        ("cityscapes:nowhere", "looked for nowhere"),
        ("ade20k:nowhere@test", "unknown split of ade20k 'test'"),
        ("folder:nowhere@val", "no splits"),
        ("streets:many", "streets:many: expected a number"),
        ("streets:0", "expected a number"),
        ("streets@night", "unknown split of streets 'night'"),
    ],
)
def test_wrong_specs_are_explained(spec: str, message: str) -> None:
    with pytest.raises(DatasetError, match=message) as error:
        load_dataset(spec, default_split="val")
    assert "\n" not in str(error.value)


def test_streets_are_the_same_each_time_and_differ_by_split() -> None:
    pytest.importorskip("gosvae.datasets.streets")
    first, again, val = (
        load_dataset(s, default_split="train") for s in ("streets:2", "streets:2@train", "streets:2@val")
    )
    assert (len(first), first.class_names) == (2, CAMVID_CLASSES)
    assert first[1].image_uint8_HW3.shape == (256, 512, 3)
    assert np.array_equal(first[1].image_uint8_HW3, again[1].image_uint8_HW3)
    assert not np.array_equal(first[1].image_uint8_HW3, val[1].image_uint8_HW3)
    assert len(load_dataset("streets@val", default_split="train")) != len(
        load_dataset("streets", default_split="train")
    )


def test_every_dataset_has_a_geometry_and_a_description() -> None:
    for name, description in DATASETS.items():
        assert f"{name}:" in description or f"{name}[:" in description
        assert isinstance(default_geometry(name), GeometryConfig)
    with pytest.raises(DatasetError, match="unknown dataset 'camvi'"):
        default_geometry("camvi")


@pytest.mark.parametrize(
    ("dataset", "shown"),
    [
        ("camvid (367)+streets (180)", "street scenes"),
        ("streets", "street scenes"),
        ("folder", None),
        ("camvid (367)+folder (20)", None),
        ("", None),
    ],
)
def test_contents_are_told_where_all_parts_show_the_same(dataset: str, shown: str | None) -> None:
    assert contents(dataset) == shown


def test_the_real_camvid_at_the_size_of_the_table(camvid_root: Path) -> None:
    dataset = load_dataset(f"camvid:{camvid_root}", default_split="val")
    sample = prepare(dataset[0], default_geometry(dataset.name))
    assert sample.image_uint8_HW3.shape == (256, 512, 3)
    assert sample.labels_uint8_HW is not None
    assert sample.labels_uint8_HW.shape == (256, 512)
