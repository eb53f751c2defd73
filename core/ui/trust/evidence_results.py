"""Read finished evidence on how well rankings predict retraining, and summarise it in sentences."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import streamlit as st

from core.evidence.agreement import agreement_of, columns_of, comparable_figures
from core.evidence.lds import Score, correlations, lds_difference
from core.evidence.tables import CEILING
from core.ui.shell.context import RUN_HASH, Context, table
from core.ui.shell.text import count, minute_of, plain
from core.workspace.runs import Run
from core.workspace.workspace import runs_of_problem

KIND = "evidence"
PREDICTS_BEST = "predicts retraining best"
BEST_BASELINE, BEST_OTHER = "the best baseline", "the best method other than baselines"
CEILING_NAME = "Ceiling"
INCLUDES_ZERO = "The confidence interval includes 0, so the method is not shown to predict anything."
PROTOCOLS = {"half": "random halves of the training tasks", "one": "all training tasks but one"}
STARTS = {"fresh": "from initial parameters, like the model", "warm": "from the present model"}


def evidence_runs(context: Context) -> dict[str, Run]:
    """Return the finished evidence of the present problem by run id, newest first."""
    return {run.id: run for run in runs_of_problem(context.workspace, context.project, KIND)}


def evidence_label(run: Run) -> str:
    """Return ``half · 20 subsets · 2 seeds · fresh · 6 methods · 2026-01-31 12:00 UTC · 3f2a1b``."""
    config = run.config
    return (
        f"{config['truth']} · {count(config['subsets'], 'subset')} · {count(config['seeds'], 'seed')} · "
        f"{config['retrain']} · {count(len(config['methods']), 'method')} · "
        f"{minute_of(run.finished)} UTC · {run.id[-6:]}"
    )


def score_of(row: pd.Series, measure: str) -> Score:
    """Return a value of a method's row with its 95 % interval."""
    return Score(*(float(row[name]) for name in columns_of(measure)))


def ranked_methods(methods: pd.DataFrame, measure: str) -> pd.DataFrame:
    """Return all methods that ran, without the ceiling, the best first."""
    rated = methods[(methods["kind"] != CEILING) & methods[measure].notna()]
    return rated.sort_values(measure, ascending=False, kind="stable").reset_index(drop=True)


def grids(run: Run, method: str) -> tuple[np.ndarray, np.ndarray]:
    """Return predicted losses ``(M, T)`` of one method and measured losses ``(M, R, T)``, targets as in the run."""
    targets = run.json("evidence.json")["targets"]
    measured = table(run, "measured.parquet").pivot(index=["subset", "seed"], columns="target", values="loss")
    seeds = measured.index.get_level_values("seed").nunique()
    predicted = table(run, "predicted.parquet").query("method == @method")
    predicted_losses = predicted.pivot(index="subset", columns="target", values="predicted")[targets].to_numpy()
    return predicted_losses, measured[targets].to_numpy().reshape(len(predicted_losses), seeds, len(targets))


@st.cache_data(max_entries=64, show_spinner=False, hash_funcs=RUN_HASH)
def points(run: Run, method: str, target: str | None) -> pd.DataFrame:
    """Return one row per subset: predicted, measured (mean over seeds), lowest and highest seed.

    Losses are those of a target, or means over all targets.
    """
    predicted, measured = grids(run, method)
    targets = run.json("evidence.json")["targets"]
    chosen = slice(None) if target is None else [targets.index(target)]
    predicted_losses, measured_losses = predicted[:, chosen].mean(1), measured[:, :, chosen].mean(2)
    return pd.DataFrame(
        {
            "subset": np.arange(len(predicted_losses)),
            "predicted": predicted_losses - predicted_losses.mean(),
            "measured": measured_losses.mean(1),
            "lowest": measured_losses.min(1),
            "highest": measured_losses.max(1),
        }
    )


def spearman(shown: pd.DataFrame) -> float:
    """Return Spearman's rank correlation of the predicted and measured losses."""
    return float(correlations(shown[["predicted"]].to_numpy(), shown[["measured"]].to_numpy())[0])


def trust_sentence(context: Context, method: str) -> str | None:
    """Return a sentence on this method from the newest evidence that includes it; None if there is none."""
    for run in evidence_runs(context).values():
        methods = table(run, "methods.parquet")
        found = methods[(methods["method"] == method) & methods["lds"].notna()]
        if found.empty:
            continue
        about, agreement = run.json("evidence.json"), agreement_of(methods, "lds")
        if not agreement.allows_ranking:
            return agreement.finding
        top = agreement.ceiling
        limit = f"; ceiling (between two retrainings): {top.text}" if top else "; the ceiling is unknown"
        return (
            f"rank correlation {score_of(found.iloc[0], 'lds').text} of predicted and measured loss, over "
            f"{count(about['subsets'], 'retrained subset')}{limit}."
        )
    return None


