"""Sequences from stills: frames of one size, a camera that stands or moves, the same for the same generator."""

from __future__ import annotations

import numpy as np

from gosvae.datasets.motion import moving_frames
from gosvae.seeding import numpy_generator
from tiny import streets


def test_frames_have_one_size_and_follow_the_generator() -> None:
    picture, other = (streets()[i].image_uint8_HW3 for i in range(2))
    for seed in range(12):
        frames = moving_frames(picture, other, 4, (32, 64), numpy_generator(seed))
        again = moving_frames(picture, other, 4, (32, 64), numpy_generator(seed))
        assert [frame.shape for frame in frames] == [(32, 64, 3)] * 4
        assert {frame.dtype.name for frame in frames} == {"uint8"}
        np.testing.assert_array_equal(frames, again)


def test_some_cameras_stand_and_some_move() -> None:
    picture, other = (streets()[i].image_uint8_HW3 for i in range(2))
    changes = []
    for seed in range(40):
        first, *_, last = moving_frames(picture, other, 4, (32, 64), numpy_generator(seed))
        changes.append(np.abs(first.astype(int) - last).mean())
    assert min(changes) < 2.0
    assert max(changes) > 10.0
