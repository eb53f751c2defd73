"""Probabilities are calibrated, also where the copies hold errors of the data, and near 0 on clean data."""

from __future__ import annotations

import numpy as np
import pytest

from core.recommendation.probability import fit_error_odds, wrong_probabilities

N = 4000


def draw(rng: np.random.Generator, share: float, n: int = N) -> tuple[np.ndarray, np.ndarray]:
    """Losses of which the wrong ones are larger by 2.5 standard deviations, and which are wrong."""
    wrong = rng.random(n) < share
    return rng.normal(size=n) + 2.5 * wrong, wrong


def estimated(natural: float, given: float, injected: float = 0.1, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Return probabilities and truth of data with a share ``given`` of errors; the copies have ``natural`` ones too."""
    rng = np.random.default_rng(seed)
    scores, marks = [], []
    for _ in range(2):
        x, _ = draw(rng, natural)
        is_injected = rng.random(N) < injected
        x[is_injected] = rng.normal(size=is_injected.sum()) + 2.5
        scores.append(x)
        marks.append(is_injected)
    x, wrong = draw(rng, given)
    return wrong_probabilities(fit_error_odds(scores, marks), x, x), wrong


@pytest.mark.parametrize(("natural", "given"), [(0.0, 0.1), (0.0, 0.4), (0.1, 0.1), (0.2, 0.2), (0.0, 0.01)])
def test_probabilities_are_calibrated(natural: float, given: float) -> None:
    p, wrong = estimated(natural, given)
    assert p.sum() == pytest.approx(wrong.sum(), rel=0.25, abs=0.01 * N)
    proposed = p >= 0.5
    assert p[proposed].mean() - wrong[proposed].mean() < 0.05, (
        "of few errors it is too low: unusual items are allowed for"
    )
    assert p[proposed].mean() - wrong[proposed].mean() > -0.12 or given < 0.05
    assert proposed.sum() > 0.3 * wrong.sum() or given < 0.05


@pytest.mark.parametrize("seed", range(4))
def test_nothing_is_proposed_on_clean_data(seed: int) -> None:
    p, _ = estimated(0.0, 0.0, seed=seed)
    assert not (p >= 0.5).any()
    assert p.sum() < 0.005 * N


def test_separated_errors_give_finite_odds() -> None:
    x = np.r_[np.zeros(50), np.full(10, 9.0)]
    wrong = x > 0
    p = wrong_probabilities(fit_error_odds([x, x], [wrong, wrong]), x, x)
    assert p[~wrong].max() < 0.1
    assert p[wrong].min() > 0.9


def test_probabilities_decrease_along_the_recommended_order() -> None:
    rng = np.random.default_rng(1)
    x, wrong = draw(rng, 0.3)
    suspicion = x + rng.normal(size=N)
    p = wrong_probabilities(fit_error_odds([x], [wrong]), x, suspicion)
    assert (np.diff(p[np.argsort(-suspicion)]) <= 1e-12).all()
    assert p.sum() == pytest.approx(wrong.sum(), rel=0.1)


def test_a_useless_score_proposes_nothing() -> None:
    rng = np.random.default_rng(2)
    x, wrong = rng.normal(size=500), rng.random(500) < 0.1
    p = wrong_probabilities(fit_error_odds([x], [wrong]), x, x)
    assert (p < 0.5).all()
