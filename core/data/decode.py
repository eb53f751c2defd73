"""Decode one picture from the bytes of an untrusted file to pixels of the requested format."""

from __future__ import annotations

import io
import warnings
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

Raw = bytes | np.ndarray
"""An encoded picture, or uint8 pixels ``(height, width)`` or ``(height, width, 3)``."""

FORMATS = ("PNG", "JPEG", "BMP", "GIF", "WEBP", "TIFF", "PPM")
SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp", ".gif", ".webp", ".tif", ".tiff", ".ppm", ".pgm", ".pbm")
MOST_PIXELS = 50_000_000
MOST_BYTES = 256_000_000
# Warnings about too many pixels, which raise an error below, and about damaged metadata. They are filtered at import
# because filters apply to the whole process and pictures are opened from several threads.
warnings.filterwarnings("ignore", module=r"PIL\.")
_GREY_MODES = ("1", "L", "LA", "La", "I", "I;16", "I;16B", "I;16L", "F")


class Unreadable(Exception):
    """An error that says why a single picture cannot be read."""


class ImageSpec(NamedTuple):
    """A pixel format for every picture of a set: the arguments of :func:`decode`, in the same order."""

    height: int
    width: int
    channels: int
    invert: bool


@dataclass(frozen=True)
class ImageHeader:
    """A picture's header: its size in pixels, and whether it is greyscale."""

    height: int
    width: int
    grey: bool


def read_header(raw: Raw) -> ImageHeader:
    """Read the header without decoding the pixels.

    Raises:
        Unreadable: the bytes are not a picture, or the picture is too large.
    """
    if isinstance(raw, np.ndarray):
        return ImageHeader(raw.shape[0], raw.shape[1], raw.ndim == 2)
    with _opened(raw) as picture:
        return ImageHeader(picture.height, picture.width, picture.mode in _GREY_MODES)


def decode(raw: Raw, height: int, width: int, channels: int, invert: bool = False, turn: int = 0) -> np.ndarray:
    """Return the pixels ``(height, width, channels)`` as uint8.

    A picture with a different aspect ratio is scaled to cover the size and centre-cropped. Transparency is composited
    on white, 16-bit grey is scaled to 8 bits, the EXIF orientation is applied, and only the first frame of an animation
    is used.

    Args:
        invert: Replace every value v by 255 - v.
        turn: Number of counter-clockwise quarter turns, applied last.

    Raises:
        Unreadable: the bytes are not a picture, are truncated, or the picture is too large.
    """
    if isinstance(raw, np.ndarray):
        picture: Image.Image = Image.fromarray(raw)
    else:
        try:
            with _opened(raw) as opened:
                opened.load()
                picture = ImageOps.exif_transpose(opened)
        except Unreadable:
            raise
        except Exception as error:  # Pillow's decoders raise arbitrary exceptions on damaged files
            raise Unreadable(f"damaged or cut short ({error})") from error
    picture = _plain_mode(picture).convert("L" if channels == 1 else "RGB")
    if picture.size != (width, height):
        picture = ImageOps.fit(picture, (width, height), Image.Resampling.LANCZOS)
    pixels = np.asarray(picture, dtype=np.uint8).reshape(height, width, channels)
    return np.rot90(255 - pixels if invert else pixels, turn)


def _opened(raw: bytes) -> Image.Image:
    if not raw:
        raise Unreadable("the file is empty")
    if len(raw) > MOST_BYTES:
        raise Unreadable(f"the file has {len(raw) / 1e6:.0f} MB; the most is {MOST_BYTES / 1e6:.0f}")
    try:
        picture = Image.open(io.BytesIO(raw), formats=FORMATS)
    except UnidentifiedImageError as error:
        raise Unreadable("not a picture, whatever its name says") from error
    except Image.DecompressionBombError as error:
        raise Unreadable(f"too large ({error})") from error
    except Exception as error:  # see decode
        raise Unreadable(f"damaged ({error})") from error
    if picture.width * picture.height > MOST_PIXELS:
        raise Unreadable(
            f"{picture.width} x {picture.height} pixels are too many; the most is {MOST_PIXELS / 1e6:.0f} million"
        )
    return picture


def _plain_mode(picture: Image.Image) -> Image.Image:
    """Convert to 8 bits without transparency from modes that ``convert`` would clip or misread."""
    if picture.mode.startswith("I;16"):
        return Image.fromarray((np.asarray(picture) >> 8).astype(np.uint8))
    if picture.mode in ("I", "F"):
        values = np.asarray(picture, dtype=np.float64)
        # Pillow opens 16-bit grey PNG as mode I: values above 255 mean a 16-bit scale.
        scale = 257.0 if np.nanmax(values, initial=0) > 255 else 1.0
        return Image.fromarray(np.clip(np.nan_to_num(values) / scale, 0, 255).astype(np.uint8))
    if picture.mode in ("RGBA", "LA", "PA", "La", "RGBa") or "transparency" in picture.info:
        picture = picture.convert("RGBA")
        white = Image.new("RGBA", picture.size, "white")
        return Image.alpha_composite(white, picture).convert("RGB")
    return picture
