"""Injected label noise has the requested size, is fully recorded, and affects only the training tasks."""

from __future__ import annotations

import re

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from core.data import ImageSet, load_images
from core.runtime.errors import UserError
from core.tasks.generate import TaskFolder, TaskSettings, generate
from core.tasks.noise import PRESETS, Noise, flip_labels, mislabel_images
from core.tasks.tasklist import KEY, TaskList
from tests.problems import tiny_images, tiny_tasks
from tests.properties import examples

ways_and_shots = st.tuples(st.integers(2, 4), st.integers(1, 3), st.integers(1, 3))
shares = st.floats(0.05, 1.0)


def true_classes(rows: pd.DataFrame, images: ImageSet) -> np.ndarray:
    names = np.array(images.class_names, dtype=object)
    return names[images.labels[[images.index[i] for i in rows["image_id"]]]]


def wrong_rows(tasks: TaskList, images: ImageSet) -> pd.DataFrame:
    true = true_classes(tasks.rows, images)
    wrong = (tasks.rows["class"] != true).to_numpy()
    rows = tasks.rows.loc[wrong, [*KEY, "class"]].rename(columns={"class": "given"})
    return rows.assign(true=true[wrong]).reset_index(drop=True)


@examples(25)
@given(ways_and_shots, shares, shares, st.integers(0, 9))
def test_number_of_flips_and_their_record(shape: tuple[int, int, int], share: float, labels: float, seed: int) -> None:
    ways, shots, queries = shape
    images = tiny_images()
    tasks = tiny_tasks(images, ways=ways, shots=shots, queries=queries, count=7, seed=seed)
    noisy, truth = flip_labels(tasks, Noise("tasks", share, labels), np.random.default_rng(seed))
    size = ways * (shots + queries)
    flips = min(round(labels * size), size - ways)
    assert truth.groupby("task_id").size().tolist() == ([flips] * round(share * 7) if flips else [])
    pd.testing.assert_frame_equal(truth, wrong_rows(noisy, images), check_dtype=False, check_index_type=False)


@examples(25)
@given(ways_and_shots, st.integers(0, 9))
def test_every_class_keeps_a_correct_support_label(shape: tuple[int, int, int], seed: int) -> None:
    ways, shots, queries = shape
    images = tiny_images()
    tasks = tiny_tasks(images, ways=ways, shots=shots, queries=queries, count=3, seed=seed)
    noisy, _ = flip_labels(tasks, Noise("tasks", 1.0, 1.0), np.random.default_rng(seed))
    rows = noisy.rows[noisy.rows["role"] == "support"]
    right = rows[rows["class"] == true_classes(rows, images)]
    assert (right.groupby("task_id")["label"].nunique() == ways).all()
    assert right["task_id"].nunique() == 3


def test_flipped_row_gets_label_and_class_of_its_task() -> None:
    tasks = tiny_tasks(tiny_images(), ways=3, shots=3, queries=3, count=10)
    noisy, _ = flip_labels(tasks, Noise("tasks", 0.5, 0.6), np.random.default_rng(0))
    meaning = tasks.rows.groupby(["task_id", "label"])["class"].first()
    assert noisy.rows.groupby(["task_id", "label"])["class"].first().equals(meaning)
    assert (noisy.rows.groupby(["task_id", "label"])["class"].nunique() == 1).all()


def rows_of_truth(folder: TaskFolder) -> pd.DataFrame:
    assert folder.planted is not None
    return folder.planted


