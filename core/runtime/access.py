"""What the command that starts the dashboard and the dashboard itself agree on: the token and the local names."""

from __future__ import annotations

import os
import secrets
import stat
from pathlib import Path

TOKEN_VARIABLE = "TASKLENS_TOKEN"
"""Environment variable with the token of the dashboard; other users of a machine cannot read it, unlike arguments."""
TOKEN_PARAMETER = "token"
"""The query parameter that carries the token in the address that is printed and opened."""
LOCAL_HOSTS = ("localhost", "127.0.0.1", "::1")
"""Names under which a browser on the same machine reaches the dashboard."""
WILDCARDS = ("", "0.0.0.0", "::")
"""Addresses to listen on that mean all addresses of the machine."""
MIN_TOKEN_LENGTH = 16
"""Shorter tokens could be guessed by trying."""
_TOKEN_BYTES = 32
_MAX_TOKEN_LENGTH = 1000


def stored_token(path: Path) -> str:
    """Return the token in a file that only its owner can read; make one if there is none, or others can read it.

    The same token at the next start lets open tabs connect again, with the decisions that they hold. Where the file
    cannot be written, the token is that of one start.
    """
    token = secrets.token_urlsafe(_TOKEN_BYTES)
    flags = os.O_RDWR | os.O_CREAT | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with os.fdopen(os.open(path, flags, 0o600), "r+b", buffering=0) as file:
            mode = os.fstat(file.fileno()).st_mode
            if not stat.S_ISREG(mode):
                return token
            stored = file.read(_MAX_TOKEN_LENGTH).strip()
            if len(stored) >= MIN_TOKEN_LENGTH and stored.isascii() and not stat.S_IMODE(mode) & 0o077:
                return stored.decode()
            os.chmod(file.fileno(), 0o600)  # noqa: PTH101
            file.seek(0)
            file.truncate()
            file.write(token.encode())
    except OSError:
        pass
    return token
