"""GESCO as a codec: the expert's class map in real bytes, a diffusion model that draws a picture to it.

Generative semantic communication (Grassucci, Barbarossa and Comminiello 2023). The sender runs the expert and sends
its class map without loss; the receiver regenerates a picture in which the expert is to see the same. Colours and
textures are invented. GESCO sends the labels' map and the edges between instances; here nobody has labels, and the
edges are those between classes, which the receiver finds in the map.

Axis legend: B images, 3 RGB channels, H and W pixels.
"""

from __future__ import annotations

import hashlib

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from gosvae import bitstream
from gosvae.codecs.cards import GescoCard
from gosvae.codecs.checkpoint import CodecCheckpoint, load_weights
from gosvae.codecs.class_map import decode_class_map, encode_class_map
from gosvae.codecs.trained import TrainedCodec
from gosvae.diffusion import sample, semantic_map
from gosvae.entropy.ids import EntropyModelId
from gosvae.errors import BitstreamError, CheckpointError, ExpertError, ImageError
from gosvae.experts.base import Expert
from gosvae.experts.registry import load_expert
from gosvae.nn.semantic_unet import SemanticUNet
from gosvae.seeding import torch_generator
from gosvae.tensors import ImageArray, LabelArray, check_image, image_to_tensor, tensor_to_image

MAX_PIXELS = 2**22
"""Largest picture, in pixels: attention and normalisation see the whole of it, so it cannot be drawn in tiles."""


def pad_classes(classes_BHW: Tensor, multiple: int) -> Tensor:
    """Class numbers padded at the right and the bottom with those of the edge, to multiples of `multiple`."""
    height, width = classes_BHW.shape[-2:]
    padding = (0, -width % multiple, 0, -height % multiple)
    return F.pad(classes_BHW.float().unsqueeze(1), padding, mode="replicate").squeeze(1).long()


