"""Integer layers that are trained as floats and give the same result on every machine, in any order of summation.

Activations are integers in [0, 255], weights are integers in [-127, 127], and no sum can reach 2**24 in magnitude. In
float32 every product and every partial sum is then exact: CPU and GPU, one thread or many, fused or not, in any order,
all give the same integers (Balle et al. 2019, "Integer networks for data compression with latent-variable models").
Both factors fit the 8 significant bits of bfloat16, so even units that shorten their inputs do not change a product.
Rescaling is a multiplication by a power of two and a floor, which are exact as well.

During training, the layers work in real units (an activation of 1.0 is the integer 32) with straight-through rounding.
The real values are the integers times powers of two, so training and use have the same network.

Axis legend: N rows, I inputs and O outputs of a layer.
"""

from __future__ import annotations

import functools
import math
import threading
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from gosvae.errors import ConfigError
from gosvae.nn.straight_through import straight_through

UNIT_BITS = 5
"""Number of fractional bits of activations: an activation of 1.0 is the integer 2**5."""
LARGEST_ACTIVATION = 255
"""Largest activation, as an integer."""
LARGEST_WEIGHT = 127
"""Largest magnitude of a weight, as an integer."""
LARGEST_SUM = 2**24 - 1
"""Largest magnitude of a sum; float32 represents all integers up to 2**24."""
MOST_SHIFT = 14
"""Largest number of fractional bits of a weight."""


@dataclass(frozen=True, eq=False)
class IntegerWeights:
    """Weights of a linear layer in integers, which computes `floor((weight @ x + bias) * 2**-shift)`.

    Attributes:
        weight_OI: weights, int8 in [-127, 127].
        bias_PO: P different biases, int32, one of which is chosen at each use. They include half a unit of the result,
            so that the floor rounds to nearest.
        shift_O: number of fractional bits of each output's sum, int8 in 0..15.
        largest_input: bound of the magnitude of the inputs.
        residual: whether an activation is added to the result, which the bound of the sums includes.

    Raises:
        ConfigError: a sum could reach 2**24, or a shift or weight is out of its range.
    """

    weight_OI: Tensor
    bias_PO: Tensor
    shift_O: Tensor
    largest_input: int
    residual: bool = False

    def __post_init__(self) -> None:
        shapes_fit = (
            self.weight_OI.ndim == 2 and self.bias_PO.ndim == 2 and self.shift_O.shape == self.weight_OI.shape[:1]
        )
        if not shapes_fit or self.bias_PO.shape[1] != len(self.weight_OI):
            raise ConfigError(
                f"integer layer: weights {tuple(self.weight_OI.shape)}, biases {tuple(self.bias_PO.shape)} and shifts "
                f"{tuple(self.shift_O.shape)} do not belong together"
            )
        weight_OI, shift_O = self.weight_OI.long(), self.shift_O.long()
        if int(weight_OI.abs().max()) > LARGEST_WEIGHT or int(shift_O.min()) < 0 or int(shift_O.max()) > MOST_SHIFT + 1:
            raise ConfigError("integer layer: a weight is outside [-127, 127] or a shift outside [0, 15]: damaged")
        sums_O = weight_OI.abs().sum(dim=1) * self.largest_input + self.bias_PO.long().abs().amax(dim=0)
        if self.residual:
            sums_O = sums_O + (LARGEST_ACTIVATION << shift_O)
        if int(sums_O.max()) > LARGEST_SUM:
            raise ConfigError(f"integer layer: a sum can reach {int(sums_O.max())}, float32 is exact below 2**24 only")


