"""Training lowers the objective, is deterministic, resumes after an interruption and detects divergence."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from core.maml.adaptation import Unrolled
from core.maml.backbone import Params
from core.maml.episodes import Episodes
from core.maml.evaluation import evaluate
from core.maml.objective import Bilevel
from core.maml.training import (
    STATE_FILE,
    TrainingResult,
    TrainSettings,
    _draw_tasks,
    read_history,
    stationarity,
    train,
)
from core.maml.vectors import flatten
from core.runtime.errors import UserError
from core.runtime.progress import Progress
from tests.problems import Problem, tiny_problem

QUICK = TrainSettings(iterations=20, meta_batch=2, learning_rate=0.01, polish=0)


class Killed(Exception):
    pass


class Stops(Progress):
    """A progress that raises after a number of steps, as if the process were killed."""

    def __init__(self, after: int) -> None:
        super().__init__()
        self.left = after

    def advance(self, units: int = 1, note: str = "") -> None:
        self.left -= 1
        if self.left < 0:
            raise Killed
        super().advance(units, note)


@pytest.fixture(scope="module")
def problem() -> Problem:
    return tiny_problem(ways=2, shots=1, queries=2, count=5)


def run(problem: Problem, settings: TrainSettings = QUICK, folder: Path | None = None, **more: Progress) -> Params:
    return train(problem.model, problem.params, problem.episodes, settings, folder=folder, **more).params


def same(one: Params, other: Params) -> bool:
    return list(one) == list(other) and all(torch.equal(one[name], other[name]) for name in one)


def test_training_lowers_the_objective_and_does_not_modify_the_start(problem: Problem) -> None:
    before = {name: value.clone() for name, value in problem.params.items()}
    objectives = [
        stationarity(problem.model, params, problem.episodes).objective
        for params in (problem.params, run(problem), run(problem, replace(QUICK, polish=10)))
    ]
    assert objectives[0] > objectives[1] > objectives[2]
    assert same(before, problem.params)


def test_training_is_deterministic_and_the_seed_orders_the_tasks(problem: Problem) -> None:
    first_run = run(problem)
    assert same(first_run, run(problem))
    assert not same(first_run, run(problem, replace(QUICK, seed=1)))


def test_saving_the_state_does_not_change_the_result(problem: Problem, tmp_path: Path) -> None:
    assert same(run(problem), run(problem, folder=tmp_path))
    assert (tmp_path / STATE_FILE).exists()


@pytest.mark.parametrize("after", [0, 1, 7, 19])
def test_an_interrupted_training_resumes_to_exactly_the_same_parameters(
    problem: Problem, tmp_path: Path, after: int
) -> None:
    with pytest.raises(Killed):
        run(problem, folder=tmp_path, progress=Stops(after))
    steps: list[int] = []
    assert same(run(problem, folder=tmp_path, progress=counting(steps)), run(problem))
    assert len(steps) == 20 - after


def counting(steps: list[int]) -> Progress:
    progress = Progress()
    advance: Callable[..., None] = progress.advance

    def counted(units: int = 1, note: str = "") -> None:
        steps.append(units)
        advance(units, note)

    progress.advance = counted  # type: ignore[method-assign]
    return progress


def test_a_training_interrupted_during_l_bfgs_resumes_there(problem: Problem, tmp_path: Path) -> None:
    settings = replace(QUICK, polish=30, tolerance=0)
    with pytest.raises(Killed):
        run(problem, settings, tmp_path, progress=Stops(21))
    steps: list[int] = []
    params = run(problem, settings, tmp_path, progress=counting(steps))
    assert steps == [10, 10]
    before = stationarity(problem.model, run(problem, replace(settings, polish=10)), problem.episodes)
    assert stationarity(problem.model, params, problem.episodes).objective < before.objective


def test_a_finished_training_is_not_repeated(problem: Problem, tmp_path: Path) -> None:
    first = run(problem, folder=tmp_path)
    steps: list[int] = []
    assert same(first, run(problem, folder=tmp_path, progress=counting(steps)))
    assert steps == []


def test_the_state_of_another_training_is_refused(problem: Problem, tmp_path: Path) -> None:
    run(problem, folder=tmp_path)
    before = (tmp_path / STATE_FILE).read_bytes()
    other = tiny_problem(ways=2, shots=1, queries=2, count=5, steps=2)
    start = other.model.network.init(9, torch.float64)
    for ask in (
        lambda: run(problem, replace(QUICK, learning_rate=0.02), tmp_path),
        lambda: run(tiny_problem(ways=2, shots=1, queries=2, count=4), QUICK, tmp_path),
        lambda: run(other, QUICK, tmp_path),
        lambda: train(problem.model, start, problem.episodes, QUICK, folder=tmp_path),
    ):
        with pytest.raises(UserError, match="other tasks or settings"):
            ask()
    assert (tmp_path / STATE_FILE).read_bytes() == before


@pytest.mark.parametrize("content", [b"", b"\x00" * 100, b"half"])
def test_a_damaged_state_is_refused(problem: Problem, tmp_path: Path, content: bytes) -> None:
    (tmp_path / STATE_FILE).write_bytes(content)
    with pytest.raises(UserError, match=r"state\.safetensors is damaged"):
        run(problem, folder=tmp_path)


@pytest.mark.parametrize("metadata", [None, {"state": "{"}, {"state": "{}"}, {"state": "[]"}, {"other": "{}"}])
def test_a_state_without_its_description_is_refused(
    problem: Problem, tmp_path: Path, metadata: dict[str, str] | None
) -> None:
    run(problem, folder=tmp_path)
    save_file(load_file(tmp_path / STATE_FILE), tmp_path / STATE_FILE, metadata=metadata)
    with pytest.raises(UserError, match=r"state\.safetensors is damaged"):
        run(problem, folder=tmp_path)


def test_a_diverging_training_raises(problem: Problem) -> None:
    with pytest.raises(UserError, match="diverged at iteration"):
        run(problem, replace(QUICK, learning_rate=1e200))


def test_l_bfgs_from_infinite_parameters_raises(problem: Problem) -> None:
    infinite = {name: value * float("inf") for name, value in problem.params.items()}
    with pytest.raises(UserError, match="diverged: its objective is"):
        train(problem.model, infinite, problem.episodes, replace(QUICK, iterations=0, polish=10))


def linear_model() -> tuple[Bilevel, Params]:
    def linear(params: Params, x: torch.Tensor) -> torch.Tensor:
        return x.flatten(1) @ params["weight"] + params["bias"]

    start = {"weight": torch.zeros(49, 2, dtype=torch.float64), "bias": torch.zeros(2, dtype=torch.float64)}
    return Bilevel(linear, Unrolled(2, 0.3), delta=0.1), start


def test_l_bfgs_reaches_a_stationary_point(problem: Problem) -> None:
    model, start = linear_model()
    params = train(model, start, problem.episodes, replace(QUICK, iterations=5, polish=100, tolerance=1e-5)).params
    report = stationarity(model, params, problem.episodes)
    assert report.ratio < 1e-5
    assert float(flatten(params).norm()) > 0.1


def test_l_bfgs_stops_at_the_tolerance(problem: Problem) -> None:
    steps: list[int] = []
    run(problem, replace(QUICK, polish=4000, tolerance=0.9), progress=counting(steps))
    assert len(steps) < 20 + 10


@pytest.fixture(scope="module")
def validation() -> Episodes:
    problem = tiny_problem(ways=2, shots=2, queries=3, count=3)
    return problem.episodes


def test_the_step_with_the_highest_validation_accuracy_is_kept(problem: Problem, validation: Episodes) -> None:
    settings = replace(QUICK, learning_rate=0.3, checks=10)
    result = train(problem.model, problem.params, problem.episodes, settings, validation=validation)
    checks = [entry for entry in result.history if "validation_accuracy" in entry]
    assert [entry["done"] for entry in checks] == list(range(2, 21, 2))
    best = max(entry["validation_accuracy"] for entry in checks)
    assert result.kept == max(entry["done"] for entry in checks if entry["validation_accuracy"] == best)
    measured = evaluate(problem.model, result.params, validation)
    assert measured.accuracy.mean() == pytest.approx(best, abs=0)
    kept = next(entry for entry in checks if entry["done"] == result.kept)
    assert measured.loss.mean() == pytest.approx(kept["validation_loss"], rel=1e-12)
    last = train(problem.model, problem.params, problem.episodes, replace(settings, checks=0), validation=validation)
    assert last.kept == 20
    assert same(last.params, train(problem.model, problem.params, problem.episodes, settings).params)


@pytest.mark.parametrize("after", [3, 13])
def test_an_interrupted_training_keeps_the_same_step(
    problem: Problem, validation: Episodes, tmp_path: Path, after: int
) -> None:
    settings = replace(QUICK, learning_rate=0.3, checks=10, polish=10)

    def again(progress: Progress | None = None, folder: Path | None = tmp_path) -> TrainingResult:
        return train(
            problem.model,
            problem.params,
            problem.episodes,
            settings,
            validation=validation,
            folder=folder,
            progress=progress,
        )

    with pytest.raises(Killed):
        again(Stops(after))
    assert read_history(tmp_path)[-1]["done"] == after
    resumed, whole = again(), again(folder=None)
    assert same(resumed.params, whole.params)
    assert (resumed.kept, resumed.history) == (whole.kept, whole.history)


def test_patience_stops_a_training_that_no_longer_improves(problem: Problem, validation: Episodes) -> None:
    settings = replace(QUICK, learning_rate=0.3, checks=20, patience=3)
    result = train(problem.model, problem.params, problem.episodes, settings, validation=validation)
    done = [entry["done"] for entry in result.history if "validation_accuracy" in entry]
    assert done[-1] in (result.kept + 3, 20)
    assert same(
        result.params, train(problem.model, problem.params, problem.episodes, settings, validation=validation).params
    )


def test_a_folder_without_a_training_has_no_history(problem: Problem, tmp_path: Path) -> None:
    assert read_history(tmp_path) == []
    run(problem, folder=tmp_path)
    assert read_history(tmp_path)[-1]["done"] == QUICK.iterations
    (tmp_path / STATE_FILE).write_bytes(b"half")
    assert read_history(tmp_path) == []


def test_l_bfgs_stops_where_nothing_improves(problem: Problem) -> None:
    model, start = linear_model()
    settings = replace(QUICK, iterations=0, polish=2000, tolerance=0)
    history = train(model, start, problem.episodes, settings).history
    assert history[-1]["done"] < settings.polish
    assert history[-1]["ratio"] < 1e-5


def test_snapshots_are_saved_and_survive_an_interruption(problem: Problem, tmp_path: Path) -> None:
    full = train(problem.model, problem.params, problem.episodes, QUICK)
    assert same(full.trajectory[-1].params, full.params)
    assert 1 < len(full.trajectory) <= 8
    rates = [snapshot.rate for snapshot in full.trajectory]
    assert rates == sorted(rates, reverse=True)
    with pytest.raises(Killed):
        train(problem.model, problem.params, problem.episodes, QUICK, folder=tmp_path, progress=Stops(11))
    resumed = train(problem.model, problem.params, problem.episodes, QUICK, folder=tmp_path)
    assert [s.rate for s in resumed.trajectory] == rates
    assert all(same(a.params, b.params) for a, b in zip(resumed.trajectory, full.trajectory, strict=True))


@pytest.mark.parametrize(("n", "size"), [(5, 2), (12, 12), (7, 3), (3, 1)])
def test_tasks_are_drawn_without_replacement_within_a_pass(n: int, size: int) -> None:
    per_pass = n // size
    for number in (0, 3):
        drawn = np.concatenate([_draw_tasks(n, size, number * per_pass + step, seed=0) for step in range(per_pass)])
        assert len(set(drawn.tolist())) == per_pass * size
        assert set(drawn.tolist()) <= set(range(n))


def test_every_task_is_drawn() -> None:
    assert set(np.concatenate([_draw_tasks(7, 3, step, seed=0) for step in range(20)]).tolist()) == set(range(7))
