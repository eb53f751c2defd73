"""Table 1, task level: 40 % of the tasks are removed, and what the model is then worth by every way of getting one.

- ``random``: nothing is wrong with the tasks, and those removed are drawn at random. An edit should give what
  retraining gives.
- ``harmful``: 80 % of the labels of 40 % of the tasks are flipped, and as many tasks are removed as a method says are
  the most harmful. Retraining should gain; an edit should gain as much.
"""

from __future__ import annotations

import numpy as np
import pandas as pd

from core.experiments.bench import EDIT, RANKING, TRAINING, Bench, Edited
from core.experiments.outcome import (
    NEAR,
    POINTS,
    SPREAD,
    TITLES,
    Difference,
    Figures,
    Outcome,
    dots,
    mean_sd,
    near_words,
    percent,
)
from core.experiments.paper import printed
from core.experiments.problems import Problem
from core.experiments.profiles import Profile
from core.experiments.results import Plot, Table
from core.runtime.errors import TransientError, UserError
from core.tasks.changes import Changes

SHARE = 0.4
BUDGET, GOAL = 0.02, 0.9
"""The goal: this much of what retraining gains, for this share of its cost."""
CONDITIONS = {"random": "none", "harmful": "easy"}
EDITS = {
    "unedited": "No change",
    "retrain": "Retraining",
    "task-if-paper": "Task-IF edit, as the paper has it",
    "task-if": "Task-IF edit, Gauss-Newton",
    "task-if-exact": "Task-IF edit, exact Hessian",
    "direct-if": "Direct-IF edit",
    "newton": "Newton step, trust region",
    "steps": f"A few steps, {percent(BUDGET)} of retraining",
    "finetune": "Short fine-tune on what is left",
    "finetune-all": "Short fine-tune on everything",
}
_NEAR = ("unedited", "task-if-paper", "task-if", "newton", "steps")
_INFLUENCE = ("task-if-paper", "task-if", "task-if-exact", "direct-if")
PICKED = {
    "pick-direct-if": "Retraining, removed by direct-IF",
    "pick-ekfac": "Retraining, removed by EK-FAC IF",
    "pick-trak-1": "Retraining, removed by TRAK",
    "pick-tracin": "Retraining, removed by TracIn",
    "pick-loss": "Retraining, removed by loss",
}
_PAPER = {
    "retrain": "retrain",
    "task-if-paper": "task-if",
    "direct-if": "direct-if",
    "pick-ekfac": "ekfac",
    "pick-trak-1": "trak",
    "pick-tracin": "tracin",
}


def weight(profile: Profile) -> int:
    """Two models; retrainings and rankings; edits."""
    return (4 + len(PICKED)) * TRAINING + (1 + len(PICKED)) * RANKING + 2 * len(EDITS) * EDIT


def measure(bench: Bench) -> pd.DataFrame:
    """Rows of condition, method, accuracy, loss, seconds, cost, found (share spoilt of what is removed), note."""
    rows = []
    for condition, noise in CONDITIONS.items():
        on = bench.problem(noise)
        ids = np.array(on.loaded.project.tasks.train.task_ids, dtype=object)
        count = round(SHARE * len(ids))
        if condition == "random":
            order = np.random.default_rng([bench.unit.seed, 40]).permutation(len(ids))
        else:
            order = np.argsort(bench.task_scores(on, "task-if")[0], kind="stable")
        gone = order[:count]
        for method, edited in edits(bench, on, Changes(tasks=frozenset(ids[gone]))).items():
            rows.append(row(on, condition, method, edited, on.spoilt_tasks[gone].mean()))
        for method in PICKED if condition == "harmful" else ():
            try:
                score, seconds = bench.task_scores(on, method.removeprefix("pick-"))
            except TransientError:
                raise
            except UserError as error:  # one method that cannot run here must not cost the others
                rows.append({"condition": condition, "method": method, "note": str(error)})
                continue
            picked = np.argsort(score, kind="stable")[:count]
            made = bench.retrained(on, Changes(tasks=frozenset(ids[picked])))
            made = Edited(made.params, made.seconds + seconds, float("nan"))
            rows.append(row(on, condition, method, made, on.spoilt_tasks[picked].mean()))
    return pd.DataFrame(rows)


