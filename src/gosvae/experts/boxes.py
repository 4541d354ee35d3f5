"""Answers of detectors of several makers as `DenseBoxes`.

Axis legend: B images, N candidates, m classes, h and w cells.
"""

from __future__ import annotations

import torch
from torch import Tensor

from gosvae.experts.base import DenseBoxes

_OBJECTNESS_POWER, _CLASS_POWER = 0.6, 0.4
_LEAST = 1e-6
"""Probability below which FastestDet's powers are constant: their slope at 0 is infinite."""


def corners_of(centres_BN4: Tensor) -> Tensor:
    """Return left, top, right and bottom from centre x, centre y, width and height."""
    centre, half = centres_BN4[..., :2], centres_BN4[..., 2:] / 2
    return torch.cat([centre - half, centre + half], dim=-1)


def fastestdet_boxes(output_BChw: Tensor) -> DenseBoxes:
    """Return the candidates of FastestDet: objectness, four box terms and class probabilities (B, 5 + m, h, w).

    The score is `objectness^0.6 * class^0.4`, as in its authors' post-processing, so both factors are given as powers.
    """
    h, w = output_BChw.shape[-2:]
    cells_BCN = output_BChw.flatten(2)
    rows_N = torch.arange(h, device=cells_BCN.device).repeat_interleave(w)
    columns_N = torch.arange(w, device=cells_BCN.device).repeat(h)
    x_BN, y_BN = (columns_N + cells_BCN[:, 1].tanh()) / w, (rows_N + cells_BCN[:, 2].tanh()) / h
    centres_BN4 = torch.stack([x_BN, y_BN, cells_BCN[:, 3].sigmoid(), cells_BCN[:, 4].sigmoid()], dim=-1)
    objectness_BN = cells_BCN[:, 0].clamp(_LEAST, 1) ** _OBJECTNESS_POWER
    classes_BNm = cells_BCN[:, 5:].clamp(_LEAST, 1).transpose(1, 2) ** _CLASS_POWER
    return DenseBoxes(objectness_BN, classes_BNm, corners_of(centres_BN4))


def yolo_boxes(output_BNC: Tensor, input_hw: tuple[int, int], *, objectness: bool) -> DenseBoxes:
    """Return the candidates of a YOLO network: centre and size in pixels, the objectness if it has one, and classes."""
    height, width = input_hw
    centres_BN4 = output_BNC[..., :4] / output_BNC.new_tensor([width, height, width, height])
    first = 5 if objectness else 4
    classes_BNm = output_BNC[..., first:]
    sure_BN = output_BNC[..., 4] if objectness else torch.ones_like(output_BNC[..., 0])
    return DenseBoxes(sure_BN, classes_BNm, corners_of(centres_BN4))


def query_boxes(logits_BNn: Tensor, centres_BN4: Tensor, *, no_object: bool) -> DenseBoxes:
    """Return the candidates of a DETR network from class logits and boxes as shares.

    Args:
        logits_BNn: logits of the classes; with `no_object` of one softmax with "no object" last, else independent.
        centres_BN4: centre x, centre y, width and height from 0 to 1.
        no_object: whether the last logit stands for "no object".
    """
    corners_BN4 = corners_of(centres_BN4.float())
    if not no_object:
        classes_BNm = logits_BNn.float().sigmoid()
        return DenseBoxes(torch.ones_like(classes_BNm[..., 0]), classes_BNm, corners_BN4)
    probabilities_BNn = logits_BNn.float().softmax(dim=-1)
    objectness_BN = 1.0 - probabilities_BNn[..., -1]
    return DenseBoxes(objectness_BN, logits_BNn[..., :-1].float().softmax(dim=-1), corners_BN4)
