"""GESCO as a codec: the expert's class map as bytes, and a diffusion model that draws a picture from it.

The method is generative semantic communication (Grassucci, Barbarossa and Comminiello 2023). The sender runs the expert
and sends its class map without loss; the receiver draws a picture in which the expert should see the same classes.
GESCO sends a map of labels and the edges between instances, and a model can be trained to do that too. A sender has no
labels, so by default the map is the expert's, and the edges are those between classes, which the receiver finds in the
map.

Axis legend: B images, 3 RGB channels, H and W pixels. A latent is the class map itself.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from gosvae.codecs.base import ImageCodec
from gosvae.codecs.cards import GescoCard
from gosvae.codecs.checkpoint import CodecCheckpoint
from gosvae.codecs.class_map import decode_class_map, encode_class_map
from gosvae.codecs.latent import Latent, LatentCoder, Mask, SymbolArray, Transform
from gosvae.codecs.trained import TrainedCodec, card_of, ready
from gosvae.datasets.base import ObjectArray
from gosvae.datasets.objects import object_symbols
from gosvae.diffusion import DiffusionConfig, sample, semantic_map
from gosvae.entropy.ids import EntropyModelId
from gosvae.errors import BitstreamError, ExpertError
from gosvae.experts.base import Expert
from gosvae.experts.registry import is_embedded, load_expert
from gosvae.nn.pyramid import NO_MARGINS, Margins
from gosvae.nn.semantic_unet import SemanticUNet
from gosvae.precision import usable_device
from gosvae.seeding import torch_generator
from gosvae.tensors import ImageArray, LabelArray

MAX_PIXELS = 2**22
"""Size of the largest picture, in pixels; attention and normalisation see all of it, so it cannot be cut into tiles."""
BATCH_PIXELS = 2**18
"""Largest number of pixels that are drawn together.

