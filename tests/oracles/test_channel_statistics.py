"""Channels against closed forms: error rates, loss rates, burst lengths. Seeds are fixed, tolerances are 4.5 sigma."""

from __future__ import annotations

import math
from itertools import groupby, pairwise

import numpy as np
import pytest

from gosvae.channels import Channel, Delivery, load_channel
from gosvae.seeding import numpy_generator, torch_generator

SIGMAS = 4.5
BITS_PER_SYMBOL = {"bpsk": 1, "qpsk": 2, "16qam": 4, "64qam": 6}


def gaussian_tail(x: float) -> float:
    """Q(x)."""
    return 0.5 * math.erfc(x / math.sqrt(2))


def tail_over_awgn(c: float, es_n0: float) -> float:
    """Q(sqrt(2 c Es/N0))."""
    return gaussian_tail(math.sqrt(2 * c * es_n0))


def tail_over_rayleigh(c: float, es_n0: float) -> float:
    """The mean of Q(sqrt(2 c g Es/N0)) over g, exponential of mean 1: Proakis, Digital Communications, 14.3."""
    return 0.5 * (1 - math.sqrt(c * es_n0 / (1 + c * es_n0)))


TAILS = {"awgn": tail_over_awgn, "rayleigh": tail_over_rayleigh}


