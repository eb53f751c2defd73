"""The export of a cleaned task list: complete or unchanged, and without conflicting decisions."""

from __future__ import annotations

import errno
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from core.actions import export as module
from core.actions.export import export, export_notes
from core.decisions.log import Decision
from core.runtime.errors import UserError
from core.runtime.files import read_json, write_json
from core.tasks.exchange import LIBRARIES
from core.workspace.workspace import Workspace
from tests.actions.reviewed import small_workspace, some_items
from tests.actions.test_decisions_io import Logged


@pytest.fixture(scope="module")
def problem(tmp_path_factory: pytest.TempPathFactory) -> Workspace:
    return small_workspace(tmp_path_factory.mktemp("problem"))


@pytest.fixture
def workspace(problem: Workspace, tmp_path: Path) -> Workspace:
    made = Logged(problem, tmp_path / "decisions.sqlite")
    a, b, c = some_items(problem)["image"][:3]
    made.decisions.append(
        [
            Decision(a, "remove", None, "=odd", "ann"),
            Decision(b, "remove", reviewer="ann"),
            Decision(c, "relabel", 0, "", "ann"),
        ]
    )
    made.decisions.append([Decision(b, "keep", reviewer="bob")])
    return made


def test_conflicts_are_neither_removed_nor_relabelled(workspace: Workspace, tmp_path: Path) -> None:
    out = export(workspace, tmp_path / "out", formats=("csv",))
    a, _, c = (item.image_id for item in some_items(workspace)["image"][:3])
    removed = pd.read_csv(out / "removed.csv")
    assert removed[["image_id", "reason"]].to_numpy().tolist() == [[a, "'=odd"]]
    relabelled = pd.read_csv(out / "relabelled.csv", dtype=str)
    assert relabelled[["image_id", "corrected"]].to_numpy().tolist() == [[c, "0"]]
    about = read_json(out / "export.json")
    assert (about["removed"]["images"], about["relabelled"]["images"]) == (1, 1)


def test_notes_say_whose_positions_lists_for_other_libraries_contain(problem: Workspace, tmp_path: Path) -> None:
    (note,) = export_notes(export(problem, tmp_path / "out", formats=("csv", *LIBRARIES)))
    assert "image set mnist5k" in note
    assert export_notes(export(problem, tmp_path / "out", formats=("csv",))) == []
    about = read_json(tmp_path / "out" / "export.json")
    del about["notes"]
    write_json(tmp_path / "out" / "export.json", about)
    assert export_notes(tmp_path / "out") == [], "an export of an earlier version has none"


@pytest.mark.parametrize("fault", [errno.ENOSPC, errno.EACCES])
def test_a_full_disk_keeps_the_older_export(
    workspace: Workspace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fault: int
) -> None:
    out = export(workspace, tmp_path / "out")
    (out / "notes.txt").write_text("mine")
    before = {path.name: path.read_bytes() for path in out.iterdir()}
    workspace.decisions.undo("bob")

    def full(*args: Any) -> None:
        raise OSError(fault, "no")

    with monkeypatch.context() as patch:
        patch.setattr(module, "write_json", full)
        with pytest.raises(UserError) as refused:
            export(workspace, out)
        assert isinstance(refused.value.__cause__, OSError)
        assert refused.value.__cause__.errno == fault
    assert {path.name: path.read_bytes() for path in out.iterdir()} == before
    assert len(pd.read_csv(export(workspace, out, formats=("csv",)) / "removed.csv")) == 2
    assert sorted(path.name for path in out.iterdir()) == [
        "cleaned-tasks.csv",
        "export.json",
        "notes.txt",
        "relabelled.csv",
        "removed.csv",
    ]
