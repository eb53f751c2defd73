"""Edit: the present removals and relabels, and their estimated and measured effect on the model."""

from __future__ import annotations

from collections.abc import Collection

import pandas as pd
import streamlit as st

from core.actions.decide import cause_of_order, undecided_items, worst_items
from core.actions.edit_results import EditResult
from core.actions.recommend import newest_recommendation, recommended_levels
from core.decisions.export_tables import changed_items
from core.decisions.table import table_items
from core.editing.retraining import training_settings
from core.editing.settings import DEFAULT_EDIT_METHODS, EditSettings
from core.influence.settings import SELF_INFLUENCE
from core.maml.evaluation import Interval
from core.runtime.settings import arguments
from core.tasks.changes import Changes
from core.ui.charts.common import CONFIG
from core.ui.charts.edit import Dot, edit_figure
from core.ui.edit.methods_table import COST_NOTE, methods_table, start_finding
from core.ui.edit.results import (
    LABELS,
    NO_RESULTS,
    default_edits,
    findings,
    headline,
    options_words,
    quick_note,
    results,
    results_of_other_sets,
    retraining_note,
    steps_note,
)
from core.ui.ranking.panel import newest_evaluation
from core.ui.review.decide import decide, removal_bar
from core.ui.shell.command import command_block
from core.ui.shell.context import Context, choose_ranking, page, table
from core.ui.shell.early_values import early_option
from core.ui.shell.guard import REPEATED, report_errors
from core.ui.shell.jobs import is_running, job_panel, start, start_button
from core.ui.shell.precomputed import precomputed_note
from core.ui.shell.text import count, minute_of, plain
from core.ui.trust.panel import order_words, solve_lines
from core.ui.whatif.panel import live_estimate
from core.workspace.runs import Run

_STEP_METHODS, _RETRAIN_METHODS = ("steps",), ("retrain",)
_ESTIMATE, _STEPS, _RETRAIN = (
    ["edit", *arguments(EditSettings, {"methods": methods}, always=("methods",))]
    for methods in (DEFAULT_EDIT_METHODS, _STEP_METHODS, _RETRAIN_METHODS)
)
_DEFAULT_COUNT = 20
_SUSPICIOUS, _HARMFUL = "most suspicious", "most harmful"
_worst_items = st.cache_data(max_entries=64, show_spinner=False)(worst_items)


def main() -> None:
    """Draw the page."""
    with page("Edit") as context:
        orders = _orders(context)
        chosen = orders.get(early_option(_order_key(orders), orders, next(iter(orders), "")))
        changes = removal_bar(context, cause_of_order(chosen) if chosen else "harmful")
        left, right = st.columns([3, 2], gap="large")
        commands: list[list[str]] = []
        with left, report_errors("The table of decisions"):
            _decided(context)
        with right, report_errors("The removal of the worst items"):
            commands = _remove_worst(context, orders)
        st.subheader("Effect of the changes")
        if changes:
            _effects(context, changes)
        elif changes is None:
            st.caption(REPEATED)
        else:
            _no_changes(context)
        command_block(context, *commands, ["whatif"], _ESTIMATE, _STEPS, _RETRAIN)


def _decided(context: Context) -> None:
    st.subheader("Removed and relabelled")
    decided = changed_items(context.workspace.decisions, context.project.images.class_names)
    if decided.empty:
        st.info(
            "No decisions yet. Remove the most suspicious items here, or decide on individual tasks and images on the "
            "pages Tasks, Images and Review."
        )
        return
    shown = pd.DataFrame(
        {
            "kind": decided["kind"],
            "id": decided[["task_id", "role", "image_id"]].apply(lambda row: " / ".join(filter(None, row)), axis=1),
            "decision": decided["decision"],
            "reviewer": decided["reviewer"],
            "when (UTC)": decided["at"].map(minute_of),
            "reason": decided["reason"],
            "source": decided["source"],
        }
    )
    # The key changes with the log, so that a selection never remains on rows that moved.
    key = f"edit_marked_{context.workspace.decisions.version()}"
    event = st.dataframe(shown, on_select="rerun", selection_mode="multi-row", hide_index=True, height=246, key=key)
    chosen = decided.iloc[event["selection"]["rows"]]
    left, right, _ = st.columns([3, 2, 2])
    for place, label, items, key in (
        (left, f"Clear selected decisions ({len(chosen)})", chosen, "edit_clear_selected"),
        (right, "Clear all decisions", decided, "edit_clear_all"),
    ):
        if place.button(label, disabled=items.empty, key=key, width="stretch", help="Undo restores cleared decisions."):
            decide(context, table_items(items), "clear", "")
            st.rerun()


def _orders(context: Context) -> dict[str, Run]:
    """Return the runs that order items, by what comes first: the recommendation and the ranking in the sidebar."""
    runs = {_SUSPICIOUS: newest_recommendation(context.workspace, context.project), _HARMFUL: choose_ranking(context)}
    return {name: run for name, run in runs.items() if run is not None}


