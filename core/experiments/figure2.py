"""Figure 2: remove the most helpful tasks or instances, or random ones, and retrain on the rest."""

from __future__ import annotations

from itertools import product

import numpy as np
import pandas as pd

from core.experiments.context import RANKING_WEIGHT, TRAINING_WEIGHT, ExperimentContext
from core.experiments.formatting import mean_sd, percent
from core.experiments.results import Plot, Table
from core.experiments.summary import SPREAD_NOTE, ExperimentSummary, Measurements, PairedDifference, share_plot
from core.tasks.changes import Changes
from core.tasks.tasklist import KEY

LEVELS = ("tasks", "instances")
ORDERS = {"helpful": "most helpful first", "random": "at random"}


def measure(context: ExperimentContext) -> pd.DataFrame:
    """Return rows of level, order, share, accuracy."""
    unit = context.unit
    context.expect(2 * RANKING_WEIGHT + (1 + len(LEVELS) * len(ORDERS) * len(unit.profile.removed)) * TRAINING_WEIGHT)
    problem, rows = context.problem("none"), []
    tables = {level: context.rank(problem, "task-if").table(f"{level}.parquet") for level in LEVELS}
    untouched = float(problem.evaluate_tests(problem.loaded.params).accuracy.mean())
    for (level, table), order in product(tables.items(), ORDERS):
        rows.append({"level": level, "order": order, "share": 0.0, "accuracy": untouched})
        at_random = np.random.default_rng([unit.seed, 44]).permutation(len(table))
        helpful_first = np.argsort(-table["score"].to_numpy(), kind="stable")
        ordered = table.iloc[at_random if order == "random" else helpful_first]
        for share in unit.profile.removed:
            count = round(share * len(table))
            if level == "tasks":
                changes = Changes(tasks=frozenset(ordered["task_id"][:count]))
            else:
                changes = Changes(instances=frozenset(removable_rows(ordered, count)))
            accuracy = problem.evaluate_tests(context.retrain(problem, changes).params).accuracy.mean()
            rows.append({"level": level, "order": order, "share": share, "accuracy": float(accuracy)})
    return pd.DataFrame(rows)


def removable_rows(ordered: pd.DataFrame, count: int) -> list[tuple[str, str, str]]:
    """Return the keys of the first ``count`` rows of ``ordered`` that leave every class of a task a support row.

    The last support row of a class is skipped, and the next row in order takes its place.
    """
    is_last = ~ordered.duplicated(["task_id", "role", "label"], keep="last") & (ordered["role"] == "support")
    return list(ordered.loc[~is_last, KEY].head(count).itertuples(index=False, name=None))


def summarize(measurements: Measurements) -> ExperimentSummary:
    """Return a table, and a plot and a finding per level."""
    findings = [_finding(measurements, level) for level in LEVELS]
    return ExperimentSummary(findings, [_table(measurements)], [_plot(measurements, level) for level in LEVELS])


def _plot(measurements: Measurements, level: str) -> Plot:
    series = [
        measurements.curve(name, "share", "accuracy", reference=order == "random", level=level, order=order)
        for order, name in ORDERS.items()
    ]
    title = f"{measurements.title}: accuracy after removing {level} and retraining"
    return share_plot(f"removed-{measurements.data}-{level}", title, series, f"{level} removed")


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
