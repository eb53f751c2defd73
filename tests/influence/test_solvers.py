"""The solvers against dense linear algebra."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from core.influence.curvature import CURVATURES
from core.influence.methods import SolveSettings
from core.influence.settings import SOLVERS, FitError, check_fits
from core.influence.solvers import (
    DIVERGED,
    NO_DAMPING,
    NOT_FINITE,
    RIGHT_HAND_SIDE,
    Basis,
    IndefiniteError,
    Product,
    SolveError,
    conjugate_gradients,
    dual,
    lanczos,
    low_rank,
    neumann,
    residual_sketch,
    sketched_residual,
)
from core.runtime.settings import SettingError
from tests.properties import examples


@contextmanager
def fails(reason: str) -> Iterator[pytest.ExceptionInfo[SolveError]]:
    with pytest.raises(SolveError) as caught:
        yield caught
    assert caught.value.reason == reason


def symmetric(eigenvalues: list[float] | np.ndarray, seed: int = 0) -> Tensor:
    n = len(eigenvalues)
    q, _ = np.linalg.qr(np.random.default_rng(seed).normal(size=(n, n)))
    return torch.from_numpy(q @ np.diag(eigenvalues) @ q.T)


def times(matrix: Tensor) -> Product:
    return lambda v: matrix @ v


def vector(n: int, seed: int = 1) -> Tensor:
    return torch.from_numpy(np.random.default_rng(seed).normal(size=n))


@examples(40)
@given(st.lists(st.floats(0.01, 100), min_size=1, max_size=12), st.sampled_from([0.0, 0.5]), st.integers(0, 100))
def test_a_solution_equals_that_of_numpy(eigenvalues: list[float], shift: float, seed: int) -> None:
    c, b = symmetric(eigenvalues, seed), vector(len(eigenvalues), seed + 1)
    condition = (max(eigenvalues) + shift) / (min(eigenvalues) + shift)
    # A residual that is computed has an error of up to n eps |A| |x|, which is up to n eps condition |b| (Higham 2002,
    # section 3.5); no solver is sure to get below that.
    tolerance = max(1e-12, len(eigenvalues) * np.finfo(float).eps * condition)
    solution = conjugate_gradients(times(c), b, shift=shift, tolerance=tolerance, iterations=200)
    expected = np.linalg.solve(c.numpy() + shift * np.eye(len(eigenvalues)), b.numpy())
    assert np.linalg.norm(solution.x.numpy() - expected) <= 1e-7 * np.linalg.norm(expected)
    assert solution.converged
    assert solution.residual <= tolerance


def test_the_report_counts_products_and_measures_the_residual() -> None:
    c, b = symmetric(np.linspace(1, 1000, 30)), vector(30)
    products: list[Tensor] = []
    calls: list[tuple[int, float]] = []

    def product(v: Tensor) -> Tensor:
        products.append(v)
        return c @ v

    solution = conjugate_gradients(
        product, b, shift=0.1, tolerance=1e-9, iterations=6, on_iteration=lambda *call: calls.append(call)
    )
    assert solution.iterations == 6
    assert solution.products == len(products) == 7  # one more for the residual
    assert (solution.replacements, solution.stagnated) == (0, False)
    assert [iteration for iteration, _ in calls] == [1, 2, 3, 4, 5, 6]
    residual = float((b - c @ solution.x - 0.1 * solution.x).norm() / b.norm())
    assert solution.residual == pytest.approx(residual, rel=1e-9)
    assert calls[-1][1] == pytest.approx(residual, rel=1e-6)
    assert not solution.converged


class CoarseAtFirst:
    """Products with a matrix of which the first few are wrong by a share of ``|C| |v|``, as coarse rounding is.

    The error is far above that of any processor, so that the recursive and the true residual part everywhere alike.
    """

    def __init__(self, matrix: Tensor, share: float = 1e-4, few: int = 3) -> None:
        self.matrix, self.error, self.few, self.count = matrix, share * torch.linalg.norm(matrix, 2), few, 0

    def __call__(self, v: Tensor) -> Tensor:
        self.count += 1
        exact = self.matrix @ v
        return exact + self.error * v.roll(1) if self.count <= self.few else exact


def rounded(matrix: Tensor) -> Product:
    """Products that are rounded to float32."""
    return lambda v: (matrix @ v).float().double()


@pytest.mark.parametrize("preconditioned", [False, True])
def test_a_recursive_residual_below_the_tolerance_is_replaced_by_the_true_one_above_it(preconditioned: bool) -> None:
    c, b = symmetric(np.r_[np.linspace(0.1, 1, 30), 50.0]), vector(31)
    product = CoarseAtFirst(c)
    precondition = Basis(*(part[-1:] for part in (full_basis(c).vectors, full_basis(c).values))).inverse(0.2)
    recursive: list[float] = []
    solution = conjugate_gradients(
        product,
        b,
        shift=0.2,
        tolerance=1e-9,
        iterations=200,
        precondition=precondition if preconditioned else None,
        on_iteration=lambda _, residual: recursive.append(residual),
    )
    assert min(recursive[:-1]) <= 1e-9  # conjugate gradients would have ended there
    assert solution.converged
    assert relative(c @ solution.x + 0.2 * solution.x, b) <= 1e-9
    assert (solution.replacements, solution.stagnated) == (1, False)
    assert solution.iterations == len(recursive) < 200
    assert solution.products == product.count == solution.iterations + 2
    assert -0.1 <= solution.smallest <= solution.largest <= 50.1  # three products are wrong by 0.005 |v|


def test_stagnation_is_reported_and_the_best_solution_returned() -> None:
    c, b = symmetric(np.logspace(-3, 0, 20)), vector(20)
    product = rounded(c)
    solution = conjugate_gradients(product, b, shift=0, tolerance=1e-13, iterations=10_000)
    assert (solution.converged, solution.stagnated) == (False, True)
    assert solution.replacements >= 1
    assert solution.iterations < 10_000
    assert solution.residual == pytest.approx(relative(product(solution.x), b), rel=1e-12)
    assert solution.residual <= 1e-4  # 20 roundings of |C x| = 1000 |b| at most


def test_too_few_iterations_are_not_stagnation() -> None:
    c, b = symmetric(np.linspace(1, 1000, 30)), vector(30)
    solution = conjugate_gradients(times(c), b, shift=0, tolerance=1e-9, iterations=6)
    assert (solution.converged, solution.stagnated, solution.replacements) == (False, False, 0)


@pytest.mark.parametrize("smallest", [0.0, 1e-30])
def test_a_singular_system_is_not_solved_by_restarts(smallest: float) -> None:
    c, b = symmetric([smallest, 1, 2, 3, 50]), vector(5)
    try:
        solution = conjugate_gradients(times(c), b, shift=0, tolerance=1e-10, iterations=500)
    except IndefiniteError:
        return  # rounding may make the curvature of the null space negative
    assert not solution.converged
    assert solution.residual > 1e-10


def test_ritz_values_lie_within_the_spectrum_and_reach_its_extremes() -> None:
    eigenvalues = np.array([0.2, 1, 2, 5, 7, 11, 20, 31])
    c, b = symmetric(eigenvalues), vector(8)
    ends = [
        (solution.smallest, solution.largest)
        for solution in (conjugate_gradients(times(c), b, shift=0.3, tolerance=1e-14, iterations=k) for k in (2, 4, 8))
    ]
    for smallest, largest in ends:
        assert 0.2 - 1e-8 <= smallest <= largest <= 31 + 1e-8
    assert ends[0][0] > ends[1][0] > ends[2][0]
    assert ends[2] == pytest.approx((0.2, 31), rel=1e-7)


def test_a_negative_eigenvalue_above_minus_the_shift_is_reported() -> None:
    c = symmetric([-0.5, 1, 2, 3])
    solution = conjugate_gradients(times(c), vector(4), shift=1, tolerance=1e-12, iterations=50)
    assert solution.converged
    assert solution.smallest == pytest.approx(-0.5)


@examples(40)
@given(st.lists(st.floats(-10, 10), min_size=2, max_size=8), st.integers(0, 50))
def test_an_indefinite_curvature_is_reported_with_one_of_its_values(eigenvalues: list[float], seed: int) -> None:
    eigenvalues = [-3.0, *eigenvalues]
    c = symmetric(eigenvalues, seed)
    with pytest.raises(IndefiniteError) as caught:
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


@pytest.mark.parametrize(("b", "what"), [(torch.zeros(3), "zero"), (torch.tensor([1, float("nan"), 0]), "not finite")])
def test_a_zero_or_nan_right_hand_side_is_refused(b: Tensor, what: str) -> None:
    with fails(RIGHT_HAND_SIDE) as caught:
        conjugate_gradients(lambda v: v, b, shift=1)
    assert what in caught.value.what


def test_a_product_that_is_not_finite_is_refused() -> None:
    with fails(NOT_FINITE):
        conjugate_gradients(lambda v: v * float("nan"), torch.ones(3), shift=1)
    with fails(NOT_FINITE):
        lanczos(lambda v: v * float("nan"), torch.ones(3), 8)


def test_the_arguments_are_not_modified() -> None:
    b = vector(5)
    before = b.clone()
    conjugate_gradients(times(symmetric([1, 2, 3, 4, 5])), b, shift=0)
    assert torch.equal(b, before)


@examples(40)
@given(st.lists(st.floats(-100, 100), min_size=1, max_size=8), st.integers(0, 50))
def test_as_many_steps_as_eigenvalues_give_the_largest_exactly(eigenvalues: list[float], seed: int) -> None:
    matrix = symmetric(eigenvalues, seed)
    largest = lanczos(times(matrix), torch.zeros(len(eigenvalues), dtype=torch.float64), 8).values[-1]
    assert largest == pytest.approx(max(eigenvalues), abs=1e-6 * max(1.0, *map(abs, eigenvalues)))


def test_a_few_steps_approach_the_largest_eigenvalue_from_below() -> None:
    c = symmetric(np.r_[np.linspace(0, 10, 200), 50])
    largest = lanczos(times(c), torch.zeros(201, dtype=torch.float64), 8).values[-1]
    assert 49 < largest <= 50 + 1e-9


def test_the_largest_eigenvalue_of_a_zero_matrix_is_0() -> None:
    assert lanczos(lambda v: 0 * v, torch.zeros(4, dtype=torch.float64), 8).values[-1] == 0


class Counted:
    """A product that counts how often it is asked."""

    def __init__(self, matrix: Tensor) -> None:
        self.matrix, self.count = matrix, 0

    def __call__(self, v: Tensor) -> Tensor:
        self.count += 1
        return self.matrix @ v


def relative(actual: Tensor, expected: Tensor) -> float:
    return float((actual - expected).norm() / expected.norm())


def dense_power(matrix: Tensor, shift: float, power: float) -> Tensor:
    """``(C + shift I)^-power`` by numpy's eigenvalues."""
    values, vectors = np.linalg.eigh(matrix.numpy() + shift * np.eye(len(matrix)))
    return torch.from_numpy(vectors @ np.diag(values**-power) @ vectors.T)


