"""The command line from drawing tasks to the export on a small problem, and its errors."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pandas as pd
import pytest

from core.actions import preparation
from core.actions.recommend import recommended_levels
from core.checkpoints.model import load_model
from core.cli.app import CANCELLED, program
from core.recommendation import copies
from core.runtime.files import HOME_VARIABLE
from core.runtime.progress import PROGRESS_FILE_VARIABLE
from core.tasks.changes import cleaned
from core.tasks.generate import read_folder
from core.tasks.tasklist import read_tasks
from core.workspace.workspace import Workspace
from tests.actions.recommended import PROPOSED, stored_recommendation
from tests.cli.shell import ROOT, SOLVE, TASKS, TRAIN, Shell, made, workspace


@pytest.fixture(scope="module")
def ready(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The workspace with a ranking and an evaluation; tests work on copies of it."""
    folder = tmp_path_factory.mktemp("ready")
    made(folder).done("rank", "-w", "mine", *SOLVE)
    return folder


@pytest.fixture
def shell(ready: Path, tmp_path: Path) -> Shell:
    shutil.copytree(ready, tmp_path / "copy")
    return Shell(tmp_path / "copy")


def test_the_workflow_from_tasks_to_export(shell: Shell) -> None:
    opened = workspace(shell)
    evaluated = shell.done("evaluate", "-w", "mine", "--device", "cpu")
    assert json.loads((evaluated.path / "summary.json").read_text())["tasks"] == 4
    assert evaluated.path.parent == opened.folder / "runs"
    removed = shell.done("remove", "-w", "mine", "--worst", "2", "--reason", "harmful", "--reviewer", "Ann")
    tasks = opened.runs.all("rank")[0].table("tasks.parquet").sort_values("score")
    assert removed.out == [f"task\t{name}" for name in sorted(tasks["task_id"].iloc[:2])]
    assert {entry.cause for entry in opened.decisions.current().values()} == {"harmful"}

    ways = ["linear", "finetune", "finetune-all", "retrain"]
    options = [part for way in ways for part in ("--how", way)]
    edited = shell.done("edit", "-w", "mine", *options, "--finetune-steps", "2", *SOLVE)
    assert [Path(line).name.rsplit("-", 1)[0] for line in edited.out] == [f"edit-{way}" for way in ways]
    for line, way in zip(edited.out, ways, strict=True):
        assert f"{way}: " in edited.err
        figures = json.loads((Path(line) / "edit.json").read_text())
        assert figures["removed"] == {"tasks": 0 if way == "finetune-all" else 2, "images": 0, "instances": 0}
        assert load_model(Path(line) / "model").hash != opened.project().model.hash

    curve = ["curve", "-w", "mine", "--shares", "0,0.5", "--seeds", "1", "--finetune-steps", "1", "--device", "cpu"]
    points = shell.done(*curve)
    assert points.path.name.startswith("curve-")
    table = opened.runs.all("curve")[0].table("points.parquet")
    assert table["order"].tolist() == ["none", "harmful", "loss", "random"]
    assert table["removed"].tolist() == [0, 3, 3, 3]

    linear = Path(edited.out[0])
    exported = shell.done("export", "-w", "mine", "--out", shell.folder / "out-folder", "--model", linear.name)
    assert exported.path == shell.folder / "out-folder"
    expected = cleaned(opened.project().tasks.train, opened.changes())
    assert len(expected) == 4
    for name in ("parquet", "csv", "json"):
        assert read_tasks(exported.path / f"cleaned-tasks.{name}", opened.project().images).hash == expected.hash
    assert load_model(exported.path / "model").hash == load_model(linear / "model").hash
    removed = pd.read_csv(exported.path / "removed.csv")
    assert set(removed["reviewer"]) == {"Ann"}
    assert removed["source"].str.startswith("rank-").all()
    assert json.loads((exported.path / "export.json").read_text())["tasks"] == {"before": 6, "after": 4}

    removed, undone = len(opened.changes()), shell.done("remove", "-w", "mine", "--undo", "--reviewer", "Ann")
    assert undone.out == []
    assert undone.err.startswith(str(removed))
    assert len(opened.changes()) == 0
    assert shell.done("remove", "-w", "mine", "--undo", "--reviewer", "Ann").err, "nothing to undo is said"


