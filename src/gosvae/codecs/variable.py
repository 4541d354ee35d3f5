"""The variable-rate codec: one model for any rate, which is set when an image is compressed.

Axis legend: D latent channels, h and w latent positions, V values of a symbol, P a pair of values, H and W pixels.
"""

from __future__ import annotations

import copy
import functools
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal, get_args

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from gosvae.bitstream import VERSION, SliceLayout
from gosvae.codecs.base import RateControlledCodec
from gosvae.codecs.cards import VariableRateCard
from gosvae.codecs.checkpoint import CodecCheckpoint, load_codec_checkpoint
from gosvae.codecs.latent import Latent, LatentCoder, Mask, SymbolArray, Transform
from gosvae.codecs.rate_search import bisect_setting, check_smallest, fill_budget
from gosvae.codecs.slices import Slicing, check_container, check_effort, shortest_payloads
from gosvae.codecs.trained import SlicedCodec, card_of, ready
from gosvae.codecs.variable_model import VariableRateAutoencoder
from gosvae.entropy.base import EntropyModel
from gosvae.entropy.coder import decode_images
from gosvae.entropy.fixed import FixedLength
from gosvae.entropy.latent import LatentContextModel
from gosvae.entropy.latent_network import LEVELS, LatentContextConfig, LatentContextNetwork, integer_network
from gosvae.errors import BitstreamError, ConfigError
from gosvae.nn.pyramid import NO_MARGINS, Margins
from gosvae.precision import Precision, autocast, usable_device
from gosvae.tensors import ImageArray

STIFFNESS = 6.0
"""Number of bits that count as much as a squared distance of 1, in steps of the quantizer.

Rate and distortion are in balance at 6 / ln 2 = 8.7 for a uniform quantizer of fine steps. A somewhat smaller value
saves bytes at little cost.
"""
_LEAST_STIFFNESS, _MOST_STIFFNESS = STIFFNESS / 32, STIFFNESS * 16
_STIFFNESS_OF_SMALLEST = (STIFFNESS, STIFFNESS / 4, STIFFNESS / 8, _LEAST_STIFFNESS)
"""Stiffness values that are tried for the smallest stream, the one with the best pictures first.

A less stiff assignment saves bytes on most images; on easy images it takes more.
"""
_NEAR = 0.98
"""Least share of a budget that a stream should take."""

LatentEntropy = Literal["auto", "context", "fixed"]


@dataclass(frozen=True)
class VariableRateOptions:
    """Options of a variable-rate codec for writing streams and for the precision of its networks.

    Attributes:
        level: level of streams without a budget, 0..255; None means the level of the model's configuration.
        budget_bytes: number of bytes that `compress` may take for an image; None means that the level decides.
        entropy: entropy model: `context`, `fixed`, or `auto` for the one that makes the stream the shortest.
        slices, layout, effort: see `StreamOptions`.
        precision: precision of the transforms: bf16 takes a third of the time where the device has it. The context
            model is exact in any case. The pictures of one stream then differ a little from device to device.

    Raises:
        ConfigError: the level is outside 0..255, the budget is below 1, or another value does not exist.
    """

    level: int | None = None
    budget_bytes: int | None = None
    entropy: LatentEntropy = "auto"
    slices: int = 1
    layout: SliceLayout = "bands"
    effort: int = 2
    precision: Precision = "32"

    def __post_init__(self) -> None:
        check_container(self.slices, VERSION, self.entropy)
        check_effort(self.effort)
        if self.entropy not in get_args(LatentEntropy):
            raise ConfigError(f"a variable-rate codec writes auto, context or fixed codes, not {self.entropy}")
        if self.level is not None and not 0 <= self.level < LEVELS:
            raise ConfigError(f"level {self.level}: expected 0..{LEVELS - 1}")
        if self.budget_bytes is not None and self.budget_bytes < 1:
            raise ConfigError(f"a budget of {self.budget_bytes} bytes: expected at least 1")


class PyramidTransform(Transform):
    """Networks of a variable-rate codec: encoder to a latent before the gain of a level, and decoder of symbols."""

    def __init__(self, model: VariableRateAutoencoder, device: torch.device, precision: Precision) -> None:
        self.model, self.device, self.precision = model, device, precision
        sizes = model.config.pyramid
        self.stride, self.encoder_halo, self.halo = model.stride, sizes.encoder_halo, sizes.decoder_halo

    def analyse(self, x_13HW: Tensor) -> Tensor:
        with autocast(self.device.type, self.precision):
            return self.model.transform(x_13HW)

    def synthesise(self, symbols_Bhw: Tensor, latents: Sequence[Latent], margins: Margins = NO_MARGINS) -> Tensor:
        level_B = torch.tensor([latent.setting for latent in latents], device=symbols_Bhw.device)
        with autocast(self.device.type, self.precision):
            return self.model.decode(symbols_Bhw, level_B, margins)


