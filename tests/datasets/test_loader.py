"""Training batches: a pure function of seed and step, whatever the workers, ranks and restarts."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from gosvae.datasets.base import Dataset, Sample
from gosvae.datasets.loader import Batch, TrainingBatches
from gosvae.errors import ConfigError, DatasetError, ImageError


class Coded(Dataset):
    """Images in which red and green tell the class: whatever moves the image must move the labels alike."""

    name = "coded"
    class_names = tuple(str(i) for i in range(16))

    def __init__(self, count: int, height: int = 12, width: int = 16, *, block: int = 1, labelled: bool = True) -> None:
        self.count, self.height, self.width, self.block, self.labelled = count, height, width, block, labelled

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, index: int) -> Sample:
        blocks = np.random.default_rng(index).integers(
            0, 16, (-(-self.height // self.block), -(-self.width // self.block))
        )
        labels = np.kron(blocks, np.ones((self.block, self.block), int))[: self.height, : self.width].astype(np.uint8)
        image = np.stack([labels * 16, 255 - labels * 16, np.full_like(labels, index)], axis=-1)
        return Sample(image, labels if self.labelled else None, f"{index:03}")


class Broken(Coded):
    """One sample cannot be read."""

    def __getitem__(self, index: int) -> Sample:
        if index == 3:
            raise ImageError("003.png is damaged: copy it again")
        return super().__getitem__(index)


class Uneven(Coded):
    """Every sample has a size of its own."""

    def __getitem__(self, index: int) -> Sample:
        return Coded(self.count, self.height + index, self.width)[index]


def take(batches: TrainingBatches, start: int, count: int) -> list[Batch]:
    return list(itertools.islice(batches.stream(start), count))


def assert_same(first: list[Batch], second: list[Batch]) -> None:
    assert len(first) == len(second) > 0
    for a, b in zip(first, second, strict=True):
        assert (a.names, a.flipped) == (b.names, b.flipped)
        assert torch.equal(a.x_B3HW, b.x_B3HW)
        assert a.labels_BHW is not None
        assert b.labels_BHW is not None
        assert torch.equal(a.labels_BHW, b.labels_BHW)


def everything(**changes: object) -> TrainingBatches:
    settings_ = {"batch_size": 3, "seed": 5, "crop_height": 6, "crop_width": 8, "brightness": 0.3, "scale": 0.25}
    return TrainingBatches(Coded(10), **{**settings_, **changes})  # type: ignore[arg-type]


@given(start=st.integers(0, 25))
@settings(max_examples=15)
def test_a_resumed_stream_goes_on_bit_for_bit(start: int) -> None:
    assert_same(take(everything(), 0, start + 3)[start:], take(everything(), start, 3))


def test_going_back_gives_the_same_again() -> None:
    batches = everything()
    ahead = take(batches, 20, 2)
    assert_same(take(batches, 0, 22)[20:], ahead)
    assert_same(take(batches, 20, 2), ahead)


@pytest.mark.parametrize("workers", [1, 2])
def test_the_number_of_workers_changes_nothing(workers: int) -> None:
    state = torch.get_rng_state()
    with_workers = take(everything(workers=workers), 2, 6)
    assert torch.equal(torch.get_rng_state(), state)
    assert_same(with_workers, take(everything(), 2, 6))


def test_another_seed_gives_other_batches() -> None:
    assert [b.names for b in take(everything(), 0, 4)] != [b.names for b in take(everything(seed=6), 0, 4)]


@given(count=st.integers(1, 12), batch_size=st.integers(1, 5), world_size=st.integers(1, 3))
@settings(max_examples=30)
def test_ranks_share_an_epoch_without_overlap(count: int, batch_size: int, world_size: int) -> None:
    ranks = [
        TrainingBatches(Coded(count), batch_size=batch_size, seed=1, rank=rank, world_size=world_size)
        for rank in range(world_size)
    ]
    steps = -(-2 * count // (batch_size * world_size))
    seen = [name for step in range(steps) for batches in ranks for name in batches.batch(step).names]
    names = [f"{i:03}" for i in range(count)]
    assert sorted(seen[:count]) == names
    assert sorted(seen[count : 2 * count]) == names


def test_epochs_differ_in_order_and_augmentation() -> None:
    batches = TrainingBatches(Coded(12), batch_size=12, seed=0)
    first, second = take(batches, 0, 2)
    assert first.names != second.names
    assert dict(zip(first.names, first.flipped, strict=True)) != dict(zip(second.names, second.flipped, strict=True))


def test_image_and_labels_are_cut_and_mirrored_alike() -> None:
    batches = TrainingBatches(Coded(10), batch_size=5, seed=2, crop_height=5, crop_width=7)
    flips = set()
    for batch in take(batches, 0, 8):
        assert batch.x_B3HW.shape == (5, 3, 5, 7)
        assert batch.x_B3HW.dtype == torch.float32
        assert batch.labels_BHW is not None
        assert batch.labels_BHW.dtype == torch.int64
        assert torch.equal((batch.x_B3HW[:, 0] * 255).round().long(), batch.labels_BHW * 16)
        for name, flipped, labels_HW in zip(batch.names, batch.flipped, batch.labels_BHW.numpy(), strict=True):
            whole = Coded(10)[int(name)].labels_uint8_HW
            windows = np.lib.stride_tricks.sliding_window_view(whole, (5, 7))
            found = labels_HW[:, ::-1] if flipped else labels_HW
            assert (windows == found).all(axis=(2, 3)).any()
            flips.add(flipped)
    assert flips == {True, False}


def test_crops_reach_every_corner() -> None:
    batches = TrainingBatches(Coded(1, 7, 9), batch_size=40, seed=0, crop_height=6, crop_width=8, flip=False)
    labels_BHW = batches.batch(0).labels_BHW
    assert labels_BHW is not None
    assert len({labels.numpy().tobytes() for labels in labels_BHW}) == 4


def test_scaled_crops_keep_image_and_labels_together() -> None:
    dataset = Coded(4, 64, 64, block=16)
    batches = TrainingBatches(dataset, batch_size=8, seed=3, crop_height=32, crop_width=32, scale=0.4)
    batch = batches.batch(0)
    assert batch.labels_BHW is not None
    shown = (batch.x_B3HW[:, 0] * 255 / 16).round().long()
    # Only pixels next to an edge between two blocks are mixed by the interpolation.
    assert (shown == batch.labels_BHW).float().mean() > 0.8


def test_a_scale_never_outgrows_the_image() -> None:
    batches = TrainingBatches(Coded(4), batch_size=16, seed=3, crop_height=12, crop_width=16, scale=0.9)
    assert batches.batch(0).x_B3HW.shape == (16, 3, 12, 16)


def test_brightness_stays_in_range_and_leaves_labels_alone() -> None:
    plain, varied = (TrainingBatches(Coded(6), batch_size=6, seed=4, brightness=b).batch(1) for b in (0.0, 0.5))
    assert (plain.names, plain.flipped) == (varied.names, varied.flipped)
    assert plain.labels_BHW is not None
    assert varied.labels_BHW is not None
    assert torch.equal(plain.labels_BHW, varied.labels_BHW)
    assert not torch.equal(plain.x_B3HW, varied.x_B3HW)
    assert 0.0 <= varied.x_B3HW.min() <= varied.x_B3HW.max() <= 1.0
    ratio = varied.x_B3HW.mean(dim=(1, 2, 3)) / plain.x_B3HW.mean(dim=(1, 2, 3))
    assert 0.45 <= ratio.min() < ratio.max() <= 1.55


def test_without_labels_and_without_flips() -> None:
    batch = TrainingBatches(Coded(4, labelled=False), batch_size=4, seed=0, flip=False).batch(0)
    assert batch.labels_BHW is None
    assert batch.flipped == (False,) * 4
    for x_3HW, name in zip(batch.x_B3HW, batch.names, strict=True):
        image = Coded(4)[int(name)].image_uint8_HW3
        assert np.array_equal((x_3HW.permute(1, 2, 0) * 255).round().numpy(), image)


@pytest.mark.parametrize("workers", [0, 1])
@pytest.mark.parametrize(
    ("dataset", "crop", "message"),
    [
        (Coded(4), 20, r"\d{3}: cannot cut 20x20 .* 12x16"),
        (Broken(4), None, r"003\.png is damaged"),
        (Uneven(4), None, "different sizes in one batch"),
    ],
)
def test_errors_are_one_line_in_any_process(dataset: Dataset, crop: int | None, message: str, workers: int) -> None:
    batches = TrainingBatches(dataset, batch_size=4, seed=0, crop_height=crop, crop_width=crop, workers=workers)
    with pytest.raises((DatasetError, ImageError), match=message) as error:
        next(batches.stream(0))
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    "changes",
    [
        {"batch_size": 0},
        {"workers": -1},
        {"rank": 2, "world_size": 2},
        {"brightness": 1.0},
        {"scale": -0.1},
        {"crop_width": None},
        {"crop_width": None, "crop_height": None},
    ],
)
def test_impossible_settings_are_config_errors(changes: dict[str, object]) -> None:
    with pytest.raises(ConfigError):
        everything(**changes)


def test_an_empty_dataset_is_refused() -> None:
    with pytest.raises(DatasetError, match="'coded' has no images"):
        TrainingBatches(Coded(0), batch_size=1, seed=0)
