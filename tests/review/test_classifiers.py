"""Leave-one-out predictions exclude the image and detect label errors."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from scipy.special import log_softmax
from sklearn.kernel_approximation import Nystroem
from sklearn.metrics import roc_auc_score

from core.review import classifiers
from core.review.classifiers import LabelledFeatures, discriminant, kernel, neighbours


def blobs(n: int = 60, classes: int = 3, d: int = 5, apart: float = 2.0, seed: int = 0) -> LabelledFeatures:
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, classes, n)
    features = apart * rng.normal(size=(classes, d))[labels] + rng.normal(size=(n, d))
    return LabelledFeatures((features - features.mean(0)).astype(np.float32), labels, classes, np.ones(n))


def without(given: LabelledFeatures, at: int) -> LabelledFeatures:
    keep = np.arange(len(given.labels)) != at
    return LabelledFeatures(given.features[keep], given.labels[keep], given.classes, given.trust[keep])


@pytest.mark.parametrize("trusted", [False, True])
def test_distances_to_the_given_class_mean_exclude_the_image(trusted: bool) -> None:
    given = blobs()
    weights = np.random.default_rng(1).uniform(0.2, 1, 60) if trusted else given.trust
    found, whitened = classifiers._distances(given, weights, 0.1)
    x, y = given.features.astype(np.float64), given.labels
    means = np.stack([np.average(x[y == c], axis=0, weights=weights[y == c]) for c in range(3)])
    scatter = np.einsum("n,ni,nj->ij", weights, x - means[y], x - means[y])
    metric = np.linalg.inv(
        (scatter + 0.1 * np.trace(scatter) / 5 * np.eye(5)) / (weights.sum() - 3)
    )  # shared by all: of it alone the image is no stranger
    expected = np.empty((60, 3))
    for at in range(60):
        for c in range(3):
            here = (y == c) & (np.arange(60) != at)
            off = x[at] - np.average(x[here], axis=0, weights=weights[here])
            expected[at, c] = off @ metric @ off / (1 + 1 / weights[here].sum())
    np.testing.assert_allclose(found, expected, rtol=1e-3, atol=1e-3)
    np.testing.assert_allclose(
        ((whitened[0] - whitened[1]) ** 2).sum(), (x[0] - x[1]) @ metric @ (x[0] - x[1]), rtol=1e-4
    )


def test_predictions_do_not_depend_on_the_images_own_label() -> None:
    """With random labels accuracy must be at chance; a fit that includes the label would be above it."""
    rng = np.random.default_rng(0)
    given = replace(blobs(200, 4, 30, apart=0.0), labels=rng.integers(0, 4, 200))
    for log_p in (discriminant(given)[0], kernel(given)):
        assert (log_p.argmax(1) == given.labels).mean() < 0.37  # 0.25 + 3.7 standard deviations


@pytest.mark.parametrize("trusted", [False, True])
def test_kernel_equals_refits_without_the_image(trusted: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """With fixed landmarks, ridge regression is refitted without each image."""
    monkeypatch.setattr(classifiers, "_RIDGES", (0.1,))
    caught: list[np.ndarray] = []

    def caught_logits(logits: np.ndarray, given: LabelledFeatures) -> tuple[np.ndarray, float]:
        caught.append(logits)
        return logits, 0.0

    monkeypatch.setattr(classifiers, "_calibrated", caught_logits)
    given = blobs(40)
    if trusted:
        given = replace(given, trust=np.random.default_rng(1).uniform(0.2, 1, 40))
    kernel(given)
    x, trust = given.features, given.trust
    width = np.median(((x[:, None] - x) ** 2).sum(-1))
    z = Nystroem(kernel="rbf", gamma=1 / width, n_components=40, random_state=0).fit_transform(x).astype(np.float64)
    z = np.c_[z, np.ones(40)]
    ridge = 0.1 * np.trace((z * trust[:, None]).T @ z) / 41
    target = np.eye(3)[given.labels]
    for at in range(40):
        keep = np.arange(40) != at
        some = z[keep] * trust[keep, None]
        fit = np.linalg.solve(some.T @ z[keep] + ridge * np.eye(41), some.T @ target[keep])
        np.testing.assert_allclose(caught[0][at], z[at] @ fit, atol=2e-3)


def test_neighbours_against_all_distances() -> None:
    given = blobs(50)
    found = neighbours(given.features, given)
    x = given.features.astype(np.float64)
    for at in range(50):
        distance = ((x - x[at]) ** 2).sum(1)
        distance[at] = np.inf
        own = np.sort(distance[(given.labels == given.labels[at]) & np.isfinite(distance)])[:3].mean()
        other = np.sort(distance[given.labels != given.labels[at]])[:3].mean()
        assert found[at] == pytest.approx(own - other, abs=1e-3)


@pytest.mark.parametrize("ask", [lambda g: discriminant(g)[0], kernel], ids=["discriminant", "kernel"])
def test_label_errors_in_blobs_are_found(ask: object) -> None:
    given = blobs(300, 4, 10)
    wrong = np.random.default_rng(3).permutation(300)[:30]
    labels = given.labels.copy()
    labels[wrong] = (labels[wrong] + 1) % 4
    corrupted = replace(given, labels=labels)
    log_p = ask(corrupted)  # type: ignore[operator]
    np.testing.assert_allclose(np.exp(log_p).sum(1), 1, rtol=1e-4)
    assert roc_auc_score(np.isin(np.arange(300), wrong), -log_p[np.arange(300), labels]) > 0.98
    assert (log_p[wrong].argmax(1) == given.labels[wrong]).mean() > 0.9
    near = neighbours(discriminant(corrupted)[1], corrupted)
    assert roc_auc_score(np.isin(np.arange(300), wrong), near) > 0.95


def test_the_only_image_of_a_class_has_no_prediction() -> None:
    given = blobs(40)
    labels = np.r_[3, given.labels[1:]]
    with_single = LabelledFeatures(given.features, labels, 4, given.trust)
    log_p, whitened = discriminant(with_single)
    assert np.isnan(log_p[0]).all()
    assert np.isfinite(np.exp(log_p[1:])).all()
    assert np.isfinite(whitened).all()
    assert (log_p[1:, :3].argmax(1) == labels[1:]).mean() > 0.8
    assert np.isfinite(kernel(with_single)).all()
    near = neighbours(whitened, with_single)
    assert np.isnan(near[0])
    assert np.isfinite(near[1:]).all()


def test_an_empty_class() -> None:
    given = replace(blobs(40), classes=4)
    log_p = discriminant(given)[0]
    assert np.exp(log_p[:, 3]).max() == 0
    assert np.isfinite(log_p[:, :3]).all()


def test_labels_of_low_trust_have_less_weight() -> None:
    given = blobs(80, 2, 4)
    wrong = np.flatnonzero(given.labels == 0)[:15]
    labels = given.labels.copy()
    labels[wrong] = 1
    blind = LabelledFeatures(given.features, labels, 2, np.ones(80))
    with_trust = replace(blind, trust=np.where(np.isin(np.arange(80), wrong), 0.05, 1.0))
    for ask in (lambda g: discriminant(g)[0], kernel):
        assert np.exp(ask(with_trust)[wrong, 0]).mean() >= np.exp(ask(blind)[wrong, 0]).mean()  # type: ignore[no-untyped-call]


def test_the_kernel_fit_of_highest_likelihood_is_returned(monkeypatch: pytest.MonkeyPatch) -> None:
    later = 0
    for seed in range(6):
        given = blobs(150, apart=seed / 2, seed=seed)
        wrong = np.random.default_rng(seed).random(150) < 0.15
        corrupted = replace(given, labels=np.where(wrong, (given.labels + 1) % 3, given.labels))
        found = kernel(corrupted)
        with monkeypatch.context() as patch:
            patch.setattr(classifiers, "_PASSES", 1)
            first = kernel(corrupted)
        p, before = (np.exp(log_p[corrupted.rows, corrupted.labels]) for log_p in (found, first))
        assert np.log(0.9 * p + 0.1 / 3).mean() >= np.log(0.9 * before + 0.1 / 3).mean() - 1e-9
        later += bool((found != first).any())
    assert 0 < later < 6


def test_the_temperature_is_calibrated() -> None:
    given = blobs(200)
    logits = log_softmax(np.random.default_rng(0).normal(size=(200, 3)) + 1.5 * np.eye(3)[given.labels], 1)
    log_p = classifiers._calibrated(logits, given)[0]
    rescaled = classifiers._calibrated(7 * logits, given)[0]
    np.testing.assert_allclose(log_p, rescaled, atol=0.02)
