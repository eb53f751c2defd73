"""The one exception whose text is meant for the person at the screen."""

from __future__ import annotations


class UserError(Exception):
    """Something in the user's data, files or settings is wrong.

    Args:
        what: What is wrong, naming the file, row or field.
        fix: What to do about it.

    The command line prints both and exits with code 2; a page shows both in a red box.
    """

    def __init__(self, what: str, fix: str = "") -> None:
        super().__init__(f"{what} {fix}".strip())
        self.what = what
        self.fix = fix


class TransientError(UserError):
    """Something that does not hang on what was asked for: the disk is full, or another process is at it.

    Nothing may keep it as the answer to a question.
    """


class Cancelled(Exception):
    """The user cancelled the work; what was finished so far is kept and found again."""
