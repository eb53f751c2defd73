"""Calls in processes of their own: values, errors, limits, and that nothing outlives those who want it."""

from __future__ import annotations

import gc
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest

from core.runtime import isolated
from core.runtime.errors import TransientError, UserError
from core.runtime.fork_server import NICENESS
from core.runtime.isolated import REPOSITORY, IsolatedCalls, Limits

MODULE = "tests.runtime.isolated_examples"
LIMIT = 60.0
"""Seconds that anything may take on a busy machine; a limit, not an expectation."""


@pytest.fixture(scope="module")
def calls() -> IsolatedCalls:
    return IsolatedCalls(MODULE)


def until(is_true: Callable[[], bool]) -> None:
    deadline = time.monotonic() + LIMIT
    while not is_true():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def is_alive(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def pids(file: Path) -> list[int]:
    until(lambda: file.exists() and len(file.read_text().split()) == 2)
    return [int(pid) for pid in file.read_text().split()]


def test_a_value_and_files_are_returned_and_deleted_once_nobody_refers_to_them(
    calls: IsolatedCalls, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TASKLENS_ONE", "1")
    call = calls.start("echo", {"text": "ä\n"})
    assert call.wait(LIMIT)
    assert call.result() == {"text": "ä\n", "environment": {"TASKLENS_ONE": "1"}}
    monkeypatch.delenv("TASKLENS_ONE")
    monkeypatch.setenv("TASKLENS_TWO", "2")
    other = calls.start("echo", {})
    assert other.wait(LIMIT)
    assert other.result() == {"environment": {"TASKLENS_TWO": "2"}}
    folder = call.folder
    assert folder is not None
    assert (folder / "file").read_text() == "ä\n"
    del call
    gc.collect()
    until(lambda: not folder.exists())


@pytest.mark.parametrize(("transient", "kind"), [(False, UserError), (True, TransientError)])
def test_an_error_for_the_user_arrives_as_it_was(calls: IsolatedCalls, transient: bool, kind: type[UserError]) -> None:
    call = calls.start("refuse", {"transient": transient})
    assert call.wait(LIMIT)
    with pytest.raises(UserError) as caught:
        call.result()
    assert (type(caught.value), caught.value.what, caught.value.fix) == (kind, "what", "fix")


def test_an_unexpected_error_is_named_and_its_traceback_kept(calls: IsolatedCalls) -> None:
    call = calls.start("crash", {})
    assert call.wait(LIMIT)
    with pytest.raises(UserError, match="ZeroDivisionError: no such number"):
        call.result()
    assert call.folder
    assert "Traceback" in (call.folder / "stderr").read_text()


def test_a_process_that_dies_is_no_result(calls: IsolatedCalls) -> None:
    call = calls.start("leave", {})
    assert call.wait(LIMIT)
    with pytest.raises(TransientError):
        call.result()


def test_more_memory_than_the_limit_is_refused(calls: IsolatedCalls) -> None:
    few = calls.start("allocate", {"times": 4}, limits=Limits(gb=0.25))
    many = calls.start("allocate", {"times": 1000}, limits=Limits(gb=0.25))
    assert few.wait(LIMIT)
    assert few.result() == 4
    assert many.wait(LIMIT)
    with pytest.raises(UserError, match=r"0\.25 GB"):
        many.result()


@pytest.mark.parametrize("how", ["limit", "fifo", "cancelled", "unwanted", "forgotten"])
def test_what_hangs_is_killed_with_what_it_started(
    calls: IsolatedCalls, tmp_path: Path, how: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(isolated, "UNWANTED_SECONDS", 0.0)
    file = tmp_path / "pids"
    arguments = {"pids": str(file)}
    if how == "fifo":
        os.mkfifo(tmp_path / "fifo")
        arguments["fifo"] = str(tmp_path / "fifo")

    def is_started() -> bool:
        return file.exists() and len(file.read_text().split()) == 2

    limits = Limits(seconds=1.0) if how in ("limit", "fifo") else None
    call = calls.start("hang", arguments, limits=limits, is_wanted=lambda: how != "unwanted" or not is_started())
    started = pids(file)
    if how == "cancelled":
        while (progress := call.progress()) is None:
            time.sleep(0.02)
        assert (progress.stage, progress.done, progress.total) == ("hanging", 3, 10)
        calls.cancel(call)
    if how != "forgotten":
        assert call.wait(LIMIT)
        with pytest.raises(TransientError):
            call.result()
    del call
    gc.collect()
    until(lambda: not any(map(is_alive, started)))


def test_what_takes_longer_than_a_second_gives_way(calls: IsolatedCalls, tmp_path: Path) -> None:
    call = calls.start("hang", {"pids": str(tmp_path / "pids")})
    started = pids(tmp_path / "pids")
    before = psutil.Process().nice()
    until(lambda: all(psutil.Process(pid).nice() == max(NICENESS, before) for pid in started))
    calls.cancel(call)


def test_calls_beyond_the_number_of_cores_wait_and_can_be_cancelled(calls: IsolatedCalls, tmp_path: Path) -> None:
    slots = max(2, os.cpu_count() or 1)
    running = [calls.start("hang", {"pids": str(tmp_path / str(number))}) for number in range(slots)]
    for number in range(slots):
        pids(tmp_path / str(number))
    never, later = calls.start("echo", {}), calls.start("echo", {"text": "later"})
    calls.cancel(never)
    assert later.is_running
    calls.cancel(running[0])
    assert later.wait(LIMIT)
    assert later.result()["text"] == "later"
    assert never.folder is None
    for call in running:
        calls.cancel(call)


SERVER = f"""
import os, sys, time
from core.runtime.isolated import IsolatedCalls
calls = IsolatedCalls({MODULE!r})
call = calls.start("hang", {{"pids": sys.argv[1]}})
while call.folder is None:
    time.sleep(0.01)
print(call.folder, flush=True)
time.sleep(1000)
"""


def test_nothing_outlives_a_server_that_is_killed(tmp_path: Path) -> None:
    server = subprocess.Popen(
        [sys.executable, "-c", SERVER, str(tmp_path / "pids")], cwd=REPOSITORY, stdout=subprocess.PIPE, text=True
    )
    try:
        assert server.stdout
        folder = Path(server.stdout.readline().strip())
        started = pids(tmp_path / "pids")
        assert folder.exists()
    finally:
        server.send_signal(signal.SIGKILL)
        server.wait()
    until(lambda: not any(map(is_alive, started)) and not folder.parent.exists())


def test_the_next_call_starts_a_new_process_if_the_last_one_was_killed(tmp_path: Path) -> None:
    calls = IsolatedCalls(MODULE)
    call = calls.start("hang", {"pids": str(tmp_path / "pids")})
    (first, _) = pids(tmp_path / "pids")
    folder = call.folder
    assert folder is not None
    parent = psutil.Process(first).parent()
    assert parent is not None
    parent.kill()
    assert call.wait(LIMIT)
    with pytest.raises(TransientError):
        call.result()
    if sys.platform == "linux":
        until(lambda: not is_alive(first))
    until(lambda: not folder.parent.exists())
    again = calls.start("echo", {"text": "again"})
    assert again.wait(LIMIT)
    assert again.result()["text"] == "again"
