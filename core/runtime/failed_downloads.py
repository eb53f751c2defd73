"""Recognise files that are not what their name says, because a download did not deliver the content.

A server that refuses a download often answers with a web page, which is then saved under the name of the file. A
repository that was cloned or downloaded without Git LFS or git-annex contains short text files that only refer to the
content. Readers of every format call these functions, so that the error names the cause and not its consequence.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import NamedTuple

from core.runtime.errors import UserError

HEAD_BYTES = 1024
"""Number of bytes at the start of a file that are enough to recognise a failed download."""

_BLANK = rb"(?:\s|<!--(?:(?!-->).)*-->)*+"
_XML = rb"(?:<\?xml[^>]*>)?"
_DOWNLOAD = "Download it again; log in or accept the terms of the site first if it asks for that."


class _Kind(NamedTuple):
    pattern: re.Pattern[bytes]
    description: str
    fix: str


_KINDS = (
    _Kind(
        re.compile(_BLANK + _XML + _BLANK + rb"<(?:!doctype\s+html|html|head|body)\b", re.IGNORECASE | re.DOTALL),
        "a web page (an error or login page that was saved instead of the file)",
        _DOWNLOAD,
    ),
    _Kind(  # cloud storage
        re.compile(_BLANK + _XML + _BLANK + rb"<Error>\s*<Code>", re.DOTALL),
        "the error message of a server",
        _DOWNLOAD,
    ),
    _Kind(  # GitHub and Hugging Face
        re.compile(
            rb"\s*(?:404: Not Found|Not Found|(?:Entry|Repository) not found|Invalid username or password\.?"
            rb"|Access to \w+ [^\n]{1,200} is restricted\b[^\n]*)\s*\Z",
            re.IGNORECASE,
        ),
        "the error message of a server",
        _DOWNLOAD,
    ),
    _Kind(
        re.compile(rb"version https://(?:git-lfs|hawser)\.github\.com/spec/"),
        "a Git LFS pointer, not the file itself",
        "Run git lfs pull in the repository, or download the file itself.",
    ),
    _Kind(
        re.compile(rb"(?:\.{1,2}/)*/?(?:\.git/)?annex/objects/\S"),
        "a git-annex pointer, not the file itself",
        "Run git annex get in the repository, or download the file itself.",
    ),
)


def describe_failed_download(head: bytes) -> str:
    """Return what a file is and what to do, or an empty text if it does not look like a failed download.

    Args:
        head: The first :data:`HEAD_BYTES` bytes of the file, or all of them; the target of a link as bytes.

    Returns:
        Text that completes a sentence, without a full stop: ``a Git LFS pointer, not the file itself; run git lfs ...``
    """
    kind = _kind(head)
    return f"{kind.description}; {kind.fix[0].lower()}{kind.fix[1:].rstrip('.')}" if kind else ""


def check_download(name: object, head: bytes) -> None:
    """Raise UserError if the file called ``name``, which begins with ``head``, is a failed download."""
    if kind := _kind(head):
        raise UserError(f"{name} is {kind.description}.", kind.fix)


def check_downloaded_file(path: Path) -> None:
    """Raise UserError if the file at ``path`` is a failed download; ignore a file that cannot be read."""
    try:
        with path.open("rb") as stream:
            head = stream.read(HEAD_BYTES)
    except OSError:
        return
    check_download(path, head)


def _kind(head: bytes) -> _Kind | None:
    text = head[:HEAD_BYTES]
    if text.startswith((b"\xff\xfe", b"\xfe\xff")):  # UTF-16
        text = text[2:].replace(b"\x00", b"")
    text = text.removeprefix(b"\xef\xbb\xbf")
    return next((kind for kind in _KINDS if kind.pattern.match(text)), None)
