"""Figure 1: label errors found, and accuracy after removal, against the share of the training data that is checked.

Label noise (:mod:`core.tasks.noise`): with (a) easy and (b) hard, tasks are checked; with (c) image and (d) confusion,
images are.
"""

from __future__ import annotations

from itertools import product

import numpy as np
import pandas as pd
from sklearn.metrics import average_precision_score, roc_auc_score

from core.actions.queue import QueueSettings, queue
from core.experiments.context import EDIT_WEIGHT, RANKING_WEIGHT, TRAINING_WEIGHT, ExperimentContext
from core.experiments.formatting import PERCENT, mean_sd, percent
from core.experiments.problems import Problem
from core.experiments.results import Plot, Table
from core.experiments.summary import SPREAD_NOTE, ExperimentSummary, Measurements, PairedDifference, listed, share_plot
from core.tasks.changes import Changes

NOISE_LABELS = {
    "easy": "(a) easy: 40 % of the tasks, 80 % of their labels flipped",
    "hard": "(b) hard: 15 % of the tasks, 30 % of their labels flipped",
    "image": "(c) image: 10 % of the images mislabelled at random",
    "confusion": "(d) confusion: 10 % of the images labelled as a similar class",
}
_NOISE_OF_TASKS = ("easy", "hard")  # the others in NOISE_LABELS are of images
ORDERS = {
    "recommended": "recommended",
    "influence": "influence",
    "self-influence": "self-influence",
    "loss": "loss",
    "loss-each": "loss, every image a query",
    "queue": "review queue",
    "random": "random",
}
QUANTITIES = {"found": "label errors found", "accuracy": "accuracy on new tasks"}
_LOSS_NOTE = (
    "“loss” is that of a task; of an image it is the loss as a query of the training tasks, or as support where it is "
    "never a query. “loss, every image a query” uses tasks drawn so that every image is a query, as the review queue "
    "does."
)
_ON_THE_PAPER = (
    "The paper's statement that checking 40 % finds all harmful tasks, of which there are 80 %, cannot hold. Its plot "
    "gives no other numbers to compare with than 62.5 % and 55 % accuracy at 25 % checked."
)
SHARES = tuple(np.round(np.arange(0, 1.0001, 0.05), 2).tolist())
_TABLE_SHARES = (0.1, 0.25, 0.4)
_ROWS_PER_TASK = 3  # the most suspicious rows of a noisy task count, not its many clean ones


def measure(context: ExperimentContext) -> pd.DataFrame:
    """Return rows of protocol, order, quantity (``found``, ``accuracy``, ``auc``, ``ap``), share, value."""
    profile = context.unit.profile
    point = EDIT_WEIGHT if profile.refit == "finetune" else TRAINING_WEIGHT
    points = 1 + len(ORDERS) * len(profile.checked)
    context.expect(len(NOISE_LABELS) * (TRAINING_WEIGHT + 4 * RANKING_WEIGHT + points * point))
    rows = []
    for noise in NOISE_LABELS:
        problem = context.problem(noise)
        level = "tasks" if noise in _NOISE_OF_TASKS else "images"
        ids, wrong, scores = _suspicion_scores(context, problem, level)
        accuracy_on_all = _refitted_accuracy(context, problem, Changes())
        for order, suspicion in scores.items():
            sequence = np.argsort(-suspicion, kind="stable")
            found = np.concatenate([[0], np.cumsum(wrong[sequence])]) / wrong.sum()
            values = [("found", share, found[round(share * len(ids))]) for share in SHARES]
            values += [
                ("auc", 0, roc_auc_score(wrong, suspicion)),
                ("ap", 0, average_precision_score(wrong, suspicion)),
                ("accuracy", 0, accuracy_on_all),
            ]
            for share in profile.checked:
                changes = Changes(**{level: frozenset(ids[sequence[: round(share * len(ids))]])})
                values.append(("accuracy", share, _refitted_accuracy(context, problem, changes)))
            rows += [(noise, order, quantity, share, float(value)) for quantity, share, value in values]
    return pd.DataFrame(rows, columns=["protocol", "order", "quantity", "share", "value"])


def _refitted_accuracy(context: ExperimentContext, problem: Problem, changes: Changes) -> float:
    """Return the accuracy after retraining or fine-tuning on the remaining tasks, as the profile says."""
    refit = context.finetune if context.unit.profile.refit == "finetune" else context.retrain
    return float(problem.evaluate_tests(refit(problem, changes).params).accuracy.mean())


