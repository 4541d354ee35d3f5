"""Answers to frames: class maps and results of experts as bytes.

Axis legend: H and W pixels.
"""

from __future__ import annotations

import time
from collections.abc import Mapping

import numpy as np

from gosvae.protocol.arrays import code_arrays
from gosvae.protocol.class_maps import ClassMapCoding, encode_class_map
from gosvae.protocol.frames import Answer, Frame, Perceived, TaskResult
from gosvae.tasks.base import Arrays


def answer(frame: Frame, perceived: Perceived, results: Mapping[str, Arrays]) -> Answer:
    """Return the answer to a frame, and set `answer_ms` and `total_ms` of its times.

    Args:
        frame: the frame.
        perceived: what the networks made of it.
        results: arrays of each further expert, by the name of the expert.

    Raises:
        LinkError: the result of an expert cannot be sent.
    """
    classes_HW, stages = perceived.classes_uint8_HW, perceived.stages
    coding_s = time.perf_counter()
    coding: ClassMapCoding = frame.coding if classes_HW is not None else "none"
    class_map = b"" if classes_HW is None else encode_class_map(classes_HW, coding)
    class_pixels = [] if classes_HW is None else np.bincount(classes_HW.reshape(-1)).tolist()
    coded = tuple(TaskResult(expert, code_arrays(expert, arrays)) for expert, arrays in results.items())
    stages.answer_ms = 1000.0 * (time.perf_counter() - coding_s)
    stages.total_ms = 1000.0 * (time.monotonic() - frame.arrived_s)
    height, width = perceived.image_uint8_HW3.shape[:2]
    return Answer(
        number=frame.number,
        height=height,
        width=width,
        coding=coding,
        class_map=class_map,
        class_pixels=tuple(class_pixels),
        stages=stages,
        stream_bytes=frame.stream_bytes,
        concealed_pixels=0 if perceived.concealed_HW is None else int(perceived.concealed_HW.sum()),
        results=coded,
    )
