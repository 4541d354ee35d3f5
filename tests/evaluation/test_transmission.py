"""Streams over a link: what is on the air, what is shown of what arrives, budgets, and the columns of an evaluation."""

from __future__ import annotations

import struct

import numpy as np
import pytest
from PIL import ImageFile
from small_world import BlockCodec, MapCodec, RawCodec, Scenes, run

from gosvae.channels import load_channel
from gosvae.codecs.classical import Avif, Jpeg, JpegHalf
from gosvae.codecs.vq import VqCodec, VqOptions
from gosvae.errors import ConfigError
from gosvae.evaluation import CodecEntry, load_evaluation, save_evaluation
from gosvae.evaluation.tables import markdown_table
from gosvae.evaluation.transmission import GREY, LinkSettings, datagrams_of, raw_stream, receive, send, transmit
from gosvae.packets import Reassembler, read_packet, read_repair
from gosvae.seeding import torch_generator
from gosvae.tensors import ImageArray
from tiny import checkpoint, streets

NOTHING_LOST = load_channel("packet-loss p=0")
ALL_LOST = load_channel("packet-loss p=1")


def settings(channel: str = "packet-loss p=0", **more: object) -> LinkSettings:
    return LinkSettings(load_channel(channel), **more)  # type: ignore[arg-type]


def tolerant(slices: int = 8) -> VqCodec:
    return VqCodec(checkpoint(), options=VqOptions(slices=slices, layout="interleaved"))


def photo() -> ImageArray:
    return streets()[0].image_uint8_HW3


def arriving(datagrams: tuple[bytes, ...], numbers: list[int]) -> tuple[bytes, ...]:
    return tuple(datagrams[n] for n in numbers)


def sent_over(codec: Jpeg | VqCodec, numbers: list[int], **more: object) -> object:
    """What is received where only these datagrams arrive."""
    image = photo()
    sent = send(codec, image, settings(**more))
    frame = transmit(arriving(sent.datagrams, numbers), NOTHING_LOST, torch_generator(0))
    return receive(codec, frame, (image.shape[0], image.shape[1]))


def test_slices_of_a_tolerant_codec_go_into_packets_of_their_own() -> None:
    codec = tolerant()
    sent = send(codec, photo(), settings())
    assert [read_packet(data).parts[0].number for data in sent.datagrams] == list(range(8))
    assert sent.air_bytes == codec.payload_bytes(sent.data) + 8 * 32
    halved = datagrams_of(codec, sent.data, (64, 96), settings(packets=4))
    assert [len(read_packet(data).parts) for data in halved] == [2] * 4


def test_files_of_other_codecs_go_into_equally_many_packets() -> None:
    sent = send(Jpeg(50), photo(), settings(overhead=0.25))
    assert sent.data == Jpeg(50).compress(photo())
    packets = [read_packet(data) for data in sent.datagrams[:8]]
    assert b"".join(packet.parts[0].data for packet in packets) == sent.data
    lengths = [len(packet.parts[0].data) for packet in packets]
    assert max(lengths) - min(lengths) <= 1
    assert [read_repair(data).group.count for data in sent.datagrams[8:]] == [8, 8]
    assert sent.air_bytes == sum(map(len, sent.datagrams))


def test_a_file_of_a_few_bytes_and_one_of_many() -> None:
    frames = Reassembler().add(datagrams_of(RawCodec(), b"ab", (1, 1), settings(packets=1))[0])
    assert len(frames) == 1
    assert len(datagrams_of(RawCodec(), b"ab", (1, 1), settings())) == 2
    long = datagrams_of(RawCodec(), bytes(50_000), (1, 1), settings(overhead=0.1))
    assert max(map(len, long)) <= 1200
    assert len(long) > 50
    assert raw_stream(b"ab", (1, 1), 8) == raw_stream(b"ab", (1, 1), 2)


@pytest.mark.parametrize("codec", [Jpeg(50), tolerant()])
def test_what_arrives_whole_is_the_codecs_picture(codec: Jpeg | VqCodec) -> None:
    received = sent_over(codec, list(range(8)))
    np.testing.assert_array_equal(received.image_uint8_HW3, codec.decompress(codec.compress(photo())))
    assert (received.outcome, received.concealed_share) == ("whole", 0.0)
    repaired = sent_over(codec, [9, 2, 3, 4, 5, 6, 7, 8], overhead=0.25)
    np.testing.assert_array_equal(repaired.image_uint8_HW3, received.image_uint8_HW3)


def test_lost_slices_are_concealed() -> None:
    received = sent_over(tolerant(), [0, 1, 2, 4, 5, 6, 7])
    assert (received.outcome, received.concealed_share) == ("concealed", 1 / 8)


def test_a_jpeg_shows_what_stands_before_the_first_gap() -> None:
    received = sent_over(Jpeg(50), [0, 1, 2, 3, 4, 5, 7])
    assert received.outcome == "truncated"
    whole = Jpeg(50).decompress(Jpeg(50).compress(photo()))
    assert received.image_uint8_HW3.shape == whole.shape
    assert (received.image_uint8_HW3[:16] == whole[:16]).all()
    assert (received.image_uint8_HW3 != whole).any()
    assert ImageFile.LOAD_TRUNCATED_IMAGES is False
    assert sent_over(JpegHalf(50), [0, 1, 2, 3, 4, 5, 7]).outcome == "truncated"


