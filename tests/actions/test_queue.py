"""A review queue lists every label once, is stored, and counts the remaining errors."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import numpy as np
import pytest

from core.actions.compute import Compute
from core.actions.decide import mark
from core.actions.queue import (
    QueueSettings,
    decisions_on,
    newest_queue,
    queue,
    queue_summary_text,
    remaining_errors_text,
)
from core.checkpoints.model import Model, ModelSpec, save_model
from core.decisions.queue_decisions import queue_items
from core.review import member_scores
from core.review.settings import SLOW
from core.runtime.errors import UserError
from core.runtime.progress import Progress
from core.tasks.generate import TaskSettings, generate, write_folder
from core.workspace.runs import Run
from core.workspace.workspace import Workspace, create


def made(folder: Path, noise: str) -> Workspace:
    tasks = generate(TaskSettings(ways=3, shots=2, queries=3, count=30, heldout=4, noise=noise))
    write_folder(tasks, folder / "tasks")
    spec = ModelSpec(ways=3, filters=2)
    save_model(Model(spec, spec.init(0), {"command": "by hand"}), folder / "model")
    return create(folder / "mine", folder / "tasks", folder / "model")


@pytest.fixture(scope="module", params=["images:0.1", "tasks:0.5:0.5"], ids=["images", "rows"])
def ready(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[Workspace, Run]:
    workspace = made(tmp_path_factory.mktemp("queue"), request.param)
    return workspace, make(workspace, QueueSettings(rounds=1))


def make(workspace: Workspace, settings: QueueSettings) -> Run:
    return queue(workspace, settings, Compute("cpu"), Progress())


def test_every_label_is_one_item(ready: tuple[Workspace, Run]) -> None:
    workspace, run = ready
    items, summary = run.table("items.parquet"), run.json("summary.json")
    rows = workspace.project().tasks.train.rows
    key = ["image_id"] if summary["level"] == "image" else ["task_id", "role", "image_id"]
    assert sorted(items[key].itertuples(index=False)) == sorted(rows[key].drop_duplicates().itertuples(index=False))
    assert items["rank"].tolist() == list(range(len(items)))
    assert items["suspicion"].is_monotonic_decreasing
    assert items["probability"].is_monotonic_decreasing
    assert items["probability"].between(0, 1).all()
    assert items["suggested_probability"].between(0, 1).all()
    assert (items["suggested"] != items["class"]).all()
    assert (items["suggested"] != items["second"]).all()
    assert len(run.table("map.parquet")) == len(np.load(run.folder / "features.npy")) == rows["image_id"].nunique()
    assert summary["calibrated"]
    assert len(summary["planted"]) == 3
    assert newest_queue(workspace).id == make(workspace, QueueSettings(rounds=1)).id == run.id  # type: ignore[union-attr]


def test_decisions_count_for_their_items(ready: tuple[Workspace, Run], tmp_path: Path) -> None:
    shutil.copytree(ready[0].folder, tmp_path / "mine")
    workspace, items = Workspace(tmp_path / "mine"), ready[1].table("items.parquet")
    first, second = items["image_id"].drop_duplicates().head(2)
    mark(workspace, images=[first], verdict="remove", reviewer="ann")
    mark(workspace, images=[second], verdict="keep", reviewer="ann")
    expected = {at: image == first for at, image in enumerate(items["image_id"]) if image in (first, second)}
    assert decisions_on(workspace, queue_items(items)).is_wrong == expected
    lines = remaining_errors_text(workspace, ready[1])
    counts = [len(expected), len(items), sum(expected.values())]
    assert [int(number) for number in re.findall(r"\d+", lines[0].replace(",", ""))][:3] == counts
    assert len(lines) == 2, "decisions and the estimate"
    assert ready[1].json("summary.json")["ranking"] in queue_summary_text(ready[1])[0]


def test_without_calibration_and_with_slow_scores(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(member_scores, "EPOCHS", 1)
    workspace = made(tmp_path, "none")
    assert newest_queue(workspace) is None
    run = make(workspace, QueueSettings(SLOW, rounds=1, calibrate=False))
    items = run.table("items.parquet")
    assert set(SLOW) <= set(items.columns)
    assert np.isfinite(items[list(SLOW)].to_numpy()).all()
    assert items["probability"].isna().all()
    assert not run.json("summary.json")["calibrated"]
    assert len(queue_summary_text(run)) == 1
    assert len(remaining_errors_text(workspace, run)) == 1


def test_invalid_settings_are_refused() -> None:
    with pytest.raises(UserError, match="'fast'"):
        QueueSettings(("fast",))
    with pytest.raises(UserError, match="rounds"):
        QueueSettings(rounds=0)
