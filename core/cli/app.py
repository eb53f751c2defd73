"""The application: its commands, exit codes, and what several processes under ``torchrun`` do together."""

from __future__ import annotations

import os
import signal
import sys
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from functools import cache
from pathlib import Path
from typing import Any, NoReturn

import typer

from core.cli.common import message
from core.cli.dashboard import dashboard
from core.cli.experiments import demo, experiments
from core.cli.problem import data, inspect_command, model_command, open_command, tasks, train
from core.cli.rerun import rerun
from core.cli.review import review
from core.cli.streams import discard_unwritable, explain_output_error, open_missing_streams
from core.cli.uploads import uploads
from core.cli.whatif import sets, whatif, why
from core.cli.workspace import (
    curve,
    edit,
    evaluate,
    evidence,
    export,
    rank_command,
    recommend,
    remove,
)
from core.runtime.distributed import (
    CollectiveError,
    PeerLostError,
    exit_process,
    is_distributed,
    is_initialized,
    is_last_attempt,
    is_rank_zero,
    joined,
    wait_for_all,
)
from core.runtime.errors import Cancelled, UserError
from core.runtime.memory import disable_malloc_trim

app = typer.Typer(
    help="TaskLens: find the training tasks and images that hurt a MAML few-shot classifier.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)
COMMANDS: dict[str, Callable[..., None]] = {
    "dashboard": dashboard,
    "data": data,
    "uploads": uploads,
    "tasks": tasks,
    "train": train,
    "model": model_command,
    "inspect": inspect_command,
    "open": open_command,
    "evaluate": evaluate,
    "rank": rank_command,
    "recommend": recommend,
    "evidence": evidence,
    "edit": edit,
    "whatif": whatif,
    "why": why,
    "curve": curve,
    "remove": remove,
    "rerun": rerun,
    "export": export,
    "demo": demo,
    "experiments": experiments,
}
for name, command in COMMANDS.items():
    app.command(name)(command)
app.add_typer(review, name="review")
app.add_typer(sets, name="sets")

DISTRIBUTED_COMMANDS = ("train", "evaluate", "rank", "evidence", "edit", "curve", "experiments")
"""Commands that several processes can run together under torchrun."""

RESUME = "Completed work is saved; run the command again to resume."
CANCELLED = f"Cancelled. {RESUME}"


@cache
def program() -> Any:  # typer brings its own click, or uses the one that is installed
    """Return the whole program as a click group; building its options takes a tenth of a second."""
    return typer.main.get_command(app)


def run_app() -> int:
    """Run the command that ``sys.argv`` names; return its exit code.

    Raises:
        UserError: a file or the output could not be read or written.
    """
    try:
        code = _run_program()
        sys.stdout.flush()
    except OSError as error:
        return explain_output_error(error)
    return code


def _run_program() -> int:
    try:
        program()()
    except SystemExit as end:
        return int(end.code or 0)
    return 0


@contextmanager
def _quiet() -> Iterator[None]:
    """Print nothing unless this process is rank 0."""
    if is_rank_zero():
        yield
        return
    with Path(os.devnull).open("w") as null, redirect_stdout(null), redirect_stderr(null):
        yield


def _exit(text: str, code: int, *, everywhere: bool = False) -> NoReturn:
    """Exit with one message, whatever the number of processes and attempts; ``everywhere``: all processes exit so."""
    for number in (signal.SIGTERM, signal.SIGINT):  # torchrun sends the first once one process has ended
        signal.signal(number, signal.SIG_IGN)
    if everywhere:
        wait_for_all()  # none exits before all ignore the signal
    if is_rank_zero() and is_last_attempt():
        message(text)
    discard_unwritable()
    if is_initialized():
        exit_process(code)
    raise SystemExit(code) from None


def main() -> NoReturn:
    """Run the command that ``sys.argv`` names and exit with its code; the entry point of the program."""

    def cancel(number: int, _: object) -> None:
        raise Cancelled(128 + number)

    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, cancel)
    # PyTorch's warnings about its internals: users of the command line cannot act on them.
    warnings.filterwarnings("ignore", category=FutureWarning, module=r"torch\.")
    disable_malloc_trim()
    open_missing_streams()
    try:
        if is_distributed() and not {*DISTRIBUTED_COMMANDS, "--help"}.intersection(sys.argv[1:2]):
            raise UserError(
                f"Only {', '.join(DISTRIBUTED_COMMANDS)} can run in several processes.", "Start without torchrun."
            )
        with joined() as ranks, _quiet(), ranks.sync_errors():
            code = run_app()
    except UserError as error:
        _exit(str(error), 2, everywhere=isinstance(error, CollectiveError))
    except Cancelled as cancelled:
        _exit(CANCELLED, cancelled.args[0])
    except PeerLostError as lost:
        _exit(f"{lost} {RESUME}", 1)
    if ranks.size > 1:
        exit_process(code)
    raise SystemExit(code)
