"""Read finished evidence on how well rankings predict retraining, and summarise it in sentences."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import streamlit as st

from core.evidence.lds import Score, correlations, lds_difference
from core.evidence.tables import CEILING
from core.ui.shell.context import Context, table
from core.ui.shell.text import count, minute_of, plain
from core.workspace.runs import Run
from core.workspace.workspace import runs_of_problem

KIND = "evidence"
PREDICTS_BEST = "predicts retraining best"
BEST_BASELINE, BEST_OTHER = "the best baseline", "the best method other than baselines"
CEILING_NAME = "Ceiling"
UNKNOWN_CEILING = "How well retrainings agree with each other is unknown: that takes at least 2 seeds."
TOO_NOISY = "Retraining itself is too noisy here to judge any method"
WARM_START = "or a warm start"
INCLUDES_ZERO = "The confidence interval includes 0, so the method is not shown to predict anything."
NOISY = 0.3
"""A ceiling below this means that the differences between retrainings are mostly chance."""
PROTOCOLS = {"half": "random halves of the training tasks", "one": "all training tasks but one"}
STARTS = {"fresh": "from initial parameters, like the model", "warm": "from the present model"}
MEASURES = {"lds": "each held-out task", "lds_mean": "mean loss of all held-out tasks"}
"""The quantity that is rank-correlated, by the name of the column."""


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
    return Score(*(float(row[name]) for name in (measure, f"{measure}_low", f"{measure}_high")))


def score_text(score: Score) -> str:
    """Return ``0.85 [0.80, 0.90]``."""
    return f"{score.mean:.2f} [{score.low:.2f}, {score.high:.2f}]"


def ranked_methods(methods: pd.DataFrame, measure: str) -> pd.DataFrame:
    """Return all methods that ran, without the ceiling, the best first."""
    rated = methods[(methods["kind"] != CEILING) & methods[measure].notna()]
    return rated.sort_values(measure, ascending=False, kind="stable").reset_index(drop=True)


def ceiling_of(methods: pd.DataFrame, measure: str) -> Score | None:
    """Return how well independent retrainings of the same subsets agree; None where that is unknown."""
    found = methods[(methods["kind"] == CEILING) & methods[measure].notna()]
    return None if found.empty else score_of(found.iloc[0], measure)


def grids(run: Run, method: str) -> tuple[np.ndarray, np.ndarray]:
    """Return predicted losses ``(M, T)`` of one method and measured losses ``(M, R, T)``, targets as in the run."""
    targets = run.json("evidence.json")["targets"]
    measured = table(run, "measured.parquet").pivot(index=["subset", "seed"], columns="target", values="loss")
    seeds = measured.index.get_level_values("seed").nunique()
    predicted = table(run, "predicted.parquet").query("method == @method")
    predicted_losses = predicted.pivot(index="subset", columns="target", values="predicted")[targets].to_numpy()
    return predicted_losses, measured[targets].to_numpy().reshape(len(predicted_losses), seeds, len(targets))


@st.cache_data(max_entries=64, show_spinner=False)
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
        about, top = run.json("evidence.json"), ceiling_of(methods, "lds")
        limit = f"; ceiling (between two retrainings): {score_text(top)}" if top else "; the ceiling is unknown"
        return (
            f"rank correlation {score_text(score_of(found.iloc[0], 'lds'))} of predicted and measured loss, over "
            f"{count(about['subsets'], 'retrained subset')}{limit}."
        )
    return None


def findings(run: Run, measure: str) -> list[str]:
    """Return sentences on the evidence that claim no more than the intervals do."""
    methods = table(run, "methods.parquet")
    rated, top = ranked_methods(methods, measure), ceiling_of(methods, measure)
    if rated.empty:
        return ["No method has been evaluated."]
    best = rated.iloc[0]
    value = score_of(best, measure)
    kind = "a baseline, " if best["kind"] == "baseline" else ""
    choice = f"the best of {len(rated)}, so optimistically biased" if len(rated) > 1 else "the only one evaluated"
    is_sure = value.low > 0 and not (top and top.mean < NOISY)
    claim = PREDICTS_BEST if is_sure else "has the highest value"
    note = "" if value.low > 0 else f" {INCLUDES_ZERO}"
    sentences = [f"**{plain(best['method'])} {claim}:** {score_text(value)} ({kind}{choice}).{note}"]
    rivals = rated[rated["kind"] != "baseline"] if best["kind"] == "baseline" else rated[rated["kind"] == "baseline"]
    if not rivals.empty:
        sentences.append(_comparison(run, best, rivals.iloc[0], measure))
    if top is None:
        sentences.append(UNKNOWN_CEILING)
    elif top.mean >= NOISY:
        share = value.mean / top.mean
        reach = "matches it" if share >= 1 else f"reaches {max(share, 0):.0%} of it"
        sentences.append(f"**{CEILING_NAME}:** {_agreement(top)}; the best method {reach}.")
    failed = methods[(methods["kind"] != CEILING) & methods[measure].isna()]
    sentences += [f"**{plain(row.method)} could not run:** {plain(row.note)}" for row in failed.itertuples()]
    return sentences


def advice(run: Run, measure: str) -> str:
    """Return what to do where retraining itself is too noisy to judge any method; empty where it is not."""
    top = ceiling_of(table(run, "methods.parquet"), measure)
    if top is None or top.mean >= NOISY:
        return ""
    warm = f" {WARM_START}" if run.json("evidence.json")["retrain"] == "fresh" else ""
    return f"{TOO_NOISY}: {_agreement(top)}. Use more seeds or more iterations{warm}."


def _agreement(ceiling: Score) -> str:
    return f"the rank correlation between retrainings of the same subsets is {score_text(ceiling)}"


def _comparison(run: Run, best: pd.Series, rival: pd.Series, measure: str) -> str:
    rival_value = score_of(rival, measure)
    kind = BEST_BASELINE if rival["kind"] == "baseline" else BEST_OTHER
    relation = "is above" if score_of(best, measure).low > rival_value.high else "overlaps"
    difference = paired(run, str(best["method"]), str(rival["method"]), measure)
    verdict = "better" if difference.low > 0 else "not clearly better (the confidence interval includes 0)"
    return (
        f"Its interval {relation} that of {kind}, {plain(rival['method'])} ({score_text(rival_value)}). "
        f"The difference, paired by subset, is {difference.mean:+.2f} [{difference.low:+.2f}, {difference.high:+.2f}]: "
        f"{verdict}."
    )


@st.cache_data(max_entries=64, show_spinner=False)
def paired(run: Run, one: str, other: str, measure: str) -> Score:
    """Return the difference of two methods' rank correlations with its bootstrap interval over subsets."""
    (first, measured), (second, _) = (grids(run, name) for name in (one, other))
    losses = [first, second, measured.mean(1)]
    if measure == "lds_mean":
        losses = [values.mean(1, keepdims=True) for values in losses]
    return lds_difference(*losses)


def figures_table(methods: pd.DataFrame) -> pd.DataFrame:
    """Return all values, best method first, the ceiling last; columns without any values are omitted."""
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
