"""ONNX operators that move values: reshaping, slicing, gathering, joining, padding, and shapes as tensors."""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn import functional as F

from gosvae.experts.onnx.graph import Node
from gosvae.experts.onnx.table import axes_of, operator, unsupported, whole_numbers


@operator("Shape")
def _shape(node: Node, x: Tensor) -> Tensor:
    return torch.tensor(x.shape[node.get("start", 0) : node.get("end", None)], dtype=torch.int64)


@operator("Size")
def _size(_node: Node, x: Tensor) -> Tensor:
    return torch.tensor(x.numel())


@operator("Constant")
def _constant(node: Node) -> Tensor:
    for name, dtype in (
        ("value_float", torch.float32), ("value_floats", torch.float32),
        ("value_int", torch.int64), ("value_ints", torch.int64),
    ):  # fmt: skip
        if name in node.attributes:
            return torch.tensor(node.attributes[name], dtype=dtype)
    if "value" not in node.attributes:
        raise unsupported(node, f"{next(iter(node.attributes), 'no value')}")
    value: Tensor = node.attributes["value"]
    return value


@operator("ConstantOfShape")
def _constant_of_shape(node: Node, shape: Tensor) -> Tensor:
    value: Tensor = node.get("value", torch.zeros(1))
    return torch.full(whole_numbers(shape), value.item(), dtype=value.dtype)


@operator("Range")
def _range(_node: Node, start: Tensor, limit: Tensor, delta: Tensor) -> Tensor:
    return torch.arange(start.item(), limit.item(), delta.item(), dtype=start.dtype)


@operator("EyeLike")
def _eye_like(node: Node, x: Tensor) -> Tensor:
    if node.get("k", 0) or "dtype" in node.attributes:
        raise unsupported(node, "k or dtype")
    return torch.eye(*x.shape, dtype=x.dtype)


@operator("Reshape")
def _reshape(node: Node, x: Tensor, shape: Tensor) -> Tensor:
    wanted = whole_numbers(shape)
    if not node.get("allowzero", 0):
        wanted = [x.shape[i] if length == 0 else length for i, length in enumerate(wanted)]
    return x.reshape(wanted)


@operator("Flatten")
def _flatten(node: Node, x: Tensor) -> Tensor:
    axis = node.get("axis", 1)
    axis = axis + x.ndim if axis < 0 else axis
    return x.reshape(math.prod(x.shape[:axis]), -1)


@operator("Squeeze")
def _squeeze(node: Node, x: Tensor, given: Tensor | None = None) -> Tensor:
    axes = axes_of(node, given)
    return x.squeeze() if axes is None else x.squeeze(tuple(axes))


@operator("Unsqueeze")
def _unsqueeze(node: Node, x: Tensor, given: Tensor | None = None) -> Tensor:
    axes = axes_of(node, given) or []
    for axis in sorted(axis % (x.ndim + len(axes)) for axis in axes):
        x = x.unsqueeze(axis)
    return x


@operator("Transpose")
def _transpose(node: Node, x: Tensor) -> Tensor:
    return x.permute(node.get("perm", list(range(x.ndim))[::-1]))


@operator("Concat")
def _concat(node: Node, *inputs: Tensor) -> Tensor:
    return torch.cat(inputs, dim=node.attributes["axis"])


