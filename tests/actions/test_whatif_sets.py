"""Named sets side by side, and what fails."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pandas as pd
import pytest

from core.actions import preparation
from core.actions.compute import Compute
from core.actions.edit import edit
from core.actions.evaluate import evaluation, failing_images, failing_tasks, most_harmful
from core.actions.preparation import open_estimator, prepare
from core.actions.whatif_sets import class_table, compare
from core.editing.methods import SOLVE
from core.editing.settings import FINETUNE
from core.runtime.errors import UserError
from core.runtime.progress import Progress
from core.tasks.changes import Changes
from core.workspace.workspace import Workspace
from tests.actions.test_whatif import SETTINGS, bare  # noqa: F401

COMPUTE = Compute("cpu")


@pytest.fixture(scope="module", autouse=True)
def _small_basis() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(preparation, "SETTINGS", SETTINGS)
        yield


@pytest.fixture(scope="module")
def ready(bare: Path, tmp_path_factory: pytest.TempPathFactory) -> Workspace:  # noqa: F811
    folder = tmp_path_factory.mktemp("ready") / "tiny"
    shutil.copytree(bare, folder)
    workspace = Workspace(folder)
    prepare(workspace, COMPUTE, Progress())
    rows = workspace.project().tasks.train.rows
    query = rows[(rows["task_id"] == "t2") & (rows["role"] == "query")]
    change = (*query.iloc[0][["task_id", "role", "image_id"]], query["class"].iloc[-1])
    workspace.sets.save("tasks", Changes(frozenset({"t0"})), who="me")
    workspace.sets.save("labels", Changes(relabelled_instances=frozenset({change})), who="me")
    workspace.sets.save("stale", Changes(frozenset({"nowhere"})), who="me")
    return workspace


def test_sets_have_estimates_and_measurements_of_the_same_changes(ready: Workspace) -> None:
    instant = open_estimator(ready, COMPUTE)
    before = {one.named.name: one for one in compare(ready, instant, COMPUTE)}
    assert list(before) == ["tasks", "labels", "stale"]
    assert before["tasks"].estimate == instant.changes(Changes(frozenset({"t0"})))
    assert not any(one.measurements for one in before.values())
    assert before["stale"].estimate is None
    assert "'nowhere' is not in the task list" in str(before["stale"].fault)
    run = edit(
        ready,
        "retrain",
        ready.sets.get("labels").changes,
        solver=SOLVE,
        finetune=FINETUNE,
        compute=COMPUTE,
        progress=Progress(),
    )
    evaluation(ready, COMPUTE, Progress())
    other, one = compare(ready, instant, COMPUTE, ["tasks", "labels"])
    assert not other.measurements
    assert one.measurements["retrain"].run.id == run.id
    assert one.measurements["retrain"].accuracy.mean == run.json("edit.json")["accuracy"]["mean"]
    assert one.measurements["retrain"].better is not None
    (unprepared,) = compare(ready, None, COMPUTE, ["labels"])
    assert unprepared.estimate is None
    assert set(unprepared.measurements) == {"retrain"}
    with pytest.raises(UserError, match="'none'"):
        compare(ready, instant, COMPUTE, ["none"])


def test_the_class_table_has_a_column_per_set(ready: Workspace) -> None:
    compared = compare(ready, open_estimator(ready, COMPUTE), COMPUTE)
    table = class_table(compared)
    assert list(table.columns) == ["class", "rows", "unedited", "tasks", "labels"]
    assert compared[0].estimate is not None
    assert table["tasks"].tolist() == [one.after for one in compared[0].estimate.classes]
    assert class_table(compare(ready, None, COMPUTE)).empty


def test_failures_are_ordered_worst_first() -> None:
    heldout = pd.DataFrame({"task_id": ["a", "b", "c"], "accuracy": [0.5, 0.2, 0.2], "loss": [1.0, 1.0, 2.0]})
    assert [str(target) for target in failing_tasks(heldout)] == ["c", "b", "a"]
    rows = pd.DataFrame(
        {
            "task_id": ["a", "a", "b"],
            "image_id": ["i", "j", "i"],
            "label": [0, 1, 0],
            "predicted": [1, 1, 2],
            "loss": [1.0, 0.1, 3.0],
        }
    )
    assert [str(target) for target in failing_images(rows)] == ["b/i", "a/i"]


def test_only_items_with_harmful_scores_are_removed() -> None:
    table = pd.DataFrame({"image_id": ["x", "y", "z"], "score": [-2.0, -1.0, 1.0]})
    assert most_harmful(table, "images", 1) == Changes(images=frozenset({"x"}))
    assert most_harmful(table, "images", 3) == Changes(images=frozenset({"x", "y"}))
    with pytest.raises(UserError, match="images"):
        most_harmful(table.tail(1), "images", 3)
