"""The VQ codec: each latent position of an image becomes the index of a code.

Axis legend: B images, H and W pixels, K codes, h and w latent positions.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from gosvae.bitstream import VERSION, SliceLayout
from gosvae.codecs.cards import VqCard
from gosvae.codecs.checkpoint import CodecCheckpoint, load_codec_checkpoint
from gosvae.codecs.concealment import conceal_indices
from gosvae.codecs.latent import Latent, LatentCoder, Mask, SymbolArray, Transform
from gosvae.codecs.slices import (
    ENTROPY_MODELS,
    EntropyChoice,
    Slicing,
    check_container,
    least_bytes,
    shortest_payloads,
)
from gosvae.codecs.tiling import without_margins
from gosvae.codecs.trained import SlicedCodec, card_of, ready
from gosvae.codecs.vq_model import VqAutoencoder
from gosvae.entropy.adaptive import AdaptiveCounts
from gosvae.entropy.base import EntropyModel
from gosvae.entropy.coder import decode_images
from gosvae.entropy.context import ContextModel
from gosvae.entropy.fixed import FixedLength
from gosvae.entropy.ids import EntropyModelId
from gosvae.entropy.static import StaticHistogram
from gosvae.errors import CheckpointError, ConfigError
from gosvae.metrics import zero_order_bits
from gosvae.nn.pyramid import NO_MARGINS, Margins
from gosvae.precision import usable_device
from gosvae.tensors import ImageArray

VERSION_1_MODELS = (EntropyModelId.FIXED_LENGTH, EntropyModelId.STATIC_HISTOGRAM)
"""Entropy models that readers of container version 1 know."""


@dataclass(frozen=True)
class VqOptions:
    """Options of a VQ codec for writing streams; the fields are those of `StreamOptions`.

    Raises:
        ConfigError: the number of slices or the version does not exist.
    """

    entropy: EntropyChoice = "auto"
    slices: int = 1
    layout: SliceLayout = "bands"
    version: int = VERSION

    def __post_init__(self) -> None:
        check_container(self.slices, self.version, self.entropy)

    def writers(self, models: Sequence[EntropyModel]) -> list[EntropyModel]:
        """Return the models with which streams may be written, the quickest first.

        Args:
            models: models of the codec.

        Raises:
            ConfigError: the chosen model is not among them.
        """
        known = {model.model_id: model for model in models}
        if self.entropy != "auto" and ENTROPY_MODELS[self.entropy] not in known:
            raise ConfigError(
                f"this codec has no {self.entropy} entropy model; it has "
                + ", ".join(name for name, model_id in ENTROPY_MODELS.items() if model_id in known)
            )
        fixed: set[int] = {EntropyModelId.FIXED_LENGTH}
        chosen = known.keys() if self.entropy == "auto" else fixed | {ENTROPY_MODELS[self.entropy]}
        return [known[n] for n in known if n in chosen and (self.version > 1 or n in VERSION_1_MODELS)]


class VqTransform(Transform):
    """Networks of a VQ codec: encoder to the indices of the nearest codes, and decoder from indices."""

    def __init__(self, model: VqAutoencoder, device: torch.device) -> None:
        self.model, self.device = model, device
        sizes = model.config.autoencoder
        self.stride, self.encoder_halo, self.halo = model.stride, sizes.encoder_halo, sizes.decoder_halo

    def analyse(self, x_13HW: Tensor) -> Tensor:
        return self.model.encode(x_13HW)

    def synthesise(self, symbols_Bhw: Tensor, latents: Sequence[Latent], margins: Margins = NO_MARGINS) -> Tensor:
        del latents
        return without_margins(self.model.decode(symbols_Bhw), margins, self.stride)


class IndexCoder(LatentCoder):
    """Latent coder of indices: a slice is the payload of one entropy model, and the shortest is written.

    Args:
        models: entropy models that are read.
        writers: entropy models that may be written; None means all of them.
    """

    sliceable = True

    def __init__(self, models: Sequence[EntropyModel], writers: Sequence[EntropyModel] | None = None) -> None:
        self._readers = {model.model_id: model for model in models}
        self._writers = models if writers is None else writers
        self._context = next((model for model in models if isinstance(model, ContextModel)), None)
        self.marks = {model.model_id: model.mark for model in models}

    def quantise(self, latent_1hw: Tensor, setting: int) -> SymbolArray:
        """See `LatentCoder.quantise`: the encoder has found the indices already."""
        del setting
        indices_hw: SymbolArray = latent_1hw[0].cpu().numpy()
        return indices_hw

    def encode(self, parts: Sequence[SymbolArray], setting: int) -> tuple[int, list[bytes]]:
        del setting
        return shortest_payloads(self._writers, parts, least_bytes(sum(part.size for part in parts)))

    def least_bytes(self, grid_hw: tuple[int, int]) -> int:
        return least_bytes(grid_hw[0] * grid_hw[1])

    def decode(
        self, model_id: int, payloads: Sequence[bytes], shapes: Sequence[tuple[int, int]]
    ) -> tuple[list[SymbolArray], int]:
        return decode_images(self._readers[model_id], payloads, shapes), 0

    def conceal(self, symbols: SymbolArray, known_hw: Mask) -> SymbolArray:
        """See `LatentCoder.conceal`: lost indices are guessed, see `conceal_indices`."""
        return conceal_indices(symbols, known_hw, self._context)


class VqCodec(SlicedCodec):
    """Use this when one fixed rate is enough and you need the symbols as tokens, or to repeat the paper's codec.

    Compared with `VariableRateCodec`, it has only one rate and takes more bytes for the same task quality.

    Args:
        checkpoint: configuration, weights and index histogram.
        options: options for writing streams.
        device: device of the networks.

    Raises:
        CheckpointError: a checkpoint of another kind, or weights that do not fit the configuration.
        ConfigError: the options ask for an entropy model that the codec does not have.
    """

    def __init__(
        self,
        checkpoint: CodecCheckpoint,
        *,
        options: VqOptions | None = None,
        device: str | torch.device = "cpu",
    ) -> None:
        card, device, options = card_of(checkpoint, VqCard, "a VQ codec"), usable_device(device), options or VqOptions()
        self.options = options
        self.model = ready(lambda: VqAutoencoder(card.model), checkpoint, device)
        size = self.model.quantizer.codebook_size
        if checkpoint.counts.shape != (size,):
            raise CheckpointError(f"the frequency table has {tuple(checkpoint.counts.shape)} entries, not {size}")
        counts_K = checkpoint.counts.numpy()
        models: list[EntropyModel] = [FixedLength(size), StaticHistogram(counts_K), AdaptiveCounts(counts_K)]
        if card.context is not None:
            models.append(ContextModel(card.context, checkpoint.context, device=device))
            if models[-1].codebook_size != size:
                raise CheckpointError(f"the context model is for {models[-1].codebook_size} codes, not for {size}")
        self.entropy_models = tuple(models)
        """Entropy models from the quickest to the slowest."""
        super().__init__(
            checkpoint,
            VqTransform(self.model, device),
            IndexCoder(models, options.writers(models)),
            Slicing(options.slices, options.layout, options.version),
        )

    @classmethod
    def load(
        cls, folder: str | Path, *, options: VqOptions | None = None, device: str | torch.device = "cpu"
    ) -> VqCodec:
        """Load a codec from its checkpoint folder; errors as `load_codec_checkpoint` and the constructor."""
        return cls(load_codec_checkpoint(Path(folder)), options=options, device=device)

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
        """Number of parameters of encoder, codebook and decoder; a codebook of moving averages is included."""
        averaged = dict(self.model.quantizer.named_buffers()).get("codebook_KD")
        learned: int = sum(p.numel() for p in self.model.parameters())
        return learned if averaged is None else learned + averaged.numel()

    def indices(self, image_uint8_HW3: ImageArray) -> npt.NDArray[np.int64]:
        """Return the indices of an image, int64 (h, w), which are `analyse` as an array; errors as in `analyse`."""
        return self.coder.quantise(self.analyse(image_uint8_HW3), 0)

    def compress(self, image_uint8_HW3: ImageArray) -> bytes:
        return self.compress_at(image_uint8_HW3, 0)

    def zero_order_bytes(self, data: bytes) -> float:
        """Return an estimate of the bytes that a stream's indices take at their own zero-order entropy."""
        return zero_order_bits(torch.from_numpy(self.decode(data).symbols)) / 8.0