@operator("Split")
def _split(node: Node, x: Tensor, given: Tensor | None = None) -> tuple[Tensor, ...]:
    axis, count = node.get("axis", 0), node.get("num_outputs", len(node.outputs))
    sizes = whole_numbers(given) or node.get("split", None)
    return torch.split(x, sizes if sizes else -(-x.shape[axis] // count), dim=axis)


@operator("Slice")
def _slice(
    _node: Node,
    x: Tensor,
    starts: Tensor,
    ends: Tensor,
    axes: Tensor | None = None,
    steps: Tensor | None = None,
) -> Tensor:
    first, last = whole_numbers(starts), whole_numbers(ends)
    along = whole_numbers(axes) if axes is not None else list(range(len(first)))
    strides = whole_numbers(steps) if steps is not None else [1] * len(first)
    for start, end, axis, step in zip(first, last, along, strides, strict=True):
        start, end, step = slice(start, end, step).indices(x.shape[axis])
        if step > 0:
            parts = [slice(None)] * (axis % x.ndim)
            x = x[(*parts, slice(start, max(start, end), step))]
        else:
            x = x.index_select(axis, torch.tensor(range(start, end, step), dtype=torch.int64, device=x.device))
    return x


def _from_the_front(indices: Tensor, length: int) -> Tensor:
    """Return indices in which negative ones, which count from the end, are replaced."""
    return torch.where(indices < 0, indices + length, indices).long()


@operator("Gather")
def _gather(node: Node, x: Tensor, indices: Tensor) -> Tensor:
    axis = node.get("axis", 0) % x.ndim
    places = _from_the_front(indices, x.shape[axis])
    picked = x.index_select(axis, places.reshape(-1))
    return picked.reshape((*x.shape[:axis], *indices.shape, *x.shape[axis + 1 :]))


@operator("GatherElements")
def _gather_elements(node: Node, x: Tensor, indices: Tensor) -> Tensor:
    axis = node.get("axis", 0)
    return torch.gather(x, axis, _from_the_front(indices, x.shape[axis]))


@operator("GatherND")
def _gather_nd(node: Node, x: Tensor, indices: Tensor) -> Tensor:
    batches = node.get("batch_dims", 0)
    if batches == 0:
        return x[_places(indices, x.shape)]
    rows = x.reshape(-1, *x.shape[batches:])
    of_rows = indices.reshape(len(rows), *indices.shape[batches:])
    picked = [row[_places(each, row.shape)] for row, each in zip(rows, of_rows, strict=True)]
    return torch.stack(picked).reshape(*x.shape[:batches], *picked[0].shape)


def _places(indices: Tensor, shape: torch.Size) -> tuple[Tensor, ...]:
    """Return the index of each axis from rows of indices (..., number of axes)."""
    return tuple(_from_the_front(each, length) for each, length in zip(indices.unbind(-1), shape, strict=False))


@operator("ScatterND")
def _scatter_nd(node: Node, x: Tensor, indices: Tensor, updates: Tensor) -> Tensor:
    reduction = node.get("reduction", "none")
    if reduction not in ("none", "add"):
        raise unsupported(node, f"reduction {reduction!r}")
    return x.index_put(_places(indices, x.shape), updates, accumulate=reduction == "add")


@operator("ScatterElements")
def _scatter_elements(node: Node, x: Tensor, indices: Tensor, updates: Tensor) -> Tensor:
    axis, reduction = node.get("axis", 0), node.get("reduction", "none")
    places = _from_the_front(indices, x.shape[axis])
    if reduction not in ("none", "add"):
        raise unsupported(node, f"reduction {reduction!r}")
    return x.scatter_add(axis, places, updates) if reduction == "add" else x.scatter(axis, places, updates)


@operator("Expand")
def _expand(_node: Node, x: Tensor, shape: Tensor) -> Tensor:
    return x.expand(torch.broadcast_shapes(x.shape, tuple(whole_numbers(shape))))  # type: ignore[no-untyped-call]


@operator("Tile")
def _tile(_node: Node, x: Tensor, repeats: Tensor) -> Tensor:
    return x.repeat(whole_numbers(repeats))


@operator("NonZero")
def _non_zero(_node: Node, x: Tensor) -> Tensor:
    return x.nonzero().T


@operator("OneHot")
def _one_hot(node: Node, indices: Tensor, depth: Tensor, values: Tensor) -> Tensor:
    count, axis = int(depth.item()), node.get("axis", -1)
    on = F.one_hot(torch.remainder(indices.long(), count), count).movedim(-1, axis).bool()
    return torch.where(on, values[1], values[0])


@operator("Trilu")
def _trilu(node: Node, x: Tensor, k: Tensor | None = None) -> Tensor:
    diagonal = 0 if k is None else int(k.item())
    return x.triu(diagonal) if node.get("upper", 1) else x.tril(diagonal)


@operator("Pad")
def _pad(node: Node, x: Tensor, pads: Tensor, value: Tensor | None = None, axes: Tensor | None = None) -> Tensor:
    mode, amounts = node.get("mode", "constant"), whole_numbers(pads)
    along = [axis % x.ndim for axis in whole_numbers(axes)] if axes is not None else list(range(x.ndim))
    before, after = amounts[: len(along)], amounts[len(along) :]
    if mode == "constant":
        flat = [0] * (2 * x.ndim)
        for axis, low, high in zip(along, before, after, strict=True):
            flat[2 * (x.ndim - 1 - axis)], flat[2 * (x.ndim - 1 - axis) + 1] = low, high
        return F.pad(x, flat, value=0.0 if value is None else value.item())
    for axis, low, high in zip(along, before, after, strict=True):
        length = x.shape[axis]
        places = torch.arange(-low, length + high, device=x.device)
        if mode == "edge":
            places = places.clamp(0, length - 1)
        elif mode == "wrap":
            places = places.remainder(length)
        elif mode == "reflect":
            period = max(1, 2 * (length - 1))
            places = (places.remainder(period) - (length - 1)).abs().neg() + (length - 1)
        else:
            raise unsupported(node, f"mode {mode!r}")
        x = x.index_select(axis, places)
    return x


@operator("DepthToSpace")
def _depth_to_space(node: Node, x: Tensor) -> Tensor:
    b, c, h, w = x.shape
    side = node.attributes["blocksize"]
    if node.get("mode", "DCR") == "CRD":
        return F.pixel_shuffle(x, side)
    parts = x.reshape(b, side, side, c // side**2, h, w)
    return parts.permute(0, 3, 4, 1, 5, 2).reshape(b, c // side**2, h * side, w * side)


@operator("SpaceToDepth")
def _space_to_depth(node: Node, x: Tensor) -> Tensor:
    b, c, h, w = x.shape
    side = node.attributes["blocksize"]
    parts = x.reshape(b, c, h // side, side, w // side, side)
    return parts.permute(0, 3, 5, 1, 2, 4).reshape(b, c * side**2, h // side, w // side)
