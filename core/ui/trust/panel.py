"""Show how a ranking was computed, how accurate its solve is, and how it compares with retraining."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pandas as pd
import streamlit as st

from core.actions.rank import detection_of
from core.actions.recommend import newest_recommendation
from core.influence.settings import SELF_INFLUENCE
from core.ui.ranking.method_text import differences
from core.ui.shell.context import RUN_HASH, Context, OpenWorkspace
from core.ui.shell.navigation import page as link
from core.ui.shell.precomputed import origin, precomputed_note
from core.ui.shell.text import count, plain
from core.ui.trust.evidence_results import trust_sentence
from core.workspace.runs import Run

STATIONARY = 1e-2
_SUBSAMPLE_WORDS = {
    "random": "drawn at random",
    "difficulty": "with the highest adapted loss",
    "uncertainty": "with the highest entropy",
}
EFFECT_HELP = (
    "For support rows: how much the query loss of its own task would rise if the row were removed, to first order, an "
    "estimate. Positive: helps its task; negative: harms it. Empty for query rows."
)
NOT_STATIONARY = "not at a stationary point: influence estimates are less accurate"
DEFAULT_SETTINGS = "the default settings of the method"
CHECKPOINTS = "Training checkpoints used"
COMPARED = "Compared with retraining"
NOT_MEASURED = f"{COMPARED}: **not measured yet.**"
NO_CURVATURE = "No curvature: nothing is solved, so there is no residual"


def trust_panel(context: Context, run: Run) -> None:
    """Show method, solve, distance from stationarity, and how well the ranking is known to work."""
    report = run.json("solver.json")
    solved = f", residual {report['residual']:.0e}" if "residual" in report else ""
    with st.expander(f"How reliable this ranking is · {plain(report['method'])}{solved}{origin(run)}"):
        precomputed_note(context, run)
        left, right = st.columns(2)
        lines = [
            *_method(report, run.config),
            *(solve_lines(report) if report["curvature"] != "none" else [NO_CURVATURE]),
            *_sketch(report),
            *inner_lines(report),
            f"Computed on {plain(report['device'])} in {plain(report['dtype'])}",
        ]
        left.markdown(_bullets(lines))
        right.markdown(_bullets([_stationary(report), _meaning(report), _measured(context, run)]))
        right.page_link(link("trust"), label="Trust: how well each method predicts retraining")
        recommendation = newest_recommendation(context.workspace, context.project)
        if (found := _detection(str(context.workspace.folder), run, recommendation)) is not None:
            right.markdown(
                "- How well each score finds the injected label noise (influence predicts the change of the held-out "
                "loss, not label errors):"
            )
            shown = found.drop(columns=["items", "bad"]).set_index("level")
            right.dataframe(shown.style.format({"auc": "{:.3f}", "average_precision": "{:.3f}"}))


def score_words(run: Run, what: str) -> str:
    """Return a sentence on the meaning of a score of this ranking; ``what`` is "image" or "task"."""
    if run.config["method"] == SELF_INFLUENCE:
        return f"Self-influence: minus the rise of its own loss if the {what} were removed, an estimate."
    return f"Influence: the rise of the loss if the {what} were removed, an estimate."


def bar_words(run: Run) -> str:
    """Return a sentence on the bars of tiles that show a score of this ranking."""
    what = "self-influence" if run.config["method"] == SELF_INFLUENCE else "influence on the target"
    return f"Bar: {what}, to the left {score_ends(run)[0]}, to the right {score_ends(run)[1]}."


def order_words(run: Run, name: str) -> str:
    """Return the name of an order by this ranking: what others call ``Most harmful`` is not harm by self-influence."""
    if run.config.get("method") != SELF_INFLUENCE:
        return name
    words = {"Most harmful": "Highest self-influence", "Most helpful": "Lowest self-influence"}
    for by_influence, by_self in words.items():
        name = name.replace(by_influence, by_self).replace(by_influence.lower(), by_self.lower())
    return name


def score_ends(run: Run) -> tuple[str, str]:
    """Return the meanings of the lowest and the highest scores."""
    return ("suspicious", "typical") if run.config["method"] == SELF_INFLUENCE else ("harmful", "helpful")


@st.cache_data(max_entries=16, show_spinner=False, hash_funcs=RUN_HASH)
def _detection(workspace: str, run: Run, recommendation: Run | None) -> pd.DataFrame | None:
    return detection_of(OpenWorkspace(Path(workspace)), run, recommendation)


def _bullets(lines: list[str]) -> str:
    return "\n".join(f"- {line}" for line in lines)


def _method(report: dict[str, Any], config: dict[str, Any]) -> list[str]:
    changed = differences(config)
    options = f"; other than the defaults: {plain(', '.join(changed))}" if changed else ""
    if report["method"] == "tracin":
        gradients = f"{CHECKPOINTS}: {report['checkpoints']}"
    else:
        gradients = f"Gradient of the training data: {plain(report['gradient'])}"
        if report["method"] != SELF_INFLUENCE:
            gradients += f"; of the target's loss: {plain(report['evaluation'])}"
    return [f"Method: **{plain(report['method'])}**, {plain(report['words'])}{options}", gradients]


def solve_lines(report: dict[str, Any]) -> list[str]:
    """Return curvature, damping and solve from a report of :meth:`core.influence.solve.Solver.report`."""
    raised = " (increased because the curvature is indefinite)" if report["damping_raised"] else ""
    used, tasks = report["curvature_tasks"], count(report["tasks"], "task")
    drawn = (
        f"all {tasks}"
        if report["subsample"] == "all"
        else f"{used} of {tasks}, {plain(_SUBSAMPLE_WORDS[report['subsample']])}"
    )
    rank = f" of rank {report['rank']}" if report["rank"] else ""
    residual = f"relative residual {report['residual']:.1e}"
    if replaced := report.get("replacements", 0):  # not in reports of earlier versions
        residual += f", after {count(replaced, 'restart')} from the true residual because of rounding"
    if report["solver"] == "low-rank":
        residual = (
            f"relative residual {report['residual']:.0%}: the part outside the basis. "
            "Directions outside its eigenvectors are treated as flat; a higher rank leaves out less"
        )
    return [
        f"Curvature: {plain(report['curvature'])}, over {drawn}",
        f"Damping {report['damping']:.3g}, {report['damping_share']:.2g} of the largest eigenvalue{raised}; "
        f"weight decay {report['weight_decay']:g}",
        f"Solve: {plain(report['solver'])}{rank}, {count(report['iterations'], 'iteration')}, {residual}",
        f"Range of the curvature: {report['smallest']:.3g} to {report['largest']:.3g}",
    ]


def _sketch(report: dict[str, Any]) -> list[str]:
    if "sketch_error" not in report:
        return []
    return [
        f"Images and rows: estimated with {count(report['probes'], 'probe')}; median error "
        f"{report['sketch_error']:.0%} (measured on tasks). Tasks: computed from their gradients, without probes",
        f"Median error of the basis: {report['basis_error']:.0%} (a few tasks, compared with exact solves)",
    ]


def inner_lines(report: dict[str, Any]) -> list[str]:
    """Return how accurately the inner problem is solved; empty where adaptation is by gradient steps."""
    inner = report.get("inner")
    if not inner:
        return []
    near = (
        "; **nearly singular**: the adaptation is ill-conditioned; increase the weight of the proximal term"
        if inner["nearly_singular"]
        else ""
    )
    how = {"ekfac": ", inverted by EK-FAC, an approximation"}.get(report.get("inner_inverse", "cg"), "")
    return [
        f"Inner problem solved to {inner['residual']:.0e} (worst of {inner['tasks']} tasks); inner Hessian between "
        f"{inner['smallest']:.3g} and {inner['largest']:.3g}, of which the proximal term adds "
        f"{inner['proximity']:g}{near}{how}"
    ]


def _stationary(report: dict[str, Any]) -> str:
    at = report["stationarity"]
    near = "close to" if at["ratio"] < STATIONARY else "**not** at"
    return (
        f"The model is {near} a stationary point: {at['ratio']:.1e} of its tasks' gradients do not cancel. "
        "Influence functions are derivatives at a stationary point; away from one they are less accurate."
    )


def _meaning(report: dict[str, Any]) -> str:
    if report["method"] == SELF_INFLUENCE:
        return (
            "No target: a score is minus the rise of an item's own loss if it were removed, to first order: "
            "an **estimate**, not a measurement. The most suspicious items come first."
        )
    return (
        f"Loss of the target: {report['target_loss']:.4f}. A score is its rise if an item were removed, to first "
        "order: an **estimate**, not a measurement."
    )


def _measured(context: Context, run: Run) -> str:
    known = trust_sentence(context, run.config["method"])
    if known is None:
        return NOT_MEASURED
    if changed := differences(run.config):
        known += f" Measured with {DEFAULT_SETTINGS}, not with {plain(', '.join(changed))}."
    return f"{COMPARED}: {known}"
