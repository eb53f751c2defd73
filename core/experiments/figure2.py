"""Figure 2: the most helpful tasks or instances are removed, or any, and the model is trained again on the rest."""

from __future__ import annotations

import numpy as np
import pandas as pd

from core.experiments.bench import RANKING, TRAINING, Bench
from core.experiments.outcome import SPREAD, TITLES, Difference, Figures, Outcome, line, mean_sd, percent
from core.experiments.problems import Problem
from core.experiments.profiles import Profile
from core.experiments.results import Plot, Table
from core.tasks.changes import Changes
from core.tasks.tasklist import KEY, TaskList

LEVELS = {"tasks": "tasks", "instances": "instances"}
ORDERS = {"helpful": "most helpful first", "random": "at random"}


def weight(profile: Profile) -> int:
    """A model, a ranking, and the points of the curves."""
    return TRAINING + 2 * RANKING + len(LEVELS) * len(ORDERS) * len(profile.removed) * TRAINING


def measure(bench: Bench) -> pd.DataFrame:
    """Rows of level, order, share, accuracy."""
    on, rows = bench.problem("none"), []
    tables = {level: bench.ranked(on, "task-if").table(f"{level}.parquet") for level in LEVELS}
    untouched = float(on.tested(on.loaded.params).accuracy.mean())
    for level, table in tables.items():
        for order in ORDERS:
            rows.append({"level": level, "order": order, "share": 0.0, "accuracy": untouched})
            sequence = _sequence(table["score"].to_numpy(), order, bench.unit.seed)
            for share in bench.unit.profile.removed:
                changes = _changes(on, level, table, sequence, share)
                accuracy = float(on.tested(bench.retrained(on, changes).params).accuracy.mean())
                rows.append({"level": level, "order": order, "share": share, "accuracy": accuracy})
    return pd.DataFrame(rows)


def _sequence(score: np.ndarray, order: str, seed: int) -> np.ndarray:
    if order == "random":
        return np.random.default_rng([seed, 44]).permutation(len(score))
    return np.argsort(-score, kind="stable")


def _changes(on: Problem, level: str, table: pd.DataFrame, sequence: np.ndarray, share: float) -> Changes:
    ordered, count = table.iloc[sequence], round(share * len(table))
    if level == "tasks":
        return Changes(tasks=frozenset(ordered["task_id"][:count]))
    return Changes(instances=frozenset(first_spared(on.loaded.project.tasks.train, ordered, count)))


def first_spared(tasks: TaskList, ordered: pd.DataFrame, count: int) -> list[tuple[str, str, str]]:
    """Keys of the first ``count`` rows of ``ordered`` but for the last support row of a class of a task, which a task
    cannot do without: the next in order takes its place."""
    rows = tasks.rows[tasks.rows["role"] == "support"]
    pairs = list(rows[["task_id", "label"]].itertuples(index=False, name=None))
    place = dict(zip(rows[KEY].itertuples(index=False, name=None), pairs, strict=True))
    left = rows.groupby(["task_id", "label"]).size().to_dict()
    taken: list[tuple[str, str, str]] = []
    for key in ordered[KEY].itertuples(index=False, name=None):
        if len(taken) == count:
            break
        if key in place:
            if left[place[key]] == 1:
                continue
            left[place[key]] -= 1
        taken.append(key)
    return taken


def conclude(figures: Figures) -> Outcome:
    """A plot a level, a table, and what they say."""
    says, tables, plots = [], [], []
    for data in figures.data:
        rows = []
        for level, words in LEVELS.items():
            series = [
                line(
                    name,
                    figures.of(data=data, level=level, order=order),
                    "share",
                    "accuracy",
                    reference=order == "random",
                )
                for order, name in ORDERS.items()
            ]
            title = f"{TITLES[data]}: {words} removed, the model trained again"
            plots.append(
                Plot(
                    f"removed-{data}-{level}",
                    title,
                    "lines",
                    f"{words} removed",
                    "accuracy on new tasks",
                    series,
                    percent_x=True,
                    percent_y=True,
                    note=SPREAD,
                )
            )
            shares = sorted(figures.of(data=data)["share"].unique())
            for order, name in ORDERS.items():
                found = figures.of(data=data, level=level, order=order)
                rows.append([words, name, *(mean_sd(found[found["share"] == at]["accuracy"]) for at in shares)])
            says.append(_says(figures, data, level))
        columns = ["removed", "order", *(percent(share) for share in shares)]
        note = f"{SPREAD} The paper reads off its plots: tasks from about 0.62 to 0.58, instances from 0.40 to 0.25."
        tables.append(Table(f"removed-{data}", TITLES[data], columns, rows, note))
    return Outcome(says, tables, plots)


def _says(figures: Figures, data: str, level: str) -> str:
    share = figures.of(data=data)["share"].max()
    of = {
        order: figures.of(data=data, level=level, order=order, share=share).set_index("seed")["accuracy"]
        for order in ORDERS
    }
    gap = Difference.of(of["helpful"], of["random"])
    verdict = (
        "as the paper has it"
        if gap.high < 0
        else "which these seeds do not settle"
        if gap.low <= 0
        else ("the opposite of what the paper has")
    )
    return (
        f"**{TITLES[data]}, {level}.** With {percent(share)} removed, most helpful first gives "
        f"{mean_sd(of['helpful'], '.3f')}, at random {mean_sd(of['random'], '.3f')}: helpful against random "
        f"{gap.words}, {verdict}."
    )
