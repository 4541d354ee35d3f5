"""Data sets on disk: class maps, split folders, and what is said of folders that are laid out otherwise."""

from __future__ import annotations

import os
import shutil
import struct
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from gosvae.datasets.ade20k import ADE20K, ADE20K_CLASSES
from gosvae.datasets.base import Dataset
from gosvae.datasets.camvid import CAMVID_CLASSES, CamVid
from gosvae.datasets.cityscapes import CITYSCAPES_CLASSES, Cityscapes
from gosvae.datasets.folder import ImageFolder
from gosvae.datasets.mixture import load_prepared
from gosvae.errors import DatasetError, ImageError

ALL_LABELS = np.arange(256, dtype=np.uint8).reshape(16, 16)


def save(path: Path, array: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(array).save(path)


def picture(level: int, height: int = 16, width: int = 16) -> np.ndarray:
    return np.full((height, width, 3), level, dtype=np.uint8)


def make_camvid(root: Path) -> None:
    for level, name in [(20, "b_2"), (10, "a_1")]:
        save(root / "val" / f"{name}.png", picture(level))
        save(root / "valannot" / f"{name}.png", ALL_LABELS % 12)


def make_cityscapes(root: Path) -> None:
    for level, city in [(20, "ulm"), (10, "aachen")]:
        save(root / f"leftImg8bit/val/{city}/{city}_000000_000019_leftImg8bit.png", picture(level))
        save(root / f"gtFine/val/{city}/{city}_000000_000019_gtFine_labelIds.png", ALL_LABELS)
        save(root / f"gtFine/val/{city}/{city}_000000_000019_gtFine_color.png", picture(0))


def make_ade20k(root: Path) -> None:
    for level, number in [(20, 2), (10, 1)]:
        save(root / f"images/validation/ADE_val_0000000{number}.jpg", picture(level))
        save(root / f"annotations/validation/ADE_val_0000000{number}.png", ALL_LABELS % 151)


Case = tuple[Callable[[Path], None], type[CamVid] | type[Cityscapes] | type[ADE20K], list[str]]
CASES: dict[str, Case] = {
    "camvid": (make_camvid, CamVid, ["a_1", "b_2"]),
    "cityscapes": (make_cityscapes, Cityscapes, ["aachen_000000_000019", "ulm_000000_000019"]),
    "ade20k": (make_ade20k, ADE20K, ["ADE_val_00000001", "ADE_val_00000002"]),
}
each_layout = pytest.mark.parametrize("case", CASES.values(), ids=CASES)


@each_layout
def test_samples_come_in_the_order_of_their_names(tmp_path: Path, case: Case) -> None:
    make, kind, names = case
    make(tmp_path)
    dataset: Dataset = kind(tmp_path, "val")
    samples = [dataset[i] for i in range(len(dataset))]
    assert [sample.name for sample in samples] == names
    assert [int(sample.image_uint8_HW3[0, 0, 0]) for sample in samples] == [10, 20]
    for sample in samples:
        labels = sample.labels_uint8_HW
        assert labels is not None
        assert labels.dtype == np.uint8
        assert labels.shape == sample.image_uint8_HW3.shape[:2]
        assert set(np.unique(labels)) == {*range(len(dataset.class_names)), 255}


@each_layout
def test_a_wrong_root_is_told_with_what_was_looked_for(tmp_path: Path, case: Case) -> None:
    make, kind, _ = case
    make(tmp_path / "data")
    with pytest.raises(DatasetError, match=r"looked for .*is not a folder") as error:
        kind(tmp_path, "val")
    assert str(tmp_path) in str(error.value)
    with pytest.raises(DatasetError, match=r"unknown split .*'vall'; did you mean 'val'"):
        kind(tmp_path / "data", "vall")


@each_layout
def test_an_image_without_a_label_map_is_named(tmp_path: Path, case: Case) -> None:
    make, kind, names = case
    make(tmp_path)
    files = [path.relative_to(tmp_path) for path in tmp_path.rglob(f"*{names[1]}*")]
    (label_map,) = [file for file in files if "annot" in str(file) or "labelIds" in file.name]
    (tmp_path / label_map).unlink()
    with pytest.raises(DatasetError, match=f"1 of 2 images .*{names[1]}"):
        kind(tmp_path, "val")


@each_layout
def test_a_damaged_image_and_a_damaged_label_map_are_named(tmp_path: Path, case: Case) -> None:
    make, kind, names = case
    make(tmp_path)
    files = sorted(path for path in tmp_path.rglob(f"*{names[0]}*") if "color" not in path.name)
    for path in files:
        intact = path.read_bytes()
        path.write_bytes(intact[: len(intact) // 2])
        with pytest.raises((DatasetError, ImageError), match=path.name):
            kind(tmp_path, "val")[0]
        path.write_bytes(intact)
    assert kind(tmp_path, "val")[0].name == names[0]


@each_layout
def test_a_label_map_of_another_size_is_refused(tmp_path: Path, case: Case) -> None:
    make, kind, names = case
    make(tmp_path)
    image = next(
        p for p in tmp_path.rglob(f"*{names[0]}*") if np.asarray(Image.open(p)).ndim == 3 and "color" not in p.name
    )
    save(image, picture(10, height=8))
    with pytest.raises(DatasetError, match="expected one size"):
        kind(tmp_path, "val")[0]


def test_class_lists_are_complete() -> None:
    assert (len(CAMVID_CLASSES), len(CITYSCAPES_CLASSES), len(ADE20K_CLASSES)) == (11, 19, 150)
    for classes in (CAMVID_CLASSES, CITYSCAPES_CLASSES, ADE20K_CLASSES):
        assert len(set(classes)) == len(classes)
        assert all(name == " ".join(name.split()) != "" for name in classes)


def test_camvid_void_is_ignored_and_other_labels_are_refused(tmp_path: Path) -> None:
    make_camvid(tmp_path)
    labels = CamVid(tmp_path, "val")[0].labels_uint8_HW
    raw = ALL_LABELS % 12
    assert np.array_equal(labels == 255, raw == 11)
    assert np.array_equal(labels[raw < 11], raw[raw < 11])
    for wrong in (12, 255):
        save(tmp_path / "valannot" / "a_1.png", np.full((16, 16), wrong, np.uint8))
        with pytest.raises(DatasetError, match=rf"a_1\.png: label {wrong} found"):
            CamVid(tmp_path, "val")[0]


def test_cityscapes_label_ids_become_train_ids(tmp_path: Path) -> None:
    make_cityscapes(tmp_path)
    labels = Cityscapes(tmp_path, "val")[0].labels_uint8_HW
    # helpers/labels.py of cityscapesScripts, by id 0 to 33; 255 is ignored.
    ignored = 255
    table = [ignored] * 7 + [0, 1, ignored, ignored, 2, 3, 4, ignored, ignored, ignored, 5, ignored, 6, 7, 8, 9, 10, 11]
    table += [12, 13, 14, 15, ignored, ignored, 16, 17, 18]
    assert labels.ravel().tolist() == table + [ignored] * (256 - 34)


def test_cityscapes_train_ids_are_read_where_there_are_no_label_ids(tmp_path: Path) -> None:
    make_cityscapes(tmp_path)
    expected = Cityscapes(tmp_path, "val")[1].labels_uint8_HW
    assert expected is not None
    for path in tmp_path.rglob("*_labelIds.png"):
        path.unlink()
    for city in ("ulm", "aachen"):
        save(tmp_path / f"gtFine/val/{city}/{city}_000000_000019_gtFine_labelTrainIds.png", expected)
    dataset = Cityscapes(tmp_path, "val")
    assert dataset.class_names == CITYSCAPES_CLASSES
    np.testing.assert_array_equal(dataset[1].labels_uint8_HW, expected)
    save(tmp_path / "gtFine/val/ulm/ulm_000000_000019_gtFine_labelTrainIds.png", np.full((16, 16), 19, np.uint8))
    with pytest.raises(DatasetError, match=r"labelTrainIds\.png: label 19 found"):
        dataset[1]


@pytest.mark.parametrize("name", ["cityscapes", "ade20k"])
def test_a_split_without_any_label_map_is_read_without_labels(
    name: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    make, kind, names = CASES[name]
    make(tmp_path)
    shutil.rmtree(next(tmp_path / folder for folder in ("gtFine", "annotations") if (tmp_path / folder).is_dir()))
    dataset = kind(tmp_path, "val")
    assert dataset.class_names == ()
    assert not dataset.has_labels
    assert [dataset[i].name for i in range(2)] == names
    assert dataset[0].labels_uint8_HW is None
    assert dataset.check(0) == (16, 16)
    assert "no label maps, looked for" in caplog.text
    prepared = load_prepared(f"{kind.name}:{tmp_path}", default_split="val")
    assert prepared.missing_labels == dataset.missing_labels
    assert str(prepared.missing_labels) in caplog.text
    assert kind.class_names != ()


@pytest.mark.parametrize(
    "place",
    [
        "images/validation/s/street",
        "images/ADE/validation/urban/street",
        "ADE20K_2021_17_01/images/ADE/validation/urban/street",
    ],
)
def test_the_full_ade20k_is_read_without_labels(tmp_path: Path, place: str) -> None:
    for number in (2, 1):
        save(tmp_path / place / f"ADE_val_0000000{number}.jpg", picture(10 * number))
        save(tmp_path / place / f"ADE_val_0000000{number}_seg.png", picture(0))
    dataset = ADE20K(tmp_path, "val")
    assert [dataset[i].name for i in range(len(dataset))] == ["ADE_val_00000001", "ADE_val_00000002"]
    assert not dataset.has_labels


def test_the_folder_around_the_benchmark_of_ade20k_is_read(tmp_path: Path) -> None:
    make_ade20k(tmp_path / "ADEChallengeData2016")
    assert [ADE20K(tmp_path, "val")[i].name for i in range(2)] == ["ADE_val_00000001", "ADE_val_00000002"]


def test_ade20k_labels_are_shifted_and_others_refused(tmp_path: Path) -> None:
    make_ade20k(tmp_path)
    dataset = ADE20K(tmp_path, "val")
    raw = (ALL_LABELS % 151).astype(int)
    assert np.array_equal(dataset[0].labels_uint8_HW, np.where(raw == 0, 255, raw - 1))
    save(tmp_path / "annotations/validation/ADE_val_00000001.png", np.full((16, 16), 151, np.uint8))
    with pytest.raises(DatasetError, match="label 151 found"):
        dataset[0]


def png(values: np.ndarray, bits: int, metadata: bytes = b"") -> bytes:
    """A grey PNG of few bits as the specification lays it out."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    fields = (values[..., None] >> np.arange(bits)[::-1]) & 1
    rows = np.packbits(fields.reshape(len(values), -1).astype(np.uint8), axis=1)
    header = struct.pack(">IIBBBBB", values.shape[1], values.shape[0], bits, 0, 0, 0, 0)
    data = zlib.compress(b"".join(b"\0" + row.tobytes() for row in rows))
    text = chunk(b"zTXt", b"Comment\0\0" + zlib.compress(metadata)) if metadata else b""
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + text + chunk(b"IDAT", data) + chunk(b"IEND", b"")


@pytest.mark.parametrize("bits", [2, 4, 8])
def test_label_maps_of_few_bits_and_long_metadata_hold_their_own_numbers(tmp_path: Path, bits: int) -> None:
    make_camvid(tmp_path)
    raw = np.arange(256).reshape(16, 16) % min(2**bits, 12)
    for metadata in (b"", bytes(3 * 2**20)):
        (tmp_path / "valannot" / "a_1.png").write_bytes(png(raw, bits, metadata))
        labels = CamVid(tmp_path, "val")[0].labels_uint8_HW
        assert np.array_equal(labels, np.where(raw == 11, 255, raw))


def test_hidden_files_are_no_images_of_a_data_set(tmp_path: Path) -> None:
    make_camvid(tmp_path)
    count = len(CamVid(tmp_path, "val"))
    (tmp_path / "val" / "._a_1.png").write_bytes(b"what a Mac leaves beside a file")
    assert len(CamVid(tmp_path, "val")) == count


def test_a_colour_image_is_no_label_map(tmp_path: Path) -> None:
    make_camvid(tmp_path)
    save(tmp_path / "valannot" / "a_1.png", picture(3))
    with pytest.raises(DatasetError, match="8-bit grey or palette image, this is RGB"):
        CamVid(tmp_path, "val")[0]


def test_a_folder_is_read_recursively_and_sorted(tmp_path: Path) -> None:
    for level, name in [(30, "z.PNG"), (10, "a/b.bmp"), (20, "a/c.tiff")]:
        save(tmp_path / name, picture(level))
    (tmp_path / "notes.txt").write_text("no image")
    (tmp_path / "._z.png").write_bytes(b"what a Mac leaves beside a file")
    dataset = ImageFolder(tmp_path)
    assert [dataset[i].name for i in range(len(dataset))] == ["a/b.bmp", "a/c.tiff", "z.PNG"]
    assert [int(dataset[i].image_uint8_HW3[0, 0, 0]) for i in range(len(dataset))] == [10, 20, 30]
    assert dataset[0].labels_uint8_HW is None
    assert not dataset.has_labels


def test_linked_and_hidden_folders_and_other_formats(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    save(tmp_path / "real" / "a.png", picture(10))
    data = tmp_path / "data"
    for name in ("b10.png", "b2.png", ".ipynb_checkpoints/b2-checkpoint.png", ".Trash-1000/files/x.png"):
        save(data / name, picture(20))
    (data / "cam0").symlink_to(tmp_path / "real")
    (data / "phone.HEIC").write_bytes(b"a format that is not read")
    dataset = ImageFolder(data)
    assert [dataset[i].name for i in range(len(dataset))] == ["b2.png", "b10.png", "cam0/a.png"]
    assert ".heic (1)" in caplog.text


def test_a_name_that_is_no_utf8_can_be_written(tmp_path: Path) -> None:
    save(tmp_path / os.fsdecode(b"caf\xe9.png"), picture(1))
    assert ImageFolder(tmp_path)[0].name == r"caf\xe9.png"


def test_one_image_file_is_a_folder_of_one(tmp_path: Path) -> None:
    save(tmp_path / "one.png", picture(7))
    save(tmp_path / "two.png", picture(8))
    dataset = ImageFolder(tmp_path / "one.png")
    assert (len(dataset), dataset[0].name) == (1, "one.png")


def test_a_folder_without_images_says_which_suffixes_count(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("no image")
    with pytest.raises(DatasetError, match=r"no images in .*\.avif, .*\.webp"):
        ImageFolder(tmp_path)
    with pytest.raises(DatasetError, match="no such file or folder"):
        ImageFolder(tmp_path / "missing")


@pytest.mark.parametrize(("split", "count"), [("train", 367), ("val", 101)])
def test_the_real_camvid(camvid_root: Path, split: str, count: int) -> None:
    dataset = CamVid(camvid_root, split)
    assert len(dataset) == count
    sample = dataset[count // 2]
    assert sample.image_uint8_HW3.shape == (360, 480, 3)
    assert sample.labels_uint8_HW is not None
    assert set(np.unique(sample.labels_uint8_HW)) <= {*range(11), 255}
    # In a driving scene the bottom is mostly road and the top mostly sky, building or tree.
    bottom, top = sample.labels_uint8_HW[-60:, 160:320], sample.labels_uint8_HW[:60]
    assert (bottom == CAMVID_CLASSES.index("road")).mean() > 0.5
    assert np.isin(top, [CAMVID_CLASSES.index(name) for name in ("sky", "building", "tree")]).mean() > 0.5
