"""Committed streams of two layers, and of a picture alone, are read for ever.

`python tests/golden/test_layered_golden.py` writes files that are missing; never replace one that was released.
"""

from __future__ import annotations

import io
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from test_bitstream_golden import DOCS, FINGERPRINT, FOLDER, GOLDEN

from gosvae.bitstream import Header, pack_slices, unpack_slices
from gosvae.codecs.detail import decode_detail, is_difference
from gosvae.codecs.truncation import truncate
from gosvae.entropy.ids import EntropyModelId

SIZE_HW = (37, 51)
TASK = next(golden for golden in GOLDEN if golden.name == "v2_static_512_interleaved_8")
"""Stream whose slices are the task layer."""
PICTURE = FOLDER / "v2_av1.gsva"
LAYERED = FOLDER / "v2_two_layers.gsva"
REFINED = FOLDER / "v2_refined.gsva"
"""Stream of two layers; the detail layer has a whole picture in 4:4:4 and the difference to a better one."""


def detail_slice() -> bytes:
    """The committed frame at full size, coded at quality 40."""
    frame = (FOLDER / "av1_37x51.bin").read_bytes()
    return frame[:1] + bytes([40]) + frame[1:]


def streams() -> dict[Path, bytes]:
    """The streams as they are written."""
    header = Header(FINGERPRINT[:4], *SIZE_HW, EntropyModelId.AV1_STILL)
    task = unpack_slices(TASK.path.read_bytes())
    two = [*task.slices, detail_slice()]
    return {
        PICTURE: pack_slices(header, [detail_slice()]),
        LAYERED: pack_slices(task.header, two, task.layout, 1),
    }


@pytest.mark.parametrize("path", [PICTURE, LAYERED], ids=lambda path: path.stem)
def test_writing_makes_the_committed_bytes(path: Path) -> None:
    assert streams()[path] == path.read_bytes()


def test_both_layers_are_read() -> None:
    stream = unpack_slices(LAYERED.read_bytes())
    assert (stream.task, stream.detail) == (unpack_slices(TASK.path.read_bytes()), (detail_slice(),))
    n_bytes = len(LAYERED.read_bytes())
    assert truncate(LAYERED.read_bytes(), (n_bytes - 1) / 1024) == TASK.path.read_bytes()


def test_the_picture_is_the_committed_one() -> None:
    (payload,) = unpack_slices(PICTURE.read_bytes()).payloads
    shown = decode_detail(payload, *SIZE_HW)
    assert (shown.reduction, shown.quality, shown.payload_bytes) == (1, 40, len(payload))
    with Image.open(io.BytesIO((FOLDER / "av1_37x51.png").read_bytes())) as image:
        expected = np.asarray(image.convert("RGB"))
    assert np.abs(shown.image_uint8_HW3.astype(int) - expected).max() <= 1


def test_pictures_with_full_chroma_and_differences_are_the_committed_ones() -> None:
    stream = unpack_slices(REFINED.read_bytes())
    assert stream.task == unpack_slices(TASK.path.read_bytes())
    assert pack_slices(stream.header, stream.slices, stream.layout, 2) == REFINED.read_bytes()
    assert [is_difference(payload or b"") for payload in stream.detail] == [False, True]
    picture = None
    for payload, name, tolerance in zip(stream.detail, ("refined_1.png", "refined_2.png"), (1, 2), strict=True):
        assert payload is not None
        picture = decode_detail(payload, *SIZE_HW, picture).image_uint8_HW3
        with Image.open(io.BytesIO((FOLDER / name).read_bytes())) as image:
            expected = np.asarray(image.convert("RGB"))
        assert np.abs(picture.astype(int) - expected).max() <= tolerance


def test_the_decoder_in_the_documentation_reads_both_layers() -> None:
    code = re.search(r"```python\n(.*?)```", DOCS.read_text(encoding="utf-8"), re.DOTALL)
    assert code is not None
    names: dict[str, Any] = {}
    exec(code.group(1), names)
    both, picture = (names["read_container"](path.read_bytes()) for path in (LAYERED, PICTURE))
    assert both["slices"] == list(unpack_slices(TASK.path.read_bytes()).slices)
    assert (both["detail"], both["interleaved"]) == ([detail_slice()], True)
    assert (picture["slices"], picture["entropy_model_id"]) == ([detail_slice()], 64)


if __name__ == "__main__":
    for path, data in streams().items():
        if not path.exists():
            path.write_bytes(data)
