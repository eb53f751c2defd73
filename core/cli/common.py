"""Functions that the commands share: progress, messages, and opening workspaces, rankings and devices."""

from __future__ import annotations

import sys
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from core.cli.streams import print_row
from core.runtime.distributed import is_rank_zero, world
from core.runtime.errors import UserError, printable
from core.runtime.program import command_line
from core.runtime.progress import LiveProgress, Progress

if TYPE_CHECKING:
    from core.maml.settings import Compute
    from core.tasks.changes import Changes
    from core.workspace.runs import Run
    from core.workspace.workspace import Workspace


def live_progress() -> Progress:
    """Return the progress that this process shows: rank 0 only."""
    return LiveProgress.from_environment() if is_rank_zero() else Progress()


def open_workspace(name: str) -> Workspace:
    """Open a workspace by name or folder, a demo by its name; raise UserError if there is none or it is damaged."""
    from core.workspace.demos import DEMOS, open_demo
    from core.workspace.workspace import Workspace, locate

    opened = world().local_rank_zero_first(lambda: open_demo(name)) if name in DEMOS else Workspace(locate(name))
    if is_rank_zero():
        opened.delete_leftovers()
        for error in opened.damaged():
            message(f"Left out: {error}")
        if text := _invalid_rows_text(opened):
            message(text)
    return opened


def _invalid_rows_text(workspace: Workspace) -> str:
    """Return which rows of the decision log are left out; empty if none are, or if it cannot be read.

    A command that needs the log refuses one that cannot be read; others go on.
    """
    from core.decisions.valid_rows import unreadable_text

    if not (workspace.folder / "decisions.sqlite").exists():  # opening it would create it
        return ""
    try:
        return unreadable_text(workspace.decisions.unreadable_rows())
    except UserError:
        return ""


def announce_device(compute: Compute) -> Compute:
    """Print device and precision to stderr and return ``compute``; raise UserError if these processes cannot use it."""
    if world().size > 1 and ":" in compute.device:
        what = f"{compute.device} is one device, but there are {world().size} processes."
        raise UserError(what, "Use auto, cuda or cpu.")
    compute.torch_dtype()
    message(f"device: {compute.torch_device()}, {compute.dtype}")
    return compute


def find_ranking(workspace: Workspace, name: str) -> Run:
    """Return a rank run by its id, or the newest one, the same on every process; raise UserError if there is none."""
    from core.workspace.workspace import newest_ranking

    def find() -> str:
        run = newest_ranking(workspace, workspace.project()) if name == "newest" else workspace.runs.get(name)
        if run is None:
            raise UserError("This workspace has no ranking.", f"Run {command_line(['rank'])} first.")
        return run.id

    (run,) = workspace.runs.collect_distributed([world().on_rank_zero(find)])
    return run


def find_recommendation(workspace: Workspace) -> Run:
    """Return the newest recommendation; raise UserError if there is none."""
    from core.actions.recommend import newest_recommendation

    if (run := newest_recommendation(workspace, workspace.project())) is None:
        raise UserError("This workspace has no recommendation.", f"Run {command_line(['recommend'])} first.")
    return run


def find_order(workspace: Workspace, name: str) -> Run:
    """Return the run that orders what to remove: by its id, or the newest recommendation, else the newest ranking.

    Args:
        name: Id of a rank or recommend run; ``newest`` is the newest ranking; empty chooses.

    Raises:
        UserError: there is none.
    """
    from core.actions.recommend import newest_recommendation

    if not name and (run := newest_recommendation(workspace, workspace.project())) is not None:
        return run
    return find_ranking(workspace, name or "newest")


def message(line: str) -> None:
    """Print a line to stderr, if it can be written; what is only a message must not stop the work.

    Names in it cannot control the terminal. Line feeds, which some messages begin with, are printed.
    """
    with suppress(OSError):
        print("\n".join(printable(part) for part in line.split("\n")), file=sys.stderr)


def this_command() -> str:
    """Return the command that runs, as provenance records it."""
    return command_line(sys.argv[1:])


def interval_text(interval: dict[str, Any], form: str = ".3f") -> str:
    """Write the mean of a stored :class:`core.maml.evaluation.Interval` with its ends: ``0.850 [0.840, 0.860]``."""
    from core.maml.evaluation import Interval

    return Interval(**interval).text(form)


def print_changes(changes: Changes) -> None:
    """Print one item per line: its kind, its name, and the new class if it is relabelled."""
    for kind in ("tasks", "images", "instances"):
        for name in sorted(getattr(changes, kind)):
            print_row(kind[:-1], name if isinstance(name, str) else "/".join(name))
    for kind in ("relabelled_images", "relabelled_instances"):
        for *name, new in sorted(getattr(changes, kind)):
            print_row(kind.removeprefix("relabelled_")[:-1], "/".join(name), new)
