"""Classifiers of all classes at once on what the model sees, in closed form, each image left out in turn.

Where cross-validation trains a network a fold, a linear head has its leave-one-out answers for the price of one fit.
What they say of an image therefore never comes from its own label.

- :func:`discriminant`: linear discriminant analysis, robust to wrong labels; good for many classes of few images.
- :func:`kernel`: kernel ridge regression on Nystroem features (Williams & Seeger 2001); better where classes are few
  and images many.
- :func:`neighbours`: the nearest other images.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.linalg import cholesky, solve_triangular
from scipy.optimize import minimize_scalar
from scipy.special import log_softmax
from sklearn.kernel_approximation import Nystroem

_SHRINKS = (0.1, 1.0)
_RIDGES = (0.01, 0.1, 1.0)
_PASSES = 2  # fits; the later ones trust images the less, the worse their label looked before
_PRIOR = 0.1  # share of wrong labels that is reckoned with
_LANDMARKS = 1000
_TRIED = 3000  # images that temperatures are fitted to
_NEIGHBOURS = 3


@dataclass(frozen=True, eq=False)
class Labelled:
    """Images and the classes they are given: features ``(n, d)``, labels ``(n,)`` among ``classes``, and how much each
    label is trusted at first, ``(n,)`` in (0, 1]."""

    features: np.ndarray
    labels: np.ndarray
    classes: int
    trust: np.ndarray

    @property
    def at(self) -> np.ndarray:
        return np.arange(len(self.labels))


def discriminant(given: Labelled) -> tuple[np.ndarray, np.ndarray]:
    """Log-probabilities ``(n, classes)``, each row from a fit without it, NaN for the only image of a class; and the
    images in the metric of the covariance within classes, ``(n, d)``.

    The log-probabilities are means over two strengths of shrinking.
    """
    found, placed = [], given.features
    for shrink in _SHRINKS:
        weights = given.trust.astype(np.float64)
        for _ in range(_PASSES):
            distances, placed = _distances(given, weights, shrink)
            log_p = _tempered(-distances / 2, given)[0]
            own = np.exp(log_p[given.at, given.labels])
            weights = given.trust * _right(np.nan_to_num(own, nan=1.0), given.classes)
        found.append(log_p)
    return log_softmax(np.mean(found, 0), 1), placed


def kernel(given: Labelled) -> np.ndarray:
    """Log-probabilities ``(n, classes)``, each row from a fit without it.

    The later fits trust images the less, the worse their label looked before. That helps where the classes are told
    apart well and misleads where they are not: of the fits, that stays which finds the labels likeliest.
    """
    x = given.features
    some = x[np.random.default_rng(0).permutation(len(x))[:1000]]
    squares = (some**2).sum(1)
    width = float(np.median(squares[:, None] + squares - 2 * some @ some.T)) or 1.0
    mapped = Nystroem(kernel="rbf", gamma=1 / width, n_components=min(_LANDMARKS, len(x)), random_state=0)
    z = mapped.fit_transform(x).astype(np.float32)
    z = np.c_[z, np.ones((len(z), 1), np.float32)]
    best, highest, trust = np.full((len(x), given.classes), np.nan), -np.inf, given.trust
    for _ in range(_PASSES):
        log_p, likelihood = _ridge(z, trust, given)
        if likelihood <= highest:
            break
        best, highest = log_p, likelihood
        own = np.nan_to_num(np.exp(log_p[given.at, given.labels]), nan=1.0)
        trust = given.trust * _right(own, given.classes)
    return best


def neighbours(placed: np.ndarray, given: Labelled) -> np.ndarray:
    """``(n,)``: by how much the nearest other images of the own class are farther off than those of other classes.

    Args:
        placed: ``(n, d)``: the images in a metric in which distances tell classes apart.
    """
    squares = (placed**2).sum(1)
    further = np.zeros(len(placed))
    for here in np.array_split(given.at, -(-len(placed) // 2000)):
        distance = squares[here, None] + squares - 2 * placed[here] @ placed.T
        distance[np.arange(len(here)), here] = np.inf
        same = given.labels[here, None] == given.labels
        own, other = (_nearest(np.where(which, distance, np.inf)) for which in (same, ~same))
        further[here] = own - other
    return further


def _nearest(distance: np.ndarray) -> np.ndarray:
    """Mean of the few smallest finite distances of every row; NaN where there is none."""
    few = np.partition(distance, _NEIGHBOURS - 1, 1)[:, :_NEIGHBOURS]
    finite = np.isfinite(few)
    with np.errstate(invalid="ignore"):
        return np.where(finite, few, 0).sum(1) / finite.sum(1)


def _distances(given: Labelled, weights: np.ndarray, shrink: float) -> tuple[np.ndarray, np.ndarray]:
    """Squared distances ``(n, classes)`` to the class means in the metric of the covariance within classes, the own
    mean without the image; by ``1 + 1 / size`` less, as a mean of few images lies off by itself."""
    x, y, at = given.features, given.labels, given.at
    size = np.bincount(y, weights, given.classes)
    sums = np.zeros((given.classes, x.shape[1]))
    np.add.at(sums, y, weights[:, None] * x)
    means = (sums / np.maximum(size, 1e-12)[:, None]).astype(np.float32)
    residual = (x - means[y]) * np.sqrt(weights)[:, None].astype(np.float32)
    scatter = (residual.T @ residual).astype(np.float64)
    scatter += (shrink * np.trace(scatter) / len(scatter) + 1e-12) * np.eye(len(scatter))
    scatter /= max(weights.sum() - given.classes, 1.0)
    root = cholesky(scatter, lower=True)
    u, m = (solve_triangular(root, part.T, lower=True).T.astype(np.float32) for part in (x, means))
    distances = (u**2).sum(1)[:, None] + (m**2).sum(1) - 2 * u @ m.T
    distances /= (1 + 1 / np.maximum(size, 1e-3))[None].astype(np.float32)
    others = size[y] - weights
    own = (size[y][:, None] * m[y] - weights[:, None] * u) / np.maximum(others, 1e-12)[:, None]
    own_distance = ((u - own) ** 2).sum(1) / (1 + 1 / np.maximum(others, 1e-3))
    distances[:, size < 1e-6] = np.inf
    distances[at, y] = np.where(others > 1e-6, own_distance, np.nan)
    return distances, u


def _ridge(z: np.ndarray, trust: np.ndarray, given: Labelled) -> tuple[np.ndarray, float]:
    """Log-probabilities by ridge regression of the classes on ``z``, each row left out, and how well they suit: of the
    ridges that suits best."""
    target = np.zeros((len(z), given.classes), np.float32)
    target[given.at, given.labels] = 1
    weighted = z * trust[:, None].astype(np.float32)
    gram, moment = (weighted.T @ z).astype(np.float64), (weighted.T @ target).astype(np.float64)
    fits = []
    for ridge in _RIDGES:
        root = cholesky(gram + ridge * np.trace(gram) / len(gram) * np.eye(len(gram)), lower=True)
        half = solve_triangular(root, z.T, lower=True).T.astype(np.float32)
        fitted = half @ solve_triangular(root, moment, lower=True).astype(np.float32)
        lever = ((half**2).sum(1) * trust)[:, None]
        fits.append(_tempered((fitted - lever * target) / (1 - lever), given))
    return max(fits, key=lambda fit: fit[1])


def _tempered(logits: np.ndarray, given: Labelled) -> tuple[np.ndarray, float]:
    """Log-probabilities at the temperature that suits the labels best, and how well it does.

    A share of wrong labels is reckoned with, so that these do not flatten the rest.
    """
    known = np.flatnonzero(np.isfinite(logits[given.at, given.labels]))
    some = np.random.default_rng(0).permutation(known)[:_TRIED]

    def likelihood(log_scale: float, here: np.ndarray) -> float:
        p = np.exp(log_softmax(np.exp(log_scale) * logits[here], 1)[np.arange(len(here)), given.labels[here]])
        return float(np.average(np.log((1 - _PRIOR) * p + _PRIOR / given.classes), weights=given.trust[here]))

    if not len(some):
        return np.full_like(logits, np.nan), -np.inf
    found = minimize_scalar(lambda s: -likelihood(s, some), bounds=(-6.0, 6.0), method="bounded")
    return log_softmax(np.exp(found.x) * logits, 1), -float(found.fun)


def _right(own: np.ndarray, classes: int) -> np.ndarray:
    """Probability that a label is right, where the classifier gives it the probability ``own``."""
    return (1 - _PRIOR) * own / ((1 - _PRIOR) * own + _PRIOR / classes)