class LevelCoder(LatentCoder):
    """Latent coder of a variable-rate codec: each slice is a byte for the level, then the coded symbols.

    Args:
        config: configuration of the context model.
        network: context model in integers.
        mark: mark of the context model in streams.
        scaled: function that returns a latent at levels, such as `VariableRateAutoencoder.scaled`.
        options: options for writing streams.
    """

    sliceable = True
    layered = True

    def __init__(
        self,
        config: LatentContextConfig,
        network: LatentContextNetwork,
        mark: bytes,
        scaled: Callable[[Tensor, Tensor], Tensor],
        options: VariableRateOptions,
    ) -> None:
        self._config, self._network, self._mark = config, network, mark
        self._scaled, self._options = scaled, options
        self._fixed = FixedLength(config.values)
        self.marks = {FixedLength.model_id: b"", LatentContextModel.model_id: mark}

    def entropy_model(self, level: int) -> LatentContextModel:
        """Return the context model of a level."""
        return LatentContextModel(self._config, self._network, level, self._mark)

    def quantise(self, latent_1hw: Tensor, setting: int, stiffness: float = STIFFNESS) -> SymbolArray:
        """Return the symbols 0..2L, int64 (D, h, w), of a latent at a level.

        With an effort above 0 (`StreamOptions`) the assignment is entropy-constrained: each value takes the cheaper of
        the two integers around it, in bits plus `stiffness` times the squared distance. At an effort of 1 the bits come
        from each channel's histogram in the image. At a larger effort they come from the context model, given the
        symbols assigned so far, and the assignment is repeated effort - 1 times.
        """
        level_1 = torch.tensor([setting], device=self._network.embedding.device)
        y_1Dhw = self._scaled(latent_1hw.to(level_1.device), level_1)
        shifted_Dhw = (y_1Dhw[0] + self._config.bound).cpu().numpy()
        symbols_Dhw: SymbolArray = np.rint(shifted_Dhw).astype(np.int64)
        if self._options.effort == 1:
            bits_DV = _histogram_bits(symbols_Dhw, self._config.values)
            return assigned(shifted_Dhw, bits_DV[:, None, None], stiffness)
        for _ in range(self._options.effort - 1):
            bits_NV = self.entropy_model(setting).bits_of_values(stacked(symbols_Dhw))
            symbols_Dhw = assigned(shifted_Dhw, bits_NV.reshape(*shifted_Dhw.shape, -1), stiffness)
        return symbols_Dhw

    def encode(self, parts: Sequence[SymbolArray], setting: int) -> tuple[int, list[bytes]]:
        models: list[EntropyModel] = [self._fixed, self.entropy_model(setting)]
        models = models[:1] if self._options.entropy == "fixed" else models
        model_id, payloads = shortest_payloads(models, [stacked(part_Dhw) for part_Dhw in parts])
        return model_id, [bytes([setting]) + payload for payload in payloads]

    def least_bytes(self, grid_hw: tuple[int, int]) -> int:
        """See `LatentCoder.least_bytes`: channels that are not coded at a level take no bytes."""
        del grid_hw
        return 1

    def decode(
        self, model_id: int, payloads: Sequence[bytes], shapes: Sequence[tuple[int, int]]
    ) -> tuple[list[SymbolArray], int]:
        if not all(payloads):
            raise BitstreamError("a slice without a level: damaged")
        levels, channels = {payload[0] for payload in payloads}, self._config.channels
        if len(levels) > 1:
            raise BitstreamError(f"damaged: slices at the levels {sorted(levels)}, where all have the same")
        level = levels.pop()
        model = self._fixed if model_id == FixedLength.model_id else self.entropy_model(level)
        rows = [(channels * h, w) for h, w in shapes]
        found = decode_images(model, [payload[1:] for payload in payloads], rows)
        return [unstacked(symbols_hw, channels) for symbols_hw in found], level

    def conceal(self, symbols: SymbolArray, known_hw: Mask) -> SymbolArray:
        """See `LatentCoder.conceal`: symbols that are lost are -1, which the decoder was trained to fill in."""
        del known_hw
        return symbols


