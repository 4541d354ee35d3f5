"""What is fuzzed: tiny codecs of every kind, their streams, and the way back from what was decoded to bytes."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cache
from random import Random

import numpy as np
import numpy.typing as npt
import torch

from gosvae.bitstream import Header, Stream, pack, pack_slices, unpack, unpack_slices
from gosvae.codecs.autoencoder import AutoencoderCodec
from gosvae.codecs.checkpoint import CodecCheckpoint
from gosvae.codecs.class_map import padded
from gosvae.codecs.class_map_passes import encode_passes
from gosvae.codecs.class_map_scan import encode_scan
from gosvae.codecs.gesco import GescoCodec
from gosvae.codecs.label_map import LabelMapCodec
from gosvae.codecs.latent import Latent
from gosvae.codecs.layered import LayeredCodec, LayeredOptions
from gosvae.codecs.slices import encode_slices, grid_parts
from gosvae.codecs.variable import VariableRateCodec, VariableRateOptions
from gosvae.codecs.vq import IndexCoder, VqCodec, VqOptions
from gosvae.datasets.streets import Streets
from gosvae.entropy.coder import encode_indices
from gosvae.entropy.context import ContextConfig, ContextNetwork
from gosvae.entropy.digits import Digits, positional
from gosvae.entropy.fixed import FixedLength
from gosvae.entropy.ids import EntropyModelId
from gosvae.tensors import ImageArray
from tiny import checkpoint, expert, model_config, scalar_checkpoint, streets, variable_checkpoint
from tiny_gesco import gesco_checkpoint

SIZES_HW = ((24, 40), (37, 51), (5, 3), (64, 96))


@dataclass(frozen=True)
class Target:
    """A codec under attack.

    Attributes:
        decode: bytes to what the payload says, without networks behind it.
        encode: from an intact stream and what it decoded to, the stream that an encoder makes of it; None for files
            without checksums, where damage may pass.
        decompress: bytes to a picture; None where drawing one takes long.
        salvage: bytes to what is left of the indices; None where a codec has no slices.
        streams: intact ones.
        weight: how often it is chosen, compared with the others: seldom where a stream takes long.
        forge: from an intact stream, one whose checksums agree; None for streams of the container.
    """

    name: str
    decode: Callable[[bytes], Latent]
    encode: Callable[[Stream, Latent], bytes] | None
    decompress: Callable[[bytes], ImageArray] | None
    salvage: Callable[[bytes], Latent] | None
    streams: tuple[bytes, ...]
    weight: float = 1.0
    forge: Callable[[Random, bytes], bytes] | None = None


def pictures() -> list[ImageArray]:
    """Small cut-outs of drawn scenes."""
    return [streets()[n].image_uint8_HW3[:height, :width] for n, (height, width) in enumerate(SIZES_HW)]


def repack(stream: Stream, payloads: list[bytes]) -> bytes:
    """The container of a stream, written anew."""
    if stream.version == 1:
        return pack(stream.header, payloads[0], version=1)
    return pack_slices(stream.header, payloads, stream.layout)


def with_context(made: CodecCheckpoint, codebook_size: int, values: tuple[int, ...]) -> CodecCheckpoint:
    """The checkpoint with a small context model of random weights."""
    config = ContextConfig(
        codebook_size=codebook_size, values=values, embedding_width=4, width=16, taps=(4, 6, 8), embed_digits=False
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        tensors = ContextNetwork(config).freeze()
    if len(values) > 1:
        tensors["digits_KD"] = torch.from_numpy(Digits(positional(codebook_size, values), values).table_KD).to(
            torch.uint16
        )
    return replace(made, card=made.card.model_copy(update={"context": config}), context=tensors)


def vq_target(name: str, made: CodecCheckpoint) -> Target:
    """Streams of a VQ codec: every entropy model, both containers, one slice and several."""
    reader = VqCodec(made)
    models = {model.model_id: model for model in reader.entropy_models}
    streams = []
    for options in (
        VqOptions(version=1, entropy="fixed"),
        VqOptions(version=1, entropy="static"),
        VqOptions(entropy="fixed"),
        VqOptions(entropy="static"),
        VqOptions(entropy="adaptive"),
        VqOptions(entropy="context"),
        VqOptions(slices=3),
        VqOptions(entropy="static", slices=4, layout="interleaved"),
        VqOptions(entropy="context", slices=2, layout="interleaved"),
    ):
        codec = VqCodec(made, options=options)
        streams += [codec.compress(picture) for picture in pictures()]

    def encode(stream: Stream, decoded: Latent) -> bytes:
        model = models[stream.header.entropy_model_id]
        coder, count = IndexCoder([model]), len(stream.slices)
        return repack(stream, encode_slices(coder, decoded.symbols, 0, count, stream.layout)[1])

    return Target(name, reader.decode, encode, reader.decompress, reader.decode_damaged, tuple(streams))


def skewed_checkpoint() -> CodecCheckpoint:
    """A codec whose table makes one index nearly certain: few bytes announce many indices."""
    made = checkpoint(model_config("fsq"))
    counts = torch.ones(16, dtype=torch.int64)
    counts[5] = 2**32
    return replace(made, counts=counts)


def autoencoder_target() -> Target:
    """Streams of a plain autoencoder at several steps."""
    codec = AutoencoderCodec(scalar_checkpoint())
    streams = []
    for picture in pictures():
        latent_1Dhw, steps = codec.analyse(picture), (1, 3, codec.config.largest_step)
        streams += [codec.encode(codec.quantise(latent_1Dhw, *picture.shape[:2], step)) for step in steps]

    def encode(stream: Stream, decoded: Latent) -> bytes:
        return repack(stream, [unpack(codec.encode(decoded))[1]])

    return Target("autoencoder", codec.decode, encode, codec.decompress, None, tuple(streams))


def variable_encode(codec: VariableRateCodec, stream: Stream, decoded: Latent) -> bytes:
    """The stream of what was decoded, with its own model: an encoder would take the other where it is as short."""
    symbols_Dhw, level = decoded.symbols, decoded.setting
    if stream.detail_count:  # the detail layer is not read
        task = unpack_slices(variable_encode(codec, stream.task, decoded))
        return pack_slices(stream.header, [*task.slices, *stream.detail], stream.layout, stream.detail_count)
    fixed = stream.header.entropy_model_id == FixedLength.model_id
    model = FixedLength(codec.config.context.values) if fixed else codec.coder.entropy_model(level)
    slices = [symbols_Dhw[:, *part] for part in grid_parts(symbols_Dhw.shape[1:], len(stream.slices), stream.layout)]
    grids = [part_Dhw.reshape(-1, part_Dhw.shape[2]) for part_Dhw in slices]
    return repack(stream, [bytes([level]) + encode_indices(model, grid_hw) for grid_hw in grids])


def variable_target() -> Target:
    """Streams of a variable-rate codec at several levels, of context and of fixed codes, one slice and several."""
    made = variable_checkpoint()
    reader = VariableRateCodec(made)
    streams = []
    for options in (
        VariableRateOptions(),
        VariableRateOptions(entropy="fixed"),
        VariableRateOptions(slices=2),
        VariableRateOptions(entropy="fixed", slices=3, layout="interleaved"),
        VariableRateOptions(slices=4, layout="interleaved"),
    ):
        codec = VariableRateCodec(made, options=options)
        streams += [codec.compress_at(picture, level) for picture in pictures() for level in (0, 200)]

    def encode(stream: Stream, decoded: Latent) -> bytes:
        return variable_encode(reader, stream, decoded)

    return Target("variable-rate", reader.decode, encode, reader.decompress, None, tuple(streams))


def layered_target() -> Target:
    """Streams of two layers, and of a picture alone."""
    codec = LayeredCodec(VariableRateCodec(variable_checkpoint()))
    streams = []
    for slices in (1, 3):
        options = VariableRateOptions(slices=slices, layout="interleaved" if slices > 1 else "bands")
        maker = VariableRateCodec(variable_checkpoint(), options=options)
        for purpose in ("both", "people") if slices == 1 else ("both",):
            layered = LayeredCodec(maker, options=LayeredOptions(purpose=purpose, level=60, effort=1))  # type: ignore[arg-type]
            streams += [layered.compress(picture) for picture in pictures()]
    fine = LayeredOptions(purpose="machine", level=200, effort=1, detail_slices=3)
    streams += [LayeredCodec(codec.task, options=fine).compress(picture) for picture in pictures()]

    def decode(data: bytes) -> Latent:
        stream = unpack_slices(data)
        codec.decompress(data)  # no network: the picture of the detail layer is chosen
        if stream.header.entropy_model_id != EntropyModelId.AV1_STILL:
            return codec.task.decode(data)
        joined = np.frombuffer(b"".join(stream.payloads), np.uint8).astype(np.int64)
        return Latent(joined[None], stream.header.height, stream.header.width)

    def encode(stream: Stream, decoded: Latent) -> bytes:
        if stream.header.entropy_model_id == EntropyModelId.AV1_STILL:
            return pack_slices(stream.header, stream.slices)
        return variable_encode(codec.task, stream, decoded)

    return Target("layered", decode, encode, codec.decompress, None, tuple(streams), weight=0.3)


def map_payload(stream: Stream, decoded: Latent, class_count: int) -> bytes:
    """The payload of a class map in the stream's own coding: an encoder would take the other for some maps."""
    encode = encode_passes if stream.header.entropy_model_id == EntropyModelId.CLASS_MAP_PASSES else encode_scan
    payload = encode(decoded.symbols.astype(np.uint8), class_count)
    assert payload is not None
    return padded(payload, decoded.symbols.size)


