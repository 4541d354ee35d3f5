"""Two layers: what a stream holds for each purpose, what is shown where slices are missing, the test of the scene."""

from __future__ import annotations

from functools import cache

import numpy as np
import pytest
import torch

from gosvae.bitstream import Header, pack_slices, salvage, unpack_slices
from gosvae.codecs.allocation import LEAST_KIB, TASK_ONLY_KIB, layers_within, rate_of_level
from gosvae.codecs.detail import REDUCTIONS, DetailSearch, decode_detail, encode_detail, is_difference, structure
from gosvae.codecs.fusion import Fusion
from gosvae.codecs.layered import LayeredCodec, LayeredOptions, layers_of
from gosvae.codecs.scene import SceneStatistics, channel_means, fitted, reduced
from gosvae.codecs.slices import Purpose
from gosvae.codecs.truncation import truncate
from gosvae.codecs.variable import VariableRateCodec, VariableRateOptions
from gosvae.entropy.ids import EntropyModelId
from gosvae.errors import BitstreamError, ConfigError, ForeignStreamError
from gosvae.metrics import mean_squared_error
from gosvae.tensors import ImageArray
from tiny import streets, variable_checkpoint


@cache
def task(slices: int = 1, seed: int = 0) -> VariableRateCodec:
    options = VariableRateOptions(slices=slices, layout="interleaved" if slices > 1 else "bands")
    return VariableRateCodec(variable_checkpoint(seed=seed), options=options)


def layered(purpose: Purpose = "both", slices: int = 1, **more: object) -> LayeredCodec:
    options = LayeredOptions(purpose=purpose, effort=1, **more)  # type: ignore[arg-type]
    return LayeredCodec(task(slices), options=options)


def picture(number: int = 0) -> ImageArray:
    return streets()[number].image_uint8_HW3


def test_purposes_without_a_rate() -> None:
    image = picture()
    machine, people, both = (layered(purpose).compress(image) for purpose in ("machine", "people", "both"))
    assert machine == task().compress(image)
    assert layers_of(machine).detail_bytes == 0
    assert unpack_slices(people).header.entropy_model_id == EntropyModelId.AV1_STILL
    assert layers_of(people).task_bytes == 0
    assert layers_of(people).detail_bytes == layers_of(both).detail_bytes > 0
    assert len(people) == layers_of(people).detail_bytes + 13  # header and checksum of an image of up to 128 pixels
    for data in (machine, people, both):
        assert layered().decompress(data).shape == image.shape
    np.testing.assert_array_equal(layered().decompress(people), layered().decompress(both))
    assert mean_squared_error(image, layered().decompress(people)) < mean_squared_error(
        image, task().decompress(machine)
    )


def test_truncation_leaves_the_stream_of_the_task_layer() -> None:
    codec, image = layered(slices=2), picture()
    data = codec.compress(image)
    alone = pack_slices(unpack_slices(data).header, unpack_slices(data).task.slices, "interleaved")
    assert truncate(data, (len(data) - 1) / 1024) == alone
    np.testing.assert_array_equal(codec.decompress(alone), task(2).decompress(data))
    first = codec.decompress_damaged(truncate(data, (len(alone) - 1) / 1024))
    assert first.damaged == (1,)
    assert 0.2 < first.concealed_HW.mean() < 0.8


def test_the_best_picture_of_what_is_left() -> None:
    codec, data = layered(slices=2), layered(slices=2).compress(picture())
    stream = unpack_slices(data)
    for lost, of_detail, concealed in (
        ({0, 1}, True, False),
        ({1}, True, False),
        ({2}, False, False),
        ({0, 2}, False, True),
    ):
        left = [None if n in lost else payload for n, payload in enumerate(stream.slices)]
        shown = codec.decompress_damaged(pack_slices(stream.header, left, stream.layout, 1))
        assert shown.damaged == tuple(sorted(lost))
        assert bool(shown.concealed_HW.any()) == concealed
        assert np.array_equal(shown.image_uint8_HW3, codec.decompress(data)) == of_detail
    for cut in range(0, len(data), 7):
        try:
            shown = codec.decompress_damaged(data[:cut])
        except BitstreamError:
            continue
        assert shown.damaged


def test_a_later_picture_is_better() -> None:
    image, codec = picture(), layered()
    coarse, fine = (encode_detail(image, reduction, 60, speed=9) for reduction in (3, 1))
    base = unpack_slices(task().compress(image))
    for data in (
        pack_slices(base.header, [*base.slices, coarse, fine], "bands", 2),
        pack_slices(Header(codec.fingerprint, 64, 96, EntropyModelId.AV1_STILL), [coarse, fine]),
    ):
        np.testing.assert_array_equal(codec.decompress(data), decode_detail(fine, 64, 96).image_uint8_HW3)
        shorter = truncate(data, (len(data) - 1) / 1024)
        np.testing.assert_array_equal(codec.decompress(shorter), decode_detail(coarse, 64, 96).image_uint8_HW3)


