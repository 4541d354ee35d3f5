"""Indices as bits that may be flipped: near codes have near labels, and every string of bits means something.

Streams have checksums, and a slice with a wrong bit is lost: that suits links that deliver packets whole or not at all.
Where a link delivers damaged bits instead (radio without a code, or UDP-Lite), the fixed-length code here needs no
checksum: each index is a label of ceil(log2 K) bits, and a flipped bit shows another code, mostly a similar one.

The labels are found by simulated annealing (Farvardin 1990, "A study of vector quantization for noisy channels").

Axis legend: K codes, D values of a code, L labels (a power of two), h and w latent positions.
"""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import numpy.typing as npt

from gosvae.errors import BitstreamError, ConfigError
from gosvae.files import write_atomically
from gosvae.seeding import numpy_generator

MOST_CODES = 4096
"""Of which labels are searched: the search holds the distances of all pairs."""
PROPOSALS_PER_CODE = 400
_LABEL_BITS = 16
_COOLING = 1e-3
"""The last temperature over the first."""

IndexArray = npt.NDArray[np.int64]
FloatArray = npt.NDArray[np.float64]


def label_bits(codes: int) -> int:
    """Bits of a label: ceil(log2 K), at least 1."""
    return max(1, (codes - 1).bit_length())


def squared_distances(vectors_KD: npt.NDArray[np.floating]) -> FloatArray:
    """Squared distances (K, K) of all pairs of codes."""
    vectors = np.asarray(vectors_KD, np.float64)
    norms_K = (vectors**2).sum(axis=1)
    distances_KK: FloatArray = np.maximum(norms_K[:, None] + norms_K - 2 * vectors @ vectors.T, 0.0)
    np.fill_diagonal(distances_KK, 0.0)
    return distances_KK


def assign_labels(
    vectors_KD: npt.NDArray[np.floating], counts_K: npt.NDArray[np.integer] | None = None, *, seed: int = 0
) -> IndexArray:
    """Labels (K,), all different, below 2**ceil(log2 K), so that one flipped bit changes a code little on average.

    Args:
        counts_K: how often each code occurs; None: all the same.
        seed: of the search.

    Raises:
        ConfigError: no codes, more than 4096, or counts that do not fit them.
    """
    codes = len(vectors_KD)
    if not 1 <= codes <= MOST_CODES or (counts_K is not None and len(counts_K) != codes):
        raise ConfigError(
            f"labels for {codes} codes with {codes if counts_K is None else len(counts_K)} counts: expected "
            f"1..{MOST_CODES} and as many"
        )
    weights_K = np.ones(codes) if counts_K is None else np.asarray(counts_K, np.float64)
    weights_K = weights_K / weights_K.sum()
    total = 2 ** label_bits(codes)
    # Labels without a code cost nothing here; `LabelCode` shows a neighbour of theirs.
    costs_LL = np.zeros((total, total))
    costs_LL[:codes, :codes] = (weights_K[:, None] + weights_K) * squared_distances(vectors_KD)
    return np.argsort(_anneal(costs_LL, numpy_generator(seed, "labels")))[:codes]


def _anneal(costs_LL: FloatArray, generator: np.random.Generator) -> IndexArray:
    """Which code has each label (L,): the sum of the costs of labels that differ in one bit is made small."""
    total = len(costs_LL)
    neighbours_LB = np.arange(total)[:, None] ^ (1 << np.arange(label_bits(total)))
    code_of_L = generator.permutation(total)
    proposals = PROPOSALS_PER_CODE * total
    pairs = generator.integers(total, size=(proposals, 2))
    thresholds = -np.log(1 - generator.random(proposals))
    first = float(costs_LL[costs_LL > 0].mean()) if (costs_LL > 0).any() else 1.0
    temperatures = first * _COOLING ** (np.arange(proposals) / proposals)
    for (one, other), limit in zip(pairs.tolist(), (thresholds * temperatures).tolist(), strict=True):
        a, b = code_of_L[one], code_of_L[other]
        around_one, around_other = code_of_L[neighbours_LB[one]], code_of_L[neighbours_LB[other]]
        gain = costs_LL[a] - costs_LL[b]
        change = gain[around_other].sum() - gain[around_one].sum()
        # An edge between the two is counted as if each met itself: put it right.
        if (one ^ other).bit_count() == 1:
            change += 2 * costs_LL[a, b]
        if change < limit:
            code_of_L[one], code_of_L[other] = b, a
    return code_of_L


