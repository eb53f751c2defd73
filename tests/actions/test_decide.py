"""Decisions on tasks, images and instances by their ids, and those that a queue suggests."""

from __future__ import annotations

import pandas as pd
import pytest

from core.actions.decide import cause_of_order, mark, suggestions_of_task, without_found_errors
from core.checkpoints.model import Model, ModelSpec, save_model
from core.decisions.log import Item
from core.review.suggestions import first_items
from core.runtime.errors import UserError
from core.tasks.generate import TaskSettings, generate, write_folder
from core.workspace.runs import Run
from core.workspace.workspace import Workspace, create
from tests.ui.queue_fixture import queue_rows


@pytest.fixture(scope="module")
def workspace(tmp_path_factory: pytest.TempPathFactory) -> Workspace:
    folder = tmp_path_factory.mktemp("problem")
    write_folder(generate(TaskSettings(ways=3, shots=1, queries=2, count=3, heldout=2)), folder / "tasks")
    spec = ModelSpec(ways=3, filters=2)
    save_model(Model(spec, spec.init(0), {"command": "by hand"}), folder / "model")
    return create(folder / "mine", folder / "tasks", folder / "model")


@pytest.fixture
def decided(workspace: Workspace) -> Workspace:
    """The workspace with an empty log."""
    for path in workspace.folder.glob("decisions.sqlite*"):
        path.unlink()
    return Workspace(workspace.folder)


@pytest.mark.parametrize(
    ("kind", "key", "cause"),
    [
        ("recommend", {}, "label-error"),
        ("rank", {"method": "self-influence"}, "label-error"),
        ("rank", {"method": "task-if"}, "harmful"),
    ],
)
def test_suspicion_and_harm_are_two_causes(workspace: Workspace, kind: str, key: dict, cause: str) -> None:
    order = workspace.runs.get_or_compute(kind, key | {"of": "test"}, lambda _: None)
    assert cause_of_order(order) == cause


def a_queue(workspace: Workspace, rows: list[dict]) -> Run:
    table = queue_rows(pd.DataFrame(rows))[::-1]
    key = {"rows": rows}
    return workspace.runs.get_or_compute("queue", key, lambda work: work.write_table("items.parquet", table))


def test_marking_by_ids_is_one_group(decided: Workspace) -> None:
    rows = decided.project().tasks.train.rows
    first, last = rows.iloc[0], rows.iloc[-1]
    result = mark(
        decided,
        [Item("image", image_id=last["image_id"])],
        tasks=[first["task_id"]],
        images=[first["image_id"]],
        instances=[(last["task_id"], last["role"], last["image_id"])],
        verdict="unsure",
        reviewer="Ann",
        saw=7,
        token="a",
    )
    entries = decided.decisions.current().values()
    assert {entry.item.kind for entry in entries} == {"task", "image", "instance"}
    assert {(entry.group, entry.reviewer, entry.saw) for entry in entries} == {(result.group, "Ann", 0)}
    again = mark(decided, tasks=[first["task_id"]], verdict="unsure", reviewer="Ann", token="a")
    assert (again, decided.decisions.version()) == (result, result.group)


def test_relabelling_is_by_the_name_of_the_class(decided: Workspace) -> None:
    project = decided.project()
    row, names = project.tasks.train.rows.iloc[0], project.images.class_names
    instance = row["task_id"], row["role"], row["image_id"]
    mark(decided, instances=[instance], verdict="relabel", label=names[5], reviewer="Ann")
    (entry,) = decided.decisions.current().values()
    assert (entry.verdict, entry.label) == ("relabel", 5)
    with pytest.raises(UserError, match="'eleven'"):
        mark(decided, images=[row["image_id"]], verdict="relabel", label="eleven")
    with pytest.raises(UserError, match="relabel"):
        mark(decided, images=[row["image_id"]], verdict="relabel")
    with pytest.raises(UserError, match="task"):
        mark(decided, tasks=[row["task_id"]], verdict="relabel", label=names[5])


