"""A model of Hugging Face `transformers` with a differentiable version of its image processor inside.

Axis legend: B images, H and W pixels.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from gosvae.errors import ExpertError
from gosvae.experts.base import ExpertInfo, TaskExpert

RESAMPLING = {0: "nearest-exact", 2: "bilinear", 3: "bicubic"}
"""Filters of `interpolate` by Pillow's filter numbers, which image processors store."""
_HALF_LEVEL = 0.5 / 255
_COMMON_STRIDE = 32


class HuggingFaceNetwork(TaskExpert):
    """Expert of a model of `transformers`, with a differentiable version of its image processor inside."""

    mixed_precision = True
    gain_3: Tensor
    mean_3: Tensor
    std_3: Tensor
    task_tokens: Tensor | None
    input_short: Tensor | None
    """Short side that images are resized to, in pixels, in place of the size of the image processor. It is a buffer, so
    that the fingerprint knows it."""

    def __init__(
        self, info: ExpertInfo, network: nn.Module, processor: Any, task_tokens_1T: Tensor | None = None
    ) -> None:
        super().__init__(info)
        self.network = network
        self._processor = processor
        self._sizes: dict[tuple[int, int], tuple[int, int]] = {}
        self.model_type: str = network.config.model_type  # type: ignore[assignment, union-attr]
        gain = 255.0 * processor.rescale_factor if processor.do_rescale else 255.0
        normalise = getattr(processor, "do_normalize", False)
        for name, value in (
            ("gain_3", gain),
            ("mean_3", processor.image_mean if normalise else 0.0),
            ("std_3", processor.image_std if normalise else 1.0),
        ):
            self.register_buffer(name, torch.as_tensor(value, dtype=torch.float32).expand(3).clone())
        self.register_buffer("task_tokens", task_tokens_1T)
        self.register_buffer("input_short", None)
        self.freeze()

    def run(self, x_B3HW: Tensor) -> Any:
        """Return the outputs of the model for images in [0, 1].

        Raises:
            ExpertError: the model or its image processor cannot take the image size.
        """
        inputs: dict[str, Tensor] = {"pixel_values": self.preprocess(x_B3HW)}
        if self.task_tokens is not None:
            inputs["task_inputs"] = self.task_tokens.expand(x_B3HW.shape[0], -1)
        try:
            return self.network(**inputs)
        except (RuntimeError, ValueError) as error:
            if isinstance(error, torch.OutOfMemoryError):
                raise
            shape = tuple(inputs["pixel_values"].shape)
            uneven = any(side % _COMMON_STRIDE for side in shape[-2:])
            advice = f"; try sizes that are multiples of {_COMMON_STRIDE}" if uneven else ""
            raise ExpertError(
                f"{self.info.name!r} cannot take an input of {shape}: {first_line(error)}{advice}"
            ) from error

    def preprocess(self, x_B3HW: Tensor) -> Tensor:
        """Return RGB in [0, 1] resized, rescaled and normalised as by the model's image processor; differentiable.

        There is no centre crop, because every pixel counts, and no padding.
        """
        size = self._network_size(x_B3HW.shape[-2], x_B3HW.shape[-1])
        x = x_B3HW
        if size != tuple(x.shape[-2:]):
            mode = RESAMPLING[int(self._processor.resample)]
            smooth = mode != "nearest-exact"
            # First along the width, then along the height, as Pillow does; it clips overshoots of bicubic after each.
            for part in ((x.shape[-2], size[1]), size):
                x = F.interpolate(x, part, mode=mode, align_corners=False if smooth else None, antialias=smooth)
                if mode == "bicubic":
                    # Half a level of room keeps the gradient of plain black and white from being 0.
                    x = x.clamp(-_HALF_LEVEL, 1.0 + _HALF_LEVEL)
        if getattr(self._processor, "do_flip_channel_order", False):
            x = x.flip(1)
        return (x * self.gain_3[:, None, None] - self.mean_3[:, None, None]) / self.std_3[:, None, None]

    def resize_to(self, short: int) -> None:
        """Resize images to a short side in pixels, with their aspect ratio, in place of the image processor's size."""
        self.input_short = torch.tensor(short)
        self._sizes.clear()
        self.info = replace(self.info, input_height=short, input_width=short)

    def preparation(self, height: int, width: int) -> str:
        """Return the size and the filter of the resizing, and the order of the channels."""
        flip = getattr(self._processor, "do_flip_channel_order", False)
        resample = getattr(self._processor, "resample", None)
        return repr((self._network_size(height, width), None if resample is None else int(resample), bool(flip)))

    def _network_size(self, height: int, width: int) -> tuple[int, int]:
        """Return height and width that images are resized to."""
        if self.input_short is not None and (height, width) not in self._sizes:
            scale = int(self.input_short) / min(height, width)
            self._sizes[height, width] = (round(height * scale), round(width * scale))
        if (height, width) not in self._sizes:
            self._sizes[height, width] = processed_size(self._processor, height, width)
        return self._sizes[height, width]


def processed_size(processor: Any, height: int, width: int) -> tuple[int, int]:
    """Return the size that the library's own processor resizes height x width to, found with an empty picture."""
    import numpy as np

    picture = np.zeros((height, width, 3), np.uint8)
    off = dict.fromkeys(("do_pad", "do_center_crop", "do_rescale", "do_normalize"), False)
    try:
        pixels = processor(picture, input_data_format="channels_last", return_tensors="np", **off)["pixel_values"]
    except Exception as error:
        raise ExpertError(
            f"the model's image processor cannot resize {height}x{width} pixels: {first_line(error)}"
        ) from error
    return int(pixels.shape[-2]), int(pixels.shape[-1])


def first_line(error: BaseException) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return (lines[0] if lines else type(error).__name__)[:200]
