"""Sealed datagrams: packets and repair packets, encrypted and authenticated by a key that both ends know.

The cipher is ChaCha20-Poly1305 (RFC 8439), with a key of its own for every session of a sender (HKDF, RFC 5869) and the
number of the datagram as the nonce. A receiver takes each datagram once: a window of numbers shows which have arrived
(RFC 4303, section 3.4.3), and a session that is older than the latest one of its stream is refused. `docs/link.md` has
the layout. The library `cryptography` computes the cipher; it is in the extra `serve` and is imported on first use.
"""

from __future__ import annotations

import struct
import time
from collections import Counter, OrderedDict
from collections.abc import Callable
from dataclasses import dataclass, fields
from typing import Any

from gosvae.errors import ConfigError, MissingDependencyError
from gosvae.wire import SEALED_FIRST_BYTE, SEALED_VERSION

MIN_KEY_BYTES = 32
"""Least length of a key in bytes."""
WINDOW = 1024
"""Number of the latest datagrams of a session for which the receiver remembers whether they arrived.

Older datagrams are refused.
"""
COUNTERS = 2**32
"""Greatest number of datagrams of a session; after them the sender begins another one."""

_HEADER = struct.Struct(">BBIHII")
"""Magic, version, stream id, epoch (two fields: its upper 16 and lower 32 bits), counter."""
_TAG_BYTES = 16
SEALED_OVERHEAD_BYTES = _HEADER.size + _TAG_BYTES
"""Number of bytes by which a sealed datagram is longer than what it seals."""


def _cipher(key: bytes, stream_id: int, epoch_ms: int, what: str) -> Any:
    """Return the cipher of a session of datagrams or, from the receiver to the sender, of feedback.

    Raises:
        MissingDependencyError: cryptography is not installed.
    """
    try:
        from cryptography.hazmat.primitives.ciphers.aead import ChaCha20Poly1305
        from cryptography.hazmat.primitives.hashes import SHA256
        from cryptography.hazmat.primitives.kdf.hkdf import HKDF
    except ImportError as error:
        raise MissingDependencyError(
            f"sealed datagrams need cryptography ({error}): pip install 'gosvae[serve]'"
        ) from None
    info = f"gosvae sealed {what} 1".encode() + struct.pack(">IQ", stream_id, epoch_ms)
    return ChaCha20Poly1305(HKDF(SHA256(), 32, salt=None, info=info).derive(key))


def _check_key(key: bytes) -> None:
    if len(key) < MIN_KEY_BYTES:
        raise ConfigError(f"a key of {len(key)} bytes: expected at least {MIN_KEY_BYTES}, from a random source")


def _now_ms() -> int:
    return time.time_ns() // 1_000_000


class Sealer:
    """Sealer of the datagrams of one stream.

    Args:
        key: key that both ends know, of at least 32 bytes.
        stream_id: number of the stream.
        feedback: whether the datagrams are feedback from the receiver of the stream. Feedback is sealed with session
            keys of its own.
        now_ms: function that returns the time in milliseconds since 1970, from which the session takes its epoch. Each
            session has to begin later than the one before it.

    Raises:
        ConfigError: the key is too short.
        MissingDependencyError: cryptography is not installed.
    """

    def __init__(
        self, key: bytes, stream_id: int, now_ms: Callable[[], int] = _now_ms, *, feedback: bool = False
    ) -> None:
        _check_key(key)
        self._key, self._stream_id, self._now_ms = key, stream_id, now_ms
        self._what = "feedback" if feedback else "datagram"
        self._begin(now_ms())

    def _begin(self, epoch_ms: int) -> None:
        self._epoch_ms, self._counter = epoch_ms, 0
        self._cipher = _cipher(self._key, self._stream_id, epoch_ms, self._what)

    def seal(self, datagram: bytes) -> bytes:
        """Return a sealed datagram."""
        if self._counter == COUNTERS:
            self._begin(max(self._now_ms(), self._epoch_ms + 1))
        epoch = self._epoch_ms
        header = _HEADER.pack(
            *(SEALED_FIRST_BYTE, SEALED_VERSION << 4, self._stream_id, epoch >> 32, epoch & 0xFFFFFFFF, self._counter)
        )
        self._counter += 1
        sealed: bytes = self._cipher.encrypt(_nonce(header), datagram, header)
        return header + sealed


