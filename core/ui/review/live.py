"""Redraw the part of the Review page that changes often: write decisions, show those of others, and turn pages.

It runs as a separate fragment after every report of the browser, once more shortly after it, when a new forecast is
ready, and every few seconds for the decisions of others; when nothing has changed it sends nothing. Decisions are
written before anything is drawn, so a rerun that is interrupted loses none.
"""

from __future__ import annotations

import json
import secrets
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import streamlit as st

from core.actions.duplicates import newest_duplicates
from core.decisions.log import DecisionLog
from core.decisions.texts import COMMENT_LENGTH
from core.decisions.valid_rows import unreadable_text
from core.review.browser_operations import OperationAck, encode_positions, submit
from core.review.filters import Filters, filtered_positions
from core.review.review_queue import Queue
from core.review.review_state import ReviewState, read_state
from core.runtime.errors import UserError
from core.ui.grid.atlas import Atlas
from core.ui.grid.component import cached_atlas
from core.ui.grid.pictures import pixels
from core.ui.review.decide import reversal_text
from core.ui.review.detail import detail
from core.ui.review.forecast import forecast_text, latest_forecast
from core.ui.review.grid import Report, last_report, mount, packet
from core.ui.review.tiles import TILE_PX, notice, page_data, page_state
from core.ui.shell.context import RUN_HASH, Context, decision_log, table
from core.ui.shell.guard import fragment, ignore, report_errors, show_error
from core.workspace.runs import Run

GRID, PICTURES, DETAILS = "review_grid", "review_pictures", "review_details"
EVERY_SECONDS = 3.0
"""Until the decisions of others are shown. Each run takes every browser a few hundredths of a second even if it changes
nothing, and the server answers all of them."""
_BUSY_SECONDS = 1.0
"""How long a decision waits for another writer before the reviewer is notified; the browser retries by itself."""
_SLOT = "_review_live"


@dataclass
class GridState:
    """A session's state of its grid.

    Attributes:
        key: The key of the selection of the shown items.
        shown: Positions in the queue, in order; a decision does not change them.
        packed: The same as text (:func:`encode_positions`).
        page: Number of the page, from 0.
        view_name, at, reply: The last processed request for a page, the new position of the focus, and the message.
        report_name, acks, fault: The last processed report of decisions, and the result.
        stamp, pictures: The last page that was drawn, and its packet.
        detail_names, details: The last images of details that were drawn, and their packet.
        refilter_count: How often the filters were applied again.
        unreadable: The counter of the log's changes, and what was said then of rows that are left out.
        known_key, known: The decisions read last, and what they depend on.
    """

    key: tuple[Any, ...] = ()
    shown: np.ndarray = field(default_factory=lambda: np.zeros(0, np.int32))
    packed: str = ""
    page: int = 0
    view_name: str = ""
    at: int | None = None
    reply: str = ""
    report_name: str = ""
    acks: list[OperationAck] = field(default_factory=list)
    fault: UserError | None = None
    stamp: str = ""
    pictures: bytes = b""
    detail_names: tuple[str, ...] | None = None
    details: bytes = b""
    refilter_count: int = 0
    unreadable: tuple[int, str] = -1, ""
    known_key: tuple[Any, ...] = ()
    known: ReviewState | None = None


def memory() -> GridState:
    """Return the grid state of this session."""
    return st.session_state.setdefault(_SLOT, GridState())


def reapply_filters() -> None:
    """Apply the filters again: items that no longer match disappear."""
    memory().refilter_count += 1


@st.cache_resource(max_entries=4, show_spinner="Reading the queue", hash_funcs=RUN_HASH)
def open_queue(run: Run, names: tuple[str, ...]) -> Queue:
    """Return the queue of a run, read once, with the class names of its image set."""
    return Queue.of_table(run.folder, table(run, "items.parquet"), names)


def current_state(context: Context, queue: Queue, blind: bool) -> ReviewState:
    """Return the decisions as this reviewer may see them."""
    return read_state(context.workspace.decisions, queue, context.reviewer if blind else None)