def bit_error_rate(channel: str, modulation: str, snr_db: float) -> float:
    """Exact, Gray mapping: Cho and Yoon (2002), "On the general BER expression of one- and two-dimensional amplitude
    modulations", Eqs. 14 and 16, in terms of Es/N0."""
    tail, es_n0 = TAILS[channel], 10 ** (snr_db / 10)
    if modulation == "bpsk":
        return tail(1.0, es_n0)
    points = 2 ** BITS_PER_SYMBOL[modulation]
    side = math.isqrt(points)
    bits = side.bit_length() - 1
    total = 0.0
    for k in range(1, bits + 1):
        for i in range(round((1 - 2**-k) * side)):
            sign = (-1) ** (i * 2 ** (k - 1) // side)
            weight = 2 ** (k - 1) - math.floor(i * 2 ** (k - 1) / side + 0.5)
            total += sign * weight * 2 * tail((2 * i + 1) ** 2 * 3 / (2 * (points - 1)), es_n0) / side
    return total / bits


def test_the_oracle_agrees_with_textbooks() -> None:
    """QPSK is BPSK at half the energy; 16-QAM written out; a table value of BPSK at 9.6 dB, 1e-5."""
    assert bit_error_rate("awgn", "bpsk", 9.6) == pytest.approx(1e-5, rel=0.05)
    for channel in TAILS:
        half = bit_error_rate(channel, "bpsk", 7 - 10 * math.log10(2))
        assert bit_error_rate(channel, "qpsk", 7) == pytest.approx(half)
    x = math.sqrt(10 ** (12 / 10) / 5)
    written_out = 0.75 * gaussian_tail(x) + 0.5 * gaussian_tail(3 * x) - 0.25 * gaussian_tail(5 * x)
    assert bit_error_rate("awgn", "16qam", 12) == pytest.approx(written_out)


def bit_errors(channel: Channel, packets: list[bytes], *seed: int) -> np.ndarray[tuple[int], np.dtype[np.uint8]]:
    """1 for each bit that arrived otherwise."""
    result = channel(packets, torch_generator(*seed))
    sent, received = (np.frombuffer(b"".join(p), np.uint8) for p in (packets, result.arrived))
    return np.unpackbits(sent ^ received)


def random_packets(count: int, n_bytes: int) -> list[bytes]:
    generator = numpy_generator(count, n_bytes)
    return [generator.bytes(n_bytes) for _ in range(count)]


@pytest.mark.parametrize("modulation", BITS_PER_SYMBOL)
@pytest.mark.parametrize("snr_db", [0, 7, 14])
@pytest.mark.parametrize("kind", ["awgn", "rayleigh"])
def test_bit_error_rate_of_a_radio_channel(kind: str, modulation: str, snr_db: int) -> None:
    pytest.importorskip("sionna", reason="needs the extra radio")
    expected = bit_error_rate(kind, modulation, snr_db)
    channel = load_channel(f"{kind} snr_db={snr_db} modulation={modulation}")
    # One packet of noise; of fading 15,000 packets of three bytes, each with a gain of its own.
    packets = random_packets(1, 45_000) if kind == "awgn" else random_packets(15_000, 3)
    n_bits = 360_000
    # Bits of a symbol, and all under one gain, may err together: at worst these are one draw and not many.
    together = BITS_PER_SYMBOL[modulation] if kind == "awgn" else 24
    sigma = math.sqrt(expected * (1 - expected) * together / n_bits)
    assert abs(bit_errors(channel, packets, 7).mean() - expected) <= SIGMAS * sigma + 0.5 / n_bits


def test_fading_by_symbol_has_the_same_mean_and_no_bad_packets() -> None:
    pytest.importorskip("sionna", reason="needs the extra radio")
    packets = random_packets(300, 150)
    rates = {}
    for fading in ("packet", "symbol"):
        channel = load_channel(f"rayleigh snr_db=10 modulation=qpsk fading={fading}")
        rates[fading] = bit_errors(channel, packets, 8).reshape(300, -1).mean(axis=1)
    expected = bit_error_rate("rayleigh", "qpsk", 10)
    sigma = math.sqrt(expected * (1 - expected) * 2 / (300 * 1200))
    assert abs(rates["symbol"].mean() - expected) <= SIGMAS * sigma
    assert rates["symbol"].std() < 0.02
    assert rates["packet"].std() > 0.05


def test_a_code_works_where_bare_bits_fail_and_its_crc_tells_where_it_does_not() -> None:
    """5G's LDPC of rate 1/2 and QPSK: Shannon's limit is Es/N0 = 0.2 dB; all is well 2 dB above and nothing below."""
    pytest.importorskip("sionna", reason="needs the extra radio")
    packets = [*random_packets(5, 300), b"", b"x", *random_packets(1, 1200)]
    good = load_channel("awgn snr_db=2.2 ldpc_rate=0.5")(packets, torch_generator(9))
    assert good.packets == tuple(packets)
    assert not any(good.damaged)
    assert bit_errors(load_channel("awgn snr_db=2.2"), packets, 9).mean() > 0.05
    bad = load_channel("awgn snr_db=-3 ldpc_rate=0.5")(packets, torch_generator(9))
    assert bad.damaged == tuple(bool(p) for p in packets)
    assert all(a != b for a, b in zip(bad.packets, packets, strict=True) if b)


def test_soft_decisions_know_how_far_each_symbol_can_be_trusted() -> None:
    """With a gain for each symbol, rate 1/2 and QPSK reach capacity at Es/N0 = 1.8 dB, if weak symbols count less."""
    pytest.importorskip("sionna", reason="needs the extra radio")
    packets = random_packets(4, 480)
    result = load_channel("rayleigh snr_db=4 ldpc_rate=0.5 fading=symbol")(packets, torch_generator(16))
    assert result.packets == tuple(packets)
    assert bit_errors(load_channel("rayleigh snr_db=4 fading=symbol"), packets, 16).mean() > 0.1


@pytest.mark.parametrize("modulation", BITS_PER_SYMBOL)
@pytest.mark.parametrize("rate", [0.25, 0.33, 0.34, 0.75, 0.92])
def test_every_rate_and_length_has_a_code(modulation: str, rate: float) -> None:
    pytest.importorskip("sionna", reason="needs the extra radio")
    channel = load_channel(f"awgn snr_db=40 modulation={modulation} ldpc_rate={rate}")
    packets = random_packets(1, 1) + random_packets(1, 469) + random_packets(1, 500)
    assert channel(packets, torch_generator(10)).packets == tuple(packets)


@pytest.mark.parametrize("p", [0.001, 0.1, 0.5])
def test_bits_are_flipped_and_erased_at_their_rate(p: float) -> None:
    packets = random_packets(50, 1000)
    n_bits = 400_000
    tolerance = SIGMAS * math.sqrt(p * (1 - p) / n_bits)
    assert abs(bit_errors(load_channel(f"binary-symmetric p={p}"), packets, 11).mean() - p) <= tolerance
    erased = load_channel(f"bit-erasure p={p}")(packets, torch_generator(12))
    mask = np.unpackbits(np.frombuffer(b"".join(erased.erasures), np.uint8))
    assert abs(mask.mean() - p) <= tolerance


def test_certain_errors() -> None:
    packets = random_packets(3, 100)
    flipped = load_channel("binary-symmetric p=1")(packets, torch_generator(1))
    assert flipped.packets == tuple(bytes(255 - b for b in p) for p in packets)
    erased = load_channel("bit-erasure p=1")(packets, torch_generator(1))
    assert erased == Delivery((bytes(100),) * 3, (b"\xff" * 100,) * 3, (True,) * 3)
    for spec in ("packet-loss p=1", "gilbert-elliott loss=1 burst=4"):
        assert load_channel(spec)(packets, torch_generator(1)) == Delivery((None,) * 3, (b"",) * 3, (False,) * 3)


def losses(spec: str, count: int, *seed: int) -> list[bool]:
    return [p is None for p in load_channel(spec)([b""] * count, torch_generator(*seed)).packets]


@pytest.mark.parametrize("p", [0.01, 0.1, 0.6])
def test_packets_are_lost_at_their_rate_and_independently(p: float) -> None:
    n = 100_000
    lost = losses(f"packet-loss p={p}", n, 13)
    assert abs(np.mean(lost) - p) <= SIGMAS * math.sqrt(p * (1 - p) / n)
    both = np.mean([a and b for a, b in pairwise(lost)])
    assert abs(both - p * p) <= SIGMAS * math.sqrt(3 * p * p * (1 - p * p) / n)


@pytest.mark.parametrize(("loss", "burst"), [(0.1, 4), (0.05, 1), (0.3, 20), (0.5, 1), (0.9, 30)])
def test_bursts_have_their_length_and_share(loss: float, burst: float) -> None:
    """Runs of losses are geometric of mean `burst`; runs of arrivals are of mean burst (1 - loss) / loss."""
    n = 200_000
    lost = losses(f"gilbert-elliott loss={loss} burst={burst}", n, 14)
    to_good, to_bad = 1 / burst, loss / (burst * (1 - loss))
    # The chain's correlation after k steps is r^k, so that the mean's variance grows by (1 + r) / (1 - r).
    r = 1 - to_good - to_bad
    sigma = math.sqrt(loss * (1 - loss) * (1 + r) / (1 - r) / n)
    assert abs(np.mean(lost) - loss) <= SIGMAS * sigma + 1 / n
    for state, leave in ((True, to_good), (False, to_bad)):
        runs = [sum(1 for _ in run) for value, run in groupby(lost) if value == state][1:-1]
        sigma = math.sqrt((1 - leave) / leave**2 / len(runs))
        assert abs(np.mean(runs) - 1 / leave) <= SIGMAS * sigma + 1e-9
    assert len(runs) > 500


def test_a_call_begins_in_the_stationary_state() -> None:
    first = [losses("gilbert-elliott loss=0.2 burst=50", 1, 15, n)[0] for n in range(2000)]
    assert abs(np.mean(first) - 0.2) <= SIGMAS * math.sqrt(0.2 * 0.8 / 2000)
