"""The pages Why and What if on a tiny workspace, without a browser."""

from __future__ import annotations

import shutil
from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest

from core.actions import preparation
from core.actions.compute import Compute
from core.actions.edit_results import edit_result
from core.actions.evaluate import evaluation, most_harmful
from core.actions.preparation import open_estimator, prepare
from core.decisions.log import Decision, Item
from core.influence.targets import Target
from core.runtime.progress import Progress
from core.tasks.changes import Changes
from core.ui.edit.results import in_points
from core.ui.whatif.sets_panel import NOT_MEASURED
from core.workspace.workspace import Workspace
from tests.ui.conftest import Open, click, make_edit, run_again, words
from tests.ui.test_reruns import counted  # noqa: F401


@pytest.fixture(scope="module", autouse=True)
def _small_basis() -> object:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(preparation, "SETTINGS", replace(preparation.SETTINGS, rank=5))
        yield


@pytest.fixture(scope="module")
def made_ready(bare: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("ready") / "tiny"
    shutil.copytree(bare, folder)
    workspace = Workspace(folder)
    prepare(workspace, Compute(), Progress())
    evaluation(workspace, Compute(), Progress())
    return folder


@pytest.fixture
def ready(made_ready: Path, home: Path) -> Workspace:
    return Workspace(Path(shutil.copytree(made_ready, home / "tiny")))


def relabel(workspace: Workspace) -> None:
    project = workspace.project()
    rows = project.tasks.train.rows.query("task_id == 't1' and role == 'query'")
    label = project.images.class_names.index(rows["class"].iloc[-1])
    item = Item("instance", *rows.iloc[0][["task_id", "role", "image_id"]])
    workspace.decisions.append([Decision(item, "relabel", label=label, reviewer="me", reason="seen")])


class TestWhy:
    def test_nothing_evaluated_offers_it(self, show: Open, empty: Workspace, started: list[list[str]]) -> None:
        page = show("why")
        assert "has not been evaluated" in words(page)
        click(page, "why_evaluate")
        assert started == [["evaluate", "--workspace", str(empty.folder)]]

    def test_nothing_prepared_shows_what_failed_and_offers_it(
        self, show: Open, full: Workspace, started: list[list[str]]
    ) -> None:
        page = show("why")
        assert "on its query images" in words(page)
        click(page, "why_prepare")
        assert started == [["whatif", "--workspace", str(full.folder), "--prepare"]]

    def test_the_worst_comes_first_and_next_goes_on(self, show: Open, ready: Workspace) -> None:
        page = show("why")
        names = page.selectbox(key="why_target").options
        assert page.button(key="why_Previous").disabled
        click(page, "why_Next")
        run_again(page)
        assert page.selectbox(key="why_target").value in page.query_params["target"]
        assert names[1].startswith(str(page.selectbox(key="why_target").value))
        assert f"why --workspace tiny --target {page.selectbox(key='why_target').value}" in page.code[0].value

    def test_the_effect_of_removing_the_worst_is_estimated_immediately(self, show: Open, ready: Workspace) -> None:
        page = show("why")
        target = Target.parse(page.selectbox(key="why_target").value)
        estimator = open_estimator(ready, Compute())
        count = int(page.number_input(key="why_count_images").value)
        changes = most_harmful(estimator.images(target).table, "images", count)
        found = estimator.changes(changes, target)
        assert found.target is not None
        shown = page.dataframe[0].value.iloc[0].tolist()
        assert shown[1:] == [
            f"{v:.4f}" for v in (found.target.loss, found.target.loss_after, found.target.loss_predicted)
        ]
        assert f"accuracy ≈ *{in_points(found.accuracy_change)}*" in words(page)
        click(page, "why_remove_worst_images")
        assert ready.changes() == changes
        entry = next(iter(ready.decisions.current().values()))
        assert str(target) in entry.reason
        assert entry.cause == "harmful"

    def test_a_query_image_shows_its_probability(self, show: Open, ready: Workspace) -> None:
        page = show("why")
        page.segmented_control(key="why_kind").set_value("A query image")
        run_again(page)
        assert "/" in page.selectbox(key="why_target").value
        assert page.dataframe[0].value.iloc[1, 0] == "Probability of its class"
        page.segmented_control(key="why_by").set_value("tasks")
        run_again(page)
        assert "Most harmful tasks" in words(page)


class TestSets:
    def test_empty_says_what_to_do(self, show: Open, empty: Workspace) -> None:
        page = show("sets")
        assert not page.dataframe
        assert page.button(key="sets_save").disabled

    def test_saves_compares_and_deletes(self, show: Open, ready: Workspace, started: list[list[str]]) -> None:
        relabel(ready)
        page = show("sets")
        assert "Decided: 1 instance relabelled" in words(page)
        page.text_input(key="sets_name").set_value("mine")
        page.text_input(key="sets_note").set_value("why not")
        click(page, "sets_save")
        assert ready.sets.get("mine").changes == ready.changes()
        found = open_estimator(ready, Compute()).changes(ready.changes())
        row = page.dataframe[0].value.iloc[0]
        assert row["changes"] == "1 instance relabelled"
        assert row["net effect, estimated"] == in_points(found.accuracy_change)
        assert row["net effect, retrained"] == NOT_MEASURED
        assert row["note"] == "why not"
        click(page, "sets_retrain")
        click(page, "sets_finetune")
        folder = str(ready.folder)
        assert started[0] == ["edit", "--workspace", folder, "--set", "mine", "--how", "retrain"]
        assert started[1][:6] == ["edit", "--workspace", folder, "--set", "mine", "--how"]
        effect = edit_result(ready, make_edit(ready, "retrain")).effect
        assert effect is not None
        run_again(page)
        assert page.dataframe[0].value.iloc[0]["net effect, retrained"].startswith(in_points(effect.accuracy))
        assert page.button(key="sets_retrain").disabled
        click(page, "sets_delete")
        assert ready.sets.names() == []

    def test_a_used_name_is_refused_in_words(self, show: Open, ready: Workspace) -> None:
        ready.sets.save("mine", Changes(frozenset({"t0"})), who="me")
        relabel(ready)
        page = show("sets")
        page.text_input(key="sets_name").set_value("mine")
        click(page, "sets_save")
        assert "mine" in page.error[0].value
        assert ready.sets.get("mine").changes == Changes(frozenset({"t0"}))

    def test_a_set_of_another_problem_hides_no_other(self, show: Open, ready: Workspace) -> None:
        ready.sets.save("stale", Changes(frozenset({"nowhere"})), who="me")
        ready.sets.save("mine", Changes(frozenset({"t0"})), who="me")
        page = show("sets")
        assert "is not in the task list" in words(page)
        assert page.dataframe[0].value["net effect, estimated"].tolist()[1]


def test_the_edit_page_shows_relabels(show: Open, ready: Workspace) -> None:
    relabel(ready)
    page = show("edit")
    assert page.dataframe[0].value["decision"].str.startswith("→ ").all()
    assert "Live estimate" in words(page)
    assert list(page.dataframe[1].value.columns) == ["class", "images", "before", "after", "change"]


@pytest.mark.parametrize("name", ["why", "sets", "edit"])
def test_nothing_is_computed_again_once_it_is_prepared(
    name: str,
    show: Open,
    ready: Workspace,
    counted: Counter[str],  # noqa: F811
) -> None:
    relabel(ready)
    ready.sets.save("mine", ready.changes(), who="me")
    make_edit(ready, "finetune")
    page = run_again(show(name))
    counted.clear()
    run_again(page)
    assert not counted
