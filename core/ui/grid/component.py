"""Show a grid of images with selection, as an inline Streamlit component (assets/grid.js).

One JPEG atlas and a small header go to the browser as one bytes payload. The payload depends only on the
tiles, never on the selection, so Streamlit's message cache sends it once. The browser highlights
immediately and reports {session, epoch, seq, selected, opened} as state: the whole selection each time, so that a
report that Streamlit merges with a later one loses nothing.

An *epoch* is the time between two changes of the selection made from Python (other tiles, or
`clear_selection`). Python ignores a report of an older epoch; the browser replays on top of the new
epoch the clicks that Python had not received when it began.
"""

from __future__ import annotations

import hashlib
import math
import secrets
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import streamlit as st
from cachetools import LRUCache, cached

from core.ui.grid.atlas import Atlas, jpeg_atlas, packet
from core.ui.shell.guard import ignore

_ASSETS = Path(__file__).resolve().parents[3] / "assets"
_STATE = "grid"
"""Name of the component's only state value."""
_MARKS = ("", "removed", "alert")
_CACHED_ATLASES = 16


@dataclass(frozen=True)
class Tile:
    """A tile that shows one image with text and marks. All text is shown as plain text.

    Attributes:
        id: Unique within the grid.
        score: Influence, drawn as a bar: positive is helpful, negative is harmful; None or not finite has no bar.
        score_text: The score in the tooltip; a sign is prepended if it has none. Empty: derived from `score`.
        mark: "", "removed" (dimmed and crossed out) or "alert" (framed: the label looks wrong).
    """

    id: str
    caption: str
    score: float | None = None
    score_text: str = ""
    mark: str = ""
    tooltip: str = ""


@dataclass(frozen=True)
class GridEvent:
    """A selection of the user, and a request to open a tile.

    Attributes:
        selected: Ids selected now, in tile order.
        opened: Id of the tile that the user asked to enlarge (double click or Enter), in one run only. Store it
            in session state immediately if the page must remember it. Of two requests that arrive together
            the later one counts.
    """

    selected: tuple[str, ...]
    opened: str | None


@dataclass
class _Memory:
    """A session's state of one grid, stored outside the widget so that it survives a change of page."""

    ids: frozenset[str]
    session: str = field(default_factory=lambda: secrets.token_hex(8))
    epoch: str = field(default_factory=lambda: secrets.token_hex(8))
    base: tuple[str, ...] = ()
    """Selection when the epoch began."""
    ack: int | None = None
    """Last `seq` received when the epoch began: later clicks are replayed. None: replay nothing."""
    selected: tuple[str, ...] = ()
    seq: int = 0
    opened: object = None
    """Token of the last request to open that was returned to the page."""
    clear: bool = False
    stale: object = None
    """The report that was current when the epoch began (for reports without an epoch: AppTest)."""

    def begin(self, base: tuple[str, ...], ack: int | None, report: object) -> None:
        """Begin a new epoch."""
        self.epoch = secrets.token_hex(8)
        self.base = self.selected = base
        self.ack, self.stale, self.clear = ack, report, False


def _slot(key: str) -> str:
    return f"_tasklens_grid_{key}"


def clear_selection(key: str) -> None:
    """Clear the selection of the grid with this key, in Python and in the browser.

    Takes effect at the next `image_grid` call: call it before the grid (for example in a button's `on_click`) or
    follow it with `st.rerun()`. Clicks made since the page last read the selection are preserved.
    """
    memory: _Memory | None = st.session_state.get(_slot(key))
    if memory is not None:
        memory.clear = True


def _score(tile: Tile) -> tuple[int, str]:
    """Return the sign (-1, 0 or 1) and text of the score; the text is empty if there is no score."""
    if tile.score is None or not math.isfinite(tile.score):
        return 0, tile.score_text
    sign = (tile.score > 0) - (tile.score < 0)
    text = (tile.score_text or f"{abs(tile.score):.3g}").strip()
    if sign and text[:1] not in ("+", "-", "−"):
        text = ("+" if sign > 0 else "−") + text
    return sign, text


def _length(tile: Tile, largest: float) -> float:
    """Return the length of the score's bar as a share of that of the largest score in the grid."""
    if tile.score is None or not math.isfinite(tile.score) or not largest:
        return 0.0
    return round(abs(tile.score) / largest, 3)


def _atlas_key(pictures: np.ndarray, tile_px: int) -> tuple[str, int]:
    digest = hashlib.blake2b(np.ascontiguousarray(pictures).data, digest_size=16)
    digest.update(f"{pictures.shape} {pictures.dtype}".encode())
    return digest.hexdigest(), tile_px


