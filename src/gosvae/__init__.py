"""gosvae: a goal-oriented image codec. It sends what a perception model needs, in a fraction of the bytes.

>>> import gosvae
>>> codec = gosvae.load_codec()
>>> data = codec.compress(gosvae.read_image("photo.jpg"))
>>> gosvae.write_image("seen.png", codec.decompress(data))

Names are loaded at their first use, so that importing the package costs nothing.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from gosvae.codecs.base import ImageCodec
    from gosvae.codecs.registry import load_codec
    from gosvae.datasets.mixture import load_prepared
    from gosvae.errors import GosvaeError
    from gosvae.evaluation.protocol import CodecEntry, evaluate
    from gosvae.experts.base import Expert
    from gosvae.experts.registry import load_expert
    from gosvae.images import read_image, write_image
    from gosvae.recipes.run import train

_HOMES = {
    "CodecEntry": "gosvae.evaluation.protocol",
    "Expert": "gosvae.experts.base",
    "GosvaeError": "gosvae.errors",
    "ImageCodec": "gosvae.codecs.base",
    "evaluate": "gosvae.evaluation.protocol",
    "load_codec": "gosvae.codecs.registry",
    "load_expert": "gosvae.experts.registry",
    "load_prepared": "gosvae.datasets.mixture",
    "read_image": "gosvae.images",
    "train": "gosvae.recipes.run",
    "write_image": "gosvae.images",
}

__version__ = "0.1.0"
__all__ = [
    "CodecEntry",
    "Expert",
    "GosvaeError",
    "ImageCodec",
    "__version__",
    "evaluate",
    "load_codec",
    "load_expert",
    "load_prepared",
    "read_image",
    "train",
    "write_image",
]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'gosvae' has no attribute {name!r}")
    return getattr(import_module(_HOMES[name]), name)
