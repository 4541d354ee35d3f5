"""Cache on disk of what an expert sees on originals: class probabilities S in half precision.

In a training on whole images, the expert meets each original, and each mirrored one, in every epoch. Its answer is the
same each time, and a file with it is read faster than a large network runs. The name of a file is the SHA-256 of all
that the answer depends on: the expert's fingerprint, what it does to images before its network, the precision, and the
pixels. Other data, or another expert, thus have other files, and no file is ever out of date.

Axis legend: B images, m classes, H and W pixels.
"""

from __future__ import annotations

import contextlib
import hashlib
import zlib
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from gosvae.errors import WriteError
from gosvae.experts.base import Expert
from gosvae.files import write_atomically

ENDING = ".s16"
_CHECKSUM_BYTES = 4
_SCAN_EVERY = 32


@dataclass
class OriginalsCache:
    """Cache of the class probabilities of originals in a folder, which several trainings may share.

    Probabilities are rounded to float16 whether they come from the folder or not, so that a training does not depend on
    what the folder holds. When the folder is full, nothing is added and nothing is removed.

    Attributes:
        folder: folder of the files; it is made when the first one is written.
        most_bytes: largest size of all files together. Trainings that write at the same time may exceed it by the few
            files that each writes before it looks again.
        hits, misses: numbers of images that were read, and that the expert had to see.
    """

    folder: Path
    most_bytes: int
    hits: int = 0
    misses: int = 0
    _bytes: int = 0
    _writes: int = 0
    _fingerprints: dict[int, str] = field(default_factory=dict)

    def logits(self, expert: Expert, x_B3HW: Tensor) -> Tensor:
        """Return logits (B, m, H, W) of the originals, without gradient: the logarithm of the rounded probabilities."""
        paths = [self._path(expert, x_3HW) for x_3HW in x_B3HW]
        shape = (len(expert.info.class_names), *x_B3HW.shape[-2:])
        found = [_read(path, shape) for path in paths]
        missing = [i for i, s_mHW in enumerate(found) if s_mHW is None]
        self.hits, self.misses = self.hits + len(paths) - len(missing), self.misses + len(missing)
        if missing:
            with torch.no_grad():
                logits = expert(x_B3HW if len(missing) == len(paths) else x_B3HW[missing]).float()
            for i, s_mHW in zip(missing, logits.softmax(dim=1).half().cpu().numpy(), strict=True):
                found[i] = s_mHW
                self._write(paths[i], s_mHW)
        s_BmHW = torch.from_numpy(np.stack([s_mHW for s_mHW in found if s_mHW is not None]))
        return s_BmHW.to(x_B3HW.device).float().log()

    def _path(self, expert: Expert, x_3HW: Tensor) -> Path:
        if id(expert) not in self._fingerprints:
            self._fingerprints[id(expert)] = expert.fingerprint()
        height, width = x_3HW.shape[-2:]
        device = x_3HW.device.type
        mixed = torch.is_autocast_enabled(device) and expert.mixed_precision
        what = [self._fingerprints[id(expert)], expert.preparation(height, width), device, mixed, height, width]
        digest = hashlib.sha256(repr(what).encode())
        digest.update(x_3HW.detach().cpu().contiguous().numpy().tobytes())
        name = digest.hexdigest()
        return self.folder / name[:2] / (name + ENDING)

    def _write(self, path: Path, s_mHW: np.ndarray[tuple[int, ...], np.dtype[np.float16]]) -> None:
        """Write an image's probabilities if there is room."""
        data = s_mHW.tobytes()
        if self._writes % _SCAN_EVERY == 0:
            self._bytes = sum(_size(each) for each in self.folder.glob(f"*/*{ENDING}"))
        if self._bytes + len(data) + _CHECKSUM_BYTES > self.most_bytes:
            return
        with contextlib.suppress(WriteError):  # a full disk must not end a training
            write_atomically(path, data + zlib.crc32(data).to_bytes(_CHECKSUM_BYTES, "big"))
            self._bytes += len(data) + _CHECKSUM_BYTES
            self._writes += 1


def _read(path: Path, shape: tuple[int, ...]) -> np.ndarray[tuple[int, ...], np.dtype[np.float16]] | None:
    """Return probabilities (m, H, W); None where there is no file, or a damaged one."""
    try:
        data = path.read_bytes()
    except OSError:
        return None
    body, checksum = data[:-_CHECKSUM_BYTES], data[-_CHECKSUM_BYTES:]
    if len(body) != 2 * int(np.prod(shape)) or zlib.crc32(body).to_bytes(_CHECKSUM_BYTES, "big") != checksum:
        return None
    return np.frombuffer(body, np.float16).reshape(shape)


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except OSError:  # another training has replaced it
        return 0