def test_marked_images_are_exported_with_and_without_their_rows(shell: Shell) -> None:
    opened = workspace(shell)
    images = opened.runs.all("rank")[0].table("images.parquet").sort_values("score", kind="stable")
    marked = shell.done("remove", "-w", "mine", "--worst", "1", "--by", "images")
    (image,) = images["image_id"].iloc[:1]
    assert marked.out == [f"image\t{image}"]
    for options, drop in (([], False), (["--drop-rows"], True)):
        folder = shell.folder / f"export-{drop}"
        result = shell("export", "-w", "mine", "--formats", "csv", "--out", folder, *options)
        if result.code == 0:
            expected = cleaned(opened.project().tasks.train, opened.changes(), drop_rows=drop)
            assert read_tasks(folder / "cleaned-tasks.csv").hash == expected.hash
            assert sorted(path.name for path in folder.iterdir()) == ["cleaned-tasks.csv", "export.json", "removed.csv"]
        else:
            assert drop
            assert result.code == 2
            assert image in result.err or "support" in result.err


def test_recommended_removals(shell: Shell, monkeypatch: pytest.MonkeyPatch) -> None:
    opened = workspace(shell)
    assert "tasklens recommend" in shell.refused("remove", "-w", "mine", "--recommended")
    ranked = opened.runs.all("rank")[0]
    (most_harmful,) = ranked.table("tasks.parquet").sort_values("score", kind="stable")["task_id"].head(1)
    run = stored_recommendation(opened, last=most_harmful)
    tasks = run.table("tasks.parquet")["task_id"].tolist()
    first = shell.done("remove", "-w", "mine", "--worst", "1", "--reviewer", "Ann")
    assert first.out == [f"task\t{tasks[0]}"]
    assert run.id in first.err
    (entry,) = opened.decisions.current().values()
    assert (entry.source, entry.cause) == (run.id, "label-error")
    again = shell.done("remove", "-w", "mine", "--worst", "2", "--reviewer", "Bob")
    assert sorted(again.out) == sorted(f"task\t{one}" for one in tasks[:2])
    reviewers = sorted(entry.reviewer for entry in opened.decisions.current().values())
    assert reviewers == ["Ann", "Bob"], "what is decided already stays as it is"
    shell.done("remove", "-w", "mine", "--undo", "--reviewer", "Bob")
    shell.done("remove", "-w", "mine", "--undo", "--reviewer", "Ann")
    for name in (ranked.id, "newest"):
        one = shell.done("remove", "-w", "mine", "--worst", "1", "--ranking", name, "--reviewer", "Ann")
        assert one.out == [f"task\t{most_harmful}"]
        shell.done("remove", "-w", "mine", "--undo", "--reviewer", "Ann")
    for level, count in PROPOSED.items():
        shell.done("remove", "-w", "mine", "--recommended", "--by", level, "--reviewer", "Ann")
        assert opened.changes().removed == dict.fromkeys(PROPOSED, 0) | {level: count}
        assert level in shell.refused("remove", "-w", "mine", "--recommended", "--by", level)
        shell.done("remove", "-w", "mine", "--undo", "--reviewer", "Ann")
    options = ["--orders", "recommended", "--shares", "0.5", "--seeds", "1", "--finetune-steps", "1"]
    curve = shell.done("curve", "-w", "mine", *options, "--device", "cpu")
    assert pd.read_parquet(curve.path / "points.parquet")["order"].tolist() == ["recommended"]

    for name in ("TASKS", "MISLABELLED_TASKS", "SCORED_ROW_TASKS"):
        monkeypatch.setattr(copies, name, 5)
    computed = shell.done("recommend", "-w", "mine", "--rounds", "1", "--device", "cpu")
    levels = recommended_levels(opened.runs.get(computed.path.name))
    assert len(levels) == 3
    for found in levels.values():
        assert found.sentence in computed.err
        assert found.proposal in computed.err


