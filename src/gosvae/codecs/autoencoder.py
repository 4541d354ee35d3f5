"""The autoencoder of Table I as a codec: a latent of integers, entropy-coded to a byte budget.

Axis legend: B images, D latent channels, F fine integers, h and w latent positions, H and W pixels.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from gosvae.codecs.autoencoder_model import AutoencoderModelConfig, ScalarAutoencoder, merge
from gosvae.codecs.base import RateControlledCodec
from gosvae.codecs.cards import AutoencoderCard
from gosvae.codecs.checkpoint import CodecCheckpoint, load_codec_checkpoint
from gosvae.codecs.latent import Latent, LatentCoder, Mask, SymbolArray, Transform
from gosvae.codecs.rate_search import bisect_setting, check_smallest
from gosvae.codecs.slices import least_bytes
from gosvae.codecs.tiling import without_margins
from gosvae.codecs.trained import TrainedCodec, card_of, ready
from gosvae.entropy import coder
from gosvae.entropy.channels import ChannelHistograms
from gosvae.errors import BitstreamError, CheckpointError, ConfigError
from gosvae.nn.pyramid import NO_MARGINS, Margins
from gosvae.precision import usable_device
from gosvae.tensors import ImageArray

FineArray = npt.NDArray[np.int16]


@dataclass(frozen=True)
class AutoencoderOptions:
    """Options of an autoencoder, which has none; a budget is given for each image."""


class AutoencoderTransform(Transform):
    """Networks of an autoencoder: encoder to fine integers, and decoder of symbols at a step."""

    def __init__(self, model: ScalarAutoencoder, device: torch.device) -> None:
        self.model, self.device = model, device
        sizes = model.config.autoencoder
        self.stride, self.encoder_halo, self.halo = model.stride, sizes.encoder_halo, sizes.decoder_halo

    def analyse(self, x_13HW: Tensor) -> Tensor:
        return self.model.encode(x_13HW)

    def synthesise(self, symbols_Bhw: Tensor, latents: Sequence[Latent], margins: Margins = NO_MARGINS) -> Tensor:
        step_B = torch.tensor([latent.setting for latent in latents], device=symbols_Bhw.device)
        return without_margins(self.model.decode(symbols_Bhw, step_B.view(-1, 1, 1, 1)), margins, self.stride)


class StepCoder(LatentCoder):
    """Latent coder of an autoencoder: a byte for the step, then the symbols under the histogram of each channel.

    If the symbols of a large image take fewer bytes than readers accept, the largest step is taken.

    Args:
        config: configuration of the model.
        counts_DF: counts of the fine integers.
    """

    sliceable = False

    def __init__(self, config: AutoencoderModelConfig, counts_DF: npt.NDArray[np.int64]) -> None:
        self._config, self._counts_DF = config, counts_DF
        self.marks = {ChannelHistograms.model_id: b""}

    def quantise(self, latent_1hw: Tensor, setting: int) -> SymbolArray:
        symbols_Dhw: SymbolArray = merge(latent_1hw[0].cpu().long(), setting).numpy()
        return symbols_Dhw

    def encode(self, parts: Sequence[SymbolArray], setting: int) -> tuple[int, list[bytes]]:
        (symbols_Dhw,) = parts
        entropy_model = ChannelHistograms(self._counts_DF, setting)
        payload = self._nothing(symbols_Dhw.size)
        if setting < self._config.largest_step:
            indices_N = (symbols_Dhw - entropy_model.smallest_symbol).ravel()
            coded = bytes([setting]) + coder.encode(indices_N, entropy_model.tables(symbols_Dhw[0].size))
            payload = coded if len(coded) >= least_bytes(symbols_Dhw.size) else payload
        return entropy_model.model_id, [payload]

    def _nothing(self, n_symbols: int) -> bytes:
        """Return the payload at the largest step, which has one symbol, padded with zeros to the expected length."""
        return bytes([self._config.largest_step]).ljust(least_bytes(n_symbols), b"\0")

    def least_bytes(self, grid_hw: tuple[int, int]) -> int:
        return least_bytes(self._config.latent_channels * grid_hw[0] * grid_hw[1])

    def decode(
        self, model_id: int, payloads: Sequence[bytes], shapes: Sequence[tuple[int, int]]
    ) -> tuple[list[SymbolArray], int]:
        del model_id
        (payload,), ((h, w),) = payloads, shapes
        largest, channels = self._config.largest_step, self._config.latent_channels
        if not payload or not 1 <= payload[0] <= largest:
            raise BitstreamError(f"the step of the latent must be 1..{largest}: damaged")
        step = payload[0]
        entropy_model = ChannelHistograms(self._counts_DF, step)
        if step == largest and payload == self._nothing(channels * h * w):
            return [np.zeros((channels, h, w), np.int64)], step
        # This check precedes any allocation: a false size must not take more memory than the payload can need.
        if 8 * len(payload) < entropy_model.least_bits(h * w) - 32:
            raise BitstreamError(f"payload of {len(payload)} bytes is not a latent of {channels}x{h}x{w}: damaged")
        indices_N = coder.decode(payload[1:], channels * h * w, entropy_model.tables(h * w))
        return [(indices_N + entropy_model.smallest_symbol).reshape(channels, h, w)], step

    def conceal(self, symbols: SymbolArray, known_hw: Mask) -> SymbolArray:
        """See `LatentCoder.conceal`: a stream of one slice is whole."""
        del known_hw
        return symbols


class AutoencoderCodec(TrainedCodec, RateControlledCodec):
    """Use this when you repeat the row "Autoencoder" of the paper's Table I.

    Compared with `VariableRateCodec`, it has no context model and takes more bytes, and its streams do not survive a
    lost packet. It is a plain network without a codebook; the rate is the step with which its latent is rounded.

    Args:
        checkpoint: configuration, weights and fine counts (D, F).
        options: None, or the options of a codec that has none.
        device: device of the networks.

    Raises:
        CheckpointError: a checkpoint of another kind, or weights or counts that do not fit the configuration.
    """

    def __init__(
        self,
        checkpoint: CodecCheckpoint,
        *,
        options: AutoencoderOptions | None = None,
        device: str | torch.device = "cpu",
    ) -> None:
        del options
        self.config = card_of(checkpoint, AutoencoderCard, "an autoencoder").model
        device = usable_device(device)
        self.model = ready(lambda: ScalarAutoencoder(self.config), checkpoint, device)
        shape = (self.config.latent_channels, self.config.largest_step)
        if checkpoint.counts.shape != shape:
            raise CheckpointError(f"the frequency tables are {tuple(checkpoint.counts.shape)}, not {shape}")
        counts_DF = checkpoint.counts.numpy()
        try:
            ChannelHistograms(counts_DF).tables(1)
        except ConfigError as error:
            raise CheckpointError(f"the frequency tables are damaged: {error}") from None
        super().__init__(checkpoint, AutoencoderTransform(self.model, device), StepCoder(self.config, counts_DF))

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
        """Return the latent before a step merges it, int16 (D, h, w) in -L..L; errors as in `analyse`."""
        fine_Dhw: FineArray = self.analyse(image_uint8_HW3)[0].cpu().numpy()
        return fine_Dhw

    def compress(self, image_uint8_HW3: ImageArray) -> bytes:
        return self.compress_at(image_uint8_HW3, self.config.step)

    def compress_smallest(self, image_uint8_HW3: ImageArray) -> bytes:
        return self.compress_at(image_uint8_HW3, self.config.largest_step)

    def compress_to_budget(self, image_uint8_HW3: ImageArray, budget_bytes: int) -> bytes:
        """Return the stream of the smallest step that fits, found by bisection; the encoder runs once.

        Raises:
            RateError: even the largest step takes more.
        """
        latent_1Dhw, largest = self.analyse(image_uint8_HW3), self.config.largest_step
        height, width = image_uint8_HW3.shape[:2]

        def stream(step: int) -> bytes:
            return self.encode(self.quantise(latent_1Dhw, height, width, step))

        smallest = check_smallest(self.name, (height, width), stream(largest), budget_bytes)
        return bisect_setting(stream, budget_bytes, fits=largest, exceeds=0, stream=smallest)[1]
