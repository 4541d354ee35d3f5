"""What every channel promises: seeded, nothing reordered or resized, all that is known to be damaged is marked."""

from __future__ import annotations

import pytest
import torch

from gosvae.channels import CHANNELS, Channel, Delivery, load_channel
from gosvae.seeding import numpy_generator, torch_generator

SPECS = [
    "binary-symmetric p=0.1",
    "bit-erasure p=0.1",
    "packet-loss p=0.3",
    "gilbert-elliott loss=0.3 burst=3",
    "awgn snr_db=4 modulation=bpsk",
    "awgn snr_db=6",
    "rayleigh snr_db=9 modulation=16qam",
    "rayleigh snr_db=9 modulation=64qam fading=symbol",
    "awgn snr_db=0.5 modulation=qpsk ldpc_rate=0.5",
    "rayleigh snr_db=6 modulation=16qam ldpc_rate=0.5",
]
PERFECT = [
    "binary-symmetric p=0",
    "bit-erasure p=0",
    "packet-loss p=0",
    "gilbert-elliott loss=0 burst=4",
    "awgn snr_db=90 modulation=64qam",
    "awgn snr_db=10 ldpc_rate=0.92",
    "rayleigh snr_db=100 modulation=bpsk fading=symbol",
]
RADIO = {"awgn", "rayleigh"}


@pytest.fixture(params=SPECS)
def channel(request: pytest.FixtureRequest) -> Channel:
    if request.param.split()[0] in RADIO:
        pytest.importorskip("sionna", reason="needs the extra radio")
    return load_channel(request.param)


def packets() -> list[bytes]:
    """Thirty of all lengths, two of them empty."""
    generator = numpy_generator(3, "packets")
    return [generator.bytes(n) for n in [0, 1, 2, 3, 61, 0, *generator.integers(1, 200, 24).tolist()]]


def test_the_suite_has_every_channel() -> None:
    assert {spec.split()[0] for spec in SPECS} == set(CHANNELS)


def test_same_seed_same_result_and_the_generator_moves_on(channel: Channel) -> None:
    sent = packets()
    generator = torch_generator(1)
    first = channel(sent, generator)
    assert channel(sent, torch_generator(1)) == first
    assert channel(sent, generator) != first
    assert channel(sent, torch_generator(2)) != first


def test_global_generators_are_left_alone(channel: Channel) -> None:
    torch.manual_seed(5)
    before = torch.get_rng_state()
    first = channel(packets(), torch_generator(1))
    assert torch.equal(torch.get_rng_state(), before)
    torch.manual_seed(6)
    assert channel(packets(), torch_generator(1)) == first


def test_order_and_lengths_are_kept(channel: Channel) -> None:
    sent = packets()
    result = channel(sent, torch_generator(1))
    assert len(result.packets) == len(result.erasures) == len(result.damaged) == len(sent)
    for before, after, mask, damaged in zip(sent, result.packets, result.erasures, result.damaged, strict=True):
        if after is None:
            assert mask == b""
            assert not damaged
            continue
        assert isinstance(after, bytes)
        assert len(after) == len(mask) == len(before)
        assert damaged or not any(mask)
        assert all(a & m == 0 for a, m in zip(after, mask, strict=True)), "an erased bit reads as 0"
        if damaged and any(mask):
            assert all(a == b & ~m & 255 for a, b, m in zip(after, before, mask, strict=True))
    assert result.arrived == tuple(p for p in result.packets if p is not None)
    assert result.lost == tuple(n for n, p in enumerate(result.packets) if p is None)


def test_each_hurts_in_its_own_way_only(channel: Channel) -> None:
    """A channel that loses changes nothing; one that changes loses nothing."""
    sent = packets()
    result = channel(sent, torch_generator(1))
    loses = channel.name in ("packet-loss", "gilbert-elliott")
    assert bool(result.lost) == loses
    changed = [a != b for a, b in zip(sent, result.packets, strict=True) if b is not None]
    assert any(changed) != loses
    if channel.name == "bit-erasure" or "ldpc_rate" in channel.spec:
        assert any(result.damaged)
    else:
        assert not any(result.damaged)


def test_nothing_sent_nothing_arrives(channel: Channel) -> None:
    assert channel([], torch_generator(1)) == Delivery((), (), ())


def test_empty_packets_arrive_empty_or_not_at_all(channel: Channel) -> None:
    result = channel([b""] * 5, torch_generator(1))
    assert len(result.packets) == 5
    assert set(result.packets) <= {b"", None}
    assert set(result.erasures) == {b""}
    assert not any(result.damaged)


def test_what_is_sent_is_not_touched(channel: Channel) -> None:
    sent = packets()
    channel(sent, torch_generator(1))
    assert sent == packets()


def test_the_specification_makes_the_same_channel_again(channel: Channel) -> None:
    assert load_channel(channel.spec) == channel


@pytest.mark.parametrize("spec", PERFECT)
def test_a_perfect_channel_changes_nothing(spec: str) -> None:
    if spec.split()[0] in RADIO:
        pytest.importorskip("sionna", reason="needs the extra radio")
    sent = packets()
    result = load_channel(spec)(sent, torch_generator(1))
    assert result == Delivery(tuple(sent), tuple(bytes(len(p)) for p in sent), (False,) * len(sent))
