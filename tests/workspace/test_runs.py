"""Results are found again, interrupted work goes on, and two processes never do the same work."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from core.runtime.errors import UserError
from core.workspace.runs import Run, Runs, RunWriter

ROOT = Path(__file__).parents[2]
QUESTION = {"tasks": "abc", "damping": 0.1}


class Killed(Exception):
    pass


@pytest.fixture
def runs(tmp_path: Path) -> Runs:
    return Runs(tmp_path / "runs")


def answer(work: RunWriter) -> None:
    work.write_json("figures.json", {"accuracy": 0.5})
    work.write_table("rows.parquet", pd.DataFrame({"id": ["a"], "score": [1.5]}))


def never(work: RunWriter) -> None:
    raise AssertionError("this was in the store")


def test_the_same_question_is_answered_from_the_store(runs: Runs) -> None:
    first = runs.get_or_compute("rank", QUESTION, answer)
    before = (first.folder / "provenance.json").read_bytes()
    again = runs.get_or_compute("rank", dict(reversed(QUESTION.items())), never)
    assert again == first == runs.get(first.id) == runs.find("rank", QUESTION)
    assert (again.folder / "provenance.json").read_bytes() == before
    assert again.json("figures.json") == {"accuracy": 0.5}
    assert again.table("rows.parquet").to_dict("list") == {"id": ["a"], "score": [1.5]}


def test_a_run_says_what_was_asked_how_and_when(runs: Runs) -> None:
    def slow(work: RunWriter) -> None:
        with work.timed("solve"):
            pass

    run = runs.get_or_compute("edit-linear", QUESTION, slow)
    assert run.kind == "edit-linear"
    assert run.config == {"kind": "edit-linear", **QUESTION}
    provenance = run.json("provenance.json")
    told = {"command", "started", "finished", "seconds", "processor_seconds", "versions", "threads", "processes"}
    assert set(provenance) == told
    assert run.processor_seconds == provenance["processor_seconds"] >= 0
    assert provenance["processes"] == 1
    assert provenance["started"] <= provenance["finished"] == run.finished
    assert list(provenance["seconds"]) == ["solve"]


@pytest.mark.parametrize("other", [{"tasks": "abc"}, {**QUESTION, "damping": 0.2}, {**QUESTION, "more": None}])
def test_another_question_is_another_run(runs: Runs, other: dict[str, object]) -> None:
    first = runs.get_or_compute("rank", QUESTION, answer)
    assert runs.find("rank", other) is None
    assert runs.get_or_compute("rank", other, answer).id != first.id
    assert runs.get_or_compute("evaluate", QUESTION, answer).id != first.id


def test_interrupted_work_goes_on_without_doing_its_steps_again(runs: Runs) -> None:
    done: list[int] = []

    def work(run: RunWriter, stop: int | None) -> None:
        kept = []
        for number in range(6):

            def step(number: int = number) -> list[np.ndarray]:
                if number == stop:
                    raise Killed
                done.append(number)
                return [np.full(3, number), np.array(number / 2)]

            kept.append(run.save_step(step))
        run.write_json("sum.json", [float(a.sum() + b) for a, b in kept])

    with pytest.raises(Killed):
        runs.get_or_compute("rank", QUESTION, lambda run: work(run, 4))
    assert runs.find("rank", QUESTION) is None
    assert runs.all("rank") == []
    run = runs.get_or_compute("rank", QUESTION, lambda run: work(run, None))
    assert done == [0, 1, 2, 3, 4, 5]
    assert run.json("sum.json") == [3.5 * number for number in range(6)]
    assert not (run.folder / "memory").exists()


def test_nothing_of_a_finished_run_is_hidden_and_nothing_else_is_left(runs: Runs) -> None:
    run = runs.get_or_compute("rank", QUESTION, answer)
    assert sorted(path.name for path in run.folder.iterdir()) == [
        "config.json",
        "figures.json",
        "provenance.json",
        "rows.parquet",
    ]
    assert [path.name for path in runs.folder.iterdir()] == [run.id]


def test_arrays_are_remembered_as_they_were(runs: Runs) -> None:
    arrays = [np.arange(6, dtype=np.float32).reshape(2, 3), np.array(7), np.zeros((0, 2))]
    work = RunWriter(runs.folder)
    work.save_step(lambda: arrays)
    again = RunWriter(runs.folder).save_step(lambda: pytest.fail("this was remembered"))
    assert all(np.array_equal(a, b) and a.dtype == b.dtype for a, b in zip(arrays, again, strict=True))


WORKER = """
import sys
from pathlib import Path
from core.workspace.runs import Runs