class QuantizedLinear(nn.Module):
    """Trainable linear layer whose weights are rounded to int8 with a power-of-two scale for each output.

    Args:
        n_inputs, n_outputs: numbers of inputs and outputs, I and O.
        n_biases: number of biases, P, with which several uses share the weights.
        largest_input: bound of the magnitude of the inputs, in integers.
        extra_bits: number of fractional bits of the result beyond those of the activations, negative for fewer; the
            result is in units of `2**-(5 + extra_bits)`.
        residual: whether an activation is added to the result before the clamp.
    """

    def __init__(
        self,
        n_inputs: int,
        n_outputs: int,
        *,
        n_biases: int = 1,
        largest_input: int = LARGEST_ACTIVATION,
        extra_bits: int = 0,
        residual: bool = False,
    ) -> None:
        super().__init__()
        self.weight_OI = nn.Parameter(torch.randn(n_outputs, n_inputs) / math.sqrt(n_inputs))
        self.bias_PO = nn.Parameter(torch.zeros(n_biases, n_outputs))
        self.largest_input, self.extra_bits, self.residual = largest_input, extra_bits, residual

    @torch.no_grad()
    def _scale_bits_O(self) -> Tensor:
        """Return the fractional bits of each output's weights, as many as int8 and the bound of the sums allow."""
        magnitude_OI = self.weight_OI.abs()
        by_range_O = torch.log2(LARGEST_WEIGHT / magnitude_OI.amax(dim=1).clamp_min(1e-9))
        unit = 2.0**UNIT_BITS
        # In units of the sum: rounding adds half a unit to each weight; the half of the floor and a residual follow.
        rounding = 0.5 * self.largest_input * self.weight_OI.shape[1] + 1.0
        sums_O = magnitude_OI.sum(dim=1) * self.largest_input + self.bias_PO.abs().amax(dim=0) * unit
        sums_O = sums_O + (LARGEST_ACTIVATION if self.residual else 0) + 2.0 ** (-self.extra_bits)
        by_sum_O = torch.log2((LARGEST_SUM - rounding) / sums_O)
        return torch.minimum(by_range_O, by_sum_O).floor().clamp(0, MOST_SHIFT)

    def _integers(self) -> tuple[Tensor, Tensor, Tensor]:
        """Return weights and biases as integers in floats, without the half of the floor, and the fractional bits."""
        bits_O = self._scale_bits_O()
        weight_OI = (self.weight_OI * 2.0 ** bits_O[:, None]).round().clamp(-LARGEST_WEIGHT, LARGEST_WEIGHT)
        return weight_OI, (self.bias_PO * 2.0 ** (bits_O + UNIT_BITS)).round(), bits_O

    def forward(self, x_NI: Tensor, use: int = 0) -> Tensor:
        """Return exact sums (N, O) in real units for `x_NI` in real units; `use` chooses the bias."""
        with torch.no_grad():
            weight_OI, bias_PO, bits_O = self._integers()
            weight_OI = weight_OI * 2.0 ** -bits_O[:, None]
            bias_PO = bias_PO * 2.0 ** -(bits_O + UNIT_BITS)
        weight_OI = straight_through(self.weight_OI, weight_OI)
        return F.linear(x_NI, weight_OI, straight_through(self.bias_PO, bias_PO)[use])

    @torch.no_grad()
    def thaw(self, integers: IntegerWeights) -> None:
        """Restore the weights from the integers of `freeze`, so that training can continue from them."""
        scale_bits_O = integers.shift_O.float() + self.extra_bits
        half_O = (2.0 ** (integers.shift_O.float() - 1)).floor()
        self.weight_OI.copy_(integers.weight_OI.float() * 2.0 ** -scale_bits_O[:, None])
        self.bias_PO.copy_((integers.bias_PO.float() - half_O) * 2.0 ** -(scale_bits_O + UNIT_BITS))

    def freeze(self) -> IntegerWeights:
        """Return the layer in integers."""
        weight_OI, bias_PO, bits_O = (value.detach().cpu() for value in self._integers())
        shift_O = bits_O - self.extra_bits
        half_O = (2.0 ** (shift_O - 1)).floor()  # a shift of 0 has nothing to round
        return IntegerWeights(
            weight_OI.to(torch.int8),
            (bias_PO + half_O).to(torch.int32),
            shift_O.to(torch.int8),
            self.largest_input,
            self.residual,
        )


def round_to_units(x: Tensor, extra_bits: int = 0) -> Tensor:
    """Return `x` rounded (halves up) to multiples of `2**-(5 + extra_bits)`, with the gradient of `x`."""
    scale = 2.0 ** (UNIT_BITS + extra_bits)
    return straight_through(x, (x.detach() * scale + 0.5).floor() / scale)


def quantized_relu(x: Tensor) -> Tensor:
    """Return `x` clamped to [0, 255 / 32] and rounded to multiples of 1 / 32."""
    return round_to_units(x.clamp(0.0, LARGEST_ACTIVATION * 2.0**-UNIT_BITS))


class IntegerLinear(nn.Module):
    """Linear layer that runs `IntegerWeights`; inputs are integers in float32 (or float64).

    Weights and biases are stored times `2**-shift`. All products and sums are then multiples of `2**-shift` below
    `2**(24 - shift)` in magnitude, so they are as exact as those of the integers, and need no rescaling.

    Attributes:
        weight_IO: scaled weights.
        bias_PO: scaled biases.
    """

    weight_IO: Tensor
    bias_PO: Tensor

    def __init__(self, integers: IntegerWeights) -> None:
        super().__init__()
        scale_O = 2.0 ** -integers.shift_O.float()
        self.register_buffer("weight_IO", (integers.weight_OI.float() * scale_O[:, None]).t().contiguous())
        self.register_buffer("bias_PO", integers.bias_PO.float() * scale_O)
        self._one_bias = len(integers.bias_PO) == 1

    def forward(self, x_NI: Tensor, use: int = 0) -> Tensor:
        """Return the sums (N, O) with their fractional bits, before rounding; `use` chooses the bias."""
        bias_PO = self.bias_PO
        return torch.addmm(bias_PO if self._one_bias else bias_PO[use], x_NI, self.weight_IO)


