"""Draw the filters of the Review page; the filters are stored in the URL and can be saved under a name."""

from __future__ import annotations

from dataclasses import replace

import streamlit as st

from core.actions.duplicates import newest_duplicates
from core.decisions.causes import CAUSE_WORDS, CAUSES
from core.review.filters import PAGE_SIZES, PARAMETERS, ROLES, STATES, Filters, from_params
from core.review.review_queue import Queue
from core.review.saved_views import delete_view, save_view, saved_views
from core.ui.review.live import reapply_filters
from core.ui.shell.context import Context
from core.ui.shell.guard import guarded, report_errors
from core.ui.shell.text import plain

_FILTERS = "_review_filters"
_WIDGET = "review_"
_STATE_WORDS = {state: state.capitalize() for state in STATES} | {"conflict": "In conflict"}


def current_filters() -> Filters:
    """Return the present filters: from this session, or from the URL that opened it."""
    if _FILTERS not in st.session_state:
        st.session_state[_FILTERS] = from_params({name: st.query_params.get_all(name) for name in PARAMETERS})
    return st.session_state[_FILTERS]


def use(filters: Filters) -> None:
    """Replace the filters; call it before the widgets are drawn, for example in a callback."""
    st.session_state[_FILTERS] = filters
    for name in (*PARAMETERS, "range"):
        st.session_state.pop(_WIDGET + name, None)
    reapply_filters()


def filter_panel(context: Context, queue: Queue) -> Filters:
    """Draw the filters and return the chosen ones."""
    current = _known_values(current_filters(), queue)
    _initialize(current)
    one, two, three, four, five = st.columns([2, 1.6, 1.6, 1.7, 1], vertical_alignment="bottom")
    one.multiselect("Show", STATES, key=_WIDGET + "state", format_func=_STATE_WORDS.__getitem__, placeholder="All")
    classes = sorted(set(queue.table["class"]))
    two.multiselect("Given class", classes, key=_WIDGET + "given", placeholder="All")
    suggested = sorted(set(queue.table["suggested"].dropna()) - {""})
    three.multiselect("Suggested class", suggested, key=_WIDGET + "suggested", placeholder="All")
    scores = queue.scores
    four.selectbox("Order by", list(scores), key=_WIDGET + "order", format_func=scores.__getitem__)
    with five.popover("More", width="stretch"):
        st.multiselect(
            "Cause of the decision",
            CAUSES,
            key=_WIDGET + "cause",
            format_func=lambda cause: CAUSE_WORDS[cause].capitalize(),
            placeholder="All",
            help="Of a removal, why; of keep, what was ruled out; of unsure, what is suspected.",
        )
        st.checkbox("Ascending order", key=_WIDGET + "ascending")
        st.checkbox("Only where another class is more likely", key=_WIDGET + "differ")
        if newest_duplicates(context.workspace, context.project):
            st.checkbox("Only images with a near-duplicate", key=_WIDGET + "copies")
        left, right = st.columns(2)
        left.selectbox("Score", list(scores), key=_WIDGET + "score", format_func=scores.__getitem__)
        right.slider("Percentile", 0, 100, key=_WIDGET + "range", help="100: the most suspicious by this score.")
        left.selectbox("Role", ROLES, key=_WIDGET + "role", format_func=lambda role: role or "any")
        right.selectbox("Per page", PAGE_SIZES, key=_WIDGET + "size", format_func=lambda size: f"{size} tiles")
        tasks = ["", *context.project.tasks.train.task_ids]
        left.selectbox("Task", tasks, key=_WIDGET + "task", format_func=lambda task: task or "any")
        right.text_input("ID contains", key=_WIDGET + "find", max_chars=200)
    filters = replace(_chosen(), lasso=current.lasso)
    st.session_state[_FILTERS] = filters
    _views(context, filters)
    _to_url(filters)
    return filters


def _known_values(filters: Filters, queue: Queue) -> Filters:
    """Return the filters without values absent from this queue, as a link may come from another queue."""
    scores = queue.scores
    classes, suggested = set(queue.table["class"]), set(queue.table["suggested"])
    return replace(
        filters,
        given=tuple(one for one in filters.given if one in classes),
        suggested=tuple(one for one in filters.suggested if one in suggested),
        order=filters.order if filters.order in scores else next(iter(scores)),
        score=filters.score if filters.score in scores else next(iter(scores)),
    )


def _initialize(filters: Filters) -> None:
    """Initialise widgets that have no value: on the first run, and after the user left the page."""
    for name in PARAMETERS:
        value = getattr(filters, name)
        st.session_state.setdefault(_WIDGET + name, list(value) if isinstance(value, tuple) else value)
    st.session_state.setdefault(_WIDGET + "range", (filters.low, filters.high))


def _chosen() -> Filters:
    read = {name: st.session_state[_WIDGET + name] for name in PARAMETERS if name != "lasso"}
    low, high = st.session_state[_WIDGET + "range"]
    lists = {name: tuple(value) for name, value in read.items() if isinstance(value, list)}
    return Filters(**{**read, **lists, "find": read["find"].strip(), "low": low, "high": high})


def _to_url(filters: Filters) -> None:
    wanted = filters.to_params()
    for name in PARAMETERS:
        if name not in wanted:
            st.query_params.pop(name, None)
        elif st.query_params.get_all(name) != wanted[name]:
            st.query_params[name] = wanted[name]


def _views(context: Context, filters: Filters) -> None:
    """Draw the buttons that clear the filters, the saved views, and the button that applies the filters again."""
    folder = context.workspace.folder
    bar = st.container(horizontal=True, vertical_alignment="center")
    bar.button(
        "Clear filters",
        key="review_all",
        on_click=guarded(use, "Clear filters"),
        args=(Filters(size=filters.size),),
        disabled=filters == Filters(size=filters.size),
    )
    bar.button(
        "Reapply filters",
        on_click=guarded(reapply_filters, "Reapply filters"),
        help="Hide items that no longer match because of new decisions.",
    )
    with bar.popover("Saved views"), report_errors("The list of views"):
        views = saved_views(folder)
        for name, view in views.items():
            open_, delete = st.columns([4, 1])
            open_.button(
                plain(name),
                key=f"review_open_view {name}",
                on_click=guarded(use, "Open the view"),
                args=(view,),
                width="stretch",
            )
            delete.button(
                "✕",
                key=f"review_drop_{name}",
                help="Delete",
                on_click=guarded(delete_view, "Delete the view"),
                args=(folder, name),
            )
        name = st.text_input("Name of the view", key="review_view_name", max_chars=60)
        if st.button("Save view", key="review_view_save", disabled=not name.strip()):
            save_view(folder, name, filters)
            st.rerun()
        st.caption("The URL of this page contains the filters too: a link to it opens the same view.")
    if filters.lasso:
        bar.button(
            "Clear map selection",
            on_click=guarded(use, "Clear map selection"),
            args=(replace(filters, lasso=()),),
        )
    bar.toggle("Map", key="review_map")
    bar.toggle("Blind", key="review_blind", help="Show only your own decisions, so that others do not influence you.")