@fragment("The review grid", run_every=EVERY_SECONDS)
def live_grid(context: Context, queue: Queue, filters: Filters, blind: bool) -> None:
    """Draw the grid and do what it asks for."""
    live, report = memory(), last_report(GRID)
    messages = st.container()  # always there, so that the grid stays in its place when a message comes or goes
    _apply_browser_operations(live, context, queue, report, blind)
    with messages:
        state = _newest_state(live, context, queue, blind)
    _apply_filters(live, context, queue, state, filters, blind)
    _turn(live, queue, state, report, filters.size)

    positions = live.shown[live.page * filters.size : (live.page + 1) * filters.size]
    if not live.stamp:
        live.stamp = secrets.token_hex(6)
        pictures = cached_atlas(pixels(context, list(queue.table["image_id"].iloc[positions])), TILE_PX)
        constant = page_data(queue, live.shown, live.packed, live.page, filters.size, live.stamp, pictures)
        live.pictures = packet("page", [pictures], constant)
    focus = _focus(live, state, report, positions)
    about: dict[str, Any] | None = None
    atlases: tuple[Atlas, ...] = ()
    if focus is not None:
        with messages, report_errors("The details of the item"):
            about, atlases = detail(context, queue, state, focus)
    names = tuple(atlas.name for atlas in atlases)
    if names != live.detail_names:
        live.detail_names, live.details = names, packet("detail", atlases)
    place = st.container()
    mount(key=PICTURES, data=live.pictures, height=1)
    mount(key=DETAILS, data=live.details, height=1)
    remaining = forecast_text(latest_forecast(queue, state, context.reviewer if blind else None))
    data = {
        "workspace": context.workspace.name,
        "reviewer": context.reviewer,
        "scope": _scope(context),
        "comment_length": COMMENT_LENGTH,
        "stamp": live.stamp,
        "version": state.version,
        "state": page_state(queue, state, positions.tolist()),
        "progress": [state.decided, len(queue), remaining],
        "notice": "; ".join(filter(None, (notice(state, context.reviewer), _unreadable_text(live, context, state)))),
        "blind": blind,
        "heard": live.report_name,
        "acked": [[ack.token, _ack_text(ack), bool(ack.error)] for ack in live.acks],
        "error": [live.fault.what, live.fault.fix] if live.fault else None,
        "turned": live.view_name,
        "at": live.at,
        "reply": live.reply,
        "detail": about,
    }
    with place:
        mount(key=GRID, data=data, on_report_change=ignore)


def _newest_state(live: GridState, context: Context, queue: Queue, blind: bool) -> ReviewState:
    """Return the present decisions; while the log cannot be read, say so and return those that are on the screen.

    So a log that another program locks for a moment does not take the grid away, nor the focus in it.
    """
    key = (str(queue.folder), context.reviewer, blind)
    try:
        live.known, live.known_key = current_state(context, queue, blind), key
    except UserError as error:
        if live.known is None or live.known_key != key:
            raise
        show_error(error)
    return live.known


def _unreadable_text(live: GridState, context: Context, state: ReviewState) -> str:
    """Return which rows of the log are left out, read again only after a change."""
    if live.unreadable[0] != state.change_counter:
        live.unreadable = state.change_counter, unreadable_text(context.workspace.decisions.unreadable_rows())
    return live.unreadable[1]


def _ack_text(ack: OperationAck) -> str:
    """Return the page's announcement for an operation; a saved decision needs none."""
    if ack.error:
        what = ack.act if ack.act in ("undo", "redo", "comment") else "decision"
        return f"{what.capitalize()}{f' on {ack.item}' if ack.item else ''}: {ack.error}"
    return "" if ack.result is None else reversal_text(ack.act, ack.result)


def _scope(context: Context) -> str:
    """Return whose decisions a grid sends, so that no two reviewers or workspaces share it, whatever their names."""
    return json.dumps([context.workspace.name, context.reviewer])


