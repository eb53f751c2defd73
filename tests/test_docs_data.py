"""Every command of docs/data.md, and of the README's table of formats, does what it says, on small look-alikes."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest

from core.data.readers import READERS
from tests.cli.shell import Shell
from tests.lookalikes import make_all

ROOT = Path(__file__).resolve().parents[1]
DOCS = (ROOT / "docs" / "data.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"```bash\n(.*?)```", DOCS, re.DOTALL)
IN_DOCS = [line for block in BLOCKS for line in block.splitlines() if line.strip()]
TABLE = re.findall(r"^\|.*\| `(tasklens data [^`]*)` \|$", (ROOT / "README.md").read_text("utf-8"), re.MULTILINE)


@pytest.fixture
def shell(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Shell:
    make_all(tmp_path)
    monkeypatch.chdir(tmp_path)
    return Shell(tmp_path)


def arguments(line: str) -> list[str]:
    words = shlex.split(line)
    assert words[0] == "tasklens", line
    return words[1:]


def test_the_commands_of_the_documentation_run_in_their_order(shell: Shell) -> None:
    assert len(IN_DOCS) >= 15
    for line in IN_DOCS:
        assert shell.done(*arguments(line)).out, line


def test_every_row_of_the_table_of_formats_reads_its_format(shell: Shell) -> None:
    assert len(TABLE) == len(READERS)
    read = [shell.done(*arguments(line)).path for line in TABLE]
    assert len(set(read)) == len(READERS)
    assert all((folder / "pixels.npy").is_file() for folder in read)


def test_every_format_has_its_section() -> None:
    sections = "".join(re.findall(r"^### (.*)$", DOCS, re.MULTILINE))
    assert [name for name in READERS if f"`{name}`" not in sections] == []
