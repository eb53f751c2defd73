"""Read files of named tensors: first names, shapes and data types without allocating memory, then values on demand.

Two formats are supported and distinguished by content: safetensors, and state dicts written by ``torch.save``. The
latter are zip files of one pickle and raw values. The pickle is checked without running it, and then loaded with
stand-ins for everything that is not a tensor (:mod:`core.checkpoints.pickled_objects`): first without memory for the
tensors, and with memory only after their declared sizes have been checked against the file size.
"""

from __future__ import annotations

import hashlib
import zipfile
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from core.checkpoints.pickled_objects import (
    SAVE_ADVICE,
    check_pickle,
    describe_ignored,
    ignored_objects,
    kind_of,
    load_pickle,
)
from core.checkpoints.tensor_names import is_loss_or_metric
from core.runtime.errors import UserError
from core.runtime.failed_downloads import HEAD_BYTES, check_download, check_downloaded_file
from core.runtime.progress import format_names
from core.runtime.reading import check_input, open_input

_MAX_PICKLE_BYTES = 4 << 20  # maximum size of the pickle of names and shapes
_MAX_HEADER_BYTES = 16 << 20  # maximum size of the same in safetensors
_MAX_SHARING = 16  # maximum total size of tensors with shared storage, as a multiple of the file size
_MAX_DEPTH = 4  # maximum nesting of dictionaries that are searched
_UNPACK = "Unpack it and use the file of weights inside."
_OTHER_FILES = {
    b"\x1f\x8b": ("a gzip archive", _UNPACK),
    b"BZh": ("a bzip2 archive", _UNPACK),
    b"\xfd7zXZ": ("an xz archive", _UNPACK),
    b"7z\xbc\xaf": ("a 7-Zip archive", _UNPACK),
    b"\x89HDF": ("an HDF5 file, as Keras writes", SAVE_ADVICE),
    b"\x93NUMPY": ("a NumPy array", SAVE_ADVICE),
    b"{": ("a JSON file", "Use the file of weights beside it (.safetensors or .pt)."),
}
"""Descriptions of files that users mistake for weights, and what to do, by their first bytes."""
_SAFETENSORS_DTYPES = {"F16": "float16", "BF16": "bfloat16", "F32": "float32", "F64": "float64", "BOOL": "bool"} | {
    f"{short}{bits}": f"{long}{bits}" for short, long in (("I", "int"), ("U", "uint")) for bits in (8, 16, 32, 64)
}


@dataclass(frozen=True)
class TensorInfo:
    """A tensor that a file declares; ``dtype`` is the PyTorch name of the data type, if there is one."""

    name: str
    shape: tuple[int, ...]
    dtype: str


@dataclass(frozen=True)
class TensorFile:
    """A file of tensors that has been opened and checked.

    Attributes:
        kind: Description of the file type.
        tensors: Declared tensors by name, in file order, checked against the file size.
        load: Reads tensors by name into separate CPU memory.
        notes: Sentences about what else is in the file and was ignored.
    """

    path: Path
    kind: str
    tensors: Mapping[str, TensorInfo]
    load: Callable[[list[str]], dict[str, Tensor]]
    notes: tuple[str, ...] = ()


def open_tensors(path: Path) -> TensorFile:
    """Open a file of either format.

    Raises:
        UserError: the file has neither format, is damaged, declares more data than it contains, or contains objects
            other than tensors.
    """
    try:
        with open_input(path) as stream:
            header = stream.read(HEAD_BYTES)
    except OSError as error:
        raise UserError(f"{path} cannot be read: {error.strerror}.", "Choose a file of weights.") from error
    check_download(path, header)
    if header[:4] == b"PK\x03\x04":
        return _read_state_dict(path)
    if header[8:9] == b"{" and int.from_bytes(header[:8], "little") < path.stat().st_size:
        return read_safetensors(path)
    if header[:1] == b"\x80":
        raise UserError(
            f"{path} is a pickle of PyTorch before version 1.6, which is not safe to open.",
            "Load it with your own code and save it with a newer PyTorch: torch.save(model.state_dict(), 'model.pt').",
        )
    for start, (kind, fix) in _OTHER_FILES.items():
        if header.startswith(start):
            raise UserError(f"{path} is {kind}, neither a safetensors file nor a state dict of PyTorch.", fix)
    raise UserError(f"{path} is neither a safetensors file nor a state dict of PyTorch.", SAVE_ADVICE)


