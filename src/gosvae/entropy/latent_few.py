"""Integer network of `gosvae.entropy.latent` for few positions, in NumPy.

With few positions, PyTorch spends most of the time on calls, and the same steps take about a third of it in NumPy. Both
compute in floats that represent every partial sum exactly, see `gosvae.nn.integer`, so they give the same integers.

Axis legend: N positions, G channels of a group, V values, C features, I inputs and O outputs of a layer.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import numpy.typing as npt
from torch import nn

from gosvae.entropy.base import IndexArray
from gosvae.entropy.latent_network import LatentContextNetwork
from gosvae.nn.integer import LARGEST_ACTIVATION, IntegerLinear

MOST_POSITIONS = 7
"""Largest number of positions. With more, the BLAS of NumPy would start threads, and PyTorch is nearly as quick."""

FloatArray = npt.NDArray[np.floating]


class FewPositions:
    """Layers of a `LatentContextNetwork` behind the first one, for 1 to `MOST_POSITIONS` positions.

    Args:
        network: network in integers, on the CPU.
    """

    def __init__(self, network: LatentContextNetwork) -> None:
        config = network.config
        self._blocks = [tuple(map(_layer, block.children())) for block in network.blocks]
        self._known = [table.numpy() for table in network.known]
        self._known_layers, self._heads = list(map(_layer, network.known_layers)), list(map(_layer, network.heads))
        self._values = config.values
        self._offsets_G = np.arange(config.group) * config.values

    def features(self, h_NC: FloatArray) -> FloatArray:
        """Return the result of `LatentContextNetwork.features`."""
        for inner, outer in self._blocks:
            sums_NC = outer(_relu(inner(h_NC)))
            sums_NC += h_NC
            h_NC = _relu(sums_NC)
        return h_NC

    def with_group(self, h_NC: FloatArray, group: int, symbols_NG: IndexArray) -> FloatArray:
        """Return the result of `LatentContextNetwork.with_group`."""
        added_NC = with_rows(h_NC, self._known[group], symbols_NG + self._offsets_G)
        return _relu(self._known_layers[group](added_NC))

    def grouped(self, h_NC: FloatArray, group: int, at: IndexArray | None) -> tuple[FloatArray, FloatArray]:
        """Return the result of `Conditions.grouped`, with logits (N * G, V)."""
        del at
        return h_NC, self.logits(h_NC, group)

    def logits(self, h_NC: FloatArray, group: int) -> FloatArray:
        """Return the logits (N * G, V) of `LatentContextNetwork.logits`."""
        sums_NO = self._heads[group](h_NC)
        return np.floor(sums_NO, out=sums_NO).reshape(-1, self._values)


def _layer(layer: nn.Module) -> Callable[[FloatArray], FloatArray]:
    """Return a function that computes a layer with a single bias."""
    assert isinstance(layer, IntegerLinear)
    weight_IO, bias_O = layer.weight_IO.numpy(), layer.bias_PO[0].numpy()

    def forward(x_NI: FloatArray) -> FloatArray:
        # A single row would be a product of a vector and a matrix, for which the BLAS of NumPy starts threads.
        sums_NO: FloatArray = x_NI @ weight_IO if len(x_NI) > 1 else (np.concatenate((x_NI, x_NI)) @ weight_IO)[:1]
        sums_NO += bias_O
        return sums_NO

    return forward


def with_rows(h_NC: FloatArray, table_RC: FloatArray, rows_NT: IndexArray) -> FloatArray:
    """Return the activations (N, C) for the sum of features and of T rows of a table of integers."""
    sums_NC: FloatArray = np.add.reduce(table_RC.take(rows_NT, axis=0), axis=1)
    sums_NC += h_NC
    return _relu(sums_NC)


def _relu(x: FloatArray) -> FloatArray:
    """Return the result of `integer_relu` of `x`, which is overwritten."""
    np.floor(x, out=x)
    np.maximum(x, 0.0, out=x)
    return np.minimum(x, float(LARGEST_ACTIVATION), out=x)