class LabelCode:
    """Indices to bits and back; both ends need the same labels.

    Args:
        labels_K: of every code, as `assign_labels` finds them; `np.arange(K)` is the natural order.

    Raises:
        ConfigError: labels that are not different or need more bits than ceil(log2 K).
    """

    def __init__(self, labels_K: npt.NDArray[np.integer]) -> None:
        self.labels_K: IndexArray = np.asarray(labels_K, np.int64)
        codes = len(self.labels_K)
        self.bits = label_bits(codes)
        total = 2**self.bits
        fits = codes > 0 and 0 <= self.labels_K.min() <= self.labels_K.max() < total <= 2**_LABEL_BITS
        if not fits or len(np.unique(self.labels_K)) < codes:
            raise ConfigError(f"labels of {codes} codes: expected different ones in 0..{total - 1}, at most 65536")
        self.code_of_L = np.full(total, -1, np.int64)
        self.code_of_L[self.labels_K] = np.arange(codes)
        # A label that no code has shows the code of the nearest label that has one; the smallest of equals.
        for label in np.flatnonzero(self.code_of_L < 0):
            self.code_of_L[label] = np.lexsort((self.labels_K, _ones(self.labels_K ^ label)))[0]

    def n_bytes(self, shape_hw: tuple[int, int]) -> int:
        """Bytes of a grid."""
        return -(-shape_hw[0] * shape_hw[1] * self.bits // 8)

    def pack(self, indices_hw: IndexArray) -> bytes:
        """The labels in raster order, most significant bit first, zeros at the end.

        Raises:
            BitstreamError: an index that no code has.
        """
        if indices_hw.size and not 0 <= indices_hw.min() <= indices_hw.max() < len(self.labels_K):
            raise BitstreamError(f"indices outside [0, {len(self.labels_K)}): the labels are for another codebook")
        shifts = np.arange(self.bits)[::-1]
        bits = self.labels_K[indices_hw.reshape(-1)][:, None] >> shifts & 1
        return np.packbits(bits.astype(np.uint8)).tobytes()

    def unpack(self, data: bytes, shape_hw: tuple[int, int]) -> IndexArray:
        """Indices (h, w); any bytes of the right number are some.

        Raises:
            BitstreamError: another number of bytes than the grid takes.
        """
        count = shape_hw[0] * shape_hw[1]
        if len(data) != self.n_bytes(shape_hw):
            raise BitstreamError(f"{len(data)} bytes, a grid of {shape_hw} takes {self.n_bytes(shape_hw)}")
        bits = np.unpackbits(np.frombuffer(data, np.uint8))[: count * self.bits].reshape(count, self.bits)
        labels_N = bits.astype(np.int64) @ (1 << np.arange(self.bits)[::-1])
        indices_hw: IndexArray = self.code_of_L[labels_N].reshape(shape_hw)
        return indices_hw

    def distortion(self, vectors_KD: npt.NDArray[np.floating], counts_K: npt.NDArray[np.integer], p: float) -> float:
        """Expected squared distance of the shown code from the sent one, each bit being flipped with probability p."""
        total = 2**self.bits
        flipped_L = _ones(np.arange(total))
        chance_L = p**flipped_L * (1 - p) ** (self.bits - flipped_L)
        shown_KL = self.code_of_L[self.labels_K[:, None] ^ np.arange(total)]
        distances_KK = squared_distances(vectors_KD)
        each_K = (np.take_along_axis(distances_KK, shown_KL, axis=1) * chance_L).sum(axis=1)
        return float((each_K * counts_K).sum() / counts_K.sum())

    def save(self, path: Path) -> None:
        """Write the labels as a NumPy file; `WriteError` where it cannot be written."""
        buffer = io.BytesIO()
        np.save(buffer, self.labels_K.astype(np.uint16), allow_pickle=False)
        write_atomically(path, buffer.getvalue())

    @classmethod
    def load(cls, path: Path) -> LabelCode:
        """Read what `save` wrote.

        Raises:
            ConfigError: the file is missing or holds no labels.
        """
        try:
            return cls(np.load(path, allow_pickle=False))
        except (OSError, ValueError, TypeError) as error:
            raise ConfigError(f"cannot read labels from {path}: {error}") from None


def _ones(values: IndexArray) -> IndexArray:
    """How many bits are 1."""
    bits = values[..., None] >> np.arange(_LABEL_BITS) & 1
    ones: IndexArray = bits.sum(axis=-1)
    return ones
