"""Draw many small images into one JPEG, so that a page of tiles is a single download."""

from __future__ import annotations

import hashlib
import io
import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from PIL import Image

_BLOCK_PX = 8
"""Side of a JPEG block, in pixels. Cells are whole blocks, so that no tile bleeds into its neighbour."""
_MAX_SIDE_PX = 16_384
"""Largest side in pixels that Chromium draws reliably (the limit of JPEG is 65,535)."""
_MARGIN_GREY = 127


@dataclass(frozen=True)
class Atlas:
    """A JPEG with `columns` x `rows` cells, filled row by row.

    Image `i` starts at pixel `(i % columns * pitch_px, i // columns * pitch_px)` and is `tile_px` square. Cells are
    `pitch_px` apart: `tile_px` rounded up to whole JPEG blocks.
    """

    jpeg: bytes
    columns: int
    rows: int
    tile_px: int

    @cached_property
    def name(self) -> str:
        """Return a name derived from the content."""
        return hashlib.blake2b(self.jpeg, digest_size=8).hexdigest()

    @property
    def pitch_px(self) -> int:
        """Return the distance between the starts of two neighbouring cells, in pixels."""
        return _pitch(self.tile_px)


def _pitch(tile_px: int) -> int:
    return -(-tile_px // _BLOCK_PX) * _BLOCK_PX


def _fit(pictures: np.ndarray, tile_px: int) -> np.ndarray:
    """Scale (n, H, W[, 3]) so that the longer side is `tile_px`, with the aspect ratio unchanged.

    Small images are first enlarged by an integer factor with nearest neighbour, so that each pixel stays a sharp
    square; Lanczos does the remaining scaling.
    """
    height, width = pictures.shape[1:3]
    times = max(1, -(-tile_px // max(height, width))) if max(height, width) * 2 <= tile_px else 1
    if times > 1:
        pictures = pictures.repeat(times, axis=1).repeat(times, axis=2)
    scale = tile_px / max(height, width)
    size = (max(1, min(tile_px, round(width * scale))), max(1, min(tile_px, round(height * scale))))
    if size == (pictures.shape[2], pictures.shape[1]):
        return pictures
    resized = [np.asarray(Image.fromarray(picture).resize(size, Image.Resampling.LANCZOS)) for picture in pictures]
    return np.stack(resized)


def jpeg_atlas(pictures: np.ndarray, *, tile_px: int) -> Atlas:
    """Draw all images into one JPEG.

    Args:
        pictures: uint8, (n, H, W) grey or (n, H, W, 3) RGB; n may be 0. Images that are not square are centred on grey.
        tile_px: Side of a tile in the atlas, in pixels.

    Returns:
        The atlas. Without images it has no columns, no rows and an empty `jpeg`.

    Raises:
        ValueError: The array has another type or shape, or the atlas would be too large to show.
    """
    if pictures.dtype != np.uint8:
        raise ValueError(f"Pictures must be uint8, not {pictures.dtype}.")
    if pictures.ndim not in (3, 4) or (pictures.ndim == 4 and pictures.shape[3] != 3):
        raise ValueError(f"Pictures must be (n, H, W) or (n, H, W, 3), not {pictures.shape}.")
    if tile_px < 1:
        raise ValueError(f"tile_px must be at least 1, not {tile_px}.")
    n = len(pictures)
    if n == 0:
        return Atlas(jpeg=b"", columns=0, rows=0, tile_px=tile_px)
    if 0 in pictures.shape:
        raise ValueError(f"Pictures must have at least one pixel, not shape {pictures.shape}.")

    pitch = _pitch(tile_px)
    columns = math.isqrt(n - 1) + 1
    rows = -(-n // columns)
    if columns * pitch > _MAX_SIDE_PX:
        raise ValueError(f"{n} pictures of {tile_px} pixels are too many for one grid; show them in pages.")

    tiles = _fit(pictures, tile_px)
    height, width, *channels = tiles.shape[1:]
    top, left = (tile_px - height) // 2, (tile_px - width) // 2
    # The strip between tile_px and the pitch repeats the margin's grey; it is never shown.
    cells = np.full((columns * rows, pitch, pitch, *channels), _MARGIN_GREY, dtype=np.uint8)
    cells[:n, top : top + height, left : left + width] = tiles
    buffer = io.BytesIO()
    Image.fromarray(arrange(cells, columns)).save(buffer, format="JPEG", quality=90, subsampling=0)
    return Atlas(jpeg=buffer.getvalue(), columns=columns, rows=rows, tile_px=tile_px)


def arrange(cells: np.ndarray, columns: int) -> np.ndarray:
    """Return images (rows x columns, H, W[, 3]) as one image, row by row."""
    n, height, width, *channels = cells.shape
    sheet = cells.reshape(n // columns, columns, height, width, *channels).swapaxes(1, 2)
    return sheet.reshape(n // columns * height, columns * width, *channels)


def packet(header: Mapping[str, Any], *jpegs: bytes) -> bytes:
    """Return the length of the header (4 bytes, big-endian), the header as ASCII JSON, and the JPEGs.

    A packet is one value, because Components v2 passes bytes only at the top level of `data`.
    """
    text = json.dumps(header, allow_nan=False, separators=(",", ":")).encode("ascii")
    return b"".join([len(text).to_bytes(4, "big"), text, *jpegs])
