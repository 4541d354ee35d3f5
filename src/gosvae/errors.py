"""The exception tree: everything that gosvae raises on purpose is a `GosvaeError`.

    GosvaeError
    ├── ConfigError              a value, name or option that cannot be used
    ├── ShapeError               a tensor or array of another layout
    ├── ImageError               an image that cannot be read or has no pixels
    ├── DatasetError             a data folder of another layout
    ├── ExpertError              a perception model that cannot be loaded
    ├── BitstreamError           bytes that are not a complete, intact stream
    │   ├── ForeignStreamError   an intact stream of another model or a newer version
    │   └── MissingReferenceError  a frame that depends on one that is not there
    ├── PacketError              bytes that are not an intact packet
    ├── LinkError                the other end of a link is missing or refuses
    ├── RateError                a budget that a codec cannot meet
    ├── CheckpointError          a checkpoint that is damaged or does not fit
    ├── TrainingError            a training that cannot continue
    ├── WriteError               a file that cannot be written
    └── MissingDependencyError   an optional package or weight file that is not installed

A message is one line that says what was given, what was expected and what to do, in the terms of the Python API. The
command line prints it, adds the option that helps (see `GosvaeError.argument`), and exits with status 2; a traceback
means a defect.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from difflib import get_close_matches


class GosvaeError(Exception):
    """Root of all errors that a caller can act on.

    Args:
        message: one line with the given value, the expected one, and the remedy.
        argument: name of the argument of the Python API that mends it, such as `expert`. The command line prints its
            own option of that name after the message.
    """

    def __init__(self, message: str = "", *, argument: str | None = None) -> None:
        super().__init__(message)
        self.argument = argument


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


class MissingReferenceError(BitstreamError):
    """A frame of a video that depends on a frame which the decoder does not have."""


class PacketError(GosvaeError):
    """Bytes that are not an intact packet of the link, or a stream that packets cannot carry."""


class LinkError(GosvaeError):
    """The other end of a link that is not there, refuses, or does not keep to the protocol."""


class RateError(GosvaeError):
    """A rate budget that a codec cannot meet."""


class CheckpointError(GosvaeError):
    """A checkpoint that is damaged, incomplete or does not fit."""


class TrainingError(GosvaeError):
    """A training that cannot continue, for example because a loss is not finite."""


class WriteError(GosvaeError):
    """A file that cannot be written (no space, no permission); what stood there before is intact."""


class MissingDependencyError(GosvaeError):
    """An optional package or weight file that is not installed."""


def unknown_name(kind: str, given: str, known: Iterable[str]) -> str:
    """Return the line that refuses an unknown name: the nearest known name first, then all of them."""
    names = sorted(known)
    near = get_close_matches(given, names, n=1, cutoff=0.5)
    hint = f"; did you mean {near[0]!r}?" if near else ""
    return f"unknown {kind} {given!r}{hint} (known: {', '.join(names)})"
