"""Changes applied to a task list: rows of weight 0, dropped rows, relabelled rows."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest

from core.runtime.errors import UserError
from core.runtime.hashing import content_hash
from core.tasks.changes import Changes, cleaned
from core.tasks.tasklist import KEY, TaskList, from_rows
from tests.problems import tiny_images, tiny_tasks


@pytest.fixture
def tasks() -> TaskList:
    """Four tasks of 2 ways, 2 shots and 2 queries; the image of the first row occurs in one more task."""
    tasks = tiny_tasks(tiny_images(), ways=2, shots=2, queries=2, count=4)
    rows = tasks.rows.copy()
    row = np.flatnonzero((rows["task_id"] == "t3") & (rows["role"] == "query"))[0]
    rows.loc[row, "image_id"] = rows["image_id"].iloc[0]
    return from_rows(rows, source="test")


def removed_rows(tasks: TaskList, left: TaskList) -> set[tuple[str, str, str]]:
    """Return the keys of the rows that are dropped from the table or have weight 0."""
    have = left.rows[left.rows["weight"] > 0]
    return set(tasks.rows[KEY].itertuples(index=False, name=None)) - set(have[KEY].itertuples(index=False, name=None))


@pytest.mark.parametrize("drop_rows", [False, True])
def test_removed_task_is_absent(tasks: TaskList, drop_rows: bool) -> None:
    left = cleaned(tasks, Changes(tasks=frozenset({"t1"})), drop_rows=drop_rows)
    assert left.task_ids == ["t0", "t2", "t3"]
    assert left.hash == tasks.select(["t0", "t2", "t3"]).hash


def test_removed_image_has_weight_0_in_all_rows(tasks: TaskList) -> None:
    image = tasks.rows["image_id"].iloc[0]
    left = cleaned(tasks, Changes(images=frozenset({image})))
    assert left.rows[KEY].equals(tasks.rows[KEY])
    assert left.rows["weight"].tolist() == (tasks.rows["image_id"] != image).astype(float).tolist()
    assert (left.rows["weight"] == 0).sum() >= 2


def test_removed_instance_changes_no_other_row(tasks: TaskList) -> None:
    key = tuple(tasks.rows.loc[0, KEY])
    left = cleaned(tasks, Changes(instances=frozenset({key})))
    assert removed_rows(tasks, left) == {key}


def test_removed_instance_keeps_its_label_when_its_image_is_relabelled(tasks: TaskList) -> None:
    key = tuple(tasks.rows.loc[0, KEY])
    image, old = tasks.rows.loc[0, ["image_id", "class"]]
    (new,) = set(tasks.rows.loc[tasks.rows["task_id"] == key[0], "class"]) - {old}
    left = cleaned(tasks, Changes(instances=frozenset({key}), relabelled_images=frozenset({(image, new)})))
    assert left.rows.loc[0, ["label", "class", "weight"]].tolist() == [tasks.rows.loc[0, "label"], old, 0.0]


@pytest.mark.parametrize("kind", ["tasks", "images", "instances"])
def test_weighted_and_dropped_forms_keep_the_same_rows(tasks: TaskList, kind: str) -> None:
    one = {"tasks": "t2", "images": tasks.rows["image_id"].iloc[0], "instances": tuple(tasks.rows.loc[0, KEY])}[kind]
    removal = Changes(**{kind: frozenset({one})})
    weighted, dropped = cleaned(tasks, removal), cleaned(tasks, removal, drop_rows=True)
    assert removed_rows(tasks, weighted) == removed_rows(tasks, dropped)
    assert (dropped.rows["weight"] > 0).all()
    assert from_rows(dropped.rows, source="dropped").hash == dropped.hash
    assert from_rows(weighted.rows, source="weighted").hash == weighted.hash


def test_task_without_query_rows_is_dropped(tasks: TaskList) -> None:
    rows = tasks.rows[(tasks.rows["task_id"] == "t1") & (tasks.rows["role"] == "query")]
    keys = frozenset(rows[KEY].itertuples(index=False, name=None))
    assert cleaned(tasks, Changes(instances=keys)).task_ids == ["t0", "t2", "t3"]


def test_task_without_support_rows_stays_only_with_weights(tasks: TaskList) -> None:
    rows = tasks.rows[(tasks.rows["task_id"] == "t1") & (tasks.rows["role"] == "support")]
    removal = Changes(instances=frozenset(rows[KEY].itertuples(index=False, name=None)))
    left = cleaned(tasks, removal)
    assert left.task_ids == tasks.task_ids
    assert removed_rows(tasks, left) == removal.instances
    with pytest.raises(UserError, match="'t1'"):
        cleaned(tasks, removal, drop_rows=True)


def test_empty_changes(tasks: TaskList) -> None:
    assert len(Changes()) == 0
    assert cleaned(tasks, Changes()).hash == cleaned(tasks, Changes(), drop_rows=True).hash == tasks.hash


def test_fractional_weights_are_kept(tasks: TaskList) -> None:
    heavy = TaskList(tasks.rows.assign(weight=np.linspace(0.5, 2, len(tasks.rows))))
    weights = Changes(tasks=frozenset({"t0"})).apply(heavy).weights
    gone = (tasks.rows["task_id"] == "t0").to_numpy()
    assert (weights[gone] == 0).all()
    assert np.array_equal(weights[~gone], heavy.rows["weight"].to_numpy()[~gone])


def test_removing_every_task_is_rejected(tasks: TaskList) -> None:
    for removal in (Changes(tasks=frozenset(tasks.task_ids)), Changes(images=frozenset(tasks.rows["image_id"]))):
        with pytest.raises(UserError, match="every task"):
            cleaned(tasks, removal)


@pytest.mark.parametrize(
    ("removal", "what"),
    [
        (Changes(tasks=frozenset({"t9"})), "task 't9'"),
        (Changes(images=frozenset({"cat"})), "image 'cat'"),
        (Changes(instances=frozenset({("t0", "query", "cat")})), r"instance \('t0', 'query', 'cat'\)"),
    ],
)
def test_unknown_ids_are_named(tasks: TaskList, removal: Changes, what: str) -> None:
    with pytest.raises(UserError, match=what):
        cleaned(tasks, removal)


def test_hash_depends_on_the_content_and_not_the_order() -> None:
    assert Changes(tasks=frozenset({"a", "b"})).hash == Changes(tasks=frozenset({"b", "a"})).hash
    kinds = [Changes(), Changes(tasks=frozenset({"a"})), Changes(images=frozenset({"a"}))]
    assert len({removal.hash for removal in kinds}) == 3


def relabelled(tasks: TaskList, task: str, role: str, place: int, to: int) -> tuple[tuple[str, str, str, str], int]:
    """Return a relabelling of one row to the class of another label of its task, and the number of the row."""
    rows = tasks.rows
    number = int(np.flatnonzero((rows["task_id"] == task) & (rows["role"] == role))[place])
    name = rows.loc[(rows["task_id"] == task) & (rows["label"] == to), "class"].iloc[0]
    return (*rows.loc[number, KEY], name), number


def test_relabelled_row_gets_label_and_class_of_its_task(tasks: TaskList) -> None:
    change, number = relabelled(tasks, "t1", "query", 0, to=1)
    left = cleaned(tasks, Changes(relabelled_instances=frozenset({change})))
    row = left.rows.iloc[number]
    assert (row["label"], row["class"], row["weight"]) == (1, change[3], 1.0)
    others = left.rows.drop(index=number)
    assert others.equals(tasks.rows.drop(index=number))
    assert from_rows(left.rows, source="relabelled").hash == left.hash


def test_class_that_the_task_lacks_removes_the_row(tasks: TaskList) -> None:
    image = tasks.rows["image_id"].iloc[0]
    left = cleaned(tasks, Changes(relabelled_images=frozenset({(image, "nowhere")})))
    assert left.rows["weight"].tolist() == (tasks.rows["image_id"] != image).astype(float).tolist()
    assert left.rows["label"].equals(tasks.rows["label"])


def test_relabelling_to_the_same_class_changes_nothing(tasks: TaskList) -> None:
    row = tasks.rows.iloc[0]
    change = Changes(relabelled_instances=frozenset({(*row[KEY], row["class"])}))
    assert cleaned(tasks, change).hash == tasks.hash


def test_class_keeps_its_last_support_row(tasks: TaskList) -> None:
    first, one = relabelled(tasks, "t1", "support", 0, to=1)
    second, two = relabelled(tasks, "t1", "support", 1, to=1)
    assert tasks.rows["label"].iloc[[one, two]].tolist() == [0, 0]
    left = cleaned(tasks, Changes(relabelled_instances=frozenset({first, second})))
    assert left.rows["label"].iloc[[one, two]].tolist() == [1, 0]
    assert left.rows["weight"].iloc[[one, two]].tolist() == [1, 0]
    assert from_rows(left.rows, source="relabelled").hash == left.hash


def test_row_of_weight_0_does_not_keep_a_class(tasks: TaskList) -> None:
    (*gone, _), one = relabelled(tasks, "t1", "support", 0, to=1)
    change, two = relabelled(tasks, "t1", "support", 1, to=1)
    left = cleaned(tasks, Changes(instances=frozenset({tuple(gone)}), relabelled_instances=frozenset({change})))
    assert left.rows["label"].iloc[[one, two]].tolist() == [0, 0]
    assert left.rows["weight"].iloc[[one, two]].tolist() == [0, 0]


def test_rows_can_swap_classes(tasks: TaskList) -> None:
    picked = [relabelled(tasks, "t1", "support", place, to) for place, to in ((0, 1), (1, 1), (2, 0), (3, 0))]
    left = cleaned(tasks, Changes(relabelled_instances=frozenset(change for change, _ in picked)))
    assert left.rows["label"].iloc[[number for _, number in picked]].tolist() == [1, 1, 0, 0]
    assert (left.rows["weight"] == 1).all()


def test_precedence_of_task_instance_and_image(tasks: TaskList) -> None:
    change, number = relabelled(tasks, "t3", "query", 0, to=1)
    image = change[2]
    by_instance = frozenset({change})
    left = cleaned(tasks, Changes(images=frozenset({image}), relabelled_instances=by_instance))
    assert (left.rows["weight"].iloc[number], left.rows["class"].iloc[number]) == (1, change[3])
    gone = cleaned(tasks, Changes(instances=frozenset({change[:3]}), relabelled_images=frozenset({(image, change[3])})))
    assert gone.rows["weight"].iloc[number] == 0
    assert "t3" not in cleaned(tasks, Changes(tasks=frozenset({"t3"}), relabelled_instances=by_instance)).task_ids


def test_contradictory_changes_are_rejected() -> None:
    with pytest.raises(UserError, match=r"'a' .*removed"):
        Changes(images=frozenset({"a"}), relabelled_images=frozenset({("a", "x")}))
    with pytest.raises(UserError, match=r"'a' .*two"):
        Changes(relabelled_images=frozenset({("a", "x"), ("a", "y")}))
    for text in ("a", "=x", "a="):
        with pytest.raises(UserError, match="IMAGE=CLASS"):
            Changes.named(relabel=[text])


def test_hashes_of_removals_equal_those_of_saved_results() -> None:
    before = content_hash(["t"], ["i"], [("t", "query", "i")])
    one = Changes(frozenset({"t"}), frozenset({"i"}), frozenset({("t", "query", "i")}))
    assert one.hash == before
    assert replace(one, relabelled_images=frozenset({("j", "x")})).hash != before


def test_changes_round_trip_through_json() -> None:
    one = Changes(
        frozenset({"t"}),
        frozenset({"i", "k"}),
        frozenset({("t", "query", "i")}),
        frozenset({("j", "x=y")}),
        frozenset({("t", "support", "j", "z")}),
    )
    assert Changes.from_json(json.loads(json.dumps(one.to_json()))) == one
    assert one.words == "1 task, 2 images, 1 instance removed, 1 image, 1 instance relabelled"
    assert Changes.named(["t"], ["i"], ["a=b=c"]).relabelled_images == {("a=b", "c")}
    for wrong in ({"tasks": [1]}, {"instances": [["a", "b"]]}, {"images": "i"}):
        with pytest.raises(UserError, match=repr(next(iter(wrong)))):
            Changes.from_json(wrong)
