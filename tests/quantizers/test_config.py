"""Configurations of quantizers."""

from __future__ import annotations

from typing import Any

import pytest

from gosvae.config import Config, parse, to_tree
from gosvae.errors import ConfigError
from gosvae.quantizers import (
    EmaVectorQuantizer,
    FiniteScalarQuantizer,
    QuantizerConfig,
    VectorQuantizer,
    build_quantizer,
)


class Model(Config):
    quantizer: QuantizerConfig


@pytest.mark.parametrize(
    ("tree", "expected_type", "size", "dim"),
    [
        ({"kind": "vq"}, VectorQuantizer, 512, 64),
        ({"kind": "vq", "codebook_size": 12000, "code_dim": 8, "cosine": True}, VectorQuantizer, 12000, 8),
        ({"kind": "vq-ema", "codebook_size": 128}, EmaVectorQuantizer, 128, 64),
        ({"kind": "fsq", "levels": [8, 5, 5, 5]}, FiniteScalarQuantizer, 1000, 4),
    ],
)
def test_a_tree_becomes_a_quantizer_and_a_tree_again(
    tree: dict[str, Any], expected_type: type, size: int, dim: int
) -> None:
    config = parse(Model, {"quantizer": tree})
    quantizer = build_quantizer(config.quantizer)
    assert type(quantizer) is expected_type
    assert (quantizer.codebook_size, quantizer.code_dim) == (size, dim)
    assert parse(Model, to_tree(config)) == config


@pytest.mark.parametrize(
    "tree",
    [
        {"kind": "vq", "codebook_size": 1},
        {"kind": "vq", "codebook_size": 2**16 + 1},
        {"kind": "vq", "code_dim": 0},
        {"kind": "vq", "decay": 0.9},
        {"kind": "vq-ema", "decay": 1.0},
        {"kind": "fsq", "levels": []},
        {"kind": "fsq", "levels": [2, 2]},
        {"kind": "fsq", "levels": [200, 200, 200]},
        {"kind": "vqq"},
        {},
    ],
)
def test_impossible_values_are_refused(tree: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match="quantizer"):
        parse(Model, {"quantizer": tree})
