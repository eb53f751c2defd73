"""Messages on stderr: their line feeds are printed, and nothing in them controls the terminal."""

from __future__ import annotations

import pytest

from core.cli.common import message


def test_line_feeds_are_printed_and_other_controls_are_not(capsys: pytest.CaptureFixture[str]) -> None:
    message("\ninstances: a\x1b[2Jb\r")
    assert capsys.readouterr().err == "\ninstances: a\\x1b[2Jb\\r\n"
