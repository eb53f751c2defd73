"""Decode one image from the bytes of an untrusted file to pixels of the requested format."""

from __future__ import annotations

import io
import warnings
from typing import NamedTuple

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError, features

from core.runtime.failed_downloads import describe_failed_download

Raw = bytes | np.ndarray
"""An encoded image, or uint8 pixels ``(height, width)`` or ``(height, width, 3)``."""

_HAS_AVIF = features.check("avif")  # Pillow from 11.3 on, if it was built with it
FORMATS = ("PNG", "JPEG", "BMP", "GIF", "WEBP", "TIFF", "PPM", *(("AVIF",) if _HAS_AVIF else ()))
SUFFIXES = (
    *(".png", ".jpg", ".jpeg", ".jpe", ".jfif", ".bmp", ".gif", ".webp", ".tif", ".tiff", ".ppm", ".pgm", ".pbm"),
    *((".avif",) if _HAS_AVIF else ()),
)
REFUSE, CROP, PAD, RESIZE = "refuse", "crop", "pad", "resize"
FITS = {
    REFUSE: "refused",
    CROP: "scaled to cover the size, and cropped around the centre",
    PAD: "scaled to fit into the size, and padded with background",
    RESIZE: "scaled in each direction, which distorts them",
}
"""What may happen to images whose shape differs from that of the size they are stored in."""
MAX_PIXELS = 50_000_000
MAX_BYTES = 256_000_000
# Warnings about too many pixels, which raise an error below, and about damaged metadata. They are filtered at import
# because filters apply to the whole process and images are opened from several threads.
warnings.filterwarnings("ignore", module=r"PIL\.")
_DEEP_MODES = ("I", "I;16", "I;16B", "I;16L", "I;16N", "F")
_GREY_MODES = ("1", "L", "LA", "La", *_DEEP_MODES)
_TRANSPARENT_MODES = ("RGBA", "LA", "PA", "La", "RGBa")
_SIXTEEN_BITS = (0.0, 65535.0)
_NO_NUMBER = "none of its values is a number"
_MAX_SCANS = 100  # of a progressive JPEG; cameras and programs write about ten, and each takes as long as the image
_SCAN = b"\xff\xda"
_ORIENTATION, _QUARTER_TURNS = 0x0112, (5, 6, 7, 8)


class UnreadableError(Exception):
    """An error that says why a single image cannot be read."""


class UnexpectedHeaderError(Exception):
    """An error that says that an image has another header than the others."""


class ImageSpec(NamedTuple):
    """A pixel format for every image of a set: the arguments of :func:`decode`, in the same order."""

    height: int
    width: int
    channels: int
    invert: bool = False
    fit: str = CROP
    value_range: tuple[float, float] | None = None


class ImageHeader(NamedTuple):
    """An image's header.

    Attributes:
        height, width: Size in pixels as it is shown.
        grey: It is greyscale.
        deep: It is greyscale of more than 8 bits per pixel.
        deep_colour: It has more than 8 bits per channel, of which Pillow reads the upper 8.
        animated: It has several frames or pages.
        transparent: It has transparency.
    """

    height: int
    width: int
    grey: bool
    deep: bool = False
    deep_colour: bool = False
    animated: bool = False
    transparent: bool = False


def read_header(raw: Raw) -> ImageHeader:
    """Read the header without decoding the pixels.

    Raises:
        UnreadableError: the bytes are not an image, or the image is too large.
    """
    if isinstance(raw, np.ndarray):
        return ImageHeader(raw.shape[0], raw.shape[1], raw.ndim == 2)
    with _open(raw) as image:
        try:
            return _header(image)
        except Exception as error:  # the second frame of an animation may be damaged; see _load
            raise UnreadableError(f"damaged or truncated ({error})") from error


def read_value_range(raw: Raw) -> tuple[float, float]:
    """Return the lowest and the highest finite value of an image of more than 8 bits per pixel.

    Raises:
        UnreadableError: the bytes are not an image, are truncated, or no value is finite.
    """
    values = np.asarray(_load(raw), dtype=np.float64)
    values = values[np.isfinite(values)]
    if not values.size:
        raise UnreadableError(_NO_NUMBER)
    return float(values.min()), float(values.max())


def is_cut(height: int, width: int, target_height: int, target_width: int) -> bool:
    """Return whether an image that is scaled to cover the target has pixels outside it."""
    scale = max(target_height / height, target_width / width)
    return round(height * scale) != target_height or round(width * scale) != target_width


