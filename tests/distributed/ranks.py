"""Run a module in two processes as ``torchrun`` does, but forked after all imports, which takes half the time.

The arguments are the module and its arguments. Prints the exit codes of both processes in the format of torchrun.
"""

from __future__ import annotations

import os
import runpy
import socket
import sys
import traceback

import pandas  # noqa: F401  (what the commands import, before the fork)
import pyarrow.parquet  # noqa: F401
import torch.distributed
import torch.func  # noqa: F401

from core.actions import curve, edit, evaluate, evidence, rank, train  # noqa: F401

SIZE = 2


def main() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "WORLD_SIZE": str(SIZE)}
    os.environ |= {"LOCAL_WORLD_SIZE": str(SIZE), "TORCHELASTIC_RESTART_COUNT": "0", "TORCHELASTIC_MAX_RESTARTS": "0"}
    children = {}
    for rank_ in range(SIZE):
        if not (child := os.fork()):
            os.environ |= {"RANK": str(rank_), "LOCAL_RANK": str(rank_)}
            be(sys.argv[1:])
        children[child] = rank_
    worst = 0
    while children:
        child, status = os.wait()
        code = os.waitstatus_to_exitcode(status)
        os.write(2, f"rank {children.pop(child)}: exitcode : {code}\n".encode())  # at once: other ranks write too
        worst = worst or code
    return worst


def be(words: list[str]) -> None:
    """Run the module as the program of this process, and exit with its status."""
    code = 1
    try:
        sys.argv = words
        runpy.run_module(words[0], run_name="__main__", alter_sys=True)
        code = 0
    except SystemExit as end:
        code = end.code if isinstance(end.code, int) else int(end.code is not None)
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


if __name__ == "__main__":
    sys.exit(main())
