"""Exceptions whose text is shown to the user."""

from __future__ import annotations

import re
import reprlib
from typing import Any

MAX_CHARACTERS = 1000
"""Maximum length of each of the two parts of an error; together they fit on a screen of 80 x 25 characters."""
_CONTROL = re.compile(
    "[\0-\x1f\x7f-\x9f"  # a terminal obeys these
    "\u061c\u200e\u200f\u2028\u2029\u202a-\u202e\u2066-\u2069"  # these reorder or break the text around them
    "\ud800-\udfff]"  # and these cannot be written as UTF-8
)
_MAX_BITS = 128  # of an integer that is written in digits
_REPR = reprlib.Repr()
_REPR.maxother = _REPR.maxstring = 80


class UserError(Exception):
    """An error in the user's data, files or settings: what is wrong (the file, row or field), and what to do about it.

    The command line prints both and exits with code 2; a page shows both in a red box. Both may quote a file, so they
    are made :func:`printable` and at most :data:`MAX_CHARACTERS` long.
    """

    def __init__(self, what: str, fix: str = "") -> None:
        what, fix = (shorten_middle(printable(part), MAX_CHARACTERS) for part in (what, fix))
        super().__init__(f"{what} {fix}".strip())
        self.what = what
        self.fix = fix


class TransientError(UserError):
    """An error that does not depend on the request: the disk is full, or another process is computing the same thing.

    It must never be stored as the result of a computation.
    """


class Cancelled(BaseException):
    """The user cancelled the work; finished steps are stored. No Exception: a signal raises it anywhere."""


def text_of(error: BaseException) -> str:
    """Return ``str(error)``; empty if the class of the error, which any library may define, fails at that."""
    try:
        return str(error)
    except Exception:
        return ""


def printable(text: str) -> str:
    """Return a text with escapes such as ``\\x1b`` for all characters that a terminal or browser acts on."""
    return _CONTROL.sub(lambda match: match[0].encode("unicode_escape").decode("ascii"), text)


def shorten_middle(text: str, length: int) -> str:
    """Return a text of at most ``length`` characters; both ends are kept, as file names often differ at the end."""
    if len(text) <= length:
        return text
    end = (length - 1) // 2
    return f"{text[: length - 1 - end]}…{text[-end:]}"


def shown(value: Any) -> str:
    """Return a value as code for an error text, in at most about 80 characters whatever its size."""
    if isinstance(value, int) and value.bit_length() > _MAX_BITS:
        return f"an integer of {value.bit_length():,} bits"  # Python refuses to write more than 4,300 digits
    return repr(shorten_middle(value, _REPR.maxstring)) if isinstance(value, str) else _REPR.repr(value)