def decode(
    raw: Raw,
    height: int,
    width: int,
    channels: int,
    invert: bool = False,
    fit: str = CROP,
    value_range: tuple[float, float] | None = None,
    turns: int = 0,
    expected: ImageHeader | None = None,
) -> np.ndarray:
    """Return the pixels ``(height, width, channels)`` as uint8.

    Transparency is composited on white, the EXIF orientation is applied, and only the first frame of an animation is
    used.

    Args:
        invert: Replace every value v by 255 - v.
        fit: What to do with an image of another shape, one of :data:`FITS`.
        value_range: The values of images of more than 8 bits that become 0 and 255; None: 0 and 65,535.
        turns: Number of counter-clockwise quarter turns, applied last.
        expected: If given, the header that the image must have.

    Raises:
        UnreadableError: the bytes are not an image, are truncated, the image is too large, or its shape is refused.
        UnexpectedHeaderError: the header is another than ``expected``.
    """
    image = _load(raw, expected)
    image = _to_8_bit(image, value_range or _SIXTEEN_BITS).convert("L" if channels == 1 else "RGB")
    if image.size != (width, height):
        image = _fitted(image, width, height, fit, background=255 if invert else 0)
    pixels = np.asarray(image, dtype=np.uint8).reshape(height, width, channels)
    return np.rot90(255 - pixels if invert else pixels, turns)


def _load(raw: Raw, expected: ImageHeader | None = None) -> Image.Image:
    if isinstance(raw, np.ndarray):
        _check_header(read_header(raw), expected)
        return Image.fromarray(raw)
    try:
        with _open(raw) as opened:
            _check_header(_header(opened), expected)
            opened.load()
            return ImageOps.exif_transpose(opened)
    except (UnreadableError, UnexpectedHeaderError):
        raise
    except Exception as error:  # Pillow's decoders raise arbitrary exceptions on damaged files
        raise UnreadableError(f"damaged or truncated ({error})") from error


def _header(image: Image.Image) -> ImageHeader:
    height, width = (image.width, image.height) if _is_turned(image) else (image.height, image.width)
    is_deep_colour = image.mode in ("RGB", "RGBA") and any(";16" in str(tile[3]) for tile in getattr(image, "tile", ()))
    return ImageHeader(
        height,
        width,
        image.mode in _GREY_MODES,
        image.mode in _DEEP_MODES,
        is_deep_colour,
        bool(getattr(image, "is_animated", False)),
        image.mode in _TRANSPARENT_MODES or "transparency" in image.info,
    )


def _check_header(header: ImageHeader, expected: ImageHeader | None) -> None:
    if expected is not None and header != expected:
        raise UnexpectedHeaderError


def _is_turned(image: Image.Image) -> bool:
    """Return whether the EXIF orientation exchanges height and width; Pillow does so itself for TIFF."""
    if image.format == "TIFF" or not {"exif", "Raw profile type exif"} & image.info.keys():
        return False
    try:
        return image.getexif().get(_ORIENTATION, 1) in _QUARTER_TURNS
    except Exception:  # damaged metadata, which decoding ignores as well
        return False


def _fitted(image: Image.Image, width: int, height: int, fit: str, background: int) -> Image.Image:
    size = (width, height)
    if fit == PAD:
        colour = background if image.mode == "L" else (background,) * 3
        return ImageOps.pad(image, size, Image.Resampling.LANCZOS, color=colour)
    if fit == RESIZE:
        return image.resize(size, Image.Resampling.LANCZOS)
    if fit == REFUSE and is_cut(image.height, image.width, height, width):
        raise UnreadableError(f"it has {image.width} x {image.height} pixels, which is another shape")
    return ImageOps.fit(image, size, Image.Resampling.LANCZOS)


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
    if image.format == "JPEG" and raw.count(_SCAN) > _MAX_SCANS:
        raise UnreadableError(f"it has more than {_MAX_SCANS} scans")
    if image.width * image.height > MAX_PIXELS:
        raise UnreadableError(
            f"{image.width} x {image.height} pixels are too many; the maximum is {MAX_PIXELS / 1e6:.0f} million"
        )
    return image


def _to_8_bit(image: Image.Image, value_range: tuple[float, float]) -> Image.Image:
    """Convert to 8 bits without transparency from modes that ``convert`` would clip or misread."""
    if image.mode in _DEEP_MODES:
        low, high = value_range
        values = np.asarray(image, dtype=np.float64)
        if not np.isfinite(values).any():
            raise UnreadableError(_NO_NUMBER)
        values = np.clip(np.nan_to_num(values, nan=low), low, high)
        return Image.fromarray(np.rint((values / 2 - low / 2) / (high / 2 - low / 2) * 255).astype(np.uint8))
    if image.mode in _TRANSPARENT_MODES or "transparency" in image.info:
        image = image.convert("RGBA")
        white = Image.new("RGBA", image.size, "white")
        return Image.alpha_composite(white, image).convert("RGB")
    return image
