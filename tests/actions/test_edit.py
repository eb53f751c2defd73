"""The edit methods: their models, their cost, and that a killed edit resumes."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable
from dataclasses import asdict, replace
from functools import cache
from pathlib import Path

import numpy as np
import pytest
import torch

from core.actions.compute import Compute, load
from core.actions.decide import mark
from core.actions.edit import cache_key, compute_control, edit, find_control, run_kind, step_settings
from core.actions.edit_cost import control_cost, finetune_pace, retraining_seconds
from core.actions.edit_results import FURTHER_TRAINING_GAINS, EditResult, edit_result, edit_results, procedure_finding
from core.actions.evaluate import evaluation
from core.actions.preparation import preparation_seconds, prepare_cost
from core.checkpoints.model import TRAJECTORY, Model, ModelSpec, load_model, save_model, save_trajectory
from core.editing.methods import SOLVE, steps
from core.editing.net_effect import NetEffect
from core.editing.newton import CURVATURE_STAGE, GRADIENT_STAGE, SHARES, TRIAL_STAGE, newton_edit
from core.editing.settings import CONTROL_OF, EDIT_METHODS, ESTIMATES, FINETUNE
from core.editing.steps import REWIND_TASKS, StepSettings, select_snapshot, single_task_finetune, start_text
from core.maml.backbone import Params
from core.maml.cost import training_cost
from core.maml.evaluation import Interval, evaluate
from core.maml.loaded import Loaded
from core.maml.training import SNAPSHOT_COUNT, Snapshot, TrainSettings
from core.maml.vectors import flatten
from core.runtime.errors import Cancelled, UserError
from core.runtime.progress import Progress
from core.tasks.changes import Changes, cleaned
from core.tasks.generate import TaskSettings, generate, write_folder
from core.workspace.runs import Run, RunWriter
from core.workspace.workspace import Workspace, create

COMPUTE = Compute("cpu", "float64")
TRAINED = TrainSettings(iterations=30, meta_batch=4, learning_rate=1e-3)
TASKS, KEPT = 6, 5


def workspace_at(folder: Path, metadata: dict[str, object], validation: int = 0) -> Workspace:
    tasks = generate(TaskSettings(ways=3, shots=1, queries=2, count=TASKS, heldout=4, validation=validation))
    write_folder(tasks, folder / "tasks")
    spec = ModelSpec(ways=3, filters=2, blocks=2)
    save_model(Model(spec, spec.init(0, torch.float64), metadata), folder / "model")
    made = create(folder / "tiny", folder / "tasks", folder / "model")
    mark(made, tasks=made.project().tasks.train.task_ids[:1], reviewer="me")
    return made


@pytest.fixture(scope="module")
def ready(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return workspace_at(tmp_path_factory.mktemp("edit"), {"training": asdict(TRAINED)}).folder


@pytest.fixture
def workspace(ready: Path, tmp_path: Path) -> Workspace:
    shutil.copytree(ready, tmp_path / "tiny")
    return Workspace(tmp_path / "tiny")


@pytest.fixture(scope="module")
def all_edits(ready: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same with an edit by every method, and so with every control."""
    folder = shutil.copytree(ready, tmp_path_factory.mktemp("all") / "tiny")
    for method in (*ESTIMATES, *CONTROL_OF):
        made(Workspace(folder), method)
    return folder


@pytest.fixture
def edited(all_edits: Path, tmp_path: Path) -> Workspace:
    shutil.copytree(all_edits, tmp_path / "edited")
    return Workspace(tmp_path / "edited")


def made(
    workspace: Workspace, method: str, progress: Progress | None = None, budget: float = 0.02, rewind: bool = True
) -> Run:
    return edit(
        workspace,
        method,
        workspace.changes(),
        solver=replace(SOLVE, curvature_tasks=0),
        finetune=replace(FINETUNE, iterations=3),
        budget=budget,
        rewind=rewind,
        compute=COMPUTE,
        progress=progress or Progress(),
    )


def load_workspace(workspace: Workspace) -> Loaded:
    return load(workspace.project(), COMPUTE)


def test_the_newton_run_is_the_step_on_the_changed_tasks(workspace: Workspace) -> None:
    run, loaded = made(workspace, "newton"), load_workspace(workspace)
    episodes = loaded.episodes(cleaned(loaded.tasks, workspace.changes()))
    assert len(episodes) == KEPT
    want = newton_edit(loaded.model, loaded.params, episodes)
    have = load_model(run.folder / "model").params
    assert torch.allclose(flatten(loaded.place(have)), flatten(want.params), rtol=1e-6, atol=1e-8)
    figures = run.json("edit.json")
    assert figures["newton"] == want.report
    assert figures["newton"]["taken"]
    assert figures["removed"] == {"tasks": 1, "images": 0, "instances": 0}
    assert figures["cost"]["meta_gradients"] == want.cost.meta_gradients
    assert len(run.table("heldout.parquet")) == 4


