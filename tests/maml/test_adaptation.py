"""Adaptation by gradient steps: the variants of MAML, and sums instead of means."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import get_args

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from pydantic import ValidationError
from torch import Tensor
from torch.func import grad

from core.checkpoints.model import Model, ModelSpec, load_model, load_trajectory, save_model, save_trajectory
from core.influence.curvature import task_gradients
from core.influence.scores import instance_table, task_table
from core.maml.adaptation import RATE_PREFIX, Implicit, Unrolled, network_part
from core.maml.backbone import Params
from core.maml.episodes import Episodes
from core.maml.objective import Bilevel, Task, inner_loss
from core.maml.training import TrainSettings, train
from core.maml.vectors import flatten
from tests.influence import reference
from tests.problems import Problem, tiny_images, tiny_problem, tiny_tasks, with_weights

ALGORITHMS = get_args(ModelSpec.model_fields["algorithm"].annotation)


def task_of(problem: Problem, position: int = 0) -> Task:
    (chunk,) = problem.episodes.chunks(np.array([position]))
    return Task(*(value[0] for value in chunk.task))


def adapted(problem: Problem, adaptation: Unrolled, position: int = 0) -> Params:
    params = network_part(problem.params)
    return adaptation(problem.model.network, params | adaptation.rates(params), task_of(problem, position))


def close(actual: Tensor, expected: Tensor, tolerance: float = 1e-8) -> None:
    assert actual.shape == expected.shape
    assert (actual - expected).norm() <= tolerance * expected.norm()


@pytest.fixture(scope="module")
def problem() -> Problem:
    return tiny_problem(count=3, steps=2)


def test_one_step_is_a_gradient_step(problem: Problem) -> None:
    leaves = {name: value.clone().requires_grad_() for name, value in problem.params.items()}
    loss = inner_loss(problem.model.network, leaves, task_of(problem))
    slopes = torch.autograd.grad(loss, list(leaves.values()))
    adapted_params = adapted(problem, Unrolled(1, 0.3))
    for (name, value), slope in zip(leaves.items(), slopes, strict=True):
        close(adapted_params[name], value.detach() - 0.3 * slope, 1e-12)


@pytest.mark.parametrize("steps", [2, 4])
def test_several_steps_equal_repeated_single_steps(problem: Problem, steps: int) -> None:
    theta = problem.params
    for _ in range(steps):
        theta = Unrolled(1, 0.3)(problem.model.network, theta, task_of(problem))
    close(flatten(adapted(problem, Unrolled(steps, 0.3))), flatten(theta), 1e-12)
    assert (flatten(theta) - flatten(adapted(problem, Unrolled(steps - 1, 0.3)))).norm() > 1e-3


def test_first_order_has_the_same_values_and_direct_gradients(problem: Problem) -> None:
    first = replace(problem.model, first_order=True)
    for position in range(3):
        task = task_of(problem, position)
        theta = problem.model.adapt(problem.params, task)
        close(flatten(first.adapt(problem.params, task)), flatten(theta), 1e-14)
        loss, same = (model.task_loss(problem.params, task) for model in (problem.model, first))
        assert float(loss) == pytest.approx(float(same), rel=1e-14)
        leaves = {name: value.detach().requires_grad_() for name, value in theta.items()}
        outer = F.cross_entropy(problem.model.network(leaves, task.xq), task.yq)
        direct = torch.cat([g.flatten() for g in torch.autograd.grad(outer, list(leaves.values()))])
        close(flatten(grad(first.task_loss)(problem.params, task)), direct, 1e-12)
        total = flatten(grad(problem.model.task_loss)(problem.params, task))
        assert (total - direct).norm() > 1e-3 * total.norm()


def test_first_order_keeps_the_derivatives_with_respect_to_support_weights(problem: Problem) -> None:
    task = task_of(problem)
    by_s = [
        grad(lambda s, m=model: m.task_loss(problem.params, task._replace(s=s)))(task.s)
        for model in (problem.model, replace(problem.model, first_order=True))
    ]
    close(by_s[1], by_s[0], 1e-12)


@pytest.mark.parametrize("steps", [1, 3])
def test_anil_adapts_only_the_head(problem: Problem, steps: int) -> None:
    adapted_params = adapted(problem, Unrolled(steps, 0.3, "head"))
    changed = {name for name, value in adapted_params.items() if not torch.equal(value, problem.params[name])}
    assert changed == {"head.weight", "head.bias"}
    assert list(adapted_params) == list(problem.params)
    full = adapted(problem, Unrolled(1, 0.3))
    assert all(not torch.equal(value, problem.params[name]) for name, value in full.items())
    if steps == 1:  # from the same point, the head's own step is the same
        close(adapted_params["head.weight"], full["head.weight"], 1e-12)


def test_parameters_that_do_not_adapt_have_a_gradient(problem: Problem) -> None:
    anil = replace(problem.model, adaptation=Unrolled(2, 0.3, "head"))
    gradient = grad(anil.task_loss)(problem.params, task_of(problem))
    assert all(value.norm() > 0 for value in gradient.values())


@pytest.mark.parametrize("adapted_part", ["all", "head"])
def test_learned_rates_equal_to_the_fixed_rate_give_the_same_adaptation_and_have_gradients(
    problem: Problem, adapted_part: str
) -> None:
    fixed, learned = Unrolled(2, 0.3, adapted_part), Unrolled(2, 0.3, adapted_part, learned_rates=True)
    close(flatten(adapted(problem, learned)), flatten(adapted(problem, fixed)), 1e-14)
    rates = learned.rates(problem.params)
    adapted_names = [name for name in problem.params if adapted_part == "all" or name.startswith("head.")]
    assert list(rates) == [f"{RATE_PREFIX}{name}" for name in adapted_names]
    assert all((value == 0.3).all() for value in rates.values())
    assert fixed.rates(problem.params) == {}
    model = replace(problem.model, adaptation=learned)
    gradient = grad(model.task_loss)(problem.params | rates, task_of(problem))
    assert all(gradient[name].norm() > 0 for name in rates)
    assert not network_part(rates)


def test_a_learned_rate_applies_only_to_its_own_parameter(problem: Problem) -> None:
    learned = Unrolled(1, 0.3, learned_rates=True)
    rates = learned.rates(problem.params)
    name = "head.bias"
    other_rates = {**rates, f"{RATE_PREFIX}{name}": torch.tensor([0.0, 0.3, 0.6], dtype=torch.float64)}
    task, network = task_of(problem), problem.model.network
    one, other = (learned(network, problem.params | rate_values, task) for rate_values in (rates, other_rates))
    change, other_change = one[name] - problem.params[name], other[name] - problem.params[name]
    close(other_change, change * torch.tensor([0.0, 1.0, 2.0], dtype=torch.float64), 1e-12)
    assert all(torch.equal(one[key], other[key]) for key in one if key != name)


def spec_of(algorithm: str) -> ModelSpec:
    return ModelSpec(
        ways=3,
        filters=2,
        shape=(7, 7, 1),
        blocks=2,
        algorithm=algorithm,
        steps=2,
        rate=0.3,
        proximity=6.0,
    )


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_every_algorithm_trains_and_round_trips_through_disk(algorithm: str, tmp_path: Path) -> None:
    spec = spec_of(algorithm)
    images = tiny_images()
    tasks = tiny_tasks(images, ways=3, shots=2, queries=2, count=3)
    episodes = Episodes(tasks, images, dtype=torch.float64)
    start = spec.init(0, torch.float64)
    settings = TrainSettings(iterations=3, meta_batch=2, learning_rate=0.01)
    trained = train(spec.bilevel(), start, episodes, settings)
    assert list(trained.params) == list(start)
    assert all(not torch.equal(trained.params[name], start[name]) for name in start)
    assert trained.history[-1]["loss"] > 0
    model = Model(spec, {name: value.float() for name, value in trained.params.items()}, {})
    save_model(model, tmp_path)
    save_trajectory(trained.trajectory, tmp_path)
    read = load_model(tmp_path)
    assert read.hash == model.hash
    assert read.spec == spec
    assert read.spec.bilevel() == spec.bilevel()
    assert read.size == sum(value.numel() for value in start.values())
    snapshots = load_trajectory(tmp_path, spec)
    assert len(snapshots) == len(trained.trajectory) == 3
    for actual, expected in zip(snapshots, trained.trajectory, strict=True):
        assert actual.rate == expected.rate
        assert list(actual.params) == list(start)
        assert all(torch.equal(actual.params[name], expected.params[name].float()) for name in start)
    assert all(torch.equal(snapshots[-1].params[name], model.params[name]) for name in start)


def test_every_algorithm_builds_its_adaptation() -> None:
    built = {algorithm: spec_of(algorithm).bilevel() for algorithm in ALGORITHMS}
    assert built["maml"].adaptation == built["fomaml"].adaptation == Unrolled(2, 0.3)
    assert [name for name, model in built.items() if model.first_order] == ["fomaml"]
    assert built["anil"].adaptation == Unrolled(2, 0.3, "head")
    assert built["meta-sgd"].adaptation == Unrolled(2, 0.3, learned_rates=True)
    assert built["imaml"].adaptation == Implicit(6.0, 1e-5)
    sizes = {algorithm: sum(v.numel() for v in spec_of(algorithm).init(0).values()) for algorithm in ALGORITHMS}
    assert sizes["meta-sgd"] == 2 * sizes["maml"]
    assert len({sizes[name] for name in ALGORITHMS if name != "meta-sgd"}) == 1
    assert len({Model(spec_of(name), spec_of("maml").init(0), {}).hash for name in ALGORITHMS}) == len(ALGORITHMS)


def test_weights_multiplied_by_the_counts_turn_means_into_sums() -> None:
    """With sums, the score of a row is its score with means times the number of rows."""
    problem = tiny_problem(count=2, steps=2)
    support, query = 3 * 2, 3 * 2
    rows = problem.tasks.rows
    is_query = (rows["role"] == "query").to_numpy()
    weights = np.random.default_rng(2).uniform(0.3, 1.7, len(rows))
    count = np.where(is_query, query, support)
    u = torch.linspace(-1, 2, len(flatten(problem.params)), dtype=torch.float64)
    model = replace(problem.model, adaptation=Unrolled(2, 0.05))
    episodes = with_weights(problem.episodes, weights * count)
    table = instance_table(model, problem.params, u, episodes)
    gradients = task_gradients(model, problem.params, episodes)
    for position, task_id in enumerate(problem.tasks.task_ids):
        xs, ys, _, xq, yq, _ = reference.task_tensors(problem, task_id)
        in_task = (rows["task_id"] == task_id).to_numpy()
        s, q = (torch.from_numpy(weights[in_task & part]).requires_grad_() for part in (~is_query, is_query))
        base = theta = reference.leaf(problem)
        for _ in range(2):
            inner = (s * F.cross_entropy(reference.forward(problem, theta, xs), ys, reduction="none")).sum()
            theta = theta - 0.05 * torch.autograd.grad(inner, theta, create_graph=True)[0]
        outer = (q * F.cross_entropy(reference.forward(problem, theta, xq), yq, reduction="none")).sum()
        (total,) = torch.autograd.grad(outer, base, create_graph=True)
        close(gradients[position], total.detach())
        by_s, by_q = torch.autograd.grad(total @ u, (s, q))
        actual = torch.from_numpy((table["score"].to_numpy() * count)[in_task])
        close(actual[torch.from_numpy(~is_query[in_task])], by_s)
        close(actual[torch.from_numpy(is_query[in_task])], by_q)
        score = task_table(table).set_index("task_id")["score"][task_id]
        assert score == pytest.approx(float(total.detach() @ u), rel=1e-8)


def test_unknown_names_are_refused() -> None:
    with pytest.raises(ValidationError, match="algorithm"):
        ModelSpec(ways=3, algorithm="reptile")
    with pytest.raises(ValidationError, match="proximity"):
        ModelSpec(ways=3, algorithm="imaml", proximity=0)


def test_a_bilevel_model_is_determined_by_its_parts(problem: Problem) -> None:
    same = Bilevel(problem.model.network, Unrolled(2, 0.3), problem.model.delta)
    task = task_of(problem)
    assert float(same.task_loss(problem.params, task)) == float(problem.model.task_loss(problem.params, task))
