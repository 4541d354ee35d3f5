"""Every imported ONNX operator against ONNX Runtime, over its settings and operator sets."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest
import torch

onnx = pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")

from experts.onnx_files import graph_model  # noqa: E402
from gosvae.errors import ExpertError  # noqa: E402
from gosvae.experts.onnx.graph import Node, parse_model  # noqa: E402
from gosvae.experts.onnx.network import OnnxNetwork  # noqa: E402
from gosvae.experts.onnx.runtime import RuntimeNetwork, compare  # noqa: E402
from gosvae.experts.onnx.table import OPERATORS  # noqa: E402

Case = tuple[str, tuple[int, ...], Mapping[str, Any], list[Any], int]
IMAGE = (2, 6, 9, 11)


def ints(*values: int) -> np.ndarray:
    return np.array(values, np.int64)


def floats(*shape: int) -> np.ndarray:
    return np.random.default_rng(len(shape) + sum(shape)).normal(size=shape).astype(np.float32)


UNARY = (
    "Abs Neg Exp Floor Ceil Round Sign Erf Sigmoid Tanh Relu Softplus Softsign Sin Cos Tan Atan Sinh Cosh Identity "
    "HardSwish Elu Celu Selu LeakyRelu HardSigmoid ThresholdedRelu GlobalAveragePool GlobalMaxPool"
).split()
BINARY = "Add Sub Mul Div Max Min Mean Sum".split()
COMPARISONS = "Equal Greater GreaterOrEqual Less LessOrEqual".split()
REDUCTIONS = "Mean Sum Max Min Prod L1 L2 SumSquare LogSumExp".split()
RESIZES = [
    {"mode": mode, "coordinate_transformation_mode": way, **more}
    for mode in ("nearest", "linear", "cubic")
    for way in ("half_pixel", "asymmetric", "align_corners", "pytorch_half_pixel")
    for more in ([{"nearest_mode": r} for r in ("floor", "round_prefer_floor", "ceil")] if mode == "nearest" else [{}])
]

CASES: list[Case] = [
    *((name, IMAGE, {}, [], 17) for name in UNARY),
    *((name, IMAGE, {}, [floats(6, 1, 11)], 17) for name in BINARY),
    *((name, IMAGE, {}, [floats(6, 1, 11)], 17) for name in COMPARISONS),
    *((f"Reduce{name}", IMAGE, {"axes": [1, 3], "keepdims": 0}, [], 13) for name in REDUCTIONS if name != "Sum"),
    *((f"Reduce{name}", IMAGE, {"keepdims": 1}, [ints(-1, 2)], 18) for name in REDUCTIONS),
    ("ReduceSum", IMAGE, {"axes": [1]}, [], 11),
    ("ReduceSum", IMAGE, {"noop_with_empty_axes": 1}, [], 13),
    *(("Softmax", IMAGE, {"axis": axis}, [], opset) for axis in (1, 2) for opset in (11, 13)),
    ("LogSoftmax", IMAGE, {"axis": -1}, [], 13),
    ("Clip", IMAGE, {}, [np.float32(-0.5), np.float32(0.5)], 13),
    ("Clip", IMAGE, {}, [None, np.float32(0.5)], 13),
    ("Pow", IMAGE, {}, [np.float32(2.0)], 13),
    ("PRelu", IMAGE, {}, [floats(6, 1, 1)], 16),
    ("Gelu", IMAGE, {"approximate": "tanh"}, [], 20),
    ("Gelu", IMAGE, {}, [], 20),
    ("Mish", IMAGE, {}, [], 18),
    ("Mod", IMAGE, {"fmod": 1}, [np.float32(0.7)], 13),
    ("Cast", IMAGE, {"to": 7}, [], 13),
    ("CumSum", IMAGE, {"exclusive": 1, "reverse": 1}, [np.array(2, np.int64)], 14),
    ("CumSum", IMAGE, {}, [np.array(2, np.int64)], 14),
    ("ArgMax", IMAGE, {"axis": 1, "keepdims": 0}, [], 13),
    ("ArgMin", IMAGE, {"axis": -1, "select_last_index": 1}, [], 13),
    ("TopK", IMAGE, {"axis": -1}, [ints(3)], 11),
    ("Where", IMAGE, {}, [], 16),
    ("Shape", IMAGE, {"start": 1, "end": 3}, [], 15),
    ("Size", IMAGE, {}, [], 13),
    ("Reshape", IMAGE, {}, [ints(0, 2, -1)], 13),
    ("Flatten", IMAGE, {"axis": 2}, [], 13),
    ("Flatten", IMAGE, {"axis": -1}, [], 13),
    ("Squeeze", (1, 3, 1, 4), {"axes": [0]}, [], 11),
    ("Squeeze", (1, 3, 1, 4), {}, [ints(0, -2)], 13),
    ("Squeeze", (1, 3, 1, 4), {}, [], 13),
    ("Unsqueeze", (3, 4), {"axes": [0, -1]}, [], 11),
    ("Unsqueeze", (3, 4), {}, [ints(3, 0)], 13),
    ("Transpose", IMAGE, {"perm": [0, 3, 1, 2]}, [], 13),
    ("Transpose", IMAGE, {}, [], 13),
    ("Concat", IMAGE, {"axis": 1}, [floats(*IMAGE)], 13),
    ("Split", IMAGE, {"axis": 1, "split": [2, 4]}, [], 11),
    ("Split", IMAGE, {"axis": 1}, [ints(1, 5)], 13),
    ("Split", IMAGE, {"axis": 1}, [], 13),
    ("Split", IMAGE, {"axis": 3, "num_outputs": 2}, [], 18),
    ("Slice", IMAGE, {}, [ints(1, 100), ints(2**62, -(2**62)), ints(1, 3), ints(2, -3)], 13),
    ("Slice", IMAGE, {}, [ints(0, -4), ints(1, -1), ints(0, 2)], 13),
    ("Slice", IMAGE, {}, [ints(0, 2), ints(2, 5)], 11),
    ("Gather", IMAGE, {"axis": 2}, [ints(0, -1, 3).reshape(3, 1)], 13),
    ("Gather", IMAGE, {"axis": 0}, [np.array(1, np.int64)], 13),
    ("GatherElements", IMAGE, {"axis": 1}, [np.full((2, 2, 9, 11), -1, np.int64)], 13),
    ("GatherND", IMAGE, {}, [np.array([[0, 1], [-1, 2]], np.int64)], 13),
    ("GatherND", IMAGE, {"batch_dims": 1}, [np.array([[0, 1], [-1, 2]], np.int64)], 13),
    ("ScatterND", IMAGE, {}, [np.array([[0, 1], [-1, 2]], np.int64), floats(2, 9, 11)], 16),
    ("ScatterND", IMAGE, {"reduction": "add"}, [np.array([[0, 1], [0, 1]], np.int64), floats(2, 9, 11)], 16),
    ("ScatterElements", IMAGE, {"axis": 1}, [np.full((2, 1, 9, 11), 2, np.int64), floats(2, 1, 9, 11)], 16),
    ("Expand", (3, 1), {}, [ints(2, 1, 4)], 13),
    ("Tile", (3, 2), {}, [ints(2, 3)], 13),
    ("Trilu", (4, 5), {"upper": 0}, [np.array(1, np.int64)], 14),
    ("Pad", IMAGE, {}, [ints(0, 0, 1, 2, 0, 1, 0, 3), np.float32(0.5)], 13),
    ("Pad", IMAGE, {}, [ints(0, 0, -1, 2, 0, 0, 0, -3)], 13),
    ("Pad", IMAGE, {}, [ints(1, 2, 0, 1), np.float32(1.0), ints(-1, 2)], 18),
    *(("Pad", IMAGE, {"mode": mode}, [ints(0, 1, 3, 2, 0, 0, 4, 3)], 13) for mode in ("edge", "reflect")),
    ("Pad", IMAGE, {"mode": "wrap"}, [ints(0, 1, 3, 2, 0, 0, 4, 3)], 19),
    *(("DepthToSpace", (2, 8, 3, 4), {"blocksize": 2, "mode": mode}, [], 13) for mode in ("DCR", "CRD")),
    ("SpaceToDepth", (2, 3, 4, 6), {"blocksize": 2}, [], 13),
    ("MatMul", (2, 3, 4), {}, [floats(4, 5)], 13),
    ("Gemm", (3, 4), {"transB": 1, "alpha": 0.5, "beta": 2.0}, [floats(5, 4), floats(5)], 13),
    ("Gemm", (4, 3), {"transA": 1}, [floats(4, 5)], 13),
    ("Einsum", (2, 3, 4), {"equation": "bij,jk->bik"}, [floats(4, 5)], 13),
    ("Conv", IMAGE, {"pads": [1, 1, 1, 1]}, [floats(4, 6, 3, 3), floats(4)], 11),
    ("Conv", IMAGE, {"pads": [0, 1, 2, 3], "strides": [2, 1], "dilations": [1, 2]}, [floats(4, 6, 3, 3)], 11),
    ("Conv", IMAGE, {"auto_pad": "SAME_UPPER", "strides": [2, 2], "group": 2}, [floats(4, 3, 3, 3)], 11),
    ("Conv", IMAGE, {"auto_pad": "SAME_LOWER", "strides": [2, 2]}, [floats(4, 6, 4, 4)], 11),
    ("Conv", IMAGE, {"auto_pad": "VALID"}, [floats(4, 6, 3, 3)], 11),
    ("Conv", (2, 6, 9), {"pads": [1, 1]}, [floats(4, 6, 3)], 11),
    ("ConvTranspose", IMAGE, {"strides": [2, 2], "pads": [1, 1, 1, 1]}, [floats(6, 4, 3, 3), floats(4)], 11),
    ("ConvTranspose", IMAGE, {"strides": [2, 3], "output_padding": [1, 2]}, [floats(6, 4, 3, 3)], 11),
    ("ConvTranspose", IMAGE, {"strides": [2, 2], "auto_pad": "SAME_UPPER"}, [floats(6, 4, 3, 3)], 11),
    ("ConvTranspose", IMAGE, {"strides": [2, 2], "group": 2}, [floats(6, 2, 2, 2)], 11),
    *(
        (name, IMAGE, {"kernel_shape": [3, 3], "strides": [2, 2], **more}, [], 12)
        for name in ("MaxPool", "AveragePool")
        for more in (
            {},
            {"pads": [1, 1, 1, 1]},
            {"pads": [0, 1, 1, 0]},
            {"ceil_mode": 1},
            {"ceil_mode": 1, "pads": [1, 1, 1, 1]},
            {"auto_pad": "SAME_UPPER"},
        )
    ),
    ("MaxPool", IMAGE, {"kernel_shape": [2, 2], "dilations": [2, 3]}, [], 12),
    ("AveragePool", IMAGE, {"kernel_shape": [3, 3], "pads": [1, 1, 1, 1], "count_include_pad": 1}, [], 12),
    ("BatchNormalization", IMAGE, {}, [floats(6), floats(6), floats(6), np.abs(floats(6))], 15),
    ("InstanceNormalization", IMAGE, {}, [floats(6), floats(6)], 13),
    ("LayerNormalization", IMAGE, {"axis": -2}, [floats(9, 11), floats(9, 11)], 17),
    ("GroupNormalization", IMAGE, {"num_groups": 3}, [floats(3), floats(3)], 18),
    ("GroupNormalization", IMAGE, {"num_groups": 3}, [floats(6), floats(6)], 21),
    ("LpNormalization", IMAGE, {"axis": 1}, [], 13),
    ("LRN", IMAGE, {"size": 3}, [], 13),
    ("Dropout", IMAGE, {}, [], 13),
    ("GridSample", IMAGE, {"align_corners": 1}, [floats(2, 4, 5, 2)], 16),
    ("GridSample", IMAGE, {"mode": "linear", "padding_mode": "border"}, [floats(2, 4, 5, 2)], 20),
    *(("Resize", IMAGE, each, [None, None, ints(2, 6, 13, 7)], 13) for each in RESIZES),
    *(("Resize", IMAGE, each, [None, np.array([1, 1, 2, 1.5], np.float32)], 13) for each in RESIZES),
    ("Resize", IMAGE, {"mode": "linear", "antialias": 1}, [None, None, ints(2, 6, 18, 22)], 18),
    ("Resize", IMAGE, {"mode": "linear", "axes": [2, 3]}, [None, None, ints(18, 22)], 18),
    ("OneHot", (5,), {}, [], 11),
    ("LSTM", (5, 2, 4), {"hidden_size": 3}, [floats(1, 12, 4), floats(1, 12, 3), floats(1, 24)], 14),
    ("LSTM", (5, 2, 4), {"hidden_size": 3, "direction": "bidirectional"}, [floats(2, 12, 4), floats(2, 12, 3)], 14),
    ("GRU", (5, 2, 4), {"hidden_size": 3, "linear_before_reset": 1}, [floats(1, 9, 4), floats(1, 9, 3)], 14),
    ("DequantizeLinear", (3, 4), {"axis": 1}, [], 13),
    ("ConstantOfShape", (3, 4), {}, [], 9 + 4),
]


def _model(case: Case) -> Any:
    """A model of one node (and what makes its input, where that is not of floating point)."""
    name, shape, attributes, more, opset = case
    names = ["x", *(f"c{i}" if value is not None else "" for i, value in enumerate(more))]
    constants = {f"c{i}": np.asarray(value) for i, value in enumerate(more) if value is not None}
    outputs = {"TopK": ["y", "i"], "Split": ["y", "z"], "LSTM": ["y", "h", "c"], "GRU": ["y", "h"]}.get(name, ["y"])
    make, before = onnx.helper.make_node, []
    if name == "Where":
        before, names = [make("Greater", ["x", "zero"], ["b"]), make("Neg", ["x"], ["n"])], ["b", "x", "n"]
        constants["zero"] = np.float32(0)
    elif name == "OneHot":
        before, names = [make("Cast", ["x"], ["i"], to=7)], ["i", "depth", "values"]
        constants |= {"depth": np.array(4, np.int64), "values": np.array([0.5, 2.0], np.float32)}
    elif name == "DequantizeLinear":
        before, names = [make("Cast", ["x"], ["q"], to=3)], ["q", "scale", "zero"]
        constants |= {"scale": floats(4), "zero": np.array([0, 1, 2, 3], np.int8)}
    elif name == "ConstantOfShape":
        before, names = [make("Shape", ["x"], ["s"])], ["s"]
        attributes = {"value": onnx.numpy_helper.from_array(np.array([2.5], np.float32))}
    node = make(name, names, outputs, name="tested", **attributes)
    return graph_model([*before, node], {"x": list(shape)}, outputs, constants, opset=opset)


@pytest.mark.parametrize("case", CASES, ids=lambda case: f"{case[0]}-{case[4]}")
def test_the_result_is_that_of_onnx_runtime(case: Case) -> None:
    model = _model(case)
    x = torch.randn(case[1], generator=torch.Generator().manual_seed(3))
    network = OnnxNetwork(parse_model(model))
    reference = RuntimeNetwork(model)(x)
    found = network(x)
    for value, expected in zip(found, reference, strict=True):
        assert value.dtype == expected.dtype
    comparison = compare(found, reference)
    assert comparison.difference <= 1e-4 * max(1.0, comparison.largest), comparison


def test_every_operator_of_the_table_is_tested_or_an_inner_part_of_shapes() -> None:
    tested = {case[0] for case in CASES}
    of_shapes = {"And", "Or", "Xor", "Not", "Constant", "Range", "NonZero", "CastLike", "EyeLike", "Hardmax"}
    domains = {"Log", "Sqrt", "Reciprocal", "Acos", "Asin", "IsNaN", "IsInf", "ReduceLogSum"}
    assert OPERATORS.keys() - tested - of_shapes - domains == set()


@pytest.mark.parametrize("name", ["Log", "Sqrt", "Reciprocal", "Acos", "Asin", "IsNaN", "IsInf", "ReduceLogSum"])
def test_operators_on_values_from_0_to_1(name: str) -> None:
    model = graph_model([onnx.helper.make_node(name, ["x"], ["y"])], {"x": [3, 4]}, ["y"])
    x = torch.rand(3, 4) * 0.9 + 0.05
    assert compare(OnnxNetwork(parse_model(model))(x), RuntimeNetwork(model)(x)).difference < 1e-5


def test_logic_and_shapes_of_free_size() -> None:
    """Operators on shapes: a grid of positions that depends on the size of the input."""
    make = onnx.helper.make_node
    nodes = [
        make("Shape", ["x"], ["shape"]),
        make("Gather", ["shape", "three"], ["width"]),
        make("Range", ["zero", "width", "one"], ["columns"]),
        make("CastLike", ["columns", "x"], ["floats"]),
        make("Greater", ["x", "half"], ["high"]),
        make("Less", ["floats", "half"], ["first"]),
        make("Or", ["high", "first"], ["either"]),
        make("Not", ["high"], ["low"]),
        make("And", ["either", "low"], ["both"]),
        make("Xor", ["both", "high"], ["mixed"]),
        make("Where", ["mixed", "x", "floats"], ["y"]),
        make("NonZero", ["mixed"], ["places"]),
        make("Constant", [], ["unused"], value_float=1.0),
    ]
    numbers = {"three": 3, "zero": 0, "one": 1}
    constants = {name: np.array(value, np.int64) for name, value in numbers.items()}
    model = graph_model(nodes, {"x": [1, 2, "h", "w"]}, ["y", "places"], {**constants, "half": np.float32(0.5)})
    network, reference = OnnxNetwork(parse_model(model)), RuntimeNetwork(model)
    for size in ((4, 5), (3, 8)):
        x = torch.rand(1, 2, *size)
        assert compare(network(x), reference(x)).difference == 0.0


def test_branches_see_the_values_around_them() -> None:
    make, info = onnx.helper.make_node, onnx.helper.make_tensor_value_info
    branches = {
        f"{name}_branch": onnx.helper.make_graph(
            [make(kind, ["x"], [name])], name, [], [info(name, onnx.TensorProto.FLOAT, None)]
        )
        for name, kind in (("then", "Neg"), ("else", "Exp"))
    }
    nodes = [
        make("ReduceMean", ["x"], ["mean"], keepdims=0),
        make("Greater", ["mean", "zero"], ["b"]),
        make("If", ["b"], ["y"], **branches),
    ]
    model = graph_model(nodes, {"x": [2, 3]}, ["y"], {"zero": np.float32(0)})
    network, reference = OnnxNetwork(parse_model(model)), RuntimeNetwork(model)
    for x in (torch.rand(2, 3), -torch.rand(2, 3)):
        assert compare(network(x), reference(x)).difference < 1e-6


def test_settings_that_are_not_imported_are_named() -> None:
    node = onnx.helper.make_node("ScatterND", ["x", "i", "u"], ["y"], name="writes", reduction="mul")
    constants = {"i": np.array([[0]], np.int64), "u": np.ones((1, 3), np.float32)}
    model = graph_model([node], {"x": [2, 3]}, ["y"], constants, opset=18)
    with pytest.raises(ExpertError, match=r"ScatterND \(node 'writes', opset 18\) with reduction 'mul' cannot be imp"):
        OnnxNetwork(parse_model(model))(torch.rand(2, 3))


def test_a_node_that_cannot_take_its_inputs_is_named() -> None:
    node = onnx.helper.make_node("Reshape", ["x", "s"], ["y"], name="fold")
    model = graph_model([node], {"x": [2, 3]}, ["y"], {"s": ints(4, 2)})
    with pytest.raises(ExpertError, match=r"Reshape \(node 'fold', opset 17\) cannot take inputs \(2, 3\), \(2,\)"):
        OnnxNetwork(parse_model(model))(torch.rand(2, 3))


def test_constants_are_computed_once() -> None:
    make = onnx.helper.make_node
    nodes = [make("Add", ["a", "b"], ["c"]), make("Mul", ["x", "c"], ["y"])]
    model = graph_model(nodes, {"x": [3]}, ["y"], {"a": floats(3), "b": floats(3)})
    network = OnnxNetwork(parse_model(model))
    visited: list[Node] = []
    network.values([torch.ones(3)], lambda node, _: visited.append(node))
    assert [node.operator for node in visited] == ["Mul"]
    assert len(list(network.parameters())) == 1
