from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path

import pytest
from small_world import BlockCodec, Brightness, Distance, curve_entries, run

from gosvae.errors import ConfigError
from gosvae.evaluation import CodecEntry, load_evaluation, save_evaluation


def test_an_evaluation_comes_back_from_its_file_unchanged(tmp_path: Path) -> None:
    evaluation = run(curve_entries(), perceptual=Distance(), keep_images=[0])
    assert evaluation.rows[-1].psnr_db == math.inf
    save_evaluation(evaluation, str(tmp_path / "new"))
    for path in (tmp_path / "new", tmp_path / "new" / "evaluation.json", str(tmp_path / "new")):
        assert load_evaluation(path) == replace(evaluation, kept=())


def test_result_files_have_the_form_of_compressai(tmp_path: Path) -> None:
    paths = save_evaluation(run(curve_entries(), perceptual=Distance()), tmp_path)
    assert [path.name for path in paths] == ["evaluation.json", "block.json", "raw.json"]
    assert sorted(tmp_path.iterdir()) == sorted(paths)  # no temporary file is left

    def refuse(constant: str) -> None:
        raise AssertionError(f"{constant} is not JSON")

    block, raw = (json.loads(path.read_text(), parse_constant=refuse) for path in paths[1:])
    assert block["name"] == "Block"
    assert "scenes (2 images, 9x17 to 16x24)" in block["description"]
    assert {len(values) for values in block["results"].values()} == {3}
    assert block["results"]["bpp"] == sorted(block["results"]["bpp"])
    assert {"bpp", "psnr-rgb", "miou", "agreement-miou", "lpips (test)", "encoding_time"} <= block["results"].keys()
    assert "zero-order-bytes" not in block["results"]
    assert "psnr-rgb" not in raw["results"]  # its only point is infinite


def test_curves_with_names_that_make_one_file_name_get_two_files(tmp_path: Path) -> None:
    entries = [
        CodecEntry("GOS VAE", BlockCodec(4)),
        CodecEntry("gos-vae", BlockCodec(8)),
        CodecEntry("¿", BlockCodec(8)),
    ]
    names = [path.name for path in save_evaluation(run(entries), tmp_path)]
    assert names == ["evaluation.json", "gos-vae.json", "gos-vae-2.json", "codec.json"]


def test_provenance_says_what_is_needed_to_repeat_it() -> None:
    provenance = run(curve_entries(), sizes=[(16, 24)] * 2).provenance
    assert provenance.geometry == "16x24"
    assert provenance.expert_fingerprint == Brightness().freeze().fingerprint()
    assert provenance.perceptual is None
    assert {"python", "torch", "numpy"} <= provenance.versions.keys()
    assert "cores" in provenance.hardware
    assert provenance.threads >= 1


def test_other_files_are_refused_in_one_line(tmp_path: Path) -> None:
    file = tmp_path / "evaluation.json"
    with pytest.raises(ConfigError, match="cannot read"):
        load_evaluation(tmp_path)
    file.write_text("{")
    with pytest.raises(ConfigError, match="is not an evaluation"):
        load_evaluation(file)
    save_evaluation(run(curve_entries()), tmp_path)
    tree = json.loads(file.read_text())
    file.write_text(json.dumps({**tree, "schema": 99}))
    with pytest.raises(ConfigError, match="schema version 99"):
        load_evaluation(file)
    tree["rows"][0]["mIoU"] = 1.0
    file.write_text(json.dumps(tree))
    with pytest.raises(ConfigError, match=r"rows\.0\.mIoU"):
        load_evaluation(file)
