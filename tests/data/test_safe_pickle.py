"""Plain data is read from pickles of every protocol; everything else is named and never executed."""

from __future__ import annotations

import collections
import contextlib
import datetime
import gc
import io
import os
import pickle
import pickletools
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from core.data import safe_pickle
from core.data.safe_pickle import parse_plain, read_plain
from core.runtime.errors import UserError

PROTOCOLS = range(pickle.HIGHEST_PROTOCOL + 1)
BOTH_KINDS = [pytest.param(number, marks=() if number in (2, 5) else pytest.mark.slow) for number in PROTOCOLS]
"""What Python 2 wrote and what Python 3 writes; the others are for ``make test-all``."""


def cifar_like() -> dict[Any, Any]:
    pixels = np.random.default_rng(0).integers(0, 256, (40, 3072), dtype=np.uint8)
    return {
        "data": pixels,
        "again": pixels,
        "fine_labels": list(range(40)),
        "filenames": [f"apple_s_{number:06d}.png" for number in range(40)],
        "batch_label": "training batch 1 of 1",
        "class_dict": {"n01532829": [0, 1], "n02": np.arange(3)},
        b"bytes": b"",
        3: (None, True, False, -1, 1 << 40, 2.5, "", "grün\U0001f600\n", b"\xff\x00"),
        "fortran": np.asfortranarray(np.arange(6.0).reshape(2, 3)),
        "big endian": np.arange(4, dtype=">i4"),
        "none of three": np.zeros((0, 3), dtype=np.float32),
        "scalars": [np.float32(0.5), np.int64(7), np.bool_(True)],
        "long": "z" * 100_000,
    }


def assert_equal(one: Any, other: Any) -> None:
    assert list(one) == list(other)
    for key, value in one.items():
        if isinstance(value, np.ndarray):
            assert value.dtype == other[key].dtype
            assert np.array_equal(value, other[key])
        elif isinstance(value, dict):
            assert_equal(value, other[key])
        else:
            assert value == other[key]


@pytest.mark.parametrize("protocol", BOTH_KINDS)
def test_plain_data_of_every_protocol_is_equal(protocol: int, tmp_path: Path) -> None:
    path = tmp_path / "train"
    path.write_bytes(pickle.dumps(cifar_like(), protocol))
    assert_equal(cifar_like(), read_plain(path))
    assert_equal(cifar_like(), parse_plain(path.read_bytes(), "train"))


def python_2(pixels: np.ndarray) -> bytes:
    """What Python 2 wrote of ``{"data": pixels, "filenames": ["a.png"]}``, the older names and texts included."""
    content = pixels.tobytes()

    def text(value: bytes) -> bytes:
        return (
            b"U" + bytes([len(value)]) + value if len(value) < 256 else b"T" + len(value).to_bytes(4, "little") + value
        )

    shape = b"".join(b"M" + size.to_bytes(2, "little") for size in pixels.shape)
    array = (
        b"cnumpy.core.multiarray\n_reconstruct\nq\x01cnumpy\nndarray\nq\x02K\x00\x85" + text(b"b") + b"\x87Rq\x03"
        b"(K\x01" + shape + b"\x86cnumpy\ndtype\nq\x04" + text(b"u1") + b"K\x00K\x01\x87Rq\x05"
        b"(K\x03" + text(b"|") + b"NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00tb\x89" + text(content) + b"tb"
    )
    return b"\x80\x02}q\x00(" + text(b"data") + array + text(b"filenames") + b"]" + text(b"a.png") + b"au."


@pytest.mark.parametrize("rows", [2, 30])
def test_python_2_pickles_are_read(rows: int) -> None:
    pixels = np.random.default_rng(1).integers(0, 256, (rows, 3072), dtype=np.uint8)
    raw = python_2(pixels)
    assert np.array_equal(pickle.loads(raw, encoding="latin1")["data"], pixels)
    found = parse_plain(raw, "train")
    assert np.array_equal(found["data"], pixels)
    assert found["filenames"] == ["a.png"]


