"""Spoil the files of a home: each is named or does no harm, and everything else is still there."""

from __future__ import annotations

import random
import tempfile
from collections import Counter
from pathlib import Path

from tests.workspace.test_spoilt_files import DEMO, all_spoilings, check, make_home, read_everything


def attack_homes(cases: int) -> tuple[Counter[str], list[str]]:
    """Return how many spoilt files were ``named`` or ``accepted``, and those that did harm; ``cases`` at random."""
    counts, wrong = Counter[str](), []
    with tempfile.TemporaryDirectory() as temporary:
        make_home(Path(temporary) / "home")
        workspace = Path(temporary) / "home" / DEMO
        whole, every = read_everything(workspace), all_spoilings(workspace)
        for case in random.Random(18).sample(every, min(cases, len(every))):
            try:
                counts[check(workspace, whole, case)] += 1
            except Exception as error:  # what the attack looks for
                wrong.append(f"{case.file.relative_to(workspace)}, {case.name}: {error!r}")
    return counts, wrong
