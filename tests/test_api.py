"""The Python API: the documented page and notebook run, and results equal those of a workspace."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import nbformat
import numpy as np
import pandas as pd
import pytest

from core import api
from core.api import memory
from core.editing.methods import edit_model
from core.editing.settings import CONTROL_OF
from core.maml.evaluation import Interval
from core.runtime.files import HOME_VARIABLE
from tests.cli.shell import Shell

ROOT = Path(__file__).resolve().parents[1]
PAGE = ROOT / "docs" / "python.md"
NOTEBOOK = ROOT / "docs" / "python.ipynb"
TASKS = {"shots": 1, "queries": 3, "count": 6, "heldout": 3, "noise": "easy"}
SOLVE = {"curvature_tasks": 4, "damping": 0.1}


@pytest.fixture(scope="module")
def tasks() -> api.Tasks:
    return api.draw_tasks(api.load_images("mnist5k"), **TASKS)


@pytest.fixture(scope="module")
def model(tasks: api.Tasks) -> api.Model:
    return api.train(tasks, network={"filters": 2}, iterations=6, meta_batch=2, device="cpu")


@pytest.fixture(scope="module")
def longer_model(tasks: api.Tasks) -> api.Model:
    """A model whose training costs more than the least number of steps."""
    return api.train(tasks, network={"filters": 2}, iterations=25, meta_batch=2, device="cpu")


def some_changes(tasks: api.Tasks) -> api.Changes:
    return api.Changes.named(tasks=list(tasks.train["task_id"].unique()[:2]))


def blocks() -> list[str]:
    return re.findall(r"```python\n(.*?)```", PAGE.read_text("utf-8"), re.DOTALL)


def test_the_page_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv(HOME_VARIABLE, str(tmp_path / "home"))
    names: dict[str, object] = {}
    for block in blocks():
        exec(compile(block, str(PAGE), "exec"), names)
    assert isinstance(names["edited"], api.EditedModel)
    assert (tmp_path / "cleaned" / "cleaned-tasks.csv").stat().st_size > 100
    assert "remove" in capsys.readouterr().out


def test_the_notebook_has_the_code_of_the_page() -> None:
    cells = nbformat.read(NOTEBOOK, as_version=4).cells
    assert [cell.source.strip() for cell in cells if cell.cell_type == "code"] == [block.strip() for block in blocks()]


@pytest.mark.slow
def test_the_notebook_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from nbclient import NotebookClient

    monkeypatch.setenv(HOME_VARIABLE, str(tmp_path / "home"))
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    NotebookClient(notebook, timeout=250, resources={"metadata": {"path": str(tmp_path)}}).execute()
    outputs = [output for cell in notebook.cells if cell.cell_type == "code" for output in cell.outputs]
    assert any("EditedModel" in output.get("text", "") for output in outputs)


def test_a_workspace_gives_the_ranking_of_objects_in_memory(tmp_path: Path, tasks: api.Tasks, model: api.Model) -> None:
    workspace = api.create_workspace(tmp_path / "made", tasks, model)
    stored = workspace.rank(device="cpu", **SOLVE)
    direct = api.rank(tasks, model, device="cpu", **SOLVE)
    pd.testing.assert_frame_equal(stored.tasks, direct.tasks)
    pd.testing.assert_frame_equal(api.open_workspace(tmp_path / "made").scores().images, direct.images)
    assert len(list((tmp_path / "made" / "runs").glob("rank-*"))) == 1


@pytest.mark.parametrize("method", ["linear", "finetune", "retrain"])
def test_edits_are_measured_on_the_held_out_tasks(tasks: api.Tasks, model: api.Model, method: str) -> None:
    changes = some_changes(tasks)
    edited = api.edit(tasks, model, changes, method=method, device="cpu")
    before, after = (api.evaluate(tasks, one, device="cpu").accuracy for one in (model, edited.model))
    assert edited.accuracy_change.mean == pytest.approx((after - before).mean(), abs=1e-6)
    assert any((edited.model.params[name] != value).any() for name, value in model.params.items())
    assert edited.net_effect is not None
    if method == "linear":
        assert edited.net_effect == edited.accuracy_change, "without changes it is the unedited model"
        return
    control = api.edit(tasks, model, changes, method=CONTROL_OF[method], device="cpu")
    without = api.evaluate(tasks, control.model, device="cpu").accuracy
    assert edited.net_effect == Interval.of(after - without)
    assert control.net_effect is None


def test_a_control_in_memory_is_computed_once(
    tasks: api.Tasks, model: api.Model, monkeypatch: pytest.MonkeyPatch
) -> None:
    ids, made = list(tasks.train["task_id"].unique()), []
    monkeypatch.setattr(memory, "_controls", {})
    monkeypatch.setattr(memory, "edit_model", lambda name, *rest: made.append(name) or edit_model(name, *rest))
    for removed in (ids[:2], ids[2:4]):
        api.edit(tasks, model, api.Changes.named(tasks=removed), method="newton", device="cpu")
    assert made == ["newton", "newton-all", "newton"]


@pytest.mark.parametrize(
    ("method", "settings"),
    [
        ("linear", {"damping": 10.0, "curvature_tasks": 4}),
        ("newton", {"products": 1, "gradient_tasks": 4}),
        ("steps", {"budget": 1.0}),
        ("finetune", {"finetune_steps": 2}),
    ],
)
def test_settings_of_an_edit_are_those_of_the_command(
    tmp_path: Path, tasks: api.Tasks, longer_model: api.Model, method: str, settings: dict[str, Any]
) -> None:
    changes, compute = some_changes(tasks), {"method": method, "device": "cpu"}
    workspace = api.create_workspace(tmp_path / "made", tasks, longer_model)
    workspace.remove(tasks=sorted(changes.tasks), cause="harmful", reviewer="ann")
    stored = workspace.edit(**compute, **settings)
    names = {"products": "newton-products", "gradient_tasks": "newton-tasks"}
    options = [f"--{names.get(name, name.replace('_', '-'))}={value:g}" for name, value in settings.items()]
    where = ["edit", "-w", tmp_path / "made", "--how", method, "--device", "cpu"]
    again = Shell(tmp_path).done(*where, *options)
    assert [again.path.name] == [run.id for run in workspace.stored.runs.all(f"edit-{method}")], "it is found again"

    direct = api.edit(tasks, longer_model, changes, **compute, **settings)
    assert direct.accuracy_change == stored.accuracy_change
    assert all((stored.model.params[name] == value).all() for name, value in direct.model.params.items())


def test_an_invalid_decision_writes_nothing(tmp_path: Path, tasks: api.Tasks, model: api.Model) -> None:
    workspace = api.create_workspace(tmp_path / "made", tasks, model)
    images = list(tasks.train["image_id"].unique()[:2])
    good = pd.DataFrame({"kind": "image", "image_id": images, "verdict": "remove"})
    with pytest.raises(api.UserError, match="nobody"):
        workspace.decide(good.assign(image_id=[images[0], "nobody"]), reviewer="ann")
    assert workspace.decisions().empty
    for act in (lambda: workspace.decide(good, reviewer=""), lambda: workspace.remove(images=images, reviewer=" ")):
        with pytest.raises(api.UserError, match="reviewer"):
            act()
    assert workspace.decisions().empty
    assert workspace.decide(good, reviewer="ann") == 2
    assert set(workspace.decisions()["image_id"]) == set(images)
    assert len(workspace.changes()) == 2
    assert workspace.decisions()["cause"].tolist() == ["label-error"] * 2
    workspace.remove(images=images[:1], reviewer="ann", cause="duplicate")
    workspace.remove(images=images[1:], reviewer="ann", reason="too dark")
    assert workspace.decisions()["cause"].tolist() == ["duplicate", "other"]
    with pytest.raises(api.UserError, match="dull"):
        workspace.remove(images=images, reviewer="ann", cause="dull")  # type: ignore[arg-type]


def test_arrays_in_memory_are_images(tmp_path: Path) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (60, 8, 8), dtype=np.uint8)
    images = api.images_from_arrays(pixels, ["b", "a", "c"] * 20)
    assert images.shape == (8, 8, 1)
    assert [images.class_names[label] for label in images.labels[:3]] == ["b", "a", "c"]
    drawn = api.draw_tasks(images, ways=3, shots=2, queries=2, count=3, heldout=2)
    assert drawn.injected is None
    assert drawn.train["task_id"].nunique() == 3
    with pytest.raises(api.UserError):
        api.images_from_arrays(pixels.astype(float), ["a"] * 60)


def test_image_grids_escape_captions(tasks: api.Tasks) -> None:
    grid = api.ImageGrid(tasks.images.images[:2], ("<img src=x onerror=alert(1)>", "plain"))
    assert "<img src=x" not in grid._repr_html_()
    assert grid._repr_html_().count("data:image/png;base64,") == 2


def test_queues_and_rankings_show_their_images(tasks: api.Tasks, model: api.Model) -> None:
    queue = api.review_queue(tasks, model, rounds=1, calibrate=False, device="cpu")
    assert queue.items["suspicion"].is_monotonic_decreasing
    assert len(queue.show(5).captions) == 5
    ranking = api.rank(tasks, model, method="dot", device="cpu")
    worst = ranking.images.nsmallest(3, "score")["image_id"]
    assert [caption.split(":")[0] for caption in ranking.show(3).captions] == list(worst)
    with pytest.raises(api.UserError):
        ranking.show(most="average")


@pytest.mark.parametrize(
    "call",
    [
        lambda tasks, model: api.rank(tasks, model, method="nonsense"),
        lambda tasks, model: api.rank(tasks, model, method="tracin"),
        lambda tasks, model: api.edit(tasks, model, api.Changes()),
        lambda tasks, model: api.edit(tasks, model, api.Changes(), method="nonsense"),
        lambda tasks, model: api.load_model("nowhere.pt"),
        lambda tasks, model: api.train(tasks, network={"filters": 0}),
        lambda tasks, model: api.open_workspace("./nowhere"),
    ],
)
def test_invalid_input_is_a_user_error(tasks: api.Tasks, model: api.Model, call: object) -> None:
    with pytest.raises(api.UserError):
        call(tasks, model)  # type: ignore[operator]


def test_a_model_is_saved_and_loaded(tmp_path: Path, tasks: api.Tasks, model: api.Model) -> None:
    again = api.load_model(model.save(tmp_path / "model"))
    assert again.stored.hash == model.stored.hash
    assert json.loads((tmp_path / "model" / "model.json").read_text())["story"]["report"] == again.report


def test_progress_is_written_only_when_asked(
    tasks: api.Tasks, model: api.Model, capsys: pytest.CaptureFixture[str]
) -> None:
    api.evaluate(tasks, model, device="cpu")
    assert capsys.readouterr().err == ""
    api.evaluate(tasks, model, device="cpu", progress=True)
    assert "held-out tasks" in capsys.readouterr().err


def test_wrong_names_and_types_are_user_errors(tasks: api.Tasks, model: api.Model) -> None:
    wrong: list[tuple[str, Callable[[], object]]] = [
        ("banana", lambda: api.load_images(Path(), banana=1)),
        ("text", lambda: api.load_images(Path(), size=28)),
        ("banana", lambda: api.draw_tasks(tasks.images, banana=1)),
        ("data", lambda: api.draw_tasks(tasks.images, data="mnist5k")),
        ("whole number", lambda: api.draw_tasks(tasks.images, ways="five")),
        ("ImageSet", lambda: api.draw_tasks("mnist5k")),  # type: ignore[arg-type]
        ("banana", lambda: api.train(tasks, banana=1)),
        ("banana", lambda: api.train(tasks, network={"banana": 1})),
        ("ways", lambda: api.train(tasks, network={"ways": 4})),
        ("network", lambda: api.train(tasks, network=["mlp"])),  # type: ignore[arg-type]
        ("labels", lambda: api.images_from_arrays(np.zeros((2, 4, 4), np.uint8), 3)),  # type: ignore[arg-type]
        ("folder", lambda: api.load_tasks(None)),  # type: ignore[arg-type]
        ("count", lambda: api.rank(tasks, model, method="dot", device="cpu").show("3")),  # type: ignore[arg-type]
        ("banana", lambda: api.rank(tasks, model, banana=1)),
        ("whole number", lambda: api.rank(tasks, model, curvature_tasks=4.5)),
        ("target", lambda: api.rank(tasks, model, target=["h0"])),  # type: ignore[arg-type]
        ("Tasks object", lambda: api.rank(model, tasks)),  # type: ignore[arg-type]
        ("banana", lambda: api.edit(tasks, model, some_changes(tasks), method="linear", banana=1)),
        ("banana", lambda: api.edit(tasks, model, some_changes(tasks), banana=1)),
        ("methods", lambda: api.edit(tasks, model, some_changes(tasks), method="steps", methods=("newton",))),
        ("budget", lambda: api.edit(tasks, model, some_changes(tasks), method="steps", budget=2.0)),
        ("no settings", lambda: api.edit(tasks, model, some_changes(tasks), method="retrain", budget=0.5)),
        ("nonsense", lambda: api.edit(tasks, model, some_changes(tasks), method="nonsense", budget=0.5)),
        ("Changes object", lambda: api.edit(tasks, model, ["t0"])),  # type: ignore[arg-type]
        ("list of texts", lambda: api.Changes.named(tasks="t0")),
        ("banana", lambda: api.review_queue(tasks, model, banana=1)),
        ("must be a list", lambda: api.review_queue(tasks, model, slow="harm")),
    ]
    for words, call in wrong:
        with pytest.raises(api.UserError, match=words):
            call()
