"""Runs are reused, interrupted work resumes, and two processes never compute the same run."""

from __future__ import annotations

import io
import json
import re
import struct
import subprocess
import sys
import threading
import zipfile
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from core.runtime.errors import TransientError, UserError
from core.workspace.runs import Run, Runs, RunWriter, recomputing

ROOT = Path(__file__).parents[2]
KEY = {"tasks": "abc", "damping": 0.1}


class Killed(Exception):
    pass


@pytest.fixture
def runs(tmp_path: Path) -> Runs:
    return Runs(tmp_path / "runs")


def compute(work: RunWriter) -> None:
    work.write_json("figures.json", {"accuracy": 0.5})
    work.write_table("rows.parquet", pd.DataFrame({"id": ["a"], "score": [1.5]}))


def refuse(work: RunWriter) -> None:
    raise AssertionError("a stored run was computed again")


def test_a_finished_run_is_reused(runs: Runs) -> None:
    first = runs.get_or_compute("rank", KEY, compute)
    before = (first.folder / "provenance.json").read_bytes()
    again = runs.get_or_compute("rank", dict(reversed(KEY.items())), refuse)
    assert again == first == runs.get(first.id) == runs.find("rank", KEY)
    assert (again.folder / "provenance.json").read_bytes() == before
    assert again.json("figures.json") == {"accuracy": 0.5}
    assert again.table("rows.parquet").to_dict("list") == {"id": ["a"], "score": [1.5]}


def test_a_run_is_computed_again_and_kept_until_the_new_one_is_finished(runs: Runs) -> None:
    def improve(work: RunWriter) -> None:
        work.write_json("figures.json", {"accuracy": 0.6})

    def fail(work: RunWriter) -> None:
        raise Killed

    stored = runs.get_or_compute("rank", KEY, compute)
    other = runs.get_or_compute("rank", {"other": 1}, compute)
    with recomputing(stored):
        assert runs.find("rank", KEY) is None
        assert runs.get_or_compute("rank", {"other": 1}, refuse) == other
        with pytest.raises(Killed):
            runs.get_or_compute("rank", KEY, fail)
        assert stored.json("figures.json") == {"accuracy": 0.5}
        assert runs.get_or_compute("rank", KEY, improve) == stored
        assert stored.json("figures.json") == {"accuracy": 0.6}
        assert runs.get_or_compute("rank", KEY, refuse) == runs.find("rank", KEY) == stored
    assert {path.name for path in runs.folder.iterdir()} == {stored.id, other.id}


def test_a_run_records_its_key_and_provenance(runs: Runs) -> None:
    def slow(work: RunWriter) -> None:
        with work.timed("solve"):
            pass

    run = runs.get_or_compute("edit-linear", KEY, slow)
    assert run.kind == "edit-linear"
    assert run.config == {"kind": "edit-linear", **KEY}
    provenance = run.json("provenance.json")
    expected = {"command", "started", "finished", "seconds", "processor_seconds", "versions", "threads", "processes"}
    assert set(provenance) == expected | {"sequence"}
    assert run.processor_seconds == provenance["processor_seconds"] >= 0
    assert provenance["processes"] == 1
    assert provenance["started"] <= provenance["finished"] == run.finished
    assert list(provenance["seconds"]) == ["solve"]


@pytest.mark.parametrize("other", [{"tasks": "abc"}, {**KEY, "damping": 0.2}, {**KEY, "more": None}])
def test_another_key_is_another_run(runs: Runs, other: dict[str, object]) -> None:
    first = runs.get_or_compute("rank", KEY, compute)
    assert runs.find("rank", other) is None
    assert runs.get_or_compute("rank", other, compute).id != first.id
    assert runs.get_or_compute("evaluate", KEY, compute).id != first.id


def test_interrupted_work_resumes_after_its_stored_steps(runs: Runs) -> None:
    done: list[int] = []

    def work(run: RunWriter, stop: int | None) -> None:
        steps = []
        for number in range(6):

            def step(number: int = number) -> list[np.ndarray]:
                if number == stop:
                    raise Killed
                done.append(number)
                return [np.full(3, number), np.array(number / 2)]

            steps.append(run.save_step(step))
        run.write_json("sum.json", [float(a.sum() + b) for a, b in steps])

    with pytest.raises(Killed):
        runs.get_or_compute("rank", KEY, lambda run: work(run, 4))
    assert runs.find("rank", KEY) is None
    assert runs.all("rank") == []
    run = runs.get_or_compute("rank", KEY, lambda run: work(run, None))
    assert done == [0, 1, 2, 3, 4, 5]
    assert run.json("sum.json") == [3.5 * number for number in range(6)]
    assert not (run.folder / "memory").exists()


def test_a_finished_run_has_exactly_its_files(runs: Runs) -> None:
    run = runs.get_or_compute("rank", KEY, compute)
    assert sorted(path.name for path in run.folder.iterdir()) == [
        "config.json",
        "figures.json",
        "provenance.json",
        "rows.parquet",
    ]
    assert [path.name for path in runs.folder.iterdir()] == [run.id]


def test_stored_steps_keep_shape_and_dtype(runs: Runs) -> None:
    arrays = [np.arange(6, dtype=np.float32).reshape(2, 3), np.array(7), np.zeros((0, 2))]
    work = RunWriter(runs.folder)
    work.save_step(lambda: arrays)
    again = RunWriter(runs.folder).save_step(lambda: pytest.fail("a stored step was computed again"))
    assert all(np.array_equal(a, b) and a.dtype == b.dtype for a, b in zip(arrays, again, strict=True))


