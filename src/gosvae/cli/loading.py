"""Options about the loading of codecs and experts: whose files are trusted, and whether weights are verified."""

from __future__ import annotations

import argparse
import sys
from dataclasses import dataclass
from typing import Any

import torch

from gosvae.codecs.base import ImageCodec
from gosvae.codecs.gesco import GescoCodec
from gosvae.codecs.registry import load_codec
from gosvae.errors import ConfigError
from gosvae.experts.base import Expert, TaskExpert
from gosvae.experts.registry import load_expert, load_task_expert
from gosvae.tasks.group import parse_experts

_SENDERS_EXPERT_HELP = (
    "expert that the sender runs, for a GESCO codec whose expert is not part of the package: the one of its training"
)


@dataclass(frozen=True)
class Loading:
    """What the options say about the loading of codecs and experts.

    Attributes:
        trust: whether experts may be programs.
        verify: whether weights are compared with their SHA-256.
        expert: expert that a codec runs at the sender; None leaves it to the codec.
    """

    trust: bool = False
    verify: bool = True
    expert: str | None = None

    def load_codec(self, spec: str, **more: Any) -> ImageCodec:
        """Return a codec, as the function `load_codec`, with the sender's expert.

        Raises:
            ConfigError: an expert is given for a codec that runs none.
        """
        codec = load_codec(spec, trust=self.trust, verify=self.verify, **more)
        if self.expert is None:
            return codec
        if not isinstance(codec, GescoCodec):
            raise ConfigError(f"{codec.name!r} is no GESCO codec, whose sender runs an expert: leave it out: --expert")
        codec.use_expert(self.load_expert(self.expert))
        return codec

    def load_expert(self, spec: str) -> Expert:
        """Return a segmentation expert, as the function `load_expert`."""
        return load_expert(spec, trust=self.trust, verify=self.verify)

    def load_task_expert(self, spec: str, *, gradients: bool = True) -> TaskExpert:
        """Return an expert of any task, as the function `load_task_expert`."""
        return load_task_expert(spec, gradients=gradients, trust=self.trust, verify=self.verify)


DEFAULT_LOADING = Loading()


def experts_of(
    options: argparse.Namespace, device: torch.device, loading: Loading = DEFAULT_LOADING
) -> tuple[Expert | None, dict[str, TaskExpert]]:
    """Return the first segmentation network of `--expert`, None without one, and all other experts by name.

    Raises:
        GosvaeError: an expert cannot be loaded, or two have one name.
    """
    first: Expert | None = None
    judges: dict[str, TaskExpert] = {}
    for named in parse_experts(options.expert or ["embedded"], weighted=False):
        loaded = loading.load_task_expert(named.spec, gradients=False)
        loaded.to(device)
        if first is None and isinstance(loaded, Expert):
            first = loaded
        else:
            judges[named.name] = loaded
    return first, judges


def add_trust(parser: argparse.ArgumentParser) -> None:
    """Add `--trust`."""
    parser.add_argument(
        "--trust", action="store_true",
        help="load a .pt2 or TorchScript expert: it is a program, which can run any code",
    )  # fmt: skip


def add_loading(parser: argparse.ArgumentParser) -> None:
    """Add `--trust` and `--no-verify`."""
    add_trust(parser)
    add_no_verify(parser)


def add_no_verify(parser: argparse.ArgumentParser) -> None:
    """Add `--no-verify`."""
    parser.add_argument(
        "--no-verify", action="store_true",
        help="load a model also if its weights are not those that its config.json names by their SHA-256",
    )  # fmt: skip


def loading_of(options: argparse.Namespace, *, expert: str | None = None) -> Loading:
    """Return how the options let codecs and experts be loaded."""
    return Loading(options.trust, verify_of(options), expert)


def verify_of(options: argparse.Namespace) -> bool:
    """Return whether weights are compared with their SHA-256, with a note where they are not."""
    if options.no_verify:
        print("gosvae: note: the weights of models are not compared with their SHA-256", file=sys.stderr)
    return not options.no_verify


def add_sender_loading(parser: argparse.ArgumentParser) -> None:
    """Add `--expert`, for codecs whose sender runs one, `--trust` and `--no-verify`."""
    parser.add_argument("--expert", metavar="EXPERT", help=_SENDERS_EXPERT_HELP)
    add_loading(parser)
