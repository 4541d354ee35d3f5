"""The ids of entropy models: streams hold them, so they never change, and the pages name every one of them."""

from __future__ import annotations

import re
from pathlib import Path

from gosvae.entropy.adaptive import AdaptiveCounts
from gosvae.entropy.base import EntropyModel
from gosvae.entropy.channels import ChannelHistograms
from gosvae.entropy.context import ContextModel
from gosvae.entropy.fixed import FixedLength
from gosvae.entropy.ids import MARKED_MODELS, EntropyModelId
from gosvae.entropy.latent import LatentContextModel
from gosvae.entropy.static import StaticHistogram
from gosvae.entropy.temporal import TemporalContextModel, TemporalTables


def test_ids_are_those_of_released_streams() -> None:
    assert {member.name: int(member) for member in EntropyModelId} == {
        "FIXED_LENGTH": 0, "STATIC_HISTOGRAM": 1, "ADAPTIVE_COUNTS": 2, "CONTEXT": 3, "LATENT_CONTEXT": 4,
        "TEMPORAL_CONTEXT": 5, "TEMPORAL_TABLES": 6, "CHANNEL_HISTOGRAMS": 16, "LABEL_MAP": 32, "CLASS_MAP": 33,
        "CLASS_MAP_PASSES": 34, "AV1_STILL": 64,
    }  # fmt: skip
    assert f"{EntropyModelId.CONTEXT}, {[EntropyModelId.CONTEXT]}" == "3, [3]"


def test_every_model_has_its_id_and_its_line_in_the_format() -> None:
    models: tuple[type[EntropyModel] | type[ChannelHistograms], ...] = (
        *(FixedLength, StaticHistogram, AdaptiveCounts, ContextModel, LatentContextModel, ChannelHistograms),
        *(TemporalContextModel, TemporalTables),
    )
    maps = {EntropyModelId.LABEL_MAP, EntropyModelId.CLASS_MAP, EntropyModelId.CLASS_MAP_PASSES}
    others = {*maps, EntropyModelId.AV1_STILL}
    assert {model.model_id for model in models} | others == set(EntropyModelId)
    assert {model.model_id: model.name for model in (ContextModel, LatentContextModel)} == MARKED_MODELS
    page = (Path(__file__).resolve().parents[2] / "docs" / "bitstream.md").read_text(encoding="utf-8")
    section = page.split("## Entropy models")[1].split("##")[0]
    assert {int(number) for number in re.findall(r"^\| (\d+) \|", section, re.MULTILINE)} == set(EntropyModelId)
