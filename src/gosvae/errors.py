"""The exception tree: everything that gosvae raises on purpose is a `GosvaeError`.

A message is one line that says what was given, what was expected and what to do. The command line prints it and
exits with status 2; a traceback means a defect.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from difflib import get_close_matches


class GosvaeError(Exception):
    """Root of all errors that a caller can act on."""


class ConfigError(GosvaeError):
    """A configuration value or key that cannot be used."""


class ShapeError(GosvaeError):
    """A tensor or array whose layout is not the one a contract names."""

    def __init__(self, expected: str, got: Sequence[int]) -> None:
        super().__init__(f"{expected}, got shape {tuple(got)}")


class ImageError(GosvaeError):
    """An image that cannot be read or has no pixels."""


class DatasetError(GosvaeError):
    """A data folder that does not have the layout it should have."""


class ExpertError(GosvaeError):
    """A perception model that cannot be loaded or does not keep the expert contract."""


class BitstreamError(GosvaeError):
    """Bytes that are not a complete, intact stream."""


class ForeignStreamError(BitstreamError):
    """An intact stream that another model (or format version) made."""


class PacketError(GosvaeError):
    """Bytes that are not an intact packet of the link, or a stream that packets cannot carry."""


class LinkError(GosvaeError):
    """The other end of a link that is not there, refuses, or does not keep to the protocol."""


class RateError(GosvaeError):
    """A rate budget that a codec cannot meet."""


class CheckpointError(GosvaeError):
    """A checkpoint that is damaged, incomplete or does not fit."""


class TrainingError(GosvaeError):
    """A training that cannot go on (for example a loss that is not finite)."""


class MissingDependencyError(GosvaeError):
    """An optional package or weight file that is not installed."""


def unknown_name(kind: str, given: str, known: Iterable[str]) -> str:
    """One line for an unknown name, with the nearest known one first."""
    names = sorted(known)
    near = get_close_matches(given, names, n=1, cutoff=0.5)
    hint = f"; did you mean {near[0]!r}?" if near else ""
    return f"unknown {kind} {given!r}{hint} (known: {', '.join(names)})"
