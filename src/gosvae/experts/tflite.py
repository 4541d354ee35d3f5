"""Experts from TensorFlow Lite files, which LiteRT computes: they judge codecs, and have no gradients.

Axis legend: B images, H and W pixels, C channels.
"""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from gosvae.errors import ExpertError
from gosvae.experts.onnx.card import load_card
from gosvae.experts.onnx.expert import OnnxExpert, OnnxModel, OnnxSegmenter, expert_of
from gosvae.experts.onnx.graph import Input
from gosvae.extras import needs

SUFFIX = ".tflite"


class TfliteNetwork(nn.Module):
    """Network that LiteRT computes on the CPU; quantised inputs and outputs are converted from and to floats.

    If the images are given as (B, H, W, 3), outputs of four axes are (B, H, W, C), too; (B, C, H, W) is returned.

    Args:
        data: content of the file.

    Attributes:
        inputs: inputs of the file.
        output_names: names of the outputs, in order.

    Raises:
        MissingDependencyError: `ai-edge-litert` is not installed.
        ExpertError: LiteRT cannot read the file.
    """

    def __init__(self, data: bytes) -> None:
        super().__init__()
        with needs("tflite", "a TensorFlow Lite network"):
            from ai_edge_litert.interpreter import Interpreter
        try:
            self._interpreter: Any = Interpreter(model_content=data, num_threads=torch.get_num_threads())
            self._interpreter.allocate_tensors()
        except Exception as error:  # Its errors have no common type.
            raise ExpertError(f"LiteRT cannot read the network: {_line(error)}") from None
        self._given, self._made = self._interpreter.get_input_details(), self._interpreter.get_output_details()
        shapes = [tuple(int(n) for n in each["shape"]) for each in self._given]
        self.inputs = tuple(
            Input(each["name"], shape, torch.float32) for each, shape in zip(self._given, shapes, strict=True)
        )
        self.output_names = tuple(each["name"] for each in self._made)
        self._channels_last = bool(shapes) and len(shapes[0]) == 4 and shapes[0][1] != 3 and shapes[0][-1] == 3

    def forward(self, *inputs: Tensor) -> tuple[Tensor, ...]:
        """Return the outputs for the file's inputs, float32.

        Raises:
            ExpertError: a gradient is asked for, or the network cannot take the inputs.
        """
        if torch.is_grad_enabled() and any(value.requires_grad for value in inputs):
            raise ExpertError(
                "this network is computed by LiteRT, which gives no gradient: it can judge a codec, but no codec can "
                "be trained with it"
            )
        device = inputs[0].device
        try:
            for details, value in zip(self._given, inputs, strict=True):
                self._interpreter.set_tensor(details["index"], _quantised(value.detach().cpu().numpy(), details))
            self._interpreter.invoke()
            arrays = [_real(self._interpreter.get_tensor(each["index"]), each) for each in self._made]
        except (RuntimeError, ValueError) as error:
            raise ExpertError(f"LiteRT cannot compute the network: {_line(error)}") from None
        if self._channels_last:
            arrays = [np.moveaxis(array, -1, 1) if array.ndim == 4 else array for array in arrays]
        return tuple(torch.from_numpy(np.array(array, np.float32, order="C")).to(device) for array in arrays)


def _quantised(values: np.ndarray, details: dict[str, Any]) -> np.ndarray:
    """Return values in the type of an input."""
    kind, (scale, zero) = np.dtype(details["dtype"]), details["quantization"]
    if kind.kind == "f":
        return values.astype(kind)
    limits = np.iinfo(kind)
    steps = values / scale if scale else values
    quantised: np.ndarray = (steps.round() + zero).clip(limits.min, limits.max).astype(kind)
    return quantised


def _real(values: np.ndarray, details: dict[str, Any]) -> np.ndarray:
    """Return the values of an output as floats."""
    scale, zero = details["quantization"]
    real = values.astype(np.float32)
    return (real - zero) * scale if values.dtype.kind != "f" and scale else real


def _line(error: Exception) -> str:
    return " ".join(str(error).split())[:200]


def load_tflite_expert(path: Path, *, gradients: bool = True) -> OnnxSegmenter | OnnxExpert:
    """Load `NAME.tflite` with the card `NAME.json` beside it, which has the keys of a card of an ONNX network.

    Args:
        path: file. It is data and holds no code.
        gradients: whether gradients are needed; there are none.

    Raises:
        MissingDependencyError: `ai-edge-litert` is not installed.
        ExpertError: gradients are needed, the file cannot be read, or the answer is not what the card says.
        ConfigError: the card has unknown keys or impossible values.
    """
    if not path.is_file():
        raise ExpertError(f"no TensorFlow Lite file at {path}")
    if gradients:
        raise ExpertError(
            f"{path}: a TensorFlow Lite network has no gradients: it can judge a codec, but no codec can be trained "
            "with it; give the network as ONNX or PyTorch"
        )
    card, data = load_card(path.with_suffix(".json"), {}), path.read_bytes()
    try:
        network = TfliteNetwork(data)
        return expert_of(OnnxModel(network.inputs, card, network, hashlib.sha256(data).digest()), path)
    except ExpertError as error:
        raise ExpertError(f"{path}: {error}") from error