@examples(30)
@given(st.lists(st.floats(1, 30), min_size=1, max_size=12), st.sampled_from([0.0, 0.5]), st.integers(0, 100))
def test_the_neumann_series_is_numpys_solution(eigenvalues: list[float], shift: float, seed: int) -> None:
    c, b = symmetric(eigenvalues, seed), vector(len(eigenvalues), seed + 1)
    solution = neumann(times(c), b, shift=shift, largest=max(eigenvalues), tolerance=1e-11, iterations=2000)
    expected = np.linalg.solve(c.numpy() + shift * np.eye(len(eigenvalues)), b.numpy())
    assert np.linalg.norm(solution.x.numpy() - expected) <= 1e-9 * np.linalg.norm(expected)
    assert solution.converged
    assert solution.residual <= 1.1e-11
    assert min(eigenvalues) - 1e-8 <= solution.smallest <= solution.largest <= max(eigenvalues) + 1e-8


def test_a_truncated_neumann_series_has_not_converged_and_measures_its_residual() -> None:
    c, b = Counted(symmetric(np.linspace(1, 30, 20))), vector(20)
    calls: list[tuple[int, float]] = []
    solution = neumann(
        c, b, shift=0.2, largest=30, tolerance=1e-8, iterations=7, on_iteration=lambda *call: calls.append(call)
    )
    assert not solution.converged
    assert solution.iterations == c.count == 7
    assert [done for done, _ in calls] == list(range(1, 8))
    assert solution.residual == pytest.approx(relative(c.matrix @ solution.x + 0.2 * solution.x, b), rel=1e-9)
    assert calls[-1][1] == solution.residual > 1e-3


