"""Exceptions whose text is shown to the user."""

from __future__ import annotations


class UserError(Exception):
    """An error in the user's data, files or settings: what is wrong (the file, row or field), and what to do about it.

    The command line prints both and exits with code 2; a page shows both in a red box.
    """

    def __init__(self, what: str, fix: str = "") -> None:
        super().__init__(f"{what} {fix}".strip())
        self.what = what
        self.fix = fix


class TransientError(UserError):
    """An error that does not depend on the request: the disk is full, or another process is computing the same thing.

    It must never be stored as the result of a computation.
    """


class Cancelled(BaseException):
    """The user cancelled the work; finished steps are stored. No Exception: a signal raises it anywhere."""
