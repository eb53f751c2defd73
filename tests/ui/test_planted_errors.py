"""Errors planted in every fragment, dialog, page, callback and thread: each is shown where it happens, in words."""

from __future__ import annotations

import ast
import logging
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any, NoReturn

import pytest
from streamlit.errors import StreamlitAPIException
from streamlit.testing.v1 import AppTest

import core.ui.load.training
import core.ui.shell.jobs
import core.ui.trust.evidence_panel
from core.runtime.errors import Cancelled, UserError
from core.ui.shell import guard
from core.ui.shell.background import BackgroundCache, Worker
from core.ui.shell.guard import BUG_ICON, ERROR_ICON, REPEATED, BugError
from core.ui.shell.navigation import TITLES
from core.workspace.workspace import Workspace
from tests.test_rules import PRODUCT, ROOT, tree
from tests.ui.conftest import Open, words
from tests.ui.queue_fixture import write_queue

PLANTED = UserError("The log was planted.", "Pull it out.")
BUG = RuntimeError("planted bug\nwith a second line")
ERRORS = pytest.mark.parametrize("error", [PLANTED, BUG], ids=["user error", "bug"])
UI = [path for path in PRODUCT if path.is_relative_to(ROOT / "core" / "ui") or path.parent in (ROOT, ROOT / "pages")]
GUARD, BACKGROUND = (ROOT / "core" / "ui" / "shell" / name for name in ("guard.py", "background.py"))
START = ROOT / "core" / "ui" / "server" / "start.py"
"""Its thread opens the browser, before there is any page."""


