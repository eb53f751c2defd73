"""The pooled classifier and what works on it: EK-FAC influence and confident learning."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
import torch
import torch.nn.functional as F
from sklearn.metrics import roc_auc_score
from torch.utils.data import TensorDataset

from core.baselines.confidence import self_confidence
from core.baselines.ekfac import ekfac_mean_scores, ekfac_scores, row_scores
from core.baselines.pooled import PooledNet, codes, distinct_rows, pixels, train_pooled
from core.data import ImageSet, load_images
from core.runtime.errors import UserError
from core.tasks.tasklist import TaskList, from_rows
from tests.problems import tiny_images, tiny_tasks


def digits(classes: int, per_class: int) -> ImageSet:
    full = load_images("mnist5k")
    keep = np.concatenate([np.flatnonzero(full.labels == c)[:per_class] for c in range(classes)])
    return ImageSet("some", full.images[keep], full.labels[keep], full.class_names[:classes], full.ids[keep])


@pytest.fixture(scope="module")
def problem() -> tuple[ImageSet, TaskList, TaskList]:
    images = tiny_images()
    train = tiny_tasks(images, ways=3, shots=2, queries=2, count=6)
    return images, train, tiny_tasks(images, ways=3, shots=1, queries=2, count=3, seed=4)


def test_rows_are_pooled_once_and_removed_rows_excluded(problem: tuple[ImageSet, TaskList, TaskList]) -> None:
    _, train, _ = problem
    rows = distinct_rows(train)
    assert len(rows) == len(set(zip(train.rows["image_id"], train.rows["class"], strict=True)))
    is_removed = train.rows["task_id"] == train.task_ids[0]
    left = distinct_rows(TaskList(train.rows.assign(weight=np.where(is_removed, 0.0, 1.0))))
    assert set(left["image_id"]) == set(train.rows.loc[~is_removed, "image_id"])
    with pytest.raises(UserError):
        distinct_rows(TaskList(train.rows.assign(weight=0.0)))


@pytest.mark.parametrize("shape", [(7, 7, 1), (28, 28, 1), (84, 60, 3)])
def test_the_pooled_net_takes_images_of_any_size(shape: tuple[int, int, int]) -> None:
    height, width, channels = shape
    assert PooledNet(channels, 5)(torch.rand(2, channels, height, width)).shape == (2, 5)


def test_training_learns_depends_on_the_seed_only_and_leaves_the_global_generator() -> None:
    images = digits(3, 40)
    x = pixels(images, pd.Series(images.ids))
    before = torch.get_rng_state()
    nets = [train_pooled(x, images.labels, 3, epochs=25, seed=seed, device="cpu") for seed in (1, 1, 2)]
    assert torch.equal(before, torch.get_rng_state())
    first, repeated, other = (net(x).detach() for net in nets)
    assert torch.equal(first, repeated)
    assert not torch.equal(first, other)
    assert (first.argmax(-1).numpy() == images.labels).mean() > 0.9


@pytest.mark.slow
def test_ekfac_finds_a_copy_of_the_query_helpful_and_a_mislabelled_copy_harmful() -> None:
    images = digits(3, 20)
    labels = images.labels.copy()
    wrong = np.arange(0, 60, 20)
    x = torch.cat([pixels(images, pd.Series(images.ids)), pixels(images, pd.Series(images.ids[wrong]))])
    labels = np.concatenate([labels, (labels[wrong] + 1) % 3])
    net = train_pooled(x, labels, 3, epochs=10, seed=0, device="cpu")
    query = TensorDataset(x[wrong], torch.from_numpy(labels[wrong]))
    scores = row_scores(net, TensorDataset(x, torch.from_numpy(labels)), query, seed=0)
    assert scores.shape == (63, 3)
    assert (scores[wrong, range(3)] > 0).all()
    assert (scores[[60, 61, 62], range(3)] < 0).all()


@pytest.mark.slow
def test_ekfac_predicts_the_loss_after_removing_a_row() -> None:
    """All rows fit one batch, so that retraining without a row takes the same steps on the others."""
    images = digits(2, 12)
    x, labels = pixels(images, pd.Series(images.ids)), images.labels.copy()
    labels[[0, 12]] = [1, 0]
    target = torch.from_numpy(labels)
    query_x, query_y = x[[5, 20]], target[[5, 20]]

    def query_losses(keep: np.ndarray) -> np.ndarray:
        net = train_pooled(x[keep], labels[keep], 2, epochs=12, seed=0, device="cpu")
        return F.cross_entropy(net(query_x), query_y, reduction="none").detach().numpy()

    everything = np.arange(24)
    base = query_losses(everything)
    change = np.array([query_losses(np.delete(everything, row)) - base for row in everything])
    net = train_pooled(x, labels, 2, epochs=12, seed=0, device="cpu")
    scores = row_scores(net, TensorDataset(x, target), TensorDataset(query_x, query_y), seed=0)
    for column in range(2):
        assert np.corrcoef(scores[:, column], change[:, column])[0, 1] > 0.8


@pytest.fixture(scope="module")
def by_ekfac(problem: tuple[ImageSet, TaskList, TaskList]) -> np.ndarray:
    return ekfac_scores(*problem, epochs=5, seed=0)


@pytest.mark.slow
def test_ekfac_of_a_task_is_the_sum_over_its_rows(
    problem: tuple[ImageSet, TaskList, TaskList], by_ekfac: np.ndarray
) -> None:
    (images, train, heldout), got = problem, by_ekfac
    assert got.shape == (6, 3)
    assert got.dtype == np.float64
    rows = distinct_rows(train)
    classes = sorted(set(rows["class"]))
    x, labels = pixels(images, rows["image_id"]), codes(rows["class"], classes)
    query = heldout.rows[(heldout.rows["task_id"] == heldout.task_ids[1]) & (heldout.rows["role"] == "query")]
    query_data = TensorDataset(pixels(images, query["image_id"]), torch.from_numpy(codes(query["class"], classes)))
    net = train_pooled(x, labels, len(classes), epochs=5, seed=0, device="cpu")
    pairs = row_scores(net, TensorDataset(x, torch.from_numpy(labels)), query_data, seed=0)
    by_row = dict(zip(zip(rows["image_id"], rows["class"], strict=True), pairs.mean(1), strict=True))
    for position, task_id in enumerate(train.task_ids):
        own = train.rows[train.rows["task_id"] == task_id]
        expected = sum(by_row[key] for key in zip(own["image_id"], own["class"], strict=True))
        assert got[position, 1] == pytest.approx(expected, rel=1e-4, abs=1e-6 * np.abs(got).max())


@pytest.mark.slow
def test_ekfac_of_all_targets_together_is_their_mean(
    problem: tuple[ImageSet, TaskList, TaskList], by_ekfac: np.ndarray
) -> None:
    each = by_ekfac.mean(1)
    together = ekfac_mean_scores(*problem, epochs=5, seed=0)
    factor = together[0] / each[0]
    assert factor > 0
    np.testing.assert_allclose(together, factor * each, rtol=1e-4, atol=1e-6 * np.abs(together).max())


@pytest.mark.slow
def test_ekfac_is_reproducible(problem: tuple[ImageSet, TaskList, TaskList], by_ekfac: np.ndarray) -> None:
    np.testing.assert_array_equal(ekfac_scores(*problem, epochs=5, seed=0), by_ekfac)


def test_a_pooled_model_cannot_score_other_classes(problem: tuple[ImageSet, TaskList, TaskList]) -> None:
    images, train, heldout = problem
    other = TaskList(heldout.rows.assign(**{"class": heldout.rows["class"].replace("3", "9")}))
    with pytest.raises(UserError, match="'9'"):
        ekfac_scores(images, train, other, epochs=1, seed=0)


def noisy_tasks(images: ImageSet, flipped: np.ndarray) -> TaskList:
    """All images in tasks of 30, every third image of a class a query; the flipped ones given the next class."""
    ways = len(images.class_names)
    given = np.where(flipped, (images.labels + 1) % ways, images.labels)
    order = np.random.default_rng(0).permutation(len(images))
    rows = pd.DataFrame(
        {
            "task_id": [f"t{position // 30}" for position in range(len(order))],
            "role": ["query" if position % 3 == 0 else "support" for position in range(len(order))],
            "image_id": images.ids[order],
            "label": given[order],
            "class": np.array(images.class_names)[given[order]],
        }
    )
    return from_rows(rows, source="test", images=images)


def test_flipped_labels_have_little_self_confidence() -> None:
    images = digits(3, 100)
    flipped = np.zeros(300, dtype=bool)
    flipped[np.random.default_rng(1).choice(300, 30, replace=False)] = True
    table = self_confidence(images, noisy_tasks(images, flipped), epochs=16, seed=0)
    assert list(table.columns) == ["image_id", "class", "self_confidence"]
    assert len(table) == 300
    assert table["self_confidence"].between(0, 1).all()
    is_flipped = table["image_id"].map(dict(zip(images.ids, flipped, strict=True)))
    assert roc_auc_score(is_flipped, -table["self_confidence"]) > 0.9


def test_an_image_with_two_classes_has_a_row_for_each(problem: tuple[ImageSet, TaskList, TaskList]) -> None:
    images, train, _ = problem
    twice = train.rows[train.rows["task_id"] == train.task_ids[0]].assign(task_id="twice")
    names = sorted(set(twice["class"]))
    turned = twice["class"].map(dict(zip(names, names[1:] + names[:1], strict=True)))
    tasks = from_rows(pd.concat([train.rows, twice.assign(**{"class": turned})]), source="test")
    table = self_confidence(images, tasks, folds=2, epochs=1, seed=0)
    pd.testing.assert_frame_equal(table[["image_id", "class"]], distinct_rows(tasks))
    assert table["image_id"].duplicated().any()


@pytest.mark.parametrize("folds", [1, 100])
def test_folds_must_fit_the_smallest_class(problem: tuple[ImageSet, TaskList, TaskList], folds: int) -> None:
    images, train, _ = problem
    with pytest.raises(UserError, match=f"{folds} folds"):
        self_confidence(images, train, folds=folds, epochs=1, seed=0)
