"""A codec, a data set and an expert that are small enough to reason about."""

from __future__ import annotations

import struct
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from gosvae.codecs.base import ClassMapCodec, ImageCodec, RateControlledCodec
from gosvae.datasets.base import Dataset, Sample
from gosvae.errors import BitstreamError, RateError
from gosvae.evaluation import CodecEntry, Evaluation, evaluate
from gosvae.experts.base import Expert, ExpertInfo
from gosvae.tensors import ImageArray, image_to_tensor

CLASSES = ("dark", "middle", "bright")


def _whole(data: bytes, n_bytes: int) -> bytes:
    """The first bytes, if they are there."""
    if len(data) < n_bytes:
        raise BitstreamError(f"truncated: {len(data)} bytes, expected {n_bytes}")
    return data[:n_bytes]


class BlockCodec(RateControlledCodec):
    """Keeps the mean colour of square blocks: 4 bytes of header, then 3 bytes for each block."""

    def __init__(self, block: int) -> None:
        self.block = block

    @property
    def name(self) -> str:
        return "Block"

    def compress(self, image_uint8_HW3: ImageArray) -> bytes:
        return self._with_block(image_uint8_HW3, self.block)

    def _with_block(self, image: ImageArray, block: int) -> bytes:
        height, width = image.shape[:2]
        means = [
            image[y : y + block, x : x + block].reshape(-1, 3).mean(axis=0).round()
            for y in range(0, height, block)
            for x in range(0, width, block)
        ]
        return struct.pack("<BBH", height, width, block) + np.asarray(means, dtype=np.uint8).tobytes()

    def decompress(self, data: bytes) -> ImageArray:
        height, width, block = struct.unpack("<BBH", _whole(data, 4))
        rows = -(-height // block)
        _whole(data, 4 + 3 * rows * -(-width // block))
        blocks = np.frombuffer(data[4:], dtype=np.uint8).reshape(rows, -1, 3)
        return blocks.repeat(block, axis=0).repeat(block, axis=1)[:height, :width].copy()

    def payload_bytes(self, data: bytes) -> int:
        return len(data) - 4

    def compress_to_budget(self, image_uint8_HW3: ImageArray, budget_bytes: int) -> bytes:
        for block in (1, 2, 4, 8):
            data = self._with_block(image_uint8_HW3, block)
            if len(data) <= budget_bytes:
                return data
        raise RateError(f"Block needs {len(data)} bytes, the budget is {budget_bytes}")

    def compress_smallest(self, image_uint8_HW3: ImageArray) -> bytes:
        return self._with_block(image_uint8_HW3, 8)


class RawCodec(ImageCodec):
    """Every pixel as it is, with networks that it does not have."""

    name = "Raw"
    parameter_count = 1_234_567

    def compress(self, image_uint8_HW3: ImageArray) -> bytes:
        return struct.pack("<HH", *image_uint8_HW3.shape[:2]) + image_uint8_HW3.tobytes()

    def decompress(self, data: bytes) -> ImageArray:
        height, width = struct.unpack("<HH", _whole(data, 4))
        _whole(data, 4 + 3 * height * width)
        return np.frombuffer(data[4:], dtype=np.uint8).reshape(height, width, 3).copy()

    def zero_order_bytes(self, data: bytes) -> float:
        return (len(data) - 4) / 2


class MapCodec(ClassMapCodec):
    """Sends the map that `Brightness` sees, one byte a pixel; its picture has no colours that mean anything."""

    name = "Map"
    class_names = CLASSES

    def compress(self, image_uint8_HW3: ImageArray) -> bytes:
        class_map = Brightness().freeze().class_map(image_to_tensor(image_uint8_HW3))[0].numpy()
        return struct.pack("<HH", *class_map.shape) + class_map.astype(np.uint8).tobytes()

    def class_map(self, data: bytes) -> npt.NDArray[np.uint8]:
        return np.frombuffer(data[4:], dtype=np.uint8).reshape(struct.unpack("<HH", data[:4]))

    def decompress(self, data: bytes) -> ImageArray:
        return np.zeros((*struct.unpack("<HH", data[:4]), 3), np.uint8)


class Scenes(Dataset):
    """Noise over two regions, with labels that ignore the first row; every image has its own size."""

    name = "scenes"

    def __init__(self, sizes: Sequence[tuple[int, int]], class_names: tuple[str, ...] = CLASSES) -> None:
        self.sizes = sizes
        self.class_names = class_names

    def __len__(self) -> int:
        return len(self.sizes)

    def __getitem__(self, index: int) -> Sample:
        height, width = self.sizes[index]
        noise = np.random.default_rng(index).integers(0, 120, (height, width, 3))
        noise[:, width // 2 :] += 120
        labels = np.where(noise.mean(axis=2) > 130, 2, 0).astype(np.uint8)
        labels[0] = 255
        return Sample(noise.astype(np.uint8), labels if self.class_names else None, f"scene-{index}")


class Shots(Scenes):
    """Scenes of which two after each other are one shot."""

    def shot(self, index: int) -> str:
        return f"shot {index // 2}"


class Brightness(Expert):
    """Sees dark, middle and bright by the mean of the three colours."""

    def __init__(self, class_names: tuple[str, ...] = CLASSES) -> None:
        super().__init__(ExpertInfo("brightness", class_names, 16, 16))
        self.register_buffer("centres", torch.tensor([0.2, 0.5, 0.8]))

    def class_logits(self, x_B3HW: Tensor) -> Tensor:
        return -(x_B3HW.mean(dim=1, keepdim=True) - self.get_buffer("centres").view(1, 3, 1, 1)).abs()


class Distance:
    """A perceptual metric that is none."""

    name = "LPIPS (test)"

    def __call__(self, x_B3HW: Tensor, x_hat_B3HW: Tensor) -> Tensor:
        assert torch.is_inference_mode_enabled()
        return (x_B3HW - x_hat_B3HW).abs().mean(dim=(1, 2, 3))


def curve_entries() -> list[CodecEntry]:
    blocks = [CodecEntry(f"Block {block}", BlockCodec(block), curve="Block") for block in (8, 4, 2)]
    return [*blocks, CodecEntry("Raw", RawCodec())]


def run(
    entries: Sequence[CodecEntry], sizes: Sequence[tuple[int, int]] = ((16, 24), (9, 17)), **options: Any
) -> Evaluation:
    return evaluate(entries, Scenes(sizes), Brightness().freeze(), **options)
