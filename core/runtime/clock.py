"""Time stamps of everything that is written to disk."""

from __future__ import annotations

from datetime import UTC, datetime


def timestamp() -> str:
    """Return the present time in UTC, as ISO 8601 with milliseconds.

    Such strings sort by time, also among those of earlier versions, which wrote whole seconds: "+" sorts before ".".
    """
    return datetime.now(UTC).isoformat(timespec="milliseconds")
