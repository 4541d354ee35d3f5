"""A stage in progress: network, optimiser, moving average and adversary, and one step of all of them."""

from __future__ import annotations

import copy
import math
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from gosvae.datasets.loader import Batch
from gosvae.errors import TrainingError
from gosvae.precision import autocast
from gosvae.training.judging import Judging
from gosvae.training.machine.adversary import Adversary
from gosvae.training.machine.config import RunConfig, StageConfig
from gosvae.training.machine.task import RECONSTRUCTION, TrainingTask
from gosvae.training.originals import OriginalsCache

if TYPE_CHECKING:
    from lightning_fabric import Fabric


def learning_rate(stage: StageConfig, step: int) -> float:
    """Return the learning rate at a step: linear warm-up, then a cosine down to `final_rate` times `learning_rate`."""
    if step < stage.warmup_steps:
        return stage.learning_rate * (step + 1) / stage.warmup_steps
    done = (step - stage.warmup_steps) / max(1, stage.steps - stage.warmup_steps)
    cosine = 0.5 * (1.0 + math.cos(math.pi * min(1.0, done)))
    return stage.learning_rate * (stage.final_rate + (1.0 - stage.final_rate) * cosine)


def on_any_device(fabric: Fabric, flag: bool) -> bool:
    """Return whether the flag is true on any device, so that all devices leave the loop together."""
    if fabric.world_size == 1:
        return flag
    return bool(fabric.all_reduce(torch.tensor(float(flag), device=fabric.device), reduce_op="sum") > 0)


