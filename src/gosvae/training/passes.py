"""Random positions for the training of context models, each treated as if it were coded in a random pass.

The neighbours that a pass knows depend only on the spacing of the lattice, so every position can stand for any pass.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from gosvae.entropy.lattice import is_edge, passes, taps


@dataclass(frozen=True)
class PassUse:
    """A part of a pass in training.

    Attributes:
        kind, refinement: see `gosvae.entropy.lattice.Part`.
        offsets_T2: rows and columns from a position to its taps.
        hidden_T: whether each tap is hidden, because it is not coded yet.
        share: share of all positions that the part codes.
    """

    kind: int | None
    refinement: int
    offsets_T2: Tensor
    hidden_T: Tensor
    share: float


def pass_uses(refinements: int, most_taps: Sequence[int]) -> list[PassUse]:
    """Return the parts of all passes."""
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
    """Yield each part with random positions (N,): its share of all, at least one, without repetition if possible."""
    order = torch.randperm(n_positions, generator=generator)
    first = 0
    for use in uses:
        last = min(n_positions, first + max(1, round(use.share * n_positions)))
        yield use, order[first:last] if last > first else order[-1:]
        first = last
