"""Cards: what the `config.json` of a codec holds, one type for each kind of trained codec."""

from __future__ import annotations

from abc import abstractmethod
from typing import Any, Literal

from pydantic import Field, SerializerFunctionWrapHandler, model_serializer, model_validator

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


class ObjectMapConfig(Config):
    """Object maps that a semantic diffusion model draws, where they come from labels and not from an expert.

    Attributes:
        class_names: names of the classes, in order.
        instances: whether the edges between instances of one class are sent.
    """

    class_names: tuple[str, ...] = Field(min_length=2)
    instances: bool = False


class GescoCard(Card):
    """Card of a semantic diffusion model, with the expert or the labels whose maps it draws."""

    kind: Literal["gesco"] = "gesco"
    model: DiffusionConfig
    expert: ExpertReference | None = None
    objects: ObjectMapConfig | None = None

    @model_validator(mode="after")
    def _one_source(self) -> GescoCard:
        if (self.expert is None) == (self.objects is None):
            raise ValueError("give the expert or the objects whose maps are drawn, and not both")
        if self.objects is not None and len(self.objects.class_names) != self.model.class_count:
            raise ValueError(f"{len(self.objects.class_names)} classes of objects, expected {self.model.class_count}")
        if self.symbol_count > 256:
            raise ValueError(f"{self.symbol_count} symbols, a map holds at most 256")
        return self

    @model_serializer(mode="wrap")
    def _without_absent_objects(self, write: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """Leave out a source that is None, so that the files of models of an expert keep their bytes."""
        tree: dict[str, Any] = write(self)
        return {key: value for key, value in tree.items() if key not in ("expert", "objects") or value is not None}

    @property
    def symbol_count(self) -> int:
        """Number of symbols of a map: its classes, twice if it marks edges between instances."""
        return self.model.class_count * (2 if self.objects is not None and self.objects.instances else 1)

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
