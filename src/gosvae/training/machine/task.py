"""What is trained: a network with its loss terms, as one module so that many devices can share the work."""

from __future__ import annotations

from abc import ABC, abstractmethod

from torch import Tensor, nn

RECONSTRUCTION = "reconstruction"
"""Wanted by a stage that has an adversary, which judges it."""


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

    @property
    def last_layer(self) -> nn.Parameter | None:
        """The kernel that makes the reconstruction; None where there is none that an adversary could judge."""
        return None

    def begin_step(self, *path: int | str) -> None:
        """Called before every step with (seed, stage, rank, step): what a task draws at random depends on these alone.

        So a resumed run draws what the run would have drawn.
        """

    @abstractmethod
    def forward(self, x_B3HW: Tensor, labels_BHW: Tensor | None, wanted: frozenset[str]) -> dict[str, Tensor]:
        """Scalars by name: at least the wanted terms. Others, such as `perplexity`, are logged and not weighed.

        Where `RECONSTRUCTION` is wanted, it stands under that name: x_hat_B3HW in float32, with its graph.
        """
