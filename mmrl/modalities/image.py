"""Images of any mode -> upright RGB arrays."""

from __future__ import annotations

import hashlib
import io
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageFilter, ImageOps, UnidentifiedImageError
from pydantic import Field

from mmrl.errors import MediaError, one_line
from mmrl.frame import PICTURE_FORMATS, Frame, Turn
from mmrl.modalities import decode_worker
from mmrl.modalities import options as opts
from mmrl.modalities.source import resolve
from mmrl.types import Media, MediaRef

Pixels = npt.NDArray[np.uint8]


class Options(opts.Options):
    crop: tuple[int, int, int, int] | None = Field(
        None, description="x0, y0, x1, y1 in source pixels, upright"
    )
    size: tuple[int, int] | None = Field(None, description="width, height to scale to")
    min_pixels: int | None = Field(None, gt=0, description="smaller pictures are scaled up")
    max_pixels: int | None = Field(None, gt=0, description="larger pictures are scaled down")
    max_source_pixels: int = Field(
        64_000_000, gt=0, description="refused as a decompression bomb above, before decoding"
    )
    turn: Turn | None = Field(None, description="rotate or flip, after the crop")
    noise: float = Field(0.0, ge=0, description="sigma of Gaussian noise, in levels of 0-255")
    blur: float = Field(0.0, ge=0, description="sigma of Gaussian blur, in pixels, before noise")
    max_aspect_ratio: float = Field(
        200.0, ge=1, description="longer side over shorter; above it no model sees anything"
    )


def decode(ref: MediaRef) -> Media:
    """Read an image upright as RGB uint8 [H, W, 3].

    EXIF rotation is applied, transparency is laid over white, greys of more bits or of floating
    point are scaled by `levels`; the Frame's `reader` says from which range. Raises
    MediaError for a missing, unreadable, truncated, oversized or thread-like picture.
    """
    return read(ref, opts.of(ref, Options))


def read(ref: MediaRef, options: Options) -> Media:
    """Decode with options that are known to be valid; the Frame remembers the crop and the turn."""
    arguments = options.model_dump(mode="json", include=set(Options.model_fields))
    header, (array,) = decode_worker.run(
        f"{__name__}:read_picture", resolve(ref, options), arguments, options.timeout_seconds
    )
    frame = Frame(
        source_size=tuple(header["size"]),
        crop=options.crop,
        turn=options.turn,
        reader=header["reader"],
    )
    return Media(ref.kind, array, frame, pixel_hash(array))


def read_picture(source: Path | bytes, arguments: Mapping[str, Any]) -> decode_worker.Decoded:
    """Decode, crop, turn and scale a picture to RGB [H, W, 3]; runs in a decoding child."""
    options = Options.model_validate(arguments)
    image, said = _upright_rgb(source, options.max_source_pixels)
    header = {"size": image.size, "reader": said}
    if options.crop is not None:
        image = _cropped(image, options.crop)
    width, height = image.size
    if max(width, height) > options.max_aspect_ratio * min(width, height):
        raise MediaError(
            f"image of {width} x {height} pixels is over max_aspect_ratio="
            f"{options.max_aspect_ratio:g}"
        )
    if options.turn is not None:
        image = image.transpose(_TRANSPOSE[options.turn])
    image = _scaled(image, options)
    if options.blur:
        image = image.filter(ImageFilter.GaussianBlur(options.blur))
    array: Pixels = np.array(image)
    if options.noise:
        array = _noisy(array, options.noise)
    return header, [array]


def pixel_hash(array: Pixels) -> str:
    """A hash of pixels [H, W, 3]: equal pictures share features however they were stored."""
    made = hashlib.sha256(repr((array.shape, "image")).encode())
    made.update(np.ascontiguousarray(array).data)
    return made.hexdigest()


def _cropped(image: Image.Image, crop: tuple[int, int, int, int]) -> Image.Image:
    x0, y0, x1, y1 = crop
    if not (0 <= x0 < x1 <= image.width and 0 <= y0 < y1 <= image.height):
        raise MediaError(f"crop {crop} is not inside {image.width} x {image.height} pixels")
    return image.crop(crop)


