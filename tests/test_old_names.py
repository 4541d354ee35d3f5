"""Modules of version 0.1's `gosvae.link` under their old names."""

from __future__ import annotations

import subprocess
import sys
from importlib import import_module

import pytest

import gosvae
from gosvae import link
from gosvae.sender.sources import open_source


def test_an_old_module_warns_and_gives_what_the_new_one_has() -> None:
    old = import_module("gosvae.link.sources")
    with pytest.warns(
        DeprecationWarning, match=r"open_source is in gosvae\.sender\.sources; .* ends with gosvae 0\.4"
    ) as seen:
        assert old.open_source is open_source
    assert seen[0].filename == __file__
    with pytest.warns(DeprecationWarning, match=r"gosvae\.link\.packetise is in gosvae\.packets;"):
        assert link.packetise is gosvae.packetise
    with pytest.warns(DeprecationWarning, match=r"gosvae\.link\.udp\.UdpSender is in gosvae\.sender\.udp;"):
        assert import_module("gosvae.link.udp").UdpSender is gosvae.UdpSender
    for module in (old, link):
        with pytest.raises(AttributeError, match="has no attribute 'nothing'"):
            module.nothing  # noqa: B018


def test_every_old_module_has_its_new_ones() -> None:
    for old, places in link.MOVED.items():
        import_module(f"gosvae.link.{old}".rstrip("."))
        for place in places:
            import_module(f"gosvae.{place}")


def test_the_statements_of_programs() -> None:
    program = "from gosvae.link.sources import open_source; import gosvae.link.engine as e; print(e.Engine.__module__)"
    command = [sys.executable, "-W", "default", "-c", program]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert done.stdout == "gosvae.receiver.engine\n"
    assert done.stderr.count("DeprecationWarning") == 2
    assert "<string>:1: DeprecationWarning: gosvae.link.sources.open_source is in gosvae.sender.sources" in done.stderr
