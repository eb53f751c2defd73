"""Read numbers, strings and arrays from a pickle file without executing it.

A pickle is a program. This module interprets its opcodes, as the standard library's disassembler lists them: it builds
plain values, maps NumPy arrays onto the bytes of the file, and rejects everything else with an error that names it.
Nothing named in the file is looked up, imported or called.
"""

from __future__ import annotations

import mmap
import pickletools
import re
import struct
from collections.abc import Callable
from dataclasses import dataclass, field
from math import prod
from pathlib import Path
from typing import Any

import numpy as np

from core.runtime.errors import UserError
from core.runtime.failed_downloads import HEAD_BYTES, check_download
from core.runtime.reading import open_input

MAX_OPERATIONS = 1_000_000  # a list of 300,000 names takes 900,000
MAX_DEPTH = 32  # nested containers
_MIN_VIEW_BYTES = 1 << 16  # shorter values are copied from the mapped file
_MAX_DIMENSIONS = 8
_MAX_KEY = 1 << 31
_DTYPE = re.compile(r"[<>|=]?(b1|[iu][1248]|f[248])")
_NEWLINE = re.compile(b"\n")
_MARK = object()
_PLAIN = (bool, int, float, str, bytes, bytearray, memoryview, np.ndarray, type(None))
_OPCODES = {ord(opcode.code): opcode for opcode in pickletools.opcodes}
_CONSTANTS: dict[str, Callable[[], Any]] = {
    "NONE": lambda: None,
    "NEWTRUE": lambda: True,
    "NEWFALSE": lambda: False,
    "EMPTY_LIST": list,
    "EMPTY_TUPLE": tuple,
    "EMPTY_DICT": dict,
    "MARK": lambda: _MARK,
}
_VALUES = {
    *("FLOAT", "BINFLOAT", "UNICODE", "BINUNICODE", "SHORT_BINUNICODE", "BINUNICODE8"),
    *("STRING", "SHORT_BINSTRING", "SHORT_BINBYTES", "BININT", "BININT1", "BININT2"),
}
"""Opcodes whose argument is the value."""
_LENGTH_BYTES = {"BINSTRING": 4, "BINBYTES": 4, "BINBYTES8": 8, "BYTEARRAY8": 8}

