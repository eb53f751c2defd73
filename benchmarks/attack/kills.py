"""Kill those who write decisions: what was acknowledged is in the log, and what was sent again is there once."""

from __future__ import annotations

import tempfile
from pathlib import Path

from tests.decisions.test_log_kill import test_kills_lose_no_acknowledged_operation_and_repeat_none as kill


def attack_writers(kills: int) -> list[str]:
    """Return what was lost or repeated."""
    with tempfile.TemporaryDirectory() as temporary:
        try:
            kill(Path(temporary), kills)
        except AssertionError as error:
            return [str(error)]
    return []
