"""Background jobs, with small fake commands in place of the command line."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest

from core.runtime.errors import UserError
from core.runtime.progress import ProgressState
from core.workspace import runner
from core.workspace.jobs import REPOSITORY, Job, Jobs

# What a command does is its first argument: Python text.
PYTHON = [sys.executable, "-c", "import os, sys, time; from pathlib import Path; exec(sys.argv[1])"]
# Not print: a signal that arrives while it still flushes runs its handler inside, where nothing can be printed.
FOREVER = "os.write(1, b'begun\\n'); time.sleep(600)"


@pytest.fixture
def jobs(tmp_path: Path) -> Iterator[Jobs]:
    jobs = Jobs(tmp_path / "jobs", PYTHON)
    yield jobs
    for job in jobs.all():
        if job.status() == "running":
            os.killpg(group_of(job), signal.SIGKILL)
            until(lambda job=job: job.status() != "running")


def until(condition: Callable[[], bool]) -> None:
    for _ in range(6_000):
        if condition():
            return
        time.sleep(0.01)
    pytest.fail("it did not happen within a minute")


def ended(job: Job) -> str:
    until(lambda: job.status() != "running")
    return job.status()


def begun(job: Job) -> Job:
    """Wait until the command has printed something."""
    until(lambda: bool(job.results()) or job.status() != "running")
    assert job.status() == "running"
    return job


def group_of(job: Job) -> int:
    until((job.folder / "pid").exists)
    return int((job.folder / "pid").read_text())


def members(group: int) -> list[psutil.Process]:
    running = []
    for process in psutil.process_iter(["status"]):
        try:
            if os.getpgid(process.pid) == group and process.info["status"] != psutil.STATUS_ZOMBIE:
                running.append(process)
        except ProcessLookupError:
            pass
    return running


def test_a_finished_job_has_results(jobs: Jobs) -> None:
    job = jobs.start("Two files", ["print('runs/a.json'); print('runs/b.json'); print(os.getcwd(), file=sys.stderr)"])
    assert ended(job) == "done"
    assert job.results() == ["runs/a.json", "runs/b.json"]
    assert (job.folder / "stderr").read_text().strip() == str(REPOSITORY)
    assert job.error() == ""
    assert jobs.get(job.id) == job


def test_the_error_of_a_failed_job_leaves_out_progress(jobs: Jobs) -> None:
    text = "sys.stderr.write('Train: 3/10, about 5 s left  loss 0.3\\nbad.csv: row 3.\\nMend it.\\n'); sys.exit(2)"
    job = jobs.start("Fails", [text])
    assert ended(job) == "failed"
    assert job.error() == "bad.csv: row 3.\nMend it."


def test_the_error_of_a_traceback_is_its_last_line(jobs: Jobs) -> None:
    job = jobs.start("Fails", ["try:\n    1 / 0\nexcept ZeroDivisionError:\n    raise ValueError('no such thing')"])
    assert ended(job) == "failed"
    assert job.error() == "ValueError: no such thing"


def test_a_silent_failure_reports_its_exit_code(jobs: Jobs) -> None:
    job = jobs.start("Fails", ["sys.exit(3)"])
    assert ended(job) == "failed"
    assert "code 3" in job.error()


def test_a_killed_command_probably_ran_out_of_memory(jobs: Jobs) -> None:
    job = jobs.start("Grows", ["os.kill(os.getpid(), 9)"])
    assert ended(job) == "failed"
    assert "memory" in job.error()


def test_a_missing_command_fails(tmp_path: Path) -> None:
    job = Jobs(tmp_path, ["/no/such/command"]).start("Nothing", [])
    assert ended(job) == "failed"
    assert "/no/such/command" in job.error()


@pytest.mark.parametrize("code", [130, 143])
def test_exit_codes_of_signals_mean_cancelled(jobs: Jobs, code: int) -> None:
    assert ended(jobs.start("Interrupted", [f"sys.exit({code})"])) == "cancelled"


def test_cancel_stops_the_command_and_its_children(jobs: Jobs) -> None:
    stubborn = "import os, signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); os.write(1, b'helps\\n')"
    helper = f"import subprocess; subprocess.Popen([sys.executable, '-c', {stubborn + '; time.sleep(600)'!r}]);"
    job = begun(jobs.start("Long", [helper + FOREVER]))
    until(lambda: set(job.results()) == {"begun", "helps"})
    group = group_of(job)
    jobs.cancel(job.id)
    assert ended(job) == "cancelled"
    assert job.error() == ""
    until(lambda: not members(group))


def test_cancel_lets_the_command_clean_up(jobs: Jobs) -> None:
    tidy = "import signal; signal.signal(signal.SIGTERM, lambda *_: (print('tidied', flush=True), sys.exit(1)));"
    job = begun(jobs.start("Long", [tidy + FOREVER]))
    jobs.cancel(job.id)
    assert ended(job) == "cancelled"
    assert job.results() == ["begun", "tidied"]


def test_cancel_kills_a_command_that_ignores_signals(jobs: Jobs) -> None:
    stubborn = "import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN);"
    job = begun(jobs.start("Stubborn", [stubborn + FOREVER]))
    group = group_of(job)
    jobs.cancel(job.id)
    with pytest.raises(UserError, match="Stubborn"):
        jobs.start("Stubborn", job.args)
    assert ended(job) == "cancelled"
    until(lambda: not members(group))


def test_cancel_just_after_the_start(jobs: Jobs) -> None:
    for number in range(8):
        job = jobs.start("Long", [FOREVER + f"#{number}"])
        time.sleep(0.01 * number)
        jobs.cancel(job.id)
        assert ended(job) == "cancelled"


def test_a_job_cancelled_before_its_runner_starts_never_runs(tmp_path: Path) -> None:
    (tmp_path / runner.DESCRIPTION).write_text('{"command": ["/no/such/command"]}')
    (tmp_path / runner.CANCEL).touch()
    subprocess.run([sys.executable, "-m", "core.workspace.runner", str(tmp_path)], cwd=REPOSITORY, check=True)
    assert (tmp_path / runner.EXIT).read_text() == '{"code": 143}'


def test_a_signal_just_before_the_command_starts_reaches_it(tmp_path: Path) -> None:
    (tmp_path / runner.DESCRIPTION).write_text('{"command": ["sleep", "600"]}')
    text = f"""
