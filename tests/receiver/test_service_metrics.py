"""The metrics that the page on the service names, in tables and in rules for alerts, are those of a receiver."""

from __future__ import annotations

import re

from conftest import REPOSITORY
from gosvae.receiver.metrics import Metrics
from gosvae.receiver.receiver import Receiver, ReceiverConfig
from small_link import LOOPBACK, perception, run

SUFFIXES = ("_bucket", "_count", "_sum", "_total")


def test_every_metric_of_the_page_exists() -> None:
    async def test() -> None:
        async with Receiver(perception(), ReceiverConfig(grpc=LOOPBACK, udp=LOOPBACK)) as receiver:
            text = Metrics(receiver.engine, receiver.service, receiver.udp).render().decode()
            exist = {name.removesuffix("_total") for name in re.findall(r"^# TYPE (\w+)", text, re.MULTILINE)}
            page = (REPOSITORY / "docs" / "service.md").read_text(encoding="utf-8")
            named = set(re.findall(r"\bgosvae_\w+", page))
            assert len(named) > 10
            for name in named:
                base = next((name.removesuffix(suffix) for suffix in SUFFIXES if name.endswith(suffix)), name)
                assert {name, base} & exist, name

    run(test)
