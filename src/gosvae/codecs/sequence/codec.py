"""Trained video codec: a variable-rate codec whose frames are coded given earlier ones."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import cached_property
from pathlib import Path

import torch

from gosvae import bitstream
from gosvae.bitstream import SHORT_FINGERPRINT_BYTES
from gosvae.codecs.checkpoint import load_codec_checkpoint
from gosvae.codecs.sequence.coder import FrameCoder
from gosvae.codecs.sequence.decoder import SequenceDecoder
from gosvae.codecs.sequence.encoder import SequenceEncoder, SequenceOptions
from gosvae.codecs.sequence.format import SessionHeader, is_session
from gosvae.codecs.slices import xor_mark
from gosvae.codecs.temporal_model import TemporalModel, load_temporal_model
from gosvae.codecs.variable import VariableRateCodec, VariableRateOptions
from gosvae.codecs.video import VideoCodec
from gosvae.entropy.ids import EntropyModelId
from gosvae.entropy.temporal_network import TemporalContextNetwork, integer_temporal_network
from gosvae.errors import BitstreamError, ForeignStreamError
from gosvae.precision import Precision


class SequenceCodec(VideoCodec):
    """Use this for the frames of a camera or a video whose receiver is a perception model.

    Compared with a `VariableRateCodec` on each frame, it takes a fraction of the bytes where little moves, but a frame
    depends on an earlier one. For the same symbols, both give the same pictures.

    Args:
        codec: variable-rate codec that makes the latents and the pictures.
        model: temporal model of this codec.
        options: options for writing sequences; None means the defaults.

    Raises:
        CheckpointError: the temporal model does not fit its configuration.
    """

    def __init__(self, codec: VariableRateCodec, model: TemporalModel, options: SequenceOptions | None = None) -> None:
        self.codec, self.model, self.options = codec, model, options or SequenceOptions()
        self.mark = xor_mark(codec.checkpoint.context_mark(), model.mark)

    @classmethod
    def load(
        cls,
        folder: str | Path,
        *,
        options: SequenceOptions | None = None,
        device: str | torch.device = "cpu",
        precision: Precision = "32",
        verify: bool = True,
    ) -> SequenceCodec:
        """Load codec and temporal model from a checkpoint folder.

        Args:
            folder: checkpoint folder.
            options: options for writing sequences; None means the defaults.
            device: device of the networks.
            precision: precision of encoder and decoder; the entropy models are exact in any case.
            verify: whether all weights must be those that the JSON files name by their SHA-256.

        Raises:
            CheckpointError: the folder is not a finished codec with a temporal model.
        """
        checkpoint = load_codec_checkpoint(Path(folder), verify=verify)
        codec = VariableRateCodec(checkpoint, options=VariableRateOptions(precision=precision), device=device)
        return cls(codec, load_temporal_model(Path(folder), checkpoint.fingerprint(), verify=verify), options)

    @property
    def name(self) -> str:
        return f"{self.codec.name} (video)"

    def at(self, level: int) -> SequenceCodec:
        """Return the same codec at another level; both share the networks."""
        return SequenceCodec(self.codec, self.model, replace(self.options, level=level))

    def sliced(self, slices: int) -> SequenceCodec:
        """Return the same codec with a number of interleaved slices for each frame; both share the networks."""
        return SequenceCodec(self.codec, self.model, replace(self.options, slices=slices, layout="interleaved"))

    def encoder(self, height: int, width: int, *, frames_per_second: float = 0.0) -> SequenceEncoder:
        options = self.options
        fingerprint = self.codec.fingerprint[:SHORT_FINGERPRINT_BYTES]
        header = SessionHeader(fingerprint, self.mark, height, width, frames_per_second, options.slices, options.layout)
        return SequenceEncoder(self.codec, self.frame_coder(header), header, options)

    def decoder(self) -> SequenceDecoder:
        return SequenceDecoder(self.codec, self.frame_coder)

    def wrapped(self, parts: Sequence[bytes], height: int, width: int) -> bytes:
        """Return a stream of the container around the parts of a frame, for links that carry such streams.

        Args:
            parts: bytes of each slice, see `CodedFrame.parts`, or one item with all bytes of a frame.
            height, width: size of the frame in pixels.
        """
        fingerprint = xor_mark(self.codec.fingerprint, self.mark)
        header = bitstream.Header(fingerprint, height, width, EntropyModelId.TEMPORAL_CONTEXT)
        return bitstream.pack_slices(header, parts)

    def unwrapped(self, stream: bitstream.Stream) -> tuple[bytes | None, ...]:
        """Return the parts of the frame that a stream of the container holds; None for those that are lost.

        Raises:
            ForeignStreamError: another codec or another temporal model made the frame.
            BitstreamError: the stream does not hold a frame of a sequence, or all its parts are lost.
        """
        if not is_wrapped(stream) or not stream.payloads:
            raise BitstreamError("not the stream of one frame of a sequence")
        bitstream.check_fingerprint(stream.header, xor_mark(self.codec.fingerprint, self.mark))
        if stream.detail_count or stream.layout != "bands":
            raise BitstreamError("damaged: the header around a frame of a sequence announces another kind of slices")
        header = stream.header
        for data in stream.payloads:
            if is_session(data):
                session, _ = SessionHeader.unpack(data)
                if (session.height, session.width) != (header.height, header.width):
                    raise BitstreamError("damaged: a key frame has another size than the stream around it")
        return tuple(stream.slices)

    def frame_coder(self, header: SessionHeader) -> FrameCoder:
        """Return the coder of a session's frames.

        Raises:
            ForeignStreamError: another codec or another temporal model made the session.
        """
        if header.fingerprint != self.codec.fingerprint[:SHORT_FINGERPRINT_BYTES]:
            raise ForeignStreamError(
                f"made by another codec: the session's fingerprint is {header.fingerprint.hex()}, that of "
                f"{self.codec.name} is {self.codec.fingerprint[:SHORT_FINGERPRINT_BYTES].hex()}"
            )
        if header.mark != self.mark:
            raise ForeignStreamError(f"made with another temporal model than that of this {self.codec.name}")
        stride = self.codec.transform.stride
        grid_hw = (-(-header.height // stride), -(-header.width // stride))
        return FrameCoder(self.codec, self._network, self.model.counts.numpy(), header.slices, header.layout, grid_hw)

    @cached_property
    def _network(self) -> TemporalContextNetwork:
        return integer_temporal_network(self.model.card.model, self.model.tensors).to(self.codec.device)


def bare_frame(data: bytes) -> bytes | None:
    """Return the bytes of the frame that a stream of the container holds; None if it does not hold a whole frame."""
    if data[2:3] != bytes([EntropyModelId.TEMPORAL_CONTEXT]):
        return None
    try:
        stream = bitstream.unpack_slices(data)
    except BitstreamError:
        return None  # the receiver refuses it
    return stream.slices[0] if len(stream.slices) == 1 else None


def is_wrapped(stream: bitstream.Stream) -> bool:
    """Return whether a stream of the container holds a frame of a sequence."""
    return stream.header.entropy_model_id == EntropyModelId.TEMPORAL_CONTEXT
