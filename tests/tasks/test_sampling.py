"""Drawn tasks: every combination once, no duplicates, and one random stream per purpose."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from core.data import ImageSet, load_images
from core.runtime.errors import UserError
from core.tasks import generate as generating
from core.tasks.generate import TaskSettings, from_lists, generate, read_folder, write_folder
from core.tasks.sampling import (
    class_sets,
    pool_of,
    sample_tasks,
    split_classes,
    split_images,
    split_official,
    split_validation,
)
from core.tasks.settings import VALIDATION_TASKS
from core.tasks.tasklist import TaskList, write_tasks
from tests.problems import tiny_images, tiny_tasks

SMALL = TaskSettings(ways=3, shots=2, queries=3, count=20, heldout=6, seed=4)


def test_default_is_each_of_the_252_combinations_of_5_digits_once() -> None:
    rows = generate(TaskSettings(heldout=1)).train.rows
    combinations = rows.groupby("task_id")["class"].agg(frozenset)
    assert len(combinations) == 252
    assert combinations.nunique() == 252
    assert (combinations.map(len) == 5).all()


def test_tasks_have_the_requested_shape() -> None:
    folder = generate(SMALL)
    for tasks, count, prefix in ((folder.train, 20, "t"), (folder.heldout, 6, "h")):
        assert len(tasks) == count
        assert tasks.ways == 3
        assert all(name.startswith(prefix) for name in tasks.task_ids)
        sizes = tasks.rows.groupby(["task_id", "role", "label"]).size().unstack("role")
        assert len(sizes) == count * 3
        assert (sizes["support"] == 2).all()
        assert (sizes["query"] == 3).all()
    assert (folder.train.rows["weight"] == 1).all()


def test_no_image_occurs_twice_in_a_task_and_labels_are_correct() -> None:
    rows = generate(SMALL).train.rows
    assert not rows.duplicated(["task_id", "image_id"]).any()
    images = load_images("mnist5k")
    true = [images.class_names[images.labels[images.index[i]]] for i in rows["image_id"]]
    assert rows["class"].tolist() == true


def test_order_of_classes_is_random() -> None:
    rows = generate(replace(SMALL, count=60)).train.rows
    first = rows[rows["label"] == 0].groupby("task_id")["class"].first().astype(int)
    last = rows[rows["label"] == 2].groupby("task_id")["class"].first().astype(int)
    assert (first > last).any()
    assert (first < last).any()


@pytest.mark.parametrize("split", ["images", "classes"])
def test_held_out_tasks_share_nothing_with_training_tasks(split: str) -> None:
    folder = generate(replace(SMALL, split=split, count=150, heldout=100, heldout_share=0.4))
    column = "image_id" if split == "images" else "class"
    assert not set(folder.train.rows[column]) & set(folder.heldout.rows[column])


def test_splits_divide_all_images() -> None:
    images = load_images("mnist5k")
    for split in (split_images, split_classes):
        train, held = split(images, 0.3, np.random.default_rng(0))
        assert np.array_equal(np.sort(np.concatenate([train, held])), np.arange(5000))
        assert len(held) == 1500
    _, held = split_images(images, 0.3, np.random.default_rng(0))
    assert np.bincount(images.labels[held]).tolist() == [150] * 10


@pytest.mark.parametrize("split", ["images", "classes"])
def test_validation_tasks_share_nothing_with_the_others(split: str) -> None:
    settings = replace(SMALL, ways=2, split=split, count=60, heldout=40, heldout_share=0.4, validation=30)
    folder = generate(settings)
    assert folder.validation is not None
    assert len(folder.validation) == 30
    assert folder.validation.task_ids[0].startswith("v")
    column = "image_id" if split == "images" else "class"
    others = set(folder.train.rows[column]) | set(folder.heldout.rows[column])
    assert not set(folder.validation.rows[column]) & others


def test_validation_tasks_are_drawn_by_default_where_the_images_suffice() -> None:
    assert len(generate(SMALL).validation or []) == SMALL.heldout
    assert len(generate(replace(SMALL, heldout=60)).validation or []) == VALIDATION_TASKS
    assert generate(replace(SMALL, validation=0)).validation is None
    scarce = replace(SMALL, shots=150, queries=100, count=2, heldout_share=0.5)
    assert generate(scarce).validation is None
    with pytest.raises(UserError, match="too few images for validation"):
        generate(replace(scarce, validation=5))


def test_validation_tasks_come_from_the_official_part_for_them() -> None:
    images = tiny_images()
    parts = np.array(["train", "val", "test"])[np.arange(len(images)) % 3]
    with_parts = replace(images, splits=parts)
    settings = TaskSettings(ways=2, shots=1, queries=1, count=4, heldout=4, validation=4)
    folder = generate(settings, with_parts)
    assert folder.validation is not None
    for tasks, part in ((folder.train, "train"), (folder.validation, "val"), (folder.heldout, "test")):
        assert {parts[images.index[name]] for name in tasks.rows["image_id"]} == {part}
    other = generate(replace(settings, heldout_split="val"), with_parts)
    assert other.validation is not None
    assert {parts[images.index[name]] for name in other.validation.rows["image_id"]} == {"train"}


def test_an_official_validation_part_of_too_few_classes_gives_no_tasks() -> None:
    images = tiny_images()
    parts = np.where(images.labels == 0, "val", np.array(["train", "test"])[np.arange(len(images)) % 2])
    settings = TaskSettings(ways=2, shots=1, queries=1, count=4, heldout=4)
    folder = generate(settings, replace(images, splits=parts))
    assert folder.validation is None
    assert {parts[images.index[name]] for name in folder.train.rows["image_id"]} == {"train"}
    with pytest.raises(UserError, match="too few images for validation"):
        generate(replace(settings, validation=4), replace(images, splits=parts))


def test_validation_leaves_a_group_of_images_together() -> None:
    images = load_images("mnist5k")
    grouped = replace(images, groups=np.array([f"writer {number % 50}" for number in range(len(images))]))
    rest, validation = split_validation(
        grouped, np.arange(4000), by_classes=False, share=0.1, ways=3, least=5, rng=np.random.default_rng(0)
    )
    assert validation.size == 400
    assert not set(grouped.groups[rest]) & set(grouped.groups[validation])
    assert sorted([*rest, *validation]) == list(range(4000))


@pytest.mark.parametrize("count", [2, 6, 12])
def test_validation_takes_a_whole_group_where_there_are_few(count: int) -> None:
    images = load_images("mnist5k")
    grouped = replace(images, groups=np.array([f"writer {number % count}" for number in range(len(images))]))
    rest, validation = split_validation(
        grouped, np.arange(4000), by_classes=False, share=0.1, ways=3, least=5, rng=np.random.default_rng(0)
    )
    assert len(set(grouped.groups[validation])) == math.ceil(0.1 * count)
    assert not set(grouped.groups[rest]) & set(grouped.groups[validation])


def test_a_folder_with_validation_tasks_is_read_back(tmp_path: Path) -> None:
    folder = generate(SMALL)
    write_folder(folder, tmp_path)
    assert folder.validation is not None
    read = read_folder(tmp_path)
    assert read.validation is not None
    assert read.validation.hash == folder.validation.hash == read.description["validation_hash"]
    write_folder(replace(folder, validation=None), tmp_path)
    assert read_folder(tmp_path).validation is None
    write_folder(replace(folder, validation=folder.heldout), tmp_path)
    with pytest.raises(UserError, match="held-out and in validation tasks"):
        read_folder(tmp_path)


def test_seed_determines_the_tasks() -> None:
    once, again, other = generate(SMALL), generate(SMALL), generate(replace(SMALL, seed=5))
    assert once.train.hash == again.train.hash != other.train.hash
    assert once.heldout.hash == again.heldout.hash != other.heldout.hash


def test_more_held_out_tasks_do_not_change_the_training_tasks() -> None:
    few, many = generate(SMALL), generate(replace(SMALL, heldout=30))
    assert few.train.hash == many.train.hash


def test_noise_within_tasks_changes_no_image_and_no_held_out_task() -> None:
    clean, noisy = generate(SMALL), generate(replace(SMALL, noise="tasks:0.5:0.5"))
    keys = ["task_id", "role", "image_id"]
    pd.testing.assert_frame_equal(clean.train.rows[keys], noisy.train.rows[keys])
    assert clean.heldout.hash == noisy.heldout.hash


@pytest.mark.parametrize("noise", ["images:0.2", "lookalike:0.2"])
def test_noise_on_images_changes_neither_held_out_tasks_nor_the_split(noise: str) -> None:
    clean, noisy = generate(SMALL), generate(replace(SMALL, noise=noise))
    assert clean.heldout.hash == noisy.heldout.hash
    assert not set(noisy.train.rows["image_id"]) & set(generate(replace(SMALL, heldout=60)).heldout.rows["image_id"])


def test_combinations_repeat_evenly() -> None:
    drawn = class_sets([0, 1, 2, 3], 2, 15, np.random.default_rng(0))
    counts = pd.Series([tuple(sorted(one)) for one in drawn]).value_counts()
    assert len(drawn) == 15
    assert len(counts) == 6
    assert set(counts) <= {2, 3}


def test_too_many_combinations_are_rejected() -> None:
    with pytest.raises(UserError, match="combinations of 20 classes"):
        class_sets(list(range(40)), 20, None, np.random.default_rng(0))


def test_task_ids_sort_in_drawing_order() -> None:
    tasks = tiny_tasks(tiny_images(), ways=2, shots=1, queries=1, count=12)
    assert tasks.task_ids == sorted(tasks.task_ids)


def test_a_class_with_too_few_images_is_named() -> None:
    images = tiny_images(per_class=4)
    with pytest.raises(UserError, match=r"'0' has 4 images .*2 shots and 3 queries"):
        tiny_tasks(images, ways=2, shots=2, queries=3, count=1)


def test_more_ways_than_classes_are_rejected() -> None:
    with pytest.raises(UserError, match=r"5-way .*\b4\b"):
        tiny_tasks(tiny_images(), ways=5, shots=1, queries=1, count=1)


@pytest.mark.parametrize("field", [{"ways": 1}, {"shots": 0}, {"queries": 0}, {"count": 0}])
def test_minimum_ways_shots_queries_and_count(field: dict[str, int]) -> None:
    images = tiny_images()
    pool = pool_of(images.labels, np.arange(len(images)))
    shape = {"ways": 2, "shots": 1, "queries": 1, "count": 1, **field}
    with pytest.raises(UserError, match=" ".join(f"{name} {value}" for name, value in field.items())):
        sample_tasks(images, pool, **shape, prefix="t", rng=np.random.default_rng(0))


@pytest.mark.parametrize(
    ("field", "what"),
    [
        ({"split": "tasks"}, "split: 'tasks'"),
        ({"heldout_share": 0.0}, "heldout-share: 0.0"),
        ({"heldout_share": 1.0}, "heldout-share: 1.0"),
        ({"heldout_share": float("nan")}, "heldout-share: nan"),
        ({"heldout_share": 1e-6}, r"3-way .*\b0\b"),
        ({"noise": "salt"}, "'salt'"),
        ({"data": "cifar"}, "'cifar'"),
        ({"ways": 6, "split": "classes", "heldout_share": 0.5}, r"6-way .*\b5\b"),
        ({"split": "classes", "heldout_share": 0.9, "noise": "images:0.5"}, "class"),
        ({"seed": -1}, "seed: -1"),
    ],
)
def test_impossible_settings_are_rejected(field: dict[str, object], what: str) -> None:
    with pytest.raises(UserError, match=what):
        generate(replace(SMALL, **field))


@pytest.mark.parametrize("noise", ["none", "easy", "image"])
def test_folder_round_trips(tmp_path: Path, noise: str) -> None:
    made = generate(replace(SMALL, noise=noise))
    write_folder(made, tmp_path / "tasks")
    read = read_folder(tmp_path / "tasks")
    assert (read.train.hash, read.heldout.hash, read.data) == (made.train.hash, made.heldout.hash, "mnist5k")
    assert made.description.items() <= read.description.items()
    if made.planted is None:
        assert read.planted is None
    else:
        assert read.planted.astype(str).equals(made.planted.astype(str))


def test_held_out_tasks_with_a_training_image_are_rejected(tmp_path: Path) -> None:
    made = generate(SMALL)
    write_folder(made, tmp_path)
    write_tasks(made.train, tmp_path / "heldout.parquet")
    with pytest.raises(UserError, match=r"image 'mnist5k-\d{4}'"):
        read_folder(tmp_path)


def test_different_ways_of_training_and_held_out_tasks_are_rejected(tmp_path: Path) -> None:
    write_folder(generate(SMALL), tmp_path)
    write_tasks(generate(replace(SMALL, ways=2)).heldout, tmp_path / "heldout.parquet")
    with pytest.raises(UserError, match=r"3-way.*2-way"):
        read_folder(tmp_path)


@pytest.mark.parametrize("text", ["[]", "{}", '{"settings": 3}'])
def test_description_without_the_image_set_is_rejected(tmp_path: Path, text: str) -> None:
    write_folder(generate(SMALL), tmp_path)
    (tmp_path / "tasks.json").write_text(text)
    with pytest.raises(UserError, match=r"tasks\.json"):
        read_folder(tmp_path)


def test_folder_without_its_description_is_rejected(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"tasks\.json"):
        read_folder(tmp_path)


def test_select_keeps_the_order_and_rejects_unknown_ids() -> None:
    tasks: TaskList = generate(SMALL).train
    assert tasks.select(["t07", "t02"]).task_ids == ["t02", "t07"]
    with pytest.raises(UserError, match=r"'x'.*'t00'"):
        tasks.select(["t07", "x"])


def with_columns(**columns: list[str]) -> ImageSet:
    """The tiny digits with the split or groups of each of their 80 images."""
    return replace(tiny_images(), **{name: np.array(values, dtype=object) for name, values in columns.items()})


def test_official_split_is_used_by_auto(monkeypatch: pytest.MonkeyPatch) -> None:
    parts = ["train", "train", "val", "test"]
    images = with_columns(splits=[parts[position % 4] for position in range(80)])
    monkeypatch.setattr(generating, "load_images", lambda name: images)
    assert generate(replace(SMALL, data="tiny")).description["settings"]["split"] == "official"
    for part in ("test", "val"):
        made = generate(replace(SMALL, data="tiny", heldout_split=part))
        for tasks, wanted in ((made.train, "train"), (made.heldout, part)):
            assert {images.splits[images.index[i]] for i in tasks.rows["image_id"]} == {wanted}


@pytest.mark.parametrize(
    ("splits", "part", "what"),
    [
        (None, "test", "'tiny' .*split"),
        (["train"] * 80, "test", "'test'.*: train"),
        (["test"] * 40 + [""] * 40, "test", "'train'.*: test"),
        (["train"] * 80, "train", "part train"),
    ],
)
def test_missing_official_split_is_rejected(splits: list[str] | None, part: str, what: str) -> None:
    images = with_columns(splits=splits) if splits else tiny_images()
    with pytest.raises(UserError, match=what):
        split_official(images, part)


def test_groups_are_not_split() -> None:
    images = with_columns(groups=[f"writer {position % 10}" for position in range(80)])
    train, held = split_images(images, 0.3, np.random.default_rng(0))
    assert np.array_equal(np.sort(np.concatenate([train, held])), np.arange(80))
    assert len(held) == 24
    assert not set(images.groups[train]) & set(images.groups[held])


def test_small_classes_are_skipped_on_request(monkeypatch: pytest.MonkeyPatch) -> None:
    full = tiny_images()
    keep = np.flatnonzero((full.labels != 2) | (np.arange(80) % 20 < 4))  # 4 images of the digit 2
    images = ImageSet("tiny", full.images[keep], full.labels[keep], full.class_names, full.ids[keep])
    monkeypatch.setattr(generating, "load_images", lambda name: images)
    with pytest.raises(UserError, match=r"'2' has 3 images .*--skip-small-classes"):
        generate(replace(SMALL, data="tiny"))
    made = generate(replace(SMALL, data="tiny", skip_small=True))
    assert set(made.train.rows["class"]) == {"0", "1", "3"}


def test_folder_from_lists(tmp_path: Path) -> None:
    made = generate(SMALL)
    write_tasks(made.train, tmp_path / "mine.csv")
    write_tasks(made.heldout, tmp_path / "judge.json")
    own = from_lists("mnist5k", tmp_path / "mine.csv", tmp_path / "judge.json")
    write_folder(own, tmp_path / "tasks")
    read = read_folder(tmp_path / "tasks")
    assert (read.train.hash, read.heldout.hash) == (made.train.hash, made.heldout.hash)
    with pytest.raises(UserError, match=r"image 'mnist5k-\d{4}'"):
        from_lists("mnist5k", tmp_path / "mine.csv", tmp_path / "mine.csv")


def test_tasks_whose_images_changed_are_rejected(tmp_path: Path) -> None:
    made = generate(SMALL)
    made.description["data_hash"] = "f" * 64
    write_folder(made, tmp_path)
    with pytest.raises(UserError, match="'mnist5k'"):
        read_folder(tmp_path)


def test_record_of_earlier_noise_is_deleted(tmp_path: Path) -> None:
    write_folder(generate(replace(SMALL, noise="easy")), tmp_path)
    write_folder(generate(SMALL), tmp_path)
    assert read_folder(tmp_path).planted is None
