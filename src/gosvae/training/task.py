"""What is trained: a network with its loss terms, as one module so that many devices can share the work."""

from __future__ import annotations

from abc import ABC, abstractmethod

from torch import Tensor, nn


class TrainingTask(nn.Module, ABC):
    """Computes unweighted loss terms of a batch; the loop weighs, adds and steps."""

    network: nn.Module
    """The part that is trained, averaged and kept; everything else in the task is frozen."""

    @property
    @abstractmethod
    def known_terms(self) -> frozenset[str]:
        """Names that a stage may weigh."""

    @property
    def imitation_terms(self) -> frozenset[str]:
        """Terms that a stage's `ramp_steps` apply to."""
        return frozenset()

    @abstractmethod
    def forward(self, x_B3HW: Tensor, labels_BHW: Tensor | None, wanted: frozenset[str]) -> dict[str, Tensor]:
        """Scalars by name: at least the wanted terms. Others, such as `perplexity`, are logged and not weighed."""
