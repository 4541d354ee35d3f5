"""Payloads of the entropy models that adapt, written once: they decode to the same indices for ever."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch import Tensor

from gosvae.entropy.adaptive import AdaptiveCounts
from gosvae.entropy.base import EntropyModel, IndexArray, weights_digest
from gosvae.entropy.coder import decode_indices, encode_indices
from gosvae.entropy.context import ContextConfig, ContextModel, ContextNetwork
from gosvae.entropy.digits import positional
from gosvae.entropy.latent import LatentContextModel
from gosvae.entropy.latent_network import LatentContextConfig, LatentContextNetwork, integer_network
from gosvae.seeding import derive_seed

SHAPE_HW = (11, 18)
SHAPES_HW = {"latent context, level 9": (6 * 5, 7), "latent context, level 200": (6 * 5, 7)}
"""Of models that cannot code a grid of `SHAPE_HW`."""


def integers(low: int, high: int, shape: tuple[int, ...], name: str) -> IndexArray:
    """Integers in [low, high) of a linear congruential generator: a library's random numbers may change."""
    values, state = [], derive_seed("golden", name)
    for _ in range(math.prod(shape)):
        state = (6364136223846793005 * state + 1442695040888963407) % 2**64
        values.append(low + (state >> 33) % (high - low))
    return np.array(values, np.int64).reshape(shape)


def golden_indices(codebook_size: int, shape_hw: tuple[int, int] = SHAPE_HW) -> IndexArray:
    """Smooth in places, so that a wrong neighbour shows."""
    return integers(-2, 3, shape_hw, f"{codebook_size} codes").cumsum(axis=1) * 5 % codebook_size


