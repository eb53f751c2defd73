"""The commands of docs/experiments.md run in their order, in one process and in two."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from core.experiments.catalog import EXPERIMENTS
from core.experiments.profiles import PROFILES
from core.experiments.results import read_result
from core.experiments.run import result_folder
from tests.documented import ROOT, Documented

TEXT = (ROOT / "docs" / "experiments.md").read_text(encoding="utf-8")


@pytest.mark.slow
def test_the_commands_run_in_their_order(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    documented = Documented(tmp_path, monkeypatch)
    blocks = re.findall(r"```bash\n(.*?)```", TEXT, re.DOTALL)
    assert len(blocks) == 3
    *_, folder = [documented.block(block)[-1] for block in blocks]
    config = read_result(Path(folder)).config
    assert (config["seeds"], config["processes"]) == (2, 2)  # the other process took the second seed


def test_the_page_names_every_experiment_and_profile() -> None:
    for name in EXPERIMENTS:
        assert f"| `{name}` |" in TEXT
    assert all(f"- `{name}`" in TEXT for name in PROFILES)
    assert str(result_folder("figure2", "tiny")).endswith("experiments/figure2-tiny")
