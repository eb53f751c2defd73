"""The experiment ``edit-methods``: edit methods compared by cost.

The noisy tasks are removed (``harmful``; they are known, so that detecting them is not part of the comparison), or as
many random tasks of a training without label noise (``random``).
"""

from __future__ import annotations

from dataclasses import replace

import pandas as pd

from core.experiments import table1
from core.experiments.context import (
    COST_GOAL,
    EDIT_WEIGHT,
    TRAINING_WEIGHT,
    ExperimentContext,
    TimedEdit,
    measure_edit,
)
from core.experiments.formatting import MISSING, PERCENT, mean_sd, percent
from core.experiments.problems import Problem
from core.experiments.results import Plot, Table
from core.experiments.summary import (
    MET,
    SPREAD_NOTE,
    UNDECIDED,
    Accuracies,
    ExperimentSummary,
    Measurements,
    listed,
    mean_curve,
    share_plot,
)
from core.tasks.changes import Changes

COST_SHARES = (0.02, 0.05, 0.1)
"""Costs of the steps, as shares of retraining's."""
CONTROL_SHARES = (0.02, 0.1)
"""Those of them at which steps are also taken on all tasks."""
BATCH_SHARES = (0.1, 0.2)
"""Costs of the fine-tunes with the training's meta-batch size, which take fewer steps in less time."""
METHODS = {
    "unedited": table1.EDIT_LABELS["unedited"],
    "linear": "Linear edit, Gauss-Newton",
    "newton": table1.EDIT_LABELS["newton"],
    **{f"newton+steps-{share}": f"Newton step, then steps: {percent(share)} in total" for share in COST_SHARES},
    **{f"steps-{share}": f"Steps from the current model: {percent(share)}" for share in COST_SHARES},
    **{f"steps-all-{share}": f"Steps on all tasks: {percent(share)} (control)" for share in CONTROL_SHARES},
    "rewind": "Best training snapshot (control)",
    **{f"rewind+steps-{share}": f"Steps from the best snapshot: {percent(share)} in total" for share in COST_SHARES},
    **{
        f"rewind+steps-all-{share}": f"Steps from the best snapshot on all tasks: {percent(share)} in total (control)"
        for share in CONTROL_SHARES
    },
    **{f"finetune-{share}": f"Mini-batch fine-tune: {percent(share)}" for share in BATCH_SHARES},
    "retrain": table1.EDIT_LABELS["retrain"],
    "retrain-again": "Retraining, another seed",
}
NO_METHOD = "no method"
_CONTROLS = tuple(name for name in METHODS if "-all-" in name or name == "rewind")
_EDITS = tuple(name for name in METHODS if name not in (*_CONTROLS, "unedited", "retrain", "retrain-again"))
_EQUIVALENT = ("unedited", "linear", "newton", "steps-0.02", "rewind+steps-0.02", "finetune-0.1")
_CURVES = (
    ("newton+steps", "Newton step, then steps", COST_SHARES),
    ("steps", "steps from the current model", COST_SHARES),
    ("rewind+steps", "steps from the best snapshot", COST_SHARES),
    ("steps-all", "steps on all tasks (control)", CONTROL_SHARES),
    ("rewind+steps-all", "the same from the best snapshot (control)", CONTROL_SHARES),
    ("finetune", "mini-batch fine-tune", BATCH_SHARES),
)


def measure(context: ExperimentContext) -> pd.DataFrame:
    """Return rows of condition, method, accuracy, loss, seconds, cost."""
    edit_count = 3 + 3 * len(COST_SHARES) + 2 * len(CONTROL_SHARES) + len(BATCH_SHARES)
    context.expect(6 * TRAINING_WEIGHT + 2 * edit_count * EDIT_WEIGHT)  # each model is retrained twice
    rows = []
    for condition, problem, ids, order, count in table1.removal_problems(context, 42):
        removed = problem.noisy_tasks if condition == "harmful" else order < count
        edits = run_methods(context, problem, Changes(tasks=frozenset(ids[removed])))
        rows += [measure_edit(problem, edit, condition=condition, method=method) for method, edit in edits.items()]
    return pd.DataFrame(rows)


