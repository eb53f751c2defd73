"""Table 1, task level: remove 40 % of the tasks and compare the models that retraining, edits and controls give.

- ``random``: no label is wrong, and random tasks are removed. An edit should give what retraining gives.
- ``harmful``: 80 % of the labels of 40 % of the tasks are flipped, and as many tasks are removed as each method selects
  as the most harmful. Retraining should gain accuracy; an edit should gain as much.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import pandas as pd

from core.experiments.context import (
    COST_GOAL,
    EDIT_WEIGHT,
    RANKING_WEIGHT,
    TRAINING_WEIGHT,
    ExperimentContext,
    measure_edit,
)
from core.experiments.formatting import PERCENT, mean_sd, percent
from core.experiments.paper import published_cells
from core.experiments.problems import Problem
from core.experiments.results import Table
from core.experiments.summary import SPREAD_NOTE, Accuracies, ExperimentSummary, Measurements, listed, share_plot
from core.runtime.errors import TransientError, UserError
from core.tasks.changes import Changes

REMOVED_SHARE = 0.4
GAIN_GOAL = 0.9
"""The goal of an edit: this share of retraining's gain, for the share ``COST_GOAL`` of its cost."""
COST_TOLERANCE = 1.05
"""Costs may exceed the goal by the rounding to an integer number of steps."""
CONDITIONS = {"random": "none", "harmful": "easy"}
"""What is removed, and the label noise of the tasks."""
CONDITION_NAMES = {"random": "random tasks removed", "harmful": "harmful tasks removed"}
EDIT_LABELS = {
    "unedited": "Unedited model",
    "retrain": "Retraining",
    "task-if-paper": "Task-IF edit, as published",
    "task-if": "Task-IF edit, Gauss-Newton",
    "task-if-exact": "Task-IF edit, exact Hessian",
    "direct-if": "Direct-IF edit",
    "newton": "Newton step, trust region",
    "steps": f"Adam steps, {percent(COST_GOAL)} of retraining",
    "finetune": "Short fine-tune on the remaining tasks",
    "finetune-all": "Short fine-tune on all tasks",
}
_EQUIVALENT = ("unedited", "task-if-paper", "task-if", "newton", "steps")
_INFLUENCE = ("task-if-paper", "task-if", "task-if-exact", "direct-if")
_SELECTORS = {
    "pick-recommended": "the recommendation",
    "pick-ekfac": "EK-FAC IF",
    "pick-trak-1": "TRAK",
    "pick-tracin": "TracIn",
    "pick-loss": "loss",
}
SELECTION_LABELS = {name: f"Retraining, tasks selected by {selector}" for name, selector in _SELECTORS.items()}
_LABELS = EDIT_LABELS | SELECTION_LABELS
_PUBLISHED = {
    "retrain": "retrain",
    "task-if-paper": "task-if",
    "direct-if": "direct-if",
    "pick-ekfac": "ekfac",
    "pick-trak-1": "trak",
    "pick-tracin": "tracin",
}


def removal_problems(
    context: ExperimentContext, stream: int
) -> Iterator[tuple[str, Problem, np.ndarray, np.ndarray, int]]:
    """Yield each condition with its problem, the ids ``(N,)`` of its training tasks, a random order, and how many go.

    Args:
        stream: Second part of the seed of the order, so that each experiment draws its own.
    """
    for condition, noise in CONDITIONS.items():
        problem = context.problem(noise)
        ids = np.array(problem.project.tasks.train.task_ids, dtype=object)
        order = np.random.default_rng([context.unit.seed, stream]).permutation(len(ids))
        yield condition, problem, ids, order, round(REMOVED_SHARE * len(ids))


def measure(context: ExperimentContext) -> pd.DataFrame:
    """Return rows of condition, method, accuracy, loss, seconds, cost, found (noisy share of what is removed), note."""
    trainings, rankings, edits = 4 + len(SELECTION_LABELS), 1 + len(SELECTION_LABELS), 2 * len(EDIT_LABELS)
    context.expect(trainings * TRAINING_WEIGHT + rankings * RANKING_WEIGHT + edits * EDIT_WEIGHT)
    rows = []
    for condition, problem, ids, order, count in removal_problems(context, 40):
        if condition == "harmful":
            order = np.argsort(context.task_scores(problem, "task-if")[0], kind="stable")
        removed = order[:count]
        found = float(problem.noisy_tasks[removed].mean())
        changes = Changes(tasks=frozenset(ids[removed]))
        for method in EDIT_LABELS:
            edit = context.edit(problem, changes, method)
            rows.append(measure_edit(problem, edit, condition=condition, method=method) | {"found": found})
        for method in SELECTION_LABELS if condition == "harmful" else ():
            try:
                score, seconds = context.task_scores(problem, method.removeprefix("pick-"))
            except TransientError:
                raise
            except UserError as error:  # a method that cannot run on this machine must not stop the others
                rows.append({"condition": condition, "method": method, "note": str(error)})
                continue
            selected = np.argsort(score, kind="stable")[:count]
            retrained = context.retrain(problem, Changes(tasks=frozenset(ids[selected])))
            edit = replace(retrained, seconds=retrained.seconds + seconds, cost=float("nan"))
            found = float(problem.noisy_tasks[selected].mean())
            rows.append(measure_edit(problem, edit, condition=condition, method=method) | {"found": found})
    return pd.DataFrame(rows)


