"""The demo workspaces, made from the files in ``assets/demo``: tasks, a model, precomputed runs and named sets.

``python -m core.cli.make_demos`` makes these files.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from core.runtime.errors import UserError
from core.runtime.files import home
from core.runtime.replacing import copy_folder, delete_scratch, replacing_folder
from core.tasks.settings import TaskSettings
from core.workspace.whatif_sets import Sets
from core.workspace.workspace import Workspace, create

AUTHOR = "TaskLens"
"""Reviewer name of what comes with a demo."""


@dataclass(frozen=True)
class Demo:
    """A problem with injected label noise.

    Attributes:
        by: What carries the noise, ``tasks`` or ``images``.
        steps: Adam steps of the training; everything else is the recipe for the kind of images.
    """

    about: str
    by: str
    tasks: TaskSettings
    steps: int = 1000


def _tasks(data: str, noise: str, split: str = "auto") -> TaskSettings:
    """Return few tasks of few images, in which label noise costs accuracy, and which train in minutes."""
    return TaskSettings(data, shots=2, queries=5, count=200, heldout=200, split=split, noise=noise)


DEMOS = {
    "demo-noisy-tasks": Demo(
        "Digits. 40 % of the training tasks have 80 % of their labels flipped.", "tasks", _tasks("mnist5k", "easy")
    ),
    "demo-noisy-images": Demo(
        "Digits. 20 % of the training images were mislabelled before tasks were drawn.",
        "images",
        _tasks("mnist5k", "images:0.2"),
    ),
    "demo-colour": Demo(
        "Generated colour shapes. 20 % of the training images were mislabelled as a class that looks alike.",
        "images",
        _tasks("shapes", "lookalike:0.2", split="classes"),
    ),
}
FILES = Path(__file__).resolve().parents[2] / "assets" / "demo"
"""A folder per demo: tasks, model, runs, sets."""


def open_demo(name: str, folder: Path | None = None) -> Workspace:
    """Return the workspace of a demo, made from the shipped files unless it exists; raise UserError if unknown."""
    if name not in DEMOS:
        raise UserError(f"Unknown demo {name!r}.", f"Use one of {', '.join(DEMOS)}.")
    place, source = (folder or home()) / name, FILES / name
    if (place / "workspace.json").exists():
        return Workspace(place)  # of this or an earlier version; it may already hold decisions
    for run in sorted((source / "runs").glob("*-*")):
        _copy_run(run, place / "runs")
    delete_scratch(place / "runs")
    sets, shipped = Sets(place / "sets"), Sets(source / "sets")
    for named in sorted(map(shipped.get, shipped.names()), key=lambda one: one.at):
        sets.save(named.name, named.changes, who=named.who, note=named.note)
    return create(place, source / "tasks", source / "model", about={"about": DEMOS[name].about})


def _copy_run(run: Path, runs: Path) -> None:
    """Copy a run; it appears when it is complete, as another process may open the same demo."""
    if not (runs / run.name).exists():
        with replacing_folder(runs / run.name, ()) as copied:
            copy_folder(run, copied, is_hidden=True)
