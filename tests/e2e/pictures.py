"""Pictures of every page, light and dark: ``python -m tests.e2e.pictures --home HOME --out docs/pictures``.

HOME holds workspaces in which something was done; ``--workspace page=NAME`` says which of them a page shows.
"""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Annotated

import typer
from playwright.sync_api import sync_playwright

from core.ui.shell.navigation import TITLES
from tests.e2e.browser import CHROMIUM_ARGS, chromium_path
from tests.e2e.server import ROOT, start_server

_SETTLED_MS = 2500


def main(
    home: Annotated[Path, typer.Option(help="Folder of workspaces.")],
    out: Annotated[Path, typer.Option(help="Where the pictures go.")] = ROOT / "docs" / "pictures",
    workspace: Annotated[list[str] | None, typer.Option(help="PAGE=WORKSPACE, for pages not of the demo.")] = None,
    only: Annotated[str, typer.Option(help="Pages, with commas; default: all.")] = "",
) -> None:
    of_page = dict(part.split("=") for part in workspace or [])
    server = start_server("app.py", Path(tempfile.mkdtemp()), {"TASKLENS_HOME": str(home.resolve())})
    try:
        with sync_playwright() as playwright:
            browser = playwright.chromium.launch(executable_path=chromium_path(), args=list(CHROMIUM_ARGS))
            for name in only.split(",") if only else TITLES:
                for scheme in ("light", "dark"):
                    context = browser.new_context(viewport={"width": 1400, "height": 1000}, color_scheme=scheme)
                    page = context.new_page()
                    page.set_default_timeout(60_000)
                    path = "" if name == "overview" else name  # the page at the root
                    page.goto(f"{server.url}/{path}?workspace={of_page.get(name, 'demo-noisy-tasks')}")
                    page.get_by_role("heading", level=1).wait_for()
                    page.locator("[data-testid=stStatusWidget]").wait_for(state="detached")
                    page.wait_for_timeout(_SETTLED_MS)
                    page.locator("[data-testid=stSpinner]").first.wait_for(state="detached")
                    page.locator("[data-testid=stSkeleton]").first.wait_for(state="detached")
                    page.wait_for_timeout(_SETTLED_MS)
                    page.screenshot(path=out / f"{name}-{scheme}.png")
                    context.close()
            browser.close()
    finally:
        server.stop()


if __name__ == "__main__":
    typer.run(main)
