"""Several data sets as one."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from gosvae.datasets.base import Dataset, Sample
from gosvae.datasets.geometry import GeometryConfig
from gosvae.datasets.mixture import Mixture, load_prepared
from gosvae.errors import DatasetError
from gosvae.images import write_image
from tiny import streets

SMALL = GeometryConfig(resize_height=32, resize_width=64)


def test_parts_follow_each_other() -> None:
    mixture = Mixture([streets(2), streets(3)])
    assert len(mixture) == 5
    assert mixture.name == "streets (2)+streets (3)"
    assert [mixture[i].name for i in range(5)] == [streets(3)[i].name for i in (0, 1, 0, 1, 2)]
    for index in (-1, 5):
        with pytest.raises(IndexError, match=r"outside 0..4"):
            mixture[index]
    assert Mixture([streets(2)]).name == "streets"


def test_classes_that_have_nothing_in_common_are_not_mixed(tmp_path: Path) -> None:
    class Other(Dataset):
        name, class_names = "other", ("a",)

        def __len__(self) -> int:
            return 1

        def __getitem__(self, index: int) -> Sample:
            raise IndexError(index)

    with pytest.raises(DatasetError, match=r"'other' has classes of its own: common classes are known for CamVid"):
        Mixture([streets(), Other()])
    write_image(tmp_path / "a.png", streets()[0].image_uint8_HW3)
    assert not load_prepared(f"streets:2+folder:{tmp_path}", default_split="val").has_labels


def test_what_a_string_names_comes_at_its_size() -> None:
    dataset = load_prepared("streets:2@val+streets:1@test", default_split="train", geometry=SMALL, cache_bytes=10**6)
    assert len(dataset) == 3
    assert dataset[2].image_uint8_HW3.shape == (32, 64, 3)
    assert dataset[2] is dataset[2]  # from memory
    cropped = GeometryConfig(resize_height=32, resize_width=64, crop_height=16, crop_width=16)
    used = load_prepared("streets:1", default_split="val", geometry=cropped)[0]
    seen = load_prepared("streets:1", default_split="val", geometry=cropped, centre_crop=False)[0]
    np.testing.assert_array_equal(seen.image_uint8_HW3[8:24, 24:40], used.image_uint8_HW3)


def test_paths_may_hold_a_plus_sign(tmp_path: Path) -> None:
    folder = tmp_path / "mine+yours"
    write_image(folder / "a.png", streets()[0].image_uint8_HW3)
    for spec in (str(folder), f"folder:{folder}"):
        assert len(load_prepared(spec, default_split="val")) == 1


def test_the_longest_path_that_exists_is_taken(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for folder, count in (("a", 1), ("a+b", 2), ("c++/d:2026", 3)):
        for n in range(count):
            write_image(tmp_path / folder / f"{n}.png", streets()[0].image_uint8_HW3)
    for split in ("val", "valannot"):
        (tmp_path / "c++" / "camvid" / split).mkdir(parents=True)
        Image.new("L", (8, 8)).save(tmp_path / "c++" / "camvid" / split / "0.png")
    monkeypatch.chdir(tmp_path)
    for spec, count in (
        ("folder:a+folder:a+b", 3),
        ("a+b+a", 3),
        ("a+c++/d:2026+folder:a+b", 6),
        ("folder:c++/d:2026", 3),
        ("camvid:c++/camvid@val", 1),
        ("camvid:c++/camvid@val+streets:2+camvid:c++/camvid", 4),
    ):
        assert len(load_prepared(spec, default_split="val")) == count, spec


@pytest.mark.parametrize("spec", ["streets:2+", "~no-such-user/data", "folder:~no-such-user", "streets:2+nowhere", "+"])
def test_a_part_that_names_nothing_is_refused(spec: str) -> None:
    with pytest.raises(DatasetError) as caught:
        load_prepared(spec, default_split="val")
    assert "\n" not in str(caught.value)
