"""Closed-form classifiers of all classes on the features of images, with leave-one-out predictions.

The leave-one-out predictions of a linear classifier cost one fit, and no prediction for an image depends on its own
label.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.linalg import cholesky, solve_triangular
from scipy.optimize import minimize_scalar
from scipy.special import log_softmax
from sklearn.kernel_approximation import Nystroem

_SHRINKAGES = (0.1, 1.0)
"""Identity added to the covariance, relative to its mean variance; predictions are averaged over both."""
_RIDGES = (0.01, 0.1, 1.0)
"""Ridge penalties relative to the mean diagonal of the Gram matrix; the one of highest likelihood is used."""
_PASSES = 2
"""Fits; later ones weight images by the probability that their label is right."""
_LABEL_NOISE = 0.1
"""Share of label errors that is assumed when classifiers are fitted."""
_LANDMARKS = 1000
"""Components of the Nystroem approximation, and images that the kernel width is computed from."""
_TEMPERATURE_IMAGES = 3000
"""Images that temperatures are fitted to."""
_NEIGHBOURS = 3
_BLOCK = 2000
"""Rows of the distance matrix in memory at once."""


@dataclass(frozen=True, eq=False)
class LabelledFeatures:
    """n images with given classes.

    Attributes:
        features: ``(n, d)``.
        labels: ``(n,)``, below ``classes``.
        trust: ``(n,)`` initial weight of each label, in (0, 1].
    """

    features: np.ndarray
    labels: np.ndarray
    classes: int
    trust: np.ndarray

    @property
    def rows(self) -> np.ndarray:
        """``(n,)``: 0 ... n - 1, to index one entry per row."""
        return np.arange(len(self.labels))


def discriminant(data: LabelledFeatures) -> tuple[np.ndarray, np.ndarray]:
    """Return leave-one-out log-probabilities ``(n, classes)``, and the images in the covariance's metric ``(n, d)``.

    This is linear discriminant analysis, robust to label errors; better for many classes of few images. The row of the
    only image of a class is NaN. Log-probabilities are means over two strengths of shrinkage.
    """
    by_shrinkage, whitened = [], data.features
    for shrink in _SHRINKAGES:
        weights = data.trust.astype(np.float64)
        for _ in range(_PASSES):
            distances, whitened = _distances(data, weights, shrink)
            log_p = _calibrated(-distances / 2, data)[0]
            weights = _updated_trust(log_p, data)
        by_shrinkage.append(log_p)
    return log_softmax(np.mean(by_shrinkage, 0), 1), whitened


def kernel(data: LabelledFeatures) -> np.ndarray:
    """Return leave-one-out log-probabilities ``(n, classes)``.

    This is kernel ridge regression on Nystroem features (Williams & Seeger 2001); better for few classes of many
    images. Later fits weight images by the probability that their label is right. That helps only if the classes are
    well separated, so the fit of highest likelihood is returned.
    """
    x = data.features
    landmarks = x[np.random.default_rng(0).permutation(len(x))[:_LANDMARKS]]
    squares = (landmarks**2).sum(1)
    width = float(np.median(squares[:, None] + squares - 2 * landmarks @ landmarks.T)) or 1.0
    mapped = Nystroem(kernel="rbf", gamma=1 / width, n_components=min(_LANDMARKS, len(x)), random_state=0)
    z = mapped.fit_transform(x).astype(np.float32)
    z = np.c_[z, np.ones((len(z), 1), np.float32)]
    best, highest, trust = np.full((len(x), data.classes), np.nan), -np.inf, data.trust
    for _ in range(_PASSES):
        log_p, likelihood = _ridge(z, trust, data)
        if likelihood <= highest:
            break
        best, highest, trust = log_p, likelihood, _updated_trust(log_p, data)
    return best


def neighbours(whitened: np.ndarray, data: LabelledFeatures) -> np.ndarray:
    """Return ``(n,)``: the distance to the nearest other images of the given class minus that to other classes.

    ``whitened`` ``(n, d)`` are the images in a metric that separates classes.
    """
    squares = (whitened**2).sum(1)
    excess = np.zeros(len(whitened))
    for block in np.array_split(data.rows, -(-len(whitened) // _BLOCK)):
        distance = squares[block, None] + squares - 2 * whitened[block] @ whitened.T
        distance[np.arange(len(block)), block] = np.inf
        same = data.labels[block, None] == data.labels
        to_same, to_other = (_mean_nearest(np.where(mask, distance, np.inf)) for mask in (same, ~same))
        excess[block] = to_same - to_other
    return excess


def _mean_nearest(distance: np.ndarray) -> np.ndarray:
    """Return the mean of the smallest finite distances of every row; NaN if there is none."""
    nearest = np.partition(distance, _NEIGHBOURS - 1, 1)[:, :_NEIGHBOURS]
    finite = np.isfinite(nearest)
    with np.errstate(invalid="ignore"):
        return np.where(finite, nearest, 0).sum(1) / finite.sum(1)


def _distances(data: LabelledFeatures, weights: np.ndarray, shrink: float) -> tuple[np.ndarray, np.ndarray]:
    """Return squared distances ``(n, classes)`` to the class means, and the images ``(n, d)``, in the metric of the
    within-class covariance.

    The mean of the given class excludes the image. Distances are divided by ``1 + 1 / size``, the variance of the
    difference to a mean of that many images.
    """
    x, y, rows = data.features, data.labels, data.rows
    size = np.bincount(y, weights, data.classes)
    sums = np.zeros((data.classes, x.shape[1]))
    np.add.at(sums, y, weights[:, None] * x)
    means = (sums / np.maximum(size, 1e-12)[:, None]).astype(np.float32)
    residual = (x - means[y]) * np.sqrt(weights)[:, None].astype(np.float32)
    scatter = (residual.T @ residual).astype(np.float64)
    scatter += (shrink * np.trace(scatter) / len(scatter) + 1e-12) * np.eye(len(scatter))
    scatter /= max(weights.sum() - data.classes, 1.0)
    root = cholesky(scatter, lower=True)
    u, m = (solve_triangular(root, part.T, lower=True).T.astype(np.float32) for part in (x, means))
    distances = (u**2).sum(1)[:, None] + (m**2).sum(1) - 2 * u @ m.T
    distances /= (1 + 1 / np.maximum(size, 1e-3))[None].astype(np.float32)
    others = size[y] - weights
    own_means = (size[y][:, None] * m[y] - weights[:, None] * u) / np.maximum(others, 1e-12)[:, None]
    own_distance = ((u - own_means) ** 2).sum(1) / (1 + 1 / np.maximum(others, 1e-3))
    distances[:, size < 1e-6] = np.inf
    distances[rows, y] = np.where(others > 1e-6, own_distance, np.nan)
    return distances, u


def _ridge(z: np.ndarray, trust: np.ndarray, data: LabelledFeatures) -> tuple[np.ndarray, float]:
    """Return leave-one-out log-probabilities by the likeliest ridge regression on ``z``, and their log-likelihood."""
    target = np.zeros((len(z), data.classes), np.float32)
    target[data.rows, data.labels] = 1
    weighted = z * trust[:, None].astype(np.float32)
    gram, moment = (weighted.T @ z).astype(np.float64), (weighted.T @ target).astype(np.float64)
    fits = []
    for ridge in _RIDGES:
        root = cholesky(gram + ridge * np.trace(gram) / len(gram) * np.eye(len(gram)), lower=True)
        whitened = solve_triangular(root, z.T, lower=True).T.astype(np.float32)
        fitted = whitened @ solve_triangular(root, moment, lower=True).astype(np.float32)
        leverage = ((whitened**2).sum(1) * trust)[:, None]
        fits.append(_calibrated((fitted - leverage * target) / (1 - leverage), data))
    return max(fits, key=lambda fit: fit[1])


def _calibrated(logits: np.ndarray, data: LabelledFeatures) -> tuple[np.ndarray, float]:
    """Return log-probabilities at the temperature of highest likelihood, and that mean log-likelihood.

    A share of label errors is assumed, so that they do not flatten the probabilities of the rest.
    """
    predicted = np.flatnonzero(np.isfinite(logits[data.rows, data.labels]))
    sample = np.random.default_rng(0).permutation(predicted)[:_TEMPERATURE_IMAGES]

    def likelihood(log_scale: float, rows: np.ndarray) -> float:
        p = np.exp(log_softmax(np.exp(log_scale) * logits[rows], 1)[np.arange(len(rows)), data.labels[rows]])
        return float(np.average(np.log(_noisy(p, data.classes)), weights=data.trust[rows]))

    if not len(sample):
        return np.full_like(logits, np.nan), -np.inf
    optimum = minimize_scalar(lambda s: -likelihood(s, sample), bounds=(-6.0, 6.0), method="bounded")
    return log_softmax(np.exp(optimum.x) * logits, 1), -float(optimum.fun)


def log_pool(a: np.ndarray, b: np.ndarray, data: LabelledFeatures) -> np.ndarray:
    """Return the logarithmic pool of two classifiers with the weight of highest likelihood under label noise."""

    def likelihood(weight: float) -> float:
        log_p = log_softmax((1 - weight) * a[predicted] + weight * b[predicted], 1)
        p = np.exp(log_p[np.arange(len(predicted)), data.labels[predicted]])
        return float(np.log(_noisy(p, data.classes)).mean())

    predicted = np.flatnonzero(np.isfinite(a).all(1) & np.isfinite(b).all(1))
    optimum = minimize_scalar(lambda w: -likelihood(w), bounds=(0.0, 1.0), method="bounded", options={"xatol": 0.02})
    return log_softmax((1 - optimum.x) * a + optimum.x * b, 1)


def _noisy(p: np.ndarray, classes: int) -> np.ndarray:
    """Return the probability of observing a label whose class has probability ``p``, under label noise."""
    return (1 - _LABEL_NOISE) * p + _LABEL_NOISE / classes


def _updated_trust(log_p: np.ndarray, data: LabelledFeatures) -> np.ndarray:
    """Return ``(n,)`` weights of the labels times the probability, by a classifier, that they are right."""
    p = np.nan_to_num(np.exp(log_p[data.rows, data.labels]), nan=1.0)
    return data.trust * ((1 - _LABEL_NOISE) * p / _noisy(p, data.classes))
