"""Entries of an evaluation of video codecs, and the frames of a clip that they send."""

from __future__ import annotations

from dataclasses import dataclass

from gosvae.codecs.sequence.codec import SequenceCodec
from gosvae.codecs.sequence.rate import DEFAULT_MAX_AGE_MS, RateControl, encoded_at_rate
from gosvae.codecs.video import VideoCodec, encode_sequence
from gosvae.evaluation.clips import Clip


@dataclass(frozen=True)
class VideoEntry:
    """A video codec at one setting.

    Attributes:
        label: name in tables, unique in an evaluation.
        codec: codec to measure.
        curve: entries with the same curve are rate points of one codec, joined in plots and for BD-rate.
        frames_per_second: rate at which frames are sent; None sends every frame.
        kbps: rate in 1000 bits a second, by which a codec with a temporal model chooses the frames that it sends and
            their levels; None leaves both as they are. Not together with `frames_per_second`.
        max_age_ms: with `kbps`, longest time in milliseconds between two frames that are sent.
    """

    label: str
    codec: VideoCodec
    curve: str | None = None
    frames_per_second: float | None = None
    kbps: float | None = None
    max_age_ms: float = DEFAULT_MAX_AGE_MS


def sent_frames(frame_count: int, camera_rate: float, rate: float | None) -> list[int]:
    """Return the numbers of the frames that are sent at a rate: the first of each period of the sender.

    Args:
        frame_count: number of frames of the camera.
        camera_rate: frames a second of the camera.
        rate: frames a second that are sent at most; None sends all.
    """
    if rate is None or rate >= camera_rate:
        return list(range(frame_count))
    # Whole periods before each frame, with a margin for rates such as 15 / 3 that rounding would make 4.999.
    periods = [int(index * rate / camera_rate + 1e-9) for index in range(frame_count)]
    return [index for index in range(frame_count) if index == 0 or periods[index] != periods[index - 1]]


def rate_of(entry: VideoEntry, clip: Clip) -> float:
    """Return the frames a second that an entry sends at most."""
    return min(clip.frames_per_second, entry.frames_per_second or clip.frames_per_second)


def coded_frames(entry: VideoEntry, clip: Clip) -> dict[int, bytes]:
    """Return the bytes of the frames of a clip that are sent, by their numbers in it."""
    if entry.kbps is not None:
        assert isinstance(entry.codec, SequenceCodec)
        encoder = entry.codec.encoder(*clip.frames[0].shape[:2], frames_per_second=clip.frames_per_second)
        control = RateControl(entry.kbps, clip.frames_per_second, entry.max_age_ms)
        found = enumerate(encoded_at_rate(encoder, clip.frames, control))
        return {number: data for number, data in found if data is not None}
    sent = sent_frames(len(clip.frames), clip.frames_per_second, entry.frames_per_second)
    frames = [clip.frames[number] for number in sent]
    coded = encode_sequence(entry.codec, frames, frames_per_second=rate_of(entry, clip))
    return dict(zip(sent, coded, strict=True))
