"""Starting a ranking, and saying how far one can be trusted."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import streamlit as st

from core.actions.compute import Compute
from core.actions.demo import detection_of
from core.actions.evaluate import KIND, question_of
from core.influence.methods import SolveSettings
from core.ui.context import Context, choose_ranking, table
from core.ui.jobs import job_panel, start
from core.ui.text import plain
from core.workspace.runs import Run
from core.workspace.workspace import Workspace

STATIONARY = 1e-2
_TARGETS = ("All held-out tasks", "Some held-out tasks", "One query image")


def newest_evaluation(context: Context) -> Run | None:
    """The evaluation of the problem as it now is."""
    return context.workspace.runs.find(KIND, question_of(context.project, Compute()))


def rank_panel(context: Context) -> None:
    """Choose what influence is measured on, start the ranking, and watch it."""
    evaluated = newest_evaluation(context)
    with st.container(border=True):
        st.markdown("**Rank the training data by influence**")
        kind = st.segmented_control("on the loss of", _TARGETS, default=_TARGETS[0], key="rank_target", required=True)
        target = _target(kind, evaluated)
        with st.expander("How it is computed"):
            settings = _settings()
        if st.button("Rank", type="primary", disabled=not target, key="rank_start"):
            start(context, f"Rank on {target}", ["rank", "--target", target or "all", *settings])
            st.rerun()
        job_panel(context, "rank")


def ranked(context: Context, what: str) -> Run:
    """The ranking that the sidebar shows, with what is known of it; offers one and stops the page if there is none.

    Args:
        what: What the page shows, for the sentence that says it is not ranked: "tasks" or "images".
    """
    run = choose_ranking(context)
    if run is None:
        st.info(f"The training {what} are not ranked yet.")
        rank_panel(context)
        st.stop()
    trust_panel(context, run)
    return run


def _target(kind: str, evaluated: Run | None) -> str | None:
    if kind == _TARGETS[0]:
        return "all"
    if evaluated is None:
        st.caption("Evaluate the model first, to see which held-out tasks and images fail.")
        return None
    if kind == _TARGETS[1]:
        worst = table(evaluated, "heldout.parquet").sort_values("accuracy", kind="stable")
        accuracy = worst.set_index("task_id")["accuracy"]
        chosen = st.multiselect(
            "Held-out tasks, worst first",
            worst["task_id"].tolist(),
            format_func=lambda task: f"{task} · {accuracy[task]:.0%} right",
            key="rank_tasks",
        )
        return ",".join(chosen) or None
    rows = table(evaluated, "rows.parquet")
    wrong = rows[rows["predicted"] != rows["label"]].sort_values("loss", ascending=False, kind="stable")
    labels = {
        f"{row.task_id}/{row.image_id}": f"{row.image_id} in {row.task_id} · is {row[4]}, seen as {row.predicted_class}"
        for row in wrong.head(500).itertuples(index=False)
    }
    return st.selectbox(
        "Failing query image, highest loss first", list(labels), format_func=lambda key: labels[key], key="rank_image"
    )


def _settings() -> list[str]:
    """Solver options for the command line; empty where nothing differs from the defaults."""
    default = SolveSettings()
    left, middle, right = st.columns(3)
    curvature = left.selectbox("Curvature", ["gauss-newton", "exact"], key="rank_curvature")
    tasks = middle.number_input(
        "Tasks for the curvature", 0, 100_000, default.curvature_tasks, key="rank_curvature_tasks", help="0 means all."
    )
    damping = right.number_input(
        "Damping",
        0.0,
        100.0,
        default.damping,
        format="%.3f",
        key="rank_damping",
        help="A share of the largest eigenvalue of the curvature. More is steadier and closer to plain gradients.",
    )
    given = {"curvature": curvature, "curvature-tasks": int(tasks), "damping": float(damping)}
    standard = {"curvature": "gauss-newton", "curvature-tasks": default.curvature_tasks, "damping": default.damping}
    return [part for key, value in given.items() if value != standard[key] for part in (f"--{key}", str(value))]


@st.cache_data(max_entries=16, show_spinner=False)
def _detection(workspace: str, run_id: str) -> pd.DataFrame | None:
    opened = Workspace(Path(workspace))
    return detection_of(opened, opened.runs.get(run_id))


def trust_panel(context: Context, run: Run) -> None:
    """Method, solve, distance from stationarity, and what is known of how well the ranking works."""
    report = run.json("solver.json")
    at = report["stationarity"]
    with st.expander(
        f"How far to trust this ranking · {plain(report['curvature'])}, residual {report['residual']:.0e}"
    ):
        left, right = st.columns(2)
        raised = " (raised, because the curvature is indefinite)" if report["damping_raised"] else ""
        left.markdown(
            f"- Method: {plain(report['method'])}\n"
            f"- Curvature from {report['curvature_tasks']} of {report['tasks']} tasks\n"
            f"- Damping {report['damping']:.3g}, {report['damping_share']:.2g} of the largest eigenvalue{raised}; "
            f"weight decay {report['weight_decay']:g}\n"
            f"- Solve: {report['iterations']} iterations, relative residual {report['residual']:.1e}\n"
            f"- Curvature met: {report['smallest']:.3g} to {report['largest']:.3g}\n"
            f"- Computed on {plain(report['device'])} in {plain(report['dtype'])}"
        )
        near = "close to" if at["ratio"] < STATIONARY else "**not** at"
        right.markdown(
            f"- The model is {near} a stationary point: {at['ratio']:.1e} of its tasks' gradients do not cancel. "
            "Influence functions are derivatives at a stationary point; away from one they are a rougher guide.\n"
            f"- Loss of the target: {report['target_loss']:.4f}. Scores say how much removal would raise it, to first "
            "order: **estimates**, not measurements."
        )
        found = _detection(str(context.workspace.folder), run.id)
        if found is None:
            right.markdown("- Against retraining or known errors: **nobody has measured this ranking yet.**")
        else:
            right.markdown("- Against retraining: not measured yet. Against the noise planted in this problem:")
            shown = found.drop(columns=["items", "bad"]).set_index("level")
            right.dataframe(shown.style.format({"auc": "{:.3f}", "average_precision": "{:.3f}"}))