def _order_key(orders: Collection[str]) -> str:
    return "edit_order_recommended" if _SUSPICIOUS in orders else "edit_order"  # its own default


def _remove_worst(context: Context, orders: dict[str, Run]) -> list[list[str]]:
    """Remove the first items of an order; return the commands that do so."""
    st.subheader("Remove the most ...")
    if not orders:
        st.info("There is neither a recommendation nor a ranking yet. On the demo each takes about a minute.")
        start_button(
            context, "Recommend", "Recommend what to remove", ["recommend"], key="edit_recommend", primary=True
        )
        job_panel(context.workspace.jobs, "recommend")
        return [["recommend"], ["remove", "--recommended"]]
    by = st.segmented_control("Items", ["tasks", "images"], default="tasks", key="edit_by", required=True)
    name = st.segmented_control(
        "Order",
        list(orders),
        default=next(iter(orders)),
        key=_order_key(orders),
        required=True,
        format_func=lambda one: order_words(orders[one], one),
    )
    by, name = by or "tasks", name or next(iter(orders))  # a browser can send none
    order = orders[name]
    items, kind = table(order, f"{by}.parquet"), by[:-1]
    proposed = recommended_levels(order)[by].proposed if name == _SUSPICIOUS else 0
    default = min(proposed or _DEFAULT_COUNT, len(items))
    key = f"edit_worst_{by}" if name == _HARMFUL else f"edit_proposed_{by}_{order.id}"
    number = st.number_input(f"How many {by}", 1, len(items), default, key=key)
    new = undecided_items(context.workspace, _worst_items(order, by, int(number)))
    already = f" Already decided: {number - len(new)} of the {number}." if len(new) < number else ""
    st.caption(f"{_meaning(order, items, by, int(number))}{already}")
    if st.button(f"Remove {count(len(new), kind)}", key="edit_remove_worst", type="primary", disabled=not new):
        decide(context, new, "remove", order.id, f"among the {number} {order_words(order, name)} {by}")
        st.rerun()
    return [["remove", "--ranking", order.id, "--by", by, "--worst", str(number)]]


def _meaning(order: Run, items: pd.DataFrame, by: str, number: int) -> str:
    """Return what the first items of an order are expected to be."""
    kind = by[:-1]
    if "probability" in items:
        share = items.sort_values("suspicion", ascending=False, kind="stable")["probability"].head(number).mean()
        expected = "" if pd.isna(share) else f" {share:.0%} of the first {number:,} are expected to be wrong."
        return plain(f"{recommended_levels(order)[by].sentence}{expected}")
    if order.config["method"] == SELF_INFLUENCE:
        return "Self-influence puts the most suspicious items first, whether or not they are harmful."
    harmful = int((items["score"] < 0).sum())
    return (
        f"{harmful:,} of {count(len(items), kind)} have a harmful score in {plain(order.id)}. Harmful says nothing "
        "about whether labels are wrong, and scores are estimates: check the items."
    )


def _no_changes(context: Context) -> None:
    evaluated = newest_evaluation(context)
    if evaluated is not None:
        st.markdown(f"Unedited model: {_accuracy(evaluated)} on held-out tasks.")
    st.markdown("Once you remove or relabel something, you can estimate the effect here, fine-tune and retrain.")
    job_panel(context.workspace.jobs, "edit")


def _accuracy(evaluated: Run) -> str:
    return Interval(**evaluated.json("summary.json")["accuracy"]).percent()


def _effects(context: Context, changes: Changes) -> None:
    """Show the known effects of the present changes, and buttons for the missing ones."""
    found = results(context, changes)
    evaluated = newest_evaluation(context)
    if found and evaluated is not None:
        _headline(context, found)
    live_estimate(context, changes)
    _buttons(context, default_edits(context, changes))
    job_panel(context.workspace.jobs, "edit")
    if others := results_of_other_sets(context, changes):
        st.caption(
            f"Only results for the present changes are shown. Stored for other changes: {count(others, 'result')}; "
            "they reappear when you return to those changes. The What if page compares named sets."
        )
    if not found:
        unedited = f" Unedited model: {_accuracy(evaluated)}." if evaluated else ""
        st.info(f"{NO_RESULTS}{unedited} “Estimate and fine-tune” takes about a minute on the demo.")
    elif evaluated is None:
        st.info("The unedited model has not been evaluated yet, so there is nothing to compare with.")
        start_button(context, "Evaluate", "Evaluate the unedited model", ["evaluate"], key="edit_evaluate")
        job_panel(context.workspace.jobs, "evaluate")
    else:
        _results(context, evaluated, found)
        precomputed_note(context, *(one.run for one in found))