def edits(bench: Bench, on: Problem, changes: Changes) -> dict[str, Edited]:
    """Every way of getting a model without what is removed, and the controls."""
    return {
        "unedited": bench.unedited(on),
        "retrain": bench.retrained(on, changes),
        "task-if-paper": bench.linear(on, changes, "gamma"),
        "task-if": bench.linear(on, changes, "gauss-newton"),
        "task-if-exact": bench.linear(on, changes, "exact"),
        "direct-if": bench.linear(on, changes, "direct", "direct"),
        "newton": bench.newton(on, changes),
        "steps": bench.steps(on, changes, BUDGET),
        "finetune": bench.finetuned(on, changes),
        "finetune-all": bench.finetuned(on, Changes()),
    }


def row(on: Problem, condition: str, method: str, edited: Edited, found: float = float("nan")) -> dict[str, object]:
    """One line of figures, measured on the tests."""
    tested = on.tested(edited.params)
    return {
        "condition": condition,
        "method": method,
        "accuracy": float(tested.accuracy.mean()),
        "loss": float(tested.loss.mean()),
        "seconds": edited.seconds,
        "cost": edited.cost,
        "found": float(found),
        "note": "",
    }


def conclude(figures: Figures) -> Outcome:
    """A table and a plot of every data set, and what they say."""
    says, tables, plots = [], [], []
    labels = EDITS | PICKED
    for data in figures.data:
        tables.append(_table(figures, data, labels))
        series = []
        for condition in CONDITIONS:
            of = accuracies(figures, data=data, condition=condition)
            shown = [name for name in labels if name in of]
            values = [of[name] for name in shown]
            named = {"random": "removed at random", "harmful": "harmful ones removed"}[condition]
            series.append(dots(named, [labels[name] for name in shown], values))
        plots.append(
            Plot(
                f"accuracy-{data}",
                f"{TITLES[data]}: accuracy after 40 % of the tasks are removed",
                "dots",
                "",
                "accuracy on new tasks",
                series,
                percent_y=True,
                note=SPREAD,
            )
        )
        says += _says(figures, data)
    return Outcome(says, tables, plots)


def _table(figures: Figures, data: str, labels: dict[str, str]) -> Table:
    price = figures.of(data=data, condition="harmful", method="retrain").set_index("seed")["cost"]
    rows = []
    for method, label in labels.items():
        by = {condition: figures.of(data=data, condition=condition, method=method) for condition in CONDITIONS}
        harmful = by["harmful"]
        paper = printed(_PAPER.get(method, ""), data)
        share = harmful.set_index("seed")["cost"] / price
        rows.append(
            [
                label,
                mean_sd(by["random"]["accuracy"]),
                mean_sd(harmful["accuracy"]),
                mean_sd(harmful["found"], ".2f") if method in ("retrain", *PICKED) else "",
                mean_sd(harmful["seconds"], ".1f"),
                mean_sd(harmful["cost"], ".0f"),
                mean_sd(share, ".1f", POINTS),
                paper.accuracy_words if paper else "",
                paper.seconds_words if paper else "",
            ]
        )
    columns = [
        "method",
        "accuracy, removed at random",
        "accuracy, harmful removed",
        "of the removed, spoilt",
        "seconds",
        "meta-gradients",
        "cost, % of retraining",
        "paper: accuracy",
        "paper: seconds",
    ]
    failed = figures.of(data=data)
    failed = failed[failed["accuracy"].isna()].drop_duplicates("method")
    why = " ".join(f"{labels[row.method]}: {row.note}" for row in failed.itertuples())
    note = (
        f"{SPREAD} Seconds of the processor; in the rows “removed by” the scoring is included, but for the loss, which "
        "is read off. Retraining and all edits remove what task-IF chose, whose ranking is not in their seconds. The "
        "paper removed tasks at random from tasks of its own, so that its accuracies compare within its own columns "
        f"only. {why}"
    ).strip()
    return Table(f"tasks-{data}", TITLES[data], columns, rows, note)


def accuracies(figures: Figures, **where: object) -> dict[str, pd.Series]:
    """Accuracy by seed of every method that could run with every seed."""
    rows = figures.of(**where)
    could = rows.groupby("method")["accuracy"].transform(lambda part: part.notna().all())
    rows = rows[could]
    return {str(name): part.set_index("seed")["accuracy"] for name, part in rows.groupby("method", sort=False)}


