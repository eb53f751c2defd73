"""Show what went wrong where it happens: every page, fragment, dialog, callback and thread runs inside this guard.

Streamlit calls a fragment that reruns by itself, and the callback of a widget, outside the page that drew them; an
exception there would pass by everything that the page catches. So the guard is inside each of them:

======================== =============================================================================================
code                     guard
======================== =============================================================================================
a page                   :func:`core.ui.shell.context.page`, which uses :func:`page_body`
a part of a page         ``with report_errors("The queue"):``
a fragment               ``@fragment("The queue", run_every=2.0)`` instead of ``@st.fragment``
a dialog                 ``@dialog("Image")`` instead of ``@st.dialog``
a callback of a widget   ``on_click=guarded(use, "Clear filters")``; ``on_change=ignore`` where there is nothing to do
data of a download       ``st.download_button("Download", guarded_data(read, "The download"))``
a thread                 :class:`core.ui.shell.background.Worker`
what none of them caught :func:`report_script_error`, for ``st.App(on_script_error=...)``
======================== =============================================================================================

A :class:`UserError` is shown with what to do. Any other exception is a bug: the page names the part that failed and the
exception, and the server's log has the traceback under the id that the page shows. ``st.rerun`` and ``st.stop`` raise a
BaseException and pass.
"""

from __future__ import annotations

import hashlib
import logging
import threading
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from functools import wraps
from typing import Any, Literal, ParamSpec, TypeVar

import streamlit as st
from cachetools import TTLCache
from streamlit.errors import StreamlitAPIException
from streamlit.runtime.scriptrunner import RerunException

from core.runtime.disk_errors import disk_error
from core.runtime.errors import UserError, shorten_middle, text_of
from core.ui.shell.text import plain, shorten

ERROR_ICON, BUG_ICON = "⚠️", "🛑"
REPEATED = "Not available: see the error message on this page."
"""Stands where an error would be shown that the page shows already."""
_MAX_EXCEPTION_LENGTH = 200
_MAX_TRACEBACK_LENGTH = 20_000
"""Characters in the log; the message of an error may quote a whole file."""
_LOGGED_AGAIN_SECONDS = 600.0
"""How long the same bug is not logged again: a fragment may run into it every second."""
_MAX_CAUSES = 10  # a chain of causes may be a circle
_REPORTS, _SHOWN = "_guard_reports", "_guard_shown"
_PAGE = ""
"""The owner of what is drawn outside fragments."""

_LOG = logging.getLogger(__name__)
_logged: TTLCache[str, None] = TTLCache(256, _LOGGED_AGAIN_SECONDS)
_lock = threading.Lock()
_owner: ContextVar[str] = ContextVar("owner", default=_PAGE)

P = ParamSpec("P")
T = TypeVar("T")


class BugError(UserError):
    """An unexpected exception in words; its traceback is in the server's log under ``id``."""

    def __init__(self, error: BaseException, title: str) -> None:
        text = shorten_middle("".join(traceback.format_exception(error)), _MAX_TRACEBACK_LENGTH)
        self.id = hashlib.blake2b(text.encode("utf-8", "replace"), digest_size=4).hexdigest()
        first_line = next(iter(text_of(error).strip().splitlines()), "")
        words = ": ".join(filter(None, (type(error).__name__, shorten(first_line, _MAX_EXCEPTION_LENGTH))))
        super().__init__(
            f"{title} stopped because of a bug in TaskLens ({words}).",
            f"Reload the page. If it happens again, report it with the server's log, which has the details under the "
            f"id {self.id}.",
        )
        with _lock:
            is_new = self.id not in _logged
            _logged[self.id] = None
        if is_new:
            _LOG.error("Bug %s: %s stopped.\n%s", self.id, title, text)


@dataclass
class _Report:
    """An error of a callback, which waits for the next page; ``is_drawn`` says that a run has drawn it."""

    error: UserError
    is_drawn: bool = False


def explain(error: BaseException, title: str) -> UserError:
    """Return an exception as sentences: a UserError as it is, else a :class:`BugError` of the part ``title``.

    An error of the operating system, such as too many open files, is no bug.
    """
    cause: BaseException | None = error
    for _ in range(_MAX_CAUSES):  # Streamlit wraps what the hash functions of its caches raise
        if isinstance(cause, StreamlitAPIException):
            cause = cause.__cause__ or cause.__context__
    if isinstance(cause, OSError) and cause.errno is not None:
        return disk_error(cause)
    return cause if isinstance(cause, UserError) else BugError(error, title)


def show_error(error: UserError) -> None:
    """Show an error with what to do; once per page, whichever of its parts run into it."""
    shown: dict[str, str] = st.session_state.setdefault(_SHOWN, {})
    text = "  \n".join(plain(part) for part in (error.what, error.fix) if part)
    if text in shown:
        st.caption(REPEATED)
        return
    shown[text] = _owner.get()
    st.error(text, icon=BUG_ICON if isinstance(error, BugError) else ERROR_ICON)