def test_repeated_commands_reuse_the_run(shell: Shell) -> None:
    shell.done("remove", "-w", "mine", "--worst", "1")
    for command in (
        ["rank", "-w", "mine", *SOLVE],
        ["evaluate", "-w", "mine", "--device", "cpu"],
        ["edit", "-w", "mine", "--how", "finetune", "--finetune-steps", "1", "--device", "cpu"],
        ["curve", "-w", "mine", "--shares", "0", "--seeds", "1", "--finetune-steps", "1", "--device", "cpu"],
    ):
        first = shell.done(*command)
        before = {path: path.stat().st_mtime_ns for path in first.path.rglob("*")}
        second = shell.done(*command)
        assert second.path == first.path
        assert {path: path.stat().st_mtime_ns for path in first.path.rglob("*")} == before


def test_a_stored_result_is_computed_again(shell: Shell) -> None:
    stored = workspace(shell).runs.all("evaluate")[0]
    before = stored.finished
    again = shell.done("rerun", stored.id, "-w", "mine")
    assert again.path == stored.folder
    assert stored.finished > before
    assert "--workspace" in stored.command
    shell.done("rerun", stored.id, "-w", "mine")

    ranked = workspace(shell).runs.all("rank")[0]
    for args, printed in ((["export"], 0), (["rank", "--method", "dot"], 1)):  # another command; another result
        provenance = json.loads((ranked.folder / "provenance.json").read_text())
        (ranked.folder / "provenance.json").write_text(json.dumps(provenance | {"command": ["tasklens", *args]}))
        refused = shell("rerun", ranked.id, "-w", "mine")
        assert (refused.code, len(refused.out)) == (2, printed)
        assert ranked.id in refused.err


def test_repeated_training_reads_the_model(shell: Shell) -> None:
    again = [*TRAIN, "--tasks", shell.folder / "tasks", "--out", shell.folder / "model"]
    before = (shell.folder / "model" / "model.json").stat().st_mtime_ns
    assert shell.done(*again).path == shell.folder / "model"
    assert (shell.folder / "model" / "model.json").stat().st_mtime_ns == before
    assert str(shell.folder / "model") in shell.refused(*again, "--seed", "1")


def test_exact_curvature_in_double_precision(shell: Shell) -> None:
    run = shell.done("rank", "-w", "mine", "--curvature", "exact", "--dtype", "float64", *SOLVE).path
    report = json.loads((run / "solver.json").read_text())
    assert (report["curvature"], report["dtype"], report["curvature_tasks"]) == ("exact", "float64", 6)
    assert report["residual"] <= 0.011


def test_rankings_are_compared_with_retraining(shell: Shell) -> None:
    sweep = ["--subsets", "3", "--seeds", "1", "--targets", "2", "--iterations", "2", "--device", "cpu"]
    rated = shell.done("evidence", "-w", "mine", "--methods", "dot,loss,task-if:damping=0.5", *sweep)
    assert rated.path.name.startswith("evidence-")
    assert "task-if:damping=0.5" in rated.err
    assert set(workspace(shell).runs.get(rated.path.name).table("methods.parquet")["method"]) == {
        "dot",
        "loss",
        "task-if:damping=0.5",
        "ceiling",
    }
    refused = shell.refused("evidence", "-w", "mine", "--methods", "guess", *sweep)
    assert "'guess'" in refused


@pytest.mark.parametrize("method", ["direct-if", "task-if-paper", "dot", "tracin"])
def test_methods_are_chosen_by_name(shell: Shell, method: str) -> None:
    ranked = shell.done("rank", "-w", "mine", "--method", method, "--device", "cpu")
    assert workspace(shell).runs.get(ranked.path.name).json("solver.json")["method"] == method


