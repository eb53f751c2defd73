"""Workspaces: created from tasks and a model that fit together."""

from __future__ import annotations

import errno
import shutil
from dataclasses import replace
from pathlib import Path

import pytest

from core.checkpoints.model import Model, ModelSpec, save_model
from core.decisions.log import Decision, Item, Operation
from core.runtime.errors import TransientError, UserError
from core.runtime.files import HOME_VARIABLE, home
from core.tasks.changes import Changes
from core.tasks.generate import TaskSettings, generate, write_folder
from core.workspace.workspace import Workspace, all_workspaces, create, locate

SETTINGS = TaskSettings(ways=3, shots=1, queries=2, count=4, heldout=2, validation=0)
SPEC = ModelSpec(ways=3, filters=2)


def tasks(folder: Path, settings: TaskSettings = SETTINGS) -> Path:
    write_folder(generate(settings), folder)
    return folder


def model(folder: Path, spec: ModelSpec = SPEC, seed: int = 0) -> Path:
    save_model(Model(spec, spec.init(seed), {"command": "by hand"}), folder)
    return folder


@pytest.fixture
def workspace(tmp_path: Path) -> Workspace:
    return create(tmp_path / "mine", tasks(tmp_path / "tasks"), model(tmp_path / "model"))


def test_a_workspace_holds_copies_of_its_tasks_and_model(workspace: Workspace, tmp_path: Path) -> None:
    for part in ("tasks", "model"):
        for path in (tmp_path / part).iterdir():
            path.unlink()
    project = Workspace(tmp_path / "mine").project()
    assert project.tasks.train.hash == generate(SETTINGS).train.hash
    assert project.model.spec == SPEC
    assert set(project.hashes) == {"data", "tasks", "heldout", "model"}
    assert workspace.name == "mine"


def test_creating_the_same_workspace_again_keeps_the_decisions(workspace: Workspace, tmp_path: Path) -> None:
    workspace.decisions.append([Decision(Item("task", task_id="t0"), "remove", reviewer="one")])
    again = create(tmp_path / "mine", tmp_path / "tasks", tmp_path / "model")
    assert again.changes().tasks == {"t0"}


def test_decisions_to_remove_become_changes(workspace: Workspace) -> None:
    rows = [
        Decision(Item("task", task_id="t0"), "remove", reviewer="one"),
        Decision(Item("task", task_id="t1"), "keep", reviewer="one"),
        Decision(Item("image", image_id="a"), "remove", reviewer="one"),
        Decision(Item("image", image_id="b"), "unsure", reviewer="one"),
        Decision(Item("instance", "t2", "query", "c"), "remove", reviewer="one"),
    ]
    workspace.decisions.append(rows)
    removal = workspace.changes()
    assert (removal.tasks, removal.images, removal.instances) == ({"t0"}, {"a"}, {("t2", "query", "c")})
    workspace.decisions.append([Decision(Item("task", task_id="t0"), "keep", reviewer="one")])
    assert len(workspace.changes()) == 2


def test_decisions_to_relabel_become_changes(workspace: Workspace) -> None:
    names = workspace.project().images.class_names
    rows = [
        Decision(Item("image", image_id="a"), "relabel", label=1, reviewer="one"),
        Decision(Item("instance", "t2", "query", "c"), "relabel", label=0, reviewer="one"),
        Decision(Item("image", image_id="b"), "remove", reviewer="one"),
    ]
    workspace.decisions.append(rows)
    changes = workspace.changes()
    assert changes.relabelled_images == {("a", names[1])}
    assert changes.relabelled_instances == {("t2", "query", "c", names[0])}
    assert changes.images == {"b"}
    workspace.decisions.append([Decision(Item("image", image_id="a"), "relabel", label=99, reviewer="one")])
    with pytest.raises(UserError, match="99"):
        workspace.changes()


def test_conflicts_are_no_changes_until_resolved(workspace: Workspace) -> None:
    item, other = Item("image", image_id="a"), Item("image", image_id="b")
    log = workspace.decisions
    log.append([Decision(item, "remove", reviewer="one"), Decision(other, "remove", reviewer="one")])
    log.append([Decision(item, "relabel", label=1, reviewer="two")])
    assert set(log.conflicts()) == {item}
    assert workspace.changes() == Changes(images=frozenset({"b"}))
    resolution = (Decision(item, "remove", reviewer="three"),)
    log.submit([Operation("decide", "three", decisions=resolution, saw=log.version())])
    assert workspace.changes().images == {"a", "b"}


