"""Finite scalar quantisation against vector-quantize-pytorch's."""

from __future__ import annotations

import pytest
import torch

from gosvae.errors import ConfigError
from gosvae.quantizers import FiniteScalarQuantizer


@pytest.mark.parametrize("levels", [(3,), (8, 5, 5, 5), (4, 6), (7, 5, 5, 5, 5)])
def test_indices_and_values_equal_those_of_vector_quantize_pytorch(levels: tuple[int, ...]) -> None:
    library = pytest.importorskip("vector_quantize_pytorch")
    theirs, ours = library.FSQ(levels=list(levels)), FiniteScalarQuantizer(levels)
    z_BDhw = 3 * torch.randn(2, len(levels), 9, 8, generator=torch.Generator().manual_seed(0))
    z_q_BDhw, indices_Bhw = theirs(z_BDhw)
    result = ours(z_BDhw)
    assert torch.equal(result.indices_Bhw, indices_Bhw.long())
    torch.testing.assert_close(result.z_q_BDhw, z_q_BDhw)
    every = torch.arange(ours.codebook_size).view(1, 1, -1)
    torch.testing.assert_close(ours.lookup(every), theirs.indices_to_codes(every))


@pytest.mark.parametrize("levels", [(3, 4), (8, 8), (256,)])
def test_every_index_is_reached_and_the_extremes_are_the_outer_levels(levels: tuple[int, ...]) -> None:
    quantizer = FiniteScalarQuantizer(levels)
    axes = [torch.linspace(-6, 6, 2001) if level > 8 else torch.linspace(-6, 6, 121) for level in levels]
    z_DN = torch.cartesian_prod(*axes).view(-1, len(levels)).t()
    indices = quantizer.encode(z_DN.reshape(1, len(levels), 1, -1))
    assert len(indices.unique()) == quantizer.codebook_size
    assert indices.flatten()[[0, -1]].tolist() == [0, quantizer.codebook_size - 1]


def test_zero_stays_zero() -> None:
    z_BDhw = torch.zeros(1, 2, 1, 1)
    assert torch.equal(FiniteScalarQuantizer((4, 5))(z_BDhw).z_q_BDhw, z_BDhw)


@pytest.mark.parametrize("levels", [(), (2, 8), (8, 1)])
def test_too_few_levels_are_refused(levels: tuple[int, ...]) -> None:
    with pytest.raises(ConfigError, match="at least 3 levels"):
        FiniteScalarQuantizer(levels)
