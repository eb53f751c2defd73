"""Objects other than tensors in checkpoints: harmless ones are ignored, and none is executed or allocated."""

from __future__ import annotations

import argparse
import datetime
import decimal
import functools
import io
import os
import pickle
import re
import resource
import types
import uuid
import zipfile
from collections import Counter, OrderedDict, defaultdict, deque
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given
from hypothesis import strategies as st
from torch import nn

from core.checkpoints.tensor_file import open_tensors
from core.runtime.errors import UserError
from tests.properties import examples

STATE = {"weight": torch.arange(6.0).view(2, 3), "bias": torch.ones(2)}
HARMLESS: dict[str, tuple[Any, str]] = {
    "numpy number": (np.float64(0.9), "NumPy number"),
    "numpy numbers of one byte": ([np.bool_(True), np.uint8(1), np.uint8(1)], "NumPy number"),
    "numpy text": (np.str_("resnet"), "NumPy number"),
    "numpy array": ({"history": np.arange(1000.0)}, "NumPy array"),
    "numpy array of objects": (np.array(["a", None, {"b": 1}], dtype=object), "NumPy array"),
    "numpy type": (np.float32, "NumPy type"),
    "numpy dtype": (np.dtype("f4"), "NumPy type"),
    "numpy generator": (np.random.default_rng(0), "NumPy random generator"),
    "numpy state": (np.random.RandomState(0).get_state(), "NumPy array"),
    "arguments": (argparse.Namespace(lr=0.1, out=Path("out"), shape=np.int64(3)), "argparse.Namespace"),
    "nested arguments": ({"args": {"opt": types.SimpleNamespace(a=[1])}}, "types.SimpleNamespace"),
    "path": ([Path("a/b"), Path("/c")], "path"),
    "date": (datetime.datetime(2024, 5, 6, tzinfo=datetime.UTC), "date or time"),
    "decimal": (decimal.Decimal("0.1"), "number"),
    "uuid": (uuid.UUID(int=3), "uuid.UUID"),
    "python types": ({"a": frozenset([1]), "b": range(3), "c": int, "d": ...}, "Python object"),
}
PLAIN = {
    "defaultdict": defaultdict(list, {"a": [1, 2]}),
    "deque": deque([1, 2], 5),
    "counter": Counter("abca"),
    "set": {1, 2, 3},
    "complex": 1 + 2j,
    "bytes": b"\xff\x00ab",
    "size": torch.Size([2, 3]),
    "big": 1 << 100,
    "device": torch.device("cpu"),
    "dtype": torch.float16,
}


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "some.pt"


@pytest.mark.parametrize("name", HARMLESS)
def test_harmless_objects_are_ignored_and_named(name: str, path: Path) -> None:
    value, kind = HARMLESS[name]
    torch.save({"epoch": 3, "model": STATE, "extra": value}, path)
    file = open_tensors(path)
    read = file.load(list(file.tensors))
    assert all(torch.equal(read[name], STATE[name]) for name in STATE)
    assert any("'extra" in note and f"({kind})" in note for note in file.notes)


@pytest.mark.parametrize("name", PLAIN)
def test_plain_objects_need_no_note(name: str, path: Path) -> None:
    torch.save({"model": STATE, "extra": PLAIN[name]}, path)
    file = open_tensors(path)
    assert list(file.tensors) == list(STATE)
    assert not file.notes


def test_harmless_objects_beside_the_tensors_of_a_flat_file(path: Path) -> None:
    torch.save({**STATE, "best": np.float32(0.5), "args": argparse.Namespace(a=1)}, path)
    file = open_tensors(path)
    assert list(file.tensors) == list(STATE)
    assert any("'best'" in note and "'args'" in note for note in file.notes)


def test_state_dicts_in_containers_that_are_read_as_dictionaries(path: Path) -> None:
    model: defaultdict[str, Any] = defaultdict(dict, {"net": OrderedDict(STATE)})
    torch.save(model, path)
    assert list(open_tensors(path).tensors) == list(STATE)


def test_weights_in_numpy_arrays_are_not_left_out(path: Path) -> None:
    torch.save({"model": {**STATE, "head.weight": np.ones((2, 3))}}, path)
    with pytest.raises(UserError, match=r"'model\.head\.weight' is a NumPy array"):
        open_tensors(path)
    arrays = {name: value.numpy() for name, value in STATE.items()}
    for content, name in ((arrays, "weight"), ({"params": arrays}, "params.weight")):
        torch.save(content, path)
        with pytest.raises(UserError, match=f"'{re.escape(name)}' is a NumPy array"):
            open_tensors(path)


@pytest.mark.parametrize(
    ("extra", "kept"),
    [
        ({"rng": torch.get_rng_state()}, True),
        ({"rng_states": {"cpu": torch.get_rng_state()}}, True),
        ({"class_weights": torch.ones(5)}, True),
        ({"criterion": {"weight": torch.ones(5)}}, True),
        ({"mean": torch.ones(3)}, False),
        ({"ema": dict(STATE)}, False),
    ],
)
def test_tensors_of_losses_and_random_generators_are_no_second_state_dict(
    extra: dict[str, Any], kept: bool, path: Path
) -> None:
    torch.save({"model": STATE, **extra}, path)
    if kept:
        file = open_tensors(path)
        assert list(file.tensors) == list(STATE)
        assert any(next(iter(extra)) in note for note in file.notes)
    else:
        with pytest.raises(UserError, match=r"several state dicts.*'model'") as caught:
            open_tensors(path)
        assert "torch.save(checkpoint" in caught.value.fix