def test_steps_begin_at_the_present_model(workspace: Workspace) -> None:
    run = made(workspace, "steps")
    assert not workspace.runs.all("edit-newton")
    loaded = load_workspace(workspace)
    changes = workspace.changes()
    for method, found, cleared in (("steps", run, changes), ("steps-all", made(workspace, "steps-all"), Changes())):
        episodes = loaded.episodes(cleaned(loaded.tasks, cleared))
        want = single_task_finetune(loaded.model, loaded.params, episodes, StepSettings(40))
        have = loaded.place(load_model(found.folder / "model").params)
        assert torch.allclose(flatten(have), flatten(want), rtol=1e-6, atol=1e-8), method
        assert found.json("edit.json")["cost"]["meta_gradients"] == 40


@cache
def overfitted(ready: Path) -> Params:
    """Return a model with a low held-out loss, as it was trained on the very tasks."""
    loaded = load_workspace(Workspace(ready))
    return single_task_finetune(loaded.model, loaded.params, loaded.heldout, StepSettings(60))


def with_snapshots(workspace: Workspace, ready: Path) -> list[dict[str, torch.Tensor]]:
    """Save snapshots of two models: one with chance accuracy, one with a low held-out loss."""
    loaded, better = load_workspace(workspace), overfitted(ready)
    worse = {name: 50 * value for name, value in loaded.params.items()}
    save_trajectory([Snapshot(worse, 1e-3), Snapshot(better, 1e-3)], workspace.folder / "model")
    return [loaded.place(one.params) for one in workspace.trajectory()]


def test_validation_tasks_choose_the_snapshot_where_there_are_any(
    workspace: Workspace, ready: Path, tmp_path: Path
) -> None:
    snapshots = with_snapshots(workspace, ready)
    settings = step_settings(workspace.project(), 0.9)
    loaded, validation = load_workspace(workspace), generate(TaskSettings(ways=3, shots=1, queries=2, seed=7)).heldout
    loaded.validation_tasks = validation.select(validation.task_ids[:5])
    edited = steps(loaded, Changes(), settings, snapshots, RunWriter(tmp_path / "run"), Progress())
    assert (edited.figures["start"]["kind"], edited.figures["start"]["tasks"]) == ("validation", 5)
    want = select_snapshot(loaded.model, [*snapshots, loaded.params], loaded.episodes(loaded.validation_tasks), 8)
    assert edited.figures["start"]["losses"] == pytest.approx(want.losses)
    trained = single_task_finetune(loaded.model, want.params, loaded.train, settings)
    assert torch.allclose(flatten(edited.params), flatten(trained), rtol=1e-6, atol=1e-8)


def test_steps_begin_at_the_snapshot_with_the_lowest_heldout_loss(workspace: Workspace, ready: Path) -> None:
    _, better = with_snapshots(workspace, ready)
    settings = step_settings(workspace.project(), 0.9)
    assert settings == StepSettings(
        round(0.9 * 120 - 0.5 * REWIND_TASKS * (SNAPSHOT_COUNT + 1)), rewind_tasks=REWIND_TASKS
    )
    loaded = load_workspace(workspace)
    for method, changes in (("steps", workspace.changes()), ("steps-all", Changes())):
        run = made(workspace, method, budget=0.9)
        figures = run.json("edit.json")
        assert figures["start"]["number"] == 1
        assert figures["start"]["losses"][2] == pytest.approx(
            float(evaluate(loaded.model, loaded.params, loaded.heldout).loss.mean())
        ), "the present model is the last candidate; all 4 held-out tasks chose"
        assert re.findall(r"\d+ of \d+|\d+ held-out", start_text(figures)) == ["2 of 2", "4 held-out"]
        assert figures["cost"]["meta_gradients"] == settings.budget + 0.5 * 4 * 3
        episodes = loaded.episodes(cleaned(loaded.tasks, changes))
        want = single_task_finetune(loaded.model, better, episodes, settings)
        have = loaded.place(load_model(run.folder / "model").params)
        assert torch.allclose(flatten(have), flatten(want), rtol=1e-6, atol=1e-8), method