WORKER = """
import sys
from pathlib import Path
from types import SimpleNamespace

# Only its version is stored, and importing it takes seconds.
sys.modules["torch"] = SimpleNamespace(__version__="2", get_num_threads=lambda: 1)

from core.workspace.runs import Runs

def work(run):
    print("begun", flush=True)
    sys.stdin.readline()

Runs(Path(sys.argv[1])).get_or_compute("rank", {"tasks": "abc", "damping": 0.1}, work)
"""


def start_worker(runs: Runs) -> subprocess.Popen[str]:
    """Start another process that computes the run until it reads a line."""
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


def test_a_run_in_progress_elsewhere_is_refused(runs: Runs) -> None:
    process = start_worker(runs)
    with pytest.raises(TransientError):
        runs.get_or_compute("rank", KEY, refuse)
    runs.get_or_compute("rank", {"tasks": "other"}, compute)
    process.communicate("go on\n")
    assert process.returncode == 0
    assert runs.get_or_compute("rank", KEY, refuse).kind == "rank"


def test_a_waiting_process_gets_the_run_of_another(runs: Runs) -> None:
    process = start_worker(runs)
    threading.Timer(0.3, process.communicate, ["go on\n"]).start()
    assert Runs(runs.folder, waits=True).get_or_compute("rank", KEY, refuse).kind == "rank"
    assert process.wait() == 0


def test_a_killed_process_releases_its_run(runs: Runs) -> None:
    process = start_worker(runs)
    process.kill()
    process.communicate()
    assert runs.get_or_compute("rank", KEY, compute).json("figures.json") == {"accuracy": 0.5}


def test_runs_are_listed_by_kind_newest_first(runs: Runs) -> None:
    kinds = ["edit-linear", "edit-finetune", "edit-linear"]
    made = [runs.get_or_compute(kind, {"n": number}, compute) for number, kind in enumerate(kinds)]
    for number, run in enumerate(made):
        described = run.json("provenance.json") | {"finished": f"2026-01-0{number + 1}T00:00:00+00:00"}
        described.pop("sequence")  # as earlier versions wrote it
        (run.folder / "provenance.json").write_text(json.dumps(described))
    assert runs.all("edit-linear") == [made[2], made[0]]
    assert runs.all("edit-finetune") == [made[1]]
    assert runs.all("edit") == []


def test_runs_finished_in_the_same_second_are_ordered(runs: Runs) -> None:
    made = [runs.get_or_compute("rank", {"n": number}, compute) for number in range(4)]
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}\+00:00", made[0].finished)
    times = ["2026-01-01T00:00:01+00:00", "2026-01-01T00:00:00.999+00:00", "2026-01-01T00:00:01.002+00:00"]
    for run, finished in zip(made, [*times, "2026-01-01T00:00:01.001+00:00"], strict=True):
        described = run.json("provenance.json") | {"finished": finished}
        described.pop("sequence")  # as earlier versions wrote it
        (run.folder / "provenance.json").write_text(json.dumps(described))
    assert runs.all("rank") == [made[2], made[3], made[0], made[1]]


@pytest.mark.parametrize("run_id", ["", ".", "..", "rank-000000000000", "../runs", "/etc", ".rank-0", "a\0b"])
def test_an_unknown_run_is_refused(runs: Runs, run_id: str) -> None:
    runs.get_or_compute("rank", KEY, compute)
    with pytest.raises(UserError, match=re.escape(repr(run_id))):
        runs.get(run_id)


@pytest.mark.parametrize("content", [None, b"", b"not a table"])
def test_a_damaged_table_is_named_in_the_error(runs: Runs, content: bytes | None) -> None:
    run: Run = runs.get_or_compute("rank", KEY, compute)
    if content is None:
        (run.folder / "rows.parquet").unlink()
    else:
        (run.folder / "rows.parquet").write_bytes(content)
    with pytest.raises(UserError, match=r"rows\.parquet"):
        run.table("rows.parquet")


def _archive(compression: int, shape: tuple[int, ...]) -> bytes:
    """An archive with the start of one array, whose compression method is unknown if it is not deflate."""
    stream, array = io.BytesIO(), io.BytesIO()
    header = {"descr": "<f8", "fortran_order": False, "shape": shape}
    np.lib.format.write_array_header_1_0(array, header)
    with zipfile.ZipFile(stream, "w", compression) as archive:
        archive.writestr("arr_0.npy", array.getvalue())
    return stream.getvalue().replace(struct.pack("<H", zipfile.ZIP_BZIP2), struct.pack("<H", 99))


BOMB, UNKNOWN = _archive(zipfile.ZIP_DEFLATED, (2**50,)), _archive(zipfile.ZIP_BZIP2, (1,))


@pytest.mark.parametrize("content", [b"", b"half", BOMB, UNKNOWN], ids=["empty", "half", "bomb", "unknown method"])
def test_a_damaged_step_is_computed_again(runs: Runs, content: bytes) -> None:
    RunWriter(runs.folder).save_step(lambda: [np.zeros(2)])
    (runs.folder / "memory" / "000000.npz").write_bytes(content)
    (again,) = RunWriter(runs.folder).save_step(lambda: [np.ones(2)])
    assert again.tolist() == [1, 1]
