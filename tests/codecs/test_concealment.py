"""Lost indices: guesses of a model, the nearest known, which pixels are marked, and nothing where nothing is lost."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import numpy.typing as npt
import pytest
import torch

from gosvae.bitstream import pack_slices, unpack_slices
from gosvae.codecs.base import LossTolerantCodec
from gosvae.codecs.checkpoint import CodecCheckpoint
from gosvae.codecs.concealment import MOST_RINGS, conceal_indices, concealed_pixels, nearest_known
from gosvae.codecs.slices import grid_parts
from gosvae.codecs.vq import VqCodec, VqOptions
from gosvae.entropy.context import ContextConfig, ContextModel, ContextNetwork
from gosvae.entropy.digits import Digits, positional
from gosvae.errors import BitstreamError, ForeignStreamError
from tiny import checkpoint, model_config, streets

INTERLEAVED = VqOptions(slices=8, layout="interleaved")


def context_model(values: tuple[int, ...] = (16,), codebook_size: int = 16) -> ContextModel:
    """With random weights."""
    config = ContextConfig(
        codebook_size=codebook_size, values=values, embedding_width=8, width=32, taps=(4, 6, 8), blocks=0
    )
    torch.manual_seed(0)
    network = ContextNetwork(config)
    return ContextModel(config, network.freeze())


class Majority(ContextModel):
    """In place of a trained model: the most frequent of the four known neighbours, the smallest of equals."""

    def __init__(self) -> None:
        self.asked: list[int] = []

    def most_probable(
        self, indices_hw: npt.NDArray[np.int64], known_hw: npt.NDArray[np.bool_], where: npt.NDArray[np.int64]
    ) -> npt.NDArray[np.int64]:
        self.asked.append(len(where))
        height, width = indices_hw.shape
        result = []
        for y, x in zip(*np.divmod(where, width), strict=True):
            beside = [
                indices_hw[y + dy, x + dx]
                for dy, dx in ((0, 1), (0, -1), (1, 0), (-1, 0))
                if 0 <= y + dy < height and 0 <= x + dx < width and known_hw[y + dy, x + dx]
            ]
            result.append(np.bincount(beside).argmax())
        return np.array(result)


def stripes(known_hw: npt.NDArray[np.bool_]) -> npt.NDArray[np.int64]:
    """Columns of one index each, of which some positions are lost."""
    indices_hw = np.tile(np.arange(known_hw.shape[1]) // 4, (known_hw.shape[0], 1))
    return np.where(known_hw, indices_hw, -1)


def test_what_is_known_stays_and_holes_are_filled_from_their_edges() -> None:
    known_hw = np.ones((20, 16), bool)
    known_hw[3:8] = False
    model = Majority()
    filled_hw = conceal_indices(stripes(known_hw), known_hw, model)
    np.testing.assert_array_equal(filled_hw, np.tile(np.arange(16) // 4, (20, 1)))
    assert model.asked == [32, 32, 16, 80], "two rows, two rows, one row, and once more all of them"


def test_deep_holes_have_the_nearest_index_inside() -> None:
    known_hw = np.zeros((100, 8), bool)
    known_hw[0] = True
    model = Majority()
    filled_hw = conceal_indices(stripes(known_hw), known_hw, model)
    np.testing.assert_array_equal(filled_hw, np.tile(np.arange(8) // 4, (100, 1)))
    assert model.asked == [8] * MOST_RINGS + [99 * 8]


def test_without_a_context_model_the_nearest_known_index_counts() -> None:
    known_hw = np.zeros((5, 9), bool)
    known_hw[2, 1] = known_hw[4, 7] = True
    indices_hw = np.where(known_hw, np.arange(45).reshape(5, 9), 0)
    filled_hw = conceal_indices(indices_hw, known_hw, None)
    ys, xs = np.mgrid[:5, :9]
    near, far = abs(ys - 2) + abs(xs - 1), abs(ys - 4) + abs(xs - 7)
    assert (filled_hw[near < far] == 2 * 9 + 1).all()
    assert (filled_hw[near > far] == 4 * 9 + 7).all()
    whole = np.arange(12).reshape(3, 4)
    np.testing.assert_array_equal(nearest_known(whole, np.ones((3, 4), bool)), whole)


def with_context(
    made: CodecCheckpoint, values: tuple[int, ...], table: npt.NDArray[np.uint16] | None
) -> CodecCheckpoint:
    config = ContextConfig(codebook_size=16, values=values, embedding_width=4, width=16, taps=(4, 6, 8))
    torch.manual_seed(1)
    tensors = ContextNetwork(config).freeze()
    if table is not None:
        tensors["digits_KD"] = torch.from_numpy(table).to(torch.uint16)
    return replace(made, card=made.card.model_copy(update={"context": config}), context=tensors)


def test_a_context_model_says_what_its_own_distributions_say() -> None:
    """A position of the last pass has the most probable index of the very table that would code it."""
    model = context_model()
    rng = np.random.default_rng(0)
    indices_hw = rng.integers(0, 16, (16, 24))
    last = model._passes[-1][-1].positions((16, 24))
    batches = list(_coding_batches(model, indices_hw))
    where, counts_NK = batches[-1]
    np.testing.assert_array_equal(where, last)
    known_hw = np.ones((16, 24), bool)
    known_hw.reshape(-1)[last] = False
    lost_hw = np.where(known_hw, indices_hw, 3)
    np.testing.assert_array_equal(model.most_probable(lost_hw, known_hw, last), counts_NK.argmax(axis=1))


def _coding_batches(
    model: ContextModel, indices_hw: npt.NDArray[np.int64]
) -> list[tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]]:
    coding, result, symbols = model.batches(indices_hw.shape), [], None
    while True:
        try:
            batch = next(coding) if symbols is None else coding.send(symbols)
        except StopIteration:
            return result
        result.append((np.asarray(batch.where), batch.tables.counts_NK))  # type: ignore[union-attr]
        symbols = batch.symbols(indices_hw.reshape(-1))


@pytest.mark.parametrize("values", [(16,), (4, 4), (5, 4)])
def test_every_guess_is_an_index(values: tuple[int, ...]) -> None:
    """Of the 20 pairs of digits of the last one 4 are no index."""
    table = None if values == (16,) else positional(16, values)
    model = with_context(checkpoint(), values, table)
    context = ContextModel(model.card.context, model.context)  # type: ignore[union-attr, arg-type]
    rng = np.random.default_rng(1)
    indices_hw, known_hw = rng.integers(0, 16, (12, 12)), rng.random((12, 12)) < 0.5
    filled_hw = conceal_indices(np.where(known_hw, indices_hw, -1), known_hw, context)
    assert filled_hw.min() >= 0
    assert filled_hw.max() < 16
    np.testing.assert_array_equal(filled_hw[known_hw], indices_hw[known_hw])


def test_which_values_of_the_last_digit_make_an_index() -> None:
    digits = Digits(positional(7, (3, 3)), (3, 3))
    first_ND = np.array([[0, 0], [1, 2], [2, 1]])
    expected = [[True, True, True], [True, True, False], [True, True, False]]
    assert digits.allowed(first_ND).tolist() == expected


def test_pixels_are_marked_by_their_latent_position() -> None:
    known_hw = np.array([[True, False], [True, True]])
    mask_HW = concealed_pixels(known_hw, 4, 7, 6)
    assert mask_HW.shape == (7, 6)
    assert mask_HW.sum() == 8
    assert mask_HW[:4, 4:].all()


@pytest.mark.parametrize("context", [False, True])
@pytest.mark.parametrize("layout", ["bands", "interleaved"])
def test_a_codec_conceals_lost_slices(context: bool, layout: str) -> None:
    made = with_context(checkpoint(), (16,), None) if context else checkpoint()
    codec = VqCodec(made, options=VqOptions(slices=8, layout=layout))  # type: ignore[arg-type]
    assert isinstance(codec, LossTolerantCodec)
    image = streets()[0].image_uint8_HW3[:61, :93]
    data = codec.compress(image)
    whole = codec.decompress_damaged(data)
    np.testing.assert_array_equal(whole.image_uint8_HW3, codec.decompress(data))
    assert not whole.concealed_HW.any()
    assert whole.damaged == ()
    stream = unpack_slices(data)
    slices = [None if n in (2, 5) else payload for n, payload in enumerate(stream.slices)]
    damaged = codec.decompress_damaged(pack_slices(stream.header, slices, stream.layout))
    assert damaged.damaged == (2, 5)
    assert damaged.image_uint8_HW3.shape == image.shape
    assert damaged.concealed_HW.shape == image.shape[:2]
    lost_hw = np.zeros((16, 24), bool)
    for n in (2, 5):
        lost_hw[grid_parts((16, 24), 8, stream.layout)[n]] = True
    np.testing.assert_array_equal(damaged.concealed_HW, lost_hw.repeat(4, 0).repeat(4, 1)[:61, :93])


def test_far_from_a_hole_the_picture_is_the_same() -> None:
    codec = VqCodec(checkpoint(), options=VqOptions(slices=4))
    data = codec.compress(streets()[0].image_uint8_HW3)
    stream = unpack_slices(data)
    cut = pack_slices(stream.header, [None, *stream.slices[1:]], stream.layout)
    np.testing.assert_array_equal(codec.decompress_damaged(cut).image_uint8_HW3[40:], codec.decompress(data)[40:])


def test_streams_without_an_intact_slice_or_of_another_codec_are_refused() -> None:
    codec = VqCodec(checkpoint(), options=INTERLEAVED)
    data = codec.compress(streets()[0].image_uint8_HW3)
    with pytest.raises(ForeignStreamError, match="another codec"):
        VqCodec(checkpoint(model_config("fsq"))).decompress_damaged(data)
    header_only = data[: len(data) - sum(map(len, unpack_slices(data).payloads))]
    with pytest.raises(BitstreamError, match="none of the 8 slices is"):
        codec.decompress_damaged(header_only)
