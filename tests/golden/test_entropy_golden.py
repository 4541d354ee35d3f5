"""Payloads of the entropy models that adapt, written once: they decode to the same indices for ever."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from gosvae.entropy.adaptive import AdaptiveCounts
from gosvae.entropy.base import EntropyModel, IndexArray
from gosvae.entropy.coder import decode_indices, encode_indices
from gosvae.entropy.context import ContextConfig, ContextModel, ContextNetwork
from gosvae.entropy.digits import positional
from gosvae.seeding import derive_seed

SHAPE_HW = (11, 18)


def integers(low: int, high: int, shape: tuple[int, ...], name: str) -> IndexArray:
    """Integers in [low, high) of a linear congruential generator: a library's random numbers may change."""
    values, state = [], derive_seed("golden", name)
    for _ in range(math.prod(shape)):
        state = (6364136223846793005 * state + 1442695040888963407) % 2**64
        values.append(low + (state >> 33) % (high - low))
    return np.array(values, np.int64).reshape(shape)


def golden_indices(codebook_size: int) -> IndexArray:
    """Smooth in places, so that a wrong neighbour shows."""
    return integers(-2, 3, SHAPE_HW, f"{codebook_size} codes").cumsum(axis=1) * 5 % codebook_size


def golden_context(config: ContextConfig, table: bool) -> ContextModel:
    """A context model of integers that need no training and no random numbers of PyTorch's."""
    tensors = ContextNetwork(config).freeze()
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
    if table:
        digits_KD = positional(config.codebook_size, config.values)[::-1]
        tensors["digits_KD"] = torch.from_numpy(np.ascontiguousarray(digits_KD))
    return ContextModel(config, tensors)


def golden_models() -> dict[str, EntropyModel]:
    small = {"embedding_width": 4, "width": 16, "taps": (5, 8, 11)}
    one = ContextConfig.model_validate({"codebook_size": 40, "values": (40,), "blocks": 2, "refinements": 3, **small})
    two = ContextConfig.model_validate({"codebook_size": 50, "values": (7, 8), **small})
    three = ContextConfig.model_validate({"codebook_size": 60, "values": (3, 4, 5), "embed_digits": True, **small})
    return {
        "adaptive": AdaptiveCounts(np.arange(1, 41)),
        "context, one digit": golden_context(one, False),
        "context, two digits by a table": golden_context(two, True),
        "context, three digits, neighbours by digits": golden_context(three, False),
    }


GOLDEN = {
    "adaptive": (
        "04b7ff466fd9c7bba0ac628b425000c6e20c0fdeadc37d48b9951e8a612897e1a7df06485d7523292f14f9bc944d9085dad6"
        "f26aeb708a3e1e4489b6f4b222f11a7320993c4d0bf3e10036e283327d9895c0dd5cf87cdfb9ac9c06e60a542b0f8661121e"
        "07fb152856855db0e0454648d73ab8523e9185c313d670a9509319435bb78529ba"
    ),
    "context, one digit": (
        "30067d17869d56834e0eb78b6d6b4bb4c685b54a8be6914aac37f6fe366650f5c851ad8b4b00b0987a0913afeff014cc8ac2"
        "787fa6ca02df43d07aedb5f33976350aa3da584b24f7f4a497f99c1a5d7082bc4007d848e737df35d32f3ac1bc4a4d3f3539"
        "c2bc542eea9ae62ef5520103d34e80b0499d7b2d3e1db6f131"
    ),
    "context, two digits by a table": (
        "6fe9ee72eb321f97809f34069fe6cc766df3176737429d970ea4dbc4d7db961a50ed3d6c64bff5cf59b6c769569abc0c2e7a"
        "10508fdfcd35b840f62dd876e9f438ad623077032e53216aadded494e23d564f3aca48a2c2f0622c829d55681bdab938fb24"
        "995a42abf484ef1ea0191e1aaac8346526a09b5cb7fb321b1b8c16a2c3e12b12826c242121d881dc30546fb3dd08d474ceca"
        "674fa581763680ba24"
    ),
    "context, three digits, neighbours by digits": (
        "73111fa1cc67402a5a6d333f0493d948d72ce56f81be8856ecaa6feb8a62aedfdd079cc76d9b6c6b3257c828c719bf414590"
        "2032c4128d7260b3c1485903290c4321b50660f4515154d19df49d916830e3f907552bc31dbbe4cd742ddbe0214ffc9e0c16"
        "ed50d005a5db49c336f475d6fe7694fbb2d80ad21de4fe7de4e3fd7be66543be1cbe0e59528824a2c0bf40f6687f3c1c7284"
        "2294a27fc98994c9d662a6a235b190"
    ),
}
MARKS = {
    "adaptive": "",
    "context, one digit": "4a62d6a0",
    "context, two digits by a table": "e10d702e",
    "context, three digits, neighbours by digits": "c641e6a5",
}


@pytest.mark.parametrize("name", list(GOLDEN))
def test_golden_payloads(name: str) -> None:
    model = golden_models()[name]
    indices_hw, data = golden_indices(model.codebook_size), bytes.fromhex(GOLDEN[name])
    np.testing.assert_array_equal(decode_indices(model, data, SHAPE_HW), indices_hw)
    assert encode_indices(model, indices_hw) == data
    assert model.mark.hex() == MARKS[name]
