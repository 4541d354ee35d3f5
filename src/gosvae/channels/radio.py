"""Radio channels: bits are mapped to symbols, which fade and get noise, and the receiver decides the bits again.

Sionna (Hoydis et al. 2022, "Sionna: An Open-Source Library for Next-Generation Physical Layer Research") computes the
constellations, the noise, the fading, and the codes of 5G. It is in the extra `radio` and is imported at the first
packet.

Axis legend: N bits, S symbols, M points of the constellation, C code blocks.
"""

from __future__ import annotations

import threading
from abc import abstractmethod
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache, lru_cache
from typing import Annotated, Any, ClassVar, Literal

import numpy as np
import torch
from pydantic import Field
from torch import Tensor

from gosvae.channels.base import Channel, Delivery, delivery
from gosvae.errors import MissingDependencyError

Modulation = Literal["bpsk", "qpsk", "16qam", "64qam"]
_CONSTELLATIONS: dict[str, tuple[str, int]] = {
    "bpsk": ("pam", 1),
    "qpsk": ("qam", 2),
    "16qam": ("qam", 4),
    "64qam": ("qam", 6),
}
"""Family of Sionna's constellations and number of bits in a symbol, for each modulation.

All have unit mean energy, and neighbours differ in one bit (3GPP TS 38.211, section 5.1).
"""

LONGEST_BLOCK = 8448
"""Largest number of bits in a block of base graph 1, with its CRC."""
LONGEST_BLOCK_AT_LOW_RATE = 3776
"""Largest number of bits in a block of base graph 2 (at most 3840), with its CRC; it serves rates below 0.34."""
BLOCK_STEP = 64
"""Number of bits that the length of a block is a multiple of, so that packets of all lengths share few codes."""
CRC_BITS = 24
"""Number of bits of the CRC of a block."""
_CHUNK_SYMBOLS = 2**16
_PLACE = {"precision": "single", "device": "cpu"}
_RNG_LOCK = threading.Lock()


@dataclass(frozen=True)
class _Parts:
    """Blocks of Sionna for one modulation."""

    bits_per_symbol: int
    mapper: Any
    decide: Any
    likelihood: Any
    gains: Any
    fade: Any
    noise: Any
    rng: torch.Generator


@dataclass(frozen=True)
class _Code:
    """Blocks of Sionna for one LDPC code; a block has `payload_bits` bits of the packet, then its CRC."""

    payload_bits: int
    n: int
    add_crc: Any
    encode: Any
    decode: Any
    check_crc: Any


def _import_sionna() -> Any:
    """Return Sionna's physical layer. Its import seeds PyTorch's global generators; their state is restored."""
    try:
        with torch.random.fork_rng(devices=range(torch.cuda.device_count())):
            import sionna.phy
    except ImportError as error:
        raise MissingDependencyError(
            f"the radio channels need Sionna ({error}): pip install 'gosvae[radio]' (or sionna-no-rt)"
        ) from None
    return sionna.phy


@cache
def _parts(modulation: Modulation) -> _Parts:
    phy = _import_sionna()
    family, bits = _CONSTELLATIONS[modulation]
    constellation = phy.mapping.Constellation(family, bits, **_PLACE)
    return _Parts(
        bits_per_symbol=bits,
        mapper=phy.mapping.Mapper(constellation=constellation, **_PLACE),
        # The nearest point of the constellation decides all bits of a symbol (max-log), as the closed forms assume.
        decide=phy.mapping.Demapper("maxlog", constellation=constellation, hard_out=True, **_PLACE),
        likelihood=phy.mapping.Demapper("app", constellation=constellation, **_PLACE),
        gains=phy.channel.GenerateFlatFadingChannel(1, 1, **_PLACE),
        fade=phy.channel.ApplyFlatFadingChannel(**_PLACE),
        noise=phy.channel.AWGN(**_PLACE),
        rng=phy.config.torch_rng("cpu"),
    )


