"""The pages Edit, Curves and Export on a tiny workspace, without a browser."""

from __future__ import annotations

import re
import shutil
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from streamlit.testing.v1 import AppTest

from core.actions.compute import Compute
from core.actions.curve import FINETUNE as CURVE_FINETUNE
from core.actions.curve import CurveSettings, curve
from core.actions.decide import mark, worst_items
from core.actions.edit import FINETUNE, edit
from core.actions.rank import SolveSettings, ranking
from core.errors import UserError
from core.influence.targets import Target
from core.maml.checkpoint import Model, ModelSpec, save_model
from core.progress import Progress
from core.tasks.generate import TaskSettings, generate, write_folder
from core.tasks.tasklist import FORMATS
from core.ui.charts_edit import Dot, curve_figure, edit_figure
from core.ui.curve_results import observations
from core.ui.edit_results import LABELS, direction
from core.workspace.jobs import Jobs
from core.workspace.runs import Run
from core.workspace.workspace import HOME_VARIABLE, Workspace, create

ROOT = Path(__file__).resolve().parents[2]
Open = Callable[[str], AppTest]
COMPUTE = Compute("cpu")


def make_ranking(workspace: Workspace) -> Run:
    return ranking(workspace, Target(), SolveSettings(), COMPUTE, Progress())


def make_edit(workspace: Workspace, way: str) -> Run:
    return edit(
        workspace,
        way,
        workspace.removal(),
        solver=SolveSettings(),
        finetune=FINETUNE,
        compute=COMPUTE,
        progress=Progress(),
    )


