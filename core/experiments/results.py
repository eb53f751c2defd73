"""What an experiment leaves behind, as one folder that the page, a notebook and a reader can open.

::

    config.json          experiment, profile, image sets, seeds, command, versions
    says.json            sentences that say what it shows
    seeds.parquet        every figure of every seed
    tables/NAME.csv      the tables as text, with NAME.json: title, columns, rows
    plots/NAME.json      what is drawn, with NAME.png and NAME.svg
    grids/NAME.json      pictures with scores, with NAME.png
    README.md            all of it, to read
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import pandas as pd
from pydantic import TypeAdapter, ValidationError

from core.runtime.errors import UserError
from core.runtime.files import disk_errors, read_json, write_json, write_text_atomically

KINDS = ("lines", "dots", "bars")


@dataclass(frozen=True)
class Series:
    """One line, or one set of dots or bars, with a band or whiskers where ``low`` and ``high`` are given.

    Attributes:
        x: Places; of ``dots`` and ``bars`` they may be words.
        estimate: Drawn hollow or dashed: it is estimated, not measured.
        reference: Drawn grey: chance, the unedited model, the figure of the paper.
    """

    name: str
    x: list[float] | list[str]
    y: list[float]
    low: list[float] | None = None
    high: list[float] | None = None
    estimate: bool = False
    reference: bool = False


@dataclass(frozen=True)
class Plot:
    """What a plot shows; drawn by :mod:`core.experiments.drawing` on disk and by the page for the browser.

    Attributes:
        name: Of its files.
        kind: One of :data:`KINDS`.
        percent_x, percent_y: Values are shares, to be written in per cent.
        note: What low and high are, and whatever a reader must know.
    """

    name: str
    title: str
    kind: str
    x_label: str
    y_label: str
    series: list[Series]
    percent_x: bool = False
    percent_y: bool = False
    log_x: bool = False
    note: str = ""


@dataclass(frozen=True)
class Table:
    """A table as it is printed: all cells are texts."""

    name: str
    title: str
    columns: list[str]
    rows: list[list[str]]
    note: str = ""


@dataclass(frozen=True)
class Picture:
    """One row of a grid: the pictures of one task, or one picture.

    Attributes:
        images: Ids, in the order shown.
        words: What stands beside them, such as the classes.
        score: Positive helps, negative harms; ``spread`` is its standard deviation over seeds, if there are several.
    """

    title: str
    images: list[str]
    words: str
    score: float
    spread: float | None = None


@dataclass(frozen=True)
class Grid:
    """Pictures with scores; ``data`` is the image set they are of, ``data_hash`` its content."""

    name: str
    title: str
    data: str
    data_hash: str
    pictures: list[Picture]
    note: str = ""


@dataclass(frozen=True)
class Result:
    """An experiment's outcome."""

    config: dict[str, Any]
    says: list[str]
    tables: list[Table] = field(default_factory=list)
    plots: list[Plot] = field(default_factory=list)
    grids: list[Grid] = field(default_factory=list)


_KINDS: Mapping[str, TypeAdapter] = {
    "tables": TypeAdapter(Table),
    "plots": TypeAdapter(Plot),
    "grids": TypeAdapter(Grid),
}
PARTS = ("config.json", "says.json", "seeds.parquet", "README.md", *_KINDS)
"""What a result's folder holds."""


def write_result(folder: Path, result: Result, seeds: pd.DataFrame) -> None:
    """Write everything but pictures of plots and grids (:mod:`core.experiments.drawing`) into a new folder."""
    with disk_errors(folder):
        folder.mkdir(parents=True, exist_ok=True)
        for kind in _KINDS:
            for part in getattr(result, kind):
                write_json(folder / kind / f"{part.name}.json", asdict(part))
        for table in result.tables:
            frame = pd.DataFrame(table.rows, columns=table.columns)
            frame.to_csv(folder / "tables" / f"{table.name}.csv", index=False)
        seeds.to_parquet(folder / "seeds.parquet", index=False)
        write_text_atomically(folder / "README.md", as_markdown(result))
        write_json(folder / "says.json", result.says)
        write_json(folder / "config.json", result.config)


def read_result(folder: Path) -> Result:
    """What :func:`write_result` wrote.

    Raises:
        UserError: it is not there, or damaged.
    """
    parts: dict[str, list[Any]] = {}
    for kind, adapter in _KINDS.items():
        parts[kind] = []
        for path in sorted((folder / kind).glob("*.json")):
            try:
                parts[kind].append(adapter.validate_python(read_json(path)))
            except ValidationError as error:
                raise _damaged(path) from error
    config, says = read_json(folder / "config.json"), read_json(folder / "says.json")
    for file, wanted, value in (("config.json", dict, config), ("says.json", list, says)):
        if not isinstance(value, wanted):
            raise _damaged(folder / file)
    for table in parts["tables"]:
        wide = len(table.columns)
        if len(set(table.columns)) < wide or any(len(row) != wide for row in table.rows):
            raise _damaged(folder / "tables" / f"{table.name}.json")
    order = {name: at for at, name in enumerate(config.get("order", []))}
    for found in parts.values():
        found.sort(key=lambda part: order.get(part.name, len(order)))
    return Result(config, says, **parts)


def _damaged(path: Path) -> UserError:
    return UserError(f"{path} is damaged.", "Run the experiment again; what was measured is kept.")


def as_markdown(result: Result, plots: str = "plots", grids: str = "grids") -> str:
    """All of it as Markdown; ``plots`` and ``grids`` are where its pictures lie."""
    lines = [f"# {result.config['title']}", ""]
    lines += [f"- {said}" for said in result.says]
    lines += ["", f"Command: `{result.config['command']}`"]
    for table in result.tables:
        lines += ["", f"## {table.title}", "", *markdown_rows(table)]
        lines += ["", table.note] if table.note else []
    for plot in result.plots:
        lines += ["", f"![{plot.title}]({plots}/{plot.name}.png)", *([plot.note] if plot.note else [])]
    for grid in result.grids:
        lines += ["", f"![{grid.title}]({grids}/{grid.name}.png)", *([grid.note] if grid.note else [])]
    return "\n".join(lines) + "\n"


def markdown_rows(table: Table) -> list[str]:
    """The lines of a Markdown table."""

    def line(cells: list[str]) -> str:
        return "| " + " | ".join(" ".join(cell.split()).replace("|", "\\|") for cell in cells) + " |"

    return [line(table.columns), "|" + "---|" * len(table.columns), *(line(row) for row in table.rows)]