@lru_cache(maxsize=64)
def _code(block_bits: int, n: int, bits_per_symbol: int) -> _Code:
    phy = _import_sionna()
    encode = phy.fec.ldpc.LDPC5GEncoder(block_bits, n, num_bits_per_symbol=bits_per_symbol, **_PLACE)
    add_crc = phy.fec.crc.CRCEncoder("CRC24B", **_PLACE)
    return _Code(
        payload_bits=block_bits - CRC_BITS,
        n=n,
        add_crc=add_crc,
        encode=encode,
        decode=phy.fec.ldpc.LDPC5GDecoder(encode, hard_out=True, num_iter=20, **_PLACE),
        check_crc=phy.fec.crc.CRCDecoder(add_crc, **_PLACE),
    )


@contextmanager
def _draws_from(generator: torch.Generator, rng: torch.Generator) -> Iterator[None]:
    """Replace the generator of Sionna's blocks by the given one within this context."""
    with _RNG_LOCK:
        kept = rng.get_state()
        rng.set_state(generator.get_state())
        try:
            yield
        finally:
            generator.set_state(rng.get_state())
            rng.set_state(kept)


def _bits_of(packet: bytes) -> Tensor:
    """Return the bits of a packet as floats (N,), most significant bit of each byte first."""
    return torch.from_numpy(np.unpackbits(np.frombuffer(packet, np.uint8))).float()


def _bytes_of(bits_N: Tensor) -> bytes:
    return np.packbits(bits_N.to(torch.uint8).numpy()).tobytes()


def _padded(bits_N: Tensor, multiple: int) -> Tensor:
    """Return the bits, padded with zeros to a multiple of a length."""
    return torch.nn.functional.pad(bits_N, (0, -len(bits_N) % multiple))


