"""Strict configurations: an unknown key or an impossible value is a one-line error, and `a.b=c` overrides any value.

A configuration is a frozen pydantic model, nested beside the class that it configures. YAML and JSON files hold the
same tree.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, ClassVar, TypeVar

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, ValidationInfo, model_validator
from yaml.error import MarkedYAMLError

from gosvae.errors import ConfigError, unknown_name
from gosvae.files import MOST_DEPTH


class Config(BaseModel):
    """Base of all configurations: they are frozen, refuse unknown keys, and convert no value with a loss.

    Text that is a number counts as a number, since YAML reads `1e-3` (without a dot) as text.

    Attributes:
        neutral: Values that stay out of the identity of a stored model (`identity`), as plain values by field name.
            A field that is added to a released configuration needs an entry here, with the value that leaves old models
            as they are; entries are never changed or removed. The default of a field may change at any time.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    neutral: ClassVar[Mapping[str, Any]] = {}

    @model_validator(mode="before")
    @classmethod
    def _complete_stored(cls, tree: Any, info: ValidationInfo) -> Any:
        """Return the fields of a stored model's file; a field that it lacks gets its neutral value."""
        if info.context is _STORED and isinstance(tree, dict):
            return {**cls.neutral, **tree}
        return tree


MOST_CHANNELS = 4096
"""Largest number of channels of a layer, which bounds what the file of a stranger can ask for."""
MOST_BLOCKS = 64
"""Largest number of equal blocks of a network."""
Channels = Annotated[int, Field(ge=1, le=MOST_CHANNELS)]
"""Type of a number of channels."""
Blocks = Annotated[int, Field(ge=0, le=MOST_BLOCKS)]
"""Type of a number of blocks."""

Name = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9 ._+-]*$", max_length=100)]
"""Type of a name that folders are called by: it is no path."""

_STORED: dict[str, Any] = {}
"""Validation context of configurations that are read from the files of a stored model."""


C = TypeVar("C", bound=Config)


def _models_in(annotation: Any) -> list[type[BaseModel]]:
    """Return the configuration types in an annotation: the type itself, members of a union, items of a tuple."""
    candidates = [annotation, *getattr(annotation, "__args__", ())]
    return [a for a in candidates if isinstance(a, type) and issubclass(a, BaseModel)]


def _kind(model: type[BaseModel]) -> Any:
    """Return the `kind` that tells a member of a union from the others, or None."""
    field = model.model_fields.get("kind")
    return None if field is None else field.default


def _follow(config_type: type[BaseModel], path: tuple[Any, ...]) -> tuple[list[str], str]:
    """Return the fields known at a path of pydantic's, and the path without the kinds of unions, as users write it."""
    models, written = [config_type], []
    for part in path:
        fields = next((m.model_fields for m in models if part in m.model_fields), {})
        if part in fields:
            models = _models_in(fields[part].annotation)
        elif len(models) > 1 and any(part == _kind(m) for m in models):
            models = [m for m in models if part == _kind(m)]
            continue
        written.append(str(part))
    return sorted({name for m in models for name in m.model_fields}), ".".join(written)


def parse(config_type: type[C], tree: Any, *, source: str = "configuration", stored: bool = False) -> C:
    """Build a configuration from plain dictionaries and lists.

    Args:
        config_type: Type of the configuration.
        tree: Keys and values.
        source: Name of the origin in error messages.
        stored: Whether the tree comes from the files of a stored model. Fields that it lacks then get the neutral value
            of `Config.neutral` instead of the default, so that the files alone describe the model.

    Raises:
        ConfigError: a key is unknown or a value is impossible. The message names the key, the value that was given, and
            the values that are expected, or for an unknown key the nearest known one.
    """
    if not isinstance(tree, dict):
        raise ConfigError(f"{source}: expected a mapping of keys to values, got {type(tree).__name__}")
    try:
        return config_type.model_validate(tree, context=_STORED if stored else None)
    except ValidationError as error:
        first = error.errors()[0]
        path = tuple(first["loc"])
        where = _follow(config_type, path)[1]
        if first["type"] == "extra_forbidden":
            known = _follow(config_type, path[:-1])[0]
            raise ConfigError(f"{source}: {where}: {unknown_name('key', str(path[-1]), known)}") from None
        if first["type"] in ("union_tag_invalid", "union_tag_not_found"):
            kinds = first["ctx"].get("expected_tags", "").replace("'", "").split(", ")
            given = first["ctx"].get("tag")
            reason = unknown_name("kind", given, kinds) if given else "expected a mapping with a 'kind'"
            raise ConfigError(f"{source}: {where}: {reason}") from None
        message = first["msg"].removeprefix("Value error, ")
        given = "" if first["type"] == "missing" else f", got {str(first['input'])[:80]!r}"
        raise ConfigError(f"{source}: {where}: {message}{given}" if where else f"{source}: {message}") from None


