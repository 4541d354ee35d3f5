"""What every test shares: small-machine settings, and data that may be absent."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import settings

from gosvae.seeding import numpy_generator, seed_everything
from gosvae.tensors import ImageArray

REPOSITORY = Path(__file__).resolve().parents[1]

# The same sums in the same order on every machine: a thread count of its own would change the last bits.
torch.set_num_threads(min(2, int(os.environ.get("OMP_NUM_THREADS", "2"))))

# No deadline: a shared machine is no stop watch. In CI the examples are the same at every run.
settings.register_profile("gosvae", deadline=None, derandomize="CI" in os.environ)
settings.load_profile("gosvae")


@pytest.fixture(autouse=True)
def _seeded() -> None:
    """Global generators start every test from the same place, whatever ran before it."""
    seed_everything(0)


@pytest.fixture(scope="session")
def shared_dir() -> Path:
    """The folder of data and weights that do not belong in the repository: `GOSVAE_SHARED`, or `shared` beside it."""
    folder = Path(os.environ.get("GOSVAE_SHARED", REPOSITORY.parent / "shared"))
    if not folder.is_dir():
        pytest.skip("needs the shared data: set GOSVAE_SHARED to its folder")
    return folder


@pytest.fixture(scope="session")
def camvid_root(shared_dir: Path) -> Path:
    """CamVid in SegNet's folders."""
    folder = shared_dir / "data" / "camvid"
    if not (folder / "train.txt").is_file():
        pytest.skip("needs CamVid: no data/camvid/train.txt in the shared data")
    return folder


@pytest.fixture(scope="session")
def lpips_weights(shared_dir: Path) -> Path:
    """The folder with the SqueezeNet trunk and the LPIPS v0.1 heads."""
    folder = shared_dir / "weights" / "lpips"
    if not (folder / "squeezenet1_1_features.pth").is_file():
        pytest.skip("needs the LPIPS weights: no weights/lpips/squeezenet1_1_features.pth in the shared data")
    return folder


@pytest.fixture
def tiny_image() -> ImageArray:
    """A uint8 image of odd size (37, 51, 3) with smooth colour, edges and a little noise."""
    rows, columns = np.mgrid[0:37, 0:51]
    image = np.stack([rows * 6, columns * 5, (rows // 8 + columns // 8) % 2 * 200], axis=-1).astype(np.float64)
    image += numpy_generator(0, "tiny_image").normal(0, 4, image.shape)
    return image.clip(0, 255).astype(np.uint8)