@pytest.mark.parametrize(
    ("codec", "numbers"), [(Jpeg(50), [1, 2, 3, 4, 5, 6, 7]), (Avif(30), [0, 1, 2, 3, 4, 5, 6]), (tolerant(), [])]
)
def test_what_cannot_be_decoded_is_mid_grey(codec: Jpeg | VqCodec, numbers: list[int]) -> None:
    received = sent_over(codec, numbers)
    assert (received.outcome, received.concealed_share) == ("lost", 1.0)
    np.testing.assert_array_equal(received.image_uint8_HW3, np.full((64, 96, 3), GREY, np.uint8))


@pytest.mark.parametrize("overhead", [0.0, 0.25])
def test_budgets_are_on_the_air(overhead: float) -> None:
    link = settings(overhead=overhead)
    sent = send(Jpeg(), photo(), link, 1600)
    assert not sent.over_budget
    assert sent.air_bytes <= 1600
    qualities = [send(Jpeg(quality), photo(), link).air_bytes for quality in range(1, 96)]
    assert sent.air_bytes == max(taken for taken in qualities if taken <= 1600), "no higher quality fits"


def test_a_budget_that_cannot_be_met() -> None:
    sent = send(Jpeg(), photo(), settings(), 300)
    assert sent.over_budget
    assert sent.data == Jpeg().compress_smallest(photo())
    tight = send(Jpeg(), photo(), settings(), len(sent.data) + 10)
    assert tight.over_budget, "the file fits, but not its packets"


@pytest.mark.parametrize("arguments", [{"packets": 0}, {"packets": 257}, {"overhead": -1.0}])
def test_impossible_settings(arguments: dict[str, float]) -> None:
    with pytest.raises(ConfigError, match=r"expected 1\.\.256"):
        settings(**arguments)


def entries() -> list[CodecEntry]:
    return [
        CodecEntry("Block", BlockCodec(2)),
        CodecEntry("Matched", BlockCodec(1), match="Block"),
        CodecEntry("Raw", RawCodec()),
    ]


def test_an_evaluation_over_a_link_counts_the_air_and_sees_what_arrives() -> None:
    clean = run(entries())
    link = settings("packet-loss p=0.2", overhead=0.25, seed=3)
    evaluation = run(entries(), sizes=((16, 24), (9, 17), (12, 12), (20, 9)), link=link)
    _, block, matched, raw = evaluation.rows
    assert evaluation.provenance.channel == "packet-loss p=0.2, 8 packets an image, FEC 25 %, seed 3"
    sent = send(BlockCodec(2), Scenes([(16, 24)])[0].image_uint8_HW3, link)
    assert evaluation.images[0].total_bytes == sent.air_bytes
    assert matched.total_bytes == block.total_bytes
    assert block.damaged_images == matched.damaged_images == block.lost_images > 0
    assert block.concealed_share == block.lost_images / 4
    assert raw.encode_ms is None
    assert clean.provenance.channel is clean.rows[1].concealed_share is None
    table = markdown_table(evaluation)
    assert "mean bytes on the air" in table
    assert "| damaged | lost |" in table
    assert "damaged" not in markdown_table(clean)


def test_a_perfect_channel_changes_nothing_but_the_bytes() -> None:
    clean, over = run(entries()), run(entries(), link=settings())
    for before, after in zip(clean.rows[1:], over.rows[1:], strict=True):
        assert (before.miou, before.agreement_miou, before.psnr_db) == (after.miou, after.agreement_miou, after.psnr_db)
        assert after.damaged_images == after.lost_images == 0
        assert after.total_bytes > before.total_bytes


def test_all_lost_is_grey_for_every_codec() -> None:
    evaluation = run(entries(), link=LinkSettings(ALL_LOST))
    assert {row.lost_images for row in evaluation.rows[1:]} == {2}
    assert len({row.miou for row in evaluation.rows[1:]}) == 1


def test_results_over_a_link_are_saved(tmp_path: object) -> None:
    evaluation = run(entries(), link=settings("packet-loss p=0.5"))
    save_evaluation(evaluation, tmp_path)  # type: ignore[arg-type]
    loaded = load_evaluation(tmp_path)  # type: ignore[arg-type]
    assert (loaded.provenance, loaded.rows) == (evaluation.provenance, evaluation.rows)


def test_class_maps_are_refused() -> None:
    with pytest.raises(ConfigError, match="leave out label-map"):
        run([CodecEntry("Map", MapCodec())], link=settings())


def test_the_header_of_a_file_that_is_cut_may_name_another_size() -> None:
    class Liar(BlockCodec):
        """Shows a picture of whatever there is."""

        def decompress(self, data: bytes) -> ImageArray:
            return (
                np.zeros((*struct.unpack("<BB", data[:2]), 3), np.uint8)
                if len(data) > 40
                else np.zeros((1, 1, 3), np.uint8)
            )

    image = Scenes([(16, 24)])[0].image_uint8_HW3
    sent = send(Liar(4), image, settings())
    frame = transmit(sent.datagrams[:3], NOTHING_LOST, torch_generator(0))
    assert receive(Liar(4), frame, (16, 24)).outcome == "lost"
