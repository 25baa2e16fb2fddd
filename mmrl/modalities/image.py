"""Images of any mode -> upright RGB arrays."""

from __future__ import annotations

import hashlib
import io
import warnings
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from mmrl.errors import MediaError
from mmrl.types import Frame, Media, MediaRef

MAX_PIXELS = 64_000_000
"""Sources above this many pixels are refused as decompression bombs before they are decoded."""


def decode(ref: MediaRef) -> Media:
    """Read an image upright as RGB uint8 [H, W, 3].

    EXIF rotation is applied, transparency is laid over white, 16-bit greys are scaled to 8 bits.
    Raises MediaError for a missing, unreadable, truncated or oversized file.
    """
    with warnings.catch_warnings():
        # Pillow warns between one and two times its own limit; ours is checked from the header.
        warnings.simplefilter("ignore", Image.DecompressionBombWarning)
        image = _upright_rgb(ref.source)
    array = np.array(image)
    digest = hashlib.sha256(repr((array.shape, "image")).encode() + array.tobytes()).hexdigest()
    return Media(ref.kind, array, Frame(source_size=image.size), digest)


def _upright_rgb(source: Path | bytes) -> Image.Image:
    try:
        with Image.open(io.BytesIO(source) if isinstance(source, bytes) else source) as opened:
            width, height = opened.size
            if width * height > MAX_PIXELS:
                raise MediaError(f"image of {width} x {height} pixels is over {MAX_PIXELS}")
            opened.load()
            return _to_rgb(ImageOps.exif_transpose(opened))
    except FileNotFoundError:
        raise MediaError(f"no image at {source!s}") from None
    except (UnidentifiedImageError, Image.DecompressionBombError) as error:
        raise MediaError(f"not a readable image: {error}") from None
    except (OSError, SyntaxError, ValueError, EOFError) as error:
        # Pillow's decoders report damaged data through all of these.
        raise MediaError(f"damaged image: {error}") from None


def _to_rgb(image: Image.Image) -> Image.Image:
    if image.mode.startswith("I;16") or image.mode in ("I", "F"):
        grey = np.asarray(image, dtype=np.float64)
        scale = 257.0 if grey.max(initial=0) > 255 else 1.0
        image = Image.fromarray(np.clip(grey / scale, 0, 255).astype(np.uint8), mode="L")
    if image.mode in ("LA", "PA", "RGBA") or "transparency" in image.info:
        layered = image.convert("RGBA")
        white = Image.new("RGBA", layered.size, (255, 255, 255, 255))
        image = Image.alpha_composite(white, layered)
    return image.convert("RGB")
