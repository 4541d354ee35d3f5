"""Datasets by name: `NAME[:PATH][@SPLIT]` on the command line becomes a `Dataset`."""

from __future__ import annotations

import re
from pathlib import Path

from gosvae.datasets.ade20k import ADE20K
from gosvae.datasets.base import Dataset
from gosvae.datasets.camvid import CamVid
from gosvae.datasets.cityscapes import Cityscapes
from gosvae.datasets.folder import ImageFolder
from gosvae.datasets.geometry import GeometryConfig
from gosvae.datasets.idd_lite import IddLite
from gosvae.errors import DatasetError, unknown_name
from gosvae.walk import expanded

DATASETS = {
    "ade20k": "ADE20K SceneParsing (ADEChallengeData2016), 150 classes: ade20k:PATH[@train|val]",
    "camvid": "CamVid in SegNet's folders, 11 classes: camvid:PATH[@train|seen|unseen|val|test]",
    "cityscapes": "Cityscapes in its official folders, 19 classes: cityscapes:PATH[@train|val|test]",
    "folder": "images of any kind, without labels: folder:PATH, or just the path",
    "idd-lite": "IDD-Lite in its folders, 7 classes: idd-lite:PATH[@train|seen|unseen|val]",
    "streets": "generated driving scenes with CamVid's classes, needs no files: streets[:COUNT][@train|val|test]",
}
"""Descriptions of the datasets by name, each in one line with the way to name it."""

CONTENTS = dict.fromkeys(("camvid", "cityscapes", "idd-lite", "streets"), "street scenes")
"""Contents of the pictures by dataset, for the datasets that show one kind of scene."""

# The paper's size for both (Section III-A1). CamVid, 480x360, and IDD-Lite, 320x227, keep their aspect ratio:
# sky and bonnet are cut off.
_PAPER_SIZE = GeometryConfig(resize_height=256, resize_width=512)
_GEOMETRIES = {
    "ade20k": _PAPER_SIZE,
    "camvid": GeometryConfig(resize_height=384, resize_width=512, crop_height=256, crop_width=512),
    "cityscapes": _PAPER_SIZE,
    "folder": GeometryConfig(),
    "idd-lite": GeometryConfig(resize_height=363, resize_width=512, crop_height=256, crop_width=512),
    "streets": GeometryConfig(),
}
_STREETS_COUNTS = {"train": 1000, "val": 100, "test": 100}


def default_geometry(name: str) -> GeometryConfig:
    """Return the geometry at which a dataset (by `Dataset.name`) is used if no other one is given.

    Raises:
        DatasetError: the name is unknown.
    """
    if name not in _GEOMETRIES:
        raise DatasetError(unknown_name("dataset", name, _GEOMETRIES))
    return _GEOMETRIES[name]


def contents(dataset: str) -> str | None:
    """Return the contents of the pictures of a dataset; None if they are unknown or differ between its parts.

    Args:
        dataset: name of the dataset in a provenance, for example `camvid (367)+streets (180)`.
    """
    shown = {CONTENTS.get(re.sub(r" \(\d+\)$", "", part)) for part in dataset.split("+")}
    return shown.pop() if len(shown) == 1 else None


def load_dataset(spec: str, *, default_split: str) -> Dataset:
    """Load a dataset from `NAME[:PATH][@SPLIT]`, or from the bare path of an image or a folder of images.

    A known name wins over a path of that name: write `./camvid` for the folder.

    Args:
        spec: name of the dataset, for example `camvid:data/camvid@val`, `streets:200`, `photos/`.
        default_split: split that is taken if `spec` does not name one.

    Raises:
        DatasetError: the name or split is unknown, the path is missing, or the folder has another layout.
    """
    name, _, rest = spec.partition(":")
    plain_name, _, plain_split = name.partition("@")
    if plain_name not in DATASETS:
        if expanded(spec).exists():
            return ImageFolder(expanded(spec))
        if "/" in spec or "\\" in spec:
            raise DatasetError(f"no such file or folder: {spec}; expected a path, or one of {', '.join(DATASETS)}")
        raise DatasetError(f"{unknown_name('dataset', plain_name, DATASETS)}, and there is no file or folder {spec!r}")
    argument, split = (rest, None) if plain_split == "" else ("", plain_split)
    found = re.fullmatch(r"(.*)@([A-Za-z]+)", rest)
    if found and not expanded(rest).exists():
        argument, split = found[1], found[2]
    if plain_name == "streets":
        return _streets(argument, split or default_split)
    if not argument:
        raise DatasetError(f"dataset {spec!r} needs a path: {DATASETS[plain_name]}")
    return _from_path(plain_name, expanded(argument), split, default_split)


def names_existing_path(spec: str) -> bool:
    """Whether a string that `load_dataset` takes names a file or folder that exists."""
    name, _, rest = spec.partition(":")
    path = rest if name in DATASETS else spec
    return bool(path) and (expanded(path).exists() or expanded(re.sub(r"@[A-Za-z]+$", "", path)).exists())


def _from_path(name: str, path: Path, split: str | None, default_split: str) -> Dataset:
    """Return a dataset whose files lie under a path."""
    if name == "folder":
        if split is not None:
            raise DatasetError(f"a plain folder has no splits, got @{split}: give the path of the images themselves")
        return ImageFolder(path)
    kinds: dict[str, type[ADE20K] | type[CamVid] | type[Cityscapes] | type[IddLite]]
    kinds = {"ade20k": ADE20K, "camvid": CamVid, "cityscapes": Cityscapes, "idd-lite": IddLite}
    return kinds[name](path, split or default_split)


def _streets(count: str, split: str) -> Dataset:
    """Return generated scenes; every split has a seed of its own."""
    if split not in _STREETS_COUNTS:
        raise DatasetError(unknown_name("split of streets", split, _STREETS_COUNTS))
    if count and not (count.isdecimal() and int(count) > 0):
        raise DatasetError(f"streets:{count}: expected a number of scenes, for example streets:200")
    return generated_streets(int(count) if count else _STREETS_COUNTS[split], list(_STREETS_COUNTS).index(split))


def generated_streets(count: int, seed: int, *, height: int = 256, width: int = 512) -> Dataset:
    """Return generated scenes of any size, see `Streets`."""
    from gosvae.datasets.streets import Streets

    return Streets(count, seed, height, width)
