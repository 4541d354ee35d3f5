"""Geometry of images: they are resized, and the centre is cut out, before a codec sees them."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image
from pydantic import PositiveInt, model_validator

from gosvae.config import Config
from gosvae.datasets.base import Dataset, ObjectArray, Sample
from gosvae.errors import DatasetError


class GeometryConfig(Config):
    """Sizes in pixels; None leaves that step out. Height and width go together.

    Attributes:
        resize_height, resize_width: size that images are resized to, whatever their aspect ratio.
        crop_height, crop_width: size that is then cut from the centre.
    """

    resize_height: PositiveInt | None = None
    resize_width: PositiveInt | None = None
    crop_height: PositiveInt | None = None
    crop_width: PositiveInt | None = None

    @model_validator(mode="after")
    def _both_or_neither(self) -> GeometryConfig:
        for step in ("resize", "crop"):
            if (getattr(self, f"{step}_height") is None) != (getattr(self, f"{step}_width") is None):
                raise ValueError(f"give both {step}_height and {step}_width, or neither")
        return self


def prepare_map(map_HW: npt.NDArray[Any], geometry: GeometryConfig, name: str) -> npt.NDArray[Any]:
    """Return a map of numbers, uint8 or int32, resized to the nearest pixel, then cut to the centre.

    Raises:
        DatasetError: the map is smaller than the crop.
    """
    if geometry.resize_height is not None and geometry.resize_width is not None:
        width_height = (geometry.resize_width, geometry.resize_height)
        if map_HW.shape != width_height[::-1]:
            map_HW = np.array(Image.fromarray(map_HW).resize(width_height, Image.Resampling.NEAREST))
    if geometry.crop_height is not None and geometry.crop_width is not None:
        map_HW = np.ascontiguousarray(map_HW[_centre(name, map_HW.shape, geometry.crop_height, geometry.crop_width)])
    return map_HW


def _centre(name: str, shape: tuple[int, ...], height: int, width: int) -> tuple[slice, slice]:
    """Return the window of the centre of an image."""
    check_crop_fits(name, shape, (height, width))
    top, left = (shape[0] - height) // 2, (shape[1] - width) // 2
    return np.s_[top : top + height, left : left + width]


def prepare(sample: Sample, geometry: GeometryConfig) -> Sample:
    """Return the sample resized (image: antialiased bicubic; labels: nearest), then cut to the centre.

    Raises:
        DatasetError: the image is smaller than the crop.
    """
    image, labels = sample.image_uint8_HW3, sample.labels_uint8_HW
    if geometry.resize_height is not None and geometry.resize_width is not None:
        width_height = (geometry.resize_width, geometry.resize_height)
        if image.shape[:2] != width_height[::-1]:
            # Pillow widens the bicubic kernel when it scales down, so nothing aliases.
            image = np.array(Image.fromarray(image).resize(width_height, Image.Resampling.BICUBIC))
    if geometry.crop_height is not None and geometry.crop_width is not None:
        window = _centre(sample.name, image.shape[:2], geometry.crop_height, geometry.crop_width)
        image = np.ascontiguousarray(image[window])
    return Sample(image, None if labels is None else prepare_map(labels, geometry, sample.name), sample.name)


def check_crop_fits(name: str, height_width: tuple[int, ...], crop: tuple[int, int]) -> None:
    """Raise `DatasetError` where a crop (height, width) is larger than the image."""
    if height_width[0] < crop[0] or height_width[1] < crop[1]:
        raise DatasetError(
            f"{name}: cannot cut {crop[0]}x{crop[1]} (height x width) from an image of "
            f"{height_width[0]}x{height_width[1]}: choose a smaller crop or a larger resize"
        )


class Prepared(Dataset):
    """A dataset at one geometry. Samples stay decoded in memory until `cache_bytes` are used; later ones are decoded
    at each access. Every worker process has a cache of its own.
    """

    def __init__(self, dataset: Dataset, geometry: GeometryConfig, *, cache_bytes: int = 0) -> None:
        self.name, self.class_names = dataset.name, dataset.class_names
        self.missing_labels = dataset.missing_labels
        self.geometry = geometry
        self._dataset = dataset
        self._free_bytes = cache_bytes
        self._cache: dict[int, Sample] = {}

    def __len__(self) -> int:
        return len(self._dataset)

    def shot(self, index: int) -> str:
        return self._dataset.shot(index)

    def check(self, index: int) -> tuple[int, int] | None:
        size = self._dataset.check(index)
        for step in ("resize", "crop"):
            height, width = (getattr(self.geometry, f"{step}_{side}") for side in ("height", "width"))
            if height is not None and width is not None:
                size = (height, width)
        return size

    @property
    def object_names(self) -> tuple[str, ...]:
        return self._dataset.object_names

    @property
    def has_instances(self) -> bool:
        return self._dataset.has_instances

    def objects(self, index: int) -> ObjectArray:
        objects_HW: ObjectArray = prepare_map(
            self._dataset.objects(index), self.geometry, f"{self.name}, image {index}"
        )
        return objects_HW

    def __getitem__(self, index: int) -> Sample:
        if index in self._cache:
            return self._cache[index]
        sample = prepare(self._dataset[index], self.geometry)
        n_bytes = sample.image_uint8_HW3.nbytes
        n_bytes += 0 if sample.labels_uint8_HW is None else sample.labels_uint8_HW.nbytes
        if n_bytes <= self._free_bytes:
            self._free_bytes -= n_bytes
            self._cache[index] = sample
        return sample
