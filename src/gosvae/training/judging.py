"""Micro-batches of the frozen networks that judge a reconstruction: gradients of a batch with the memory of few images.

A judge is frozen, so that a training needs nothing of it but the gradient of its terms with respect to the
reconstruction. That gradient is computed for a few images at a time. The judge's graph is freed before the next images,
and one backward pass through the codec takes the gradients of all.

Axis legend: B images, H and W pixels.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, TypeVar

import torch
from torch import Tensor
from torch.autograd.graph import saved_tensors_hooks
from torch.utils.checkpoint import checkpoint, set_checkpoint_early_stop

from gosvae.losses.divergence import with_gradient
from gosvae.training.originals import OriginalsCache

MicroBatch = int | Literal["auto"]
"""Number of images that a judge takes at once; `auto` takes as many as fit into `memory_budget`."""

T = TypeVar("T")
_CPU_BYTES = 2 * 2**30
_GPU_SHARE = 4


@dataclass(frozen=True)
class Judging:
    """Options of the judges in a training; they change its memory and time, and not its gradients.

    Attributes:
        micro_batch: number of images that a judge takes at once; None takes whole batches.
        originals: cache of what experts see on originals, or None. It serves segmentation experts whose inner features
            no stage weighs.
        weights: weights of the terms in the total, by name; 1 where there is none. They do not change the terms. Mixed
            precision rounds a gradient as in a whole batch only if it has the scale at which the total needs it.
    """

    micro_batch: MicroBatch | None = None
    originals: OriginalsCache | None = None
    weights: Mapping[str, float] = field(default_factory=dict)


def memory_budget(device: torch.device) -> int:
    """Return the bytes that the graph of a judge may take with `auto`: a quarter of a GPU's memory, or 2 GiB.

    The number does not depend on what else runs on the device, so that a resumed run splits its batches as before.
    """
    if device.type == "cuda":
        return int(torch.cuda.get_device_properties(device).total_memory) // _GPU_SHARE
    return _CPU_BYTES


class _Storages:
    """Storages that autograd holds, and the most bytes that they had together."""

    def __init__(self, frozen: Iterable[Tensor]) -> None:
        self._frozen = {each.untyped_storage().data_ptr() for each in frozen}
        self._holders: Counter[int] = Counter()
        self._bytes = self.most_bytes = 0

    def hold(self, storage: torch.UntypedStorage) -> None:
        """Count a storage if it is not held yet."""
        address = storage.data_ptr()
        if address in self._frozen:
            return
        if self._holders[address] == 0:
            self._bytes += storage.nbytes()
            self.most_bytes = max(self.most_bytes, self._bytes)
        self._holders[address] += 1

    def release(self, storage: torch.UntypedStorage) -> None:
        """Count a storage no longer if nothing else holds it."""
        address = storage.data_ptr()
        if address in self._frozen:
            return
        self._holders[address] -= 1
        if self._holders[address] == 0:
            self._bytes -= storage.nbytes()


class _Held:
    """A tensor that autograd keeps; it is released when autograd frees it."""

    def __init__(self, tensor: Tensor, storages: _Storages) -> None:
        self.tensor, self._storages = tensor, storages
        storages.hold(tensor.untyped_storage())

    def __del__(self) -> None:
        self._storages.release(self.tensor.untyped_storage())


def kept_bytes(compute: Callable[[], Any], frozen: Iterable[Tensor] = ()) -> int:
    """Return the most bytes that autograd keeps at one time for the backward passes of a computation.

    A storage counts once. Those of the frozen tensors do not count, because they are there anyway. Parts that are
    computed again in a backward pass (see `outputs_in_parts`) are not seen.
    """
    storages = _Storages(frozen)
    with torch.enable_grad(), saved_tensors_hooks(lambda tensor: _Held(tensor, storages), lambda held: held.tensor):
        compute()
    return storages.most_bytes


def parts_of(count: int, size: int) -> list[slice]:
    """Return consecutive slices of `count` images, of `size` images each; the last one may be smaller."""
    return [slice(start, min(start + size, count)) for start in range(0, count, size)]


def mean_in_parts(
    term: Callable[[slice, Tensor], Tensor], x_hat_B3HW: Tensor, parts: list[slice], scale: float = 1.0
) -> Tensor:
    """Return a term that is a mean over images, with its gradient, whose graph exists for one part at a time.

    Args:
        term: function of a part's slice and its images; the result, a scalar, is the share of these images in the mean
            over all images. In mixed precision, gradients equal those of a whole batch only if the function computes
            the same floats.
        x_hat_B3HW: images that the gradient flows to.
        parts: slices of the images.
        scale: weight of the term in the total, for mixed precision; see `Judging`.
    """
    scale = scale or 1.0
    learns = torch.is_grad_enabled() and x_hat_B3HW.requires_grad
    values: list[Tensor] = []
    gradients: list[Tensor] = []
    for part in parts:
        leaf = x_hat_B3HW[part].detach().requires_grad_(learns)
        value = term(part, leaf)
        values.append(value.detach())
        if learns and value.requires_grad:
            (gradient,) = torch.autograd.grad(value * scale, leaf, allow_unused=True, materialize_grads=True)
            gradients.append(gradient / scale)
        elif learns:
            gradients.append(torch.zeros_like(leaf))
    total = torch.stack(values).sum()
    return with_gradient(x_hat_B3HW, total, torch.cat(gradients)) if learns else total


def outputs_in_parts(network: Callable[[Tensor], T], x_B3HW: Tensor, parts: list[slice]) -> list[T]:
    """Return the outputs of a network for each part of the images.

    In a training the graph is not kept: the backward pass computes it again, for one part at a time. That suits terms
    that are no means over images, and costs a further forward pass.
    """
    if len(parts) == 1 or not (torch.is_grad_enabled() and x_B3HW.requires_grad):
        return [network(x_B3HW[part]) for part in parts]
    # Stopping early raises an exception inside the network, which a network of someone else may catch.
    with set_checkpoint_early_stop(False):
        return [checkpoint(network, x_B3HW[part], use_reentrant=False, preserve_rng_state=False) for part in parts]


def joined(outputs: list[Any]) -> Any:
    """Return the outputs of all parts as one: tensors, or tuples of tensors, are joined along the first axis."""
    if len(outputs) == 1:
        return outputs[0]
    if isinstance(outputs[0], Tensor):
        return torch.cat(outputs)
    columns = [torch.cat(column) for column in zip(*outputs, strict=True)]
    kind = type(outputs[0])
    return kind(*columns) if hasattr(kind, "_fields") else tuple(columns)
