"""The result folder: a round trip preserves any text, and damaged files are named."""

from __future__ import annotations

import json
from pathlib import Path

import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from core.experiments.results import (
    PARTS,
    ExperimentResult,
    Grid,
    Picture,
    Plot,
    Series,
    Table,
    as_markdown,
    markdown_rows,
    read_result,
    write_result,
)
from core.runtime.errors import UserError
from core.runtime.replacing import replacing_folder

SEEDS = pd.DataFrame({"seed": [0, 1], "value": [0.5, 0.75]})
texts = st.text(st.characters(exclude_categories=["Cs", "Cc"]), max_size=30)
names = st.text(st.sampled_from("abcXYZ019-_|'\" äß✓数"), min_size=1, max_size=12)
numbers = st.floats(allow_nan=False, allow_infinity=False)


@st.composite
def series(draw: st.DrawFn) -> Series:
    n = draw(st.integers(0, 4))
    values = st.lists(numbers, min_size=n, max_size=n)
    across = draw(values | st.lists(texts, min_size=n, max_size=n))
    ends = draw(st.tuples(values, values) | st.just((None, None)))
    return Series(draw(texts), across, draw(values), *ends, draw(st.booleans()), draw(st.booleans()))


@st.composite
def table(draw: st.DrawFn) -> Table:
    columns = draw(st.lists(texts, min_size=1, max_size=3, unique=True))
    line = st.lists(texts, min_size=len(columns), max_size=len(columns))
    return Table(draw(names), draw(texts), columns, draw(st.lists(line, max_size=3)), draw(texts))


plots = st.builds(
    Plot,
    name=names,
    title=texts,
    kind=st.sampled_from(["lines", "dots"]),
    x_label=texts,
    y_label=texts,
    series=st.lists(series(), max_size=3),
    note=texts,
)
pictures = st.builds(
    Picture, title=texts, images=st.lists(texts, max_size=3), words=texts, score=numbers, spread=numbers | st.none()
)
grids = st.builds(
    Grid, name=names, title=texts, data=names, data_hash=names, pictures=st.lists(pictures, max_size=3), note=texts
)


def distinct(parts: st.SearchStrategy) -> st.SearchStrategy:
    return st.lists(parts, max_size=3, unique_by=lambda part: part.name)


@given(st.lists(texts, max_size=3), distinct(table()), distinct(plots), distinct(grids))
def test_a_result_survives_a_round_trip(
    tmp_path_factory: pytest.TempPathFactory,
    findings: list[str],
    tables: list[Table],
    plots: list[Plot],
    grids: list[Grid],
) -> None:
    order = [part.name for kind in (tables, plots, grids) for part in kind]
    config = {"title": "Any | title", "command": "python -m core experiments truth", "order": order}
    folder = tmp_path_factory.mktemp("result")
    write_result(folder, ExperimentResult(config, findings, tables, plots, grids), SEEDS)
    found = read_result(folder)
    assert (found.config, found.findings) == (config, findings)
    # Names may occur in several kinds; the order is then that of the first.
    for written, read in ((tables, found.tables), (plots, found.plots), (grids, found.grids)):
        assert sorted(read, key=lambda part: part.name) == sorted(written, key=lambda part: part.name)


def small(folder: Path) -> Path:
    shown = Table("one", "One", ["method", "paper: AUC"], [["a | b", "0.5"]], "A note.")
    plot = Plot("line", "Line", "lines", "x", "y", [Series("s", [0.0, 1.0], [0.0, 1.0])])
    grid = Grid("rows", "Rows", "mnist5k", "0" * 64, [Picture("task", ["mnist5k-0000"], "0 1", 0.5)])
    config = {"title": "Title", "command": "python -m core experiments truth", "order": ["one", "line", "rows"]}
    write_result(folder, ExperimentResult(config, ["A finding."], [shown], [plot], [grid]), SEEDS)
    return folder


def test_the_order_of_parts_is_stored(tmp_path: Path) -> None:
    plots = [Plot(name, name, "lines", "x", "y", []) for name in ("c", "a", "b")]
    write_result(
        tmp_path, ExperimentResult({"title": "T", "command": "C", "order": ["c", "a", "b"]}, [], plots=plots), SEEDS
    )
    assert [plot.name for plot in read_result(tmp_path).plots] == ["c", "a", "b"]


def test_parts_of_an_older_result_are_removed(tmp_path: Path) -> None:
    out = tmp_path / "out"
    small(out)
    (out / "notes.txt").write_text("by hand")
    with replacing_folder(out, PARTS) as folder:
        write_result(folder, ExperimentResult({"title": "T", "command": "C"}, []), SEEDS)
    assert read_result(out) == ExperimentResult({"title": "T", "command": "C"}, [])
    assert not list(out.glob("plots/*"))
    assert (out / "notes.txt").read_text() == "by hand"


def test_measurements_and_tables_are_open_formats(tmp_path: Path) -> None:
    small(tmp_path)
    pd.testing.assert_frame_equal(pd.read_parquet(tmp_path / "seeds.parquet"), SEEDS)
    table = pd.read_csv(tmp_path / "tables" / "one.csv", dtype=str)
    assert table.to_dict("list") == {"method": ["a | b"], "paper: AUC": ["0.5"]}


@pytest.mark.parametrize(
    "damaged", ["config.json", "findings.json", "tables/one.json", "plots/line.json", "grids/rows.json"]
)
@pytest.mark.parametrize("content", ["{", "\x00", '{"name": "'])
def test_an_invalid_json_file_is_named(tmp_path: Path, damaged: str, content: str) -> None:
    (small(tmp_path) / damaged).write_text(content)
    with pytest.raises(UserError, match=damaged.rpartition("/")[2]):
        read_result(tmp_path)


@pytest.mark.parametrize("damaged", ["tables/one.json", "plots/line.json", "grids/rows.json"])
def test_an_incomplete_part_is_named(tmp_path: Path, damaged: str) -> None:
    path = small(tmp_path) / damaged
    path.write_text(json.dumps({"name": "one"}))
    with pytest.raises(UserError, match=path.name):
        read_result(tmp_path)


def test_a_folder_without_a_result_is_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"config\.json"):
        read_result(tmp_path / "none")


def test_findings_of_earlier_versions_are_read_and_replaced(tmp_path: Path) -> None:
    out = small(tmp_path / "out")
    (out / "findings.json").rename(out / "says.json")
    assert read_result(out).findings == ["A finding."]
    with replacing_folder(out, PARTS) as folder:
        write_result(folder, ExperimentResult({"title": "T", "command": "C"}, ["A new one."]), SEEDS)
    assert read_result(out).findings == ["A new one."]
    assert not (out / "says.json").exists()


def test_cells_with_pipes_stay_cells() -> None:
    shown = Table("one", "One", ["a|b", "c"], [["1 | 2", "3"]])
    assert markdown_rows(shown) == [r"| a\|b | c |", "|---|---|", r"| 1 \| 2 | 3 |"]


def test_the_page_of_a_result_has_everything(tmp_path: Path) -> None:
    text = as_markdown(read_result(small(tmp_path)))
    assert (tmp_path / "README.md").read_text() == text
    for part in ("# Title", "- A finding.", "`python -m core experiments truth`", r"a \| b", "A note."):
        assert part in text
    assert "![Line](plots/line.png)" in text
    assert "![Rows](grids/rows.png)" in text
