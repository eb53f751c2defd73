"""A table of paths and labels: encodings and separators, errors that name the line, and missing images."""

from __future__ import annotations

import csv
import io
import json
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
    "header",
    [
        "path,label",
        "file_name,label",
        "filepath,class",
        "Image Path,Class Name",
        "image,target",
        "img,label_name",
        "filename,species",
        "image-file,Category",
        "id,breed",
        "image_id,diagnosis",
        "picture,kind",  # the only two columns, so that the values of the first must be the paths
    ],
)
def test_usual_column_names(header: str, tmp_path: Path) -> None:
    text = ROWS.replace("path,label", header)
    if header == "picture,kind":
        with pytest.raises(UserError, match="'picture', 'kind'"):
            read(manifest(tmp_path / "x", text))
        return
    listing = read(manifest(tmp_path, text))
    assert (column(listing, "id"), column(listing, "class")) == (PICTURES, ["cat", "dog", "cat"])


def test_names_are_preferred_to_numbers_of_the_same_classes(tmp_path: Path) -> None:
    text = "class id,filepaths,labels,data set\n0,a.png,cat,train\n1,sub/b.png,dog,test\n0,c.png,cat,valid\n"
    listing = read(manifest(tmp_path, text))
    assert column(listing, "class") == ["cat", "dog", "cat"]
    assert column(listing, "split") == ["train", "test", "val"]


def test_columns_with_different_classes_are_ambiguous(tmp_path: Path) -> None:
    rows = "a.png,cat,tabby\nsub/b.png,dog,pug\nc.png,cat,persian\n"
    with pytest.raises(UserError, match=r"'category' \(2 classes\), 'breed' \(3 classes\)"):
        read(manifest(tmp_path, f"path,category,breed\n{rows}"))
    assert column(read(manifest(tmp_path, f"path,label,breed\n{rows}")), "class") == ["cat", "dog", "cat"]


@pytest.mark.parametrize(
    "text",
    [
        "path, label\na.png, cat\nsub/b.png,dog \n c.png , cat \n",
        '"path";"label"\n"a.png";" cat"\n"sub/b.png";"dog"\n"c.png";"cat\u00a0"\n',
        "sep=;\npath;label\na.png;cat\nsub/b.png;dog\nc.png;cat\n",
        '"sep=|"\r\npath|label\r\na.png|cat\r\nsub/b.png|dog\r\nc.png|cat\r\n',
        "path\tlabel\t split \na.png\tcat\t train\nsub/b.png\tdog\ttrain \nc.png\tcat\t\n",
    ],
)
def test_blanks_and_separators_do_not_make_classes(text: str, tmp_path: Path) -> None:
    listing = read(manifest(tmp_path, text))
    assert (column(listing, "id"), column(listing, "class")) == (PICTURES, ["cat", "dog", "cat"])


def test_line_numbers_count_the_separator_line(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="line 4: label is empty"):
        read(manifest(tmp_path, "sep=;\npath;label\na.png;cat\nc.png;\n"))


@pytest.mark.parametrize(
    ("labels", "classes"), [("1.0 0.0 1.0", "1 0 1"), ("1 0.0 1", "1 0 1"), ("-1.0 1 1.", "-1 1 1")]
)
def test_whole_numbers_with_a_fraction(labels: str, classes: str, tmp_path: Path) -> None:
    rows = "".join(f"{file},{label}\n" for file, label in zip(PICTURES, labels.split(), strict=True))
    listing = read(manifest(tmp_path, f"path,label\n{rows}"))
    assert column(listing, "class") == classes.split()
    assert any("whole numbers" in note for note in listing.notes)


def test_parquet_with_float_labels_and_a_column_that_is_not_read(tmp_path: Path) -> None:
    write_files(tmp_path, PICTURES)
    table = pd.DataFrame({"image": PICTURES, "label": [1.0, 0.0, 1.0], "boxes": [[1, 2]] * 3})
    table.to_parquet(tmp_path / "mine.parquet")
    assert column(read(tmp_path / "mine.parquet"), "class") == ["1", "0", "1"]


def test_line_breaks_inside_json_texts(tmp_path: Path) -> None:
    write_files(tmp_path, PICTURES)
    lines = [json.dumps({"path": file, "label": "a\u2028b\u0085c"}, ensure_ascii=False) for file in PICTURES]
    (tmp_path / "m.jsonl").write_text("\r\n".join(lines), encoding="utf-8")
    assert set(column(read(tmp_path / "m.jsonl"), "class")) == {"a\u2028b\u0085c"}