def test_options_of_a_method_that_do_not_fit_are_refused(shell: Shell) -> None:
    low_rank = ["--solver", "low-rank", "--rank", "30", "--subsample", "difficulty", "--curvature-tasks", "3"]
    ranked = shell.done("rank", "-w", "mine", *low_rank, "--device", "cpu")
    report = workspace(shell).runs.get(ranked.path.name).json("solver.json")
    assert (report["solver"], report["rank"], report["subsample"]) == ("low-rank", 30, "difficulty")
    assert "--inner ekfac" in shell.refused("rank", "-w", "mine", "--solver", "ekfac")
    assert "task-fisher" in shell.refused("rank", "-w", "mine", "--solver", "dual")
    assert "inner" in shell.refused("rank", "-w", "mine", "--inner", "ekfac", "--device", "cpu")


@pytest.mark.parametrize(
    "algorithm",
    [
        pytest.param(name, marks=() if name == "meta-sgd" else pytest.mark.slow)
        for name in ("meta-sgd", "fomaml", "anil", "imaml")
    ],
)
def test_every_algorithm_is_trained_and_ranked(shell: Shell, algorithm: str) -> None:
    network = ["--backbone", "mlp", "--hidden", "4", "--shrink", "7", "--proximity", "1", "--dtype", "float64"]
    folder = shell.folder
    train = ["train", "--iterations", "3", "--device", "cpu", "--tasks", folder / "tasks", "--out", folder / algorithm]
    shell.done(*train, "--algorithm", algorithm, *network)
    shell.done("open", "--tasks", folder / "tasks", "--model", folder / algorithm, "-w", algorithm)
    shell.done("rank", "-w", algorithm, *SOLVE, "--dtype", "float64")
    if algorithm == "imaml":
        paper = shell.done("rank", "-w", algorithm, *SOLVE, "--dtype", "float64", "--inner", "ekfac")
        report = Workspace(folder / "home" / algorithm).runs.get(paper.path.name).json("solver.json")
        assert report["inner_inverse"] == "ekfac"
        assert report["inner"]["residual"] < 1e-3
        assert not report["inner"]["nearly_singular"]


