"""Import and export of decisions, the report and the search for duplicates on the command line."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import pytest

from core.actions.export import export_notes
from core.workspace.workspace import Workspace
from tests.actions.reviewed import small_workspace, some_items
from tests.cli.shell import Shell


@pytest.fixture
def shell(tmp_path: Path) -> Shell:
    made = small_workspace(tmp_path / "made")
    (tmp_path / "home").mkdir()
    made.folder.rename(tmp_path / "home" / "small")
    return Shell(tmp_path)


def test_import_export_and_report(shell: Shell, tmp_path: Path) -> None:
    workspace = Workspace(tmp_path / "home" / "small")
    images = [item.image_id for item in some_items(workspace)["image"][:2]]
    file = tmp_path / "mine.csv"
    pd.DataFrame({"image_id": images, "verdict": ["remove", "keep"]}).to_csv(file, index=False)
    lines = shell.done("review", "import", file, "-w", "small", "--dry-run").out
    assert len(lines) == 1
    assert lines[0].startswith("2 decisions")
    assert not workspace.decisions.history()
    assert shell.done("review", "import", file, "-w", "small", "--reviewer", "Ann").out == lines
    assert workspace.changes().images == {images[0]}
    out = shell.done("review", "export", "-w", "small", "--formats", "csv,json").path
    assert out == workspace.folder / "exports" / "decisions"
    assert pd.read_csv(out / "decisions.csv")["reviewer"].tolist() == ["Ann", "Ann"]
    assert not (out / "decisions.parquet").exists()
    page = shell.done("review", "report", "-w", "small", "--out", tmp_path / "review.html").path
    assert "small</" in page.read_text(encoding="utf-8")
    again = shell.done("review", "import", out / "decisions.json", "-w", "small").out
    assert len(again) == 1
    assert again[0].startswith("2 decisions")
    assert len(workspace.decisions.history()) == 2, "decisions in the log are not written again"


def test_rows_of_cleanlab_are_matched_by_position_only_if_asked(shell: Shell, tmp_path: Path) -> None:
    workspace = Workspace(tmp_path / "home" / "small")
    images, image = workspace.project().images, some_items(workspace)["image"][0].image_id
    given = [images.class_names[label] for label in images.labels]
    file = tmp_path / "issues.csv"
    pd.DataFrame({"is_label_issue": images.ids == image, "given_label": given}).to_csv(file)
    assert "--by-position" in shell.refused("review", "import", file, "-w", "small")
    lines = shell.done("review", "import", file, "-w", "small", "--by-position").out
    assert len(lines) == 2
    assert [entry.item.image_id for entry in workspace.decisions.history()] == [image]


def test_export_says_whose_positions_it_writes(shell: Shell) -> None:
    done = shell.done("export", "-w", "small", "--formats", "learn2learn")
    assert len(done.out) == 1
    assert all(note in done.err for note in export_notes(done.path))
    assert "positions" not in shell.done("export", "-w", "small").err.lower()


def test_invalid_input_names_the_value(shell: Shell, tmp_path: Path) -> None:
    file = tmp_path / "mine.csv"
    file.write_text("image_id,verdict\ngone,keep\n")
    assert "mine.csv, row 1: image_id 'gone'" in shell.refused("review", "import", file, "-w", "small")
    assert "no.csv" in shell.refused("review", "import", tmp_path / "no.csv", "-w", "small")
    assert "'xls'" in shell.refused("review", "export", "-w", "small", "--formats", "xls")
    assert shell.refused("review", "report", "-w", "small"), "nothing was decided"


def test_duplicates_are_found(shell: Shell) -> None:
    lines = shell.done("review", "duplicates", "-w", "small").out
    assert len(lines) > 2
    assert (Path(lines[-1]) / "pairs.parquet").exists()
