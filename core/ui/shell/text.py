"""Show strings from data, files and users as text, never as markup."""

from __future__ import annotations

import re

from core.runtime.progress import format_count as count

__all__ = ["count", "minute_of", "plain", "shorten"]

_SPECIAL = re.compile(r"([\\`*_{}\[\]()<>#+\-.!|~:$&^=\"'])")


def plain(text: object) -> str:
    """Return ``text`` escaped so that Streamlit's Markdown shows it literally, on one line."""
    return _SPECIAL.sub(r"\\\1", " ".join(str(text).split()))


def shorten(name: str, length: int) -> str:
    """Return a name of at most ``length`` characters; both ends are kept, as class names often differ at the end."""
    if len(name) <= length:
        return name
    end = (length - 1) // 2
    return f"{name[: length - 1 - end]}…{name[-end:]}"


def minute_of(at: str) -> str:
    """Return an ISO 8601 time as ``2026-01-31 12:00``."""
    return at[:16].replace("T", " ")
