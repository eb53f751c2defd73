"""On a small trained model: the noisy tasks are proposed, and scores equal those that they are named after."""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache

import numpy as np
import pandas as pd
import pytest

from core.influence.scores import task_difficulty
from core.maml.adaptation import Unrolled
from core.maml.backbone import ConvNet
from core.maml.episodes import Episodes
from core.maml.loaded import Compute, Loaded
from core.maml.objective import Bilevel
from core.maml.storage import UnsavedSteps
from core.maml.training import TrainSettings, train
from core.recommendation import copies
from core.recommendation.recommend import ScoredLevels, recommend
from core.recommendation.scores import (
    STAGES,
    Directions,
    LabelClassifier,
    label_scores,
    model_directions,
    row_scores,
    task_scores,
    with_self_influence,
)
from core.recommendation.settings import RecommendSettings
from core.recommendation.summary import LEVELS
from core.runtime.progress import Progress
from core.tasks.noise import Noise, flip_labels
from core.tasks.tasklist import KEY, TaskList
from tests.problems import tiny_images, tiny_tasks

IMAGES = tiny_images(per_class=60)
CLEAN = tiny_tasks(IMAGES, ways=3, shots=2, queries=3, count=40)
NOISY, TRUTH = flip_labels(CLEAN, Noise.parse("tasks:0.4:0.8"), np.random.default_rng(0))
UNSAVED = UnsavedSteps(), Progress()
HELDOUT = tiny_tasks(IMAGES, ways=3, shots=2, queries=3, count=8, seed=5)


@cache
def trained() -> Loaded:
    network = ConvNet(3, filters=8, shape=(7, 7, 1), pooling="stride", blocks=2, activation="gelu")
    model = Bilevel(network, Unrolled(1, 0.3, "all", False), delta=0.01)
    settings = TrainSettings(iterations=100, meta_batch=6, learning_rate=0.02)
    params = train(model, network.init(0), Episodes(CLEAN, IMAGES, chunk=12), settings).params
    hashes = dict.fromkeys(("data", "tasks", "heldout", "model"), "")
    return Loaded(model, params, IMAGES, CLEAN, HELDOUT, Compute("cpu"), hashes)


@cache
def directions() -> Directions:
    return model_directions(trained(), UnsavedSteps(), Progress(), {})


def labels_of(loaded: Loaded) -> pd.DataFrame:
    classifier = LabelClassifier(loaded, Progress())
    return label_scores(loaded, classifier.classes, classifier.log_probabilities(), 1, 0, Progress(), {})


@pytest.fixture(scope="module", autouse=True)
def small_copies() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        for name, tasks in (("TASKS", 60), ("MISLABELLED_TASKS", 30), ("SCORED_ROW_TASKS", 20)):
            patch.setattr(copies, name, tasks)
        yield


@pytest.fixture(scope="module")
def noisy(small_copies: None) -> ScoredLevels:
    return recommend(trained().with_tasks(NOISY), RecommendSettings(rounds=2), *UNSAVED)


def test_the_noisy_tasks_are_proposed(noisy: ScoredLevels) -> None:
    table, found = noisy.tables["tasks"], noisy.levels["tasks"]
    is_noisy = table["task_id"].isin(TRUTH["task_id"])
    is_proposed = table["probability"] >= 0.5
    assert found.proposed == is_proposed.sum()
    assert (is_proposed == is_noisy).mean() > 0.85
    assert found.expected_share == pytest.approx(table["probability"][is_proposed].mean())
    assert found.expected_wrong == pytest.approx(is_noisy.sum(), abs=5)
    assert found.notes == ()


def test_every_item_is_listed_with_its_scores(noisy: ScoredLevels) -> None:
    assert list(noisy.tables) == list(noisy.levels) == list(LEVELS)
    tasks, images, instances = noisy.tables.values()
    assert tasks["task_id"].tolist() == NOISY.task_ids
    assert set(images["image_id"]) == set(NOISY.rows["image_id"])
    assert images["image_id"].is_unique
    pd.testing.assert_frame_equal(instances[[*KEY, "class"]], NOISY.rows[[*KEY, "class"]])
    for level, table in noisy.tables.items():
        found = noisy.levels[level]
        assert set(STAGES[level]) - {"self_influence"} <= set(table)
        assert np.isfinite(table.select_dtypes("number").to_numpy()).all()
        if found.candidate in table:
            np.testing.assert_array_equal(table["suspicion"], table[found.candidate])
        assert table["probability"].between(0, 1).all()
        assert (np.diff(table.sort_values("suspicion", kind="stable")["probability"]) >= -1e-12).all()


