"""What a detector finds on reconstructions, measured against what it finds on the originals.

The detector is FastestDet (github.com/dog-qiuqiu/FastestDet) as an ONNX file, run by ONNX Runtime: an anchor-free
network for COCO's 80 classes that looks at pictures of 352x352. No codec of this package is trained with it.

Axis legend: K cells of the grid, four coordinates (left, top, right, bottom) as shares of width and height.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from gosvae.errors import ExpertError
from gosvae.tasks.boxes import Boxes, FloatArray, without_duplicates
from gosvae.tensors import ImageArray, check_image

SIDE = 352
"""Height and width of the pictures that the detector takes."""


class FastestDet:
    """A detector from an ONNX file.

    Raises:
        ExpertError: the file is missing or cannot be read, or ONNX Runtime is not installed.
    """

    def __init__(self, path: Path) -> None:
        try:
            import onnxruntime
        except ImportError:
            raise ExpertError("a detector needs ONNX Runtime: pip install onnxruntime") from None
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1
        options.log_severity_level = 3
        try:
            self._session: Any = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
        except Exception as error:
            raise ExpertError(f"cannot read the detector {path}: {str(error).splitlines()[0]}") from None
        self._input = self._session.get_inputs()[0].name

    def __call__(self, image_uint8_HW3: ImageArray) -> Boxes:
        """The boxes on an image."""
        small = Image.fromarray(check_image(image_uint8_HW3)).resize((SIDE, SIDE), Image.Resampling.BILINEAR)
        bgr_3HW = np.asarray(small, np.float32)[..., ::-1].transpose(2, 0, 1) / 255.0
        (output,) = self._session.run(None, {self._input: np.ascontiguousarray(bgr_3HW[None])})
        return boxes_of(np.asarray(output[0], np.float64))


def boxes_of(output_Chw: FloatArray) -> Boxes:
    """Boxes of the detector's output, (85, h, w): objectness, four box terms and 80 class probabilities for each cell.

    Duplicates are left out (non-maximum suppression, class by class).
    """
    h, w = output_Chw.shape[1:]
    cells_CK = output_Chw.reshape(len(output_Chw), -1)
    probabilities_K, classes_K = cells_CK[5:].max(axis=0), cells_CK[5:].argmax(axis=0)
    scores_K = cells_CK[0].clip(0, 1) ** 0.6 * probabilities_K.clip(0, 1) ** 0.4
    rows_K, columns_K = (places.reshape(-1) for places in np.mgrid[:h, :w])
    x_K, y_K = (columns_K + np.tanh(cells_CK[1])) / w, (rows_K + np.tanh(cells_CK[2])) / h
    half_width_K, half_height_K = (1.0 / (1.0 + np.exp(-cells_CK[i])) / 2.0 for i in (3, 4))
    corners_K4 = np.stack([x_K - half_width_K, y_K - half_height_K, x_K + half_width_K, y_K + half_height_K], axis=1)
    return without_duplicates(corners_K4, scores_K, classes_K)
