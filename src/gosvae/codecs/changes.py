"""Changes of a network's weights by gains and matrices of low rank, see `gosvae.codecs.adapter`."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor

from gosvae.errors import CheckpointError

GAIN, UP, DOWN, CHANGE = "gain", "up", "down", "change"
"""Parts of a change, which stand behind the name of the weight and a colon."""


def changed_weights(weights: Mapping[str, Tensor], changes: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return the weights that an adapter changes, with its changes.

    Raises:
        CheckpointError: the adapter is that of another decoder.
    """
    found: dict[str, Tensor] = {}
    for key in sorted(changes, key=lambda key: key.endswith(f":{GAIN}"), reverse=True):
        name, _, part = key.rpartition(":")
        if part == DOWN:
            continue
        try:
            value, change = found.get(name, weights[name].float()), changes[key].float()
            down = changes[f"{name}:{DOWN}"].float() if part == UP else None
        except KeyError:
            raise _misfit(name) from None
        # Sizes are compared before anything is computed, so that a few bytes cannot stand for much memory.
        if part == GAIN and change.shape == value.shape[:1]:
            found[name] = value * (1.0 + change).reshape(-1, *[1] * (value.ndim - 1))
        elif down is not None and _is_product(change, down, value):
            found[name] = value + (change @ down).reshape(value.shape)
        elif part not in (GAIN, UP) and change.shape == value.shape:
            found[name] = value + change
        else:
            raise _misfit(name)
    return found


def _is_product(up: Tensor, down: Tensor, value: Tensor) -> bool:
    """Return whether the product of two matrices has as many rows and columns as a kernel."""
    if not up.ndim == down.ndim == 2 or up.shape[1] != len(down):
        return False
    return up.shape[:1] == value.shape[:1] and down.shape[1] == value.shape[1:].numel()


def _misfit(name: str) -> CheckpointError:
    return CheckpointError(f"the adapter does not fit the decoder of its codec: {name[:80]}")
