"""Recorded measurements of experiments, for tests of their summaries.

``python -m tests.experiments.recorded NAME ...`` measures them again, after a change of an experiment's measurements.
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
    """Return the recorded measurements of an experiment, of its smallest profile on one data set."""
    return Path(__file__).parent / "figures" / f"{name}.parquet"


def measure(name: str, shell: Shell) -> Path:
    """Return the same table as measured now, or by an earlier call."""
    shell.done("experiments", name, *ASK, "--images", "mnist=mnist5k")
    (table,) = shell.folder.glob(
        f"home/library/experiments/runs/experiment-{EXPERIMENTS[name].stored_name}-*/figures.parquet"
    )
    return table


if __name__ == "__main__":
    for name in sys.argv[1:]:
        with tempfile.TemporaryDirectory() as folder:
            shutil.copy(measure(name, Shell(Path(folder))), recorded(name))
