"""The start of the server: what is checked, which address is printed, and the browser."""

from __future__ import annotations

import asyncio
import os
import sys
import tempfile
import webbrowser
from collections.abc import AsyncIterator, Iterator
from contextlib import ExitStack, asynccontextmanager, contextmanager
from functools import partial
from html import escape
from pathlib import Path
from threading import Thread
from typing import Any
from urllib.parse import urlencode

from starlette.middleware import Middleware
from streamlit import config
from streamlit.web.server.server_util import get_url

from core.runtime.access import LOCAL_HOSTS, TOKEN_PARAMETER, TOKEN_VARIABLE, WILDCARDS
from core.runtime.errors import UserError
from core.runtime.roots import ROOTS_VARIABLE, restrict
from core.ui.server.login_settings import is_login_configured
from core.ui.server.middleware import AccessGuard, SecurityHeaders
from core.ui.server.pages import page_routes
from core.ui.server.rules import check_start, is_loopback
from core.ui.shell.guard import report_script_error

SCRIPT = Path(__file__).resolve().parents[1] / "entry" / "dashboard.py"
"""The script that draws every page, in a folder of its own: Streamlit puts that first on the import path."""
_WRONG_USE = 2
_BROWSER_SECONDS = 60
"""How long a browser may take to read the file that it is given."""


def app_options() -> dict[str, Any]:
    """Return the arguments of ``App`` beside the script; exit with a sentence if the server would be open to anybody.

    Takes the token out of the environment, so that jobs do not inherit it, and restricts the paths that may be read to
    the home and working folder unless ``TASKLENS_ROOTS`` names others.
    """
    token = os.environ.pop(TOKEN_VARIABLE, "")
    try:
        check_start(config.get_option("server.address"), token)
        given = os.environ.get(ROOTS_VARIABLE)  # as people write them: with links, or relative
        restrict([Path.home(), Path.cwd()] if given is None else map(Path, filter(None, given.split(os.pathsep))))
    except UserError as error:
        print(error, file=sys.stderr)
        raise SystemExit(_WRONG_USE) from None
    path = config.get_option("server.baseUrlPath").strip("/")
    base_path = f"/{path}" if path else ""
    return {
        "routes": page_routes(base_path),
        "middleware": [Middleware(SecurityHeaders), Middleware(AccessGuard, token=token, base_path=base_path)],
        "lifespan": partial(_announce, token),
        "on_script_error": report_script_error,
    }


def addresses(token: str) -> list[str]:
    """Return the addresses that open the dashboard, the local one first.

    They name 127.0.0.1, not localhost: that can also mean ::1, where another user's server could receive the token.
    """
    address = config.get_option("server.address") or ""
    names = [name for name in config.get_option("server.allowedHosts") if name not in LOCAL_HOSTS and "*" not in name]
    own = "127.0.0.1" if address in (*WILDCARDS, "localhost") else address
    hosts = [own] if is_loopback(address) else dict.fromkeys([own, *names])
    query = f"?{urlencode({TOKEN_PARAMETER: token})}" if token else ""
    return [f"{get_url(f'[{host}]' if ':' in host else host)}/{query}" for host in hosts]


@asynccontextmanager
async def _announce(token: str, _: object) -> AsyncIterator[None]:
    """Print the addresses and open the browser once the server listens."""
    urls = addresses("" if is_login_configured() else token)
    print("", "TaskLens runs at", *urls, "Stop it with Ctrl-C.", sep="\n  ", end="\n\n", flush=True)
    with ExitStack() as files:
        if not config.get_option("server.headless"):
            page = files.enter_context(redirect_file(urls[0]))
            Thread(target=webbrowser.open, args=[page], daemon=True).start()
            asyncio.get_running_loop().call_later(_BROWSER_SECONDS, files.close)
        yield


@contextmanager
def redirect_file(url: str) -> Iterator[str]:
    """Yield the address of a file that leads to ``url``: unlike a browser's arguments, only its owner can read it."""
    home = Path.home()  # Firefox and Chromium as Snap packages read neither /tmp nor hidden folders
    folder = home if os.access(home, os.W_OK) else None
    with tempfile.TemporaryDirectory(prefix="tasklens-", dir=folder) as private:  # mode 700
        page = Path(private) / "open.html"
        page.write_text(f'<!DOCTYPE html><meta http-equiv="refresh" content="0; url={escape(url)}">', encoding="utf-8")
        yield page.as_uri()