@pytest.mark.parametrize("purpose", ["machine", "people", "both"])
def test_every_slice_of_the_detail_layer_makes_the_picture_better(purpose: Purpose) -> None:
    image, budget = picture(), 6000
    codec = layered(purpose, detail_slices=3)
    data = codec.compress_to_budget(image, budget)
    details = [payload for payload in unpack_slices(data).slices if payload is not None][-3:]
    assert [is_difference(payload) for payload in details] == [False, True, True]
    assert 0.8 * budget < len(data) <= budget
    errors = [mean_squared_error(image, codec.decompress(data))]
    for _ in range(2):
        data = truncate(data, (len(data) - 1) / 1024)
        errors.append(mean_squared_error(image, codec.decompress(data)))
    assert errors == sorted(errors)
    assert len(data) < 0.4 * budget


def test_a_difference_needs_the_picture_before() -> None:
    codec = layered("people", detail_slices=3, level=120)
    data = codec.compress(picture())
    stream = unpack_slices(data)
    first, second, third = stream.slices
    for left, seen in (([first, second, None], 2), ([first, None, third], 1), ([first, None, None], 1)):
        shown = codec.decompress_damaged(pack_slices(stream.header, left))
        expected = codec.decompress(pack_slices(stream.header, stream.slices[:seen]))
        np.testing.assert_array_equal(shown.image_uint8_HW3, expected)
    for header, slices in ((stream.header, [None, second, third]), (stream.header, [second, third])):
        with pytest.raises(BitstreamError, match="none of the pictures"):
            codec.decompress_damaged(pack_slices(header, slices))
    assert second is not None
    with pytest.raises(BitstreamError, match="more than 8 slices"):
        codec.decompress(pack_slices(stream.header, [first, *[second] * 8]))
    with pytest.raises(BitstreamError, match="the picture that a difference belongs to is missing"):
        decode_detail(second, *picture().shape[:2])
    with pytest.raises(ConfigError, match=r"expected 1\.\.8") as caught:
        LayeredOptions(detail_slices=9)
    assert caught.value.argument == "detail_slices"


def test_the_picture_for_machines_has_full_chroma_and_no_filters() -> None:
    image, budget = picture(), 5000
    machine, people = (layered(purpose).compress_to_budget(image, budget) for purpose in ("machine", "people"))
    for data, form, cdef in ((machine, 129, False), (people, 0, True)):
        (payload,) = unpack_slices(data).payloads
        assert payload[1] // 128 == bool(form)
        assert payload[2] in (1, 5, 9) or not form
        assert bool(payload[0] & 2) == cdef
    assert layers_of(machine).task_bytes == 0


def test_streams_of_others_and_damaged_frames_are_refused() -> None:
    data = layered("people").compress(picture())
    other = LayeredCodec(task(seed=1))
    with pytest.raises(ForeignStreamError):
        other.decompress(data)
    with pytest.raises(ForeignStreamError):
        other.decompress(layered().compress(picture()))
    stream = unpack_slices(data)
    (payload,) = stream.payloads
    heads = (b"\0", b"\x65", b"\x80\x01", b"\xbc\x00", b"\xbc\x0d", b"\xbc\x02", b"\xe5\x01")
    for bad in (b"", payload[:2], payload[:40], *(payload[:1] + head + payload[2:] for head in heads)):
        for header, slices, count in ((stream.header, [bad], 0), (stream.header, [bad, bad], 0)):
            with pytest.raises(BitstreamError) as caught:
                layered().decompress(pack_slices(header, slices, "bands", count))
            assert "\n" not in str(caught.value)


def test_a_picture_alone_has_one_layer() -> None:
    stream = unpack_slices(layered("people").compress(picture()))
    two = [*stream.payloads, *stream.payloads]
    codec = layered()
    codec.decompress(pack_slices(stream.header, two))
    for data in (pack_slices(stream.header, two, "interleaved"), pack_slices(stream.header, two, detail_count=1)):
        with pytest.raises(BitstreamError, match="the header of a picture alone announces a task layer"):
            codec.decompress(data)


def test_budgets_are_filled() -> None:
    image = picture(1)
    for purpose in ("people", "both"):
        codec = layered(purpose)
        sizes = [len(codec.compress_to_budget(image, budget)) for budget in (700, 1200, 2400)]
        assert all(0.8 * budget <= size <= budget for size, budget in zip(sizes, (700, 1200, 2400), strict=True))
        errors = [
            mean_squared_error(image, codec.decompress(codec.compress_to_budget(image, budget)))
            for budget in (700, 1200, 2400)
        ]
        assert errors == sorted(errors, reverse=True)


def test_a_budget_in_the_options_and_levels() -> None:
    image = picture()
    assert len(layered("people", budget_bytes=900).compress(image)) <= 900
    sizes = [len(layered("machine", level=level).compress(image)) for level in (0, 60, 127, 128, 200, 255)]
    assert sizes[3:] == sorted(sizes[3:])
    assert layered("machine", level=20).compress(image) == task().compress_at(image, 20)
    rates = [rate_of_level(level, "machine") for level in range(256)]
    assert [rate.task_level for rate in rates[:128]] == list(range(128))
    qualities = [rate.quality or 0 for rate in rates]
    assert qualities == sorted(qualities)
    for purpose in ("people", "both"):
        every = [rate_of_level(level, purpose).quality or 0 for level in range(256)]
        assert every == sorted(every)
        assert every[0] == 1


