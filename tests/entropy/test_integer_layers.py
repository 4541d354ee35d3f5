"""Integer layers: the float that is trained is the integer that is used, and no order of summation changes it."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from gosvae.errors import ConfigError
from gosvae.nn.integer import (
    LARGEST_SUM,
    UNIT_BITS,
    IntegerLinear,
    IntegerWeights,
    QuantizedLinear,
    exact_arithmetic,
    integer_relu,
    quantized_relu,
    round_to_units,
)

UNIT = 2.0**UNIT_BITS


def layer(
    n_inputs: int, n_outputs: int, *, scale: float, extra_bits: int = 0, residual: bool = False
) -> QuantizedLinear:
    torch.manual_seed(n_inputs)
    result = QuantizedLinear(n_inputs, n_outputs, n_biases=2, extra_bits=extra_bits, residual=residual)
    with torch.no_grad():
        result.weight_OI.mul_(scale)
        result.bias_PO.normal_()
    return result


@pytest.mark.parametrize("scale", [0.01, 1.0, 30.0, 1000.0])
@pytest.mark.parametrize("extra_bits", [0, -1])
def test_training_computes_what_the_integers_compute(scale: float, extra_bits: int) -> None:
    trained = layer(300, 20, scale=scale, extra_bits=extra_bits)
    frozen = IntegerLinear(trained.freeze())
    x_NI = torch.randint(256, (64, 300)).float()
    for use in (0, 1):
        real = round_to_units(trained(x_NI / UNIT, use), extra_bits)
        assert torch.equal(real * 2.0 ** (UNIT_BITS + extra_bits), frozen(x_NI, use).floor())


def test_a_residual_block_is_the_same_in_integers() -> None:
    inner, outer = layer(32, 32, scale=1.0), layer(32, 32, scale=0.5, residual=True)
    x_NI = torch.randint(256, (64, 32)).float()
    real = quantized_relu(x_NI / UNIT + outer(quantized_relu(inner(x_NI / UNIT))))
    integer = integer_relu(x_NI + IntegerLinear(outer.freeze())(integer_relu(IntegerLinear(inner.freeze())(x_NI))))
    assert torch.equal(real * UNIT, integer)
    assert 0.05 < (integer > 0).float().mean() < 1


@pytest.mark.parametrize("residual", [False, True])
def test_sums_against_int64_in_every_order(residual: bool) -> None:
    trained = layer(960, 16, scale=1.0, residual=residual)
    with torch.no_grad():
        trained.weight_OI.abs_().clamp_(0.9, 1.0)  # all large and of one sign: the bound of the sums decides
    integers = trained.freeze()
    worst_NI = torch.where(integers.weight_OI[:4] > 0, 255, 0).float()  # as far as sums can go
    x_NI = torch.cat([worst_NI, torch.randint(256, (60, 960)).float()])
    sums_NO = x_NI.numpy().astype(np.int64) @ integers.weight_OI.numpy().astype(np.int64).T
    sums_NO += integers.bias_PO[1].numpy().astype(np.int64)
    assert 2**23 * 0.8 < np.abs(sums_NO).max() <= LARGEST_SUM
    expected_NO = sums_NO >> integers.shift_O.numpy().astype(np.int64)
    order = torch.randperm(960)
    shuffled = IntegerWeights(
        integers.weight_OI[:, order], integers.bias_PO, integers.shift_O, integers.largest_input, residual
    )
    for network, inputs in ((IntegerLinear(integers), x_NI), (IntegerLinear(shuffled), x_NI[:, order])):
        for dtype in (torch.float32, torch.float64):
            np.testing.assert_array_equal(network.to(dtype)(inputs.to(dtype), 1).floor().numpy(), expected_NO)


def test_gradients_reach_the_weights_and_the_input() -> None:
    trained = layer(8, 4, scale=1.0)
    x_NI = torch.rand(16, 8, requires_grad=True)
    quantized_relu(trained(x_NI, 1)).sum().backward()
    for gradient in (x_NI.grad, trained.weight_OI.grad, trained.bias_PO.grad):
        assert gradient is not None
        assert gradient.abs().sum() > 0


def test_integers_that_could_leave_float32_are_refused() -> None:
    good = layer(200, 4, scale=1.0).freeze()
    with pytest.raises(ConfigError, match="a sum can reach"):
        IntegerWeights(torch.full((4, 600), 127, dtype=torch.int8), good.bias_PO, good.shift_O, 255)
    with pytest.raises(ConfigError, match="a sum can reach"):
        IntegerWeights(good.weight_OI, good.bias_PO + 2**24, good.shift_O, 255)
    ones_OI, bias_PO = torch.ones_like(good.weight_OI), torch.full_like(good.bias_PO, 3 * 2**22)
    shift_O = torch.full_like(good.shift_O, 15)
    IntegerWeights(ones_OI, bias_PO, shift_O, 255)
    with pytest.raises(ConfigError, match="a sum can reach"):  # an activation of 255 in units of 2**-15 is added
        IntegerWeights(ones_OI, bias_PO, shift_O, 255, residual=True)
    for shift in (-1, 16):
        with pytest.raises(ConfigError, match="shift"):
            IntegerWeights(good.weight_OI, good.bias_PO, torch.full_like(good.shift_O, shift), 255)
    with pytest.raises(ConfigError, match="do not belong together"):
        IntegerWeights(good.weight_OI, good.bias_PO[:, :3], good.shift_O, 255)


def test_autocast_and_reduced_precision_are_off_inside() -> None:
    frozen, x_NI = IntegerLinear(layer(100, 8, scale=1.0).freeze()), torch.randint(256, (9, 100)).float()
    expected = frozen(x_NI)
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("medium")
    try:
        with torch.autocast("cpu", torch.bfloat16), exact_arithmetic(torch.device("cpu")):
            assert torch.get_float32_matmul_precision() == "highest"
            assert torch.equal(frozen(x_NI), expected)
        assert torch.get_float32_matmul_precision() == "medium"
    finally:
        torch.set_float32_matmul_precision(before)
