"""docs/experiments.md does what it says: its commands run here in their order, by one process and by two."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from core.experiments.catalog import EXPERIMENTS
from core.experiments.conduct import result_folder
from core.experiments.profiles import PROFILES
from core.experiments.results import read_result
from tests.documented import ROOT, Documented

TEXT = (ROOT / "docs" / "experiments.md").read_text(encoding="utf-8")
RESULTS = (ROOT / "docs" / "results.md").read_text(encoding="utf-8")


@pytest.mark.slow
def test_the_commands_run_in_their_order(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    documented = Documented(tmp_path, monkeypatch)
    blocks = re.findall(r"```bash\n(.*?)```", TEXT, re.DOTALL)
    assert len(blocks) == 3
    *_, folder = [documented.block(block)[-1] for block in blocks]
    told = read_result(Path(folder))
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
