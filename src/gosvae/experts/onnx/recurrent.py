"""ONNX's recurrent operators, by PyTorch's own: only the order of the gates and of the axes differs."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from gosvae.experts.onnx.graph import Node
from gosvae.experts.onnx.table import operator, unsupported

_GATES = {"LSTM": (0, 2, 3, 1), "GRU": (1, 0, 2)}
"""Order in which PyTorch has ONNX's gates: i, o, f, c of an LSTM and z, r, h of a GRU."""


@operator("LSTM", "GRU")
def _recurrent(
    node: Node,
    x_TBI: Tensor,
    weight: Tensor,
    recurrence: Tensor,
    bias: Tensor | None = None,
    lengths: Tensor | None = None,
    hidden: Tensor | None = None,
    cell: Tensor | None = None,
    peepholes: Tensor | None = None,
) -> tuple[Tensor, ...]:
    direction, count = node.get("direction", "forward"), node.attributes["hidden_size"]
    if node.get("layout", 0) or peepholes is not None or "activations" in node.attributes or "clip" in node.attributes:
        raise unsupported(node, "another layout, peepholes, activations or clip")
    if direction == "reverse" or (node.operator == "GRU" and not node.get("linear_before_reset", 0)):
        raise unsupported(node, "direction 'reverse' or linear_before_reset 0")
    del lengths  # all of one length in a network that looks at images
    directions = weight.shape[0]
    layer = (nn.LSTM if node.operator == "LSTM" else nn.GRU)(
        x_TBI.shape[-1], count, bidirectional=directions == 2, bias=bias is not None, device="meta"
    )
    tensors: dict[str, Tensor] = {}
    for d in range(directions):
        end = "_l0_reverse" if d else "_l0"
        tensors["weight_ih" + end] = _ordered(weight[d], node.operator)
        tensors["weight_hh" + end] = _ordered(recurrence[d], node.operator)
        if bias is not None:
            of_input, of_state = bias[d].chunk(2)
            tensors["bias_ih" + end] = _ordered(of_input, node.operator)
            tensors["bias_hh" + end] = _ordered(of_state, node.operator)
    zero = x_TBI.new_zeros(directions, x_TBI.shape[1], count)
    start = zero if hidden is None else hidden
    state = (start, zero if cell is None else cell) if node.operator == "LSTM" else start
    y_TBC, last = torch.func.functional_call(layer, tensors, (x_TBI, state))
    y_TDBC = y_TBC.reshape(*y_TBC.shape[:2], directions, count).transpose(1, 2)
    return (y_TDBC, *(last if isinstance(last, tuple) else (last,)))


def _ordered(rows: Tensor, kind: str) -> Tensor:
    parts = rows.chunk(len(_GATES[kind]))
    return torch.cat([parts[i] for i in _GATES[kind]])