def test_steps_from_the_present_model_are_a_different_run(workspace: Workspace, ready: Path) -> None:
    before = made(workspace, "steps")
    with_snapshots(workspace, ready)
    assert made(workspace, "steps") != before
    again = made(workspace, "steps", rewind=False)
    assert again == before
    assert "start" not in again.json("edit.json")
    assert start_text(again.json("edit.json")) == ""


def test_steps_begin_at_the_present_model_where_no_snapshot_is_better(workspace: Workspace, ready: Path) -> None:
    with_snapshots(workspace, ready)
    (worse, _), rate = workspace.trajectory(), 1e-3
    broken = Snapshot({name: float("nan") * value for name, value in worse.params.items()}, rate)
    save_trajectory([broken, worse], workspace.folder / "model")
    figures = made(workspace, "steps").json("edit.json")
    assert figures["start"]["number"] == 2
    assert figures["start"]["losses"][0] is None
    assert start_text(figures).startswith("the present model, ")


def test_a_damaged_trajectory_is_named_in_the_error(workspace: Workspace) -> None:
    (workspace.folder / "model" / TRAJECTORY).write_bytes(b"half")
    with pytest.raises(UserError, match=re.escape(TRAJECTORY)):
        made(workspace, "steps")
    assert made(workspace, "steps", rewind=False).json("edit.json")["way"] == "steps"


def test_every_method_reports_its_cost(edited: Workspace) -> None:
    workspace = edited
    found = {method: made(workspace, method).json("edit.json")["cost"] for method in EDIT_METHODS}
    products = 5  # of the Krylov space
    newton = KEPT + 2 * KEPT * products + 0.5 * KEPT * len(SHARES)
    expected = {
        "newton": newton,
        "newton-all": newton * TASKS / KEPT,
        "steps": 40,
        "steps-all": 40,
        "finetune": 3 * KEPT,
        "finetune-all": 3 * TASKS,
        "retrain": 30 * 4,
        "retrain-all": 30 * 4,
    }
    for method, cost in expected.items():
        assert found[method]["meta_gradients"] == cost, method
    report = workspace.runs.all("edit-linear")[0].json("edit.json")["solver"]
    # The gradient of the task that leaves, with a tangent; the size of the curvature; a solve, and its residual afresh.
    assert found["linear"]["meta_gradients"] == 2 + 2 * TASKS * 5 + 2 * TASKS * (report["iterations"] + 1)
    for method in EDIT_METHODS:
        assert found[method]["share_of_retraining"] == pytest.approx(found[method]["meta_gradients"] / 120), method


def test_a_relabelled_task_costs_two_gradients(workspace: Workspace) -> None:
    rows = workspace.project().tasks.train.rows
    row = rows[rows["task_id"] == rows["task_id"].iloc[-1]].iloc[-1]
    other = next(c for c in rows.loc[rows["task_id"] == row["task_id"], "class"].unique() if c != row["class"])
    before = made(workspace, "linear").json("edit.json")
    instance = (row["task_id"], row["role"], row["image_id"], other)
    changes = Changes(tasks=workspace.changes().tasks, relabelled_instances=frozenset({instance}))
    after = edit(
        workspace,
        "linear",
        changes,
        solver=replace(SOLVE, curvature_tasks=0),
        finetune=FINETUNE,
        compute=COMPUTE,
        progress=Progress(),
    ).json("edit.json")
    more = after["solver"]["iterations"] - before["solver"]["iterations"]
    assert after["cost"]["meta_gradients"] - before["cost"]["meta_gradients"] == 2 + 2 * TASKS * more


def test_the_budget_is_a_share_of_training_and_part_of_the_cache_key(edited: Workspace) -> None:
    workspace, project = edited, edited.project()
    assert step_settings(project) == StepSettings(40), "at least"
    assert step_settings(project, 0.5) == StepSettings(60)
    one, other = made(workspace, "steps"), made(workspace, "steps", budget=0.5)
    assert one.folder != other.folder
    assert other.json("edit.json")["settings"]["budget"] == 60
    key = cache_key(project, "steps", workspace.changes(), compute=COMPUTE, budget=0.01)
    assert workspace.runs.find(run_kind("steps"), key) == one, "the same number of steps has the same key"


def test_the_budget_is_a_share_of_what_retraining_costs_with_its_checks_on_validation_tasks(tmp_path: Path) -> None:
    project = workspace_at(tmp_path, {"training": asdict(TRAINED)}, validation=4).project()
    retraining = training_cost(TRAINED, TASKS, 4)
    assert retraining > training_cost(TRAINED, TASKS)
    assert step_settings(project, 0.5).budget == round(0.5 * retraining)