def _apply_browser_operations(live: GridState, context: Context, queue: Queue, report: Report, blind: bool) -> None:
    if not report.name or report.name == live.report_name or report.scope != _scope(context):
        return

    try:
        log = context.workspace.decisions
        # A second connection, as this fragment waits for a lock even shorter than a page: the browser retries.
        writer = decision_log(str(log.path), log.path.stat().st_ino if log.path.exists() else 0, _BUSY_SECONDS)
        live.acks, live.fault = _submitted(writer, report, context, queue, blind), None
    except UserError as error:
        live.acks, live.fault = [], error
    live.report_name = report.name


def _submitted(log: DecisionLog, report: Report, context: Context, queue: Queue, blind: bool) -> list[OperationAck]:
    def queue_of(run_id: str) -> Queue:
        return queue if run_id == queue.run_id else open_queue(context.workspace.runs.get(run_id), queue.names)

    return submit(log, report.log, context.reviewer, blind, queue, context.project.tasks.train, queue_of)


def _apply_filters(
    live: GridState, context: Context, queue: Queue, state: ReviewState, filters: Filters, blind: bool
) -> None:
    """Select the items again if the filters have changed; a decision alone moves nothing."""
    seen_by = context.reviewer if blind else None
    key = (context.workspace.name, queue.run_id, filters, seen_by, live.refilter_count)
    if key == live.key:
        return
    places = table(Run(queue.folder), "map.parquet") if filters.lasso else None
    search = newest_duplicates(context.workspace, context.project) if filters.copies else None
    pairs = table(search, "pairs.parquet") if search else None
    live.shown = filtered_positions(queue, state, filters, context.project.tasks.train, places, pairs)
    live.packed = encode_positions(live.shown, len(queue))
    undecided = np.flatnonzero(state.verdict[live.shown] == 0)
    live.key, live.page = key, int(undecided[0]) // filters.size if len(undecided) else 0
    live.stamp = ""


def _turn(live: GridState, queue: Queue, state: ReviewState, report: Report, size: int) -> None:
    """Go to the page that the browser requests, once per request."""
    view, name = report.view, report.view.get("name")
    if not isinstance(name, str) or name == live.view_name:
        return
    live.view_name, live.at, live.reply = name, None, ""
    last = max(0, (len(live.shown) - 1) // size)
    page, wanted = view.get("page"), view.get("find")
    if isinstance(wanted, str) and wanted:
        place, live.reply = find_item(queue, live.shown, wanted)
        if place is not None:
            page, live.at = place // size, int(live.shown[place])
    elif view.get("at") == "undecided" and isinstance(page, int):
        # The next undecided item may be pages away.
        ahead = np.flatnonzero(state.verdict[live.shown[max(0, page) * size :]] == 0)
        page = page + int(ahead[0]) // size if len(ahead) else page
    if isinstance(page, int) and 0 <= page <= last and page != live.page:
        live.page, live.stamp = page, ""


def _focus(live: GridState, state: ReviewState, report: Report, positions: np.ndarray) -> int | None:
    """Return the item whose details are shown: under the focus, or under it once the browser has drawn a new page."""
    focus = report.view.get("focus")
    if not isinstance(focus, int) or not len(positions):
        return None  # the details are closed
    if focus in positions:
        return focus
    if live.at is not None and live.at in positions:
        return live.at
    undecided = positions[state.verdict[positions] == 0]
    match report.view.get("at"):
        case "undecided" if len(undecided):
            return int(undecided[0])
        case "last":
            return int(positions[-1])
    return int(positions[0])


def find_item(queue: Queue, shown: np.ndarray, text: str) -> tuple[int | None, str]:
    """Return the place in ``shown`` of a position (from 1) or an image's id, or None, and what to announce."""
    text = text.strip()
    positions = queue.positions_of_image.get(text)
    if positions is None:
        number = text.replace(",", "")
        if number.isdigit():
            if 1 <= int(number) <= len(shown):
                return int(number) - 1, f"Position {int(number):,}"
            return None, f"The list has {len(shown):,} positions."
        return None, f"No image has the id {text}."
    places = np.flatnonzero(np.isin(shown, positions))
    if len(places):
        return int(places[0]), f"Image {text}"
    return None, f"Image {text} has rank {int(positions[0]) + 1:,} in the queue but does not match the filters."
