"""ONNX Runtime: the reference that an imported network is compared with, and the judge where one cannot be imported."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from gosvae.errors import ExpertError
from gosvae.experts.onnx.graph import Node
from gosvae.experts.onnx.network import OnnxNetwork
from gosvae.extras import needs

SAME = 1e-3
"""Largest difference of an imported network from ONNX Runtime, as a share of the largest value (1 at the least)."""


class RuntimeNetwork(nn.Module):
    """Network that ONNX Runtime computes, on the CPU and without gradients: it can judge, but not be imitated.

    Args:
        model: `onnx.ModelProto`.
        outputs: names of the values to return; by default the graph's outputs.

    Raises:
        MissingDependencyError: ONNX Runtime is not installed.
        ExpertError: ONNX Runtime cannot read the model.
    """

    def __init__(self, model: Any, outputs: Sequence[str] = (), *, optimise: bool = True) -> None:
        super().__init__()
        with needs("onnx", "a check against ONNX Runtime"):
            import onnxruntime
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = torch.get_num_threads()
        options.log_severity_level = 4
        if not optimise:
            options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
        try:
            data = _with_outputs(model, outputs).SerializeToString()
            self._session: Any = onnxruntime.InferenceSession(data, options, providers=["CPUExecutionProvider"])
        except Exception as error:  # Its errors have no common type.
            line = " ".join(str(error).split())[:200]
            raise ExpertError(f"ONNX Runtime cannot read the network: {line}") from None
        self._inputs = [each.name for each in self._session.get_inputs()]
        self.output_names = tuple(outputs) or tuple(each.name for each in self._session.get_outputs())

    def forward(self, *inputs: Tensor) -> tuple[Tensor, ...]:
        """Return the outputs for the graph's inputs.

        Raises:
            ExpertError: a gradient is asked for, or the network cannot take the inputs.
        """
        if torch.is_grad_enabled() and any(value.requires_grad for value in inputs):
            raise ExpertError(
                "this ONNX network is computed by ONNX Runtime, which gives no gradient: it can judge a codec, but no "
                "codec can be trained with it"
            )
        arrays = {name: value.detach().cpu().numpy() for name, value in zip(self._inputs, inputs, strict=True)}
        try:
            results = self._session.run(list(self.output_names), arrays)
        except Exception as error:
            line = " ".join(str(error).split())[:200]
            raise ExpertError(f"ONNX Runtime cannot compute the network: {line}") from None
        device = inputs[0].device
        return tuple(torch.from_numpy(np.array(result, copy=True)).to(device) for result in results)


def _with_outputs(model: Any, names: Sequence[str]) -> Any:
    """Return the model with further values of its graph as outputs."""
    import onnx

    known = {each.name for each in model.graph.output}
    if not {*names} - known:
        return model
    more = onnx.ModelProto()
    more.CopyFrom(model)
    more.graph.output.extend(onnx.ValueInfoProto(name=name) for name in dict.fromkeys(names) if name not in known)
    return more


@dataclass(frozen=True)
class Comparison:
    """Largest difference of an imported network from ONNX Runtime, and the largest value of ONNX Runtime's outputs."""

    difference: float
    largest: float

    @property
    def same(self) -> bool:
        """Whether the two agree to within the rounding of 32 bits."""
        return self.difference <= SAME * max(1.0, self.largest)


def compare(outputs: Sequence[Tensor], references: Sequence[Tensor]) -> Comparison:
    """Return the largest difference of outputs from those of ONNX Runtime; infinite if a shape or a NaN differs."""
    difference, largest = 0.0, 0.0
    for value, reference in zip(outputs, references, strict=True):
        if value.shape != reference.shape:
            return Comparison(float("inf"), largest)
        if not reference.numel():
            continue
        a, b = value.detach().cpu().double(), reference.double()
        off = torch.where((a == b) | (a.isnan() & b.isnan()), 0.0, (a - b).abs()).nan_to_num(nan=float("inf"))
        difference = max(difference, float(off.max()))
        largest = max(largest, float(b.nan_to_num(0.0, 0.0, 0.0).abs().max()))
    return Comparison(difference, largest)


def check_against_runtime(
    network: OnnxNetwork, model: Any, inputs: Sequence[Sequence[Tensor]], source: str
) -> Comparison:
    """Compare a network with ONNX Runtime on several inputs and return the largest difference.

    Raises:
        MissingDependencyError: ONNX Runtime is not installed.
        ExpertError: the two differ; the message names the first operator whose result differs.
    """
    reference = RuntimeNetwork(model, network.output_names)
    worst = Comparison(0.0, 0.0)
    for given in inputs:
        with torch.no_grad():
            found = compare(network(*given), reference(*given))
        if not found.same:
            first = first_difference(network, model, given)
            raise ExpertError(
                f"{source} cannot be imported: its answer differs from ONNX Runtime's by {found.difference:.2g} "
                f"(largest value {found.largest:.2g}), first at {first or 'no single operator'}"
            )
        worst = max(worst, found, key=lambda each: each.difference)
    return worst


def first_difference(network: OnnxNetwork, model: Any, inputs: Sequence[Tensor]) -> Node | None:
    """Return the first operation whose result differs from ONNX Runtime's; None if none does by itself."""
    made: dict[str, tuple[Node, Tensor]] = {}

    def keep(node: Node, results: tuple[Any, ...]) -> None:
        made.update({name: (node, value) for name, value in zip(node.outputs, results, strict=False) if name})

    with torch.no_grad():
        network.values(inputs, keep)
        references = RuntimeNetwork(model, tuple(made), optimise=False)(*inputs)
    for (node, value), reference in zip(made.values(), references, strict=True):
        if not compare([value], [reference]).same:
            return node
    return None


def check_pictures(height: int, width: int) -> list[Tensor]:
    """Return pictures (1, 3, H, W) in [0, 1] to compare networks on: noise, and one with the spectrum of photographs.

    Both are functions of the size alone.
    """
    generator = torch.Generator().manual_seed(0)
    noise = torch.rand(1, 3, height, width, generator=generator)
    rows, columns = torch.fft.fftfreq(height)[:, None], torch.fft.rfftfreq(width)[None]
    frequency = (rows.square() + columns.square()).sqrt().clamp_min(1.0 / max(height, width))
    waves = torch.fft.irfft2(torch.fft.rfft2(noise - 0.5) / frequency, s=(height, width))
    return [noise, (0.5 + waves / waves.abs().amax() / 2).clamp(0, 1)]
