"""Read finished evidence on how well rankings predict retraining, and summarise it in sentences."""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import streamlit as st

from core.evidence.lds import correlations, lds_difference
from core.ui.shell.context import Context, table
from core.ui.shell.text import count, plain
from core.workspace.runs import Run
from core.workspace.workspace import runs_of_problem

KIND = "evidence"
CEILING = "ceiling"
NOISY = 0.3
"""A ceiling below this means that the differences between retrainings are mostly chance."""
PROTOCOLS = {"half": "random halves of the training tasks", "one": "all training tasks but one"}
STARTS = {"fresh": "from initial parameters, as the model was", "warm": "from the present model"}
MEASURES = {"lds": "each held-out task by itself", "lds_mean": "the mean loss of all of them"}
"""The quantity that is rank-correlated, by the name of the column."""


class Measured(NamedTuple):
    """A figure with its 95 % interval."""

    mean: float
    low: float
    high: float

    def __str__(self) -> str:
        return f"{self.mean:.2f} [{self.low:.2f}, {self.high:.2f}]"


def evidence_runs(context: Context) -> dict[str, Run]:
    """Return the finished evidence of the present problem by run id, newest first."""
    return {run.id: run for run in runs_of_problem(context.workspace, context.project, KIND)}


def evidence_label(run: Run) -> str:
    """Return ``half · 20 subsets · 2 seeds · fresh · 6 methods · 2026-01-31 12:00 UTC · 3f2a1b``."""
    config = run.config
    return (
        f"{config['truth']} · {count(config['subsets'], 'subset')} · {count(config['seeds'], 'seed')} · "
        f"{config['retrain']} · {count(len(config['methods']), 'method')} · "
        f"{run.finished[:16].replace('T', ' ')} UTC · {run.id[-6:]}"
    )


def figure_of(row: pd.Series, measure: str) -> Measured:
    """Return a figure of a method's row with its interval."""
    return Measured(*(float(row[name]) for name in (measure, f"{measure}_low", f"{measure}_high")))


def ranked_methods(methods: pd.DataFrame, measure: str) -> pd.DataFrame:
    """Return all methods that ran, without the ceiling, the best first."""
    rated = methods[(methods["kind"] != CEILING) & methods[measure].notna()]
    return rated.sort_values(measure, ascending=False, kind="stable").reset_index(drop=True)


def ceiling_of(methods: pd.DataFrame, measure: str) -> Measured | None:
    """Return how well independent retrainings of the same subsets agree; None where that is unknown."""
    found = methods[methods["kind"] == CEILING]
    if found.empty or found[measure].isna().iloc[0]:
        return None
    return figure_of(found.iloc[0], measure)


def grids(run: Run, method: str) -> tuple[np.ndarray, np.ndarray]:
    """Return predicted losses ``(M, T)`` of one method and measured losses ``(M, R, T)``.

    Targets are in the order of the run.
    """
    targets = run.json("evidence.json")["targets"]
    measured = table(run, "measured.parquet").pivot(index=["subset", "seed"], columns="target", values="loss")
    seeds = measured.index.get_level_values("seed").nunique()
    predicted = table(run, "predicted.parquet").query("method == @method")
    foretold = predicted.pivot(index="subset", columns="target", values="predicted")[targets].to_numpy()
    return foretold, measured[targets].to_numpy().reshape(len(foretold), seeds, len(targets))


def points(run: Run, method: str, target: str | None) -> pd.DataFrame:
    """Return one row per subset: predicted, measured (mean over seeds), lowest and highest seed.

    If ``target`` is None, losses are means over the targets.
    """
    return _points(str(run.folder), method, target)


@st.cache_data(max_entries=64, show_spinner=False)
def _points(folder: str, method: str, target: str | None) -> pd.DataFrame:
    run = Run(Path(folder))
    predicted, measured = grids(run, method)
    targets = run.json("evidence.json")["targets"]
    of = slice(None) if target is None else [targets.index(target)]
    foretold, found = predicted[:, of].mean(1), measured[:, :, of].mean(2)
    return pd.DataFrame(
        {
            "subset": np.arange(len(foretold)),
            "predicted": foretold - foretold.mean(),
            "measured": found.mean(1),
            "lowest": found.min(1),
            "highest": found.max(1),
        }
    )


def spearman(shown: pd.DataFrame) -> float:
    """Return Spearman's rank correlation of the predicted and measured losses."""
    return float(correlations(shown[["predicted"]].to_numpy(), shown[["measured"]].to_numpy())[0])


def measured_trust(context: Context, method: str) -> str | None:
    """Return a sentence on this method from the newest evidence that includes it; None if there is none."""
    for run in evidence_runs(context).values():
        methods = table(run, "methods.parquet")
        found = methods[(methods["method"] == method) & methods["lds"].notna()]
        if found.empty:
            continue
        about, top = run.json("evidence.json"), ceiling_of(methods, "lds")
        limit = f"; two retrainings agree {top}" if top else "; how far retrainings agree is not known"
        return (
            f"rank correlation {figure_of(found.iloc[0], 'lds')} of predicted and measured loss, over "
            f"{count(about['subsets'], 'retrained subset')}{limit}."
        )
    return None


