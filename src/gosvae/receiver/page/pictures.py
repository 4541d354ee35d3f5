"""Reading and writing of the image files that the live page shows."""

from __future__ import annotations

import warnings
from io import BytesIO
from typing import Any

from PIL import Image

MOST_ORIGINAL_PIXELS = 2**22
"""Greatest number of pixels of an original that is shown."""


def picture_file(image: Image.Image, form: str, **options: Any) -> bytes:
    """Return the bytes of an image file in one of Pillow's formats."""
    stream = BytesIO()
    image.save(stream, format=form, **options)
    return stream.getvalue()


def read_original(data: bytes) -> Image.Image | None:
    """Return the original that a sender sent; None if it cannot be read or is too large.

    The page gets it encoded again, so that the bytes of a sender never reach a browser.
    """
    try:
        with warnings.catch_warnings(), Image.open(BytesIO(data), formats=["JPEG", "PNG", "WEBP"]) as image:
            warnings.simplefilter("ignore")
            if image.width * image.height > MOST_ORIGINAL_PIXELS:
                return None
            return image.convert("RGB")
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError):
        return None
