"""Training of a context model on the indices of a finished VQ codec, which is frozen.

Axis legend: B images, h and w latent positions, N positions, T taps, K codes, D digits, V values of a digit.
"""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from pydantic import Field
from torch import Tensor
from torch.nn import functional as F

from gosvae.codecs.checkpoint import save_codec
from gosvae.codecs.vq import VqCodec
from gosvae.codecs.vq_model import VqAutoencoder
from gosvae.config import Config, parse, to_tree
from gosvae.datasets.base import Dataset
from gosvae.entropy.context import ContextConfig, ContextNetwork, default_config
from gosvae.entropy.digits import MOST_VALUES, Digits, clustered, positional
from gosvae.entropy.lattice import reach
from gosvae.errors import ConfigError
from gosvae.nn.integer import QuantizedLinear
from gosvae.quantizers import FsqConfig
from gosvae.seeding import torch_generator
from gosvae.tensors import pad_to_multiple
from gosvae.training.machine.config import BatchConfig, RunConfig, StageConfig, Stages
from gosvae.training.machine.fit import StageResult, fit
from gosvae.training.machine.loop import Outcome
from gosvae.training.machine.provenance import provenance
from gosvae.training.machine.task import TrainingTask
from gosvae.training.passes import PassUse, drawn, pass_uses

BITS = "bits"
"""Name of the only term: cross-entropy in bits per index."""
_LONGEST_EMBEDDING = 3.0
"""Largest initial value of an embedding; its integers hold up to 127 / 32."""


class ContextRecipe(Config):
    """Recipe of a context model.

    Attributes:
        model: changes of the model's configuration, such as `{"width": 128}`; the rest follows from the codebook.
        stages: stages of the training.
    """

    kind: Literal["context"] = "context"
    name: str = "context"
    description: str = ""
    model: dict[str, Any] = Field(default_factory=dict)
    stages: Stages


def _levels(codec: VqAutoencoder) -> tuple[int, ...] | None:
    """Return the levels of a product quantizer (FSQ), whose indices are digits already; None for others."""
    config = codec.config.quantizer
    return config.levels if isinstance(config, FsqConfig) else None


def digits_of(codec: VqAutoencoder) -> tuple[Digits, bool]:
    """Return the digits of a codec's indices, and whether they are those of a product quantizer."""
    quantizer = codec.quantizer
    size = quantizer.codebook_size
    levels = _levels(codec)
    if size <= MOST_VALUES:
        return Digits(positional(size, (size,)), (size,)), False
    if levels is not None:
        return Digits(positional(size, levels), levels), True
    table_KD = clustered(code_vectors(codec).numpy())
    most = math.isqrt(size - 1) + 1
    return Digits(table_KD, (int(table_KD[:, 0].max()) + 1, most)), False


@torch.no_grad()
def code_vectors(codec: VqAutoencoder) -> Tensor:
    """Return the vectors that the indices stand for, float32 (K, C)."""
    vectors_1CK1 = codec.quantizer.lookup(torch.arange(codec.quantizer.codebook_size).view(1, -1, 1))
    return vectors_1CK1[0, :, :, 0].T.float().cpu()


@torch.no_grad()
def initialise(network: ContextNetwork, codec: VqAutoencoder, digits: Digits, counts_K: Tensor) -> None:
    """Initialise the network: similar codes get similar embeddings, and frequent codes a high probability."""
    vectors_KC = code_vectors(codec)
    centred_KC = vectors_KC - vectors_KC.mean(dim=0)
    left, sizes, _ = torch.linalg.svd(centred_KC, full_matrices=False)
    count = min(network.config.embedding_width, len(sizes))
    main_KE = left[:, :count] * sizes[:count]
    main_KE = (main_KE / main_KE.std(dim=0).mean().clamp_min(1e-6)).clamp(-_LONGEST_EMBEDDING, _LONGEST_EMBEDDING)
    if not network.config.embed_digits:
        network.embeddings[0][:-1, :count] = main_KE
        network.embeddings[0][-1] = 0.0
    for d, head in enumerate(network.heads):
        assert isinstance(head, QuantizedLinear)
        counts_V = torch.bincount(torch.from_numpy(digits.table_KD[:, d]), counts_K.double(), digits.values[d])
        bits_V = counts_V.clamp_min(1.0).log2()
        head.bias_PO.copy_((bits_V - bits_V.mean()).float()[None])
        head.weight_OI.mul_(0.5)


