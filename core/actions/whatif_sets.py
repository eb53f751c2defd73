"""Compare named sets of changes: estimates, and measurements where the model was edited with the set."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import pandas as pd

from core.actions.compute import Compute
from core.actions.edit import cache_key, run_kind
from core.actions.edit_results import ReadTable, edit_result
from core.actions.evaluate import KIND as EVALUATION
from core.actions.evaluate import cache_key as evaluation_key
from core.editing.whatif import WhatIf, WhatIfEstimator
from core.maml.evaluation import Interval
from core.runtime.errors import UserError
from core.workspace.runs import Run
from core.workspace.whatif_sets import NamedSet
from core.workspace.workspace import Project, Workspace

MEASURING_METHODS = ("retrain", "finetune")
"""Edit methods that measure the effect of a set; an estimate predicts the first."""


@dataclass(frozen=True)
class Measurement:
    """A measured effect of a set of changes on the held-out tasks, by a finished edit.

    Attributes:
        accuracy: Held-out accuracy of the edited model.
        net_effect: Difference to the same procedure without the changes, paired by task; None where that control is
            not computed.
        accuracy_change: Difference to the unedited model, paired by task.
        better, worse: Number of tasks whose accuracy rose and fell; None where the unedited model was not evaluated.
    """

    method: str
    run: Run
    accuracy: Interval
    net_effect: Interval | None
    accuracy_change: Interval
    better: int | None
    worse: int | None


@dataclass(frozen=True)
class SetComparison:
    """A named set with its estimate and its measurements.

    Attributes:
        estimate: None where nothing is prepared, or the set does not fit the problem.
        measurements: By edit method, for edits with the default options only.
        fault: Why there is no estimate although the estimator is prepared.
    """

    named: NamedSet
    estimate: WhatIf | None
    measurements: dict[str, Measurement]
    fault: UserError | None = None

    @property
    def complete(self) -> set[str]:
        """Return the edit methods that are measured with their controls."""
        return {method for method, one in self.measurements.items() if one.net_effect is not None}


def compare(
    workspace: Workspace,
    estimator: WhatIfEstimator | None,
    compute: Compute,
    names: Sequence[str] = (),
    read_table: ReadTable = Run.table,
) -> list[SetComparison]:
    """Compare the sets of these names (all, if there are none), in their order.

    Args:
        estimator: Source of the estimates; None: no estimates.
        read_table: Reads a table of a run, for callers with a cache.

    Raises:
        UserError: a set does not exist.
    """
    project, comparisons = workspace.project(), []
    for name in names or workspace.sets.names():
        named = workspace.sets.get(name)
        measured = [_measurement(workspace, project, named, one, compute, read_table) for one in MEASURING_METHODS]
        measurements = {one.method: one for one in measured if one is not None}
        estimate, fault = None, None
        if estimator is not None:
            try:
                estimate = estimator.changes(named.changes)
            except UserError as error:  # for example of another task list; the other sets are still compared
                fault = error
        comparisons.append(SetComparison(named, estimate, measurements, fault))
    return comparisons


def _measurement(
    workspace: Workspace, project: Project, named: NamedSet, method: str, compute: Compute, read_table: ReadTable
) -> Measurement | None:
    key = cache_key(project, method, named.changes, compute=compute)
    run = workspace.runs.find(run_kind(method), key)
    if run is None:
        return None
    better, worse = None, None
    if unedited := workspace.runs.find(EVALUATION, evaluation_key(project, compute)):
        after, before = (read_table(one, "heldout.parquet").set_index("task_id")["accuracy"] for one in (run, unedited))
        better, worse = int((after - before > 0).sum()), int((after - before < 0).sum())
    result = edit_result(workspace, run, read_table)
    effect = None if result.effect is None else result.effect.accuracy
    return Measurement(method, run, Interval(**result.figures["accuracy"]), effect, result.change, better, worse)


def class_table(comparisons: Sequence[SetComparison]) -> pd.DataFrame:
    """Return the estimated accuracy per class: class, rows, unedited, and one column per set, by its name."""
    classes = {one.named.name: one.estimate.classes for one in comparisons if one.estimate is not None}
    unedited = next(iter(classes.values()), ())
    columns = {
        "class": [one.name for one in unedited],
        "rows": [one.rows for one in unedited],
        "unedited": [one.before for one in unedited],
    }
    return pd.DataFrame(columns | {name: [one.after for one in of_set] for name, of_set in classes.items()})