def golden_tensors(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """Integers that need no training and no random numbers of PyTorch's, in the shapes of a frozen network's."""
    for name, value in sorted(tensors.items()):
        shape = tuple(value.shape)
        match name.rpartition(".")[2]:
            case "weight":
                new = integers(-9, 10, shape, name).astype(np.int8)
            case "bias":
                new = integers(-3000, 3000, shape, name).astype(np.int32)
            case "shift":
                new = np.full(shape, 7, np.int8)
            case "start_C":
                new = integers(0, 90, shape, name).astype(np.uint8)
            case _:
                new = integers(-127, 128, shape, name).astype(np.int8)
        tensors[name] = torch.from_numpy(new)
    return tensors


def golden_latent(level: int) -> LatentContextModel:
    """A context model of latents at a level."""
    config = LatentContextConfig(
        channels=6, group=2, bound=3, anchors=4, embedding_width=4, width=16, taps=(5, 8, 11), refinements=2
    )
    tensors = golden_tensors(LatentContextNetwork(config).freeze())
    return LatentContextModel(config, integer_network(config, tensors), level, weights_digest(config, tensors)[:4])


def golden_context(config: ContextConfig, table: bool) -> ContextModel:
    """A context model of indices."""
    tensors = golden_tensors(ContextNetwork(config).freeze())
    if table:
        digits_KD = positional(config.codebook_size, config.values)[::-1]
        tensors["digits_KD"] = torch.from_numpy(np.ascontiguousarray(digits_KD))
    return ContextModel(config, tensors)


def golden_models() -> dict[str, EntropyModel]:
    small = {"embedding_width": 4, "width": 16, "taps": (5, 8, 11)}
    one = ContextConfig.model_validate({"codebook_size": 40, "values": (40,), "blocks": 2, "refinements": 3, **small})
    two = ContextConfig.model_validate({"codebook_size": 50, "values": (7, 8), "refinements": 2, **small})
    three = ContextConfig.model_validate(
        {"codebook_size": 60, "values": (3, 4, 5), "embed_digits": True, "refinements": 1, **small}
    )
    return {
        "adaptive": AdaptiveCounts(np.arange(1, 41)),
        "context, one digit": golden_context(one, False),
        "context, two digits by a table": golden_context(two, True),
        "context, three digits, neighbours by digits": golden_context(three, False),
        "latent context, level 9": golden_latent(9),
        "latent context, level 200": golden_latent(200),
    }


GOLDEN = {
    "adaptive": (
        "04b7ff466fd9c7bba0ac628b425000c6e20c0fdeadc37d48b9951e8a612897e1a7df06485d7523292f14f9bc944d9085dad6"
        "f26aeb708a3e1e4489b6f4b222f11a7320993c4d0bf3e10036e283327d9895c0dd5cf87cdfb9ac9c06e60a542b0f8661121e"
        "07fb152856855db0e0454648d73ab8523e9185c313d670a9509319435bb78529ba"
    ),
    "context, one digit": (
        "30067d17869d56834dc52eeb9845edc679b0c7bed3f10866beb2f4b452f5e51a29126d68be2b5e5f7a9edde9a0be4754c680"
        "0d96ed7675b55c9ba9a0fa03b20958e3d3aa2ad2920ebf26d32db7fbb842a415b651791521b1eab7d6ad89c33ffedaad7b9b"
        "68e5ff83e99d4dcaf438c22191ecb625161fc80b8fa10c228e"
    ),
    "context, two digits by a table": (
        "6fe9ee72eb321f97809f34069fe6cc766df3176737429d970ea4dbc4d7db961a6a98135f54c8bc58dd9c3586d8296fc44b4a"
        "182b543573ecc633e58dd85d6d8039e34acdf22ba2802e562843436e69c687fa83c32c4ce827cae6327e1320f6fcb6f28b13"
        "80d994675caafe4849e657aa0db7ad5cf2b42fbe1f742bf3031bc0cef208c4f5c49ce1f579c8637ed7c22d404fd7388415cd"
        "cf581ac0a7cabe8058"
    ),
    "context, three digits, neighbours by digits": (
        "4dbd01c0d05e6259c84ff81a1c23173ac03d5c9a686f7045dbbe55d98abf43cf00a0128ab7605f7dbdf0ef280c722cf64a42"
        "57b11ac5483f51a933b64dd31855c5ba7809005ab979dea2a3e74886cab699965b8f1311aac4e5c51827dd5a694562ca66b2"
        "3e1dd0f6fb80efd31c65223144b9616d9930437f72942429af18addb26b85e79ebe4108606c2d84e8bc02158e342c7b60370"
        "c623564fb647b1638163ddf8531f86"
    ),
    "latent context, level 9": (
        "7005b0917576c536f93d6983989ed793e25e09d1ee1a67bcd9ad66e596ada90ffdf1340ad0159515f6d14f58a7651cc75ecd"
        "75c07df0b68963b6e1dd7f4d1adcac8c94f2a0037abcfa68b4f28bd3e8cc0b43"
    ),
    "latent context, level 200": (
        "701ed43049a86558a7561ec8dd59874fe11148d8a562d6f646ee8ab20a3b941e984e9f935ed9dab2524827cc77ee5e58a220"
        "dd02e6071ab4e2fef137c04997ac2e6a6d3c6f21ad85a46c423e57ff7ded24c5"
    ),
}
MARKS = {
    "adaptive": "",
    "context, one digit": "1c774013",
    "context, two digits by a table": "c2ba7434",
    "context, three digits, neighbours by digits": "5d0fec77",
    "latent context, level 9": "5a266f2a",
    "latent context, level 200": "5a266f2a",
}


@pytest.mark.parametrize("name", list(GOLDEN))
def test_golden_payloads(name: str) -> None:
    model = golden_models()[name]
    shape_hw = SHAPES_HW.get(name, SHAPE_HW)
    indices_hw, data = golden_indices(model.codebook_size, shape_hw), bytes.fromhex(GOLDEN[name])
    np.testing.assert_array_equal(decode_indices(model, data, shape_hw), indices_hw)
    assert encode_indices(model, indices_hw) == data
    assert model.mark.hex() == MARKS[name]
