"""Show how a ranking was computed, how accurate its solve is, and how it compares with retraining."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pandas as pd
import streamlit as st

from core.actions.demo import detection_of
from core.ui.ranking.method_panel import SELF
from core.ui.ranking.method_text import differences
from core.ui.shell.context import Context, OpenWorkspace
from core.ui.shell.navigation import page as link
from core.ui.shell.text import count, plain
from core.ui.trust.evidence_results import measured_trust
from core.workspace.runs import Run

STATIONARY = 1e-2
_DRAWN = {
    "random": "drawn at random",
    "difficulty": "those of highest adapted loss",
    "uncertainty": "those of highest entropy",
}
EFFECT_HELP = (
    "Of a support row: what its leaving would add to the query loss of its own task, to first order, an estimate. "
    "Positive helps its task, negative harms it. Empty for query rows."
)


def trust_panel(context: Context, run: Run) -> None:
    """Show method, solve, distance from stationarity, and how well the ranking is known to work."""
    report = run.json("solver.json")
    solved = f", residual {report['residual']:.0e}" if "residual" in report else ""
    with st.expander(f"How far to trust this ranking · {plain(report['method'])}{solved}"):
        left, right = st.columns(2)
        left.markdown(
            _bullets(
                [
                    *_method(report, run.config),
                    *_solve(report),
                    *_sketch(report),
                    *inner_lines(report),
                    _computed(report),
                ]
            )
        )
        right.markdown(_bullets([_stationary(report), _meaning(report), *_measured(context, run)]))
        right.page_link(link("trust"), label="Trust: how well each method foretells retraining")
        found = _detection(str(context.workspace.folder), run.id)
        if found is not None:
            right.markdown("- Against the noise planted in this problem:")
            shown = found.drop(columns=["items", "bad"]).set_index("level")
            right.dataframe(shown.style.format({"auc": "{:.3f}", "average_precision": "{:.3f}"}))


def score_words(run: Run, what: str) -> str:
    """Return a sentence on the meaning of a score of this ranking; ``what`` is "image" or "task"."""
    if run.config["method"] == SELF:
        return f"Scores: minus what removing the {what} would add to its own loss, an estimate."
    return f"Scores: what removing the {what} would add to the loss, an estimate."


def score_ends(run: Run) -> tuple[str, str]:
    """Return the meanings of the lowest and the highest scores."""
    return ("suspicious", "plain") if run.config["method"] == SELF else ("harmful", "helpful")


@st.cache_data(max_entries=16, show_spinner=False)
def _detection(workspace: str, run_id: str) -> pd.DataFrame | None:
    opened = OpenWorkspace(Path(workspace))
    return detection_of(opened, opened.runs.get(run_id))


def _bullets(lines: list[str]) -> str:
    return "\n".join(f"- {line}" for line in lines)


def _method(report: dict[str, Any], config: dict[str, Any]) -> list[str]:
    changed = differences(config)
    otherwise = f"; chosen otherwise: {plain(', '.join(changed))}" if changed else ""
    lines = [f"Method: **{plain(report['method'])}**, {plain(report['words'])}{otherwise}"]
    if report["method"] == "tracin":
        lines.append(f"Checkpoints of the training: {report['checkpoints']}")
        return lines
    gradients = f"Gradient of the training data: {plain(report['gradient'])}"
    if report["method"] != SELF:
        gradients += f"; of the target's loss: {plain(report['evaluation'])}"
    return [*lines, gradients]


def _solve(report: dict[str, Any]) -> list[str]:
    if report["curvature"] == "none":
        return ["No curvature: nothing is solved, so there is no residual"]
    return solve_lines(report)


def solve_lines(report: dict[str, Any]) -> list[str]:
    """Return curvature, damping and solve from a report of :meth:`core.influence.solve.Solver.report`."""
    raised = " (raised, because the curvature is indefinite)" if report["damping_raised"] else ""
    used, tasks = report["curvature_tasks"], count(report["tasks"], "task")
    drawn = (
        f"all {tasks}" if report["subsample"] == "all" else f"{used} of {tasks}, {plain(_DRAWN[report['subsample']])}"
    )
    rank = f" of rank {report['rank']}" if report["rank"] else ""
    residual = f"relative residual {report['residual']:.1e}"
    if replaced := report.get("replacements", 0):  # not in reports of earlier versions
        residual += f", after {count(replaced, 'restart')} from the true residual because of rounding"
    if report["solver"] == "low-rank":
        residual = (
            f"relative residual {report['residual']:.0%}: what the rank leaves out. "
            "Directions outside its eigenvectors are treated as if they were flat; a higher rank leaves out less"
        )
    return [
        f"Curvature: {plain(report['curvature'])}, over {drawn}",
        f"Damping {report['damping']:.3g}, {report['damping_share']:.2g} of the largest eigenvalue{raised}; "
        f"weight decay {report['weight_decay']:g}",
        f"Solve: {plain(report['solver'])}{rank}, {count(report['iterations'], 'iteration')}, {residual}",
        f"Curvature met: {report['smallest']:.3g} to {report['largest']:.3g}",
    ]


def _sketch(report: dict[str, Any]) -> list[str]:
    if "sketch_error" not in report:
        return []
    return [
        f"Of images and rows: the sketch of {count(report['probes'], 'probe')} is off by "
        f"{report['sketch_error']:.0%} (median, tasks). Of tasks: no sketch, as their gradients are at hand",
        f"The basis is off by {report['basis_error']:.0%} (median of a few tasks, against exact solves)",
    ]


def inner_lines(report: dict[str, Any]) -> list[str]:
    """Return how accurately the inner problem of implicit adaptation is solved.

    Empty where adaptation is by gradient steps.
    """
    inner = report.get("inner")
    if not inner:
        return []
    near = (
        "; **nearly singular**: theta moves violently with lambda, a higher proximity would calm it"
        if inner["nearly_singular"]
        else ""
    )
    how = {"ekfac": ", inverted by EK-FAC, an approximation"}.get(report.get("inner_inverse", "cg"), "")
    return [
        f"Inner problem solved to {inner['residual']:.0e} (worst of {inner['tasks']} tasks); inner Hessian between "
        f"{inner['smallest']:.3g} and {inner['largest']:.3g}, {inner['proximity']:g} of it the proximity{near}{how}"
    ]


def _computed(report: dict[str, Any]) -> str:
    return f"Computed on {plain(report['device'])} in {plain(report['dtype'])}"


def _stationary(report: dict[str, Any]) -> str:
    at = report["stationarity"]
    near = "close to" if at["ratio"] < STATIONARY else "**not** at"
    return (
        f"The model is {near} a stationary point: {at['ratio']:.1e} of its tasks' gradients do not cancel. "
        "Influence functions are derivatives at a stationary point; away from one they are a rougher guide."
    )


def _meaning(report: dict[str, Any]) -> str:
    if report["method"] == SELF:
        return (
            "No target: scores are minus how much an item's removal would raise its own loss, to first order: "
            "**estimates**, not measurements. The most suspicious come first."
        )
    return (
        f"Loss of the target: {report['target_loss']:.4f}. Scores say how much removal would raise it, to first "
        "order: **estimates**, not measurements."
    )


def _measured(context: Context, run: Run) -> list[str]:
    """Return sentences from evidence runs on this ranking's method."""
    known = measured_trust(context, run.config["method"])
    if known is None:
        return ["Against retraining: **nobody has measured this ranking yet.**"]
    if changed := differences(run.config):
        known += f" That is the method with its own settings, not with {plain(', '.join(changed))}."
    return [f"Against retraining: {known}"]
