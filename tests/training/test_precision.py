"""Mixed precision only where it is quick."""

from __future__ import annotations

import pytest
import torch

from gosvae.training.stage import has_bf16


@pytest.mark.parametrize("native", [False, True])
def test_bf16_is_taken_where_the_processor_has_it(monkeypatch: pytest.MonkeyPatch, native: bool) -> None:
    monkeypatch.setattr(torch.cpu, "_is_amx_tile_supported", lambda: False, raising=False)
    monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda: native, raising=False)
    assert has_bf16("cpu") is native
    assert has_bf16("cuda")


def test_a_pytorch_that_cannot_tell_is_taken_at_its_slowest(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(torch.cpu, "_is_amx_tile_supported", raising=False)
    monkeypatch.delattr(torch.cpu, "_is_avx512_bf16_supported", raising=False)
    assert not has_bf16("cpu")
