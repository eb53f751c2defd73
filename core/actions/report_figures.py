"""Pictures and charts that stand in an HTML file by themselves: data URIs and SVG, coloured by the page's own style."""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

import numpy as np
from PIL import Image

_MOST_PX = 96
_WIDTH, _HEIGHT = 560, 260
_LEFT, _RIGHT, _TOP, _BOTTOM = 66, 26, 14, 44
_MOST_POINTS = 240
COLOURS = 6
"""The page's style gives colours ``--c0`` to ``--c5``."""


def thumbnail(pixels: np.ndarray) -> str:
    """A data URI of one picture, ``(height, width, 1 or 3)`` uint8: exact where small, else JPEG of 96 pixels."""
    picture = Image.fromarray(pixels[..., 0] if pixels.shape[-1] == 1 else pixels)
    stream, small = io.BytesIO(), max(picture.size) <= 40
    if small:
        picture.save(stream, "PNG", optimize=True)
    else:
        picture.thumbnail((_MOST_PX, _MOST_PX), Image.Resampling.LANCZOS)
        picture.save(stream, "JPEG", quality=80)
    return f"data:image/{'png' if small else 'jpeg'};base64,{base64.b64encode(stream.getvalue()).decode()}"


@dataclass(frozen=True, eq=False)
class Line:
    """One line of a chart, with a band around it where ``low`` and ``high`` are given."""

    name: str
    x: np.ndarray
    y: np.ndarray
    low: np.ndarray | None = None
    high: np.ndarray | None = None
    dashed: bool = False


def chart(lines: Sequence[Line], *, title: str, x_label: str, y_label: str, percent: bool = False) -> str:
    """A chart of lines from the origin as SVG; ``percent`` writes both axes as shares."""
    tops = [np.nanmax(line.y if line.high is None else line.high) for line in lines]
    most_x, most_y = max(float(line.x.max()) for line in lines) or 1.0, float(max(tops)) or 1.0
    most_x, most_y = (1.0, 1.0) if percent else (most_x, _ticks(most_y)[-1])

    def place(x: np.ndarray, y: np.ndarray) -> str:
        across = _LEFT + x / most_x * (_WIDTH - _LEFT - _RIGHT)
        down = _HEIGHT - _BOTTOM - np.clip(y / most_y, 0, 1) * (_HEIGHT - _TOP - _BOTTOM)
        return " ".join(f"{a:.1f},{b:.1f}" for a, b in zip(across, down, strict=True))

    def written(value: float) -> str:
        return f"{value:.0%}" if percent else f"{value:,.4g}"

    parts = []
    for y in _ticks(most_y):
        at = _HEIGHT - _BOTTOM - y / most_y * (_HEIGHT - _TOP - _BOTTOM)
        parts.append(f'<line class="rule" x1="{_LEFT}" x2="{_WIDTH - _RIGHT}" y1="{at:.1f}" y2="{at:.1f}"/>')
        parts.append(f'<text x="{_LEFT - 8}" y="{at + 4:.1f}" text-anchor="end">{written(y)}</text>')
    for x in _ticks(most_x):
        at = _LEFT + x / most_x * (_WIDTH - _LEFT - _RIGHT)
        if x <= most_x:
            parts.append(f'<text x="{at:.1f}" y="{_HEIGHT - _BOTTOM + 18}" text-anchor="middle">{written(x)}</text>')
    middle = (_TOP + _HEIGHT - _BOTTOM) / 2
    parts.append(f'<text x="{(_LEFT + _WIDTH) / 2}" y="{_HEIGHT - 6}" text-anchor="middle">{escape(x_label)}</text>')
    turn = f'transform="rotate(-90 12 {middle})"'
    parts.append(f'<text x="12" y="{middle}" text-anchor="middle" {turn}>{escape(y_label)}</text>')
    for number, line in enumerate(lines):
        colour, few = f"var(--c{number % COLOURS})", _thinned(len(line.x))
        if line.low is not None and line.high is not None:
            around = np.concatenate([line.x[few], line.x[few][::-1]])
            edge = np.concatenate([line.low[few], line.high[few][::-1]])
            parts.append(f'<polygon points="{place(around, edge)}" style="fill:{colour};opacity:.18"/>')
        dash = ";stroke-dasharray:5 4" if line.dashed else ""
        points = place(line.x[few], line.y[few])
        parts.append(f'<polyline points="{points}" style="fill:none;stroke-width:2;stroke:{colour}{dash}"/>')
    keys = "".join(
        f'<li><span style="background:var(--c{number % COLOURS})"></span>{escape(line.name)}</li>'
        for number, line in enumerate(lines)
    )
    return (
        f'<figure><svg viewBox="0 0 {_WIDTH} {_HEIGHT}" role="img" aria-label="{escape(title)}">{"".join(parts)}</svg>'
        f'<figcaption>{escape(title)}<ul class="keys">{keys}</ul></figcaption></figure>'
    )


def _thinned(n: int) -> np.ndarray:
    return np.unique(np.linspace(0, n - 1, min(n, _MOST_POINTS)).round().astype(int))


def _ticks(most: float) -> list[float]:
    """Round numbers from 0 to at least ``most``."""
    rough = most / 4
    power = 10.0 ** np.floor(np.log10(rough))
    step = next(unit * power for unit in (1, 2, 2.5, 5, 10) if unit * power >= rough * 0.999)
    return [float(step * number) for number in range(int(np.ceil(most / step - 1e-9)) + 1)]
