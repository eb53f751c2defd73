"""Newton's step within a trust region against dense matrices by plain autograd, in double precision."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from core.editing.newton import SHARES, Krylov, mean_loss, newton_edit
from core.editing.settings import NewtonSettings
from core.editing.steps import StepSettings, single_task_finetune
from core.influence.curvature import Curvature
from core.maml.cost import Cost
from core.maml.episodes import Episodes, no_progress
from core.maml.training import TrainSettings, train
from core.maml.vectors import flatten, unflatten
from core.runtime.errors import UserError
from core.runtime.progress import Progress
from core.runtime.settings import SettingError
from core.tasks.changes import Changes, cleaned
from tests.influence import reference
from tests.problems import Problem, tiny_problem, with_weights

ALL = NewtonSettings(gradient_tasks=0, curvature_tasks=0, products=100)
SHAPES: list[dict[str, Any]] = [
    {"ways": 3, "shots": 2, "queries": 2, "count": 4, "steps": 1},
    {"ways": 3, "shots": 1, "queries": 2, "count": 3, "steps": 2, "algorithm": "fomaml"},
    {"ways": 2, "shots": 2, "queries": 2, "count": 3, "steps": 2, "algorithm": "meta-sgd"},
]


@pytest.fixture(params=SHAPES, ids=lambda shape: "-".join(str(v) for v in shape.values()))
def problem(request: pytest.FixtureRequest) -> Problem:
    return uneven(tiny_problem(**request.param))


def uneven(problem: Problem) -> Problem:
    weights = np.random.default_rng(1).uniform(0.2, 1.8, len(problem.tasks.rows))
    weights[-1] = 0
    episodes = with_weights(problem.episodes, weights)
    return replace(problem, episodes=episodes, tasks=episodes.tasks)


def changed(problem: Problem) -> Problem:
    """Remove the first task, relabel a row of the second, and remove a row of the last."""
    rows, ids = problem.tasks.rows, problem.tasks.task_ids
    key = ["task_id", "role", "image_id"]
    moved = rows[(rows["task_id"] == ids[1]) & (rows["role"] == "query")].iloc[0]
    names = rows.loc[rows["task_id"] == ids[1], "class"].unique()
    removed_row = rows[(rows["task_id"] == ids[-1]) & (rows["role"] == "query")].iloc[0]
    changes = Changes(
        tasks=frozenset(ids[:1]),
        instances=frozenset({tuple(removed_row[key])}),
        relabelled_instances=frozenset({(*moved[key], next(name for name in names if name != moved["class"]))}),
    )
    tasks = cleaned(problem.tasks, changes)
    assert len(tasks) == len(problem.tasks) - 1
    return replace(problem, tasks=tasks, episodes=Episodes(tasks, problem.images, dtype=torch.float64, chunk=2))


def dense(problem: Problem) -> tuple[Tensor, Tensor, float]:
    """Return gradient (with weight decay) and Gauss-Newton matrix (without) of the mean objective, and the decay."""
    ids = problem.tasks.task_ids
    decay = problem.model.delta / len(ids)
    gradients = torch.stack([reference.gradient(problem, one) for one in ids])
    return (
        gradients.mean(0) + decay * reference.flat_params(problem),
        reference.dense_gauss_newton(problem, list(ids)) / len(ids),
        decay,
    )


def value_at(problem: Problem, flat: Tensor) -> float:
    """Return the mean objective by plain autograd."""
    ids = problem.tasks.task_ids
    losses = [float(reference.task_loss(problem, flat.clone().requires_grad_(), one).detach()) for one in ids]
    return float(np.mean(losses)) + problem.model.delta / len(ids) / 2 * float((flat**2).sum())


def close(have: Tensor, expected: Tensor, tolerance: float = 1e-8) -> None:
    assert have.shape == expected.shape
    assert float((have - expected).norm()) <= tolerance * float(expected.norm())


def damped(matrix: Tensor, gradient: Tensor, shift: float) -> Tensor:
    return -torch.linalg.solve(matrix + shift * torch.eye(len(matrix), dtype=torch.float64), gradient)


def test_a_full_krylov_space_solves_for_every_shift(problem: Problem) -> None:
    gradient, matrix, _ = dense(problem)
    curvature = Curvature("gauss-newton", problem.model, problem.params, problem.episodes)
    space = Krylov(lambda v: curvature(v) / len(problem.episodes), gradient, len(gradient))
    values = torch.linalg.eigvalsh(matrix)
    assert space.largest == pytest.approx(float(values[-1]), rel=1e-8)
    for shift in (1e-2, 0.1, 1.0, 10.0):
        close(space.step(shift), damped(matrix, gradient, shift))


def test_a_small_krylov_space_gives_the_minimiser_for_every_shift() -> None:
    """With k products the step minimises the quadratic model over the Krylov space, built by plain powers."""
    rng = np.random.default_rng(3)
    root = torch.from_numpy(rng.normal(size=(30, 30)))
    matrix, gradient = root @ root.T / 30, torch.from_numpy(rng.normal(size=30))
    space = Krylov(lambda v: matrix @ v, gradient, 4)
    powers = torch.stack([torch.linalg.matrix_power(matrix, k) @ gradient for k in range(4)], 1)
    q, _ = torch.linalg.qr(powers)
    assert space.basis.vectors.shape == (4, 30)
    for shift in (1e-3, 0.1, 2.0):
        expected = q @ damped(q.T @ matrix @ q, q.T @ gradient, shift)
        close(space.step(shift), expected)
        x, decay = space.step(shift), 0.7 * shift
        model = float(gradient @ x + x @ (matrix @ x + decay * x) / 2)
        assert space.decrease(shift, decay) == pytest.approx(-model, rel=1e-9)


def test_a_larger_shift_is_a_smaller_radius() -> None:
    problem = tiny_problem()
    report = newton_edit(problem.model, problem.params, problem.episodes, ALL).report
    assert [one["share"] for one in report["tried"]] == list(SHARES)
    radii = [one["relative_step"] for one in report["tried"]]
    assert (np.diff(radii) < 0).all()
    assert (np.diff([one["predicted"] for one in report["tried"]]) < 0).all()


@pytest.mark.parametrize("changes", [False, True], ids=["as-it-is", "changed"])
def test_the_edit_is_the_best_dense_step_of_the_changed_objective(problem: Problem, changes: bool) -> None:
    of = changed(problem) if changes else problem
    made = newton_edit(of.model, of.params, of.episodes, ALL)
    gradient, matrix, decay = dense(of)
    flat, largest = reference.flat_params(of), float(torch.linalg.eigvalsh(matrix)[-1])
    before = value_at(of, flat)
    assert made.report["objective"] == pytest.approx(before, rel=1e-10)
    steps = {share: damped(matrix, gradient, share * largest + decay) for share in SHARES}
    decreases = {share: before - value_at(of, flat + step) for share, step in steps.items()}
    for one in made.report["tried"]:
        assert one["actual"] == pytest.approx(decreases[one["share"]], rel=1e-6, abs=1e-10)
    best = max(decreases, key=decreases.__getitem__)
    assert made.report["taken"] == (decreases[best] > 0)
    if made.report["taken"]:
        assert made.report["share"] == best
        close(flatten(made.params) - flat, steps[best], 1e-7)
        assert made.report["relative_step"] == pytest.approx(float(steps[best].norm() / flat.norm()), rel=1e-7)
        assert made.report["ratio"] == pytest.approx(made.report["actual"] / made.report["predicted"])
    assert made.report["largest"] == pytest.approx(largest, rel=1e-7)


def test_the_step_depends_on_the_changes() -> None:
    problem = uneven(tiny_problem())
    one = newton_edit(problem.model, problem.params, problem.episodes, ALL)
    of = changed(problem)
    other = newton_edit(of.model, of.params, of.episodes, ALL)
    assert float((flatten(one.params) - flatten(other.params)).norm()) > 1e-3


def test_the_step_lowers_the_objective_by_the_reported_amount() -> None:
    problem = tiny_problem()
    made = newton_edit(problem.model, problem.params, problem.episodes, ALL)
    assert made.report["taken"]
    flat = flatten(made.params)
    assert value_at(problem, flat) < made.report["objective"]
    assert made.report["objective"] - value_at(problem, flat) == pytest.approx(made.report["actual"], rel=1e-8)


def test_the_quadratic_model_is_exact_for_tiny_steps() -> None:
    """With so much damping that the step is tiny, actual over predicted decrease is 1."""
    problem = tiny_problem()
    gradient, matrix, decay = dense(problem)
    space = Krylov(lambda v: matrix @ v, gradient, len(gradient))
    shift = 1e4 * space.largest
    flat = reference.flat_params(problem)
    actual = value_at(problem, flat) - value_at(problem, flat + space.step(shift))
    assert actual / space.decrease(shift, decay) == pytest.approx(1, abs=1e-3)


def test_a_step_that_would_raise_the_loss_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    problem = tiny_problem()
    monkeypatch.setattr("core.editing.newton.mean_loss", lambda *_: 1e3)
    made = newton_edit(problem.model, problem.params, problem.episodes, ALL)
    assert not made.report["taken"]
    assert made.report["relative_step"] == 0
    assert made.report["actual"] == 0
    assert made.report["share"] is made.report["ratio"] is None
    assert all(one["actual"] < 0 for one in made.report["tried"])
    assert torch.equal(flatten(made.params), flatten(problem.params))


def test_a_trial_that_is_not_finite_is_never_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    problem = tiny_problem()
    found = iter([float("nan"), float("inf"), *[0.0] * 4])
    monkeypatch.setattr("core.editing.newton.mean_loss", lambda *_: next(found))
    report = newton_edit(problem.model, problem.params, problem.episodes, ALL).report
    assert [one["actual"] for one in report["tried"][:2]] == [None, None]
    assert report["share"] in SHARES[2:]


def test_a_stationary_point_is_not_moved() -> None:
    problem = tiny_problem()
    still = replace(problem.model, delta=0.0)
    none = with_weights(problem.episodes, np.zeros(len(problem.tasks.rows)))
    made = newton_edit(still, problem.params, none, ALL)
    assert not made.report["taken"]
    assert made.cost == Cost(gradients=4)
    assert torch.equal(flatten(made.params), flatten(problem.params))


class Counting(Progress):
    """A progress that counts the tasks of every stage."""

    def __init__(self) -> None:
        super().__init__()
        self.done: dict[str, int] = {}
        self.totals: dict[str, int] = {}

    def stage(self, name: str, total: int, *, done: int = 0) -> None:
        self.totals[name] = total
        super().stage(name, total, done=done)

    def advance(self, units: int = 1, note: str = "") -> None:
        self.done[self._stage] = self.done.get(self._stage, 0) + units
        super().advance(units, note)


def test_the_cost_equals_the_passes_that_ran() -> None:
    problem = tiny_problem(count=5)
    settings, progress = NewtonSettings(gradient_tasks=3, curvature_tasks=2, products=4), Counting()
    made = newton_edit(problem.model, problem.params, problem.episodes, settings, progress)
    assert list(progress.done.values()) == [3, 2 * 4, 3 * len(SHARES)]
    assert progress.done == progress.totals
    assert made.cost == settings.cost(5) == Cost(3, 2 * 4, 3 * len(SHARES))
    assert made.cost.meta_gradients == 3 + 2 * 8 + 0.5 * 18
    assert (made.cost + Cost(1, 1, 2)).meta_gradients == made.cost.meta_gradients + 4
    assert NewtonSettings().cost(10) == Cost(10, 50, 60), "never more tasks than there are"


def test_an_interrupted_step_repeats_no_work() -> None:
    problem = tiny_problem()
    kept: list[list[np.ndarray]] = []

    def save_step(compute: Any) -> list[np.ndarray]:
        kept.append([np.asarray(value) for value in compute()])
        return kept[-1]

    made = newton_edit(problem.model, problem.params, problem.episodes, save_step=save_step)
    left, progress = list(kept), Counting()
    again = newton_edit(
        problem.model, problem.params, problem.episodes, progress=progress, save_step=lambda _: left.pop(0)
    )
    assert not progress.done
    assert not left
    assert again.report == made.report
    assert torch.equal(flatten(again.params), flatten(made.params))


def test_single_precision_agrees_closely() -> None:
    problem = tiny_problem()
    single = Episodes(problem.tasks, problem.images, chunk=3)
    params = {name: value.float() for name, value in problem.params.items()}
    one = newton_edit(problem.model, problem.params, problem.episodes)
    other = newton_edit(problem.model, params, single)
    assert other.report["share"] == one.report["share"]
    close(flatten(other.params).double(), flatten(one.params), 1e-3)


def test_a_gradient_that_is_not_finite_is_refused() -> None:
    problem = tiny_problem()
    broken = unflatten(flatten(problem.params) * float("nan"), problem.params)
    with pytest.raises(UserError, match="not finite"):
        newton_edit(problem.model, broken, problem.episodes)


@pytest.mark.parametrize(
    ("wrong", "option"),
    [
        ({"products": 0}, "newton-products"),
        ({"gradient_tasks": -1}, "newton-tasks"),
        ({"curvature_tasks": -1}, "newton-curvature-tasks"),
        ({"seed": -1}, "newton-seed"),
    ],
)
def test_invalid_newton_settings_are_refused(wrong: dict[str, int], option: str) -> None:
    with pytest.raises(SettingError) as caught:
        NewtonSettings(**wrong)
    assert caught.value.name == option


def test_steps_are_adam_with_one_task_per_step() -> None:
    problem = tiny_problem()
    settings = StepSettings(budget=6, rate=3e-3, seed=2)
    made = single_task_finetune(problem.model, problem.params, problem.episodes, settings)
    adam = TrainSettings(iterations=6, meta_batch=1, learning_rate=3e-3, seed=2)
    expected = train(problem.model, problem.params, problem.episodes, adam).params
    assert torch.equal(flatten(made), flatten(expected))
    assert settings.cost.meta_gradients == 6


def test_steps_lower_the_objective() -> None:
    problem = tiny_problem()
    every = np.arange(4)
    after = single_task_finetune(problem.model, problem.params, problem.episodes, StepSettings(budget=40))
    before, now = (
        mean_loss(problem.model, params, problem.episodes, every, no_progress) for params in (problem.params, after)
    )
    assert now < before