class VariableRateCodec(SlicedCodec, RateControlledCodec):
    """Use this when the rate should follow the link or a budget of bytes, and whenever few bytes count.

    Compared with `VqCodec`, it takes fewer bytes for the same task quality, and one model serves all rates. Sender and
    receiver need the context model of its latent, which takes most of the time of entropy coding.

    The rate is a level of 0..255, or the highest level that a budget allows.

    Args:
        checkpoint: configuration, weights and context model.
        options: rate, precision, and options for writing streams.
        device: device of the networks.

    Raises:
        CheckpointError: a checkpoint of another kind, or weights that do not fit the configuration.
    """

    coder: LevelCoder

    def __init__(
        self,
        checkpoint: CodecCheckpoint,
        *,
        options: VariableRateOptions | None = None,
        device: str | torch.device = "cpu",
    ) -> None:
        self.config = card_of(checkpoint, VariableRateCard, "a variable-rate codec").model
        self.options, device = options or VariableRateOptions(), usable_device(device)
        self.level = self.config.level if self.options.level is None else self.options.level
        self.budget_bytes = self.options.budget_bytes
        context = self.config.context
        # First, as it refuses a false size of the context model, with which the networks would be built below.
        network = integer_network(context, checkpoint.context).to(device)
        self.model = ready(self._without_context, checkpoint, device)
        super().__init__(
            checkpoint,
            PyramidTransform(self.model, device, self.options.precision),
            LevelCoder(context, network, checkpoint.context_mark(), self.model.scaled, self.options),
            Slicing(self.options.slices, self.options.layout),
        )

    def _without_context(self) -> VariableRateAutoencoder:
        """Return a new network without its context model, which is in integers beside the weights."""
        model = VariableRateAutoencoder(self.config)
        del model.context
        return model

    @classmethod
    def load(
        cls, folder: str | Path, *, options: VariableRateOptions | None = None, device: str | torch.device = "cpu"
    ) -> VariableRateCodec:
        """Load a codec from its checkpoint folder; errors as `load_codec_checkpoint` and the constructor."""
        return cls(load_codec_checkpoint(Path(folder)), options=options, device=device)

    def at(self, level: int) -> VariableRateCodec:
        """Return the same codec, without a budget, at another level; they share the networks.

        Raises:
            ConfigError: a level outside 0..255.
        """
        other = copy.copy(self)
        other.options = replace(self.options, level=level, budget_bytes=None)
        other.level, other.budget_bytes = level, None
        return other

    @property
    def description(self) -> dict[str, str]:
        encoder, decoder = (
            sum(p.numel() for p in part.parameters()) for part in (self.model.encoder, self.model.decoder)
        )
        context = sum(value.numel() for value in self.checkpoint.context.values())
        return {
            "architecture": f"variable-rate autoencoder, stride {self.model.stride}",
            "latent": f"D = {self.config.context.channels} channels of {self.config.context.values} values",
            "rate": f"levels 0..{LEVELS - 1}, {self.level} unless a level or a budget is given",
            "parameters": f"{self.parameter_count / 1e6:.2f} M (encoder {encoder / 1e6:.2f} M, "
            f"decoder {decoder / 1e6:.2f} M, context model {context / 1e6:.2f} M integers)",
        }

    @property
    def parameter_count(self) -> int:
        learned: int = sum(p.numel() for p in self.model.parameters())
        return learned + sum(value.numel() for value in self.checkpoint.context.values())

    def compress(self, image_uint8_HW3: ImageArray) -> bytes:
        """Return the stream of an image within the budget, or at the level if there is no budget.

        Raises:
            RateError: a budget was given, and even the lowest level takes more.
        """
        if self.budget_bytes is not None:
            return self.compress_to_budget(image_uint8_HW3, self.budget_bytes)
        return self.compress_at(image_uint8_HW3, self.level)

    def compress_smallest(self, image_uint8_HW3: ImageArray) -> bytes:
        """See `RateControlledCodec.compress_smallest`: never larger than the stream at level 0."""
        size_hw = (image_uint8_HW3.shape[0], image_uint8_HW3.shape[1])
        return self._smallest(functools.partial(self._stream, self.analyse(image_uint8_HW3), size_hw, 0))

    def _smallest(self, at_lowest: Callable[[float], bytes]) -> bytes:
        """Return the smallest stream at the lowest level, of those that `at_lowest` makes at each stiffness."""
        return min(map(at_lowest, _STIFFNESS_OF_SMALLEST if self.options.effort else (STIFFNESS,)), key=len)

    def compress_to_budget(self, image_uint8_HW3: ImageArray, budget_bytes: int) -> bytes:
        """Return the stream of the highest level that fits, found by bisection; the encoder runs once.

        With an effort above 0 the stiffness of the assignment is changed to fill the rest of the budget. If the next
        level takes much more, because channels begin there (`first_levels`), it is used with the stiffest assignment
        that fits; if none fits, the level below it is used with a stiffer assignment than usual. In the same way,
        budgets a little below the lowest level and above the highest level are met.

        Raises:
            RateError: even the lowest level takes more.
        """
        latent_1Dhw = self.analyse(image_uint8_HW3)
        return self.compress_latent(latent_1Dhw, image_uint8_HW3.shape[0], image_uint8_HW3.shape[1], budget_bytes)

    def compress_latent(self, latent_1Dhw: Tensor, height: int, width: int, budget_bytes: int) -> bytes:
        """Return the stream of a latent, as `compress_to_budget` does for an image of height x width pixels."""

        @functools.cache
        def stream(level: int, stiffness: float) -> bytes:
            return self._stream(latent_1Dhw, (height, width), level, stiffness)

        def usual(level: int) -> bytes:
            return stream(level, STIFFNESS)

        best, data = bisect_setting(usual, budget_bytes, fits=-1, exceeds=LEVELS, stream=b"")
        # Levels, each with a range of stiffness that may have a longer stream that fits.
        if best < 0:
            lowest = self._smallest(functools.partial(stream, 0))
            data = check_smallest(self.name, (height, width), lowest, budget_bytes)
            ranges = [(0, _LEAST_STIFFNESS, STIFFNESS)]
        elif best + 1 < LEVELS:
            ranges = [(best + 1, _LEAST_STIFFNESS, STIFFNESS), (best, STIFFNESS, _MOST_STIFFNESS)]
        else:
            largest = stream(best, _MOST_STIFFNESS)
            if len(largest) <= budget_bytes:
                return largest
            ranges = [(best, STIFFNESS, _MOST_STIFFNESS)]
        for level, low, high in ranges if self.options.effort else []:
            at_level = functools.partial(stream, level)
            data = fill_budget(at_level, budget_bytes, low=low, high=high, stream=data, enough=_NEAR)
        return data

    def _stream(self, latent_1Dhw: Tensor, size_hw: tuple[int, int], level: int, stiffness: float) -> bytes:
        with torch.inference_mode():
            symbols_Dhw = self.coder.quantise(latent_1Dhw, level, stiffness)
        return self.encode(Latent(symbols_Dhw, *size_hw, level))


