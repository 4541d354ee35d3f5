"""Sealed datagrams: the layout to the byte, forgeries, repetitions, sessions, and the way from sender to receiver."""

from __future__ import annotations

import random
import sys
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.ciphers.aead import ChaCha20Poly1305
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from gosvae.bitstream import Header, pack_slices
from gosvae.errors import ConfigError, MissingDependencyError
from gosvae.packets import packetise, protect, sealed
from gosvae.packets.sealed import SEALED_OVERHEAD_BYTES, WINDOW, Opener, SealCounters, Sealer
from gosvae.protocol.feedback import Feedback
from gosvae.protocol.security import read_key

KEY = b"k" * 32
ID = 0x01020304


def datagram(number: int = 0, stream_id: int = ID) -> bytes:
    return packetise(pack_slices(Header(b"mark", 12, 13, 3), [b"abc"]), stream_id=stream_id, frame=number)[0]


def sealer(epoch_ms: int = 0x0102_03040506, stream_id: int = ID, key: bytes = KEY) -> Sealer:
    return Sealer(key, stream_id, lambda: epoch_ms)


def test_the_layout_to_the_byte() -> None:
    """As docs/link.md has it, computed by hand."""
    sealing = sealer()
    sealing.seal(datagram())
    data = sealing.seal(datagram(1))
    header = bytes.fromhex("cc 10 01020304 010203040506 00000001")
    info = b"gosvae sealed datagram 1" + bytes.fromhex("01020304 0000010203040506")
    cipher = ChaCha20Poly1305(HKDF(SHA256(), 32, salt=None, info=info).derive(KEY))
    assert data == header + cipher.encrypt(bytes(8) + header[-4:], datagram(1), header)
    assert len(data) == len(datagram(1)) + SEALED_OVERHEAD_BYTES
    opener = Opener(KEY)
    assert opener.open(data) == datagram(1)
    assert opener.counters == SealCounters(opened=1)


def test_feedback_has_keys_of_its_own() -> None:
    """Both directions have the same stream id and may have the same epoch and counters."""
    told = Feedback(ID, 7, 3).pack()
    back, there = Sealer(KEY, ID, lambda: 1000, feedback=True).seal(told), sealer(1000).seal(told)
    assert back[:16] == there[:16]
    assert back[16:] != there[16:]
    assert Opener(KEY, feedback=True).open(back) == told
    assert Opener(KEY, feedback=True).open(there) is None
    assert Opener(KEY).open(back) is None


def test_repair_packets_are_sealed_too() -> None:
    packet, repair = protect([datagram()], overhead=1.0)
    sealing, opener = sealer(), Opener(KEY)
    assert [opener.open(sealing.seal(data)) for data in (packet, repair)] == [packet, repair]


def test_every_flipped_bit_and_every_truncation_is_found() -> None:
    data, opener = sealer().seal(datagram()), Opener(KEY)
    for bit in range(8 * len(data)):
        changed = bytearray(data)
        changed[bit // 8] ^= 1 << bit % 8
        assert opener.open(bytes(changed)) is None
    for length in range(len(data)):
        assert opener.open(data[:length]) is None
    assert opener.open(data + b"\0") is None
    assert opener.counters == SealCounters(forged=9 * len(data) + 1)
    assert opener.open(data) == datagram(), "none of them had an effect"


def test_what_is_not_sealed_or_sealed_by_another_key_or_for_another_stream_is_refused() -> None:
    opener = Opener(KEY)
    others = [datagram(), b"", b"noise", sealer(key=b"x" * 32).seal(datagram()), sealer().seal(datagram(stream_id=5))]
    assert [opener.open(data) for data in others] == [None] * 5
    assert opener.counters.forged == 5


def test_each_datagram_is_taken_once_in_any_order() -> None:
    sealing, opener = sealer(), Opener(KEY)
    sent = [sealing.seal(datagram(n)) for n in range(300)]
    arriving = sent * 3
    random.Random(0).shuffle(arriving)
    taken = [opened for data in arriving if (opened := opener.open(data)) is not None]
    assert sorted(taken) == sorted(datagram(n) for n in range(300))
    assert opener.counters == SealCounters(opened=300, replayed=600)


def test_datagrams_older_than_the_window_are_refused() -> None:
    sealing, opener = sealer(), Opener(KEY)
    sent = [sealing.seal(datagram(n)) for n in range(2 * WINDOW)]
    opener.open(sent[-1])
    assert opener.open(sent[WINDOW - 1]) is None, "nobody knows whether it came"
    assert opener.open(sent[WINDOW]) is not None
    assert opener.counters == SealCounters(opened=2, replayed=1)


def test_a_later_session_begins_at_once_and_an_earlier_one_never() -> None:
    opener = Opener(KEY)
    first, second = sealer(1000), sealer(1001)
    recorded = [first.seal(datagram(n)) for n in range(3)]
    assert opener.open(recorded[0]) is not None
    assert opener.open(second.seal(datagram(7))) == datagram(7)
    assert [opener.open(data) for data in (*recorded, first.seal(datagram(9)))] == [None] * 4
    forged = bytearray(sealer(2000).seal(datagram()))
    forged[-1] ^= 1
    assert opener.open(bytes(forged)) is None
    assert opener.open(second.seal(datagram(8))) == datagram(8), "a forged later session ends none"
    assert opener.counters == SealCounters(opened=3, replayed=4, forged=1)


def test_a_session_without_numbers_left_is_followed_by_another(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sealed, "COUNTERS", 3)
    sealing, opener = sealer(1000), Opener(KEY)
    data = [sealing.seal(datagram(n)) for n in range(8)]
    assert len({packet[:16] for packet in data}) == 8, "no nonce is used twice"
    assert [opener.open(packet) for packet in data] == [datagram(n) for n in range(8)]


def test_memory_for_sessions_is_bounded() -> None:
    opener = Opener(KEY, max_streams=3)
    for stream_id in range(10):
        assert opener.open(sealer(stream_id=stream_id).seal(datagram(stream_id=stream_id))) is not None
    for stream_id in range(10, 20):
        assert opener.open(sealer(stream_id=stream_id, key=b"x" * 32).seal(datagram(stream_id=stream_id))) is None
    assert list(opener._sessions) == [7, 8, 9]


def test_keys(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "key"
    file.write_text("0123456789abcdef" * 4 + "\n")
    assert read_key(file) == b"0123456789abcdef" * 4
    file.write_text("short")
    with pytest.raises(ConfigError, match=r"has 5 characters: expected at least 32; .*openssl rand"):
        read_key(file)
    with pytest.raises(ConfigError, match="cannot read the key of"):
        read_key(tmp_path / "none")
    for build in (lambda: Sealer(b"short", 1), lambda: Opener(b"short")):
        with pytest.raises(ConfigError, match="a key of 5 bytes: expected at least 32"):
            build()
    monkeypatch.setitem(sys.modules, "cryptography.hazmat.primitives.ciphers.aead", None)
    with pytest.raises(MissingDependencyError, match=r"pip install 'gosvae\[serve\]'"):
        Opener(KEY)
