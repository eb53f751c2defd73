"""Mount the review grid as an inline Streamlit component (assets/review*.js).

Two mounts of one component share a module in the browser. One takes *packets*: images, and the constant data of a page
of tiles. The other takes a small JSON of what changes: decisions, acknowledgements, details. So a decision of
another reviewer transfers no image. The browser reports two values as state: ``ops`` (its whole log of unacknowledged
operations, so that a report that is merged with a later one loses nothing) and ``view`` (the page it requests, and the
item under the focus).
"""

from __future__ import annotations

import hashlib
import json
import secrets
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import streamlit as st

from core.ui.grid.atlas import Atlas

_ASSETS = Path(__file__).resolve().parents[3] / "assets"
_SCRIPTS = ("review_log", "review_keys", "review_sheets", "review_dialogs", "review")

_component = st.components.v2.component(
    "tasklens_review_grid",
    css=(_ASSETS / "review.css").read_text(encoding="utf-8"),
    js="\n".join((_ASSETS / f"{name}.js").read_text(encoding="utf-8") for name in _SCRIPTS),
)


@dataclass(frozen=True)
class Sheet:
    """A JPEG of images with a name derived from its content."""

    name: str
    atlas: Atlas


def sheet(atlas: Atlas) -> Sheet:
    """Return the sheet of an atlas."""
    return Sheet(hashlib.blake2b(atlas.jpeg, digest_size=8).hexdigest(), atlas)


def packet(kind: str, sheets: Sequence[Sheet], page: Mapping[str, Any] | None = None) -> bytes:
    """Return the length of the header (4 bytes, big-endian), the header as ASCII JSON, and the JPEGs.

    No two packets are equal: Streamlit sends only a reference to a large message that it believes a browser has cached,
    and if the browser has just dropped it, the page stops working (see ``maxCachedMessageAge`` in
    .streamlit/config.toml).

    Args:
        kind: ``page`` or ``detail``; the browser caches some of each.
        page: Constant data of a page of tiles.
    """
    told = [
        {
            "name": one.name,
            "columns": one.atlas.columns,
            "rows": one.atlas.rows,
            "tile": one.atlas.tile_px,
            "pitch": one.atlas.pitch_px,
            "bytes": len(one.atlas.jpeg),
        }
        for one in sheets
    ]
    header = {"kind": kind, "sheets": told, "page": page, "serial": secrets.token_hex(6)}
    text = json.dumps(header, allow_nan=False, separators=(",", ":")).encode("ascii")
    return b"".join([len(text).to_bytes(4, "big"), text, *(one.atlas.jpeg for one in sheets)])


def mount_packet(data: bytes, *, key: str) -> None:
    """Send a packet to the browser."""
    _component(key=key, data=data, height=1)


@dataclass(frozen=True)
class Report:
    """A report that the browser sent last.

    Attributes:
        name: Name of the report of decisions; a new one each time it is sent.
        scope: ``<workspace>/<reviewer>`` of the decisions.
        log: Decisions that have not been acknowledged.
        view: The requested page (``name``, ``page``, ``at``, ``find``) and the item under the ``focus``.
    """

    name: str = ""
    scope: str = ""
    log: tuple[Any, ...] = ()
    view: Mapping[str, Any] | None = None


def last_report(key: str) -> Report:
    """Return the browser's last report through the grid of this key; empty before the grid is drawn."""
    value = st.session_state.get(key)
    if not isinstance(value, Mapping):
        return Report()
    ops, view = value.get("ops"), value.get("view")
    told = ops if isinstance(ops, Mapping) else {}
    log = told.get("log")
    return Report(
        str(told.get("name", "")),
        str(told.get("scope", "")),
        tuple(log) if isinstance(log, Sequence) else (),
        view if isinstance(view, Mapping) else None,
    )


def mount_grid(data: Mapping[str, Any], *, key: str) -> None:
    """Draw the grid; ``data`` is what changes, see pages/review.py."""
    _component(key=key, data=data, on_ops_change=lambda: None, on_view_change=lambda: None)
