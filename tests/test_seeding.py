"""Randomness is derived from paths: the same on every machine, different for every path."""

from __future__ import annotations

import random

import numpy as np
import torch

from gosvae.seeding import derive_seed, numpy_generator, seed_everything, torch_generator


def test_seeds_are_fixed_for_ever() -> None:
    assert derive_seed(0, "augment", 3) == 8384999650745148168


def test_paths_give_different_streams_and_leave_global_state_alone() -> None:
    state = torch.random.get_rng_state()
    draws = {
        float(torch.rand((), generator=torch_generator(*path))) for path in ((0,), (1,), (0, 0), ("0", "a"), (0, "b"))
    }
    assert len(draws) == 5
    assert torch.equal(
        torch.rand(3, generator=torch_generator(1, "x")), torch.rand(3, generator=torch_generator(1, "x"))
    )
    assert numpy_generator(1, "x").random() == numpy_generator(1, "x").random() != numpy_generator(2, "x").random()
    assert torch.equal(torch.random.get_rng_state(), state)


def test_all_global_generators_are_seeded() -> None:
    def draw() -> tuple[float, float, float]:
        return random.random(), float(np.random.random()), float(torch.rand(()))

    seed_everything(2**40 + 5)
    first = draw()
    seed_everything(2**40 + 5)
    assert draw() == first
