"""More that is fuzzed: streams of released models, files of sequences, and files of classical codecs.

Released models decode streams as far as the symbols only. Files of classical codecs have no checksum: damage may give
any picture, but never a larger one than the file announces.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import cache
from io import BytesIO
from pathlib import Path
from random import Random

import numpy as np
from fuzz_targets import Target, pictures, repack, variable_encode
from mutations import DAMAGE

from gosvae.bitstream import MAX_PIXELS, Header, Stream, pack_slices, salvage, unpack_slices
from gosvae.codecs.announced import announced_pixels
from gosvae.codecs.classical import load_classical
from gosvae.codecs.latent import Latent
from gosvae.codecs.registry import codec_of_stream, embedded_codecs
from gosvae.codecs.sequence.file import SequenceFile, SequenceWriter
from gosvae.codecs.sequence.format import CHECK_BYTES, HEADER_BYTES, SessionHeader, checksum, is_session
from gosvae.codecs.slices import encode_slices
from gosvae.codecs.variable import VariableRateCodec
from gosvae.codecs.vq import IndexCoder, VqCodec
from gosvae.errors import BitstreamError, ForeignStreamError
from gosvae.tensors import ImageArray
from tiny import sequence_codec, streets

GOLDEN = Path(__file__).resolve().parents[1] / "golden" / "models"
MOST_FILE_PIXELS = 2**17
"""Number of pixels above which a file is not decoded."""


def released_target() -> Target:
    """Committed streams of every released codec; the codec is found by the fingerprint, as a receiver finds it."""
    streams = [path.read_bytes() for name in embedded_codecs() for path in sorted((GOLDEN / name).glob("*.gsva"))]
    codecs: dict[str, VqCodec | VariableRateCodec] = {}
    by_fingerprint: dict[bytes, VqCodec | VariableRateCodec] = {}
    for data in streams:
        codec = codec_of_stream(data)
        assert isinstance(codec, VqCodec | VariableRateCodec)
        by_fingerprint[unpack_slices(data).header.fingerprint[:4]] = codecs.setdefault(codec.name, codec)

    def codec_of(header: Header) -> VqCodec | VariableRateCodec:
        if header.fingerprint[:4] not in by_fingerprint:
            raise ForeignStreamError("no released model")
        return by_fingerprint[header.fingerprint[:4]]

    def decode(data: bytes) -> Latent:
        return codec_of(salvage(data).header).decode(data)

    def encode(stream: Stream, decoded: Latent) -> bytes:
        codec = codec_of(stream.header)
        if isinstance(codec, VariableRateCodec):
            return variable_encode(codec, stream, decoded)
        models = {model.model_id: model for model in codec.entropy_models}
        coder, count = IndexCoder([models[stream.header.entropy_model_id]]), len(stream.slices)
        return repack(stream, encode_slices(coder, decoded.symbols, 0, count, stream.layout)[1])

    return Target("released", decode, encode, None, None, tuple(streams), weight=0.2)


def _forged_session(random: Random, data: bytes) -> bytes:
    """A session header with another value, and a checksum that agrees."""
    header, rest = SessionHeader.unpack(data)
    try:
        changed = replace(
            header,
            height=random.choice((header.height, 1, 63, 65535, random.randrange(1, 2**12))),
            width=random.choice((header.width, 1, 97, 65535, random.randrange(1, 2**12))),
            slices=random.choice((header.slices, 1, 2, 5, 256)),
            layout=random.choice(("bands", "interleaved")),
            frames_per_second=random.choice((header.frames_per_second, 0.0, 655.35)),
        )
    except BitstreamError:
        return data
    return changed.pack() + rest


def _forged_frame(random: Random, data: bytes, reference: int) -> bytes:
    """A frame with another body, and a checksum that agrees with it and with the reference it was made for."""
    key = is_session(data)
    head, body = data[: HEADER_BYTES * key], data[HEADER_BYTES * key : -CHECK_BYTES]
    body = DAMAGE[random.choice(("flip", "overwrite", "cut end", "cut out", "insert", "repeat"))](random, body, ())
    return head + body + checksum(body, random.choice((0, reference)))


def sequence_target() -> Target:
    """Files of sequences: a few frames each, in one slice and in several, whole and without their index."""
    codec = sequence_codec(level=100)
    files: list[bytes] = []
    frames: dict[bytes, list[bytes]] = {}
    for options in ({"level": 100}, {"level": 40, "slices": 3}, {"level": 200, "key_interval": 2}):
        encoder, stream = sequence_codec(**options).encoder(40, 56, frames_per_second=10.0), BytesIO()
        image = streets()[0].image_uint8_HW3[:40, :56]
        coded = [encoder.encode(np.roll(image, shift, axis=1)) for shift in (0, 1, 1, 9)]
        with SequenceWriter(stream) as writer:
            for data in coded:
                writer.write(data)
            writer.hold()
        files += [stream.getvalue(), stream.getvalue()[:-9]]
        frames |= dict.fromkeys(files[-2:], coded)

    def decode(data: bytes) -> Latent:
        file, decoder, latent = SequenceFile(data), codec.decoder(), None
        header = file.header
        if header.height * header.width > MOST_FILE_PIXELS:
            raise BitstreamError("not decoded here: too many pixels")
        for _, frame in file.frames():
            if frame:
                latent = decoder.decode_latent(frame)
                if (latent.height, latent.width) != (header.height, header.width):
                    raise AssertionError("a frame of another size than its session announces")
        file.headers()
        if latent is None:
            raise BitstreamError("a file without frames")
        return latent

    def forge(random: Random, data: bytes) -> bytes:
        coded = list(frames[data])
        if random.random() < 0.3:
            return _forged_session(random, data)
        which, decoder = random.randrange(len(coded)), codec.decoder()
        for frame in coded[:which]:
            decoder.decode_latent(frame)
        reference = 0 if decoder.newest is None else decoder.newest.checksum
        coded[which] = _forged_frame(random, coded[which], reference)
        stream = BytesIO()
        try:
            with SequenceWriter(stream) as writer:
                for frame in coded:
                    writer.write(frame)
        except BitstreamError:
            return data[:-1]
        return stream.getvalue()

    return Target("sequence", decode, None, None, None, tuple(files), weight=0.3, forge=forge)


def classical_target(name: str) -> Target:
    """Files of one classical codec."""
    codec = load_classical(name)
    streams = tuple(codec.compress(picture) for picture in pictures())

    def decompress(data: bytes) -> ImageArray:
        pixels = announced_pixels(data)
        if pixels > MOST_FILE_PIXELS:
            raise BitstreamError("not decoded here: too many pixels")
        image = codec.decompress(data)
        if image.shape[0] * image.shape[1] > pixels:
            raise AssertionError(f"a picture of {image.shape} where {pixels} pixels are announced")
        return image

    def decode(data: bytes) -> Latent:
        image = decompress(data)
        return Latent(image.astype(np.int64), *image.shape[:2])

    def forge(random: Random, data: bytes) -> bytes:
        """Another size in one of the places where it may stand."""
        where, count = random.randrange(min(len(data), 400)), random.choice((1, 2, 4))
        value = random.choice((1, 2, 64, 255, 16384, 65535, random.randrange(MAX_PIXELS)))
        changed = (value % 256**count).to_bytes(count, random.choice(("big", "little")))
        return data[:where] + changed + data[where + count :]

    return Target(name, decode, None, None, None, streams, weight=0.1, forge=forge)


CLASSICAL = ("jpeg", "jpeg-half", "webp", "avif", "avif-third", "jpegxl", "hevc")
"""Those of the classical codecs that decode within the process."""


def wrapped_target() -> Target:
    """Key frames of a sequence inside streams of the container, as they travel."""
    codec = sequence_codec(level=100)
    streams = []
    for slices in (1, 4):
        encoder = sequence_codec(level=100, slices=slices).encoder(40, 56)
        encoder.encode(streets()[1].image_uint8_HW3[:40, :56])
        streams.append(codec.wrapped(encoder.parts, 40, 56))

    def decode(data: bytes) -> Latent:
        return codec.decoder().decode_parts(codec.unwrapped(unpack_slices(data)))

    def encode(stream: Stream, decoded: Latent) -> bytes:
        if (decoded.height, decoded.width) != (stream.header.height, stream.header.width):
            raise AssertionError("a frame of another size than the stream around it")
        return pack_slices(stream.header, stream.slices, stream.layout)

    return Target("wrapped", decode, encode, None, None, tuple(streams), weight=0.3)


@cache
def more_targets() -> tuple[Target, ...]:
    """Return all of them."""
    made: list[Callable[[], Target]] = [released_target, sequence_target, wrapped_target]
    found = [make() for make in made] + [classical_target(name) for name in CLASSICAL]
    for target in found:
        for data in target.streams:
            decoded = target.decode(data)
            if target.encode is not None and target.encode(unpack_slices(data), decoded) != data:
                raise AssertionError(f"{target.name}: a stream of its own does not encode to itself")
    return tuple(found)
