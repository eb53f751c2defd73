"""Rules that hold for the whole source, beside the layers in pyproject.toml: nothing runs code out of a data file,
and what is slow to import is imported where it is used."""

from __future__ import annotations

import ast
import json
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


IMPORTS = """
import json, runpy, sys

def loaded(*names):
    return sorted(set(names) & set(sys.modules))

def help_of(*command):
    sys.argv = ["core", *command, "--help"]
    try:
        runpy.run_module("core", run_name="__main__")
    except SystemExit as end:
        assert not end.code, command

import core.decisions.log, core.workspace.runner
log = loaded("numpy", "pandas", "torch", "streamlit")
for command in ([], ["train"], ["rank"], ["evidence"], ["review", "queue"]):
    help_of(*command)
helps = loaded("pandas", "torch", "streamlit")
import core.actions.curve, core.actions.edit, core.actions.rank, core.actions.retraining, core.actions.train
import core.ui.edit.results, core.ui.ranking.panel, core.ui.review.decide, core.ui.why.panel
from core.checkpoints.model import spec_of
from core.maml.episodes import Episodes
from core.maml.training import TrainSettings, train
from tests.maml.test_architectures import TINY
from tests.problems import tiny_problem
for name, fields in TINY.items():
    spec_of({"backbone": name, "ways": 3} | fields).shapes()
problem = tiny_problem()
train(problem.model, problem.params, problem.episodes, TrainSettings(iterations=1, meta_batch=2, polish=0))
work = loaded("scipy.stats", "sklearn", "torch._dynamo")
import core.baselines.confidence, core.baselines.ekfac, core.baselines.trak
baselines = loaded("accelerate", "cleanlab", "curvlinops", "dattri", "kronfluence", "sklearn", "torchopt")
print(json.dumps({"log and job runner": log, "help": helps, "rank, train, edit": work, "baselines": baselines}))
"""


def test_what_is_slow_to_import_is_imported_where_it_is_used() -> None:
    """PyTorch, its compiler, scikit-learn and scipy.stats take seconds that most commands and pages can save."""
    result = subprocess.run([sys.executable, "-c", IMPORTS], cwd=ROOT, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr
    found = json.loads(result.stdout.splitlines()[-1])
    assert found == {part: [] for part in found}


def test_csv_is_written_in_one_place() -> None:
    """core/runtime/csv_files.py escapes formulas."""
    guilty = [
        (path.relative_to(ROOT), name, call.lineno)
        for path in PRODUCT
        for name, call in calls(path)
        if name.split(".")[-1] in ("to_csv", "writer", "DictWriter", "to_excel")
    ]
    assert {path for path, *_ in guilty} == {Path("core/runtime/csv_files.py")}, guilty


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
