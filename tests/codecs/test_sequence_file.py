"""The file of a sequence: every frame in its place, random access, and as much as is there of a file that was cut."""

from __future__ import annotations

import zlib
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest

from gosvae.codecs.sequence.codec import SequenceCodec
from gosvae.codecs.sequence.file import SequenceFile, SequenceWriter, frame_modes
from gosvae.codecs.sequence.format import HEADER_BYTES, is_session
from gosvae.errors import BitstreamError, ForeignStreamError
from gosvae.fields import varint
from gosvae.tensors import ImageArray
from tiny import sequence_codec, streets


def frame(number: int) -> ImageArray:
    return np.roll(streets()[0].image_uint8_HW3, 3 * number, axis=1)


def written(codec: SequenceCodec, count: int = 8, *, held: tuple[int, ...] = ()) -> tuple[bytes, list[bytes]]:
    """A file of frames, and the bytes of each; those that are held have none."""
    encoder, stream = codec.encoder(64, 96, frames_per_second=10.0), BytesIO()
    coded = []
    with SequenceWriter(stream) as writer:
        for number in range(count):
            coded.append(b"" if number in held else encoder.encode(frame(number)))
            writer.hold() if number in held else writer.write(coded[-1])
    return stream.getvalue(), coded


def test_every_frame_comes_back() -> None:
    data, coded = written(sequence_codec(level=100, key_interval=3), held=(1, 5))
    file = SequenceFile(data)
    assert file.complete
    assert list(file.frames()) == list(enumerate(coded))
    assert (len(file), file.keys) == (8, [0, 4])
    assert sum(frame_modes(file.headers()).values()) == 6
    assert len(data) < sum(map(len, coded)) + 80


def test_access_begins_at_the_key_frame_before() -> None:
    codec = sequence_codec(level=100, key_interval=3)
    data, coded = written(codec)
    cut = SequenceFile(data[:-1])  # without its index
    assert not cut.complete
    for file in (SequenceFile(data), cut):
        for first in range(8):
            frames = list(file.frames(first))
            begin = first - first % 3
            assert frames == list(enumerate(coded))[begin:]
            decoder = codec.decoder()
            for _, each in frames:
                decoder.decode_latent(each)
        with pytest.raises(BitstreamError, match="frame 8: the sequence has 8"):
            list(file.frames(8))


def test_a_file_that_was_cut_has_the_frames_before_the_cut() -> None:
    data, coded = written(sequence_codec(level=100))
    for cut in range(HEADER_BYTES, len(data) - 1):
        file = SequenceFile(data[:cut])
        count = len(file)
        assert not file.complete
        if count:
            assert list(file.frames()) == list(enumerate(coded))[:count]
    assert count == 8


def test_what_is_no_sequence_is_refused(tmp_path: Path) -> None:
    data, coded = written(sequence_codec(level=100), 2)
    for bad in (b"", data[:10], b"\x89PNG" + data[4:], bytes([*data[:20], data[20] ^ 1, *data[21:]])):
        with pytest.raises(BitstreamError):
            SequenceFile(bad)
    with pytest.raises(BitstreamError, match="cannot read"):
        SequenceFile.read(tmp_path / "nothing.gosv")
    writer = SequenceWriter(BytesIO())
    with pytest.raises(BitstreamError, match="first frame"):
        writer.write(coded[1])
    writer.write(coded[0])
    with pytest.raises(BitstreamError, match="another session"):
        writer.write(sequence_codec(level=100, slices=2).encoder(64, 96).encode(frame(0)))
    newer = bytearray(data[:HEADER_BYTES])
    assert is_session(bytes(newer))
    newer[4] = 9
    with pytest.raises(BitstreamError):
        SequenceFile(bytes(newer) + data[HEADER_BYTES:])


def test_a_newer_version_is_told() -> None:

    data, _ = written(sequence_codec(level=100), 1)
    body = data[:4] + b"\x09" + data[5 : HEADER_BYTES - 4]
    with pytest.raises(ForeignStreamError, match="upgrade"):
        SequenceFile(body + zlib.crc32(body).to_bytes(4, "big"))


def test_a_second_session_in_a_file_is_refused() -> None:
    """Only the first session header says how large the frames are."""
    codec = sequence_codec(level=100)
    _, coded = written(codec, 1)
    first, record = coded[0], coded[0][HEADER_BYTES:]
    data = first[:HEADER_BYTES] + varint(2 * len(record) + 1) + record + varint(2 * len(first)) + first
    found = SequenceFile(data).frames()
    assert next(found) == (0, first)
    with pytest.raises(BitstreamError, match="a second session"):
        next(found)