@pytest.mark.parametrize(("noise", "share"), [("images:0.1", 0.1), ("lookalike:0.25", 0.25)])
def test_image_noise_mislabels_its_share_of_the_training_images(noise: str, share: float) -> None:
    folder = generate(TaskSettings(ways=3, shots=2, queries=3, count=200, heldout=100, noise=noise, validation=0))
    truth, images = rows_of_truth(folder), load_images("mnist5k")
    assert len(truth) == truth["image_id"].nunique() == round(share * 3500)
    assert (truth["given"] != truth["true"]).all()
    assert truth["true"].tolist() == true_classes(truth, images).tolist()
    assert not set(truth["image_id"]) & set(folder.heldout.rows["image_id"])
    assert wrong_rows(folder.heldout, images).empty
    wrong = wrong_rows(folder.train, images)
    planted = truth.set_index("image_id")["given"]
    assert wrong["given"].tolist() == planted.loc[wrong["image_id"]].tolist()
    drawn = truth["image_id"].isin(folder.train.rows["image_id"])
    assert set(wrong["image_id"]) == set(truth.loc[drawn, "image_id"])


def test_uniform_image_noise_reaches_every_other_class() -> None:
    images = load_images("mnist5k")
    _, truth = mislabel_images(images, np.arange(5000), Noise("images", 0.5), np.random.default_rng(0))
    counts = pd.crosstab(truth["true"], truth["given"]).to_numpy()
    assert (np.diag(counts) == 0).all()
    assert (counts[~np.eye(10, dtype=bool)] > 5).all()


def test_lookalike_noise_gives_the_class_with_the_nearest_mean() -> None:
    images = load_images("mnist5k")
    given, truth = mislabel_images(images, np.arange(5000), Noise("lookalike", 0.02), np.random.default_rng(0))
    flat = images.images.reshape(5000, -1).astype(np.float64)
    means = np.stack([flat[images.labels == c].mean(0) for c in range(10)])
    for image_id in truth["image_id"]:
        at = images.index[image_id]
        order = np.argsort(((flat[at] - means) ** 2).sum(1))
        assert given[at] == next(c for c in order if c != images.labels[at])


def test_mislabelling_does_not_modify_the_image_set() -> None:
    images = tiny_images()
    before = images.labels.copy()
    given, truth = mislabel_images(images, np.arange(len(images)), Noise("images", 0.5), np.random.default_rng(0))
    assert np.array_equal(images.labels, before)
    assert (given != before).sum() == len(truth) == 40


@pytest.mark.parametrize(
    ("text", "noise"),
    [
        ("none", Noise()),
        ("tasks:0.4:0.8", Noise("tasks", 0.4, 0.8)),
        ("images:1", Noise("images", 1.0)),
        ("lookalike:0.25", Noise("lookalike", 0.25)),
        *((name, Noise.parse(text)) for name, text in PRESETS.items()),
    ],
)
def test_noise_is_parsed(text: str, noise: Noise) -> None:
    assert Noise.parse(text) == noise


@given(
    st.one_of(
        st.just(Noise()),
        st.builds(Noise, st.just("tasks"), shares, shares),
        st.builds(Noise, st.sampled_from(["images", "lookalike"]), shares),
    )
)
def test_noise_round_trips_through_text(noise: Noise) -> None:
    text = ":".join([noise.kind, *(str(share) for share in (noise.share, noise.labels) if share)])
    assert Noise.parse(text) == noise


@pytest.mark.parametrize(
    "text",
    [
        "",
        "salt",
        "none:0.1",
        "tasks",
        "tasks:0.4",
        "tasks:0.4:0.8:0.1",
        "images",
        "images:0",
        "images:-0.1",
        "images:1.1",
        "images:nan",
        "images:inf",
        "images:many",
        "lookalike:",
        "easy:0.4",
    ],
)
def test_invalid_noise_is_rejected_with_the_valid_forms(text: str) -> None:
    with pytest.raises(UserError, match=rf"^{re.escape(repr(text))} .*tasks:SHARE:LABELS"):
        Noise.parse(text)


@given(st.text(max_size=30))
def test_any_text_is_noise_or_rejected(text: str) -> None:
    try:
        noise = Noise.parse(text)
    except UserError:
        return
    assert noise.kind in ("none", "tasks", "images", "lookalike")
