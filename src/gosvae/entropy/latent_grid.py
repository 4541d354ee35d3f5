"""Input of the context model of a latent: the known positions of a grid, and what else is known at each of them.

Axis legend: N positions, T taps, D channels, G channels of a group, V values, E values of an embedding, C features, I
inputs of a layer.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from gosvae.entropy.base import IndexArray
from gosvae.entropy.latent_few import FewPositions
from gosvae.entropy.latent_network import LatentContextNetwork
from gosvae.entropy.lattice import Part, Planes, Run, is_edge, reach, taps
from gosvae.nn.integer import IntegerLinear, exact_arithmetic, integer_relu_


class Conditions:
    """All that a context model knows at a position besides the latents themselves: nothing, in this base.

    Positions are numbered as those of `Planes` of all latents that are coded together.

    Args:
        network: network in integers.

    Attributes:
        everywhere: last inputs (I,) of the first layer, which are the same at all positions; None means that there are
            none.
    """

    everywhere: Tensor | None = None

    def __init__(self, network: LatentContextNetwork) -> None:
        self.network = network

    def inputs(self, numbers: IndexArray) -> tuple[Tensor, Tensor] | None:
        """Return further inputs (N, I) of the first layer at some positions, and features (N, C) added to its result.

        The inputs are between the level and `everywhere`. None means that there are none.
        """
        del numbers
        return None

    def at(self, numbers: IndexArray) -> Tensor | None:
        """Return what `grouped` needs to know of some positions, for all groups."""
        del numbers
        return None

    def few_positions(self) -> FewPositions | None:
        """Return the same layers for few positions; None if the network is not on the CPU."""
        return FewPositions(self.network) if self.network.embedding.device.type == "cpu" else None

    def grouped(self, h_NC: Tensor, group: int, at: Tensor | None) -> tuple[Tensor, Tensor]:
        """Return the features (N, C) for a group, and its logits (N, G, V), at the positions of `at`."""
        del at
        return h_NC, self.network.logits(h_NC, group)


class _FirstLayer:
    """First layer of a part of a pass: its sums of the inputs that are the same at all positions are in the bias.

    A partial sum has a subset of the terms whose magnitudes `IntegerWeights` bounds, so it is exact.

    Args:
        layer: layer in integers.
        refinement: number of the refinement, which chooses the bias.
        n_taps: number of inputs of the taps, which are the first ones.
        level_E: inputs of the level, which follow.
        everywhere: last inputs (I,); None means that there are none.
    """

    def __init__(
        self, layer: IntegerLinear, refinement: int, n_taps: int, level_E: Tensor, everywhere: Tensor | None
    ) -> None:
        weight_IO, first = layer.weight_IO, n_taps + len(level_E)
        last = len(weight_IO) if everywhere is None else len(weight_IO) - len(everywhere)
        self.bias_O = layer.bias_PO[refinement] + level_E @ weight_IO[n_taps:first]
        if everywhere is not None:
            self.bias_O += everywhere @ weight_IO[last:]
        self.taps_IO, self.more_IO = weight_IO[:n_taps], weight_IO[first:last]

    def __call__(self, x_NI: Tensor, more: tuple[Tensor, Tensor] | None) -> Tensor:
        """Return the activations (N, C), given the inputs of the taps and those of `Conditions.inputs`."""
        sums_NO = torch.addmm(self.bias_O, x_NI, self.taps_IO)
        if more is not None:
            # Rounded before the features are added, as in `LatentContextNetwork.look`.
            sums_NO.addmm_(more[0], self.more_IO).floor_().add_(more[1])
        return integer_relu_(sums_NO)


class Grid:
    """Embeddings of the known positions of latents (h, w), with margins of unknown positions."""

    def __init__(self, conditions: Conditions, level: int, planes: Planes) -> None:
        network = conditions.network
        self._conditions, self._network, self._device = conditions, network, network.embedding.device
        self._first, self._padded = planes.first_position, planes.padded(reach(network.config.refinements))
        self._layers: dict[tuple[int | None, int], _FirstLayer] = {}
        with exact_arithmetic(self._device):
            self._known_NE = network.unknown().repeat(self._padded.size, 1)
            self._level_E = network.level_table()[level]

    def know(self, numbers: IndexArray, symbols_ND: IndexArray) -> None:
        """Store the symbols 0..2L of all channels of some positions."""
        places_N = torch.from_numpy(self._padded.places_N[numbers]).to(self._device)
        with exact_arithmetic(self._device):
            rows_ND = self._network.rows(torch.from_numpy(symbols_ND).to(self._device))
            self._known_NE.index_copy_(0, places_N, self._network.embed(rows_ND))

    def look(self, run: Run, *, all_known: bool = False) -> Tensor:
        """Return the output (N, C) of the first layer at the positions of a run.

        Args:
            run: positions of a part of a pass.
            all_known: whether the grid also has symbols that are coded later; they are hidden.
        """
        part, numbers = run.part, run.numbers
        most = 0 if part.kind is None else self._network.config.taps[part.kind]
        pairs = () if part.kind is None else taps(part.kind, most)
        distances = [part.spacing * (dy * self._padded.stride + dx) for dy, dx in pairs]
        places_NT = self._padded.places_N[numbers][:, None] + np.array(distances, np.int64)
        if all_known and not part.sees_edges:
            places_NT[:, [is_edge(part.kind or 0, pair) for pair in pairs]] = 0  # a place in the margin
        with exact_arithmetic(self._device):
            x_NI = F.embedding(torch.from_numpy(places_NT).to(self._device), self._known_NE).flatten(1)
            return self._layer(part, x_NI.shape[1])(x_NI, self._conditions.inputs(self._first + numbers))

    def _layer(self, part: Part, n_taps: int) -> _FirstLayer:
        """Return the first layer of a part of a pass, with `n_taps` inputs of its taps."""
        made = self._layers.get((part.kind, part.level))
        if made is None:
            layer = self._network.first_layer(part.kind)
            assert isinstance(layer, IntegerLinear)
            made = _FirstLayer(layer, part.level, n_taps, self._level_E, self._conditions.everywhere)
            self._layers[part.kind, part.level] = made
        return made