def summarize(measurements: Measurements) -> ExperimentSummary:
    """Return a table, a plot and findings."""
    accuracies = {name: measurements.accuracy(condition=condition) for condition, name in CONDITION_NAMES.items()}
    series = [accuracy.series(name, _LABELS) for name, accuracy in accuracies.items()]
    title = f"{measurements.title}: accuracy after removing {percent(REMOVED_SHARE)} of the tasks"
    plot = share_plot(f"accuracy-{measurements.data}", title, series)
    findings = [*_harmful_findings(measurements), _random_finding(measurements)]
    return ExperimentSummary(findings, [_table(measurements)], [plot])


def _table(measurements: Measurements) -> Table:
    rows = []
    for method, label in _LABELS.items():
        random, harmful = (measurements.select(condition=condition, method=method) for condition in CONDITIONS)
        published = published_cells(_PUBLISHED.get(method, ""), measurements.data)
        is_selection = method in ("retrain", *SELECTION_LABELS)
        rows.append(
            {
                "method": label,
                "accuracy, random removed": mean_sd(random["accuracy"]),
                "accuracy, harmful removed": mean_sd(harmful["accuracy"]),
                "noisy share of removed tasks": mean_sd(harmful["found"], ".2f") if is_selection else "",
                "seconds": mean_sd(harmful["seconds"], ".1f"),
                "meta-gradients": mean_sd(harmful["cost"], ".0f"),
                "cost, % of retraining": mean_sd(measurements.cost_shares(method, condition="harmful"), ".1f", PERCENT),
                "paper: accuracy": published[0],
                "paper: seconds": published[1],
            }
        )
    failed = measurements.select().loc[lambda table: table["accuracy"].isna()].drop_duplicates("method")
    reasons = " ".join(f"{_LABELS[str(row.method)]}: {row.note}" for row in failed.itertuples())
    note = (
        f"{SPREAD_NOTE} Processor seconds; those of “tasks selected by” include scoring, except for the loss, which is "
        "read off; the recommendation also scores images and rows. Retraining and all edits remove the tasks that "
        "task-IF selects; the ranking is not included in their seconds. The paper removed random tasks from tasks of "
        f"its own, so compare its accuracies within its column only. {reasons}"
    ).strip()
    return measurements.text_table("tasks", rows, note)


def _harmful_findings(measurements: Measurements) -> list[str]:
    accuracy = measurements.accuracy(condition="harmful")
    gain = accuracy.difference("retrain", "unedited")
    precision, recommended = (
        mean_sd(measurements.select(method=method, condition="harmful")["found"], ".2f")
        for method in ("retrain", "pick-recommended")
    )
    findings = [
        f"{measurements.heading(CONDITION_NAMES['harmful'])} Of the tasks that task-IF selects, a share of "
        f"{precision} is noisy, of those that the recommendation selects {recommended} (chance: {REMOVED_SHARE:.2f}). "
        f"Retraining without the tasks that task-IF selects changes accuracy by {gain.text} "
        f"({mean_sd(accuracy['retrain'])}, unedited model {mean_sd(accuracy['unedited'])})."
    ]
    edits = {name: label for name, label in EDIT_LABELS.items() if name not in ("unedited", "retrain", "finetune-all")}
    if gain.low > 0:
        gains = {name: (accuracy[name] - accuracy["unedited"]).mean() for name in ("retrain", *edits)}
        costs = {name: measurements.cost_shares(name, condition="harmful").mean() for name in edits}
        shares = {
            label: f"{percent(gains[name] / gains['retrain'])} for {percent(costs[name], 1)}"
            for name, label in edits.items()
        }
        findings.append(f"Share of retraining's gain, and of its meta-gradients: {listed(shares)}.")
        met = [
            f"“{label}”"
            for name, label in edits.items()
            if gains[name] >= GAIN_GOAL * gains["retrain"] and costs[name] <= COST_TOLERANCE * COST_GOAL
        ]
        goal = f"The goal is {percent(GAIN_GOAL)} of the gain for {percent(COST_GOAL)} of the cost."
        findings.append(f"{goal} Met by: {', '.join(met)}." if met else f"{goal} No edit meets it.")
    else:
        findings.append(accuracy.no_gain_finding(edits))
    return [*findings, _finetune_finding(accuracy), *_selection_findings(accuracy)]


def _finetune_finding(accuracy: Accuracies) -> str:
    best = max(_INFLUENCE, key=lambda name: accuracy[name].mean())
    return (
        f"Short fine-tunes reach {mean_sd(accuracy['finetune'])} on the remaining tasks and "
        f"{mean_sd(accuracy['finetune-all'])} on all tasks; the removal itself contributes "
        f"{accuracy.difference('finetune', 'finetune-all').text}. The former differs from the best influence edit "
        f"(“{EDIT_LABELS[best]}”) by {accuracy.difference('finetune', best).text}."
    )


def _selection_findings(accuracy: Accuracies) -> list[str]:
    gaps = accuracy.differences(_SELECTORS, "retrain")
    verdicts = {
        "higher accuracy": {name: gap for name, gap in gaps.items() if gap.low > 0},
        "lower accuracy": {name: gap for name, gap in gaps.items() if gap.high < 0},
        "no significant difference": {name: gap for name, gap in gaps.items() if not gap.is_significant},
    }
    return [
        f"Retraining after selection by another method than task-IF, {verdict}: {listed(by_selector)}."
        for verdict, by_selector in verdicts.items()
        if by_selector
    ]


def _random_finding(measurements: Measurements) -> str:
    accuracy = measurements.accuracy(condition="random")
    edits = {name: EDIT_LABELS[name] for name in _EQUIVALENT}
    return (
        f"{measurements.heading(CONDITION_NAMES['random'])} Difference from retraining "
        f"({mean_sd(accuracy['retrain'])}): {listed(accuracy.differences(edits, 'retrain'))}. "
        f"{accuracy.equivalence_finding(edits)}"
    )
