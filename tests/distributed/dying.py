"""Run ``python -m core`` with a rank 1 that fails, and log every chunk and step as it is computed.

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
put = runs.StepCache.put
chunks = 0


def log_and_put(steps: runs.StepCache, key: str, arrays: list[Any]) -> None:
    """Store a step or a chunk, and log it."""
    global chunks
    chunk = steps.folder.name != runs.MEMORY
    if RANK == "1" and END == "wrong":
        raise UserError("The images of rank 1 are gone.", "Find them.")
    put(steps, key, arrays)
    with LOG.open("a") as log:
        log.write(f"{ATTEMPT} {RANK} {steps.folder.name}/{key}.npz\n")
    chunks += chunk
    if RANK == "1" and END == "killed" and ATTEMPT == "0" and chunks == 2:
        os.kill(os.getpid(), signal.SIGKILL)


runs.StepCache.put = log_and_put  # type: ignore[method-assign]
sys.argv = ["core", *sys.argv[3:]]
main()
