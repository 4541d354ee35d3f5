"""Contract of a task: a network and its loss terms in one module, so that several devices can share the work."""

from __future__ import annotations

from abc import ABC, abstractmethod

from torch import Tensor, nn

from gosvae.training.judging import Judging

RECONSTRUCTION = "reconstruction"
"""Name of the reconstruction among the terms; a stage with an adversary wants it, because the adversary judges it."""


class TrainingTask(nn.Module, ABC):
    """Module that computes the unweighted loss terms of a batch; the loop weighs and adds them."""

    judging: Judging = Judging()
    """How frozen networks judge; the loop sets it before every step."""
    network: nn.Module
    """Part that is trained, averaged and kept; everything else in the task is frozen."""

    @property
    @abstractmethod
    def known_terms(self) -> frozenset[str]:
        """Names that a stage may weigh."""

    @property
    def imitation_terms(self) -> frozenset[str]:
        """Names of the terms that a stage's `ramp_steps` apply to."""
        return frozenset()

    @property
    def last_layer(self) -> nn.Parameter | None:
        """Kernel of the layer that makes the reconstruction; None where there is no reconstruction to judge."""
        return None

    def begin_step(self, *path: int | str) -> None:
        """Prepare the random numbers of a step. Called before every step with (seed, stage, rank, step).

        Random numbers of a task depend on these alone, so that a resumed run draws the same ones.
        """

    @abstractmethod
    def forward(self, x_B3HW: Tensor, labels_BHW: Tensor | None, wanted: frozenset[str]) -> dict[str, Tensor]:
        """Return scalars by name, at least the wanted terms. Others, such as `perplexity`, are only logged.

        If `RECONSTRUCTION` is wanted, it is among them: x_hat_B3HW in float32, with its graph.
        """