def test_large_arrays_are_views_of_the_file(tmp_path: Path) -> None:
    path = tmp_path / "big.pkl"
    path.write_bytes(pickle.dumps({"image_data": np.ones((100, 84, 84, 3), dtype=np.uint8)}, 4))
    array = read_plain(path)["image_data"]
    assert not array.flags.owndata
    assert not array.flags.writeable
    gc.collect()
    assert array.sum() == array.size


class Call:
    def __init__(self, *call: Any) -> None:
        self.call = call

    def __reduce__(self) -> Any:
        return self.call


class Made:
    pass


@pytest.mark.parametrize("protocol", BOTH_KINDS)
@pytest.mark.parametrize("function", [os.system, eval, exec, open, __import__, getattr])
def test_calls_are_rejected_by_name_and_not_executed(function: Any, protocol: int, tmp_path: Path) -> None:
    trace = tmp_path / "trace"
    raw = pickle.dumps(["fine", Call(function, (f"touch {trace}",))], protocol)
    with pytest.raises(UserError, match=rf"bad\.pkl .*'.*{function.__name__}'"):
        parse_plain(raw, "bad.pkl")
    assert not trace.exists()


@pytest.mark.parametrize("protocol", BOTH_KINDS)
@pytest.mark.parametrize(
    "value",
    [
        Made(),
        {1, 2},
        frozenset({1}),
        complex(1, 2),
        range(3),
        datetime.date(2020, 1, 1),
        collections.OrderedDict(a=1),
        np.array([object()]),
        np.array(["text"]),
        np.zeros(2, dtype=[("a", "i4")]),
        np.array(["2020-01-01"], dtype="datetime64[D]"),
        np.ma.masked_array([1]),
        np.random.default_rng(0),
        1 << 70,
        {(1, 2): 3},
        {1 << 40: 3},
        {2.5: 3},
    ],
)
def test_other_data_is_rejected(value: Any, protocol: int) -> None:
    with pytest.raises(UserError, match=r"x\.pkl .*plain data"):
        parse_plain(pickle.dumps(value, protocol), "x.pkl")


def test_allowed_names_with_other_arguments_are_rejected() -> None:
    evil = [
        b"\x80\x02cnumpy.core.multiarray\n_reconstruct\ncposix\nsystem\nK\x00\x85U\x01b\x87R.",
        b"\x80\x02c_codecs\nencode\nX\x02\x00\x00\x00idU\x03hex\x86R.",
        b"\x80\x02cnumpy\ndtype\nX\x01\x00\x00\x00OK\x00K\x01\x87R.",
        b"\x80\x02cnumpy\nndarray\n(tR.",
        b"\x80\x02cnumpy\ndtype\n.",
        b"\x80\x02cnumpy\nndarray\n)\x81.",
        b"(inumpy\nndarray\n.",
        b"\x80\x02X\x02\x00\x00\x00idX\x02\x00\x00\x00id\x86R.",
        b"\x80\x02Psomething\n.",
        b"\x80\x02\x82\x01.",
        b"\x80\x05\x97.",
    ]
    for raw in evil:
        with pytest.raises(UserError):
            parse_plain(raw, "x.pkl")


@pytest.mark.parametrize("shape", [(10**9,), (3, 10**9, 10**9), (4,), (-1,), (2,) * 30])
def test_array_larger_than_its_bytes_is_rejected(shape: tuple[int, ...]) -> None:
    call = np._core.multiarray._reconstruct, (np.ndarray, (0,), b"b"), (1, shape, np.dtype("u1"), False, b"abc")
    with pytest.raises(UserError):
        parse_plain(pickle.dumps(Call(*call)), "x.pkl")


def test_dimension_larger_than_the_file_is_rejected() -> None:
    call = np._core.multiarray._reconstruct, (np.ndarray, (0,), b"b"), (1, (0, 10**12), np.dtype("u1"), False, b"")
    with pytest.raises(UserError, match="dimension"):
        parse_plain(pickle.dumps(Call(*call)), "x.pkl")


