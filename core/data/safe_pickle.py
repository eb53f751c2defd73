"""Read numbers, strings and arrays from a pickle file without executing it.

A pickle is a program. CIFAR-100 and the caches of other few-shot libraries are pickles that contain only plain data, so
this module interprets their opcodes, as the standard library's disassembler lists them: it builds plain values, maps
NumPy arrays onto the bytes of the file, and rejects everything else with an error that names it. Nothing named in the
file is looked up, imported or called.
"""

from __future__ import annotations

import mmap
import pickletools
import re
import struct
from collections.abc import Iterable
from dataclasses import dataclass, field
from math import prod
from pathlib import Path
from typing import Any

import numpy as np

from core.runtime.errors import UserError

MAX_OPERATIONS = 5_000_000  # a list of a million names takes three million
MAX_DEPTH = 32  # nested containers
_MAPPED_FROM = 1 << 16  # bytes; shorter values are copied from the map
_MAX_DIMENSIONS = 8
_MAX_KEY = 1 << 31
_DTYPE = re.compile(r"[<>|=]?(b1|[iu][1248]|f[248])")
_MARK = object()
_OPCODES = {opcode.code: opcode for opcode in pickletools.opcodes}
_LENGTH_BYTES = {"BINSTRING": 4, "BINBYTES": 4, "BINBYTES8": 8, "BYTEARRAY8": 8}

_NAMES = {
    **{f"numpy.{core}.multiarray _reconstruct": "array" for core in ("core", "_core")},
    **{f"numpy.{core}.multiarray scalar": "scalar" for core in ("core", "_core")},
    **{f"numpy.{core}.numeric _frombuffer": "buffer" for core in ("core", "_core")},
    "numpy ndarray": "class of arrays",
    "numpy dtype": "dtype",
    "_codecs encode": "encode",
    "__builtin__ bytes": "bytes",
    "builtins bytes": "bytes",
}


def read_plain(path: Path) -> Any:
    """Read the plain data in a pickle file.

    Large arrays are views of the mapped file: they use no memory until they are accessed, and are read-only.

    Returns:
        None, bool, int, float, str, bytes, NumPy arrays of numbers, and tuples, lists and dictionaries of these.
        Strings of Python 2 are decoded as Latin-1. Bytes, and strings of Python 2, of 64 KiB or more are memory
        views. Keys of dictionaries are strings, bytes or integers.

    Raises:
        UserError: the file is missing, damaged, or contains anything else; the text names it.
    """
    try:
        with path.open("rb") as stream:
            mapped = mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ)
    except ValueError as error:
        raise UserError(f"{path.name} is empty.", "Download it again.") from error
    except OSError as error:
        raise UserError(f"{path} cannot be read: {error.strerror}.", "Check the path.") from error
    return parse_plain(memoryview(mapped), path.name)


def parse_plain(content: bytes | memoryview, name: str) -> Any:
    """Parse plain data as :func:`read_plain` does, from bytes in memory; errors call them ``name``."""
    return _Machine(memoryview(content), name).run()


class _Refused(Exception):
    """An error whose text says what was found."""


class _Stream:
    """A stream that the opcodes read from, which never allocates more than the remaining content."""

    def __init__(self, content: memoryview) -> None:
        self._content, self._at = content, 0

    def read(self, count: int) -> bytes:
        part = bytes(self._content[self._at : self._at + count])
        self._at += len(part)
        return part

    def readline(self) -> bytes:
        start, step = self._at, 1 << 12
        while self._at < len(self._content):
            block = bytes(self._content[self._at : self._at + step])
            end = block.find(b"\n")
            self._at += len(block) if end < 0 else end + 1
            if end >= 0:
                break
            step *= 2
        return bytes(self._content[start : self._at])

    def view(self, length_bytes: int) -> memoryview:
        """Return a length-prefixed value."""
        length = self.read(length_bytes)
        count = int.from_bytes(length, "little")
        if len(length) < length_bytes or count > len(self._content) - self._at:
            raise ValueError("it is cut short")
        self._at += count
        return self._content[self._at - count : self._at]


@dataclass(frozen=True)
class _Named:
    """A reference to one of the few global names that plain data needs."""

    kind: str


@dataclass
class _Dtype:
    """An element type whose byte order is set after construction."""

    code: str

    def dtype(self) -> np.dtype:
        return np.dtype(self.code)


@dataclass
class _Empty:
    """An array that is not filled yet, with its positions in the memo."""

    places: list[int] = field(default_factory=list)