def _suspicion_scores(
    context: ExperimentContext, problem: Problem, level: str
) -> tuple[np.ndarray, np.ndarray, dict[str, np.ndarray]]:
    """Return the items ``(n,)``, which of them are wrong ``(n,)``, and per order how suspicious each is ``(n,)``."""
    table, key = f"{level}.parquet", f"{level.removesuffix('s')}_id"
    influence = context.rank(problem, "task-if").table(table).set_index(key)
    ids = np.array(sorted(influence.index), dtype=object)
    injected = problem.project.tasks.planted
    assert injected is not None
    wrong = np.isin(ids, injected[key].unique())
    self_influence = context.rank(problem, "self-influence").table(table).set_index(key)
    with context.part(RANKING_WEIGHT) as progress:
        items = queue(problem.workspace, QueueSettings(), context.compute, progress).table("items.parquet")

    def queue_scores(column: str) -> np.ndarray:
        means = items.groupby(key)[column].apply(lambda part: part.nlargest(_ROWS_PER_TASK).mean())
        return means.reindex(ids).fillna(means.min()).to_numpy()

    recommended = context.recommendation(problem).table(table).set_index(key)
    scores = {
        "recommended": recommended.loc[ids, "suspicion"].to_numpy(),
        "influence": -influence.loc[ids, "score"].to_numpy(),
        "self-influence": -self_influence.loc[ids, "score"].to_numpy(),
        "loss": influence.loc[ids, "loss"].to_numpy(),
        "loss-each": queue_scores("loss"),
        "queue": queue_scores("suspicion"),
        "random": np.random.default_rng([context.unit.seed, 43]).random(len(ids)),
    }
    return ids, wrong, scores


def summarize(measurements: Measurements) -> ExperimentSummary:
    """Return a table, two plots and a finding per kind of noise, and a finding on the paper's own."""
    plots = [_plot(measurements, noise, quantity) for noise, quantity in product(NOISE_LABELS, QUANTITIES)]
    findings = [_finding(measurements, noise) for noise in NOISE_LABELS]
    return ExperimentSummary([*findings, _ON_THE_PAPER], [_table(measurements)], plots)


def _plot(measurements: Measurements, noise: str, quantity: str) -> Plot:
    where = {"protocol": noise, "quantity": quantity}
    series = [
        measurements.curve(name, "share", "value", reference=order == "random", order=order, **where)
        for order, name in ORDERS.items()
    ]
    name, title = f"{quantity}-{measurements.data}-{noise}", f"{measurements.title} {NOISE_LABELS[noise]}"
    return share_plot(name, title, series, "share checked, most suspicious first", QUANTITIES[quantity])


def _table(measurements: Measurements) -> Table:
    rows = []
    columns = {"AUC": ("auc", 0.0), "average precision": ("ap", 0.0)}
    columns |= {f"found at {percent(share)}": ("found", share) for share in _TABLE_SHARES}
    for share in sorted(measurements.select(quantity="accuracy")["share"].unique()):
        columns[f"accuracy, {percent(share)} removed"] = ("accuracy", share)
    for (noise, label), (order, name) in product(NOISE_LABELS.items(), ORDERS.items()):
        row = {"noise": label.split(":")[0], "order": name}
        for column, (quantity, share) in columns.items():
            values = measurements.select(quantity=quantity, share=share, protocol=noise, order=order)["value"]
            row[column] = mean_sd(values, ".3f")
        rows.append(row)
    refit = "fine-tuned" if measurements.profile.refit == "finetune" else "retrained"
    note = f"{SPREAD_NOTE} Models are {refit} on the remaining tasks; at 0 %, on all tasks. {_LOSS_NOTE}"
    return measurements.text_table("found", rows, note)


def _finding(measurements: Measurements, noise: str) -> str:
    precision = {order: measurements.by_seed("value", protocol=noise, order=order, quantity="ap") for order in ORDERS}
    best = max(precision, key=lambda order: precision[order].mean())
    others = [order for order in ORDERS if order not in (best, "random")]
    finding = (
        f"**{NOISE_LABELS[noise]}.** Best average precision: {listed({ORDERS[best]: mean_sd(precision[best], '.3f')})};"
        f" others: {listed({ORDERS[order]: mean_sd(precision[order], '.3f') for order in others})}. "
    )
    if best != "influence":
        gap = PairedDifference.of(precision[best], precision["influence"])
        verdict = "the 95 % interval excludes 0" if gap.is_significant else "not significant"
        finding += f"The best exceeds influence by {gap.mean / PERCENT:.2f} ({verdict}). "
    accuracy = measurements.select(protocol=noise, quantity="accuracy").set_index("seed")
    share = max(accuracy["share"])
    after = dict(iter(accuracy[accuracy["share"] == share].groupby("order")["value"]))
    winner = max(after, key=lambda order: after[order].mean())
    texts = {
        ORDERS[order]: mean_sd(after[order], ".3f")
        for order in dict.fromkeys((winner, "recommended", "influence", "random"))
    }
    before = accuracy[(accuracy["share"] == 0) & (accuracy["order"] == winner)]["value"]
    return finding + (
        f"Accuracy with {percent(share)} removed: {listed(texts)}; with nothing removed: {mean_sd(before, '.3f')}. "
        f"The best of these differs from removing nothing by {PairedDifference.of(after[winner], before).text}."
    )
