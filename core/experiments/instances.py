"""Table 1, instance level: 40 % of the support or of the query images of 20 tasks are removed at random.

So little changes what retraining gives by less than another seed of it does, which is why the distance to a second
retraining stands beside those of the edits.
"""

from __future__ import annotations

import numpy as np
import pandas as pd

from core.experiments.bench import EDIT, TRAINING, Bench
from core.experiments.outcome import NEAR, SPREAD, TITLES, Difference, Figures, Outcome, dots, mean_sd, near_words
from core.experiments.paper import printed
from core.experiments.profiles import Profile
from core.experiments.results import Plot, Table
from core.experiments.table1 import accuracies, row
from core.tasks.changes import Changes
from core.tasks.tasklist import KEY, TaskList

TASKS, SHARE = 20, 0.4
METHODS = {
    "unedited": "No change",
    "retrain": "Retraining",
    "retrain-again": "Retraining, another seed",
    "instance-if-paper": "Instance-IF edit, as the paper has it",
    "instance-if": "Instance-IF edit, Gauss-Newton",
    "instance-if-exact": "Instance-IF edit, exact Hessian",
    "newton": "Newton step, trust region",
    "finetune": "Short fine-tune on what is left",
    "finetune-all": "Short fine-tune on everything",
}
_PAPER = {"retrain": "retrain", "instance-if-paper": "instance-if"}
ROLES = {"support": "support (the paper: training)", "query": "query (the paper: validation)"}


def weight(profile: Profile) -> int:
    """A model, two retrainings and the edits of each role."""
    return 5 * TRAINING + 2 * len(METHODS) * EDIT


def measure(bench: Bench) -> pd.DataFrame:
    """Rows of role, method, accuracy, loss, seconds, cost."""
    rows = []
    on = bench.problem("none")
    for number, role in enumerate(ROLES):
        rng = np.random.default_rng([bench.unit.seed, 41, number])
        changes = Changes(instances=frozenset(some_rows(on.loaded.project.tasks.train, role, rng)))
        made = {
            "unedited": bench.unedited(on),
            "retrain": bench.retrained(on, changes),
            "retrain-again": bench.retrained(on, changes, seed=1),
            "instance-if-paper": bench.linear(on, changes, "gamma"),
            "instance-if": bench.linear(on, changes, "gauss-newton"),
            "instance-if-exact": bench.linear(on, changes, "exact"),
            "newton": bench.newton(on, changes),
            "finetune": bench.finetuned(on, changes),
            "finetune-all": bench.finetuned(on, Changes()),
        }
        rows += [row(on, role, method, edited) for method, edited in made.items()]
    return pd.DataFrame(rows).rename(columns={"condition": "role"}).drop(columns=["found", "note"])


def some_rows(tasks: TaskList, role: str, rng: np.random.Generator) -> list[tuple[str, str, str]]:
    """Keys of 40 % of the rows of ``role`` of 20 tasks; every class of a task keeps one row at least."""
    chosen: list[tuple[str, str, str]] = []
    rows = tasks.rows[tasks.rows["role"] == role]
    ids = rng.choice(np.array(tasks.task_ids, dtype=object), min(TASKS, len(tasks)), replace=False)
    for task_id in ids:
        here = rows[rows["task_id"] == task_id]
        here = here.iloc[rng.permutation(len(here))]
        spare = here[here.groupby("label").cumcount() > 0]
        gone = spare.head(round(SHARE * len(here)))
        chosen += list(gone[KEY].itertuples(index=False, name=None))
    return chosen


def conclude(figures: Figures) -> Outcome:
    """A table and a plot of every data set, and what they say."""
    says, tables, plots = [], [], []
    for data in figures.data:
        tables.append(_table(figures, data))
        series = [
            dots(
                words,
                list(METHODS.values()),
                [figures.of(data=data, role=role, method=name)["accuracy"] for name in METHODS],
            )
            for role, words in ROLES.items()
        ]
        title = f"{TITLES[data]}: accuracy after 40 % of the images of {TASKS} tasks are removed"
        plots.append(
            Plot(f"instances-{data}", title, "dots", "", "accuracy on new tasks", series, percent_y=True, note=SPREAD)
        )
        for role, words in ROLES.items():
            of = accuracies(figures, data=data, role=role)
            gaps = {name: Difference.of(of[name], of["retrain"]) for name in METHODS if name != "retrain"}
            edits = ("instance-if-paper", "instance-if", "instance-if-exact", "newton")
            far = "; ".join(f"{METHODS[name]} {gaps[name].apart_words}" for name in ("unedited", *edits))
            says.append(
                f"**{TITLES[data]}, {words}.** Distance from retraining ({mean_sd(of['retrain'])}), averaged over the "
                f"seeds: {far}; a second retraining {gaps['retrain-again'].apart_words}. "
                + near_words({METHODS[name]: gaps[name] for name in edits}, NEAR)
            )
    return Outcome(says, tables, plots)


def _table(figures: Figures, data: str) -> Table:
    rows = []
    for method, label in METHODS.items():
        cells = [label]
        for role in ROLES:
            found = figures.of(data=data, role=role, method=method)
            paper = printed(f"{_PAPER.get(method, '')}-{role}", data)
            cells += [
                mean_sd(found["accuracy"]),
                mean_sd(found["seconds"], ".1f"),
                paper.accuracy_words if paper else "",
                paper.seconds_words if paper else "",
            ]
        rows.append(cells)
    columns = ["method"] + [
        f"{role}: {what}" for role in ROLES for what in ("accuracy", "seconds", "paper's accuracy", "paper's seconds")
    ]
    return Table(f"instances-{data}", TITLES[data], columns, rows, f"{SPREAD} Seconds of the processor.")
