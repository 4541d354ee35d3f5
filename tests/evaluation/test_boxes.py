"""Boxes of a detector on reconstructions against those on originals."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from gosvae.errors import ExpertError
from gosvae.evaluation.boxes import FastestDet, boxes_of
from gosvae.tasks.boxes import Boxes, BoxMeter, overlaps


def output(*boxes: tuple[int, int, int, float, float]) -> np.ndarray:
    """The detector's output for boxes of (row, column, class, score, side as a share of the picture)."""
    output_Chw = np.zeros((85, 22, 22))
    for row, column, kind, score, side in boxes:
        logit = np.log(side / (1 - side))
        output_Chw[:5, row, column] = [score, 0.0, 0.0, logit, logit]
        output_Chw[5 + kind, row, column] = score
    return output_Chw


def boxes(*given: tuple[float, float, int]) -> Boxes:
    """Squares of a tenth, by left edge, score and class."""
    lefts, scores, kinds = (np.array(values, float) for values in zip(*given, strict=True))
    corners = np.stack([lefts, np.zeros_like(lefts), lefts + 0.1, np.full_like(lefts, 0.1)], axis=1)
    return Boxes(corners, scores, kinds.astype(np.int64))


def test_cells_become_boxes_about_their_place() -> None:
    found = boxes_of(output((11, 5, 2, 0.9, 0.25), (3, 20, 0, 0.6, 0.5)))
    assert found.classes_N.tolist() == [2, 0]
    np.testing.assert_allclose(found.scores_N, [0.9, 0.6])
    np.testing.assert_allclose(found.corners_N4[0], [5 / 22 - 0.125, 0.375, 5 / 22 + 0.125, 0.625])
    assert len(boxes_of(output((0, 0, 0, 0.04, 0.1))).scores_N) == 0


def test_duplicates_of_a_class_are_left_out() -> None:
    found = boxes_of(output((11, 5, 2, 0.9, 0.25), (11, 6, 2, 0.8, 0.25), (11, 4, 7, 0.7, 0.25)))
    assert found.classes_N.tolist() == [2, 7]
    np.testing.assert_allclose(found.scores_N, [0.9, 0.7])


def test_overlap_is_intersection_over_union() -> None:
    one = np.array([0.0, 0.0, 1.0, 1.0])
    others = np.array([[0.0, 0.0, 1.0, 1.0], [0.5, 0.0, 1.5, 1.0], [2.0, 2.0, 3.0, 3.0]])
    np.testing.assert_allclose(overlaps(one, others), [1.0, 1 / 3, 0.0])


def test_average_precision_of_all_boxes() -> None:
    meter = BoxMeter()
    assert meter.value() is None
    originals = boxes((0.0, 0.9, 1), (0.3, 0.8, 1), (0.6, 0.3, 1))
    meter.update(originals, originals)
    assert meter.value() == 1.0  # the third is not sure enough to be an object, and stands behind the others
    meter.update(boxes((0.0, 0.9, 1), (0.3, 0.9, 2)), boxes((0.0, 0.95, 1), (0.01, 0.94, 1), (0.3, 0.93, 1)))
    # By falling score: found, a second time, of another class, found, found; three of four objects.
    assert meter.value() == pytest.approx((1.0 + 2 / 4 * 0 + 3 / 5 + 3 / 5) / 4)


def test_an_image_without_boxes_counts_its_objects() -> None:
    meter = BoxMeter()
    nothing = Boxes(np.zeros((0, 4)), np.zeros(0), np.zeros(0, np.int64))
    meter.update(boxes((0.0, 0.9, 1)), nothing)
    assert meter.value() == 0.0
    meter.update(nothing, boxes((0.0, 0.9, 1)))
    assert meter.value() == 0.0


def test_a_file_that_is_no_detector_is_told(tmp_path: Path) -> None:
    pytest.importorskip("onnxruntime")
    (tmp_path / "net.onnx").write_bytes(b"nothing")
    with pytest.raises(ExpertError, match=r"cannot read the detector .*net\.onnx"):
        FastestDet(tmp_path / "net.onnx")


def test_the_detector_sees_the_cars_of_a_street(camvid_root: Path) -> None:
    pytest.importorskip("onnxruntime")
    path = camvid_root.parents[1] / "weights" / "onnx" / "fastestdet-coco-352.onnx"
    if not path.is_file():
        pytest.skip(f"needs the detector {path}")
    image = np.array(Image.open(sorted((camvid_root / "train").glob("0006R0*"))[0]).convert("RGB"))
    found = FastestDet(path)(image).above(0.5)
    car = 2
    assert car in found.classes_N
    assert (found.corners_N4[:, 2:] > found.corners_N4[:, :2]).all()
