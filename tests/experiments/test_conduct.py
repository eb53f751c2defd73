"""Every experiment from the command line, small: what it leaves, that it goes on, and what it refuses."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import NoReturn

import numpy as np
import pandas as pd
import pytest

from core.actions.compute import Compute
from core.actions.edit import edit
from core.experiments import catalog, conduct, figure2, ladder
from core.experiments.bench import Bench, Unit
from core.experiments.catalog import EXPERIMENTS, Experiment
from core.experiments.conduct import image_sets, result_folder
from core.experiments.outcome import Figures, Outcome
from core.experiments.profiles import MNIST, PROFILES, Profile
from core.experiments.results import Table, read_result
from core.maml.cost import training_cost
from core.maml.training import TrainSettings
from core.runtime.errors import UserError
from core.runtime.files import HOME_VARIABLE
from core.runtime.progress import Progress
from core.tasks.changes import Changes
from core.workspace.runs import RunWriter
from tests.needs import mini_imagenet_like
from tests.test_cli import Shell

FAST = ("table1-instances", "figure2", "appendix-e", "ladder")
ASK = ("--profile", "tiny", "--seeds", "1", "--device", "cpu")


@pytest.fixture(scope="module")
def shell(tmp_path_factory: pytest.TempPathFactory) -> Shell:
    return Shell(tmp_path_factory.mktemp("experiments"))


@pytest.fixture
def home(shell: Shell, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv(HOME_VARIABLE, str(shell.folder / "home"))
    return shell.folder / "home"


@pytest.mark.parametrize("name", EXPERIMENTS)
def test_every_experiment_leaves_a_folder_that_says_something(shell: Shell, home: Path, name: str) -> None:
    done = shell.done("experiments", name, *ASK, "--images", "mnist=mnist5k")
    folder = Path(done.out[-1])
    assert folder == result_folder(name, "tiny")
    result = read_result(folder)
    assert result.config["seeds"] == 1
    assert result.config["settings"] == json.loads(json.dumps(PROFILES["tiny"].described()))
    assert all(re.search(r"^\S.{30,}\.$", s) for s in result.says)
    assert result.tables
    assert all(len(row) == len(table.columns) for table in result.tables for row in table.rows)
    assert not re.search(
        r"\bnan\b|\binf\b", " ".join(cell for table in result.tables for row in table.rows for cell in row)
    )
    seeds = pd.read_parquet(folder / "seeds.parquet")
    assert set(seeds["data"]) == {"mnist"}
    assert set(seeds["seed"]) == {0}
    told = (folder / "README.md").read_text()
    for link in re.findall(r"\]\((\S+)\)", told):
        assert (folder / link).stat().st_size > 500
    assert len(re.findall(r"\]\((\S+)\)", told)) == len(result.plots) + len(result.grids) > 0


def test_list_says_what_there_is(shell: Shell) -> None:
    listed = shell.done("experiments", "--list").out
    assert [line.split("\t")[0] for line in listed] == list(EXPERIMENTS)


def test_the_second_time_nothing_is_measured(shell: Shell, home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shell.done("experiments", "figure2", *ASK)

    def refuse(_: Bench) -> NoReturn:
        raise AssertionError("measured again")

    monkeypatch.setitem(catalog.EXPERIMENTS, "figure2", replace(EXPERIMENTS["figure2"], measure=refuse))
    shell.done("experiments", "figure2", *ASK)
    with pytest.raises(AssertionError, match="measured again"):
        shell("experiments", "figure2", "--profile", "tiny", "--seeds", "2", "--device", "cpu")


def counted(measured: list[int], fail_at: int = -1) -> Experiment:
    """An experiment that notes its seeds, and fails at one of them."""

    def measure(bench: Bench) -> pd.DataFrame:
        measured.append(bench.unit.seed)
        if bench.unit.seed == fail_at:
            raise UserError("The disk is full.")
        with bench.piece(1):
            return pd.DataFrame({"value": [float(bench.unit.seed)]})

    def conclude(figures: Figures) -> Outcome:
        return Outcome(["said"], [Table("t", "T", ["seed"], [[str(v)] for v in figures.table["value"]])])

    return Experiment("counted", "Counted", "Counts.", (MNIST,), measure, conclude, lambda profile: 2)


def test_what_was_finished_before_a_failure_is_kept(shell: Shell, home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    measured: list[int] = []
    monkeypatch.setitem(catalog.EXPERIMENTS, "counted", counted(measured, fail_at=2))
    asked = ("experiments", "counted", "--profile", "tiny", "--seeds", "4")
    assert "The disk is full." in shell.refused(*asked)
    assert not result_folder("counted", "tiny").exists()
    monkeypatch.setitem(catalog.EXPERIMENTS, "counted", counted(measured))
    folder = Path(shell.done(*asked).out[-1])
    assert measured == [0, 1, 2, 2, 3]
    assert read_result(folder).tables[0].rows == [["0.0"], ["1.0"], ["2.0"], ["3.0"]]


def test_progress_runs_from_nothing_to_all(shell: Shell, home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[tuple[int, int]] = []

    class Noted(Progress):
        def _report(self, force: bool) -> None:
            seen.append((self._done, self._total))

    monkeypatch.setitem(catalog.EXPERIMENTS, "counted", counted([]))
    conduct.conduct(
        "counted", "tiny", {"mnist": "mnist5k"}, 2, shell.folder / "noted", Compute(), Noted(), "told by nobody"
    )
    done = [at for at, _ in seen]
    assert seen[0] == (0, 2000)
    assert seen[-1] == (2000, 2000)
    assert done == sorted(done)


@pytest.mark.parametrize(
    ("args", "said"),
    [
        (["nothing"], "no experiment 'nothing'"),
        ([], "no name of an experiment"),
        (["figure2", "--profile", "huge"], "no profile 'huge'"),
        (["figure2", "--images", "mnist"], "not understood"),
        (["figure2", "--images", "mnist=a,mnist=b"], "two image sets"),
        (["figure2", "--images", "mnist=a", "--images", "mnist=b"], "two image sets"),
        (["figure2", "--images", "cifar=mnist5k"], "no data set 'cifar'"),
        (["figure2", "--images", "mnist=elsewhere"], "elsewhere"),
    ],
)
def test_what_cannot_be_done_is_said(shell: Shell, args: list[str], said: str) -> None:
    assert said in shell.refused("experiments", *args)


def test_another_folder_is_not_written_over(shell: Shell, tmp_path: Path) -> None:
    (tmp_path / "mine.txt").write_text("mine")
    assert "holds something else" in shell.refused("experiments", "figure2", *ASK, "--out", tmp_path)
    assert (tmp_path / "mine.txt").read_text() == "mine"
    assert len(list(tmp_path.iterdir())) == 1


def test_mini_imagenet_runs_on_the_users_own_images(shell: Shell, home: Path, tmp_path: Path) -> None:
    mini_imagenet_like(tmp_path / "mini", classes=5, each=8)
    shell.done("data", "--path", tmp_path / "mini", "--name", "mini-imagenet", "--format", "mini-imagenet")
    assert image_sets()["mini-imagenet"] == "mini-imagenet"
    done = shell.done("experiments", "appendix-e", *ASK, "--images", "mini-imagenet=mini-imagenet")
    result = read_result(Path(done.out[-1]))
    assert [grid.data for grid in result.grids] == ["mini-imagenet"] * 2
    assert PROFILES["tiny"].spec("mini-imagenet").pooling == "max"


def test_data_sets_that_are_not_here_are_named(shell: Shell, tmp_path: Path) -> None:
    elsewhere = Shell(tmp_path)
    done = elsewhere.done("experiments", "appendix-e", *ASK)
    assert "omniglot is left out" in done.err
    assert "fc100 is left out" in done.err


@pytest.fixture(scope="module")
def bench(shell: Shell) -> Iterator[Bench]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(HOME_VARIABLE, str(shell.folder / "home"))
        unit = Unit(PROFILES["tiny"], MNIST, "mnist5k", 0)
        yield Bench(unit, Compute(device="cpu"), RunWriter(shell.folder / "work"), Progress(), "")


def test_edits_are_those_of_the_edit_command(bench: Bench) -> None:
    on = bench.problem("easy")
    changes = Changes(tasks=frozenset(np.array(on.loaded.project.tasks.train.task_ids)[on.spoilt_tasks]))
    finetune = TrainSettings(iterations=2, meta_batch=4, learning_rate=1e-2)
    ways = {"linear": bench.linear(on, changes, "gauss-newton"), "retrain": bench.retrained(on, changes)}
    ways |= {"finetune": bench.finetuned(on, changes, finetune), "newton": bench.newton(on, changes)}
    for way, made in ways.items():
        run = edit(
            on.workspace,
            way,
            changes,
            solver=bench.unit.profile.solve,
            finetune=finetune,
            compute=bench.compute,
            progress=Progress(),
        )
        figures = run.json("edit.json")
        own = on.loaded.with_params(made.params)
        from core.maml.evaluation import evaluate

        assert evaluate(own.model, own.params, own.heldout).mean_loss.mean == pytest.approx(
            figures["loss"]["mean"], rel=1e-5
        )
        assert made.cost == pytest.approx(figures["cost"]["meta_gradients"])


def test_costs_are_counted_in_meta_gradients(bench: Bench) -> None:
    on = bench.problem("none")
    ids = on.loaded.project.tasks.train.task_ids
    changes = Changes(tasks=frozenset(ids[:4]))
    whole = bench.price(on, changes)
    assert whole == training_cost(bench.unit.profile.training, len(ids) - 4) == 8 * 4
    assert bench.steps(on, changes, 0.25).cost == 8
    assert bench.steps(on, changes, 0.0001).cost == 1
    newton = bench.newton(on, changes)
    assert bench.steps(on, changes, (newton.cost + 3) / whole, newton).cost == newton.cost + 3
    gamma = bench.linear(on, changes, "gamma")
    # The gradients of what leaves; its curvature is one number, found once to measure its size and once to solve.
    assert gamma.cost == 2 * 4 + 2 * bench.unit.profile.solve.curvature_tasks
    assert bench.unedited(on).cost == 0


def test_what_is_called_spoilt_is_what_the_ladder_removes(bench: Bench) -> None:
    table = ladder.measure(replace(bench, work=RunWriter(bench.work.folder / "ladder")))
    harmful = table[table["condition"] == "harmful"].set_index("method")
    assert {"unedited", "linear", "newton", "retrain", "retrain-again", "steps-0.02"} <= set(harmful.index)
    assert harmful.loc["unedited", "cost"] == 0
    assert harmful.loc["retrain", "cost"] == 10 * 4
    assert np.isfinite(table["accuracy"]).all()


def test_larger_profiles_are_more_work() -> None:
    full: Profile = PROFILES["full"]
    assert figure2.weight(full) > figure2.weight(PROFILES["small"])
    assert {experiment.weight(full) > 0 for experiment in EXPERIMENTS.values()} == {True}