It is small because the network is wide at full resolution and draws each picture twice.
"""


def pad_classes(classes_BHW: Tensor, multiple: int) -> Tensor:
    """Return class numbers padded at the right and the bottom with those of the edge, to multiples of `multiple`."""
    height, width = classes_BHW.shape[-2:]
    padding = (0, -width % multiple, 0, -height % multiple)
    return F.pad(classes_BHW.float().unsqueeze(1), padding, mode="replicate").squeeze(1).long()


def map_of_symbols(symbols_BHW: Tensor, config: DiffusionConfig) -> Tensor:
    """Return the semantic map (B, L, H, W), float32, of symbols: class, plus `class_count` at edges of instances.

    Edges between classes are added to those of instances.
    """
    count = config.class_count
    map_BLHW = semantic_map(symbols_BHW % count, count, edges=config.edges)
    if config.edges:
        map_BLHW[:, -1] = torch.maximum(map_BLHW[:, -1], (symbols_BHW >= count).float())
    return map_BLHW


@dataclass(frozen=True)
class GescoOptions:
    """Options of GESCO, which has none."""


class DrawingTransform(Transform):
    """Networks of GESCO: an expert from a picture to its class map, and a diffusion model from a map to a picture.

    Args:
        network: network of the diffusion.
        config: configuration of the diffusion.
        expert: function that returns the sender's expert.
        device: device of the networks.
    """

    stride, encoder_halo, halo = 1, None, None
    whole_pixels, batch_pixels = MAX_PIXELS, BATCH_PIXELS

    def __init__(
        self, network: SemanticUNet, config: DiffusionConfig, expert: Callable[[], Expert], device: torch.device
    ) -> None:
        self.network, self.config, self.expert, self.device = network, config, expert, device

    def analyse(self, x_13HW: Tensor) -> Tensor:
        return self.expert().class_map(x_13HW.contiguous())

    def synthesise(self, symbols_Bhw: Tensor, latents: Sequence[Latent], margins: Margins = NO_MARGINS) -> Tensor:
        del margins  # there are none without tiles
        height, width = symbols_Bhw.shape[-2:]
        padded_BHW = pad_classes(symbols_Bhw, self.config.stride)
        map_BLHW = map_of_symbols(padded_BHW, self.config)
        generators = [torch_generator("gesco", latent.seed) for latent in latents]
        return sample(self.network, self.config, map_BLHW, generators)[..., :height, :width]


class ClassMapCoder(LatentCoder):
    """Latent coder of class maps, without loss.

    Args:
        class_count: number of classes.
    """

    sliceable = False

    def __init__(self, class_count: int) -> None:
        self._class_count = class_count
        self.marks = {EntropyModelId.CLASS_MAP: b"", EntropyModelId.CLASS_MAP_PASSES: b""}

    def quantise(self, latent_1hw: Tensor, setting: int) -> SymbolArray:
        del setting
        classes_HW: SymbolArray = latent_1hw[0].long().cpu().numpy()
        return classes_HW

    def encode(self, parts: Sequence[SymbolArray], setting: int) -> tuple[int, list[bytes]]:
        del setting
        (classes_HW,) = parts
        classes = classes_HW.astype(np.uint8)
        model_id, payload = encode_class_map(classes, self._class_count, EntropyModelId.CLASS_MAP)
        return model_id, [payload]

    def least_bytes(self, grid_hw: tuple[int, int]) -> int:
        """See `LatentCoder.least_bytes`: `decode_class_map` knows how many bytes a map takes."""
        del grid_hw
        return 0

    def decode(
        self, model_id: int, payloads: Sequence[bytes], shapes: Sequence[tuple[int, int]]
    ) -> tuple[list[SymbolArray], int]:
        (payload,), (shape_hw,) = payloads, shapes
        if shape_hw[0] * shape_hw[1] > MAX_PIXELS:
            raise BitstreamError(f"{shape_hw[0]}x{shape_hw[1]} pixels, at most {MAX_PIXELS} pixels can be drawn")
        return [decode_class_map(model_id, payload, shape_hw, self._class_count).astype(np.int64)], 0

    def conceal(self, symbols: SymbolArray, known_hw: Mask) -> SymbolArray:
        """See `LatentCoder.conceal`: a stream of one slice is whole."""
        del known_hw
        return symbols


class GescoCodec(TrainedCodec):
    """Use this when a receiver must show a picture and only the class map may be sent.

    Compared with `LabelMapCodec`, which sends the same bytes, it shows people a scene. Compared with all other kinds,
    its colours and textures are invented, and a picture takes seconds.

    Compression needs the expert that the model was trained with; decompression does not. A model that was trained on
    labels compresses with `compress_objects` alone. The same bytes give the same
    picture on one machine: the noise is drawn from a generator that the payload seeds. Pictures have at most 2048 x
    2048 pixels.

    Args:
        checkpoint: a card of kind `gesco` and weights.
        expert: the sender's expert; None loads the one that the card names when it is first needed, if it is part of
            the package. No other name or path in the card is ever followed.
        options: None, or the options of a codec that has none.
        device: device of the networks.

    Raises:
        CheckpointError: a checkpoint of another kind, or weights that do not fit the configuration.
        ExpertError: the expert is not the one that the card names.
    """

    def __init__(
        self,
        checkpoint: CodecCheckpoint,
        *,
        expert: Expert | None = None,
        options: GescoOptions | None = None,
        device: str | torch.device = "cpu",
    ) -> None:
        del options
        self.card = card_of(checkpoint, GescoCard, "kind 'gesco'")
        self.config, device = self.card.model, usable_device(device)
        channels = self.config.label_channels(self.config.class_count)
        self.network = ready(lambda: SemanticUNet(self.config, channels), checkpoint, device)
        transform = DrawingTransform(self.network, self.config, lambda: self.expert, device)
        super().__init__(checkpoint, transform, ClassMapCoder(self.card.symbol_count))
        self._expert: Expert | None = None
        if expert is not None:
            self.use_expert(expert)

    def use_expert(self, expert: Expert) -> None:
        """Compress with an expert, which must be the one that the model was trained with.

        Raises:
            ExpertError: it is another one.
        """
        self._expert = self._checked(expert).to(self.device)

    def _checked(self, expert: Expert) -> Expert:
        """Return the expert if it is the one that the model was trained with."""
        wanted = self.card.expert
        if wanted is None:
            raise ExpertError(f"{self.name!r} was trained on labels: it compresses no map of an expert")
        if expert.fingerprint() != wanted.fingerprint:
            raise ExpertError(
                f"{self.name!r} was trained with the expert {wanted.name!r} (fingerprint {wanted.fingerprint[:16]}), "
                f"got {expert.info.name!r} ({expert.fingerprint()[:16]}): compress with the expert of the training"
            )
        return expert

    @property
    def expert(self) -> Expert:
        """Expert of the sender; one of the package is loaded at the first use.

        Raises:
            ExpertError: no expert was given and the card names none of the package, or the expert is another one.
        """
        if self._expert is None:
            named = self.card.expert
            if named is None:
                raise ExpertError(f"{self.name!r} sends labels, which are not in a picture: give it a map of objects")
            if not is_embedded(named.source):
                raise ExpertError(
                    f"{self.name!r} compresses with the expert of its training, {named.name!r} "
                    f"(fingerprint {named.fingerprint[:16]}), which is not part of the package: load it and give it to "
                    "use_expert",
                    argument="expert",
                )
            self.use_expert(load_expert(named.source))
        assert self._expert is not None
        return self._expert

    @property
    def parameter_count(self) -> int:
        """Number of parameters of the diffusion model, without the sender's expert."""
        return sum(p.numel() for p in self.network.parameters())

    @property
    def description(self) -> dict[str, str]:
        config = self.config
        strides = ", ".join(map(str, config.attention_strides)) or "none"
        return {
            "architecture": f"semantic diffusion, width {config.width} x {config.multipliers}, patch {config.patch}",
            "map": f"{config.class_count} {self._source}" + (", edges" if config.edges else ""),
            "diffusion": f"{config.sampler}, {config.sampling_steps} of {config.timesteps} steps, "
            f"guidance {config.guidance:g}, predicts the {config.prediction}, attention at strides {strides}",
            "parameters": f"{self.parameter_count / 1e6:.2f} M",
        }

    @property
    def _source(self) -> str:
        if self.card.expert is not None:
            return f"classes of {self.card.expert.name}"
        return f"labelled classes{' with instances' if self.card.symbol_count > self.config.class_count else ''}"

    @property
    def object_names(self) -> tuple[str, ...]:
        """Names of the classes of object maps; empty for a model that sends what an expert sees."""
        return () if self.card.objects is None else self.card.objects.class_names

    def compress_objects(self, objects_int32_HW: ObjectArray) -> bytes:
        """Return the stream of an object map (H, W): classes, and edges between instances if the model draws them.

        Raises:
            DatasetError: the map has other classes.
        """
        instances = self.card.symbol_count > self.config.class_count
        return self.compress_map(object_symbols(objects_int32_HW, self.config.class_count, instances=instances))

    def class_map(self, image_uint8_HW3: ImageArray) -> LabelArray:
        """Return the classes that the expert sees, uint8 (H, W), which are those of `analyse` as an array.

        Raises:
            ShapeError: the array is not a uint8 RGB image.
            ImageError: the image has more than `MAX_PIXELS` pixels, or a side of more than 65535.
            ExpertError: the expert cannot be loaded, or is another one.
        """
        classes_HW: LabelArray = self.analyse(image_uint8_HW3)[0].to(torch.uint8).cpu().numpy()
        return classes_HW

    def compress(self, image_uint8_HW3: ImageArray) -> bytes:
        return self.compress_at(image_uint8_HW3, 0)

    def compress_map(self, classes_uint8_HW: LabelArray) -> bytes:
        """Return the stream of a map of symbols, uint8 (H, W), which are classes in a model without instances."""
        return self.encode(Latent(classes_uint8_HW.astype(np.int64), *classes_uint8_HW.shape))


def give_expert(codec: ImageCodec, expert: Expert) -> None:
    """Let a GESCO codec that was trained with this expert compress with it; nothing changes for another codec."""
    if not isinstance(codec, GescoCodec) or codec.card.expert is None:
        return
    if codec.card.expert.fingerprint == expert.fingerprint():
        codec.use_expert(expert)
