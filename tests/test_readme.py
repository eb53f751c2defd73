"""Every command of the README does what it says: those of the command line run here, in their order."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.documented import ROOT, Documented

BLOCKS = re.findall(r"```bash\n(.*?)```", (ROOT / "README.md").read_text(encoding="utf-8"), re.DOTALL)
LINES = [line.split("#")[0].strip() for block in BLOCKS for line in block.splitlines() if line.strip()]
ELSEWHERE = {"make run": "Makefile", "make test": "Makefile", "tasklens demo": ".ci/run"}
"""Commands run by .ci/run rather than here, and where they stand."""


def test_every_command_is_known() -> None:
    assert [line for line in LINES if not line.startswith("tasklens ") and line not in ELSEWHERE] == []
    for line, file in ELSEWHERE.items():
        assert line in LINES
        assert line.removeprefix("make ") in (ROOT / file).read_text(encoding="utf-8")


@pytest.mark.timeout(900)
@pytest.mark.slow
@pytest.mark.parametrize("own", [True, False], ids=["on own tasks", "on the demo and experiments"])
def test_the_commands_run_in_their_order(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, own: bool) -> None:
    documented = Documented(tmp_path, monkeypatch)
    here = [line for line in LINES if line not in ELSEWHERE and ("mine" in line) == own]
    assert len(here) >= 7
    for number, line in enumerate(here):
        run = documented.line if number else documented.bash  # the first as the reader runs it, in a process of its own
        assert any(run(line)), f"{line} printed no result"
