"""The ladder of edits, on a model that was trained long: what every rung gets of what retraining gains, and its cost.

Removed are the tasks that are spoilt (``harmful``; which of them is known, so that the finding of them does not enter),
or as many at random of tasks with nothing wrong (``random``).
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pandas as pd

from core.experiments.bench import EDIT, TRAINING, Bench, Edited
from core.experiments.outcome import (
    NEAR,
    POINTS,
    SPREAD,
    TITLES,
    Difference,
    Figures,
    Outcome,
    Share,
    mean_sd,
    near_words,
    percent,
)
from core.experiments.problems import Problem
from core.experiments.profiles import Profile
from core.experiments.results import Plot, Series, Table
from core.experiments.table1 import BUDGET, CONDITIONS, GOAL, SHARE, accuracies, row
from core.tasks.changes import Changes

SHARES = (0.02, 0.05, 0.1)
"""Of the cost of retraining, that the steps take."""
CONTROLLED = (0.02, 0.1)
"""Those of them that are taken on everything as well."""
BATCHED = (0.1, 0.2)
"""The same of fine-tunes, of as many tasks a step as the training, which make fewer steps in less time."""
RUNGS = {
    "unedited": "No change",
    "linear": "Linear edit, Gauss-Newton",
    "newton": "Newton step, trust region",
    **{f"newton+steps-{share}": f"Newton, then steps: {percent(share)} in all" for share in SHARES},
    **{f"steps-{share}": f"Steps alone: {percent(share)}" for share in SHARES},
    **{f"steps-all-{share}": f"Steps on everything: {percent(share)} (control)" for share in CONTROLLED},
    "rewind": "Best snapshot of the training (control)",
    **{f"rewind+steps-{share}": f"Steps from the best snapshot: {percent(share)} in all" for share in SHARES},
    **{
        f"rewind+steps-all-{share}": f"Steps from there on everything: {percent(share)} in all (control)"
        for share in CONTROLLED
    },
    **{f"finetune-{share}": f"Fine-tune in batches: {percent(share)}" for share in BATCHED},
    "retrain": "Retraining",
    "retrain-again": "Retraining, another seed",
}
_CONTROLS = tuple(name for name in RUNGS if "-all-" in name or name == "rewind")
_NEAR = ("unedited", "linear", "newton", f"steps-{BUDGET}", f"rewind+steps-{BUDGET}", f"finetune-{BATCHED[0]}")
_ENDS = ("unedited", "retrain", "retrain-again")


def weight(profile: Profile) -> int:
    """Two models, two retrainings of each, and the rungs."""
    return 6 * TRAINING + 2 * (3 + 3 * len(SHARES) + 2 * len(CONTROLLED) + len(BATCHED)) * EDIT


def measure(bench: Bench) -> pd.DataFrame:
    """Rows of condition, method, accuracy, loss, seconds, cost."""
    rows = []
    for condition, noise in CONDITIONS.items():
        on = bench.problem(noise, training=bench.unit.profile.long)
        ids = np.array(on.loaded.project.tasks.train.task_ids, dtype=object)
        rng = np.random.default_rng([bench.unit.seed, 42])
        gone = on.spoilt_tasks if condition == "harmful" else rng.permutation(len(ids)) < round(SHARE * len(ids))
        made = climbed(bench, on, Changes(tasks=frozenset(ids[gone])))
        rows += [row(on, condition, method, edited) for method, edited in made.items()]
    return pd.DataFrame(rows).drop(columns=["found", "note"])


def climbed(bench: Bench, on: Problem, changes: Changes) -> dict[str, Edited]:
    """Every rung."""
    newton, whole = bench.newton(on, changes), bench.price(on, changes)
    made = {"unedited": bench.unedited(on), "linear": bench.linear(on, changes, "gauss-newton"), "newton": newton}
    for share in SHARES:
        if newton.cost < share * whole:
            made[f"newton+steps-{share}"] = bench.steps(on, changes, share, newton)
        made[f"steps-{share}"] = bench.steps(on, changes, share)
    for share in CONTROLLED:
        made[f"steps-all-{share}"] = bench.steps(on, Changes(), share)
    made["rewind"] = start = bench.rewound(on)
    for share in SHARES:
        if start.cost < share * whole:
            made[f"rewind+steps-{share}"] = bench.steps(on, changes, share, start)
    for share in CONTROLLED:
        if start.cost < share * whole:
            made[f"rewind+steps-all-{share}"] = bench.steps(on, Changes(), share, start)
    batch = bench.unit.profile.long.meta_batch
    for share in BATCHED:
        short = replace(bench.unit.profile.finetune, meta_batch=batch, iterations=max(1, round(share * whole / batch)))
        made[f"finetune-{share}"] = bench.finetuned(on, changes, short)
    return made | {
        "retrain": bench.retrained(on, changes),
        "retrain-again": bench.retrained(on, changes, seed=1),
    }


def conclude(figures: Figures) -> Outcome:
    """A table and a plot of every data set, and what they say."""
    says, tables, plots = [], [], []
    for data in figures.data:
        tables.append(_table(figures, data))
        plots += [_plot(figures, data, condition) for condition in CONDITIONS]
        says += _says(figures, data)
    return Outcome(says, tables, plots)


def _shares(figures: Figures, data: str, condition: str, method: str) -> pd.Series:
    """Cost against that of retraining, by seed."""
    cost = {
        name: figures.of(data=data, condition=condition, method=name).set_index("seed")["cost"]
        for name in (method, "retrain")
    }
    return cost[method] / cost["retrain"]


def _table(figures: Figures, data: str) -> Table:
    rows = []
    of = {condition: accuracies(figures, data=data, condition=condition) for condition in CONDITIONS}
    gain = Difference.of(of["harmful"]["retrain"], of["harmful"]["unedited"])
    for method, label in RUNGS.items():
        if method not in of["harmful"]:
            continue
        here = figures.of(data=data, condition="harmful", method=method)
        rows.append(
            [
                label,
                mean_sd(here["cost"], ".0f"),
                mean_sd(_shares(figures, data, "harmful", method), ".1f", POINTS),
                mean_sd(here["seconds"], ".1f"),
                mean_sd(of["harmful"][method]),
                _part_words(of["harmful"], method) if gain.low > 0 else "–",
                mean_sd(of["random"][method]),
                mean_sd(of["random"][method] - of["random"]["retrain"], "+.1f", POINTS),
            ]
        )
    columns = [
        "rung",
        "meta-gradients",
        "cost, % of retraining",
        "seconds",
        "accuracy, harmful removed",
        "of the gain of retraining",
        "accuracy, removed at random",
        "from retraining, points",
    ]
    return Table(f"ladder-{data}", TITLES[data], columns, rows, f"{SPREAD} Seconds of the processor.")


def _plot(figures: Figures, data: str, condition: str) -> Plot:
    of = accuracies(figures, data=data, condition=condition)
    series = []
    for name, words, asked in (
        ("newton+steps", "Newton, then steps", SHARES),
        ("steps", "steps alone", SHARES),
        ("rewind+steps", "steps from the best snapshot", SHARES),
        ("steps-all", "steps on everything (control)", CONTROLLED),
        ("rewind+steps-all", "the same from the best snapshot", CONTROLLED),
        ("finetune", "fine-tune in batches", BATCHED),
    ):
        shares = [share for share in asked if f"{name}-{share}" in of]
        values = [of[f"{name}-{share}"] for share in shares]
        series.append(_curve(words, list(shares), values, reference="all" in name))
    for name in ("linear", "newton", "rewind"):
        at = float(_shares(figures, data, condition, name).mean())
        series.append(_curve(RUNGS[name], [at], [of[name]], estimate=name == "linear", reference=name == "rewind"))
    for name in ("unedited", "retrain"):
        series.append(_curve(RUNGS[name], [min(SHARES), 1.0], [of[name]] * 2, reference=True))
    what = {"harmful": "harmful tasks removed", "random": "tasks removed at random"}[condition]
    return Plot(
        f"ladder-{data}-{condition}",
        f"{TITLES[data]}, {what}: accuracy against cost",
        "lines",
        "meta-gradients, share of retraining's",
        "accuracy on new tasks",
        [one for one in series if one.x],
        percent_x=True,
        percent_y=True,
        log_x=True,
        note=SPREAD,
    )


def _curve(
    name: str, x: list[float], values: list[pd.Series], *, estimate: bool = False, reference: bool = False
) -> Series:
    mean = [float(each.mean()) for each in values]
    sd = [float(each.std(ddof=1)) if len(each) > 1 else 0.0 for each in values]
    low, high = ([m + sign * s for m, s in zip(mean, sd, strict=True)] for sign in (-1, 1))
    return Series(name, x, mean, low, high, estimate=estimate, reference=reference)


def _start_words(harmful: dict[str, pd.Series], random: dict[str, pd.Series], share: float) -> str:
    """What the best snapshot does to steps that cost so much."""
    name, present, control = f"rewind+steps-{share}", f"steps-{share}", f"rewind+steps-all-{share}"
    against = {
        "steps from the present model": present,
        "as many from there on everything": control,
        "retraining": "retrain",
    }
    held = "; ".join(f"{words} {Difference.of(harmful[name], harmful[of]).words}" for words, of in against.items())
    over, over_present = (Difference.of(random[one], random["unedited"]).words for one in (name, present))
    return (
        f"Steps from the best snapshot, {percent(share)} in all, against: {held}. Where tasks are removed at random "
        f"they are {over} from no change, those from the present model {over_present}."
    )


def _part(of: dict[str, pd.Series], name: str) -> Share:
    """Of what retraining gains."""
    return Share.of(of[name] - of["unedited"], of["retrain"] - of["unedited"])


def _part_words(of: dict[str, pd.Series], name: str) -> str:
    by_definition = {"unedited": "0 %", "retrain": "100 %"}
    return by_definition.get(name) or _part(of, name).words


def _says(figures: Figures, data: str) -> list[str]:
    harmful, random = (accuracies(figures, data=data, condition=condition) for condition in ("harmful", "random"))
    whole = Difference.of(harmful["retrain"], harmful["unedited"])
    edits = [name for name in RUNGS if name in harmful and name not in (*_ENDS, *_CONTROLS)]
    said = [
        f"**{TITLES[data]}, harmful tasks.** Retraining without them gives {whole.words} over no change. Two "
        f"retrainings from other seeds are {Difference.of(harmful['retrain-again'], harmful['retrain']).apart_words} "
        "apart."
    ]
    if whole.low > 0:
        parts = {name: _part(harmful, name) for name in edits}
        controls = {name: _part(harmful, name) for name in _CONTROLS if name in harmful}
        cheap = [name for name in parts if _shares(figures, data, "harmful", name).mean() <= 1.05 * BUDGET]
        got = [f"“{RUNGS[name]}” gets {parts[name].words} (goal {parts[name].reaches(GOAL)})" for name in cheap]
        got += [f"“{RUNGS[name]}” {share.words}" for name, share in controls.items()]
        best = max(parts, key=lambda name: parts[name].mean)
        said.append(f"{percent(GOAL)} of the gain for {percent(BUDGET)} of the cost are the goal. {'; '.join(got)}.")
        reached = [RUNGS[name] for name in parts if parts[name].reaches(GOAL) == "met"]
        open_ = [RUNGS[name] for name in parts if parts[name].reaches(GOAL) == "not settled"]
        said.append(
            f"At any cost, {percent(GOAL)} are reached by: {'; '.join(reached) or 'no rung'}"
            + (f" (not settled: {'; '.join(open_)})" if open_ else "")
            + f". The most has {RUNGS[best]}, {parts[best].words}."
        )
    else:
        over = (f"{RUNGS[name]} {Difference.of(harmful[name], harmful['unedited']).words}" for name in edits)
        said.append(f"That gain is not clearly above 0, so that nothing can be a share of it. {'; '.join(over)}.")
    said += [_start_words(harmful, random, share) for share in CONTROLLED if f"rewind+steps-{share}" in harmful]
    gaps = {name: Difference.of(random[name], random["retrain"]) for name in _NEAR if name in random}
    again = Difference.of(random["retrain-again"], random["retrain"])
    said.append(
        f"**{TITLES[data]}, removed at random.** From retraining: "
        + "; ".join(f"{RUNGS[name]} {gap.words}" for name, gap in gaps.items())
        + f"; another seed of retraining {again.words}, {again.apart_words} apart. "
        + near_words({RUNGS[name]: gap for name, gap in gaps.items()}, NEAR)
    )
    return said
