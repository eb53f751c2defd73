"""Files that were uploaded to the dashboard: stored by content, listed, limited in total size, and removable."""

from __future__ import annotations

import os
import re
import stat
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from core.runtime.errors import TransientError, UserError
from core.runtime.files import library
from core.runtime.hashing import content_hash
from core.runtime.replacing import replacing
from core.workspace.workspace import library_jobs

LIMIT_VARIABLE = "TASKLENS_UPLOADS_GB"
"""Environment variable with the most that all uploads may take together, in GB (10^9 bytes)."""
DEFAULT_LIMIT_GB = 20.0
_NAME_LENGTH = 60  # of up to 4 bytes each; a file name has at most 255 bytes
_ID = re.compile(r"[0-9a-f]{16}")
_FIX = "Remove uploads that are no longer needed: at the end of the Load page, or with tasklens uploads --remove ID."


@dataclass(frozen=True)
class Upload:
    """An uploaded file.

    Attributes:
        id: The first 16 hex digits of the hash of its content.
        bytes: Its size.
        at: When it was stored, in UTC, as ISO 8601.
        used_by: Jobs that were started with it, each with its state.
        is_in_use: One of them is running.
    """

    id: str
    path: Path
    bytes: int
    at: str
    used_by: tuple[str, ...] = ()
    is_in_use: bool = False


def uploads_folder() -> Path:
    """Return the folder of all uploads."""
    return library() / "uploads"


def limit_bytes() -> int:
    """Return the most bytes that uploads may take together; raise UserError if the setting is no size."""
    given = os.environ.get(LIMIT_VARIABLE, "")
    try:
        limit = int((float(given) if given else DEFAULT_LIMIT_GB) * 1e9)
        if limit < 0:
            raise ValueError(given)
        return limit
    except (ValueError, OverflowError) as error:
        raise UserError(f"{LIMIT_VARIABLE} is {given!r}, not a size.", "Give a size in GB, such as 20.") from error


def store_upload(name: str, content: bytes) -> Path:
    """Return the file with this content, in a folder named by the content; the same file is stored once.

    Raises:
        UserError: all uploads together would exceed the limit.
        TransientError: the disk is full or cannot be written.
    """
    name = re.sub(r"[^\w.-]+", "-", Path(name).name)[-_NAME_LENGTH:].strip("-.") or "upload"
    path = uploads_folder() / content_hash(content)[:16] / name
    if path.exists():
        return path
    used, limit = sum(state.st_size for _, state in _files()), limit_bytes()
    if used + len(content) > limit:
        raise UserError(
            f"{name} has {size_text(len(content))}, but uploads may take {size_text(limit)} in total and take "
            f"{size_text(used)} already.",
            f"{_FIX} {LIMIT_VARIABLE} sets another limit, in GB.",
        )
    with replacing(path) as temporary:
        temporary.write_bytes(content)
    return path


def stored_uploads() -> list[Upload]:
    """Return all uploads, newest first."""
    jobs = [(job, job.status()) for job in library_jobs().all()]
    found = []
    for path, state in _files():
        using = [(job, status) for job, status in jobs if str(path) in job.args]
        found.append(
            Upload(
                path.parent.name,
                path,
                state.st_size,
                datetime.fromtimestamp(state.st_mtime, UTC).isoformat(timespec="seconds"),
                tuple(f"{job.title} ({status})" for job, status in using),
                any(status == "running" for _, status in using),
            )
        )
    return sorted(found, key=lambda upload: upload.at, reverse=True)


def remove_upload(upload_id: str) -> int:
    """Delete an upload; return how many bytes that frees.

    Raises:
        UserError: there is no such upload, or a running job uses it.
        TransientError: it cannot be deleted.
    """
    with library_jobs().no_start():
        chosen = [one for one in stored_uploads() if one.id == upload_id]
        if not chosen:
            raise UserError(f"There is no upload {upload_id!r}.", "List them with tasklens uploads.")
        if running := [one for one in chosen if one.is_in_use]:
            what = f"{running[0].path.name} is in use: {'; '.join(running[0].used_by)}."
            raise UserError(what, "Wait until it is imported, or cancel the import.")
        try:
            for one in chosen:
                one.path.unlink(missing_ok=True)
            chosen[0].path.parent.rmdir()
        except OSError as error:
            raise TransientError(f"{error.filename} cannot be deleted: {error.strerror}.", "Try again.") from error
    return sum(one.bytes for one in chosen)


def size_text(size: float) -> str:
    """Return a size in bytes in words: ``1.2 GB``, ``0.3 MB``."""
    return f"{size / 1e9:.1f} GB" if size >= 1e9 else f"{size / 1e6:.1f} MB"


def _files() -> list[tuple[Path, os.stat_result]]:
    found = []
    for path in uploads_folder().glob("*/*"):
        # What is behind a link is not ours to list or delete.
        if _ID.fullmatch(path.parent.name) and not path.parent.is_symlink() and not path.name.startswith("."):
            with suppress(OSError):  # removed in the meantime
                state = path.stat()
                if stat.S_ISREG(state.st_mode):
                    found.append((path, state))
    return found
