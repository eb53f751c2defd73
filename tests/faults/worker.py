"""Run commands with faults, each in a fork of one process that has imported everything: ``worker.py JSON``.

Prints one JSON object per point: what the command said, what the workspace holds afterwards, and what the same command
says without the fault.
"""

from __future__ import annotations

import ctypes
import errno
import importlib
import json
import os
import pkgutil
import shutil
import signal
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import core.actions
from core import cli
from core.data import load_images
from core.runtime.files import HOME_VARIABLE
from core.tasks.tasklist import read_tasks
from tests.faults.contents import contents, leftovers
from tests.faults.kinds import ALL, END_AFTER, FAIL, RENAME, SYNC, WITHOUT_DELETE
from tests.faults.python_faults import PythonFaults
from tests.faults.scenarios import SCENARIOS, SETUP, Scenario, prepare, write_decisions

LIMIT_SECONDS = 120
EXPLAINED = 2  # exit code of an error that is explained
KILLED = 137


class Faults(Protocol):
    def arm(self, root: Path, first: int, last: int, code: int, action: int, kinds: int) -> None: ...
    def disarm(self) -> int: ...


class NativeFaults:
    def __init__(self, library: str) -> None:
        self._library = ctypes.CDLL(library)
        self._library.faults_arm.argtypes = [ctypes.c_char_p, *[ctypes.c_long] * 2, *[ctypes.c_int] * 3]
        self._library.faults_disarm.restype = ctypes.c_long

    def arm(self, root: Path, first: int, last: int, code: int, action: int, kinds: int) -> None:
        self._library.faults_arm(os.fsencode(root), first, last, code, action, kinds)

    def disarm(self) -> int:
        return int(self._library.faults_disarm())

    def trace(self, descriptor: int) -> None:
        self._library.faults_trace(descriptor)


MakeFaults = Callable[[], Faults]
"""Makes the faults in the fork, as they replace functions of the process."""


@dataclass(frozen=True)
class Mode:
    """What goes wrong: one call or all from it on, with which error, or the end of the process."""

    name: str
    code: int
    action: int = FAIL
    kinds: int = WITHOUT_DELETE
    lasts: bool = False


MODES = {
    mode.name: mode
    for mode in (
        Mode("full disk", errno.ENOSPC, lasts=True),
        Mode("one error", errno.EIO, kinds=ALL),
        Mode("read-only", errno.EROFS, kinds=ALL, lasts=True),
        Mode("killed", 0, END_AFTER, kinds=ALL),
        Mode("killed after rename or flush", 0, END_AFTER, kinds=RENAME | SYNC),
    )
}


@dataclass
class Outcome:
    """What one command did: exit code, output, number of calls that change the disk."""

    code: int = -1
    out: str = ""
    err: str = ""
    calls: int = 0
    trace: list[str] = field(default_factory=list)


def in_fork(do: Callable[[], Any]) -> Any:
    """Return what ``do`` returns in a fork, as JSON; an exception is returned as its traceback."""
    with tempfile.TemporaryFile("w+") as answer:
        pid = os.fork()
        if pid == 0:
            try:
                json.dump(do(), answer, default=str)
            except BaseException:
                answer.seek(0)
                answer.truncate()
                json.dump({"traceback": traceback.format_exc()}, answer)
            answer.flush()
            os._exit(0)
        _wait(pid)
        answer.seek(0)
        text = answer.read()
        return json.loads(text) if text else {"traceback": "no answer"}


def _wait(pid: int) -> int:
    end = time.monotonic() + LIMIT_SECONDS
    while time.monotonic() < end:
        ended, status = os.waitpid(pid, os.WNOHANG)
        if ended:
            return os.waitstatus_to_exitcode(status)
        time.sleep(0.002)
    os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)
    return -9


def run(
    args: list[str], folder: Path, faults: MakeFaults, arm: tuple[int, int, int, int, int] | None = None
) -> Outcome:
    """Run a command in a fork; ``arm``: first and last call to fail, error code, action, kinds."""
    with tempfile.TemporaryDirectory() as outside:
        files = {name: Path(outside) / name for name in ("out", "err", "calls", "trace")}
        pid = os.fork()
        if pid == 0:
            _run_here(args, folder, faults, arm, files)
        code = _wait(pid)
        texts = {name: path.read_text(errors="replace") if path.exists() else "" for name, path in files.items()}
    return Outcome(code, texts["out"], texts["err"], int(texts["calls"] or 0), texts["trace"].splitlines())


def _run_here(
    args: list[str],
    folder: Path,
    make_faults: MakeFaults,
    arm: tuple[int, int, int, int, int] | None,
    files: dict[str, Path],
) -> None:
    for number, name in ((1, "out"), (2, "err")):
        os.dup2(os.open(files[name], os.O_WRONLY | os.O_CREAT | os.O_TRUNC), number)
    sys.stdout, sys.stderr = open(1, "w"), open(2, "w")  # noqa: SIM115
    os.environ[HOME_VARIABLE] = str(folder / "home")
    os.chdir(folder)
    sys.argv = ["tasklens", *args]
    code, faults = 99, make_faults()
    if isinstance(faults, NativeFaults):
        faults.trace(os.open(files["trace"], os.O_WRONLY | os.O_CREAT))
    faults.arm(folder, *(arm or (-1, -1, 0, FAIL, ALL)))
    try:
        cli.main()
    except SystemExit as end:
        code = int(end.code or 0)
    except BaseException:
        traceback.print_exc()
    finally:
        calls = faults.disarm()
        files["calls"].write_text(str(calls))
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


