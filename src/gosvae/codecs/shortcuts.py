"""Compression and decompression in one call, for programs that handle an image now and then."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from gosvae.bitstream import as_bytes
from gosvae.codecs.announced import DEFAULT_MAX_PIXELS, check_pixels
from gosvae.codecs.base import ImageCodec, RateControlledCodec
from gosvae.codecs.registry import LAYERED, codec_of_stream, load_codec
from gosvae.codecs.slices import DEFAULT_OPTIONS, Purpose, StreamOptions
from gosvae.errors import ConfigError
from gosvae.images import AnyImage, as_image
from gosvae.tensors import ImageArray
from gosvae.units import bytes_from_kib


def compress(
    image_uint8_HW3: ImageArray | AnyImage,
    codec: ImageCodec | str | Path = LAYERED,
    *,
    level: int | None = None,
    kib: float | None = None,
    purpose: Purpose = "auto",
    options: StreamOptions = DEFAULT_OPTIONS,
) -> bytes:
    """Compress an RGB image, uint8 (H, W, 3), to a complete stream.

    A codec that is given by its name is loaded in every call: for many images load it once with `load_codec`.

    Args:
        image_uint8_HW3: the image as an array, as the path of its file or a binary stream, as an image of Pillow, or as
            a uint8 tensor (3, H, W).
        codec: a codec, or its name as `load_codec` takes it: a model of the package, a checkpoint folder or a
            classical codec.
        level: level of a variable-rate codec, 0 to 255, or quality of a classical codec; for a codec by name.
        kib: largest size of the stream in KiB; the best quality within it is taken.
        purpose: whom the picture is for: `machine`, `people`, `both`, or `auto`, which decides by the picture; for a
            codec of two layers by name, such as the default.
        options: layout of the stream; for a codec by name.

    Raises:
        ConfigError: the name is unknown, the codec does not have the rate or the purpose, a level and a budget are
            given together, or a level, a purpose or options are given for a codec that is loaded already.
        RateError: even the lowest quality takes more than `kib`.
        CheckpointError: the folder is not a finished, intact codec.
        ShapeError: the array is not a uint8 RGB image.
        ImageError: the file cannot be read, or the argument has none of these forms.
    """
    image = as_image(image_uint8_HW3)
    if level is not None and kib is not None:
        raise ConfigError("a level and a budget both set the rate: give one", argument="level")
    if isinstance(codec, ImageCodec):
        if level is not None or purpose != "auto" or options != DEFAULT_OPTIONS:
            raise ConfigError(f"{codec.name!r} is loaded already: give its level and its options to load_codec")
    else:
        options = options if purpose == "auto" else replace(options, purpose=purpose)
        codec = load_codec(codec if level is None else f"{codec}:{level}", options=options)
    if kib is None:
        return codec.compress(image)
    if not isinstance(codec, RateControlledCodec):
        raise ConfigError(
            f"the rate of {codec.name!r} is fixed: name a variable-rate codec or a classical one", argument="kib"
        )
    return codec.compress_to_budget(image, bytes_from_kib(kib))


def decompress(
    data: bytes | bytearray | memoryview,
    codec: ImageCodec | str | Path | None = None,
    *,
    max_pixels: int | None = DEFAULT_MAX_PIXELS,
) -> ImageArray:
    """Reconstruct the image of a stream, uint8 (H, W, 3).

    A few bytes may announce a picture that takes minutes to decode, so bytes of strangers need a small `max_pixels`.

    Args:
        data: the stream.
        codec: codec that made the stream, or its name as `load_codec` takes it; None finds the model of the package.
        max_pixels: greatest number of pixels that is decoded, 2**26 by default; None decodes any number. The size is
            read from the header of streams of this package and of JPEG, WebP, AVIF and JPEG XL files.

    Raises:
        ImageError: the stream announces more pixels than `max_pixels`.
        BitstreamError: the bytes are damaged, incomplete or of another format.
        ForeignStreamError: the stream is another codec's, or no model of the package made it.
        ConfigError, CheckpointError: the codec cannot be loaded.
    """
    data = as_bytes(data)
    check_pixels(data, max_pixels)
    if codec is None:
        codec = codec_of_stream(data)
    elif not isinstance(codec, ImageCodec):
        codec = load_codec(codec)
    return codec.decompress(data)
