"""Template of every codec with a checkpoint: header, slices, tiles, crop, damage and batches.

A kind brings a `Transform` and a `LatentCoder`; the template puts them together. A new kind is a class with these two
and a record in `kinds.py`.

Axis legend: B pictures, h and w latent positions, H and W pixels. A latent is a grid (h, w) or (D, h, w).
"""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Callable, Sequence
from typing import TypeVar, final

import numpy as np
import torch
from torch import Tensor

from gosvae import bitstream
from gosvae.codecs.base import Concealed, ImageCodec, LossTolerantCodec
from gosvae.codecs.cards import Card
from gosvae.codecs.checkpoint import CodecCheckpoint, Network, network_of
from gosvae.codecs.concealment import concealed_pixels
from gosvae.codecs.latent import Latent, LatentCoder, Mask, Transform
from gosvae.codecs.slices import Slicing, decode_slices, encode_slices, slice_count, xor_mark
from gosvae.codecs.tiling import decode_in_tiles, encode_in_tiles, fits_in_one_tile
from gosvae.entropy.ids import MARKED_MODELS
from gosvae.errors import BitstreamError, CheckpointError, ForeignStreamError, ImageError
from gosvae.tensors import ImageArray, check_image, image_to_tensor, pad_to_multiple, tensor_to_image

CardType = TypeVar("CardType", bound=Card)


