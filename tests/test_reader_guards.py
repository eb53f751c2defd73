"""Every reader against every guard: what no file may do, whichever reader it is given to.

``OUTCOMES`` has a cell for each; a guard that makes no sense for a reader says why. Inputs are read in a fork whose
memory is limited, so a reader that unfolds a file fails its test and not the machine.
"""

from __future__ import annotations

import io
import json
import os
import random
import re
import resource
import struct
import traceback
import zipfile
from collections.abc import Callable, Mapping
from functools import cache, partial
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from safetensors.torch import save

from core.checkpoints.tensor_file import open_tensors
from core.data import readers
from core.data.decode import UnreadableError, decode
from core.data.parquet_pages import check_parquet
from core.data.readers.tables import SUFFIXES
from core.runtime import errors, roots
from core.runtime.errors import UserError
from core.runtime.reading import open_input
from core.tasks.exchange import LIBRARIES
from core.tasks.tables import FORMATS
from core.tasks.tasklist import read_tasks
from tests.data.pictures import picture, write_zip
from tests.reader_inputs import (
    PICTURES,
    READERS,
    ROWS,
    SPEC,
    Refused,
    parquet_bytes,
    small_tasks,
    tiff,
    weights,
)

MEMORY = 700_000_000
"""Bytes that reading may take up beyond what this process has."""
SECONDS = 60
"""After which a reader counts as hanging; the slowest takes a few on a busy machine."""
Bad = Callable[[Path], object]


def outcomes_of(reads: Mapping[str, Callable[[], object]], memory: int = MEMORY) -> dict[str, str]:
    """Return what each reading comes to in a fork: ``read``, ``refused: TEXT`` or ``failed: TRACEBACK``."""
    receive, send = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            limit = psutil.Process().memory_info().vms + memory
            resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
            resource.setrlimit(resource.RLIMIT_CPU, (SECONDS, SECONDS))
            pa.set_cpu_count(1)
            torch.set_num_threads(1)
            for name, read in reads.items():
                try:
                    read()
                    text = "read"
                except Refused as error:
                    text = f"refused: {error}"
                except BaseException:
                    text = f"failed: {traceback.format_exc()[-3000:]}"
                os.write(send, json.dumps([name, text]).encode() + b"\n")
        finally:
            os._exit(0)
    os.close(send)
    with os.fdopen(receive, "rb") as stream:
        outcomes = dict(json.loads(line) for line in stream)
    status = os.waitpid(child, 0)[1]
    return {name: outcomes.get(name, f"failed: the process ended with status {status}") for name in reads}


def put(content: bytes) -> Bad:
    return lambda target: target.write_bytes(content)


def replaced_by_link(to: str) -> Bad:
    def bad(target: Path) -> None:
        target.unlink()
        target.symlink_to(to)

    return bad


def a_pipe(target: Path) -> None:
    target.unlink()
    os.mkfifo(target)


def a_folder(target: Path) -> None:
    target.unlink()
    target.mkdir()


def a_link_outside(target: Path) -> None:
    folder = Path(os.environ["TEST_FOLDER"])
    outside = folder.parent / f"outside-{target.name}"
    outside.write_bytes(target.read_bytes())
    target.unlink()
    target.symlink_to(outside)
    roots.restrict([folder])


EVERYWHERE: dict[str, Bad] = {
    "pipe": a_pipe,
    "device": replaced_by_link("/dev/zero"),
    "kernel file": replaced_by_link("/proc/self/environ"),
    "folder": a_folder,
    "link to itself": lambda target: replaced_by_link(target.name)(target),
    "link outside the roots": a_link_outside,
    "empty": put(b""),
    "noise": put(random.Random(0).randbytes(4096)),
    "web page": put(b"<!DOCTYPE html><html><body>Log in</body></html>"),
}
"""Attacks on the main file of a reader that are the same for all."""

LEFT_OUT = {
    ("folder", "pipe"): "files that are no files are not listed",
    ("folder", "device"): "files that are no files are not listed",
    ("folder", "folder"): "an empty folder",
    ("folder", "link outside the roots"): "left out with a note",
    ("omniglot", "pipe"): "files that are no files are not listed",
    ("omniglot", "device"): "files that are no files are not listed",
    ("omniglot", "folder"): "an empty folder",
    ("omniglot", "link outside the roots"): "left out",
}
"""Attacks after which a reader reads the rest, and why that is right."""


