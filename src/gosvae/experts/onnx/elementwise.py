"""ONNX operators that work value by value, and reductions over axes."""

from __future__ import annotations

from collections.abc import Callable
from functools import reduce
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from gosvae.experts.onnx.graph import Node
from gosvae.experts.onnx.table import axes_of, dtype_of, operator, simple, unsupported

simple(
    {
        "Abs": torch.abs,
        "Acos": torch.acos,
        "And": torch.logical_and,
        "Asin": torch.asin,
        "Atan": torch.atan,
        "Ceil": torch.ceil,
        "Cos": torch.cos,
        "Cosh": torch.cosh,
        "Equal": torch.eq,
        "Erf": torch.erf,
        "Exp": torch.exp,
        "Floor": torch.floor,
        "Greater": torch.gt,
        "GreaterOrEqual": torch.ge,
        "Identity": lambda x: x,
        "IsNaN": torch.isnan,
        "Less": torch.lt,
        "LessOrEqual": torch.le,
        "Log": torch.log,
        "Mish": F.mish,
        "Mul": torch.mul,
        "Neg": torch.neg,
        "Not": torch.logical_not,
        "Or": torch.logical_or,
        "Reciprocal": torch.reciprocal,
        "Relu": torch.relu,
        "Round": torch.round,
        "Sigmoid": torch.sigmoid,
        "Sign": torch.sign,
        "Sin": torch.sin,
        "Sinh": torch.sinh,
        "Softplus": F.softplus,
        "Softsign": F.softsign,
        "Sqrt": torch.sqrt,
        "Sub": torch.sub,
        "Add": torch.add,
        "Tan": torch.tan,
        "Tanh": torch.tanh,
        "Where": torch.where,
        "Xor": torch.logical_xor,
        "HardSwish": F.hardswish,
        "Max": lambda *inputs: reduce(torch.maximum, inputs),
        "Min": lambda *inputs: reduce(torch.minimum, inputs),
        "Sum": lambda *inputs: reduce(torch.add, inputs),
        "Mean": lambda *inputs: reduce(torch.add, inputs) / len(inputs),
    }
)


@operator("Div")
def _div(_node: Node, a: Tensor, b: Tensor) -> Tensor:
    return a / b if a.is_floating_point() else torch.div(a, b, rounding_mode="trunc")


@operator("Mod")
def _mod(node: Node, a: Tensor, b: Tensor) -> Tensor:
    return torch.fmod(a, b) if node.get("fmod", 0) else torch.remainder(a, b)


@operator("Pow")
def _pow(_node: Node, a: Tensor, b: Tensor) -> Tensor:
    return torch.pow(a, b).to(a.dtype)


@operator("Clip")
def _clip(node: Node, x: Tensor, low: Tensor | None = None, high: Tensor | None = None) -> Tensor:
    least = node.get("min", None) if low is None else low.item()
    most = node.get("max", None) if high is None else high.item()
    return x if least is None and most is None else torch.clamp(x, least, most)


@operator("Cast")
def _cast(node: Node, x: Tensor) -> Tensor:
    return x.to(dtype_of(node.attributes["to"]))


@operator("CastLike")
def _cast_like(_node: Node, x: Tensor, like: Tensor) -> Tensor:
    return x.to(like.dtype)


@operator("LeakyRelu")
def _leaky_relu(node: Node, x: Tensor) -> Tensor:
    return F.leaky_relu(x, node.get("alpha", 0.01))


@operator("PRelu")
def _prelu(_node: Node, x: Tensor, slope: Tensor) -> Tensor:
    return torch.where(x < 0, x * slope, x)


@operator("Elu")
def _elu(node: Node, x: Tensor) -> Tensor:
    return F.elu(x, node.get("alpha", 1.0))


@operator("Celu")
def _celu(node: Node, x: Tensor) -> Tensor:
    return F.celu(x, node.get("alpha", 1.0))


@operator("Selu")
def _selu(node: Node, x: Tensor) -> Tensor:
    alpha, gamma = node.get("alpha", 1.6732632423543772), node.get("gamma", 1.0507009873554805)
    return float(gamma) * F.elu(x, float(alpha))


@operator("Gelu")
def _gelu(node: Node, x: Tensor) -> Tensor:
    return F.gelu(x, approximate=node.get("approximate", "none"))


@operator("HardSigmoid")
def _hard_sigmoid(node: Node, x: Tensor) -> Tensor:
    return torch.clamp(node.get("alpha", 0.2) * x + node.get("beta", 0.5), 0.0, 1.0)


