"""The label-map codec: the sender runs the expert and sends its class map only."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import torch

from gosvae import bitstream
from gosvae.codecs.base import ClassMapCodec
from gosvae.codecs.class_map import ClassMapBytes, decode_class_map, encode_class_map
from gosvae.datasets.palettes import class_palette
from gosvae.entropy.ids import EntropyModelId
from gosvae.errors import BitstreamError, ConfigError, ImageError
from gosvae.experts.base import Expert
from gosvae.tensors import ImageArray, check_image, image_to_tensor

_MODELS = (EntropyModelId.LABEL_MAP, EntropyModelId.CLASS_MAP_PASSES)


class LabelMapCodec(ClassMapCodec):
    """Use this when one task is enough and the sender can run its expert, or when you need the bound of that task.

    Compared with all other codecs, the receiver has exactly the classes that the expert sees in the original, and
    nothing else: no other task can use the stream, and people do not see the scene.

    The class map is sent without loss, in the container of trained codecs with the expert's fingerprint.

    Args:
        expert: expert with at most 256 classes, on any device.

    Raises:
        ConfigError: the expert has more classes.
    """

    def __init__(self, expert: Expert) -> None:
        self.expert = expert
        if len(expert.info.class_names) > 256:
            raise ConfigError(
                f"expert {expert.info.name!r} has {len(expert.info.class_names)} classes: a label map holds at most 256"
            )
        self.fingerprint = bytes.fromhex(expert.fingerprint())[: bitstream.FINGERPRINT_BYTES]
        self.palette_m3: npt.NDArray[np.uint8] = class_palette(expert.info.class_names)
        self.device = next(iter(expert.state_dict().values()), torch.empty(0)).device

    @property
    def name(self) -> str:
        return "label-map"

    @property
    def class_names(self) -> Sequence[str]:
        return self.expert.info.class_names

    @property
    def parameter_count(self) -> int:
        """Number of parameters of the expert, which the sender runs."""
        return sum(p.numel() for p in self.expert.parameters())

    def compress(self, image_uint8_HW3: ImageArray) -> bytes:
        """Return the stream of the expert's map of the image.

        Raises:
            ShapeError: the array is not a uint8 RGB image.
            ImageError: a side is longer than 65535 pixels.
        """
        image = check_image(image_uint8_HW3)
        height, width = image.shape[:2]
        if max(height, width) > bitstream.MAX_SIDE:
            raise ImageError(f"sides of at most {bitstream.MAX_SIDE} pixels can be coded, got {height}x{width}")
        class_map = self.expert.class_map(image_to_tensor(image).to(self.device))[0].cpu().numpy().astype(np.uint8)
        model_id, payload = encode_class_map(class_map, len(self.class_names), EntropyModelId.LABEL_MAP)
        return bitstream.pack(bitstream.Header(self.fingerprint, height, width, model_id), payload)

    def class_map(self, data: bytes) -> ClassMapBytes:
        header, payload = bitstream.unpack(data)
        bitstream.check_fingerprint(header, self.fingerprint)
        if header.entropy_model_id not in _MODELS:
            raise BitstreamError(f"entropy model {header.entropy_model_id} where a label map has one of {_MODELS}")
        return decode_class_map(header.entropy_model_id, payload, (header.height, header.width), len(self.class_names))

    def decompress(self, data: bytes) -> ImageArray:
        """Return the map in the colours of `datasets.palettes.class_palette`, for people and not for the expert."""
        return self.palette_m3[self.class_map(data)]

    def payload_bytes(self, data: bytes) -> int:
        return len(bitstream.unpack(data)[1])
