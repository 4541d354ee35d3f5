"""Clips that video codecs are measured on: frames in the order of time, from a data set, a folder or a video file."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from io import BytesIO
from itertools import groupby, islice

from gosvae.datasets.base import Dataset, Sample
from gosvae.datasets.common import in_classes
from gosvae.datasets.geometry import GeometryConfig, prepare
from gosvae.datasets.mixture import load_prepared
from gosvae.errors import ConfigError, DatasetError
from gosvae.sender.sources import is_video, open_source, video_fps
from gosvae.tensors import ImageArray, LabelArray
from gosvae.walk import expanded, printable


@dataclass(frozen=True, repr=False)
class Clip:
    """Frames of one shot.

    Attributes:
        name: name of the clip, unique among those that are measured together.
        frames: frames, uint8 (H, W, 3), all of one size.
        labels: label map of every frame, uint8 (H, W) with 255 where it is ignored, or None.
        frames_per_second: rate at which the camera took the frames.
    """

    name: str
    frames: tuple[ImageArray, ...]
    labels: tuple[LabelArray | None, ...]
    frames_per_second: float

    def __repr__(self) -> str:
        return f"Clip({self.name!r}, {len(self.frames)} frames at {self.frames_per_second:g} Hz)"

    @property
    def seconds(self) -> float:
        """Length of the clip in seconds."""
        return len(self.frames) / self.frames_per_second


@dataclass(frozen=True)
class Footage:
    """Clips that are measured together.

    Attributes:
        name: name of the data set, or of the video file.
        class_names: names of the classes of the labels; empty if there are none.
        clips: clips.
    """

    name: str
    class_names: tuple[str, ...]
    clips: tuple[Clip, ...]


def load_footage(
    spec: str,
    *,
    frames_per_second: float | None = None,
    geometry: GeometryConfig | None = None,
    limit: int | None = None,
    expert_classes: tuple[str, ...] = (),
) -> Footage:
    """Load the clips of a data set (as `load_prepared` names it), of a folder of images, or of a video file.

    Samples of one shot that follow each other are a clip. Where every sample is a shot of its own, as in a plain
    folder, all of them are one clip.

    Args:
        spec: data set, folder or video file.
        frames_per_second: rate of images, or of a video file that does not give its own.
        geometry: geometry of the frames, in place of the default of a data set.
        limit: largest number of frames of a clip, from its beginning; None takes all.
        expert_classes: classes of the expert; labels are converted to them if possible.

    Raises:
        ConfigError: the rate is missing or not positive, or is given for a video with a rate of its own.
        DatasetError: as `load_prepared`, or the frames of a clip differ in size.
        ImageError: the video cannot be read.
        MissingDependencyError: PyAV is needed and not installed.
    """
    path = expanded(spec)
    video = is_video(spec) and path.is_file()
    own = video_fps(str(path)) if video else None
    if own and frames_per_second is not None:
        raise ConfigError(
            f"{printable(spec)} has {own:g} frames a second of its own: a number is for images; @fps=N behind a codec "
            "sends fewer",
            argument="frames_per_second",
        )
    rate = own or frames_per_second
    if rate is None or not rate > 0:
        raise ConfigError(
            f"{printable(spec)} does not say how many frames a second it has: give a number above 0",
            argument="frames_per_second",
        )
    if video:
        samples = [
            prepare(Sample(frame, None, f"{number:06d}"), geometry or GeometryConfig())
            for number, frame in enumerate(islice(open_source([str(path)], BytesIO()), limit))
        ]
        return Footage(path.stem, (), (_clip(path.stem, samples, rate),))
    dataset = in_classes(load_prepared(spec, default_split="val", geometry=geometry), expert_classes)
    clips = tuple(
        _clip(name or path.name, [dataset[i] for i in islice(indices, limit)], rate)
        for name, indices in _shots(dataset)
    )
    return Footage(dataset.name, dataset.class_names, clips)


def _shots(dataset: Dataset) -> Iterator[tuple[str, Iterable[int]]]:
    """Yield the shots of a data set with the indices of their samples, in order; a single one may have no name."""
    names = [dataset.shot(i) for i in range(len(dataset))]
    if len(set(names)) == len(names):
        yield "", range(len(names))
        return
    if all(name.startswith("0/") for name in names):  # a mixture of one part
        names = [name.removeprefix("0/") for name in names]
    taken: dict[str, int] = {}
    for name, indices in groupby(range(len(names)), key=names.__getitem__):
        taken[name] = taken.get(name, 0) + 1
        yield name if taken[name] == 1 else f"{name} ({taken[name]})", indices


def _clip(name: str, samples: list[Sample], frames_per_second: float) -> Clip:
    if not samples:
        raise DatasetError(f"clip {printable(name)!r} has no frames")
    sizes = {sample.image_uint8_HW3.shape[:2] for sample in samples}
    if len(sizes) > 1:
        raise DatasetError(f"frames of clip {printable(name)!r} differ in size: {sorted(sizes)}; resize them")
    frames = tuple(sample.image_uint8_HW3 for sample in samples)
    return Clip(printable(name), frames, tuple(sample.labels_uint8_HW for sample in samples), frames_per_second)
