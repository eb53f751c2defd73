"""Passes in forward mode on several threads at once, as :class:`core.maml.episodes.Episodes` runs them.

Without the lock of :mod:`core.maml.forward`, all of these fail.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
from torch import Tensor

from core.maml.episodes import Chunk
from core.maml.objective import Task
from core.maml.passes import GenericPasses
from core.maml.vectors import flatten
from tests.influence.test_implicit import implicit_problem
from tests.problems import Problem, tiny_problem

THREADS, TIMES = 2, 2


@pytest.fixture(autouse=True)
def _restless() -> Iterator[None]:
    """Switch threads so often that they interleave."""
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    yield
    sys.setswitchinterval(before)


def of_chunk(problem: Problem, name: str) -> Callable[[Task], Tensor]:
    """Return the result of one pass as one vector."""
    passes, params = GenericPasses(problem.model), problem.params
    v = {key: torch.cos(1 + value) for key, value in params.items()}
    return {
        "hessian": lambda task: flatten(passes.hessian(params, v, task)),
        "gauss_newton": lambda task: flatten(passes.gauss_newton(params, v, task)),
        "fisher": lambda task: flatten(passes.fisher(params, v, task)),
        "removals": lambda task: flatten(passes.weight_change_gradients(params, task, task._replace(s=0.3 * task.s))),
        "row_scores": lambda task: passes.row_scores(params, v, task).by_s.reshape(-1),
        "gradients": lambda task: flatten(passes.gradients(params, task)[0]),
    }[name]


def together(function: Callable[[Task], Tensor], chunks: list[Chunk]) -> list[Tensor]:
    with ThreadPoolExecutor(THREADS, initializer=lambda: torch.set_num_threads(1)) as pool:
        return list(pool.map(lambda chunk: function(chunk.task), chunks * TIMES))


UNROLLED = ("hessian", "gauss_newton", "fisher", "removals", "row_scores")
IMPLICIT = ("gradients", "gauss_newton", "row_scores")


@pytest.mark.parametrize(
    ("kind", "name"), [("unrolled", name) for name in UNROLLED] + [("implicit", name) for name in IMPLICIT]
)
def test_results_of_concurrent_threads_equal_those_of_one(kind: str, name: str) -> None:
    problem = tiny_problem() if kind == "unrolled" else implicit_problem("mlp", tolerance=1e-2)
    chunks = list(problem.episodes.chunks())
    function = of_chunk(problem, name)
    single = [function(chunk.task) for chunk in chunks] * TIMES
    for one, other in zip(together(function, chunks), single, strict=True):
        assert torch.equal(one, other)
