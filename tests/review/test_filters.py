"""Filters of the review queue, the address they fit into, named views, and going to an item."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from core.decisions.log import Entry, Item
from core.review.filters import STATES, Filters, filtered_positions, from_params, points_inside, simplify_lasso
from core.review.review_queue import Queue
from core.review.review_state import ReviewState
from core.review.saved_views import delete_view, save_view, saved_views
from core.runtime.errors import UserError
from core.tasks.tasklist import TaskList
from core.ui.review.live import find_item

N = 12
NAMES = ("a", "b", "c")


def queue(level: str = "image") -> Queue:
    task = [f"t{i % 2}" for i in range(N)]
    table = pd.DataFrame(
        {
            "rank": range(N),
            "level": level,
            "task_id": task if level == "instance" else "",
            "role": ["support" if i % 3 else "query" for i in range(N)] if level == "instance" else "",
            "image_id": [f"image{i}" for i in range(N)],
            "class": [NAMES[i % 3] for i in range(N)],
            "suggested": [NAMES[0] if i < 6 else NAMES[i % 3] for i in range(N)],
            "suspicion": np.linspace(1, 0, N),
            "loss": [np.nan, *range(N - 1)],
        }
    )
    return Queue.of_table(Path("queue-0"), table, NAMES)


def decided(**positions: int) -> ReviewState:
    entries = {
        at: Entry(
            Item("image", image_id=f"image{at}"),
            verdict,
            0 if verdict == "relabel" else None,
            seq=at,
            at="",
            group=at,
            by="",
        )
        for verdict, at in positions.items()
    }
    return ReviewState(entries, {7: ()}, {}, 0, 0, N, Counter([8]))


def tasks() -> TaskList:
    rows = [("t0", "support", f"image{i}") for i in range(4)] + [("t1", "query", "image5")]
    table = pd.DataFrame(rows, columns=["task_id", "role", "image_id"])
    return TaskList(table.assign(label=0, **{"class": "a"}, weight=1.0))


def pick(filters: Filters, level: str = "image", places: pd.DataFrame | None = None, **positions: int) -> list[int]:
    return filtered_positions(queue(level), decided(**positions), filters, tasks(), places).tolist()


def test_defaults_show_everything_in_queue_order() -> None:
    assert pick(Filters()) == list(range(N))


def test_each_filter() -> None:
    assert pick(Filters(given=("a", "b"))) == [0, 1, 3, 4, 6, 7, 9, 10]
    assert pick(Filters(suggested=("c",))) == [8, 11]
    assert pick(Filters(differ=True)) == [1, 2, 4, 5]
    assert pick(Filters(find="IMAGE1")) == [1, 10, 11]
    assert pick(Filters(state=("keep", "unsure")), keep=3, unsure=5, remove=6) == [3, 5]
    assert pick(Filters(state=("undecided",)), keep=3) == [i for i in range(N) if i != 3]
    assert pick(Filters(state=("conflict", "commented"))) == [7, 8]
    causes = {1: "duplicate", 2: "harmful", 4: "label-error"}
    entries = {at: decided(remove=at).entries[at] for at in causes}
    entries = {at: replace(entry, cause=causes[at]) for at, entry in entries.items()}
    state = replace(decided(), entries=entries)
    picked = filtered_positions(queue(), state, Filters(cause=("duplicate", "harmful")), tasks()).tolist()
    assert picked == [1, 2], "the cause that is stored with the decision, whatever its verdict"
    assert pick(Filters(task="t0", role="support")) == [0, 1, 2, 3]
    assert pick(Filters(task="t1"), "instance") == [1, 3, 5, 7, 9, 11]
    assert pick(Filters(role="query"), "instance") == [0, 3, 6, 9]
    pairs = pd.DataFrame({"image_id": ["image2"], "other": ["image7"]})
    assert filtered_positions(queue(), decided(), Filters(copies=True), tasks(), None, pairs).tolist() == [2, 7]
    assert pick(Filters(low=50)) == [0, 1, 2, 3, 4, 5]
    assert pick(Filters(score="loss", low=0, high=20)) == [0, 1, 2]


def test_a_suggestion_counts_if_it_is_likelier_than_the_given_class() -> None:
    plain = queue()
    known = plain.table.assign(probability=[0.9] * 2 + [0.3] * 2 + [np.nan] * 8, suggested_probability=0.5)
    assert np.flatnonzero(plain.has_likelier_class).tolist() == [1, 2, 4, 5]
    assert np.flatnonzero(replace(plain, table=known).has_likelier_class).tolist() == [1, 4, 5]


def test_items_without_a_score_come_last() -> None:
    assert pick(Filters(order="loss")) == [*range(N - 1, 0, -1), 0]
    assert pick(Filters(order="loss", ascending=True)) == [*range(1, N), 0]
    assert pick(Filters(ascending=True)) == list(range(N))[::-1]


def test_the_lasso() -> None:
    places = pd.DataFrame({"image_id": [f"image{i}" for i in range(N)], "x": range(N), "y": 0.0})
    assert pick(Filters(lasso=((2.5, -1), (6.5, -1), (6.5, 1), (2.5, 1))), places=places) == [3, 4, 5, 6]
    star = np.array([(0.0, 0.0), (3.0, 0.0), (0.0, 2.0)])
    assert points_inside(star, [(-1, -1), (1, -1), (1, 1), (-1, 1)]).tolist() == [True, False, False]
    assert len(simplify_lasso([(i / 3, 1.0) for i in range(5000)])) <= 80


@pytest.mark.parametrize(
    "filters",
    [
        Filters(),
        Filters(
            given=("a;b", "ü"),
            state=("undecided", "conflict"),
            cause=("harmful",),
            differ=True,
            size=60,
            ascending=True,
            low=10,
        ),
        Filters(lasso=((0.5, 1.25), (2.0, 1e-5), (3.0, 4.0)), order="loss", task="t0", role="query", find="x y"),
    ],
)
def test_filters_survive_a_round_trip_through_an_address(filters: Filters) -> None:
    assert from_params(filters.to_params()) == filters


def test_invalid_parameters_of_an_address_are_ignored() -> None:
    wrong = {
        "state": ["keep", "rm -rf"],
        "cause": ["king"],
        "size": ["7"],
        "low": ["x"],
        "high": ["900"],
        "lasso": ["1,2;nan,3;4,5"],
    }
    assert from_params({**wrong, "role": ["king"], "evil": ["1"]}) == Filters(state=("keep",))
    assert from_params({"lasso": ["1"]}) == Filters()


def test_views_are_stored_and_damaged_ones_skipped(tmp_path: Path) -> None:
    one = Filters(given=("a",), size=60)
    save_view(tmp_path, "Mine: a/../b", one)
    save_view(tmp_path, "other", Filters())
    save_view(tmp_path, "other", replace(one, state=STATES))
    (tmp_path / "views" / "broken.json").write_text("{")
    (tmp_path / "views" / "newer.json").write_text('{"format": 99}')
    assert saved_views(tmp_path) == {"Mine: a/../b": one, "other": replace(one, state=STATES)}
    assert {path.parent for path in tmp_path.rglob("*.json")} == {tmp_path / "views"}
    delete_view(tmp_path, "other")
    assert list(saved_views(tmp_path)) == ["Mine: a/../b"]
    with pytest.raises(UserError):
        save_view(tmp_path, "  ", one)


def test_going_to_an_item() -> None:
    shown = np.array([4, 2, 9])
    assert find_item(queue(), shown, "2") == (1, "Position 2")
    assert find_item(queue(), shown, " image9 ") == (2, "Image image9")
    assert find_item(queue(), shown, "7")[0] is None
    place, message = find_item(queue(), shown, "image5")
    assert place is None
    assert "rank 6" in message
    assert find_item(queue(), shown, "nobody")[0] is None
