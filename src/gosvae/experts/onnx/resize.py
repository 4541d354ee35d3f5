"""ONNX operators that sample on another grid: Resize and GridSample.

Resize works axis by axis: the source coordinates of all target positions follow from the coordinate transformation, and
every result is a weighted sum of one, two or four neighbours. The usual cases take PyTorch's own function.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from gosvae.experts.onnx.graph import Node
from gosvae.experts.onnx.table import operator, unsupported, whole_numbers


@operator("Resize")
def _resize(
    node: Node,
    x: Tensor,
    roi: Tensor | None = None,
    scales: Tensor | None = None,
    sizes: Tensor | None = None,
) -> Tensor:
    del roi  # only for tf_crop_and_resize
    axes = [axis % x.ndim for axis in node.get("axes", range(x.ndim))]
    if node.get("keep_aspect_ratio_policy", "stretch") != "stretch":
        raise unsupported(node, f"keep_aspect_ratio_policy {node.get('keep_aspect_ratio_policy', '')!r}")
    if sizes is not None and sizes.numel():
        lengths = whole_numbers(sizes)
        factors = [length / x.shape[axis] for axis, length in zip(axes, lengths, strict=True)]
    elif scales is not None and scales.numel():
        factors = [float(factor) for factor in scales.tolist()]
        lengths = [int(x.shape[axis] * factor + 1e-9) for axis, factor in zip(axes, factors, strict=True)]
    else:
        raise unsupported(node, "neither scales nor sizes")
    if node.get("antialias", 0) and any(factor < 1.0 for factor in factors):
        raise unsupported(node, "antialias")  # ONNX Runtime's filter is not that of Pillow and PyTorch.
    fast = _by_pytorch(node, x, axes, lengths, factors)
    if fast is not None:
        return fast
    for axis, length, factor in zip(axes, lengths, factors, strict=True):
        if length != x.shape[axis] or factor != 1.0:
            x = _along(node, x, axis, length, factor)
    return x


def _by_pytorch(node: Node, x: Tensor, axes: list[int], lengths: list[int], factors: list[float]) -> Tensor | None:
    """Return the result of `torch.nn.functional.interpolate` where it means the same; None elsewhere."""
    size = [lengths[axes.index(axis)] if axis in axes else x.shape[axis] for axis in range(x.ndim)]
    exact = all(abs(x.shape[axis] * f - n) < 1e-6 for axis, n, f in zip(axes, lengths, factors, strict=True))
    if x.ndim != 4 or size[:2] != list(x.shape[:2]) or not exact:
        return None
    mode, way = node.get("mode", "nearest"), node.get("coordinate_transformation_mode", "half_pixel")
    if mode == "nearest":
        floor = way == "asymmetric" and node.get("nearest_mode", "round_prefer_floor") == "floor"
        whole = all(n % x.shape[axis] == 0 for axis, n in zip(axes, lengths, strict=True))
        return F.interpolate(x, size[2:], mode="nearest") if floor or (whole and _keeps_cells(node)) else None
    if way == "pytorch_half_pixel" and 1 not in size[2:]:
        way = "half_pixel"
    if mode == "linear" and way in ("half_pixel", "align_corners"):
        return F.interpolate(x, size[2:], mode="bilinear", align_corners=way == "align_corners")
    usual = node.get("cubic_coeff_a", -0.75) == -0.75 and not node.get("exclude_outside", 0)
    if mode == "cubic" and way in ("half_pixel", "align_corners") and usual:
        return F.interpolate(x, size[2:], mode="bicubic", align_corners=way == "align_corners")
    return None


def _keeps_cells(node: Node) -> bool:
    """Return whether enlarging by a whole factor repeats every value, as all rules do that look at pixel centres."""
    return node.get("coordinate_transformation_mode", "half_pixel") in ("half_pixel", "pytorch_half_pixel")


def _sources(node: Node, length: int, target: int, factor: float, device: torch.device) -> Tensor:
    """Return the source coordinate of each of `target` positions."""
    at = torch.arange(target, dtype=torch.float32, device=device)
    way = node.get("coordinate_transformation_mode", "half_pixel")
    if way == "asymmetric":
        return at / factor
    if way == "align_corners":
        return at * ((length - 1) / (target - 1)) if target > 1 else at * 0.0
    if way == "pytorch_half_pixel" and target == 1:
        return at * 0.0
    if way in ("half_pixel", "pytorch_half_pixel"):
        return (at + 0.5) / factor - 0.5
    if way == "half_pixel_symmetric":
        adjusted = target / (factor * length)
        return length / 2 * (1 - adjusted) + (at + 0.5) / factor - 0.5
    raise unsupported(node, f"coordinate_transformation_mode {way!r}")


def _along(node: Node, x: Tensor, axis: int, target: int, factor: float) -> Tensor:
    """Return the values resized along one axis."""
    length, mode = x.shape[axis], node.get("mode", "nearest")
    source = _sources(node, length, target, factor, x.device)
    if mode == "nearest":
        return x.index_select(axis, _nearest(node, source).clamp(0, length - 1))
    shape = [1] * x.ndim
    shape[axis] = target
    if mode == "linear":
        source = source.clamp(0, length - 1)
        low = source.floor().long()
        share = (source - low).to(x.dtype).reshape(shape)
        return torch.lerp(x.index_select(axis, low), x.index_select(axis, (low + 1).clamp(max=length - 1)), share)
    if mode != "cubic" or node.get("exclude_outside", 0):
        raise unsupported(node, f"mode {mode!r}" if mode != "cubic" else "exclude_outside")
    low = source.floor().long()
    shares = _cubic(source - low, node.get("cubic_coeff_a", -0.75))
    parts = [
        x.index_select(axis, (low + offset).clamp(0, length - 1)) * share.to(x.dtype).reshape(shape)
        for offset, share in zip((-1, 0, 1, 2), shares, strict=True)
    ]
    return parts[0] + parts[1] + parts[2] + parts[3]


def _nearest(node: Node, source: Tensor) -> Tensor:
    """Return the index of the nearest value by the node's rule for halves."""
    rule = node.get("nearest_mode", "round_prefer_floor")
    match rule:
        case "floor":
            return source.floor().long()
        case "ceil":
            return source.ceil().long()
        case "round_prefer_ceil":
            return (source + 0.5).floor().long()
        case "round_prefer_floor":
            return (source - 0.5).ceil().long()
    raise unsupported(node, f"nearest_mode {rule!r}")


def _cubic(t: Tensor, a: float) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Return the weights of four neighbours at offset t from the second (Keys 1981)."""
    u = 1.0 - t
    return (
        ((a * (t + 1) - 5 * a) * (t + 1) + 8 * a) * (t + 1) - 4 * a,
        ((a + 2) * t - (a + 3)) * t * t + 1,
        ((a + 2) * u - (a + 3)) * u * u + 1,
        ((a * (u + 1) - 5 * a) * (u + 1) + 8 * a) * (u + 1) - 4 * a,
    )


@operator("GridSample")
def _grid_sample(node: Node, x: Tensor, grid: Tensor) -> Tensor:
    mode = {"linear": "bilinear", "cubic": "bicubic"}.get(node.get("mode", "bilinear"), node.get("mode", "bilinear"))
    return F.grid_sample(
        x,
        grid,
        mode=mode,
        padding_mode=node.get("padding_mode", "zeros"),
        align_corners=bool(node.get("align_corners", 0)),
    )