def test_a_list_does_not_replace_label_errors_by_another_cause(decided: Workspace) -> None:
    project = decided.project()
    images = [Item("image", image_id=i) for i in project.tasks.train.rows["image_id"].unique()[:5]]
    mark(decided, images[:1], reviewer="Ann")
    mark(decided, images[1:2], verdict="keep", reviewer="Ann")
    mark(decided, images[2:3], cause="duplicate", reviewer="Ann")
    mark(decided, images[4:], verdict="relabel", label=project.images.class_names[0], reviewer="Ann")
    assert without_found_errors(decided, images, "harmful") == images[1:4]
    assert without_found_errors(decided, images, "label-error") == images


def test_unknown_items_are_refused(decided: Workspace) -> None:
    rows = decided.project().tasks.train.rows
    row = rows.iloc[0]
    other = "query" if row["role"] == "support" else "support"
    for wrong in (
        {"tasks": ["t9"]},
        {"images": [row["task_id"]]},
        {"tasks": [row["image_id"]]},
        {"instances": [(row["task_id"], other, row["image_id"])]},
    ):
        (named,) = (name if isinstance(name, str) else "/".join(name) for (name,) in wrong.values())
        with pytest.raises(UserError, match=named):
            mark(decided, **wrong)
    with pytest.raises(UserError):
        mark(decided)
    assert decided.decisions.history() == []


def test_the_suggestions_of_a_task_become_decisions_on_its_rows(decided: Workspace) -> None:
    project = decided.project()
    rows, names = project.tasks.train.rows, project.images.class_names
    task = rows["task_id"].iloc[0]
    mine = rows[rows["task_id"] == task].reset_index(drop=True)
    elsewhere = rows[~rows["image_id"].isin(mine["image_id"])].iloc[0]
    other = {given: next(name for name in names if name != given) for given in names}

    def suggestion(row: pd.Series, level: str, suggested: str, probability: float) -> dict:
        whole = level == "image"
        return {
            "level": level,
            "task_id": "" if whole else row["task_id"],
            "role": "" if whole else row["role"],
            "image_id": row["image_id"],
            "class": row["class"],
            "suggested": suggested,
            "suggested_probability": probability,
        }

    third = next(name for name in names if name not in (mine["class"][3], other[mine["class"][3]]))
    queue = a_queue(
        decided,
        [
            suggestion(mine.loc[0], "image", other[mine["class"][0]], 0.9),
            suggestion(mine.loc[1], "instance", other[mine["class"][1]], 0.8),
            suggestion(mine.loc[2], "image", mine["class"][2], 0.99),  # nothing new
            suggestion(mine.loc[3], "image", other[mine["class"][3]], 0.9),  # the row itself comes first
            suggestion(mine.loc[3], "instance", third, 0.9),
            suggestion(mine.loc[4], "instance", other[mine["class"][4]], 0.4),  # too unlikely
            suggestion(mine.loc[5], "image", other[mine["class"][5]], float("nan")),
            suggestion(elsewhere, "image", other[elsewhere["class"]], 0.99),
        ],
    )

    def found(least: float) -> dict[str, str]:
        decisions = suggestions_of_task(decided, queue, task, least)
        assert {(d.item.kind, d.item.task_id, d.verdict, d.source) for d in decisions} == {
            ("instance", task, "relabel", queue.id)
        }
        assert all(((mine["role"] == d.item.role) & (mine["image_id"] == d.item.image_id)).any() for d in decisions)
        return {d.item.image_id: names[d.label] for d in decisions if d.label is not None}

    sure = {mine["image_id"][0]: other[mine["class"][0]], mine["image_id"][3]: third}
    sure[mine["image_id"][1]] = other[mine["class"][1]]
    assert found(0.5) == sure
    assert found(0).keys() == {*sure, mine["image_id"][4], mine["image_id"][5]}
    assert suggestions_of_task(decided, queue, task, 0.95) == []
    with pytest.raises(UserError, match="'t9'"):
        suggestions_of_task(decided, queue, "t9", 0.5)
    worst = first_items(queue.table("items.parquet"), 2)
    assert worst == [
        (Item("image", image_id=mine["image_id"][0]), other[mine["class"][0]]),
        (Item("instance", task, mine["role"][1], mine["image_id"][1]), other[mine["class"][1]]),
    ]
    with pytest.raises(UserError, match="8"):
        first_items(queue.table("items.parquet"), 9)
