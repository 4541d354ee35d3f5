"""The generator of street scenes: what a sample is, that it never varies, and that the classes are there."""

import hashlib

import numpy as np
import pytest

from gosvae.datasets.base import Sample
from gosvae.datasets.streets import Streets
from gosvae.errors import DatasetError

SKY, BUILDING, POLE, ROAD, PAVEMENT, TREE, SIGN, FENCE, CAR, PEDESTRIAN, BICYCLIST = range(11)


def digest(sample: Sample) -> str:
    assert sample.labels_uint8_HW is not None
    return hashlib.sha256(sample.image_uint8_HW3.tobytes() + sample.labels_uint8_HW.tobytes()).hexdigest()


@pytest.fixture(scope="module")
def small_samples() -> list[Sample]:
    dataset = Streets(50, seed=3, height=96, width=192)
    return [dataset[i] for i in range(len(dataset))]


def test_class_names_are_those_of_camvid() -> None:
    assert Streets.class_names == (
        "sky", "building", "pole", "road", "pavement", "tree", "sign", "fence", "car", "pedestrian", "bicyclist",
    )  # fmt: skip
    assert Streets(1, 0).has_labels
    assert Streets(1, 0).name == "streets"


@pytest.mark.parametrize(("height", "width"), [(256, 512), (64, 96), (97, 131), (16, 16), (120, 40), (17, 200)])
def test_sample_has_the_asked_size_and_valid_values(height: int, width: int) -> None:
    sample = Streets(2, 11, height, width)[1]
    image, labels = sample.image_uint8_HW3, sample.labels_uint8_HW
    assert labels is not None
    assert image.shape == (height, width, 3)
    assert labels.shape == (height, width)
    assert image.dtype == labels.dtype == np.uint8
    assert image.flags.c_contiguous
    assert labels.flags.c_contiguous
    assert image.flags.writeable
    assert set(np.unique(labels)) <= {*range(11), 255}
    assert len(np.unique(labels)) > 2
    assert image.std() > 10


def test_scene_depends_on_seed_index_and_size_only() -> None:
    first = digest(Streets(5, 0, 64, 96)[3])
    np.random.seed(1)
    other = Streets(100, 0, 64, 96)
    _ = other[0]
    assert digest(other[3]) == first
    assert len({first, digest(other[2]), digest(Streets(5, 1, 64, 96)[3]), digest(Streets(5, 0, 64, 98)[3])}) == 4


def test_names_are_unique() -> None:
    dataset = Streets(3, 5, 16, 16)
    assert len({dataset[i].name for i in range(3)} | {Streets(1, 6, 16, 16)[0].name}) == 4


def test_every_class_occurs_with_a_plausible_share(small_samples: list[Sample]) -> None:
    labels = np.stack([s.labels_uint8_HW for s in small_samples if s.labels_uint8_HW is not None])
    shares = np.bincount(labels.ravel(), minlength=256)[:11] / labels.size
    low = {SKY: 0.05, BUILDING: 0.07, ROAD: 0.2, PAVEMENT: 0.03, TREE: 0.08, CAR: 0.04}
    for label in range(11):
        if label in low:
            assert low[label] < shares[label] < 0.45, (label, shares)
        else:
            assert 0.0005 < shares[label] < 0.03, (label, shares)


def test_scenes_are_laid_out_like_streets(small_samples: list[Sample]) -> None:
    """Sky only above, road mostly below, and the sky brighter than the road in daylight."""
    labels = np.stack([s.labels_uint8_HW for s in small_samples if s.labels_uint8_HW is not None])
    images = np.stack([s.image_uint8_HW3 for s in small_samples])
    assert not (labels[:, 60:] == SKY).any()
    assert (labels[:, 80:] == ROAD).mean() > 0.4
    assert not (labels[:, :20] == ROAD).any()
    assert images[labels == SKY].mean() > images[labels == ROAD].mean() + 20


def test_picture_and_labels_share_their_edges() -> None:
    """Where the class changes the picture changes more than elsewhere: both come from the same geometry."""
    ratios = []
    for i in range(6):
        sample = Streets(6, 2, 128, 256)[i]
        assert sample.labels_uint8_HW is not None
        step = np.abs(np.diff(sample.image_uint8_HW3.astype(int), axis=1)).sum(axis=2)
        border = np.diff(sample.labels_uint8_HW.astype(int), axis=1) != 0
        ratios.append(step[border].mean() / step[~border].mean())
    assert min(ratios) > 1.4


@pytest.mark.parametrize("index", [4, 100, -1])
def test_index_outside_is_an_index_error(index: int) -> None:
    with pytest.raises(IndexError, match="scenes 0 to 3"):
        Streets(4, 0, 16, 16)[index]


def test_iteration_ends() -> None:
    assert len(list(iter(Streets(2, 0, 16, 16)))) == 2


@pytest.mark.parametrize(("count", "height", "width"), [(-1, 64, 64), (1, 8, 64), (1, 64, 0)])
def test_impossible_arguments_are_refused(count: int, height: int, width: int) -> None:
    with pytest.raises(DatasetError, match="expected count"):
        Streets(count, 0, height, width)