@pytest.fixture(scope="module")
def bare(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A problem with nothing computed."""
    folder = tmp_path_factory.mktemp("problem")
    tasks = generate(TaskSettings(ways=3, shots=1, queries=2, count=6, heldout=4))
    write_folder(tasks, folder / "tasks")
    spec = ModelSpec(ways=3, filters=2)
    story = {
        "training": {"iterations": 2, "meta_batch": 2, "learning_rate": 1e-3, "polish": 0, "tolerance": 1e-4, "seed": 0}
    }
    save_model(Model(spec, spec.network().init(0, torch.float64), story), folder / "model")
    return create(folder / "tiny", folder / "tasks", folder / "model").folder


@pytest.fixture(scope="module")
def computed(bare: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same with a ranking, the most harmful task marked (by somebody whose name is markup), edits, and a curve."""
    folder = tmp_path_factory.mktemp("computed") / "tiny"
    shutil.copytree(bare, folder)
    workspace = Workspace(folder)
    ranked = make_ranking(workspace)
    mark(workspace, worst_items(ranked, "tasks", 1), reviewer="![](http://evil.example/x.png)", source=ranked.id)
    for way in ("linear", "finetune", "finetune-all"):
        make_edit(workspace, way)
    settings = CurveSettings(shares=(0.0, 0.4), seeds=2)
    curve(workspace, ranked, settings, replace(CURVE_FINETUNE, iterations=2), COMPUTE, Progress())
    return folder


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv(HOME_VARIABLE, str(tmp_path / "home"))
    return tmp_path / "home"


@pytest.fixture
def show(home: Path, tmp_path: Path) -> Open:
    """``show(page)`` runs a page as ``app.py`` does, on the workspace ``tiny`` of the home."""

    def run(page: str) -> AppTest:
        script = tmp_path / f"run_{page}.py"
        script.write_text(
            "import runpy\nimport streamlit as st\nst.session_state['_routed'] = True\n"
            f"runpy.run_path({str(ROOT / 'pages' / f'{page}.py')!r})\n"
        )
        test = AppTest.from_file(str(script), default_timeout=60)
        test.query_params["workspace"] = "tiny"
        return run_again(test)

    return run


@pytest.fixture
def empty(home: Path, bare: Path) -> Workspace:
    shutil.copytree(bare, home / "tiny")
    return Workspace(home / "tiny")


@pytest.fixture
def full(home: Path, computed: Path) -> Workspace:
    shutil.copytree(computed, home / "tiny")
    return Workspace(home / "tiny")


@pytest.fixture
def started(monkeypatch: pytest.MonkeyPatch) -> list[list[str]]:
    """Arguments of the jobs that a page would have started."""
    calls: list[list[str]] = []
    monkeypatch.setattr(Jobs, "start", lambda self, title, args: calls.append(list(args)))
    return calls


def run_again(test: AppTest) -> AppTest:
    test.run()
    assert not test.exception, test.exception
    return test


def click(test: AppTest, key: str) -> AppTest:
    test.button(key=key).click()
    return run_again(test)


def words(test: AppTest) -> str:
    """Everything the page says in sentences, as it is shown: without the escapes."""
    kinds: Sequence[Sequence[object]] = (test.markdown, test.caption, test.info, test.success, test.error)
    return re.sub(r"\\(.)", r"\1", "\n".join(str(element.value) for kind in kinds for element in kind))  # type: ignore[attr-defined]


class TestEdit:
    def test_empty_says_what_to_do_next(self, show: Open, empty: Workspace, started: list[list[str]]) -> None:
        page = show("edit")
        assert "Nothing is marked" in words(page)
        assert "no ranking" in words(page)
        assert "core remove --workspace tiny" in page.code[0].value
        click(page, "edit_rank")
        assert started == [["rank", "--workspace", str(empty.folder), "--target", "all"]]

    def test_marks_the_most_harmful_and_takes_them_back(self, show: Open, full: Workspace) -> None:
        mark(full, tasks=sorted(full.removal().tasks), verdict="clear", reviewer="me")
        page = show("edit")
        page.number_input(key="edit_worst_tasks").set_value(2)
        run_again(page)
        click(page, "edit_mark_worst")
        (ranked,) = full.runs.all("rank")
        scores = ranked.table("tasks.parquet").sort_values("score")
        assert full.removal().tasks == set(scores["task_id"].head(2))
        entry = next(iter(full.decisions.current().values()))
        assert page.button(key="edit_mark_worst").disabled, "all of them are marked"
        assert (entry.reviewer, entry.source, entry.reason) == ("me", ranked.id, "among the 2 most harmful tasks")
        click(page, "edit_take_back_all")
        assert not len(full.removal())
        click(page, "review_Undo")
        assert len(full.removal()) == 2

    def test_marking_the_most_harmful_respects_what_was_kept(self, show: Open, full: Workspace) -> None:
        kept = sorted(full.removal().tasks)
        mark(full, tasks=kept, verdict="keep", reviewer="somebody")
        page = show("edit")
        page.number_input(key="edit_worst_tasks").set_value(2)
        run_again(page)
        assert "1 are marked already or were kept" in words(page)
        click(page, "edit_mark_worst")
        assert len(full.removal().tasks) == 1
        assert not full.removal().tasks & set(kept)

    def test_results_belong_to_the_present_removal_set(self, show: Open, full: Workspace) -> None:
        page = show("edit")
        said = words(page)
        assert "What the removal itself did" in said
        assert "Only a full retrain measures it" in said
        rows = page.dataframe[1].value
        assert list(rows["model"]) == [LABELS[way] for way in ("linear", "finetune", "finetune-all")]
        assert list(rows["kind"]) == ["estimate", "measured", "measured"]
        assert page.button(key="edit_estimate").disabled
        assert not page.button(key="edit_retrain").disabled

        other = next(task for task in full.project().tasks.train.task_ids if task not in full.removal().tasks)
        mark(full, tasks=[other], reviewer="somebody")
        run_again(page)
        assert "No results for this removal set yet" in words(page)
        assert len(page.dataframe) == 1, "of the old results nothing is shown, nor the control alone"
        assert "2 results of other removal sets" in words(page)
        assert not page.button(key="edit_estimate").disabled
        assert "What the removal itself did" not in words(page)

    def test_starts_edits_as_jobs(self, show: Open, empty: Workspace, started: list[list[str]]) -> None:
        mark(empty, tasks=empty.project().tasks.train.task_ids[:1], reviewer="me")
        page = show("edit")
        assert "No results for this removal set yet" in words(page)
        click(page, "edit_estimate")
        click(page, "edit_retrain")
        folder = str(empty.folder)
        ways = ["--how", "linear", "--how", "finetune", "--how", "finetune-all"]
        assert started == [["edit", "--workspace", folder, *ways], ["edit", "--workspace", folder, "--how", "retrain"]]

    def test_retrain_is_measured_beside_the_estimate(self, show: Open, full: Workspace) -> None:
        make_edit(full, "retrain")
        page = show("edit")
        assert "Retraining measured" in words(page)
        assert "The linear edit had estimated" in words(page)
        assert page.button(key="edit_retrain").disabled

    def test_texts_of_people_are_no_markup(self, show: Open, full: Workspace) -> None:
        page = show("edit")
        shown = [str(element.value) for kind in (page.markdown, page.caption, page.info) for element in kind]
        assert not any("![](" in text for text in shown)


class TestCurves:
    def test_empty_offers_a_ranking(self, show: Open, empty: Workspace, started: list[list[str]]) -> None:
        page = show("curves")
        assert "Curves need a ranking" in words(page)
        click(page, "curve_rank")
        assert started[0][0] == "rank"

    def test_form_starts_the_command_it_shows(self, show: Open, full: Workspace, started: list[list[str]]) -> None:
        page = show("curves")
        page.multiselect(key="curve_shares").set_value([50, 0])
        page.multiselect(key="curve_orders").set_value(["harmful", "random"])
        page.number_input(key="curve_seeds").set_value(1)
        run_again(page)
        assert "3 fine-tunes of 40 steps" in words(page)
        click(page, "curve_start")
        (ranked,) = full.runs.all("rank")
        options = ["--ranking", ranked.id, "--by", "tasks", "--shares", "0,0.5", "--orders", "harmful,random"]
        options += ["--seeds", "1", "--finetune-steps", "40"]
        assert started == [["curve", "--workspace", str(full.folder), *options]]
        assert page.code[0].value == f"python -m core curve --workspace tiny {' '.join(options)}"

    def test_needs_a_share_and_an_order(self, show: Open, full: Workspace) -> None:
        page = show("curves")
        page.multiselect(key="curve_shares").set_value([])
        run_again(page)
        assert page.button(key="curve_start").disabled
        assert "Choose at least one share" in words(page)

    def test_finished_curve(self, show: Open, full: Workspace) -> None:
        page = show("curves")
        said = words(page)
        assert "At 40% removed, most harmful first against at random" in said
        assert "lowest to highest seed" in said
        assert "all held-out tasks" in said
        figures = page.dataframe[0].value
        assert set(figures["order"]) == {"nothing removed", "harmful", "loss", "random"}
        assert (figures["seeds"] == 2).all()


class TestExport:
    def test_empty_exports_the_list_as_it_is(self, show: Open, empty: Workspace) -> None:
        page = show("export")
        assert "Nothing is marked for removal" in words(page)
        assert page.metric[0].value == "6"
        click(page, "export_write")
        assert (empty.folder / "exports" / "cleaned" / "cleaned-tasks.csv").exists()

    def test_writes_the_choices_and_offers_only_the_present_export(self, show: Open, full: Workspace) -> None:
        page = show("export")
        folder = full.folder / "exports" / "cleaned"
        assert [metric.value for metric in page.metric] == ["5", "45", "1", "0", "0"]
        click(page, "export_write")
        assert "Written to" in words(page)
        assert {path.name for path in folder.glob("cleaned-tasks.*")} == {f"cleaned-tasks.{f}" for f in FORMATS}

        page.multiselect(key="export_formats").set_value(["csv"])
        model = next(box for box in page.selectbox if str(box.key).startswith("export_model"))
        assert model.options == ["none", LABELS["linear"], LABELS["finetune"]], "never the control"
        model.select(LABELS["finetune"])
        run_again(page)
        assert "earlier export with other choices" in words(page)
        click(page, "export_write")
        assert "Written to" in words(page)
        assert [path.name for path in folder.glob("cleaned-tasks.*")] == ["cleaned-tasks.csv"]
        (tuned,) = full.runs.all("edit-finetune")
        same = (tuned.folder / "model" / "model.safetensors").read_bytes()
        assert (folder / "model" / "model.safetensors").read_bytes() == same
        assert f"--formats csv --model {tuned.id}" in page.code[0].value

        mark(full, tasks=sorted(full.removal().tasks), verdict="clear", reviewer="me")
        run_again(page)
        assert "Written to" not in words(page)

    def test_dropping_rows_that_a_task_needs_is_explained(self, show: Open, full: Workspace) -> None:
        rows = full.project().tasks.train.rows
        alive = rows[~rows["task_id"].isin(full.removal().tasks)]
        mark(full, images=[alive.loc[alive["role"] == "support", "image_id"].iloc[0]], reviewer="me")
        page = show("export")
        page.toggle(key="export_drop").set_value(True)
        run_again(page)
        assert "would lose all support images of a class" in words(page)


@pytest.mark.parametrize("page", ["edit", "curves", "export"])
def test_damaged_workspace_is_explained(page: str, show: Open, empty: Workspace) -> None:
    (empty.folder / "tasks" / "tasks.json").write_text("{")
    shown = show(page)
    assert len(shown.error) == 1
    assert "tasks.json is not valid JSON" in words(shown)


def test_estimates_are_drawn_hollow_and_dashed() -> None:
    interval = {"mean": 0.8, "low": 0.7, "high": 0.9}
    figure = edit_figure(
        [Dot("before", interval, None), Dot("linear", interval, interval, True), Dot("tuned", interval, interval)]
    )
    dashes = {(trace.y[0], trace.line.dash) for trace in figure.data if trace.mode == "lines"}
    assert dashes == {("before", "solid"), ("linear", "dot"), ("tuned", "solid")}
    symbols = {(trace.y[0], trace.marker.symbol) for trace in figure.data if trace.mode == "markers"}
    assert symbols == {("before", "circle"), ("linear", "circle-open"), ("tuned", "circle")}


def curve_points(harmful: Sequence[float], random: Sequence[float]) -> pd.DataFrame:
    rows = [("none", 0.0, seed, 0, 0.5, 1.0) for seed in range(len(harmful))]
    rows += [("harmful", 0.4, seed, 4, accuracy, 1.0) for seed, accuracy in enumerate(harmful)]
    rows += [("random", 0.4, seed, 4, accuracy, 1.0) for seed, accuracy in enumerate(random)]
    return pd.DataFrame(rows, columns=["order", "share", "seed", "removed", "accuracy", "loss"])


def test_every_line_of_a_curve_starts_where_nothing_is_removed() -> None:
    figure = curve_figure(curve_points([0.6, 0.7], [0.5, 0.4]), "tasks")
    lines = [trace for trace in figure.data if trace.mode == "lines+markers"]
    assert [list(trace.x) for trace in lines] == [[0, 40], [0, 40]]
    np.testing.assert_allclose([trace.y[0] for trace in lines], 50)
    np.testing.assert_allclose([trace.y[1] for trace in lines], [65, 45])


def test_observations_claim_no_more_than_is_seen() -> None:
    clear = " ".join(observations(curve_points([0.6, 0.7], [0.5, 0.4])))
    assert "+20.0 points (+10.0 to +30.0 over 2 seeds): the same sign" in clear
    assert "no clear difference" in " ".join(observations(curve_points([0.6, 0.4], [0.5, 0.5])))
    assert "cannot be told" in " ".join(observations(curve_points([0.6], [0.5])))
    assert "Nothing that was removed gave more" in " ".join(observations(curve_points([0.4, 0.4], [0.3, 0.4])))


def test_direction_follows_the_interval() -> None:
    assert direction({"mean": 0.1, "low": 0.05, "high": 0.2}) == "higher"
    assert direction({"mean": -0.1, "low": -0.2, "high": -0.05}) == "lower"
    assert direction({"mean": 0.1, "low": -0.05, "high": 0.2}).startswith("not clearly")


def test_export_refuses_a_file_as_folder(empty: Workspace, tmp_path: Path) -> None:
    from core.actions.export import export

    (tmp_path / "taken").write_text("x")
    with pytest.raises(UserError, match="is a file"):
        export(empty, tmp_path / "taken")
