"""Read the details of one item when the focus rests on it, so that key presses never wait for them."""

from __future__ import annotations

import threading
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
import streamlit as st
from cachetools import LRUCache, cached

from core.actions.duplicates import newest_duplicates
from core.review.review_queue import SCORES, Queue
from core.review.review_state import ReviewState
from core.runtime.errors import UserError
from core.ui.grid.atlas import Atlas, jpeg_atlas
from core.ui.grid.pictures import pixels
from core.ui.review.effect import effect_lines
from core.ui.review.explanation import explanation_lines
from core.ui.review.tiles import opinion
from core.ui.shell.context import Context, table
from core.ui.shell.text import minute_of
from core.workspace.runs import Run
from core.workspace.workspace import newest_ranking

LARGE_PX, SMALL_PX = 320, 64
_NEIGHBOURS, _DUPLICATES, _TASKS, _LINES = 6, 6, 6, 8
_DUPLICATE_DISTANCE = 0.02
"""Cosine distance of features below which two images are near-duplicates."""
_CACHED_DETAILS = 64
COMPUTING = "computing …"
QUEUE_HASH: Any = {Queue: lambda queue: str(queue.folder)}
REASONS, OCCURRENCES = "Why it is suspicious", "Occurrences"

Strip = tuple[str, list[int], list[str]]
"""Title, cells of the atlas, and captions."""


@dataclass(frozen=True)
class Detail:
    """A message with the details of one item, and its images: a large one, and a small one per cell of the strips."""

    data: dict[str, Any]
    atlases: tuple[Atlas, ...]


def detail(context: Context, queue: Queue, state: ReviewState, position: int) -> Detail:
    """Return all details of the item at a position; those from the log are cached until the log changes."""
    known = _detail(context, queue, state, position)
    computed = [
        (title, [COMPUTING] if lines is None else lines)
        for title, lines in (
            ("Estimated effect of a decision", effect_lines(context, queue, position)),
            ("Explanation", explanation_lines(context, queue, position)),
        )
        if lines is None or lines
    ]
    return Detail(known.data | {"sections": [*computed, *known.data["sections"]]}, known.atlases)


def _detail_key(context: Context, queue: Queue, state: ReviewState, position: int) -> tuple[object, ...]:
    seen_by = context.reviewer if state.version is None else ""
    return str(queue.folder), position, state.change_counter, seen_by


@cached(LRUCache(_CACHED_DETAILS), key=_detail_key, lock=threading.Lock())
def _detail(context: Context, queue: Queue, state: ReviewState, position: int) -> Detail:
    row, item = queue.table.iloc[position], queue.items[position]
    large = jpeg_atlas(pixels(context, [item.image_id]), tile_px=LARGE_PX)
    strips, pictures = _strips(context, queue, position)
    sections = [
        (REASONS, _reasons(queue, position)),
        ("Leak: results may reflect memorisation", _leaks(context, item.image_id)),
        (OCCURRENCES, _occurrences(context, item.image_id)),
        ("Comments", _comments(context, queue, state, position)),
        ("Decisions", _history(context, queue, state, position)),
    ]
    facts = [("Image", item.image_id), ("Rank", f"{position + 1:,} of {len(queue):,}")]
    if item.kind == "instance":
        facts.append(("Role", f"{item.role} of task {item.task_id}"))
    if pd.notna(row.get("probability")):
        facts.append(("Label error", f"{100 * row['probability']:.0f} % (estimate)"))
    if pd.notna(row.get("second")) and row["second"]:
        facts.append(("Runner-up class", str(row["second"])))
    data = {
        "p": position,
        "sheet": large.name,
        "strip": pictures.name if pictures else "",
        "facts": facts,
        "sections": [one for one in sections if one[1]],
        "strips": strips,
    }
    return Detail(data, (large, *((pictures,) if pictures else ())))


def _reasons(queue: Queue, position: int) -> list[str]:
    """Return the member scores in words, the most informative first."""
    lines = []
    for name in queue.scores:
        if name not in ("suspicion", "probability"):
            rank = float(queue.percentiles[name][position])
            lines.append((rank, f"{SCORES[name]}: higher than for {rank:.0f} % of the queue"))
    return [text for _, text in sorted(lines, reverse=True)[:_LINES]]


def _occurrences(context: Context, image_id: str) -> list[str]:
    """Return the tasks of an image; with a ranking, those where its score is worst come first."""
    if ranked := newest_ranking(context.workspace, context.project):
        instances = _by_image(ranked).get(image_id)
        if instances is not None:
            rows = instances.sort_values("loss", ascending=False, kind="stable")
            lines = [
                f"{row['role']} of {row['task_id']}: predicted as {row['predicted_class']}, loss {row['loss']:.2f}"
                for row in rows.head(_TASKS).to_dict("records")
            ]
            return lines + _more(len(rows))
    places = _places(context.project.hashes["tasks"], context).get(image_id, [])
    return [f"{role} of {task}" for task, role in places[:_TASKS]] + _more(len(places))


