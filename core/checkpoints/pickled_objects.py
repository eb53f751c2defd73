"""Load the pickle of a checkpoint with inert stand-ins for objects that are not tensors, such as NumPy numbers.

:func:`check_pickle` follows the pickle without running it and rejects everything that state dicts and plain records do
not consist of. :func:`load_pickle` then lets ``torch.load(weights_only=True)`` build tensors and plain containers, and
a stand-in in place of every other object: nothing that the file names is imported, called or allocated.
"""

from __future__ import annotations

import pickletools
import re
from _compat_pickle import IMPORT_MAPPING, NAME_MAPPING  # the renamed modules of Python 2, which protocol 2 refers to
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from threading import Lock
from typing import Any

import torch

from core.runtime.errors import UserError

SAVE_ADVICE = "Save only the weights: torch.save(model.state_dict(), 'model.pt')."
_OBJECT_ADVICE = f"Load it with your own code, then save only the weights: {SAVE_ADVICE.partition(': ')[2]}"
_MAX_COPIES = 4  # maximum length of all arguments of calls, as a multiple of the length of the pickle
_MAX_OPERATIONS = 500_000  # of a pickle; a tensor takes about 32, so this is enough for 15,000
_MAX_CALLS = 60_000  # a tensor takes two
_MAX_CHOSEN_HASHES = 1_000  # see _Value.is_plain
_MAX_HASHED_BYTES = 8  # of an integer, so that at most a few have one hash
_MAX_SHOWN = 10  # ignored objects that are named
_MAX_KEY = 200  # characters of the joined keys of an object in notes

_BUILT = re.compile(
    r"collections\.(OrderedDict|Counter)|torch\._utils\._rebuild_(tensor_v2|parameter)|torch\.\w+Storage"
    r"|torch\.(Size|device|b?float\d*|double|half|u?int\d+|long|bool|strided)|_codecs\.encode|builtins\.(set|complex)"
)
"""Functions and classes that PyTorch calls."""
_AS_DICT = re.compile(
    r"collections\.defaultdict"
    r"|(pytorch_lightning|lightning_fabric|lightning(\.pytorch|\.fabric)?)\.utilities\.(parsing|data)\.AttributeDict"
)
_HASHING = re.compile(r"collections\.(OrderedDict|Counter)|builtins\.set")
"""Those that hash the items of their argument."""
_AS_LIST = re.compile(r"collections\.deque")
_IGNORED = {
    re.compile(pattern): kind
    for pattern, kind in (
        (r"numpy\._?core\.multiarray\.scalar", "NumPy number"),
        (
            r"numpy\._?core\.(multiarray\._reconstruct|numeric\._frombuffer)|numpy\.ma\.core\._mareconstruct",
            "NumPy array",
        ),
        (r"numpy\.(ndarray|ma\.MaskedArray|ma\.core\.MaskedArray)", "NumPy array"),
        (r"numpy\.random\.\w+\.\w+", "NumPy random generator"),
        (
            r"numpy\.(dtype|dtypes\.\w+|(bool|u?int|float|complex|str|bytes|object|datetime|timedelta)\d*_?)",
            "NumPy type",
        ),
        (r"argparse\.Namespace", "argparse.Namespace"),
        (r"types\.SimpleNamespace", "types.SimpleNamespace"),
        (r"omegaconf\.\w+\.\w+|typing\.Any", "OmegaConf settings"),
        (r"pathlib(\._local)?\.(Pure)?(Posix|Windows)?Path", "path"),
        (r"datetime\.(datetime|date|time|timedelta|timezone)", "date or time"),
        (r"decimal\.Decimal|fractions\.Fraction", "number"),
        (r"uuid\.UUID", "uuid.UUID"),
        (
            r"builtins\.(bytes|frozenset|range|slice|type|object|int|float|str|bool|list|tuple|dict|Ellipsis)",
            "Python object",
        ),
    )
}
"""Harmless objects by their global name, and what they are called in notes."""

_LOADING = Lock()  # stand-ins are registered for the whole process while a file is loaded


class _StandIn:
    """An inert value in place of an object that is not a tensor; it discards its arguments and its state."""

    kind = ""

    def __new__(cls, *_: Any) -> Any:
        return object.__new__(cls)

    def __init__(self, *_: Any) -> None:
        pass

    def __setstate__(self, _: Any) -> None:
        pass


