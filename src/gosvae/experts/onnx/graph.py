"""ONNX files as plain Python: nodes, constants, inputs and outputs.

An ONNX file is data and holds no code, so that it may come from anyone.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from gosvae.errors import ExpertError
from gosvae.extras import needs
from gosvae.files import is_lfs_pointer

OLDEST_OPSET, NEWEST_OPSET = 11, 22
STANDARD_DOMAINS = ("", "ai.onnx")


@dataclass(frozen=True)
class Node:
    """One operation of a graph.

    Attributes:
        operator: name of the operator, with its domain if that is not ONNX's own, such as `com.microsoft.FusedConv`.
        name: name of the node, for messages.
        inputs: names of the values that it takes; an optional input that is left out is empty.
        outputs: names of the values that it makes.
        attributes: settings by name: numbers, text, lists of them, tensors or graphs.
        opset: version of the operator set, which decides the meaning of the operator.
    """

    operator: str
    name: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    attributes: Mapping[str, Any]
    opset: int

    def get(self, name: str, default: Any) -> Any:
        """Return an attribute, or the default where it is left out."""
        return self.attributes.get(name, default)

    def __str__(self) -> str:
        return f"{self.operator} (node {self.name or self.outputs[0]!r}, opset {self.opset})"


@dataclass(frozen=True)
class Input:
    """Input of a graph.

    Attributes:
        shape: length of each axis; None where it is free.
        dtype: type of its values.
    """

    name: str
    shape: tuple[int | None, ...]
    dtype: torch.dtype


@dataclass(frozen=True)
class Graph:
    """A graph in the order of its computation.

    Attributes:
        inputs: inputs that a caller gives; constants are not among them.
        outputs: names of the results.
        constants: tensors by name.
        metadata: text by name that the file's maker wrote into it.
        opset: version of the operator set.
    """

    nodes: tuple[Node, ...]
    inputs: tuple[Input, ...]
    outputs: tuple[str, ...]
    constants: Mapping[str, Tensor]
    metadata: Mapping[str, str]
    opset: int


def read_model(path: Path) -> Any:
    """Return the `onnx.ModelProto` of a file, with weights from files beside it where it names some.

    Raises:
        MissingDependencyError: `onnx` is not installed.
        ExpertError: the file is missing, or is not an ONNX file.
    """
    if not path.is_file():
        raise ExpertError(f"no ONNX file at {path}")
    if is_lfs_pointer(path):
        raise ExpertError(f"{path} is a Git LFS pointer, not the network itself: run git lfs pull in {path.parent}")
    with needs("onnx", "an ONNX expert"):
        import onnx
    try:
        model = onnx.load(path)
    except Exception as error:  # The parser of Protocol Buffers raises errors of its own types.
        raise ExpertError(f"{path} is not an ONNX file that can be read: {_line(error)}") from None
    if not model.graph.node or not model.graph.output:
        raise ExpertError(f"{path} is not an ONNX file: it has no graph")
    return model


def parse_model(model: Any) -> Graph:
    """Return the graph of an `onnx.ModelProto`.

    Raises:
        ExpertError: a constant or an attribute cannot be read.
    """
    versions = {entry.domain: int(entry.version) for entry in model.opset_import}
    opset = max((versions.get(domain, 0) for domain in STANDARD_DOMAINS), default=0)
    metadata = {entry.key: entry.value for entry in model.metadata_props}
    try:
        return _graph(model.graph, opset, metadata)
    except Exception as error:  # Damaged values raise errors of many types.
        raise ExpertError(f"it holds a value that cannot be read: {_line(error)}") from None


def check_opset(graph: Graph) -> None:
    """Refuse a graph whose operators may mean something else than those that are imported.

    Raises:
        ExpertError: the operator set is older than `OLDEST_OPSET` or newer than `NEWEST_OPSET`.
    """
    if not OLDEST_OPSET <= graph.opset <= NEWEST_OPSET:
        raise ExpertError(
            f"it uses operator set {graph.opset}, expected {OLDEST_OPSET} to {NEWEST_OPSET}: convert the file with "
            "onnx.version_converter.convert_version, or export the network again"
        )


def _graph(proto: Any, opset: int, metadata: Mapping[str, str]) -> Graph:
    from onnx import numpy_helper

    constants = {entry.name: _tensor(numpy_helper.to_array(entry)) for entry in proto.initializer}
    nodes = []
    for entry in proto.node:
        domain = "" if entry.domain in STANDARD_DOMAINS else f"{entry.domain}."
        attributes = {each.name: _attribute(each, opset) for each in entry.attribute}
        nodes.append(
            Node(f"{domain}{entry.op_type}", entry.name, tuple(entry.input), tuple(entry.output), attributes, opset)
        )
    inputs = tuple(_input(entry) for entry in proto.input if entry.name not in constants)
    return Graph(tuple(nodes), inputs, tuple(entry.name for entry in proto.output), constants, metadata, opset)


def _input(entry: Any) -> Input:
    from onnx import helper

    kind = entry.type.tensor_type
    shape = tuple(
        int(axis.dim_value) if axis.WhichOneof("value") == "dim_value" and axis.dim_value > 0 else None
        for axis in kind.shape.dim
    )
    array_type = helper.tensor_dtype_to_np_dtype(kind.elem_type) if kind.elem_type else None
    return Input(entry.name, shape, getattr(torch, str(array_type), torch.float32))


def _attribute(entry: Any, opset: int) -> Any:
    """Return the value of an attribute: text is decoded, tensors and graphs are those of PyTorch and of this module."""
    import onnx

    value = onnx.helper.get_attribute_value(entry)
    match entry.type:
        case onnx.AttributeProto.STRING:
            return value.decode()
        case onnx.AttributeProto.STRINGS:
            return [each.decode() for each in value]
        case onnx.AttributeProto.TENSOR:
            return _tensor(onnx.numpy_helper.to_array(value))
        case onnx.AttributeProto.GRAPH:
            return _graph(value, opset, {})
        case onnx.AttributeProto.INTS | onnx.AttributeProto.FLOATS:
            return list(value)
    return value


def _tensor(array: Any) -> Tensor:
    """Return a copy of an array of NumPy as a tensor; the strings of a file's vocabulary become an empty one."""
    import numpy as np

    if array.dtype.kind in "OUS":
        return torch.empty(0)
    if str(array.dtype) == "bfloat16":
        return torch.from_numpy(array.view(np.int16).copy()).view(torch.bfloat16).reshape(array.shape)
    return torch.from_numpy(np.array(array, copy=True)).reshape(tuple(int(n) for n in array.shape))


def _line(error: BaseException) -> str:
    lines = str(error).strip().splitlines()
    return (lines[0] if lines else type(error).__name__)[:160]
