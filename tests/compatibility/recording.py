"""What a version of TaskLens reads from a data folder, as JSON: recorded once, and compared by the versions after it.

``python -m tests.compatibility.recording FOLDER`` prints it for the data folder ``FOLDER/home``.
"""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest

from core.cli.whatif import NET_EFFECT
from core.experiments.results import read_result
from core.review.saved_views import saved_views
from core.runtime.files import HOME_VARIABLE
from core.workspace.jobs import Jobs
from core.workspace.workspace import Workspace
from tests.cli.shell import Shell

WORKSPACES = ("rows", "images")
UNFINISHED = "unfinished.txt"
"""The commands that were interrupted, one per line."""
PLAIN = "plain"

NUMBER = re.compile(r"[-+]?\d[\d,]*\.?\d*")


def numbers(lines: Iterable[str]) -> list[float]:
    """The numbers in printed lines; their words may change from version to version."""
    return [float(found.replace(",", "")) for line in lines for found in NUMBER.findall(line)]


def run_ids(folder: Path) -> list[str]:
    """Every finished run of every workspace, and of the experiments."""
    home = folder / "home"
    runs = [*home.glob("*/runs/*/provenance.json"), *home.glob("library/experiments/runs/*/provenance.json")]
    return sorted(path.parent.relative_to(home).as_posix() for path in runs)


def log(shell: Shell, workspace: str) -> list[dict[str, Any]]:
    """The log as version 0.1.0 printed it, which knew no causes."""
    entries = json.loads("\n".join(shell.done("review", "log", "-w", workspace, "--json").out))
    return [{name: value for name, value in entry.items() if name != "cause"} for entry in entries]


def decisions(shell: Shell, workspace: str) -> dict[str, Any]:
    """The decision log with everything that follows from it."""
    opened = Workspace(shell.folder / "home" / workspace)
    found = opened.decisions
    comments = shell.done("review", "comments", "-w", workspace, "--json").out
    snapshots = [line.split("\t") for line in shell.done("review", "snapshots", "-w", workspace).out]
    shell.done("sets", "save", "present decisions", "-w", workspace)
    changes = shell.done("sets", "show", "present decisions", "-w", workspace).out
    shell.done("sets", "delete", "present decisions", "-w", workspace)
    return {
        "log": log(shell, workspace),
        "version": found.version(),
        "comments": json.loads("\n".join(comments)),
        "snapshots": [[name, at, who, *numbers([line]), note] for name, at, who, line, note in snapshots],
        "current": current(shell, workspace),
        "conflicts": [
            [*_named(item), [[entry.reviewer, entry.verdict, entry.label] for entry in entries]]
            for item, entries in found.conflicts().items()
        ],
        "changes": changes,
    }


def current(shell: Shell, workspace: str) -> list[list[Any]]:
    """The decision on every item."""
    found = Workspace(shell.folder / "home" / workspace).decisions.current()
    return [[*_named(item), entry.verdict, entry.label] for item, entry in found.items()]


def _named(item: Any) -> list[str]:
    return [item.kind, item.task_id, item.role, item.image_id]


def sets(shell: Shell, workspace: str) -> list[list[Any]]:
    """Every named set with what it changes, and its estimates and measurements."""
    listed = [line.split("\t") for line in shell.done("sets", "list", "-w", workspace).out]
    return [
        [
            [name, *rest],
            shell.done("sets", "show", name, "-w", workspace).out,
            numbers(line for line in _compared(shell, workspace, name) if NET_EFFECT not in line),
        ]
        for name, _, *rest in sorted(listed)
    ]


def _compared(shell: Shell, workspace: str, name: str) -> list[str]:
    """What is printed of a set; the first versions did not print net effects."""
    return shell.done("sets", "compare", name, "-w", workspace, "--device", "cpu").out


def queue(shell: Shell, workspace: str) -> list[float]:
    """The numbers that ``review show`` prints: items, decided ones, estimates and the most suspicious items.

    Where there is a snapshot ``plain``, it is restored first: its decisions are on items of the queue and by one
    reviewer each, so that no rule on conflicts enters the counts.
    """
    opened = Workspace(shell.folder / "home" / workspace)
    if any(snapshot.name == PLAIN for snapshot in opened.decisions.snapshots()):
        shell.done("review", "restore", PLAIN, "-w", workspace, "--reviewer", "Cy")
    return numbers(shell.done("review", "show", "-w", workspace, "--top", "5").out)


def problem(shell: Shell, workspace: str) -> dict[str, Any]:
    """Images, tasks, model, injected label noise, and the accuracy that was measured."""
    opened = Workspace(shell.folder / "home" / workspace)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(HOME_VARIABLE, str(shell.folder / "home"))
        project = opened.project()
    planted = project.tasks.planted
    assert planted is not None
    return {
        "hashes": project.hashes,
        "images": [project.images.name, len(project.images.ids), *project.images.class_names],
        "planted": json.loads(planted.to_json(orient="split")),
        "evaluations": [run.json("summary.json")["accuracy"] for run in opened.runs.all("evaluate")],
        "snapshots": len(opened.trajectory()) if project.snapshots else 0,
    }


def views(folder: Path) -> dict[str, Any]:
    return {name: filters.to_params() for name, filters in saved_views(folder).items()}


def jobs(folder: Path) -> list[list[Any]]:
    found = [Jobs(folder / "jobs").get(job.id) for job in Jobs(folder / "jobs").all()]
    return [[job.title, job.status(), list(job.args), job.started, len(job.results())] for job in found]


def experiments(folder: Path) -> list[Any]:
    """Every result of an experiment: what was asked, and how many parts of each kind it has."""
    found = sorted((folder / "home" / "library" / "experiments").glob("*/config.json"))
    results = [read_result(path.parent) for path in found]
    return [
        [
            one.config["experiment"],
            one.config["runs"],
            len(one.findings),
            len(one.tables),
            len(one.plots),
            len(one.grids),
        ]
        for one in results
    ]


def contents(shell: Shell) -> dict[str, Any]:
    """Everything that is compared, of the data folder of ``shell``; changes its decisions."""
    home = shell.folder / "home"
    found = {
        "image_sets": [line.split("\t")[0] for line in shell.done("data", "--list").out],
        "runs": run_ids(shell.folder),
        "experiments": experiments(shell.folder),
    }
    for name in WORKSPACES:
        folder = home / name
        found[name] = {
            "problem": problem(shell, name),
            "decisions": decisions(shell, name),
            "sets": sets(shell, name),
            "views": views(folder),
            "jobs": jobs(folder),
            "queue": queue(shell, name),
        }
    return found


if __name__ == "__main__":
    json.dump(contents(Shell(Path(sys.argv[1]).resolve())), sys.stdout, indent=1)
