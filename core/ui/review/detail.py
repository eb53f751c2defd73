"""Read the details of one item when the focus rests on it, so that key presses never wait for them."""

from __future__ import annotations

import itertools
import threading
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
import streamlit as st
from cachetools import LRUCache, cached

from core.actions.duplicates import newest_duplicates
from core.decisions.records import decision_text
from core.review.review_queue import SCORES, Queue
from core.review.review_state import ReviewState
from core.runtime.errors import UserError
from core.ui.grid.atlas import Atlas, jpeg_atlas
from core.ui.grid.pictures import pixels
from core.ui.review.background_lines import effect_lines, explanation_lines
from core.ui.shell.context import RUN_HASH, Context, table
from core.ui.shell.text import minute_of
from core.workspace.runs import Run
from core.workspace.workspace import newest_ranking

_LARGE_PX, _SMALL_PX = 320, 64
_NEIGHBOURS, _DUPLICATES, _TASKS, _LINES = 6, 6, 6, 8
_DUPLICATE_DISTANCE = 0.02
"""Cosine distance of features below which two images are near-duplicates."""
_CACHED_DETAILS = 64
COMPUTING = "computing …"
QUEUE_HASH: Any = {Queue: lambda queue: RUN_HASH[Run](Run(queue.folder))}
REASONS, OCCURRENCES = "Why it is suspicious", "Occurrences"

Strip = tuple[str, list[int], list[str]]
"""Title, cells of the atlas, and captions."""


def detail(
    context: Context, queue: Queue, state: ReviewState, position: int
) -> tuple[dict[str, Any], tuple[Atlas, ...]]:
    """Return a message with all details of the item at a position, and its images: one large, and those of the strips.

    ``computing`` says that a part of it is not ready, so that the browser asks again.
    Others decide many times a minute, so only what depends on the log is read again after a change of it.
    """
    data, atlases, constant = _constant(context, queue, position)
    computed = {
        "Estimated effect of a decision": effect_lines(context, queue, position),
        "Explanation": explanation_lines(context, queue, position),
    }
    is_computing = None in computed.values()
    computed = {title: [COMPUTING] if lines is None else lines for title, lines in computed.items()}
    sections = computed | constant | _from_log(context, queue, state, position)
    shown = [section for section in sections.items() if section[1]]
    return data | {"sections": shown, "computing": is_computing}, atlases


def _constant_key(context: Context, queue: Queue, position: int) -> tuple[object, ...]:
    return str(queue.folder), position, context.workspace.runs.folder.stat().st_mtime_ns


@cached(LRUCache(_CACHED_DETAILS), key=_constant_key, lock=threading.Lock())
def _constant(
    context: Context, queue: Queue, position: int
) -> tuple[dict[str, Any], tuple[Atlas, ...], dict[str, list[str]]]:
    """Return the part of a message that stays until another run is finished, its images, and its sections."""
    row, item = queue.table.iloc[position], queue.items[position]
    large = jpeg_atlas(pixels(context, [item.image_id]), tile_px=_LARGE_PX)
    strips, pictures = _strips(context, queue, position)
    sections = {
        REASONS: _reasons(queue, position),
        "Leak: results may reflect memorisation": _leaks(context, item.image_id),
        OCCURRENCES: _occurrences(context, item.image_id),
    }
    facts = [("Image", item.image_id), ("Rank", f"{position + 1:,} of {len(queue):,}")]
    if item.kind == "instance":
        facts.append(("Role", f"{item.role} of task {item.task_id}"))
    if pd.notna(row["probability"]):
        facts.append(("Label error", f"{100 * row['probability']:.0f} % (estimate)"))
    facts.append(("Runner-up class", row["second"]))
    data = {
        "p": position,
        "sheet": large.name,
        "strip": pictures.name if pictures else "",
        "facts": facts,
        "strips": strips,
    }
    return data, (large, pictures) if pictures else (large,), sections


def _log_key(context: Context, queue: Queue, state: ReviewState, position: int) -> tuple[object, ...]:
    seen_by = context.reviewer if state.version is None else ""
    return str(queue.folder), position, state.change_counter, seen_by


@cached(LRUCache(_CACHED_DETAILS), key=_log_key, lock=threading.Lock())
def _from_log(context: Context, queue: Queue, state: ReviewState, position: int) -> dict[str, list[str]]:
    return {
        "Comments": _comments(context, queue, state, position),
        "Decisions": _history(context, queue, state, position),
    }


def _reasons(queue: Queue, position: int) -> list[str]:
    """Return the member scores in words, the most informative first."""
    ranks = [
        (float(queue.percentiles[name][position]), SCORES[name])
        for name in queue.scores
        if name not in ("suspicion", "probability")
    ]
    return [
        f"{words}: higher than for {rank:.0f} % of the queue" for rank, words in sorted(ranks, reverse=True)[:_LINES]
    ]


@st.cache_resource(max_entries=2, show_spinner=False, hash_funcs=RUN_HASH)
def _rows_by_image(run: Run) -> dict[Any, Any]:
    return dict(table(run, "instances.parquet").groupby("image_id").indices)


@st.cache_resource(max_entries=2, show_spinner=False)
def _rows_of_tasks(problem: str, _context: Context) -> dict[Any, Any]:
    return dict(_context.project.tasks.train.rows.groupby("image_id").indices)


