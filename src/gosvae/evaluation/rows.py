"""What an evaluation finds: one row for each codec, one for each image and codec, and where they come from."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import numpy.typing as npt
from pydantic import ConfigDict

from gosvae.tensors import ImageArray
from gosvae.units import kib

ClassMapArray = npt.NDArray[np.int16]
"""Class of every pixel as an expert sees it, (H, W)."""

UNCOMPRESSED = "uncompressed"
"""Label of the reference row: the expert on the original images."""

FID_NETWORK = "inception-2015-12-05"
"""The feature network whose Fréchet distance is called FID; no other's is."""


@dataclass(frozen=True)
class Row:
    """One codec at one setting over the whole data set; None where a value does not exist.

    Means are means of per-image values: an image counts the same whatever its size.

    Attributes:
        label: unique in its evaluation.
        codec: the codec's own name.
        curve: entries with the same curve are rate points of one codec.
        total_bytes: mean length of the real files, headers included; over a link, of all datagrams.
        payload_bytes: the same without headers.
        zero_order_bytes: mean of what the indices would take at their own zero-order entropy (an estimate).
        bpp: mean bits per pixel of the original, headers included.
        miou, pixel_accuracy: against labels, from one confusion matrix over the data set, in [0, 1].
        miou_classes: the number of classes in the mean (those in labels or predictions).
        class_iou: for each class of the expert; None for a class in neither.
        agreement_miou, agreement_accuracy, agreement_classes: the same against the expert's map of the original.
        mse: on the [0, 1] scale. psnr_db: mean of the images' PSNR; infinite if one image is exact.
        lpips: mean perceptual distance; `Provenance.perceptual` names its network.
        frechet_distance: of the reconstructions from the originals, in the features of `frechet_network`; it depends
            on `image_count`. Where a codec sends a class map and no picture, this, mse, psnr_db and lpips are None.
        parameters: of the networks in the codec; 0 for classical codecs.
        encode_ms, decode_ms: median wall-clock time of a single image; no encode time where a quality was searched.
        over_budget_images: images whose smallest stream is above the budget (that stream was used).
        damaged_images, lost_images: over a link, images that did not arrive whole, and those of them of which nothing
            could be decoded.
        concealed_share: over a link, mean share of the pixels that were concealed, or lost with their image.
    """

    __pydantic_config__: ClassVar[ConfigDict] = ConfigDict(extra="forbid", ser_json_inf_nan="strings")

    label: str
    codec: str
    image_count: int
    curve: str | None = None
    total_bytes: float | None = None
    payload_bytes: float | None = None
    zero_order_bytes: float | None = None
    bpp: float | None = None
    miou: float | None = None
    miou_classes: int | None = None
    pixel_accuracy: float | None = None
    class_iou: tuple[float | None, ...] | None = None
    agreement_miou: float | None = None
    agreement_classes: int | None = None
    agreement_accuracy: float | None = None
    mse: float | None = None
    psnr_db: float | None = None
    lpips: float | None = None
    frechet_distance: float | None = None
    frechet_network: str | None = None
    parameters: int | None = None
    encode_ms: float | None = None
    decode_ms: float | None = None
    over_budget_images: int = 0
    damaged_images: int = 0
    lost_images: int = 0
    concealed_share: float | None = None

    @property
    def total_kib(self) -> float | None:
        """Mean KiB (1024 bytes) of the real files, headers included."""
        return None if self.total_bytes is None else kib(self.total_bytes)

    @property
    def fid(self) -> float | None:
        """The Fréchet distance where it is the FID."""
        return self.frechet_distance if self.frechet_network == FID_NETWORK else None


@dataclass(frozen=True)
class ImageRow:
    """One image under one codec.

    Attributes:
        agreement_accuracy: share of pixels where the expert sees the same class as on the original.
        agreement_miou: the mean over the classes of this image alone.
        mse, psnr_db, lpips: None where a codec sends a class map and no picture.
    """

    __pydantic_config__: ClassVar[ConfigDict] = ConfigDict(extra="forbid", ser_json_inf_nan="strings")

    label: str
    image: str
    height: int
    width: int
    total_bytes: int
    payload_bytes: int
    agreement_accuracy: float
    agreement_miou: float
    mse: float | None
    psnr_db: float | None
    lpips: float | None
    over_budget: bool


@dataclass(frozen=True)
class Provenance:
    """Where the numbers come from.

    Attributes:
        geometry: height x width of the images in pixels, `256x512`, or smallest and largest where they differ.
        perceptual: name of the perceptual metric.
        threads: threads of PyTorch during the timing.
        revision: Git revision of the source, with `-dirty` where it had changes; None without a repository.
        channel: over which the streams travelled, with packets and repair packets; None: files that arrive whole. With
            a channel all bytes are those on the air.
    """

    dataset: str
    image_count: int
    geometry: str
    class_names: tuple[str, ...]
    expert: str
    expert_fingerprint: str
    perceptual: str | None
    versions: dict[str, str]
    revision: str | None
    hardware: str
    threads: int
    command: str
    date_utc: str
    channel: str | None = None


@dataclass(frozen=True)
class Reconstruction:
    """An image under one codec with what the expert sees on it."""

    label: str
    image_uint8_HW3: ImageArray
    class_map_HW: ClassMapArray
    row: ImageRow


@dataclass(frozen=True)
class KeptImage:
    """An original that was kept for pictures, with its reconstructions in the order of the codecs."""

    name: str
    image_uint8_HW3: ImageArray
    class_map_HW: ClassMapArray
    reconstructions: tuple[Reconstruction, ...]


@dataclass(frozen=True)
class Evaluation:
    """A complete evaluation; `kept` holds pixels for pictures and is not part of the saved result.

    Attributes:
        rows: the uncompressed reference first, then one row for each codec entry.
        images: image by image, within an image in the order of the entries.
    """

    provenance: Provenance
    rows: tuple[Row, ...]
    images: tuple[ImageRow, ...]
    kept: tuple[KeptImage, ...] = ()

    @property
    def reference(self) -> Row:
        """The expert on the originals."""
        return self.rows[0]

    def curves(self) -> dict[str, tuple[Row, ...]]:
        """Rows by curve (a row without a curve is one of its own), each by rising bytes."""
        grouped: dict[str, list[Row]] = {}
        for row in self.rows[1:]:
            grouped.setdefault(row.curve or row.label, []).append(row)
        return {name: tuple(sorted(rows, key=lambda r: r.total_bytes or 0.0)) for name, rows in grouped.items()}
