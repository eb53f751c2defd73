"""A table of paths and labels: encodings and separators, errors that name the line, and missing images."""

from __future__ import annotations

import csv
import io
import re
from pathlib import Path

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from core.data.decode import UnreadableError
from core.data.listing import Listing
from core.data.readers import ReadOptions
from core.data.readers.manifest import read_manifest
from core.runtime.errors import UserError
from tests.data.pictures import column, picture, write_files, write_zip

PICTURES = ["a.png", "sub/b.png", "c.png"]
ROWS = "path,label\na.png,cat\nsub/b.png,dog\nc.png,cat\n"


def read(path: Path, encoding: str | None = None) -> Listing:
    return read_manifest(path, ReadOptions(encoding=encoding))


def manifest(folder: Path, text: str | bytes, files: list[str] = PICTURES) -> Path:
    write_files(folder, files)
    path = folder / "mine.csv"
    path.write_bytes(text.encode() if isinstance(text, str) else text)
    return path


def test_rows_keep_their_order(tmp_path: Path) -> None:
    listing = read(manifest(tmp_path, ROWS))
    assert listing.name == "mine"
    assert column(listing, "id") == PICTURES
    assert column(listing, "class") == ["cat", "dog", "cat"]
    assert column(listing, "split") == column(listing, "group") == [""] * 3
    assert [listing.read(position) for position in range(3)] == [picture(position) for position in range(3)]
    assert listing.notes == ()


def test_optional_columns_in_any_order_and_others_are_ignored(tmp_path: Path) -> None:
    text = "ID,split,camera,Label,filename,group\nx,Train,1,cat,a.png,w1\ny,validation,2,cat,c.png,\n"
    text += "z,,3,dog,sub/b.png,w2\n"
    listing = read(manifest(tmp_path, text))
    assert column(listing, "id") == ["x", "y", "z"]
    assert column(listing, "split") == ["train", "val", ""]
    assert column(listing, "group") == ["w1", "", "w2"]
    assert listing.read(1) == picture(2)


def test_parquet_equals_csv(tmp_path: Path) -> None:
    write_files(tmp_path, PICTURES)
    table = pd.DataFrame({"path": PICTURES, "label": [3, 1, 3], "split": pd.Categorical(["train", "test", None])})
    table.to_parquet(tmp_path / "mine.parquet")
    listing = read(tmp_path / "mine.parquet")
    assert column(listing, "class") == ["3", "1", "3"]
    assert column(listing, "split") == ["train", "test", ""]


@pytest.mark.parametrize("name", ["mine.csv", "inner/table.CSV", "inner/mine.parquet"])
def test_zip_or_folder_with_one_table_and_images(name: str, tmp_path: Path) -> None:
    files = {Path(name).parent.joinpath(file).as_posix(): picture(n) for n, file in enumerate(PICTURES)}
    buffer = io.BytesIO()
    pd.read_csv(io.StringIO(ROWS)).to_parquet(buffer)
    files[name] = buffer.getvalue() if name.endswith("parquet") else ROWS.encode()
    for path in (write_zip(tmp_path / "up.zip", files), write_files(tmp_path / "up", files)):
        listing = read(path)
        assert listing.name == "up"
        assert column(listing, "class") == ["cat", "dog", "cat"]
        assert listing.read(1) == picture(1)


@pytest.mark.parametrize("files", [["a.png"], ["a.csv", "b.csv"]])
def test_zip_without_or_with_several_tables_is_rejected(files: list[str], tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"x\.zip .*table"):
        read(write_zip(tmp_path / "x.zip", files))


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
@pytest.mark.parametrize("newline", ["\n", "\r\n"])
def test_unicode_encodings_are_detected(encoding: str, newline: str, tmp_path: Path) -> None:
    text = "path,label\na.png,Käfer\nc.png,猫\n".replace("\n", newline)
    assert column(read(manifest(tmp_path, text.encode(encoding))), "class") == ["Käfer", "猫"]


def test_other_encoding_must_be_specified(tmp_path: Path) -> None:
    path = manifest(tmp_path, "path,label\na.png,cat\nc.png,Käfer\n".encode("cp1252"))
    with pytest.raises(UserError, match=r"mine\.csv, line 3 .*0xe4.*--encoding"):
        read(path)
    assert column(read(path, "cp1252"), "class") == ["cat", "Käfer"]


@pytest.mark.parametrize("encoding", ["klingon", "zlib", "rot13", "hex"])
def test_unknown_encoding_is_rejected(encoding: str, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=f"'{encoding}'"):
        read(manifest(tmp_path, ROWS), encoding)


def test_wrong_encoding_is_rejected(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="NUL"):
        read(manifest(tmp_path, ROWS.encode("utf-16-le")))
    with pytest.raises(UserError, match=r"line 5 .*ascii"):
        read(manifest(tmp_path, ROWS + "ü"), "ascii")


