"""A tiny workspace, empty or with everything computed, and pages run on it without a browser."""

from __future__ import annotations

import re
import shutil
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from streamlit.components.v2 import manifest_scanner
from streamlit.testing.v1 import AppTest

from core.actions.compute import Compute
from core.actions.curve import curve
from core.actions.decide import mark, worst_items
from core.actions.edit import edit
from core.actions.rank import ranking
from core.checkpoints.model import Model, ModelSpec, save_model
from core.editing.methods import SOLVE
from core.editing.settings import DEFAULT_EDIT_METHODS, FINETUNE, NEWTON, CurveSettings, NewtonSettings
from core.editing.settings import FINETUNE as CURVE_FINETUNE
from core.influence.methods import DEFAULT, SolveSettings, estimator
from core.influence.targets import Target
from core.maml.training import TrainSettings
from core.runtime.files import HOME_VARIABLE
from core.runtime.progress import Progress
from core.tasks.generate import TaskSettings, generate, write_folder
from core.ui.shell.guard import BUG_ICON
from core.ui.shell.text import SEPARATOR
from core.workspace.demos import DEMOS, open_demo
from core.workspace.jobs import Jobs
from core.workspace.runs import Run
from core.workspace.workspace import Workspace, create
from tests.conftest import MakeOnce

ROOT = Path(__file__).resolve().parents[2]
Open = Callable[[str], AppTest]
COMPUTE = Compute("cpu")


def make_ranking(workspace: Workspace) -> Run:
    return ranking(workspace, Target(), estimator(DEFAULT), COMPUTE, Progress())


def make_edit(
    workspace: Workspace,
    way: str,
    solver: SolveSettings | None = None,
    finetune: TrainSettings = FINETUNE,
    newton: NewtonSettings = NEWTON,
) -> Run:
    return edit(
        workspace,
        way,
        workspace.changes(),
        solver=solver or SOLVE,
        finetune=finetune,
        newton=newton,
        compute=COMPUTE,
        progress=Progress(),
    )


def make_bare(folder: Path) -> None:
    """A problem with nothing computed, in the workspace ``tiny``."""
    tasks = generate(TaskSettings(ways=3, shots=1, queries=2, count=6, heldout=4, validation=0))
    write_folder(tasks, folder / "tasks")
    spec = ModelSpec(ways=3, filters=2)
    metadata = {
        "training": {"iterations": 2, "meta_batch": 2, "learning_rate": 1e-3, "polish": 0, "tolerance": 1e-4, "seed": 0}
    }
    save_model(Model(spec, spec.init(0, torch.float64), metadata), folder / "model")
    create(folder / "tiny", folder / "tasks", folder / "model")


def make_computed(folder: Path) -> None:
    """The same with a ranking, the most harmful task marked (by somebody whose name is markup), edits, and a curve."""
    make_bare(folder)
    workspace = Workspace(folder / "tiny")
    ranked = make_ranking(workspace)
    mark(workspace, worst_items(ranked, "tasks", 1), reviewer="![](http://evil.example/x.png)", source=ranked.id)
    for way in (*DEFAULT_EDIT_METHODS, "steps"):
        make_edit(workspace, way)
    settings = CurveSettings(shares=(0.0, 0.4), seeds=2)
    curve(workspace, ranked, settings, replace(CURVE_FINETUNE, iterations=2), COMPUTE, Progress())


@pytest.fixture(scope="session", autouse=True)
def _components_found_once() -> Iterator[None]:
    """Have Streamlit scan the installed packages for components once, not for every page that is run: a second each."""
    found = manifest_scanner.scan_component_manifests()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(manifest_scanner, "scan_component_manifests", lambda *args, **kwargs: found)
        yield


@pytest.fixture(scope="session")
def bare(make_once: MakeOnce) -> Path:
    return make_once("bare", make_bare) / "tiny"


@pytest.fixture(scope="session")
def computed(make_once: MakeOnce) -> Path:
    return make_once("computed", make_computed) / "tiny"


def make_demos(folder: Path) -> None:
    """The demos without their precomputed runs: tests have workspaces of their own, and every test copies this."""
    for name in DEMOS:
        shutil.rmtree(open_demo(name, folder).runs.folder, ignore_errors=True)


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, make_once: MakeOnce) -> Path:
    """A home with the demos, which the first page of a new one would make."""
    shutil.copytree(make_once("demos", make_demos), tmp_path / "home")
    monkeypatch.setenv(HOME_VARIABLE, str(tmp_path / "home"))
    return tmp_path / "home"


@pytest.fixture
def show(home: Path, tmp_path: Path) -> Open:
    """``show(page)`` runs a page as ``app.py`` does, on the workspace ``tiny`` of the home."""

    def run(page: str) -> AppTest:
        script = tmp_path / f"run_{page}.py"
        script.write_text(f"import runpy\nrunpy.run_path({str(ROOT / 'pages' / f'{page}.py')!r})\n")
        test = AppTest.from_file(str(script), default_timeout=60)
        test.query_params["workspace"] = "tiny"
        return run_again(test)

    return run


@pytest.fixture
def empty(home: Path, bare: Path) -> Workspace:
    shutil.copytree(bare, home / "tiny")
    return Workspace(home / "tiny")


@pytest.fixture
def full(home: Path, computed: Path) -> Workspace:
    shutil.copytree(computed, home / "tiny")
    return Workspace(home / "tiny")


@pytest.fixture
def started(monkeypatch: pytest.MonkeyPatch) -> list[list[str]]:
    """Arguments of the jobs that a page would have started."""
    calls: list[list[str]] = []
    monkeypatch.setattr(Jobs, "start", lambda self, title, args: calls.append(list(args)))
    return calls


def run_again(test: AppTest) -> AppTest:
    test.run()
    assert not test.exception, test.exception
    assert not bugs(test), bugs(test)
    return test


def bugs(test: AppTest) -> list[str]:
    """The unexpected exceptions that the page shows."""
    return [element.value for element in test.error if element.icon == BUG_ICON]


def click(test: AppTest, key: str) -> AppTest:
    test.button(key=key).click()
    return run_again(test)


def words(test: AppTest) -> str:
    """Everything the page says in sentences, as it is shown: without the escapes."""
    kinds: Sequence[Any] = (test.markdown, test.caption, test.info, test.success, test.error)
    text = "\n".join(str(element.value) for kind in kinds for element in kind)
    return re.sub(r"\\(.)", r"\1", text.replace(SEPARATOR, ""))


def settle(test: AppTest) -> AppTest:
    """Run the page again until the calls in processes of their own that it shows have ended."""
    deadline = time.monotonic() + 90
    while any(button.key and button.key.startswith("cancel-") for button in test.button):
        assert time.monotonic() < deadline
        time.sleep(0.05)
        run_again(test)
    return test