@pytest.fixture(autouse=True)
def _bugs_are_expected(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tests.ui.conftest.bugs", lambda test: [])


def is_shown(test: AppTest, error: Exception) -> bool:
    """Whether the page shows the error once, in words, and nothing of its traceback."""
    if test.exception:
        return False
    boxes = [(box.icon, box.value) for box in test.error]
    if isinstance(error, UserError):
        return len(boxes) == 1 and boxes[0][0] == ERROR_ICON and error.what in words(test) and error.fix in words(test)
    shown = [value for icon, value in boxes if icon == BUG_ICON]
    return len(boxes) == len(shown) == 1 and "planted bug" in shown[0] and "second line" not in shown[0]


@pytest.fixture
def plant(monkeypatch: pytest.MonkeyPatch) -> Callable[[str, Exception], None]:
    """``plant(name, error)``: the guarded function of this name raises the error."""

    def planted(name: str, error: Exception) -> None:
        real = guard.call

        def call(function: Callable[..., Any], args: Any, kwargs: Any) -> Any:
            if (
                function.__qualname__ == name.rpartition(":")[2]
                and name.partition(":")[0] in function.__code__.co_filename
            ):
                raise error
            return real(function, args, kwargs)

        monkeypatch.setattr(guard, "call", call)

    return planted


# Every fragment and dialog


def _guarded_functions() -> Iterator[str]:
    """``path:function`` of every fragment and dialog of the source."""
    for path in UI:
        for node in ast.walk(tree(path)):
            if isinstance(node, ast.FunctionDef):
                for decorator in node.decorator_list:
                    if isinstance(decorator, ast.Call) and ast.unparse(decorator.func) in ("fragment", "dialog"):
                        yield f"{path.relative_to(ROOT)}:{node.name}"
            elif isinstance(node, ast.Call) and isinstance(node.func, ast.Call):
                is_decorated = ast.unparse(node.func.func) in ("fragment", "dialog")
                if is_decorated:
                    yield f"{path.relative_to(ROOT)}:{ast.unparse(node.args[0])}"


FOUND = sorted(set(_guarded_functions()))


class _Endless(Future[float]):
    """A computation that does not end."""


def _review(show: Open, full: Workspace, patch: pytest.MonkeyPatch) -> AppTest:
    write_queue(full)
    return show("review")


def _forecast(show: Open, full: Workspace, patch: pytest.MonkeyPatch) -> AppTest:
    write_queue(full, planted=True)
    page = show("review")
    page.session_state["review_open_forecast"] = True
    return page.run()


def _job(show: Open, full: Workspace, patch: pytest.MonkeyPatch) -> AppTest:
    patch.setattr(core.ui.shell.jobs, "is_running", lambda *_: True)
    return show("why")


def _curve(show: Open, full: Workspace, patch: pytest.MonkeyPatch) -> AppTest:
    patch.setattr(core.ui.load.training, "is_running", lambda *_: True)
    return _run("from core.ui.load.training import live_curve\nlive_curve()")


def _reading(show: Open, full: Workspace, patch: pytest.MonkeyPatch) -> AppTest:
    return _run("from core.ui.shell.isolated import _live\n_live('slot')")


def _timing(show: Open, full: Workspace, patch: pytest.MonkeyPatch) -> AppTest:
    patch.setattr(core.ui.trust.evidence_panel, "_seconds", lambda *_: _Endless())
    return show("trust")


def _image(show: Open, full: Workspace, patch: pytest.MonkeyPatch) -> AppTest:
    page = show("images")
    page.session_state["images_open"] = full.runs.all("rank")[0].table("images.parquet")["image_id"].iloc[0]
    return page.run()


def _run(body: str) -> AppTest:
    head = "import streamlit as st\nfrom core.ui.shell.context import free_page\nwith free_page('Any'):\n"
    lines = [f"    {line}\n" for line in [*body.splitlines(), "st.caption('the rest')"]]
    return AppTest.from_string(head + "".join(lines), default_timeout=60).run()


SCENES: dict[str, Callable[[Open, Workspace, pytest.MonkeyPatch], AppTest]] = {
    "core/ui/load/training.py:_live": _curve,
    "core/ui/review/live.py:live_grid": _review,
    "core/ui/review/queue_panel.py:_forecast": _forecast,
    "core/ui/shell/isolated.py:_live": _reading,
    "core/ui/shell/jobs.py:_live": _job,
    "core/ui/trust/evidence_panel.py:_wait_for_timing": _timing,
    "pages/images.py:details": _image,
}


def test_there_is_a_scene_for_each() -> None:
    assert sorted(SCENES) == FOUND


@ERRORS
@pytest.mark.parametrize("name", FOUND)
def test_an_error_in_a_fragment_is_shown(
    name: str,
    error: Exception,
    show: Open,
    full: Workspace,
    plant: Callable[[str, Exception], None],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    plant(name, error)
    page = SCENES[name](show, full, monkeypatch)
    assert is_shown(page, error)
    assert page.title


# Every page

BODY = dict.fromkeys(TITLES, "core.ui.shell.command.command_block") | {
    "load": "core.ui.load.images.images_step",
    "experiments": "core.ui.experiments.panel.experiment_panel",
    "tasks": "core.ui.ranking.panel.require_ranking",
    "images": "core.ui.ranking.panel.require_ranking",
}
"""A function that the body of each page calls."""


@ERRORS
@pytest.mark.parametrize("name", TITLES)
def test_an_error_in_a_page_is_shown(
    name: str,
    error: Exception,
    home: Path,
    show: Open,
    full: Workspace,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    def fail(*args: Any, **kwargs: Any) -> NoReturn:
        raise error

    monkeypatch.setattr(BODY[name], fail)
    page = show(name)
    assert is_shown(page, error)
    assert page.title[0].value == TITLES[name]


@ERRORS
def test_an_error_in_the_sidebar_or_the_workspace_is_shown(
    error: Exception, show: Open, full: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*args: Any) -> NoReturn:
        raise error

    monkeypatch.setattr("core.ui.shell.context.load_project", fail)
    page = show("tasks")
    assert is_shown(page, error)
    assert page.sidebar.selectbox


# Callbacks

CALLBACK = """
from core.runtime.errors import UserError
from core.ui.shell.guard import guarded
def fail():
    raise {error}
{draw}
"""


@pytest.mark.parametrize(
    "draw",
    [
        "st.button('press', key='press', on_click=guarded(fail, 'Press'))",
        "st.checkbox('press', key='press', on_change=guarded(fail, 'Press'))",
        "from core.ui.shell.guard import fragment\n@fragment('Part')\ndef part():\n"
        "    st.button('press', key='press', on_click=guarded(fail, 'Press'))\npart()",
        # A page that runs again at once: nobody has read the message of the first run.
        "pressed = st.button('press', key='press', on_click=guarded(fail, 'Press'))\nif pressed:\n    st.rerun()",
    ],
    ids=["click", "change", "in a fragment", "a page that reruns"],
)
@ERRORS
def test_an_error_in_a_callback_is_shown_by_the_next_page_once(draw: str, error: Exception, home: Path) -> None:
    raised = "UserError('The log was planted.', 'Pull it out.')" if error is PLANTED else "RuntimeError('planted bug')"
    page = _run(CALLBACK.format(error=raised, draw=draw))
    assert not page.error
    (page.checkbox(key="press").check() if page.checkbox else page.button(key="press").click()).run()
    assert is_shown(page, error)
    assert "the rest" in words(page)
    assert not page.run().error


def test_a_callback_of_a_page_is_guarded(show: Open, full: Workspace, plant: Callable[[str, Exception], None]) -> None:
    write_queue(full)
    page = show("review")
    plant("core/ui/review/live.py:reapply_filters", PLANTED)
    next(button for button in page.button if button.label == "Reapply filters").click().run()
    assert is_shown(page, PLANTED)


# What the guard itself promises


def test_the_same_error_is_shown_once_per_page(home: Path) -> None:
    page = _run(
        "from core.runtime.errors import UserError\nfrom core.ui.shell.guard import report_errors\n"
        "for i in range(3):\n    with report_errors():\n        raise UserError('The log was planted.', 'Pull it out.')"
    )
    assert is_shown(page, PLANTED)
    assert [caption.value for caption in page.caption].count(REPEATED) == 2


def test_an_error_is_gone_when_it_works_again(
    show: Open, full: Workspace, plant: Callable[[str, Exception], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    real = guard.call
    plant("core/ui/review/live.py:live_grid", PLANTED)
    page = _review(show, full, monkeypatch)
    monkeypatch.setattr(guard, "call", real)
    assert not page.run().error


def test_the_log_has_the_traceback_once_under_the_id_on_the_page(caplog: pytest.LogCaptureFixture) -> None:
    def fail() -> NoReturn:
        raise KeyError("x" * 5000)

    found = []
    with caplog.at_level(logging.ERROR, guard.__name__):
        for _ in range(2):  # from one line, so that it is the same bug
            try:
                fail()
            except KeyError as error:
                found.append(guard.explain(error, "The part"))
    (record,) = [one for one in caplog.records if one.name == guard.__name__]
    assert isinstance(found[0], BugError)
    assert found[0].id == found[1].id in found[0].fix  # type: ignore[attr-defined]
    assert found[0].id in record.getMessage()
    assert "Traceback" in record.getMessage()
    assert len(str(found[0])) < 600


class _Unprintable(Exception):
    def __str__(self) -> str:
        raise RuntimeError("no text")


class _NoText(Exception):
    def __str__(self) -> str:
        return 5  # type: ignore[return-value]


def _circle() -> Exception:
    error = StreamlitAPIException("in a circle")
    error.__cause__ = error
    return error


@pytest.mark.parametrize(
    "error",
    [_Unprintable(), _NoText(), _circle(), OSError("code", "text"), OSError(10**30, "text"), OSError(-1, "text")],
    ids=["unprintable", "no text", "circle", "text as code", "huge code", "negative code"],
)
def test_any_exception_is_explained(error: Exception) -> None:
    assert "The part" in str(guard.explain(error, "The part")) or isinstance(error, OSError)


def test_a_long_message_is_shortened_in_the_log(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.ERROR, guard.__name__):
        guard.explain(ValueError("x\n" * 1_000_000), "The part")
    assert max(len(one.getMessage()) for one in caplog.records) < 30_000


def test_a_user_error_in_the_key_of_a_cache_is_a_user_error(home: Path) -> None:
    page = _run(
        "from core.runtime.errors import UserError\nfrom core.ui.shell.guard import report_errors\n"
        "def fail(one):\n    raise UserError('The log was planted.', 'Pull it out.')\n"
        "class Key: ...\n"
        "@st.cache_resource(hash_funcs={Key: fail})\ndef read(key):\n    return 1\n"
        "with report_errors():\n    read(Key())"
    )
    assert is_shown(page, PLANTED)


@ERRORS
def test_the_last_net_shows_an_error(error: Exception, home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    name = "PLANTED" if error is PLANTED else "BUG"
    page = _run(
        "from core.ui.shell.guard import report_script_error\n"
        f"from tests.ui.test_planted_errors import {name}\nassert report_script_error({name})"
    )
    assert is_shown(page, error)


# Threads


@ERRORS
def test_an_error_in_a_thread_is_a_user_error(error: Exception) -> None:
    def fail() -> NoReturn:
        raise error

    found = Worker("planted", "The computation").submit(fail).exception()
    assert isinstance(found, UserError)
    assert isinstance(found, BugError) == (error is BUG)


@pytest.mark.parametrize("error", [SystemExit(3), KeyboardInterrupt(), Cancelled(), _Unprintable()], ids=repr)
def test_nobody_waits_for_a_thread_that_gave_up(error: BaseException) -> None:
    def fail() -> NoReturn:
        raise error

    assert isinstance(Worker("planted", "The computation").submit(fail).exception(timeout=10), UserError)
    cache: BackgroundCache[int, str] = BackgroundCache("planted", "The lines", lambda _: "failed")
    until = time.monotonic() + 10
    while cache.get(1, fail) is None and time.monotonic() < until:
        time.sleep(0.01)
    assert cache.get(1, fail) == "failed"


@ERRORS
def test_a_background_cache_gives_the_error_its_own_value(error: Exception) -> None:
    def fail() -> NoReturn:
        raise error

    failed: list[UserError] = []
    cache: BackgroundCache[int, str] = BackgroundCache(
        "planted", "The lines", lambda one: failed.append(one) or "failed"
    )
    while cache.get(1, fail) is None:
        pass
    assert cache.get(1, fail) == "failed"
    assert len(failed) == 1


@ERRORS
def test_a_forecast_that_fails_says_why(
    error: Exception,
    show: Open,
    full: Workspace,
    plant: Callable[[str, Exception], None],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    plant("core/ui/review/forecast.py:forecast_now", error)
    page = _forecast(show, full, monkeypatch)
    while any("Computing" in caption.value for caption in page.caption):
        page.run()
    assert is_shown(page, error)


def _download(kind: str) -> None:
    import streamlit as st

    from core.runtime.errors import UserError
    from core.ui.shell.context import free_page
    from core.ui.shell.guard import guarded_data

    def fail() -> bytes:
        raise {"user": UserError("There is no", "egg."), "bug": ValueError("of an egg")}[kind]

    with free_page("Anything"):
        st.session_state["data"] = guarded_data(fail, "The download")


@pytest.mark.parametrize("kind", ["user", "bug"])
def test_an_error_in_a_download_is_shown_by_the_next_page_once(kind: str, home: Path) -> None:
    page = AppTest.from_function(_download, kwargs={"kind": kind}, default_timeout=60).run()
    assert not page.error
    for _ in range(3):
        with ThreadPoolExecutor(1) as pool, pytest.raises(UserError):  # as Streamlit does, outside the session
            pool.submit(page.session_state["data"]).result()
    page.run()
    assert [error.icon for error in page.error] == [{"user": ERROR_ICON, "bug": BUG_ICON}[kind]]
    assert not page.caption
    assert not page.run().error


# Rules of the source

THREADS = {"Thread", "Timer", "ThreadPoolExecutor", "ProcessPoolExecutor"}
UNGUARDED = {"ignore", "report_script_error", "st.login", "st.logout"}
"""The guard's own functions, and Streamlit's."""


@pytest.mark.parametrize("path", UI, ids=lambda path: str(path.relative_to(ROOT)))
def test_all_code_that_streamlit_calls_by_itself_goes_by_the_guard(path: Path) -> None:
    wrong = partial("{}:{}".format, path.relative_to(ROOT))
    guilty = []
    for node in ast.walk(tree(path)):
        name = ast.unparse(node) if isinstance(node, ast.Attribute | ast.Name) else ""
        if path != GUARD and name in ("st.fragment", "st.experimental_fragment", "st.dialog"):
            guilty.append(wrong(node.lineno))
        if path not in (BACKGROUND, START) and name.split(".")[-1] in THREADS:
            guilty.append(wrong(node.lineno))
        if not isinstance(node, ast.Call):
            continue
        for keyword in node.keywords:
            value = keyword.value
            if not (keyword.arg or "").startswith("on_") or isinstance(value, ast.Constant):
                continue
            is_guarded = isinstance(value, ast.Call) and ast.unparse(value.func) == "guarded"
            if not is_guarded and ast.unparse(value) not in UNGUARDED:
                guilty.append(wrong(node.lineno))
        if isinstance(node.func, ast.Attribute) and node.func.attr == "download_button":
            data = node.args[1]
            if not (isinstance(data, ast.Call) and ast.unparse(data.func) == "guarded_data"):
                guilty.append(wrong(node.lineno))
    assert guilty == []