def _more(tasks: int) -> list[str]:
    return [f"and {tasks - _TASKS} more"] if tasks > _TASKS else []


@st.cache_resource(max_entries=2, show_spinner=False)
def _by_image(run: Run) -> dict[str, pd.DataFrame]:
    columns = ["image_id", "task_id", "role", "predicted_class", "loss"]
    by_image = table(run, "instances.parquet")[columns].groupby("image_id")
    return {str(image): rows for image, rows in by_image}


@st.cache_resource(max_entries=2, show_spinner=False)
def _places(tasks: str, _context: Context) -> dict[str, list[tuple[str, str]]]:
    found: dict[str, list[tuple[str, str]]] = {}
    rows = _context.project.tasks.train.rows
    for image, task, role in zip(rows["image_id"], rows["task_id"], rows["role"], strict=True):
        found.setdefault(image, []).append((task, role))
    return found


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
        lines.append(f"{entry.by}, {minute_of(entry.at)}: {opinion(entry, queue.names)}{reason}{undo}")
    return lines


@dataclass(frozen=True, eq=False)
class Features:
    """A matrix of unit features ``(m, d)`` of the images ``ids``, with the row of each image."""

    values: np.ndarray
    ids: np.ndarray
    place: dict[str, int]


def features(queue: Queue) -> Features | None:
    """Return the features that the queue run stored, or None."""
    folder = queue.folder
    if not (folder / "features.npy").exists() or not (folder / "map.parquet").exists():
        return None
    return _features(Run(folder))


@st.cache_resource(max_entries=2, show_spinner=False)
def _features(run: Run) -> Features:
    path = run.folder / "features.npy"
    try:
        values = np.load(path, allow_pickle=False).astype(np.float32)
    except (OSError, ValueError, EOFError) as error:
        raise UserError(f"{path} cannot be read: {error}.", "Delete the run and build the queue again.") from error
    ids = table(run, "map.parquet")["image_id"].to_numpy(dtype=object)
    length = np.linalg.norm(values, axis=1, keepdims=True)
    return Features(values / np.maximum(length, 1e-12), ids, {name: at for at, name in enumerate(ids)})


def _strips(context: Context, queue: Queue, position: int) -> tuple[list[Strip], Atlas | None]:
    """Return strips of neighbours in the given and the suggested class, and of near-duplicates, with their images."""
    found = features(queue)
    image = queue.items[position].image_id
    if found is None or image not in found.place:
        return [], None
    row = found.place[image]
    distance = 1.0 - found.values @ found.values[row]
    order = np.argsort(distance, kind="stable")
    order = order[order != row]
    classes = _classes(queue, found)
    duplicates, found_by_search = _duplicates(context, found, image)
    selected: list[tuple[str, np.ndarray]] = []
    for title, label in (("given", queue.given[position]), ("suggested", queue.suggested[position])):
        if label >= 0 and not (title == "suggested" and label == queue.given[position]):
            same = order[classes[order] == label][:_NEIGHBOURS]
            selected.append((f"Nearest of the {title} class, {queue.names[label]}", same))
    if not found_by_search:
        duplicates = order[:_DUPLICATES][distance[order[:_DUPLICATES]] < _DUPLICATE_DISTANCE]
    selected.append(("Near-duplicates", duplicates))
    selected = [(title, places) for title, places in selected if len(places)]
    if not selected:
        return [], None
    places = np.concatenate([each for _, each in selected])
    pictures = jpeg_atlas(pixels(context, list(found.ids[places])), tile_px=SMALL_PX)
    strips: list[Strip] = []
    at = 0
    for title, each in selected:
        names = [queue.names[classes[one]] if classes[one] >= 0 else str(found.ids[one]) for one in each]
        strips.append((title, list(range(at, at + len(each))), names))
        at += len(each)
    return strips, pictures


def _duplicates(context: Context, found: Features, image: str) -> tuple[np.ndarray, bool]:
    """Return the rows of an image's duplicates, and whether duplicates were searched for."""
    run = newest_duplicates(context.workspace, context.project)
    if run is None:
        return np.zeros(0, int), False
    pairs = table(run, "pairs.parquet")
    others = [*pairs["other"][pairs["image_id"] == image], *pairs["image_id"][pairs["other"] == image]]
    return np.array([found.place[one] for one in others if one in found.place][:_DUPLICATES], int), True


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


@st.cache_resource(max_entries=2, show_spinner=False, hash_funcs=QUEUE_HASH)
def _classes(queue: Queue, _found: Features) -> np.ndarray:
    """Return the given class of each image with features, ``(m,)``; -1 for images that are not in the queue."""
    classes = np.full(len(_found.ids), -1, dtype=np.int32)
    for name, positions in queue.positions_of_image.items():
        if name in _found.place:
            classes[_found.place[name]] = queue.given[positions[0]]
    return classes
