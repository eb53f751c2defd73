"""Finding a Chromium for the browser tests."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

NO_CHROMIUM = (
    "The browser tests need Chromium: install it (Debian: apt-get install chromium; elsewhere: "
    "python -m playwright install chromium) or set TASKLENS_CHROMIUM to its path."
)
CHROMIUM_ARGS = (
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)


def chromium_path() -> str | None:
    """Path of a Chromium, or None: TASKLENS_CHROMIUM, one on the PATH, then Playwright's own."""
    wanted = os.environ.get("TASKLENS_CHROMIUM")
    if wanted:
        return shutil.which(wanted)
    for name in ("chromium", "chromium-browser", "google-chrome"):
        if found := shutil.which(name):
            return found
    caches = [Path.home() / ".cache/ms-playwright", Path.home() / "Library/Caches/ms-playwright"]
    if os.environ.get("PLAYWRIGHT_BROWSERS_PATH"):
        caches.insert(0, Path(os.environ["PLAYWRIGHT_BROWSERS_PATH"]))
    names = ("chrome", "headless_shell", "chrome-headless-shell", "Chromium", "Google Chrome for Testing")
    for cache in caches:
        for folder in sorted(cache.glob("chromium*-*"), reverse=True):
            for file in sorted(folder.rglob("*")):
                if file.name in names and file.is_file() and os.access(file, os.X_OK):
                    return str(file)
    return None
