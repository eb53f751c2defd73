"""Mount the review grid as an inline Streamlit component (assets/review*.js).

Two mounts of one component share a module in the browser. One takes *packets*: images, and the constant data of a page
of tiles. The other takes a small JSON of what changes: decisions, acknowledgements, details. So a decision of
another reviewer transfers no image. The browser reports one value as state: its whole log of unacknowledged operations,
the page it requests, and the item under the focus, so that a report that is merged with a later one loses nothing.
"""

from __future__ import annotations

import secrets
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import streamlit as st

from core.ui.grid.atlas import Atlas
from core.ui.grid.atlas import packet as atlas_packet

_ASSETS = Path(__file__).resolve().parents[3] / "assets"
_SCRIPTS = ("review_log", "review_keys", "review_sheets", "review_dialogs", "review")

mount = st.components.v2.component(
    "tasklens_review_grid",
    css=(_ASSETS / "review.css").read_text(encoding="utf-8"),
    js="\n".join((_ASSETS / f"{name}.js").read_text(encoding="utf-8") for name in _SCRIPTS),
)


def packet(kind: str, atlases: Sequence[Atlas], page: Mapping[str, Any] | None = None) -> bytes:
    """Return a :func:`core.ui.grid.atlas.packet` of images.

    No two packets are equal: Streamlit sends only a reference to a large message that it believes a browser has cached,
    and if the browser has just dropped it, the page stops working (see ``maxCachedMessageAge`` in
    .streamlit/config.toml).

    Args:
        kind: ``page`` or ``detail``; the browser caches some of each.
        page: Constant data of a page of tiles.
    """
    sheets = [
        {
            "name": atlas.name,
            "columns": atlas.columns,
            "rows": atlas.rows,
            "tile": atlas.tile_px,
            "pitch": atlas.pitch_px,
            "bytes": len(atlas.jpeg),
        }
        for atlas in atlases
    ]
    header = {"kind": kind, "sheets": sheets, "page": page, "serial": secrets.token_hex(6)}
    return atlas_packet(header, *(atlas.jpeg for atlas in atlases))


@dataclass(frozen=True)
class Report:
    """A report that the browser sent last.

    Attributes:
        name: Name of the report of decisions; a new one each time it is sent.
        scope: Whose decisions they are, as the grid was given it.
        log: Decisions that have not been acknowledged.
        view: The requested page (``name``, ``page``, ``at``, ``find``) and the item under the ``focus``.
    """

    name: str = ""
    scope: str = ""
    log: tuple[Any, ...] = ()
    view: Mapping[str, Any] = field(default_factory=dict)


def last_report(key: str) -> Report:
    """Return the browser's last report through the grid of this key; empty before the grid is drawn."""
    value = st.session_state.get(key)
    report = value.get("report") if isinstance(value, Mapping) else None
    if not isinstance(report, Mapping):
        return Report()
    log, view = report.get("log"), report.get("view")
    return Report(
        str(report.get("name", "")),
        str(report.get("scope", "")),
        tuple(log) if isinstance(log, Sequence) else (),
        view if isinstance(view, Mapping) else {},
    )
