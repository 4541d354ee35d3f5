"""Recipes and names of strangers: one line for whatever stands in a file, and no name is a path or markup."""

from __future__ import annotations

from io import BytesIO
from pathlib import Path

import pytest
from PIL import Image

from gosvae.config import apply_overrides, load_yaml
from gosvae.errors import ConfigError, ImageError
from gosvae.evaluation.plots import in_plot
from gosvae.evaluation.tables import in_markdown
from gosvae.images import READ_FORMATS, read_image
from gosvae.recipes import load_recipe

BOMB = "a: &a [x, x, x, x, x, x, x, x, x]\n" + "".join(
    f"{key}: &{key} [{', '.join([f'*{before}'] * 9)}]\n" for before, key in zip("abcdefgh", "bcdefghi", strict=True)
)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a: &a [*a]", "alias"),
        (BOMB, "alias"),
        ("a: &a {b: 1}\nc:\n  <<: *a", "alias"),
        ("[" * 50_000, "nested more than 100 deep"),
        ("{a: " * 50_000, "nested more than 100 deep"),
        ("a: 2020-02-31", "not valid YAML"),
        ("a: " + "9" * 100_000, "not valid YAML"),
        ("a: " + "x" * 2**20, "more than 1048576 bytes"),
    ],
    ids=["self", "bomb", "merge", "lists", "mappings", "date", "number", "large"],
)
def test_yaml_is_refused_in_one_line(text: str, message: str, tmp_path: Path) -> None:
    path = tmp_path / "recipe.yaml"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(ConfigError, match=message) as caught:
        load_yaml(path)
    assert len(str(caught.value).splitlines()) == 1
    assert len(str(caught.value)) < 1000


@pytest.mark.parametrize("value", ["&a [*a]", "[" * 5000, "2020-02-31"])
def test_overrides_are_as_strict(value: str) -> None:
    with pytest.raises(ConfigError, match="is not a YAML value"):
        apply_overrides({}, [f"a={value}"])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ("name=../../x", "name"),
        ("name=/a/b", "name"),
        ('name="a\\nb"', "name"),
        ("kind=[]", "kind"),
        ("model.autoencoder.width=20000", "width"),
        ("model.autoencoder.blocks=100000", "blocks"),
    ],
)
def test_recipes_have_bounds(change: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        load_recipe("gosvae", [change])


@pytest.mark.parametrize("name", ["net.pt2", "net.pt", "~/net.ts", "plugin.py:make"])
def test_a_recipe_names_no_program(name: str) -> None:
    with pytest.raises(ConfigError, match="names no program"):
        load_recipe("gosvae-variable", [f"more_experts=[{name}]"])


def test_names_are_shown_as_they_are() -> None:
    assert in_markdown("a|b <img> `c` [d](e)") == r"a\|b \<img\> \`c\` \[d\](e)"
    assert in_markdown("a\nb\x1b[31m") == r"a\\nb\\x1b\[31m"
    assert in_plot("cost $x\n") == r"cost \$x\n"


@pytest.mark.parametrize("image_format", ["EPS", "PCX", "TGA", "ICO", "SGI"])
def test_other_formats_of_pillow_are_not_tried(image_format: str) -> None:
    stream = BytesIO()
    Image.new("RGB", (16, 16)).save(stream, format=image_format)
    with pytest.raises(ImageError, match="is not an image that can be read"):
        read_image(BytesIO(stream.getvalue()))
    assert image_format not in READ_FORMATS
