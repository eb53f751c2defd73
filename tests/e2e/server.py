"""A dashboard server as a process of its own, for the browser tests and for benchmarks/ui.py."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from dataclasses import dataclass
from pathlib import Path

from core.runtime.roots import ROOTS_VARIABLE
from tests.needs import data_folder

ROOT = Path(__file__).resolve().parents[2]
_ROOTS = os.pathsep.join(str(folder.resolve()) for folder in (ROOT, Path(tempfile.gettempdir()), data_folder()))
"""What the dashboard may read: the data of the tests lie in temporary folders, real data sets in their own."""
_START_S = 60.0


@dataclass(frozen=True)
class Server:
    """A running Streamlit server; ``log`` is what it says."""

    url: str
    log: Path
    process: subprocess.Popen[bytes]

    def stop(self) -> None:
        """End the server and whatever it started (its own process group)."""
        for how in (signal.SIGTERM, signal.SIGKILL):
            try:
                os.killpg(self.process.pid, how)
                self.process.wait(timeout=5)
            except ProcessLookupError:
                break
            except subprocess.TimeoutExpired:
                continue
        self.process.wait(timeout=5)


def start_server(
    script: str | Path, folder: Path, env: dict[str, str] | None = None, args: tuple[str, ...] = (), port: int = 0
) -> Server:
    """Start ``streamlit run script`` on ``port`` (0: a free one), its log in ``folder``, and wait until it answers.

    Raises:
        RuntimeError: it did not start; the message is its log.
    """
    port = port or _free_port()
    url = f"http://127.0.0.1:{port}"
    log = folder / f"{Path(script).stem}-{port}.log"
    command = [sys.executable, "-m", "streamlit", "run", str(script)]
    command += ["--server.port", str(port), "--server.address", "127.0.0.1"]
    command += ["--server.headless", "true", "--server.fileWatcherType", "none"]
    command += ["--browser.gatherUsageStats", "false", *args]
    with log.open("wb") as sink:
        process = subprocess.Popen(
            command,
            cwd=ROOT,
            env={**os.environ, "PYTHONPATH": str(ROOT), ROOTS_VARIABLE: _ROOTS, **(env or {})},
            stdin=subprocess.DEVNULL,
            stdout=sink,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    server, deadline = Server(url, log, process), time.monotonic() + _START_S
    while not _healthy(url):
        if process.poll() is not None or time.monotonic() > deadline:
            server.stop()
            raise RuntimeError(f"{script} did not start.\n{log.read_text(errors='replace')}")
        time.sleep(0.1)
    return server


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _healthy(url: str) -> bool:
    try:
        with urllib.request.urlopen(f"{url}/_stcore/health", timeout=2) as answer:
            return bool(answer.status == 200)
    except (urllib.error.URLError, OSError):
        return False