def frozen_layers(network: nn.Module) -> dict[str, Tensor]:
    """Return all `QuantizedLinear` layers of a network in integers: `NAME.weight`, `NAME.bias` and `NAME.shift`."""
    tensors: dict[str, Tensor] = {}
    for name, layer in network.named_modules():
        if isinstance(layer, QuantizedLinear):
            integers = layer.freeze()
            tensors |= {
                f"{name}.weight": integers.weight_OI,
                f"{name}.bias": integers.bias_PO,
                f"{name}.shift": integers.shift_O,
            }
    return tensors


def thaw_layers(network: nn.Module, tensors: Mapping[str, Tensor]) -> None:
    """Restore all `QuantizedLinear` layers of a network from the integers of `frozen_layers`."""
    for name, layer in network.named_modules():
        if isinstance(layer, QuantizedLinear):
            weight, bias, shift = (tensors[f"{name}.{part}"] for part in ("weight", "bias", "shift"))
            layer.thaw(IntegerWeights(weight, bias, shift, layer.largest_input, layer.residual))


def integer_layers(pattern: nn.Module, tensors: dict[str, Tensor]) -> Callable[..., IntegerLinear]:
    """Return a function that makes the layers of `frozen_layers` one by one.

    The order is that in which `pattern` made its layers, and the arguments are those of `QuantizedLinear`.
    """
    names = iter(name for name, layer in pattern.named_modules() if isinstance(layer, QuantizedLinear))

    def layer(
        _i: int, _o: int, *, largest_input: int = LARGEST_ACTIVATION, residual: bool = False, **_: int
    ) -> IntegerLinear:
        name = next(names)
        weight, bias, shift = (tensors[f"{name}.{part}"] for part in ("weight", "bias", "shift"))
        return IntegerLinear(IntegerWeights(weight, bias, shift, largest_input, residual))

    return layer


def integer_relu(x: Tensor) -> Tensor:
    """Return `x` rounded down and clamped to integers in [0, 255]."""
    return x.floor().clamp_(0.0, float(LARGEST_ACTIVATION))


def integer_relu_(x: Tensor) -> Tensor:
    """Return `integer_relu` of `x`, which is overwritten."""
    return x.floor_().clamp_(0.0, float(LARGEST_ACTIVATION))


def summed_rows(table_RC: Tensor, rows_NT: Tensor) -> Tensor:
    """Return the sums (N, C) of T rows of a table of integers; no sum reaches 2**24."""
    count, size = rows_NT.shape
    return F.embedding_bag(rows_NT.reshape(-1), table_RC, _bags(count, size, rows_NT.device), mode="sum")


@functools.lru_cache(maxsize=256)
def _bags(count: int, size: int, device: torch.device) -> Tensor:
    """Return the place (N,) of each bag's first row, where all `count` bags have `size` rows."""
    with torch.inference_mode(False):
        return torch.arange(0, count * size, size, device=device)


class _Precision:
    """Precision of products outside of `exact_arithmetic`, which is the same for all threads, and who is inside."""

    def __init__(self) -> None:
        self.lock, self.users, self.outside = threading.Lock(), 0, ""


_PRECISION = _Precision()


def exact_arithmetic(device: torch.device) -> AbstractContextManager[None]:
    """Compute in true float32 within this context: without autocast, TF32 or bfloat16 in products, and gradients.

    Several threads may be inside: the precision outside is set again when the last of them leaves.
    """
    return _ExactArithmetic(device)


class _ExactArithmetic:
    """Context of `exact_arithmetic`; a generator would take as long as some of the layers that run in it."""

    def __init__(self, device: torch.device) -> None:
        # A context of autocast takes longer than most of the layers that run in it.
        kind = device.type
        self._autocast = torch.autocast(kind, enabled=False) if torch.is_autocast_enabled(kind) else None
        self._inference = torch.inference_mode()

    def __enter__(self) -> None:
        with _PRECISION.lock:
            if not _PRECISION.users:
                _PRECISION.outside = torch.get_float32_matmul_precision()
                if _PRECISION.outside != "highest":
                    torch.set_float32_matmul_precision("highest")
            _PRECISION.users += 1
        self._inference.__enter__()
        if self._autocast is not None:
            self._autocast.__enter__()  # type: ignore[no-untyped-call]

    def __exit__(self, *error: Any) -> None:
        if self._autocast is not None:
            self._autocast.__exit__(*error)
        self._inference.__exit__(*error)
        with _PRECISION.lock:
            _PRECISION.users -= 1
            if not _PRECISION.users and _PRECISION.outside != "highest":
                torch.set_float32_matmul_precision(_PRECISION.outside)