def gain_words(figures: Figures, method: str, **where: object) -> str:
    """How much of what retraining gains a method gets, and at which cost."""
    of = accuracies(figures, **where)
    whole, own = (of["retrain"] - of["unedited"]).mean(), (of[method] - of["unedited"]).mean()
    cost = figures.of(method=method, **where)["cost"].mean() / figures.of(method="retrain", **where)["cost"].mean()
    return f"{percent(own / whole)} of what retraining gains, for {percent(cost, 1)} of its meta-gradients"


def _says(figures: Figures, data: str) -> list[str]:
    title, harmful, random = TITLES[data], {"data": data, "condition": "harmful"}, {"data": data, "condition": "random"}
    of, anyway = accuracies(figures, **harmful), accuracies(figures, **random)
    gain = Difference.of(of["retrain"], of["unedited"])
    found = figures.of(method="retrain", **harmful)["found"]
    rungs = [name for name in EDITS if name not in ("unedited", "retrain", "finetune-all")]
    said = [
        f"**{title}, harmful tasks.** Of what task-IF removes {mean_sd(found, '.2f')} is spoilt, where chance is "
        f"{SHARE:.2f}. Retraining without it gives {gain.words} over no change "
        f"({mean_sd(of['retrain'])} against {mean_sd(of['unedited'])})."
    ]
    if gain.low > 0:
        said.append("; ".join(f"{EDITS[rung]}: {gain_words(figures, rung, **harmful)}" for rung in rungs) + ".")
        met = [name for name in rungs if _meets(figures, name, harmful)]
        said.append(
            f"The goal, {percent(GOAL)} of the gain for {percent(BUDGET)} of the cost, is "
            + (f"met by: {', '.join(EDITS[name] for name in met)}." if met else "met by no edit here.")
        )
    else:
        over = (f"{EDITS[rung]} {Difference.of(of[rung], of['unedited']).words}" for rung in rungs)
        said.append(
            f"That is not clearly a gain, so that nothing can be a share of it. Over no change: {'; '.join(over)}."
        )
    control = Difference.of(of["finetune"], of["finetune-all"])
    best = max(_INFLUENCE, key=lambda name: of[name].mean())
    said.append(
        f"Short fine-tunes: on what is left {mean_sd(of['finetune'])}, on everything {mean_sd(of['finetune-all'])}; "
        f"the removal itself is worth {control.words} to them. The fine-tune on what is left is "
        f"{Difference.of(of['finetune'], of[best]).words} from the best edit by influence ({EDITS[best]})."
    )
    gaps = {
        PICKED[name].removeprefix("Retraining, removed by "): Difference.of(of[name], of["retrain"])
        for name in PICKED
        if name in of
    }
    for word, those in (
        (
            "Retraining is better than after task-IF's choice where these chose",
            {n for n, g in gaps.items() if g.low > 0},
        ),
        ("It is worse where these chose", {n for n, g in gaps.items() if g.high < 0}),
        ("These seeds do not settle which is better", {n for n, g in gaps.items() if not g.sure}),
    ):
        if those:
            said.append(f"{word}: {', '.join(f'{name} ({gap.words})' for name, gap in gaps.items() if name in those)}.")
    near = {name: Difference.of(anyway[name], anyway["retrain"]) for name in _NEAR}
    said.append(
        f"**{title}, removed at random.** From retraining ({mean_sd(anyway['retrain'])}): "
        + ", ".join(f"{EDITS[name]} {gap.words}" for name, gap in near.items())
        + ". "
        + near_words({EDITS[name]: gap for name, gap in near.items()}, NEAR)
    )
    return said


def _meets(figures: Figures, method: str, where: dict[str, str]) -> bool:
    of = accuracies(figures, **where)
    whole, own = (of["retrain"] - of["unedited"]).mean(), (of[method] - of["unedited"]).mean()
    cost = figures.of(method=method, **where)["cost"].mean() / figures.of(method="retrain", **where)["cost"].mean()
    return bool(own >= GOAL * whole and cost <= 1.05 * BUDGET)
