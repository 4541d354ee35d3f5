"""Mutated streams never crash a codec, nor hang it, nor take its memory, nor pass for another picture.

GOSVAE_FUZZ sets how many are tried; `scripts/fuzz.py` runs more and counts what becomes of them.
"""

from __future__ import annotations

import os
from random import Random

from fuzz_files import CLASSICAL, more_targets
from fuzz_targets import targets
from fuzzing import run_fuzz
from mutations import fields_of, mutate, write

from gosvae.bitstream import unpack_slices

COUNT = int(os.environ.get("GOSVAE_FUZZ", "5000"))


def test_mutated_streams_are_refused_or_are_streams() -> None:
    report = run_fuzz(COUNT)
    assert not report.findings, "\n".join(report.findings[:5])
    assert sum(report.outcomes.values()) == COUNT
    outcomes = {outcome for _, outcome in report.outcomes}
    if COUNT >= 1000:  # or the run would have shown little
        assert {"another valid stream", "intact again", "refused: foreign"} <= outcomes
        assert sum("refused" in outcome for outcome in outcomes) > 10
        assert report.salvaged > 0


def test_a_number_and_a_seed_always_make_the_same_mutant() -> None:
    own = targets()[0].streams
    mutants = [mutate(Random(f"7 {number}"), own, own) for number in range(200)]
    assert mutants == [mutate(Random(f"7 {number}"), own, own) for number in range(200)]
    assert len({mutant.data for mutant in mutants}) > 150
    assert len({mutant.kind for mutant in mutants}) == 10


def test_files_and_released_streams_are_attacked_too() -> None:
    names = {target.name for target in more_targets()}
    assert names == {"released", "sequence", "wrapped", *CLASSICAL}
    for target in more_targets():
        for number in range(30):
            mutate(Random(f"8 {number}"), target.streams, target.streams, target.forge)


def test_the_forger_knows_the_container() -> None:
    assert {target.name for target in targets()} >= {"vq", "autoencoder", "label-map", "gesco"}
    for target in targets():
        for data in target.streams:
            assert write(fields_of(unpack_slices(data))) == data
