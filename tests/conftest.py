"""What every test shares: small-machine settings, and data that may be absent."""

from __future__ import annotations

import contextlib
import faulthandler
import gc
import os
import sys
import warnings
from collections.abc import Iterator
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


CONNECTING = {"link", "cli", "sender", "receiver", "protocol", "page"}
"""Folders of tests that open connections."""
EXIT_SECONDS = 300.0
"""Time that Python has to end after the last test, before the tracebacks of all threads are printed and it is ended."""


def pytest_collection_finish() -> None:
    """Move all that is imported out of the garbage collector's sight, so that a collection takes milliseconds."""
    gc.collect()
    gc.freeze()


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_runtest_protocol(item: pytest.Item) -> Iterator[None]:
    """Collect the garbage of a test that failed before the next test begins.

    The traceback of a failed test keeps its objects alive: `sys.last_value` and its siblings hold it. Without this they
    would be collected in the middle of a later test, which would fail by their warnings.
    """
    failed_before = item.session.testsfailed
    result = yield
    if item.session.testsfailed > failed_before:
        for name in ("last_type", "last_value", "last_traceback", "last_exc"):
            with contextlib.suppress(AttributeError):
                delattr(sys, name)
        _collect_silently()
    return result


def _collect_silently() -> None:
    """Collect garbage; drop the warnings and the exceptions that the destruction of objects causes."""
    report, sys.unraisablehook = sys.unraisablehook, lambda _: None
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            gc.collect()
    finally:
        sys.unraisablehook = report


def pytest_sessionfinish() -> None:
    """Limit the time that Python takes to end: something that was left open could hold it up for ever."""
    faulthandler.dump_traceback_later(EXIT_SECONDS, exit=True, file=sys.__stderr__)


@pytest.fixture(autouse=True)
def _own_garbage(request: pytest.FixtureRequest) -> Iterator[None]:
    """Collect the garbage of tests that open connections, so that its warnings are theirs and no later test's."""
    yield
    if CONNECTING.intersection(request.node.nodeid.split("/")):
        gc.collect()


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
