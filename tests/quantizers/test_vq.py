"""Nearest-code search and the gradient-trained codebook."""

from __future__ import annotations

import pytest
import torch

from gosvae.quantizers import VectorQuantizer
from gosvae.quantizers import vq as vq_module
from gosvae.quantizers.vq import nearest_codes


@pytest.mark.parametrize("budget_bytes", [1, 1000, 2**24])
def test_chunks_give_the_codes_of_the_full_distance_matrix(monkeypatch: pytest.MonkeyPatch, budget_bytes: int) -> None:
    generator = torch.Generator().manual_seed(0)
    z_ND, codes_KD = torch.randn(201, 5, generator=generator), torch.randn(37, 5, generator=generator)
    monkeypatch.setattr(vq_module, "SEARCH_BYTES", budget_bytes)
    assert torch.equal(nearest_codes(z_ND, codes_KD), torch.cdist(z_ND.double(), codes_KD.double()).argmin(dim=1))


def test_the_paper_s_large_codebook_stays_within_the_search_budget(monkeypatch: pytest.MonkeyPatch) -> None:
    held = []

    def addmm(*args: torch.Tensor, alpha: float) -> torch.Tensor:
        distances = real(*args, alpha=alpha)
        held.append(4 * distances.numel())
        return distances

    real = torch.addmm
    monkeypatch.setattr(torch, "addmm", addmm)
    nearest_codes(torch.randn(1000, 4), torch.randn(12000, 4))
    assert max(held) <= 16 * 2**20
    assert sum(held) == 4 * 1000 * 12000


def test_the_lowest_index_wins_a_tie() -> None:
    codes_KD = torch.tensor([[9.0, 9.0], [1.0, 0.0], [1.0, 0.0], [0.0, 1.0]])
    z_ND = torch.tensor([[1.0, 0.0], [0.5, 0.5], [0.0, 0.0]])
    assert nearest_codes(z_ND, codes_KD).tolist() == [1, 1, 1]


def test_codes_start_within_one_over_k() -> None:
    codes_KD = VectorQuantizer(64, 8).codebook_KD.detach()
    assert codes_KD.abs().max() <= 1 / 64
    assert codes_KD.std().item() == pytest.approx(1 / 64 / 3**0.5, rel=0.1)


def test_cosine_codes_ignore_length() -> None:
    quantizer = VectorQuantizer(16, 4, cosine=True)
    z_BDhw = torch.randn(1, 4, 3, 3)
    assert torch.equal(quantizer.encode(z_BDhw), quantizer.encode(7 * z_BDhw))
    result = quantizer(z_BDhw)
    torch.testing.assert_close(result.z_q_BDhw.norm(dim=1), torch.ones(1, 3, 3))
    cosine_NK = torch.nn.functional.normalize(z_BDhw[0].flatten(1).t()) @ quantizer.codes().t()
    assert torch.equal(result.indices_Bhw.flatten(), cosine_NK.argmax(dim=1))


def test_training_brings_codes_to_the_clusters() -> None:
    generator = torch.Generator().manual_seed(1)
    centres_KD = torch.tensor([[2.0, 0.0], [0.0, 2.0], [-2.0, -2.0]])
    quantizer = VectorQuantizer(3, 2)
    quantizer.codebook_KD.data.copy_(centres_KD * 0.3)
    optimizer = torch.optim.Adam(quantizer.parameters(), lr=0.1)
    for _ in range(60):
        z_ND = centres_KD[torch.randint(3, (64,), generator=generator)] + 0.05 * torch.randn(64, 2, generator=generator)
        optimizer.zero_grad()
        quantizer(z_ND.t().reshape(1, 2, 8, 8)).terms["codebook"].backward()
        optimizer.step()
    torch.testing.assert_close(quantizer.codebook_KD.data, centres_KD, atol=0.1, rtol=0)


def test_codes_that_are_hardly_used_are_moved_to_latents() -> None:
    quantizer = VectorQuantizer(4, 2, revive_below=0.1, usage_decay=0.5)
    quantizer.codebook_KD.data.copy_(torch.tensor([[1.0, 0.0], [0.0, 1.0], [50.0, 50.0], [-50.0, 50.0]]))
    before_KD = quantizer.codebook_KD.detach().clone()
    z_ND = torch.tensor([[1.1, 0.0], [1.2, 0.0], [1.3, 0.0], [0.0, 1.4]])
    z_BDhw = z_ND.repeat(2, 1).t().reshape(1, 2, 4, 2)
    for rare in (0.5, 0.25, 0.125, 0.0625):  # half of the usage before, and half of the share in this batch
        quantizer(z_BDhw)
        torch.testing.assert_close(quantizer.usage_K, torch.tensor([3.0 - 2.0 * rare, 1.0, rare, rare]))
        assert torch.equal(quantizer.codebook_KD, before_KD)
    quantizer.eval()(z_BDhw)
    assert (int(quantizer.steps), quantizer.usage_K[2].item()) == (4, 0.0625)
    indices_Bhw = quantizer.train()(z_BDhw).indices_Bhw
    assert torch.equal(quantizer.codebook_KD[:2], before_KD[:2])
    assert all((code_D == z_ND).all(dim=1).any() for code_D in quantizer.codebook_KD[2:])
    counts_K = torch.bincount(indices_Bhw.flatten(), minlength=4)
    used_K = torch.tensor([2.875, 1.0, 1.0, 1.0])
    torch.testing.assert_close(quantizer.usage_K, 0.5 * used_K + 0.5 * counts_K / 2)
    assert int(quantizer.steps) == 5
