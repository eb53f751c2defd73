"""Named what-if sets side by side: estimates at once, and measurements where the set has been trained on."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from core.actions.compute import Compute
from core.actions.edit import SOLVE, cache_key, kind_of
from core.actions.evaluate import KIND as EVALUATION
from core.actions.evaluate import cache_key as evaluation_question
from core.actions.whatif import WhatIf, WhatIfEstimator
from core.editing.settings import FINETUNE
from core.maml.evaluation import Interval
from core.runtime.errors import UserError
from core.workspace.runs import Run
from core.workspace.whatif_sets import NamedSet
from core.workspace.workspace import Project, Workspace

Table = Callable[[Run, str], pd.DataFrame]
MEASURED = ("retrain", "finetune")
"""Ways of editing that measure what a set does, the one that an estimate is of first."""


@dataclass(frozen=True)
class Measured:
    """What a finished edit of a set measured on the held-out tasks.

    Attributes:
        accuracy_change: Against the unedited model, paired by task.
        better, worse: Tasks whose accuracy rose and fell; None where the unedited model was not evaluated.
    """

    way: str
    run: Run
    accuracy: Interval
    accuracy_change: Interval
    better: int | None
    worse: int | None


@dataclass(frozen=True)
class Compared:
    """A set beside others.

    Attributes:
        estimate: None where nothing is prepared, or the set does not fit the problem.
        measured: By way of editing; with the usual options only.
        fault: Why there is no estimate although it is prepared.
    """

    named: NamedSet
    estimate: WhatIf | None
    measured: dict[str, Measured]
    fault: UserError | None = None

    @property
    def better(self) -> int:
        """Held-out tasks whose estimated accuracy rises."""
        return sum(task.after > task.before for task in self.estimate.tasks) if self.estimate else 0

    @property
    def worse(self) -> int:
        return sum(task.after < task.before for task in self.estimate.tasks) if self.estimate else 0


def compare(
    workspace: Workspace,
    instant: WhatIfEstimator | None,
    compute: Compute,
    names: Sequence[str] = (),
    table: Table = Run.table,
) -> list[Compared]:
    """The sets of these names (all, if none is given), in their order.

    Args:
        instant: Gives the estimates; None: there are none.
        table: How a run's table is read.

    Raises:
        UserError: there is no such set.
    """
    project, found = workspace.project(), []
    for name in names or workspace.sets.names():
        named = workspace.sets.get(name)
        measured = {way: one for way in MEASURED if (one := _measured(workspace, project, named, way, compute, table))}
        estimate, fault = None, None
        if instant is not None:
            try:
                estimate = instant.changes(named.changes)
            except UserError as error:  # of another task list, say; the others are shown all the same
                fault = error
        found.append(Compared(named, estimate, measured, fault))
    return found


def _measured(
    workspace: Workspace, project: Project, named: NamedSet, way: str, compute: Compute, table: Table
) -> Measured | None:
    run = workspace.runs.find(kind_of(way), cache_key(project, way, named.changes, SOLVE, FINETUNE, compute))
    if run is None:
        return None
    figures = run.json("edit.json")
    change = _by_task(workspace, project, run, compute, table)
    better, worse = (None, None) if change is None else (int((change > 0).sum()), int((change < 0).sum()))
    accuracy, difference = (Interval(**figures[name]) for name in ("accuracy", "accuracy_change"))
    return Measured(way, run, accuracy, difference, better, worse)


def _by_task(workspace: Workspace, project: Project, run: Run, compute: Compute, table: Table) -> np.ndarray | None:
    evaluated = workspace.runs.find(EVALUATION, evaluation_question(project, compute))
    if evaluated is None:
        return None
    after, before = (table(one, "heldout.parquet").set_index("task_id")["accuracy"] for one in (run, evaluated))
    return (after - before).to_numpy()


def class_table(compared: Sequence[Compared]) -> pd.DataFrame:
    """Estimated accuracy a class: class, rows, unedited, and one column a set, by its name."""
    estimates = {one.named.name: one.estimate for one in compared if one.estimate is not None}
    if not estimates:
        return pd.DataFrame(columns=["class", "rows", "unedited"])
    first = next(iter(estimates.values()))
    columns = {
        "class": [one.name for one in first.classes],
        "rows": [one.rows for one in first.classes],
        "unedited": [one.before for one in first.classes],
    }
    columns |= {name: [one.after for one in found.classes] for name, found in estimates.items()}
    return pd.DataFrame(columns)
