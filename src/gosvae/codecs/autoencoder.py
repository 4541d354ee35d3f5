"""The autoencoder of Table I as a codec: a latent of integers, entropy-coded to a byte budget.

Axis legend: D latent channels, F fine integers, h and w latent positions.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch

from gosvae import bitstream
from gosvae.codecs.autoencoder_model import ScalarAutoencoder, merge
from gosvae.codecs.base import RateControlledCodec
from gosvae.codecs.cards import AutoencoderCard
from gosvae.codecs.checkpoint import CodecCheckpoint, load_codec_checkpoint, load_weights
from gosvae.codecs.slices import least_bytes
from gosvae.codecs.tiling import decode_in_tiles, encode_in_tiles
from gosvae.codecs.trained import TrainedCodec, encoder_input
from gosvae.entropy import coder
from gosvae.entropy.channels import ChannelHistograms
from gosvae.errors import BitstreamError, CheckpointError, ConfigError, RateError
from gosvae.tensors import ImageArray, check_image, tensor_to_image

FineArray = npt.NDArray[np.int16]


class AutoencoderCodec(TrainedCodec, RateControlledCodec):
    """A convolutional autoencoder on one device, ready to use; the rate is the step that its latent is rounded with.

    Any image is padded to the stride inside and cropped again; large ones are computed in tiles.

    Args:
        checkpoint: configuration, weights and fine counts (D, F).
        device: where the networks run.

    Raises:
        CheckpointError: a checkpoint of another kind, or weights or counts that do not fit the configuration.
    """

    def __init__(self, checkpoint: CodecCheckpoint, *, device: str | torch.device = "cpu") -> None:
        super().__init__(checkpoint)
        if not isinstance(checkpoint.card, AutoencoderCard):
            raise CheckpointError(
                f"{checkpoint.card.name!r} is of kind {checkpoint.card.kind!r}, an autoencoder was expected"
            )
        self.config = checkpoint.card.model
        self.device = torch.device(device)
        model = ScalarAutoencoder(self.config)
        load_weights(model, checkpoint)
        model.eval().requires_grad_(False).to(self.device)
        self.model = model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        shape = (self.config.latent_channels, self.config.largest_step)
        if checkpoint.counts.shape != shape:
            raise CheckpointError(f"the frequency tables are {tuple(checkpoint.counts.shape)}, not {shape}")
        self._counts_DF = checkpoint.counts.numpy()
        try:
            ChannelHistograms(self._counts_DF).tables(1)
        except ConfigError as error:
            raise CheckpointError(f"the frequency tables are damaged: {error}") from None

    @classmethod
    def load(cls, folder: str | Path, *, device: str | torch.device = "cpu") -> AutoencoderCodec:
        """Load a codec from its checkpoint folder; errors as `load_codec_checkpoint` and the constructor."""
        return cls(load_codec_checkpoint(Path(folder)), device=device)

    @property
    def description(self) -> dict[str, str]:
        size = self.config.autoencoder
        return {
            "architecture": f"{size.architecture} autoencoder, stride {size.stride}",
            "latent": f"D = {self.config.latent_channels} channels of {self.config.largest_step} fine integers, "
            f"step {self.config.step} unless a budget is given",
            "parameters": f"{self.parameter_count / 1e6:.2f} M",
        }

    @property
    def parameter_count(self) -> int:
        return sum(p.numel() for p in self.model.parameters())

    def fine_integers(self, image_uint8_HW3: ImageArray) -> FineArray:
        """The image's latent before a step merges it, int16 (D, h, w) in -L..L.

        Raises:
            ShapeError: the array is not a uint8 RGB image.
            ImageError: as `encoder_input`.
        """
        with torch.inference_mode():
            x = encoder_input(image_uint8_HW3, self.model.stride, self.device)
            fine_1Dhw = encode_in_tiles(self.model.encode, x, self.model.stride, self.config.autoencoder.halo)
        fine_Dhw: FineArray = fine_1Dhw[0].cpu().numpy()
        return fine_Dhw

    def encode(self, fine_Dhw: FineArray, height: int, width: int, step: int) -> bytes:
        """The stream of a latent at a step of 1..2L+1: one byte for the step, then the symbols.

        Where the symbols of a large image take so few bytes that no reader would believe it, the largest step is taken.
        """
        entropy_model = ChannelHistograms(self._counts_DF, step)
        indices_Dhw = merge(torch.from_numpy(fine_Dhw).int(), step).numpy() - entropy_model.smallest_symbol
        payload = self._nothing(indices_Dhw.size)
        if step < self.config.largest_step:
            tables = entropy_model.tables(indices_Dhw[0].size)
            coded = bytes([step]) + coder.encode(indices_Dhw.ravel().astype(np.int64), tables)
            payload = coded if len(coded) >= least_bytes(indices_Dhw.size) else payload
        return bitstream.pack(bitstream.Header(self.fingerprint, height, width, entropy_model.model_id), payload)

    def _nothing(self, n_indices: int) -> bytes:
        """The payload at the largest step, which has one symbol: filled with zeros to the length that readers want."""
        return bytes([self.config.largest_step]).ljust(least_bytes(n_indices), b"\0")

    def decode(self, data: bytes) -> tuple[npt.NDArray[np.int16], int, int, int]:
        """Symbols int16 (D, h, w), step, height and width of a stream; errors as `decompress`."""
        header, payload = bitstream.unpack(data)
        bitstream.check_fingerprint(header, self.fingerprint)
        if header.entropy_model_id != ChannelHistograms.model_id:
            raise BitstreamError(
                f"unknown entropy model {header.entropy_model_id}: an autoencoder's is {ChannelHistograms.model_id}"
            )
        if not payload or not 1 <= payload[0] <= self.config.largest_step:
            raise BitstreamError(f"the step of the latent must be 1..{self.config.largest_step}: damaged")
        step = payload[0]
        entropy_model = ChannelHistograms(self._counts_DF, step)
        channels, stride = self.config.latent_channels, self.model.stride
        h, w = -(-header.height // stride), -(-header.width // stride)
        if step == self.config.largest_step and payload == self._nothing(channels * h * w):
            return np.zeros((channels, h, w), np.int16), step, header.height, header.width
        # Before memory is taken: an untrue size must not ask for more than the payload can hold.
        least = max(8 * least_bytes(channels * h * w), entropy_model.least_bits(h * w) - 32)
        if 8 * len(payload) < least:
            raise BitstreamError(f"payload of {len(payload)} bytes is not a latent of {channels}x{h}x{w}: damaged")
        indices_N = coder.decode(payload[1:], channels * h * w, entropy_model.tables(h * w))
        symbols_Dhw = (indices_N + entropy_model.smallest_symbol).astype(np.int16).reshape(channels, h, w)
        return symbols_Dhw, step, header.height, header.width

    def reconstruct(self, symbols_Dhw: npt.NDArray[np.int16], step: int, height: int, width: int) -> ImageArray:
        """The image, uint8 (height, width, 3), of symbols at a step."""
        with torch.inference_mode():
            symbols_1Dhw = torch.from_numpy(symbols_Dhw).unsqueeze(0).to(self.device)
            x_hat = decode_in_tiles(
                lambda part: self.model.decode(part, step),
                symbols_1Dhw,
                self.model.stride,
                self.config.autoencoder.halo,
            )
        return tensor_to_image(x_hat[..., :height, :width])

    def compress(self, image_uint8_HW3: ImageArray) -> bytes:
        height, width = check_image(image_uint8_HW3).shape[:2]
        return self.encode(self.fine_integers(image_uint8_HW3), height, width, self.config.step)

    def compress_smallest(self, image_uint8_HW3: ImageArray) -> bytes:
        height, width = check_image(image_uint8_HW3).shape[:2]
        return self.encode(self.fine_integers(image_uint8_HW3), height, width, self.config.largest_step)

    def compress_to_budget(self, image_uint8_HW3: ImageArray, budget_bytes: int) -> bytes:
        """As the contract says: the smallest step that fits, found by bisection; the latent is computed once."""
        height, width = check_image(image_uint8_HW3).shape[:2]
        fine_Dhw = self.fine_integers(image_uint8_HW3)
        best = self.encode(fine_Dhw, height, width, self.config.largest_step)
        if len(best) > budget_bytes:
            raise RateError(
                f"{self.name} cannot code this {height}x{width} image in {budget_bytes} bytes: its smallest stream "
                f"takes {len(best)}; raise the budget or shrink the image"
            )
        too_small, fits = 0, self.config.largest_step
        while fits - too_small > 1:
            step = (too_small + fits) // 2
            data = self.encode(fine_Dhw, height, width, step)
            if len(data) <= budget_bytes:
                best, fits = data, step
            else:
                too_small = step
        return best

    def decompress(self, data: bytes) -> ImageArray:
        return self.reconstruct(*self.decode(data))