@pytest.mark.parametrize("share", [0.01, 0.1, 0.3])
def test_a_neumann_series_reports_divergence_if_the_largest_eigenvalue_is_underestimated(share: float) -> None:
    c, b = symmetric(np.linspace(1, 30, 20)), vector(20)
    with fails(DIVERGED):
        neumann(times(c), b, shift=0.1, largest=30 * share, iterations=500)


def test_a_neumann_series_reports_divergence_if_the_shifted_curvature_is_indefinite() -> None:
    c, b = symmetric([-1, 1, 2, 3]), vector(4)
    with fails(DIVERGED):
        neumann(times(c), b, shift=0.5, largest=3, tolerance=1e-6, iterations=500)
    assert neumann(times(c), b, shift=1.5, largest=3, tolerance=1e-6, iterations=500).converged


def test_a_neumann_series_refuses_products_that_are_not_finite_and_a_zero_right_hand_side() -> None:
    with fails(DIVERGED):
        neumann(lambda v: v * float("nan"), torch.ones(3), shift=1, largest=1)
    with fails(RIGHT_HAND_SIDE):
        neumann(lambda v: v, torch.zeros(3), shift=1, largest=1)


def full_basis(matrix: Tensor) -> Basis:
    return lanczos(times(matrix), matrix[0], len(matrix))