_GLOBALS = {
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

    Large arrays are read-only views of the mapped file, which use no memory until they are accessed.

    Returns:
        None, bool, int, float, str, bytes, NumPy arrays of numbers, and tuples, lists and dictionaries of these.
        Strings of Python 2 are decoded as Latin-1. Bytes, and strings of Python 2, of 64 KiB or more are memory
        views. Keys of dictionaries are strings, bytes or integers.

    Raises:
        UserError: the file is missing, damaged, or contains anything else; the text names it.
    """
    try:
        with open_input(path) as stream:
            mapped = mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ)
    except ValueError as error:
        raise UserError(f"{path.name} is empty.", "Download it again.") from error
    except OSError as error:
        raise UserError(f"{path} cannot be read: {error.strerror}.", "Check the path.") from error
    return parse_plain(memoryview(mapped), path.name)


def parse_plain(content: bytes | memoryview, name: str) -> Any:
    """Parse plain data as :func:`read_plain` does, from bytes in memory; errors call them ``name``."""
    check_download(name, bytes(content[:HEAD_BYTES]))
    try:
        result = _Machine(memoryview(content)).run()
        _check(result)
    except _NotPlainError as error:
        raise UserError(
            f"{name} contains {error}, which is not plain data.",
            "Nothing in it was executed. Use the file that the authors of the data set published, or image files.",
        ) from None
    except (ValueError, IndexError, KeyError, TypeError, struct.error, OverflowError) as error:
        raise UserError(
            f"{name} is damaged or not a pickle file: {str(error)[:200] or type(error).__name__}.", "Download it again."
        ) from error
    return result


class _NotPlainError(Exception):
    """An error whose text says what the file contains that is not plain data."""


class _Stream:
    """A stream that the opcodes read from, which never allocates more than the remaining content."""

    def __init__(self, content: memoryview) -> None:
        self._content, self._position = content, 0

    def read(self, count: int) -> bytes:
        part = bytes(self._content[self._position : self._position + count])
        self._position += len(part)
        return part

    def byte(self) -> int:
        """Return the next byte, or -1 at the end."""
        if self._position == len(self._content):
            return -1
        self._position += 1
        return self._content[self._position - 1]

    def readline(self) -> bytes:
        newline = _NEWLINE.search(self._content, self._position)
        return self.read((newline.end() if newline else len(self._content)) - self._position)

    def view(self, length_bytes: int) -> memoryview:
        """Return a length-prefixed value."""
        length = self.read(length_bytes)
        count = int.from_bytes(length, "little")
        if len(length) < length_bytes or count > len(self._content) - self._position:
            raise ValueError("it is truncated")
        self._position += count
        return self._content[self._position - count : self._position]


@dataclass(frozen=True)
class _Global:
    """A reference to one of the few functions and classes that plain data needs; ``kind`` is what it stands for."""

    kind: str


@dataclass
class _Dtype:
    """An element type whose byte order is set after construction."""

    code: str


@dataclass
class _PendingArray:
    """An array that is not filled yet, with its positions in the memo."""

    memo_keys: list[int] = field(default_factory=list)


class _Machine:
    """A pickle interpreter's stack and memo for one file."""

    def __init__(self, content: memoryview) -> None:
        self._content = content
        self._stack: list[Any] = []
        self._memo: dict[int, Any] = {}
        self._copy_budget = len(content)

    def run(self) -> Any:
        stream = _Stream(self._content)
        typed: Any = stream  # the disassembler's readers are annotated for files but call only read and readline
        for _ in range(MAX_OPERATIONS):
            code = stream.byte()
            opcode = _OPCODES.get(code)
            if opcode is None:
                raise ValueError("it is truncated" if code < 0 else f"there is no opcode {chr(code)!r}")
            if opcode.name in _CONSTANTS:
                self._stack.append(_CONSTANTS[opcode.name]())
            elif opcode.name in _VALUES and opcode.arg is not None:
                self._stack.append(opcode.arg.reader(typed))
            elif opcode.name == "STOP":
                return self._pop()
            elif opcode.name in _LENGTH_BYTES:
                view = stream.view(_LENGTH_BYTES[opcode.name])
                short = bytes(view) if len(view) < _MIN_VIEW_BYTES else view
                is_text = opcode.name == "BINSTRING" and isinstance(short, bytes)
                self._stack.append(str(short, "latin-1") if is_text else short)
            else:
                self._step(opcode.name, None if opcode.arg is None else opcode.arg.reader(typed))
        raise _NotPlainError(f"more than {MAX_OPERATIONS:,} values")

    def _step(self, name: str, argument: Any) -> None:
        stack = self._stack
        match name:
            case "PROTO" | "FRAME":
                pass
            case "INT" | "LONG" | "LONG1" | "LONG4":
                if not -(1 << 63) <= argument < 1 << 64:
                    raise _NotPlainError("an integer of more than 64 bits")
                stack.append(argument)
            case "POP":
                stack.pop()
            case "POP_MARK":
                self._since_mark()
            case "DUP":
                stack.append(stack[-1])
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
                self._memoize(argument)
            case "MEMOIZE":
                self._memoize(len(self._memo))
            case "GET" | "BINGET" | "LONG_BINGET":
                stack.append(self._memo[argument])
            case "GLOBAL":
                stack.append(_global(argument))
            case "STACK_GLOBAL":
                module, attribute = self._pops(2)
                stack.append(_global(f"{module} {attribute}"))
            case "REDUCE":
                stack.append(self._reduce(*self._pops(2)))
            case "BUILD":
                stack.append(self._build(*self._pops(2)))
            case _:
                raise _NotPlainError(f"an object that only Python can create ({name})")

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
            raise _NotPlainError(f"an append to {_kind(self._stack[-1])}")
        self._stack[-1].extend(values)

    def _set(self, pairs: list[Any]) -> None:
        target = self._stack[-1]
        if type(target) is not dict:
            raise _NotPlainError(f"an item assignment to {_kind(target)}")
        if len(pairs) % 2:
            raise ValueError("a key without a value")
        for key, value in zip(pairs[::2], pairs[1::2], strict=True):
            # Other keys could make hashing arbitrarily slow: nested tuples, integers with one common hash.
            if type(key) not in (str, bytes) and not (type(key) is int and abs(key) < _MAX_KEY):
                raise _NotPlainError(f"a dictionary whose keys are {_kind(key)}")
            target[key] = value

    def _memoize(self, key: int) -> None:
        value = self._stack[-1]
        if value is _MARK:
            raise ValueError("a value is missing")
        self._memo[key] = value
        if isinstance(value, _PendingArray):
            value.memo_keys.append(key)

    def _reduce(self, function: Any, arguments: Any) -> Any:
        if not isinstance(function, _Global) or type(arguments) is not tuple:
            raise _NotPlainError(f"a call of {_kind(function)}")
        match function.kind, arguments:
            case "array", (_Global(kind="class of arrays"), (0,), _):
                return _PendingArray()
            case "scalar", (_Dtype() as element, content):
                return self._array(element, (), content, False)[()].item()
            case "buffer", (content, _Dtype() as element, shape, order):
                return self._array(element, shape, content, order == "F")
            case "dtype", (str(code), *_):
                if not _DTYPE.fullmatch(code):
                    raise _NotPlainError(f"an array of {code[:40]!r}")
                return _Dtype(code)
            case "encode", (str(text), "latin1" | "latin-1"):
                return self._encode(text)
            case "bytes", ():
                return b""
        raise _NotPlainError(f"unsupported arguments of {function.kind}")

    def _build(self, target: Any, state: Any) -> Any:
        match target, state:
            case _PendingArray(), (int(), tuple(shape), _Dtype() as element, fortran, content):
                array = self._array(element, shape, content, bool(fortran))
                for key in target.memo_keys:
                    if self._memo.get(key) is target:
                        self._memo[key] = array
                return array
            case _Dtype(), (int(), "<" | ">" | "|" | "=" as order, None, None, None, -1, -1, 0, *_):
                # The memo refers to this object, so it is filled in place.
                target.code = order + target.code.lstrip("<>|=")
                return target
        raise _NotPlainError(f"the state of {_kind(target)}")

    def _encode(self, text: str) -> bytes:
        self._copy_budget -= len(text)
        if self._copy_budget < 0:
            raise _NotPlainError("more bytes than the file has")
        return text.encode("latin-1")

    def _array(self, element: _Dtype, shape: Any, content: Any, fortran: bool) -> np.ndarray:
        if isinstance(content, str):  # a string of Python 2
            content = self._encode(content)
        if not isinstance(content, (bytes, memoryview)):
            raise _NotPlainError(f"an array of {_kind(content)}")
        if type(shape) is not tuple or len(shape) > _MAX_DIMENSIONS:
            raise _NotPlainError("an array without a valid shape")
        if any(type(size) is not int or not 0 <= size <= len(self._content) for size in shape):
            raise ValueError("an array has a dimension larger than the file")
        dtype = np.dtype(element.code)
        if prod(shape) * dtype.itemsize != len(content):
            raise ValueError(f"an array of shape {shape} does not take {len(content)} bytes")
        values = np.frombuffer(content, dtype) if len(content) else np.empty(0, dtype)
        values = values.reshape(shape, order="F" if fortran else "C")
        values.flags.writeable = False
        return values


def _global(name: str) -> _Global:
    if name not in _GLOBALS:
        raise _NotPlainError(f"a call of {name.replace(' ', '.', 1)[:80]!r}")
    return _Global(_GLOBALS[name])


def _kind(value: Any) -> str:
    if isinstance(value, _PendingArray):
        return "an unfinished array"
    return f"a value of type {type(value).__name__.strip('_')}"


def _check(result: Any) -> None:
    """Raise an error for values that are not plain, contain themselves, or are nested too deeply; without recursion."""
    depths: dict[int, int] = {}
    ancestors: set[int] = set()
    stack: list[tuple[Any, bool]] = [(result, False)]
    while stack:
        value, is_visited = stack.pop()
        if type(value) not in (list, tuple, dict):
            if not isinstance(value, _PLAIN):
                raise _NotPlainError(_kind(value))
            continue
        key, items = id(value), value.values() if type(value) is dict else value
        if is_visited:
            ancestors.discard(key)
            depths[key] = 1 + max((depths.get(id(item), 0) for item in items), default=0)
            if depths[key] > MAX_DEPTH:
                raise _NotPlainError(f"lists nested more than {MAX_DEPTH} deep")
        elif key in ancestors:
            raise _NotPlainError("a list that contains itself")
        elif key not in depths:
            ancestors.add(key)
            stack.append((value, True))
            stack.extend((item, False) for item in items)