def run_methods(context: ExperimentContext, problem: Problem, changes: Changes) -> dict[str, TimedEdit]:
    """Return the model that each method gives, except those whose start alone costs more than their share."""
    newton, retraining_cost = context.newton(problem, changes), context.retraining_cost(problem, changes)
    edits = {name: context.edit(problem, changes, name) for name in ("unedited", "linear")} | {"newton": newton}
    for share in COST_SHARES:
        if newton.cost < share * retraining_cost:
            edits[f"newton+steps-{share}"] = context.steps(problem, changes, share, newton)
        edits[f"steps-{share}"] = context.steps(problem, changes, share)
    for share in CONTROL_SHARES:
        edits[f"steps-all-{share}"] = context.steps(problem, Changes(), share)
    edits["rewind"] = start = context.best_snapshot(problem)
    for suffix, tasks, shares in (("", changes, COST_SHARES), ("-all", Changes(), CONTROL_SHARES)):
        for share in shares:
            if start.cost < share * retraining_cost:
                edits[f"rewind+steps{suffix}-{share}"] = context.steps(problem, tasks, share, start)
    unit = context.unit
    batch = unit.profile.training[unit.data].meta_batch
    for share in BATCH_SHARES:
        short = replace(
            unit.profile.finetune, meta_batch=batch, iterations=max(1, round(share * retraining_cost / batch))
        )
        edits[f"finetune-{share}"] = context.finetune(problem, changes, short)
    return edits | {name: context.edit(problem, changes, name) for name in ("retrain", "retrain-again")}


def summarize(measurements: Measurements) -> ExperimentSummary:
    """Return a table, a plot per condition and findings."""
    plots = [_plot(measurements, condition) for condition in table1.CONDITIONS]
    return ExperimentSummary(_findings(measurements), [_table(measurements)], plots)


def _table(measurements: Measurements) -> Table:
    rows = []
    random, harmful = (measurements.accuracy(condition=condition) for condition in table1.CONDITIONS)
    gain = harmful.difference("retrain", "unedited")
    shares_by_definition = {"unedited": percent(0), "retrain": percent(1)}
    for method, label in METHODS.items():
        if method not in harmful:
            continue
        selected = measurements.select(method=method, condition="harmful")
        share = shares_by_definition.get(method) or harmful.gain_share(method).text
        rows.append(
            {
                "method": label,
                "meta-gradients": mean_sd(selected["cost"], ".0f"),
                "cost, % of retraining": mean_sd(measurements.cost_shares(method, condition="harmful"), ".1f", PERCENT),
                "seconds": mean_sd(selected["seconds"], ".1f"),
                "accuracy, harmful removed": mean_sd(harmful[method]),
                "share of retraining's gain": share if gain.low > 0 else MISSING,
                "accuracy, random removed": mean_sd(random[method]),
                "difference from retraining, points": mean_sd(random[method] - random["retrain"], "+.1f", PERCENT),
            }
        )
    return measurements.text_table("methods", rows, f"{SPREAD_NOTE} Processor seconds.")


def _plot(measurements: Measurements, condition: str) -> Plot:
    accuracy = measurements.accuracy(condition=condition)
    series = []
    for prefix, name, shares in _CURVES:
        values = {share: accuracy[key] for share in shares if (key := f"{prefix}-{share}") in accuracy}
        if values:
            series.append(mean_curve(name, list(values), values.values(), reference="all" in prefix))
    for method in ("linear", "newton", "rewind"):
        cost = float(measurements.cost_shares(method, condition=condition).mean())
        kinds = {"estimate": method == "linear", "reference": method == "rewind"}
        series.append(mean_curve(METHODS[method], [cost], [accuracy[method]], **kinds))
    for method in ("unedited", "retrain"):
        series.append(mean_curve(METHODS[method], [min(COST_SHARES), 1.0], [accuracy[method]] * 2, reference=True))
    title = f"{measurements.title}, {table1.CONDITION_NAMES[condition]}: accuracy against cost"
    x_label = "meta-gradients, share of retraining's"
    return share_plot(f"accuracy-{measurements.data}-{condition}", title, series, x_label, log_x=True)


