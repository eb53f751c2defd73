"""The explicit derivatives of convolutional networks compared with automatic ones, for every pass."""

from __future__ import annotations

import os
import subprocess
import sys
from functools import partial
from itertools import product

import numpy as np
import pytest
import torch
from torch import Tensor

from core.maml.adaptation import Implicit, Unrolled
from core.maml.architectures import CNN4, OmniglotCNN
from core.maml.backbone import MLP, ConvNet, Params
from core.maml.episodes import Chunk, Episodes
from core.maml.module import ModuleNet
from core.maml.objective import Bilevel, Task
from core.maml.passes import GenericPasses, Passes, UnrolledPasses, passes_of
from core.maml.vectors import flatten
from tests.problems import tiny_problem

TASKS, WAYS = 3, 3
PASSES = (
    "query_logits",
    "gradients",
    "gradient",
    "hessian",
    "gauss_newton",
    "fisher",
    "weight_change_gradients",
    "row_scores",
)


def chunk_of(shape: tuple[int, int, int], dtype: torch.dtype, support: int = 6, query: int = 9) -> Task:
    generator = torch.Generator().manual_seed(1)
    height, width, channels = shape

    def rand(*size: int) -> Tensor:
        return torch.rand(*size, generator=generator, dtype=torch.float64).to(dtype)

    def labels(count: int) -> Tensor:
        return torch.arange(WAYS).repeat(TASKS, count // WAYS)

    xs, xq = (rand(TASKS, count, channels, height, width) for count in (support, query))
    return Task(xs, labels(support), rand(TASKS, support), xq, labels(query), rand(TASKS, query))


def point_of(model: Bilevel, dtype: torch.dtype) -> tuple[Params, Params]:
    """Return perturbed parameters and a direction."""
    generator = torch.Generator().manual_seed(2)
    network, adaptation = model.network, model.adaptation
    assert isinstance(network, ConvNet | ModuleNet)
    assert isinstance(adaptation, Unrolled)
    start = network.init(0, torch.float64)
    start |= adaptation.rates(start, network)

    def noise(value: Tensor) -> Tensor:
        return torch.randn(value.shape, generator=generator, dtype=torch.float64)

    params = {name: (value + 0.05 * noise(value)).to(dtype) for name, value in start.items()}
    return params, {name: noise(value).to(dtype) for name, value in start.items()}


def results(passes: Passes, name: str, params: Params, v: Params, chunk: Task) -> dict[str, Tensor]:
    """Return the result of a pass as one dictionary."""
    change = chunk._replace(s=chunk.s.flip(0) - 0.3, q=chunk.q.flip(0) - 0.6)
    arguments = {
        "query_logits": (chunk,),
        "gradients": (chunk,),
        "gradient": (chunk,),
        "weight_change_gradients": (chunk, change),
        "row_scores": (v, chunk),
    }.get(name, (v, chunk))
    result = getattr(passes, name)(params, *arguments)
    if isinstance(result, dict):
        return result
    if name in ("gradients", "gradient"):
        return result[0] | {"loss": result[1]}
    return result._asdict() if hasattr(result, "_asdict") else {"logits": result}


def worst(one: dict[str, Tensor], other: dict[str, Tensor]) -> float:
    """Return the largest relative error of a vector; all parameters together are one vector."""
    assert list(one) == list(other)
    parts = [{"all": flatten(result)} if len(result) > 5 else result for result in (one, other)]
    return max(
        float((parts[0][name] - value).norm() / value.norm().clamp_min(1e-300)) for name, value in parts[1].items()
    )


def compared(model: Bilevel, shape: tuple[int, int, int], dtype: torch.dtype) -> dict[str, float]:
    chunk, (params, v) = chunk_of(shape, dtype), point_of(model, dtype)
    written, generic = passes_of(model), GenericPasses(model)
    assert isinstance(written, UnrolledPasses)
    return {
        name: worst(results(written, name, params, v, chunk), results(generic, name, params, v, chunk))
        for name in PASSES
    }


QUICK = [
    *product(("relu", "tanh"), ("stride", "max"), ("maml",), (1,)),
    *product(("gelu",), ("stride", "max"), ("maml", "meta-sgd"), (1, 2)),
    *product(("relu", "gelu"), ("mean",), ("maml",), (1,)),
    *product(("gelu",), ("max",), ("fomaml", "anil"), (2,)),
]
VARIANTS = [
    pytest.param(*case, marks=() if case in QUICK else pytest.mark.slow)
    for case in product(
        ("relu", "gelu", "tanh"), ("stride", "max", "mean"), ("maml", "fomaml", "anil", "meta-sgd"), (1, 2)
    )
]


@pytest.mark.parametrize(("activation", "pooling", "algorithm", "steps"), VARIANTS)
def test_every_pass_agrees_in_float64(activation: str, pooling: str, algorithm: str, steps: int) -> None:
    network = ConvNet(WAYS, 4, (12, 11, 2), pooling, 2, activation)
    adaptation = Unrolled(steps, 0.3, "head" if algorithm == "anil" else "all", algorithm == "meta-sgd")
    errors = compared(Bilevel(network, adaptation, 0.1, algorithm == "fomaml"), (12, 11, 2), torch.float64)
    assert max(errors.values()) < 1e-12, errors


@pytest.mark.parametrize("pooling", ["stride", "max", "mean"])
def test_every_pass_agrees_in_float32_up_to_rounding(pooling: str) -> None:
    model = Bilevel(ConvNet(WAYS, 16, (28, 28, 1), pooling, 4, "gelu"), Unrolled(1, 0.4), 0.1)
    errors = compared(model, (28, 28, 1), torch.float32)
    assert max(errors.values()) < 2e-4, errors


@pytest.mark.parametrize(
    ("make", "shape"),
    [
        (partial(OmniglotCNN, WAYS, (28, 28, 1), 4, 4), (28, 28, 1)),
        (partial(CNN4, WAYS, (16, 16, 3), 4, 4, "max"), (16, 16, 3)),
        (partial(CNN4, WAYS, (16, 16, 3), 4, 2, "max"), (16, 16, 3)),
        (partial(CNN4, WAYS, (16, 16, 3), 4, 3, "stride"), (16, 16, 3)),
    ],
    ids=["omniglot-cnn", "cnn4", "cnn4 of 2 blocks", "cnn4 by stride"],
)
def test_networks_of_learn2learn_have_explicit_derivatives(make: partial, shape: tuple[int, int, int]) -> None:
    network = ModuleNet("net", WAYS, shape, make, is_builtin=True)
    errors = compared(Bilevel(network, Unrolled(1, 0.3), 0.1), shape, torch.float64)
    assert max(errors.values()) < 1e-12, errors


def test_other_networks_and_adaptations_use_generic_passes() -> None:
    assert isinstance(passes_of(Bilevel(MLP(3, (4,)), Unrolled(1, 0.1), 0.0)), GenericPasses)
    assert isinstance(passes_of(Bilevel(ConvNet(3, 4), Implicit(1.0), 0.0)), GenericPasses)
    one_row_taller = ModuleNet(
        "mine", 3, (8, 8, 1), lambda: torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(64, 3))
    )
    assert isinstance(passes_of(Bilevel(one_row_taller, Unrolled(1, 0.1), 0.0)), GenericPasses)


