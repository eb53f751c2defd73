"""Optional libraries: asked for by name when missing, not imported before they are used; scores that rank nothing."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest

from core.baselines.libraries import checked_scores, require
from core.runtime.errors import UserError


def test_a_missing_library_is_named_with_the_command_that_installs_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "cleanlab", None)
    monkeypatch.delitem(sys.modules, "cleanlab.rank", raising=False)
    with pytest.raises(UserError, match=r"package cleanlab, .*requirements-baselines\.txt"):
        require("cleanlab.rank")


def test_no_library_is_imported_before_it_is_used() -> None:
    code = """
import sys
import core.baselines.trak, core.baselines.ekfac, core.baselines.confidence
heavy = {"dattri", "kronfluence", "cleanlab", "curvlinops", "torchopt", "accelerate", "sklearn"}
print(sorted(heavy & {name.partition(".")[0] for name in sys.modules}))
"""
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert out.stdout.strip() == "[]"


@pytest.mark.parametrize(("bad", "what"), [(np.nan, "not finite"), (np.inf, "not finite"), (0.0, "all zero")])
def test_scores_that_rank_nothing_are_refused(bad: float, what: str) -> None:
    with pytest.raises(UserError, match=f"The TRAK scores are {what}"):
        checked_scores(np.array([[0.0, bad]]), "TRAK")


def test_scores_leave_as_float64() -> None:
    assert checked_scores(np.ones((2, 3), dtype=np.float32), "TRAK").dtype == np.float64
