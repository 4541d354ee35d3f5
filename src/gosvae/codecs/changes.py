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
            if part == GAIN:
                found[name] = value * (1.0 + change).reshape(-1, *[1] * (value.ndim - 1))
            elif part == UP:
                found[name] = value + (change @ changes[f"{name}:{DOWN}"].float()).reshape(value.shape)
            else:
                found[name] = value + change
        except (KeyError, RuntimeError):
            raise CheckpointError(f"the adapter does not fit the decoder of its codec: {name}") from None
    return found
