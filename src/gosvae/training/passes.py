"""How training draws the passes of a context model: random positions, each as if it were coded in a random pass.

What a pass sees depends on the distance of the lattice only, so every position can stand for one of any pass.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from gosvae.entropy.lattice import is_edge, passes, taps


@dataclass(frozen=True)
class PassUse:
    """A part of a pass as training draws it; hidden taps see nothing.

    Attributes:
        kind, refinement: as in `gosvae.entropy.lattice.Part`.
        offsets_T2: rows and columns from a position to its taps.
        hidden_T: taps that are not coded yet.
        share: of all positions.
    """

    kind: int | None
    refinement: int
    offsets_T2: Tensor
    hidden_T: Tensor
    share: float


def pass_uses(refinements: int, most_taps: Sequence[int]) -> list[PassUse]:
    """All parts of all passes."""
    uses = []
    for part in (part for parts in passes(refinements) for part in parts):
        pairs = () if part.kind is None else taps(part.kind, most_taps[part.kind])
        offsets_T2 = part.spacing * torch.tensor(pairs, dtype=torch.int64).reshape(-1, 2)
        hidden = [not part.sees_edges and is_edge(part.kind or 0, pair) for pair in pairs]
        uses.append(
            PassUse(part.kind, part.level, offsets_T2, torch.tensor(hidden, dtype=torch.bool), 1.0 / part.step**2)
        )
    return uses


def drawn(uses: Sequence[PassUse], n_positions: int, generator: torch.Generator) -> Iterator[tuple[PassUse, Tensor]]:
    """Each part with its share of the positions (N,), at least one, drawn without repetition where there are enough."""
    order = torch.randperm(n_positions, generator=generator)
    first = 0
    for use in uses:
        last = min(n_positions, first + max(1, round(use.share * n_positions)))
        yield use, order[first:last] if last > first else order[-1:]
        first = last
