"""docs/experiments.md does what it says: its commands run here in their order, by one process and by two."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

from core.experiments.catalog import EXPERIMENTS
from core.experiments.conduct import result_folder
from core.experiments.profiles import PROFILES
from core.experiments.results import read_result
from core.runtime.files import HOME_VARIABLE
from tests.test_cli import ROOT

TEXT = (ROOT / "docs" / "experiments.md").read_text(encoding="utf-8")
RESULTS = (ROOT / "docs" / "results.md").read_text(encoding="utf-8")


def test_the_commands_run_in_their_order(tmp_path: Path) -> None:
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    env = {**os.environ, HOME_VARIABLE: str(tmp_path / "home"), "PATH": path, "PYTHONPATH": str(ROOT)}
    blocks = re.findall(r"```bash\n(.*?)```", TEXT, re.DOTALL)
    assert len(blocks) == 3
    for block in blocks:
        done = subprocess.run(
            ["bash", "-euc", block], cwd=tmp_path, env=env, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, f"{block}\n{done.stderr}"
    folder = Path(done.stdout.splitlines()[-1])
    told = read_result(folder)
    assert (told.config["seeds"], told.config["processes"]) == (2, 2)  # the second seed was dealt to the other process


def test_the_page_names_every_experiment_and_profile() -> None:
    for name in EXPERIMENTS:
        assert f"| `{name}` |" in TEXT
        assert f"<!-- {name} -->" in RESULTS
        assert f"<!-- /{name} -->" in RESULTS
    assert all(f"- `{name}`" in TEXT for name in PROFILES)
    assert str(result_folder("figure2", "tiny")).endswith("experiments/figure2-tiny")


def test_the_pictures_of_the_results_are_there() -> None:
    links = re.findall(r"\]\((pictures/\S+)\)", RESULTS)
    assert links
    for link in links:
        assert (ROOT / "docs" / link).stat().st_size > 1000
