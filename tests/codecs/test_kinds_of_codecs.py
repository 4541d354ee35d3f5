"""The records of the kinds: complete, and the only place that knows which options a kind has."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import get_args

import pytest

from gosvae.codecs.cards import CARDS
from gosvae.codecs.checkpoint import CodecCheckpoint
from gosvae.codecs.kinds import KINDS
from gosvae.codecs.registry import build_codec, load_codec, models_folder, option_names
from gosvae.codecs.slices import StreamOptions
from gosvae.entropy.ids import MARKED_MODELS
from gosvae.errors import ConfigError
from gosvae.recipes import RECIPE_KINDS
from tiny import checkpoint, scalar_checkpoint, variable_checkpoint
from tiny_gesco import gesco_checkpoint

MADE = {
    "codec": checkpoint(),
    "autoencoder": scalar_checkpoint(),
    "gesco": gesco_checkpoint(),
    "variable-rate": variable_checkpoint(),
}


def test_every_card_has_a_record_and_a_recipe() -> None:
    assert {kind: record.card for kind, record in KINDS.items()} == CARDS
    assert KINDS.keys() == MADE.keys() <= RECIPE_KINDS.keys()
    for kind, card in CARDS.items():
        assert get_args(card.model_fields["kind"].annotation) == (kind,)
    assert {record.context_id for record in KINDS.values()} - {None} == MARKED_MODELS.keys()


@pytest.mark.parametrize("made", MADE.values(), ids=MADE)
def test_a_kind_refuses_the_options_that_it_does_not_have(made: CodecCheckpoint) -> None:
    names = KINDS[made.card.kind].option_names
    requests = {"entropy": "fixed", "slices": 3, "layout": "interleaved", "version": 1, "effort": 5}
    for name, value in requests.items():
        options = StreamOptions(**{name: value})  # type: ignore[arg-type]
        if name in names:
            assert getattr(build_codec(made, options=options).options, name) == value  # type: ignore[attr-defined]
            continue
        with pytest.raises(ConfigError, match=f"'{made.card.name}' has no option {name}: "):
            build_codec(made, options=options)
    if "precision" not in names:
        with pytest.raises(ConfigError, match="has no option precision"):
            build_codec(made, precision="bf16")
    if "level" not in names:
        with pytest.raises(ConfigError, match="is fixed: leave out :9"):
            build_codec(made, rate="9")


def test_codecs_that_are_not_trained_have_no_options() -> None:
    assert option_names("avif:30") == option_names("label-map") == option_names("no-such-codec") == ()
    assert "effort" in option_names("gosvae-variable-camvid:1.5KiB")
    assert option_names("gosvae-camvid") == ("entropy", "slices", "layout", "version")
    for name in ("avif", "label-map"):
        with pytest.raises(ConfigError, match=f"'{name}' has no option slices: leave it out"):
            load_codec(name, options=StreamOptions(slices=2))


@pytest.mark.parametrize("spec", ["gosvae-camvid", "gosvae-variable-camvid", "label-map"])
def test_a_device_that_is_not_there_is_refused(spec: str) -> None:
    with pytest.raises(ConfigError, match="device 'cuda:99' cannot be used here"):
        load_codec(spec, device="cuda:99")


def test_checkpoint_folders_may_have_colons_in_their_names(tmp_path: Path) -> None:
    folder = tmp_path / "2026-11-30T04:15" / "mine"
    shutil.copytree(models_folder() / "gosvae-variable-camvid", folder)
    assert load_codec(f"{folder}:96").level == 96  # type: ignore[attr-defined]
    assert load_codec(folder).name == "gosvae-variable-camvid"
    assert load_codec(f"{folder}:1.5KiB").budget_bytes == 1536  # type: ignore[attr-defined]
    assert "effort" in option_names(f"{folder}:96")
    shutil.move(folder, tmp_path / "mine:7")
    assert load_codec(f"{tmp_path / 'mine:7'}").name == "gosvae-variable-camvid"
    assert load_codec(f"{tmp_path / 'mine:7'}:9").level == 9  # type: ignore[attr-defined]
    for spec in (folder, f"{folder}:96", "~no-such-user/mine", "~no-such-user:4"):
        with pytest.raises(ConfigError, match=r"no such checkpoint folder|not a checkpoint folder"):
            load_codec(spec)
