"""Quantizers of other packages or of a Python file (see `gosvae.plugins`), by a name and never by a path.

The configuration of a codec travels with its checkpoint, so that it must not say which file is run. It holds a name;
which class the name stands for is decided by the packages that are installed and by the environment.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any, ClassVar, Literal

from pydantic import Field, JsonValue

from gosvae.config import Config
from gosvae.errors import ConfigError
from gosvae.plugins import find_plugin, made_by
from gosvae.quantizers.base import Quantizer

QUANTIZERS_VARIABLE = "GOSVAE_QUANTIZERS"
"""Name of the environment variable with quantizers as `FILE.py:NAME`, separated by commas."""


class PluginConfig(Config):
    """Configuration of a quantizer that is not part of this package.

    Attributes:
        source: name of an entry point `gosvae.quantizers`, or of a class or function that the environment's
            GOSVAE_QUANTIZERS names as `FILE.py:NAME`.
        options: keyword arguments that it is called with.
    """

    neutral: ClassVar[Mapping[str, Any]] = {"kind": "plugin", "options": {}}

    kind: Literal["plugin"] = "plugin"
    source: str = Field(pattern=r"^[A-Za-z_][A-Za-z0-9_-]*$", max_length=100)
    options: dict[str, JsonValue] = Field(default_factory=dict)


def build_plugin(config: PluginConfig, most_codes: int) -> Quantizer:
    """Return the quantizer that a plugin makes.

    Args:
        config: name and options.
        most_codes: largest possible number of codes.

    Raises:
        ConfigError: the name stands for nothing here, or the plugin fails or makes no usable quantizer.
    """
    name = config.source
    plugin = _named_by_environment(name) or find_plugin("quantizers", name)
    if plugin is None:
        raise ConfigError(
            f"quantizer {name!r} is part of no installed package: if you trust its code, set "
            f"{QUANTIZERS_VARIABLE}=FILE.py:{name} (no model's file can name the code that is run)"
        )
    quantizer: Quantizer = made_by(lambda: plugin[0](**config.options), name, Quantizer)
    size, channels = (getattr(quantizer, field, None) for field in ("codebook_size", "code_dim"))
    if not (isinstance(size, int) and isinstance(channels, int) and 2 <= size <= most_codes and channels >= 1):
        raise ConfigError(
            f"plugin {name!r} makes a quantizer with codebook_size={size} and code_dim={channels}; expected 2 to "
            f"{most_codes} codes and at least 1 channel"
        )
    return quantizer


def _named_by_environment(name: str) -> tuple[Any, str] | None:
    for spec in filter(None, (part.strip() for part in os.environ.get(QUANTIZERS_VARIABLE, "").split(","))):
        file, separator, found = spec.rpartition(":")
        if not (separator and file.endswith(".py")):
            raise ConfigError(f"the environment's {QUANTIZERS_VARIABLE} has {spec!r}; expected FILE.py:NAME")
        if found == name:
            return find_plugin("quantizers", spec)
    return None