@pytest.mark.parametrize("separator", [",", ";", "\t"])
def test_separators(separator: str, tmp_path: Path) -> None:
    assert column(read(manifest(tmp_path, ROWS.replace(",", separator))), "class") == ["cat", "dog", "cat"]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", "column path"),
        ("path,label\n", "mine.csv .*rows"),
        ("a.png,cat\n", "column path; .*'a.png', 'cat'"),
        ("path,class\na.png,cat\n", "column label"),
        ("path,label,label\na.png,cat,dog\n", "column label twice"),
        ("path,label\na.png,cat\nc.png,\n", "line 3: label is empty"),
        ("path,label\na.png,cat\n ,cat\n", "line 3: path is empty"),
        ("path,label\na.png,cat\n\nc.png\n", "line 4 has 1 field, .* 2 columns"),
        ("path,label\na.png,cat,black\n", "line 2 has 3 fields"),
        ('path,label\n"a.png,cat\n', "line 2"),
        ("path,label,split\na.png,cat,dev\n", "line 2: split is 'dev'"),
        ("path,label,id\na.png,cat,\n", "line 2: id is empty"),
        ("path,label\na.png,cat\nc.png,cat\na.png,dog\n", "line 4: the path 'a.png' .*line 2"),
        ("path,label,id\na.png,cat,1\nc.png,cat,1\n", "line 3: the id '1' .*line 2"),
        ('path,label\n"a.png","c\nat"\n../c.png,cat\n', "line 4: path '../c.png'"),
        ("path,label\nsub\\..\\..\\c.png,cat\n", "line 2: path"),
        ("path,label\nx.png,cat\n", "mine.csv .*'x.png'"),
        ("path,label\na.png," + "x" * 2000 + "\n", "2,000 characters"),
        ("path,label\na.png," + "x" * 200_000 + "\n", "line 2"),
    ],
)
def test_errors_name_the_line(text: str, expected: str, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=expected.replace(".", r"\.").replace(r"\.*", ".*")):
        read(manifest(tmp_path, text))


def test_errors_in_parquet_name_the_row(tmp_path: Path) -> None:
    path = tmp_path / "mine.parquet"
    write_files(tmp_path, PICTURES)
    for columns, expected in [
        ({"path": PICTURES, "label": ["cat", None, "dog"]}, "row 2: label is empty"),
        ({"path": PICTURES, "label": [1.5, 2.5, 3.5]}, "column label .*double"),
        ({"path": PICTURES, "label": [["cat"]] * 3}, "column label .*list"),
        ({"path": PICTURES}, "column label"),
    ]:
        pd.DataFrame(columns).to_parquet(path)
        with pytest.raises(UserError, match=expected):
            read(path)
    path.write_bytes(b"PAR1 and nothing else")
    with pytest.raises(UserError, match=r"mine\.parquet"):
        read(path)


def test_a_small_parquet_cannot_take_all_memory(tmp_path: Path) -> None:
    label = pa.DictionaryArray.from_arrays(pa.array([0] * 20_000), ["x" * 1_000_000])
    table = pa.table({"path": [f"{n}.png" for n in range(20_000)], "label": label})
    pq.write_table(table, tmp_path / "mine.parquet")
    assert (tmp_path / "mine.parquet").stat().st_size < 2_000_000
    write_files(tmp_path, ["0.png"])
    with pytest.raises(UserError, match="1,000,000 characters"):
        read(tmp_path / "mine.parquet")


def test_missing_files_are_counted_and_unreadable(tmp_path: Path) -> None:
    listing = read(
        manifest(tmp_path, ROWS + "gone/d.png,dog\nhttp://x/e.png,dog\n" + "y" * 300 + ".png,cat\nsub,cat\n")
    )
    assert "4 files of 7" in listing.notes[0]
    assert "'gone/d.png', 'http:/x/e.png', 'yyy" in listing.notes[0]
    assert listing.read(0) == picture(0)
    for position in range(3, 7):
        with pytest.raises(UnreadableError, match="missing"):
            listing.read(position)


@pytest.mark.parametrize("device", ["/dev/zero", "/dev/stdin"])
def test_devices_are_not_read(device: str, tmp_path: Path) -> None:
    listing = read(manifest(tmp_path, f"{ROWS}{device},cat\n"))
    with pytest.raises(UnreadableError):
        listing.read(3)


def test_absolute_paths_are_allowed_only_in_local_tables(tmp_path: Path) -> None:
    elsewhere = write_files(tmp_path / "elsewhere", ["z.png"]) / "z.png"
    folder = tmp_path / "folder"
    listing = read(manifest(folder, f"path,label\n{elsewhere},cat\n{folder / 'a.png'},dog\n"))
    assert column(listing, "id") == [str(elsewhere), "a.png"]
    assert listing.read(0) == picture(0)
    (note,) = listing.notes
    assert "absolute paths" in note
    for path in (elsewhere, "C:\\z.png", "\\\\server\\z.png"):
        with pytest.raises(UserError, match=rf"line 2: path {re.escape(repr(str(path)))}"):
            read(write_zip(tmp_path / "x.zip", {"m.csv": f"path,label\n{path},cat\n".encode(), "a.png": b""}))


