"""How an evaluation shows in a notebook: a short repr, an HTML table, a data frame."""

from __future__ import annotations

import html
import sys
from types import ModuleType
from typing import Any

import pytest
from small_world import BlockCodec, RawCodec, run

from gosvae.errors import MissingDependencyError
from gosvae.evaluation import CodecEntry, Evaluation
from gosvae.evaluation.cells import caption


def evaluation(*more: str) -> Evaluation:
    entries = [CodecEntry(label, BlockCodec(4)) for label in ("<Block>", *more)]
    return run([*entries, CodecEntry("Raw", RawCodec())], keep_images=(0,))


def test_reprs_are_short() -> None:
    assert repr(evaluation()) == "Evaluation('scenes', 2 images, codecs: '<Block>', 'Raw')"
    assert repr(evaluation("b", "c")) == "Evaluation('scenes', 2 images, codecs: '<Block>', 'b', 'c', ...)"
    kept = evaluation().kept[0]
    assert repr(kept) == "KeptImage('scene-0', 2 reconstructions)"
    assert repr(kept.reconstructions[1]) == f"Reconstruction('Raw', 'scene-0', {4 + 16 * 24 * 3} bytes)"


def test_a_notebook_shows_the_table_with_names_escaped() -> None:
    made = evaluation()
    shown = made._repr_html_()
    assert shown.count("<tr>") == 4
    assert "&lt;Block&gt;" in shown
    assert "<Block>" not in shown
    assert html.escape(caption(made.provenance, made.rows)) in shown


def test_rows_become_a_data_frame(monkeypatch: pytest.MonkeyPatch) -> None:
    frames: list[list[dict[str, Any]]] = []
    pandas = ModuleType("pandas")
    pandas.DataFrame = frames.append  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "pandas", pandas)
    made = evaluation()
    made.to_frame()
    made.to_frame(images=True)
    assert [row["label"] for row in frames[0]] == ["uncompressed", "<Block>", "Raw"]
    assert frames[0][1]["total_bytes"] == made.rows[1].total_bytes
    assert [(row["image"], row["label"]) for row in frames[1]] == [(row.image, row.label) for row in made.images]


def test_a_data_frame_without_pandas_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pandas", None)
    with pytest.raises(MissingDependencyError, match="pip install pandas"):
        evaluation().to_frame()
