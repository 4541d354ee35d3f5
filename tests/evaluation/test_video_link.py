"""Videos over a simulated link: losses cost time and bytes, never a wrong picture, and end within a round trip."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import cast

import numpy as np
import pytest
from small_world import BlockCodec

from gosvae.codecs.frame_by_frame import FrameByFrame
from gosvae.codecs.latent import Latent
from gosvae.errors import ConfigError
from gosvae.evaluation.clips import Clip, Footage
from gosvae.evaluation.temporal import evaluate_video
from gosvae.evaluation.video_entry import VideoEntry
from gosvae.evaluation.video_link import LinkConditions, Shown, SimulatedLink
from gosvae.tensors import ImageArray
from tiny import expert, sequence_codec, streets

FRAMES_PER_SECOND, ROUND_TRIP_MS = 10.0, 200.0
ROUND_TRIP_FRAMES = 2


class Losing:
    """A source of numbers by which a link loses some of the datagrams and feedbacks, counted from 0 in their order."""

    def __init__(self, *lost: int) -> None:
        self._lost, self._asked = lost, -1

    def random(self) -> float:
        self._asked += 1
        return 0.0 if self._asked in self._lost else 1.0


class Recorded:
    """A source of random numbers that remembers at which frames a datagram or a feedback is lost."""

    def __init__(self, loss: float, seed: int = 3) -> None:
        self.frame, self.lost = 0, set[int]()
        self._loss, self._generator = loss, np.random.default_rng(seed)

    def random(self) -> float:
        number = self._generator.random()
        if number < self._loss:
            self.lost.add(self.frame)
        return number


def frames(count: int, tiles: int = 1) -> list[ImageArray]:
    image = np.tile(streets()[0].image_uint8_HW3, (tiles, tiles, 1))
    return [np.roll(image, 2 * number, axis=1) for number in range(count)]


def changing(count: int) -> Iterator[ImageArray]:
    """Yield frames of which a part is noise, another part each time, so that no frame equals its reference."""
    image, generator = streets()[0].image_uint8_HW3, np.random.default_rng(1)
    for _ in range(count):
        frame, row, column = image.copy(), generator.integers(32), generator.integers(48)
        frame[row : row + 32, column : column + 48] = generator.integers(256, size=(32, 48, 3))
        yield frame


def shown(count: int, *lost: int, slices: int = 1, tiles: int = 1) -> list[Shown]:
    conditions = LinkConditions(0.5, ROUND_TRIP_MS, slices=slices)
    generator = cast(np.random.Generator, Losing(*lost))
    link = SimulatedLink(sequence_codec(level=100), expert(), conditions, FRAMES_PER_SECOND, generator)
    return [link.send(frame) for frame in frames(count, tiles)]


def reconstructions(count: int) -> list[ImageArray]:
    """Return what a decoder makes of the frames where nothing is lost."""
    codec = sequence_codec(level=100)
    encoder, decoder = codec.encoder(*frames(1)[0].shape[:2]), codec.decoder()
    return [decoder.decode(encoder.encode(frame)) for frame in frames(count)]


@pytest.mark.parametrize(
    "conditions", [{"loss": 1.0}, {"loss": -0.1}, {"loss": 0.1, "round_trip_ms": -1.0}, {"loss": 0.1, "repeats": 0}]
)
def test_conditions_that_make_no_sense_are_refused(conditions: dict[str, float]) -> None:
    with pytest.raises(ConfigError, match="expected"):
        LinkConditions(**conditions)  # type: ignore[arg-type]


def test_a_link_without_losses_shows_every_frame_as_the_decoder_makes_it() -> None:
    for number, (frame, expected) in enumerate(zip(shown(5), reconstructions(5), strict=True)):
        assert frame.number == number
        assert frame.perceived is not None
        assert np.array_equal(frame.perceived.image_uint8_HW3, expected)


def test_a_lost_frame_is_recovered_within_a_round_trip() -> None:
    lost_frame = 3
    results = shown(10, 2 * lost_frame)  # a frame is a datagram and, if it arrives, a feedback
    missing = [number for number, frame in enumerate(results) if frame.perceived is None]
    assert missing[0] == lost_frame
    assert missing[-1] <= lost_frame + ROUND_TRIP_FRAMES
    assert [frame.number for frame in results[missing[-1] + 1 :]] == list(range(missing[-1] + 1, 10))


def test_with_two_slices_a_frame_of_which_one_is_lost_is_shown_in_part() -> None:
    # Two datagrams and a feedback, one of each for a frame without changes, then the first slice of the third frame.
    frame = shown(3, 5, slices=2, tiles=2)[2]
    assert frame.perceived is not None
    assert frame.perceived.concealed_HW is not None
    assert 0 < frame.perceived.concealed_HW.mean() < 1


def test_only_codecs_that_hear_of_losses_are_sent() -> None:
    clip = Clip("street", tuple(frames(2)), (None, None), FRAMES_PER_SECOND)
    entries = [VideoEntry("Block", FrameByFrame(BlockCodec(4)))]
    with pytest.raises(ConfigError, match="temporal model"):
        evaluate_video(entries, Footage("street", (), (clip,)), expert(), link=LinkConditions(0.1), progress=False)


def test_a_frame_is_missing_only_within_a_round_trip_after_a_loss() -> None:
    recorded, missing = Recorded(0.1), set[int]()
    link = SimulatedLink(
        sequence_codec(level=100),
        expert(),
        LinkConditions(0.1, ROUND_TRIP_MS),
        FRAMES_PER_SECOND,
        cast(np.random.Generator, recorded),
    )
    for number, frame in enumerate(frames(100)):
        recorded.frame = number
        if link.send(frame).perceived is None:
            missing.add(number)
    assert len(recorded.lost) >= 10
    assert all(recorded.lost & set(range(number - ROUND_TRIP_FRAMES, number + 1)) for number in missing)
    assert len(missing) <= 2 * len(recorded.lost)


@pytest.mark.parametrize("slices", [1, 2])
def test_with_a_tenth_of_losses_no_picture_is_wrong_and_maps_are_new_within_a_round_trip(slices: int) -> None:
    """10 % of the datagrams and of the feedback are lost, at 15 frames a second and a round trip of 100 ms."""
    rate, conditions, codec = 15.0, LinkConditions(0.1, 100.0, slices=slices), sequence_codec(level=100)
    recorded, late = Recorded(0.1), math.ceil(0.1 * rate)
    link = SimulatedLink(codec, expert(), conditions, rate, cast(np.random.Generator, recorded))
    missing, whole, in_part = set[int](), 0, 0
    for number, frame in enumerate(changing(90)):
        recorded.frame = number
        perceived = link.send(frame).perceived
        if perceived is None:
            missing.add(number)
            continue
        sent = link._transmitter._encoder
        assert sent is not None
        assert sent.last is not None
        latent = Latent(sent.last.memory.symbols.astype(np.int64), *frame.shape[:2], sent.last.memory.level)
        expected = codec.codec.reconstruct(latent)
        if perceived.concealed_HW is None:
            whole += 1
            np.testing.assert_array_equal(perceived.image_uint8_HW3, expected)
        else:  # a frame that is shown in part says where
            in_part += 1
            assert 0 < perceived.concealed_HW.mean() < 1
    assert len(recorded.lost) >= 9
    assert whole >= 90 - 2 * len(recorded.lost)
    assert (in_part > 0) == (slices > 1)
    assert all(recorded.lost & set(range(number - late, number + 1)) for number in missing)
