"""The pages Overview, Tasks and Images on a tiny workspace, without a browser."""

from __future__ import annotations

import time

import pytest

from core.actions.decide import mark
from core.actions.evaluate import evaluation
from core.decisions.log import Decision, Item
from core.runtime.progress import Progress
from core.ui.shell.text import SEPARATOR, plain
from core.ui.trust.panel import NOT_STATIONARY
from core.workspace.workspace import Workspace
from tests.actions.recommended import PROPOSED, stored_recommendation
from tests.ui.conftest import COMPUTE, Open, click, run_again, words


class TestOverview:
    @pytest.mark.slow  # the walk in the browser begins with it
    def test_evaluates_by_itself_when_nothing_is_known(self, show: Open, empty: Workspace) -> None:
        show("overview")
        (job,) = empty.jobs.all()
        assert job.args == ("evaluate", "--workspace", str(empty.folder))
        while job.status() == "running":
            time.sleep(0.1)
        assert job.status() == "done"
        assert empty.runs.all("evaluate")

    def test_offers_a_ranking_once_evaluated(self, show: Open, empty: Workspace, started: list[list[str]]) -> None:
        evaluation(empty, COMPUTE, Progress())
        page = show("overview")
        labels = [metric.label for metric in page.metric]
        assert labels == [
            "Accuracy on held-out tasks",
            "Loss on held-out tasks",
            "Distance from stationarity",
            "Training tasks",
        ]
        click(page, "rank_start")
        assert started == [["rank", "--workspace", str(empty.folder), "--target", "all"]]

    def test_a_failing_query_image_can_be_the_target(
        self, show: Open, empty: Workspace, started: list[list[str]]
    ) -> None:
        rows = evaluation(empty, COMPUTE, Progress()).table("rows.parquet")
        wrong = rows[rows["predicted"] != rows["label"]].sort_values("loss", ascending=False).iloc[0]
        page = show("overview")
        page.segmented_control(key="rank_target").set_value("One query image")
        run_again(page)
        click(page, "rank_start")
        assert started[-1][-1] == f"{wrong['task_id']}/{wrong['image_id']}"

    def test_says_how_far_from_stationary(self, show: Open, full: Workspace) -> None:
        summary = full.runs.all("evaluate")[0].json("summary.json")
        page = show("overview")
        assert f"{summary['stationarity']['ratio']:.1e}" in [metric.value for metric in page.metric]
        assert NOT_STATIONARY in words(page)


class TestTasks:
    def test_without_a_ranking_offers_one(self, show: Open, empty: Workspace, started: list[list[str]]) -> None:
        page = show("tasks")
        assert "not ranked yet" in words(page)
        click(page, "rank_start")
        assert started[-1][0] == "rank"

    def test_opens_the_most_harmful_task_and_removes_it(self, show: Open, full: Workspace) -> None:
        scores = full.runs.all("rank")[0].table("tasks.parquet").sort_values("score")
        worst = scores["task_id"].iloc[0]
        full.decisions.append([Decision(Item("task", task_id=worst), "clear", reviewer="me")])
        page = show("tasks")
        assert [one.value for one in page.subheader] == [f"Task {plain(worst)}"]
        assert len(page.dataframe[-1].value) == len(scores)
        click(page, "tasks_remove")
        assert worst in full.changes().tasks

    def test_begins_with_what_is_recommended(self, show: Open, full: Workspace) -> None:
        recommended = stored_recommendation(full)
        ids = full.project().tasks.train.task_ids
        full.decisions.append([Decision(Item("task", task_id=i), "clear", reviewer="me") for i in ids])
        page = show("tasks")
        assert [one.value for one in page.subheader] == [f"Task {plain(ids[0])}"]
        assert page.dataframe[-1].value["task_id"].tolist() == ids
        click(page, "tasks_proposed")
        assert full.changes().tasks == set(ids[: PROPOSED["tasks"]])
        entry = full.decisions.current()[Item("task", task_id=ids[0])]
        assert (entry.source, entry.cause) == (recommended.id, "label-error")
        assert page.button(key="tasks_proposed").disabled

    def test_shows_removed_tasks_alone(self, show: Open, full: Workspace) -> None:
        ids = full.project().tasks.train.task_ids
        full.decisions.append([Decision(Item("task", task_id=ids[1]), "remove", reviewer="me")])
        page = show("tasks")
        for state, expected in (("Removed", full.changes().tasks), ("Not removed", set(ids) - full.changes().tasks)):
            page.segmented_control(key="tasks_show").set_value(state)
            run_again(page)
            assert set(page.dataframe[-1].value["task_id"]) == expected

    def test_next_opens_the_next_task_of_the_order(self, show: Open, full: Workspace) -> None:
        scores = full.runs.all("rank")[0].table("tasks.parquet").sort_values("score")
        page = click(show("tasks"), "tasks_Next")
        assert [one.value for one in page.subheader] == [f"Task {plain(scores['task_id'].iloc[1])}"]

    def test_rows_of_one_task_are_removed_alone(self, show: Open, full: Workspace) -> None:
        page = show("tasks")
        rows = full.runs.all("rank")[0].table("instances.parquet")
        worst = full.runs.all("rank")[0].table("tasks.parquet").sort_values("score")["task_id"].iloc[0]
        image = rows[(rows["task_id"] == worst) & (rows["role"] == "query")]["image_id"].iloc[0]
        page.session_state["tasks_grid_query"] = {"grid": {"selected": [image]}}
        run_again(page)
        click(page, "tasks_query_remove")
        assert full.changes().instances == {(worst, "query", image)}

    def test_a_filter_that_leaves_nothing_says_so(self, show: Open, full: Workspace) -> None:
        page = show("tasks")
        page.multiselect(key="tasks_classes").set_value(list("0123"))
        assert "match these filters" in words(run_again(page))