def _findings(measurements: Measurements) -> list[str]:
    random, harmful = (measurements.accuracy(condition=condition) for condition in table1.CONDITIONS)
    gain = harmful.difference("retrain", "unedited")
    seed_gap = harmful.difference("retrain-again", "retrain")
    findings = [
        f"{measurements.heading(table1.CONDITION_NAMES['harmful'])} Retraining without them changes accuracy by "
        f"{gain.text}. Two retrainings from different seeds differ by {seed_gap.mean_abs_text} on average."
    ]
    if gain.low > 0:
        findings += _gain_findings(measurements, harmful)
    else:
        findings.append(harmful.no_gain_finding({name: METHODS[name] for name in _EDITS}))
    findings += [
        _start_finding(harmful, random, share) for share in CONTROL_SHARES if f"rewind+steps-{share}" in harmful
    ]
    compared = {name: METHODS[name] for name in _EQUIVALENT}
    seed_gap = random.difference("retrain-again", "retrain")
    texts = random.differences(compared, "retrain") | {
        METHODS["retrain-again"]: f"{seed_gap.text} (mean absolute difference {seed_gap.mean_abs_text})"
    }
    findings.append(
        f"{measurements.heading(table1.CONDITION_NAMES['random'])} Difference from retraining: {listed(texts)}. "
        f"{random.equivalence_finding(compared)}"
    )
    return findings


def _gain_findings(measurements: Measurements, accuracy: Accuracies) -> list[str]:
    """Compare the shares of retraining's gain with the goal, at the goal's cost and at any cost."""
    shares = {name: accuracy.gain_share(name) for name in (*_EDITS, *_CONTROLS) if name in accuracy}
    edits = {name: share for name, share in shares.items() if name in _EDITS}
    verdicts = {name: share.reaches(table1.GAIN_GOAL) for name, share in edits.items()}
    texts = {
        METHODS[name]: f"{share.text} (goal {verdicts[name]})"
        for name, share in edits.items()
        if measurements.cost_shares(name, condition="harmful").mean() <= table1.COST_TOLERANCE * COST_GOAL
    }
    texts |= {METHODS[name]: share.text for name, share in shares.items() if name in _CONTROLS}
    met, undecided = (
        ", ".join(f"“{METHODS[name]}”" for name in edits if verdicts[name] == verdict) for verdict in (MET, UNDECIDED)
    )
    best = max(edits, key=lambda name: edits[name].mean)
    goal = f"{percent(table1.GAIN_GOAL)} of the gain"
    return [
        f"The goal is {goal} for {percent(COST_GOAL)} of the cost: {listed(texts)}.",
        f"At any cost, {goal} are reached by: {met or NO_METHOD}{f' ({UNDECIDED}: {undecided})' if undecided else ''}. "
        f"Largest share: {listed({METHODS[best]: edits[best].text})}.",
    ]


def _start_finding(harmful: Accuracies, random: Accuracies, share: float) -> str:
    snapshot, current = f"rewind+steps-{share}", f"steps-{share}"
    gaps = {
        "steps from the current model": harmful.difference(snapshot, current),
        "steps from the best snapshot on all tasks": harmful.difference(snapshot, f"rewind+steps-all-{share}"),
        "retraining": harmful.difference(snapshot, "retrain"),
    }
    from_snapshot, from_current = (random.difference(name, "unedited").text for name in (snapshot, current))
    return (
        f"Steps from the best snapshot, {percent(share)} of the cost in total, differ from: {listed(gaps)}. With "
        f"random tasks removed they differ from the unedited model by {from_snapshot}, steps from the current model by "
        f"{from_current}."
    )