def test_windows_paths_and_dots(tmp_path: Path) -> None:
    listing = read(manifest(tmp_path, "path,label\n.\\sub\\b.png,dog\n./a.png,cat\n"))
    assert column(listing, "id") == ["sub/b.png", "a.png"]
    assert listing.read(0) == picture(1)


def test_markup_and_formulas_are_kept_exactly(tmp_path: Path) -> None:
    odd = ['=HYPERLINK("http://x")', "<img src=x onerror=alert(1)>", "  padded ", "a\nb", "NA", "null", "1e5", "🐈"]
    files = [f"{name.replace('/', '')}.png" for name in odd]
    buffer = io.StringIO()
    writer = csv.writer(buffer)
    writer.writerow(["path", "label"])
    writer.writerows(zip(files, odd, strict=True))
    listing = read(manifest(tmp_path, buffer.getvalue(), files))
    assert column(listing, "class") == odd
    assert column(listing, "id") == files


def test_stamp_depends_on_table_and_images(tmp_path: Path) -> None:
    path = manifest(tmp_path, ROWS)
    stamps = [read(path).stamp, read(path).stamp]
    (tmp_path / "a.png").write_bytes(b"changed")
    stamps.append(read(path).stamp)
    path.write_text(ROWS.replace("dog", "wolf"))
    stamps.append(read(path).stamp)
    assert stamps[0] == stamps[1]
    assert stamps[1] != stamps[2] != stamps[3]


def test_missing_table_is_rejected(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"absent\.csv"):
        read(tmp_path / "absent.csv")


words = st.text(max_size=12) | st.sampled_from(
    ["../x", "/etc/passwd", "\0", '"', "a.png", "train", "x" * 1001, "\r", "\n"]
)


@given(
    st.lists(st.lists(words, min_size=1, max_size=4), max_size=6),
    st.sampled_from(["path,label", "path,label,id,split", ""]),
)
def test_any_rows_are_read_or_rejected(
    tmp_path_factory: pytest.TempPathFactory, rows: list[list[str]], header: str
) -> None:
    folder = write_files(tmp_path_factory.getbasetemp() / "any", PICTURES)
    buffer = io.StringIO()
    csv.writer(buffer).writerows(rows)
    raw = f"{header}\na.png,cat\n{buffer.getvalue()}".encode("utf-8", "surrogatepass")
    read_or_rejected(folder / "any.csv", raw)


@given(st.binary(max_size=300), st.sampled_from(["any.csv", "any.parquet"]))
def test_any_bytes_are_read_or_rejected(tmp_path_factory: pytest.TempPathFactory, raw: bytes, name: str) -> None:
    folder = write_files(tmp_path_factory.getbasetemp() / "any", PICTURES)
    read_or_rejected(folder / name, raw)
    read_or_rejected(folder / name, b"path,label\n" + raw)


@given(st.data())
def test_damaged_parquet_is_read_or_rejected(tmp_path_factory: pytest.TempPathFactory, data: st.DataObject) -> None:
    folder = write_files(tmp_path_factory.getbasetemp() / "any", PICTURES)
    buffer = io.BytesIO()
    pq.write_table(pa.table({"path": PICTURES, "label": ["cat", "dog", "cat"]}), buffer)
    raw = bytearray(buffer.getvalue())
    for _ in range(data.draw(st.integers(1, 4))):
        raw[data.draw(st.integers(0, len(raw) - 1))] = data.draw(st.integers(0, 255))
    read_or_rejected(folder / "any.parquet", bytes(raw))


@pytest.mark.parametrize("every", [15, pytest.param(1, marks=pytest.mark.slow)])
def test_damage_at_every_byte_of_a_parquet(tmp_path: Path, every: int) -> None:
    """For example rows that are declared but missing, and dictionary indices out of range."""
    write_files(tmp_path, PICTURES)
    buffer = io.BytesIO()
    pq.write_table(pa.table({"path": PICTURES, "label": ["cat", "dog", "cat"]}), buffer, store_schema=False)
    raw = buffer.getvalue()
    for place in range(0, len(raw), every):
        for value in (raw[place] ^ 2, 0, 255):
            read_or_rejected(tmp_path / "any.parquet", raw[:place] + bytes([value]) + raw[place + 1 :])


def read_or_rejected(path: Path, raw: bytes) -> None:
    path.write_bytes(raw)
    try:
        listing = read(path)
    except UserError:
        return
    for position in range(len(listing)):
        try:
            assert isinstance(listing.read(position), bytes)
        except UnreadableError:
            continue
