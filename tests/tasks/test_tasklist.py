"""Task list files: any valid list round-trips; errors name the file, row and column."""

from __future__ import annotations

import io
import json
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from core.runtime.errors import UserError
from core.tasks.tasklist import COLUMNS, FORMATS, TaskList, from_rows, read_tasks, write_tasks
from tests.problems import tiny_images, tiny_tasks
from tests.properties import examples

ODD = ["NA", "nan", "null", "None", "", " ", "1e5", "007", "-0", "1_000", "True", "2020-01-01", "inf", "#", '"', "'"]
ODD += [
    "a,b",
    'say "x"',
    "line\nbreak",
    "back\rfeed",
    "tab\tbed",
    "\ufeffbom",
    "ünï",
    "数字",
    "🐱",
    "\x00",
    "\\",
    "a;b",
]
FORMULAS = ["=1+1", "+1", "-1", "@SUM(A1)", '=HYPERLINK("x","y")', "<b>x</b>", "![](x)"]
ODD += FORMULAS
names = st.one_of(st.sampled_from(ODD), st.text(max_size=6))
if pd.__version__ < "3":  # pandas 2 takes NUL for the end of a string
    names = names.filter(lambda name: "\x00" not in name)
weights = st.one_of(st.sampled_from([0.0, 1.0, 0.1 + 0.2, 1e-300, 1e300]), st.floats(0, allow_infinity=False))


@st.composite
def task_lists(draw: st.DrawFn) -> TaskList:
    ways = draw(st.integers(1, 3))
    ids = draw(st.lists(names.filter(lambda name: name.strip() != ""), min_size=1, max_size=3, unique=True))
    rows: list[dict[str, Any]] = []
    for task_id in ids:
        classes = draw(st.lists(names, min_size=ways, max_size=ways))
        for role in ("support", "query"):
            extra = draw(st.lists(st.integers(0, ways - 1), min_size=role == "query", max_size=3))
            labels = [*range(ways), *extra] if role == "support" else extra
            images = draw(st.lists(names, min_size=len(labels), max_size=len(labels), unique=True))
            rows += [
                {"task_id": task_id, "role": role, "image_id": i, "label": n, "class": classes[n]}
                for i, n in zip(images, labels, strict=True)
            ]
    table = pd.DataFrame(rows).assign(weight=[draw(weights) for _ in rows])
    return from_rows(table, source="drawn")


@pytest.mark.parametrize("extension", FORMATS)
@examples(30)
@given(tasks=task_lists())
def test_any_valid_list_round_trips(extension: str, tasks: TaskList) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / f"list.{extension}"
        write_tasks(tasks, path)
        again = read_tasks(path)
    assert [again.rows[c].tolist() for c in COLUMNS] == [tasks.rows[c].tolist() for c in COLUMNS]
    assert again.hash == tasks.hash
    assert again.task_ids == tasks.task_ids


junk = st.recursive(
    st.one_of(
        st.none(),
        st.booleans(),
        st.integers(-(2**70), 2**70),
        st.floats(),
        st.sampled_from(["support", "query", "0", "1", "x", ""]),
        st.text(max_size=4),
    ),
    lambda inner: st.one_of(st.lists(inner, max_size=2), st.dictionaries(st.text(max_size=2), inner, max_size=2)),
    max_leaves=3,
)
good = {
    "task_id": st.sampled_from(["t0", "t1"]),
    "role": st.sampled_from(["support", "query"]),
    "image_id": st.sampled_from(["a", "b", "c", "d"]),
    "label": st.integers(0, 1),
    "class": st.sampled_from(["cat", "dog"]),
    "weight": st.floats(0, 2),
}


@st.composite
def broken_rows(draw: st.DrawFn) -> list[dict[str, Any]]:
    """Return rows in which any field may be invalid or missing."""
    rows = []
    for _ in range(draw(st.integers(0, 6))):
        row = {name: draw(value) for name, value in good.items()}
        for name in draw(st.lists(st.sampled_from(COLUMNS), max_size=2)):
            if draw(st.booleans()):
                row.pop(name, None)
            else:
                row[name] = draw(junk)
        rows.append(row)
    return rows


def read_or_reject(path: Path) -> None:
    """Check that reading gives a valid list or a UserError that names the file."""
    valid_or_rejected(lambda: read_tasks(path, tiny_images()), path.name)


def valid_or_rejected(make: Callable[[], TaskList], name: str) -> None:
    message = ""
    try:
        tasks = make()
    except UserError as error:
        message = str(error)
    assert name in message or from_rows(tasks.rows, source="again").hash == tasks.hash


