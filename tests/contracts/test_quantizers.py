"""The contract that every quantizer keeps."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from gosvae.errors import ShapeError
from gosvae.quantizers import FsqConfig, Quantizer, VqConfig, VqEmaConfig, build_quantizer, codebook_usage

CONFIGS = {
    "vq": VqConfig(codebook_size=11, code_dim=3),
    "vq-cosine": VqConfig(codebook_size=11, code_dim=3, cosine=True),
    "vq-ema": VqEmaConfig(codebook_size=11, code_dim=3),
    "fsq-odd": FsqConfig(levels=(3, 5, 7)),
    "fsq-even": FsqConfig(levels=(4, 8, 6)),
}


@pytest.fixture(params=CONFIGS)
def quantizer(request: pytest.FixtureRequest) -> Quantizer:
    torch.manual_seed(0)
    made = build_quantizer(CONFIGS[request.param])
    for parameter in made.parameters():
        parameter.data.mul_(10)  # codes spread as widely as the latents
    return made.eval()


def latent(*shape: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("shape", [(2, 3, 4, 5), (1, 3, 1, 1), (1, 3, 1, 9)])
def test_shapes_types_and_ranges(quantizer: Quantizer, shape: tuple[int, ...]) -> None:
    result = quantizer(latent(*shape))
    assert result.z_q_BDhw.shape == shape
    assert result.z_q_BDhw.dtype == torch.float32
    assert result.indices_Bhw.shape == (shape[0], *shape[2:])
    assert result.indices_Bhw.dtype == torch.int64
    assert result.indices_Bhw.min() >= 0
    assert result.indices_Bhw.max() < quantizer.codebook_size
    assert set(result.terms) <= {"codebook", "commitment"}
    assert all(term.shape == () and term >= 0 for term in result.terms.values())


def test_lookup_of_encode_is_what_the_decoder_sees_bit_for_bit(quantizer: Quantizer) -> None:
    z_BDhw = latent(2, 3, 4, 5) * 2
    result = quantizer(z_BDhw)
    indices_Bhw = quantizer.encode(z_BDhw)
    assert torch.equal(indices_Bhw, result.indices_Bhw)
    assert torch.equal(quantizer.lookup(indices_Bhw), result.z_q_BDhw)
    assert len(indices_Bhw.unique()) > 3


def test_every_index_can_be_looked_up_and_all_vectors_differ(quantizer: Quantizer) -> None:
    indices_Bhw = torch.arange(quantizer.codebook_size).view(1, 1, -1)
    vectors_KD = quantizer.lookup(indices_Bhw)[0, :, 0].t()
    assert vectors_KD.shape == (quantizer.codebook_size, quantizer.code_dim)
    assert len(vectors_KD.unique(dim=0)) == quantizer.codebook_size


def test_gradient_passes_straight_through(quantizer: Quantizer, request: pytest.FixtureRequest) -> None:
    """The rounding step has the identity as its gradient; what stands before it (tanh, unit length) keeps its own."""
    z_BDhw = latent(2, 3, 4, 5).requires_grad_()
    weights = latent(2, 3, 4, 5)
    quantizer(z_BDhw).z_q_BDhw.mul(weights).sum().backward()
    kind = request.node.callspec.params["quantizer"]
    before = z_BDhw.detach().requires_grad_()
    if kind == "vq-cosine":
        smooth = before / before.norm(dim=1, keepdim=True)
    elif kind.startswith("fsq"):
        levels = torch.tensor(CONFIGS[kind].levels).view(1, -1, 1, 1)
        half = (levels - 1) * 1.001 / 2
        shift = torch.atanh(torch.where(levels % 2 == 0, 0.5, 0.0) / half)
        smooth = torch.tanh(before + shift) * half / (levels // 2)
    else:
        smooth = before
    smooth.mul(weights).sum().backward()
    torch.testing.assert_close(z_BDhw.grad, before.grad)
    assert z_BDhw.grad.abs().sum() > 0


def test_same_input_same_result(quantizer: Quantizer) -> None:
    z_BDhw = latent(2, 3, 4, 5)
    first, second = quantizer(z_BDhw), quantizer(z_BDhw)
    assert torch.equal(first.indices_Bhw, second.indices_Bhw)
    assert torch.equal(first.z_q_BDhw, second.z_q_BDhw)
    assert first.terms == second.terms


def test_wrong_layouts_are_refused(quantizer: Quantizer) -> None:
    for shape in [(2, 4, 4, 5), (3, 4, 5), (2, 3)]:
        with pytest.raises(ShapeError):
            quantizer(torch.zeros(shape))
        with pytest.raises(ShapeError):
            quantizer.encode(torch.zeros(shape))
    with pytest.raises(ShapeError):
        quantizer.lookup(torch.zeros(4, 5, dtype=torch.int64))


def test_state_dict_round_trip(quantizer: Quantizer, request: pytest.FixtureRequest) -> None:
    z_BDhw = latent(2, 3, 4, 5)
    quantizer.train()
    quantizer(z_BDhw)
    quantizer.eval()
    torch.manual_seed(99)
    twin = build_quantizer(CONFIGS[request.node.callspec.params["quantizer"]]).eval()
    twin.load_state_dict(quantizer.state_dict())
    assert torch.equal(twin.encode(z_BDhw), quantizer.encode(z_BDhw))
    assert torch.equal(twin(z_BDhw).z_q_BDhw, quantizer(z_BDhw).z_q_BDhw)


def test_autocast_does_not_change_the_indices(quantizer: Quantizer) -> None:
    z_BDhw = latent(2, 3, 8, 8)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        mixed = quantizer(z_BDhw)
        assert torch.equal(quantizer.encode(z_BDhw), mixed.indices_Bhw)
    full = quantizer(z_BDhw)
    assert torch.equal(mixed.indices_Bhw, full.indices_Bhw)
    assert torch.equal(mixed.z_q_BDhw, full.z_q_BDhw)


def test_half_precision_latents_are_accepted(quantizer: Quantizer) -> None:
    z_BDhw = latent(2, 3, 4, 5).bfloat16()
    assert torch.equal(quantizer.encode(z_BDhw), quantizer.encode(z_BDhw.float()))


def test_usage_counts_codes(quantizer: Quantizer) -> None:
    indices_Bhw = torch.arange(quantizer.codebook_size).view(1, 1, -1)
    usage = codebook_usage(indices_Bhw, quantizer.codebook_size)
    assert usage.utilisation == 1.0
    assert usage.perplexity == pytest.approx(quantizer.codebook_size)
