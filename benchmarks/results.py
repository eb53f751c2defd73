"""Put what experiments found into docs/results.md: ``python -m benchmarks.results [--profile small]``.

Between the marks ``<!-- NAME -->`` and ``<!-- /NAME -->`` of that page everything is taken from the folder of the
experiment NAME; what stands outside them is written by hand. Pictures go to docs/pictures/results.
"""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Annotated

import typer

from core.experiments.catalog import EXPERIMENTS
from core.experiments.conduct import result_folder
from core.experiments.results import Result, markdown_rows, read_result

PAGE = Path(__file__).resolve().parents[1] / "docs" / "results.md"
PICTURES = PAGE.parent / "pictures" / "results"


def section(name: str, result: Result) -> str:
    """What stands between the marks."""
    lines = [f"`{result.config['command']}`", ""]
    lines += [f"- {said}" for said in result.says]
    for table in result.tables:
        lines += ["", f"**{table.title}**", "", *markdown_rows(table), *(["", table.note] if table.note else [])]
    for part in (*result.plots, *result.grids):
        lines += ["", f"![{part.title}](pictures/results/{name}-{part.name}.png)"]
    minutes = result.config["processor_seconds"] / 60
    told = f"{result.config['seeds']} seeds; {minutes:.0f} minutes of processor time"
    lines += ["", f"{told}, without what earlier experiments had made."]
    return "\n".join(lines)


def main(profile: Annotated[str, typer.Option(help="Whose results.")] = "small") -> None:
    """Fill the page."""
    text = PAGE.read_text("utf-8")
    PICTURES.mkdir(parents=True, exist_ok=True)
    for name in EXPERIMENTS:
        folder = result_folder(name, profile)
        if not (folder / "config.json").exists():
            print(f"{name}: no results in {folder}")
            continue
        result = read_result(folder)
        for kind, parts in (("plots", result.plots), ("grids", result.grids)):
            for part in parts:
                shutil.copy(folder / kind / f"{part.name}.png", PICTURES / f"{name}-{part.name}.png")
        before, begins, rest = text.partition(f"<!-- {name} -->\n")
        _, ends, after = rest.partition(f"<!-- /{name} -->")
        if begins and ends:
            text = f"{before}{begins}{section(name, result)}\n{ends}{after}"
        print(f"{name}: {'filled' if begins and ends else 'the page has no such marks'}")
    PAGE.write_text(text, "utf-8")


if __name__ == "__main__":
    typer.run(main)
