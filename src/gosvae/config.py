"""Strict configuration: unknown keys and impossible values are one-line errors, and `a.b=c` overrides any value.

A configuration is a frozen pydantic model, nested beside the class that it configures. YAML and JSON files hold the
same tree.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, TypeVar

import yaml
from pydantic import BaseModel, ConfigDict, ValidationError

from gosvae.errors import ConfigError, unknown_name


class Config(BaseModel):
    """Base of all configurations: frozen, no unknown keys, no silent conversions of type."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


C = TypeVar("C", bound=Config)


def _fields_at(config_type: Any, path: tuple[Any, ...]) -> list[str]:
    """Names of the fields that a configuration type knows at a path, as far as its types can be followed."""
    current: Any = config_type
    for part in path:
        fields = getattr(current, "model_fields", None)
        if fields is not None and part in fields:
            current = fields[part].annotation
        candidates = [a for a in [current, *getattr(current, "__args__", ())] if hasattr(a, "model_fields")]
        current = candidates[0] if candidates else current
    return list(getattr(current, "model_fields", {}))


def parse(config_type: type[C], tree: Any, *, source: str = "configuration") -> C:
    """Build a configuration from plain dictionaries and lists.

    Raises:
        ConfigError: naming the key, what was given, what was expected, and for an unknown key the nearest known one.
    """
    if not isinstance(tree, dict):
        raise ConfigError(f"{source}: expected a mapping of keys to values, got {type(tree).__name__}")
    try:
        return config_type.model_validate(tree)
    except ValidationError as error:
        first = error.errors()[0]
        path = tuple(first["loc"])
        where = ".".join(str(part) for part in path)
        if first["type"] == "extra_forbidden":
            known = _fields_at(config_type, path[:-1])
            raise ConfigError(f"{source}: {unknown_name('key', where.split('.')[-1], known)} at {where!r}") from None
        message = first["msg"].removeprefix("Value error, ")
        given = "" if first["type"] == "missing" else f", got {str(first['input'])[:80]!r}"
        raise ConfigError(f"{source}: {where or 'the whole'}: {message}{given}") from None


def to_tree(config: Config) -> dict[str, Any]:
    """The configuration as plain values, ready for JSON."""
    return config.model_dump(mode="json")


def load_yaml(path: Path) -> Any:
    """Read a YAML (or JSON) file.

    Raises:
        ConfigError: the file is missing or is not YAML.
    """
    try:
        return yaml.safe_load(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigError(f"cannot read {path}: {error.strerror}") from None
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path} is not valid YAML: {str(error).splitlines()[0]}") from None


def apply_overrides(tree: dict[str, Any], overrides: list[str]) -> dict[str, Any]:
    """Apply `a.b.0.c=value` overrides (YAML values) to a tree and return the new tree; the given one is unchanged.

    Raises:
        ConfigError: an override without `=`, an index out of range, or a path through a plain value.
    """
    result: dict[str, Any] = yaml.safe_load(yaml.safe_dump(tree))
    for override in overrides:
        key, separator, text = override.partition("=")
        if not separator or not key:
            raise ConfigError(f"--set {override!r}: expected key=value, for example --set model.stride=8")
        parts = key.split(".")
        node: Any = result
        for depth, part in enumerate(parts):
            last = depth == len(parts) - 1
            if isinstance(node, list):
                if not part.isdigit() or int(part) >= len(node):
                    raise ConfigError(f"--set {key}: {part!r} is not an index below {len(node)}")
                position: Any = int(part)
            elif isinstance(node, dict):
                position = part
            else:
                raise ConfigError(f"--set {key}: {'.'.join(parts[:depth])!r} is a value, it has no keys")
            if last:
                try:
                    node[position] = yaml.safe_load(text)
                except yaml.YAMLError:
                    raise ConfigError(f"--set {key}: {text!r} is not a YAML value") from None
            elif isinstance(node, dict):
                node = node.setdefault(position, {})
            else:
                node = node[position]
    return result
