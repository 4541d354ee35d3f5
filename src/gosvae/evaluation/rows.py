"""Numbers of an evaluation: a row for each codec, a row for each image and codec, and the provenance."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from statistics import fmean
from typing import ClassVar

from pydantic import ConfigDict

from gosvae.units import kib

UNCOMPRESSED = "uncompressed"
"""Label of the reference row, the expert on the original images."""

FID_NETWORK = "inception-2015-12-05"
"""Name of the only feature network whose Fréchet distance is called FID."""

UNKNOWN_FILE = "file sha256:"
"""Beginning of the name of a feature network in a file that nobody has published; its SHA-256 follows."""


def frechet_title(network: str | None) -> str:
    """Return what a Fréchet distance in the features of a network is called, such as `FID`."""
    if network == FID_NETWORK:
        return "FID"
    return f"Fréchet distance ({network})" if (network or "").startswith(UNKNOWN_FILE) else "Fréchet distance"


@dataclass(frozen=True)
class Row:
    """Results of one codec at one setting over the whole data set; a value that does not exist is None.

    Means are means of per-image values: every image counts the same, whatever its size.

    Attributes:
        label: name of the row, unique in its evaluation.
        codec: name of the codec.
        curve: name of the curve; entries with the same curve are rate points of one codec.
        image_count: number of images.
        total_bytes: mean bytes of the real files, including headers; over a link, of all datagrams.
        payload_bytes: mean bytes without headers.
        codestream_bytes: mean bytes without the boxes of a container (`ImageCodec.codestream_bytes`); None over a link.
        zero_order_bytes: mean estimated bytes of the indices at their own zero-order entropy.
        bpp: mean bits per pixel of the original, including headers.
        miou, pixel_accuracy: quality against labels, from one confusion matrix over the data set, in [0, 1].
        miou_low, miou_high: 95 % interval of `miou` by resampling shots; None with fewer than three shots.
        miou_classes: number of classes in the mean (those in labels or predictions).
        class_iou: IoU of each class of the expert; None for a class in neither labels nor predictions.
        agreement_miou, agreement_low, agreement_high, agreement_accuracy, agreement_classes: the same values against
            the expert's maps of the originals.
        tasks: agreement of further judges with their own results on the originals, by the names of the judge and of the
            measure, such as `boxes AP50`.
        mse: mean squared error on the [0, 1] scale.
        psnr_db: mean PSNR of the images; infinite if one image is exact.
        lpips: mean perceptual distance; `Provenance.perceptual` names its network.
        frechet_distance: Fréchet distance of the reconstructions from the originals, in the features of
            `frechet_network`; it depends on `image_count`. It is None, like mse, psnr_db and lpips, if the codec sends
            a class map and no picture.
        frechet_network: name of the feature network.
        parameters: number of parameters of the networks in the codec; 0 for classical codecs.
        encode_ms, decode_ms: median wall-clock time for one image; no encode time if a quality was searched.
        over_budget_images: number of images whose smallest stream is above the budget; that stream is used.
        damaged_images: number of images that did not arrive whole over a link.
        lost_images: number of damaged images of which nothing could be decoded.
        concealed_share: mean share of the pixels that were concealed over a link, or lost with their image.
        kbit_per_second: mean rate of a video, in units of 1000 bits; None for images.
        largest_frame_bytes: largest number of bytes of a frame of a video.
        flicker: share of the pixels of a video whose class differs from that in the frame before.
        flicker_at_rest: the same share among the pixels whose class stays the same on the original.
        age_ms: mean age of the newest map of a video in milliseconds, 0 if every frame is sent.
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
    miou_low: float | None = None
    miou_high: float | None = None
    miou_classes: int | None = None
    pixel_accuracy: float | None = None
    class_iou: tuple[float | None, ...] | None = None
    agreement_miou: float | None = None
    agreement_low: float | None = None
    agreement_high: float | None = None
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
    tasks: dict[str, float | None] = field(default_factory=dict)
    codestream_bytes: float | None = None
    kbit_per_second: float | None = None
    largest_frame_bytes: int | None = None
    flicker: float | None = None
    flicker_at_rest: float | None = None
    age_ms: float | None = None

    @property
    def total_kib(self) -> float | None:
        """Mean KiB (1024 bytes) of the real files, including headers."""
        return None if self.total_bytes is None else kib(self.total_bytes)

    @property
    def fid(self) -> float | None:
        """Fréchet distance if it is the FID, else None."""
        return self.frechet_distance if self.frechet_network == FID_NETWORK else None


@dataclass(frozen=True)
class ImageRow:
    """Results of one codec on one image.

    Attributes:
        agreement_accuracy: share of pixels where the expert sees the same class as on the original.
        agreement_miou: mean IoU with the expert's map of the original, over the classes of this image alone; both are
            None without a segmentation network.
        mse, psnr_db, lpips: distortion; None if the codec sends a class map and no picture.
        codestream_bytes: bytes without the boxes of a container; None over a link.
    """

    __pydantic_config__: ClassVar[ConfigDict] = ConfigDict(extra="forbid", ser_json_inf_nan="strings")

    label: str
    image: str
    height: int
    width: int
    total_bytes: int
    payload_bytes: int
    agreement_accuracy: float | None
    agreement_miou: float | None
    mse: float | None
    psnr_db: float | None
    lpips: float | None
    over_budget: bool
    codestream_bytes: int | None = None


@dataclass(frozen=True)
class Provenance:
    """Provenance of the results.

    Attributes:
        geometry: height x width of the images in pixels, such as `256x512`; smallest and largest if they differ.
        perceptual: name of the perceptual metric.
        threads: number of threads of PyTorch during the timing.
        revision: Git revision of the source, with `-dirty` if it had changes; None without a repository.
        channel: description of the channel, packets and repair packets; bytes are then those on the air. None if files
            arrive whole.
        skipped: messages of the images that could not be read and are left out of all results.
        shots: number of shots that the images belong to; None in results of versions that did not count them.
        judges: fingerprints of further experts, by name and task such as `boxes (detection)`.
        clips: names, lengths and frame rates of the clips whose frames the images are; None if they are no videos.
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
    skipped: tuple[str, ...] = ()
    shots: int | None = None
    judges: dict[str, str] = field(default_factory=dict)
    clips: str | None = None


def mean_of(values: Iterable[float | None]) -> float | None:
    """Return the mean of the values that are not None; None if there are none."""
    there = [value for value in values if value is not None]
    return fmean(there) if there else None
