"""Optional libraries: named if missing, not imported before they are used; scores that cannot rank."""

from __future__ import annotations

import sys

import numpy as np
import pytest

from core.baselines.libraries import checked_scores, require
from core.influence.scores import ALL_ZERO, NOT_FINITE, ScoresError
from core.runtime.errors import UserError


def test_a_missing_library_is_named_with_the_command_that_installs_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "cleanlab", None)
    monkeypatch.delitem(sys.modules, "cleanlab.rank", raising=False)
    with pytest.raises(UserError) as caught:
        require("cleanlab.rank")
    assert "cleanlab" in caught.value.what
    assert "requirements-baselines.txt" in caught.value.fix


@pytest.mark.parametrize(("bad", "fault"), [(np.nan, NOT_FINITE), (np.inf, NOT_FINITE), (0.0, ALL_ZERO)])
def test_scores_that_cannot_rank_are_refused(bad: float, fault: str) -> None:
    with pytest.raises(ScoresError, match="TRAK") as caught:
        checked_scores(np.array([[0.0, bad]]), "TRAK")
    assert caught.value.fault == fault


def test_scores_are_converted_to_float64() -> None:
    assert checked_scores(np.ones((2, 3), dtype=np.float32), "TRAK").dtype == np.float64