class _Machine:
    """A pickle interpreter's stack and memo for one file."""

    def __init__(self, content: memoryview, name: str) -> None:
        self._content, self._name = content, name
        self._stack: list[Any] = []
        self._memo: dict[int, Any] = {}
        self._left_to_copy = len(content)

    def run(self) -> Any:
        try:
            result = self._follow()
            _check(result)
        except _Refused as refused:
            raise UserError(
                f"{self._name} holds {refused}, which is no plain data.",
                "Nothing in it was run. Use the file of the data set's own authors, or images instead.",
            ) from None
        except (ValueError, IndexError, KeyError, TypeError, struct.error, OverflowError) as error:
            raise UserError(
                f"{self._name} is not a pickle file, or a damaged one: {str(error)[:200] or type(error).__name__}.",
                "Download it again.",
            ) from error
        return result

    def _follow(self) -> Any:
        stream = _Stream(self._content)
        typed: Any = stream  # the disassembler's readers are annotated for files but call only read and readline
        for _ in range(MAX_OPERATIONS):
            code = stream.read(1).decode("latin-1")
            if code not in _OPCODES:
                raise ValueError("it is cut short" if not code else f"there is no opcode {code!r}")
            opcode = _OPCODES[code]
            if opcode.name == "STOP":
                return self._pop()
            if opcode.name in _LENGTH_BYTES:
                view = stream.view(_LENGTH_BYTES[opcode.name])
                short = bytes(view) if len(view) < _MAPPED_FROM else view
                is_text = opcode.name == "BINSTRING" and isinstance(short, bytes)
                self._stack.append(str(short, "latin-1") if is_text else short)
            else:
                self._step(opcode.name, None if opcode.arg is None else opcode.arg.reader(typed))
        raise _Refused(f"more than {MAX_OPERATIONS:,} values")

    def _step(self, name: str, argument: Any) -> None:
        stack = self._stack
        match name:
            case "PROTO" | "FRAME":
                pass
            case "NONE":
                stack.append(None)
            case "NEWTRUE" | "NEWFALSE":
                stack.append(name == "NEWTRUE")
            case "INT" | "BININT" | "BININT1" | "BININT2" | "LONG" | "LONG1" | "LONG4":
                if not -(1 << 63) <= argument < 1 << 64:
                    raise _Refused("an integer of more than 64 bits")
                stack.append(argument)
            case "FLOAT" | "BINFLOAT" | "UNICODE" | "BINUNICODE" | "SHORT_BINUNICODE" | "BINUNICODE8":
                stack.append(argument)
            case "STRING" | "SHORT_BINSTRING" | "SHORT_BINBYTES":
                stack.append(argument)
            case "MARK":
                stack.append(_MARK)
            case "POP":
                stack.pop()
            case "POP_MARK":
                self._since_mark()
            case "DUP":
                stack.append(stack[-1])
            case "EMPTY_LIST":
                stack.append([])
            case "EMPTY_TUPLE":
                stack.append(())
            case "EMPTY_DICT":
                stack.append({})
            case "LIST":
                stack.append(self._since_mark())
            case "TUPLE":
                stack.append(tuple(self._since_mark()))
            case "TUPLE1" | "TUPLE2" | "TUPLE3":
                stack.append(tuple(self._pops(int(name[-1]))))
            case "DICT":
                pairs = self._since_mark()
                stack.append({})
                self._set(pairs)
            case "APPEND":
                self._extend(self._pops(1))
            case "APPENDS":
                self._extend(self._since_mark())
            case "SETITEM":
                self._set(self._pops(2))
            case "SETITEMS":
                self._set(self._since_mark())
            case "PUT" | "BINPUT" | "LONG_BINPUT":
                self._note_down(argument)
            case "MEMOIZE":
                self._note_down(len(self._memo))
            case "GET" | "BINGET" | "LONG_BINGET":
                stack.append(self._memo[argument])
            case "GLOBAL":
                stack.append(_named(argument))
            case "STACK_GLOBAL":
                module, attribute = self._pops(2)
                stack.append(_named(f"{module} {attribute}"))
            case "REDUCE":
                called, arguments = self._pops(2)
                stack.append(self._reduced(called, arguments))
            case "BUILD":
                built, state = self._pops(2)
                stack.append(self._built(built, state))
            case _:
                raise _Refused(f"an object that only Python can make ({name})")

    def _pop(self) -> Any:
        value = self._stack.pop()
        if value is _MARK:
            raise ValueError("a value is missing")
        return value

    def _pops(self, count: int) -> list[Any]:
        return [self._pop() for _ in range(count)][::-1]

    def _since_mark(self) -> list[Any]:
        values: list[Any] = []
        while (value := self._stack.pop()) is not _MARK:
            values.append(value)
        return values[::-1]

    def _extend(self, values: list[Any]) -> None:
        if type(self._stack[-1]) is not list:
            raise _Refused(f"something appended to {_kind(self._stack[-1])}")
        self._stack[-1].extend(values)

    def _set(self, pairs: list[Any]) -> None:
        target = self._stack[-1]
        if type(target) is not dict:
            raise _Refused(f"something set in {_kind(target)}")
        if len(pairs) % 2:
            raise ValueError("a key without a value")
        for key, value in zip(pairs[::2], pairs[1::2], strict=True):
            # Other keys could make hashing arbitrarily slow: nested tuples, integers with one common hash.
            if type(key) not in (str, bytes) and not (type(key) is int and abs(key) < _MAX_KEY):
                raise _Refused(f"a dictionary whose keys are {_kind(key)}")
            target[key] = value

    def _note_down(self, place: int) -> None:
        value = self._stack[-1]
        if value is _MARK:
            raise ValueError("a value is missing")
        self._memo[place] = value
        if isinstance(value, _Empty):
            value.places.append(place)

    def _reduced(self, called: Any, arguments: Any) -> Any:
        if not isinstance(called, _Named) or type(arguments) is not tuple:
            raise _Refused(f"a call of {_kind(called)}")
        match called.kind, arguments:
            case "array", (_Named(kind="class of arrays"), (0,), _):
                return _Empty()
            case "scalar", (_Dtype() as element, content):
                return self._array(element, (), content, False)[()].item()
            case "buffer", (content, _Dtype() as element, shape, order):
                return self._array(element, shape, content, order == "F")
            case "dtype", (str(code), *_):
                if not _DTYPE.fullmatch(code):
                    raise _Refused(f"an array of {code[:40]!r}")
                return _Dtype(code)
            case "encode", (str(text), "latin1" | "latin-1"):
                return self._encoded(text)
            case "bytes", ():
                return b""
        raise _Refused(f"an unusual {called.kind}")

    def _built(self, built: Any, state: Any) -> Any:
        match built, state:
            case _Empty(), (int(), tuple(shape), _Dtype() as element, fortran, content):
                array = self._array(element, shape, content, bool(fortran))
                for place in built.places:
                    if self._memo.get(place) is built:
                        self._memo[place] = array
                return array
            case _Dtype(), (int(), "<" | ">" | "|" | "=" as order, None, None, None, -1, -1, 0, *_):
                # The memo refers to this object, so it is filled in place.
                built.code = order + built.code.lstrip("<>|=")
                return built
        raise _Refused(f"the state of {_kind(built)}")

    def _encoded(self, text: str) -> bytes:
        self._left_to_copy -= len(text)
        if self._left_to_copy < 0:
            raise _Refused("more bytes than the file has")
        return text.encode("latin-1")

    def _array(self, element: _Dtype, shape: Any, content: Any, fortran: bool) -> np.ndarray:
        if isinstance(content, str):  # a string of Python 2
            content = self._encoded(content)
        if not isinstance(content, (bytes, memoryview)):
            raise _Refused(f"an array of {_kind(content)}")
        if type(shape) is not tuple or len(shape) > _MAX_DIMENSIONS:
            raise _Refused("an array of no shape")
        if any(type(size) is not int or not 0 <= size <= len(self._content) for size in shape):
            raise ValueError("the shape of an array is impossible")
        dtype = element.dtype()
        if prod(shape) * dtype.itemsize != len(content):
            raise ValueError(f"an array of shape {shape} does not take {len(content)} bytes")
        values = np.frombuffer(content, dtype) if len(content) else np.empty(0, dtype)
        values = values.reshape(shape, order="F" if fortran else "C")
        values.flags.writeable = False
        return values


