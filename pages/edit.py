"""Edit: the present removals and relabels, and their estimated and measured effect on the model."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import streamlit as st

from core.actions.decide import worst_items
from core.actions.edit import step_settings
from core.actions.pace import retraining_seconds
from core.decisions.export_tables import changed_items
from core.decisions.log import Item
from core.decisions.table import table_items
from core.editing.retraining import training_settings
from core.editing.settings import CONTROLS, DEFAULT_EDIT_METHODS, STEP_METHODS, EditSettings
from core.runtime.progress import format_duration
from core.runtime.settings import arguments
from core.tasks.changes import Changes
from core.ui.charts.edit import Dot, edit_figure
from core.ui.charts.scores import CONFIG
from core.ui.edit.methods_table import COST_WORDS, ladder_sentence, ladder_table
from core.ui.edit.results import (
    EditOutcome,
    findings,
    has_default_options,
    options_words,
    outcomes,
    results_of_other_sets,
)
from core.ui.ranking.method_panel import SELF
from core.ui.ranking.panel import newest_evaluation
from core.ui.review.decide import decide, removal_bar
from core.ui.shell.command import command_block
from core.ui.shell.context import Context, choose_ranking, page, table
from core.ui.shell.jobs import job_panel, jobs_of, start, start_button
from core.ui.shell.text import count, percent, plain
from core.ui.trust.panel import solve_lines
from core.ui.whatif.panel import live_estimate
from core.workspace.runs import Run

_ESTIMATE, _STEPS, _RETRAIN = (
    ["edit", *arguments(EditSettings, {"methods": methods}, always=("methods",))]
    for methods in (DEFAULT_EDIT_METHODS, STEP_METHODS, ("retrain",))
)
_USUAL_COUNT = 20


def main() -> None:
    """Draw the page."""
    with page("Edit") as context:
        ranking = choose_ranking(context)
        changes = removal_bar(context)
        left, right = st.columns([3, 2], gap="large")
        with left:
            _marked(context)
        with right:
            commands = _mark_worst(context, ranking)
        st.subheader("What the changes do")
        if len(changes):
            _effects(context, changes)
        else:
            _nothing_marked(context)
        command_block(context, *commands, ["whatif"], _ESTIMATE, _STEPS, _RETRAIN)


def _marked(context: Context) -> None:
    """Show the decisions as a table, with a button that undoes the selected ones."""
    decided = changed_items(context.workspace.decisions, context.project.images.class_names)
    st.subheader("Removed and relabelled")
    if decided.empty:
        st.info("Nothing is decided. Mark the most harmful here, or decide on single tasks and images on their pages.")
        return
    shown = pd.DataFrame(
        {
            "kind": decided["kind"],
            "id": decided[["task_id", "role", "image_id"]].apply(lambda row: " / ".join(filter(None, row)), axis=1),
            "decision": decided["decision"],
            "who": decided["reviewer"],
            "when (UTC)": decided["at"].str.slice(0, 16).str.replace("T", " "),
            "why": decided["reason"],
            "source": decided["source"],
        }
    )
    # The key changes with the log, so that a selection never remains on rows that moved.
    key = f"edit_marked_{context.workspace.decisions.version()}"
    event = st.dataframe(shown, on_select="rerun", selection_mode="multi-row", hide_index=True, height=246, key=key)
    chosen = decided.iloc[event["selection"]["rows"]]
    some, every, _ = st.columns([3, 2, 2])
    if some.button(f"Take back selected ({len(chosen)})", disabled=chosen.empty, key="edit_take_back", width="stretch"):
        _take_back(context, chosen)
    if every.button("Take back all", key="edit_take_back_all", width="stretch", help="Undo brings them back."):
        _take_back(context, decided)


def _take_back(context: Context, decided: pd.DataFrame) -> None:
    decide(context, table_items(decided), "clear", "")
    st.rerun()


def _mark_worst(context: Context, ranking: Run | None) -> list[list[str]]:
    """Mark the most harmful items of the ranking in the sidebar; return the commands that do so."""
    st.subheader("Mark the most harmful")
    if ranking is None:
        st.info("There is no ranking of this problem yet. That of the demo takes about a minute.")
        start_button(context, "Rank now", "Rank on all", ["rank", "--target", "all"], key="edit_rank", primary=True)
        job_panel(context.workspace.jobs, "rank")
        return [["rank"], ["remove", "--worst", str(_USUAL_COUNT)]]
    by = st.segmented_control("Mark", ["tasks", "images"], default="tasks", key="edit_by", required=True)
    scores = table(ranking, f"{by}.parquet")["score"]
    number = st.number_input(f"How many {by}", 1, len(scores), min(_USUAL_COUNT, len(scores)), key=f"edit_worst_{by}")
    harmful, kind = int((scores < 0).sum()), by[:-1]
    current = context.workspace.decisions.current()
    new = [
        item
        for item in _worst(str(ranking.folder), by, int(number))
        if item not in current or current[item].verdict not in ("remove", "keep", "relabel")
    ]
    already = f" Of the {number} worst, {number - len(new)} are decided already." if len(new) < number else ""
    worst = (
        "The worst by self-influence are the most suspicious, harmful or not. "
        if ranking.config["method"] == SELF
        else f"{harmful:,} of {count(len(scores), kind)} have a harmful score by {plain(ranking.id)}. "
    )
    st.caption(f"{worst}Scores are estimates: look at what you mark before you rely on it.{already}")
    if st.button(f"Remove {count(len(new), kind)}", key="edit_mark_worst", type="primary", disabled=not new):
        decide(context, new, "remove", ranking.id, f"among the {number} most harmful {by}")
        st.rerun()
    return [["remove", "--ranking", ranking.id, "--by", by, "--worst", str(number)]]


@st.cache_data(max_entries=64, show_spinner=False)
def _worst(run_folder: str, by: str, number: int) -> list[Item]:
    return worst_items(Run(Path(run_folder)), by, number)


def _nothing_marked(context: Context) -> None:
    evaluated = newest_evaluation(context)
    if evaluated is not None:
        st.markdown(f"Unedited model: {percent(evaluated.json('summary.json')['accuracy'])} on held-out tasks.")
    st.markdown("Decide on tasks or images; then what that does can be estimated, fine-tuned and retrained here.")
    job_panel(context.workspace.jobs, "edit")


def _effects(context: Context, changes: Changes) -> None:
    """Show the known effects of the present changes, and buttons for the missing ones."""
    live_estimate(context, changes)
    found = outcomes(context, changes)
    _buttons(context, has_default_options(context, changes))
    job_panel(context.workspace.jobs, "edit")
    if others := results_of_other_sets(context, changes):
        st.caption(
            f"Shown are the present changes only. {count(others, 'result')} of other changes kept, "
            "to come back when they do; sets with a name stand side by side on the page What if."
        )
    evaluated = newest_evaluation(context)
    if not found.keys() - set(CONTROLS):  # controls do not use the changes, so alone they show nothing about them
        unedited = f" The unedited model: {percent(evaluated.json('summary.json')['accuracy'])}." if evaluated else ""
        st.info(
            f"No results for these changes yet.{unedited} “Estimate and fine-tune” takes about a minute on the demo."
        )
    elif evaluated is None:
        st.info("The unedited model has not been evaluated, so there is nothing to compare with.")
        start_button(context, "Evaluate", "Evaluate the unedited model", ["evaluate"], key="edit_evaluate")
        job_panel(context.workspace.jobs, "evaluate")
    else:
        _results(evaluated, found)


def _results(evaluated: Run, found: dict[str, EditOutcome]) -> None:
    """Show findings, chart and figures."""
    before = evaluated.json("summary.json")
    said = [*findings(found), *filter(None, [ladder_sentence(found)])]
    st.markdown("\n".join(f"- {sentence}" for sentence in said))
    dots = [Dot("Unedited model", before["accuracy"], None)]
    dots += [
        Dot(one.label, one.figures["accuracy"], one.figures["accuracy_change"], one.estimate) for one in found.values()
    ]
    st.plotly_chart(edit_figure(dots), config=CONFIG, key="edit_chart")
    st.caption(
        f"Means over {count(before['tasks'], 'held-out task')} with 95 % intervals; changes are paired by task. "
        "Filled, solid: measured. Hollow, dotted: the linear edit, an estimate of what retraining would give; "
        "its interval is over held-out tasks and does not hold the error of the estimate."
    )
    if unusual := options_words(found):
        st.caption(unusual)
    st.dataframe(ladder_table(found), hide_index=True)
    st.caption(COST_WORDS)
    if "linear" in found:
        _solve_report(found["linear"])
    if stepped := found.get("newton"):
        _newton_report(stepped)


def _buttons(context: Context, found: set[str]) -> None:
    """Draw buttons that start the missing edits.

    Only one edit runs at a time, as a job works on the changes as they were when it started.
    """
    running = any(job.status() == "running" for job in jobs_of(context.workspace.jobs, "edit"))
    trained = training_settings(context.project.model) is not None
    quick, steps, full = st.columns(3)
    note = st.container()
    for place, label, key, args, ways in (
        (quick, "Estimate and fine-tune", "edit_estimate", _ESTIMATE, DEFAULT_EDIT_METHODS),
        (steps, "Take a few steps", "edit_steps", _STEPS, STEP_METHODS),
        (full, "Retrain in full", "edit_retrain", _RETRAIN, ("retrain",)),
    ):
        off = running or found.issuperset(ways) or (place is full and not trained)
        if place.button(
            label, type="primary" if place is quick else "secondary", disabled=off, key=key, width="stretch"
        ):
            start(context, label, args)
            st.rerun()
    if running:
        note.caption("What runs belongs to the changes as they were when it started.")
    elif not trained:
        note.caption("The model does not say how it was trained, so it cannot be retrained the same way.")
    elif "retrain" not in found:
        seconds = retraining_seconds(context.workspace, context.project)
        long = "as long as the training did" if seconds is None else f"roughly {format_duration(seconds)}"
        note.caption(
            f"Retraining runs the whole training again with the changes: {long}. A few steps are "
            f"{step_settings(context.project).budget:,} of one task each: of its time a larger part than of its cost."
        )


def _solve_report(linear: EditOutcome) -> None:
    """Show how the linear edit was solved."""
    report, figures = linear.figures["solver"], linear.figures
    with st.expander(
        f"How the linear edit was solved · residual {report['residual']:.0e} · "
        f"step {figures['relative_step']:.1%} of the parameters"
    ):
        st.markdown(
            "\n".join(f"- {line}" for line in solve_lines(report)) + "\n"
            f"- Step: {figures['relative_step']:.2%} of the norm of the parameters. The edit is a first-order step, "
            "so it is the rougher the longer it is.\n"
            f"- Held-out loss: predicted to first order {figures['predicted_loss_change']:+.4f}, "
            f"of the edited model {figures['loss_change']['mean']:+.4f}. If these differ much, "
            "the step is too long for first order.\n"
            f"- Computed on {plain(report['device'])} in {plain(report['dtype'])}"
        )


def _newton_report(stepped: EditOutcome) -> None:
    """Show how the Newton step was chosen."""
    report = stepped.figures["newton"]
    if not report["taken"]:
        st.caption("No Newton step lowered the loss of the changed tasks, however short; it left the model as it was.")
        return
    with st.expander(
        f"How the Newton step was taken · {report['ratio']:.0%} of the decrease foretold · "
        f"step {report['relative_step']:.1%} of the parameters"
    ):
        st.markdown(
            f"- Loss of the changed tasks: {report['objective']:.4f} before, {report['actual']:.4f} taken off, "
            f"{report['predicted']:.4f} foretold by the quadratic model, on {report['gradient_tasks']} tasks.\n"
            f"- Trust region: of {len(report['tried'])} lengths the one that lowered that loss most, with a damping of "
            f"{report['share']:g} of the largest eigenvalue ({report['largest']:.3g}).\n"
            f"- Gauss-Newton curvature of {report['curvature_tasks']} tasks, {report['products']} products."
        )


main()