class TestImages:
    def test_begins_with_what_is_recommended(self, show: Open, full: Workspace, started: list[list[str]]) -> None:
        click(show("images"), "images_recommend")
        assert started[-1][0] == "recommend"
        recommended = stored_recommendation(full)
        page = show("images")
        click(page, "images_proposed")
        suspicious = recommended.table("images.parquet")["image_id"].tolist()[: PROPOSED["images"]]
        assert full.changes().images == set(suspicious)
        page.selectbox(key="images_show").set_value("More likely wrong")
        run_again(page)
        assert f"{len(suspicious)} images" in words(page)

    def test_selected_images_are_removed_and_undone(self, show: Open, full: Workspace) -> None:
        page = show("images")
        ids = full.runs.all("rank")[0].table("images.parquet").sort_values("score")["image_id"].tolist()[:2]
        page.session_state["images_grid"] = {"grid": {"selected": ids}}
        run_again(page)
        click(page, "images_remove")
        assert full.changes().images == set(ids)
        click(page, "review_Undo")
        assert full.changes().images == frozenset()
        click(page, "review_Redo")
        assert full.changes().images == set(ids)
        assert {full.decisions.current()[Item("image", image_id=i)].cause for i in ids} == {"harmful"}

    def test_the_cause_is_chosen_and_does_not_replace_a_label_error(self, show: Open, full: Workspace) -> None:
        ids = full.runs.all("rank")[0].table("images.parquet").sort_values("score")["image_id"].tolist()[:2]
        mark(full, images=ids[:1], reviewer="me")
        page = show("images")
        page.selectbox(key="review_cause_harmful").set_value("duplicate")
        page.session_state["images_grid"] = {"grid": {"selected": ids}}
        run_again(page)
        click(page, "images_remove")
        assert full.changes().images == set(ids)
        causes = [full.decisions.current()[Item("image", image_id=i)].cause for i in ids]
        assert causes == ["label-error", "duplicate"]
        page.selectbox(key="images_order").set_value("Highest loss")
        run_again(page)
        assert page.selectbox(key="review_cause_label-error").value == "label-error"

    @pytest.mark.parametrize("show_only", ["Predicted as another class", "Not removed", "Harmful only"])
    def test_filters_show_what_they_say(self, show: Open, full: Workspace, show_only: str) -> None:
        images = full.runs.all("rank")[0].table("images.parquet")
        wanted = {
            "Predicted as another class": images["class"] != images["predicted_class"],
            "Not removed": images["score"].notna(),
            "Harmful only": images["score"] < 0,
        }[show_only]
        page = show("images")
        page.selectbox(key="images_show").set_value(show_only)
        assert f"{int(wanted.sum()):,} images." in words(run_again(page))

    def test_an_opened_image_shows_every_task_it_occurs_in(self, show: Open, full: Workspace) -> None:
        images = full.runs.all("rank")[0].table("images.parquet")
        image = images.sort_values("occurrences", ascending=False)["image_id"].iloc[0]
        rows = full.runs.all("rank")[0].table("instances.parquet")
        page = show("images")
        page.session_state["images_open"] = image
        run_again(page)
        assert len(page.dataframe[-1].value) == int((rows["image_id"] == image).sum())


def test_markup_in_texts_is_shown_as_text() -> None:
    shown = plain("![x](http://evil.example/a.png)\n# <b>")
    assert shown.replace(SEPARATOR, "") == r"\!\[x\]\(http\://evil\.example/a\.png\) \# \<b\>"
