"""The result folder of an experiment, which the page, a notebook and a reader can open.

::

    config.json          experiment, profile, image sets, seeds, command, versions
    findings.json        sentences on what the result shows (says.json in earlier versions)
    seeds.parquet        every measurement of every seed
    tables/NAME.csv      the tables as text, with NAME.json: title, columns, rows
    plots/NAME.json      data of the plots, with NAME.png and NAME.svg
    grids/NAME.json      images with scores, with NAME.png
    README.md            the whole result as one page
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from itertools import zip_longest
from pathlib import Path
from typing import Annotated, Any, NotRequired

import pandas as pd
from pydantic import AfterValidator
from typing_extensions import TypedDict

from core.experiments.profiles import DATA_TITLES, WAYS
from core.runtime.csv_files import write_csv
from core.runtime.disk_errors import disk_errors
from core.runtime.files import write_json, write_text_atomically
from core.runtime.sequence import number_of
from core.runtime.stored import OPEN, Count, Finite, Number, Text, missing_field, read_stored

KINDS = ("lines", "dots")
LONG_TRAINED = ("edit-methods", "ladder")
"""Names of the experiment whose models earlier versions trained for longer: their settings have ``long``."""


class _Training(TypedDict):
    __pydantic_config__ = OPEN  # type: ignore[misc]
    iterations: Count
    meta_batch: Count


def _complete_training(training: dict[str, Any]) -> dict[str, Any]:
    """Check settings of a training, or those of each image set by its name."""
    if "iterations" in training or not training:
        for name in ("iterations", "meta_batch"):
            if not isinstance(training.get(name), int):
                raise missing_field(name)
    return training


_AnyTraining = Annotated[dict[Text, Count | Number | Text | _Training | None], AfterValidator(_complete_training)]


class _Sizes(TypedDict):
    __pydantic_config__ = OPEN  # type: ignore[misc]
    shots: Count
    queries: Count
    filters: Count
    training: _AnyTraining
    long: NotRequired[_AnyTraining]


class ResultConfig(TypedDict):
    """``config.json``: what was run, and how the result is described.

    ``sequence`` counts the results beside it, so that their order does not depend on a clock.
    """

    __pydantic_config__ = OPEN  # type: ignore[misc]
    title: Text
    command: Text
    words: NotRequired[Text]
    experiment: NotRequired[Text]
    profile: NotRequired[Text]
    order: NotRequired[list[Text]]
    settings: NotRequired[_Sizes]
    images: NotRequired[dict[Text, Text]]
    device: NotRequired[Text]
    seeds: NotRequired[Count]
    processor_seconds: NotRequired[Finite]
    sequence: NotRequired[Count]


@dataclass(frozen=True)
class Series:
    """A line, or a set of dots, that has a band or error bars where ``low`` and ``high`` are given.

    Attributes:
        x: Numbers, or labels of ``dots``.
        estimate: Drawn hollow or dashed, as it is estimated and not measured.
        reference: Drawn grey, such as chance, the unedited model or the paper's value.
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
    """A plot that :mod:`core.experiments.drawing` draws on disk and the page draws in the browser.

    Attributes:
        name: Of its files.
        kind: One of :data:`KINDS`.
        percent_x, percent_y: Values are shares, shown in per cent.
        note: What low and high are, and what else a reader must know.
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
    """A table that is ready to print: all cells are text."""

    name: str
    title: str
    columns: list[str]
    rows: list[list[str]]
    note: str = ""

    def __post_init__(self) -> None:
        width = len(self.columns)
        if len(set(self.columns)) < width or any(len(row) != width for row in self.rows):
            raise ValueError("Columns must differ, and every row must have a cell for each of them.")


@dataclass(frozen=True)
class Picture:
    """A row of a grid that shows the images of one task.

    Attributes:
        images: Ids, in the order shown.
        words: Text beside them, such as the classes.
        score: Positive is helpful, negative harmful; ``spread`` is its standard deviation over several seeds.
    """

    title: str
    images: list[str]
    words: str
    score: float
    spread: float | None = None


@dataclass(frozen=True)
class Grid:
    """A grid that shows images with scores; ``data`` names their image set, ``data_hash`` is its content hash."""

    name: str
    title: str
    data: str
    data_hash: str
    pictures: list[Picture]
    note: str = ""


@dataclass(frozen=True)
class ExperimentResult:
    """The result of an experiment.

    Attributes:
        config: Content of ``config.json``.
        findings: Sentences on what the result shows; text between two pairs of stars is bold.
    """

    config: dict[str, Any]
    findings: list[str]
    tables: list[Table] = field(default_factory=list)
    plots: list[Plot] = field(default_factory=list)
    grids: list[Grid] = field(default_factory=list)


_KINDS: Mapping[str, type] = {"tables": Table, "plots": Plot, "grids": Grid}
FINDINGS, _OLD_FINDINGS = "findings.json", "says.json"
CONFIG = "config.json"
PARTS = (CONFIG, FINDINGS, _OLD_FINDINGS, "seeds.parquet", "README.md", *_KINDS)
"""Files and folders of a result, those of earlier versions included."""


def write_result(folder: Path, result: ExperimentResult, seeds: pd.DataFrame) -> None:
    """Write everything except pictures of plots and grids (:mod:`core.experiments.drawing`) into a new folder."""
    with disk_errors(folder):
        folder.mkdir(parents=True, exist_ok=True)
        for kind in _KINDS:
            for part in getattr(result, kind):
                write_json(folder / kind / f"{part.name}.json", asdict(part))
        for table in result.tables:
            frame = pd.DataFrame(table.rows, columns=table.columns)
            write_csv(frame, folder / "tables" / f"{table.name}.csv")
        seeds.to_parquet(folder / "seeds.parquet", index=False)
        write_text_atomically(folder / "README.md", as_markdown(result))
        write_json(folder / FINDINGS, result.findings)
        write_json(folder / CONFIG, result.config)


def result_sequence(folder: Path) -> int:
    """Return the number of a result among those beside it; 0 if it has none or is damaged."""
    return number_of(lambda: read_stored(folder / CONFIG, ResultConfig).get("sequence", 0))


def read_result(folder: Path) -> ExperimentResult:
    """Read what :func:`write_result` of this or an earlier version wrote.

    Raises:
        UserError: it is missing or damaged.
    """
    parts: dict[str, list[Any]] = {
        kind: [_read(path, form) for path in sorted((folder / kind).glob("*.json"))] for kind, form in _KINDS.items()
    }
    name = _OLD_FINDINGS if (folder / _OLD_FINDINGS).exists() and not (folder / FINDINGS).exists() else FINDINGS
    config, findings = _read(folder / CONFIG, ResultConfig), _read(folder / name, list[Text])
    order = {name: position for position, name in enumerate(config.get("order", []))}
    for same_kind in parts.values():
        same_kind.sort(key=lambda part: order.get(part.name, len(order)))
    return ExperimentResult(config, findings, **parts)


def _read(path: Path, form: Any) -> Any:
    return read_stored(path, form, fix="Run the experiment again; its measurements are stored.")


def as_markdown(result: ExperimentResult, plots: str = "plots/", grids: str = "grids/") -> str:
    """Return the whole result as one Markdown page; equal notes are printed once.

    Args:
        plots, grids: What precedes the file names of their pictures.
    """
    config = result.config
    lines = [f"# {config['title']}", "", *([config["words"], ""] if config.get("words") else [])]
    lines += [f"- {line}" for line in setup_lines(config)]
    lines += ["", "## Findings", "", *(f"- {finding}" for finding in result.findings)]
    for table, following in zip_longest(result.tables, result.tables[1:]):
        lines += ["", f"## {table.title}", "", *markdown_rows(table)]
        is_last_with_note = following is None or following.note != table.note
        lines += ["", table.note] if table.note and is_last_with_note else []
    pictures = [(plot, plots) for plot in result.plots] + [(grid, grids) for grid in result.grids]
    lines += ["", "## Figures"] if pictures else []
    for part, prefix in pictures:
        lines += ["", f"![{part.title}]({prefix}{part.name}.png)"]
    notes = dict.fromkeys(part.note for part, _ in pictures if part.note)
    return "\n".join([*lines, *(line for note in notes for line in ("", note))]) + "\n"


def setup_lines(config: Mapping[str, Any]) -> list[str]:
    """Return what was run, as far as ``config.json`` says: data, profile, sizes, seeds, time and command."""
    lines, sizes = [], config.get("settings", {})
    if images := config.get("images"):
        lines.append(f"Data: {', '.join(DATA_TITLES.get(name, name) for name in images)}")
    if sizes:
        lines.append(
            f"Profile: `{config['profile']}` ({WAYS}-way tasks with {sizes['shots']} support and {sizes['queries']} "
            f"query images per class, a network of {sizes['filters']} filters, {_training_words(config)})"
        )
    if seeds := config.get("seeds"):
        lines.append(f"Seeds: {seeds}")
    if seconds := config.get("processor_seconds"):
        lines.append(f"Processor time: {seconds / 60:.0f} minutes, not counting what other experiments had computed")
    return [*lines, f"Command: `{config['command']}`"]


def _training_words(config: Mapping[str, Any]) -> str:
    """Return how the models were trained; earlier versions trained those of all data sets in the same way."""
    sizes = config["settings"]
    is_long = "long" in sizes and config.get("experiment") in LONG_TRAINED
    training = sizes["long" if is_long else "training"]
    by_data = (
        {}
        if "iterations" in training
        else {DATA_TITLES.get(data, data): training[data] for data in config.get("images", {}) if data in training}
    )
    words = {
        title: f"{one['iterations']:,} Adam steps of {one['meta_batch']} tasks"
        for title, one in (by_data or {"": training}).items()
    }
    if len(set(words.values())) == 1:
        return next(iter(words.values()))
    return ", ".join(f"{title}: {text}" for title, text in words.items())


def markdown_rows(table: Table) -> list[str]:
    """Return the lines of a Markdown table."""

    def line(cells: list[str]) -> str:
        return "| " + " | ".join(" ".join(cell.split()).replace("|", "\\|") for cell in cells) + " |"

    return [line(table.columns), "|" + "---|" * len(table.columns), *(line(row) for row in table.rows)]