def understated(content: bytes) -> bytes:
    """Return a parquet file whose footer declares 1 kB per row group, whatever its pages unpack to."""

    def varint(value: int, width: int = 0) -> bytes:
        out = bytearray()
        value *= 2  # zigzag
        while value >= 128 or len(out) < width - 1:
            out.append(value & 127 | 128)
            value >>= 7
        return bytes((*out, value))

    metadata = pq.ParquetFile(pa.BufferReader(content)).metadata
    start = len(content) - 8 - struct.unpack("<I", content[-8:-4])[0]
    footer = content[start:]
    for group in range(metadata.num_row_groups):
        size = varint(metadata.row_group(group).total_byte_size)
        footer = footer.replace(size, varint(1000, len(size)))
    return content[:start] + footer


@cache
def repeated_in(columns: tuple[str, ...], column: str) -> bytes:
    return repeated({name: ["a"] for name in columns}, column)


def repeated(table: Mapping[str, Any], column: str, rows: int = 60, size: int = 5_000_000) -> bytes:
    """Return a small parquet file that repeats a long text, so that it unpacks to gigabytes."""
    short = {name: [values[0]] * rows for name, values in table.items()}
    stream = io.BytesIO()
    with pq.ParquetWriter(stream, pa.table(short).schema, compression="zstd", use_dictionary=False) as writer:
        for _ in range(rows):
            writer.write_table(pa.table({name: ["x" * size if name == column else v[0]] for name, v in short.items()}))
    return stream.getvalue()


def many_rows(table: Mapping[str, Any], rows: int = 3_000_000) -> bytes:
    stream = io.BytesIO()
    same = pa.array(np.zeros(rows, np.int8))
    columns = {name: pa.DictionaryArray.from_arrays(same, pa.array(values[:1])) for name, values in table.items()}
    pq.write_table(pa.table(columns), stream, compression="zstd")
    return stream.getvalue()


def prefixes(table: Mapping[str, Any], column: str) -> bytes:
    """Return a parquet file whose texts share a long prefix, which is stored once."""
    values = {name: [v[0]] * 30 for name, v in table.items()}
    values[column] = ["y" * 100_000 + str(number) for number in range(30)]
    stream = io.BytesIO()
    encoding = {name: "DELTA_BYTE_ARRAY" if name == column else "PLAIN" for name in values}
    pq.write_table(pa.table(values), stream, use_dictionary=False, column_encoding=encoding, compression="zstd")
    return stream.getvalue()


def parquet_bombs(table: Callable[[], Mapping[str, Any]], column: str) -> dict[str, Callable[[], bytes]]:
    return {
        "long texts": lambda: repeated_in(tuple(table()), column),
        "long texts, understated": lambda: understated(repeated_in(tuple(table()), column)),
        "many rows": lambda: many_rows(table()),
        "shared prefixes": lambda: prefixes(table(), column),
    }


@cache
def hub_bomb() -> bytes:
    return repeated({"image": [picture()], "label": ["cat"]}, "label")


def task_rows() -> dict[str, list[Any]]:
    return {name: small_tasks().rows[name].tolist() for name in ("task_id", "role", "image_id", "label", "class")}


DECISION = {"image_id": ["mnist5k-0000"], "verdict": ["keep"]}


def png_header(side: int) -> bytes:
    content = bytearray(picture(size=(8, 8)))
    content[16:24] = struct.pack(">II", side, side)
    return bytes(content)


def many_scans() -> bytes:
    content = picture(size=(64, 64), mode="RGB", kind="JPEG", progressive=True)
    scan = content.rindex(b"\xff\xda")
    return content[:scan] + content[scan:-2] * 200 + b"\xff\xd9"


