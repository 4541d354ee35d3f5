"""One string names any expert."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from experts.tiny_models import TinySegmenter, save_tiny_transformer, save_tiny_unet, write_card
from gosvae.errors import ExpertError
from gosvae.experts import registry
from gosvae.experts.base import NetworkExpert
from gosvae.experts.exported import ExportedExpert
from gosvae.experts.huggingface import HuggingFaceExpert
from gosvae.experts.registry import EXPERTS, embedded_experts, load_expert, load_task_expert


def test_a_transformers_folder_by_path_and_by_prefix(tmp_path: Path) -> None:
    pytest.importorskip("transformers", reason="needs gosvae[huggingface]")
    save_tiny_transformer("segformer", tmp_path)
    by_path, by_prefix = load_expert(str(tmp_path)), load_expert(f"hf:{tmp_path}")
    assert isinstance(by_path, HuggingFaceExpert)
    assert by_path.fingerprint() == by_prefix.fingerprint()


def test_an_exported_file(tmp_path: Path) -> None:
    path = tmp_path / "net.pt2"
    torch.export.save(torch.export.export(TinySegmenter().eval(), (torch.rand(1, 3, 32, 64),)), path)
    write_card(path)
    assert isinstance(load_expert(path, trust=True), ExportedExpert)


def test_the_embedded_expert_is_an_expert_or_says_that_it_is_missing() -> None:
    try:
        expert = load_expert("embedded")
    except ExpertError as error:
        assert "has no embedded expert" in str(error)  # noqa: PT017 - either outcome is complete.
    else:
        assert isinstance(expert, NetworkExpert)
        assert load_expert("expert-camvid").fingerprint() == expert.fingerprint()


def test_experts_of_the_package_by_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(registry, "_models_folder", lambda: tmp_path)
    assert embedded_experts() == []
    with pytest.raises(ExpertError, match=r"NAME \(none is installed\)"):
        load_expert("expert-unet-camvid")
    save_tiny_unet(tmp_path / "expert-unet-camvid")
    for name, text in {"codec": '{"kind": "codec"}', "broken": "{", "list": "[]"}.items():
        (tmp_path / name).mkdir()
        (tmp_path / name / "config.json").write_text(text)
    assert embedded_experts() == ["expert-unet-camvid"]
    expert = load_expert("expert-unet-camvid")
    assert expert.info.source == "expert-unet-camvid"
    assert expert.fingerprint() == load_expert(tmp_path / "expert-unet-camvid").fingerprint()
    for spec in ("codec", "expert-unet-camvit"):
        with pytest.raises(ExpertError, match=r"NAME \(expert-unet-camvid\)") as caught:
            load_expert(spec)
        assert "\n" not in str(caught.value)


def test_what_names_no_expert(tmp_path: Path) -> None:
    for spec in ("", "embeded", str(tmp_path / "absent")):
        with pytest.raises(ExpertError) as caught:
            load_expert(spec)
        assert all(way in str(caught.value) for way in EXPERTS)
    with pytest.raises(ExpertError, match=r"no file or folder 'embeded' \(did you mean embedded\?\)"):
        load_expert("embeded")
    with pytest.raises(ExpertError, match=r"did you mean hf:shi-labs/oneformer\?"):
        load_expert("shi-labs/oneformer")


def test_folders_that_hold_no_expert(tmp_path: Path) -> None:
    with pytest.raises(ExpertError, match=r"cannot read config\.json"):
        load_expert(str(tmp_path))
    config = tmp_path / "config.json"
    config.write_text("{")
    with pytest.raises(ExpertError, match="not valid JSON"):
        load_expert(str(tmp_path))
    for tree in ({"kind": "codec"}, ["expert"]):
        config.write_text(json.dumps(tree))
        with pytest.raises(ExpertError, match="describes no expert"):
            load_expert(str(tmp_path))
    config.write_text('{"kind": "expert"}')
    with pytest.raises(ExpertError, match=r"weights\.safetensors is missing"):
        load_expert(str(tmp_path))


@pytest.mark.parametrize("name", ["~no-such-user/net", "~no-such-user/net.pt2", "hf:~no-such-user/net"])
def test_a_home_folder_that_does_not_exist_is_refused_in_one_line(name: str) -> None:
    if name.startswith("hf:"):
        pytest.importorskip("transformers", reason="needs gosvae[huggingface]")
    with pytest.raises(ExpertError) as error:
        load_expert(name)
    assert "\n" not in str(error.value)


def test_a_weight_where_none_is_taken_is_named(tmp_path: Path) -> None:
    (tmp_path / "net.onnx").write_bytes(b"")
    for text, weight in (("embedded:0.5", "0.5"), (f"{tmp_path}/net.onnx:2", "2")):
        with pytest.raises(ExpertError, match=rf"only a training takes a weight: leave out :{weight}\)"):
            load_task_expert(text)
    with pytest.raises(ExpertError) as caught:
        load_task_expert(f"{tmp_path}/other.onnx:2")
    assert "takes a weight" not in str(caught.value)