@operator("ThresholdedRelu")
def _thresholded_relu(node: Node, x: Tensor) -> Tensor:
    return torch.where(x > node.get("alpha", 1.0), x, torch.zeros_like(x))


@operator("IsInf")
def _is_inf(node: Node, x: Tensor) -> Tensor:
    positive, negative = bool(node.get("detect_positive", 1)), bool(node.get("detect_negative", 1))
    return x.isinf() & (((x > 0) & positive) | ((x < 0) & negative))


@operator("Softmax", "LogSoftmax", "Hardmax")
def _softmax(node: Node, x: Tensor) -> Tensor:
    if node.operator == "Hardmax":
        raise unsupported(node, "a result that has no gradient")
    function = F.softmax if node.operator == "Softmax" else F.log_softmax
    if node.opset >= 13:
        return function(x, dim=node.get("axis", -1))
    axis = node.get("axis", 1) % x.ndim  # Before opset 13 all axes from this one on are one.
    return function(x.flatten(axis), dim=axis).reshape(x.shape)


@operator("CumSum")
def _cumsum(node: Node, x: Tensor, axis: Tensor) -> Tensor:
    dim = int(axis.item())
    if node.get("reverse", 0):
        x = x.flip(dim)
    summed = x.cumsum(dim)
    if node.get("exclusive", 0):
        summed = summed - x
    return summed.flip(dim) if node.get("reverse", 0) else summed


def _reducer(name: str, function: Callable[[Tensor, list[int], bool], Tensor]) -> None:
    def reduced(node: Node, x: Tensor, given: Tensor | None = None) -> Tensor:
        axes = axes_of(node, given)
        if not axes and node.get("noop_with_empty_axes", 0):
            return x
        return function(x, axes or list(range(x.ndim)), bool(node.get("keepdims", 1)))

    operator(name)(reduced)


def _product(x: Tensor, axes: list[int], keep: bool) -> Tensor:
    for axis in sorted((axis % x.ndim for axis in axes), reverse=True):
        x = x.prod(axis, keepdim=keep)
    return x


_REDUCERS: dict[str, Callable[[Tensor, list[int], bool], Tensor]] = {
    "ReduceMean": lambda x, axes, keep: x.mean(axes, keepdim=keep),
    "ReduceSum": lambda x, axes, keep: x.sum(axes, keepdim=keep, dtype=x.dtype),
    "ReduceMax": lambda x, axes, keep: x.amax(axes, keepdim=keep),
    "ReduceMin": lambda x, axes, keep: x.amin(axes, keepdim=keep),
    "ReduceProd": _product,
    "ReduceL1": lambda x, axes, keep: x.abs().sum(axes, keepdim=keep),
    "ReduceL2": lambda x, axes, keep: torch.linalg.vector_norm(x, dim=axes, keepdim=keep),
    "ReduceSumSquare": lambda x, axes, keep: x.square().sum(axes, keepdim=keep),
    "ReduceLogSum": lambda x, axes, keep: x.sum(axes, keepdim=keep).log(),
    "ReduceLogSumExp": lambda x, axes, keep: x.logsumexp(axes, keepdim=keep),
}
for _name, _function in _REDUCERS.items():
    _reducer(_name, _function)


@operator("ArgMax", "ArgMin")
def _arg(node: Node, x: Tensor) -> Tensor:
    axis, keep = node.get("axis", 0), bool(node.get("keepdims", 1))
    function: Any = torch.argmax if node.operator == "ArgMax" else torch.argmin
    if not node.get("select_last_index", 0):
        found: Tensor = function(x, dim=axis, keepdim=keep)
        return found
    last: Tensor = x.shape[axis] - 1 - function(x.flip(axis), dim=axis, keepdim=keep)
    return last


@operator("TopK")
def _top_k(node: Node, x: Tensor, k: Tensor) -> tuple[Tensor, Tensor]:
    found = torch.topk(x, int(k.item()), dim=node.get("axis", -1), largest=bool(node.get("largest", 1)))
    return found.values, found.indices


@operator("DequantizeLinear")
def _dequantize(node: Node, x: Tensor, scale: Tensor, zero_point: Tensor | None = None) -> Tensor:
    if node.get("block_size", 0):
        raise unsupported(node, "blocks")
    shape = [1] * x.ndim
    if scale.ndim == 1 and scale.numel() > 1:
        shape[node.get("axis", 1)] = -1
    zero = 0.0 if zero_point is None else zero_point.to(scale.dtype).reshape(shape)
    return (x.to(scale.dtype) - zero) * scale.reshape(shape)