def zip_bomb(name: str = "cat/1.png", size: int = 250_000_000) -> bytes:
    stream = io.BytesIO()
    with (
        zipfile.ZipFile(stream, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as archive,
        archive.open(name, "w") as member,
    ):
        for _ in range(size // 10_000_000):
            member.write(bytes(10_000_000))
    return stream.getvalue()


def zip_of(names: list[str]) -> bytes:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as archive:
        for name in names:
            archive.writestr(name, picture())
    return stream.getvalue()


def pickle_in_pt(body: bytes) -> bytes:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as archive:
        archive.writestr("a/data.pkl", b"\x80\x02" + body)
        archive.writestr("a/version", "3\n")
    return stream.getvalue()


def integer(value: int) -> bytes:
    content = value.to_bytes(value.bit_length() // 8 + 1, "little", signed=True)
    return b"\x8a" + bytes([len(content)]) + content


COLLIDING = [integer(((1 << 61) - 1) * number) for number in range(1000, 40_000)]
"""Integers of one hash."""
ONE_CALL = b"ccollections\nOrderedDict\nq\x01)q\x02"


def header_of_safetensors(size: int) -> bytes:
    return struct.pack("<Q", size) + b"{" + b" " * (size - 2) + b"}"


def tensors_bytes(scale: float) -> bytes:
    return save(weights(scale))


def pt_bytes(value: Any) -> bytes:
    stream = io.BytesIO()
    torch.save(value, stream)
    return stream.getvalue()


def task_csv(**changes: Any) -> bytes:
    rows = small_tasks().rows.astype(object)
    for name, value in changes.items():
        rows.loc[0, name] = value
    return rows.to_csv(index=False).encode()


def task_json(**changes: Any) -> bytes:
    rows = small_tasks().rows.to_dict(orient="records")
    return json.dumps([rows[0] | changes, *rows[1:]]).encode()


SPECIAL: dict[str, dict[str, Callable[[], bytes]]] = {
    "folder": {
        "pixels": lambda: png_header(60_000),
        "scans": many_scans,
        "no number": lambda: tiff(np.full((8, 8), np.nan, np.float32)),
        "only infinite": lambda: tiff(np.full((8, 8), np.inf, np.float32)),
    },
    "zip": {
        "bomb": zip_bomb,
        "path upwards": lambda: zip_of(["../cat/1.png", "dog/1.png"]),
        "long path": lambda: zip_of(["-" * 60_000 + ".parquet", "dog/1.png"]),
    },
    "manifest.csv": {
        "many columns": lambda: b"path,label," + b",".join(b"c%d" % number for number in range(20_000)) + b"\n",
        "NUL": lambda: b"path,label\ncat/1.png,c\0t\n",
        "long field": lambda: b"path,label\ncat/1.png," + b"x" * 1_000_000 + b"\n",
        "missing label": lambda: b"path,label\ncat/1.png,\n",
    },
    "manifest.tsv": {"long field": lambda: b"path\tlabel\ncat/1.png\t" + b"x" * 1_000_000 + b"\n"},
    "manifest.jsonl": {
        "many fields": lambda: b"\n".join(b'{"path": "cat/1.png", "label": 1, "c%d": 1}' % n for n in range(9_000)),
        "nesting": lambda: b'{"path": ' + b"[" * 100_000 + b"]" * 100_000 + b"}",
        "NaN label": lambda: b'{"path": "cat/1.png", "label": NaN}',
        "digits": lambda: b'{"path": "cat/1.png", "label": ' + b"1" * 5000 + b"}",
    },
    "manifest.parquet": parquet_bombs(lambda: ROWS, "label"),
    "mnist": {"wrong length": lambda: struct.pack(">BBBB3I", 0, 0, 8, 3, 60_000, 28_000, 28)},
    "omniglot": {"pixels": lambda: png_header(60_000)},
    "split lists": {
        "nesting": lambda: b"[" * 100_000 + b"]" * 100_000,
        "no list": lambda: b'{"background": 3}',
    },
    "cifar-fs": {"size": lambda: b"\x1f\x8b" + bytes(100)},
    "fc100": {
        "colliding keys": lambda: b"\x80\x02}(" + b"N".join(integer(n << 61) for n in range(10_000)) + b"Nu.",
        "operations": lambda: b"\x80\x02](" + b"N" * 3_000_000 + b"e.",
        "nesting": lambda: b"\x80\x02" + b"]" * 50_000 + b"a" * 49_999 + b".",
        "call": lambda: b"cos\nsystem\n(S'true'\ntR.",
    },
    "mini-imagenet": {"call": lambda: b"cos\nsystem\n(S'true'\ntR."},
    "hub parquet": parquet_bombs(lambda: {"image": [picture()], "label": ["cat"]}, "label")
    | {"long texts, understated": lambda: understated(hub_bomb()), "long texts": lambda: hub_bomb()},
    "huggingface": {},
    "tasks.parquet": parquet_bombs(task_rows, "image_id")
    | {"many columns": lambda: parquet_bytes({f"c{number}": [1] for number in range(10_001)})},
    "tasks.csv": {
        "many columns": lambda: b",".join(b"c%d" % number for number in range(20_000)) + b"\n",
        "long id": lambda: task_csv(image_id="x" * 1_000_000),
        "control characters": lambda: task_csv(role="\x1b]0;title\x07"),
        **{f"label {text}": partial(task_csv, label=text) for text in ("1e30", "-1", "0.5", "nan", "True")},
    },
    "tasks.json": {
        "nesting": lambda: b"[" * 100_000 + b"]" * 100_000,
        "digits": lambda: task_json(label=int("9" * 4000)),
        "more digits": lambda: json.dumps([{"label": 1}]).encode().replace(b"1", b"1" * 5000),
        "label true": lambda: task_json(label=True),
        "label list": lambda: task_json(label=[0]),
        "lone surrogate": lambda: task_json(**{"class": "\ud800"}),
        "many fields": lambda: json.dumps([{f"c{n}": n} for n in range(9_000)]).encode(),
    },
    **{f"tasks for {library}": {"nesting": lambda: b"[" * 100_000 + b"]" * 100_000} for library in LIBRARIES},
    "decisions.parquet": parquet_bombs(lambda: DECISION, "image_id"),
    "decisions.csv": {"many columns": lambda: b",".join(b"c%d" % number for number in range(20_000)) + b"\n"},
    "decisions.json": {
        "nesting": lambda: b"[" * 100_000 + b"]" * 100_000,
        "many fields": lambda: json.dumps([{f"c{n}": n} for n in range(9_000)]).encode(),
    },
    "cleanlab.parquet": {},
    "checkpoint.pt": {
        "colliding keys": lambda: pickle_in_pt(b"}(" + b"".join(key + b"N" for key in COLLIDING) + b"u."),
        "colliding items of a set": lambda: pickle_in_pt(b"c__builtin__\nset\n](" + b"".join(COLLIDING) + b"e\x85R."),
        "operations": lambda: pickle_in_pt(b"](" + b"N" * 4_000_000 + b"e."),
        "tuples": lambda: pickle_in_pt(b"](" + b"(t" * 2_000_000 + b"e."),
        "calls": lambda: pickle_in_pt(b"](" + ONE_CALL + b"h\x01h\x02R" * 800_000 + b"e."),
        "nesting": lambda: pickle_in_pt(b"}" * 100_000 + b"."),
        "call": lambda: pickle_in_pt(b"cos\nsystem\n(S'true'\ntR."),
        "huge weights": lambda: pt_bytes(weights(1e306)),
        "NaN weights": lambda: pt_bytes(weights(float("nan"))),
    },
    "checkpoint.safetensors": {
        "header": lambda: header_of_safetensors(20 << 20) + bytes(100),
        "huge weights": lambda: tensors_bytes(1e306),
        "NaN weights": lambda: tensors_bytes(float("nan")),
    },
    "model folder": {
        "header": lambda: header_of_safetensors(20 << 20) + bytes(100),
        "huge weights": lambda: tensors_bytes(1e306),
        "NaN weights": lambda: tensors_bytes(float("nan")),
    },
}
"""Attacks that only some formats allow, by reader."""

NOT_APPLICABLE = {
    ("manifest.tsv", "many columns"): "read by the same code as csv",
    ("cleanlab.parquet", "long texts"): "read by the same code as decisions.parquet",
    ("huggingface", "bomb"): "its files are mapped, and compressed ones are refused (tests/data)",
    ("cifar-fs", "bomb"): "tests/data/test_reader_cifar.py: members are measured before they are unpacked",
    ("mnist", "bomb"): "tests/data/test_reader_mnist.py: the header is checked before anything is unpacked",
}
"""Guards that have no meaning for a reader, or are tested with its other cases, and why."""


def test_every_reader_has_its_rows() -> None:
    covered = {*READERS}
    assert covered == {*SPECIAL}
    image_sets = {*readers.READERS} - {"manifest", "huggingface"}
    assert image_sets <= covered
    assert {f"manifest{ending}" for ending in SUFFIXES} <= covered
    assert {f"{kind}.{format}" for kind in ("tasks", "decisions") for format in FORMATS} <= covered
    assert {f"tasks for {library}" for library in LIBRARIES} <= covered
    assert {name for name, _ in [*LEFT_OUT, *NOT_APPLICABLE]} <= covered
    assert {guard for _, guard in LEFT_OUT} <= {*EVERYWHERE}


@pytest.mark.parametrize("name", READERS)
def test_what_is_valid_is_read(name: str, tmp_path: Path) -> None:
    READERS[name].make(tmp_path)
    READERS[name].read(tmp_path)


@pytest.mark.parametrize("name", READERS)
@pytest.mark.timeout(SECONDS * 4)
def test_files_that_are_no_files_and_files_elsewhere(name: str, tmp_path: Path) -> None:
    one = READERS[name]

    def attack(guard: str, folder: Path) -> None:
        roots.restrict([Path("/")])
        os.environ["TEST_FOLDER"] = str(folder)
        EVERYWHERE[guard](folder / one.target)
        one.read(folder)

    reads = {}
    for number, guard in enumerate(EVERYWHERE):
        folder = tmp_path / str(number)
        folder.mkdir()
        one.make(folder)
        reads[guard] = partial(attack, guard, folder)
    for guard, outcome in outcomes_of(reads).items():
        expected = "read" if (name, guard) in LEFT_OUT else "refused"
        assert outcome.startswith(expected), (guard, outcome)
        check_text(outcome)


@pytest.mark.parametrize("name", [name for name, guards in SPECIAL.items() if guards])
@pytest.mark.timeout(SECONDS * 4)
def test_files_that_unfold_or_lie(name: str, tmp_path: Path) -> None:
    one = READERS[name]
    reads = {}
    for number, (guard, make) in enumerate(SPECIAL[name].items()):
        folder = tmp_path / str(number)
        folder.mkdir()
        one.make(folder)
        assert (folder / one.target).write_bytes(make()) < 30_000_000
        reads[guard] = partial(one.read, folder)
    for guard, outcome in outcomes_of(reads).items():
        assert outcome.startswith("refused"), (guard, outcome)
        check_text(outcome)


def check_text(text: str) -> None:
    assert len(text) <= 2 * errors.MAX_CHARACTERS + 20
    assert not re.search("[\0-\x1f\x7f-\x9f]", text), text
    assert "weights_only" not in text


@pytest.mark.parametrize("name", READERS)
@pytest.mark.parametrize("count", [6, pytest.param(60, marks=pytest.mark.slow)])
@pytest.mark.timeout(SECONDS * 10)
def test_damaged_files_are_read_or_refused(name: str, count: int, tmp_path: Path) -> None:
    one = READERS[name]
    one.make(tmp_path)
    target = tmp_path / one.target
    content = target.read_bytes()

    def attack(seed: int) -> None:
        target.write_bytes(mutated(content, random.Random(f"{name} {seed}")))
        one.read(tmp_path)

    for seed, outcome in outcomes_of({str(seed): partial(attack, seed) for seed in range(count)}).items():
        assert not outcome.startswith("failed"), (seed, outcome)
        check_text(outcome)


def mutated(content: bytes, rng: random.Random) -> bytes:
    """Return content with bits flipped, bytes replaced, a length changed, a part moved, or an end cut off."""
    changed = bytearray(content)
    for _ in range(rng.choice((1, 1, 2, 5))):
        if len(changed) < 16:
            break
        at = rng.choice((rng.randrange(len(changed)), max(0, len(changed) - rng.randrange(1, 600)), rng.randrange(16)))
        match rng.randrange(6):
            case 0 | 1:
                changed[at % len(changed)] ^= 1 << rng.randrange(8)
            case 2:
                changed[at % len(changed)] = rng.choice((0, 0x7F, 0x80, 0xFF))
            case 3:
                changed[at : at + 4] = rng.choice((b"\xff\xff\xff\x7f", b"\0\0\0\0", b"\xff" * 4))
            case 4:
                end = min(len(changed), at + rng.randrange(1, 64))
                changed[at:at] = changed[at:end]
            case 5:
                del changed[at : at + rng.choice((1, 8, len(changed)))]
    return bytes(changed)


def test_a_manifest_below_a_root_names_nothing_outside(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    inside = tmp_path / "inside"
    inside.mkdir()
    (tmp_path / "secret.png").write_bytes(picture())
    table = f"path,label\n{tmp_path / 'secret.png'},a\n".encode()
    (inside / "list.csv").write_bytes(table)
    assert readers.read_listing(inside / "list.csv").read(0)
    monkeypatch.setenv(roots.ROOTS_VARIABLE, str(inside))
    with pytest.raises(UserError, match=r"list\.csv, line 2"):
        readers.read_listing(inside / "list.csv")
    with pytest.raises(UserError, match="outside"):
        readers.read_listing(tmp_path)
    (inside / "list.csv").write_bytes(b"path,label\nlinked.png,a\n")
    (inside / "linked.png").symlink_to(tmp_path / "secret.png")
    with pytest.raises(UnreadableError, match="outside"):
        readers.read_listing(inside / "list.csv").read(0)


def test_links_in_an_archive_are_not_followed(tmp_path: Path) -> None:
    path = write_zip(tmp_path / "a.zip", PICTURES)
    with zipfile.ZipFile(path, "a") as archive:
        link = zipfile.ZipInfo("cat/3.png")
        link.external_attr = 0o120777 << 16
        archive.writestr(link, "/etc/passwd")
    listing = readers.read_listing(path)
    ids = listing.table["id"].tolist()
    assert listing.read(ids.index("cat/3.png")) == b"/etc/passwd"  # the text of the link, which is no image
    with pytest.raises(UnreadableError):
        decode(listing.read(ids.index("cat/3.png")), 8, 8, 3)


def test_a_pipe_put_in_place_after_the_check_does_not_block(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_bytes(b"x")
    os.mkfifo(tmp_path / "pipe")
    monkeypatch.setattr("core.runtime.reading.check_input", lambda *_: None)
    with pytest.raises(UserError, match="pipe"):
        open_input(tmp_path / "pipe")
    assert open_input(tmp_path / "file").read() == b"x"


@pytest.mark.parametrize("path", ["a\0b", "a\udcffb", "x" * 5000, "\x1b]0;title\x07"])
def test_odd_paths_are_refused_in_plain_text(path: str, tmp_path: Path) -> None:
    for read in (open_tensors, read_tasks, readers.read_listing, open_input):
        with pytest.raises(UserError) as error:
            read(tmp_path / path)
        check_text(str(error.value))
        str(error.value).encode("utf-8")


LONG = ["x" * 10**6, 10**6000, ["y" * 10**6] * 10**4, {1: "z" * 10**6}, b"q" * 10**6]


@pytest.mark.parametrize("value", LONG, ids=range(len(LONG)))
def test_shown_values_and_errors_fit_on_a_screen(value: Any) -> None:
    assert len(errors.shown(value)) < 700
    assert len(str(UserError("before " + "\x1b[2J" * 10**5 + " after", "x" * 10**6))) < 2100
    assert str(UserError("before " + "x" * 10**6 + " after")).endswith(" after")


def test_a_page_header_is_measured_and_not_the_footer() -> None:
    honest = repeated({"a": ["b"]}, "a", rows=3, size=1_000_000)
    lying = understated(honest)
    assert pq.ParquetFile(pa.BufferReader(lying)).metadata.row_group(0).total_byte_size == 1000
    assert check_parquet(lying, "x", 100) == check_parquet(honest, "x", 100)
    assert check_parquet(lying, "x", 100).unpacked >= 3_000_000


def test_random_states_in_a_checkpoint_are_still_read(tmp_path: Path) -> None:
    state = np.random.default_rng(0).bit_generator.state
    content = {"model": weights(), "random": state, "shapes": {(n, 1): n for n in range(100)}, "epochs": {1: 2}}
    torch.save(content, tmp_path / "m.pt")
    assert set(open_tensors(tmp_path / "m.pt").tensors) == set(SPEC.shapes())
