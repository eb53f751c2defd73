"""Progress of long work: its parts, and the time left where an earlier run finished some of it."""

from __future__ import annotations

import pytest

from core.runtime import progress as module
from core.runtime.progress import NamedProgress, Progress, SubProgress


class Clock:
    """A clock that stands still between ``seconds`` of work."""

    def __init__(self) -> None:
        self.now = 100.0

    def monotonic(self) -> float:
        return self.now

    def work(self, progress: Progress, units: int, seconds: float) -> None:
        self.now += seconds
        progress.advance(units)


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(module, "time", clock)
    return clock


class Steps(Progress):
    """A reporter that keeps what it reports."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[int] = []

    def _report(self, force: bool) -> None:
        self.seen.append(self._done)


def test_a_part_advances_its_share_whatever_it_reports() -> None:
    steps = Steps()
    steps.stage("all", 20)
    for _ in range(2):
        part = SubProgress(steps, 10)
        part.stage("one", 4)
        part.advance(2)
        part.stage("another", 3)
        part.advance()
        part.finish()
    assert steps.seen == sorted(steps.seen)
    assert steps.state().done == 20


def test_the_time_left_is_that_of_the_units_not_yet_done(clock: Clock) -> None:
    progress = Progress()
    progress.stage("work", 100)
    assert progress.state().left is None
    clock.work(progress, 20, 40.0)
    assert progress.state().left == pytest.approx(160.0)


def test_units_of_an_earlier_run_are_no_speed(clock: Clock) -> None:
    progress = Progress()
    progress.stage("work", 100, done=40)
    progress.skip(40)
    assert (progress.state().done, progress.state().left) == (80, None)
    clock.work(progress, 10, 60.0)
    assert progress.state().left == pytest.approx(60.0)


@pytest.mark.parametrize("found", [0, 1, 8])
def test_parts_that_were_found_are_no_speed(clock: Clock, found: int) -> None:
    progress = Progress()
    progress.stage("repetitions", 10_000)
    for _ in range(found):
        SubProgress(progress, 1000).finish()
    part = SubProgress(progress, 1000)
    inner = SubProgress(NamedProgress(part, "seed 0"), 2)
    part.stage("measurements", 4)
    inner.finish()
    inner = SubProgress(part, 2)
    inner.stage("training", 1000)
    clock.work(inner, 1000, 600.0)
    inner.finish()
    part.finish()
    assert progress.state().done == 1000 * (found + 1)
    assert progress.state().left == pytest.approx(1200.0 * (9 - found), rel=0.01)


def test_a_part_that_resumes_counts_what_is_new(clock: Clock) -> None:
    progress = Progress()
    progress.stage("repetitions", 2000)
    part = SubProgress(progress, 1000)
    part.stage("training", 600, done=300)
    clock.work(part, 300, 30.0)
    part.finish()
    assert progress.state().done == 1000
    assert progress.state().left == pytest.approx(60.0, rel=0.01)


def test_a_part_of_stages_that_an_earlier_run_finished_is_no_speed(clock: Clock) -> None:
    progress = Progress()
    progress.stage("repetitions", 2000)
    part = SubProgress(progress, 1000)
    part.stage("retraining", 8)
    part.skip(8)
    part.finish()
    clock.now += 5.0
    assert (progress.state().done, progress.state().left) == (1000, None)