@pytest.mark.parametrize("budget", [0.0, -0.1, 1.5, float("nan")])
def test_an_invalid_budget_is_refused_before_any_work(workspace: Workspace, budget: float) -> None:
    with pytest.raises(UserError, match=f"{budget:g}"):
        made(workspace, "steps", budget=budget)
    assert not workspace.runs.all("evaluate")


def test_a_model_that_was_not_trained_can_be_edited(tmp_path: Path) -> None:
    untrained = asdict(replace(TRAINED, iterations=0, polish=0))
    cost = made(workspace_at(tmp_path, {"training": untrained}), "finetune").json("edit.json")["cost"]
    assert cost["meta_gradients"] > 0
    assert cost["share_of_retraining"] is None  # retraining costs nothing


def test_a_model_without_training_settings_can_take_steps_but_not_be_retrained(tmp_path: Path) -> None:
    workspace = workspace_at(tmp_path, {})
    run = made(workspace, "steps")
    figures = run.json("edit.json")
    assert figures["settings"]["budget"] == 40
    assert figures["cost"]["share_of_retraining"] is None
    with pytest.raises(UserError, match=r"model\.json"):
        made(workspace, "retrain")


@pytest.mark.parametrize("method", ["newton", "steps"])
def test_edits_without_remaining_tasks_or_changes_are_refused(workspace: Workspace, method: str) -> None:
    mark(workspace, tasks=workspace.project().tasks.train.task_ids, reviewer="me")
    with pytest.raises(UserError, match="every task"):
        made(workspace, method)
    mark(workspace, tasks=workspace.project().tasks.train.task_ids, verdict="clear", reviewer="me")
    with pytest.raises(UserError, match="changes"):
        made(workspace, method)


class Killed(Progress):
    """Ends in the middle of a stage, and counts what was done in each."""

    def __init__(self, stage: str = "", after: int = 0) -> None:
        super().__init__()
        self._where, self._after = stage, after
        self.units: dict[str, int] = {}

    def advance(self, units: int = 1, note: str = "") -> None:
        super().advance(units, note)
        self.units[self._stage] = self.units.get(self._stage, 0) + units
        if self._stage == self._where and self.units[self._stage] >= self._after:
            raise Cancelled


CASES: list[tuple[str, str, int, Callable[[dict[str, int]], bool]]] = [
    ("newton", CURVATURE_STAGE, 2 * KEPT + 1, lambda done: done[CURVATURE_STAGE] == 3 * KEPT),
    ("newton", TRIAL_STAGE, 2 * KEPT + 1, lambda done: CURVATURE_STAGE not in done),
    ("steps", "steps", 25, lambda done: done["steps"] <= 20),
]


@pytest.mark.parametrize(("method", "stage", "after", "repeated"), CASES, ids=["product", "trial", "step"])
def test_a_killed_edit_resumes(
    workspace: Workspace,
    tmp_path: Path,
    method: str,
    stage: str,
    after: int,
    repeated: Callable[[dict[str, int]], bool],
) -> None:
    shutil.copytree(workspace.folder, tmp_path / "whole")
    want = made(Workspace(tmp_path / "whole"), method)
    with pytest.raises(Cancelled):
        made(workspace, method, Killed(stage, after))
    assert not workspace.runs.all(run_kind(method))
    progress = Killed()
    have = made(workspace, method, progress)
    assert repeated(progress.units), progress.units
    assert GRADIENT_STAGE not in progress.units
    assert have.id == want.id
    one, other = (flatten(load_model(run.folder / "model").params) for run in (have, want))
    assert torch.allclose(one, other, rtol=1e-6, atol=1e-8)
    assert have.json("edit.json")["cost"] == want.json("edit.json")["cost"]
    np.testing.assert_allclose(have.table("heldout.parquet")["loss"], want.table("heldout.parquet")["loss"], rtol=1e-6)


def test_durations_are_predicted_at_the_pace_of_finished_runs(workspace: Workspace) -> None:
    project = workspace.project()
    assert retraining_seconds(workspace, project) is preparation_seconds(workspace, project, COMPUTE) is None
    run = made(workspace, "finetune-all")
    pace = finetune_pace(workspace, project)
    assert pace is not None
    seconds = run.json("provenance.json")["seconds"]["fine-tune"]
    assert pace.gradient == pytest.approx(seconds / run.json("edit.json")["cost"]["meta_gradients"])
    assert retraining_seconds(workspace, project) == pytest.approx(pace.gradient * 120)
    seconds = evaluation(workspace, Compute(), Progress()).json("provenance.json")["seconds"]["stationarity"]
    predicted = prepare_cost(project, COMPUTE).meta_gradients * seconds / TASKS
    assert preparation_seconds(workspace, project, COMPUTE) == pytest.approx(predicted)