@pytest.mark.parametrize(
    "opcode", [b"B\xff\xff\xff\x7f", b"\x8e" + b"\xff" * 7 + b"\x0f", b"T\xff\xff\xff\x7f", b"\x8d" + b"\xff" * 8]
)
def test_length_beyond_the_end_takes_no_memory(opcode: bytes) -> None:
    with pytest.raises(UserError):
        parse_plain(b"\x80\x04" + opcode + b"abc.", "x.pkl")


def test_exponentially_shared_lists_are_fast() -> None:
    lists: list[Any] = []
    for _ in range(safe_pickle.MAX_DEPTH - 2):
        lists = [lists, lists]
    started = time.monotonic()
    parse_plain(pickle.dumps(lists), "x.pkl")
    assert time.monotonic() - started < 5
    with pytest.raises(UserError, match="deep"):
        parse_plain(pickle.dumps([[[[lists]]]]), "x.pkl")


def test_list_that_contains_itself_is_rejected() -> None:
    endless: list[Any] = []
    endless.append(endless)
    with pytest.raises(UserError, match="contains itself"):
        parse_plain(pickle.dumps(endless), "x.pkl")


def test_repeated_encoding_of_one_text_is_rejected() -> None:
    head = b"\x80\x02c_codecs\nencode\nq\x00X\xe8\x03\x00\x00" + b"a" * 1000 + b"q\x01X\x06\x00\x00\x00latin1q\x02"
    with pytest.raises(UserError, match="more bytes than the file has"):
        parse_plain(head + b"h\x00h\x01h\x02\x86R" * 1000 + b".", "x.pkl")


def test_too_many_values_are_rejected(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(safe_pickle, "MAX_OPERATIONS", 50)
    with pytest.raises(UserError, match="more than 50 values"):
        parse_plain(b"]" * 100, "x.pkl")


def test_missing_empty_and_other_files_are_rejected(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="does not exist"):
        read_plain(tmp_path / "absent")
    (tmp_path / "empty").touch()
    with pytest.raises(UserError, match="empty"):
        read_plain(tmp_path / "empty")
    (tmp_path / "text").write_text("path,label\n")
    with pytest.raises(UserError, match="pickle file"):
        read_plain(tmp_path / "text")


@given(st.binary(max_size=200))
def test_random_bytes_are_rejected_or_read(raw: bytes) -> None:
    with contextlib.suppress(UserError):
        parse_plain(raw, "x.pkl")


OPCODES = [opcode.code.encode("latin-1") for opcode in pickletools.opcodes]


@given(st.lists(st.one_of(st.sampled_from(OPCODES), st.binary(min_size=1, max_size=3)), max_size=60))
def test_random_programs_are_rejected_or_read(parts: list[bytes]) -> None:
    with contextlib.suppress(UserError):
        parse_plain(b"".join(parts) + b".", "x.pkl")


@given(st.sampled_from(list(PROTOCOLS)), st.data())
def test_mutated_pickles_are_rejected_or_read(protocol: int, data: st.DataObject) -> None:
    small = {
        "data": np.arange(12, dtype=np.uint8).reshape(3, 4),
        "labels": [1, 2, 3],
        "names": ["a", "b"],
        "x": (None,),
    }
    raw = bytearray(pickle.dumps(small, protocol))
    for _ in range(data.draw(st.integers(1, 4))):
        raw[data.draw(st.integers(0, len(raw) - 1))] = data.draw(st.integers(0, 255))
    with contextlib.suppress(UserError):
        parse_plain(bytes(raw), "x.pkl")


plain = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(1 << 63), (1 << 63) - 1)
    | st.floats(allow_nan=False)
    | st.text()
    | st.binary(),
    lambda inner: st.lists(inner, max_size=4) | st.tuples(inner, inner) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=12,
)


@given(plain, st.sampled_from(list(PROTOCOLS)))
def test_any_plain_data_is_equal(value: Any, protocol: int) -> None:
    stream = io.BytesIO()
    pickle.dump(value, stream, protocol)
    assert parse_plain(stream.getvalue(), "x.pkl") == value