def findings(run: Run, measure: str) -> list[str]:
    """Return sentences on the evidence that claim no more than the intervals do."""
    methods = table(run, "methods.parquet")
    rated, top = ranked_methods(methods, measure), ceiling_of(methods, measure)
    if rated.empty:
        return ["No method was rated."]
    best = rated.iloc[0]
    figure = figure_of(best, measure)
    what = "a baseline, " if best["kind"] == "baseline" else ""
    of = f"the best of {len(rated)}, so a little flattered" if len(rated) > 1 else "the only one that was rated"
    sure = figure.low > 0 and not (top and top.mean < NOISY)
    claim = "foretells retraining best" if sure else "has the highest figure"
    said = [f"**{plain(best['method'])} {claim}:** {figure} ({what}{of}).{_zero(figure)}"]
    rivals = rated[rated["kind"] != "baseline"] if best["kind"] == "baseline" else rated[rated["kind"] == "baseline"]
    if not rivals.empty:
        said.append(_against(run, best, rivals.iloc[0], measure))
    if top is None:
        said.append("How far retrainings agree with each other is not known: that takes 2 seeds.")
    elif top.mean >= NOISY:
        said.append(f"**The ceiling:** {_reach(figure, top)}")
    failed = methods[(methods["kind"] != CEILING) & methods[measure].isna()]
    said += [f"**{plain(row.method)} could not run:** {plain(row.note)}" for row in failed.itertuples()]
    return said


def advice(run: Run, measure: str) -> str:
    """Return what to do where retraining itself is too noisy to judge any method; empty where it is not."""
    top = ceiling_of(table(run, "methods.parquet"), measure)
    if top is None or top.mean >= NOISY:
        return ""
    about = run.json("evidence.json")
    warm = " or a warm start" if about["retrain"] == "fresh" else ""
    return (
        f"Retraining itself is too noisy here to judge any method: retrainings of the same subsets agree only {top}. "
        f"Use more seeds, more iterations{warm}."
    )


def _zero(figure: Measured) -> str:
    return "" if figure.low > 0 else " That interval holds 0, so it is not shown to foretell anything."


def _against(run: Run, best: pd.Series, rival: pd.Series, measure: str) -> str:
    other, mine = figure_of(rival, measure), figure_of(best, measure)
    named = "best baseline" if rival["kind"] == "baseline" else "best method that is no baseline"
    apart = "Its interval is above" if mine.low > other.high else "Its interval overlaps"
    mean, low, high = paired(run, str(best["method"]), str(rival["method"]), measure)
    verdict = "better" if low > 0 else "not clearly better (the interval holds 0)"
    return (
        f"{apart} that of the {named}, {plain(rival['method'])} ({other}). Compared subset by subset the difference is "
        f"{mean:+.2f} [{low:+.2f}, {high:+.2f}]: {verdict}."
    )


def _reach(figure: Measured, top: Measured) -> str:
    share = figure.mean / top.mean
    if share >= 1:
        return f"retrainings of the same subsets agree {top}; the best method is as close to them as they are."
    return f"retrainings of the same subsets agree {top}; the best method reaches {max(share, 0):.0%} of that."


def paired(run: Run, one: str, other: str, measure: str) -> tuple[float, float, float]:
    """Return the difference of two methods' rank correlations with its bootstrap interval over subsets."""
    return _paired(str(run.folder), one, other, measure)


@st.cache_data(max_entries=64, show_spinner=False)
def _paired(folder: str, one: str, other: str, measure: str) -> tuple[float, float, float]:
    (mine, measured), (theirs, _) = (grids(Run(Path(folder)), name) for name in (one, other))
    arrays = [mine, theirs, measured.mean(1)]
    if measure == "lds_mean":
        arrays = [values.mean(1, keepdims=True) for values in arrays]
    found = lds_difference(*arrays)
    return found.mean, found.low, found.high


def figures_table(methods: pd.DataFrame) -> pd.DataFrame:
    """Return all figures, best method first, the ceiling last; columns without any values are omitted."""
    ordered = pd.concat([ranked_methods(methods, "lds"), methods[methods["kind"] == CEILING]], ignore_index=True)
    columns = ["method", "kind", "lds", "lds_low", "lds_high", "lds_mean", "lds_mean_low", "lds_mean_high"]
    columns += ["auc", "seconds", "memory_gb", "residual", "note", "words"]
    empty = [name for name in ("auc", "residual", "note") if (ordered[name].isna() | (ordered[name] == "")).all()]
    return ordered[[name for name in columns if name not in empty]]


def settings_words(about: dict[str, Any]) -> str:
    """Return a sentence on how the ground truth was measured."""
    return (
        f"{count(about['subsets'], 'subset')} ({PROTOCOLS[about['truth']]}), {count(about['seeds'], 'retraining')} of "
        f"each {STARTS[about['retrain']]}, {count(about['iterations'], 'Adam step')}; "
        f"{count(len(about['targets']), 'held-out task')} as targets. The retrained models stop at a gradient ratio of "
        f"{about['ratio']:.1e}; their loss varies by {about['loss_spread']:.3f} over subsets. "
        f"Computed on {plain(about['device'])} in {plain(about['dtype'])}."
    )
