"""A trained VQ autoencoder as a codec: images to self-describing streams and back.

Axis legend: B images, 3 RGB channels, H and W pixels, K codes, h and w latent positions.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch

from gosvae import bitstream
from gosvae.codecs.base import Concealed, LossTolerantCodec
from gosvae.codecs.cards import VqCard
from gosvae.codecs.checkpoint import CodecCheckpoint, load_codec_checkpoint, load_weights
from gosvae.codecs.concealment import conceal_indices, concealed_pixels
from gosvae.codecs.slices import (
    DEFAULT_OPTIONS,
    PartialIndices,
    StreamOptions,
    decode_slices,
    encode_slices,
    marked_fingerprint,
    slice_count,
)
from gosvae.codecs.tiling import decode_in_tiles, encode_in_tiles
from gosvae.codecs.trained import TrainedCodec, encoder_input
from gosvae.codecs.vq_model import VqAutoencoder
from gosvae.entropy.adaptive import AdaptiveCounts
from gosvae.entropy.base import EntropyModel
from gosvae.entropy.context import ContextModel
from gosvae.entropy.fixed import FixedLength
from gosvae.entropy.static import StaticHistogram
from gosvae.errors import CheckpointError, ForeignStreamError
from gosvae.metrics import zero_order_bits
from gosvae.tensors import ImageArray, check_image, tensor_to_image


class VqCodec(TrainedCodec, LossTolerantCodec):
    """A VQ codec on one device, ready to use.

    Any image with sides of up to 65535 and up to 2**28 pixels is padded to the stride inside and cropped again; large
    ones are computed in tiles, so that memory stays bounded.

    Args:
        checkpoint: configuration, weights and index histogram.
        options: how streams are written.
        device: where the networks run.

    Raises:
        CheckpointError: a checkpoint of another kind, or weights that do not fit the configuration.
        ConfigError: the options ask for an entropy model that the codec does not have.
    """

    def __init__(
        self,
        checkpoint: CodecCheckpoint,
        *,
        options: StreamOptions = DEFAULT_OPTIONS,
        device: str | torch.device = "cpu",
    ) -> None:
        super().__init__(checkpoint)
        if not isinstance(checkpoint.card, VqCard):
            raise CheckpointError(
                f"{checkpoint.card.name!r} is of kind {checkpoint.card.kind!r}, a VQ codec (kind 'codec') was expected"
            )
        self.device = torch.device(device)
        model = VqAutoencoder(checkpoint.card.model)
        load_weights(model, checkpoint)
        model.eval().requires_grad_(False).to(self.device)
        self.model = model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        size = self.model.quantizer.codebook_size
        if checkpoint.counts.shape != (size,):
            raise CheckpointError(f"the frequency table has {tuple(checkpoint.counts.shape)} entries, not {size}")
        self.options = options
        counts_K = checkpoint.counts.numpy()
        models: list[EntropyModel] = [FixedLength(size), StaticHistogram(counts_K), AdaptiveCounts(counts_K)]
        if checkpoint.card.context is not None:
            models.append(ContextModel(checkpoint.card.context, checkpoint.context, device=self.device))
            if models[-1].codebook_size != size:
                raise CheckpointError(f"the context model is for {models[-1].codebook_size} codes, not for {size}")
        self.entropy_models = tuple(models)
        """From the quickest to the slowest."""
        self._readers = {model.model_id: model for model in self.entropy_models}
        self._writers = options.writers(self.entropy_models)

    @classmethod
    def load(
        cls,
        folder: str | Path,
        *,
        options: StreamOptions = DEFAULT_OPTIONS,
        device: str | torch.device = "cpu",
    ) -> VqCodec:
        """Load a codec from its checkpoint folder; errors as `load_codec_checkpoint` and the constructor."""
        return cls(load_codec_checkpoint(Path(folder)), options=options, device=device)

    @property
    def description(self) -> dict[str, str]:
        model, size = self.model.config, self.model.config.autoencoder
        encoder, decoder = (
            sum(p.numel() for p in part.parameters()) for part in (self.model.encoder, self.model.decoder)
        )
        return {
            "architecture": f"{size.architecture}, stride {size.stride}",
            "quantizer": f"{model.quantizer.kind}, K = {self.model.quantizer.codebook_size}, "
            f"D = {self.model.quantizer.code_dim}",
            "parameters": f"{self.parameter_count / 1e6:.2f} M (encoder {encoder / 1e6:.2f} M, "
            f"decoder {decoder / 1e6:.2f} M)",
        }

    @property
    def parameter_count(self) -> int:
        """Parameters of encoder, codebook and decoder (a codebook that averages move counts too)."""
        averaged = dict(self.model.quantizer.named_buffers()).get("codebook_KD")
        learned: int = sum(p.numel() for p in self.model.parameters())
        return learned if averaged is None else learned + averaged.numel()

    def codebook(self) -> npt.NDArray[np.float32]:
        """The codes as the decoder takes them, float32 (K, D)."""
        with torch.inference_mode():
            every_11K = torch.arange(self.model.quantizer.codebook_size, device=self.device)[None, None]
            codes_1D1K = self.model.quantizer.lookup(every_11K)
        codes_KD: npt.NDArray[np.float32] = codes_1D1K[0, :, 0].T.float().cpu().numpy()
        return codes_KD

    def indices(self, image_uint8_HW3: ImageArray) -> npt.NDArray[np.int64]:
        """The image's code numbers, int64 (h, w): the transform and quantizer alone.

        Raises:
            ShapeError: the array is not a uint8 RGB image.
            ImageError: a side is longer than 65535 pixels, or there are more than 2**28 pixels.
        """
        autoencoder = self.model.config.autoencoder
        with torch.inference_mode():
            x = encoder_input(image_uint8_HW3, self.model.stride, self.device)
            indices_1hw = encode_in_tiles(self.model.encode, x, self.model.stride, autoencoder.halo)
        result: npt.NDArray[np.int64] = indices_1hw[0].cpu().numpy()
        return result

    def reconstruct(self, indices_hw: npt.NDArray[np.int64], height: int, width: int) -> ImageArray:
        """The image, uint8 (height, width, 3), of its code numbers: codebook lookup and decoder alone."""
        autoencoder = self.model.config.autoencoder
        with torch.inference_mode():
            indices_1hw = torch.from_numpy(indices_hw).unsqueeze(0).to(self.device)
            x_hat = decode_in_tiles(self.model.decode, indices_1hw, self.model.stride, autoencoder.halo)
        return tensor_to_image(x_hat[..., :height, :width])

    def encode(self, indices_hw: npt.NDArray[np.int64], height: int, width: int) -> bytes:
        """The stream of code numbers: the shortest payload of the entropy models, with its header."""
        options = self.options
        count = slice_count(self._grid(height, width), options.slices, options.layout)
        model_id, payloads = encode_slices(self._writers, indices_hw, count, options.layout)
        fingerprint = marked_fingerprint(self.fingerprint, self._readers[model_id])
        header = bitstream.Header(fingerprint, height, width, model_id)
        if options.version == 1:
            return bitstream.pack(header, payloads[0], version=1)
        return bitstream.pack_slices(header, payloads, options.layout)

    def decode(self, data: bytes) -> tuple[npt.NDArray[np.int64], int, int]:
        """Code numbers, height and width of a stream; errors as `decompress`."""
        partial, height, width = self._decode(bitstream.unpack_slices(data))
        return partial.indices_hw, height, width

    def decode_damaged(self, data: bytes) -> tuple[PartialIndices, int, int]:
        """What is left of a damaged stream: code numbers of the intact slices, height and width.

        Raises:
            BitstreamError: the header is damaged, or no slice is intact.
            ForeignStreamError: as `decompress`.
        """
        return self._decode(bitstream.salvage(data))

    def _decode(self, stream: bitstream.Stream) -> tuple[PartialIndices, int, int]:
        header = stream.header
        model = self._readers.get(header.entropy_model_id)
        if model is None and header.entropy_model_id == ContextModel.model_id:
            raise ForeignStreamError(
                f"made with a context model, which this {self.name!r} does not have: decode with the one that has it"
            )
        fingerprint = self.fingerprint if model is None else marked_fingerprint(self.fingerprint, model)
        bitstream.check_fingerprint(header, fingerprint)
        partial = decode_slices(self._readers, stream, self._grid(header.height, header.width))
        return partial, header.height, header.width

    def _grid(self, height: int, width: int) -> tuple[int, int]:
        """Rows and columns of the indices of an image."""
        return -(-height // self.model.stride), -(-width // self.model.stride)

    def compress(self, image_uint8_HW3: ImageArray) -> bytes:
        height, width = check_image(image_uint8_HW3).shape[:2]
        return self.encode(self.indices(image_uint8_HW3), height, width)

    def decompress(self, data: bytes) -> ImageArray:
        return self.reconstruct(*self.decode(data))

    def decompress_damaged(self, data: bytes) -> Concealed:
        """As the contract says; lost indices are guessed, see `conceal_indices`."""
        partial, height, width = self.decode_damaged(data)
        context = next((model for model in self.entropy_models if isinstance(model, ContextModel)), None)
        image_uint8_HW3 = self.reconstruct(conceal_indices(partial, context), height, width)
        concealed_HW = concealed_pixels(partial.known_hw, self.model.stride, height, width)
        return Concealed(image_uint8_HW3, concealed_HW, partial.damaged)

    def zero_order_bytes(self, data: bytes) -> float:
        """Bytes, an estimate, of the stream's indices at their own zero-order entropy."""
        return zero_order_bits(torch.from_numpy(self.decode(data)[0])) / 8.0
