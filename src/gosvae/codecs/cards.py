"""Cards: what the `config.json` of a codec holds, one type for each kind of trained codec."""

from __future__ import annotations

from abc import abstractmethod
from typing import Literal

from gosvae.codecs.autoencoder_model import AutoencoderModelConfig
from gosvae.codecs.variable_model import VariableRateConfig
from gosvae.codecs.vq_model import VqModelConfig
from gosvae.config import Config
from gosvae.diffusion import DiffusionConfig
from gosvae.entropy.context import ContextConfig
from gosvae.experts.base import ExpertReference


class Card(Config):
    """Base of the cards, which have everything that is needed to build a codec; nothing is guessed from its weights.

    Each kind of codec has a card with its own `kind` and its own `model`.
    """

    kind: str
    schema_version: Literal[1] = 1
    name: str
    recipe: str
    model: Config

    @property
    @abstractmethod
    def context_config(self) -> Config | None:
        """Configuration of the context model whose integers lie among the weights; None where there is none."""


class VqCard(Card):
    """Card of a VQ codec, with the context model of its indices where one was trained."""

    kind: Literal["codec"] = "codec"
    model: VqModelConfig
    context: ContextConfig | None = None

    @property
    def context_config(self) -> ContextConfig | None:
        return self.context


class AutoencoderCard(Card):
    """Card of the plain autoencoder of Table I."""

    kind: Literal["autoencoder"] = "autoencoder"
    model: AutoencoderModelConfig

    @property
    def context_config(self) -> None:
        return None


class GescoCard(Card):
    """Card of a semantic diffusion model, with the expert whose class maps it draws."""

    kind: Literal["gesco"] = "gesco"
    model: DiffusionConfig
    expert: ExpertReference

    @property
    def context_config(self) -> None:
        return None


class VariableRateCard(Card):
    """Card of a variable-rate codec, which always has a context model."""

    kind: Literal["variable-rate"] = "variable-rate"
    model: VariableRateConfig

    @property
    def context_config(self) -> Config:
        return self.model.context


CARDS: dict[str, type[Card]] = {
    "codec": VqCard,
    "autoencoder": AutoencoderCard,
    "gesco": GescoCard,
    "variable-rate": VariableRateCard,
}
"""Card of every kind of codec, by the `kind` in `config.json`."""
