"""What all tests share: one thread each, repeatable property tests, browser tests first, and folders made once."""

from __future__ import annotations

import fcntl
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import settings
from hypothesis.internal.conjecture import providers

from tests.properties import examples

os.environ.setdefault("OMP_NUM_THREADS", "1")
settings.register_profile("tasklens", examples(), deadline=None, derandomize=True)
settings.load_profile("tasklens")
if hasattr(providers, "_get_local_constants"):
    # Else one value in twenty is a constant of the modules imported so far: examples would depend on the tests before.
    providers._get_local_constants = lambda: providers._local_constants

BROWSER = Path(__file__).parent / "e2e"
MakeOnce = Callable[[str, Callable[[Path], None]], Path]


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Begin with the browser tests: one worker takes them all, on one server, while another does the rest."""
    items.sort(key=lambda item: BROWSER not in item.path.parents)


@pytest.fixture(scope="session")
def make_once(tmp_path_factory: pytest.TempPathFactory) -> MakeOnce:
    """``make_once(name, make)`` is a folder that ``make`` filled, once for all workers; tests must work on copies."""
    root = tmp_path_factory.getbasetemp()
    if "PYTEST_XDIST_WORKER" in os.environ:
        root = root.parent

    def folder(name: str, make: Callable[[Path], None]) -> Path:
        made, whole = root / f"once-{name}", root / f"once-{name}.whole"
        with (root / f"once-{name}.lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            if not whole.exists():
                shutil.rmtree(made, ignore_errors=True)
                made.mkdir()
                make(made)
                whole.touch()
        return made

    return folder