def test_figures_of_edits_are_plain_json(edited: Workspace) -> None:
    for method in ("newton", "steps"):
        text = (made(edited, method).folder / "edit.json").read_text()
        assert json.loads(text, parse_constant=lambda name: pytest.fail(f"{name} is not JSON"))["way"] == method


def test_the_net_effect_is_the_difference_to_the_same_procedure_without_changes(edited: Workspace) -> None:
    for method, control_method in CONTROL_OF.items():
        run, control = made(edited, method), made(edited, control_method)
        assert find_control(edited, run) == control, "the settings are those of the edit"
        one, other = (each.table("heldout.parquet").set_index("task_id") for each in (run, control))
        effect = edit_result(edited, run).effect
        assert effect is not None
        assert effect.accuracy == Interval.of(one["accuracy"] - other["accuracy"])
        assert effect.loss == Interval.of(one["loss"] - other["loss"])
        assert effect.procedure == Interval(**control.json("edit.json")["accuracy_change"])
    estimate = edit_result(edited, made(edited, "linear"))
    assert estimate.control is None
    assert estimate.effect == NetEffect(estimate.change, Interval(**estimate.figures["loss_change"]), None)
    assert estimate.is_estimate


def test_edits_by_the_same_procedure_share_a_control(edited: Workspace) -> None:
    (control,) = edited.runs.all("edit-finetune-all")
    mark(edited, tasks=edited.project().tasks.train.task_ids[1:2], reviewer="me")
    assert find_control(edited, made(edited, "finetune")) == control
    assert edited.runs.all("edit-finetune-all") == [control]


def test_a_missing_control_is_computed_with_the_settings_of_its_edit(edited: Workspace) -> None:
    for method in ("newton", "finetune"):
        project, options = edited.project(), {"finetune": replace(FINETUNE, iterations=3)}
        (run,), (control,) = (edited.runs.all(run_kind(one)) for one in (method, CONTROL_OF[method]))
        assert control_cost(edited, project, method, compute=COMPUTE, **options) == 0, "it is stored"
        cost = control.json("edit.json")["cost"]["meta_gradients"]
        shutil.rmtree(control.folder)
        assert control_cost(edited, project, method, compute=COMPUTE, **options) == cost
        assert edit_result(edited, run).lacks_control
        assert compute_control(edited, run, Compute("cpu"), Progress()) == control, "in the precision of the edit"
        assert not edit_result(edited, run).lacks_control


def test_controls_of_other_edits_are_refused(edited: Workspace) -> None:
    for method in ("linear", "finetune-all"):
        with pytest.raises(UserError, match="no control"):
            compute_control(edited, edited.runs.all(run_kind(method))[0], COMPUTE, Progress())
    spec = edited.project().model.spec
    save_model(Model(spec, spec.init(1, torch.float64), {}), edited.folder / "model")
    with pytest.raises(UserError, match="another model"):
        compute_control(edited, edited.runs.all("edit-finetune")[0], COMPUTE, Progress())


def test_results_are_sorted_by_net_effect(edited: Workspace) -> None:
    (control,) = edited.runs.all("edit-steps-all")
    shutil.rmtree(control.folder)
    found = edit_results(edited, edited.project(), edited.changes())
    assert [one.method for one in found[3:]] == ["steps", "linear"], "without a control, then estimates"
    effects = [one.effect.accuracy.mean for one in found[:3] if one.effect is not None]
    assert len(effects) == 3
    assert effects == sorted(effects, reverse=True)


def test_further_training_is_told_from_the_changes(edited: Workspace) -> None:
    run, flat = edited.runs.all("edit-finetune")[0], Interval(0.0, -0.1, 0.1)

    def result(method: str, procedure: Interval) -> EditResult:
        return EditResult(method, run, None, NetEffect(flat, flat, procedure))

    gain = result("steps", Interval(0.096, 0.083, 0.11))
    text = procedure_finding([result("finetune", flat), gain])
    assert text.startswith(FURTHER_TRAINING_GAINS)
    assert "9.6 points [8.3, 11.0]" in text
    assert FURTHER_TRAINING_GAINS not in procedure_finding([result("finetune", flat)])
    assert FURTHER_TRAINING_GAINS not in procedure_finding([result("steps", Interval(-0.05, -0.08, -0.02))])
    assert procedure_finding([result("retrain", Interval(0.1, 0.05, 0.15))]) == "", "it does not start at the model"
