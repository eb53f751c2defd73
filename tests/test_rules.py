"""Rules that hold for the whole source, beside the layers in pyproject.toml: nothing runs code out of a data file."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path

ROOT = Path(__file__).parents[1]
CORE = sorted((ROOT / "core").rglob("*.py"))
PRODUCT = [*CORE, ROOT / "app.py", *sorted((ROOT / "pages").rglob("*.py"))]


UNSAFE = {"pickle", "cPickle", "dill", "joblib", "shelve", "marshal", "cloudpickle"}


@cache
def tree(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"))


def imports(path: Path) -> Iterator[str]:
    """Every imported top-level package."""
    for node in ast.walk(tree(path)):
        if isinstance(node, ast.Import):
            yield from (name.name.split(".")[0] for name in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield (node.module or "").split(".")[0]


def calls(path: Path) -> Iterator[tuple[str, ast.Call]]:
    """Every call with the dotted name of what is called."""
    for node in ast.walk(tree(path)):
        if isinstance(node, ast.Call):
            yield ast.unparse(node.func), node


def test_there_is_source_to_check() -> None:
    assert len(CORE) > 30
    assert any("torch" in imports(path) for path in CORE)


def test_importing_the_command_line_is_light() -> None:
    text = "import sys, core.cli; print({'torch', 'streamlit', 'pandas'} & set(sys.modules))"
    result = subprocess.run([sys.executable, "-c", text], cwd=ROOT, capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "set()"


def test_asking_for_help_is_light() -> None:
    text = """
import runpy, sys
sys.argv = ["core", "--help"]
try:
    runpy.run_module("core", run_name="__main__")
except SystemExit as end:
    print("exit", end.code, {"torch", "streamlit", "pandas"} & set(sys.modules))
"""
    result = subprocess.run([sys.executable, "-c", text], cwd=ROOT, capture_output=True, text=True, check=True)
    assert result.stdout.strip().endswith("exit 0 set()")


def test_nothing_that_runs_code_out_of_a_file_is_imported() -> None:
    assert [(path, name) for path in PRODUCT for name in imports(path) if name in UNSAFE] == []


def test_no_call_runs_code_out_of_a_file() -> None:
    guilty = []
    for path in PRODUCT:
        for name, call in calls(path):
            given = {keyword.arg: ast.unparse(keyword.value) for keyword in call.keywords}
            careless = name == "torch.load" and given.get("weights_only") != "True"
            careless |= name.split(".")[-1] == "read_pickle" or name in ("eval", "exec", "yaml.load")
            careless |= given.get("allow_pickle", "False") != "False"
            if careless:
                guilty.append((path.relative_to(ROOT), name, call.lineno))
    assert guilty == []