def _headline(context: Context, found: list[EditResult]) -> None:
    """Show what the changes did, apart from what the procedures do by themselves."""
    if (first := headline(found)) is not None:
        title, note = first
        st.markdown(title)
        st.caption(note)
    st.markdown("\n".join(f"- {sentence}" for sentence in [*findings(found), *start_finding(found)]))
    if missing := [one.run.id for one in found if one.lacks_control]:
        start_button(
            context,
            "Compute controls",
            f"Compute {count(len(missing), 'control')}",
            ["edit", *(part for run_id in missing for part in ("--control-of", run_id))],
            key="edit_controls",
        )
        st.caption("A control takes as long as its edit, and later edits with the same settings share it.")


def _results(context: Context, evaluated: Run, found: list[EditResult]) -> None:
    before = evaluated.json("summary.json")
    dots = [Dot("Unedited model", Interval(**before["accuracy"]), None)]
    dots += [
        Dot(
            LABELS[one.method],
            Interval(**one.figures["accuracy"]),
            None if one.effect is None else one.effect.accuracy,
            None if one.control is None else Interval(**one.control.json("edit.json")["accuracy"]),
            one.is_estimate,
        )
        for one in found
    ]
    st.plotly_chart(edit_figure(dots), config=CONFIG, key="edit_chart")
    st.caption(
        f"Means over {count(before['tasks'], 'held-out task')} with 95 % intervals. Grey diamonds: the controls, the "
        "same procedures without the changes. Filled, solid: measured. Hollow, dotted: the linear edit, an estimate of "
        "the result of retraining; its interval covers the variation over tasks, not the error of the estimate."
    )
    if options := options_words(context, found):
        st.caption(options)
    st.dataframe(methods_table(found), hide_index=True)
    st.caption(COST_NOTE)
    for one in found:
        if one.method == "linear":
            _solve_report(one)
        elif one.method == "newton":
            _newton_report(one)


def _buttons(context: Context, found: set[str]) -> None:
    """Draw buttons that start the missing edits.

    Only one edit runs at a time, as a job uses the changes that were present when it started.
    """
    running = is_running(context.workspace.jobs, "edit")
    trained = training_settings(context.project.model) is not None
    quick, steps, full = st.columns(3)
    note = st.container()
    for place, label, key, args, methods in (
        (quick, "Estimate and fine-tune", "edit_estimate", _ESTIMATE, DEFAULT_EDIT_METHODS),
        (steps, "Run small steps", "edit_steps", _STEPS, _STEP_METHODS),
        (full, "Retrain in full", "edit_retrain", _RETRAIN, _RETRAIN_METHODS),
    ):
        off = running or found.issuperset(methods) or (place is full and not trained)
        if place.button(
            label, type="primary" if place is quick else "secondary", disabled=off, key=key, width="stretch"
        ):
            start(context, label, args)
    if running:
        note.caption("The running job uses the changes that were present when it started.")
        return
    notes = [quick_note(context)] if not found.issuperset(DEFAULT_EDIT_METHODS) else []
    if not found.issuperset(_STEP_METHODS):
        notes.append(steps_note(context))
    if "retrain" not in found:
        notes.append(retraining_note(context))
    if notes:
        note.caption(" ".join(notes))


def _solve_report(linear: EditResult) -> None:
    report, figures = linear.figures["solver"], linear.figures
    with st.expander(
        f"Solve of the linear edit · residual {report['residual']:.0e} · "
        f"step {figures['relative_step']:.1%} of the parameter norm"
    ):
        st.markdown(
            "\n".join(f"- {line}" for line in solve_lines(report)) + "\n"
            f"- Step: {figures['relative_step']:.2%} of the parameter norm. The edit is a first-order step: the longer "
            "it is, the less accurate.\n"
            f"- Change of the held-out loss: {figures['predicted_loss_change']:+.4f} predicted to first order, "
            f"{figures['loss_change']['mean']:+.4f} for the edited model. If these differ a lot, "
            "the step is too long for a first-order approximation.\n"
            f"- Computed on {plain(report['device'])} in {plain(report['dtype'])}"
        )


def _newton_report(newton: EditResult) -> None:
    report = newton.figures["newton"]
    if not report["taken"]:
        st.caption("No Newton step of any length lowered the loss of the changed tasks, so the model is unchanged.")
        return
    with st.expander(
        f"Newton step · {report['ratio']:.0%} of the predicted decrease · "
        f"step {report['relative_step']:.1%} of the parameter norm"
    ):
        st.markdown(
            f"- Loss of the changed tasks ({report['gradient_tasks']} of them): {report['objective']:.4f} before the "
            f"step, {report['actual']:.4f} lower after it; the quadratic model predicted {report['predicted']:.4f}.\n"
            f"- Trust region: the best of {len(report['tried'])} step lengths, with a damping of "
            f"{report['share']:g} of the largest eigenvalue ({report['largest']:.3g}).\n"
            f"- Gauss-Newton curvature of {report['curvature_tasks']} tasks, {report['products']} products with it."
        )


main()