def test_candidates_are_measured_on_the_protocols_of_their_level(noisy: ScoredLevels) -> None:
    measured = noisy.candidates.groupby("level")["protocol"].unique().map(list).to_dict()
    assert measured == {level: list(protocols) for level, protocols in copies.PROTOCOLS.items()}
    table = noisy.candidates
    assert table[["auc", "average_precision", "found", "first"]].apply(lambda column: column.between(0, 1).all()).all()
    best = table[table["chosen"]]
    assert best.groupby("level")["candidate"].unique().map(list).to_dict() == {
        level: [one.candidate] for level, one in noisy.levels.items()
    }
    assert best.loc[best["level"] == "tasks", "auc"].mean() > 0.8
    # Label noise in whole tasks leaves the images' own classes, from which the classifier has learned already.
    of_classifier = {noisy.seconds[f"{part}: classifier"] for part in ("data", "noise 'easy'", "noise 'hard'")}
    assert len(of_classifier) == 1


def test_scores_equal_those_they_are_named_after() -> None:
    loaded = trained()
    labels = labels_of(loaded)
    tasks = task_scores(loaded, labels, directions(), Progress(), {})
    np.testing.assert_allclose(tasks["loss"], task_difficulty(loaded, Progress()).loss, rtol=1e-5)
    tables = row_scores(loaded, labels, directions(), UnsavedSteps(), Progress(), {})
    for name in set(tables["tasks"]) - {"task_id"}:  # the same by another way
        np.testing.assert_allclose(tasks[name], tables["tasks"][name], rtol=1e-3, atol=1e-5)
    rows = tables["instances"]
    by_task, by_image = (rows.groupby(key, sort=False) for key in ("task_id", "image_id"))
    for name in ("classifier", "scoring_loss"):
        np.testing.assert_allclose(tasks[name], by_task[name].mean())
    images = tables["images"].set_index("image_id")
    np.testing.assert_allclose(images["harm"], by_image["harm"].sum().loc[images.index], rtol=1e-5, atol=1e-8)
    assert (tasks["self_influence"] > 0).all()


def test_the_classifier_leaves_every_image_out() -> None:
    """What an image is labelled does not change its own probabilities."""
    loaded = trained()
    classifier, image = LabelClassifier(loaded, Progress()), IMAGES.index[CLEAN.rows["image_id"].iloc[0]]
    labels = np.full(len(IMAGES), -1)
    labels[image] = (IMAGES.labels[image] + 1) % len(IMAGES.class_names)
    given, changed = classifier.log_probabilities()[image], classifier.log_probabilities(labels)[image]
    assert np.isfinite(given).all()
    np.testing.assert_allclose(np.exp(changed), np.exp(given), atol=0.1)
    assert classifier.classes[int(given.argmax())] == IMAGES.class_names[IMAGES.labels[image]]


def test_removed_rows_are_left_out() -> None:
    weight = np.ones(len(NOISY.rows))
    weight[4::7] = 0
    tasks = TaskList(NOISY.rows.assign(weight=weight))
    loaded = trained().with_tasks(tasks)
    tables = row_scores(loaded, labels_of(loaded), directions(), UnsavedSteps(), Progress(), {})
    tables = with_self_influence(loaded, tables, directions(), UnsavedSteps(), Progress(), {})
    in_use = tasks.rows[weight > 0].reset_index(drop=True)
    pd.testing.assert_frame_equal(tables["instances"][KEY], in_use[KEY])
    assert set(tables["images"]["image_id"]) == set(in_use["image_id"])
    assert np.isfinite(tables["images"].select_dtypes("number").to_numpy()).all()
    assert (tables["instances"]["self_influence"] > 0).all()


def test_images_that_cannot_be_mislabelled_are_not_measured() -> None:
    """Five images per class, whose rows disagree on it: no tasks can be drawn from them, and a note says so."""
    few = tiny_tasks(tiny_images(per_class=5), ways=3, shots=2, queries=3, count=6)
    few, _ = flip_labels(few, Noise.parse("tasks:1:0.8"), np.random.default_rng(0))
    found = recommend(trained().with_tasks(few), RecommendSettings(rounds=1), *UNSAVED)
    images = found.levels["images"]
    assert images.notes
    assert images.expected_wrong is None
    assert images.proposed == 0
    assert found.tables["images"]["probability"].isna().all()
    assert found.tables["images"]["suspicion"].notna().all()
    assert set(found.candidates["level"]) == {"tasks", "instances"}
    assert found.levels["tasks"].notes
    assert images.sentence
    assert images.proposal
    one = recommend(trained().with_tasks(few.select(few.task_ids[:1])), RecommendSettings(rounds=1), *UNSAVED)
    assert one.candidates.empty, "of one task, none can be noisy"
    assert [level.proposed for level in one.levels.values()] == [0, 0, 0]
