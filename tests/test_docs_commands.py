"""The command line knows every command and option of every page of the documentation; other tests run them."""

from __future__ import annotations

import re

import pytest

from tests.documented import ROOT, check_options

PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
COMMANDS = [
    (page.name, line)
    for page in PAGES
    for block in re.findall(r"```bash\n(.*?)```", page.read_text(encoding="utf-8").replace("\\\n", " "), re.DOTALL)
    for line in block.splitlines()
    if re.search(r"-m core |\btasklens ", line)
]


def test_there_are_commands() -> None:
    assert len(COMMANDS) > 50
    assert len({page for page, _ in COMMANDS}) >= 7


@pytest.mark.parametrize(("page", "line"), COMMANDS)
def test_its_options_are_known(page: str, line: str) -> None:
    check_options(line)


def test_others_are_not() -> None:
    with pytest.raises(Exception, match="No such option"):
        check_options("python -m core rank --workspace mine --nothing")
