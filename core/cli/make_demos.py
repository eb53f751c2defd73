"""Make the files of the demos (:mod:`core.workspace.demos`): ``python -m core.cli.make_demos``.

Every step is a command of the program, so that each shipped run names the command that computes it again. Steps that
are done in the folder ``--work`` are not repeated, so an interrupted making resumes. Shipped runs have ``precomputed``
in their provenance.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Annotated

import numpy as np
import typer
from PIL import Image

from core.actions.demo import MEASURED_BY, RECOMMENDED, SET_NOTES, measure_demo, save_sets
from core.actions.edit import run_kind
from core.actions.queue import newest_queue
from core.actions.recommend import newest_recommendation
from core.data.shapes import PICTURE, draw_picture, load_shapes
from core.editing.settings import EDIT_METHODS
from core.maml.settings import Compute
from core.runtime.errors import UserError
from core.runtime.files import home, read_json, write_json
from core.runtime.program import PROGRAM, command_line
from core.runtime.progress import Progress
from core.runtime.settings import arguments_of
from core.workspace.demos import AUTHOR, DEMOS, FILES
from core.workspace.whatif_sets import Sets
from core.workspace.workspace import Workspace, newest_ranking

_SHIPPED = ("evaluate", "rank", "recommend", "queue", "curve", "evidence", *map(run_kind, EDIT_METHODS))
"""Kinds of runs that are shipped; others only serve to compute these."""
_EVIDENCE = (
    *("--subsets", "8", "--iterations", "300"),
    *("--methods", "task-if:solver=low-rank,direct-if:solver=low-rank,dot,loss"),
)
"""Fewer and shorter retrainings than by default, which would take hours, and one basis for the 20 targets."""


def commands(name: str, seed: int) -> Iterator[list[str]]:
    """Yield the commands that make the workspace of a demo, in their order."""
    demo = DEMOS[name]
    tasks, model, on = f"{name}/drawn", f"{name}/trained", ["--workspace", name]
    yield ["tasks", *arguments_of(replace(demo.tasks, seed=seed)), "--out", tasks]
    yield ["train", "--tasks", tasks, "--out", model, "--iterations", str(demo.steps), "--seed", str(seed)]
    yield ["open", "--tasks", tasks, "--model", model, *on]
    yield ["evaluate", *on]
    yield ["recommend", *on]
    yield ["rank", *on]
    yield ["review", "queue", *on]
    for named in _save_sets(name):
        yield ["edit", *on, "--set", named, *(part for method in MEASURED_BY for part in ("--how", method))]
    yield ["edit", *on, "--set", RECOMMENDED]
    yield ["curve", *on, "--by", demo.by, "--orders", "recommended,harmful,loss,random"]
    if demo.by == "tasks":  # half an hour
        yield ["evidence", *on, *_EVIDENCE]


def _save_sets(name: str) -> list[str]:
    workspace = Workspace(home() / name)
    project = workspace.project()
    recommendation, ranked = newest_recommendation(workspace, project), newest_ranking(workspace, project)
    assert recommendation is not None
    assert ranked is not None
    by = DEMOS[name].by
    return list(save_sets(workspace, by, recommendation, ranked, newest_queue(workspace) if by == "images" else None))


def export(workspace: Workspace, out: Path) -> None:
    """Write what is shipped of the workspace of a demo into the folder ``out``, in place of what is there."""
    shutil.rmtree(out, ignore_errors=True)
    for part in ("tasks", "model"):
        shutil.copytree(workspace.folder / part, out / part)
    for name in (one for one in SET_NOTES if one in workspace.sets.names()):
        Sets(out / "sets").save(name, workspace.sets.get(name).changes, who=AUTHOR, note=SET_NOTES[name])
        time.sleep(0.01)  # so that their times give the order
    for run in (run for kind in _SHIPPED for run in workspace.runs.all(kind)):
        shutil.copytree(run.folder, out / "runs" / run.id)
        provenance = out / "runs" / run.id / "provenance.json"
        write_json(provenance, {**read_json(provenance), "precomputed": True})


def draw_shapes() -> None:
    """Draw the picture of the images ``shapes``, unless the existing one is the same."""
    picture = draw_picture()
    if not PICTURE.exists() or not np.array_equal(np.asarray(Image.open(PICTURE)), picture):
        Image.fromarray(picture).save(PICTURE, optimize=True)
        load_shapes.cache_clear()


def main(
    work: Annotated[Path, typer.Option(help="Folder of the workspaces while they are made.")],
    only: Annotated[list[str] | None, typer.Option(help="Only this demo. Repeatable.")] = None,
    out: Annotated[Path, typer.Option(help="Folder to write the demos to.")] = FILES,
    seed: Annotated[int, typer.Option(help="Seed of tasks, noise and training; the shipped demos have 0.")] = 0,
) -> None:
    """Make demos and write their files; print what each shows.

    Raises:
        UserError: demos of another seed would replace the shipped ones.
    """
    if seed and out == FILES:
        raise UserError("The shipped demos have seed 0.", "Give --out, the folder to write these to.")
    os.environ["TASKLENS_HOME"] = str(work.resolve())
    work.mkdir(parents=True, exist_ok=True)
    draw_shapes()
    for name in only or DEMOS:
        for args in commands(name, seed):
            print(command_line(args), flush=True)
            subprocess.run([Path(sys.executable).parent / PROGRAM, *args], cwd=work, check=True)
        workspace = Workspace(home() / name)
        result = measure_demo(workspace, DEMOS[name].by, Compute(), Progress())
        print("\n".join(result.lines()), flush=True)
        export(workspace, out / name)


if __name__ == "__main__":
    typer.run(main)
