"""Newest by a counter: runs, jobs, sets, image sets, tasks and models, while the clock runs backwards."""

from __future__ import annotations

import json
import os
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import pytest

from core.data import store
from core.data.listing import Listing
from core.runtime import clock
from core.runtime.files import HOME_VARIABLE
from core.runtime.sequence import LARGEST, next_number
from core.tasks.changes import Changes
from core.tasks.generate import tasks_sequence
from core.workspace import jobs as jobs_module
from core.workspace import runs as runs_module
from core.workspace import whatif_sets
from core.workspace.jobs import Jobs
from core.workspace.runs import Runs, RunWriter
from core.workspace.whatif_sets import Sets
from tests.workspace.test_workspace import SETTINGS, generate, write_folder

START = datetime(2026, 6, 1, tzinfo=UTC)


@pytest.fixture(autouse=True)
def _backwards(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let every look at the clock be an hour before the last one."""
    passed = 0

    def earlier(zone: object = None) -> datetime:
        nonlocal passed
        passed += 1
        return START - timedelta(hours=passed)

    def stamp() -> str:
        return earlier().isoformat(timespec="milliseconds")

    class Clock(datetime):
        now = staticmethod(earlier)  # type: ignore[assignment]

    for module in (runs_module, whatif_sets, store):
        monkeypatch.setattr(module, "timestamp", stamp)
    monkeypatch.setattr(jobs_module, "datetime", Clock)
    monkeypatch.setattr(clock, "timestamp", stamp)


def _age(path: Path, hours: int) -> None:
    """Set the time of a file, as a clock that runs backwards does."""
    at = (START - timedelta(hours=hours)).timestamp()
    os.utime(path, (at, at))


def compute(run: RunWriter) -> None:
    run.write_json("figures.json", {})


def test_the_newest_run_is_the_one_finished_last(tmp_path: Path) -> None:
    runs = Runs(tmp_path)
    made = [runs.get_or_compute("rank", {"n": number}, compute) for number in range(3)]
    assert made[0].finished > made[1].finished > made[2].finished
    assert runs.all("rank") == made[::-1]
    assert [run.sequence for run in made] == [1, 2, 3]


def test_runs_of_earlier_versions_are_older(tmp_path: Path) -> None:
    runs = Runs(tmp_path)
    made = [runs.get_or_compute("rank", {"n": number}, compute) for number in range(4)]
    for run, finished in zip(made[:2], ("2030-01-01T00:00:00+00:00", "2031-01-01T00:00:00+00:00"), strict=True):
        described = {**run.provenance, "finished": finished}
        described.pop("sequence")
        (run.folder / "provenance.json").write_text(json.dumps(described))
    assert runs.all("rank") == [made[3], made[2], made[1], made[0]]


def test_the_newest_job_is_the_one_started_last(tmp_path: Path) -> None:
    jobs = Jobs(tmp_path, ("true",))
    made = [jobs.start(str(number), [str(number)]) for number in range(3)]
    assert [job.title for job in jobs.all()] == ["2", "1", "0"]
    assert made[0].id > made[1].id > made[2].id


@pytest.mark.parametrize("number", [LARGEST, LARGEST - 1])
def test_the_largest_number_keeps_nothing_from_being_added(tmp_path: Path, number: int) -> None:
    runs, jobs = Runs(tmp_path / "runs"), Jobs(tmp_path / "jobs", ("true",))
    first = runs.get_or_compute("rank", {"n": 0}, compute)
    (first.folder / "provenance.json").write_text(json.dumps(first.provenance | {"sequence": number}))
    started = jobs.start("0", ["0"])
    described = json.loads((started.folder / "job.json").read_text())
    (started.folder / "job.json").write_text(json.dumps(described | {"sequence": number}))
    for n in (1, 2):
        assert runs.get_or_compute("rank", {"n": n}, compute).sequence == LARGEST
        assert jobs.start(str(n), [str(n)]).sequence == LARGEST
    assert runs.damaged() == jobs.damaged() == []
    assert len(runs.all("rank")) == len(jobs.all()) == 3


def test_the_newest_set_is_the_one_saved_last(tmp_path: Path) -> None:
    sets = Sets(tmp_path)
    for number, name in enumerate("cab"):
        sets.save(name, Changes.named(tasks=[name]), who="one")
        _age(tmp_path / f"{name}.json", number)
    assert sets.names() == ["c", "a", "b"]


def test_the_newest_image_set_is_the_one_added_last(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(HOME_VARIABLE, str(tmp_path))

    def listing(value: int) -> Listing:
        table = store.pd.DataFrame({"id": ["a", "b"], "class": ["x", "y"], "split": "", "group": "", "turn": 0})
        return Listing("mine", table, lambda _: np.full((4, 4), value, np.uint8), {"value": value})

    added = [store.store_images(listing(value), name=f"set{value}") for value in range(3)]
    assert [one.name for one in store.stored_image_sets()] == ["set2", "set1", "set0"]
    store.store_images(listing(0), name="again")
    assert store.stored_image_sets()[0].folder == added[0].folder


def test_the_newest_tasks_are_those_written_last(tmp_path: Path) -> None:
    for number, name in enumerate("cab"):
        write_folder(generate(SETTINGS), tmp_path / name)
        _age(tmp_path / name / "tasks.json", number)
    assert sorted(tmp_path.glob("*/tasks.json"), key=tasks_sequence) == [tmp_path / n / "tasks.json" for n in "cab"]


def test_no_number_is_given_twice_at_the_same_time(tmp_path: Path) -> None:
    def add(_: int) -> None:
        with next_number(tmp_path, lambda: [int(path.name) for path in tmp_path.iterdir()]) as number:
            (tmp_path / str(number)).mkdir()  # fails if it exists

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(add, range(40)))
    assert {path.name for path in tmp_path.iterdir()} == {str(number) for number in range(1, 41)}
