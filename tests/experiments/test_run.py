"""Run every small experiment from the command line: what it writes, that it resumes, and what it refuses.

Two are measured; ``make test`` replays recorded figures for the others, and ``make test-all`` measures them too.
"""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Iterator
from dataclasses import asdict, replace
from pathlib import Path
from typing import NoReturn

import numpy as np
import pandas as pd
import pytest

from core.actions.compute import Compute
from core.actions.edit import edit
from core.actions.recommend import by_suspicion, newest_recommendation
from core.experiments import catalog, edit_methods
from core.experiments.catalog import EXPERIMENTS, Experiment, experiment_of
from core.experiments.context import ExperimentContext
from core.experiments.problems import Repetition
from core.experiments.profiles import MNIST, PROFILES
from core.experiments.results import Table, read_result, result_sequence
from core.experiments.run import image_sets, result_folder, run_experiment
from core.experiments.summary import ExperimentSummary, Measurements
from core.maml.cost import training_cost
from core.maml.evaluation import evaluate
from core.maml.training import TrainSettings
from core.recommendation.recommend import ScoredLevels
from core.runtime.errors import UserError
from core.runtime.files import HOME_VARIABLE
from core.runtime.progress import Progress
from core.tasks.changes import Changes
from core.workspace.runs import RunWriter
from tests.cli.shell import Shell
from tests.experiments.recorded import ASK, measure, recorded
from tests.needs import mini_imagenet_like

WHOLE = ("figure2", "appendix-e")
"""Measured also by ``make test``."""


@pytest.fixture(scope="module")
def shell(tmp_path_factory: pytest.TempPathFactory) -> Shell:
    return Shell(tmp_path_factory.mktemp("experiments"))


@pytest.fixture
def home(shell: Shell, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv(HOME_VARIABLE, str(shell.folder / "home"))
    return shell.folder / "home"


def check_folder(name: str, shell: Shell) -> None:
    """Run an experiment and check that its folder has tables, pictures and findings."""
    done = shell.done("experiments", name, *ASK, "--images", "mnist=mnist5k")
    folder = Path(done.out[-1])
    assert folder == result_folder(name, "tiny")
    result = read_result(folder)
    assert result.config["seeds"] == 1
    assert result.config["settings"] == json.loads(json.dumps(asdict(PROFILES["tiny"])))
    assert all(re.search(r"^\S.{30,}\.$", s) for s in result.findings)
    assert result.tables
    assert all(len(row) == len(table.columns) for table in result.tables for row in table.rows)
    assert not re.search(
        r"\bnan\b|\binf\b", " ".join(cell for table in result.tables for row in table.rows for cell in row)
    )
    seeds = pd.read_parquet(folder / "seeds.parquet")
    assert set(seeds["data"]) == {"mnist"}
    assert set(seeds["seed"]) == {0}
    page = (folder / "README.md").read_text()
    for link in re.findall(r"\]\((\S+)\)", page):
        assert (folder / link).stat().st_size > 500
    assert len(re.findall(r"\]\((\S+)\)", page)) == len(result.plots) + len(result.grids) > 0


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=() if name in WHOLE else pytest.mark.slow) for name in EXPERIMENTS]
)
def test_every_experiment_writes_a_folder_with_findings(shell: Shell, home: Path, name: str) -> None:
    check_folder(name, shell)


@pytest.mark.parametrize("name", [name for name in EXPERIMENTS if name not in WHOLE])
def test_recorded_figures_become_a_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    monkeypatch.setenv(HOME_VARIABLE, str(tmp_path / "home"))
    measured = pd.read_parquet(recorded(name))
    monkeypatch.setitem(catalog.EXPERIMENTS, name, replace(EXPERIMENTS[name], measure=lambda _: measured))
    check_folder(name, Shell(tmp_path))


