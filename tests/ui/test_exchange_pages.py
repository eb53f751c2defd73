"""Import and export of decisions on the Export page, and duplicates on the Images page, without a browser."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from core.actions import duplicates as copies
from core.actions.duplicates import duplicates
from core.decisions.log import Decision, Item
from core.review.duplicate_tables import LEAK_COLUMNS
from core.runtime.errors import UserError
from core.runtime.progress import Progress
from core.ui.export import decisions_panel
from core.ui.review.duplicates_panel import NO_DUPLICATES, NO_LEAKS
from core.workspace.workspace import Workspace
from tests.ui.conftest import Open, click, run_again, settle, words


@pytest.fixture
def searched(empty: Workspace) -> Workspace:
    """A finished search that found an identical pair of one class, one of two classes, and a leak of each kind."""
    rows = empty.project().tasks.train.rows
    first = rows[rows["task_id"] == "t0"]
    a, b = first[first["label"] == 0]["image_id"].iloc[:2]
    c, d = (first[first["label"] == label]["image_id"].iloc[0] for label in (1, 2))
    held = empty.project().tasks.heldout.rows.iloc[0]

    def work(run: Any) -> None:
        of = first.drop_duplicates("image_id").set_index("image_id")["class"]
        ends = [(a, b, 0.0, True), (c, d, 0.2, False)]
        pairs = pd.DataFrame(ends, columns=["image_id", "other", "distance", "exact"])
        pairs = pairs.assign(ratio=np.nan, training=True, other_training=True, group=[0, 1])
        pairs["class"], pairs["other_class"] = pairs["image_id"].map(of), pairs["other"].map(of)
        pairs["contradiction"] = pairs["class"] != pairs["other_class"]
        leaks = pd.DataFrame(
            [
                ("support-query", "training", a, of[a], b, of[b], 0.0, True, False, ["t0"], ["t0"]),
                ("train-heldout", "", c, of[c], held["image_id"], held["class"], 0.1, False, True, ["t0"], ["h0"]),
            ],
            columns=LEAK_COLUMNS,
        )
        run.write_table("pairs.parquet", pairs)
        run.write_table("leaks.parquet", leaks)
        counts = {"images": 9, "pairs": 2, "exact": 1, "near": 1, "contradictions": 1, "groups": 2}
        kinds = {"support-query": 1, "support-query, held out": 0, "train-heldout": 1}
        histogram = {"edges": [0.0, 0.5, 1.0], "counts": [1, 8]}
        more = {"leaks": kinds, "leaks_with_different_classes": 1, "threshold": 0.3, "power": 5.0}
        run.write_json("summary.json", {**counts, **more, "histogram": histogram})

    empty.runs.get_or_compute(copies.KIND, copies.cache_key(empty.project()), work)
    return empty


def duplicates_page(show: Open) -> Any:
    page = show("images")
    page.segmented_control(key="images_view").set_value("Duplicates and leaks")
    return run_again(page)


class TestDuplicates:
    def test_without_a_search_one_is_offered(self, show: Open, empty: Workspace, started: list[list[str]]) -> None:
        page = duplicates_page(show)
        click(page, "duplicates_start")
        assert started == [["review", "duplicates", "--workspace", str(empty.folder)]]
        assert page.code[0].value == "tasklens review duplicates --workspace tiny"

    def test_one_of_each_pair_is_removed_unless_the_classes_differ(self, show: Open, searched: Workspace) -> None:
        page = duplicates_page(show)
        assert [metric.value for metric in page.metric] == ["1", "1", "1", "1", "1"]
        assert page.button(key="duplicates_remove_each").label == "Remove one of each pair shown (1)"
        click(page, "duplicates_remove_each")
        pairs = searched.runs.all("duplicates")[0].table("pairs.parquet")
        assert searched.changes().images == {pairs["other"][0]}
        (entry,) = searched.decisions.current().values()
        assert (entry.source, entry.reviewer) == (searched.runs.all("duplicates")[0].id, "me")
        assert entry.cause == "duplicate"
        assert page.button(key="duplicates_remove_each").disabled
        page.segmented_control(key="duplicates_show").set_value("Undecided")
        run_again(page)
        assert "1 pair;" in words(page)

    def test_leaks_are_closed_on_the_training_side(self, show: Open, searched: Workspace) -> None:
        page = duplicates_page(show)
        click(page, "duplicates_query")
        pairs = searched.runs.all("duplicates")[0].table("pairs.parquet")
        assert searched.changes().instances == {("t0", "query", pairs["other"][0])}
        click(page, "duplicates_across")
        assert searched.changes().images == {pairs["image_id"][1]}
        assert page.button(key="duplicates_across").disabled

    def test_a_search_that_found_nothing(self, show: Open, empty: Workspace) -> None:
        duplicates(empty, Progress())
        page = duplicates_page(show)
        assert NO_DUPLICATES in words(page)
        assert NO_LEAKS in words(page)


class TestDecisions:
    @pytest.fixture
    def page(self, show: Open, empty: Workspace) -> Any:
        return show("export")

    def upload(self, page: Any, name: str, content: str) -> Any:
        page.file_uploader(key="decisions_file").upload(name, content.encode(), "text/csv")
        return settle(run_again(page))

    def test_a_file_is_shown_before_it_is_imported(self, page: Any, empty: Workspace) -> None:
        image = str(empty.project().tasks.train.rows["image_id"].iloc[0])
        empty.decisions.append([Decision(Item("image", image_id=image), "keep", reviewer="![](http://evil.example)")])
        self.upload(page, "mine.csv", f"image_id,verdict,reviewer\n{image},remove,ann\n")
        assert "1 decision contradicting" in words(page)
        assert len(empty.decisions.history()) == 1
        settle(click(page, "decisions_import"))
        assert "Imported 1 decision from mine.csv" in words(page)
        assert "Imported 1 decision from mine.csv" in words(run_again(page)), "until another file is chosen"
        assert len(empty.decisions.conflicts()) == 1

    def test_a_bad_row_is_said_and_the_rest_of_the_page_stays(self, page: Any) -> None:
        self.upload(page, "mine.csv", "image_id,verdict\ngone,keep\n")
        assert "mine.csv, row 1: image_id 'gone'" in words(page)
        assert page.button(key="decisions_write")

    def test_rows_of_cleanlab_are_matched_by_position_only_if_asked(self, page: Any, empty: Workspace) -> None:
        project = empty.project()
        images, used = project.images, project.tasks.train.rows["image_id"].iloc[0]
        given = [images.class_names[label] for label in images.labels]
        issues = pd.DataFrame({"is_label_issue": images.ids == used, "given_label": given})
        self.upload(page, "issues.csv", issues.to_csv())
        assert "issues.csv does not name its images" in words(page)
        page.checkbox(key="decisions_by_position").check()
        settle(run_again(page))
        assert "cannot prove the order within a class" in words(page)
        settle(click(page, "decisions_import"))
        assert {entry.item.image_id for entry in empty.decisions.current().values()} == {used}
        self.upload(page, "issues.csv", issues.iloc[::-1].to_csv(index=False))
        assert "issues.csv, row 1: given_label" in words(page)

    def test_decisions_and_report_are_written(self, page: Any, empty: Workspace) -> None:
        image = str(empty.project().tasks.train.rows["image_id"].iloc[0])
        empty.decisions.append([Decision(Item("image", image_id=image), "remove", reviewer="ann")])
        click(page, "decisions_write")
        click(page, "decisions_report")
        exports = empty.folder / "exports"
        assert (exports / "decisions" / "decisions.parquet").exists()
        assert "Label review of tiny" in (exports / "review.html").read_text(encoding="utf-8")
        empty.decisions.undo("ann")
        run_again(page)
        assert "since this report was written" in words(page)

    def test_a_full_disk_is_said(self, page: Any, monkeypatch: pytest.MonkeyPatch) -> None:
        def full(*args: Any, **named: Any) -> Path:
            raise UserError("The disk is full.", "Free some space and try again.")

        monkeypatch.setattr(decisions_panel, "export_decisions", full)
        click(page, "decisions_write")
        assert "The disk is full." in words(page)