def _named(name: str) -> _Named:
    if name not in _NAMES:
        raise _Refused(f"a call of {name.replace(' ', '.', 1)[:80]!r}")
    return _Named(_NAMES[name])


def _kind(value: Any) -> str:
    return "an unfinished array" if isinstance(value, _Empty) else f"a value of type {type(value).__name__.strip('_')}"


def _check(result: Any) -> None:
    """Raise an error for values that are not plain, contain themselves, or are nested too deeply; without recursion."""
    depths: dict[int, int] = {}
    open_: set[int] = set()
    waiting: list[tuple[Any, bool]] = [(result, False)]
    while waiting:
        value, left = waiting.pop()
        if type(value) not in (list, tuple, dict):
            if value is not None and type(value) not in (
                bool,
                int,
                float,
                str,
                bytes,
                bytearray,
                memoryview,
                np.ndarray,
            ):
                raise _Refused(_kind(value))
            continue
        name = id(value)
        if left:
            open_.discard(name)
            depths[name] = 1 + max((depths.get(id(part), 0) for part in _inside(value)), default=0)
            if depths[name] > MAX_DEPTH:
                raise _Refused(f"lists in lists, more than {MAX_DEPTH} deep")
        elif name in open_:
            raise _Refused("a list that contains itself")
        elif name not in depths:
            open_.add(name)
            waiting.append((value, True))
            waiting.extend((part, False) for part in _inside(value))


def _inside(container: Any) -> Iterable[Any]:
    return container.values() if type(container) is dict else container
