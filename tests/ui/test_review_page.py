"""The Review page without a browser: what it says, what it sends, and what a rerun costs."""

from __future__ import annotations

import json
import sqlite3
import time
from typing import Any

import pytest
from streamlit.testing.v1 import AppTest

from core.decisions.log import Decision, Item
from core.ui.review.detail import COMPUTING, OCCURRENCES, REASONS
from core.ui.review.live import GRID
from core.workspace.workspace import Workspace
from tests.ui.conftest import Open, click, run_again
from tests.ui.queue_fixture import write_queue
from tests.ui.test_reruns import counted

__all__ = ["counted"]
SIZE = 20  # of a page; there are 53 items


def grid(test: AppTest) -> dict[str, Any]:
    """What the grid was last sent."""
    found = [one.proto for one in test.get("bidi_component") if getattr(one.proto, "json", "")]
    return json.loads(found[-1].json)


def report(test: AppTest, name: str, *ops: dict[str, Any], view: dict[str, Any] | None = None) -> dict[str, Any]:
    """What the browser would say, and what the page answers."""
    said = {"name": name, "scope": json.dumps(["tiny", "me"]), "log": list(ops)}
    test.session_state[GRID] = {"report": said | {"view": view or {"name": "", "focus": None}}}
    run_again(test)
    return grid(test)


def keep(token: str, image: str) -> dict[str, Any]:
    items = [["image", "", "", image, "keep", None]]
    return {"token": token, "act": "decide", "verdict": "keep", "run": "", "items": items, "saw": 0}


def test_without_a_queue_it_offers_to_make_one(show: Open, empty: Workspace, started: list[list[str]]) -> None:
    page = show("review")
    click(page, "review_make")
    assert sorted(started[0]) == sorted(["review", "queue", "--workspace", str(empty.folder)])


def test_decisions_are_written_and_acknowledged(show: Open, empty: Workspace) -> None:
    run = write_queue(empty)
    image = run.table("items.parquet")["image_id"].iloc[0]
    page = show("review")
    assert grid(page)["acked"] == []
    answer = report(page, "r1", keep("a-1", image))
    assert (answer["heard"], answer["acked"], answer["error"]) == ("r1", [["a-1", "", False]], None)
    assert answer["state"]["0"][:3] == ["keep", None, "me"]
    assert empty.decisions.current()[Item("image", image_id=image)].reviewer == "me"
    empty.decisions.undo("me")
    assert grid(run_again(page))["state"] == {}  # the report that is still there does nothing a second time


def test_a_log_that_cannot_be_written_is_said(show: Open, empty: Workspace) -> None:
    write_queue(empty)
    page = show("review")
    image = empty.runs.all("queue")[0].table("items.parquet")["image_id"].iloc[0]
    empty.decisions.version()
    with sqlite3.connect(empty.folder / "decisions.sqlite", isolation_level=None) as other:
        other.execute("BEGIN IMMEDIATE")
        answer = report(page, "r1", keep("a-1", image))
        assert answer["acked"] == []
        assert "in use by another program" in answer["error"][0]
        other.execute("ROLLBACK")
    assert report(page, "r2", keep("a-1", image))["acked"] == [["a-1", "", False]]


def test_others_are_seen_and_blind_mode_hides_them(show: Open, empty: Workspace) -> None:
    run = write_queue(empty)
    images = run.table("items.parquet")["image_id"]
    page = show("review")
    other = Workspace(empty.folder).decisions
    other.append([Decision(Item("image", image_id=images[at]), "remove", reviewer="Ana") for at in (0, 2)])
    seen = grid(run_again(page))
    assert seen["state"] == {at: ["remove", None, "Ana", None, 0, "label-error"] for at in ("0", "2")}
    assert seen["notice"] == "Ana decided 2 items in the last 5 minutes"
    assert seen["version"] == other.version()
    page.toggle(key="review_blind").set_value(True)
    hidden = grid(run_again(page))
    assert (hidden["state"], hidden["version"], hidden["notice"]) == ({}, None, "")
    report(page, "r1", {**keep("1", images[0]), "saw": None})
    page.toggle(key="review_blind").set_value(False)
    assert grid(run_again(page))["state"]["0"][3] == [["Ana", "remove (label error)"], ["me", "keep"]]


def test_the_details_of_an_item(show: Open, full: Workspace) -> None:
    run = write_queue(full)
    page = show("review")
    full.decisions.comment(Item("image", image_id=run.table("items.parquet")["image_id"][1]), "Ana", "half a seven")
    answer = report(page, "", view={"name": "", "focus": 1})["detail"]
    assert answer["p"] == 1
    sections = dict(answer["sections"])
    assert "of the queue" in sections[REASONS][0]
    assert "loss" in sections[OCCURRENCES][0]
    assert sections["Comments"][0].endswith("half a seven")
    assert any(title.startswith("Nearest of the given class") for title, _, _ in answer["strips"])


def test_a_new_page_comes_with_the_details_of_the_item_that_it_is_entered_at(
    show: Open, full: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    for module in ("core.review.filters", "core.ui.review.filter_panel"):
        monkeypatch.setattr(f"{module}.PAGE_SIZES", (SIZE, 120))
    write_queue(full)
    page = show("review")
    page.selectbox(key="review_size").set_value(SIZE)
    run_again(page)
    focused = report(page, "", view={"name": "", "focus": 1})
    assert focused["detail"]["p"] == 1
    for name, at, place in (("1", "first", SIZE), ("2", "last", 2 * SIZE - 1)):
        turned = report(page, "", view={"name": name, "page": 1, "at": at, "focus": 1})
        assert turned["turned"] == name
        assert turned["detail"]["p"] == place
    assert report(page, "", view={"name": "2", "page": 1, "at": "last", "focus": None})["detail"] is None


def test_details_follow_the_log_and_keep_their_pictures(show: Open, full: Workspace) -> None:
    run = write_queue(full)
    page, item = show("review"), Item("image", image_id=run.table("items.parquet")["image_id"][1])
    before = report(page, "", view={"name": "", "focus": 1})["detail"]
    assert "Comments" not in dict(before["sections"])
    full.decisions.comment(item, "Ana", "half a seven")
    after = report(page, "", view={"name": "", "focus": 1})["detail"]
    assert dict(after["sections"])["Comments"][0].endswith("half a seven")
    assert (after["sheet"], after["strips"], after["facts"]) == (before["sheet"], before["strips"], before["facts"])


def test_the_address_says_what_is_shown(show: Open, empty: Workspace) -> None:
    write_queue(empty)
    page = show("review")
    page.multiselect(key="review_state").set_value(["undecided"])
    page.selectbox(key="review_order").set_value("loss")
    page.multiselect(key="review_cause").set_value(["duplicate"])
    run_again(page)
    assert page.query_params["state"] in ("undecided", ["undecided"])
    assert page.query_params["cause"] in ("duplicate", ["duplicate"])
    assert page.query_params["order"] in ("loss", ["loss"])
    page.button(key="review_all").click()
    run_again(page)
    assert "state" not in page.query_params


def test_a_rerun_computes_nothing_again(show: Open, full: Workspace, counted: Any) -> None:
    write_queue(full)
    page = show("review")
    answer = report(page, "", view={"name": "", "focus": 1})
    for _ in range(100):  # the explanation is computed in the background
        assert answer["detail"]["computing"] == (COMPUTING in json.dumps(answer["detail"], ensure_ascii=False))
        if not answer["detail"]["computing"]:
            break
        time.sleep(0.05)
        answer = grid(run_again(page))
    assert not answer["detail"]["computing"]
    counted.clear()
    run_again(page)
    assert not counted
