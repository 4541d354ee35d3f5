"""Table of the ONNX operators that can be imported: each a small function on tensors.

A function takes the node and its inputs (None where an optional one is left out) and returns a tensor, or a tuple for a
node of several outputs. The meaning of each operator is that of the ONNX operator reference for operator sets 11 to 22.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from gosvae.errors import ExpertError
from gosvae.experts.onnx.graph import Node

Operator = Callable[..., Any]

OPERATORS: dict[str, Operator] = {}
"""Functions by the name of their operator; the modules beside this one fill it when they are imported."""


def operator(*names: str) -> Callable[[Operator], Operator]:
    """Return a decorator that enters a function under the names of one or several operators."""

    def enter(function: Operator) -> Operator:
        for name in names:
            assert name not in OPERATORS, name
            OPERATORS[name] = function
        return function

    return enter


def simple(functions: dict[str, Callable[..., Any]]) -> None:
    """Enter functions that need the inputs alone, by the names of their operators."""
    for name, function in functions.items():
        operator(name)(lambda _node, *inputs, _function=function: _function(*inputs))


def whole_numbers(values: Tensor | None) -> list[int]:
    """Return the entries of an integer tensor, such as a shape, as a list."""
    return [] if values is None else [int(value) for value in values.reshape(-1).tolist()]


def axes_of(node: Node, given: Tensor | None) -> list[int] | None:
    """Return the axes of a node, from the input or, in older operator sets, from the attribute; None without either."""
    if given is not None:
        return whole_numbers(given)
    listed: list[int] | None = node.get("axes", None)
    return listed


def unsupported(node: Node, what: str) -> ExpertError:
    """Return the error that refuses a node because of one of its settings."""
    return ExpertError(f"the operator {node} with {what} cannot be imported")


def dtype_of(code: int) -> torch.dtype:
    """Return PyTorch's type for a number of `onnx.TensorProto.DataType`."""
    return _TYPES[code]


_TYPES: dict[int, torch.dtype] = {
    1: torch.float32,
    2: torch.uint8,
    3: torch.int8,
    4: torch.uint16,
    5: torch.int16,
    6: torch.int32,
    7: torch.int64,
    9: torch.bool,
    10: torch.float16,
    11: torch.float64,
    16: torch.bfloat16,
}
