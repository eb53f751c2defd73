"""Describe acknowledgements of the browser's operations in words."""

from __future__ import annotations

from core.review.browser_operations import OperationAck
from core.ui.shell.text import count


def ack_text(ack: OperationAck) -> str:
    """Return the page's announcement for an operation; a saved decision needs none."""
    if ack.is_lost:
        return f"One decision was not understood and was left out. {ack.error}"
    if ack.result is None:
        return ""
    if ack.result.group is None:
        return f"There is nothing to {ack.act}."
    verb = "Undone" if ack.act == "undo" else "Redone"
    stays = f"; {count(len(ack.result.kept), 'newer decision')} by others stay" if ack.result.kept else ""
    return f"{verb}: {count(len(ack.result.taken), 'decision')}{stays}."
