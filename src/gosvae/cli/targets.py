"""Files that `gosvae compress` and `gosvae decompress` read and write: all are compared before one is written."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from gosvae.errors import ConfigError
from gosvae.walk import natural_key, printable

STANDARD = "-"
"""Name of standard input among the sources, and of standard output as the target."""

Existing = Literal["refuse", "replace", "skip"]
"""Treatment of targets that exist already."""


@dataclass(frozen=True)
class Job:
    """One file to read and one to write.

    Attributes:
        source: path of the file that is read; None for standard input.
        target: path of the file that is written; None for standard output.
    """

    source: Path | None
    target: Path | None

    @property
    def shown(self) -> str:
        """Name of the source for people."""
        return STANDARD if self.source is None else printable(self.source)


@dataclass(frozen=True)
class Plan:
    """All files of a command.

    Attributes:
        jobs: files to read and write.
        skipped: number of files whose targets exist and are left as they are.
        of_folder: whether a folder was among the sources.
        note: line for people on a file that is replaced unasked; None if there is none.
    """

    jobs: tuple[Job, ...]
    skipped: int = 0
    of_folder: bool = False
    note: str | None = None

    @property
    def to_stdout(self) -> bool:
        """Whether the result goes to standard output."""
        return any(job.target is None for job in self.jobs)


@dataclass(frozen=True)
class Naming:
    """Names of results.

    Attributes:
        suffix: ending that replaces that of the source, for a file in a folder that the user names.
        beside: returns the default target of a source, for a user who names none.
        find: returns the files of a folder that count as sources.
        folder_needs_out: whether results beside the files of a folder would be sources of the next call.
    """

    suffix: str
    beside: Callable[[Path], Path]
    find: Callable[[Path], Sequence[Path]]
    folder_needs_out: bool = False


def plan(sources: Sequence[str], out: str | None, naming: Naming, existing: Existing) -> Plan:
    """Return what is to be read and written.

    Args:
        sources: files and folders, or `-` alone for standard input.
        out: file, folder or `-`; a name with a slash at its end is always a folder; None for the default names.
        naming: names of the results.
        existing: treatment of targets that exist; a link that `out` names is written through in any case.

    Raises:
        ConfigError: a target is a source, or that of two sources, or is there already, or cannot be a file.
        ImageError: a folder has no files for the command.
    """
    if STANDARD in sources and len(sources) > 1:
        raise ConfigError(f"- (standard input) must be the only source, got {len(sources)}")
    of_folder = any(_is_folder(source) for source in sources)
    if out == STANDARD or (out is None and sources[0] == STANDARD):
        if len(sources) > 1 or of_folder:
            raise ConfigError("standard output takes the result of one file: give a folder for several")
        return Plan((Job(None if sources[0] == STANDARD else Path(sources[0]), None),))
    if sources[0] == STANDARD:
        if _is_folder(out):
            raise ConfigError(f"{out} is a folder, expected a file for what comes from standard input")
        jobs = [Job(None, Path(str(out)))]
    elif of_folder:
        jobs = [job for source in sources for job in _jobs_of(source, out, naming)]
    else:
        jobs = [Job(Path(source), _target(Path(source), out, naming, len(sources))) for source in sources]
    _compare(jobs)
    there = [job for job in jobs if job.target is not None and _is_there(job.target)]
    behind_link = existing == "refuse" and bool(there) and len(jobs) == 1 and Path(str(out)).is_symlink()
    if existing == "refuse" and there and not behind_link:
        first = there[0].target
        if len(jobs) == 1:
            raise ConfigError(f"{first} is there already: give another name (option -o), or replace it with --force")
        raise ConfigError(
            f"{len(there)} of {len(jobs)} results are there already, the first is {first}: --skip-existing leaves "
            "them, --force replaces them"
        )
    if existing == "skip":
        jobs = [job for job in jobs if job not in there]
    note = f"{out} is a link: {printable(real_path(Path(str(out))))} is replaced" if behind_link else None
    return Plan(tuple(jobs), len(there) if existing == "skip" else 0, of_folder, note)


def _is_folder(name: str | None) -> bool:
    """Whether a name is that of a folder: it is there, or a slash at its end says so.

    Raises:
        ConfigError: a slash stands behind the name of a file.
    """
    if name is None or name == STANDARD:
        return False
    path = Path(name)
    if not name.endswith(("/", os.sep)):
        return path.is_dir()
    if path.exists() and not path.is_dir():
        raise ConfigError(f"{name} names a folder, but {path} is a file: leave out the slash")
    return True


def _target(source: Path, out: str | None, naming: Naming, count: int) -> Path:
    """Return the target of one of `count` files."""
    if out is None:
        return naming.beside(source)
    if count > 1 and Path(out).exists() and not _is_folder(out):
        raise ConfigError(f"{count} files cannot go into the one file {out}: give a folder")
    if count > 1 or _is_folder(out):
        return Path(out) / source.with_suffix(naming.suffix).name
    return Path(out)


def _jobs_of(source: str, out: str | None, naming: Naming) -> list[Job]:
    """Return the jobs of one of several sources of which one is a folder at least.

    The files of a folder keep their places below it. Files that differ in their suffixes alone keep these: `a.png` and
    `a.jpg` become `a.png.gos` and `a.jpg.gos`.
    """
    if not _is_folder(source):
        return [Job(Path(source), _target(Path(source), out, naming, 2))]
    folder = Path(source)
    if not folder.exists():
        raise ConfigError(f"no such folder: {source}")
    if out is None and naming.folder_needs_out:
        raise ConfigError(f"{source} is a folder: name another one for the results (option -o)")
    if out is not None and Path(out).exists() and not _is_folder(out):
        raise ConfigError(f"the files of a folder cannot go into the one file {out}: give a folder")
    files: Iterable[Path] = naming.find(folder)
    if out is None:
        return [Job(file, naming.beside(file)) for file in files]
    results = real_path(Path(out))
    if real_path(folder) in results.parents:  # results of an earlier call are no sources
        files = [file for file in files if results not in real_path(file).parents]
    short = {file: file.relative_to(folder).with_suffix(naming.suffix) for file in files}
    uses = Counter(short.values())
    return [
        Job(file, Path(out) / (name if uses[name] == 1 else _with_full_name(file.relative_to(folder), naming.suffix)))
        for file, name in short.items()
    ]


def _with_full_name(path: Path, suffix: str) -> Path:
    return path.with_name(path.name + suffix)


def real_path(path: Path) -> Path:
    """Return the absolute path behind all links; links in a circle are no error here."""
    return Path(os.path.realpath(path))


def _is_there(path: Path) -> bool:
    """Whether a file would be replaced.

    Raises:
        ConfigError: a folder or a device is in the way, or a file where a folder must be.
    """
    if path.is_file():
        return True
    if path.is_dir():
        raise ConfigError(f"{path} is a folder, expected the name of a file: give another name (option -o)")
    if path.exists():
        raise ConfigError(f"{path} is not a regular file: give another name (option -o), or - for standard output")
    above = next(folder for folder in path.parents if folder.exists())
    if not above.is_dir():
        raise ConfigError(f"{path} cannot be written: {above} is not a folder")
    if not os.access(above, os.W_OK):
        raise ConfigError(f"{path} cannot be written: no permission to write in {above}")
    return False


def _compare(jobs: Sequence[Job]) -> None:
    """Refuse a target that is any of the sources, or that of two sources, by whatever path or link."""
    read = {real_path(job.source): job.source for job in jobs if job.source is not None}
    written: dict[Path, Job] = {}
    for job in jobs:
        if job.target is None:
            continue
        place = real_path(job.target)
        if place in read:
            source = read[place]
            advice = "give another name for the output (option -o)"
            if source == job.source:
                raise ConfigError(f"{job.target} is both the input and the output: {advice}")
            raise ConfigError(f"{job.target} would be written over {source}, which is to be read: {advice}")
        if place in written:
            raise ConfigError(
                f"two files would be written to {job.target}, {written[place].shown} and {job.shown}: take them one by "
                "one, each with its own -o"
            )
        written[place] = job


def files_below(folder: Path, suffix: str) -> list[Path]:
    """Return the files below a folder with a suffix, in natural order; hidden ones are left out.

    Raises:
        ConfigError: there are none.
    """
    found: list[Path] = []
    for place, folders, names in os.walk(folder):
        folders[:] = [name for name in folders if not name.startswith(".")]
        found += [Path(place, name) for name in names if name.lower().endswith(suffix) and not name.startswith(".")]
    if not found:
        raise ConfigError(f"no {suffix} files in {folder} or below it")
    return sorted(found, key=natural_key)
