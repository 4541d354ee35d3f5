"""Texts of the tables of an evaluation: cells, caption, and the table in HTML."""

from __future__ import annotations

import html
import math
from collections.abc import Callable, Sequence
from functools import partial

from gosvae.evaluation.rows import FID_NETWORK, Provenance, Row, frechet_title
from gosvae.evaluation.shots import COVERAGE, FEWEST_SHOTS
from gosvae.units import kib
from gosvae.walk import printable

_EMPTY = "-"


def html_table(provenance: Provenance, rows: Sequence[Row], *, details: bool = False) -> str:
    """Return an HTML table with its caption below, as notebooks show it."""

    def line(texts: Sequence[str], tag: str) -> str:
        first, *numbers = (html.escape(text) for text in texts)
        aligned = "".join(f'<{tag} style="text-align:right">{cell}</{tag}>' for cell in numbers)
        return f'<tr><{tag} style="text-align:left">{first}</{tag}>{aligned}</tr>'

    header, *lines = cells(provenance, rows, details=details)
    body = "".join(line(texts, "td") for texts in lines)
    note = html.escape(caption(provenance, rows, details=details))
    return f"<table><thead>{line(header, 'th')}</thead><tbody>{body}</tbody></table><p>{note}</p>"


def caption(
    provenance: Provenance, rows: Sequence[Row], *, details: bool = False, shown: Callable[[str], str] = printable
) -> str:
    """Return the caption of a table in one line: images, expert, and how bytes and classes are counted.

    Names go through `shown`, which escapes what they must not contain.
    """
    source, reference, network = provenance, rows[0], _frechet_network(rows)
    plural = "image" if source.image_count == 1 else "images"
    images = f"{source.image_count} {plural} of {source.geometry} pixels"
    parts = [f"{shown(source.dataset)}, {images}; expert: {shown(source.expert)}"]
    if source.clips is not None:
        parts += [
            f"clips: {source.clips}",
            "kbit/s (1000 bits): all bytes of all frames, headers and parameter sets included"
            if source.channel is None
            else f"kbit/s (1000 bits): {source.channel}",
            "flicker: share of pixels whose class differs from that in the frame before; own: that of the originals; "
            "at rest: the share among pixels whose class stays the same on the original",
            "age: mean age of the newest map",
        ]
    elif source.channel is None:
        parts.append("KiB (1024 bytes) and bpp: mean of complete files, headers included")
    else:
        parts.append("KiB (1024 bytes) and bpp: mean bytes on the air, packet headers and repair packets included")
    if has_boxes(rows) and source.clips is None:
        parts.append("without boxes: without those of the container, which repeat what the codestream says")
    if source.skipped:
        parts.append(f"left out because they cannot be read: {len(source.skipped)}")
    if source.channel is not None and source.clips is None:
        parts.append(
            f"channel: {source.channel}; damaged: images that did not arrive whole, lost: of these, those of which "
            "nothing could be decoded"
        )
    if reference.miou_classes is not None:
        parts.append(f"mIoU: one confusion matrix over all images, {reference.miou_classes} classes, void ignored")
    if reference.agreement_miou is not None:
        parts.append("agreement: the same mIoU against the expert's own map of the original")
    if source.judges:
        parts.append(f"{', '.join(source.judges)}: against the judge's own results on the original")
    if source.shots is None or source.shots < FEWEST_SHOTS or any(_has_interval(row) for row in rows):
        parts.extend(_interval_note(source.shots))
    if network is not None:
        name = "FID" if network == FID_NETWORK else "Fréchet distance (not FID)"
        parts.append(
            f"{name}: features of {network}, N = {source.image_count} against the originals; "
            "too large with few images, to be compared at equal N only"
        )
    if any(row.total_bytes is not None and row.psnr_db is None for row in rows):
        parts.append("a codec that sends a class map is judged by the map and shows no picture to compare")
    if details:
        parts.append("payload: without headers (of classical codecs the whole file)")
        parts.append("zero-order: estimate from each image's own histogram of indices")
        parts.append(f"ms: median of single images, PyTorch threads: {source.threads}, {source.hardware}")
    return "; ".join(parts) + "."