class _DictStandIn:
    """A stand-in for subclasses of dict: calls return an ordinary dictionary, which the pickle then fills."""

    def __new__(cls, *_: Any) -> Any:
        return {}


class _ListStandIn:
    """A stand-in for sequences that are filled like lists; PyTorch before 2.14 fills nothing but plain ones."""

    def __new__(cls, *_: Any) -> Any:
        """Return a plain list."""
        return []


def check_pickle(path: Path, pickle: bytes) -> frozenset[str]:
    """Check, without running it, that a pickle consists of tensors, plain containers and harmless objects.

    ``torch.load(weights_only=True)`` alone would still allow it to allocate arrays of any size. Calls copy their
    arguments, and a pickle can refer to one long argument in many calls, so the total length is limited as well. So are
    the time that any pickle takes, and the keys whose hash a file can choose: a dictionary of many keys of one hash
    takes a time quadratic in their number.

    Returns:
        The global names that :func:`load_pickle` needs stand-ins for.

    Raises:
        UserError: the pickle is damaged or contains anything else; the text names it and, if possible, its key.
    """
    checker = _Checker(path, len(pickle))
    try:
        for opcode, argument, _ in pickletools.genops(pickle):
            checker.step(opcode.name, argument)
    except UserError:
        raise
    except Exception as error:  # damaged bytes raise many exception types
        raise UserError(f"{path} is damaged: {error or type(error).__name__}.", "Download or save it again.") from error
    checker.finish()
    return frozenset(checker.ignored)


def load_pickle(path: Path, device: str, ignored: frozenset[str]) -> Any:
    """Load a checked file to ``device``, with stand-ins for the objects of the global names ``ignored``.

    Raises:
        UserError: PyTorch cannot read the file.
    """
    stand_ins: list[Any] = [(_stand_in(name), name) for name in sorted(ignored)]
    with _LOADING:
        # Other libraries register the objects themselves, which must not be called.
        others = torch.serialization.get_safe_globals()
        torch.serialization.clear_safe_globals()
        torch.serialization.add_safe_globals(stand_ins)
        try:
            # Memory-map the file, so that no record is copied with the size that the pickle declares for it.
            return torch.load(path, map_location=device, weights_only=True, mmap=True)
        except Exception as error:  # a damaged file raises many exception types
            raise UserError(f"{path} cannot be read as a state dict: {_reason(error)}.", SAVE_ADVICE) from error
        finally:
            torch.serialization.clear_safe_globals()
            torch.serialization.add_safe_globals(others)


def _reason(error: Exception) -> str:
    """Return what PyTorch says is wrong, without its advice on how to load the file unsafely, which begins the text."""
    text = str(error).rpartition("WeightsUnpickler error:")[2].strip().partition("\n")[0].rstrip(".")
    is_advice = any(word in text for word in ("weights_only", "Weights only", "safe_globals", "trust"))
    return text if text and not is_advice else f"PyTorch refuses it ({type(error).__name__})"


def kind_of(value: Any) -> str:
    """Return what a loaded value stands for, such as ``NumPy number``, or an empty text if it is no stand-in."""
    is_class = isinstance(value, type) and issubclass(value, _StandIn)
    return value.kind if is_class or isinstance(value, _StandIn) else ""


def ignored_objects(content: Any) -> list[tuple[str, str]]:
    """Return the keys and the kind, once each, of the objects in ``content`` that stand-ins replace.

    The keys are joined by dots, as in ``('args.out', 'path')``.
    """
    found: dict[tuple[str, str], None] = {}
    seen: set[int] = set()
    stack: list[tuple[str, Any]] = [("", content)]
    while stack:
        key, value = stack.pop()
        if kind := kind_of(value):
            found[key, kind] = None
        elif isinstance(value, (dict, list, tuple, set)) and id(value) not in seen:
            seen.add(id(value))  # a pickle can refer to one container several times, even recursively
            stack += reversed([*_items(key, value)])
    return list(found)


def describe_ignored(content: Any) -> tuple[str, ...]:
    """Return a note on the objects in ``content`` that stand-ins replace, or nothing if there are none."""
    names = [f"{key!r} ({kind})" if key else kind for key, kind in ignored_objects(content)]
    more = f" and {len(names) - _MAX_SHOWN:,} more" if len(names) > _MAX_SHOWN else ""
    return (f"Ignored, because they are not tensors: {', '.join(names[:_MAX_SHOWN])}{more}.",) if names else ()


