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


def test_the_speed_excludes_units_of_an_earlier_run(clock: Clock) -> None:
    progress = Progress()
    progress.stage("work", 100, done=40)
    NamedProgress(progress, "seed 0").skip(40)
    assert (progress.state().done, progress.state().left) == (80, None)
    clock.work(progress, 10, 60.0)
    assert progress.state().left == pytest.approx(60.0)


@pytest.mark.parametrize("cached", [0, 1, 8])
def test_the_speed_excludes_cached_parts(clock: Clock, cached: int) -> None:
    progress = Progress()
    progress.stage("repetitions", 10_000)
    for _ in range(cached):
        part = SubProgress(progress, 1000)
        part.finish(is_cached=not part.has_begun)
    part = SubProgress(progress, 1000)
    part.stage("training", 600, done=300)
    clock.work(part, 300, 300.0)
    part.stage("scores", 2)
    clock.work(part, 2, 300.0)
    part.finish(is_cached=not part.has_begun)
    assert progress.state().done == 1000 * (cached + 1)
    assert progress.state().left == pytest.approx(600.0 * (9 - cached))