class _Radio(Channel):
    """Base of the radio channels, which differ only in the gains of the symbols."""

    snr_db: Annotated[float, Field(ge=-100, le=100)]
    modulation: Modulation = "qpsk"
    ldpc_rate: Annotated[float, Field(ge=0.25, le=0.92)] | None = None

    @abstractmethod
    def _gains(self, parts: _Parts, symbols: Sequence[int]) -> Tensor:
        """Return complex gains (S, 1, 1) of the symbols of all packets, given the number of symbols of each packet."""

    def code_for(self, n_bytes: int) -> tuple[int, int, int]:
        """Return the number of blocks of a packet of `n_bytes` bytes, and the bits of a block before and after coding.

        The packet is cut into as few blocks as the code allows, of equal length, padded with zeros. The bits before
        coding include the CRC; those after coding are sent on the air.
        """
        assert self.ldpc_rate is not None
        longest = LONGEST_BLOCK if self.ldpc_rate >= 0.34 else LONGEST_BLOCK_AT_LOW_RATE
        n_bits = 8 * n_bytes
        blocks = -(-n_bits // (longest - CRC_BITS))
        block_bits = -(-n_bits // blocks) + CRC_BITS
        block_bits += -block_bits % BLOCK_STEP
        bits_per_symbol = _CONSTELLATIONS[self.modulation][1]
        n = int(np.ceil(block_bits / self.ldpc_rate))
        return blocks, block_bits, n + -n % bits_per_symbol

    def _encoded(self, packet: bytes) -> Tensor:
        """Return the bits of a packet that are sent on the air, a whole number of symbols."""
        bits_N = _bits_of(packet)
        bits_per_symbol = _CONSTELLATIONS[self.modulation][1]
        if self.ldpc_rate is None or not packet:
            return _padded(bits_N, bits_per_symbol)
        _, block_bits, n = self.code_for(len(packet))
        code = _code(block_bits, n, bits_per_symbol)
        payload_CN = _padded(bits_N, code.payload_bits).view(-1, code.payload_bits)
        coded: Tensor = code.encode(code.add_crc(payload_CN)).flatten()
        return coded

    def _decoded(self, received_N: Tensor, n_bytes: int) -> tuple[bytes, bool]:
        """Return a packet from decided bits (uncoded) or log-likelihood ratios, and whether its CRC shows damage."""
        if self.ldpc_rate is None or not n_bytes:
            return _bytes_of(received_N[: 8 * n_bytes]), False
        blocks, block_bits, n = self.code_for(n_bytes)
        code = _code(block_bits, n, _CONSTELLATIONS[self.modulation][1])
        payload_CN, agrees_C1 = code.check_crc(code.decode(received_N.view(blocks, n)))
        return _bytes_of(payload_CN.flatten()[: 8 * n_bytes]), not bool(agrees_C1.all())

    def __call__(self, packets: Sequence[bytes], generator: torch.Generator) -> Delivery:
        if not any(packets):
            return delivery(packets)
        parts = _parts(self.modulation)
        with torch.inference_mode():
            coded = [self._encoded(packet) for packet in packets]
            symbols = [len(bits_N) // parts.bits_per_symbol for bits_N in coded]
            x_S = parts.mapper(torch.cat(coded))
            noise_variance = torch.tensor(10 ** (-self.snr_db / 10))
            with _draws_from(generator, parts.rng):
                h_S11 = self._gains(parts, symbols)
                y_S = parts.noise(parts.fade(x_S.unsqueeze(1), h_S11).squeeze(1), noise_variance)
            # The receiver knows h: y / h is the symbol with noise of variance N0 / |h|^2.
            h_S = h_S11.flatten()
            demap = parts.decide if self.ldpc_rate is None else parts.likelihood
            received = torch.cat(
                [
                    demap(y / h, noise_variance / h.abs().square())
                    for y, h in zip(torch.split(y_S, _CHUNK_SYMBOLS), torch.split(h_S, _CHUNK_SYMBOLS), strict=True)
                ]
            )
            pieces = torch.split(received, [len(bits_N) for bits_N in coded])
            decoded = [self._decoded(piece, len(packet)) for piece, packet in zip(pieces, packets, strict=True)]
        return delivery([packet for packet, _ in decoded], damaged=[damaged for _, damaged in decoded])


class Awgn(_Radio):
    """Channel with additive white Gaussian noise on the complex baseband and coherent detection.

    Attributes:
        snr_db: **Es/N0** in dB: mean energy of a symbol on the air over the noise power density, so the noise has
            variance N0 = 10^(-snr_db / 10), half of it in each of the two dimensions. The energy for a bit of the
            packet is less: Eb/N0 = Es/N0 - 10 log10(b r) with b bits in a symbol and code rate r (1 without a code).
        modulation: `bpsk`, `qpsk`, `16qam` or `64qam`, Gray-mapped, of unit mean energy.
        ldpc_rate: rate, 0.25..0.92, of the LDPC code of 5G (3GPP TS 38.212) with its CRC-24B on each block, decoded in
            20 iterations of belief propagation; None decides bits symbol by symbol without a code. The rate is that of
            a block with its CRC and padding. A packet whose CRC does not agree is marked as damaged.
    """

    name: ClassVar[str] = "awgn"
    usage: ClassVar[str] = "awgn snr_db=ES/N0 [modulation=bpsk|qpsk|16qam|64qam] [ldpc_rate=0.25..0.92]"

    def _gains(self, parts: _Parts, symbols: Sequence[int]) -> Tensor:  # noqa: ARG002 - all are one
        return torch.ones(sum(symbols), 1, 1, dtype=torch.complex64)


class Rayleigh(_Radio):
    """Channel with flat Rayleigh fading and then noise; the receiver knows every gain.

    A gain is complex Gaussian of mean power 1, so that `snr_db` is the mean **Es/N0**.

    Attributes:
        snr_db, modulation, ldpc_rate: see `Awgn`.
        fading: `packet` for one gain for all symbols of a packet (slow fading: whole packets are bad), or `symbol` for
            one gain for each symbol (ideal interleaving).
    """

    name: ClassVar[str] = "rayleigh"
    usage: ClassVar[str] = (
        "rayleigh snr_db=MEAN-ES/N0 [modulation=bpsk|qpsk|16qam|64qam] [ldpc_rate=0.25..0.92] [fading=packet|symbol]"
    )

    fading: Literal["packet", "symbol"] = "packet"

    def _gains(self, parts: _Parts, symbols: Sequence[int]) -> Tensor:
        if self.fading == "symbol":
            gains: Tensor = parts.gains(sum(symbols))
            return gains
        each: Tensor = parts.gains(len(symbols))
        return each.repeat_interleave(torch.tensor(symbols), dim=0)