class TrainedCodec(ImageCodec):
    """Base of the trained codecs, whose model is a checkpoint and whose streams name the model by a fingerprint.

    An image goes through five steps, each of which can be called alone: `analyse` (the encoder network), `quantise`
    (to the integers of a `Latent`, at a setting), `encode` (to a stream), `decode` (to the same latent), `reconstruct`
    (the decoder network). Any image with sides of up to 65535 and up to 2**28 pixels is padded to the stride inside and
    cropped again; large ones are computed in tiles where the network allows it, so that memory stays bounded.

    Args:
        checkpoint: configuration, weights and frequency tables.
        transform: networks of the kind.
        coder: latent coder of the kind.
        slicing: how a latent is cut into slices.

    Attributes:
        fingerprint: first 8 bytes of the checkpoint's SHA-256; streams hold its beginning.
    """

    def __init__(
        self, checkpoint: CodecCheckpoint, transform: Transform, coder: LatentCoder, slicing: Slicing | None = None
    ) -> None:
        self.checkpoint, self.transform, self.coder = checkpoint, transform, coder
        self.slicing = slicing or Slicing()
        self.device = transform.device
        self.fingerprint = checkpoint.fingerprint()[: bitstream.FINGERPRINT_BYTES]

    @property
    def name(self) -> str:
        return self.checkpoint.card.name

    @property
    @abstractmethod
    def description(self) -> dict[str, str]:
        """Return the lines of `gosvae info` about the model, by the name of each part."""

    def payload_bytes(self, data: bytes) -> int:
        return bitstream.payload_bytes(data)

    @final
    def analyse(self, image_uint8_HW3: ImageArray) -> Tensor:
        """Return the latent (1, h, w) or (1, D, h, w) of an image, before any rate: the work of the encoder network.

        Raises:
            ShapeError: the array is not a uint8 RGB image.
            ImageError: a side is longer than 65535 pixels, or the image has too many pixels.
        """
        transform = self.transform
        with torch.inference_mode():
            x_13HW = encoder_input(image_uint8_HW3, transform.stride, self.device)
            sizes = transform.stride, transform.encoder_halo, transform.whole_pixels
            return encode_in_tiles(transform.analyse, x_13HW, *sizes)

    @final
    def quantise(self, latent_1hw: Tensor, height: int, width: int, setting: int = 0) -> Latent:
        """Return the integers that stand for a latent at a setting, for an image of height x width pixels."""
        with torch.inference_mode():
            return Latent(self.coder.quantise(latent_1hw, setting), height, width, setting)

    @final
    def encode(self, latent: Latent) -> bytes:
        """Return the stream of a latent: header and slices."""
        slicing = self.slicing
        count = slice_count(latent.grid_hw, slicing.slices, slicing.layout)
        model_id, payloads = encode_slices(self.coder, latent.symbols, latent.setting, count, slicing.layout)
        fingerprint = xor_mark(self.fingerprint, self.coder.marks[model_id])
        header = bitstream.Header(fingerprint, latent.height, latent.width, model_id)
        if slicing.version == 1:
            return bitstream.pack(header, payloads[0], version=1)
        return bitstream.pack_slices(header, payloads, slicing.layout)

    @final
    def compress_at(self, image_uint8_HW3: ImageArray, setting: int) -> bytes:
        """Return the stream of an image at a setting: a level of a variable-rate codec, a step of an autoencoder."""
        height, width = check_image(image_uint8_HW3).shape[:2]
        return self.encode(self.quantise(self.analyse(image_uint8_HW3), height, width, setting))

    @final
    def decode(self, data: bytes) -> Latent:
        """Return the latent of a complete stream; errors as `decompress`."""
        return self.decode_stream(bitstream.unpack_slices(data))

    @final
    def decode_stream(self, stream: bitstream.Stream) -> Latent:
        """Return the latent of a stream that is taken apart already, as far as its slices are intact.

        Slices of the detail layer of a stream of two layers are left out.

        Raises:
            BitstreamError: no slice is intact, no encoder makes a payload, or there is a detail layer that streams of
                this kind do not have.
            ForeignStreamError: an intact stream that another model made.
        """
        header, marks = stream.header, self.coder.marks
        if header.entropy_model_id in MARKED_MODELS and header.entropy_model_id not in marks:
            raise ForeignStreamError(
                f"made with a {MARKED_MODELS[header.entropy_model_id]} model, which this {self.name!r} does not have: "
                "decode with the codec that has it"
            )
        mark = marks.get(header.entropy_model_id, b"")
        bitstream.check_fingerprint(header, xor_mark(self.fingerprint, mark))
        if stream.detail_count and not self.coder.layered:
            raise BitstreamError(f"damaged: a detail layer, which streams of {self.name!r} do not have")
        stride = self.transform.stride
        return decode_slices(self.coder, stream.task, (-(-header.height // stride), -(-header.width // stride)))

    @final
    def reconstruct(self, latent: Latent) -> ImageArray:
        """Return the image, uint8 (height, width, 3), of a latent: the work of the decoder network."""
        return self.reconstruct_batch([latent])[0]

    @final
    def reconstruct_batch(self, latents: Sequence[Latent]) -> list[ImageArray]:
        """Return the images of latents, in order; latents of one grid go through the network together.

        A pixel may differ by one level of 256 from that of `reconstruct`, whatever else is in the batch: a network sums
        in another order for a batch. In bf16 the difference can be larger. Images of more than 512 x 512 pixels are
        computed alone, and others with as many as `Transform.batch_pixels` allows.
        """
        stride, groups = self.transform.stride, dict[object, list[int]]()
        for n, latent in enumerate(latents):
            small = fits_in_one_tile(latent.grid_hw[0] * stride, latent.grid_hw[1] * stride)
            groups.setdefault(latent.symbols.shape if small else n, []).append(n)
        images: dict[int, ImageArray] = {}
        for numbers in groups.values():
            pixels = math.prod(latents[numbers[0]].grid_hw) * stride**2
            most = max(1, self.transform.batch_pixels // pixels)
            for some in (numbers[first : first + most] for first in range(0, len(numbers), most)):
                images |= zip(some, self._reconstruct_alike([latents[n] for n in some]), strict=True)
        return [images[n] for n in range(len(latents))]

    def _reconstruct_alike(self, latents: Sequence[Latent]) -> list[ImageArray]:
        """Return the images of latents that have the same grid."""
        symbols = [
            latent.symbols if latent.known_hw is None else self.coder.conceal(latent.symbols, latent.known_hw)
            for latent in latents
        ]
        transform = self.transform
        with torch.inference_mode():
            x_hat_B3HW = decode_in_tiles(
                lambda part_Bhw, margins: transform.synthesise(part_Bhw, latents, margins),
                torch.from_numpy(np.stack(symbols)).to(self.device),
                *(transform.stride, transform.halo, transform.whole_pixels),
            )
        return [
            tensor_to_image(x_hat_B3HW[n : n + 1, :, : latent.height, : latent.width])
            for n, latent in enumerate(latents)
        ]

    @final
    def decompress(self, data: bytes) -> ImageArray:
        return self.reconstruct(self.decode(data))

    @final
    def concealed_pixels(self, latent: Latent) -> Mask:
        """Return the pixels, bool (height, width), whose latent position is not known."""
        known_hw = np.ones(latent.grid_hw, np.bool_) if latent.known_hw is None else latent.known_hw
        return concealed_pixels(known_hw, self.transform.stride, latent.height, latent.width)


class SlicedCodec(TrainedCodec, LossTolerantCodec):
    """A trained codec whose streams can be cut into slices; lost ones are concealed as its latent coder does."""

    @final
    def decode_damaged(self, data: bytes) -> Latent:
        """Return the latent of the slices that are intact.

        Raises:
            BitstreamError: the header is damaged, or no slice is intact.
            ForeignStreamError: as `decompress`.
        """
        return self.decode_stream(bitstream.salvage(data))

    @final
    def decompress_damaged(self, data: bytes) -> Concealed:
        latent = self.decode_damaged(data)
        return Concealed(self.reconstruct(latent), self.concealed_pixels(latent), latent.damaged)


def card_of(checkpoint: CodecCheckpoint, card_type: type[CardType], title: str) -> CardType:
    """Return the card of a checkpoint of the expected kind.

    Raises:
        CheckpointError: a checkpoint of another kind.
    """
    card = checkpoint.card
    if not isinstance(card, card_type):
        raise CheckpointError(f"{card.name!r} is of kind {card.kind!r}, {title} was expected")
    return card


def ready(build: Callable[[], Network], checkpoint: CodecCheckpoint, device: torch.device) -> Network:
    """Return the network that `build` makes with the weights of a checkpoint, frozen, on its device.

    Raises:
        CheckpointError: the weights do not fit.
    """
    network = network_of(build, checkpoint)
    network.eval().requires_grad_(False).to(device)
    return network.to(memory_format=torch.channels_last)  # type: ignore[call-overload, no-any-return]


def encoder_input(image_uint8_HW3: ImageArray, stride: int, device: torch.device) -> Tensor:
    """Return the input of an encoder: float (1, 3, H, W) in [0, 1], padded to multiples of the stride.

    Raises:
        ShapeError: the array is not a uint8 RGB image.
        ImageError: a side is longer than 65535 pixels, or there are more than 2**28 pixels.
    """
    image = check_image(image_uint8_HW3)
    if max(image.shape) > bitstream.MAX_SIDE:
        raise ImageError(f"sides of at most {bitstream.MAX_SIDE} pixels can be coded, got {image.shape[:2]}")
    if image.shape[0] * image.shape[1] > bitstream.MAX_PIXELS:
        raise ImageError(f"at most {bitstream.MAX_PIXELS} pixels can be coded, got {image.shape[:2]}: resize it")
    return pad_to_multiple(image_to_tensor(image), stride).to(device, memory_format=torch.channels_last)
