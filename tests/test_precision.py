"""Mixed precision only where it is quick."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from gosvae.errors import ConfigError
from gosvae.precision import autocast, has_bf16, usable_device


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


@pytest.mark.parametrize(
    ("precision", "native", "mixed"),
    [("32", True, False), ("auto", True, True), ("auto", False, False), ("bf16", False, True)],
)
def test_auto_is_what_the_device_does_well(
    monkeypatch: pytest.MonkeyPatch, precision: Any, native: bool, mixed: bool
) -> None:
    monkeypatch.setattr("gosvae.precision.has_bf16", lambda _: native)
    with autocast("cpu", precision):
        assert torch.is_autocast_enabled("cpu") is mixed
        assert (torch.ones(2, 2) @ torch.ones(2, 2)).dtype == (torch.bfloat16 if mixed else torch.float32)


def test_a_device_that_is_not_there_is_refused_in_one_line() -> None:
    assert usable_device("cpu") == usable_device(torch.device("cpu")) == torch.device("cpu")
    for device in ("cuda:99", "no-such-device", "hpu"):
        with pytest.raises(ConfigError, match=f"device '{device}' cannot be used here") as caught:
            usable_device(device)
        assert "\n" not in str(caught.value)
        assert caught.value.argument == "device"