_TRANSPOSE: dict[Turn, Image.Transpose] = {
    "rotate_90_cw": Image.Transpose.ROTATE_270,  # Pillow counts counter-clockwise
    "rotate_90_ccw": Image.Transpose.ROTATE_90,
    "rotate_180": Image.Transpose.ROTATE_180,
    "mirror": Image.Transpose.FLIP_LEFT_RIGHT,
    "upside_down": Image.Transpose.FLIP_TOP_BOTTOM,
    "mirror_180": Image.Transpose.ROTATE_180,
}


def _noisy(array: Pixels, sigma: float) -> Pixels:
    """Add Gaussian noise that is the same for the same pixels."""
    seed = int(pixel_hash(array)[:16], 16)
    noise = np.random.default_rng(seed).normal(0.0, sigma, array.shape)
    noisy: Pixels = np.clip(np.round(array + noise), 0, 255).astype(np.uint8)
    return noisy


def _scaled(image: Image.Image, options: Options) -> Image.Image:
    """Scale to the options' size or pixel budget; the model's processor scales again."""
    pixels = image.width * image.height
    wanted = max(min(pixels, options.max_pixels or pixels), options.min_pixels or 0)
    scale = (wanted / pixels) ** 0.5
    size = options.size or (max(1, int(image.width * scale)), max(1, int(image.height * scale)))
    return image if size == image.size else image.resize(size, Image.Resampling.BICUBIC)


def _upright_rgb(source: Path | bytes, max_pixels: int) -> tuple[Image.Image, str]:
    file = io.BytesIO(source) if isinstance(source, bytes) else source
    try:
        with Image.open(file, formats=PICTURE_FORMATS) as opened:
            width, height = opened.size
            if width * height > max_pixels:
                raise MediaError(f"image of {width} x {height} pixels is over {max_pixels}")
            opened.load()
            return _to_rgb(ImageOps.exif_transpose(opened))
    except UnidentifiedImageError:
        formats = ", ".join(PICTURE_FORMATS)
        raise MediaError(f"not a readable image: it is in none of {formats}") from None
    except Image.DecompressionBombError as error:
        raise MediaError(f"not a readable image: {error}") from None
    except MediaError:
        raise
    except Exception as error:  # Pillow's decoders raise anything on damaged data
        raise MediaError(f"damaged image: {one_line(error)}") from None


_BITS = (8, 10, 12, 14, 16)
_BEYOND = 0.25
"""How far resampling and rounding may carry greys beyond 0 to 1, or -1 to 1; that is cut off."""


def levels(grey: npt.NDArray[np.float64], floating: bool) -> tuple[Pixels, str]:
    """Greys [H, W] of more than 8 bits, or of floating point, as 0-255; also their range.

    No file says how far its greys reach, so the least of these that holds them counts: of floating
    point 0 to 1, then -1 to 1; else 8, 10, 12, 14 or 16 bits; else from the least to the largest.
    """
    low, high = float(grey.min(initial=0)), float(grey.max(initial=0))
    if not math.isfinite(low + high):
        raise MediaError("greys that are not finite")
    if floating and low >= -_BEYOND * high and high <= 1 + _BEYOND:
        first, last = 0.0, 1.0
    elif floating and low >= -1 - _BEYOND and high <= 1 + _BEYOND:
        first, last = -1.0, 1.0
    elif low < 0 or high >= 1 << _BITS[-1]:
        first, last = low, high
    else:
        first, last = 0.0, float((1 << next(b for b in _BITS if high < 1 << b)) - 1)
    scaled = np.clip((grey - first) * (255.0 / ((last - first) or 1.0)), 0, 255)
    return scaled.round().astype(np.uint8), f"greys from {first:g} to {last:g}"


def _to_rgb(image: Image.Image) -> tuple[Image.Image, str]:
    """The picture in RGB, and which range its greys were taken to be in, if that is a guess."""
    said = ""
    if image.mode.startswith("I;16") or image.mode in ("I", "F"):
        grey, said = levels(np.asarray(image, dtype=np.float64), image.mode == "F")
        image = Image.fromarray(grey)
    if image.mode in ("LA", "PA", "RGBA") or "transparency" in image.info:
        layered = image.convert("RGBA")
        white = Image.new("RGBA", layered.size, (255, 255, 255, 255))
        image = Image.alpha_composite(white, layered)
    return image.convert("RGB"), said
