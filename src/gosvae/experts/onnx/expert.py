"""Experts from ONNX files, of any task.

Axis legend: B images, H and W pixels, h and w pixels of the network's input, N candidates, C channels, m classes.
"""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from gosvae import walk
from gosvae.errors import ExpertError
from gosvae.experts.base import DenseBoxes, Expert, ExpertInfo, Output, TaskExpert
from gosvae.experts.boxes import fastestdet_boxes, query_boxes, yolo_boxes
from gosvae.experts.fitting import Fit, Placement, place
from gosvae.experts.onnx.card import TASK_NAMES, OnnxCard, load_card
from gosvae.experts.onnx.graph import Input, check_opset, parse_model, read_model
from gosvae.experts.onnx.network import OnnxNetwork
from gosvae.experts.onnx.runtime import (
    Comparison,
    RuntimeNetwork,
    check_against_runtime,
    check_pictures,
    compare,
)
from gosvae.tensors import ImageArray, image_to_tensor

log = logging.getLogger(__name__)
SUFFIX = ".onnx"


class Network(Protocol):
    """A network of any runtime, from the inputs of its file to its answer."""

    output_names: tuple[str, ...]

    def __call__(self, *inputs: Tensor) -> tuple[Tensor, ...]: ...


_DEFAULT_SIDE = 256
"""Height and width of the check where neither the graph nor the card says a size."""


class OnnxModel(nn.Module):
    """An ONNX network with its card: images in [0, 1] to the tensors of its answer.

    Args:
        inputs: inputs of the file.
        card: what the network expects.
        network: network of the graph.
        digest: SHA-256 of the file, which belongs to the fingerprint, as the card does.
    """

    mean_3: Tensor
    std_3: Tensor

    def __init__(self, inputs: Sequence[Input], card: OnnxCard, network: Network, digest: bytes) -> None:
        super().__init__()
        self.card, self.network = card, network
        self._image, self._others = _inputs(inputs, card)
        self._channels_last = self._image.shape[1] != 3 and self._image.shape[-1] == 3
        self.batch = self._image.shape[0]
        self.register_buffer("mean_3", torch.tensor(card.mean))
        self.register_buffer("std_3", torch.tensor(card.std))
        whole = hashlib.sha256(digest + card.model_dump_json(exclude={"name"}).encode()).digest()
        self.register_buffer("file_sha256", torch.tensor(list(whole), dtype=torch.uint8))

    @property
    def input_hw(self) -> tuple[int, int] | None:
        """Height and width that the network takes; None if it takes any."""
        shape, card = self._image.shape, self.card
        height, width = (shape[1], shape[2]) if self._channels_last else (shape[2], shape[3])
        height, width = height or card.input_height, width or card.input_width
        return None if height is None or width is None else (height, width)

    def arguments(self, x_B3HW: Tensor) -> tuple[list[Tensor], Placement]:
        """Return the inputs of the graph for images in [0, 1], and the place of the images in them."""
        size, fit = self.input_hw, self.card.fit
        chosen: Fit = fit
        if size is None:
            stride = self.card.stride
            size, chosen = (_up(x_B3HW.shape[-2], stride), _up(x_B3HW.shape[-1], stride)), "pad"
        x, placement = place(x_B3HW, size, chosen)
        if self.card.channel_order == "bgr":
            x = x.flip(1)
        x = (x * self.card.scale - self.mean_3[:, None, None]) / self.std_3[:, None, None]
        x = x.permute(0, 2, 3, 1) if self._channels_last else x
        return [x.to(self._image.dtype), *(each.to(x.device) for each in self._others)], placement

    def forward(self, x_B3HW: Tensor) -> tuple[tuple[Tensor, ...], Placement]:
        """Return the tensors of the answer, images first, and the place of the images in the network's input.

        Raises:
            ExpertError: the network cannot take the images, or does not answer for each of them.
        """
        (x, *others), placement = self.arguments(x_B3HW)
        count = len(x)
        part = self.batch or count
        missing = -count % part
        x = torch.cat([x, x[-1:].expand(missing, *x.shape[1:])]) if missing else x
        answers = zip(*(self.network(piece, *others) for piece in torch.split(x, part)), strict=True)
        found = []
        for name, pieces in zip(self.network.output_names, answers, strict=True):
            if pieces[0].ndim == 0 or len(pieces[0]) != part:
                raise ExpertError(f"its output {name!r} is {tuple(pieces[0].shape)}, expected {part} images first")
            found.append(torch.cat(pieces)[:count])
        return tuple(value.float() for value in found), placement

    def check(self, model: Any, source: str) -> Comparison:
        """Compare the imported network with ONNX Runtime; see `check_against_runtime`."""
        assert isinstance(self.network, OnnxNetwork)
        size = self.input_hw or (_up(_DEFAULT_SIDE, self.card.stride), _up(_DEFAULT_SIDE, self.card.stride))
        pictures = [picture.expand(self.batch or 1, -1, -1, -1) for picture in check_pictures(*size)]
        inputs = [self.arguments(each)[0] for each in pictures]
        try:
            return check_against_runtime(self.network, model, inputs, source)
        except ExpertError as error:
            if self.input_hw is not None:
                raise
            raise ExpertError(
                f"{error}; its size is free and was taken as {size[0]}x{size[1]}: if it needs another, set "
                '"input_height" and "input_width" in its card'
            ) from error


