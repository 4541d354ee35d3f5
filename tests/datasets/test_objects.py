"""Object maps: all labels of the files, instances, and the edges of both as a receiver draws them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from gosvae.codecs.gesco import map_of_symbols
from gosvae.config import parse
from gosvae.datasets.base import INSTANCE_STEP, Dataset
from gosvae.datasets.cityscapes import CITYSCAPES_OBJECTS, Cityscapes
from gosvae.datasets.geometry import GeometryConfig, Prepared
from gosvae.datasets.mixture import load_prepared
from gosvae.datasets.objects import ObjectsAsLabels, object_symbols
from gosvae.datasets.registry import load_dataset
from gosvae.datasets.subset import EvenlySpaced, WithoutLabels
from gosvae.diffusion import DiffusionConfig
from gosvae.errors import DatasetError
from made_cityscapes import CAR, PERSON, instance_map, make_cityscapes


def test_cityscapes_has_35_labels_and_instances(tmp_path: Path) -> None:
    data = Cityscapes(make_cityscapes(tmp_path), "val")
    assert len(data.object_names) == len(CITYSCAPES_OBJECTS) == 35
    assert data.object_names[CAR] == "car"
    assert data.has_instances
    objects = data.objects(1)
    numbers = instance_map(1)
    np.testing.assert_array_equal(objects % INSTANCE_STEP, np.where(numbers >= 1000, numbers // 1000, numbers))
    # A group has no instance, and its first instance is another object than the group.
    assert objects[30, 65] == PERSON
    assert objects[30, 75] == PERSON + INSTANCE_STEP
    assert objects[35, 35] == CAR + 2 * INSTANCE_STEP
    labels = data[1].labels_uint8_HW
    assert labels is not None
    assert set(np.unique(labels)) == {0, 10, 11, 13, 255}  # the 19 classes stay as they were


def edges_of(
    numbers: np.ndarray[tuple[int, int], np.dtype[np.int32]],
) -> np.ndarray[tuple[int, int], np.dtype[np.bool_]]:
    """Edges as GESCO draws them on the map of instances: a pixel one of whose four neighbours has another number."""
    edges, (height, width) = np.zeros(numbers.shape, np.bool_), numbers.shape
    for y in range(height):
        for x in range(width):
            near = ((y + dy, x + dx) for dy, dx in ((0, 1), (0, -1), (1, 0), (-1, 0)))
            edges[y, x] = any(numbers[a, b] != numbers[y, x] for a, b in near if 0 <= a < height and 0 <= b < width)
    return edges


@pytest.mark.parametrize("size", [(64, 96), (32, 48)])
def test_a_receiver_knows_all_edges_between_objects(tmp_path: Path, size: tuple[int, int]) -> None:
    """Symbols hold the edges inside a class alone; with those between classes they are the edges of the file's map."""
    geometry = GeometryConfig(resize_height=size[0], resize_width=size[1])
    data = Prepared(Cityscapes(make_cityscapes(tmp_path), "train"), geometry)
    symbols = object_symbols(data.objects(2), 35, instances=True)
    config = parse(DiffusionConfig, {"class_count": 35})
    map_LHW = map_of_symbols(torch.from_numpy(symbols).long()[None], config)[0]
    numbers = np.array(Image.fromarray(instance_map(2)).resize(size[::-1], Image.Resampling.NEAREST))
    np.testing.assert_array_equal(map_LHW[-1].bool().numpy(), edges_of(numbers))
    np.testing.assert_array_equal(map_LHW[:-1].argmax(0).numpy(), np.where(numbers >= 1000, numbers // 1000, numbers))
    assert 0 < (symbols >= 35).sum() < edges_of(numbers).sum()


def test_labels_of_other_data_sets_are_object_maps_too(tmp_path: Path) -> None:
    streets = load_dataset("streets:2", default_split="val")
    assert streets.object_names == (*streets.class_names, "ignored")
    assert not streets.has_instances
    labels, objects = streets[0].labels_uint8_HW, streets.objects(0)
    assert labels is not None
    np.testing.assert_array_equal(objects, np.where(labels == 255, 11, labels))
    (tmp_path / "images" / "training").mkdir(parents=True)
    (tmp_path / "annotations" / "training").mkdir(parents=True)
    raw = np.array([[0, 1], [150, 3]], np.uint8)
    Image.new("RGB", (2, 2)).save(tmp_path / "images" / "training" / "a.jpg")
    Image.fromarray(raw).save(tmp_path / "annotations" / "training" / "a.png")
    ade20k = load_dataset(f"ade20k:{tmp_path}", default_split="train")
    assert len(ade20k.object_names) == 151
    assert not ade20k.has_instances
    np.testing.assert_array_equal(ade20k.objects(0), raw)


def test_object_maps_go_through_all_views_of_a_data_set(tmp_path: Path) -> None:
    root = make_cityscapes(tmp_path)
    data = load_prepared(
        f"cityscapes:{root}", default_split="val", geometry=GeometryConfig(resize_height=32, resize_width=48)
    )
    assert len(data.object_names) == 35
    assert data.has_instances
    assert data.objects(0).shape == (32, 48)
    some: Dataset = EvenlySpaced(data, 1)
    np.testing.assert_array_equal(some.objects(0), data.objects(0))
    assert some.object_names == data.object_names
    symbols = ObjectsAsLabels(data)
    assert symbols.class_names == CITYSCAPES_OBJECTS
    assert symbols.instances
    found = symbols[0].labels_uint8_HW
    assert found is not None
    np.testing.assert_array_equal(found, object_symbols(data.objects(0), 35, instances=True))
    mixed = load_prepared(f"cityscapes:{root}+streets:2", default_split="val")
    assert mixed.object_names == (*mixed.class_names, "ignored")  # those of the common classes
    assert not mixed.has_instances
    np.testing.assert_array_equal(mixed.objects(3), object_symbols(mixed.objects(3), 8, instances=False))
    without = WithoutLabels(data)
    with pytest.raises(DatasetError, match="has no maps of objects"):
        ObjectsAsLabels(without)
    with pytest.raises(DatasetError, match="has no labels"):
        without.objects(0)


def test_missing_and_foreign_files(tmp_path: Path) -> None:
    data = Cityscapes(make_cityscapes(tmp_path, instances=False), "val")
    with pytest.raises(DatasetError, match=r"cannot read the map of instances .*_gtFine_instanceIds.png"):
        data.objects(0)
    for path in (tmp_path / "gtFine" / "val" / "aachen").glob("*_labelIds.png"):
        Image.new("RGB", (96, 64)).save(path.with_name(path.name.replace("labelIds", "instanceIds")))
    with pytest.raises(DatasetError, match="a grey image of 8 or 16 bits, this is RGB"):
        data.objects(0)
    with pytest.raises(DatasetError, match="has the class 26, expected at most 20 classes"):
        object_symbols(np.full((2, 2), CAR, np.int32), 20, instances=True)
