"""The JSON file beside an ONNX network: its task, its classes, what it expects of an image and what it answers."""

from __future__ import annotations

import ast
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, field_validator, model_validator

from gosvae.config import Config, parse
from gosvae.errors import ExpertError, unknown_name
from gosvae.experts.base import IGNORE_INDEX
from gosvae.files import is_lfs_pointer
from gosvae.plugins import plugin_names

TASK_NAMES = ("segmentation", "detection", "depth", "keypoints", "lanes", "features")
"""Names of the tasks of the package."""
BoxLayout = Literal["fastestdet", "yolov8", "yolov5", "detr", "rt-detr"]
Three = Annotated[tuple[float, ...], Field(min_length=3, max_length=3)]


class OnnxCard(Config):
    """Content of `NAME.json` beside `NAME.onnx`; every key may be left out.

    Without a card the network is an expert of `features`, all its outputs are imitated, and it gets RGB in [0, 1].

    Attributes:
        name: name in tables; by default the stem of the file.
        task: one of `TASK_NAMES`, or a task that an installed package registers as `gosvae.tasks`.
        class_names: names of the classes, in the order of the outputs.
        ignore_index: label that is not counted.
        input_height, input_width: image size that the network expects, where the graph leaves it free.
        scale, mean, std: the network gets (scale * x - mean) / std of x in [0, 1]; 255 for a network of 8-bit levels.
        channel_order: order of the colours that the network gets.
        fit: how an image is brought to the network's size: stretched, or shrunk within a grey frame.
        stride: number of pixels whose multiples the network takes, where the graph leaves the size free and none is
            given.
        outputs: names of the values that are the answer, in order; values within the graph may be named too. All
            outputs by default.
        boxes: layout of the answer of a detector. `fastestdet`: objectness, box and class probabilities of each cell,
            (B, 5 + m, h, w). `yolov8`: centre, size in pixels and class probabilities, (B, 4 + m, N). `yolov5`: the
            same with the objectness before the classes, (B, N, 5 + m). `detr`: class logits with "no object" last
            (B, N, m + 1), then centre and size as shares (B, N, 4). `rt-detr`: the same, with independent classes
            (B, N, m).
        constants: values of further inputs by name, such as the size of the original image.
        runtime: whether ONNX Runtime computes the network, without gradients.
    """

    name: str | None = None
    task: str = "features"
    class_names: Annotated[tuple[str, ...], Field(max_length=10_000)] = ()
    ignore_index: int = Field(default=IGNORE_INDEX, ge=0, le=255)
    input_height: int | None = Field(default=None, gt=0)
    input_width: int | None = Field(default=None, gt=0)
    scale: float = Field(default=1.0, gt=0)
    mean: Three = (0.0, 0.0, 0.0)
    std: Annotated[tuple[Annotated[float, Field(gt=0)], ...], Field(min_length=3, max_length=3)] = (1.0, 1.0, 1.0)
    channel_order: Literal["rgb", "bgr"] = "rgb"
    fit: Literal["resize", "letterbox"] = "resize"
    stride: int = Field(default=32, ge=1, le=1024)
    outputs: tuple[str, ...] = ()
    boxes: BoxLayout | None = None
    constants: Mapping[str, Any] = {}
    runtime: bool = False

    @field_validator("task")
    @classmethod
    def _known(cls, name: str) -> str:
        """Refuse unknown tasks. A file of a program is refused too, because a card is data."""
        if name not in TASK_NAMES and name not in plugin_names("tasks"):
            raise ValueError(unknown_name("task", name, [*TASK_NAMES, *plugin_names("tasks")]))
        return name

    @model_validator(mode="after")
    def _what_the_task_needs(self) -> OnnxCard:
        if self.task == "detection" and self.boxes is None:
            raise ValueError("a detector needs 'boxes', the layout of its answer")
        if self.task in ("segmentation", "detection") and not self.class_names:
            raise ValueError(f"the task {self.task!r} needs 'class_names'")
        if (self.input_height is None) != (self.input_width is None):
            raise ValueError("input_height and input_width are given together")
        return self


def load_card(path: Path, metadata: Mapping[str, str]) -> OnnxCard:
    """Return the card in a file; without the file, that of the metadata that Ultralytics writes, or the default.

    Raises:
        ExpertError: the file is not JSON.
        ConfigError: it has unknown keys or impossible values.
    """
    if not path.is_file():
        return _from_metadata(metadata)
    try:
        tree = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        if is_lfs_pointer(path):
            raise ExpertError(f"{path} is a Git LFS pointer: run git lfs pull in {path.parent}") from None
        raise ExpertError(f"{path} is not valid JSON: {error}") from None
    return parse(OnnxCard, tree, source=str(path))


def _from_metadata(metadata: Mapping[str, str]) -> OnnxCard:
    """Return the card that the metadata of a YOLO detector describe, or the default."""
    if metadata.get("task") != "detect" or metadata.get("end2end", "False") == "True":
        return OnnxCard()
    try:
        names = ast.literal_eval(metadata["names"])
        class_names = tuple(str(names[i]) for i in range(len(names)))
    except (KeyError, ValueError, SyntaxError, TypeError):
        return OnnxCard()
    return OnnxCard(task="detection", class_names=class_names, boxes="yolov8", fit="letterbox")
