"""A trained VQ autoencoder as a codec: images to self-describing streams and back.

Axis legend: B images, 3 RGB channels, H and W pixels, K codes, h and w latent positions.
"""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import numpy as np
import numpy.typing as npt
import torch

from gosvae import bitstream
from gosvae.checkpoint import CodecCard, CodecCheckpoint, load_codec_checkpoint, load_weights
from gosvae.codecs.model import VqAutoencoder
from gosvae.codecs.tiling import decode_in_tiles, encode_in_tiles
from gosvae.codecs.trained import TrainedCodec
from gosvae.entropy.base import EntropyModel
from gosvae.entropy.coder import decode_indices, encode_indices
from gosvae.entropy.fixed import FixedLength
from gosvae.entropy.static import StaticHistogram
from gosvae.errors import BitstreamError, CheckpointError, ImageError
from gosvae.metrics import zero_order_bits
from gosvae.tensors import ImageArray, check_image, image_to_tensor, pad_to_multiple, tensor_to_image

EntropyChoice = Literal["static", "fixed"]


class LearnedCodec(TrainedCodec):
    """A VQ codec on one device, ready to use.

    Any image from 1x1 to 65535x65535 pixels is padded to the stride inside and cropped again; large ones are
    computed in tiles, so that memory stays bounded.

    Args:
        checkpoint: configuration, weights and index histogram.
        entropy: `static` (the histogram; whichever of it and fixed-length codes is shorter for an image is used) or
            `fixed` (fixed-length codes only).
        device: where the networks run.

    Raises:
        CheckpointError: a checkpoint of another kind, or weights that do not fit the configuration.
    """

    def __init__(
        self, checkpoint: CodecCheckpoint, *, entropy: EntropyChoice = "static", device: str | torch.device = "cpu"
    ) -> None:
        super().__init__(checkpoint)
        if not isinstance(checkpoint.card, CodecCard):
            raise CheckpointError(
                f"{checkpoint.card.name!r} is of kind {checkpoint.card.kind!r}, a VQ codec (kind 'codec') was expected"
            )
        self.device = torch.device(device)
        model = VqAutoencoder(checkpoint.card.model)
        load_weights(model, checkpoint)
        model.eval().requires_grad_(False).to(self.device)
        self.model = model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        size = self.model.quantizer.codebook_size
        if checkpoint.counts.shape != (size,):
            raise CheckpointError(f"the frequency table has {tuple(checkpoint.counts.shape)} entries, not {size}")
        static, fixed = StaticHistogram(checkpoint.counts.numpy()), FixedLength(size)
        self._writers: tuple[EntropyModel, ...] = (static, fixed) if entropy == "static" else (fixed,)
        self._readers: dict[int, EntropyModel] = {static.model_id: static, fixed.model_id: fixed}

    @classmethod
    def load(
        cls, folder: str | Path, *, entropy: EntropyChoice = "static", device: str | torch.device = "cpu"
    ) -> LearnedCodec:
        """Load a codec from its checkpoint folder; errors as `load_codec_checkpoint` and the constructor."""
        return cls(load_codec_checkpoint(Path(folder)), entropy=entropy, device=device)

    @property
    def description(self) -> dict[str, str]:
        model, size = self.model.config, self.model.config.autoencoder
        encoder, decoder = (
            sum(p.numel() for p in part.parameters()) for part in (self.model.encoder, self.model.decoder)
        )
        return {
            "architecture": f"{size.architecture}, stride {size.stride}",
            "quantizer": f"{model.quantizer.kind}, K = {self.model.quantizer.codebook_size}, "
            f"D = {self.model.quantizer.code_dim}",
            "parameters": f"{self.parameter_count / 1e6:.2f} M (encoder {encoder / 1e6:.2f} M, "
            f"decoder {decoder / 1e6:.2f} M)",
        }

    @property
    def parameter_count(self) -> int:
        """Parameters of encoder, codebook and decoder (a codebook that averages move counts too)."""
        averaged = dict(self.model.quantizer.named_buffers()).get("codebook_KD")
        learned: int = sum(p.numel() for p in self.model.parameters())
        return learned if averaged is None else learned + averaged.numel()

    def indices(self, image_uint8_HW3: ImageArray) -> npt.NDArray[np.int64]:
        """The image's code numbers, int64 (h, w): the transform and quantizer alone.

        Raises:
            ShapeError: the array is not a uint8 RGB image.
            ImageError: a side is longer than 65535 pixels.
        """
        image = check_image(image_uint8_HW3)
        if max(image.shape) > bitstream.MAX_SIDE:
            raise ImageError(f"sides of at most {bitstream.MAX_SIDE} pixels can be coded, got {image.shape[:2]}")
        autoencoder = self.model.config.autoencoder
        with torch.inference_mode():
            x = pad_to_multiple(image_to_tensor(image), self.model.stride)
            x = x.to(self.device, memory_format=torch.channels_last)
            indices_1hw = encode_in_tiles(self.model.encode, x, self.model.stride, autoencoder.halo)
        result: npt.NDArray[np.int64] = indices_1hw[0].cpu().numpy()
        return result

    def reconstruct(self, indices_hw: npt.NDArray[np.int64], height: int, width: int) -> ImageArray:
        """The image, uint8 (height, width, 3), of its code numbers: codebook lookup and decoder alone."""
        autoencoder = self.model.config.autoencoder
        with torch.inference_mode():
            indices_1hw = torch.from_numpy(indices_hw).unsqueeze(0).to(self.device)
            x_hat = decode_in_tiles(self.model.decode, indices_1hw, self.model.stride, autoencoder.halo)
        return tensor_to_image(x_hat[..., :height, :width])

    def encode(self, indices_hw: npt.NDArray[np.int64], height: int, width: int) -> bytes:
        """The stream of code numbers: the shortest payload of the entropy models, with its header."""
        coded = [(encode_indices(model, indices_hw), model.model_id) for model in self._writers]
        payload, model_id = min(coded, key=lambda pair: len(pair[0]))
        return bitstream.pack(bitstream.Header(self.fingerprint, height, width, model_id), payload)

    def decode(self, data: bytes) -> tuple[npt.NDArray[np.int64], int, int]:
        """Code numbers, height and width of a stream; errors as `decompress`."""
        header, payload = bitstream.unpack(data)
        bitstream.check_fingerprint(header, self.fingerprint)
        model = self._readers.get(header.entropy_model_id)
        if model is None:
            raise BitstreamError(
                f"unknown entropy model {header.entropy_model_id}: this gosvae knows {sorted(self._readers)}"
            )
        shape_hw = (-(-header.height // self.model.stride), -(-header.width // self.model.stride))
        return decode_indices(model, payload, shape_hw), header.height, header.width

    def compress(self, image_uint8_HW3: ImageArray) -> bytes:
        height, width = check_image(image_uint8_HW3).shape[:2]
        return self.encode(self.indices(image_uint8_HW3), height, width)

    def decompress(self, data: bytes) -> ImageArray:
        return self.reconstruct(*self.decode(data))

    def zero_order_bytes(self, data: bytes) -> float:
        """Bytes, an estimate, of the stream's indices at their own zero-order entropy."""
        return zero_order_bits(torch.from_numpy(self.decode(data)[0])) / 8.0