@examples(100)
@given(value=st.one_of(broken_rows(), junk, st.lists(junk, max_size=3)))
@example(value=[{"task_id": "t", "role": "support", "image_id": "a", "label": [0], "class": "c"}])
@example(
    value=[{"task_id": "t", "role": r, "image_id": "a", "label": 10**15, "class": "c"} for r in good["role"].elements]
)
@example(value=[{"task_id": "t", "role": "support", "image_id": "a", "label": 10**30, "class": "c"}])
@example(value=[{"task_id": "\ud800", "role": "support", "image_id": "a", "label": 0, "class": "c"}])
def test_any_json_is_a_task_list_or_rejected(value: Any) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "list.json"
        path.write_text(json.dumps(value), encoding="utf-8")
        read_or_reject(path)
        try:
            rows = pd.DataFrame(value)
        except Exception:  # what pandas itself cannot make a table of never gets as far as from_rows
            return
        valid_or_rejected(lambda: from_rows(rows, source="list.json"), "list.json")


@examples(80)
@given(
    header=st.permutations(COLUMNS),
    cells=st.lists(st.lists(names | st.sampled_from(["t0", "support", "query", "0"]), max_size=8), max_size=5),
)
def test_any_csv_is_a_task_list_or_rejected(header: list[str], cells: list[list[str]]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "list.csv"
        path.write_text("\n".join(",".join(row) for row in [header, *cells]), encoding="utf-8", newline="")
        read_or_reject(path)


@examples(40)
@given(st.binary(max_size=60), st.sampled_from(FORMATS))
def test_any_bytes_are_a_task_list_or_rejected(content: bytes, extension: str) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / f"list.{extension}"
        path.write_bytes(content)
        read_or_reject(path)


def table(**changes: list[Any]) -> pd.DataFrame:
    """Return two tasks of two ways, rows 1 to 8."""
    return pd.DataFrame(
        {
            "task_id": ["t0"] * 4 + ["t1"] * 4,
            "role": ["support", "support", "query", "query"] * 2,
            "image_id": list("abcd") * 2,
            "label": [0, 1, 0, 1] * 2,
            "class": ["0", "1"] * 4,
            **changes,
        }
    )


def with_cell(row: int, column: str, value: Any) -> pd.DataFrame:
    cells = table(weight=[1.0] * 8)
    cells[column] = [value if at == row - 1 else have for at, have in enumerate(cells[column].tolist())]
    return cells


@pytest.mark.parametrize(
    ("row", "column", "value", "what"),
    [
        (3, "task_id", " ", "task_id ' '"),
        (3, "task_id", None, "task_id"),
        (2, "role", "train", "role 'train'"),
        (4, "image_id", None, "image_id"),
        (4, "image_id", "c", "image_id 'c'"),
        (5, "label", -1, "label -1"),
        (5, "label", 0.5, r"label 0\.5"),
        (5, "label", "zero", "label 'zero'"),
        (5, "label", float("inf"), "label inf"),
        (5, "label", 2**40, "label 1099511627776"),
        (6, "class", None, "class"),
        (8, "weight", -0.5, r"weight -0\.5"),
        (8, "weight", float("inf"), "weight inf"),
        (8, "weight", "heavy", "weight 'heavy'"),
        (8, "weight", None, "weight is missing"),
    ],
)
def test_invalid_cell_is_named_by_file_row_and_column(row: int, column: str, value: Any, what: str) -> None:
    with pytest.raises(UserError, match=rf"^mine\.csv, row {row}: {what}"):
        from_rows(with_cell(row, column, value), source="mine.csv")


@pytest.mark.parametrize("column", [c for c in COLUMNS if c != "weight"])
def test_a_missing_column_is_named(column: str) -> None:
    with pytest.raises(UserError, match=rf"^mine\.csv: .*'{column}'"):
        from_rows(table().drop(columns=column), source="mine.csv")


def test_empty_list_is_rejected() -> None:
    with pytest.raises(UserError, match=r"mine\.csv: .*empty"):
        from_rows(table().iloc[:0], source="mine.csv")


@pytest.mark.parametrize(
    ("rows", "what"),
    [
        (table(**{"class": ["0", "1", "1", "1"] * 2}), "task 't0': label 0 .*'0' and '1'"),
        (table().iloc[[0, 1, 2, 3, 4, 5]], "task 't1' .*query"),
        (table().iloc[[2, 3, 4, 5, 6, 7]], "task 't0' .*support"),
        (table().iloc[[0, 1, 2, 3, 4, 6, 7]], "task 't1': label 1"),
    ],
)
def test_invalid_task_is_named(rows: pd.DataFrame, what: str) -> None:
    with pytest.raises(UserError, match=rf"^mine\.csv, {what}"):
        from_rows(rows, source="mine.csv")


def test_ids_and_classes_are_checked_against_the_images() -> None:
    images = tiny_images()
    known = list(images.ids[[0, 20, 1, 21]]) * 2
    from_rows(table(image_id=known), source="mine.csv", images=images)
    with pytest.raises(UserError, match=r"row 6: image_id 'b' .*tiny"):
        from_rows(table(image_id=[*known[:5], "b", *known[6:]]), source="mine.csv", images=images)
    with pytest.raises(UserError, match=r"row 1: class 'cat' .*tiny"):
        from_rows(table(image_id=known, **{"class": ["cat", "1"] * 4}), source="mine.csv", images=images)


def test_rows_in_any_order_and_without_weights(tmp_path: Path) -> None:
    path = tmp_path / "mine.csv"
    path.write_text(
        "class,label,image_id,role,task_id,remark\n"
        "dog,1,007,query,b,\n"
        "cat,0,NA,support,a,by hand\n"
        'cat,0,"1e5",support,b,\n'
        "dog,1,x,query,a,\n"
        "dog,1,y,support,b,\n"
        "dog,1,z,support,a,\n"
    )
    rows = read_tasks(path).rows
    assert list(rows.columns) == list(COLUMNS)
    assert list(zip(rows["task_id"], rows["role"], rows["image_id"], strict=True)) == [
        ("b", "support", "1e5"),
        ("b", "support", "y"),
        ("b", "query", "007"),
        ("a", "support", "NA"),
        ("a", "support", "z"),
        ("a", "query", "x"),
    ]
    assert rows["weight"].tolist() == [1.0] * 6
    assert rows["label"].tolist() == [0, 1, 1, 0, 1, 1]


def test_a_csv_from_a_spreadsheet_reads(tmp_path: Path) -> None:
    path = tmp_path / "mine.csv"
    path.write_bytes(b"\xef\xbb\xbf" + table().to_csv(index=False, lineterminator="\r\n").encode())
    assert read_tasks(path).hash == from_rows(table(), source="test").hash


@pytest.mark.parametrize("name", FORMULAS)
def test_formulas_and_markup_are_kept_exactly(name: str, tmp_path: Path) -> None:
    odd = from_rows(table(task_id=[name] * 4 + ["t1"] * 4, image_id=[name, *"bcd"] * 2), source="test")
    write_tasks(odd, tmp_path / "list.csv")
    is_formula = name[0] in "=+-@\t\r\n" and name not in ("-1", "+1")
    assert pd.read_csv(tmp_path / "list.csv", dtype=str)["image_id"].iloc[0] == (f"'{name}" if is_formula else name)
    assert read_tasks(tmp_path / "list.csv").hash == odd.hash
    with pytest.raises(UserError, match=r"row 1: image_id .*tiny") as error:
        read_tasks(tmp_path / "list.csv", tiny_images())
    assert repr(name) in str(error.value)


def parquet(cells: pd.DataFrame) -> bytes:
    return cells.to_parquet(index=False) or b""


def twice_parquet() -> bytes:
    once = pa.Table.from_pandas(table())
    stream = io.BytesIO()
    pq.write_table(pa.Table.from_arrays([*once.columns, once.column(0)], [*once.column_names, "task_id"]), stream)
    return stream.getvalue()


CSV = table().to_csv(index=False)
DAMAGED: list[tuple[str, bytes, str]] = [
    ("list.csv", b"", "csv: "),
    ("list.csv", CSV.encode("utf-16"), "UTF-16"),
    ("list.csv", CSV.encode("utf-16-le"), "UTF-16"),
    ("list.csv", CSV.encode("utf-16-be"), "UTF-16"),
    ("list.csv", CSV.replace("d,1", "é,1", 1).encode("latin-1"), "line 5: the byte 0xe9"),
    ("list.csv", CSV.replace(",", ";").encode(), "separated by ';'"),
    ("list.csv", "\n".join([CSV.splitlines()[0], *(f"{row}," for row in CSV.splitlines()[1:])]).encode(), "header"),
    ("list.csv", "\n".join([CSV.splitlines()[0], *(f"0,{row}" for row in CSV.splitlines()[1:])]).encode(), "header"),
    ("list.csv", CSV.replace(",", "\t").encode(), "separated by '\\t'"),
    ("list.csv", CSV.replace("label", "class").encode(), "column 'class'"),
    ("list.csv", (CSV + "a,b,c,d,e,f,g\n").encode(), "Expected 5 fields in line 10, saw 7"),
    ("list.csv", (CSV + '"t2').encode(), "EOF inside string"),
    ("list.json", b"", "json: "),
    ("list.json", b"[" * 100_000, "json: "),
    ("list.json", b'[{"task_id"', "json: "),
    ("list.json", b"3", "a number"),
    ("list.json", b"null", "nothing"),
    ("list.json", b'"task_id"', "text"),
    ("list.json", b"[]", "empty"),
    ("list.json", b'[{"task_id": "t"}, [3]]', "row 2 is a list"),
    ("list.json", table().to_json().encode(), "without a format"),
    ("list.json", table().to_json(orient="records").encode("utf-16"), "UTF-16"),
    (
        "list.json",
        b'[{"task_id":{},"role":"query","image_id":"a","label":0,"class":"0"}]',
        "row 1: task_id {}",
    ),
    ("list.parquet", b"", "parquet"),
    ("list.parquet", parquet(table())[:-20], "parquet"),
    ("list.parquet", parquet(table())[:100], "parquet"),
    ("list.parquet", twice_parquet(), "column 'task_id'"),
    ("list.parquet", parquet(table(**{"class": [b"\xff"] * 8})), "row 1: class "),
    ("list.parquet", parquet(table(label=[[0]] * 8)), "row 1: label "),
]


@pytest.mark.parametrize(("name", "content", "what"), DAMAGED, ids=range(len(DAMAGED)))
def test_other_files_are_rejected_in_one_line(name: str, content: bytes, what: str, tmp_path: Path) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(UserError, match=rf"^{name}\b") as error:
        read_tasks(tmp_path / name)
    assert what in str(error.value)
    assert "\n" not in str(error.value)


def test_truncated_parquet_file_is_rejected(tmp_path: Path) -> None:
    whole, path = parquet(table()), tmp_path / "list.parquet"
    for length in range(0, len(whole), 61):
        path.write_bytes(whole[:length])
        with pytest.raises(UserError, match=r"^list\.parquet [^\n]*$"):
            read_tasks(path)


def test_json_with_a_byte_order_mark_reads(tmp_path: Path) -> None:
    path = tmp_path / "mine.json"
    path.write_text(table().to_json(orient="records"), encoding="utf-8-sig")
    assert read_tasks(path).hash == from_rows(table(), source="test").hash


def test_csv_with_more_cells_than_columns_is_rejected(tmp_path: Path) -> None:
    path = tmp_path / "mine.csv"
    lines = table(task_id=["query"] * 8).to_csv(index=False).splitlines()
    path.write_text("\n".join([lines[0], *(f"{line},more" for line in lines[1:])]))
    with pytest.raises(UserError, match=r"mine\.csv"):
        read_tasks(path)


def test_order_of_columns_and_roles_does_not_matter() -> None:
    tasks = tiny_tasks(tiny_images(), ways=2, shots=2, queries=1, count=3)
    query_first = tasks.rows.sort_values(["task_id", "role"], kind="stable")[list(COLUMNS[::-1])]
    assert from_rows(query_first, source="sorted").hash == tasks.hash


@pytest.mark.parametrize("name", ["list.txt", "list", "list.CSV.gz"])
def test_unknown_format_is_rejected_for_reading_and_writing(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_text("task_id\n")
    with pytest.raises(UserError, match=", ".join(FORMATS)):
        read_tasks(tmp_path / name)
    with pytest.raises(UserError, match=", ".join(FORMATS)):
        write_tasks(from_rows(table(), source="test"), tmp_path / f"new-{name}")
    assert [path.name for path in tmp_path.iterdir()] == [name]


def test_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"nothing\.csv"):
        read_tasks(tmp_path / "nothing.csv")


def test_labels_as_floats_and_text() -> None:
    want = from_rows(table(), source="test").hash
    for labels in ([0.0, 1.0] * 4, ["0", "1"] * 4, np.array([0, 1] * 4, dtype=np.uint8)):
        assert from_rows(table(label=labels), source="test").hash == want


def test_rows_that_a_caller_changes_are_read_again_unchanged(tmp_path: Path) -> None:
    tasks = tiny_tasks(tiny_images(), ways=2, shots=1, queries=1, count=2)
    write_tasks(tasks, tmp_path / "tasks.parquet")
    rows = read_tasks(tmp_path / "tasks.parquet").rows
    rows["weight"] = 0.0
    assert read_tasks(tmp_path / "tasks.parquet").hash == tasks.hash


def test_a_list_that_is_written_again_is_read_again(tmp_path: Path) -> None:
    for count in (2, 3):
        write_tasks(tiny_tasks(tiny_images(), ways=2, shots=1, queries=1, count=count), tmp_path / "tasks.csv")
        assert len(read_tasks(tmp_path / "tasks.csv")) == count
