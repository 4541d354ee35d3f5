"""Mutated datagrams never crash a receiver, nor take its memory, nor pass for what was not sent.

GOSVAE_FUZZ sets how many are tried; `scripts/fuzz.py --datagrams` runs more.
"""

from __future__ import annotations

import os
from random import Random

import pytest
from fuzz_datagrams import KEY, mutate_datagram, run_datagram_fuzz, run_receiver_fuzz, senders

COUNT = int(os.environ.get("GOSVAE_FUZZ", "5000"))


def test_mutated_datagrams_are_refused_or_genuine() -> None:
    report, counters = run_datagram_fuzz(COUNT)
    assert not report.findings, "\n".join(report.findings[:5])
    assert sum(n for (kind, _), n in report.outcomes.items() if kind != "frames") == COUNT
    if COUNT >= 4000:  # or the run would have shown little
        reached = {outcome for _, outcome in report.outcomes}
        assert reached >= {
            "refused",
            "genuine",
            "accepted forgery",
            "frame, drawn",
            "frame, refused",
            "opened",
            "not opened",
        }
        assert min(counters.values()) > 0, counters
        assert report.salvaged > 0


@pytest.mark.parametrize("key", [None, KEY])
def test_a_udp_receiver_takes_them_all(key: bytes | None) -> None:
    datagrams, frames = run_receiver_fuzz(1500, key=key)
    assert datagrams == 1500
    assert frames > 20


def test_a_number_and_a_seed_always_make_the_same_datagram() -> None:
    made = [[mutate_datagram(random, senders(random)) for random in (Random(n),)] for n in (1, 1, 2)]
    assert made[0] == made[1] != made[2]
