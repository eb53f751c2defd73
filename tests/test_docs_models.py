"""docs/models.md does what it says: its blocks run here in their order, and its sentences are those of the code."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.needs import learn2learn

ROOT = Path(__file__).resolve().parents[1]
TEXT = (ROOT / "docs" / "models.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"```(bash|python)\n(.*?)```", TEXT, re.DOTALL)
ELSEWHERE = "make learn2learn\n"
"""Run by `make test`; this test asks for what it installs."""


def test_the_blocks_run_in_their_order(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    learn2learn()
    (tmp_path / "core").symlink_to(ROOT / "core")  # the commands are meant for the folder of TaskLens
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path / "code"))
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    env = {**os.environ, "TASKLENS_HOME": str(tmp_path / "home"), "PATH": path}
    ran = []
    for language, block in BLOCKS:
        if block == ELSEWHERE:
            continue
        if file := re.match(r"# (\S+\.py)\n", block):
            Path(file[1]).parent.mkdir(exist_ok=True)
            Path(file[1]).write_text(block)
        elif language == "python":
            exec(compile(block, "docs/models.md", "exec"), {})
        else:
            done = subprocess.run(["bash", "-euc", block], env=env, capture_output=True, text=True, check=False)
            assert done.returncode == 0, f"{block}\n{done.stderr}"
            assert done.stdout.strip(), f"{block} printed no result"
        ran.append(language)
    assert (ran.count("python"), ran.count("bash")) == (4, 3)
    assert ("bash", ELSEWHERE) in BLOCKS
    assert "\nlearn2learn:" in (ROOT / "Makefile").read_text(encoding="utf-8")


def test_the_sentences_are_those_of_the_code() -> None:
    """Every quoted sentence, up to what is filled in, stands in the source."""
    source = "".join(path.read_text(encoding="utf-8") for path in (ROOT / "core" / "maml").glob("*.py"))
    source = re.sub(r'"\n\s*f?"', "", source).replace("{what} takes no", "The backbone cnn4 takes no")
    section = TEXT[TEXT.index("## What else is refused") : TEXT.index("## How far")]
    quoted = re.findall(r"\| `([^`|]+)` \|\n", section)
    assert len(quoted) >= 8
    for sentence in quoted:
        start = re.split(r" \.\.\.| \d+|: '|--activation", sentence)[0]
        assert start in source, sentence
