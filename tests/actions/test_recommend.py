"""A recommendation is stored and found again, and what it proposes is removed."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import pandas as pd
import pytest

from core import api
from core.actions.compute import Compute
from core.actions.curve import curve
from core.actions.decide import mark, proposed_items, worst_items
from core.actions.rank import ranking
from core.actions.recommend import by_suspicion, newest_recommendation, recommend, recommended_levels
from core.decisions.log import Item
from core.editing.settings import FINETUNE, CurveSettings
from core.influence.methods import estimator
from core.influence.targets import Target
from core.recommendation import copies
from core.recommendation.settings import RecommendSettings
from core.recommendation.summary import LEVELS, PROTOCOL_WORDS
from core.runtime.errors import UserError
from core.runtime.progress import Progress
from core.tasks.settings import PRESETS
from core.workspace.runs import Run
from core.workspace.workspace import Workspace
from tests.actions.recommended import PROPOSED, stored_recommendation
from tests.actions.reviewed import small_workspace, some_items

COMPUTE = Compute("cpu")


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return small_workspace(tmp_path_factory.mktemp("made"), count=8).folder


@pytest.fixture
def workspace(made: Path, tmp_path: Path) -> Workspace:
    shutil.copytree(made, tmp_path / "small")
    return Workspace(tmp_path / "small")


def test_a_recommendation_is_stored_and_found_again(workspace: Workspace, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("TASKS", "MISLABELLED_TASKS", "SCORED_ROW_TASKS"):
        monkeypatch.setattr(copies, name, 10)
    project, settings = workspace.project(), RecommendSettings(rounds=1)
    assert newest_recommendation(workspace, project) is None
    run = recommend(workspace, settings, COMPUTE, Progress())
    assert recommend(workspace, settings, COMPUTE, Progress()) == run == newest_recommendation(workspace, project)
    levels = recommended_levels(run)
    assert list(levels) == list(LEVELS)
    for level, found in levels.items():
        table = by_suspicion(run, level)
        assert len(table) == found.items
        assert table["suspicion"].is_monotonic_decreasing
        assert found.sentence
        assert found.proposal
    assert {"level", "protocol", "candidate", "auc", "found"} <= set(run.table("candidates.parquet"))
    assert run.json("recommendation.json")["seconds"]


def test_items_are_taken_in_the_recommended_order(workspace: Workspace) -> None:
    run = stored_recommendation(workspace)
    for level, items in some_items(workspace).items():
        assert worst_items(run, f"{level}s", 2) == items[:2]
        assert proposed_items(workspace, run, f"{level}s") == items[: PROPOSED[f"{level}s"]]
    with pytest.raises(UserError, match="'pixels'"):
        proposed_items(workspace, run, "pixels")
    with pytest.raises(UserError, match="8"):
        worst_items(run, "tasks", 9)


def test_noisy_tasks_come_before_their_images_and_rows(workspace: Workspace) -> None:
    levels = recommended_levels(stored_recommendation(workspace))
    assert levels["tasks"].notes == ()
    assert len(levels["images"].notes) == len(levels["instances"].notes) == 1


def test_protocols_are_described_as_they_are_injected() -> None:
    for name, words in PROTOCOL_WORDS.items():
        assert [float(share) / 100 for share in re.findall(r"(\d+) %", words)] == [
            float(share) for share in PRESETS[name].split(":")[1:]
        ]


def test_what_is_decided_is_not_proposed_again(workspace: Workspace) -> None:
    run = stored_recommendation(workspace)
    first, second, third = (item.image_id for item in some_items(workspace)["image"][:3])
    mark(workspace, images=[first], verdict="keep", reviewer="Ann")
    mark(workspace, images=[second], verdict="unsure", reviewer="Ann")
    assert proposed_items(workspace, run, "images") == [Item("image", image_id=one) for one in (second, third)]


def test_a_curve_removes_in_the_recommended_order(workspace: Workspace) -> None:
    ranked = ranking(workspace, Target(), estimator("dot"), COMPUTE, Progress())
    settings = CurveSettings(shares=(0.5,), orders=("recommended",), seeds=1)
    short = FINETUNE.__class__(iterations=1, meta_batch=2)
    with pytest.raises(UserError, match="recommendation"):
        curve(workspace, ranked, settings, short, COMPUTE, Progress())
    recommended = stored_recommendation(workspace)
    run = curve(workspace, ranked, settings, short, COMPUTE, Progress())
    assert run.table("points.parquet")[["order", "removed"]].to_numpy().tolist() == [["recommended", 4]]
    assert run.config["recommendation"] == recommended.id


def test_a_curve_begins_with_the_recommended_order_where_there_is_one(workspace: Workspace) -> None:
    ranked = ranking(workspace, Target(), estimator("dot"), COMPUTE, Progress())
    short = FINETUNE.__class__(iterations=1, meta_batch=2)

    def measured(*orders: str) -> Run:
        settings = CurveSettings(shares=(0.5,), orders=orders, seeds=1)
        return curve(workspace, ranked, settings, short, COMPUTE, Progress())

    without = measured()
    assert without == measured("harmful", "loss", "random"), "the cache key of earlier versions"
    assert without.config["orders"] == ["harmful", "loss", "random"]
    assert "recommendation" not in without.config
    stored_recommendation(workspace)
    assert measured().table("points.parquet")["order"].tolist() == ["recommended", "harmful", "loss", "random"]
    assert measured() == measured("recommended", "harmful", "loss", "random"), "what the Curves page asks for"


def test_the_python_api_returns_tables_and_proposals(workspace: Workspace) -> None:
    stored_recommendation(workspace)
    found = api.open_workspace(workspace.folder).recommend()
    assert isinstance(found, api.Recommendation)
    for level in LEVELS:
        assert found.levels[level].sentence in repr(found)
        assert isinstance(getattr(found, level), pd.DataFrame)
        assert found.proposal(level).removed == dict.fromkeys(LEVELS, 0) | {level: PROPOSED[level]}
    with pytest.raises(UserError, match="'pixels'"):
        found.proposal("pixels")
