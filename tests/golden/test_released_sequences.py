"""A sequence of every released temporal model decodes for ever to the same symbols, whatever changes in the code.

`python tests/golden/test_released_sequences.py` writes the files of models that have none; never replace a file that
was released.
"""

from __future__ import annotations

from collections.abc import Iterator
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest

from gosvae.codecs.registry import embedded_codecs, load_sequence_codec, models_folder, sequence_codec_of
from gosvae.codecs.sequence.encoder import SequenceOptions
from gosvae.codecs.sequence.file import SequenceFile, SequenceWriter
from gosvae.codecs.temporal_model import has_temporal_model
from gosvae.images import read_image
from gosvae.tensors import ImageArray

FOLDER = Path(__file__).parent / "models"
LEVELS = (0, 0, 0, 96, 96, 200, 200, 200)
"""Level of each frame."""


def models() -> list[str]:
    """Return the released codecs that have a temporal model."""
    return [name for name in embedded_codecs() if has_temporal_model(models_folder() / name)]


def frames() -> Iterator[ImageArray]:
    """Yield frames of a camera that moves, stands for a frame, and moves on."""
    scene = read_image(FOLDER / "scene.png")
    for shift in (0, 1, 1, 2, 4, 5, 5, 40):
        yield np.roll(scene, shift, axis=1)


@pytest.mark.parametrize("model", models())
def test_sequences_of_released_models_decode_to_the_same_symbols(model: str) -> None:
    paths = sorted((FOLDER / model).glob("*.gosv"))
    assert paths, f"{model} is released without a golden sequence: run {Path(__file__).name} as a script"
    for path in paths:
        file, expected = SequenceFile.read(path), np.load(path.with_suffix(".npz"))
        codec = sequence_codec_of(file.header)
        assert codec.codec.name == model
        decoder = codec.decoder()
        for number, data in file.frames():
            latent = decoder.decode_latent(data)
            np.testing.assert_array_equal(latent.symbols, expected["symbols"][number])
            assert latent.setting == expected["levels"][number]


def write_missing() -> None:
    """Write a sequence of every released temporal model that has none."""
    for model in models():
        if any((FOLDER / model).glob("*.gosv")):
            continue
        for name, options in (("sequence", SequenceOptions()), ("sequence_4", SequenceOptions(slices=4))):
            stream, levels, symbols = BytesIO(), [], []
            pictures = [*frames()]
            encoder = load_sequence_codec(model, options=options).encoder(*pictures[0].shape[:2], frames_per_second=10)
            with SequenceWriter(stream) as writer:
                for picture, level in zip(pictures, LEVELS, strict=True):
                    encoder.level = level
                    writer.write(encoder.encode(picture))
                    assert encoder.last is not None
                    levels.append(encoder.last.memory.level)
                    symbols.append(encoder.last.memory.symbols)
            (FOLDER / model / f"{name}.gosv").write_bytes(stream.getvalue())
            np.savez_compressed(FOLDER / model / f"{name}.npz", symbols=np.stack(symbols), levels=levels)


if __name__ == "__main__":
    write_missing()
