"""The context model against Python's integers, written from `docs/bitstream.md` alone: no floats, no arrays."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch

from gosvae.entropy.base import SymbolTables
from gosvae.entropy.context import ContextConfig, ContextModel, ContextNetwork
from gosvae.seeding import numpy_generator


class Oracle:
    """Weights of one image's digits, in the order in which they are coded."""

    def __init__(self, config: dict[str, Any], tensors: dict[str, Any]) -> None:
        self.config, self.tensors = config, tensors
        values, size = config["values"], config["codebook_size"]
        bases = [math.prod(values[:d]) for d in range(len(values))]
        plain = [[index // base % v for base, v in zip(bases, values, strict=True)] for index in range(size)]
        self.digits = tensors.get("digits_KD", plain)

    def passes(self) -> list[tuple[int | None, int, int, int, int, int]]:
        coarse = 2 ** self.config["refinements"]
        result: list[tuple[int | None, int, int, int, int, int]] = [(None, 0, 0, coarse, 0, 0)]
        for level in range(self.config["refinements"]):
            s = coarse >> (level + 1)
            result += [(0, level, s, 2 * s, s, s), (1, level, s, 2 * s, 0, s), (2, level, s, 2 * s, s, 0)]
        return result

    def taps(self, kind: int) -> list[tuple[int, int]]:
        ty, tx = [(1, 1), (0, 1), (1, 0)][kind]
        known = [(0, 0), (1, 1), (0, 1)][: kind + 1]
        offsets = [(y, x) for y in range(-3, 4) for x in range(-3, 4) if ((ty + y) % 2, (tx + x) % 2) in known]
        return sorted(offsets, key=lambda o: (o[0] ** 2 + o[1] ** 2, o[0], o[1]))[: self.config["taps"][kind]]

    def layer(self, name: str, x: list[int], use: int = 0) -> list[int]:
        weight, bias, shift = (self.tensors[f"{name}.{part}"] for part in ("weight", "bias", "shift"))
        sums = [sum(w * v for w, v in zip(row, x, strict=True)) for row in weight]
        return [(a + b) >> t for a, b, t in zip(sums, bias[use], shift, strict=True)]

    def input(self, index: int | None) -> list[int]:
        """Embedding of a tap; None outside of the grid."""
        if not self.config["embed_digits"]:
            table = self.tensors["embeddings.0"]
            return list(table[-1 if index is None else index])
        tables = [self.tensors[f"embeddings.{d}"] for d in range(len(self.config["values"]))]
        rows = [table[-1 if index is None else self.digits[index][d]] for d, table in enumerate(tables)]
        return [max(-127, min(127, sum(entries))) for entries in zip(*rows, strict=True)]

    def weights(self, logits: list[int]) -> list[int]:
        # floor(2**24 * 2**(-n / 16)): the greatest c with c**16 <= 2**(384 - n)
        def count(n: int) -> int:
            if n > 384:
                return 0
            c = round(2 ** (24 - n / 16))
            while c**16 > 2 ** (384 - n):
                c -= 1
            while (c + 1) ** 16 <= 2 ** (384 - n):
                c += 1
            return c

        counts = [count(max(logits) - logit) for logit in logits]
        m = (2**24 - len(counts)) * 2**24 // sum(counts)
        weights = [(c * m >> 24) + 1 for c in counts]
        top = counts.index(max(counts))
        weights[top] += 2**24 - sum(weights)
        if weights[top] > 16417714:
            share, rest = divmod(weights[top] - 16417714, len(counts) - 1)
            weights = [16417714 if i == top else w + share for i, w in enumerate(weights)]
            weights[1 if top == 0 else 0] += rest
        return weights

    def code(self, grid: list[list[int]]) -> list[list[int]]:
        """The weights of every digit of every position."""
        height, width, result = len(grid), len(grid[0]), []
        relu = lambda x: [max(0, min(255, v)) for v in x]  # noqa: E731
        for kind, level, s, step, top, left in self.passes():
            waiting = []
            coarse = kind == 2 and level < self.config["refinements"] - 1
            for y in range(top, height, step):
                for x in range(left, width, step):
                    h = relu(self.tensors["start_C"])
                    if kind is not None:
                        seen = [None if coarse and dy % 2 and dx % 2 else (dy, dx) for dy, dx in self.taps(kind)]
                        places = [(-1, -1) if tap is None else (y + s * tap[0], x + s * tap[1]) for tap in seen]
                        inside = [(b, a) if 0 <= b < height and 0 <= a < width else None for b, a in places]
                        entries = [self.input(None if p is None else grid[p[0]][p[1]]) for p in inside]
                        h = relu(self.layer(f"first.{kind}", [e for row in entries for e in row], level))
                    for block in range(self.config["blocks"]):
                        a = relu(self.layer(f"blocks.{block}.0", h))
                        h = relu([p + q for p, q in zip(h, self.layer(f"blocks.{block}.1", a), strict=True)])
                    waiting.append((h, grid[y][x]))
            for d in range(len(self.config["values"])):
                following = []
                for h, index in waiting:
                    result.append(self.weights(self.layer(f"heads.{d}", h)))
                    if d + 1 < len(self.config["values"]):
                        row = self.tensors[f"digit_embeddings.{d}"][self.digits[index][d]]
                        known = relu([p + q for p, q in zip(h, row, strict=True)])
                        following.append((relu(self.layer(f"digit_layers.{d}", known)), index))
                waiting = following
        return result


@pytest.mark.parametrize(
    ("values", "more"),
    [((20,), {"refinements": 3}), ((4, 6), {"blocks": 2}), ((3, 2, 4), {"embed_digits": True, "blocks": 0})],
)
def test_every_weight_is_that_of_the_specification(values: tuple[int, ...], more: dict[str, Any]) -> None:
    tree = {"codebook_size": math.prod(values), "values": values, "embedding_width": 3, "width": 8, "taps": (5, 9, 40)}
    config = ContextConfig.model_validate({**tree, **more})
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(2)
        network = ContextNetwork(config)
        with torch.no_grad():
            for head in network.heads:
                head.weight_OI.mul_(12.0)  # some positions are certain
        tensors = network.freeze()
    if len(values) == 2:
        order = numpy_generator(1).permutation(24)
        tensors["digits_KD"] = torch.from_numpy(np.stack([order % 4, order // 4], axis=1).astype(np.uint16))
    model = ContextModel(config, tensors)
    grid_hw = numpy_generator(0).integers(math.prod(values), size=(7, 10))
    plain = {name: value.tolist() for name, value in tensors.items()}
    expected = Oracle(config.model_dump(), plain).code(grid_hw.tolist())
    given: list[list[int]] = []
    coding, symbols = model.batches((7, 10)), None
    while True:
        try:
            batch = next(coding) if symbols is None else coding.send(symbols)
        except StopIteration:
            break
        assert isinstance(batch.tables, SymbolTables)
        given += batch.tables.weights_NK.tolist()
        symbols = batch.symbols(grid_hw.reshape(-1))
    assert given == expected
    assert max(map(max, given)) > 2**23
