"""Streams of many senders to pictures: entropy decoding one by one, the decoder network once for pictures alike.

Axis legend: B pictures, h and w latent positions, H and W pixels.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol, runtime_checkable

import numpy as np
import torch

from gosvae.codecs.base import ImageCodec
from gosvae.codecs.tiling import TILE_PIXELS
from gosvae.codecs.vq import VqCodec
from gosvae.tensors import ImageArray, tensor_to_image


@runtime_checkable
class TwoStageCodec(Protocol):
    """A codec whose `decompress(data)` is `reconstruct(*decode(data))`: entropy decoding, then the network."""

    def decode(self, data: bytes) -> tuple[Any, ...]:
        """What the network takes; errors as `ImageCodec.decompress`."""

    def reconstruct(self, *parts: Any) -> ImageArray:
        """The picture, uint8 (H, W, 3), of what `decode` gave."""


def two_stages(codec: ImageCodec) -> TwoStageCodec | None:
    """The codec as one of two stages, if it is one."""
    return codec if isinstance(codec, TwoStageCodec) else None


def reconstruct_batch(codec: TwoStageCodec, decoded: Sequence[tuple[Any, ...]]) -> list[ImageArray]:
    """Pictures of what `decode` gave, in order.

    A VQ codec computes pictures of one size together. Its pixels may differ by one level of 256 from `reconstruct`'s:
    a network sums in another order for a batch. All other codecs take one picture after the other.
    """
    shapes = {(parts[0].shape, *parts[1:]) for parts in decoded} if isinstance(codec, VqCodec) else set()
    if not isinstance(codec, VqCodec) or len(decoded) < 2 or len(shapes) != 1:
        return [codec.reconstruct(*parts) for parts in decoded]
    _, height, width = shapes.pop()
    if height * width > TILE_PIXELS**2:
        return [codec.reconstruct(*parts) for parts in decoded]
    with torch.inference_mode():
        indices_Bhw = torch.from_numpy(np.stack([parts[0] for parts in decoded])).to(codec.device)
        x_hat_B3HW = codec.model.decode(indices_Bhw)[..., :height, :width]
        return [tensor_to_image(x_hat_13HW) for x_hat_13HW in x_hat_B3HW.split(1)]