def large_map(class_count: int) -> npt.NDArray[np.uint8]:
    """Classes of a drawn scene of 256x512 pixels."""
    labels_HW = Streets(1, seed=5, height=256, width=512)[0].labels_uint8_HW
    assert labels_HW is not None
    return np.minimum(labels_HW, class_count - 1)


def map_targets() -> list[Target]:
    """Codecs that send a class map: every picture's, and maps that are flat or noise."""
    label_map = LabelMapCodec(expert())
    gesco = GescoCodec(gesco_checkpoint(), expert=expert())
    n_classes, n_drawn = len(label_map.class_names), gesco.config.class_count

    def label_decode(data: bytes) -> Latent:
        classes_HW = label_map.class_map(data)
        return Latent(classes_HW.astype(np.int64), *classes_HW.shape)

    def label_encode(stream: Stream, decoded: Latent) -> bytes:
        return repack(stream, [map_payload(stream, decoded, n_classes)])

    def gesco_encode(stream: Stream, decoded: Latent) -> bytes:
        return repack(stream, [map_payload(stream, decoded, n_drawn)])

    random = np.random.default_rng(0)
    noise, large = (random.integers(n_drawn, size=size).astype(np.uint8) for size in ((9, 14), (60, 90)))
    drawn = [
        gesco.compress_map(classes)
        for classes in (noise, large, np.zeros((40, 30), np.uint8), np.tri(20, 30).astype(np.uint8))
    ]
    sent = [label_map.compress(picture) for picture in pictures()]
    scene, large_sent = large_map(n_classes), list[bytes]()
    for model_id, payload in (
        (EntropyModelId.LABEL_MAP, encode_scan(scene, n_classes)),
        (EntropyModelId.CLASS_MAP_PASSES, encode_passes(scene, n_classes)),
    ):
        assert payload is not None
        large_sent.append(pack(Header(label_map.fingerprint, *scene.shape, model_id), payload))
    return [
        Target("label-map", label_decode, label_encode, label_map.decompress, None, tuple(sent), weight=0.3),
        Target("large-map", label_decode, label_encode, None, None, tuple(large_sent), weight=0.02),
        Target("gesco", gesco.decode, gesco_encode, None, None, tuple(drawn), weight=0.3),
    ]


@cache
def targets() -> tuple[Target, ...]:
    """All of them; every stream decodes to what encodes to it again."""
    made = (
        vq_target("vq", with_context(checkpoint(), 16, (16,))),
        vq_target("vq-two-digits", with_context(checkpoint(model_config("fsq")), 16, (5, 4))),
        vq_target("vq-certain", with_context(skewed_checkpoint(), 16, (16,))),
        autoencoder_target(),
        variable_target(),
        layered_target(),
        *map_targets(),
    )
    for target in made:
        for data in target.streams:
            assert target.encode is not None
            if target.encode(unpack_slices(data), target.decode(data)) != data:
                raise AssertionError(f"{target.name}: a stream of its own does not encode to itself")
    return made
