"""Repeated ``kill -9``: acknowledged operations are in the log, and repeated ones are there once."""

from __future__ import annotations

import os
import random
import signal
import sqlite3
import subprocess
import sys
import time
from contextlib import closing
from pathlib import Path

import pytest

from core.decisions.causes import CAUSES
from core.decisions.log import Decision, DecisionLog, Item, Operation

ROOT = Path(__file__).parents[2]

# It forks a writer for each line it reads (a start of Python for each would take minutes) and says its number.
# A writer sends the operations from a number on, in batches as a browser does, and says the last token that was saved.
WRITERS = """
import os, signal, sys
from pathlib import Path
from core.decisions.log import DecisionLog
from tests.decisions.test_log_kill import batch
signal.signal(signal.SIGCHLD, signal.SIG_IGN)
for line in sys.stdin:
    if child := os.fork():
        os.write(1, f"writer {child}\\n".encode())  # in one call, as other processes write too
        continue
    number, log = int(line), DecisionLog(Path(sys.argv[1]), 200)
    while True:
        operations = batch(number)
        log.submit(operations)
        number += len(operations)
        os.write(1, f"saved {number}\\n".encode())
"""


def operation(number: int) -> Operation:
    """Return operation ``number`` of an endless session: decisions with an occasional undo and redo."""
    token, reviewer = f"token {number}", "Ann" if number % 3 else "Bob"
    if number % 10 == 7:
        return Operation("undo", reviewer, token)
    if number % 20 == 18:
        return Operation("redo", reviewer, token)
    item, verdict = Item("image", image_id=f"{number % 50}.png"), "remove" if number % 4 else "keep"
    return Operation("decide", reviewer, token, (Decision(item, verdict, None, token, cause=CAUSES[number % 3]),))


def batch(number: int) -> list[Operation]:
    return [operation(number + step) for step in range(1 + number % 5)]


@pytest.mark.parametrize("kills", [10, pytest.param(100, marks=pytest.mark.slow)])
def test_kills_lose_no_acknowledged_operation_and_repeat_none(tmp_path: Path, kills: int) -> None:
    path, chance, sent_from, saved = tmp_path / "log.sqlite", random.Random(0), 0, 0
    command = [sys.executable, "-c", WRITERS, str(path)]
    with subprocess.Popen(command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, bufsize=0) as writers:
        assert writers.stdin is not None
        assert writers.stdout is not None
        for _ in range(kills):
            # As after a crash of the browser, some acknowledged operations are sent again too.
            sent_from = max(0, saved - chance.randrange(4))
            writers.stdin.write(f"{sent_from}\n".encode())
            while (line := writers.stdout.readline().split())[0] != b"writer":
                saved = max(saved, int(line[1]))  # reported by the previous process as it ended
            for _ in range(chance.randrange(3)):
                saved = max(saved, int(writers.stdout.readline().split()[1]))
            time.sleep(chance.random() * 0.02)
            os.kill(int(line[1]), signal.SIGKILL)
            with closing(sqlite3.connect(path)) as connection:
                tables = connection.execute("SELECT count(*) FROM sqlite_master WHERE name = 'tokens'").fetchone()[0]
                known = tables and connection.execute("SELECT count(*) FROM tokens").fetchone()[0]
                assert known >= saved
                assert connection.execute("PRAGMA integrity_check").fetchone() == ("ok",)
        writers.stdin.close()
        writers.kill()
    log = DecisionLog(path)
    everything = [operation(number) for number in range(saved + 10)]
    log.submit(everything)
    with closing(sqlite3.connect(path)) as connection:
        tokens = [token for (token,) in connection.execute("SELECT token FROM tokens ORDER BY rowid")]
    assert tokens[: len(everything)] == [one.token for one in everything]
    expected = DecisionLog(tmp_path / "expected.sqlite")
    expected.submit([operation(number) for number in range(len(tokens))])

    def history_of(log: DecisionLog) -> list[tuple]:
        return [
            (e.seq, e.group, e.item, e.outcome, e.cause, e.reason, e.reviewer, e.by, e.undoes) for e in log.history()
        ]

    assert saved > kills
    assert history_of(log) == history_of(expected)