@contextmanager
def report_errors(title: str = "This part of the page") -> Iterator[None]:
    """Show an exception where it happens, and continue after it."""
    try:
        yield
    except Exception as error:
        show_error(explain(error, title))


def begin_page() -> None:
    """Forget which errors the page shows, as it is drawn again."""
    st.session_state[_SHOWN] = {}


@contextmanager
def page_body(title: str) -> Iterator[None]:
    """Show the errors of callbacks, then run the body of the page ``title`` with :func:`report_errors`.

    A report remains for the next run if this one was interrupted, as nobody has read it then.
    """
    reports: list[_Report] = st.session_state.setdefault(_REPORTS, [])
    for report in reports:
        show_error(report.error)
        report.is_drawn = True
    try:
        with report_errors(f"The page {title}"):
            yield
    except RerunException:
        raise
    except BaseException:
        _drop_drawn()
        raise
    else:
        _drop_drawn()


def _drop_drawn() -> None:
    reports: list[_Report] = st.session_state.setdefault(_REPORTS, [])
    reports[:] = [report for report in reports if not report.is_drawn]  # in place: threads of downloads add to it


def call(function: Callable[..., T], args: tuple[Any, ...], kwargs: dict[str, Any]) -> T:
    """Call a guarded fragment, dialog, callback or function of a thread. Tests replace it to inject errors."""
    return function(*args, **kwargs)


def _inside(function: Callable[P, None], title: str) -> Callable[P, None]:
    """Return a function with the guard inside, for Streamlit to call by itself."""
    name = f"{function.__module__}.{function.__qualname__}"

    @wraps(function)
    def run(*args: P.args, **kwargs: P.kwargs) -> None:
        if any(not report.is_drawn for report in st.session_state.get(_REPORTS, [])):
            st.rerun()  # of a callback inside the fragment: only a run of the page can show it at the top
        shown: dict[str, str] = st.session_state.get(_SHOWN, {})
        st.session_state[_SHOWN] = {text: owner for text, owner in shown.items() if owner != name}
        token = _owner.set(name)
        try:
            with report_errors(title):
                call(function, args, kwargs)
        finally:
            _owner.reset(token)

    return run


def fragment(title: str, *, run_every: float | None = None) -> Callable[[Callable[P, None]], Callable[P, None]]:
    """Return a decorator as ``st.fragment``, with the guard inside.

    Args:
        title: The part as the subject of a sentence: "The review grid".
        run_every: Seconds between two runs; None: it runs only after events of its widgets.
    """

    def decorate(function: Callable[P, None]) -> Callable[P, None]:
        return st.fragment(_inside(function, title), run_every=run_every)

    return decorate


def dialog(
    title: str, *, width: Literal["small", "medium", "large"] = "small"
) -> Callable[[Callable[P, None]], Callable[P, None]]:
    """Return a decorator as ``st.dialog``, with the guard inside."""

    def decorate(function: Callable[P, None]) -> Callable[P, None]:
        return st.dialog(title, width=width)(_inside(function, f"The dialog {title}"))

    return decorate


def guarded(callback: Callable[P, object], title: str) -> Callable[P, None]:
    """Return a callback of a widget whose error is shown at the top of the page that is drawn next.

    Args:
        title: What the callback does, as the subject of a sentence: "Clear filters".
    """

    @wraps(callback)
    def run(*args: P.args, **kwargs: P.kwargs) -> None:
        try:
            call(callback, args, kwargs)
        except Exception as error:
            st.session_state.setdefault(_REPORTS, []).append(_Report(explain(error, title)))

    return run


def guarded_data(data: Callable[[], T], title: str) -> Callable[[], T]:
    """Return a function that makes the data of a download button when it is clicked.

    Streamlit calls it in a thread, and of an error the browser says only that the download failed. So the error is
    also shown at the top of the page that is drawn next.

    Args:
        title: What is downloaded, as the subject of a sentence: "The download of the table".
    """
    reports: list[_Report] = st.session_state.setdefault(_REPORTS, [])

    def run() -> T:
        try:
            return call(data, (), {})
        except Exception as error:
            found = explain(error, title)
            if all(str(report.error) != str(found) for report in reports):
                reports.append(_Report(found))
            raise found from None  # a bug is in the server's log already

    return run


def ignore() -> None:
    """Do nothing: Streamlit reports the value of a component only where there is a callback for it."""


def in_thread(function: Callable[P, T], title: str) -> Callable[P, T]:
    """Return a function for a thread; whatever it raises is a UserError, and a bug is logged.

    That includes SystemExit and KeyboardInterrupt, which Python itself raises in no thread of ours: those who wait for
    a result would wait for ever.
    """

    @wraps(function)
    def run(*args: P.args, **kwargs: P.kwargs) -> T:
        try:
            return call(function, args, kwargs)
        except BaseException as error:
            raise explain(error, title) from error

    return run


def report_script_error(error: Exception) -> bool:
    """Show an exception that no other guard caught, for ``st.App(on_script_error=...)``.

    Returns True, so that Streamlit does not show it again.
    """
    show_error(explain(error, "The page"))
    return True