class ContextTask(TrainingTask):
    """Cross-entropy of a batch's indices at random positions, see `gosvae.training.passes`."""

    network: ContextNetwork

    def __init__(self, network: ContextNetwork, codec: VqAutoencoder, digits: Digits) -> None:
        super().__init__()
        self.network = network
        self.codec = codec.requires_grad_(False)
        self.register_buffer("_digits_KD", torch.from_numpy(digits.table_KD), persistent=False)
        config = network.config
        outside = [torch.from_numpy(np.append(np.arange(config.codebook_size), config.codebook_size))]
        if config.embed_digits:
            outside = [torch.from_numpy(np.append(digits.table_KD[:, d], v)) for d, v in enumerate(config.values)]
        for d, rows in enumerate(outside):
            self.register_buffer(f"_rows_{d}", rows, persistent=False)
        self._n_tables = len(outside)
        self._reach = reach(config.refinements)
        self._uses = pass_uses(config.refinements, config.taps)
        self._generator = torch_generator(0)

    @property
    def known_terms(self) -> frozenset[str]:
        return frozenset({BITS})

    def begin_step(self, *path: int | str) -> None:
        self._generator = torch_generator(*path, "positions")

    def forward(self, x_B3HW: Tensor, labels_BHW: Tensor | None, wanted: frozenset[str]) -> dict[str, Tensor]:
        """Return `bits` per index, and those of the first and the last pass, which are only logged."""
        del labels_BHW, wanted
        with torch.autocast(x_B3HW.device.type, enabled=False):
            x = pad_to_multiple(x_B3HW.float(), self.codec.stride)
            indices_Bhw = self.codec.eval().encode(x).clone()
            return self.bits(indices_Bhw)

    def bits(self, indices_Bhw: Tensor) -> dict[str, Tensor]:
        """Return the terms of indices, as `forward`."""
        r, config = self._reach, self.network.config
        padded = F.pad(indices_Bhw, (r, r, r, r), value=config.codebook_size)
        _, height, width = padded.shape
        flat = padded.reshape(-1)
        bits: Tensor | None = None
        total = flat.new_zeros((), dtype=torch.float32)
        terms: dict[str, Tensor] = {}
        for use, order_N in drawn(self._uses, indices_Bhw.numel(), self._generator):
            images_N, rows_N, columns_N = torch.unravel_index(order_N.to(flat.device), indices_Bhw.shape)
            places_N = images_N * (height * width) + (rows_N + r) * width + columns_N + r
            offsets_T = use.offsets_T2 @ torch.tensor([width, 1])
            neighbours_NT = flat[places_N[:, None] + offsets_T.to(flat.device)]
            neighbours_NT = neighbours_NT.masked_fill(use.hidden_T.to(flat.device), config.codebook_size)
            bits = self._pass_bits(neighbours_NT, flat[places_N], use)
            total = total + use.share * bits
            if use.kind is None:
                terms["bits_first_pass"] = bits.detach()
        assert bits is not None
        return {BITS: total, **terms, "bits_last_pass": bits.detach()}

    def _pass_bits(self, neighbours_NT: Tensor, indices_N: Tensor, use: PassUse) -> Tensor:
        """Return the mean bits of indices in a pass."""
        network = self.network
        rows = [self.get_buffer(f"_rows_{d}")[neighbours_NT] for d in range(self._n_tables)]
        h_NC = network.features(rows, use.kind, use.refinement, len(indices_N))
        digits_ND = self.get_buffer("_digits_KD")[indices_N]
        bits = h_NC.new_zeros(())
        for d in range(digits_ND.shape[1]):
            nats_NV = network.logits(h_NC, d) * math.log(2.0)
            bits = bits + F.cross_entropy(nats_NV, digits_ND[:, d]) / math.log(2.0)
            if d < digits_ND.shape[1] - 1:
                h_NC = network.with_digit(h_NC, d, digits_ND[:, d])
        return bits