# st.cache_data is unsuitable, as it hashes only a sample of a large array.
@cached(LRUCache(_CACHED_ATLASES), key=_atlas_key, lock=threading.Lock())
def cached_atlas(pictures: np.ndarray, tile_px: int) -> Atlas:
    """Return `jpeg_atlas`, cached for the last few sets of images, as a page reruns on every click."""
    return jpeg_atlas(pictures, tile_px=tile_px)


_component = st.components.v2.component(
    "tasklens_image_grid",
    css=(_ASSETS / "grid.css").read_text(encoding="utf-8"),
    js=(_ASSETS / "grid.js").read_text(encoding="utf-8"),
)


def _report(value: object) -> Mapping[str, Any]:
    """Return the browser's report from the component's value; empty if there is none."""
    report = value.get(_STATE) if isinstance(value, Mapping) else None
    return report if isinstance(report, Mapping) else {}


def image_grid(
    pictures: np.ndarray, tiles: Sequence[Tile], *, key: str, tile_px: int = 84, selectable: bool = True, label: str
) -> GridEvent:
    """Show images as a grid of tiles that can be selected and opened.

    The selection survives reruns, other orders and other captions, and leaving the page and returning.
    It is cleared when the set of tile ids changes.

    Args:
        pictures: uint8, (n, H, W) or (n, H, W, 3).
        tiles: The n tiles, in the order of the images.
        key: Unique name of the grid within the app.
        tile_px: Side of an image on the screen, in CSS pixels.
        selectable: False: tiles can only be opened.
        label: Description of the grid for screen readers.

    Raises:
        ValueError: The numbers of images and tiles differ, two tiles have the same id, or a mark is unknown.
    """
    if len(pictures) != len(tiles):
        raise ValueError(f"{len(pictures)} pictures but {len(tiles)} tiles.")
    order = [tile.id for tile in tiles]
    ids = frozenset(order)
    if len(ids) != len(order):
        raise ValueError("Two tiles have the same id.")
    if unknown := {tile.mark for tile in tiles}.difference(_MARKS):
        raise ValueError(f"Unknown mark {sorted(unknown)[0]!r}.")

    def known(names: object) -> tuple[str, ...]:
        """Return those of `names` that are tiles, once each, in tile order."""
        if not selectable or not isinstance(names, list | tuple):
            return ()
        chosen = {name for name in names if isinstance(name, str)}
        return tuple(name for name in order if name in chosen)

    mounted = key in st.session_state
    before = _report(st.session_state.get(key))
    memory: _Memory | None = st.session_state.get(_slot(key))
    if memory is None:
        memory = st.session_state[_slot(key)] = _Memory(ids=ids)
    elif memory.ids != ids:
        memory.begin((), None, before)
    elif memory.clear:
        memory.begin((), memory.seq, before)
    elif not mounted:  # the user left the page and returned
        memory.begin(memory.selected, memory.seq, None)
    memory.ids, memory.clear = ids, False

    atlas = cached_atlas(pictures, tile_px)
    largest = max((abs(t.score) for t in tiles if t.score is not None and math.isfinite(t.score)), default=0.0)
    header = {
        "key": key,
        "label": label,
        "selectable": selectable,
        "session": memory.session,
        "epoch": memory.epoch,
        "base": list(memory.base),
        "ack": memory.ack,
        "atlas": atlas.name,
        "columns": atlas.columns,
        "rows": atlas.rows,
        "tile": tile_px,
        "pitch": atlas.pitch_px,
        "tiles": [[t.id, t.caption, *_score(t), _length(t, largest), t.mark, t.tooltip] for t in tiles],
    }
    result = _component(key=key, data=packet(header, atlas.jpeg), on_grid_change=ignore)

    # No call to Streamlit follows before the return, so no other rerun can interrupt this part.
    report = _report(result)
    has_epoch, is_new = "epoch" in report, bool(report) and report != memory.stale
    if report["epoch"] == memory.epoch if has_epoch else is_new:
        memory.selected = known(report.get("selected"))
        seq = report.get("seq")
        memory.seq = seq if isinstance(seq, int) else memory.seq
    else:
        memory.selected = known(memory.selected)

    opened = None
    request = report.get("opened")
    if isinstance(request, Mapping) and report.get("session", memory.session) == memory.session:
        token, name = request.get("token"), request.get("id")
        if token != memory.opened:
            memory.opened = token
            opened = name if isinstance(name, str) and name in ids else None
    return GridEvent(selected=memory.selected, opened=opened)