@pytest.mark.slow
@pytest.mark.parametrize("name", [name for name in EXPERIMENTS if name not in WHOLE])
def test_recorded_figures_have_the_form_of_measured_ones(shell: Shell, home: Path, name: str) -> None:
    before, now = pd.read_parquet(recorded(name)), pd.read_parquet(measure(name, shell))
    assert list(before) == list(now), f"python -m tests.experiments.recorded {name}"
    words = [column for column in now if column != "note" and now[column].map(lambda v: isinstance(v, str)).all()]
    assert before[words].equals(now[words]), f"python -m tests.experiments.recorded {name}"


def test_list_shows_every_experiment(shell: Shell) -> None:
    listed = shell.done("experiments", "--list").out
    assert [line.split("\t")[0] for line in listed] == list(EXPERIMENTS)


def test_results_under_a_former_name_are_used(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(HOME_VARIABLE, str(tmp_path))
    assert experiment_of("ladder") is EXPERIMENTS["edit-methods"]
    folder = result_folder("ladder", "tiny")
    assert folder.name == "edit-methods-tiny"
    former = folder.with_name("ladder-tiny")
    former.mkdir(parents=True)
    assert result_folder("edit-methods", "tiny") == former


def test_finished_repetitions_are_not_measured_again(shell: Shell, home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shell.done("experiments", "figure2", *ASK)

    def refuse(_: ExperimentContext) -> NoReturn:
        raise AssertionError("measured again")

    monkeypatch.setitem(catalog.EXPERIMENTS, "figure2", replace(EXPERIMENTS["figure2"], measure=refuse))
    shell.done("experiments", "figure2", *ASK)
    with pytest.raises(AssertionError, match="measured again"):
        shell("experiments", "figure2", "--profile", "tiny", "--seeds", "2", "--device", "cpu")


def counted(measured: list[int], fail_at: int = -1) -> Experiment:
    """Return an experiment that records its seeds, and fails at one of them."""

    def measure(context: ExperimentContext) -> pd.DataFrame:
        measured.append(context.unit.seed)
        if context.unit.seed == fail_at:
            raise UserError("The disk is full.")
        context.expect(2)
        with context.part(1):
            return pd.DataFrame({"value": [float(context.unit.seed)]})

    def summarize(measurements: Measurements) -> ExperimentSummary:
        rows = [[str(value)] for value in measurements.table["value"]]
        return ExperimentSummary(["finding"], [Table("t", "T", ["seed"], rows)])

    return Experiment("counted", "Counted", "Counts.", (MNIST,), measure, summarize)


def test_repetitions_finished_before_a_failure_are_reused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shell = Shell(tmp_path)
    monkeypatch.setenv(HOME_VARIABLE, str(tmp_path / "home"))
    measured: list[int] = []
    monkeypatch.setitem(catalog.EXPERIMENTS, "counted", counted(measured, fail_at=2))
    args = ("experiments", "counted", "--profile", "tiny", "--seeds", "4")
    assert "The disk is full." in shell.refused(*args)
    assert not result_folder("counted", "tiny").exists()
    monkeypatch.setitem(catalog.EXPERIMENTS, "counted", counted(measured))
    folder = Path(shell.done(*args).out[-1])
    assert measured == [0, 1, 2, 2, 3]
    assert read_result(folder).tables[0].rows == [["0.0"], ["1.0"], ["2.0"], ["3.0"]]


def test_results_are_numbered_by_when_they_were_made(
    tmp_path: Path, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(catalog.EXPERIMENTS, "counted", counted([]))
    made = [tmp_path / name for name in ("b", "a", "c", "b")]
    for out in made:
        run_experiment("counted", "tiny", {"mnist": "mnist5k"}, 1, out, Compute(), Progress(), "command")
    assert [result_sequence(out) for out in made[1:]] == [2, 3, 4]
    assert read_result(made[0]).config["sequence"] == 4


def test_progress_runs_from_0_to_the_total(shell: Shell, home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[tuple[int, int]] = []

    class Noted(Progress):
        def _report(self, force: bool) -> None:
            seen.append((self._done, self._total))

    monkeypatch.setitem(catalog.EXPERIMENTS, "counted", counted([]))
    run_experiment("counted", "tiny", {"mnist": "mnist5k"}, 2, shell.folder / "noted", Compute(), Noted(), "command")
    done = [at for at, _ in seen]
    assert seen[0] == (0, 2000)
    assert seen[-1] == (2000, 2000)
    assert done == sorted(done)


@pytest.mark.parametrize(
    ("args", "named"),
    [
        (["nothing"], "'nothing'"),
        ([], "table1-tasks"),
        (["figure2", "--profile", "huge"], "'huge'"),
        (["figure2", "--images", "mnist"], "'mnist'"),
        (["figure2", "--images", "mnist=a,mnist=b"], "'mnist'"),
        (["figure2", "--images", "mnist=a", "--images", "mnist=b"], "'mnist'"),
        (["figure2", "--images", "cifar=mnist5k"], "'cifar'"),
        (["figure2", "--images", "mnist=elsewhere"], "elsewhere"),
    ],
)
def test_errors_name_the_invalid_value(shell: Shell, args: list[str], named: str) -> None:
    assert named in shell.refused("experiments", *args)


def test_another_folder_is_not_overwritten(shell: Shell, tmp_path: Path) -> None:
    (tmp_path / "mine.txt").write_text("mine")
    assert str(tmp_path) in shell.refused("experiments", "figure2", *ASK, "--out", tmp_path)
    assert (tmp_path / "mine.txt").read_text() == "mine"
    assert len(list(tmp_path.iterdir())) == 1


@pytest.mark.slow
def test_mini_imagenet_runs_on_the_users_own_images(shell: Shell, home: Path, tmp_path: Path) -> None:
    mini_imagenet_like(tmp_path / "mini", classes=5, each=8)
    shell.done("data", "--path", tmp_path / "mini", "--name", "mini-imagenet", "--format", "mini-imagenet")
    assert image_sets()["mini-imagenet"] == "mini-imagenet"
    done = shell.done("experiments", "appendix-e", *ASK, "--images", "mini-imagenet=mini-imagenet")
    result = read_result(Path(done.out[-1]))
    assert [grid.data for grid in result.grids] == ["mini-imagenet"] * 2


def test_missing_data_sets_are_named(shell: Shell, tmp_path: Path) -> None:
    elsewhere = Shell(tmp_path)
    done = elsewhere.done("experiments", "appendix-e", *ASK)
    skipped = {line.split()[0] for line in done.err.splitlines() if "docs/data.md" in line}
    assert {"omniglot", "mini-imagenet", "fc100"} == skipped


@pytest.fixture(scope="module")
def context(shell: Shell) -> Iterator[ExperimentContext]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(HOME_VARIABLE, str(shell.folder / "home"))
        unit = Repetition(PROFILES["tiny"], MNIST, "mnist5k", 0)
        yield ExperimentContext(unit, Compute(device="cpu"), RunWriter(shell.folder / "work"), Progress(), "")


def test_edits_are_those_of_the_edit_command(context: ExperimentContext) -> None:
    problem = context.problem("easy")
    noisy = np.array(problem.project.tasks.train.task_ids)[problem.noisy_tasks]
    changes = Changes(tasks=frozenset(noisy))
    finetune = TrainSettings(iterations=2, meta_batch=4, learning_rate=1e-2)
    methods = {
        "linear": context.linear(problem, changes, "gauss-newton"),
        "retrain": context.retrain(problem, changes),
        "finetune": context.finetune(problem, changes, finetune),
        "newton": context.newton(problem, changes),
    }
    for method, edited in methods.items():
        run = edit(
            problem.workspace,
            method,
            changes,
            solver=context.unit.profile.solve,
            finetune=finetune,
            compute=context.compute,
            progress=Progress(),
        )
        expected = run.json("edit.json")
        loaded = problem.loaded.with_params(edited.params)
        loss = evaluate(loaded.model, loaded.params, loaded.heldout).mean_loss.mean
        assert loss == pytest.approx(expected["loss"]["mean"], rel=1e-5)
        assert edited.cost == pytest.approx(expected["cost"]["meta_gradients"])


def test_costs_are_counted_in_meta_gradients(context: ExperimentContext) -> None:
    problem = context.problem("none")
    ids = problem.project.tasks.train.task_ids
    changes = Changes(tasks=frozenset(ids[:4]))
    whole = context.retraining_cost(problem, changes)
    assert whole == training_cost(context.unit.profile.training[MNIST], len(ids) - 4) == 8 * 4
    assert context.steps(problem, changes, 0.25).cost == 8
    assert context.steps(problem, changes, 0.0001).cost == 1
    newton = context.newton(problem, changes)
    assert context.steps(problem, changes, (newton.cost + 3) / whole, newton).cost == newton.cost + 3
    gamma = context.linear(problem, changes, "gamma")
    # Gradients of the removed tasks; the curvature is one number, computed once to measure its size and once to solve.
    assert gamma.cost == 2 * 4 + 2 * context.unit.profile.solve.curvature_tasks
    assert context.unedited(problem).cost == 0


def test_the_recommended_order_is_that_of_one_stored_recommendation(
    context: ExperimentContext, monkeypatch: pytest.MonkeyPatch
) -> None:
    problem = context.problem("easy")
    ids = np.array(problem.project.tasks.train.task_ids)
    suspicion = np.random.default_rng(0).random(len(ids))
    table = pd.DataFrame({"task_id": ids, "suspicion": suspicion, "probability": 0.5}).sample(frac=1, random_state=0)

    def made(*_: object) -> ScoredLevels:  # the real one takes seconds
        return ScoredLevels({"tasks": table}, pd.DataFrame(), {}, {})

    monkeypatch.setattr("core.recommendation.recommend.recommend", made)
    scores, seconds = context.task_scores(problem, "recommended")
    run = newest_recommendation(problem.workspace, problem.project)
    assert run is not None
    assert scores.tolist() == (-suspicion).tolist()
    assert ids[np.argsort(scores)].tolist() == by_suspicion(run, "tasks")["task_id"].tolist()
    assert seconds == run.processor_seconds > 0
    again, same_seconds = context.task_scores(problem, "recommended")
    assert (again.tolist(), same_seconds) == (scores.tolist(), seconds)
    assert len(problem.workspace.runs.all("recommend")) == 1
    shutil.rmtree(run.folder)  # other tests share the problem


def test_direct_gradients_give_another_linear_edit(context: ExperimentContext) -> None:
    problem = context.problem("easy")
    changes = Changes(tasks=frozenset(problem.project.tasks.train.task_ids[:2]))
    before = problem.loaded.model
    total, direct = (context.linear(problem, changes, "gauss-newton", gradient) for gradient in ("total", "direct"))
    assert any((total.params[name] != direct.params[name]).any() for name in total.params)
    assert problem.loaded.model is before


@pytest.mark.slow
def test_noisy_tasks_are_removed_to_compare_edit_methods(context: ExperimentContext) -> None:
    table = edit_methods.measure(replace(context, work=RunWriter(context.work.folder / "edit-methods")))
    harmful = table[table["condition"] == "harmful"].set_index("method")
    assert {"unedited", "linear", "newton", "retrain", "retrain-again", "steps-0.02"} <= set(harmful.index)
    assert harmful.loc["unedited", "cost"] == 0
    training = context.unit.profile.training[context.unit.data]
    assert harmful.loc["retrain", "cost"] == training.iterations * training.meta_batch
    assert np.isfinite(table["accuracy"]).all()
