"""Figure 2: remove the most helpful tasks or instances, or random ones, and retrain on the rest."""

from __future__ import annotations

from itertools import product

import numpy as np
import pandas as pd

from core.experiments.context import RANKING_WEIGHT, TRAINING_WEIGHT, ExperimentContext
from core.experiments.formatting import mean_sd, percent
from core.experiments.problems import Problem
from core.experiments.profiles import Profile
from core.experiments.results import Plot, Table
from core.experiments.summary import (
    SPREAD_NOTE,
    ExperimentSummary,
    Measurements,
    PairedDifference,
    accuracy_plot,
    column_curve,
)
from core.tasks.changes import Changes
from core.tasks.tasklist import KEY, TaskList

LEVELS = ("tasks", "instances")
ORDERS = {"helpful": "most helpful first", "random": "at random"}


def weight(profile: Profile) -> int:
    """Return the work of a model, a ranking, and the points of the curves."""
    points = len(LEVELS) * len(ORDERS) * len(profile.removed)
    return TRAINING_WEIGHT + 2 * RANKING_WEIGHT + points * TRAINING_WEIGHT


def measure(context: ExperimentContext) -> pd.DataFrame:
    """Return rows of level, order, share, accuracy."""
    problem, rows = context.problem("none"), []
    tables = {level: context.rank(problem, "task-if").table(f"{level}.parquet") for level in LEVELS}
    untouched = float(problem.evaluate_tests(problem.loaded.params).accuracy.mean())
    for (level, table), order in product(tables.items(), ORDERS):
        rows.append({"level": level, "order": order, "share": 0.0, "accuracy": untouched})
        sequence = _sequence(table["score"].to_numpy(), order, context.unit.seed)
        for share in context.unit.profile.removed:
            changes = _changes(problem, level, table, sequence, share)
            accuracy = problem.evaluate_tests(context.retrain(problem, changes).params).accuracy.mean()
            rows.append({"level": level, "order": order, "share": share, "accuracy": float(accuracy)})
    return pd.DataFrame(rows)


def _sequence(score: np.ndarray, order: str, seed: int) -> np.ndarray:
    if order == "random":
        return np.random.default_rng([seed, 44]).permutation(len(score))
    return np.argsort(-score, kind="stable")


def _changes(problem: Problem, level: str, table: pd.DataFrame, sequence: np.ndarray, share: float) -> Changes:
    ordered, count = table.iloc[sequence], round(share * len(table))
    if level == "tasks":
        return Changes(tasks=frozenset(ordered["task_id"][:count]))
    return Changes(instances=frozenset(removable_rows(problem.project.tasks.train, ordered, count)))


def removable_rows(tasks: TaskList, ordered: pd.DataFrame, count: int) -> list[tuple[str, str, str]]:
    """Return the keys of the first ``count`` rows of ``ordered`` that leave every class of a task a support row.

    A row that would be the last of its class is skipped, and the next in order takes its place.
    """
    rows = tasks.rows[tasks.rows["role"] == "support"]
    pairs = list(rows[["task_id", "label"]].itertuples(index=False, name=None))
    class_of = dict(zip(rows[KEY].itertuples(index=False, name=None), pairs, strict=True))
    left = rows.groupby(["task_id", "label"]).size().to_dict()
    keys: list[tuple[str, str, str]] = []
    for key in ordered[KEY].itertuples(index=False, name=None):
        if len(keys) == count:
            break
        if key in class_of:
            if left[class_of[key]] == 1:
                continue
            left[class_of[key]] -= 1
        keys.append(key)
    return keys


def summarize(measurements: Measurements) -> ExperimentSummary:
    """Return a table, and a plot and a finding per level."""
    findings = [_finding(measurements, level) for level in LEVELS]
    return ExperimentSummary(findings, [_table(measurements)], [_plot(measurements, level) for level in LEVELS])


def _plot(measurements: Measurements, level: str) -> Plot:
    series = []
    for order, name in ORDERS.items():
        rows = measurements.select(level=level, order=order)
        series.append(column_curve(name, rows, "share", "accuracy", reference=order == "random"))
    title = f"{measurements.title}: accuracy after removing {level} and retraining"
    return accuracy_plot(f"removed-{measurements.data}-{level}", title, series, f"{level} removed")


def _table(measurements: Measurements) -> Table:
    rows, shares = [], sorted(measurements.table["share"].unique())
    for level, (order, name) in product(LEVELS, ORDERS.items()):
        selected = measurements.select(level=level, order=order)
        accuracy = {percent(share): mean_sd(selected[selected["share"] == share]["accuracy"]) for share in shares}
        rows.append({"removed": level, "order": name} | accuracy)
    note = f"{SPREAD_NOTE} The paper's plots show a fall from about 0.62 to 0.58 for tasks, from 0.40 to 0.25 for "
    return measurements.text_table("removed", rows, f"{note}instances.")


def _finding(measurements: Measurements, level: str) -> str:
    share = measurements.table["share"].max()
    helpful, random = (measurements.by_seed("accuracy", level=level, order=order, share=share) for order in ORDERS)
    gap = PairedDifference.of(helpful, random)
    verdict = "as in the paper" if gap.high < 0 else "contrary to the paper" if gap.low > 0 else "not significant"
    return (
        f"{measurements.heading(level)} With {percent(share)} removed, accuracy is {mean_sd(helpful, '.3f')} if the "
        f"most helpful are removed first, and {mean_sd(random, '.3f')} if random ones are: a difference of {gap.text}, "
        f"{verdict}."
    )
