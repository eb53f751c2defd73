"""``python -m core`` whose rank 1 comes to grief, and that writes down every chunk and step as it is computed.

Run by ``torchrun`` with the file to write to, and how it ends: ``killed`` after two chunks of scores in the first
attempt, or ``wrong``, with an error of the user's that no other rank has.
"""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path
from typing import Any

from core.cli import main
from core.runtime.errors import UserError
from core.workspace import runs

LOG, END = Path(sys.argv[1]), sys.argv[2]
RANK, ATTEMPT = os.environ["RANK"], os.environ["TORCHELASTIC_RESTART_COUNT"]
write = runs._write
chunks = 0


def log_and_write(path: Path, arrays: list[Any]) -> None:
    """Remember a step or a chunk, and write it down."""
    global chunks
    chunk = path.parent.name != runs.MEMORY
    if RANK == "1" and END == "wrong":
        raise UserError("The images of rank 1 are gone.", "Find them.")
    write(path, arrays)
    with LOG.open("a") as log:
        log.write(f"{ATTEMPT} {RANK} {path.parent.name}/{path.name}\n")
    chunks += chunk
    if RANK == "1" and END == "killed" and ATTEMPT == "0" and chunks == 2:
        os.kill(os.getpid(), signal.SIGKILL)


runs._write = log_and_write  # type: ignore[assignment]
sys.argv = ["core", *sys.argv[3:]]
main()
