"""Detectors and depth networks of Hugging Face `transformers` as experts.

Axis legend: B images, H and W pixels, h and w grid positions.
"""

from __future__ import annotations

from torch import Tensor

from gosvae.experts.base import DenseBoxes
from gosvae.experts.boxes import query_boxes
from gosvae.experts.huggingface_network import HuggingFaceNetwork

_SOFTMAX_MODELS = ("detr", "table-transformer", "yolos")
"""Model types whose last class is "no object"; all others have classes that are independent of each other."""


class HuggingFaceDetector(HuggingFaceNetwork):
    """Expert of a detector of the DETR family: DETR, YOLOS, RT-DETR, D-FINE, Deformable and Conditional DETR."""

    task = "detection"

    def dense(self, x_B3HW: Tensor) -> DenseBoxes:
        """Return the candidates of all queries."""
        outputs = self.run(x_B3HW)
        return query_boxes(outputs.logits, outputs.pred_boxes, no_object=self.model_type in _SOFTMAX_MODELS)


class HuggingFaceDepth(HuggingFaceNetwork):
    """Expert of a depth network: DPT, Depth Anything, GLPN, ZoeDepth; inverse depth for most of them."""

    task = "depth"

    def dense(self, x_B3HW: Tensor) -> Tensor:
        """Return the predicted maps (B, 1, h, w), at least 0."""
        maps: Tensor = self.run(x_B3HW).predicted_depth
        return maps.float().unsqueeze(1).clamp_min(0.0)