def _nonce(header: bytes) -> bytes:
    """Return the nonce of a datagram, 12 bytes: its counter."""
    return header[-4:].rjust(12, b"\0")


@dataclass(frozen=True)
class SealCounters:
    """Numbers of datagrams.

    Attributes:
        opened: number of datagrams that were opened.
        forged: number of datagrams that are damaged or were not sealed with the key.
        replayed: number of datagrams that had arrived before, were older than the window, or were of an older session.
    """

    opened: int = 0
    forged: int = 0
    replayed: int = 0


@dataclass
class _Session:
    """The latest session of a stream: bit n of `seen` is set if the datagram n before `newest` has come."""

    epoch_ms: int
    cipher: Any
    newest: int = -1
    seen: int = 0


class Opener:
    """Opener of sealed datagrams of many streams.

    Args:
        key: key that both ends know, of at least 32 bytes.
        max_streams: greatest number of streams whose sessions are remembered. Someone who recorded a session can replay
            it once if its stream was forgotten, or if it took place before this object was made.
        feedback: whether the datagrams are feedback, as in `Sealer`.

    Raises:
        ConfigError: the key is too short.
        MissingDependencyError: cryptography is not installed.
    """

    def __init__(self, key: bytes, max_streams: int = 4096, *, feedback: bool = False) -> None:
        _check_key(key)
        self._key, self._max_streams, self._what = key, max_streams, "feedback" if feedback else "datagram"
        _cipher(key, 0, 0, self._what)
        self._sessions: OrderedDict[int, _Session] = OrderedDict()
        self._counts: Counter[str] = Counter()

    @property
    def counters(self) -> SealCounters:
        """Numbers of datagrams so far."""
        return SealCounters(**{f.name: self._counts[f.name] for f in fields(SealCounters)})

    def open(self, data: bytes) -> bytes | None:
        """Return what a datagram seals; None if it is forged, damaged or repeated, which is counted."""
        if len(data) < SEALED_OVERHEAD_BYTES or data[:2] != bytes([SEALED_FIRST_BYTE, SEALED_VERSION << 4]):
            self._counts["forged"] += 1
            return None
        header = data[: _HEADER.size]
        *_, stream_id, high, low, counter = _HEADER.unpack(header)
        epoch_ms = high << 32 | low
        session = self._sessions.get(stream_id)
        if session is not None and epoch_ms < session.epoch_ms:
            self._counts["replayed"] += 1
            return None
        if session is None or epoch_ms > session.epoch_ms:
            session = _Session(epoch_ms, _cipher(self._key, stream_id, epoch_ms, self._what))
        elif _is_old(session, counter):
            self._counts["replayed"] += 1
            return None
        datagram = _decrypted(session.cipher, header, data[_HEADER.size :])
        if datagram is None or datagram[2:6] != header[2:6]:  # all kinds of datagrams have the stream id there too
            self._counts["forged"] += 1
            return None
        self._sessions[stream_id] = session
        self._sessions.move_to_end(stream_id)
        if len(self._sessions) > self._max_streams:
            self._sessions.popitem(last=False)
        _note(session, counter)
        self._counts["opened"] += 1
        return datagram


def _decrypted(cipher: Any, header: bytes, sealed: bytes) -> bytes | None:
    from cryptography.exceptions import InvalidTag

    try:
        datagram: bytes = cipher.decrypt(_nonce(header), sealed, header)
    except InvalidTag:
        return None
    return datagram


def _is_old(session: _Session, counter: int) -> bool:
    """Return whether a datagram has come already or is older than the window."""
    age = session.newest - counter
    return age >= WINDOW or (age >= 0 and bool(session.seen >> age & 1))


def _note(session: _Session, counter: int) -> None:
    """Note that a datagram has come."""
    ahead = counter - session.newest
    if ahead > 0:
        session.seen = (session.seen << min(ahead, WINDOW) | 1) & ((1 << WINDOW) - 1)
        session.newest = counter
    else:
        session.seen |= 1 << -ahead