def test_json_lines_and_tab_separated_values(tmp_path: Path) -> None:
    lines = [
        {"file_name": file, "label": label, "objects": {"bbox": []}}
        for file, label in zip(PICTURES, "010", strict=True)
    ]
    write_files(
        tmp_path, {"m.jsonl": "\n".join(map(json.dumps, lines)).encode(), "m.tsv": ROWS.replace(",", "\t").encode()}
    )
    write_files(tmp_path, PICTURES)
    assert column(read(tmp_path / "m.jsonl"), "class") == ["0", "1", "0"]
    assert column(read(tmp_path / "m.tsv"), "class") == ["cat", "dog", "cat"]
    for bad in ("{", "[1]", '{"path": '):
        (tmp_path / "m.jsonl").write_text(f'{{"path": "a.png", "label": "x"}}\n{bad}\n')
        with pytest.raises(UserError, match="line 2"):
            read(tmp_path / "m.jsonl")


@pytest.mark.parametrize(
    "raw", [b"<!DOCTYPE html><html>", b"version https://git-lfs.github.com/spec/v1\noid sha256:1\n"]
)
@pytest.mark.parametrize("name", ["mine.csv", "mine.parquet"])
def test_tables_that_are_web_pages_or_pointers_are_called_that(name: str, raw: bytes, tmp_path: Path) -> None:
    write_files(tmp_path, {name: raw})
    with pytest.raises(UserError, match=r"web page|Git LFS"):
        read(tmp_path / name)


def test_images_are_found_by_name_if_no_path_exists(tmp_path: Path) -> None:
    """Kaggle's tables have names without a folder, or without an extension, or paths of another machine."""
    files = ["train_images/1.jpg", "train_images/2.jpg", "test_images/1.jpg", "test_images/3.jpg"]
    write_files(tmp_path, files)
    for paths in (("1.jpg", "2.jpg"), ("1", "2"), (f"/kaggle/input/x/train_images/{n}.jpg" for n in (1, 2))):
        rows = "".join(f"{path},{label}\n" for path, label in zip(paths, "ab", strict=True))
        (tmp_path / "train.csv").write_text(
            f"image_id,label,split\n{rows}".replace("\n", ",train\n").replace("split,train", "split")
        )
        listing = read(tmp_path / "train.csv")
        assert [listing.read(position) for position in range(2)] == [picture(0), picture(1)]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", "column path"),
        ("path,label\n", "mine.csv .*rows"),
        ("a.png,cat\n", "no header.*'a.png'"),
        ("path,colour,size\na.png,red,3\n", "column label; .*'path', 'colour', 'size'"),
        ("path,label,label\na.png,cat,dog\n", "column 'label' occurs twice"),
        ("path,label\na.png,cat\nc.png,\n", "line 3: label is empty"),
        ("path,label\na.png,cat\n ,cat\n", "line 3: path is empty"),
        ("path,label\na.png,cat\n\nc.png\n", "line 4 has 1 field, .* 2 columns"),
        ("path,label\na.png,cat,black\n", "line 2 has 3 fields"),
        ('path,label\n"a.png,cat\n', "line 2"),
        ("path,label,split\na.png,cat,fold 1\n", "line 2: split is 'fold 1'"),
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
        ({"path": PICTURES, "label": [0.0, None, 1.0]}, "row 2: label is empty"),
        ({"path": PICTURES, "label": [["cat"]] * 3}, "column label; .*list"),
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
    odd = ['=HYPERLINK("http://x")', "<img src=x onerror=alert(1)>", "in  side", "a\nb", "NA", "null", "1e5", "🐈"]
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


@given(st.binary(max_size=300), st.sampled_from(["any.csv", "any.parquet", "any.tsv", "any.jsonl"]))
def test_any_bytes_are_read_or_rejected(tmp_path_factory: pytest.TempPathFactory, raw: bytes, name: str) -> None:
    folder = write_files(tmp_path_factory.getbasetemp() / "any", PICTURES)
    read_or_rejected(folder / name, raw)
    first = b'{"path": "a.png", "label": 1}\n' if name.endswith("jsonl") else b"path,label\n"
    read_or_rejected(folder / name, first + raw)


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
