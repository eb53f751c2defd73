"""Every method held against retraining: on random halves of the tasks (LDS), and without one task at a time.

The harness is that of the ``evidence`` command; tasks are those of protocol (b), so that there is something to tell.
"""

from __future__ import annotations

import pandas as pd

from core.actions.evidence import EvidenceSettings, evidence
from core.experiments.bench import TRAINING, Bench
from core.experiments.outcome import POINTS, SPREAD, TITLES, Difference, Figures, Outcome, dots, mean_sd
from core.experiments.profiles import Profile
from core.experiments.results import Plot, Series, Table

METHODS = {
    "task-if": "task-IF, Gauss-Newton",
    "task-if-exact": "task-IF, exact Hessian",
    "task-if-paper": "task-IF, as the paper has it",
    "direct-if": "direct-IF",
    "dot": "dot product of gradients",
    "tracin": "TracIn",
    "trak-1": "TRAK, one model",
    "ekfac": "EK-FAC IF",
    "self-influence": "self-influence",
    "loss": "loss",
}
_SOLVED = ("task-if", "task-if-exact", "direct-if")
CEILING = "ceiling"
_MEASURED = 100  # quick edits, about, that a measurement takes
TRUTHS = {"half": "LDS, halves of the tasks", "one": "leave-one-out"}
QUANTITIES = {"lds": "a target at a time", "lds_mean": "mean of all targets"}


def weight(profile: Profile) -> int:
    """A model and two measurements, which are all retrainings but for the methods themselves."""
    return TRAINING + 2 * _MEASURED


def measure(bench: Bench) -> pd.DataFrame:
    """Rows of truth, method, lds, lds_mean, auc, seconds, residual, note."""
    on, profile = bench.problem("hard"), bench.unit.profile
    solve = profile.solve
    # Of the edits' precision. A low-rank solve, one for all targets, left residuals above 1 on these brief trainings.
    precise = f"curvature_tasks={solve.curvature_tasks}:damping={solve.damping:g}:tolerance={solve.tolerance:g}"
    names = {name: f"{name}:{precise}" if name in _SOLVED else name for name in METHODS}
    found = []
    for truth in TRUTHS:
        fresh = truth == "half"
        settings = EvidenceSettings(
            tuple(names.values()),
            truth,
            profile.subsets if fresh else profile.left_out,
            2 if fresh else 1,
            "fresh" if fresh else "warm",
            profile.subset_iterations if fresh else profile.left_iterations,
            profile.rated,
            bench.unit.seed,
        )
        with bench.piece(_MEASURED) as progress:
            run = evidence(on.workspace, settings, bench.compute, progress)
        table = run.table("methods.parquet")
        known = {full: name for name, full in names.items()} | {CEILING: CEILING}
        table = table.assign(method=table["method"].map(known), truth=truth)
        found.append(table[["truth", "method", "lds", "lds_mean", "auc", "seconds", "residual", "note"]])
    return pd.concat(found, ignore_index=True)


def conclude(figures: Figures) -> Outcome:
    """A table and two plots of every data set, and what they say."""
    says, tables, plots = [], [], []
    for data in figures.data:
        tables.append(_table(figures, data))
        for quantity, words in QUANTITIES.items():
            series = []
            for truth, named in TRUTHS.items():
                values = {name: _values(figures, data, truth, name, quantity) for name in METHODS}
                shown = [name for name in METHODS if len(values[name])]
                series.append(dots(named, [METHODS[name] for name in shown], [values[name] for name in shown]))
            ceiling = _values(figures, data, "half", CEILING, quantity)
            if len(ceiling) and series[0].x:
                level = [float(ceiling.mean())] * len(series[0].x)
                series.append(Series("two retrainings agree", series[0].x, level, reference=True))
            plots.append(
                Plot(
                    f"{quantity}-{data}".replace("_", "-"),
                    f"{TITLES[data]}: foretold against measured, {words}",
                    "dots",
                    "",
                    "rank correlation",
                    series,
                    note=SPREAD,
                )
            )
        says.append(_says(figures, data))
    return Outcome(says, tables, plots)


def _values(figures: Figures, data: str, truth: str, method: str, quantity: str) -> pd.Series:
    return figures.of(data=data, truth=truth, method=method).set_index("seed")[quantity].dropna()


def _table(figures: Figures, data: str) -> Table:
    rows = []
    for method, label in (METHODS | {CEILING: "two retrainings of the same halves agree"}).items():
        half, one = (figures.of(data=data, truth=truth, method=method) for truth in TRUTHS)
        why = "" if half["lds"].notna().any() or method == CEILING else str(half["note"].iloc[0])
        rows.append(
            [
                label,
                *(mean_sd(half[quantity], ".2f") for quantity in QUANTITIES),
                *(mean_sd(one[quantity], ".2f") for quantity in QUANTITIES),
                mean_sd(half["auc"], ".3f"),
                mean_sd(half["seconds"], ".1f"),
                mean_sd(half["residual"], ".2f"),
                why,
            ]
        )
    columns = [
        "method",
        *(f"LDS, {words}" for words in QUANTITIES.values()),
        *(f"leave-one-out, {words}" for words in QUANTITIES.values()),
        "AUC of spoilt tasks",
        "seconds",
        "residual",
        "left out because",
    ]
    size = figures.profile
    note = (
        f"{SPREAD} Rank correlations of what is foretold with what {size.subsets} retrainings of halves (two seeds "
        f"each) and {size.left_out} without one task measured, on {size.rated} targets. Seconds by the clock; residual "
        "of the worst solve, relative. Methods are held against the mean of two retrainings, which is less noisy than "
        "one, so that a method may come out above what two retrainings agree to."
    )
    return Table(f"truth-{data}", TITLES[data], columns, rows, note)


def _says(figures: Figures, data: str) -> str:
    said = f"**{TITLES[data]}.** "
    for quantity, words in QUANTITIES.items():
        by = _by_method(figures, data, "half", quantity)
        if not by:
            return f"{said}No method could run; the table says why."
        agreement = _values(figures, data, "half", CEILING, quantity)
        said += f"LDS, {words}: two retrainings of the same halves agree to {mean_sd(agreement, '.2f')}"
        if Difference.of(agreement, 0 * agreement).low <= 0:
            said += ", not clearly more than 0: this truth is too noisy to tell methods apart. Task-IF "
            said += f"{mean_sd(by.get('task-if', []), '.2f')}. "
            continue
        said += f"; {_best(by)} "
    one = _by_method(figures, data, "one", "lds")
    return said + (f"Leave-one-out: {_best(one)}" if one else "Leave-one-out: nothing could be told.")


def _by_method(figures: Figures, data: str, truth: str, quantity: str) -> dict[str, pd.Series]:
    """Of the methods that have a value."""
    found = {name: _values(figures, data, truth, name, quantity) for name in METHODS}
    return {name: values for name, values in found.items() if len(values)}


def _best(by: dict[str, pd.Series]) -> str:
    """``best TRAK, one model 0.12 ± 0.08; task-IF 0.05 ± 0.10, behind by 0.07, which these seeds do not settle.``"""
    best = max(by, key=lambda name: by[name].mean())
    said = f"best {METHODS[best]} {mean_sd(by[best], '.2f')}"
    if best == "task-if":
        return f"{said}."
    if "task-if" not in by:
        return f"{said}; task-IF could not be measured, the table says why."
    gap = Difference.of(by[best], by["task-if"])
    settled = "" if gap.sure else ", which these seeds do not settle"
    return f"{said}; task-IF {mean_sd(by['task-if'], '.2f')}, behind by {gap.mean / POINTS:.2f}{settled}."
