"""Run commands on a read-only and on a really full file system, in a mount namespace of this process' own.

``unshare -rm python -m tests.faults.mounts JSON`` prints one JSON object per command.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tests.faults.python_faults import PythonFaults
from tests.faults.scenarios import SCENARIOS, W
from tests.faults.worker import faults_of, held, in_fork, make, run

ELSEWHERE = "ELSEWHERE"
"""Stands for a folder that can be written."""
READ = [
    ["rank", *W, "--method", "dot", "--device", "cpu"],
    ["review", "queue", *W, "--rounds", "1", "--no-calibrate", "--device", "cpu"],
    ["review", "show", *W],
    ["review", "log", *W],
    ["review", "conflicts", *W],
    ["review", "comments", *W],
    ["review", "snapshots", *W],
    ["review", "export", *W, "--out", f"{ELSEWHERE}/decisions"],
    ["review", "report", *W, "--out", f"{ELSEWHERE}/report.html"],
    ["export", *W, "--out", f"{ELSEWHERE}/cleaned"],
    ["sets", "list", *W],
    ["data", "--list"],
]
"""Commands that only read what is there; they must work."""
WRITE = ["decide", "import", "images", "tasks", "open", "queue", "rank", "sets save", "export"]
"""Commands that write; they must say why they cannot."""
ROOM = (0, 24, 96, 300)
"""Free space on the full disk, in kB."""


def mount(*args: str | Path) -> None:
    subprocess.run(["mount", *map(str, args)], check=True)


def read_only(base: Path, place: Path) -> Iterator[dict[str, Any]]:
    """Run every command on a read-only copy of ``base``."""
    elsewhere = place / "elsewhere"
    folder = place / "work"
    elsewhere.mkdir(parents=True)
    shutil.copytree(base, folder)
    mount("--bind", folder, folder)
    mount("-o", "remount,ro,bind", folder)
    for args in READ:
        outcome = run([one.replace(ELSEWHERE, str(elsewhere)) for one in args], folder, PythonFaults)
        yield {"args": args, "wrong": [] if outcome.code == 0 else [outcome.err[-500:]]}
    for name in WRITE:
        outcome = run([*SCENARIOS[name].args], folder, PythonFaults)
        is_explained = outcome.code == 2 and "Traceback" not in outcome.err and outcome.err.strip()
        yield {"args": name, "wrong": [] if is_explained else [f"{outcome.code} {outcome.err[-500:]}"]}


def full(base: Path, place: Path) -> Iterator[dict[str, Any]]:
    """Run every command that writes on a disk with too little room, then with enough."""
    folder = place / "full"
    folder.mkdir(parents=True)
    for name in WRITE:
        rows = []
        for room in (1 << 20, *ROOM):
            mount("-t", "tmpfs", "-o", "size=1g", "none", folder)
            shutil.copytree(base, folder, dirs_exist_ok=True)
            usage = shutil.disk_usage(folder).used // 1024
            before = in_fork(lambda: held(folder))
            mount("-o", f"remount,size={usage + room}k", folder)
            outcome = run([*SCENARIOS[name].args], folder, PythonFaults)
            mount("-o", "remount,size=1g", folder)
            rows.append(
                (outcome, before, in_fork(lambda: held(folder)), run([*SCENARIOS[name].args], folder, PythonFaults))
            )
            again = in_fork(lambda: held(folder))
            subprocess.run(["umount", folder], check=True)
            outcome, before, after, second = rows[-1]
            reference = rows[0][2]
            yield {
                **{"args": name, "room": room, "code": outcome.code, "err": outcome.err[-200:]},
                "wrong": faults_of(outcome, before, after, reference, second, again),
            }


def main() -> None:
    asked = json.loads(sys.argv[1])
    base, place = Path(asked["base"]).resolve(), Path(asked["place"]).resolve()
    if not (base / "made").exists():
        make(base, PythonFaults)
    os.chdir("/")
    for row in (read_only if asked["kind"] == "read-only" else full)(base, place):
        print(json.dumps(row), flush=True)


if __name__ == "__main__":
    main()
