"""Endless training batches that can start at any step: the batch of a step depends on the seed and the step alone.

Axis legend: B images, 3 RGB channels, H and W pixels.
"""

from __future__ import annotations

import itertools
import signal
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.utils.data import DataLoader
from torch.utils.data import Dataset as TorchDataset

from gosvae.datasets.base import Dataset, Sample
from gosvae.datasets.camera import CameraChange
from gosvae.datasets.geometry import check_crop_fits
from gosvae.errors import ConfigError, DatasetError, GosvaeError
from gosvae.seeding import numpy_generator, torch_generator


@dataclass(frozen=True)
class Batch:
    """Images of one size.

    Attributes:
        x_B3HW: RGB in [0, 1], float32.
        labels_BHW: class of every pixel, int64, 255 ignored; None where the dataset has no labels.
        names: names of the samples.
        flipped: whether each of them is mirrored.
    """

    x_B3HW: Tensor
    labels_BHW: Tensor | None
    names: tuple[str, ...]
    flipped: tuple[bool, ...]


class TrainingBatches:
    """Shuffled, augmented batches of a dataset, the same for any number of worker processes.

    Samples are taken in the order of one permutation for each epoch; a batch may reach over the end of an epoch, so
    that every image is seen equally often. With `world_size` devices, each rank gets its own samples.

    Args:
        dataset: dataset that samples are drawn from.
        batch_size: number of images in a batch of this rank.
        seed: seed of the order and of the augmentation.
        crop_height, crop_width: size of a random crop, in pixels; None takes whole images.
        flip: whether to mirror half of the images.
        brightness: largest change b; brightness and contrast are each multiplied by a factor from [1 - b, 1 + b].
        scale: largest change s; before the crop the image is scaled by a factor from [1 - s, 1 + s], but never below
            the crop's size.
        colour, blur, noise: see `CameraChange`.
        workers: number of processes that decode; 0 decodes in this process.
        rank, world_size: number of this device, from 0, and number of all devices.

    Raises:
        ConfigError: a value outside its range, or `scale` without a crop.
        DatasetError: the dataset is empty.
    """

    def __init__(
        self,
        dataset: Dataset,
        *,
        batch_size: int,
        seed: int,
        crop_height: int | None = None,
        crop_width: int | None = None,
        flip: bool = True,
        brightness: float = 0.0,
        scale: float = 0.0,
        colour: float = 0.0,
        blur: float = 0.0,
        noise: float = 0.0,
        workers: int = 0,
        rank: int = 0,
        world_size: int = 1,
    ) -> None:
        if len(dataset) == 0:
            raise DatasetError(f"dataset {dataset.name!r} has no images: training needs at least one")
        if batch_size < 1 or workers < 0 or not 0 <= rank < world_size:
            raise ConfigError(
                f"expected batch_size >= 1, workers >= 0 and 0 <= rank < world_size, "
                f"got {batch_size}, {workers}, {rank} and {world_size}"
            )
        if not (0 <= brightness < 1 and 0 <= scale < 1):
            raise ConfigError(f"brightness and scale must be in [0, 1), got {brightness} and {scale}")
        if (crop_height is None) != (crop_width is None):
            raise ConfigError(f"give both crop_height and crop_width or neither, got {crop_height} and {crop_width}")
        if scale > 0 and crop_height is None:
            raise ConfigError("a random scale needs crop_height and crop_width, or images would differ in size")
        self._dataset, self._batch_size, self._seed = dataset, batch_size, seed
        self._crop = None if crop_height is None or crop_width is None else (crop_height, crop_width)
        self._flip, self._brightness, self._scale = flip, brightness, scale
        self._camera = CameraChange(colour, blur, noise)
        self._workers, self._rank, self._world_size = workers, rank, world_size
        self._orders: dict[int, list[int]] = {}

    def stream(self, start_step: int) -> Iterator[Batch]:
        """Yield the batches of the steps `start_step`, `start_step + 1`, ... without end.

        Raises:
            DatasetError: a sample cannot be read, is smaller than the crop, or differs in size from its batch.
        """
        steps = itertools.count(start_step)
        if self._workers == 0:
            yield from map(self.batch, steps)
            return
        loader = DataLoader(
            _Steps(self),
            batch_size=None,
            sampler=steps,
            num_workers=self._workers,
            collate_fn=_unchanged,
            worker_init_fn=_leave_interrupts_to_the_parent,
            generator=torch.Generator(),  # without one, it draws from the global generator
        )
        for item in loader:
            if isinstance(item, GosvaeError):
                raise item
            yield item

    def batch(self, step: int) -> Batch:
        """Return the batch of one step; errors are those of `stream`."""
        first = (step * self._world_size + self._rank) * self._batch_size
        samples, flipped, factors = [], [], []
        for position in range(first, first + self._batch_size):
            # Always the same number of draws, so that one option does not change the effect of another.
            draws = numpy_generator(self._seed, "augment", position).random(6)
            samples.append(self._cut(self._dataset[self._index(position)], draws[0], draws[1], draws[2]))
            flipped.append(self._flip and bool(draws[3] < 0.5))
            factors.append(1.0 + self._brightness * (2.0 * draws[4:6] - 1.0))
        sizes = {sample.image_uint8_HW3.shape[:2] for sample in samples}
        if len(sizes) > 1:
            raise DatasetError(f"images of different sizes in one batch ({sorted(sizes)}): set a resize or a crop size")
        images = np.stack([_mirror(s.image_uint8_HW3, f) for s, f in zip(samples, flipped, strict=True)])
        x_B3HW = torch.from_numpy(images).permute(0, 3, 1, 2).contiguous().float().div_(255.0)
        if self._brightness > 0:
            for x_3HW, (brightness, contrast) in zip(x_B3HW, factors, strict=True):
                mean = x_3HW.mean() * brightness
                x_3HW.mul_(brightness * contrast).add_(mean * (1.0 - contrast)).clamp_(0.0, 1.0)
        if self._camera.changes:
            for i, x_3HW in enumerate(x_B3HW):
                x_B3HW[i] = self._camera.of(x_3HW, numpy_generator(self._seed, "camera", first + i))
        maps = [s.labels_uint8_HW for s in samples]
        labels = [_mirror(m, f) for m, f in zip(maps, flipped, strict=True) if m is not None]
        labels_BHW = torch.from_numpy(np.stack(labels)).long() if len(labels) == len(samples) else None
        return Batch(x_B3HW, labels_BHW, tuple(sample.name for sample in samples), tuple(flipped))

    def _index(self, position: int) -> int:
        """Return the index of the sample at a position of the endless sequence of all ranks."""
        epoch, place = divmod(position, len(self._dataset))
        if epoch not in self._orders:
            self._orders = {e: order for e, order in self._orders.items() if e == epoch - 1}
            generator = torch_generator(self._seed, "order", epoch)
            self._orders[epoch] = torch.randperm(len(self._dataset), generator=generator).tolist()
        return self._orders[epoch][place]

    def _cut(self, sample: Sample, u_scale: float, u_top: float, u_left: float) -> Sample:
        """Return a sample scaled and cropped by three random numbers from [0, 1)."""
        if self._crop is None:
            return sample
        image, labels = sample.image_uint8_HW3, sample.labels_uint8_HW
        height, width = image.shape[:2]
        check_crop_fits(sample.name, (height, width), self._crop)
        crop_height, crop_width = self._crop
        if self._scale == 0:
            top, left = int(u_top * (height - crop_height + 1)), int(u_left * (width - crop_width + 1))
            window = np.s_[top : top + crop_height, left : left + crop_width]
            return Sample(image[window], None if labels is None else labels[window], sample.name)
        factor = max(1.0 + self._scale * (2.0 * u_scale - 1.0), crop_height / height, crop_width / width)
        # Cropping before scaling touches fewer pixels than scaling before cropping.
        box_height, box_width = crop_height / factor, crop_width / factor
        top_f, left_f = u_top * (height - box_height), u_left * (width - box_width)
        box = (left_f, top_f, min(left_f + box_width, width), min(top_f + box_height, height))
        target = (crop_width, crop_height)
        image = np.asarray(Image.fromarray(image).resize(target, Image.Resampling.BICUBIC, box=box))
        if labels is not None:
            labels = np.asarray(Image.fromarray(labels).resize(target, Image.Resampling.NEAREST, box=box))
        return Sample(image, labels, sample.name)


class _Steps(TorchDataset[Batch | GosvaeError]):
    """Dataset of batches by step number; errors are returned, because PyTorch wraps raised ones in a traceback."""

    def __init__(self, batches: TrainingBatches) -> None:
        self._batches = batches

    def __getitem__(self, step: int) -> Batch | GosvaeError:
        try:
            return self._batches.batch(step)
        except GosvaeError as error:
            return DatasetError(str(error))


def _mirror(
    array: np.ndarray[tuple[int, ...], np.dtype[np.uint8]], flip: bool
) -> np.ndarray[tuple[int, ...], np.dtype[np.uint8]]:
    return array[:, ::-1] if flip else array


def _unchanged(item: Any) -> Any:
    return item


def _leave_interrupts_to_the_parent(worker: int) -> None:
    """Ignore Ctrl-C, which reaches all processes of a terminal; the parent decides when its workers end."""
    del worker
    signal.signal(signal.SIGINT, signal.SIG_IGN)
