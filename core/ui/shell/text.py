"""Show strings from data, files and users as text, never as markup."""

from __future__ import annotations

import re

from core.runtime.errors import shorten_middle as shorten
from core.runtime.progress import format_count as count

__all__ = ["count", "minute_of", "plain", "shorten"]

_SPECIAL = re.compile(r"([\\`*_{}\[\]()<>#+\-.!|~:$&^=\"'])")
SEPARATOR = ":small[]"
"""An empty element of Streamlit's Markdown, which shows nothing and is not copied. Streamlit looks for addresses,
emoji and arrows in texts whose escapes are already resolved, but not beyond the end of an element."""
_SEPARATED = re.compile(
    r"""
    (?<=:/)(?=/)  # of https://
    | (?<=www)(?=\.)
    | (?<=.)(?=@)
    | (?<=:[\w+-])(?=[\w+/-]*:)  # of :smile: and :material/home:
    | (?<=:material)(?=/)
    | (?<=[<~>-])(?=[>=-])  # of arrows and dashes
    """,
    re.VERBOSE | re.IGNORECASE,
)


def plain(text: object) -> str:
    """Return ``text`` escaped so that Streamlit's Markdown shows it literally, on one line.

    Nothing in it becomes markup, a link, an emoji or an icon, and copying it from the page returns the same text.
    """
    parts = _SEPARATED.split(" ".join(str(text).split()))
    return SEPARATOR.join(_SPECIAL.sub(r"\\\1", part) for part in parts)


def minute_of(at: str) -> str:
    """Return an ISO 8601 time as ``2026-01-31 12:00``."""
    return at[:16].replace("T", " ")