def read_safetensors(path: Path) -> TensorFile:
    """Open a safetensors file; raise UserError if it is not one."""

    def load(names: list[str]) -> dict[str, Tensor]:
        with safe_open(path, "pt") as stream:
            return {name: stream.get_tensor(name) for name in names}

    with open_input(path) as file:
        length = int.from_bytes(file.read(8), "little")
    if _MAX_HEADER_BYTES < length < check_input(path).st_size:
        raise UserError(f"{path} has a header of {length:,} bytes.", f"The maximum is {_MAX_HEADER_BYTES:,}.")
    try:
        with safe_open(path, "pt") as stream:
            tensors = {}
            for name in stream.keys():  # noqa: SIM118
                tensor = stream.get_slice(name)
                dtype = _SAFETENSORS_DTYPES.get(tensor.get_dtype(), tensor.get_dtype())
                tensors[name] = TensorInfo(name, tuple(tensor.get_shape()), dtype)
    except (SafetensorError, OSError) as error:
        check_downloaded_file(path)
        raise UserError(f"{path} is not a safetensors file: {error}.", "Restore the file or train again.") from error
    return TensorFile(path, "safetensors", tensors, load)


def sha256(path: Path) -> str:
    """Return the SHA-256 of the file as 64 hexadecimal digits."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def _read_state_dict(path: Path) -> TensorFile:
    ignored = check_pickle(path, _read_pickle(path))
    size = path.stat().st_size
    content = load_pickle(path, "meta", ignored)
    keys, tensors, notes = _find_state_dict(path, content)
    declared = {}
    for name, value in tensors.items():
        shape = tuple(value.shape)
        if value.numel() * value.element_size() > min(value.untyped_storage().nbytes(), size):
            raise UserError(
                f"{path}: {name!r} of shape {shape} declares more data than the file of {size:,} bytes contains.",
                "The file is damaged or malicious; download it again.",
            )
        declared[name] = TensorInfo(name, shape, str(value.dtype).removeprefix("torch."))
    if sum(value.numel() * value.element_size() for value in tensors.values()) > _MAX_SHARING * size:
        raise UserError(f"{path} declares tensors of many times the file size in shared storage.", SAVE_ADVICE)

    def load(names: list[str]) -> dict[str, Tensor]:
        _, tensors, _ = _find_state_dict(path, load_pickle(path, "cpu", ignored))
        return {name: tensors[name].detach().clone(memory_format=torch.contiguous_format) for name in names}

    kind = "state dict of PyTorch" + (f" (entry {'.'.join(keys)})" if keys else "")
    return TensorFile(path, kind, declared, load, (*notes, *describe_ignored(content)))


def _read_pickle(path: Path) -> bytes:
    """Return the pickle in a zip file; compressed or overlapping records, which can expand to any size, are errors."""
    try:
        with zipfile.ZipFile(path) as archive:
            records = archive.infolist()
            names = [record.filename.split("/", 1)[-1] for record in records]
            if "constants.pkl" in names:
                raise UserError(f"{path} is a TorchScript program, not a state dict.", SAVE_ADVICE)
            weights = [name for name in names if name.endswith((".pt", ".pth", ".ckpt", ".safetensors"))]
            if weights and "data.pkl" not in names:
                raise UserError(f"{path} is an archive that contains {format_names(weights)}.", _UNPACK)
            if names and all(name.endswith(".npy") for name in names):
                fix = "Convert them with torch.from_numpy and save a state dict."
                raise UserError(f"{path} is an archive of NumPy arrays (.npz).", fix)
            if names.count("data.pkl") != 1:
                raise UserError(f"{path} is a zip file that torch.save did not write.", SAVE_ADVICE)
            is_packed = any(record.compress_type != zipfile.ZIP_STORED or record.flag_bits & 1 for record in records)
            has_prefix = min(record.header_offset for record in records) != 0
            if is_packed or has_prefix or sum(record.file_size for record in records) > path.stat().st_size:
                raise UserError(f"{path} has compressed or overlapping records.", SAVE_ADVICE)
            pickle = records[names.index("data.pkl")]
            if pickle.file_size > _MAX_PICKLE_BYTES:
                size, limit = f"{pickle.file_size:,}", f"{_MAX_PICKLE_BYTES:,}"
                raise UserError(f"{path}: the pickle of {size} bytes exceeds {limit} bytes.", SAVE_ADVICE)
            return archive.read(pickle)
    except (zipfile.BadZipFile, OSError, EOFError, ValueError, RuntimeError) as error:
        raise UserError(f"{path} is damaged: {error}.", "Download or save it again.") from error


def _find_state_dict(path: Path, content: Any) -> tuple[tuple[str, ...], dict[str, Tensor], tuple[str, ...]]:
    """Return the path of keys to the only state dict in ``content``, its tensors, and notes on what was left out."""
    if not isinstance(content, dict):
        kind = kind_of(content) or f"a {type(content).__name__}"
        raise UserError(f"{path} contains {kind}, not a state dict.", SAVE_ADVICE)
    candidates = list(_state_dicts(content, (), set()))
    aside = {keys: kind for keys, tensors in candidates if (kind := _kind_of_no_network(keys, tensors))}
    if len(candidates) > 1:
        candidates = [candidate for candidate in candidates if candidate[0] not in aside] or candidates
    if not candidates:
        is_optimizer = {"state", "param_groups"} <= content.keys()
        what = "only the state of an optimizer" if is_optimizer else "no tensors"
        arrays = [key for key, kind in ignored_objects(content) if kind == "NumPy array"]
        if arrays:
            raise _array_error(path, arrays[0])
        raise UserError(f"{path} contains {what}.", SAVE_ADVICE)
    if len(candidates) > 1:
        names = ", ".join(repr(".".join(keys)) if keys else "the file itself" for keys, _ in candidates)
        index = "".join(f"[{key!r}]" for key in next(keys for keys, _ in candidates if keys))
        raise UserError(
            f"{path} contains several state dicts: {names}.",
            f"Save the right one as a separate file, for example torch.save(checkpoint{index}, 'model.pt').",
        )
    keys, tensors = candidates[0]
    found = content
    for key in keys:
        found = found[key]
    for name, value in found.items():
        if kind_of(value) == "NumPy array" and isinstance(name, str) and not is_loss_or_metric(name):
            raise _array_error(path, ".".join((*keys, name)))
    notes = [f"Left out {kind}." for other, kind in aside.items() if other != keys]
    return keys, tensors, tuple(notes)


def _array_error(path: Path, key: str) -> UserError:
    what = f"{path}: {key!r} is a NumPy array, not a tensor."
    return UserError(what, "Convert it with torch.from_numpy and save it again.")


def _kind_of_no_network(keys: tuple[str, ...], tensors: dict[str, Tensor]) -> str:
    """Return what tensors are if they are those of a loss, a metric or a random generator, else an empty text."""
    names = [".".join((*keys, name)) for name in tensors]
    shown = format_names(names)
    if all(is_loss_or_metric(name) for name in names):
        return f"the tensors of a loss or metric: {shown}"
    if all(value.dim() == 1 and str(value.dtype) == "torch.uint8" for value in tensors.values()):
        return f"the state of a random generator: {shown}"
    return ""


def _state_dicts(
    content: dict[Any, Any], keys: tuple[str, ...], seen: set[int]
) -> Iterator[tuple[tuple[str, ...], dict[str, Tensor]]]:
    seen.add(id(content))  # a pickle can refer to one dictionary several times, even recursively
    if {"state", "param_groups"} <= content.keys():  # the state of an optimizer
        return
    tensors = {name: value for name, value in content.items() if isinstance(name, str) and isinstance(value, Tensor)}
    if any(value.dim() for value in tensors.values()):  # ignore dictionaries of scalars only
        yield keys, tensors
    if len(keys) < _MAX_DEPTH:
        for name, value in content.items():
            if isinstance(value, dict) and isinstance(name, str) and id(value) not in seen:
                yield from _state_dicts(value, (*keys, name), seen)