class GescoCodec(TrainedCodec):
    """A trained semantic diffusion model on one device, ready to use.

    Compressing takes the expert that the model was trained with; decompressing does not. The same bytes give the same
    picture on one machine: the noise is drawn from a generator that the payload seeds. Pictures have up to 2048 x 2048
    pixels.

    Args:
        checkpoint: a card of kind `gesco` and weights.
        expert: the sender's expert; None loads what the card names when it is first needed.
        device: where the networks run.

    Raises:
        CheckpointError: a checkpoint of another kind, or weights that do not fit the configuration.
        ExpertError: an expert that is not the one of the card.
    """

    def __init__(
        self, checkpoint: CodecCheckpoint, *, expert: Expert | None = None, device: str | torch.device = "cpu"
    ) -> None:
        super().__init__(checkpoint)
        if not isinstance(checkpoint.card, GescoCard):
            raise CheckpointError(
                f"{checkpoint.card.name!r} is of kind {checkpoint.card.kind!r}, kind 'gesco' was expected"
            )
        self.card = checkpoint.card
        self.config = checkpoint.card.model
        self.device = torch.device(device)
        network = SemanticUNet(self.config, self.config.label_channels(self.config.class_count))
        load_weights(network, checkpoint)
        network.eval().requires_grad_(False).to(self.device)
        self.network = network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self._expert = None if expert is None else self._checked(expert).to(self.device)

    def _checked(self, expert: Expert) -> Expert:
        """The expert, if it is the one that the model was trained with."""
        wanted = self.card.expert
        if expert.fingerprint() != wanted.fingerprint:
            raise ExpertError(
                f"{self.name!r} was trained with the expert {wanted.name!r} (fingerprint {wanted.fingerprint[:16]}), "
                f"got {expert.info.name!r} ({expert.fingerprint()[:16]}): compress with the expert of the training"
            )
        return expert

    @property
    def expert(self) -> Expert:
        """The sender's expert, loaded when it is first asked for.

        Raises:
            ExpertError: the card names no file, what it names is gone, or is another expert now.
        """
        if self._expert is None:
            source = self.card.expert.source
            if not source:
                raise ExpertError(
                    f"{self.name!r} was trained with an expert in memory, {self.card.expert.name!r}: "
                    "give it as GescoCodec(checkpoint, expert=...)"
                )
            self._expert = self._checked(load_expert(source)).to(self.device)
        return self._expert

    @property
    def parameter_count(self) -> int:
        """Parameters of the diffusion model; the expert is the sender's own."""
        return sum(p.numel() for p in self.network.parameters())

    @property
    def description(self) -> dict[str, str]:
        config = self.config
        strides = ", ".join(map(str, config.attention_strides)) or "none"
        return {
            "architecture": f"semantic diffusion, width {config.width} x {config.multipliers}, patch {config.patch}",
            "map": f"{config.class_count} classes of {self.card.expert.name}" + (", edges" if config.edges else ""),
            "diffusion": f"{config.sampler}, {config.sampling_steps} of {config.timesteps} steps, "
            f"guidance {config.guidance:g}, predicts the {config.prediction}, attention at strides {strides}",
            "parameters": f"{self.parameter_count / 1e6:.2f} M",
        }

    def class_map(self, image_uint8_HW3: ImageArray) -> LabelArray:
        """What the expert sees, uint8 (H, W).

        Raises:
            ShapeError: the array is not a uint8 RGB image.
            ImageError: more than `MAX_PIXELS` pixels, or a side of more than 65535.
            ExpertError: the expert cannot be had, or is another one.
        """
        image = check_image(image_uint8_HW3)
        if image.shape[0] * image.shape[1] > MAX_PIXELS or max(image.shape) > bitstream.MAX_SIDE:
            raise ImageError(
                f"{self.name!r} draws at most {MAX_PIXELS} pixels, got an image of {image.shape[0]}x{image.shape[1]}: "
                "make it smaller first"
            )
        classes_1HW = self.expert.class_map(image_to_tensor(image).to(self.device))
        classes: LabelArray = classes_1HW[0].to(torch.uint8).cpu().numpy()
        return classes

    def encode(self, classes_uint8_HW: LabelArray) -> bytes:
        """The stream of a class map: the expert's, or the labels, as in GESCO's own experiments."""
        payload = encode_class_map(classes_uint8_HW, self.config.class_count)
        height, width = classes_uint8_HW.shape
        return bitstream.pack(bitstream.Header(self.fingerprint, height, width, EntropyModelId.CLASS_MAP), payload)

    def decode(self, data: bytes) -> tuple[LabelArray, bytes]:
        """Class map, uint8 (H, W), and payload of a stream; errors as `decompress`."""
        header, payload = bitstream.unpack(data)
        bitstream.check_fingerprint(header, self.fingerprint)
        if header.entropy_model_id != EntropyModelId.CLASS_MAP:
            raise BitstreamError(
                f"entropy model {header.entropy_model_id} where a class map ({EntropyModelId.CLASS_MAP}) belongs"
            )
        if header.height * header.width > MAX_PIXELS:
            raise BitstreamError(f"{header.height}x{header.width} pixels, at most {MAX_PIXELS} pixels can be drawn")
        return decode_class_map(payload, (header.height, header.width), self.config.class_count), payload

    def draw(self, classes_uint8_HW: LabelArray, seed: str) -> ImageArray:
        """A picture, uint8 (H, W, 3), to a class map; another seed gives another one."""
        height, width = classes_uint8_HW.shape
        classes_1HW = torch.from_numpy(np.array(classes_uint8_HW)).unsqueeze(0).to(self.device)
        padded = pad_classes(classes_1HW, self.config.stride)
        map_1LHW = semantic_map(padded, self.config.class_count, edges=self.config.edges)
        x_hat = sample(self.network, self.config, map_1LHW, torch_generator("gesco", seed))
        return tensor_to_image(x_hat[..., :height, :width])

    def compress(self, image_uint8_HW3: ImageArray) -> bytes:
        return self.encode(self.class_map(image_uint8_HW3))

    def decompress(self, data: bytes) -> ImageArray:
        classes_uint8_HW, payload = self.decode(data)
        return self.draw(classes_uint8_HW, hashlib.sha256(payload).hexdigest())
