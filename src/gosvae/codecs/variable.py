"""The variable-rate codec: one model, any rate, set when an image is compressed.

Axis legend: D latent channels, h and w latent positions.
"""

from __future__ import annotations

import copy
import functools
import math
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from gosvae import bitstream
from gosvae.codecs.base import Concealed, LossTolerantCodec, RateControlledCodec
from gosvae.codecs.cards import VariableRateCard
from gosvae.codecs.checkpoint import CodecCheckpoint, load_codec_checkpoint, load_weights
from gosvae.codecs.concealment import concealed_pixels
from gosvae.codecs.slices import DEFAULT_OPTIONS, StreamOptions, grid_parts, marked_fingerprint, slice_count
from gosvae.codecs.tiling import decode_in_tiles, encode_in_tiles
from gosvae.codecs.trained import TrainedCodec, encoder_input
from gosvae.codecs.variable_model import VariableRateAutoencoder
from gosvae.entropy.base import MARK_BYTES, EntropyModel, weights_digest
from gosvae.entropy.coder import decode_indices, encode_indices
from gosvae.entropy.fixed import FixedLength
from gosvae.entropy.latent import LatentContextModel
from gosvae.entropy.latent_network import LEVELS, integer_network
from gosvae.errors import BitstreamError, CheckpointError, ConfigError, RateError
from gosvae.precision import Precision, autocast
from gosvae.tensors import ImageArray, tensor_to_image

SymbolArray = npt.NDArray[np.int64]

STIFFNESS = 6.0
"""Bits that a squared distance of 1, in steps of the quantizer, is worth. Where rate and distortion are in balance at a
uniform quantizer of fine steps it is 6 / ln 2 = 8.7; a value of somewhat less saved more bytes than it cost."""
_LEAST_STIFFNESS, _MOST_STIFFNESS = STIFFNESS / 32, STIFFNESS * 16
_NEAR = 0.98
"""Share of a budget that a stream should take at least."""


