"""Damage what users give: every reader, every kind of bad file, and files with changed bytes."""

from __future__ import annotations

import os
import random
import tempfile
from collections import Counter
from collections.abc import Callable
from functools import partial
from pathlib import Path

from core.runtime import roots
from tests.reader_inputs import READERS
from tests.test_reader_guards import EVERYWHERE, SPECIAL, mutated, outcomes_of


def attack_files(mutations: int) -> tuple[Counter[str], list[str]]:
    """Return how many readings ended ``read`` or ``refused``, and those that failed; ``mutations`` per reader."""
    counts, wrong = Counter[str](), []
    for name, one in READERS.items():
        with tempfile.TemporaryDirectory() as temporary:
            reads: dict[str, Callable[[], object]] = {}
            for guard in EVERYWHERE:
                reads[guard] = partial(_put_and_read, Path(temporary, f"guard {len(reads)}"), name, guard)
            for guard, content in SPECIAL[name].items():
                reads[guard] = partial(_write_and_read, Path(temporary, f"guard {len(reads)}"), name, content)
            valid = Path(temporary, "valid")
            valid.mkdir()
            one.make(valid)
            whole = (valid / one.target).read_bytes()
            for seed in range(mutations):
                content = partial(mutated, whole, random.Random(f"attack {name} {seed}"))
                reads[f"bytes {seed}"] = partial(_write_and_read, Path(temporary, "changed"), name, content)
            for case, outcome in outcomes_of(reads).items():
                counts[outcome.partition(":")[0]] += 1
                if outcome.startswith("failed"):
                    wrong.append(f"{name}, {case}: {outcome}")
    return counts, wrong


def _put_and_read(folder: Path, name: str, guard: str) -> None:
    # Called in a process of its own, which may change its roots.
    folder.mkdir()
    READERS[name].make(folder)
    os.environ["TEST_FOLDER"] = str(folder)
    roots.restrict([folder])
    EVERYWHERE[guard](folder / READERS[name].target)
    READERS[name].read(folder)


def _write_and_read(folder: Path, name: str, content: Callable[[], bytes]) -> None:
    roots.restrict([folder])
    if not folder.exists():
        folder.mkdir()
        READERS[name].make(folder)
    (folder / READERS[name].target).write_bytes(content())
    READERS[name].read(folder)