def test_another_problem_cannot_replace_a_workspace(workspace: Workspace, tmp_path: Path) -> None:
    before = workspace.project().hashes
    others = [
        (tasks(tmp_path / "other-tasks", replace(SETTINGS, seed=1)), tmp_path / "model"),
        (tasks(tmp_path / "other-heldout", replace(SETTINGS, heldout=3)), tmp_path / "model"),
        (tmp_path / "tasks", model(tmp_path / "other-model", seed=1)),
    ]
    for other_tasks, other_model in others:
        with pytest.raises(UserError, match=str(tmp_path / "mine")):
            create(tmp_path / "mine", other_tasks, other_model)
    assert Workspace(tmp_path / "mine").project().hashes == before


@pytest.mark.parametrize(
    ("spec", "what"),
    [
        (SPEC.model_copy(update={"ways": 5}), "5-way.*3-way"),
        (
            SPEC.model_copy(update={"shape": (28, 28, 3)}),
            r"\(28, 28, 3\).*mnist5k",
        ),
    ],
)
def test_a_model_that_does_not_fit_creates_no_workspace(tmp_path: Path, spec: ModelSpec, what: str) -> None:
    with pytest.raises(UserError, match=what):
        create(tmp_path / "mine", tasks(tmp_path / "tasks"), model(tmp_path / "model", spec))
    assert not (tmp_path / "mine").exists()


@pytest.mark.parametrize(
    ("part", "content", "what"),
    [
        ("tasks/train.parquet", None, r"train\.parquet"),
        ("tasks/train.parquet", b"", r"train\.parquet"),
        ("tasks/tasks.json", None, r"tasks\.json"),
        ("model/model.json", b"{", r"model\.json"),
        ("model/model.safetensors", b"", r"model\.safetensors"),
    ],
)
def test_a_damaged_file_is_named_in_the_error(
    workspace: Workspace, part: str, content: bytes | None, what: str
) -> None:
    path = workspace.folder / part
    if content is None:
        path.unlink()
    else:
        path.write_bytes(content)
    with pytest.raises(UserError, match=what):
        Workspace(workspace.folder).project()


@pytest.mark.parametrize("text", ['{"format": 2}', "[]", "{}"])
def test_a_workspace_of_another_format_is_refused(workspace: Workspace, text: str) -> None:
    (workspace.folder / "workspace.json").write_text(text)
    with pytest.raises(UserError, match=r"workspace\.json"):
        Workspace(workspace.folder)


def test_a_folder_without_a_workspace_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    for place in (tmp_path, tmp_path / "nothing", tmp_path / "file", tmp_path / ("long" * 100)):
        with pytest.raises(UserError, match=r"workspace\.json cannot be read|The workspace .* does not exist"):
            Workspace(place)


def test_a_workspace_is_not_made_of_its_own_folders(tmp_path: Path) -> None:
    task_folder, model_folder = tasks(tmp_path / "mine" / "tasks"), model(tmp_path / "mine" / "model")
    with pytest.raises(UserError, match="to itself"):
        create(tmp_path / "mine", task_folder, model_folder)


def test_a_workspace_needs_a_name() -> None:
    with pytest.raises(UserError, match="empty"):
        locate(" ")


def test_the_training_state_is_not_copied(tmp_path: Path) -> None:
    (model(tmp_path / "model") / "state.safetensors").write_bytes(b"")
    made = create(tmp_path / "mine", tasks(tmp_path / "tasks"), tmp_path / "model")
    assert sorted(path.name for path in (made.folder / "model").iterdir()) == ["model.json", "model.safetensors"]


def test_the_home_of_workspaces_follows_the_environment(
    workspace: Workspace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(HOME_VARIABLE, str(tmp_path))
    assert home() == tmp_path
    assert locate("mine") == tmp_path / "mine"
    assert locate("./mine") == Path("mine")
    assert locate(str(workspace.folder)) == workspace.folder
    assert all_workspaces() == [workspace.folder]
    monkeypatch.delenv(HOME_VARIABLE)
    assert home().name == "tasklens"
    assert home().is_absolute()


def test_a_full_disk_leaves_no_workspace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(source: object, target: object, **options: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    task_folder, model_folder = tasks(tmp_path / "tasks"), model(tmp_path / "model")
    with monkeypatch.context() as patch:
        patch.setattr(shutil, "copyfile", full)
        with pytest.raises(TransientError):
            create(tmp_path / "mine", task_folder, model_folder)
    with pytest.raises(UserError, match=r"The workspace .* does not exist"):
        Workspace(tmp_path / "mine")
    assert (
        create(tmp_path / "mine", task_folder, model_folder).project().tasks.train.hash == generate(SETTINGS).train.hash
    )


def test_the_library_is_not_a_workspace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(HOME_VARIABLE, str(tmp_path))
    with pytest.raises(UserError, match="'library'"):
        create(locate("library"), tasks(tmp_path / "tasks"), model(tmp_path / "model"))
