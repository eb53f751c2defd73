"""A grid of images with scores as one picture: one row per task, with text beside it."""

from __future__ import annotations

import textwrap
from functools import lru_cache
from pathlib import Path

import matplotlib as mpl
import numpy as np
from PIL import Image, ImageDraw, ImageFont

from core.data import ImageSet, load_images
from core.data.images import squeeze_grey
from core.experiments.results import Grid, Picture
from core.experiments.style import HARMS, HELPS
from core.runtime.errors import UserError

_WIDTH, _MARGIN, _TEXT, _GAP = 1400, 32, 400, 6
_INNER = _WIDTH - 2 * _MARGIN
_LARGE, _SMALL, _MAX_LARGE = 112, 64, 8
_MAX_PER_LINE = 30
_INK, _MUTED, _RULE = "#1b2430", "#4b5563", "#d5dae1"
_FACES = {"": "DejaVuSans.ttf", "bold": "DejaVuSans-Bold.ttf"}
_MAX_LINES = 6


def picture_sheet(grid: Grid) -> Image.Image:
    """Draw a grid, 1,400 pixels wide on white, with the images of the set that it names.

    Raises:
        UserError: the image set is not on this machine, or lacks one of the images.
    """
    images = load_images(grid.data, grid.data_hash)
    max_images = max((len(picture.images) for picture in grid.pictures), default=0)
    side = _LARGE if max_images <= _MAX_LARGE else _SMALL
    head = _text_block(_wrapped(grid.title, 22, "bold", _INNER))
    foot = _text_block(_wrapped(grid.note, 16, "", _INNER, _MUTED))
    parts = [head, *(_row(images, picture, side) for picture in grid.pictures), foot]
    sheet = Image.new("RGB", (_WIDTH, 2 * _MARGIN + sum(part.height + 2 * _GAP for part in parts)), "white")
    drawing, top = ImageDraw.Draw(sheet), _MARGIN
    for number, part in enumerate(parts):
        sheet.paste(part, (_MARGIN, top))
        top += part.height + 2 * _GAP
        if 0 < number < len(parts) - 1:
            drawing.line((_MARGIN, top - _GAP, _WIDTH - _MARGIN, top - _GAP), _RULE)
    return sheet


def score_text(picture: Picture) -> str:
    """Return ``+0.012 ± 0.003, helpful``."""
    spread = "" if picture.spread is None else f" ± {picture.spread:.2g}"
    effect = "helpful" if picture.score > 0 else "harmful" if picture.score < 0 else "no effect"
    return f"{picture.score:+.3g}{spread}, {effect}".replace("-", "−", 1 if picture.score < 0 else 0)


def _row(images: ImageSet, picture: Picture, side: int) -> Image.Image:
    """Draw text at the left, images at the right, and a stripe in the colour of the sign."""
    colour = HELPS if picture.score > 0 else HARMS if picture.score < 0 else _MUTED
    wide = _TEXT - 3 * _GAP
    words = _wrapped(picture.words, 16, "", wide, _MUTED)
    if len(words) > _MAX_LINES:
        words = [*words[: _MAX_LINES - 1], ("…", 16, "", _MUTED)]
    score_line = (score_text(picture), 18, "bold", colour)
    block = _text_block([*_wrapped(picture.title, 18, "bold", wide), score_line, *words], _TEXT)
    tiles = [_tile(images, name, side) for name in picture.images]
    pitch, height = (max((tile.size[axis] + _GAP for tile in tiles), default=side) for axis in (0, 1))
    in_line = max(1, min(_MAX_PER_LINE, (_INNER - _TEXT + _GAP) // pitch))
    row = Image.new("RGB", (_INNER, max(block.height, -(-len(tiles) // in_line) * height)), "white")
    row.paste(block, (2 * _GAP, 0))
    ImageDraw.Draw(row).rectangle((0, 0, _GAP - 1, row.height), colour)
    for number, tile in enumerate(tiles):
        row.paste(tile, (_TEXT + number % in_line * pitch, number // in_line * height))
    return row


def _tile(images: ImageSet, name: str, side: int) -> Image.Image:
    """Return one image: small ones enlarged by an integer factor, so that pixels stay square; large ones reduced."""
    if name not in images.index:
        raise UserError(f"The image set {images.name!r} has no image {name!r}.", "Run the experiment again.")
    pixels = np.asarray(images.images[images.index[name]])
    picture = Image.fromarray(squeeze_grey(pixels)).convert("RGB")
    longest = max(picture.size)
    if longest > side:
        picture.thumbnail((side, side), Image.Resampling.LANCZOS)
        return picture
    factor = max(1, side // longest)
    return picture.resize((picture.width * factor, picture.height * factor), Image.Resampling.NEAREST)


_Line = tuple[str, int, str, str]


def _wrapped(text: str, size: int, face: str, width: int, colour: str = _INK) -> list[_Line]:
    """Break text into lines of at most ``width`` pixels."""
    font = _font(size, face)
    characters = max(8, int(width / max(1.0, font.getlength("abcdefghij ABCDE 0123") / 21)))
    lines = textwrap.wrap(text, characters)
    while characters > 8 and any(font.getlength(line) > width for line in lines):
        characters -= 1
        lines = textwrap.wrap(text, characters)
    return [(line, size, face, colour) for line in lines]


def _text_block(lines: list[_Line], width: int = _INNER) -> Image.Image:
    heights = [round(size * 1.4) for _, size, _, _ in lines]
    block = Image.new("RGB", (width, max(1, sum(heights))), "white")
    drawing, top = ImageDraw.Draw(block), 0
    for (text, size, face, colour), height in zip(lines, heights, strict=True):
        drawing.text((0, top), text, colour, _font(size, face))
        top += height
    return block


@lru_cache(maxsize=8)
def _font(size: int, face: str) -> ImageFont.FreeTypeFont:
    return ImageFont.truetype(Path(mpl.get_data_path()) / "fonts" / "ttf" / _FACES[face], size)
