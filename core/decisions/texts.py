"""Check texts that people enter: names of reviewers, comments, reasons."""

from __future__ import annotations

import unicodedata

REVIEWER_LENGTH, COMMENT_LENGTH = 200, 10_000
"""Most characters of a reviewer's name, and of a comment or a reason."""


def is_blank(text: str) -> bool:
    """Return whether a text has nothing to see: only separators, control and format characters.

    ``str.strip`` of Python and ``trim`` of JavaScript disagree on some of them (U+FEFF, U+0085, U+001C). The Review
    page has the same rule (``isBlank`` in assets/review_dialogs.js).
    """
    return all(unicodedata.category(character) in ("Zs", "Zl", "Zp", "Cc", "Cf") for character in text)


def text_fault(text: str, most: int, *, may_be_blank: bool = False) -> str:
    """Return what is wrong with a text of at most ``most`` characters, such as ``is blank``; empty if nothing is."""
    if len(text) > most:
        return f"has {len(text):,} characters, more than {most:,}"
    if broken := next((character for character in text if "\ud800" <= character <= "\udfff"), ""):
        return f"contains U+{ord(broken):04X}, which is half of a character"
    return "is blank" if is_blank(text) and not may_be_blank else ""