import os, subprocess
from pathlib import Path
from core.workspace import runner
start = subprocess.Popen
runner.subprocess.Popen = lambda command: (os.kill(os.getpid(), 15), start(command))[1]
runner.GRACE_SECONDS = 1000
runner.run(Path({str(tmp_path)!r}))
"""
    subprocess.run([sys.executable, "-c", text], cwd=REPOSITORY, start_new_session=True, check=False)
    assert (tmp_path / runner.EXIT).read_text() == '{"code": 143}'


def test_cancelling_an_ended_job_changes_nothing(jobs: Jobs) -> None:
    done, failed = jobs.start("Done", ["pass"]), jobs.start("Failed", ["sys.exit(2)"])
    assert (ended(done), ended(failed)) == ("done", "failed")
    jobs.cancel(done.id)
    jobs.cancel(failed.id)
    assert (done.status(), failed.status()) == ("done", "failed")


def test_a_job_that_finishes_during_cancel_is_done(jobs: Jobs) -> None:
    finishing = "import signal; signal.signal(signal.SIGTERM, lambda *_: (print('saved', flush=True), os._exit(0)));"
    job = begun(jobs.start("Nearly done", [finishing + FOREVER]))
    jobs.cancel(job.id)
    assert ended(job) == "done"
    assert job.results() == ["begun", "saved"]


def test_a_job_whose_processes_are_killed_is_lost(jobs: Jobs) -> None:
    job = begun(jobs.start("Long", [FOREVER]))
    os.killpg(group_of(job), signal.SIGKILL)
    assert ended(job) == "lost"
    assert "killed" in job.error()
    again = jobs.start("Long", job.args)
    assert again.id != job.id


def test_a_lost_job_stays_lost_if_its_process_id_is_reused(jobs: Jobs) -> None:
    job = begun(jobs.start("Long", [FOREVER]))
    os.killpg(group_of(job), signal.SIGKILL)
    assert ended(job) == "lost"
    (job.folder / "pid").write_text(str(os.getpid()))
    assert job.status() == "lost"
    jobs.cancel(job.id)  # or this test would end here


def test_a_command_without_its_runner_can_be_cancelled(jobs: Jobs) -> None:
    job = begun(jobs.start("Long", [FOREVER]))
    os.kill(group_of(job), signal.SIGKILL)
    until(lambda: len(members(group_of(job))) == 1)
    assert job.status() == "running"
    jobs.cancel(job.id)
    assert ended(job) == "cancelled"


@pytest.mark.parametrize("number", ["nan", "inf", "1e308", "9" * 20, "-1", "0", "1", "x", ""])
def test_a_damaged_process_id_ends_nobody(jobs: Jobs, number: str) -> None:
    job = begun(jobs.start("Long", [FOREVER]))
    process = (job.folder / "pid").read_text()
    (job.folder / "pid").write_text(number)
    jobs.cancel(job.id)
    assert job.status() == "running"
    (job.folder / "pid").write_text(process)
    jobs.cancel(job.id)
    assert ended(job) == "cancelled"


@pytest.mark.parametrize("name", ["a copy (2)", "a\nline", "ü.x"])
def test_a_job_in_a_renamed_folder_can_be_chosen(jobs: Jobs, name: str) -> None:
    job = jobs.start("Short", ["0"])
    assert ended(job) in ("done", "failed")
    job.folder.rename(jobs.folder / name)
    assert [jobs.get(one.id).id for one in jobs.all()] == [name]
    jobs.cancel(name)


@pytest.mark.parametrize("name", ["", ".", "..", "../jobs", "a/b", "a\0b"])
def test_no_other_folder_is_a_job(jobs: Jobs, name: str) -> None:
    jobs.folder.mkdir(parents=True, exist_ok=True)
    (jobs.folder / "job.json").write_text("{}")
    with pytest.raises(UserError):
        jobs.get(name)


def test_concurrent_sessions_start_the_same_arguments_once(jobs: Jobs) -> None:
    started: list[Job] = []

    def session() -> None:
        started.append(Jobs(jobs.folder, PYTHON).start("Long", [FOREVER]))

    threads = [threading.Thread(target=session) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(started) == 8
    assert len({job.id for job in started}) == len(jobs.all()) == 1
    other = jobs.start("Other", [FOREVER, "--other"])
    assert [job.id for job in jobs.all()] == [other.id, started[0].id]


def test_arguments_of_an_ended_job_start_a_new_one(jobs: Jobs) -> None:
    first = jobs.start("Short", ["pass"])
    assert ended(first) == "done"
    second = jobs.start("Short", ["pass"])
    assert ended(second) == "done"
    assert [job.id for job in jobs.all()] == [second.id, first.id]


def test_a_job_outlives_the_process_that_started_it(jobs: Jobs, tmp_path: Path) -> None:
    gate = tmp_path / "gate"
    waits = f"gate = Path({str(gate)!r})\nwhile not gate.exists(): time.sleep(0.01)\nprint('through')"
    starter = f"""