def cells(
    provenance: Provenance, rows: Sequence[Row], *, details: bool = False, shown: Callable[[str], str] = printable
) -> list[list[str]]:
    """Return header and lines as text, without empty columns; `details` is that of `markdown_table`.

    Names of codecs go through `shown`.
    """
    columns: dict[str, Callable[[Row], str]] = {
        "codec": lambda row: _name(row, shown(row.label)),
        **(_image_rates(rows) if provenance.clips is None else _video_rates()),
        "mIoU": lambda row: _with_interval(row.miou, row.miou_low, row.miou_high),
        "pixel accuracy": lambda row: _number(row.pixel_accuracy, 3),
        "agreement": lambda row: _with_interval(row.agreement_miou, row.agreement_low, row.agreement_high),
        **{name: partial(_of_task, name) for row in rows for name in row.tasks},
        provenance.perceptual or "LPIPS": lambda row: _number(row.lpips, 3),
        "PSNR (dB)": lambda row: _number(row.psnr_db, 2),
        _frechet_title(rows): lambda row: _number(row.frechet_distance, 2),
        "parameters": lambda row: _parameters(row.parameters),
    }
    if provenance.clips is not None:
        columns |= _video_columns(rows[0].flicker)
    if provenance.channel is not None:
        columns["damaged"] = lambda row: _EMPTY if row.concealed_share is None else str(row.damaged_images)
        columns["lost"] = lambda row: _EMPTY if row.concealed_share is None else str(row.lost_images)
    if details:
        columns["payload KiB"] = lambda row: _number(_kib(row.payload_bytes), 2)
        columns["zero-order KiB"] = lambda row: _number(_kib(row.zero_order_bytes), 2)
        columns["encode (ms)"] = lambda row: _number(row.encode_ms, 1)
        columns["decode (ms)"] = lambda row: _number(row.decode_ms, 1)
    table = [[title, *(cell(row) for row in rows)] for title, cell in columns.items()]
    filled = [column for column in table if any(cell != _EMPTY for cell in column[1:])]
    return [list(line) for line in zip(*filled, strict=True)]


def _image_rates(rows: Sequence[Row]) -> dict[str, Callable[[Row], str]]:
    """Return the columns of the rate of images."""
    columns: dict[str, Callable[[Row], str]] = {"KiB": lambda row: _number(row.total_kib, 2)}
    if has_boxes(rows):
        columns["KiB without boxes"] = lambda row: _number(_kib(row.codestream_bytes), 2)
    return columns | {"bpp": lambda row: _number(row.bpp, 3)}


def has_boxes(rows: Sequence[Row]) -> bool:
    """Return whether the files of a codec are in a container whose boxes take bytes."""
    return any(row.codestream_bytes not in (None, row.total_bytes) for row in rows)


def _video_rates() -> dict[str, Callable[[Row], str]]:
    """Return the columns of the rate of videos."""
    return {
        "kbit/s": lambda row: _number(row.kbit_per_second, 1),
        "largest frame (KiB)": lambda row: _number(_kib(row.largest_frame_bytes), 2),
    }


def _video_columns(own_flicker: float | None) -> dict[str, Callable[[Row], str]]:
    """Return the columns of the class map over time; `own_flicker` is that of the originals."""

    def relative(row: Row) -> str:
        return _number(row.flicker / own_flicker if row.flicker is not None and own_flicker else None, 2)

    return {
        "flicker (%)": lambda row: _number(None if row.flicker is None else 100 * row.flicker, 2),
        "flicker / own": relative,
        "at rest (%)": lambda row: _number(None if row.flicker_at_rest is None else 100 * row.flicker_at_rest, 2),
        "age (ms)": lambda row: _number(row.age_ms, 0),
    }


def _has_interval(row: Row) -> bool:
    return row.miou_low is not None or row.agreement_low is not None


def _interval_note(shots: int | None) -> list[str]:
    """Return what the intervals in the table are, or why there are none."""
    if shots is None:
        return []
    if shots < FEWEST_SHOTS:
        return [f"all images are of {shots} shot{'s' * (shots != 1)}, so that no interval can be given"]
    return [f"[low, high]: {100 * COVERAGE:.0f} % interval by resampling the {shots} shots that the images are of"]


def _frechet_network(rows: Sequence[Row]) -> str | None:
    """Return the name of the feature network of the Fréchet distances, which all rows share."""
    return next((row.frechet_network for row in rows if row.frechet_network), None)


def _frechet_title(rows: Sequence[Row]) -> str:
    return frechet_title(_frechet_network(rows))


def _name(row: Row, label: str) -> str:
    if not row.over_budget_images:
        return label
    return f"{label} (over budget on {row.over_budget_images} of {row.image_count} images)"


def _kib(n_bytes: float | None) -> float | None:
    return None if n_bytes is None else kib(n_bytes)


def _of_task(name: str, row: Row) -> str:
    return _number(row.tasks.get(name), 3)


def _number(value: float | None, digits: int) -> str:
    if value is None:
        return _EMPTY
    return f"{value:.{digits}f}" if math.isfinite(value) else "inf"


def _with_interval(value: float | None, low: float | None, high: float | None) -> str:
    """Return the value with its interval behind it; an interval without width is left out."""
    shown = _number(value, 3)
    return shown if low is None or high is None or low == high else f"{shown} [{low:.3f}, {high:.3f}]"


def _parameters(count: int | None) -> str:
    return f"{count / 1e6:.2f} M" if count else _EMPTY
