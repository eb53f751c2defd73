"""Draw what is recommended for the tasks, images or rows of a page, or the button that computes it."""

from __future__ import annotations

from typing import Any

import pandas as pd
import streamlit as st

from core.actions.decide import proposed_items
from core.actions.recommend import newest_recommendation, recommended_levels
from core.decisions.log import Item
from core.recommendation.summary import CANDIDATE_WORDS, ITEM_WORDS, PROTOCOL_WORDS
from core.ui.review.decide import decide
from core.ui.shell.context import Context, table
from core.ui.shell.guard import report_errors
from core.ui.shell.jobs import job_panel, start_button
from core.ui.shell.navigation import page as link
from core.ui.shell.precomputed import origin, precomputed_note
from core.ui.shell.text import count, plain
from core.workspace.runs import Run

FRAMED = "Framed: more likely wrong than right."
FRAMED_BY_PREDICTION = "Framed: predicted as another class."


def has_recommendation(context: Context) -> bool:
    """Return whether there is a recommendation for the present problem."""
    return newest_recommendation(context.workspace, context.project) is not None


def recommendation_panel(context: Context, level: str) -> Run | None:
    """Show the recommendation for a level (``tasks`` or ``images``) with its proposal; return its run.

    If there is none, draw the button that computes it and return None.
    """
    run = newest_recommendation(context.workspace, context.project)
    with st.container(border=True):
        if run is None:
            words, button = st.columns([5, 1], vertical_alignment="center")
            words.markdown(
                f"**Which {level} look wrong?** TaskLens injects label noise into copies of these data, measures which "
                "score finds it best, and proposes what to remove. It takes seconds to a few minutes."
            )
            with button:
                start_button(context, "Recommend", "Recommend what to remove", ["recommend"], key=f"{level}_recommend")
            job_panel(context.workspace.jobs, "recommend")
            return None
        _show(context, run, level)
    return run


def _show(context: Context, run: Run, level: str) -> None:
    found = recommended_levels(run)[level]
    st.markdown(f"**{plain(found.sentence)}**")
    items: list[Item] | None = None
    with report_errors("The proposal"):
        items = proposed_items(context.workspace, run, level)
    words, button = st.columns([5, 1], vertical_alignment="center")
    decided = 0 if items is None else found.proposed - len(items)
    already = f" Already decided: {decided} of them." if decided else ""
    words.caption(" ".join(map(plain, (found.proposal + already, *found.notes))))
    if level == "images" and found.proposed:
        words.page_link(link("review"), label="Relabel them on the Review page, which suggests classes")
    items = items or []
    label = f"Remove {count(len(items), ITEM_WORDS[level])}"
    if found.proposed and button.button(label, key=f"{level}_proposed", disabled=not items, width="stretch"):
        decide(context, items, "remove", run.id, "proposed by the recommendation", cause="label-error")
        st.rerun()
    with st.expander(f"How well each score finds injected errors{origin(run)}"):
        precomputed_note(context, run)
        st.dataframe(_candidates(run, level), hide_index=True, column_config=_COLUMNS)


_COLUMNS: dict[str, Any] = {
    "candidate": "Score",
    "protocol": "Injected noise",
    "found": st.column_config.NumberColumn("Errors found", format="percent"),
    "first": st.column_config.NumberColumn("among the first", format="percent"),
    "average_precision": st.column_config.NumberColumn("Average precision", format="%.2f"),
    "auc": st.column_config.NumberColumn("AUC", format="%.2f"),
    "seconds": st.column_config.NumberColumn("Seconds", format="%.1f"),
    "chosen": st.column_config.CheckboxColumn("Recommended"),
}


def _candidates(run: Run, level: str) -> pd.DataFrame:
    measured = table(run, "candidates.parquet")
    measured = measured[measured["level"] == level]
    order = measured.groupby("candidate")["average_precision"].transform("mean")
    measured = measured.iloc[(-order).argsort(kind="stable")].replace(
        {"candidate": CANDIDATE_WORDS, "protocol": PROTOCOL_WORDS}
    )
    return measured[list(_COLUMNS)]


def with_suspicion(items: pd.DataFrame, run: Run | None, level: str, keys: list[str]) -> pd.DataFrame:
    """Return a table of a ranking with the columns suspicion and probability of a recommendation; NaN without one."""
    if run is None:
        return items.assign(suspicion=float("nan"), probability=float("nan"))
    return items.merge(table(run, f"{level}.parquet")[[*keys, "suspicion", "probability"]], on=keys, how="left")
