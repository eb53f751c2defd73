"""Path fields: one function makes paths of what people type, and refuses what is outside the roots."""

from __future__ import annotations

import ast
import os
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from core.runtime.errors import TransientError, UserError
from core.runtime.files import HOME_VARIABLE
from core.runtime.roots import ROOTS_VARIABLE
from core.ui.shell import paths
from core.ui.shell.paths import entered_path
from tests.test_rules import PRODUCT, ROOT, tree
from tests.ui.conftest import Open, click, run_again, words


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The only root, with a folder ``in`` and beside it a folder ``out`` of the same content."""
    for folder in ("root/in", "out"):
        (tmp_path / folder).mkdir(parents=True)
        (tmp_path / folder / "secret").write_text("x")
    monkeypatch.setenv(ROOTS_VARIABLE, str(tmp_path / "root"))
    monkeypatch.setenv(HOME_VARIABLE, str(tmp_path / "home"))
    monkeypatch.chdir(tmp_path / "root")
    return tmp_path / "root"


@pytest.mark.parametrize("text", ["{}/in", ' "{}/in" ', "'{}/in'", "in", "./in", "in/../in", "new"])
def test_paths_below_a_root_are_taken(root: Path, text: str) -> None:
    path = entered_path(text.format(root))
    assert path is not None
    assert path.is_absolute()
    assert Path(os.path.normpath(path)) in (root / "in", root / "new")


@pytest.mark.parametrize("text", ["", "  ", '""', "''", " ' "])
def test_nothing_is_no_path(root: Path, text: str) -> None:
    assert entered_path(text) is None


def test_the_home_folder_and_unknown_ones(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(root / "in"))
    assert entered_path("~/secret") == root / "in" / "secret"
    with pytest.raises(UserError, match="~nobody-of-that-name"):
        entered_path("~nobody-of-that-name/x")


@pytest.mark.parametrize("text", ["{}/../out", "../out", "/etc", "/", "in/../../out/secret", "link", "link/secret"])
def test_paths_outside_are_refused_alike_whether_or_not_they_exist(root: Path, text: str) -> None:
    (root / "link").symlink_to(root.parent / "out")
    text = text.format(root)
    errors = []
    for there in (True, False):
        if not there:
            (root.parent / "out" / "secret").unlink()
            (root.parent / "out").rmdir()
        with pytest.raises(UserError) as error:
            entered_path(text)
        errors.append((error.value.what, error.value.fix))
    assert errors[0] == errors[1]
    assert "--root" in errors[0][1]


@given(st.text())
def test_any_text_is_a_path_or_refused(text: str) -> None:
    try:
        path = entered_path(text)
    except UserError:
        return
    assert path is None or path.is_absolute()


def test_a_disk_that_does_not_answer_holds_up_a_page_once(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    answer, asked = threading.Event(), []

    def hang(path: Path) -> Path:
        asked.append(path)
        answer.wait(60)
        return path

    monkeypatch.setattr(paths, "check_below_roots", hang)
    monkeypatch.setattr(paths, "_ANSWER_SECONDS", 0.01)
    monkeypatch.setattr(paths, "_silent", {})
    for _ in range(2):
        with pytest.raises(TransientError):
            entered_path("/net/hung")
    answer.set()
    assert asked == [Path("/net/hung")]


@pytest.mark.parametrize("key", ["load_path", "load_splits"])
def test_the_load_page_refuses_paths_outside_before_anything_starts(
    show: Open, home: Path, root: Path, monkeypatch: pytest.MonkeyPatch, started: list[list[str]], key: str
) -> None:
    monkeypatch.setenv(HOME_VARIABLE, str(home))
    page = show("load")
    page.text_input(key="load_path").set_value(str(root / "in"))
    page.text_input(key=key).set_value(str(root.parent / "out"))
    click(run_again(page), "load_import")
    assert started == []
    assert "outside the folders" in words(page)
    page.text_input(key=key).set_value(str(root / "in"))
    click(run_again(page), "load_import")
    assert len(started) == 1


def _text_inputs(node: ast.AST) -> Iterator[ast.Call]:
    for one in ast.walk(node):
        if isinstance(one, ast.Call) and ast.unparse(one.func).split(".")[-1] in ("text_input", "text_area", "text"):
            yield one


def _names_from(function: ast.AST, is_source: Any) -> set[str]:
    """Names that a function assigns from an expression that contains a source."""
    names: set[str] = set()
    for node in ast.walk(function):
        if isinstance(node, ast.Assign | ast.NamedExpr | ast.AnnAssign) and node.value and is_source(node.value):
            targets = node.targets if isinstance(node, ast.Assign) else [node.target]
            names |= {one.id for target in targets for one in ast.walk(target) if isinstance(one, ast.Name)}
    return names


def test_no_other_code_of_the_pages_makes_a_path_of_what_was_entered() -> None:
    """A ``Path(...)`` over a text input, or over a name in the same function that one was assigned to."""
    guilty = []
    for file in PRODUCT:
        if not {"ui", "pages"} & set(file.relative_to(ROOT).parts) or file.name == "paths.py":
            continue
        for function in ast.walk(tree(file)):
            if not isinstance(function, ast.FunctionDef):
                continue
            entered = _names_from(function, lambda value: any(True for _ in _text_inputs(value)))
            for call in ast.walk(function):
                if isinstance(call, ast.Call) and ast.unparse(call.func).split(".")[0] in ("Path", "pathlib"):
                    parts = [one for argument in call.args for one in ast.walk(argument)]
                    if any(isinstance(one, ast.Name) and one.id in entered for one in parts) or any(
                        True for argument in call.args for _ in _text_inputs(argument)
                    ):
                        guilty.append((file.relative_to(ROOT), call.lineno))
    assert guilty == []


def test_every_setting_that_is_a_path_is_drawn_by_the_path_widget() -> None:
    """``widgets.text(..., "splits")`` would make a path without the check."""
    from core.actions.image_settings import ImportOptions
    from core.runtime.settings import declared

    fields = {name for name, setting in declared(ImportOptions).items() if setting.kind is Path}
    assert fields == {"splits"}
    drawn = {
        (call.func.attr, argument.value)
        for file in PRODUCT
        for call in ast.walk(tree(file))
        if isinstance(call, ast.Call) and isinstance(call.func, ast.Attribute)
        for argument in call.args
        if isinstance(argument, ast.Constant) and argument.value in fields and ast.unparse(call.func.value) == "widgets"
    }
    assert drawn == {("path", "splits")}
