"""The command that starts the dashboard."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Annotated

from typer import Option

from core.runtime.access import LOCAL_HOSTS, TOKEN_VARIABLE, WILDCARDS, stored_token
from core.runtime.errors import UserError
from core.runtime.files import home
from core.runtime.roots import restrict

_APP = Path(__file__).resolve().parents[2] / "app.py"
TOKEN_FILE = ".dashboard-token"
"""In the home of TaskLens; deleted, the next start makes another token."""


def dashboard(
    port: Annotated[int | None, Option(min=1, max=65535, help="Port; default: the first free one from 8501.")] = None,
    address: Annotated[str, Option(help="Address to listen on; 0.0.0.0: all of this machine.")] = "127.0.0.1",
    root: Annotated[
        list[Path] | None,
        Option(
            metavar="FOLDER",
            help="Folder below which the dashboard may read; repeat for several. Default: your home folder and the "
            "working folder.",
        ),
    ] = None,
    token: Annotated[bool, Option(help="Require the secret in the printed address.")] = True,
    open_: Annotated[bool, Option("--open/--no-open", help="Open the browser.")] = True,
    allowed_host: Annotated[
        list[str] | None,
        Option(
            metavar="NAME",
            help="Name under which a browser on another machine, or a reverse proxy, reaches the dashboard; repeat for "
            "several.",
        ),
    ] = None,
) -> None:
    """Start the dashboard and open it in the browser.

    Prints an address with a secret token; without it, nobody can use the dashboard. A login (docs/security.md) replaces
    the token.
    """
    folders = root or [Path.home(), Path.cwd()]
    for folder in folders:
        if not folder.is_dir():
            raise UserError(f"--root {folder} is not a folder.", "Name an existing folder.")
    restrict(folders)
    if token:  # in the environment, as other users of the machine can read arguments
        os.environ.setdefault(TOKEN_VARIABLE, stored_token(home() / TOKEN_FILE))
    else:
        os.environ.pop(TOKEN_VARIABLE, None)
    bound = [] if address in WILDCARDS else [address]
    hosts = dict.fromkeys([*LOCAL_HOSTS, *bound, *(allowed_host or ())])
    options = [f"--server.address={address}", *(f"--server.allowedHosts={host}" for host in hosts)]
    options += [f"--server.port={port}"] if port else []
    options += [] if open_ else ["--server.headless=true"]
    sys.stdout.flush()
    # -P: no module is imported from the working folder, which may hold other people's data.
    os.execv(sys.executable, [sys.executable, "-P", "-m", "streamlit", "run", str(_APP), *options])
