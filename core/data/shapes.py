"""The generated colour images ``shapes``: 24 classes of 60 images, eight outlines that are solid, hollow or striped.

They are shipped as one picture, ``assets/shapes.png``, so that their content does not depend on the version of a
library; :func:`draw_picture` drew it.
"""

from __future__ import annotations

from collections.abc import Callable
from colorsys import hsv_to_rgb
from functools import lru_cache
from itertools import product
from pathlib import Path

import numpy as np
from PIL import Image

from core.data.images import ImageSet

PICTURE = Path(__file__).resolve().parents[2] / "assets" / "shapes.png"
"""One row of images per class, in the order of :data:`CLASSES`."""
SIDE, PER_CLASS = 28, 60
_DETAIL = 4
"""Points per side of a pixel whose mean is its colour."""


def _polygon(corners: int) -> Callable[[np.ndarray], np.ndarray]:
    sector = 2 * np.pi / corners
    return lambda angle: np.cos(sector / 2) / np.cos(angle % sector - sector / 2)


_OUTLINES: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "circle": lambda angle: np.full_like(angle, 0.8),
    "triangle": _polygon(3),
    "square": _polygon(4),
    "hexagon": _polygon(6),
    "star": lambda angle: 1 - 0.6 * np.abs((angle * 5 / np.pi) % 2 - 1),
    "flower": lambda angle: 0.75 + 0.25 * np.cos(4 * angle),
    "cross": lambda angle: np.minimum(1, 0.3 / np.minimum(np.abs(np.sin(angle)), np.abs(np.cos(angle)))),
    "drop": lambda angle: 0.45 + 0.55 * np.abs(np.cos(angle / 2)) ** 6,
}
"""Distance from the centre to the edge by the angle."""
_FILLS: dict[str, Callable[[np.ndarray, np.ndarray], np.ndarray]] = {
    "solid": lambda share, x: np.ones_like(share, dtype=bool),
    "hollow": lambda share, x: share > 0.6,
    "striped": lambda share, x: (x * 3.2) % 1 > 0.45,
}
"""Which points have the colour, by their share of the distance to the edge and by the position across the stripes."""
CLASSES = tuple(f"{fill} {outline}" for outline, fill in product(_OUTLINES, _FILLS))


def draw_image(class_number: int, rng: np.random.Generator) -> np.ndarray:
    """Return one image ``(28, 28, 3)`` uint8: position, size, rotation and colours are random."""
    outline, fill = list(product(_OUTLINES.values(), _FILLS.values()))[class_number]
    points = SIDE * _DETAIL
    y, x = (np.mgrid[:points, :points] + 0.5) / points * 2 - 1
    shade, direction = rng.uniform(-0.15, 0.15), rng.uniform(0, 2 * np.pi)
    hue = rng.uniform()
    background = hsv_to_rgb((hue + rng.uniform(0.25, 0.75)) % 1, rng.uniform(0.2, 0.6), rng.uniform(0.25, 0.6))
    colour = hsv_to_rgb(hue, rng.uniform(0.5, 1.0), rng.uniform(0.75, 1.0))
    ground = np.array(background) + shade * (x * np.cos(direction) + y * np.sin(direction))[..., None]
    size, turn = rng.uniform(0.6, 0.85), rng.uniform(-0.6, 0.6)
    x, y = (x - rng.uniform(-0.15, 0.15)) / size, (y - rng.uniform(-0.15, 0.15)) / size
    x, y = x * np.cos(turn) + y * np.sin(turn), y * np.cos(turn) - x * np.sin(turn)
    share = np.hypot(x, y) / outline(np.arctan2(y, x) % (2 * np.pi))
    is_drawn = (share <= 1) & fill(share, x)
    drawn = np.where(is_drawn[..., None], colour, ground)
    pixels = drawn.reshape(SIDE, _DETAIL, SIDE, _DETAIL, 3).mean((1, 3))
    return np.clip(np.rint(pixels * 255), 0, 255).astype(np.uint8)


def draw_picture() -> np.ndarray:
    """Return the picture of all images, ``(classes * 28, 60 * 28, 3)`` uint8."""
    streams = [np.random.default_rng([0, number]) for number in range(len(CLASSES))]
    rows = [np.hstack([draw_image(number, rng) for _ in range(PER_CLASS)]) for number, rng in enumerate(streams)]
    return np.vstack(rows)


@lru_cache(maxsize=1)
def load_shapes() -> ImageSet:
    """Return the shipped images."""
    with Image.open(PICTURE) as picture:
        pixels = np.asarray(picture.convert("RGB"))
    tiles = pixels.reshape(len(CLASSES), SIDE, PER_CLASS, SIDE, 3).swapaxes(1, 2)
    ids = np.array([f"shapes-{position:04d}" for position in range(len(CLASSES) * PER_CLASS)])
    return ImageSet(
        "shapes", tiles.reshape(-1, SIDE, SIDE, 3), np.repeat(np.arange(len(CLASSES)), PER_CLASS), CLASSES, ids
    )
