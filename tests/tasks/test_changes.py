"""A task list without what was removed, in both forms."""

from __future__ import annotations

import numpy as np
import pytest

from core.errors import UserError
from core.tasks.changes import Changes, cleaned
from core.tasks.tasklist import KEY, TaskList, from_rows
from tests.problems import tiny_images, tiny_tasks


@pytest.fixture
def tasks() -> TaskList:
    """Four tasks of 2 ways, 2 shots and 2 queries; the image of the first row occurs in one more task."""
    tasks = tiny_tasks(tiny_images(), ways=2, shots=2, queries=2, count=4)
    rows = tasks.rows.copy()
    there = np.flatnonzero((rows["task_id"] == "t3") & (rows["role"] == "query"))[0]
    rows.loc[there, "image_id"] = rows["image_id"].iloc[0]
    return from_rows(rows, source="here")


def removed_rows(tasks: TaskList, left: TaskList) -> set[tuple[str, str, str]]:
    """Keys of the rows that are gone from the table or of weight 0."""
    have = left.rows[left.rows["weight"] > 0]
    return set(tasks.rows[KEY].itertuples(index=False, name=None)) - set(have[KEY].itertuples(index=False, name=None))


@pytest.mark.parametrize("drop_rows", [False, True])
def test_removing_a_task_takes_it_out_whole(tasks: TaskList, drop_rows: bool) -> None:
    left = cleaned(tasks, Changes(tasks=frozenset({"t1"})), drop_rows=drop_rows)
    assert left.task_ids == ["t0", "t2", "t3"]
    assert left.hash == tasks.select(["t0", "t2", "t3"]).hash


def test_removing_an_image_sets_all_its_rows_to_weight_0(tasks: TaskList) -> None:
    image = tasks.rows["image_id"].iloc[0]
    left = cleaned(tasks, Changes(images=frozenset({image})))
    assert left.rows[KEY].equals(tasks.rows[KEY])
    assert left.rows["weight"].tolist() == (tasks.rows["image_id"] != image).astype(float).tolist()
    assert (left.rows["weight"] == 0).sum() >= 2


def test_removing_an_instance_touches_no_other_row_of_its_image(tasks: TaskList) -> None:
    key = tuple(tasks.rows.loc[0, KEY])
    left = cleaned(tasks, Changes(instances=frozenset({key})))
    assert removed_rows(tasks, left) == {key}


@pytest.mark.parametrize("kind", ["tasks", "images", "instances"])
def test_both_forms_keep_the_same_rows(tasks: TaskList, kind: str) -> None:
    one = {"tasks": "t2", "images": tasks.rows["image_id"].iloc[0], "instances": tuple(tasks.rows.loc[0, KEY])}[kind]
    removal = Changes(**{kind: frozenset({one})})
    weighted, dropped = cleaned(tasks, removal), cleaned(tasks, removal, drop_rows=True)
    assert removed_rows(tasks, weighted) == removed_rows(tasks, dropped)
    assert (dropped.rows["weight"] > 0).all()
    assert from_rows(dropped.rows, source="dropped").hash == dropped.hash
    assert from_rows(weighted.rows, source="weighted").hash == weighted.hash


def test_a_task_without_query_rows_leaves(tasks: TaskList) -> None:
    rows = tasks.rows[(tasks.rows["task_id"] == "t1") & (tasks.rows["role"] == "query")]
    keys = frozenset(rows[KEY].itertuples(index=False, name=None))
    assert cleaned(tasks, Changes(instances=keys)).task_ids == ["t0", "t2", "t3"]


def test_a_task_without_support_rows_stays_with_weights_but_cannot_be_dropped(tasks: TaskList) -> None:
    rows = tasks.rows[(tasks.rows["task_id"] == "t1") & (tasks.rows["role"] == "support")]
    removal = Changes(instances=frozenset(rows[KEY].itertuples(index=False, name=None)))
    left = cleaned(tasks, removal)
    assert left.task_ids == tasks.task_ids
    assert removed_rows(tasks, left) == removal.instances
    with pytest.raises(UserError, match=r"'t1' would lose all support images of a class"):
        cleaned(tasks, removal, drop_rows=True)


def test_removing_nothing_changes_nothing(tasks: TaskList) -> None:
    assert len(Changes()) == 0
    assert cleaned(tasks, Changes()).hash == cleaned(tasks, Changes(), drop_rows=True).hash == tasks.hash


def test_other_weights_than_0_and_1_survive(tasks: TaskList) -> None:
    heavy = TaskList(tasks.rows.assign(weight=np.linspace(0.5, 2, len(tasks.rows))))
    weights = Changes(tasks=frozenset({"t0"})).weights(heavy)
    gone = (tasks.rows["task_id"] == "t0").to_numpy()
    assert (weights[gone] == 0).all()
    assert np.array_equal(weights[~gone], heavy.rows["weight"].to_numpy()[~gone])


def test_nothing_left_is_refused(tasks: TaskList) -> None:
    for removal in (Changes(tasks=frozenset(tasks.task_ids)), Changes(images=frozenset(tasks.rows["image_id"]))):
        with pytest.raises(UserError, match="Nothing would be left"):
            cleaned(tasks, removal)


@pytest.mark.parametrize(
    ("removal", "what"),
    [
        (Changes(tasks=frozenset({"t9"})), "task 't9'"),
        (Changes(images=frozenset({"cat"})), "image 'cat'"),
        (Changes(instances=frozenset({("t0", "query", "cat")})), r"instance \('t0', 'query', 'cat'\)"),
    ],
)
def test_what_is_not_in_the_list_is_named(tasks: TaskList, removal: Changes, what: str) -> None:
    with pytest.raises(UserError, match=f"The {what} is not in the task list"):
        cleaned(tasks, removal)


def test_the_hash_names_what_is_removed_and_not_its_order() -> None:
    assert Changes(tasks=frozenset({"a", "b"})).hash == Changes(tasks=frozenset({"b", "a"})).hash
    kinds = [Changes(), Changes(tasks=frozenset({"a"})), Changes(images=frozenset({"a"}))]
    assert len({removal.hash for removal in kinds}) == 3
