"""The command that computes a stored result again."""

from __future__ import annotations

import sys
from typing import Annotated

from typer import Argument

from core.cli.common import message, open_workspace
from core.cli.options import DEFAULT_WORKSPACE, WorkspaceOption
from core.runtime.errors import UserError
from core.runtime.program import PROGRAM, command_line, with_workspace

_COMMANDS = {
    "evaluate": "evaluate",
    "rank": "rank",
    "recommend": "recommend",
    "evidence": "evidence",
    "edit": "edit",
    "curve": "curve",
    "queue": "review queue",
}
"""The command that computes a kind of runs; a workspace from elsewhere must not be able to name another one."""


def rerun(
    run: Annotated[str, Argument(help="Id of the run: the name of its folder in runs/.")],
    workspace: WorkspaceOption = DEFAULT_WORKSPACE,
) -> None:
    """Compute a stored result again.

    Repeats the command that computed it. The stored result is kept until the new one replaces it.
    """
    from core.cli.app import program
    from core.workspace.runs import recomputing

    opened = open_workspace(workspace)
    stored = opened.runs.get(run)
    args, words = stored.command[1:], _COMMANDS.get(stored.kind.partition("-")[0], "").split()
    if stored.kind == "evaluate" and args[:1] != words:  # other commands evaluate the model too
        args = [*words, "--dtype", str(stored.config["dtype"])]
    if stored.kind == "curve" and "--ranking" not in args:
        args += ["--ranking", str(stored.config["ranking"])]
    if not words or args[: len(words)] != words:
        raise UserError(f"{run} was computed by no command that can be repeated.", "Compute it where it was computed.")
    args, before, argv = with_workspace(args, str(opened.folder)), stored.provenance, sys.argv
    message(command_line(args))
    try:
        sys.argv = [argv[0], *args]  # which provenance records
        with recomputing(stored):
            program().main(args, prog_name=PROGRAM, standalone_mode=False)
    finally:
        sys.argv = argv
    if opened.runs.get(run).provenance == before:
        raise UserError(
            f"The command computed another result than {run}: decisions, tasks or versions have changed since.",
            "Both results are kept.",
        )