def _histogram_bits(symbols_Dhw: SymbolArray, values: int) -> npt.NDArray[np.float32]:
    """Return the bits (D, V) of each value under the histogram of its channel."""
    channels = len(symbols_Dhw)
    rows_DN = symbols_Dhw.reshape(channels, -1) + values * np.arange(channels)[:, None]
    counts_DV = np.bincount(rows_DN.ravel(), minlength=channels * values).reshape(channels, values) + 0.1
    bits_DV: npt.NDArray[np.float32] = -np.log2(counts_DV / counts_DV.sum(axis=1, keepdims=True)).astype(np.float32)
    return bits_DV


def assigned(shifted_Dhw: npt.NDArray[np.float32], bits_DhwV: npt.NDArray[np.float32], stiffness: float) -> SymbolArray:
    """Return the cheaper of the two symbols around each value; axes of the bits may have length 1."""
    below_Dhw = symbols_below(shifted_Dhw, bits_DhwV.shape[-1])
    pair_DhwP = np.stack([below_Dhw, below_Dhw + 1], axis=-1)
    wide_DhwV = np.broadcast_to(bits_DhwV, (*shifted_Dhw.shape, bits_DhwV.shape[-1]))
    more_bits_Dhw = np.diff(np.take_along_axis(wide_DhwV, pair_DhwP, axis=-1), axis=-1)[..., 0]
    return cheaper(shifted_Dhw, below_Dhw, more_bits_Dhw, stiffness)


def symbols_below(shifted_Dhw: npt.NDArray[np.float32], values: int) -> SymbolArray:
    """Return the lower of the two symbols, of `values` different ones, around each value."""
    return np.clip(np.floor(shifted_Dhw).astype(np.int64), 0, values - 2)


def cheaper(
    shifted_Dhw: npt.NDArray[np.float32],
    below_Dhw: SymbolArray,
    more_bits_Dhw: npt.NDArray[np.float32],
    stiffness: float,
) -> SymbolArray:
    """Return the cheaper of the symbols `below_Dhw` and the next ones, which take `more_bits_Dhw` more bits."""
    rise_Dhw = shifted_Dhw - below_Dhw
    # The upper one is nearer by rise**2 - (1 - rise)**2 = 2 rise - 1.
    return below_Dhw + (stiffness * (2.0 * rise_Dhw - 1.0) > more_bits_Dhw)


def stacked(symbols_Dhw: SymbolArray) -> SymbolArray:
    """Return (D, h, w) as (D * h, w)."""
    return symbols_Dhw.reshape(-1, symbols_Dhw.shape[2])


def unstacked(indices_hw: SymbolArray, channels: int) -> SymbolArray:
    """Return (D * h, w) as (D, h, w)."""
    return indices_hw.reshape(channels, -1, indices_hw.shape[1])
