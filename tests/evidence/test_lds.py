"""Subsets, and the correlation of predicted with measured losses."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import spearmanr

from core.evidence.lds import ceiling, correlations, lds, lds_difference, predicted_losses
from core.evidence.methods import ALL_METHODS, base, check_method, describe, kind
from core.evidence.subsets import subset_masks
from core.runtime.errors import UserError


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(0)


@given(st.integers(4, 60), st.integers(3, 30), st.integers(0, 5))
def test_halves_have_half_the_tasks_and_do_not_depend_on_the_count(tasks: int, count: int, seed: int) -> None:
    masks = subset_masks("half", tasks, count, seed)
    assert masks.shape == (count, tasks)
    assert (masks.sum(1) == tasks // 2).all()
    assert (subset_masks("half", tasks, count + 1, seed)[:count] == masks).all()


@given(st.integers(3, 40), st.integers(0, 5))
def test_leave_one_out_excludes_each_task_once(tasks: int, seed: int) -> None:
    masks = subset_masks("one", tasks, tasks, seed)
    assert (masks.sum(1) == tasks - 1).all()
    assert (masks.sum(0) == tasks - 1).all()


@pytest.mark.parametrize(
    ("values", "named"),
    [
        (("half", 3, 5), ("3 tasks",)),
        (("one", 5, 6), ("5", "6 subsets")),
    ],
)
def test_impossible_subsets_are_refused(values: tuple, named: tuple[str, ...]) -> None:
    with pytest.raises(UserError) as caught:
        subset_masks(*values)
    assert all(value in caught.value.what for value in named)


def test_a_prediction_sums_the_scores_of_excluded_tasks() -> None:
    scores = np.array([[1.0, 10.0], [2.0, 20.0], [4.0, 40.0]])
    masks = np.array([[True, False, False], [True, True, True]])
    np.testing.assert_allclose(predicted_losses(scores, masks), [[6.0, 60.0], [0.0, 0.0]])


def test_correlations_are_those_of_scipy(rng: np.random.Generator) -> None:
    a, b = rng.normal(size=(12, 5)).round(1), rng.normal(size=(12, 5)).round(1)  # rounded: with ties
    expected = [spearmanr(a[:, t], b[:, t]).statistic for t in range(5)]
    np.testing.assert_allclose(correlations(a, b), expected, atol=1e-12)
    assert (correlations(a * 0, b) == 0).all()


def test_true_scores_have_an_lds_of_1_and_their_negatives_of_minus_1(rng: np.random.Generator) -> None:
    scores, masks = rng.normal(size=(30, 4)), subset_masks("half", 30, 25)
    measured = predicted_losses(scores, masks) + 7.0
    found = lds(predicted_losses(scores, masks), measured)
    assert (found.mean, found.low, found.high) == pytest.approx((1, 1, 1))
    assert lds(predicted_losses(-scores, masks), measured).mean == pytest.approx(-1)


def test_the_interval_includes_0_for_noise_and_shrinks_with_more_subsets() -> None:
    widths = []
    for count in (10, 160):
        rng = np.random.default_rng(3)
        found = lds(rng.normal(size=(count, 3)), rng.normal(size=(count, 3)))
        assert found.low < found.mean < found.high
        assert found.low < 0 < found.high
        widths.append(found.high - found.low)
    assert widths[1] < widths[0] / 2


def test_the_ceiling_is_the_agreement_of_seeds(rng: np.random.Generator) -> None:
    signal, noise = rng.normal(size=(40, 1, 6)), rng.normal(size=(40, 4, 6))
    assert ceiling(signal + 0 * noise).mean == pytest.approx(1)
    assert abs(ceiling(noise).mean) < 0.2
    one, more = ceiling(signal + noise[:, :2]), ceiling(signal + noise)
    assert 0.2 < one.mean < more.mean < 0.9  # means of two seeds agree better than single ones
    assert ceiling(noise[:, :1]) is None


def test_the_ceiling_takes_an_odd_number_of_seeds(rng: np.random.Generator) -> None:
    found = ceiling(rng.normal(size=(20, 1, 3)) + 0.01 * rng.normal(size=(20, 3, 3)))
    assert found is not None
    assert found.mean > 0.95


def test_a_difference_is_paired(rng: np.random.Generator) -> None:
    scores, masks = rng.normal(size=(30, 4)), subset_masks("half", 30, 25)
    truth = predicted_losses(scores, masks)
    worse = truth + 2 * rng.normal(size=truth.shape)
    gap = lds_difference(truth, worse, truth)
    assert gap.low > 0
    assert lds_difference(truth, truth, truth).high == 0


def test_every_method_has_a_kind_and_a_description() -> None:
    assert {kind(name) for name in ALL_METHODS} == {"influence", "baseline", "combination"}
    assert all(describe(name) for name in ALL_METHODS)
    varied = "task-if:damping=0.01:solver=low-rank:rank=20"
    check_method(varied)
    assert base(varied) == "task-if"
    assert "damping=0.01" in describe(varied)


@pytest.mark.parametrize(
    ("name", "named"),
    [
        ("guess", "'guess'"),
        ("loss:damping=1", "loss"),
        ("task-if:colour=red", "'colour'"),
        ("task-if:rank=many", "'many'"),
        ("task-if:solver=dual", "dual"),
    ],
)
def test_unknown_methods_and_parts_are_refused(name: str, named: str) -> None:
    with pytest.raises(UserError) as caught:
        check_method(name)
    assert named in caught.value.what
