"""TensorFlow Lite files for tests, written with the schema of LiteRT: one operator on images (1, H, W, 3)."""

from __future__ import annotations

from typing import Any

import numpy as np


def pooling_file(height: int, width: int, side: int, *, scale: float | None = None) -> bytes:
    """Return a file of an average pooling of squares; with a scale, inputs and outputs are 8-bit integers."""
    import flatbuffers
    from ai_edge_litert import schema_py_generated as schema

    kind = schema.TensorType.FLOAT32 if scale is None else schema.TensorType.UINT8

    def tensor(name: str, shape: tuple[int, ...]) -> Any:
        made = schema.TensorT()
        made.name, made.shape, made.type, made.buffer = name.encode(), np.array(shape, np.int32), kind, 0
        if scale is not None:
            made.quantization = schema.QuantizationParametersT()
            made.quantization.scale, made.quantization.zeroPoint = [scale], [0]
        return made

    options = schema.Pool2DOptionsT()
    options.padding = schema.Padding.VALID
    options.strideH = options.strideW = options.filterHeight = options.filterWidth = side
    operator = schema.OperatorT()
    operator.opcodeIndex, operator.inputs, operator.outputs = 0, [0], [1]
    operator.builtinOptionsType, operator.builtinOptions = schema.BuiltinOptions.Pool2DOptions, options
    graph = schema.SubGraphT()
    graph.tensors = [tensor("images", (1, height, width, 3)), tensor("means", (1, height // side, width // side, 3))]
    graph.inputs, graph.outputs, graph.operators = [0], [1], [operator]
    code = schema.OperatorCodeT()
    code.builtinCode = code.deprecatedBuiltinCode = schema.BuiltinOperator.AVERAGE_POOL_2D
    code.version = 1
    model = schema.ModelT()
    model.version, model.operatorCodes, model.subgraphs, model.buffers = 3, [code], [graph], [schema.BufferT()]
    builder = flatbuffers.Builder(1024)
    builder.Finish(model.Pack(builder), b"TFL3")
    return bytes(builder.Output())
