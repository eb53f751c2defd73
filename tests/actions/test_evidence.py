"""The comparison of rankings with retraining from end to end, on a problem of seconds."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from torch.func import grad

from core.actions import evidence as evidence_module
from core.actions import retraining as retraining_module
from core.actions.compute import Compute, load
from core.actions.evidence import EvidenceSettings, evidence, predicted_seconds
from core.actions.train import train_model
from core.checkpoints.model import ModelSpec
from core.editing.retraining import RetrainSettings
from core.evidence.lds import lds, predicted_losses
from core.evidence.methods import ALL_METHODS
from core.evidence.subsets import subset_masks
from core.evidence.tables import MethodScores
from core.influence.solve import ITERATIONS_ADVICE
from core.maml.training import TrainSettings, train
from core.maml.vectors import flatten
from core.runtime.errors import TransientError, UserError
from core.runtime.progress import Progress
from core.tasks.generate import TaskSettings, generate, write_folder
from core.workspace.workspace import Workspace, create

COMPUTE = Compute("cpu", "float64", chunk=12)
QUICK = EvidenceSettings(("dot", "loss", "task-if"), subsets=5, seeds=2, targets=3)


@pytest.fixture(scope="module")
def workspace(tmp_path_factory: pytest.TempPathFactory) -> Workspace:
    folder = tmp_path_factory.mktemp("evidence")
    made = generate(TaskSettings(ways=3, shots=5, queries=5, count=12, heldout=4, noise="tasks:0.3:0.5", validation=0))
    write_folder(made, folder / "tasks")
    spec = ModelSpec(ways=3, backbone="mlp", hidden=(), shrink=4, rate=0.5, delta=1.0)
    settings = TrainSettings(iterations=10, learning_rate=0.02)
    train_model(folder / "tasks", folder / "model", spec, settings, COMPUTE, Progress(), "a test")
    return create(folder / "workspace", folder / "tasks", folder / "model")


def methods(workspace: Workspace, settings: EvidenceSettings) -> pd.DataFrame:
    run = evidence(workspace, settings, COMPUTE, Progress())
    return run.table("methods.parquet").set_index("method")


def test_the_table_is_the_lds_of_scores_against_models_trained_by_hand(workspace: Workspace) -> None:
    run = evidence(workspace, QUICK, COMPUTE, Progress())
    loaded = load(workspace.project(), COMPUTE)
    masks = subset_masks("half", 12, 5)
    ids = np.array(loaded.tasks.task_ids, dtype=object)
    measured = np.zeros((5, 2, 3))
    for number, mask in enumerate(masks):
        for seed in range(2):
            settings = TrainSettings(iterations=10, learning_rate=0.02, seed=seed)
            episodes = loaded.episodes(loaded.tasks.select(ids[mask].tolist()))
            start = workspace.project().model.spec.init(seed, torch.float64)
            params = train(loaded.model, start, episodes, settings).params
            for chunk in loaded.heldout.chunks(np.arange(3)):
                task_losses = torch.stack(
                    [
                        loaded.model.task_loss(params, type(chunk.task)(*(value[t] for value in chunk.task)))
                        for t in range(3)
                    ]
                )
                measured[number, seed] = task_losses.detach().numpy()
    table = run.table("measured.parquet")
    have = table.sort_values(["subset", "seed", "target"])["loss"].to_numpy().reshape(5, 2, 3)
    np.testing.assert_allclose(have, measured, rtol=1e-6)
    gradient = grad(loaded.model.task_loss)

    def gradients(episodes: object, count: int) -> np.ndarray:
        (chunk,) = episodes.chunks(np.arange(count))  # type: ignore[attr-defined]
        tasks = [type(chunk.task)(*(value[t] for value in chunk.task)) for t in range(count)]
        return np.stack([flatten(gradient(loaded.params, task)).numpy() for task in tasks])

    scores = gradients(loaded.train, 12) @ gradients(loaded.heldout, 3).T
    want = lds(predicted_losses(scores, masks), measured.mean(1))
    row = run.table("methods.parquet").set_index("method").loc["dot"]
    assert (row.lds, row.lds_low, row.lds_high) == pytest.approx((want.mean, want.low, want.high), abs=1e-9)


def test_the_contents_of_a_run(workspace: Workspace) -> None:
    table = methods(workspace, QUICK)
    assert list(table.index) == ["dot", "loss", "task-if", "ceiling"]
    assert list(table["kind"]) == ["baseline", "baseline", "influence", "ceiling"]
    assert table.loc["task-if", "residual"] <= 1.1e-2
    assert np.isnan(table.loc["dot", "residual"])
    assert table["auc"].drop("ceiling").between(0, 1).all()
    assert (table["seconds"] > 0).all()
    assert (table["memory_gb"].drop("ceiling") > 0.1).all()
    run = evidence(workspace, QUICK, COMPUTE, Progress())
    figures = run.json("evidence.json")
    assert figures["targets"] == workspace.project().tasks.heldout.task_ids[:3]
    assert 0 < figures["ratio"] <= 1
    assert figures["iterations"] == 10
    predicted = run.table("predicted.parquet")
    assert len(predicted) == 3 * 5 * 3
    assert set(predicted["method"]) == {"dot", "loss", "task-if"}


def test_more_methods_and_subsets_share_the_retrained_models(
    workspace: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    methods(workspace, QUICK)
    trained: list[int] = []

    def counting(*args: object, **more: object) -> object:
        trained.append(1)
        return train(*args, **more)  # type: ignore[arg-type]

    monkeypatch.setattr(retraining_module, "train", counting)
    methods(workspace, replace(QUICK, methods=("entropy", "margin", "tracin")))
    assert trained == []
    methods(workspace, replace(QUICK, subsets=6))
    assert len(trained) == 2
    methods(workspace, replace(QUICK, subsets=6, seeds=3))
    assert len(trained) == 2 + 6


def test_an_interrupted_run_resumes(workspace: Workspace, monkeypatch: pytest.MonkeyPatch) -> None:
    settings = replace(QUICK, seed=5)
    calls: list[int] = []

    def failing(*args: object, **more: object) -> object:
        calls.append(1)
        if len(calls) == 5:
            raise KeyboardInterrupt
        return train(*args, **more)  # type: ignore[arg-type]

    monkeypatch.setattr(retraining_module, "train", failing)
    with pytest.raises(KeyboardInterrupt):
        methods(workspace, settings)
    methods(workspace, settings)
    assert len(calls) == 11  # ten retrainings, one of them begun twice


def test_a_method_that_cannot_run_has_a_note_and_does_not_stop_the_others(workspace: Workspace) -> None:
    few = "task-if:iterations=1:tolerance=1e-9"
    table = methods(workspace, replace(QUICK, methods=("dot", few)))
    assert ITERATIONS_ADVICE in table.loc[few, "note"]
    assert np.isnan(table.loc[few, "lds"])
    assert not np.isnan(table.loc["dot", "lds"])
    with pytest.raises(UserError) as caught:
        methods(workspace, replace(QUICK, methods=(few,)))
    assert f"{few}: " in caught.value.fix
    assert ITERATIONS_ADVICE in caught.value.fix


def test_a_transient_error_is_not_stored_as_a_result(workspace: Workspace, monkeypatch: pytest.MonkeyPatch) -> None:
    settings = replace(QUICK, methods=("dot", "loss"), seed=6)
    real, full = evidence_module.method_scores, TransientError("The disk is full.")

    def full_disk(*args: Any) -> MethodScores:
        if args[2] == "loss":
            raise full
        return real(*args)

    with monkeypatch.context() as patched:
        patched.setattr(evidence_module, "method_scores", full_disk)
        with pytest.raises(TransientError) as caught:
            methods(workspace, settings)
        assert caught.value is full
    assert methods(workspace, settings)["lds"].notna().all()


def test_a_method_runs_once_its_package_is_installed(workspace: Workspace, monkeypatch: pytest.MonkeyPatch) -> None:
    settings = replace(QUICK, methods=("dot", "loss"), seed=7)
    real = evidence_module.method_scores

    def without(*args: Any) -> MethodScores:
        if args[2] == "loss":
            raise UserError("The method needs the package cleanlab.", "Install it.")
        return real(*args)

    with monkeypatch.context() as patched:
        patched.setattr(evidence_module, "method_scores", without)
        patched.setattr(evidence_module, "missing", lambda names: ["cleanlab"])
        assert "cleanlab" in methods(workspace, settings).loc["loss", "note"]
    assert np.isfinite(methods(workspace, settings).loc["loss", "lds"])


@pytest.mark.slow
def test_every_method_can_be_evaluated(workspace: Workspace) -> None:
    table = methods(workspace, replace(QUICK, methods=tuple(ALL_METHODS), subsets=3, seeds=1))
    assert set(table.index) == {*ALL_METHODS, "ceiling"}
    assert table["lds"].drop("ceiling").between(-1, 1).all()
    assert np.isnan(table.loc["ceiling", "lds"])
    assert "one seed" in table.loc["ceiling", "note"]


def test_leave_one_out_from_the_present_model(workspace: Workspace) -> None:
    settings = EvidenceSettings(("task-if", "loss"), "one", 4, 1, "warm", iterations=3, targets=0)
    run = evidence(workspace, settings, COMPUTE, Progress())
    assert len(run.json("evidence.json")["targets"]) == 4
    assert run.table("measured.parquet")["subset"].nunique() == 4


def test_a_retraining_has_the_settings_of_the_model(workspace: Workspace) -> None:
    model = workspace.project().model
    assert RetrainSettings().settings(model, 3) == TrainSettings(iterations=10, learning_rate=0.02, seed=3)
    assert RetrainSettings("warm").settings(model, 0) == TrainSettings(iterations=100, learning_rate=1e-3)
    assert RetrainSettings("fresh", 7).settings(model, 0).iterations == 7
    with pytest.raises(UserError, match=r"model\.json"):
        RetrainSettings().settings(replace(model, metadata={}), 0)
    polished = replace(model, metadata={"training": {**model.metadata["training"], "polish": 20}})
    assert RetrainSettings("warm").settings(polished, 0).iterations == 0


@pytest.mark.parametrize(
    ("settings", "named"),
    [
        ({"methods": ("guess",)}, "'guess'"),
        ({"methods": ()}, "methods"),
        ({"subsets": 2}, "subsets"),
        ({"seeds": 0}, "seeds"),
        ({"retrain": "cold"}, "'cold'"),
    ],
)
def test_invalid_settings_are_refused(settings: dict, named: str) -> None:
    with pytest.raises(UserError) as caught:
        replace(QUICK, **settings)
    assert named in caught.value.what


def test_the_time_is_predicted(workspace: Workspace) -> None:
    short = predicted_seconds(workspace, QUICK)
    assert 0 < short < predicted_seconds(workspace, replace(QUICK, subsets=500, seeds=20))


def test_the_folder_of_a_run_is_complete(workspace: Workspace, tmp_path: Path) -> None:
    run = evidence(workspace, QUICK, COMPUTE, Progress())
    names = {path.name for path in run.folder.iterdir()}
    assert names >= {"methods.parquet", "measured.parquet", "predicted.parquet", "evidence.json", "provenance.json"}
