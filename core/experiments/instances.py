"""Table 1, instance level: remove 40 % of the support or of the query images of 20 tasks, chosen at random.

This changes the result of retraining by less than another seed does, so the difference of a second retraining is
reported beside those of the edits.
"""

from __future__ import annotations

import numpy as np
import pandas as pd

from core.experiments.context import EDIT_WEIGHT, TRAINING_WEIGHT, ExperimentContext, measure_edit
from core.experiments.formatting import mean_sd, percent
from core.experiments.paper import published_cells
from core.experiments.results import Table
from core.experiments.summary import SPREAD_NOTE, ExperimentSummary, Measurements, listed, share_plot
from core.experiments.table1 import EDIT_LABELS
from core.tasks.changes import Changes
from core.tasks.tasklist import KEY, TaskList

TASKS, REMOVED_SHARE = 20, 0.4
METHODS = {
    "unedited": EDIT_LABELS["unedited"],
    "retrain": EDIT_LABELS["retrain"],
    "retrain-again": "Retraining, another seed",
    "instance-if-paper": "Instance-IF edit, as published",
    "instance-if": "Instance-IF edit, Gauss-Newton",
    "instance-if-exact": "Instance-IF edit, exact Hessian",
    "newton": EDIT_LABELS["newton"],
    "finetune": EDIT_LABELS["finetune"],
    "finetune-all": EDIT_LABELS["finetune-all"],
}
_EDITS = ("instance-if-paper", "instance-if", "instance-if-exact", "newton")
_PUBLISHED = {"retrain": "retrain", "instance-if-paper": "instance-if"}
ROLES = {"support": "support (“training” in the paper)", "query": "query (“validation” in the paper)"}


def measure(context: ExperimentContext) -> pd.DataFrame:
    """Return rows of role, method, accuracy, loss, seconds, cost."""
    context.expect(5 * TRAINING_WEIGHT + 2 * len(METHODS) * EDIT_WEIGHT)  # two retrainings per role
    problem, rows = context.problem("none"), []
    for number, role in enumerate(ROLES):
        rng = np.random.default_rng([context.unit.seed, 41, number])
        changes = Changes(instances=frozenset(sample_rows(problem.project.tasks.train, role, rng)))
        for method in METHODS:
            edit = context.edit(problem, changes, method.replace("instance-if", "task-if"))
            rows.append(measure_edit(problem, edit, role=role, method=method))
    return pd.DataFrame(rows)


def sample_rows(tasks: TaskList, role: str, rng: np.random.Generator) -> list[tuple[str, str, str]]:
    """Return the keys of 40 % of the rows of ``role`` in 20 tasks; every class of a task keeps at least one row."""
    keys: list[tuple[str, str, str]] = []
    candidates = tasks.rows[tasks.rows["role"] == role]
    ids = rng.choice(np.array(tasks.task_ids, dtype=object), min(TASKS, len(tasks)), replace=False)
    for task_id in ids:
        rows = candidates[candidates["task_id"] == task_id]
        rows = rows.iloc[rng.permutation(len(rows))]
        spare = rows[rows.groupby("label").cumcount() > 0]
        removed = spare.head(round(REMOVED_SHARE * len(rows)))
        keys += list(removed[KEY].itertuples(index=False, name=None))
    return keys


def summarize(measurements: Measurements) -> ExperimentSummary:
    """Return a table, a plot and a finding per role."""
    series = [measurements.accuracy(role=role).series(name, METHODS) for role, name in ROLES.items()]
    title = f"{measurements.title}: accuracy after removing {percent(REMOVED_SHARE)} of the images of {TASKS} tasks"
    plot = share_plot(f"instances-{measurements.data}", title, series)
    findings = [_finding(measurements, role) for role in ROLES]
    return ExperimentSummary(findings, [_table(measurements)], [plot])


def _finding(measurements: Measurements, role: str) -> str:
    accuracy = measurements.accuracy(role=role)
    gaps = accuracy.differences({name: METHODS[name] for name in ("unedited", *_EDITS, "retrain-again")}, "retrain")
    return (
        f"{measurements.heading(ROLES[role])} Mean absolute difference from retraining "
        f"({mean_sd(accuracy['retrain'])}): {listed({name: gap.mean_abs_text for name, gap in gaps.items()})}. "
        f"{accuracy.equivalence_finding({name: METHODS[name] for name in _EDITS})}"
    )


def _table(measurements: Measurements) -> Table:
    rows = []
    for method, label in METHODS.items():
        row = {"method": label}
        for role in ROLES:
            selected = measurements.select(role=role, method=method)
            published = published_cells(f"{_PUBLISHED.get(method, '')}-{role}", measurements.data)
            row[f"{role}: accuracy"] = mean_sd(selected["accuracy"])
            row[f"{role}: seconds"] = mean_sd(selected["seconds"], ".1f")
            row[f"{role}: paper's accuracy"], row[f"{role}: paper's seconds"] = published
        rows.append(row)
    return measurements.text_table("instances", rows, f"{SPREAD_NOTE} Processor seconds.")
