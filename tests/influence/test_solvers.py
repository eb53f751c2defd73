"""The solvers against dense linear algebra."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from core.errors import UserError
from core.influence.solvers import IndefiniteError, Product, conjugate_gradients, largest_eigenvalue


def symmetric(eigenvalues: list[float] | np.ndarray, seed: int = 0) -> Tensor:
    n = len(eigenvalues)
    q, _ = np.linalg.qr(np.random.default_rng(seed).normal(size=(n, n)))
    return torch.from_numpy(q @ np.diag(eigenvalues) @ q.T)


def times(matrix: Tensor) -> Product:
    return lambda v: matrix @ v


def vector(n: int, seed: int = 1) -> Tensor:
    return torch.from_numpy(np.random.default_rng(seed).normal(size=n))


@settings(max_examples=40)
@given(st.lists(st.floats(0.01, 100), min_size=1, max_size=12), st.sampled_from([0.0, 0.5]), st.integers(0, 100))
def test_a_solution_is_that_of_numpy(eigenvalues: list[float], shift: float, seed: int) -> None:
    c, b = symmetric(eigenvalues, seed), vector(len(eigenvalues), seed + 1)
    found = conjugate_gradients(times(c), b, shift=shift, tolerance=1e-12, iterations=200)
    want = np.linalg.solve(c.numpy() + shift * np.eye(len(eigenvalues)), b.numpy())
    assert np.linalg.norm(found.x.numpy() - want) <= 1e-7 * np.linalg.norm(want)
    assert found.converged
    assert found.residual <= 1.1e-12


def test_the_report_counts_products_and_measures_the_residual() -> None:
    c, b = symmetric(np.linspace(1, 1000, 30)), vector(30)
    products: list[Tensor] = []
    told: list[tuple[int, float]] = []

    def product(v: Tensor) -> Tensor:
        products.append(v)
        return c @ v

    found = conjugate_gradients(
        product, b, shift=0.1, tolerance=1e-9, iterations=6, on_iteration=lambda *both: told.append(both)
    )
    assert found.iterations == 6
    assert len(products) == 7  # one more for the residual
    assert [iteration for iteration, _ in told] == [1, 2, 3, 4, 5, 6]
    residual = float((b - c @ found.x - 0.1 * found.x).norm() / b.norm())
    assert found.residual == pytest.approx(residual, rel=1e-9)
    assert told[-1][1] == pytest.approx(residual, rel=1e-6)
    assert not found.converged


def test_ritz_values_lie_within_the_spectrum_and_reach_its_ends() -> None:
    eigenvalues = np.array([0.2, 1, 2, 5, 7, 11, 20, 31])
    c, b = symmetric(eigenvalues), vector(8)
    ends = [
        (found.smallest, found.largest)
        for found in (conjugate_gradients(times(c), b, shift=0.3, tolerance=1e-14, iterations=k) for k in (2, 4, 8))
    ]
    for smallest, largest in ends:
        assert 0.2 - 1e-8 <= smallest <= largest <= 31 + 1e-8
    assert ends[0][0] > ends[1][0] > ends[2][0]
    assert ends[2] == pytest.approx((0.2, 31), rel=1e-7)


def test_a_negative_eigenvalue_that_the_shift_lifts_is_reported() -> None:
    c = symmetric([-0.5, 1, 2, 3])
    found = conjugate_gradients(times(c), vector(4), shift=1, tolerance=1e-12, iterations=50)
    assert found.converged
    assert found.smallest == pytest.approx(-0.5)


@settings(max_examples=40)
@given(st.lists(st.floats(-10, 10), min_size=2, max_size=8), st.integers(0, 50))
def test_an_indefinite_curvature_is_reported_with_a_value_it_takes(eigenvalues: list[float], seed: int) -> None:
    eigenvalues = [-3.0, *eigenvalues]
    c = symmetric(eigenvalues, seed)
    with pytest.raises(IndefiniteError, match=r"indefinite.*Raise the damping above") as caught:
        conjugate_gradients(times(c), vector(len(eigenvalues), seed), shift=0.5, tolerance=1e-13, iterations=200)
    assert min(eigenvalues) - 1e-8 <= caught.value.curvature <= -0.5 + 1e-8


def test_more_damping_than_reported_can_be_needed_but_the_reported_value_is_true() -> None:
    c, b = symmetric([-4, -1, 2, 5]), vector(4)
    shift = 0.0
    met: list[float] = []
    while shift <= 4:
        with pytest.raises(IndefiniteError) as caught:
            conjugate_gradients(times(c), b, shift=shift, tolerance=1e-10)
        met.append(caught.value.curvature)
        assert -4 - 1e-9 <= met[-1] <= -shift
        shift = max(2 * shift, -2 * met[-1])
    assert conjugate_gradients(times(c), b, shift=shift, tolerance=1e-10).converged
    assert met


@pytest.mark.parametrize(
    ("b", "what"), [(torch.zeros(3), "is zero"), (torch.tensor([1, float("nan"), 0]), "is not finite")]
)
def test_a_right_hand_side_of_nothing_is_refused(b: Tensor, what: str) -> None:
    with pytest.raises(UserError, match=f"right-hand side of the solve {what}"):
        conjugate_gradients(lambda v: v, b, shift=1)


def test_a_product_that_is_not_finite_is_refused() -> None:
    with pytest.raises(UserError, match="product with the curvature is not finite"):
        conjugate_gradients(lambda v: v * float("nan"), torch.ones(3), shift=1)
    with pytest.raises(UserError, match="product with the curvature is not finite"):
        largest_eigenvalue(lambda v: v * float("nan"), torch.ones(3))


def test_the_arguments_are_left_as_they_were() -> None:
    b = vector(5)
    before = b.clone()
    conjugate_gradients(times(symmetric([1, 2, 3, 4, 5])), b, shift=0)
    assert torch.equal(b, before)


@settings(max_examples=40)
@given(st.lists(st.floats(-100, 100), min_size=1, max_size=8), st.integers(0, 50))
def test_the_largest_eigenvalue_is_found_in_as_many_steps_as_there_are(eigenvalues: list[float], seed: int) -> None:
    found = largest_eigenvalue(times(symmetric(eigenvalues, seed)), torch.zeros(len(eigenvalues), dtype=torch.float64))
    assert found == pytest.approx(max(eigenvalues), abs=1e-6 * max(1.0, *map(abs, eigenvalues)))


def test_a_few_steps_come_near_the_largest_eigenvalue_from_below() -> None:
    c = symmetric(np.r_[np.linspace(0, 10, 200), 50])
    found = largest_eigenvalue(times(c), torch.zeros(201, dtype=torch.float64), iterations=8)
    assert 49 < found <= 50 + 1e-9


def test_the_largest_eigenvalue_of_nothing_is_0() -> None:
    assert largest_eigenvalue(lambda v: 0 * v, torch.zeros(4, dtype=torch.float64)) == 0