def test_layers_within_a_budget() -> None:
    pixels = 256 * 512
    cases: tuple[tuple[Purpose, float, str], ...] = (
        ("machine", TASK_ONLY_KIB - 0.01, "task"),
        ("machine", TASK_ONLY_KIB + 0.01, "detail"),
        ("people", 0.1, "detail"),
        ("both", LEAST_KIB - 0.01, "task"),
        ("both", LEAST_KIB + 0.01, "both"),
        ("both", 100, "both"),
    )
    for purpose, kib, expected in cases:
        assert layers_within(int(1024 * kib), pixels, purpose) == expected
        assert layers_within(int(2048 * kib), 2 * pixels, purpose) == expected


class Mean(Fusion):
    """A fusion that needs both pictures."""

    needs_base = True

    def __call__(self, base_uint8_HW3: ImageArray | None, detail: object) -> ImageArray:
        shown: ImageArray = detail.image_uint8_HW3  # type: ignore[attr-defined]
        return shown if base_uint8_HW3 is None else base_uint8_HW3 // 2 + shown // 2


def test_a_fusion_sees_both_pictures() -> None:
    image = picture()
    codec = LayeredCodec(task(), options=LayeredOptions(purpose="both", effort=1), fusion=Mean())
    data = codec.compress(image)
    assert data == layered().compress(image)
    base, detail = task().decompress(data), layered().decompress(data)
    np.testing.assert_array_equal(codec.decompress(data), base // 2 + detail // 2)
    stream = salvage(data)
    without_base = pack_slices(stream.header, [None, *stream.detail], "bands", 1)
    np.testing.assert_array_equal(codec.decompress_damaged(without_base).image_uint8_HW3, detail)


def test_the_scene_decides() -> None:
    images = [picture(n) for n in range(4)]
    means_ND = torch.stack([channel_means(task(), task().analyse(image)) for image in images])
    alike = fitted(means_ND, torch.ones(4), likely=3.0, possible=9.0)
    strange = SceneStatistics(
        means=tuple(mean + 5 for mean in alike.means), variances=(0.01,) * len(alike.means), likely=1.0, possible=2.0
    )
    options = LayeredOptions(effort=1)
    assert LayeredCodec(task(), options=options).purpose_of(images[0]) == "machine"
    assert LayeredCodec(task(), options=options, scene=alike).purpose_of(images[0]) == "machine"
    assert LayeredCodec(task(), options=options, scene=strange).purpose_of(images[0]) == "people"
    doubtful = strange.model_copy(update={"possible": 1e9})
    assert LayeredCodec(task(), options=options, scene=doubtful).purpose_of(images[0]) == "both"
    in_doubt = LayeredCodec(task(), options=options, scene=doubtful)
    for budget in (200, 4000):
        assert in_doubt.compress_to_budget(images[0], budget) == layered("machine").compress_to_budget(
            images[0], budget
        )
    fixed = LayeredCodec(task(), options=LayeredOptions(purpose="machine"), scene=strange)
    assert fixed.purpose_of(images[0]) == "machine"


def test_large_pictures_are_tested_at_the_size_of_the_training() -> None:
    small = np.zeros((500, 1000, 3), np.uint8)
    assert reduced(small) is small
    assert reduced(np.zeros((1024, 2048, 3), np.uint8)).shape == (256, 512, 3)
    assert reduced(np.zeros((1, 600_000, 3), np.uint8)).shape[0] == 1


def test_a_purpose_that_does_not_exist() -> None:
    with pytest.raises(ConfigError, match="expected one of auto, machine, people, both") as caught:
        LayeredOptions(purpose="nobody")  # type: ignore[arg-type]
    assert caught.value.argument == "purpose"


@pytest.mark.parametrize("reduction", REDUCTIONS)
def test_the_search_finds_what_fits(reduction: int) -> None:
    image = picture(2)
    search = DetailSearch(image, speed=10)
    smallest, largest = (len(search.slice_of(reduction, quality)) for quality in (1, 100))
    for budget in (smallest - 1, smallest, 250, 600, 1500, largest):
        found = search.within(reduction, budget, tries=100)
        quick = DetailSearch(image, speed=10).within(reduction, budget, tries=3)
        assert (quick is None) == (found is None) == (budget < smallest)
        assert max(len(found or b""), len(quick or b"")) <= budget
        assert budget > largest or len(found or b"") >= 0.6 * budget or budget < 300


def test_structure_is_one_for_the_same_and_falls_with_blur_and_noise() -> None:
    image = picture(3)
    assert structure(image, image) == pytest.approx(1.0, abs=1e-5)
    fine, coarse = (decode_detail(encode_detail(image, 1, quality, speed=10), 64, 96) for quality in (80, 10))
    assert 1 > structure(image, fine.image_uint8_HW3) > structure(image, coarse.image_uint8_HW3)
    assert structure(image[:1, :3], image[:1, :3]) == pytest.approx(1.0, abs=1e-5)
