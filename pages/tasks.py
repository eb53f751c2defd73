"""Tasks: the ranking of training tasks, the distribution of scores, and the details of one task."""

from functools import partial

import streamlit as st

from core.actions.decide import cause_of_order
from core.decisions.log import Item
from core.tasks.changes import Changes
from core.tasks.tasklist import KEY
from core.ui.charts.common import CONFIG
from core.ui.charts.scores import score_histogram
from core.ui.grid.pictures import row_tiles
from core.ui.ranking.panel import require_ranking
from core.ui.recommendation.panel import (
    FRAMED,
    FRAMED_BY_PREDICTION,
    has_recommendation,
    recommendation_panel,
    with_suspicion,
)
from core.ui.review.decide import decision_buttons, relabel_panel, removal_bar
from core.ui.shell.context import page, table
from core.ui.shell.early_values import early_option
from core.ui.shell.text import count, plain
from core.ui.trust.panel import bar_words, order_words, score_ends, score_words

TURNS = "tasks_turns"
REASONS = ("from the Tasks page", "")
STATES = ("All", "Not removed", "Removed")
SUSPICION = "Most suspicious first"
ORDERS = {
    SUSPICION: ("suspicion", False),
    "Most harmful first": ("score", True),
    "Most helpful first": ("score", False),
    "Highest loss first": ("loss", False),
}

with page("Tasks") as context:
    run = require_ranking(context, "tasks")
    known = has_recommendation(context)
    orders = [name for name in ORDERS if known or name != SUSPICION]
    order_key = "tasks_order_recommended" if known else "tasks_order"  # its own default
    sorted_by, _ = ORDERS[early_option(order_key, orders, orders[0])]
    removal = removal_bar(context, cause_of_order(run, sorted_by)) or Changes()
    recommended = recommendation_panel(context, "tasks")
    tasks = with_suspicion(table(run, "tasks.parquet"), recommended, "tasks", ["task_id"])

    left, middle, right = st.columns([2, 3, 2], vertical_alignment="bottom")
    order = left.selectbox("Order", orders, key=order_key, format_func=partial(order_words, run))
    classes = middle.multiselect(
        "With all of these classes", sorted({name for names in tasks["classes"] for name in names}), key="tasks_classes"
    )
    state = right.segmented_control("Show", STATES, default="All", required=True, key="tasks_show")
    by, ascending = ORDERS[order]
    shown = tasks.assign(removed=tasks["task_id"].isin(removal.tasks))
    shown = shown[[set(classes) <= set(names) for names in shown["classes"]]]
    if state != "All":
        shown = shown[shown["removed"] == (state == "Removed")]
    shown = shown.sort_values(by, ascending=ascending, kind="stable").reset_index(drop=True)
    if shown.empty:
        st.info("No tasks match these filters. Clear some of them.")
        st.stop()

    asked = st.query_params.get("task", "")
    ids = shown["task_id"].tolist()
    list_column, chart_column = st.columns([3, 2])
    with list_column:
        st.caption(f"{count(len(shown), 'task')}. Select one to open it, or several to decide on them together.")
        event = st.dataframe(
            shown.assign(probability=100 * shown["probability"])[
                [
                    "task_id",
                    *(["probability"] if recommended else []),
                    "score",
                    "loss",
                    "accuracy",
                    "removed",
                    "classes",
                ]
            ],
            hide_index=True,
            height=300,
            on_select="rerun",
            selection_mode="multi-row",
            # A new key empties the selection: when other rows are shown, and when Previous or Next turned the page.
            key=f"tasks_table_{order}_{state}_{'-'.join(classes)}_{st.session_state.get(TURNS, 0)}",
            column_config={
                "task_id": "Task",
                "probability": st.column_config.ProgressColumn(
                    "Noisy?",
                    width="small",
                    format="%.0f%%",
                    min_value=0,
                    max_value=100,
                    help="Estimated probability that this task is noisy; it says nothing about its influence.",
                ),
                "score": st.column_config.NumberColumn("Influence", format="%.2e", help=score_words(run, "task")),
                "loss": st.column_config.NumberColumn("Adapted loss", format="%.3f"),
                "accuracy": st.column_config.NumberColumn("Accuracy", format="percent"),
                "classes": st.column_config.ListColumn("Classes, by label"),
                "removed": st.column_config.CheckboxColumn("Removed"),
            },
        )
        picked = [ids[row] for row in event.selection.rows if row < len(ids)]
    current = picked[-1] if picked else (asked if asked in ids else ids[0])
    position = ids.index(current)
    with chart_column:
        marked = float(shown["score"].iloc[position])
        st.plotly_chart(
            score_histogram(tasks["score"].to_numpy(), "tasks", marked, score_ends(run)),
            config=CONFIG,
            key="tasks_histogram",
        )
        several = [Item("task", task_id=i) for i in (picked or [current])]
        what = f"{len(several)} tasks" if len(several) > 1 else f"task {current}"
        decision_buttons(context, st.columns(2), several, plain(what), run.id, REASONS, key="tasks")

    st.divider()
    title, previous, following = st.columns([6, 1, 1], vertical_alignment="bottom")
    title.subheader(f"Task {plain(current)}")
    for column, label, step, end in ((previous, "Previous", -1, 0), (following, "Next", 1, len(ids) - 1)):
        if column.button(label, disabled=position == end, width="stretch", key=f"tasks_{label}"):
            st.query_params["task"] = ids[position + step]
            st.session_state[TURNS] = st.session_state.get(TURNS, 0) + 1
            st.rerun()
    facts = shown.iloc[position]
    st.markdown(
        f"Rank {position + 1} of {len(ids)} · "
        + (f"noisy with probability {facts.probability:.0%} · " if facts.probability == facts.probability else "")
        + f"influence {plain(f'{facts.score:+.2e}')} · adapted loss {facts.loss:.3f} · "
        f"accuracy {facts.accuracy:.0%} · classes by label: {plain(', '.join(facts.classes))}"
        + (" · **removed**" if facts.removed else "")
    )
    relabel_panel(context, current)
    st.caption(f"{FRAMED if recommended else FRAMED_BY_PREDICTION} {bar_words(run)}")
    instances = table(run, "instances.parquet")
    rows = with_suspicion(instances[instances["task_id"] == current], recommended, "instances", KEY)
    for role, gloss in (("support", "the model adapts to these"), ("query", "the model is tested on these")):
        by_row, first = (
            (["label", "suspicion"], "most suspicious")
            if recommended
            else (["label", "score"], order_words(run, "most harmful"))
        )
        part = rows[rows["role"] == role].sort_values(by_row, ascending=[True, not recommended], kind="stable")
        st.markdown(f"**{role.capitalize()}** — {gloss}; sorted by class, {first} first")
        bar = st.container()
        seen = row_tiles(context, part, removal, key=f"tasks_grid_{role}", label=f"{role} images of the task")
        chosen = [Item("instance", task_id=current, role=role, image_id=i) for i in seen.selected]
        with bar:
            places, rows_chosen = st.columns([2, 2, 6])[:2], count(len(chosen), "row")
            decision_buttons(context, places, chosen, rows_chosen, run.id, REASONS, key=f"tasks_{role}", primary=False)