@examples(30)
@given(
    st.lists(st.floats(-0.5, 100), min_size=1, max_size=15),
    st.sampled_from([0.7, 3.0, 40.0]),
    st.integers(0, 100),
)
def test_a_basis_of_full_rank_is_the_inverse_and_its_root(eigenvalues: list[float], shift: float, seed: int) -> None:
    c, b = symmetric(eigenvalues, seed), vector(len(eigenvalues), seed + 1)
    # Equal eigenvalues end the recurrence early; spread them as real curvatures are.
    c = c + symmetric(np.linspace(0, 0.1, len(eigenvalues)), seed + 2)
    basis = full_basis(c)
    inverse, root = basis.inverse(shift), basis.inverse(shift, power=0.5)
    assert relative(inverse(b), dense_power(c, shift, 1) @ b) <= 1e-8
    assert relative(root(b), dense_power(c, shift, 0.5) @ b) <= 1e-8
    assert relative(root(root(b)), inverse(b)) <= 1e-8


def test_a_basis_of_low_rank_is_the_truncated_matrix() -> None:
    c, b = symmetric(np.r_[np.linspace(0, 1, 50), 20, 40, 80]), vector(53)
    basis = lanczos(times(c), b, 20)
    assert basis.values.tolist() == sorted(basis.values)
    truncated = basis.vectors.T @ torch.from_numpy(np.diag(basis.values)) @ basis.vectors
    for power in (1.0, 0.5):
        assert relative(basis.inverse(0.3, power)(b), dense_power(truncated, 0.3, power) @ b) <= 1e-10
    np.testing.assert_allclose(basis.values[-3:], [20, 40, 80], rtol=1e-8)
    for vector_, value in zip(basis.vectors[-3:], basis.values[-3:], strict=True):
        assert relative(c @ vector_, value * vector_) <= 1e-6


