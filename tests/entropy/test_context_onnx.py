"""The context model's arithmetic in ONNX Runtime: another implementation, the same integers."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from gosvae.entropy.context import ContextConfig, ContextNetwork, integer_network
from gosvae.nn.integer import IntegerLinear

onnx = pytest.importorskip("onnx")
onnxruntime = pytest.importorskip("onnxruntime")


def layer_nodes(name: str, layer: IntegerLinear, source: str, use: int, floats: dict[str, np.ndarray]) -> list[object]:
    """`x @ weight + bias`, unrounded, as `NAME`."""
    node = onnx.helper.make_node
    floats[f"{name}.w"] = layer.weight_IO.numpy()
    floats[f"{name}.b"] = layer.bias_PO[use].numpy()
    return [
        node("MatMul", [source, f"{name}.w"], [f"{name}.product"]),
        node("Add", [f"{name}.product", f"{name}.b"], [name]),
    ]


def relu_nodes(source: str, result: str) -> list[object]:
    """Floor, then clamp to [0, 255]."""
    return [
        onnx.helper.make_node("Floor", [source], [f"{result}.floor"]),
        onnx.helper.make_node("Clip", [f"{result}.floor", "zero", "most"], [result]),
    ]


def session_of(network: ContextNetwork, kind: int, level: int) -> object:
    """An ONNX session of one kind of pass: rows of the embedding (N, T) to logits (N, V)."""
    node, tensor, config = onnx.helper.make_node, onnx.helper.make_tensor_value_info, network.config
    floats: dict[str, np.ndarray] = {
        "zero": np.float32(0), "most": np.float32(255), "table": network.embeddings[0].detach().numpy(),
    }  # fmt: skip
    nodes = [node("Gather", ["table", "rows"], ["taken"]), node("Flatten", ["taken"], ["x"], axis=1)]
    nodes += layer_nodes("first", network.first[kind], "x", level, floats) + relu_nodes("first", "h0")
    for i, (inner, outer) in enumerate(tuple(block.children()) for block in network.blocks):
        nodes += layer_nodes(f"inner{i}", inner, f"h{i}", 0, floats) + relu_nodes(f"inner{i}", f"a{i}")
        nodes += layer_nodes(f"outer{i}", outer, f"a{i}", 0, floats)
        nodes += [node("Add", [f"h{i}", f"outer{i}"], [f"r{i}"]), *relu_nodes(f"r{i}", f"h{i + 1}")]
    nodes += layer_nodes("head", network.heads[0], f"h{config.blocks}", 0, floats)
    nodes += [node("Floor", ["head"], ["logits"])]
    graph = onnx.helper.make_graph(
        nodes,
        "context",
        [tensor("rows", onnx.TensorProto.INT64, ["N", config.taps[kind]])],
        [tensor("logits", onnx.TensorProto.FLOAT, ["N", config.values[0]])],
        [onnx.numpy_helper.from_array(np.asarray(value), name) for name, value in floats.items()],
    )
    model = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 17)], ir_version=9)
    onnx.checker.check_model(model)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    return onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])


@pytest.mark.parametrize("kind", [0, 1, 2])
def test_onnx_runtime_gives_the_same_logits(kind: int) -> None:
    config = ContextConfig(codebook_size=300, values=(300,), blocks=2)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(1)
        network = integer_network(config, ContextNetwork(config).freeze())
        rows_NT = torch.randint(301, (200, config.taps[kind]))
    expected = network.logits(network.features([rows_NT], kind, 1, 200), 0)
    (given,) = session_of(network, kind, 1).run(None, {"rows": rows_NT.numpy()})  # type: ignore[attr-defined]
    np.testing.assert_array_equal(given, expected.numpy())
    assert expected.std() > 1