def test_passes_do_not_modify_their_input() -> None:
    model = Bilevel(ConvNet(WAYS, 4, (12, 12, 1), "max", 2), Unrolled(2, 0.3), 0.1)
    chunk, (params, v) = chunk_of((12, 12, 1), torch.float64), point_of(model, torch.float64)
    before = [value.clone() for value in (*chunk, *params.values(), *v.values())]
    for name in PASSES:
        results(passes_of(model), name, params, v, chunk)
    assert all(torch.equal(*pair) for pair in zip(before, (*chunk, *params.values(), *v.values()), strict=True))


def test_results_of_a_task_do_not_depend_on_its_chunk() -> None:
    model = Bilevel(ConvNet(WAYS, 4, (12, 12, 1)), Unrolled(1, 0.3), 0.1)
    chunk, (params, v) = chunk_of((12, 12, 1), torch.float64), point_of(model, torch.float64)
    together = passes_of(model).row_scores(params, v, chunk)
    for number in range(TASKS):
        single = passes_of(model).row_scores(params, v, Task(*(value[number : number + 1] for value in chunk)))
        for one, batched in zip(single, together, strict=True):
            torch.testing.assert_close(one[0], batched[number], rtol=1e-9, atol=1e-12)


THREADS = """
import numpy as np, torch
torch.set_num_threads(3)
from core.maml.episodes import Episodes
from tests.maml.test_passes import sums
print(sums(), torch.get_num_threads())
"""


def sums() -> list[float]:
    problem = tiny_problem(count=11)
    episodes = Episodes(problem.tasks, problem.images, dtype=torch.float64, chunk=2)

    def of_chunk(chunk: Chunk) -> list[Tensor]:
        return [flatten(passes_of(problem.model).gradient(problem.params, chunk.task)[0])]

    counts: list[int] = []
    (parts,) = episodes.sum_chunks(of_chunk, on_chunk=counts.append)
    positions = [at for at, _ in episodes.collect_chunks(of_chunk)]
    assert sum(counts) == 11
    assert sorted(np.concatenate(positions).tolist()) == list(range(11))
    return [round(value, 9) for value in parts.tolist()]


@pytest.mark.slow
def test_threads_do_not_change_results() -> None:
    done = subprocess.run(
        [sys.executable, "-c", THREADS], capture_output=True, text=True, env={**os.environ, "OMP_NUM_THREADS": "3"}
    )
    assert done.stdout.strip() == f"{sums()} 3", done.stderr