CLUSTERS = {
    "two far apart": np.r_[np.full(30, 1.0), np.full(30, 1000.0)],
    "nearly equal": np.r_[1 + 1e-9 * np.arange(30), 500 + 1e-7 * np.arange(30)],
    "falling fast": 1000 * 0.5 ** np.arange(60),
    "one far above": np.r_[1e6, np.linspace(0, 1, 59)],
    "both signs": np.r_[np.full(20, -3.0), np.linspace(0, 1e-6, 20), np.full(20, 7.0)],
}


@pytest.mark.parametrize("spectrum", CLUSTERS.values(), ids=CLUSTERS)
def test_the_vectors_of_a_basis_are_orthonormal_whatever_the_spectrum(spectrum: np.ndarray) -> None:
    c = symmetric(spectrum)
    basis = lanczos(times(c), c[0], 60)
    identity = torch.eye(len(basis.values), dtype=torch.float64)
    assert (basis.vectors @ basis.vectors.T - identity).abs().max() <= 1e-10
    quotients = (basis.vectors @ c * basis.vectors).sum(1)
    np.testing.assert_allclose(quotients, basis.values, atol=1e-10 * np.abs(spectrum).max())
    assert basis.values[-1] == pytest.approx(spectrum.max(), rel=1e-9)


def test_in_single_precision_the_vectors_are_orthonormal_too() -> None:
    c = symmetric(np.r_[1e4, np.linspace(0, 1, 79)]).float()
    basis = lanczos(times(c), c[0], 40)
    assert basis.vectors.dtype == torch.float32
    assert (basis.vectors @ basis.vectors.T - torch.eye(40)).abs().max() <= 1e-5


@pytest.mark.parametrize("rank", [1, 2, 7])
def test_a_basis_costs_as_many_products_as_its_rank(rank: int) -> None:
    c, calls = Counted(symmetric(np.linspace(0, 9, 30))), []
    basis = lanczos(c, c.matrix[0], rank, on_iteration=calls.append)
    assert c.count == len(basis.values) == len(basis.vectors) == rank
    assert calls == list(range(1, rank + 1))


def test_a_basis_stops_when_the_krylov_space_is_exhausted() -> None:
    c = Counted(symmetric(np.r_[np.zeros(27), 2, 5, 9]))
    basis = lanczos(c, c.matrix[0], 30)
    assert c.count == len(basis.values) == 4  # and one for all that is 0
    np.testing.assert_allclose(basis.values, [0, 2, 5, 9], atol=1e-9)
    assert relative(basis.inverse(0.4)(vector(30)), dense_power(c.matrix, 0.4, 1) @ vector(30)) <= 1e-8
    few = Counted(symmetric([1.0, 2.0]))
    assert len(lanczos(few, few.matrix[0], 10).values) == few.count == 2


def test_a_basis_with_an_eigenvalue_below_minus_the_shift_is_refused() -> None:
    basis = full_basis(symmetric([-2.0, 1, 3]))
    for shift in (0.5, 1.99):
        with pytest.raises(IndefiniteError) as caught:
            basis.inverse(shift)
        assert caught.value.curvature == pytest.approx(-2)
        assert "above 2" in caught.value.fix
    c, b = symmetric([-2.0, 1, 3]), vector(3)
    assert relative(basis.inverse(2.01)(b), dense_power(c, 2.01, 1) @ b) <= 1e-8


@pytest.mark.parametrize("shift", [0.0, -0.1])
def test_a_basis_without_a_shift_is_refused(shift: float) -> None:
    with fails(NO_DAMPING):
        full_basis(symmetric([1, 2, 3])).inverse(shift)


