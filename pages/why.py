"""Why: a failing held-out task or image, and the training data that harm and help it most."""

from __future__ import annotations

import pandas as pd
import streamlit as st

from core.editing.whatif import WhatIfEstimator
from core.influence.targets import Target
from core.tasks.changes import Changes
from core.ui.ranking.panel import newest_evaluation
from core.ui.review.decide import decide, decision_buttons, removal_bar
from core.ui.shell.command import command_block
from core.ui.shell.context import Context, page, table
from core.ui.shell.jobs import job_panel, start_button
from core.ui.whatif.panel import estimate_words, live_estimator, prepare_panel
from core.ui.why.panel import choose_target, items_of, removal_panel, target_words
from core.ui.why.tiles import heldout_tiles, scored_images, scored_tasks
from core.workspace.runs import Run

_SHOWN = (24, 60, 120)


def main() -> None:
    """Draw the page."""
    with page("Why") as context:
        changes = removal_bar(context, "harmful") or Changes()
        evaluated = newest_evaluation(context)
        if evaluated is None:
            st.info("The model has not been evaluated on the held-out tasks yet, so its failures are unknown.")
            start_button(context, "Evaluate", "Evaluate the model", ["evaluate"], key="why_evaluate", primary=True)
            job_panel(context.workspace.jobs, "evaluate")
            command_block(context, ["evaluate"])
            return
        target = choose_target(evaluated)
        if target is None:
            return
        _failing(context, evaluated, target)
        st.divider()
        estimator = live_estimator(context)
        if estimator is None:
            st.markdown("**Which training tasks and images harm or help this target most?**")
            prepare_panel(context, "Afterwards the answer is immediate for every target.", key="why_prepare")
        else:
            _causes(context, estimator, target, changes)
        command_block(context, ["why", "--target", str(target)])


def _failing(context: Context, evaluated: Run, target: Target) -> None:
    """Show the failing task: the support set that the model adapted to, and its predictions for the query images."""
    st.markdown(target_words(target, evaluated))
    task = target.tasks[0]
    heldout = context.project.tasks.heldout.rows
    support = heldout[(heldout["task_id"] == task) & (heldout["role"] == "support")]
    query = table(evaluated, "rows.parquet")
    query = query[query["task_id"] == task].sort_values("loss", ascending=False, kind="stable")
    left, right = st.columns([2, 3], gap="large")
    with left:
        st.markdown("**Support** — what the model adapted to")
        support = support.sort_values("label", kind="stable")
        heldout_tiles(context, support, "", "why_support", "support images of the failing task")
    with right:
        st.markdown("**Query** — its predictions, highest loss first")
        heldout_tiles(context, query, target.image, "why_query", "query images of the failing task")


def _causes(context: Context, estimator: WhatIfEstimator, target: Target, changes: Changes) -> None:
    by, shown, note = st.columns([2, 2, 5], vertical_alignment="bottom")
    what = by.segmented_control("Training data", ["images", "tasks"], default="images", key="why_by", required=True)
    most = shown.selectbox("Shown per list", _SHOWN, key="why_most")
    scores = estimator.images(target) if what == "images" else estimator.target(target)
    note.caption(
        "Scores estimate how much the target's loss would rise if an item were removed "
        f"({estimate_words(scores.residual, int(estimator.report['rank']))}). Negative: harmful; positive: helpful."
    )
    tables = {
        "harmful": scores.table[scores.table["score"] < 0].head(most),
        "helpful": scores.table[scores.table["score"] > 0].tail(most)[::-1],
    }
    left, right = st.columns(2, gap="large")
    for column, (word, part) in zip((left, right), tables.items(), strict=True):
        with column:
            _end(context, target, changes, what, word, part, estimator.prepared.id)
    remove = removal_panel(estimator, target, what, scores.table)
    if remove:
        decide(context, remove, "remove", estimator.prepared.id, f"estimated to harm {target} most")
        st.rerun()


def _end(
    context: Context, target: Target, changes: Changes, what: str, word: str, part: pd.DataFrame, source: str
) -> None:
    """Show the most harmful or the most helpful items, with buttons."""
    st.markdown(f"**Most {word} {what}**")
    if part.empty:
        st.caption(f"No {what} are estimated to be {word} for this target.")
        return
    key = f"why_grid_{what}_{word}"
    bar = st.container()
    label = f"most {word} training {what}"
    event = (scored_images if what == "images" else scored_tasks)(context, part, changes, key, label)
    items = items_of(what, event.selected)
    with bar:
        reasons = (f"estimated to be {word} for {target}",) * 2
        places, selected = st.columns([2, 2, 2])[:2], f"{len(items)} selected"
        decision_buttons(context, places, items, selected, source, reasons, key=key, grid=key, primary=False)


main()
