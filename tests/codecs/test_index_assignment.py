"""Labels of codes: the search against brute force, what a flipped bit shows, and the benefit at a bit error rate."""

from __future__ import annotations

from itertools import permutations
from pathlib import Path

import numpy as np
import pytest

from gosvae.channels import load_channel
from gosvae.codecs.index_assignment import LabelCode, assign_labels, label_bits, squared_distances
from gosvae.codecs.vq import VqCodec
from gosvae.errors import BitstreamError, ConfigError
from gosvae.seeding import numpy_generator, torch_generator
from tiny import checkpoint, streets


def codebook(codes: int = 64, values: int = 3) -> np.ndarray:
    return numpy_generator(codes, values).normal(size=(codes, values))


def test_the_search_comes_near_the_best_labels_of_a_small_codebook() -> None:
    vectors_KD, counts_K = codebook(6, 2), np.array([5, 1, 1, 9, 2, 3])

    def cost(labels: tuple[int, ...]) -> float:
        """Of all flips of one bit between labels that have a code."""
        distances = squared_distances(vectors_KD)
        return sum(
            counts_K[i] * distances[i, j]
            for i in range(6)
            for j in range(6)
            if (labels[i] ^ labels[j]).bit_count() == 1
        )

    found = assign_labels(vectors_KD, counts_K)
    costs = sorted(map(cost, permutations(range(8), 6)))
    assert costs[0] <= cost(tuple(found.tolist())) < 1.1 * costs[0]
    assert costs[len(costs) // 2] > 1.3 * costs[0], "it is not what any labels reach"


def test_fewer_errors_are_seen_than_with_labels_in_any_order() -> None:
    vectors_KD, counts_K = codebook(), np.ones(64, np.int64)
    found = LabelCode(assign_labels(vectors_KD)).distortion(vectors_KD, counts_K, 1e-3)
    for seed in range(5):
        other = LabelCode(numpy_generator(seed).permutation(64)).distortion(vectors_KD, counts_K, 1e-3)
        assert found < 0.5 * other


def test_a_seed_always_gives_the_same_labels() -> None:
    assert (assign_labels(codebook()) == assign_labels(codebook())).all()
    assert (assign_labels(codebook()) != assign_labels(codebook(), seed=1)).any()


def test_the_expected_distortion_is_what_a_channel_makes() -> None:
    vectors_KD, code = codebook(20), LabelCode(assign_labels(codebook(20)))
    indices_hw = numpy_generator(1).integers(0, 20, (300, 200))
    counts_K = np.bincount(indices_hw.reshape(-1), minlength=20)
    (received,) = load_channel("binary-symmetric p=0.02")([code.pack(indices_hw)], torch_generator(2)).arrived
    shown_hw = code.unpack(received, (300, 200))
    measured = ((vectors_KD[shown_hw] - vectors_KD[indices_hw]) ** 2).sum(axis=-1).mean()
    assert measured == pytest.approx(code.distortion(vectors_KD, counts_K, 0.02), rel=0.05)
    assert code.distortion(vectors_KD, counts_K, 0.0) == 0.0


@pytest.mark.parametrize("codes", [1, 2, 3, 16, 20, 512])
def test_indices_come_back_and_take_their_bits(codes: int) -> None:
    code = LabelCode(numpy_generator(codes).permutation(codes))
    indices_hw = numpy_generator(codes).integers(0, codes, (5, 7))
    data = code.pack(indices_hw)
    assert len(data) == code.n_bytes((5, 7)) == -(-35 * label_bits(codes) // 8)
    np.testing.assert_array_equal(code.unpack(data, (5, 7)), indices_hw)


def test_the_bits_of_labels_stand_in_raster_order() -> None:
    code = LabelCode(np.array([2, 0, 3, 1]))
    assert code.pack(np.array([[0, 1], [2, 3], [0, 0]])) == bytes([0b10001101, 0b10100000])


def test_every_string_of_bits_means_something() -> None:
    code = LabelCode(np.array([7, 1, 2, 4, 0]))
    assert code.code_of_L.tolist() == [4, 1, 2, 1, 3, 1, 2, 0], "3, 5 and 6 show the smallest of the nearest labels"
    noise = numpy_generator(3).bytes(code.n_bytes((9, 11)))
    shown_hw = code.unpack(noise, (9, 11))
    assert (shown_hw.min(), shown_hw.max()) == (0, 4)


def test_a_picture_survives_bit_errors() -> None:
    codec = VqCodec(checkpoint())
    image = streets()[0].image_uint8_HW3
    vectors_KD = codec.codebook()
    assert vectors_KD.shape == (16, 4)
    code, indices_hw = LabelCode(assign_labels(vectors_KD)), codec.indices(image)
    (received,) = load_channel("binary-symmetric p=0.005")([code.pack(indices_hw)], torch_generator(1)).arrived
    shown_hw = code.unpack(received, (16, 24))
    assert 0 < (shown_hw != indices_hw).sum() < 25
    assert codec.reconstruct(shown_hw, 64, 96).shape == image.shape


def test_labels_are_saved_for_the_other_end(tmp_path: Path) -> None:
    code = LabelCode(assign_labels(codebook(20)))
    code.save(tmp_path / "labels.npy")
    np.testing.assert_array_equal(LabelCode.load(tmp_path / "labels.npy").labels_K, code.labels_K)
    (tmp_path / "noise.npy").write_bytes(b"noise")
    for name in ("noise.npy", "nothing.npy"):
        with pytest.raises(ConfigError, match="cannot read labels"):
            LabelCode.load(tmp_path / name)


def test_what_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"expected 1\.\.4096"):
        assign_labels(np.zeros((5000, 2)))
    with pytest.raises(ConfigError, match="labels for 4 codes with 3 counts"):
        assign_labels(np.zeros((4, 2)), np.ones(3, np.int64))
    for labels in ([], [0, 0], [0, 2], [-1, 0]):
        with pytest.raises(ConfigError, match="expected different ones"):
            LabelCode(np.array(labels, np.int64))
    code = LabelCode(np.arange(4))
    with pytest.raises(BitstreamError, match="for another codebook"):
        code.pack(np.array([[4]]))
    with pytest.raises(BitstreamError, match=r"a grid of \(2, 3\) takes 2"):
        code.unpack(b"abc", (2, 3))


def test_equal_codes_need_no_search() -> None:
    assert sorted(assign_labels(np.zeros((4, 2))).tolist()) == [0, 1, 2, 3]
    assert assign_labels(np.zeros((1, 2))).tolist() in ([0], [1])