def test_what_ifs_of_decisions_of_named_tasks_and_of_a_target(shell: Shell, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(preparation, "SETTINGS", replace(preparation.SETTINGS, rank=5))
    ask = ("whatif", "-w", "mine", "--device", "cpu")
    made = shell.done(*ask, "--prepare").path
    assert made == shell.done(*ask, "--prepare").path
    assert (made / "report.json").exists()
    assert shell.refused(*ask)
    shell.done("remove", "-w", "mine", "--worst", "2")
    marked = shell.done(*ask).out
    assert re.fullmatch(r"estimate by a basis of rank \d+, not a measurement; residual \d+%, \d+ ms", marked[0])
    assert re.fullmatch(r"with 2 tasks removed: held-out accuracy 0\.\d+ \[.+, .+\]", marked[1])
    assert [line.rsplit(" ", 3)[0] for line in marked[2:4]] == ["change of accuracy", "change of loss"]
    named = ",".join(sorted(workspace(shell).changes().tasks))
    assert shell.done(*ask, "--tasks", named).out[1:] == marked[1:]
    scored = [line.split("\t") for line in shell.done(*ask, "--target", "h0", "--top", "2").out[1:]]
    assert [row[0] for row in scored] == ["harmful"] * 2 + ["helpful"] * 2
    values = [float(row[2]) for row in scored]
    assert values[0] <= values[1] <= values[3] <= values[2]
    assert "--target" in shell.refused(*ask, "--target", "all", "--tasks", "t0")
    assert "'t99'" in shell.refused(*ask, "--tasks", "t99")


def test_named_sets_and_explanations_of_failures(shell: Shell, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(preparation, "SETTINGS", replace(preparation.SETTINGS, rank=5))
    at = ("-w", "mine")
    rows = workspace(shell).project().tasks.train.rows
    image, name = rows["image_id"].iloc[0], rows["class"].iloc[-1]
    shell.done("remove", *at, "--task", "t1")
    assert shell.done("sets", "save", "decided", *at, "--note", "as\tit \x1b[31mis").out == ["1 task removed"]
    shell.done("sets", "save", "labels", *at, "--relabel", f"{image}={name}", "--tasks", "t2")
    assert "labels" in shell.refused("sets", "save", "labels", *at, "--tasks", "t3")
    assert "as\\tit \\x1b[31mis" in shell.done("sets", "list", *at).out[0].split("\t")
    listed = [line.split("\t")[:2] for line in shell.done("sets", "list", *at).out]
    assert listed == [["decided", "1 task removed"], ["labels", "1 task removed, 1 image relabelled"]]
    assert shell.done("sets", "show", "labels", *at).out == ["task\tt2", f"image\t{image}\t{name}"]
    printed = "\n".join(shell.done("sets", "compare", "labels", *at, "--device", "cpu").out)
    assert "estimate, not a measurement" in printed
    assert "not measured until retrained" in printed
    shell.done("edit", *at, "--set", "labels", "--how", "retrain", "--device", "cpu")
    printed = "\n".join(shell.done("sets", "compare", *at, "--device", "cpu").out)
    assert "measured by retrain" in printed
    assert printed.count("not measured until retrained") == 1
    shell.done("sets", "delete", "labels", *at)
    assert len(shell.done("sets", "list", *at).out) == 1

    why = shell.done("why", *at, "--target", "h0", "--top", "1", "--remove", "2", "--device", "cpu").out
    assert [line.split("\t")[:2] for line in why[1:5]] == [
        [word, what] for what in ("task", "image") for word in ("harmful", "helpful")
    ]
    assert re.fullmatch(r"loss of h0: .+, then .+ \(.+ to first order\)", why[-1])


def test_a_ranking_for_one_held_out_image(shell: Shell) -> None:
    rows = workspace(shell).project().tasks.heldout.rows
    image = rows.loc[(rows["task_id"] == "h1") & (rows["role"] == "query"), "image_id"].iloc[0]
    run = shell.done("rank", "-w", "mine", "--target", f"h1/{image}", *SOLVE).path
    assert json.loads((run / "solver.json").read_text())["target"] == f"h1/{image}"


def test_tasks_have_the_requested_size(tmp_path: Path) -> None:
    result = Shell(tmp_path).done(*TASKS, "--out", tmp_path / "tasks")
    assert result.path == tmp_path / "tasks"
    folder = read_folder(tmp_path / "tasks")
    assert (folder.train.ways, len(folder.train), len(folder.heldout)) == (3, 6, 4)


WRONG: list[tuple[list[str], str]] = [
    (["rank", "-w", "nothing"], "nothing"),
    (["evaluate", "-w", "./tasks/train.parquet"], "train.parquet"),
    (["rank", "-w", "mine", "--curvature", "fisher"], "curvature: 'fisher'"),
    (["rank", "-w", "mine", "--target", "h9"], "'h9'"),
    (["rank", "-w", "mine", "--target", "h0/cat"], "cat"),
    (["rank", "-w", "mine", "--damping", "-1"], "--damping"),
    (["rank", "-w", "mine", "--solve-seed", "-1"], "--solve-seed"),
    (["rank", "-w", "mine", "--curvature-tasks", "0", "--solve-iterations", "1"], "residual"),
    (["evaluate", "-w", "mine", "--device", "abacus"], "'abacus'"),
    (["evaluate", "-w", "mine", "--dtype", "float8"], "dtype: 'float8'"),
    (["edit", "-w", "mine", "--how", "pray"], "how: 'pray'"),
    (["edit", "-w", "mine", "--how", "linear"], "changes"),
    (["edit", "-w", "mine", "--set", "none"], "'none'"),
    (["sets", "save", "x", "-w", "mine", "--relabel", "a"], "IMAGE=CLASS"),
    (["sets", "save", "x", "-w", "mine", "--tasks", "t99"], "'t99'"),
    (["sets", "delete", "../x", "-w", "mine"], "../x"),
    (["curve", "-w", "mine", "--shares", "a lot"], "shares: 'a lot'"),
    (["curve", "-w", "mine", "--shares", "0,1"], "shares: 1.0"),
    (["curve", "-w", "mine", "--orders", "best"], "orders: 'best'"),
    (["curve", "-w", "mine", "--by", "pixels"], "by: 'pixels'"),
    (["curve", "-w", "mine", "--seeds", "0"], "--seeds"),
    (["curve", "-w", "mine", "--ranking", "rank-0"], "'rank-0'"),
    (["curve", "-w", "mine", "--ranking", ""], "''"),
    (["remove", "-w", "mine"], "item"),
    (["remove", "-w", "mine", "--worst", "7"], "6 tasks"),
    (["remove", "-w", "mine", "--recommended", "--ranking", "newest"], "--ranking"),
    (["remove", "-w", "mine", "--recommended", "--worst", "1"], "--worst"),
    (["remove", "-w", "mine", "--task", "t9"], "'t9'"),
    (["remove", "-w", "mine", "--image", "cat"], "'cat'"),
    (["export", "-w", "mine", "--formats", "xls"], "'xls'"),
    (["export", "-w", "mine", "--model", "edit-0"], "'edit-0'"),
    (["export", "-w", "mine", "--model", "RANKING"], "rank-"),
    (["export", "-w", "mine", "--out", "tasks"], "tasks"),
    (["export", "-w", "mine", "--out", "tasks/tasks.json"], "tasks.json"),
    ([*TASKS, "--out", "new", "--ways", "11"], "11"),
    ([*TASKS, "--out", "new", "--noise", "salt"], "'salt'"),
    ([*TASKS, "--out", "new", "--seed", "-1"], "--seed"),
    ([*TASKS, "--out", "tasks/tasks.json"], "tasks.json"),
    ([*TRAIN, "--tasks", "nothing", "--out", "new"], "nothing"),
    ([*TRAIN, "--tasks", "tasks", "--out", "new", "--filters", "0"], "filters"),
    ([*TRAIN, "--tasks", "tasks", "--out", "new", "--inner-rate", "-1"], "rate"),
    ([*TRAIN, "--tasks", "tasks", "--out", "new", "--learning-rate", "-1"], "learning-rate: -1.0"),
    ([*TRAIN, "--tasks", "tasks", "--out", "new", "--learning-rate", "1e30"], "diverged"),
    ([*TRAIN, "--tasks", "tasks", "--out", "new", "--seed", "-1"], "--seed"),
    ([*TRAIN, "--tasks", "tasks", "--out", "new", "--pooling", "none"], "'none'"),
    (["open", "--tasks", "tasks", "--model", "tasks", "-w", "new"], "model.json"),
    (["demo", "--only", "nothing"], "'nothing'"),
]


@pytest.mark.parametrize(("args", "what"), WRONG, ids=[" ".join(args) for args, _ in WRONG])
def test_invalid_input_names_the_value(
    ready: Path, args: list[str], what: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(ready)
    (ranking,) = Workspace(ready / "home" / "mine").runs.all("rank")
    sentence = Shell(ready).refused(*[ranking.id if arg == "RANKING" else arg for arg in args])
    assert what in sentence
    assert len(Workspace(ready / "home" / "mine").changes()) == 0


def test_commands_that_need_a_ranking_name_the_rank_command(tmp_path: Path) -> None:
    shell = made(tmp_path)
    for command in (["remove", "-w", "mine", "--worst", "1"], ["curve", "-w", "mine", "--device", "cpu"]):
        assert "tasklens rank" in shell.refused(*command)


def test_help_of_every_command(tmp_path: Path) -> None:
    commands = program().commands
    assert set(commands) >= {"tasks", "train", "open", "evaluate", "rank", "edit", "curve", "remove", "export", "demo"}
    shell = Shell(tmp_path)
    overview = "\n".join(shell.done("--help").out)
    for name, command in commands.items():
        assert name in overview
        text = "\n".join(shell.done(name, "--help").out)
        assert command.help.split("\n")[0][:40] in " ".join(text.split())
        assert all(option.help for option in command.params), name


@pytest.mark.parametrize("group", [(), ("review",), ("sets",)], ids=["all", "review", "sets"])
def test_summaries_of_commands_are_not_cut(tmp_path: Path, group: tuple[str, ...]) -> None:
    lines = Shell(tmp_path).done(*group, "--help").out
    assert not [line for line in lines[lines.index("Commands:") :] if line.endswith("...")]


def test_an_unknown_command_or_option_is_refused(tmp_path: Path) -> None:
    assert "frobnicate" in Shell(tmp_path)("frobnicate").err
    assert Shell(tmp_path)("frobnicate").code == 2
    assert Shell(tmp_path)("rank", "--frobnicate").code == 2
    assert Shell(tmp_path)(*TASKS, "--out", "new", "--heldout", "0").code == 2


class Process:
    """A real ``python -m core`` whose progress a test can wait for."""

    def __init__(self, folder: Path, *args: str | Path) -> None:
        self.progress = folder / "progress.json"
        self.progress.unlink(missing_ok=True)
        environment = {**os.environ, HOME_VARIABLE: str(folder / "home"), PROGRESS_FILE_VARIABLE: str(self.progress)}
        command = [sys.executable, "-m", "core", *map(str, args)]
        self.popen = subprocess.Popen(
            command, cwd=ROOT, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE
        )

    def wait_until(self, reached: Callable[[dict], bool]) -> None:
        while self.popen.poll() is None:
            if self.progress.exists() and reached(json.loads(self.progress.read_text())):
                return
            time.sleep(0.02)
        pytest.fail(f"it ended before: {self.popen.communicate()[1].decode()}")

    def ended(self, number: signal.Signals) -> tuple[int, str]:
        self.popen.send_signal(number)
        _, err = self.popen.communicate()
        return self.popen.returncode, err.decode()


LONG = ["--filters", "2", "--iterations", "400", "--polish", "0", "--device", "cpu"]


@pytest.mark.slow
def test_a_killed_training_resumes_to_the_same_model(ready: Path, tmp_path: Path) -> None:
    train = ["train", *LONG, "--tasks", ready / "tasks", "--out"]
    process = Process(tmp_path, *train, tmp_path / "killed")
    process.wait_until(lambda state: state["done"] >= 40)  # the first state is saved after 20
    code, _ = process.ended(signal.SIGKILL)
    assert code == -signal.SIGKILL
    assert not (tmp_path / "killed" / "model.json").exists()
    assert (tmp_path / "killed" / "state.safetensors").exists()
    shell = Shell(tmp_path)
    models = [load_model(shell.done(*train, tmp_path / name).path) for name in ("killed", "whole")]
    assert models[0].hash == models[1].hash
    assert sorted(path.name for path in (tmp_path / "killed").iterdir() if not path.name.startswith(".")) == [
        "model.json",
        "model.safetensors",
        "trajectory.safetensors",
    ]


@pytest.mark.slow
def test_a_cancelled_command_resumes(shell: Shell) -> None:
    curve = ["curve", "-w", "mine", "--seeds", "500", "--shares", "0", "--finetune-steps", "1", "--device", "cpu"]
    process = Process(shell.folder, *curve)
    process.wait_until(lambda state: state["done"] >= 3)
    code, err = process.ended(signal.SIGTERM)
    assert code == 143
    assert err.splitlines()[-1].endswith(CANCELLED)
    (partial,) = (shell.folder / "home" / "mine" / "runs").glob(".curve-*/memory")
    stored = {path: path.stat().st_mtime_ns for path in partial.rglob("*.npz")}
    assert len(stored) >= 3
    again = Process(shell.folder, *curve)
    again.wait_until(lambda state: state["done"] > len(stored))
    assert again.ended(signal.SIGTERM)[0] == 143
    assert {path: path.stat().st_mtime_ns for path in stored} == stored