def caution(run: Run, measure: str) -> str:
    """Return what must be known before any result, and what to do about it; empty where retrainings agree."""
    agreement = agreement_of(table(run, "methods.parquet"), measure)
    return f"{agreement.finding} {agreement.advice(run.json('evidence.json')['retrain'])}".strip()


def findings(run: Run, measure: str) -> list[str]:
    """Return sentences on the evidence that claim no more than the intervals do.

    Where retrainings do not agree, they say nothing of methods that ran.
    """
    methods = table(run, "methods.parquet")
    rated, agreement = ranked_methods(methods, measure), agreement_of(methods, measure)
    failed = methods[(methods["kind"] != CEILING) & methods[measure].isna()]
    failures = [f"**{plain(row.method)} could not run:** {plain(row.note)}" for row in failed.itertuples()]
    if rated.empty:
        return ["No method has been evaluated.", *failures]
    if not agreement.allows_ranking:
        return failures
    best, top = rated.iloc[0], agreement.ceiling
    value = score_of(best, measure)
    kind = "a baseline, " if best["kind"] == "baseline" else ""
    choice = f"the best of {len(rated)}, so optimistically biased" if len(rated) > 1 else "the only one evaluated"
    claim = PREDICTS_BEST if value.low > 0 else "has the highest value"
    note = "" if value.low > 0 else f" {INCLUDES_ZERO}"
    sentences = [f"**{plain(best['method'])} {claim}:** {value.text} ({kind}{choice}).{note}"]
    rivals = rated[rated["kind"] != "baseline"] if best["kind"] == "baseline" else rated[rated["kind"] == "baseline"]
    if not rivals.empty:
        sentences.append(_comparison(run, best, rivals.iloc[0], measure))
    if top is not None:
        share = value.mean / top.mean
        reach = "matches it" if share >= 1 else f"reaches {max(share, 0):.0%} of it"
        agree = f"the rank correlation between retrainings of the same subsets is {top.text}"
        sentences.append(f"**{CEILING_NAME}:** {agree}; the best method {reach}.")
    return sentences + failures


def _comparison(run: Run, best: pd.Series, rival: pd.Series, measure: str) -> str:
    rival_value = score_of(rival, measure)
    kind = BEST_BASELINE if rival["kind"] == "baseline" else BEST_OTHER
    relation = "is above" if score_of(best, measure).low > rival_value.high else "overlaps"
    difference = paired(run, str(best["method"]), str(rival["method"]), measure)
    verdict = "better" if difference.low > 0 else "not clearly better (the confidence interval includes 0)"
    return (
        f"Its interval {relation} that of {kind}, {plain(rival['method'])} ({rival_value.text}). "
        f"The difference, paired by subset, is {difference.mean:+.2f} [{difference.low:+.2f}, {difference.high:+.2f}]: "
        f"{verdict}."
    )


@st.cache_data(max_entries=64, show_spinner=False, hash_funcs=RUN_HASH)
def paired(run: Run, one: str, other: str, measure: str) -> Score:
    """Return the difference of two methods' rank correlations with its bootstrap interval over subsets."""
    (first, measured), (second, _) = (grids(run, name) for name in (one, other))
    losses = [first, second, measured.mean(1)]
    if measure == "lds_mean":
        losses = [values.mean(1, keepdims=True) for values in losses]
    return lds_difference(*losses)


def figures_table(methods: pd.DataFrame, measure: str) -> pd.DataFrame:
    """Return the figures that may be compared, best method first, the ceiling last.

    Where retrainings do not agree, the methods are in the order in which they were evaluated. Columns without any
    values are omitted.
    """
    is_ceiling = methods["kind"] == CEILING
    is_rankable = agreement_of(methods, measure).allows_ranking
    rated = ranked_methods(methods, measure) if is_rankable else methods[~is_ceiling & methods[measure].notna()]
    ordered = comparable_figures(pd.concat([rated, methods[is_ceiling]], ignore_index=True))
    columns = ["method", "kind", "lds", "lds_low", "lds_high", "lds_mean", "lds_mean_low", "lds_mean_high"]
    columns += ["auc", "seconds", "memory_gb", "residual", "note", "words"]
    empty = [name for name in ("auc", "residual", "note") if (ordered[name].isna() | (ordered[name] == "")).all()]
    return ordered[[name for name in columns if name in ordered and name not in empty]]


def settings_words(about: dict[str, Any]) -> str:
    """Return a sentence on how the ground truth was measured."""
    return (
        f"{count(about['subsets'], 'subset')} ({PROTOCOLS[about['truth']]}), {count(about['seeds'], 'retraining')} of "
        f"each {STARTS[about['retrain']]}, {count(about['iterations'], 'Adam step')}; "
        f"{count(len(about['targets']), 'held-out task')} as targets. The retrained models stop at a gradient ratio of "
        f"{about['ratio']:.1e}; their loss varies by {about['loss_spread']:.3f} over subsets. "
        f"Computed on {plain(about['device'])} in {plain(about['dtype'])}."
    )
