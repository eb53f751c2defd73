"""Finding a Chromium for the browser tests."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
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


def ensure() -> str:
    """Find a Chromium or get one: Debian's package where it may be installed, else Playwright's own download.

    Raises:
        SystemExit: neither could be had; the message says what to do.
    """
    if found := chromium_path():
        return found
    commands = []
    if shutil.which("apt-get"):
        sudo = [] if os.geteuid() == 0 else ["sudo", "-n"]
        commands += [[*sudo, "apt-get", "update", "-qq"], [*sudo, "apt-get", "install", "-y", "-qq", "chromium"]]
    commands.append([sys.executable, "-m", "playwright", "install", "chromium"])
    for command in commands:
        print("No Chromium here; trying:", " ".join(command), file=sys.stderr)
        try:
            subprocess.run(command, check=False, stdin=subprocess.DEVNULL)
        except OSError as error:
            print(error, file=sys.stderr)
        if found := chromium_path():
            return found
    raise SystemExit(NO_CHROMIUM)


if __name__ == "__main__":
    print("Chromium:", ensure(), file=sys.stderr)