# --- attacks


class Calls:
    """An object that is pickled as a function call, with an optional state."""

    def __init__(self, function: Callable[..., Any], *arguments: Any, state: Any = None) -> None:
        self.called = (function, arguments) if state is None else (function, arguments, state)

    def __reduce__(self) -> tuple[Any, ...]:
        return self.called


class Unknown:
    def __setstate__(self, state: Any) -> None:
        Path(state["path"]).touch()

    def __getstate__(self) -> Any:
        return {"path": "gone-off"}


REFUSED: dict[str, tuple[Any, str]] = {
    "own class": (Unknown(), r"'extra' .*test_pickled_objects\.Unknown"),
    "own class in a list": ([1, (Unknown(),)], r"'extra' .*test_pickled_objects\.Unknown"),
    "own class in a harmless object": (argparse.Namespace(a=Unknown()), r"'a' .*test_pickled_objects\.Unknown"),
    "own class in an array": (np.array([Unknown()], dtype=object), r"'extra' .*test_pickled_objects\.Unknown"),
    "module": (nn.Sequential(nn.Linear(2, 2)), r"'extra' .*torch\.nn\.modules\.container\.Sequential"),
    "function": (nn.functional.relu, r"'extra' .*torch\.nn\.functional\.relu"),
    "partial": (functools.partial(os.system, "touch gone-off"), r"'extra' .*functools\.partial"),
    "system": (Calls(os.system, "touch gone-off"), r"'extra' .*(posix|nt)\.system"),
    "system in an array": (np.array([Calls(os.system, "touch gone-off")], dtype=object), r"(posix|nt)\.system"),
    "eval": (Calls(eval, "open('gone-off', 'w')"), r"builtins\.eval"),
    "getattr": (Calls(getattr, argparse.Namespace, "__init__"), r"builtins\.getattr"),
    "array file": (Calls(np.load, "gone-off"), r"'extra' .*numpy\.load"),
    "array": (Calls(np.zeros, 10**12), r"'extra' .*numpy\.zeros"),
    "bytearray": (Calls(bytearray, 10**12), r"builtins\.bytearray"),
    "bytes of hexadecimal digits": (Calls(__import__("codecs").encode, b"ab", "hex"), "encodes text"),
    "state of a function": (Calls(dict, state={"a": 1}), ""),
}