def _occurrences(context: Context, image_id: str) -> list[str]:
    """Return the tasks of an image; with a ranking, those where its score is worst come first."""
    lines = []
    if ranked := newest_ranking(context.workspace, context.project):
        rows = table(ranked, "instances.parquet").iloc[_rows_by_image(ranked).get(image_id, [])]
        rows = rows.sort_values("loss", ascending=False, kind="stable")
        lines = [
            f"{row['role']} of {row['task_id']}: predicted as {row['predicted_class']}, loss {row['loss']:.2f}"
            for row in rows.to_dict("records")
        ]
    if not lines:
        tasks = context.project.tasks.train
        rows = tasks.rows.iloc[_rows_of_tasks(context.project.hashes["tasks"], context).get(image_id, [])]
        lines = [f"{role} of {task}" for role, task in zip(rows["role"], rows["task_id"], strict=True)]
    more = [f"and {len(lines) - _TASKS} more"] if len(lines) > _TASKS else []
    return lines[:_TASKS] + more


def _comments(context: Context, queue: Queue, state: ReviewState, position: int) -> list[str]:
    is_blind, comments = state.version is None, context.workspace.decisions.comments(queue.items[position])
    visible = [comment for comment in comments if not is_blind or comment.reviewer == context.reviewer]
    return [f"{comment.reviewer}, {minute_of(comment.at)}: {comment.text}" for comment in visible[-_LINES:]]


def _history(context: Context, queue: Queue, state: ReviewState, position: int) -> list[str]:
    """Return who decided what, newest first; in blind mode only the decisions of the present reviewer."""
    if state.version is None:
        entries = [state.entries[position]] if position in state.entries else []
    else:
        entries = context.workspace.decisions.history(queue.items[position])
    lines = []
    for entry in reversed(entries[-_LINES:]):
        undo = "" if entry.undoes is None else ", by an undo or redo"
        reason = f" ({entry.reason})" if entry.reason else ""
        lines.append(f"{entry.by}, {minute_of(entry.at)}: {decision_text(entry, queue.names)}{reason}{undo}")
    return lines


@dataclass(frozen=True, eq=False)
class Features:
    """The features that a queue run stored, of the m images of its items.

    Attributes:
        values: ``(m, d)`` unit vectors.
        ids: ``(m,)`` image ids.
        classes: ``(m,)`` the given class of each image; of several the one of its most suspicious item.
        place: The row of each image.
    """

    values: np.ndarray
    ids: np.ndarray
    classes: np.ndarray
    place: dict[str, int]


@st.cache_resource(max_entries=2, show_spinner=False, hash_funcs=QUEUE_HASH)
def features(queue: Queue) -> Features:
    """Return the features that the queue run stored; raise UserError if the file is damaged."""
    path = queue.folder / "features.npy"
    try:
        values = np.load(path, allow_pickle=False).astype(np.float32)
    except (OSError, ValueError, EOFError) as error:
        raise UserError(f"{path} cannot be read: {error}.", "Delete the run and build the queue again.") from error
    ids = table(Run(queue.folder), "map.parquet")["image_id"].to_numpy(dtype=object)
    length = np.linalg.norm(values, axis=1, keepdims=True)
    classes = queue.given[[queue.positions_of_image[name][0] for name in ids]]
    return Features(values / np.maximum(length, 1e-12), ids, classes, {name: at for at, name in enumerate(ids)})


def _strips(context: Context, queue: Queue, position: int) -> tuple[list[Strip], Atlas | None]:
    """Return strips of neighbours in the given and the suggested class, and of near-duplicates, with their images."""
    found, image = features(queue), queue.items[position].image_id
    row = found.place[image]
    distance = 1.0 - found.values @ found.values[row]
    order = np.argsort(distance, kind="stable")
    order = order[order != row]
    given, suggested = queue.given[position], queue.suggested[position]
    places_of: dict[str, np.ndarray] = {}
    for title, label in (("given", given), ("suggested", suggested)):
        if label >= 0 and (title == "given" or label != given):
            nearest = order[found.classes[order] == label][:_NEIGHBOURS]
            places_of[f"Nearest of the {title} class, {queue.names[label]}"] = nearest
    duplicates = _duplicates(context, found, image)
    if duplicates is None:
        nearest = order[:_DUPLICATES]
        duplicates = nearest[distance[nearest] < _DUPLICATE_DISTANCE]
    places_of["Near-duplicates"] = duplicates
    places = np.concatenate(list(places_of.values()))
    if not len(places):
        return [], None
    cells = itertools.count()
    strips = [
        (title, [next(cells) for _ in part], [queue.names[label] for label in found.classes[part]])
        for title, part in places_of.items()
        if len(part)
    ]
    return strips, jpeg_atlas(pixels(context, list(found.ids[places])), tile_px=_SMALL_PX)


def _duplicates(context: Context, found: Features, image: str) -> np.ndarray | None:
    """Return the rows of an image's duplicates; None where duplicates were not searched for."""
    run = newest_duplicates(context.workspace, context.project)
    if run is None:
        return None
    pairs = table(run, "pairs.parquet")
    others = [*pairs["other"][pairs["image_id"] == image], *pairs["image_id"][pairs["other"] == image]]
    return np.array([found.place[one] for one in others if one in found.place][:_DUPLICATES], int)


def _leaks(context: Context, image: str) -> list[str]:
    run = newest_duplicates(context.workspace, context.project)
    if run is None:
        return []
    leaks = table(run, "leaks.parquet")
    mine = leaks[(leaks["image_id"] == image) | (leaks["other"] == image)].head(_LINES)
    words = {
        "support-query": "a duplicate in support and query of {}",
        "train-heldout": "a duplicate in held-out tasks: {}",
    }
    return [words[row["kind"]].format(", ".join(list(row["tasks"])[:3])) for row in mine.to_dict("records")]
