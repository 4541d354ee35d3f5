"""Geometry of images: they are resized, and the centre is cut out, before a codec sees them."""

from __future__ import annotations

import numpy as np
from PIL import Image
from pydantic import PositiveInt, model_validator

from gosvae.config import Config
from gosvae.datasets.base import Dataset, Sample
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
            if labels is not None:
                labels = np.array(Image.fromarray(labels).resize(width_height, Image.Resampling.NEAREST))
    if geometry.crop_height is not None and geometry.crop_width is not None:
        check_crop_fits(sample.name, image.shape[:2], (geometry.crop_height, geometry.crop_width))
        top, left = (image.shape[0] - geometry.crop_height) // 2, (image.shape[1] - geometry.crop_width) // 2
        window = np.s_[top : top + geometry.crop_height, left : left + geometry.crop_width]
        image = np.ascontiguousarray(image[window])
        labels = None if labels is None else np.ascontiguousarray(labels[window])
    return Sample(image, labels, sample.name)


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