@pytest.mark.parametrize("name", REFUSED)
def test_other_objects_are_refused_with_their_key(name: str, path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(path.parent)
    value, pattern = REFUSED[name]
    torch.save({"model": STATE, "extra": value}, path)
    if pattern:
        with pytest.raises(UserError, match=pattern) as caught:
            open_tensors(path)
        assert "state_dict()" in caught.value.fix
    else:
        open_tensors(path)
    assert not Path("gone-off").exists()


NUMPY_SCALAR, NUMPY_ARRAY = np.float64(1).__reduce__()[0], np.ones(1).__reduce__()[0]
NUMPY_NAME = f"{NUMPY_SCALAR.__module__}.{NUMPY_SCALAR.__name__}"
INERT: dict[str, Any] = {
    "scalar of a gigabyte": Calls(NUMPY_SCALAR, np.dtype("V1000000000")),
    "scalar of objects": Calls(NUMPY_SCALAR, np.dtype("O"), b"\x08" * 8),
    "array of a terabyte": Calls(NUMPY_ARRAY, np.ndarray, (10**12,), b"b"),
    "array with a state": Calls(NUMPY_ARRAY, np.ndarray, (0,), b"b", state=(1, (10**12,), np.dtype("f8"), False, b"")),
    "dtype with a state": Calls(np.dtype, "V1000000000", state=(3, "|", None, None, None, 10**9, 1, 0)),
    "range": Calls(range, 10**18),
    "tuple of a range": Calls(tuple, Calls(range, 10**12)),
    "list of a range": Calls(list, Calls(range, 10**12)),
    "bytes": Calls(bytes, 10**12),
    "bytes of nothing": Calls(bytes),
    "frozenset": Calls(frozenset, Calls(range, 10**12)),
    "deque": Calls(deque, Calls(range, 10**12)),
    "defaultdict": Calls(defaultdict, Calls(range, 10**12)),
    "path": Calls(Path, "/dev/zero"),
    "type": Calls(type, "Made", (), {"__del__": 1}),
    "namespace": Calls(argparse.Namespace, state={"__class__": int, "__dict__": 3, "__setstate__": 4}),
    "decimal": Calls(decimal.Decimal, "1E+999999999"),
    "integer": Calls(int, "9" * 4000),
}


@pytest.mark.parametrize("name", INERT)
def test_calls_of_harmless_objects_are_neither_executed_nor_allocated(name: str, path: Path) -> None:
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    torch.save({"model": STATE, "extra": INERT[name]}, path)
    assert list(open_tensors(path).tensors) == list(STATE)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 200_000


def test_objects_that_other_libraries_registered_are_not_called(path: Path) -> None:
    """Some libraries call ``add_safe_globals`` with NumPy's functions on import; afterwards they find them again."""
    calls = []
    before = torch.serialization.get_safe_globals()
    torch.serialization.add_safe_globals([(lambda *arguments: calls.append(arguments), NUMPY_NAME)])
    registered = torch.serialization.get_safe_globals()
    try:
        torch.save({"model": STATE, "best": np.float64(1)}, path)
        assert open_tensors(path).notes
        assert not calls
        assert set(torch.serialization.get_safe_globals()) == set(registered)
    finally:
        torch.serialization.clear_safe_globals()
        torch.serialization.add_safe_globals(before)


def with_pickle(path: Path, content: bytes) -> Path:
    """Write a file of ``torch.save`` with another pickle."""
    buffer = io.BytesIO()
    torch.save({"model": STATE}, buffer)
    with zipfile.ZipFile(buffer) as old, zipfile.ZipFile(path, "w") as new:
        for record in old.infolist():
            new.writestr(record.filename, content if record.filename.endswith("data.pkl") else old.read(record))
    return path


LONG = b"(" + b"K\x01" * 100_000 + b"tq\x05"  # a tuple in the memo
TEXT = b"X\x00\x00\x10\x00" + b"a" * (1 << 20) + b"q\x05"
REPEATED = {
    "sizes": (LONG, b"ctorch\nSize\n", b"h\x05\x85R"),
    "sets": (LONG, b"c__builtin__\nset\n", b"h\x05\x85R"),
    "new sets": (LONG, b"c__builtin__\nset\n", b"h\x05\x85\x81"),
    "counters": (LONG, b"ccollections\nCounter\n", b"h\x05\x85R"),
    "arguments": (LONG, b"ctorch\nSize\n", b"h\x05R"),
    "bytes": (TEXT, b"c_codecs\nencode\n", b"h\x05X\x06\x00\x00\x00latin1\x86R"),
}


@pytest.mark.parametrize("name", REPEATED)
def test_copies_of_one_long_argument_are_limited(name: str, path: Path) -> None:
    argument, function, call = REPEATED[name]
    body = b"".join([b"\x80\x02", argument, b"]q\x06(", (function + call) * 1000, b"e."])
    with pytest.raises(UserError, match="repeats parts of itself"):
        open_tensors(with_pickle(path, body))


@pytest.mark.parametrize(
    ("body", "what"),
    [
        (b"\x80\x02]q\x00c_codecs\nencode\n]X\x03\x00\x00\x00hexa R.", "is damaged|opcode|unknown way"),
        (b"\x80\x02c_codecs\nencode\n]R.", "unknown way"),
        (b"\x80\x02c_codecs\nencode\nX\x01\x00\x00\x00aX\x03\x00\x00\x00hex\x86R.", "encodes text"),
        (b"\x80\x02}X\x01\x00\x00\x00ac__main__\nNet\ns.", r"'a' .*__main__\.Net"),
        (b"\x80\x02c__main__\nNet\n.", r"__main__\.Net"),
        (b"\x80\x04\x8c\x02os\x8c\x06system\x93.", "protocol 4"),
        (b"\x80\x02ios\nsystem\n.", "opcode INST|damaged"),
        (b"\x80\x02}0.", "opcode POP"),
        (b"\x80\x02h\x07.", "damaged"),
        (b"\x80\x02R.", "damaged"),
    ],
)
def test_other_opcodes_are_refused(body: bytes, what: str, path: Path) -> None:
    with pytest.raises(UserError, match=what):
        open_tensors(with_pickle(path, body))


def test_a_file_of_a_newer_pickle_protocol_is_refused_with_what_to_do(path: Path) -> None:
    torch.save(STATE, path, pickle_protocol=pickle.HIGHEST_PROTOCOL)
    with pytest.raises(UserError, match="pickle protocol") as caught:
        open_tensors(path)
    assert "state_dict()" in caught.value.fix


@given(data=st.data())
@examples(300, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
def test_changed_pickles_with_objects_are_refused_or_read(path: Path, data: st.DataObject) -> None:
    buffer = io.BytesIO()
    torch.save({"model": STATE, "extra": [np.float64(1), argparse.Namespace(a=Path("b")), {1}, b"ab"]}, buffer)
    with zipfile.ZipFile(buffer) as archive:
        content = bytearray(archive.read(next(name for name in archive.namelist() if name.endswith("data.pkl"))))
    for _ in range(data.draw(st.integers(1, 3))):
        at = data.draw(st.integers(0, len(content) - 1))
        if data.draw(st.booleans()):
            content[at : at + 1] = data.draw(st.binary(max_size=4))
        else:
            content[at:at] = content[at : at + 20]
    with suppress(UserError):
        file = open_tensors(with_pickle(path, bytes(content)))
        file.load(list(file.tensors))
