"""Tables of an evaluation: Markdown for pages, plain text for terminals."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence

from gosvae.evaluation.cells import caption, cells
from gosvae.evaluation.evaluation import Evaluation


def markdown_table(evaluation: Evaluation, *, details: bool = False) -> str:
    """Return a Markdown table with aligned columns and a caption.

    Columns without any value are left out. `details` adds bytes without headers, the zero-order entropy and times.
    """
<<<<<<< HEAD
    header, *lines = _cells(evaluation, details)
    return f"{markdown_of(header, lines)}\n{caption(evaluation, details=details)}\n"


def markdown_of(header: Sequence[str], lines: Sequence[Sequence[str]]) -> str:
    """Return cells as a Markdown table: the first column is left-aligned, numbers are right-aligned."""
    widths = _widths([header, *lines])
    rule = ["-" * widths[0], *("-" * (width - 1) + ":" for width in widths[1:])]
    return "\n".join("| " + " | ".join(_padded(cells, widths)) + " |" for cells in [header, rule, *lines]) + "\n"
=======
    header, *lines = cells(evaluation.provenance, evaluation.rows, details=details)
    widths = _widths([header, *lines])
    rule = ["-" * widths[0], *("-" * (width - 1) + ":" for width in widths[1:])]
    table = "\n".join("| " + " | ".join(_padded(texts, widths)) + " |" for texts in [header, rule, *lines])
    return f"{table}\n\n{caption(evaluation.provenance, evaluation.rows, details=details)}\n"
>>>>>>> main


def terminal_table(evaluation: Evaluation, *, details: bool = False) -> str:
    """Return the table for a terminal: columns two spaces apart under a rule."""
    header, *lines = cells(evaluation.provenance, evaluation.rows, details=details)
    widths = _widths([header, *lines])
    rule = ["-" * width for width in widths]
<<<<<<< HEAD
    table = "\n".join("  ".join(_padded(cells, widths)).rstrip() for cells in [header, rule, *lines])
    return f"{table}\n\n{textwrap.fill(caption(evaluation, details=details), max(80, sum(widths)))}\n"


def html_table(evaluation: Evaluation, *, details: bool = False) -> str:
    """Return an HTML table with its caption below, as notebooks show it."""

    def line(cells: Sequence[str], tag: str) -> str:
        first, *numbers = (html.escape(cell) for cell in cells)
        aligned = "".join(f'<{tag} style="text-align:right">{cell}</{tag}>' for cell in numbers)
        return f'<tr><{tag} style="text-align:left">{first}</{tag}>{aligned}</tr>'

    header, *lines = _cells(evaluation, details)
    rows = "".join(line(cells, "td") for cells in lines)
    note = html.escape(caption(evaluation, details=details))
    return f"<table><thead>{line(header, 'th')}</thead><tbody>{rows}</tbody></table><p>{note}</p>"


def caption(evaluation: Evaluation, *, details: bool = False) -> str:
    """Return the caption of a table in one line: images, expert, and how bytes and classes are counted."""
    source, reference = evaluation.provenance, evaluation.reference
    plural = "image" if source.image_count == 1 else "images"
    parts = [f"{source.dataset}, {source.image_count} {plural} of {source.geometry} pixels; expert: {source.expert}"]
    if source.clips is not None:
        parts += [
            f"clips: {source.clips}",
            "kbit/s (1000 bits): all bytes of all frames, headers and parameter sets included",
            "flicker: share of pixels whose class differs from that in the frame before; own: that of the originals; "
            "at rest: the share among pixels whose class stays the same on the original",
            "age: mean age of the newest map",
        ]
    elif source.channel is None:
        parts.append("KiB (1024 bytes) and bpp: mean of complete files, headers included")
    else:
        parts.append("KiB (1024 bytes) and bpp: mean bytes on the air, packet headers and repair packets included")
    if has_boxes(evaluation) and not evaluation.is_video:
        parts.append("without boxes: without those of the container, which repeat what the codestream says")
    if source.skipped:
        parts.append(f"left out because they cannot be read: {len(source.skipped)}")
    if source.channel is not None:
        parts.append(
            f"channel: {source.channel}; damaged: images that did not arrive whole, lost: of these, those of which "
            "nothing could be decoded"
        )
    if reference.miou_classes is not None:
        parts.append(f"mIoU: one confusion matrix over all images, {reference.miou_classes} classes, void ignored")
    parts.append("agreement: the same mIoU against the expert's own map of the original")
    parts.extend(_interval_note(evaluation))
    if _frechet_network(evaluation) is not None:
        name = "FID" if _frechet_network(evaluation) == FID_NETWORK else "Fréchet distance (not FID)"
        parts.append(
            f"{name}: features of {_frechet_network(evaluation)}, N = {source.image_count} against the originals; "
            "too large with few images, to be compared at equal N only"
        )
    if any(row.total_bytes is not None and row.psnr_db is None for row in evaluation.rows):
        parts.append("a codec that sends a class map is judged by the map and shows no picture to compare")
    if details:
        parts.append("payload: without headers (of classical codecs the whole file)")
        parts.append("zero-order: estimate from each image's own histogram of indices")
        parts.append(f"ms: median of single images, PyTorch threads: {source.threads}, {source.hardware}")
    return "; ".join(parts) + "."


def _cells(evaluation: Evaluation, details: bool) -> list[list[str]]:
    """Return header and lines as text, without empty columns."""
    columns: dict[str, Callable[[Row], str]] = {
        "codec": _name,
        **(_video_rates() if evaluation.is_video else _image_rates(evaluation)),
        "mIoU": lambda row: _with_interval(row.miou, row.miou_low, row.miou_high),
        "pixel accuracy": lambda row: _number(row.pixel_accuracy, 3),
        "agreement": lambda row: _with_interval(row.agreement_miou, row.agreement_low, row.agreement_high),
        evaluation.provenance.perceptual or "LPIPS": lambda row: _number(row.lpips, 3),
        "PSNR (dB)": lambda row: _number(row.psnr_db, 2),
        _frechet_title(evaluation): lambda row: _number(row.frechet_distance, 2),
        "parameters": lambda row: _parameters(row.parameters),
    }
    if evaluation.is_video:
        columns |= _video_columns(evaluation.reference.flicker)
    if evaluation.provenance.channel is not None:
        columns["damaged"] = lambda row: _EMPTY if row.concealed_share is None else str(row.damaged_images)
        columns["lost"] = lambda row: _EMPTY if row.concealed_share is None else str(row.lost_images)
    if details:
        columns["payload KiB"] = lambda row: _number(_kib(row.payload_bytes), 2)
        columns["zero-order KiB"] = lambda row: _number(_kib(row.zero_order_bytes), 2)
        columns["encode (ms)"] = lambda row: _number(row.encode_ms, 1)
        columns["decode (ms)"] = lambda row: _number(row.decode_ms, 1)
    table = [[title, *(cell(row) for row in evaluation.rows)] for title, cell in columns.items()]
    filled = [column for column in table if any(cell != _EMPTY for cell in column[1:])]
    return [list(line) for line in zip(*filled, strict=True)]


def _image_rates(evaluation: Evaluation) -> dict[str, Callable[[Row], str]]:
    """Return the columns of the rate of images."""
    columns: dict[str, Callable[[Row], str]] = {"KiB": lambda row: _number(row.total_kib, 2)}
    if has_boxes(evaluation):
        columns["KiB without boxes"] = lambda row: _number(_kib(row.codestream_bytes), 2)
    return columns | {"bpp": lambda row: _number(row.bpp, 3)}


def has_boxes(evaluation: Evaluation) -> bool:
    """Return whether the files of a codec are in a container whose boxes take bytes."""
    return any(row.codestream_bytes not in (None, row.total_bytes) for row in evaluation.rows)


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


def _interval_note(evaluation: Evaluation) -> list[str]:
    """Return what the intervals in the table are, or why there are none."""
    shots = evaluation.provenance.shots
    if shots is None:
        return []
    if shots < FEWEST_SHOTS:
        return [f"all images are of {shots} shot{'s' * (shots != 1)}, so that no interval can be given"]
    return [f"[low, high]: {100 * COVERAGE:.0f} % interval by resampling the {shots} shots that the images are of"]


def _frechet_network(evaluation: Evaluation) -> str | None:
    """Return the name of the feature network of the Fréchet distances, which all rows share."""
    return next((row.frechet_network for row in evaluation.rows if row.frechet_network), None)


def _frechet_title(evaluation: Evaluation) -> str:
    return "FID" if _frechet_network(evaluation) == FID_NETWORK else "Fréchet distance"


def _name(row: Row) -> str:
    if not row.over_budget_images:
        return row.label
    return f"{row.label} (over budget on {row.over_budget_images} of {row.image_count} images)"


def _kib(n_bytes: float | None) -> float | None:
    return None if n_bytes is None else kib(n_bytes)


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
=======
    note = caption(evaluation.provenance, evaluation.rows, details=details)
    table = "\n".join("  ".join(_padded(texts, widths)).rstrip() for texts in [header, rule, *lines])
    return f"{table}\n\n{textwrap.fill(note, max(80, sum(widths)))}\n"
>>>>>>> main


def _widths(lines: Sequence[Sequence[str]]) -> list[int]:
    return [max(len(cell) for cell in column) for column in zip(*lines, strict=True)]


def _padded(texts: Sequence[str], widths: Sequence[int]) -> list[str]:
    """Return the cells padded to their widths: the first column is left-aligned, numbers are right-aligned."""
    return [texts[0].ljust(widths[0]), *(text.rjust(width) for text, width in zip(texts[1:], widths[1:], strict=True))]
