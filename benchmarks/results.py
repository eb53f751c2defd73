"""Write the pages of docs/results from result folders: ``python -m benchmarks.results [--profile small]``.

Each experiment has one generated page, docs/results/NAME.md, with its images in docs/pictures/results. The summary
docs/results.md is written by hand.
"""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Annotated

import typer

from core.experiments.catalog import EXPERIMENTS, experiment_of
from core.experiments.results import as_markdown, read_result
from core.experiments.run import result_folder
from core.runtime.files import write_text_atomically

DOCS = Path(__file__).resolve().parents[1] / "docs"


def write_page(folder: Path, docs: Path = DOCS) -> Path:
    """Write the page of the result in ``folder`` and copy its images; return the page's path.

    Raises:
        UserError: the result is missing or damaged.
    """
    result = read_result(folder)
    name, pictures = experiment_of(result.config["experiment"]).name, docs / "pictures" / "results"
    pictures.mkdir(parents=True, exist_ok=True)
    for kind, parts in (("plots", result.plots), ("grids", result.grids)):
        for part in parts:
            shutil.copy(folder / kind / f"{part.name}.png", pictures / f"{name}-{part.name}.png")
    page = docs / "results" / f"{name}.md"
    page.parent.mkdir(parents=True, exist_ok=True)
    prefix = f"../pictures/results/{name}-"
    write_text_atomically(page, as_markdown(result, prefix, prefix))
    return page


def main(profile: Annotated[str, typer.Option(help="Profile of the results.")] = "small") -> None:
    """Write the page of every experiment that has a result on this machine."""
    for name in EXPERIMENTS:
        folder = result_folder(name, profile)
        has_result = (folder / "config.json").exists()
        print(f"{name}: {write_page(folder) if has_result else f'no result in {folder}'}")


if __name__ == "__main__":
    typer.run(main)