def _items(key: str, value: Any) -> Iterator[tuple[str, Any]]:
    if isinstance(value, dict):
        for name, item in value.items():
            # Joined without a limit, the keys of deeply nested dictionaries would take up all memory.
            is_joined = isinstance(name, str) and len(key) + len(name) < _MAX_KEY
            yield (f"{key}.{name}" if key else name) if is_joined else key, item
    else:
        for item in value:
            yield key, item


def _stand_in(name: str) -> type:
    if _AS_DICT.fullmatch(name):
        return _DictStandIn
    if _AS_LIST.fullmatch(name):
        return _ListStandIn
    return type("StandIn", (_StandIn,), {"kind": _ignored_kind(name)})


def _ignored_kind(name: str) -> str:
    return next((kind for pattern, kind in _IGNORED.items() if pattern.fullmatch(name)), "")


@dataclass(slots=True)
class _Value:
    """A value on the stack of the checker.

    Attributes:
        length: Number of items or characters, or an upper bound for the result of a call.
        items: The items of a tuple; None for other types.
        text: A string of the file; None for other types.
        name: The global that the value is; empty for other values.
        is_plain: Whether a file cannot choose the hash of the value: of text, which is hashed with a secret, and of
            numbers of up to 64 bits, of which only a few have the same hash.
        chosen: Number of items of a list or tuple that are not plain.
        is_rejected: Whether the value is, or contains, the object that makes the file unacceptable.
    """

    length: int = 0
    items: tuple[_Value, ...] | None = None
    text: str | None = None
    name: str = ""
    is_rejected: bool = False
    is_plain: bool = False
    chosen: int = 0


_TUPLES: Mapping[str, int] = {"TUPLE1": 1, "TUPLE2": 2, "TUPLE3": 3}
_SCALARS = ("NONE", "NEWTRUE", "NEWFALSE", "BININT", "BININT1", "BININT2", "BINFLOAT")
_CONTAINERS = ("EMPTY_LIST", "EMPTY_DICT", "EMPTY_SET")