import os
from pathlib import Path
from core.workspace.jobs import Jobs
Jobs(Path({str(jobs.folder)!r}), {PYTHON!r}).start("Long", [{waits!r}])
os.kill(os.getpid(), 9)
"""
    process = subprocess.run([sys.executable, "-c", starter], cwd=REPOSITORY, check=False)
    assert process.returncode == -signal.SIGKILL
    (job,) = jobs.all()
    assert job.status() == "running"
    gate.touch()
    assert ended(job) == "done"
    assert job.results() == ["through"]


def test_progress_is_never_half_written(jobs: Jobs) -> None:
    text = """
sys.path.insert(0, os.getcwd())
from core.runtime.progress import LiveProgress
progress = LiveProgress.from_environment()
print('begun', flush=True)
for part in range(300):
    progress.stage(f"part {part}", 2)
    progress.advance(2, note="é" * part)
"""
    job = jobs.start("Counts", [text])
    seen: list[ProgressState] = []
    while job.status() == "running":
        state = job.progress()
        if state is not None:
            seen.append(state)
        assert state is not None or not seen
    assert job.status() == "done"
    last = job.progress()
    assert last is not None
    assert (last.stage, last.done, last.total, last.note) == ("part 299", 2, 2, "é" * 299)
    parts = [int(state.stage.removeprefix("part ")) for state in seen]
    assert parts == sorted(parts)


def test_a_job_without_reports_has_no_progress(jobs: Jobs) -> None:
    job = jobs.start("Quiet", ["pass"])
    assert ended(job) == "done"
    assert job.progress() is None


def test_no_zombie_process_remains(jobs: Jobs) -> None:
    job = jobs.start("Short", ["pass"])
    group = group_of(job)
    assert ended(job) == "done"
    until(lambda: not psutil.pid_exists(group))


@pytest.mark.parametrize("job_id", ["", "..", "nothing", "../jobs", "a\0b"])
def test_an_unknown_job_is_refused(jobs: Jobs, job_id: str) -> None:
    with pytest.raises(UserError, match=re.escape(repr(job_id)[1:-1])):
        jobs.get(job_id)


def test_an_unwritable_folder_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match=r"Anything|cannot be written"):
        Jobs(tmp_path / "file", PYTHON).start("Anything", [])