class VariableRateCodec(TrainedCodec, RateControlledCodec, LossTolerantCodec):
    """A variable-rate codec on one device, ready to use; its rate is a level of 0..255, or what a budget allows.

    Any image with sides of up to 65535 and up to 2**28 pixels is padded to the stride inside and cropped again; large
    ones are computed in tiles.

    Args:
        checkpoint: configuration, weights and context model.
        level: of streams without a budget; None: the level of the model's configuration.
        budget_bytes: what `compress` may take for an image; None: no budget, the level counts.
        options: how streams are written: slices, effort, and `auto`, `context` or `fixed` codes.
        device: where the networks run.
        precision: of the transforms: bf16 takes a third of the time where the device has it. The context model is
            exact in any case. The pictures of one stream then differ a little from device to device.

    Raises:
        CheckpointError: a checkpoint of another kind, or weights that do not fit the configuration.
        ConfigError: a level outside 0..255, a budget below 1, or options that this kind of codec cannot meet.
    """

    def __init__(
        self,
        checkpoint: CodecCheckpoint,
        *,
        level: int | None = None,
        budget_bytes: int | None = None,
        options: StreamOptions = DEFAULT_OPTIONS,
        device: str | torch.device = "cpu",
        precision: Precision = "32",
    ) -> None:
        super().__init__(checkpoint)
        card = checkpoint.card
        if not isinstance(card, VariableRateCard):
            raise CheckpointError(f"{card.name!r} is of kind {card.kind!r}, a variable-rate codec was expected")
        if options.version == 1 or options.entropy not in ("auto", "context", "fixed"):
            raise ConfigError(
                f"{card.name!r} writes streams of version {bitstream.VERSION} with context or fixed codes, "
                f"not version {options.version} with {options.entropy}"
            )
        self.config, self.options, self.device = card.model, options, torch.device(device)
        self.precision: Precision = precision
        self.level = _checked(self.config.level if level is None else level)
        self.budget_bytes = budget_bytes
        if budget_bytes is not None and budget_bytes < 1:
            raise ConfigError(f"a budget of {budget_bytes} bytes: expected at least 1")
        model = VariableRateAutoencoder(self.config)
        del model.context
        load_weights(model, checkpoint)
        model.eval().requires_grad_(False).to(self.device)
        self.model = model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self._network = integer_network(self.config.context, checkpoint.context).to(self.device)
        self._mark = context_mark(checkpoint)
        self._fixed = FixedLength(self.config.context.values)

    @classmethod
    def load(
        cls, folder: str | Path, *, options: StreamOptions = DEFAULT_OPTIONS, device: str | torch.device = "cpu"
    ) -> VariableRateCodec:
        """Load a codec from its checkpoint folder; errors as `load_codec_checkpoint` and the constructor."""
        return cls(load_codec_checkpoint(Path(folder)), options=options, device=device)

    def at(self, level: int) -> VariableRateCodec:
        """The same codec, without a budget, at another level; they share the networks.

        Raises:
            ConfigError: a level outside 0..255.
        """
        other = copy.copy(self)
        other.level, other.budget_bytes = _checked(level), None
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

    def entropy_model(self, level: int) -> LatentContextModel:
        """The context model of a level."""
        return LatentContextModel(self.config.context, self._network, level, self._mark)

    def latent(self, image_uint8_HW3: ImageArray) -> Tensor:
        """The image's latent (1, D, h, w) before the gain of a level: the encoder's work; errors as `encoder_input`."""
        with torch.inference_mode(), autocast(self.device.type, self.precision):
            x = encoder_input(image_uint8_HW3, self.model.stride, self.device)
            return encode_in_tiles(self.model.transform, x, self.model.stride, self.config.pyramid.halo)

    def symbols(self, latent_1Dhw: Tensor, level: int, *, stiffness: float = STIFFNESS) -> SymbolArray:
        """Symbols 0..2L, int64 (D, h, w), of a latent at a level.

        With an effort above 0 (`StreamOptions`) the assignment is entropy-constrained: of the two integers around each
        value the one that is cheaper in bits plus `stiffness` times the squared distance. With an effort of 1 the bits
        are those of each channel's histogram in the image, with more those that the context model gives the symbols so
        far, effort - 1 times.
        """
        with torch.inference_mode():
            y_1Dhw = self.model.scaled(latent_1Dhw.to(self.device), torch.tensor([level], device=self.device))
            shifted_Dhw = (y_1Dhw[0] + self.config.context.bound).cpu().numpy()
        symbols_Dhw: SymbolArray = np.rint(shifted_Dhw).astype(np.int64)
        if self.options.effort == 1:
            bits_DV = _histogram_bits(symbols_Dhw, self.config.context.values)
            return _assigned(shifted_Dhw, bits_DV[:, None, None], stiffness)
        for _ in range(self.options.effort - 1):
            bits_NV = self.entropy_model(level).bits_of_values(_stacked(symbols_Dhw))
            symbols_Dhw = _assigned(shifted_Dhw, bits_NV.reshape(*shifted_Dhw.shape, -1), stiffness)
        return symbols_Dhw

    def encode(self, symbols_Dhw: SymbolArray, height: int, width: int, level: int) -> bytes:
        """The stream of symbols: each slice is one byte for the level, then the coded symbols."""
        grid_hw = (symbols_Dhw.shape[1], symbols_Dhw.shape[2])
        options = self.options
        parts = grid_parts(grid_hw, slice_count(grid_hw, options.slices, options.layout), options.layout)
        models: list[EntropyModel] = [self._fixed, self.entropy_model(level)]
        models = [self._fixed] if options.entropy == "fixed" else models
        coded = [[encode_indices(model, _stacked(symbols_Dhw[:, *part])) for part in parts] for model in models]
        best = min(range(len(models)), key=lambda n: sum(map(len, coded[n])))
        fingerprint = marked_fingerprint(self.fingerprint, models[best])
        header = bitstream.Header(fingerprint, height, width, models[best].model_id)
        return bitstream.pack_slices(header, [bytes([level]) + payload for payload in coded[best]], options.layout)

    def decode(self, data: bytes) -> tuple[SymbolArray, int, int, int]:
        """Symbols (D, h, w), level, height and width of a stream; errors as `decompress`."""
        return self._decode(bitstream.unpack_slices(data))

    def decode_damaged(self, data: bytes) -> tuple[SymbolArray, int, int, int]:
        """What is left of a damaged stream: as `decode`, with symbols of -1 at positions of slices that were lost.

        Raises:
            BitstreamError: the header is damaged, or no slice is intact.
            ForeignStreamError: as `decompress`.
        """
        return self._decode(bitstream.salvage(data))

    def _decode(self, stream: bitstream.Stream) -> tuple[SymbolArray, int, int, int]:
        header = stream.header
        context = LatentContextModel.model_id
        if header.entropy_model_id not in (self._fixed.model_id, context):
            raise BitstreamError(
                f"unknown entropy model {header.entropy_model_id}: this codec knows {[self._fixed.model_id, context]}"
            )
        levels = {payload[:1] for payload in stream.slices if payload is not None}
        if len(levels) != 1 or levels == {b""}:
            raise BitstreamError("the slices are not of one level: damaged")
        level = levels.pop()[0]
        model = self.entropy_model(level) if header.entropy_model_id == context else self._fixed
        bitstream.check_fingerprint(header, marked_fingerprint(self.fingerprint, model))
        channels, stride = self.config.context.channels, self.model.stride
        grid_hw = (-(-header.height // stride), -(-header.width // stride))
        symbols_Dhw: SymbolArray | None = None
        for part, payload in zip(grid_parts(grid_hw, len(stream.slices), stream.layout), stream.slices, strict=True):
            if payload is None:
                continue
            h, w = (len(range(side)[along]) for side, along in zip(grid_hw, part, strict=True))
            decoded = decode_indices(model, payload[1:], (channels * h, w))
            if symbols_Dhw is None:  # only now: an untrue size is found out before memory is taken for it
                symbols_Dhw = np.full((channels, *grid_hw), -1)
            symbols_Dhw[:, *part] = decoded.reshape(channels, h, w)
        assert symbols_Dhw is not None  # there is a level, and so a slice
        return symbols_Dhw, level, header.height, header.width

    def reconstruct(self, symbols_Dhw: SymbolArray, level: int, height: int, width: int) -> ImageArray:
        """The image, uint8 (height, width, 3), of symbols at a level; -1 at positions that are not known."""
        with torch.inference_mode(), autocast(self.device.type, self.precision):
            symbols_1Dhw = torch.from_numpy(symbols_Dhw).unsqueeze(0).to(self.device)
            x_hat = decode_in_tiles(
                lambda part: self.model.decode(part, level), symbols_1Dhw, self.model.stride, self.config.pyramid.halo
            )
        return tensor_to_image(x_hat[..., :height, :width])

    def compress(self, image_uint8_HW3: ImageArray) -> bytes:
        """As the contract says.

        Raises:
            RateError: a budget was given, and even the lowest level takes more.
        """
        if self.budget_bytes is not None:
            return self.compress_to_budget(image_uint8_HW3, self.budget_bytes)
        return self.compress_at(image_uint8_HW3, self.level)

    def compress_at(self, image_uint8_HW3: ImageArray, level: int) -> bytes:
        """The stream of an image at a level of 0..255."""
        return self._stream(self.latent(image_uint8_HW3), image_uint8_HW3, level, STIFFNESS)

    def compress_smallest(self, image_uint8_HW3: ImageArray) -> bytes:
        return self._stream(self.latent(image_uint8_HW3), image_uint8_HW3, 0, _LEAST_STIFFNESS)

    def compress_to_budget(self, image_uint8_HW3: ImageArray, budget_bytes: int) -> bytes:
        """As the contract says: the highest level that fits, found by bisection; the encoder runs once.

        With an effort above 0 the stiffness of the assignment fills what is left. Where the next level takes much more,
        because channels begin there (`first_levels`), it is taken with as stiff an assignment as fits; where none fits,
        the level before it with a stiffer one than usual. In the same way budgets a little below the lowest level and
        above the highest one are met.
        """
        latent_1Dhw = self.latent(image_uint8_HW3)

        @functools.cache
        def stream(level: int, stiffness: float = STIFFNESS) -> bytes:
            return self._stream(latent_1Dhw, image_uint8_HW3, level, stiffness)

        best, above = -1, LEVELS
        while above - best > 1:
            level = (best + above) // 2
            best, above = (level, above) if len(stream(level)) <= budget_bytes else (best, level)
        # The stream so far, and levels with a range of stiffness in which there may be a longer one that fits.
        if best < 0:
            data, ranges = stream(0, _LEAST_STIFFNESS), [(0, _LEAST_STIFFNESS, STIFFNESS)]
            if len(data) > budget_bytes:
                raise RateError(
                    f"{self.name} cannot code this {image_uint8_HW3.shape[0]}x{image_uint8_HW3.shape[1]} image in "
                    f"{budget_bytes} bytes: its smallest stream takes {len(data)}; raise the budget or shrink the image"
                )
        elif above < LEVELS:
            data, ranges = stream(best), [(above, _LEAST_STIFFNESS, STIFFNESS), (best, STIFFNESS, _MOST_STIFFNESS)]
        else:
            largest = stream(best, _MOST_STIFFNESS)
            if len(largest) <= budget_bytes:
                return largest
            data, ranges = stream(best), [(best, STIFFNESS, _MOST_STIFFNESS)]
        for level, low, high in ranges if self.options.effort else []:
            for _ in range(5):
                if len(data) >= _NEAR * budget_bytes:
                    return data
                stiffness = math.sqrt(low * high)
                tried = stream(level, stiffness)
                low, high = (stiffness, high) if len(tried) <= budget_bytes else (low, stiffness)
                data = max(data, tried, key=len) if len(tried) <= budget_bytes else data
        return data

    def _stream(self, latent_1Dhw: Tensor, image_uint8_HW3: ImageArray, level: int, stiffness: float) -> bytes:
        height, width = image_uint8_HW3.shape[:2]
        return self.encode(self.symbols(latent_1Dhw, level, stiffness=stiffness), height, width, level)

    def decompress(self, data: bytes) -> ImageArray:
        return self.reconstruct(*self.decode(data))

    def decompress_damaged(self, data: bytes) -> Concealed:
        """As the contract says; the decoder, which was trained with losses, fills in what it has not got."""
        stream = bitstream.salvage(data)
        symbols_Dhw, level, height, width = self._decode(stream)
        image_uint8_HW3 = self.reconstruct(symbols_Dhw, level, height, width)
        concealed_HW = concealed_pixels(symbols_Dhw[0] >= 0, self.model.stride, height, width)
        return Concealed(image_uint8_HW3, concealed_HW, stream.damaged)


def _checked(level: int) -> int:
    if not 0 <= level < LEVELS:
        raise ConfigError(f"level {level}: expected 0..{LEVELS - 1}")
    return level


def _histogram_bits(symbols_Dhw: SymbolArray, values: int) -> npt.NDArray[np.float32]:
    """Bits (D, V) of each value under the histogram of its channel."""
    channels = len(symbols_Dhw)
    rows_DN = symbols_Dhw.reshape(channels, -1) + values * np.arange(channels)[:, None]
    counts_DV = np.bincount(rows_DN.ravel(), minlength=channels * values).reshape(channels, values) + 0.1
    bits_DV: npt.NDArray[np.float32] = -np.log2(counts_DV / counts_DV.sum(axis=1, keepdims=True)).astype(np.float32)
    return bits_DV


def _assigned(
    shifted_Dhw: npt.NDArray[np.float32], bits_DhwV: npt.NDArray[np.float32], stiffness: float
) -> SymbolArray:
    """Of the two symbols around each value the one with the lower cost; the bits may have sides of 1."""
    below_Dhw = np.clip(np.floor(shifted_Dhw).astype(np.int64), 0, bits_DhwV.shape[-1] - 2)
    rise_Dhw = shifted_Dhw - below_Dhw
    pair_DhwP = np.stack([below_Dhw, below_Dhw + 1], axis=-1)
    wide_DhwV = np.broadcast_to(bits_DhwV, (*shifted_Dhw.shape, bits_DhwV.shape[-1]))
    more_bits_Dhw = np.diff(np.take_along_axis(wide_DhwV, pair_DhwP, axis=-1), axis=-1)[..., 0]
    # The upper one is nearer by rise**2 - (1 - rise)**2 = 2 rise - 1.
    return below_Dhw + (stiffness * (2.0 * rise_Dhw - 1.0) > more_bits_Dhw)


def _stacked(symbols_Dhw: SymbolArray) -> SymbolArray:
    """(D, h, w) to (D * h, w)."""
    return symbols_Dhw.reshape(-1, symbols_Dhw.shape[2])


def context_mark(checkpoint: CodecCheckpoint) -> bytes:
    """What tells the context model of a variable-rate codec from another's in a stream."""
    card = checkpoint.card
    assert isinstance(card, VariableRateCard)
    return weights_digest(card.model.context, checkpoint.context)[:MARK_BYTES]
