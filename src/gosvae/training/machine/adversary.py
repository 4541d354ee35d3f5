"""Adversary of a stage: a discriminator with an optimiser of its own."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from gosvae.losses.adversarial import (
    PatchDiscriminator,
    adaptive_weight,
    hinge_discriminator_loss,
    hinge_generator_loss,
)
from gosvae.seeding import derive_seed
from gosvae.training.machine.config import AdversaryConfig

if TYPE_CHECKING:
    from lightning_fabric import Fabric

BETAS = (0.5, 0.9)
"""Decay rates of Adam's averages, as in Esser et al. (2021): with two players, a long memory leads to oscillation."""


class _Verdicts(nn.Module):
    """The discriminator's loss in one forward pass, because data-parallel training wraps a module."""

    def __init__(self, discriminator: PatchDiscriminator) -> None:
        super().__init__()
        self.discriminator = discriminator

    def forward(self, x_B3HW: Tensor, x_hat_B3HW: Tensor) -> Tensor:
        return hinge_discriminator_loss(self.discriminator(x_B3HW), self.discriminator(x_hat_B3HW))


class Adversary:
    """A discriminator in training. It is not part of the task, and it is neither averaged nor part of the result.

    Args:
        fabric: device and data parallelism; with several devices, gradients are averaged like those of the network.
        config: settings of the stage.
        seed: path for `derive_seed`, from which the first weights follow.
    """

    def __init__(self, fabric: Fabric, config: AdversaryConfig, *seed: int | str) -> None:
        self.config = config
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(derive_seed(*seed))
            self._discriminator = PatchDiscriminator(config.width, config.layers, config.normalisation)
        self._discriminator.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        optimizer = torch.optim.Adam(self._discriminator.parameters(), lr=config.learning_rate, betas=BETAS)
        self._module, self._optimizer = fabric.setup(_Verdicts(self._discriminator), optimizer)
        self._fabric = fabric

    def plays(self, step: int) -> bool:
        """Return whether the adversary has joined by this step of the stage."""
        return step >= self.config.start_step

    def generator_loss(self, x_hat_B3HW: Tensor) -> Tensor:
        """Return the unweighted loss of the network; no gradient reaches the weights of the discriminator."""
        self._discriminator.requires_grad_(False)
        loss = hinge_generator_loss(self._discriminator(x_hat_B3HW))
        self._discriminator.requires_grad_(True)
        return loss

    def generator_weight(self, reconstruction: Tensor, generator: Tensor, last_layer: Tensor) -> Tensor:
        """Return `weight` times the adaptive weight, the same on all devices."""
        weight = adaptive_weight(reconstruction, generator, last_layer)
        mean: Tensor = self._fabric.all_reduce(weight, reduce_op="mean")
        return self.config.weight * mean

    def loss(self, x_B3HW: Tensor, x_hat_B3HW: Tensor) -> Tensor:
        """Return the loss of the discriminator; `x_hat` is a fixed input."""
        loss: Tensor = self._module(x_B3HW, x_hat_B3HW.detach())
        return loss

    def backward(self, loss: Tensor, clip_norm: float) -> Tensor:
        """Compute and clip the gradients of the discriminator; return their norm before clipping."""
        self._optimizer.zero_grad(set_to_none=True)
        self._fabric.backward(loss)
        return nn.utils.clip_grad_norm_(self._discriminator.parameters(), clip_norm)

    def step(self, schedule: float) -> None:
        """Take one step of the discriminator's optimiser, at `schedule` times its learning rate."""
        for group in self._optimizer.param_groups:
            group["lr"] = self.config.learning_rate * schedule
        self._optimizer.step()

    def state_dict(self) -> dict[str, Any]:
        """Return the state of the discriminator and of its optimiser."""
        return {"discriminator": self._discriminator.state_dict(), "optimizer": self._optimizer.state_dict()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue from a state that `state_dict` returned."""
        self._discriminator.load_state_dict(state["discriminator"])
        self._optimizer.load_state_dict(state["optimizer"])
