"""ONNX files for tests: graphs of a few nodes, and small networks that PyTorch exports."""

from __future__ import annotations

import io
import json
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import torch
from torch import nn


def write_onnx(path: Path, model: Any, card: Mapping[str, Any] | None = None) -> Path:
    """Write a model, and a card beside it."""
    path.write_bytes(model.SerializeToString())
    if card is not None:
        path.with_suffix(".json").write_text(json.dumps(card), encoding="utf-8")
    return path


def graph_model(
    nodes: Sequence[Any],
    inputs: Mapping[str, Sequence[int | str]],
    outputs: Sequence[str],
    constants: Mapping[str, np.ndarray] | None = None,
    *,
    opset: int = 17,
) -> Any:
    """A model of nodes on floating-point inputs of the given shapes; text as a length leaves the axis free."""
    given = [onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, shape) for name, shape in inputs.items()]
    made = [onnx.ValueInfoProto(name=name) for name in outputs]
    initial = [onnx.numpy_helper.from_array(value, name) for name, value in (constants or {}).items()]
    graph = onnx.helper.make_graph(list(nodes), "test", given, made, initial)
    return onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", opset)], ir_version=8)


def exported(network: nn.Module, *, height: int = 64, width: int = 64, opset: int = 17, free: bool = False) -> Any:
    """The model that PyTorch's exporter by tracing writes; with `free` the batch, height and width are free."""
    buffer = io.BytesIO()
    axes = {"x": {0: "batch", 2: "height", 3: "width"}} if free else None
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # The exporter warns of itself and of what it traces.
        torch.onnx.export(
            network.eval(),
            (torch.rand(1, 3, height, width),),
            buffer,
            input_names=["x"],
            opset_version=opset,
            dynamic_axes=axes,
            dynamo=False,
        )
    return onnx.load_from_string(buffer.getvalue())
