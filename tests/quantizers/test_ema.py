"""The moving-average codebook: start, update, revival, resume, several devices, and a library as the oracle."""

from __future__ import annotations

import copy
from datetime import timedelta
from pathlib import Path

import pytest
import torch
from torch import Tensor, multiprocessing

from gosvae.quantizers import EmaVectorQuantizer


def batch(step: int, spread: float = 1.0, size: int = 6) -> Tensor:
    return spread * torch.randn(2, 3, size, size, generator=torch.Generator().manual_seed(step))


def test_one_update_by_hand() -> None:
    quantizer = EmaVectorQuantizer(2, 1, decay=0.9, epsilon=1e-9, kmeans_iterations=0, revive_below=0.0)
    quantizer.codebook_KD.copy_(torch.tensor([[0.0], [10.0]]))
    quantizer.sums_KD.copy_(quantizer.codebook_KD)
    result = quantizer(torch.tensor([1.0, 2.0, 9.0]).view(1, 1, 1, 3))
    assert result.z_q_BDhw.flatten().tolist() == [0.0, 0.0, 10.0]  # the codes before the update
    assert result.terms["commitment"].item() == pytest.approx((1 + 4 + 1) / 3)
    torch.testing.assert_close(quantizer.counts_K, torch.tensor([0.9 + 0.1 * 2, 0.9 + 0.1 * 1]))
    expected_KD = torch.tensor([[0.1 * 3 / 1.1], [(0.9 * 10 + 0.1 * 9) / 1.0]])
    torch.testing.assert_close(quantizer.codebook_KD, expected_KD)


def test_updates_equal_those_of_vector_quantize_pytorch() -> None:
    library = pytest.importorskip("vector_quantize_pytorch")
    theirs = library.VectorQuantize(
        dim=3, codebook_size=8, decay=0.99, eps=1e-5, threshold_ema_dead_code=0, accept_image_fmap=True
    ).train()
    ours = EmaVectorQuantizer(8, 3, kmeans_iterations=0, revive_below=0.0).train()
    codebook = theirs._codebook
    ours.codebook_KD.copy_(codebook.embed[0])
    ours.sums_KD.copy_(codebook.embed_avg[0])
    for step in range(5):
        z_q_BDhw, indices_Bhw, commitment = theirs(batch(step))
        result = ours(batch(step))
        assert torch.equal(result.indices_Bhw, indices_Bhw)
        torch.testing.assert_close(result.z_q_BDhw, z_q_BDhw)
        torch.testing.assert_close(result.terms["commitment"], commitment.squeeze())
    torch.testing.assert_close(ours.codebook_KD, codebook.embed[0])
    torch.testing.assert_close(ours.counts_K, codebook.cluster_size[0])


def test_k_means_start_fits_the_first_batch() -> None:
    started, not_started = EmaVectorQuantizer(16, 3), EmaVectorQuantizer(16, 3, kmeans_iterations=0)
    error = started(batch(0)).terms["commitment"]
    assert error < 0.35 * not_started(batch(0)).terms["commitment"]
    assert len(started.encode(batch(0)).unique()) > 12


def test_k_means_start_on_fewer_vectors_than_codes() -> None:
    quantizer = EmaVectorQuantizer(100, 3)
    assert quantizer(batch(0, size=2)).terms["commitment"] < 1e-6
    quantizer(batch(1))
    assert quantizer.codebook_KD.isfinite().all()


def test_unused_codes_come_back_as_vectors_of_the_batch() -> None:
    quantizer = EmaVectorQuantizer(16, 3, decay=0.5, kmeans_iterations=0, revive_below=0.1)
    quantizer.codebook_KD[1:] += 1000.0  # out of reach of every latent
    quantizer.sums_KD.copy_(quantizer.codebook_KD)
    used = [len(quantizer(batch(step)).indices_Bhw.unique()) for step in range(12)]
    assert used[0] == 1
    assert used[-1] >= 12
    assert quantizer.codebook_KD.abs().max() < 10


def test_without_revival_unused_codes_stay_out() -> None:
    quantizer = EmaVectorQuantizer(16, 3, decay=0.5, kmeans_iterations=0, revive_below=0.0)
    quantizer.codebook_KD[1:] += 1000.0
    quantizer.sums_KD.copy_(quantizer.codebook_KD)
    for step in range(5):
        assert quantizer(batch(step)).indices_Bhw.max() == 0


def test_only_training_moves_the_codebook() -> None:
    quantizer = EmaVectorQuantizer(8, 3).eval()
    before = copy.deepcopy(quantizer.state_dict())
    quantizer(batch(0))
    quantizer.train().encode(batch(0))
    for name, value in quantizer.state_dict().items():
        assert torch.equal(value, before[name])


def test_a_resumed_run_is_bit_identical_whatever_the_global_generator_does() -> None:
    settings = {"decay": 0.5, "revive_below": 0.3, "seed": 7}
    straight = EmaVectorQuantizer(32, 3, **settings)
    for step in range(8):
        straight(batch(step, spread=1 + step % 3))

    first = EmaVectorQuantizer(32, 3, **settings)
    for step in range(4):
        first(batch(step, spread=1 + step % 3))
    torch.manual_seed(1234)
    resumed = EmaVectorQuantizer(32, 3, **settings)
    resumed.load_state_dict(first.state_dict())
    for step in range(4, 8):
        resumed(batch(step, spread=1 + step % 3))
    for name, value in straight.state_dict().items():
        assert torch.equal(value, resumed.state_dict()[name]), name


def test_seeds_give_different_starts() -> None:
    codes = [EmaVectorQuantizer(32, 3, seed=seed) for seed in (0, 1)]
    for quantizer in codes:
        quantizer(batch(0))
    assert not torch.equal(codes[0].codebook_KD, codes[1].codebook_KD)


def _train_on_one_device(rank: int, store: str) -> dict[str, Tensor]:
    torch.distributed.init_process_group(
        "gloo", init_method=f"file://{store}", rank=rank, world_size=2, timeout=timedelta(seconds=500)
    )
    try:
        torch.manual_seed(0)
        quantizer = EmaVectorQuantizer(8, 3, revive_below=0.3)
        for step in range(3):
            quantizer(batch(step)[rank : rank + 1])
        return quantizer.state_dict()
    finally:
        torch.distributed.destroy_process_group()


def _other_device(_: int, store: str, out: str) -> None:
    torch.set_num_threads(1)
    torch.save(_train_on_one_device(1, store), out)


def test_two_devices_share_one_codebook(tmp_path: Path) -> None:
    store, out = str(tmp_path / "store"), str(tmp_path / "other.pt")
    other = multiprocessing.spawn(_other_device, (store, out), nprocs=1, join=False)
    try:
        mine = _train_on_one_device(0, store)
        while not other.join():
            pass
    finally:
        for process in other.processes:
            process.kill()
            process.join()
    theirs = torch.load(out, weights_only=True)
    for name, value in mine.items():
        assert torch.equal(value, theirs[name]), name
    assert mine["counts_K"].sum().item() == pytest.approx(2 * 36, rel=0.05)  # the vectors of both