def test_a_basis_works_row_by_row() -> None:
    basis = lanczos(times(symmetric(np.linspace(0, 5, 12))), vector(12), 5)
    rows = torch.stack([vector(12, seed) for seed in range(4)])
    inverse = basis.inverse(0.2)
    assert inverse(rows).shape == (4, 12)
    assert relative(inverse(rows), torch.stack([inverse(row) for row in rows])) <= 1e-14


def test_a_low_rank_solve_reports_the_error_of_the_rank() -> None:
    c, b = symmetric(np.r_[np.linspace(0.1, 1, 40), 50, 90]), vector(42)
    complete = low_rank(times(c), b, full_basis(c), shift=0.5)
    assert complete.converged
    assert complete.residual <= 1e-10
    assert relative(complete.x, dense_power(c, 0.5, 1) @ b) <= 1e-10
    assert (complete.smallest, complete.largest) == pytest.approx((0.1, 90), rel=1e-8)
    some = low_rank(times(c), b, lanczos(times(c), b, 8), shift=2)
    assert some.iterations == 8
    assert some.residual == pytest.approx(relative(c @ some.x + 2 * some.x, b), rel=1e-10)
    assert 1e-3 < some.residual < 1
    assert some.converged
    few = low_rank(times(c), b, lanczos(times(c), b, 1), shift=0.01)
    assert few.residual > 1
    assert not few.converged


@pytest.mark.parametrize("shift", [0.05, 2.0, 30.0])
def test_a_residual_sketch_estimates_the_residual(shift: float) -> None:
    c = symmetric(np.r_[np.linspace(0.1, 1, 60), np.logspace(0.5, 2, 20)])
    counted = Counted(c)
    basis = lanczos(times(c), c[0], 12)
    sketch = residual_sketch(counted, basis, 400)
    assert counted.count == 400
    for seed in range(5):
        b = vector(80, seed)
        solved = low_rank(times(c), b, basis, shift=shift)
        assert sketched_residual(sketch, solved.x, b) == pytest.approx(solved.residual, rel=0.15)


def test_the_residual_sketch_of_a_basis_of_full_rank_is_0() -> None:
    c, b = symmetric(np.linspace(0.1, 9, 15)), vector(15)
    basis, calls = full_basis(c), []
    sketch = residual_sketch(times(c), basis, 8, on_iteration=calls.append)
    assert sketch.shape == (8, 15)
    assert calls == list(range(1, 9))
    assert sketch.abs().max() <= 1e-9
    assert sketched_residual(sketch, basis.inverse(0.5)(b), b) <= 1e-9
    with fails(RIGHT_HAND_SIDE):
        sketched_residual(sketch, b, 0 * b)


def test_a_preconditioner_gives_the_same_solution_for_fewer_products() -> None:
    c, b = symmetric(np.r_[np.linspace(0.1, 1, 80), np.logspace(2, 6, 10)]), vector(90)
    values, vectors = np.linalg.eigh(c.numpy())
    top = Basis(torch.from_numpy(vectors[:, -10:].T.copy()), values[-10:])
    plain, helped = Counted(c), Counted(c)
    slow = conjugate_gradients(plain, b, shift=0.5, tolerance=1e-10, iterations=1000)
    fast = conjugate_gradients(helped, b, shift=0.5, tolerance=1e-10, iterations=1000, precondition=top.inverse(0.5))
    assert slow.converged
    assert fast.converged
    assert relative(fast.x, dense_power(c, 0.5, 1) @ b) <= 1e-8
    assert relative(slow.x, fast.x) <= 1e-6
    assert 3 * helped.count < plain.count
    assert -1e-6 <= fast.smallest <= fast.largest <= 1e6 * (1 + 1e-9)


