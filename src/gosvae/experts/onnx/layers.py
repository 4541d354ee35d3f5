"""ONNX operators with weights or windows: convolution, pooling, normalisation, matrix products."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from gosvae.experts.onnx.graph import Node
from gosvae.experts.onnx.table import operator, simple, unsupported

simple({"MatMul": torch.matmul, "GlobalAveragePool": lambda x: x.mean(list(range(2, x.ndim)), keepdim=True)})
simple({"GlobalMaxPool": lambda x: x.amax(list(range(2, x.ndim)), keepdim=True)})

_CONV: dict[int, Any] = {1: F.conv1d, 2: F.conv2d, 3: F.conv3d}
_CONV_TRANSPOSED: dict[int, Any] = {1: F.conv_transpose1d, 2: F.conv_transpose2d, 3: F.conv_transpose3d}
_MAX_POOL: dict[int, Any] = {1: F.max_pool1d, 2: F.max_pool2d, 3: F.max_pool3d}
_AVG_POOL: dict[int, Any] = {1: F.avg_pool1d, 2: F.avg_pool2d, 3: F.avg_pool3d}


def _padding(node: Node, x: Tensor, kernel: list[int]) -> tuple[list[int], list[int]]:
    """Return the padding before and after each axis behind the channels, for a window that moves over them."""
    rank = x.ndim - 2
    automatic, pads = node.get("auto_pad", "NOTSET"), node.get("pads", [0] * (2 * rank))
    if automatic == "VALID":
        return [0] * rank, [0] * rank
    if automatic not in ("SAME_UPPER", "SAME_LOWER"):
        return list(pads[:rank]), list(pads[rank:])
    strides, dilations = node.get("strides", [1] * rank), node.get("dilations", [1] * rank)
    before, after = [], []
    for length, side, stride, dilation in zip(x.shape[2:], kernel, strides, dilations, strict=True):
        total = max(0, (-(-length // stride) - 1) * stride + dilation * (side - 1) + 1 - length)
        small, large = total // 2, total - total // 2
        before.append(small if automatic == "SAME_UPPER" else large)
        after.append(large if automatic == "SAME_UPPER" else small)
    return before, after


def _flat(before: list[int], after: list[int]) -> list[int]:
    """Return padding in the order of `torch.nn.functional.pad`: the last axis first."""
    return [side for pair in zip(reversed(before), reversed(after), strict=True) for side in pair]


@operator("Conv")
def _conv(node: Node, x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    rank = x.ndim - 2
    before, after = _padding(node, x, list(weight.shape[2:]))
    if before != after:
        x, before = F.pad(x, _flat(before, after)), [0] * rank
    strides, dilations = node.get("strides", [1] * rank), node.get("dilations", [1] * rank)
    result: Tensor = _CONV[rank](x, weight, bias, strides, before, dilations, node.get("group", 1))
    return result


@operator("ConvTranspose")
def _conv_transpose(node: Node, x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    rank = x.ndim - 2
    strides, dilations = node.get("strides", [1] * rank), node.get("dilations", [1] * rank)
    extra, automatic = node.get("output_padding", [0] * rank), node.get("auto_pad", "NOTSET")
    whole: Tensor = _CONV_TRANSPOSED[rank](x, weight, bias, strides, 0, extra, node.get("group", 1), dilations)
    pads = node.get("pads", [0] * (2 * rank))
    if "output_shape" in node.attributes or automatic in ("SAME_UPPER", "SAME_LOWER"):
        wanted = node.get("output_shape", [n * s for n, s in zip(x.shape[2:], strides, strict=True)])[-rank:]
        surplus = [max(0, made - length) for made, length in zip(whole.shape[2:], wanted, strict=True)]
        small, large = [n // 2 for n in surplus], [n - n // 2 for n in surplus]
        pads = [*small, *large] if automatic == "SAME_UPPER" else [*large, *small]
    for i in range(rank):
        whole = whole.narrow(2 + i, pads[i], whole.shape[2 + i] - pads[i] - pads[rank + i])
    return whole


@operator("MaxPool", "AveragePool")
def _pool(node: Node, x: Tensor) -> Tensor:
    if len(node.outputs) > 1:
        raise unsupported(node, "the places of the largest values")
    kernel = list(node.attributes["kernel_shape"])
    rank = len(kernel)
    before, after = _padding(node, x, kernel)
    strides, dilations = node.get("strides", [1] * rank), node.get("dilations", [1] * rank)
    largest = node.operator == "MaxPool"
    counted = bool(node.get("count_include_pad", 0))
    beyond = _beyond(node, x, kernel, [a + b for a, b in zip(before, after, strict=True)])
    if not largest and any(dilation != 1 for dilation in dilations):
        raise unsupported(node, "dilations")
    if largest:
        after = [a + b for a, b in zip(after, beyond, strict=True)]
        padded = F.pad(x, _flat(before, after), value=-math.inf) if any(before) or any(after) else x
        result: Tensor = _MAX_POOL[rank](padded, kernel, strides, 0, dilations)
        return result
    if not any((*before, *after, *beyond)):
        return torch.as_tensor(_AVG_POOL[rank](x, kernel, strides))
    inside = torch.ones_like(x[:1, :1])
    if counted:  # The padding counts, the part of a window beyond it does not.
        inside = F.pad(inside, _flat(before, after), value=1.0)
        inside = F.pad(inside, _flat([0] * rank, beyond))
    else:
        inside = F.pad(inside, _flat(before, [a + b for a, b in zip(after, beyond, strict=True)]))
    padded = F.pad(x, _flat(before, [a + b for a, b in zip(after, beyond, strict=True)]))
    mean: Tensor = _AVG_POOL[rank](padded, kernel, strides) / _AVG_POOL[rank](inside, kernel, strides)
    return mean


def _beyond(node: Node, x: Tensor, kernel: list[int], padded: list[int]) -> list[int]:
    """Return how far the last window reaches beyond the padding of each axis, where their number is rounded up."""
    rank = len(kernel)
    strides, dilations = node.get("strides", [1] * rank), node.get("dilations", [1] * rank)
    if not node.get("ceil_mode", 0):
        return [0] * rank
    found: list[int] = []
    for length, side, stride, dilation, pad in zip(x.shape[2:], kernel, strides, dilations, padded, strict=True):
        span = length + pad - dilation * (side - 1) - 1
        windows = -(-span // stride)
        before = node.get("pads", [0] * (2 * rank))[len(found)]
        if windows * stride >= length + before:  # A window that begins beyond the image is none.
            windows -= 1
        found.append(max(0, windows * stride - span))
    return found


@operator("Gemm")
def _gemm(node: Node, a: Tensor, b: Tensor, c: Tensor | None = None) -> Tensor:
    a = a.T if node.get("transA", 0) else a
    b = b.T if node.get("transB", 0) else b
    product: Tensor = node.get("alpha", 1.0) * (a @ b)
    return product if c is None else product + node.get("beta", 1.0) * c


@operator("Einsum")
def _einsum(node: Node, *inputs: Tensor) -> Tensor:
    result: Tensor = torch.einsum(node.attributes["equation"], *inputs)
    return result


@operator("Dropout")
def _dropout(_node: Node, x: Tensor, *_ratio_and_mode: Tensor) -> tuple[Tensor, Tensor]:
    return x, torch.ones_like(x, dtype=torch.bool)


@operator("BatchNormalization")
def _batch_norm(node: Node, x: Tensor, scale: Tensor, bias: Tensor, mean: Tensor, variance: Tensor) -> Tensor:
    if node.get("training_mode", 0):
        raise unsupported(node, "training_mode")
    return F.batch_norm(x, mean, variance, scale, bias, training=False, eps=node.get("epsilon", 1e-5))


@operator("InstanceNormalization")
def _instance_norm(node: Node, x: Tensor, scale: Tensor, bias: Tensor) -> Tensor:
    return F.instance_norm(x, weight=scale, bias=bias, eps=node.get("epsilon", 1e-5))


@operator("LayerNormalization")
def _layer_norm(node: Node, x: Tensor, scale: Tensor, bias: Tensor | None = None) -> Tensor:
    shape = list(x.shape[node.get("axis", -1) % x.ndim :])
    normal = F.layer_norm(x, shape, eps=node.get("epsilon", 1e-5)) * scale
    return normal if bias is None else normal + bias


@operator("GroupNormalization")
def _group_norm(node: Node, x: Tensor, scale: Tensor, bias: Tensor) -> Tensor:
    groups: int = node.attributes["num_groups"]
    if node.opset < 21:  # One scale for each group, later one for each channel.
        scale, bias = (each.repeat_interleave(x.shape[1] // groups) for each in (scale, bias))
    return F.group_norm(x, groups, scale, bias, node.get("epsilon", 1e-5))


@operator("LpNormalization")
def _lp_norm(node: Node, x: Tensor) -> Tensor:
    length: Tensor = torch.linalg.vector_norm(x, node.get("p", 2), node.get("axis", -1), keepdim=True)
    return x / length


@operator("LRN")
def _lrn(node: Node, x: Tensor) -> Tensor:
    size = node.attributes["size"]
    return F.local_response_norm(x, size, node.get("alpha", 1e-4), node.get("beta", 0.75), node.get("bias", 1.0))