class StageInProgress:
    """A stage in progress.

    Args:
        fabric: device and data parallelism.
        task: network to train and its loss terms.
        stage, run: settings.
        states: folder of the saved states, for error messages.
        state: state from `state_dict` of a run that was saved within the stage, or None.
    """

    def __init__(
        self,
        fabric: Fabric,
        task: TrainingTask,
        stage: StageConfig,
        run: RunConfig,
        states: Path,
        state: dict[str, Any] | None,
    ) -> None:
        self._fabric, self._task, self._stage, self._run, self._states = fabric, task, stage, run, states
        self._originals: OriginalsCache | None = None
        if run.expert_cache is not None and stage.batches.repeats_images:
            self._originals = OriginalsCache(run.expert_cache, int(run.expert_cache_gib * 2**30))
        network = task.network
        if state is not None:
            network.load_state_dict(state["network"])
        trained = [p for p in network.parameters() if p.requires_grad]
        # One kernel for all parameters where there is one: on a CPU the loop over them took a seventh of a step.
        fused = fabric.device.type in ("cpu", "cuda") and all(p.is_floating_point() for p in trained)
        optimizer = torch.optim.AdamW(trained, lr=stage.learning_rate, weight_decay=stage.weight_decay, fused=fused)
        self._module, self._optimizer = fabric.setup(task, optimizer)
        self._averaged = AveragedModel(network, multi_avg_fn=get_ema_multi_avg_fn(stage.ema_decay))  # type: ignore[no-untyped-call]
        self._adversary: Adversary | None = None
        if stage.adversary is not None:
            self._adversary = Adversary(fabric, stage.adversary, run.seed, "adversary", stage.name)
        if state is not None and state["averaged"] is not None:
            self._averaged.load_state_dict(state["averaged"])
            self._optimizer.load_state_dict(state["optimizer"])
            if self._adversary is not None:
                self._adversary.load_state_dict(state["adversary"])

    def state_dict(self) -> dict[str, Any]:
        """Return all that a resumed run needs, except the number of the step."""
        return {
            "network": self._task.network.state_dict(),
            "averaged": self._averaged.state_dict(),
            "optimizer": self._optimizer.state_dict(),
            "adversary": None if self._adversary is None else self._adversary.state_dict(),
        }

    def result(self) -> nn.Module:
        """Return a copy of the network that the stage leaves behind: the moving average, or the last weights."""
        return copy.deepcopy(self._task.network if self._stage.ema_decay == 0 else self._averaged.module)

    def step(self, batch: Batch, step: int) -> dict[str, Tensor]:
        """Take one step of the network, and of the adversary if it has joined; return total and terms, detached.

        Raises:
            TrainingError: a loss term or a gradient is not finite; no weights have changed.
        """
        stage, adversary = self._stage, self._adversary
        rate = learning_rate(stage, step)
        for group in self._optimizer.param_groups:
            group["lr"] = rate
        adversary = adversary if adversary is not None and adversary.plays(step) else None
        x = batch.x_B3HW.to(self._fabric.device, memory_format=torch.channels_last)
        labels = None if batch.labels_BHW is None else batch.labels_BHW.to(self._fabric.device)
        weights = self._weights(step)
        self._task.judging = Judging(self._run.micro_batch, self._originals, weights)
        self._task.begin_step(self._run.seed, stage.name, self._fabric.global_rank, step)
        wanted = frozenset(stage.weights) | ({RECONSTRUCTION} if adversary is not None else frozenset())
        with self._autocast():
            terms: dict[str, Tensor] = self._module(x, labels, wanted)
        x_hat = terms.pop(RECONSTRUCTION, None)
        total = torch.zeros((), device=self._fabric.device)
        for name, weight in weights.items():
            total = total + weight * terms[name]
        if adversary is not None and x_hat is not None:
            total, more = self._against(adversary, x_hat, total)
            terms |= more
        self._check(total, terms, step)
        self._optimizer.zero_grad(set_to_none=True)
        self._fabric.backward(total)
        norm = nn.utils.clip_grad_norm_(self._task.network.parameters(), stage.clip_norm)
        self._check_gradient(norm, "gradient", step)
        if adversary is not None and x_hat is not None:
            # Not earlier: with several devices its forward pass overwrites buffers that the backward pass above reads.
            terms["discriminator"] = self._train_adversary(adversary, x, x_hat, step)
        self._optimizer.step()
        self._averaged.update_parameters(self._task.network)
        values = {name: value.detach() for name, value in terms.items()}
        return {"total": total.detach(), **values, "gradient_norm": norm.detach()}

    def _autocast(self) -> torch.autocast:
        # Not Fabric's "bf16-mixed": it rounds the images too, and they are the targets of the losses.
        return autocast(self._fabric.device.type, self._run.precision)

    def _weights(self, step: int) -> dict[str, float]:
        """Return the weights of the stage's terms, with the ramp of the imitation terms."""
        stage = self._stage
        ramp = min(1.0, (step + 1) / stage.ramp_steps) if stage.ramp_steps else 1.0
        ramped = self._task.imitation_terms
        return {name: weight * ramp if name in ramped else weight for name, weight in stage.weights.items()}

    def _against(self, adversary: Adversary, x_hat: Tensor, total: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        """Return the total including the generator's loss, and terms to log: that loss and its weight."""
        last_layer = self._task.last_layer
        assert last_layer is not None  # the trainer has checked it
        with self._autocast():
            gan = adversary.generator_loss(x_hat)
        weight = adversary.generator_weight(total, gan, last_layer)
        return total + weight * gan, {"gan": gan, "gan_weight": weight}

    def _train_adversary(self, adversary: Adversary, x: Tensor, x_hat: Tensor, step: int) -> Tensor:
        """Take the discriminator's step; return its loss."""
        with self._autocast():
            loss = adversary.loss(x, x_hat)
        self._check(loss, {"discriminator": loss}, step)
        self._check_gradient(adversary.backward(loss, self._stage.clip_norm), "gradient of the discriminator", step)
        adversary.step(learning_rate(self._stage, step) / self._stage.learning_rate)
        return loss

    def _check(self, total: Tensor, terms: dict[str, Tensor], step: int) -> None:
        if on_any_device(self._fabric, not bool(torch.isfinite(total))):
            bad = [name for name, value in terms.items() if not bool(torch.isfinite(value))] or ["total"]
            raise self._not_finite(f"loss term {', '.join(bad)}", step)

    def _check_gradient(self, norm: Tensor, what: str, step: int) -> None:
        if on_any_device(self._fabric, not bool(torch.isfinite(norm))):
            raise self._not_finite(what, step)

    def _not_finite(self, what: str, step: int) -> TrainingError:
        saved = (
            f"the last good state is in {self._states}" if any(self._states.glob("*.state")) else "none is saved yet"
        )
        return TrainingError(
            f"{what} is not finite at step {step + 1} of stage {self._stage.name!r}: stopped before the weights "
            f"changed; {saved}; lower the learning rate or the term's weight"
        )
