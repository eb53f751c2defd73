"""The pages of docs/results: generated from a result folder, and all published ones have the generated form."""

from __future__ import annotations

import re
from dataclasses import asdict
from pathlib import Path

import pandas as pd
import pytest

from benchmarks.results import DOCS, write_page
from core.experiments.catalog import EXPERIMENTS
from core.experiments.drawing import draw_result
from core.experiments.profiles import PROFILES
from core.experiments.results import LONG_TRAINED, ExperimentResult, Plot, Series, Table, setup_lines, write_result


def result_of(name: str) -> ExperimentResult:
    config = {
        "experiment": name,
        "title": EXPERIMENTS[name].title,
        "words": EXPERIMENTS[name].description,
        "profile": "tiny",
        "settings": asdict(PROFILES["tiny"]),
        "images": {"mnist": "mnist5k"},
        "seeds": 2,
        "processor_seconds": 90.0,
        "command": f"python -m core experiments {name} --profile tiny",
    }
    plot = Plot("curve", "A curve", "lines", "x", "y", [Series("s", [0.0, 1.0], [0.1, 0.2])], note="A note.")
    table = Table("t", "MNIST", ["method", "accuracy"], [["Retraining", "0.8"]], "About the table.")
    return ExperimentResult(config, ["**MNIST.** A finding."], [table], [plot])


def test_a_page_is_written_from_a_result_folder(tmp_path: Path) -> None:
    folder, docs = tmp_path / "result", tmp_path / "docs"
    result = result_of("figure2")
    write_result(folder, result, pd.DataFrame({"seed": [0]}))
    draw_result(folder, result)
    page = write_page(folder, docs)
    assert page == docs / "results" / "figure2.md"
    text = page.read_text("utf-8")
    wanted = [EXPERIMENTS["figure2"].title, EXPERIMENTS["figure2"].description, *setup_lines(result.config)]
    wanted += [*result.findings, "| Retraining | 0.8 |", "About the table.", "A note."]
    places = [text.index(part) for part in wanted]
    assert places[:-1] == sorted(places[:-1])
    (link,) = re.findall(r"\]\((\S+)\)", text)
    assert (page.parent / link).stat().st_size > 500


@pytest.mark.parametrize("name", EXPERIMENTS)
def test_the_setup_names_the_sizes(name: str) -> None:
    config = result_of(name).config
    text, settings = "\n".join(setup_lines(config)), config["settings"]
    training = settings["training"]["mnist"]
    for part in ("MNIST", "`tiny`", str(settings["filters"]), str(training["iterations"]), config["command"]):
        assert part in text
    longer = settings["training"] | {"omniglot": training | {"iterations": 54321}}
    both = config | {"settings": settings | {"training": longer}, "images": {"mnist": "m", "omniglot": "o"}}
    assert "Omniglot: 54,321" in "\n".join(setup_lines(both))
    earlier = settings | {"training": training, "long": training | {"iterations": 12345}}
    assert ("12,345" in "\n".join(setup_lines(config | {"settings": earlier}))) == (name in LONG_TRAINED)
    assert [line.split(":")[0] for line in setup_lines({"command": "c"})] == ["Command"]


@pytest.mark.parametrize("name", EXPERIMENTS)
def test_every_experiment_has_a_published_page(name: str) -> None:
    page = DOCS / "results" / f"{name}.md"
    text = page.read_text("utf-8")
    assert text.startswith(f"# {EXPERIMENTS[name].title}\n\n{EXPERIMENTS[name].description}\n")
    assert next(line for line in text.splitlines() if line.startswith("## ")) == "## Findings"
    links = re.findall(r"\]\((\S+)\)", text)
    assert links
    assert all((page.parent / link).stat().st_size > 1000 for link in links)
    assert f"](results/{name}.md)" in (DOCS / "results.md").read_text("utf-8")


def test_the_summary_is_about_two_pages() -> None:
    assert len((DOCS / "results.md").read_text("utf-8").split()) < 1400