def context_config(codec: VqAutoencoder, changes: dict[str, Any]) -> tuple[ContextConfig, Digits]:
    """Return the configuration of the context model of a codec, with changes, and the digits of its indices."""
    digits, product = digits_of(codec)
    config = default_config(codec.quantizer.codebook_size, digits.values, product=product)
    return parse(ContextConfig, {**to_tree(config), **changes}, source="context model"), digits


class ContextTraining:
    """The training of a context model.

    Args:
        recipe: changes of the model's configuration, and stages.
        codec: codec whose indices are learned; its weights, its fingerprint and its other streams do not change.
        seen: images that crops are drawn from.

    Raises:
        ConfigError: a configuration of the model with unknown keys or impossible values.
    """

    def __init__(self, recipe: ContextRecipe, codec: VqCodec, seen: Dataset) -> None:
        self.recipe, self.codec, self.seen = recipe, codec, seen
        self._config, self._digits = context_config(codec.model, recipe.model)

    @property
    def stages(self) -> tuple[StageConfig, ...]:
        return self.recipe.stages

    def task(self) -> TrainingTask:
        network = ContextNetwork(self._config)
        initialise(network, self.codec.model, self._digits, self.codec.checkpoint.counts)
        return ContextTask(network, self.codec.model, self._digits)

    def inputs(self) -> str:
        fingerprint = self.codec.checkpoint.fingerprint().hex()
        return str([self.seen.name, len(self.seen), fingerprint, to_tree(self._config)])

    def keep(self, result: StageResult) -> None:
        assert isinstance(result.network, ContextNetwork)
        tensors = result.network.freeze()
        if len(self._digits) > 1 and _levels(self.codec.model) is None:
            tensors["digits_KD"] = torch.from_numpy(self._digits.table_KD.astype(np.uint16))
        checkpoint = self.codec.checkpoint
        notes = provenance(self.seen, recipe=to_tree(self.recipe), **result.notes)
        with_context = replace(
            checkpoint,
            card=checkpoint.card.model_copy(update={"context": self._config}),
            context=tensors,
            provenance={**checkpoint.provenance, "context": notes},
        )
        for folder in result.folders:
            save_codec(folder, with_context)


def train_context(
    recipe: ContextRecipe,
    codec: VqCodec,
    seen: Dataset,
    run: RunConfig,
    folder: Path,
    *,
    max_minutes: float | None = None,
    progress: bool = True,
) -> Outcome:
    """Train a context model; `folder` then holds the codec with the model in it.

    Args:
        recipe, codec, seen: see `ContextTraining`.
        run, folder, max_minutes, progress: see `fit`.

    Raises:
        ConfigError: a configuration of the model with unknown keys or impossible values.
        GosvaeError: as `fit`.
    """
    return fit(ContextTraining(recipe, codec, seen), run, folder, max_minutes=max_minutes, progress=progress)


def default_recipe(steps: int) -> ContextRecipe:
    """Return the recipe that the released models were trained with.

    Raises:
        ConfigError: fewer than 1 step.
    """
    if steps < 1:
        raise ConfigError(f"{steps} steps: expected at least 1")
    stage = StageConfig(
        name="context",
        weights={BITS: 1.0},
        steps=steps,
        learning_rate=3e-3,
        weight_decay=0.0,
        ema_decay=0.99,
        batches=BatchConfig(batch_size=2, crop_height=256, crop_width=256, flip=True),
    )
    return ContextRecipe(stages=(stage,))
