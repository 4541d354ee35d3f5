"""Modules of version 0.1's `gosvae.link` under their old names, until version 0.4.

`gosvae.link.sources` stands for `gosvae.sender.sources`, and so on. The use of a name warns; the import of an old
module alone does not.
"""

from __future__ import annotations

import sys
import warnings
from importlib import import_module
from types import ModuleType
from typing import Any

MOVED = {
    "": ("packets", "receiver.udp", "sender.udp"),
    "board": ("receiver.page.board",),
    "class_maps": ("protocol.class_maps",),
    "client": ("sender.client",),
    "engine": ("receiver.engine",),
    "inlet": ("packets.inlet",),
    "messages": ("protocol.messages",),
    "metrics": ("receiver.metrics",),
    "packets": ("packets.packet",),
    "perception": ("receiver.perception",),
    "protection": ("packets.protection",),
    "reassembly": ("packets.reassembly",),
    "receiver": ("receiver.receiver",),
    "recovery": ("packets.recovery",),
    "security": ("protocol.security",),
    "sender": ("sender.sender",),
    "service": ("receiver.service",),
    "session": ("receiver.session",),
    "sources": ("sender.sources",),
    "transmitter": ("sender.transmitter",),
    "udp": ("receiver.udp", "sender.udp"),
    "web": ("receiver.page.web",),
}
"""Modules below `gosvae` that hold the names of an old module; the empty name is `gosvae.link` itself."""


def _find(old: str, name: str) -> Any:
    """Return a name of an old module from its new place, with a warning at the caller of the caller."""
    own = f"{__name__}.{old}".rstrip(".")
    if not name.startswith("__"):
        for place in MOVED[old]:
            module = import_module(f"gosvae.{place}")
            if hasattr(module, name):
                text = f"{own}.{name} is in {module.__name__}; the old name ends with gosvae 0.4"
                warnings.warn(text, DeprecationWarning, stacklevel=3)
                return getattr(module, name)
    raise AttributeError(f"module {own!r} has no attribute {name!r}")


class _Old(ModuleType):
    def __getattr__(self, name: str) -> Any:
        return _find(self.__name__.rpartition(".")[2], name)


def __getattr__(name: str) -> Any:
    return _find("", name)


for _name in filter(None, MOVED):
    globals()[_name] = sys.modules[f"{__name__}.{_name}"] = _Old(f"{__name__}.{_name}")
