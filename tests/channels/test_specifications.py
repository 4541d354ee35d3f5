"""Specifications: what they make, and the one line that a wrong one gives."""

from __future__ import annotations

import builtins
import subprocess
import sys
from typing import Any

import pytest

from gosvae.channels import CHANNELS, Awgn, BitErasure, GilbertElliott, PacketLoss, Rayleigh, load_channel, radio
from gosvae.channels.base import Delivery
from gosvae.errors import ConfigError, MissingDependencyError
from gosvae.seeding import torch_generator


def test_specifications_make_channels() -> None:
    assert load_channel("packet-loss p=0.1") == PacketLoss(p=0.1)
    assert load_channel("  bit-erasure   p=1e-3 ") == BitErasure(p=0.001)
    assert load_channel("gilbert-elliott loss=0.1 burst=4") == GilbertElliott(loss=0.1, burst=4)
    assert load_channel("awgn snr_db=8 modulation=qpsk") == Awgn(snr_db=8)
    coded = load_channel("rayleigh ldpc_rate=0.5 snr_db=-3 modulation=64qam fading=symbol")
    assert coded == Rayleigh(snr_db=-3, modulation="64qam", ldpc_rate=0.5, fading="symbol")
    assert load_channel("awgn snr_db=8").spec == "awgn snr_db=8.0 modulation=qpsk"


@pytest.mark.parametrize(
    ("spec", "said"),
    [
        ("", "unknown channel ''"),
        ("packetloss p=0.1", "did you mean 'packet-loss'? (known: awgn, binary-symmetric, bit-erasure"),
        ("packet-loss", "p: Field required; expected packet-loss p=0..1"),
        ("packet-loss q=0.1", "p=0..1"),
        ("packet-loss p=0.1 burst=4", "unknown key 'burst' (known: p)"),
        ("packet-loss p=1.5", "less than or equal to 1, got '1.5'"),
        ("packet-loss p=nan", "p: Input should be"),
        ("packet-loss p=often", "got 'often'"),
        ("packet-loss 0.1", "'0.1' is no KEY=VALUE"),
        ("packet-loss p=", "'p=' is no KEY=VALUE"),
        ("packet-loss p=0.1 p=0.2", "'p=0.2' is given twice"),
        ("gilbert-elliott loss=0.1", "burst: Field required"),
        ("gilbert-elliott loss=0.1 burst=0.5", "greater than or equal to 1"),
        ("gilbert-elliott loss=0.9 burst=2", "a loss of 0.9 needs bursts of at least 9 packets"),
        ("awgn snr_db=8 modulation=8psk", "'bpsk', 'qpsk', '16qam' or '64qam', got '8psk'"),
        ("awgn snr_db=8 ldpc_rate=0.1", "greater than or equal to 0.25"),
        ("awgn snr_db=8 fading=packet", "unknown key 'fading'"),
        ("rayleigh snr_db=8 fading=fast", "'packet' or 'symbol'"),
    ],
)
def test_a_wrong_one_is_one_line_that_says_what_there_is(spec: str, said: str) -> None:
    with pytest.raises(ConfigError) as caught:
        load_channel(spec)
    assert said in str(caught.value)
    assert "\n" not in str(caught.value)


def test_every_channel_says_how_it_is_used() -> None:
    for name, member in CHANNELS.items():
        assert member.usage.startswith(f"{name} ")
        for key in member.model_fields:
            assert f"{key}=" in member.usage


def test_a_delivery_of_wrong_lengths_is_a_defect() -> None:
    with pytest.raises(ValueError, match="other lengths"):
        Delivery((b"ab",), (b"",), (False,))
    with pytest.raises(ValueError, match="other lengths"):
        Delivery((b"ab",), (b"\0\0",), ())


def test_without_sionna_the_radio_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    real = builtins.__import__

    def without(name: str, *args: Any, **more: Any) -> Any:
        if name.startswith("sionna"):
            raise ModuleNotFoundError("No module named 'sionna'")
        return real(name, *args, **more)

    radio._parts.cache_clear()
    monkeypatch.setattr(builtins, "__import__", without)
    channel = load_channel("awgn snr_db=8")
    with pytest.raises(MissingDependencyError, match=r"pip install 'gosvae\[radio\]'"):
        channel([b"abc"], torch_generator(1))


def test_the_import_of_sionna_does_not_seed_anything() -> None:
    pytest.importorskip("sionna", reason="needs the extra radio")
    program = (
        "import torch; from gosvae.channels import load_channel; torch.manual_seed(5); before = torch.get_rng_state();"
        "load_channel('awgn snr_db=8')([b'abc'], torch.Generator());"
        "assert torch.equal(torch.get_rng_state(), before)"
    )
    done = subprocess.run([sys.executable, "-W", "error", "-c", program], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
