"""A network that computes an ONNX graph with PyTorch's functions."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from gosvae.errors import ExpertError, unknown_name
from gosvae.experts.onnx import elementwise, layers, recurrent, resize, shapes
from gosvae.experts.onnx.graph import Graph, Node
from gosvae.experts.onnx.table import OPERATORS

assert all((elementwise, layers, recurrent, resize, shapes)), "importing these fills the table"

_FAULTS = (RuntimeError, ValueError, TypeError, IndexError, KeyError, NotImplementedError)
_CONTROL = "If"


class OnnxNetwork(nn.Module):
    """Network of the operations of an ONNX graph, in their order.

    Floating-point constants of the file are parameters, which stay frozen. Operations on constants alone are done once.

    Args:
        graph: graph of the file.
        outputs: names of the values to return; by default the graph's outputs. Inner values may be named too.

    Raises:
        ExpertError: an operator is not in the table, or a name is that of no value.
    """

    def __init__(self, graph: Graph, outputs: Sequence[str] = ()) -> None:
        super().__init__()
        _check_order(graph)
        made = {name for node in graph.nodes for name in node.outputs}
        self.output_names = tuple(outputs) or graph.outputs
        for name in self.output_names:
            if name not in made:
                raise ExpertError(unknown_name("output", name, [*graph.outputs, *made]))
        constants = dict(graph.constants)
        nodes = _needed(graph.nodes, self.output_names)
        unknown = first_unknown(nodes)
        if unknown is not None:
            raise ExpertError(
                f"the operator {unknown} is none of those that are imported onto PyTorch: export the network without "
                "it, or name values before it as 'outputs' of the card"
            )
        self._nodes = tuple(_folded(nodes, constants))
        used = {name for node in self._nodes for name in _names_in(node)} | {*self.output_names}
        self._input_names = tuple(each.name for each in graph.inputs)
        self.weights = nn.ParameterList()
        self._weight_names: list[str] = []
        self._others: dict[str, Tensor] = {}
        for name, value in constants.items():
            if name not in used:
                continue
            if value.is_floating_point() and value.ndim:
                self._weight_names.append(name)
                own = value.clone(memory_format=torch.contiguous_format)  # constants may be views of others
                self.weights.append(nn.Parameter(own, requires_grad=False))
            else:
                self._others[name] = value
        self._last_use = {name: i for i, node in enumerate(self._nodes) for name in _names_in(node)}

    def forward(self, *inputs: Tensor) -> tuple[Tensor, ...]:
        """Return the outputs for the graph's inputs."""
        found = self.values(inputs)
        return tuple(found[name] for name in self.output_names)

    def values(
        self, inputs: Sequence[Tensor], visit: Callable[[Node, tuple[Any, ...]], None] | None = None
    ) -> dict[str, Tensor]:
        """Compute the graph and return the values that are still needed at its end, the outputs among them.

        Args:
            inputs: a tensor for each input of the graph.
            visit: function that is called with every node and its results.

        Raises:
            ExpertError: an operation cannot take its inputs; the message names it.
        """
        values: dict[str, Tensor] = {**self._others, **dict(zip(self._weight_names, self.weights, strict=True))}
        values |= dict(zip(self._input_names, inputs, strict=True))
        keep = {*self.output_names}
        for i, node in enumerate(self._nodes):
            results = _results(node, values)
            if visit is not None:
                visit(node, results)
            values |= {name: value for name, value in zip(node.outputs, results, strict=False) if name}
            for name in node.inputs:
                if self._last_use.get(name) == i and name not in keep:
                    values.pop(name, None)
        return values


def first_unknown(nodes: Sequence[Node]) -> Node | None:
    """Return the first operation whose operator is not in the table; None if all are."""
    for node in nodes:
        if node.operator == _CONTROL:
            for branch in _branches(node):
                inner = first_unknown(branch.nodes)
                if inner is not None:
                    return inner
        elif node.operator not in OPERATORS:
            return node
    return None


def _check_order(graph: Graph) -> None:
    """Refuse a graph in which an operation takes a value that nothing before it makes."""
    known = {"", *graph.constants, *(each.name for each in graph.inputs)}
    for node in graph.nodes:
        missing = [name for name in node.inputs if name not in known]
        if missing:
            raise ExpertError(f"the operator {node} takes {missing[0]!r}, which nothing before it makes")
        known.update(node.outputs)


def _branches(node: Node) -> tuple[Graph, ...]:
    return tuple(value for value in node.attributes.values() if isinstance(value, Graph))


def _names_in(node: Node) -> set[str]:
    """Return the names of all values that a node reads, also within its branches."""
    names = {name for name in node.inputs if name}
    for branch in _branches(node):
        names |= {name for inner in branch.nodes for name in _names_in(inner)} | {*branch.outputs}
    return names


def _needed(nodes: Sequence[Node], outputs: Sequence[str]) -> list[Node]:
    """Return the nodes that the outputs depend on, in their order."""
    wanted, kept = {*outputs}, []
    for node in reversed(nodes):
        if wanted.intersection(node.outputs):
            kept.append(node)
            wanted |= _names_in(node)
    return kept[::-1]


@torch.no_grad()
def _folded(nodes: Sequence[Node], constants: dict[str, Tensor]) -> list[Node]:
    """Return the nodes that depend on an input; the results of the others are added to the constants."""
    left = []
    for node in nodes:
        if node.operator != _CONTROL and _names_in(node) <= constants.keys():
            results = _results(node, constants)
            constants.update((name, value) for name, value in zip(node.outputs, results, strict=False) if name)
        else:
            left.append(node)
    return left


def _results(node: Node, values: Mapping[str, Tensor]) -> tuple[Any, ...]:
    """Return the results of one operation.

    Raises:
        ExpertError: it cannot take its inputs.
    """
    if node.operator == _CONTROL:
        return _branch_results(node, values)
    inputs = [values[name] if name else None for name in node.inputs]
    devices = {value.device for value in inputs if value is not None}
    if len(devices) > 1:  # Shapes and indices are computed on the CPU.
        device = next(each for each in devices if each.type != "cpu")
        inputs = [None if value is None else value.to(device) for value in inputs]
    try:
        result = OPERATORS[node.operator](node, *inputs)
    except _FAULTS as error:
        if isinstance(error, torch.OutOfMemoryError):
            raise
        shapes_given = ", ".join("-" if value is None else str(tuple(value.shape)) for value in inputs)
        lines = str(error).strip().splitlines() or [type(error).__name__]
        raise ExpertError(f"the operator {node} cannot take inputs {shapes_given}: {lines[0][:160]}") from error
    return result if isinstance(result, tuple) else (result,)


def _branch_results(node: Node, values: Mapping[str, Tensor]) -> tuple[Any, ...]:
    """Return the results of the branch that a condition takes."""
    taken = node.attributes["then_branch" if bool(values[node.inputs[0]].item()) else "else_branch"]
    inner: dict[str, Tensor] = {**values, **taken.constants}
    for each in taken.nodes:
        inner.update((name, value) for name, value in zip(each.outputs, _results(each, inner), strict=False) if name)
    return tuple(inner[name] for name in taken.outputs)