def to_tree(config: Config) -> dict[str, Any]:
    """Return the configuration as plain values, ready for JSON."""
    return config.model_dump(mode="json")


def identity(config: Config) -> dict[str, Any]:
    """Return the fields that make up the identity of a stored model, as plain values.

    These are all fields, defaults included, without those that have their neutral value (`Config.neutral`). A nested
    configuration is left out where its own identity is the neutral one.
    """
    tree: dict[str, Any] = {}
    for name, plain in config.model_dump(mode="json").items():
        value = getattr(config, name)
        part = identity(value) if isinstance(value, Config) else plain
        if name not in config.neutral or part != config.neutral[name]:
            tree[name] = part
    return tree


MOST_YAML_BYTES = 2**20
"""Largest size of a YAML file that is read, in bytes."""


class _PlainLoader(yaml.SafeLoader):
    """Loader of plain trees: it refuses aliases, which let a few bytes stand for any amount, and deep nesting."""

    depth = 0

    def compose_node(self, parent: yaml.Node | None, index: int) -> yaml.Node | None:
        event = self.peek_event()  # type: ignore[no-untyped-call]
        if isinstance(event, yaml.AliasEvent):
            raise _refusal(f"the alias *{str(event.anchor)[:40]}: write the value out", event)
        if self.depth >= MOST_DEPTH:
            raise _refusal(f"nested more than {MOST_DEPTH} deep", event)
        self.depth += 1
        node: yaml.Node | None = super().compose_node(parent, index)
        self.depth -= 1
        return node


def _refusal(problem: str, event: Any) -> MarkedYAMLError:
    return MarkedYAMLError(problem=problem, problem_mark=event.start_mark)


def _plain(text: str) -> Any:
    """Return the tree in YAML text.

    Raises:
        yaml.YAMLError: the text is not YAML, or has aliases, or is nested too deeply.
        ValueError: a value is impossible, such as the 31st of February.
    """
    return yaml.load(text, _PlainLoader)


def load_yaml(path: Path) -> Any:
    """Read a YAML (or JSON) file. Aliases are refused.

    Raises:
        ConfigError: the file is missing, has more than `MOST_YAML_BYTES` bytes, or is not YAML.
    """
    try:
        with path.open("rb") as stream:
            data = stream.read(MOST_YAML_BYTES + 1)
        if len(data) > MOST_YAML_BYTES:
            raise ConfigError(f"{path} has more than {MOST_YAML_BYTES} bytes: it is no recipe")
        return _plain(data.decode("utf-8"))
    except OSError as error:
        raise ConfigError(f"cannot read {path}: {error.strerror}") from None
    except (yaml.YAMLError, ValueError) as error:
        mark = getattr(error, "problem_mark", None)
        line = "" if mark is None else f"line {mark.line + 1}: "
        reason = getattr(error, "problem", None) or str(error).splitlines()[0]
        raise ConfigError(f"{path} is not valid YAML: {line}{reason}") from None


def _copy(tree: Any) -> Any:
    """Return a copy of nested dictionaries and lists, so that a change does not reach the tree that was given."""
    if isinstance(tree, dict):
        return {key: _copy(value) for key, value in tree.items()}
    return [_copy(value) for value in tree] if isinstance(tree, list) else tree


def apply_overrides(tree: dict[str, Any], overrides: list[str]) -> dict[str, Any]:
    """Apply `a.b.0.c=value` overrides (YAML values) to a tree and return the new tree; the given one is unchanged.

    Raises:
        ConfigError: an override has no `=`, an index is out of range, or a path leads through a plain value.
    """
    result: dict[str, Any] = _copy(tree)
    for override in overrides:
        key, separator, text = override.partition("=")
        if not separator or not key:
            raise ConfigError(
                f"override {override!r}: expected key=value, for example stages.0.steps=100", argument="overrides"
            )
        parts = key.split(".")
        node: Any = result
        for depth, part in enumerate(parts):
            last = depth == len(parts) - 1
            if isinstance(node, list):
                if not part.isdigit() or int(part) >= len(node):
                    raise ConfigError(
                        f"override {key}: {part!r} is no position in the list: give 0 to {len(node) - 1}",
                        argument="overrides",
                    )
                position: Any = int(part)
            elif isinstance(node, dict):
                position = part
            else:
                raise ConfigError(
                    f"override {key}: {'.'.join(parts[:depth])!r} is a value, it has no keys", argument="overrides"
                )
            if last:
                try:
                    node[position] = _plain(text)
                except (yaml.YAMLError, ValueError):
                    raise ConfigError(f"override {key}: {text!r} is not a YAML value", argument="overrides") from None
            elif isinstance(node, dict):
                node = node.setdefault(position, {})
            else:
                node = node[position]
    return result
