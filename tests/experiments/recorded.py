"""Figures of experiments that were measured before, for tests of what is made of them.

``python -m tests.experiments.recorded NAME ...`` measures them again, after a change of what an experiment gives.
"""

from __future__ import annotations

import shutil
import sys
import tempfile
from pathlib import Path

from core.experiments.catalog import EXPERIMENTS
from tests.cli.shell import Shell

ASK = ("--profile", "tiny", "--seeds", "1", "--device", "cpu")


def recorded(name: str) -> Path:
    """The table of an experiment's figures, of its smallest profile on one data set."""
    return Path(__file__).parent / "figures" / f"{name}.parquet"


def measure(name: str, shell: Shell) -> Path:
    """The same table as measured now, or found again."""
    shell.done("experiments", name, *ASK, "--images", "mnist=mnist5k")
    (table,) = shell.folder.glob(
        f"home/library/experiments/runs/experiment-{EXPERIMENTS[name].stored_name}-*/figures.parquet"
    )
    return table


if __name__ == "__main__":
    for name in sys.argv[1:]:
        with tempfile.TemporaryDirectory() as folder:
            shutil.copy(measure(name, Shell(Path(folder))), recorded(name))