def test_a_preconditioned_solve_detects_an_indefinite_curvature() -> None:
    c = symmetric([-3, 1, 2, 50, 80])
    basis = Basis(*(part[-2:] for part in (full_basis(c).vectors, full_basis(c).values)))
    with pytest.raises(IndefiniteError) as caught:
        conjugate_gradients(
            times(c), vector(5), shift=0.5, tolerance=1e-12, precondition=basis.inverse(0.5), iterations=50
        )
    assert -3 - 1e-8 <= caught.value.curvature <= -0.5 + 1e-8


@examples(30)
@given(
    st.integers(1, 8),
    st.integers(1, 12),
    st.sampled_from([1e-3, 0.5, 20.0]),
    st.sampled_from([1.0, 2.5]),
    st.integers(0, 50),
)
def test_the_dual_equals_the_dense_solution_and_that_by_singular_values(
    tasks: int, size: int, shift: float, scale: float, seed: int
) -> None:
    rng = np.random.default_rng(seed)
    gradients, b = torch.from_numpy(rng.normal(size=(tasks, size))), vector(size, seed + 1)
    solution = dual(gradients, b, shift=shift, scale=scale)
    g = gradients.numpy() * scale**0.5
    expected = np.linalg.solve(g.T @ g + shift * np.eye(size), b.numpy())
    _, singular, vt = np.linalg.svd(g)  # unlike Woodbury's formula with an inverse, without cancellation
    values = np.pad(singular**2, (0, size - len(singular)))
    by_singular_values = vt.T @ (vt @ b.numpy() / (values + shift))
    assert np.linalg.norm(solution.x.numpy() - expected) <= 1e-10 * np.linalg.norm(expected)
    assert np.linalg.norm(solution.x.numpy() - by_singular_values) <= 1e-10 * np.linalg.norm(expected)
    assert solution.converged
    assert solution.residual <= 1e-9
    assert solution.largest == pytest.approx(np.linalg.norm(g, 2) ** 2)


def test_the_dual_keeps_the_precision_of_its_arguments() -> None:
    gradients, b = torch.ones(2, 3), torch.tensor([1.0, 2.0, 3.0])
    solution = dual(gradients, b, shift=1.0)
    assert solution.x.dtype == torch.float32
    assert relative(solution.x, torch.linalg.solve(gradients.T @ gradients + torch.eye(3), b)) <= 1e-6


@pytest.mark.parametrize("shift", [0.0, -1.0])
def test_the_dual_without_a_shift_is_refused(shift: float) -> None:
    with fails(NO_DAMPING):
        dual(torch.ones(2, 3), torch.ones(3), shift=shift)


UNFIT = {(curvature, "dual") for curvature in CURVATURES if curvature != "task-fisher"}
UNFIT |= {("gamma", "low-rank"), ("gamma", "neumann")}
PAIRS = [(curvature, solver) for curvature in CURVATURES for solver in SOLVERS]


@pytest.mark.parametrize(("curvature", "solver"), PAIRS, ids=["-".join(pair) for pair in PAIRS])
def test_a_solver_fits_a_curvature_or_is_refused_with_the_reason(curvature: str, solver: str) -> None:
    rank = 5 if solver == "low-rank" else 0
    if (curvature, solver) not in UNFIT:
        check_fits(curvature, solver)
        assert SolveSettings(curvature=curvature, solver=solver, rank=rank).solver == solver
        return
    for refuse in (lambda: check_fits(curvature, solver), lambda: SolveSettings(curvature, solver, rank=rank)):
        with pytest.raises(FitError) as caught:
            refuse()
        assert curvature in caught.value.what
        assert "cg" in caught.value.fix


@pytest.mark.parametrize("curvature", CURVATURES)
def test_ekfac_is_refused_for_the_outer_problem_with_the_reason(curvature: str) -> None:
    with pytest.raises(FitError) as caught:
        check_fits(curvature, "ekfac")
    assert "--inner ekfac" in caught.value.fix
    with pytest.raises(SettingError) as unknown:
        SolveSettings(curvature, "lu")
    assert unknown.value.name == "solver"
    assert all(solver in unknown.value.fix for solver in SOLVERS)
