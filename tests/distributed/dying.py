"""Run ``python -m core`` so that rank 1 fails, and log every chunk and step when it is computed.

``torchrun`` passes the log file and the failure: ``killed`` after two chunks of scores in the first attempt, or
``wrong``, a UserError that only rank 1 raises.
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
    """Store a step or a chunk, and log it."""
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