def faults_of(outcome: Outcome, before: Any, after: Any, reference: Any, second: Outcome, again: Any) -> list[str]:
    """Return what is wrong with one point."""
    wrong = []
    if outcome.code not in (0, EXPLAINED, KILLED):
        wrong.append(f"exit code {outcome.code}: {outcome.err[-600:]}")
    if "Traceback" in outcome.err or "Error:" in outcome.err:
        wrong.append(f"not a sentence: {outcome.err[-600:]}")
    if outcome.code == EXPLAINED and not outcome.err.strip():
        wrong.append("no explanation")
    if "traceback" in after:
        wrong.append(f"does not open: {after['traceback'][-600:]}")
    elif any(after.get(name) not in (before.get(name), reference.get(name)) for name in {*before, *after}):
        wrong.append(f"neither before nor after: {differences(before, after)} / {differences(reference, after)}")
    if outcome.code == 0 and after != reference:
        wrong.append(f"acknowledged and lost: {differences(reference, after)}")
    if second.code != 0:
        wrong.append(f"cannot be repeated: {second.code} {second.err[-600:]}")
    elif again != reference:
        wrong.append(f"repeated with another result: {differences(reference, again)}")
    return wrong


def differences(one: Any, other: Any) -> list[str]:
    """Return the names whose content differs."""
    names = sorted({*one, *other})
    pairs = [(name, one.get(name), other.get(name)) for name in names]
    return [f"{name}: {str(left)[:60]} != {str(right)[:60]}" for name, left, right in pairs if left != right][:4]


def held(folder: Path) -> dict[str, str]:
    """Return the contents of a folder whose workspaces are in ``home``."""
    os.environ[HOME_VARIABLE] = str(folder / "home")
    os.chdir(folder)
    return contents(folder)


def sweep(scenario: Scenario, modes: list[str], most: int, base: Path, faults: MakeFaults) -> list[dict[str, Any]]:
    """Run a scenario with at most ``most`` faults of every mode, evenly spread; return one row per point."""
    import_commands()
    with tempfile.TemporaryDirectory(prefix="faults-") as root:
        folder = Path(root).resolve() / "work"

        def fresh() -> None:
            shutil.rmtree(folder, ignore_errors=True)
            shutil.copytree(base, folder, symlinks=True)

        args = [*scenario.args]
        fresh()
        before = in_fork(lambda: held(folder))
        rows, counts = [], {}
        for kinds in {MODES[mode].kinds for mode in modes}:
            fresh()
            reference_run = run(args, folder, faults, (-1, -1, 0, FAIL, kinds))
            if reference_run.code:
                raise AssertionError(f"{scenario.name}: {reference_run.err}")
            counts[kinds] = reference_run.calls
            kept = in_fork(lambda: leftovers(folder))
            reference = in_fork(lambda: held(folder))
            if "traceback" in reference:
                raise AssertionError(reference["traceback"])
            rows.append(
                {
                    **{"scenario": scenario.name, "mode": "none", "point": -1, "code": 0, "err": ""},
                    **{"wrong": [f"left: {kept}"] if kept else [], "kinds": kinds},
                    **{"calls": reference_run.calls, "trace": reference_run.trace},
                }
            )
        for mode in map(MODES.__getitem__, modes):
            for point in range(0, counts[mode.kinds], max(1, -(-counts[mode.kinds] // most))):
                fresh()
                last = 1 << 30 if mode.lasts else point
                outcome = run(args, folder, faults, (point, last, mode.code, mode.action, mode.kinds))
                after = in_fork(lambda: held(folder))
                second = run(args, folder, faults)
                again = in_fork(lambda: held(folder))
                wrong = faults_of(outcome, before, after, reference, second, again)
                if left := in_fork(lambda: leftovers(folder)):
                    wrong.append(f"left: {left}")
                where = {"scenario": scenario.name, "mode": mode.name, "point": point}
                rows.append(where | {"code": outcome.code, "wrong": wrong, "err": outcome.err[-300:]})
        return rows


def main() -> None:
    asked = json.loads(sys.argv[1])
    library = asked.get("library")

    def faults() -> Faults:
        return NativeFaults(library) if library else PythonFaults()

    base = Path(asked["base"]).resolve()
    if not (base / "made").exists():
        make(base, faults)
    for name in asked["scenarios"]:
        scenario = SCENARIOS[name]
        for row in sweep(scenario, asked.get("modes") or [*MODES], asked.get("most", 1 << 30), base, faults):
            print(json.dumps(row), flush=True)


def import_commands() -> None:
    """Import and read what commands import and read when they run, so that forks need not."""
    load_images("mnist5k")
    for module in pkgutil.iter_modules(core.actions.__path__, "core.actions."):
        importlib.import_module(module.name)


def make(base: Path, faults: MakeFaults, setup: Sequence[Sequence[str]] = SETUP) -> None:
    """Fill the folder in which the commands run."""
    import_commands()
    base.mkdir(parents=True, exist_ok=True)
    for args in setup:
        outcome = run([*args], base, faults)
        if outcome.code:
            raise AssertionError(f"{args}: {outcome.err}")
    tasks = read_tasks(base / "home" / "mine" / "tasks" / "train.parquet")
    prepare(base)
    write_decisions(base, sorted(set(tasks.rows["image_id"]))[-3:])
    outcome = run(["export", "-w", "mine", "--out", "old"], base, faults)
    assert outcome.code == 0, outcome.err
    (base / "old" / "notes.txt").write_text("mine")
    (base / "made").touch()


if __name__ == "__main__":
    main()
