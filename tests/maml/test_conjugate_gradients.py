"""Conjugate gradients for a batch of systems: every system is solved as if alone."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import Tensor

from core.maml.conjugate_gradients import solve_batch

T, P = 5, 12
EASY, COARSE, ZERO, INDEFINITE, ROUNDED = range(T)


def matrices() -> Tensor:
    """Return matrices ``(T, P, P)`` of condition 100, of which one is indefinite."""
    draw = np.random.default_rng(0)
    matrices = []
    for system in range(T):
        q, _ = np.linalg.qr(draw.normal(size=(P, P)))
        values = np.linspace(0.1, 10, P)
        values[0] = -1 if system == INDEFINITE else values[0]
        matrices.append(q @ np.diag(values) @ q.T)
    return torch.from_numpy(np.stack(matrices))


def right_sides() -> Tensor:
    b = torch.from_numpy(np.random.default_rng(1).normal(size=(T, P)))
    b[ZERO] = 0
    return b


def product(a: Tensor, systems: list[int], counts: list[int]) -> Callable[[Tensor], Tensor]:
    """Return products with an error of 1e-4 in the first three of COARSE, and rounded to float32 for ROUNDED."""

    def apply(v: Tensor) -> Tensor:
        counts.append(len(v))
        exact = torch.einsum("tij,tj->ti", a[systems], v)
        for row, system in enumerate(systems):
            if system == COARSE and len(counts) <= 3:
                exact[row] += 1e-3 * v[row].roll(1)
            if system == ROUNDED:
                exact[row] = exact[row].float().double()
        return exact

    return apply


def test_each_system_of_a_batch_is_solved_as_if_alone() -> None:
    a, b, counts = matrices(), right_sides(), []
    solution = solve_batch(product(a, list(range(T)), counts), b, tolerance=1e-10, iterations=300)
    assert solution.converged.tolist() == [True, True, True, False, False]
    assert solution.indefinite.tolist() == [False, False, False, True, False]
    assert solution.stagnated.tolist() == [False, False, False, False, True]
    assert solution.replacements[[EASY, COARSE, ZERO, INDEFINITE]].tolist() == [0, 1, 0, 0]
    assert solution.replacements[ROUNDED] >= 1
    assert solution.products == len(counts) > len(solution.alphas) == len(solution.betas) == len(solution.quotients)
    assert solution.residual[ZERO] == 0
    assert not solution.x[ZERO].any()
    residual = (b - torch.einsum("tij,tj->ti", a, solution.x)).norm(dim=-1)
    for system in (EASY, COARSE):
        assert residual[system] <= 1e-10 * b[system].norm()
    for system in range(T):
        single = solve_batch(product(a, [system], []), b[[system]], tolerance=1e-10, iterations=300)
        for name in ("converged", "indefinite", "stagnated"):
            assert getattr(single, name)[0] == getattr(solution, name)[system]
        if solution.converged[system]:  # within twice the tolerance, times the condition
            assert (single.x[0] - solution.x[system]).norm() <= 2e-10 * 100 * solution.x[system].norm()


def test_true_residuals_are_computed_only_on_request() -> None:
    a, b = matrices(), right_sides()
    counts: list[int] = []
    options = {"tolerance": 1e-10, "iterations": 300}
    solution = solve_batch(product(a, [COARSE], counts), b[[COARSE]], **options, verify=False)
    assert solution.products == len(counts) == len(solution.alphas)
    assert solution.replacements[0] == 0
    true = (b[COARSE] - a[COARSE] @ solution.x[0]).norm() / b[COARSE].norm()
    assert solution.residual[0] <= 1e-10 < 1e-6 < true
    short = solve_batch(product(a, [EASY], []), b[[EASY]], tolerance=1e-10, iterations=4)
    true = (b[EASY] - a[EASY] @ short.x[0]).norm() / b[EASY].norm()
    assert float(short.residual[0]) == pytest.approx(float(true), rel=1e-9)
    assert not short.converged[0]
    assert not short.stagnated[0]