def _up(length: int, stride: int) -> int:
    return -(-length // stride) * stride


def _inputs(inputs: Sequence[Input], card: OnnxCard) -> tuple[Input, list[Tensor]]:
    """Return the input for images, and the values of all others from the card.

    Raises:
        ExpertError: there is not one input for images, or another one has no value.
    """
    others = [each for each in inputs if each.name in card.constants]
    left = [each for each in inputs if each.name not in card.constants]
    fits = len(left) == 1 and len(left[0].shape) == 4 and 3 in (left[0].shape[1], left[0].shape[-1])
    if not fits or inputs[0] is not left[0] or not left[0].dtype.is_floating_point:
        got = ", ".join(f"{each.name} {each.shape} {each.dtype}".replace("torch.", "") for each in inputs)
        raise ExpertError(
            f"expected a network whose first input is images (B, 3, H, W) of floating point, got {got or 'no input'}; "
            "values of further inputs belong to 'constants' of the card"
        )
    return left[0], [torch.tensor(card.constants[each.name]).to(each.dtype) for each in others]


class OnnxSegmenter(Expert):
    """Expert of segmentation from an ONNX file."""

    def __init__(self, info: ExpertInfo, model: OnnxModel) -> None:
        super().__init__(info)
        self.model = model
        self.freeze()

    def class_logits(self, x_B3HW: Tensor) -> Tensor:
        """Return logits (B, m, H, W), bilinearly resized from those of the network."""
        (logits, *_), placement = _answer(self, self.model, x_B3HW)
        if logits.ndim != 4:
            raise ExpertError(
                f"expert {self.info.name!r} returned {tuple(logits.shape)} where logits (B, m, h, w) were expected"
            )
        return placement.on_image(logits)


class OnnxExpert(TaskExpert):
    """Expert of any other task from an ONNX file."""

    def __init__(self, info: ExpertInfo, model: OnnxModel) -> None:
        super().__init__(info)
        self.task = model.card.task
        self.model = model
        self.freeze()

    def dense(self, x_B3HW: Tensor) -> Output:
        """Return the output of the task, see `TaskExpert`; a task of another package gets all outputs as a tuple.

        Raises:
            ExpertError: the network's answer has another layout than its card says.
        """
        found, placement = _answer(self, self.model, x_B3HW)
        if self.task == "features" or self.task not in TASK_NAMES:
            return found
        if self.task == "detection":
            boxes = self._boxes(found, placement.input_hw)
            return boxes._replace(corners_BN4=placement.corners(boxes.corners_BN4))
        maps = found[0]
        if self.task == "depth":
            maps = maps[:, None] if maps.ndim == 3 else maps
        if maps.ndim != 4 or (self.task == "depth" and maps.shape[1] != 1):
            raise self._wrong(maps, "maps (B, 1, h, w)" if self.task == "depth" else "maps (B, K, h, w)")
        return placement.inside(maps)

    def _boxes(self, found: tuple[Tensor, ...], input_hw: tuple[int, int]) -> DenseBoxes:
        """Return the candidates as shares of the network's input."""
        layout, count, first = self.model.card.boxes, len(self.info.class_names), found[0]
        match layout:
            case "fastestdet":
                if first.ndim != 4 or first.shape[1] != 5 + count:
                    raise self._wrong(first, f"(B, {5 + count}, h, w)")
                return fastestdet_boxes(first)
            case "yolov8" | "yolov5":
                width = (4 if layout == "yolov8" else 5) + count
                rows = first.transpose(1, 2) if first.ndim == 3 and first.shape[1] == width else first
                if rows.ndim != 3 or rows.shape[-1] != width:
                    raise self._wrong(first, f"candidates of {width} values")
                return yolo_boxes(rows, input_hw, objectness=layout == "yolov5")
            case _:
                known = count + (layout == "detr")
                if len(found) < 2 or first.ndim != 3 or first.shape[-1] != known or found[1].shape[-1] != 4:
                    raise self._wrong(first, f"class logits (B, N, {known}) and boxes (B, N, 4)")
                return query_boxes(first, found[1], no_object=layout == "detr")

    def _wrong(self, got: Tensor, expected: str) -> ExpertError:
        return ExpertError(
            f"expert {self.info.name!r} returned {tuple(got.shape)} where {expected} was expected: check the card's "
            "'class_names', 'boxes' and 'outputs'"
        )


def _answer(expert: TaskExpert, model: OnnxModel, x_B3HW: Tensor) -> tuple[tuple[Tensor, ...], Placement]:
    try:
        found: tuple[tuple[Tensor, ...], Placement] = model(x_B3HW)
    except ExpertError as error:
        shape = tuple(x_B3HW.shape)
        raise ExpertError(f"expert {expert.info.name!r} cannot take an input of {shape}: {error}") from error
    return found


def load_onnx_expert(path: Path, *, gradients: bool = True) -> OnnxSegmenter | OnnxExpert:
    """Load `NAME.onnx` with the card `NAME.json` beside it, if there is one.

    The operators are imported onto PyTorch and the answers are compared with those of ONNX Runtime. An ONNX file is
    data and holds no code.

    Args:
        path: file.
        gradients: whether gradients are needed. If not, ONNX Runtime computes a network that cannot be imported.

    Raises:
        MissingDependencyError: `onnx` or `onnxruntime` is not installed.
        ExpertError: the file cannot be read, an operator is unknown or differs from ONNX Runtime's (the message names
            the first), or the answer is not what the card says.
        ConfigError: the card has unknown keys or impossible values.
    """
    model = read_model(path)
    card = load_card(path.with_suffix(".json"), {entry.key: entry.value for entry in model.metadata_props})
    digest = _digest(path, model)
    try:
        held = _imported(model, card, digest)
    except ExpertError as error:
        if card.runtime or not gradients:
            if not card.runtime:
                log.warning("%s: %s; ONNX Runtime computes it, without gradients", path, error)
            held = OnnxModel(parse_model(model).inputs, card, RuntimeNetwork(model, card.outputs), digest)
        else:
            raise ExpertError(f"{path}: {error}") from error
    return expert_of(held, path)


def _digest(path: Path, model: Any) -> bytes:
    """Return the SHA-256 of a file and of the weights in files beside it."""
    digest = hashlib.sha256(path.read_bytes())
    for tensor in model.graph.initializer:
        digest.update(tensor.raw_data)
    return digest.digest()


def expert_of(held: OnnxModel, path: Path) -> OnnxSegmenter | OnnxExpert:
    """Return the expert of a network from a file.

    Raises:
        ExpertError: the answer is not what the card says.
    """
    card = held.card
    size = held.input_hw or (_up(_DEFAULT_SIDE, card.stride), _up(_DEFAULT_SIDE, card.stride))
    info = ExpertInfo(card.name or path.stem, card.class_names, *size, ignore_index=card.ignore_index)
    expert = OnnxSegmenter(info, held) if card.task == "segmentation" else OnnxExpert(info, held)
    with torch.inference_mode():  # A card that does not fit is found here, before hours of training.
        expert(torch.zeros(1, 3, *size))
    return expert


def difference_from_runtime(expert: OnnxSegmenter | OnnxExpert, images: Iterable[ImageArray]) -> Comparison:
    """Return the largest difference of an expert's network from ONNX Runtime on images, such as those of a data set.

    Raises:
        ExpertError: the file that it was loaded from is not there any more, or cannot take an image.
    """
    model, held = read_model(walk.expanded(expert.info.source)), expert.model
    reference, worst = RuntimeNetwork(model, held.network.output_names), Comparison(0.0, 0.0)
    for image in images:
        x = image_to_tensor(image).to(held.mean_3.device).expand(held.batch or 1, -1, -1, -1)
        arguments = held.arguments(x)[0]
        with torch.no_grad():
            found = compare(held.network(*arguments), [y.cpu() for y in reference(*arguments)])
        worst = max(worst, found, key=lambda each: each.difference)
    return worst


def _imported(model: Any, card: OnnxCard, digest: bytes) -> OnnxModel:
    if card.runtime:
        raise ExpertError("its card asks for ONNX Runtime")
    graph = parse_model(model)
    check_opset(graph)
    held = OnnxModel(graph.inputs, card, OnnxNetwork(graph, card.outputs), digest)
    held.check(model, "the network")
    return held
