"""Decode one image from the bytes of an untrusted file to pixels of the requested format."""

from __future__ import annotations

import io
import warnings
from typing import NamedTuple

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from core.runtime.failed_downloads import describe_failed_download

Raw = bytes | np.ndarray
"""An encoded image, or uint8 pixels ``(height, width)`` or ``(height, width, 3)``."""

FORMATS = ("PNG", "JPEG", "BMP", "GIF", "WEBP", "TIFF", "PPM")
SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp", ".gif", ".webp", ".tif", ".tiff", ".ppm", ".pgm", ".pbm")
MAX_PIXELS = 50_000_000
MAX_BYTES = 256_000_000
# Warnings about too many pixels, which raise an error below, and about damaged metadata. They are filtered at import
# because filters apply to the whole process and images are opened from several threads.
warnings.filterwarnings("ignore", module=r"PIL\.")
_GREY_MODES = ("1", "L", "LA", "La", "I", "I;16", "I;16B", "I;16L", "F")


class UnreadableError(Exception):
    """An error that says why a single image cannot be read."""


class ImageSpec(NamedTuple):
    """A pixel format for every image of a set: the arguments of :func:`decode`, in the same order."""

    height: int
    width: int
    channels: int
    invert: bool


class ImageHeader(NamedTuple):
    """An image's header: its size in pixels, and whether it is greyscale."""

    height: int
    width: int
    grey: bool


def read_header(raw: Raw) -> ImageHeader:
    """Read the header without decoding the pixels.

    Raises:
        UnreadableError: the bytes are not an image, or the image is too large.
    """
    if isinstance(raw, np.ndarray):
        return ImageHeader(raw.shape[0], raw.shape[1], raw.ndim == 2)
    with _open(raw) as image:
        return ImageHeader(image.height, image.width, image.mode in _GREY_MODES)


def decode(raw: Raw, height: int, width: int, channels: int, invert: bool = False, turns: int = 0) -> np.ndarray:
    """Return the pixels ``(height, width, channels)`` as uint8.

    An image with a different aspect ratio is scaled to cover the size and centre-cropped. Transparency is composited
    on white, 16-bit grey is scaled to 8 bits, the EXIF orientation is applied, and only the first frame of an animation
    is used.

    Args:
        invert: Replace every value v by 255 - v.
        turns: Number of counter-clockwise quarter turns, applied last.

    Raises:
        UnreadableError: the bytes are not an image, are truncated, or the image is too large.
    """
    if isinstance(raw, np.ndarray):
        image: Image.Image = Image.fromarray(raw)
    else:
        try:
            with _open(raw) as opened:
                opened.load()
                image = ImageOps.exif_transpose(opened)
        except UnreadableError:
            raise
        except Exception as error:  # Pillow's decoders raise arbitrary exceptions on damaged files
            raise UnreadableError(f"damaged or truncated ({error})") from error
    image = _to_8_bit(image).convert("L" if channels == 1 else "RGB")
    if image.size != (width, height):
        image = ImageOps.fit(image, (width, height), Image.Resampling.LANCZOS)
    pixels = np.asarray(image, dtype=np.uint8).reshape(height, width, channels)
    return np.rot90(255 - pixels if invert else pixels, turns)


def _open(raw: bytes) -> Image.Image:
    if not raw:
        raise UnreadableError("the file is empty")
    if len(raw) > MAX_BYTES:
        raise UnreadableError(f"the file has {len(raw) / 1e6:.0f} MB; the maximum is {MAX_BYTES / 1e6:.0f} MB")
    try:
        image = Image.open(io.BytesIO(raw), formats=FORMATS)
    except UnidentifiedImageError as error:
        raise UnreadableError(describe_failed_download(raw) or "not an image, despite its name") from error
    except Image.DecompressionBombError as error:
        raise UnreadableError(f"too large ({error})") from error
    except Exception as error:  # see decode
        raise UnreadableError(f"damaged ({error})") from error
    if image.width * image.height > MAX_PIXELS:
        raise UnreadableError(
            f"{image.width} x {image.height} pixels are too many; the maximum is {MAX_PIXELS / 1e6:.0f} million"
        )
    return image


def _to_8_bit(image: Image.Image) -> Image.Image:
    """Convert to 8 bits without transparency from modes that ``convert`` would clip or misread."""
    if image.mode.startswith("I;16"):
        return Image.fromarray((np.asarray(image) >> 8).astype(np.uint8))
    if image.mode in ("I", "F"):
        values = np.asarray(image, dtype=np.float64)
        # Pillow opens 16-bit grey PNG as mode I: values above 255 mean a 16-bit scale.
        scale = 257.0 if np.nanmax(values, initial=0) > 255 else 1.0
        return Image.fromarray(np.clip(np.nan_to_num(values) / scale, 0, 255).astype(np.uint8))
    if image.mode in ("RGBA", "LA", "PA", "La", "RGBa") or "transparency" in image.info:
        image = image.convert("RGBA")
        white = Image.new("RGBA", image.size, "white")
        return Image.alpha_composite(white, image).convert("RGB")
    return image
