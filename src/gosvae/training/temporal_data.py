"""Latents of short sequences, made once by the frozen encoder of a codec, for the training of its temporal model.

Axis legend: B sequences, F frames of a sequence, D latent channels, h and w latent positions, H and W pixels.
"""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image
from tqdm import tqdm

from gosvae.codecs.trained import TrainedCodec
from gosvae.datasets.base import Dataset
from gosvae.datasets.loader import Batch
from gosvae.datasets.motion import moving_frames
from gosvae.errors import DatasetError
from gosvae.files import json_bytes, write_atomically
from gosvae.seeding import numpy_generator
from gosvae.tensors import ImageArray

FRAMES = 4
"""Frames of a training example: the coded frame, its reference, and two frames from which the ages come."""
_STEPS = (1, 1, 1, 1, 2, 2, 3, 6)
"""Distances between the frames of an example, each as probable as it is frequent here."""
_WINDOW = 0.8
"""Share of the sides of a picture that a second window on a film takes."""


def film_windows(height: int, width: int, size_hw: tuple[int, int]) -> list[tuple[float, float, float, float]]:
    """Return windows (left, top, right, bottom) on a film with the shape of the frames."""
    aspect = size_hw[1] / size_hw[0]
    box_w, box_h = min(width, height * aspect), min(height, width / aspect)
    boxes = []
    for share in (1.0, _WINDOW):
        w, h = share * box_w, share * box_h
        places = (0.0, 0.5, 1.0) if width - w > 0.1 * w else (0.5,)
        boxes += [((width - w) * x, (height - h) / 2, (width - w) * x + w, (height + h) / 2) for x in places]
    return boxes


def film_clips(frames: Iterable[ImageArray], size_hw: tuple[int, int]) -> list[list[ImageArray]]:
    """Return the frames of a film through several windows, each as it is and mirrored."""
    clips: list[list[ImageArray]] = []
    boxes: list[tuple[float, float, float, float]] = []
    for frame in frames:
        if not boxes:
            boxes = film_windows(frame.shape[0], frame.shape[1], size_hw)
            clips = [[] for _ in boxes for _ in range(2)]
        picture = Image.fromarray(frame)
        for number, box in enumerate(boxes):
            seen = np.asarray(picture.resize(size_hw[::-1], Image.Resampling.LANCZOS, box=box))
            clips[2 * number].append(seen)
            clips[2 * number + 1].append(np.ascontiguousarray(seen[:, ::-1]))
    return clips


def still_clips(stills: Dataset, most: int, size_hw: tuple[int, int], seed: int) -> Iterator[list[ImageArray]]:
    """Yield a short sequence for each of `most` evenly spaced pictures, see `moving_frames`."""
    for number in range(min(most, len(stills))):
        index = number * len(stills) // min(most, len(stills))
        generator = numpy_generator(seed, "motion", stills.name, number)
        other = stills[int(generator.integers(len(stills)))].image_uint8_HW3
        yield moving_frames(stills[index].image_uint8_HW3, other, FRAMES, size_hw, generator)


@dataclass(frozen=True)
class LatentClips:
    """Latents of sequences.

    Attributes:
        latents_NDhw: latents before the gain of a level, float16, of all frames one after the other.
        lengths: number of frames of each sequence.
    """

    latents_NDhw: npt.NDArray[np.float16]
    lengths: tuple[int, ...]

    @classmethod
    def made(cls, path: Path, codec: TrainedCodec, clips: Iterable[list[ImageArray]], origin: Any) -> LatentClips:
        """Return the latents in a file, which is written first if it is missing.

        Args:
            path: file of the latents; a JSON file with its lengths and its origin stands beside it.
            codec: codec whose encoder makes the latents.
            clips: sequences of frames of one size.
            origin: plain values that describe codec and sequences.

        Raises:
            DatasetError: there are no sequences, or the file has another origin.
        """
        notes = path.with_suffix(".json")
        if path.is_file() and notes.is_file():
            known = json.loads(notes.read_text(encoding="utf-8"))
            if known["origin"] != origin:
                raise DatasetError(f"{path} holds latents of other sequences or of another codec: remove it")
            return cls(np.load(path, mmap_mode="r"), tuple(known["lengths"]))
        latents, lengths = [], []
        for clip in tqdm(clips, desc="latents", unit="clip", mininterval=5.0):
            latents += [codec.analyse(frame)[0].cpu().numpy().astype(np.float16) for frame in clip]
            lengths.append(len(clip))
        if not latents:
            raise DatasetError("no sequences: a temporal model is trained on films, on stills, or on both")
        path.parent.mkdir(parents=True, exist_ok=True)
        part = path.with_suffix(".part.npy")
        np.save(part, np.stack(latents))
        write_atomically(notes, json_bytes({"lengths": lengths, "origin": origin}))
        part.replace(path)
        return cls(np.load(path, mmap_mode="r"), tuple(lengths))


class ClipBatches:
    """Batches of examples: latents (B, F * D, h, w), oldest frame first, in place of pictures.

    Half of the examples are from films, if there are any: sequences of more than 4 frames.

    Args:
        clips: sequences.
        batch_size: number of examples.
        seed: seed of the draws; a batch depends on the seed and on its step alone.
        rank, world_size: number of this device, from 0, and number of all devices.
    """

    def __init__(self, clips: LatentClips, batch_size: int, seed: int, rank: int = 0, world_size: int = 1) -> None:
        self._clips, self._batch_size, self._seed = clips, batch_size, seed
        self._rank, self._world_size = rank, world_size
        firsts = list(itertools.accumulate((0, *clips.lengths[:-1])))
        spans = list(zip(firsts, clips.lengths, strict=True))
        groups = [[s for s in spans if s[1] > FRAMES], [s for s in spans if s[1] == FRAMES]]
        self._groups = [group for group in groups if group]

    def stream(self, start_step: int) -> Iterator[Batch]:
        """Yield the batches of the steps `start_step`, `start_step + 1`, ... without end."""
        yield from map(self.batch, itertools.count(start_step))

    def batch(self, step: int) -> Batch:
        """Return the batch of one step."""
        generator = numpy_generator(self._seed, "examples", step * self._world_size + self._rank)
        examples, names = [], []
        for _ in range(self._batch_size):
            group = self._groups[int(generator.integers(len(self._groups)))]
            first, length = group[int(generator.integers(len(group)))]
            steps = generator.choice(_STEPS) * np.ones(FRAMES - 1, np.int64)
            steps = np.minimum(steps, (length - 1) // (FRAMES - 1))
            start = int(generator.integers(length - steps.sum()))
            places = first + start + np.concatenate([[0], np.cumsum(steps)])
            examples.append(self._clips.latents_NDhw[places].reshape(-1, *self._clips.latents_NDhw.shape[2:]))
            names.append(f"{first}+{start}")
        x = torch.from_numpy(np.stack(examples).astype(np.float32))
        return Batch(x, None, tuple(names), (False,) * self._batch_size)