class _Checker:
    """An interpreter of the opcodes that ``torch.save`` writes, which follows only lengths and names."""

    def __init__(self, path: Path, size: int) -> None:
        self._path, self._budget = path, _MAX_COPIES * size
        self._stack: list[_Value] = []
        self._outer: list[list[_Value]] = []
        self._memo: dict[int, _Value] = {}
        self._operations = self._calls = self._chosen_hashes = 0
        self._scalar = _Value(is_plain=True)  # one object for all, as a pickle can have millions
        self._protocol = 2
        self._rejected = ""
        self.ignored: set[str] = set()

    def step(self, opcode: str, argument: Any) -> None:
        """Follow one opcode."""
        stack = self._stack
        self._operations += 1
        if self._operations > _MAX_OPERATIONS:
            raise UserError(f"{self._path} has a pickle of more than {_MAX_OPERATIONS:,} operations.", SAVE_ADVICE)
        match opcode:
            case "GLOBAL":
                stack.append(self._global(*argument.split(" ", 1)))
            case "BINUNICODE" | "SHORT_BINSTRING":
                stack.append(_Value(len(argument), text=argument, is_plain=True))
            case "LONG1":
                size = argument.bit_length() // 8
                stack.append(_Value(size, is_plain=size < _MAX_HASHED_BYTES))
            case _ if opcode in _SCALARS:
                stack.append(self._scalar)
            case _ if opcode in _CONTAINERS:
                stack.append(_Value())
            case "EMPTY_TUPLE":
                stack.append(_Value(items=()))
            case "MARK":
                self._outer.append(stack)
                self._stack = []
            case "TUPLE":
                self._push_tuple(self._since_mark())
            case _ if opcode in _TUPLES:
                self._push_tuple([stack.pop() for _ in range(_TUPLES[opcode])][::-1])
            case "APPEND":
                self._fill([stack.pop()], 1)
            case "APPENDS":
                self._fill(self._since_mark(), 1)
            case "SETITEM":
                self._fill([stack.pop() for _ in range(2)][::-1], 2)
            case "SETITEMS":
                self._fill(self._since_mark(), 2)
            case "BINGET" | "LONG_BINGET":
                stack.append(self._memo[argument])
            case "BINPUT" | "LONG_BINPUT":
                self._memo[argument] = stack[-1]
            case "REDUCE" | "NEWOBJ":
                arguments, function = stack.pop(), stack.pop()
                stack.append(self._call(function, arguments))
            case "BUILD":
                state = stack.pop()
                self._charge(state.length)
                stack[-1].is_rejected |= state.is_rejected
            case "BINPERSID":
                stack.pop()
                stack.append(_Value())
            case "PROTO":
                self._protocol = argument
            case "STOP":
                pass
            case _ if self._protocol > 2:
                raise UserError(
                    f"{self._path} was saved with pickle protocol {self._protocol}, which is not read.",
                    "Load it with your own code and save it without pickle_protocol: "
                    "torch.save(model.state_dict(), 'model.pt').",
                )
            case _:
                raise UserError(f"{self._path} uses the pickle opcode {opcode}, which is not read.", SAVE_ADVICE)

    def finish(self) -> None:
        """Raise the error for an object that was found but has no key."""
        if self._rejected:
            raise UserError(f"{self._path} contains more than tensors: it refers to {self._rejected}.", _OBJECT_ADVICE)

    def _global(self, module: str, name: str) -> _Value:
        module, name = NAME_MAPPING.get((module, name), (IMPORT_MAPPING.get(module, module), name))
        full = f"{module}.{name}"
        if _BUILT.fullmatch(full):
            return _Value(name=full)
        if _AS_DICT.fullmatch(full) or _AS_LIST.fullmatch(full) or _ignored_kind(full):
            self.ignored.add(full)
            return _Value(name=full)
        is_first = not self._rejected  # the outermost object, whose parts follow
        self._rejected = self._rejected or full
        return _Value(name=full, is_rejected=is_first)

    def _since_mark(self) -> list[_Value]:
        values, self._stack = self._stack, self._outer.pop()
        return values

    def _push_tuple(self, items: list[_Value]) -> None:
        is_rejected = any(item.is_rejected for item in items)
        chosen = sum(not item.is_plain for item in items)
        self._stack.append(_Value(len(items), tuple(items), is_rejected=is_rejected, chosen=chosen))

    def _fill(self, values: list[_Value], step: int) -> None:
        """Add items, or pairs of key and value if ``step`` is 2, to the container on top of the stack."""
        self._stack[-1].length += len(values)
        if step == 2:
            self._count_hashes(sum(not key.is_plain for key in values[::2]))
        else:
            self._stack[-1].chosen += sum(not value.is_plain for value in values)
        for position in range(step - 1, len(values), step):
            if not values[position].is_rejected:
                continue
            key = values[position - 1].text if step == 2 else None
            if key is None:
                self._stack[-1].is_rejected = True
                continue
            raise UserError(
                f"{self._path} contains more than tensors: {key[:80]!r} is or contains an object of {self._rejected}.",
                _OBJECT_ADVICE,
            )

    def _call(self, function: _Value, arguments: _Value) -> _Value:
        if arguments.items is None:
            raise UserError(f"{self._path} calls {function.name or 'an object'} in an unknown way.", SAVE_ADVICE)
        is_text = [item.text is not None for item in arguments.items] == [True, True]
        # Other encodings return more bytes than the text has characters, or run a codec.
        if function.name == "_codecs.encode" and not (is_text and arguments.items[1].text in ("latin1", "latin-1")):
            raise UserError(f"{self._path} encodes text in an unknown way.", SAVE_ADVICE)
        self._calls += 1
        if self._calls > _MAX_CALLS:
            raise UserError(f"{self._path} has a pickle of more than {_MAX_CALLS:,} calls.", SAVE_ADVICE)
        if _HASHING.fullmatch(function.name):
            self._count_hashes(sum(item.chosen for item in arguments.items))
        cost = arguments.length + sum(item.length for item in arguments.items)
        self._charge(cost)
        is_rejected = function.is_rejected or arguments.is_rejected
        return _Value(cost, is_rejected=is_rejected, is_plain=function.name == "_codecs.encode")

    def _count_hashes(self, count: int) -> None:
        self._chosen_hashes += count
        if self._chosen_hashes > _MAX_CHOSEN_HASHES:
            what = f"{self._path} has dictionaries with more than {_MAX_CHOSEN_HASHES:,} keys that are neither text nor"
            raise UserError(f"{what} numbers of up to 64 bits.", SAVE_ADVICE)

    def _charge(self, length: int) -> None:
        self._budget -= length
        if self._budget < 0:
            raise UserError(f"{self._path} repeats parts of itself more often than a checkpoint does.", SAVE_ADVICE)
