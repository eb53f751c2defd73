"""docs/models.md does what it says: its blocks run here in their order."""

from __future__ import annotations

import importlib
import re
from pathlib import Path

import pytest

from tests.documented import ROOT, Documented
from tests.needs import learn2learn

TEXT = (ROOT / "docs" / "models.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"```(bash|python)\n(.*?)```", TEXT, re.DOTALL)
ELSEWHERE = "make learn2learn\n"
"""Run by `make test`; this test asks for what it installs."""


def test_the_blocks_run_in_their_order(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    learn2learn()
    documented = Documented(tmp_path, monkeypatch)
    (tmp_path / "code").mkdir()  # an import of a command that runs before would remember that there is no such folder
    monkeypatch.syspath_prepend(str(tmp_path / "code"))
    ran = []
    for language, block in BLOCKS:
        if block == ELSEWHERE:
            continue
        if file := re.match(r"# (\S+\.py)\n", block):
            Path(file[1]).parent.mkdir(exist_ok=True)
            Path(file[1]).write_text(block)
            importlib.invalidate_caches()
        elif language == "python":
            exec(compile(block, "docs/models.md", "exec"), {})
        else:
            assert documented.block(block), f"{block} printed no result"
        ran.append(language)
    assert (ran.count("python"), ran.count("bash")) == (4, 3)
    assert ("bash", ELSEWHERE) in BLOCKS
    assert "\nlearn2learn:" in (ROOT / "Makefile").read_text(encoding="utf-8")