def work(run):
    print("begun", flush=True)
    sys.stdin.readline()

Runs(Path(sys.argv[1])).get_or_compute("rank", {"tasks": "abc", "damping": 0.1}, work)
"""


def at_it(runs: Runs) -> subprocess.Popen[str]:
    """Another process that is at the question, until it is told to go on."""
    process = subprocess.Popen(
        [sys.executable, "-c", WORKER, str(runs.folder)],
        cwd=ROOT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "begun\n"
    return process


def test_a_question_that_another_process_is_at_is_refused_until_it_is_done(runs: Runs) -> None:
    process = at_it(runs)
    with pytest.raises(UserError, match=r"computed by another process.*Wait"):
        runs.get_or_compute("rank", QUESTION, never)
    runs.get_or_compute("rank", {"tasks": "other"}, answer)
    process.communicate("go on\n")
    assert process.returncode == 0
    assert runs.get_or_compute("rank", QUESTION, never).kind == "rank"


def test_who_waits_takes_the_answer_of_another_process(runs: Runs) -> None:
    process = at_it(runs)
    threading.Timer(0.3, process.communicate, ["go on\n"]).start()
    assert Runs(runs.folder, waits=True).get_or_compute("rank", QUESTION, never).kind == "rank"
    assert process.wait() == 0


def test_a_process_killed_at_a_question_blocks_nobody(runs: Runs) -> None:
    process = at_it(runs)
    process.kill()
    process.communicate()
    assert runs.get_or_compute("rank", QUESTION, answer).json("figures.json") == {"accuracy": 0.5}


def test_runs_are_listed_by_kind_newest_first(runs: Runs) -> None:
    kinds = ["edit-linear", "edit-finetune", "edit-linear"]
    made = [runs.get_or_compute(kind, {"n": number}, answer) for number, kind in enumerate(kinds)]
    for number, run in enumerate(made):
        described = run.json("provenance.json")
        described["finished"] = f"2026-01-0{number + 1}T00:00:00+00:00"
        (run.folder / "provenance.json").write_text(json.dumps(described))
    assert runs.all("edit-linear") == [made[2], made[0]]
    assert runs.all("edit-finetune") == [made[1]]
    assert runs.all("edit") == []


def test_runs_that_finish_in_one_second_are_ordered_also_among_those_of_earlier_versions(runs: Runs) -> None:
    made = [runs.get_or_compute("rank", {"n": number}, answer) for number in range(4)]
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}\+00:00", made[0].finished)
    times = ["2026-01-01T00:00:01+00:00", "2026-01-01T00:00:00.999+00:00", "2026-01-01T00:00:01.002+00:00"]
    for run, finished in zip(made, [*times, "2026-01-01T00:00:01.001+00:00"], strict=True):
        described = run.json("provenance.json") | {"finished": finished}
        (run.folder / "provenance.json").write_text(json.dumps(described))
    assert runs.all("rank") == [made[2], made[3], made[0], made[1]]


@pytest.mark.parametrize("run_id", ["", ".", "..", "rank-000000000000", "../runs", "/etc", ".rank-0", "a\0b"])
def test_an_unknown_run_is_refused(runs: Runs, run_id: str) -> None:
    runs.get_or_compute("rank", QUESTION, answer)
    with pytest.raises(UserError, match="no run"):
        runs.get(run_id)


@pytest.mark.parametrize("content", [None, b"", b"not a table"])
def test_a_damaged_table_is_refused_by_its_path(runs: Runs, content: bytes | None) -> None:
    run: Run = runs.get_or_compute("rank", QUESTION, answer)
    if content is None:
        (run.folder / "rows.parquet").unlink()
    else:
        (run.folder / "rows.parquet").write_bytes(content)
    with pytest.raises(UserError, match=r"rows\.parquet cannot be read.*Delete the run"):
        run.table("rows.parquet")


@pytest.mark.parametrize("content", [b"", b"half"])
def test_a_damaged_memory_is_computed_again(runs: Runs, content: bytes) -> None:
    RunWriter(runs.folder).save_step(lambda: [np.zeros(2)])
    (runs.folder / "memory" / "000000.npz").write_bytes(content)
    (again,) = RunWriter(runs.folder).save_step(lambda: [np.ones(2)])
    assert again.tolist() == [1, 1]
