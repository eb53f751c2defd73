"""Reading untrusted files of tensors: values, refusals and memory."""

from __future__ import annotations

import os
import resource
import struct
import subprocess
import sys
import zipfile
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given
from hypothesis import strategies as st
from safetensors.torch import save_file
from torch import nn

from core.checkpoints.tensor_file import open_tensors, sha256
from core.runtime.errors import UserError
from tests.properties import examples

ROOT = Path(__file__).parents[2]
STATE = {"weight": torch.arange(12.0).view(3, 4), "bias": torch.tensor([1.0, -2.0, 0.5], dtype=torch.float64)}


class Calls:
    """An object that is pickled as a function call."""

    def __init__(self, function: Callable[..., Any], *arguments: Any) -> None:
        self.called = (function, arguments)

    def __reduce__(self) -> tuple[Any, ...]:
        return self.called


def repacked(source: Path, target: Path, method: int, change: Callable[[str, bytes], bytes] = lambda _, b: b) -> Path:
    with zipfile.ZipFile(source) as old, zipfile.ZipFile(target, "w", method) as new:
        for record in old.infolist():
            new.writestr(record.filename, change(record.filename, old.read(record)))
    return target


@pytest.mark.parametrize("name", ["some.safetensors", "some.pt", "some.anything"])
def test_tensors_round_trip(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    if "safetensors" in name:
        save_file(STATE, path)
    else:
        torch.save(STATE, path)
    file = open_tensors(path)
    assert {one.name: (one.shape, one.dtype) for one in file.tensors.values()} == {
        "weight": ((3, 4), "float32"),
        "bias": ((3,), "float64"),
    }
    read = file.load(["bias", "weight"])
    assert all(torch.equal(read[name], STATE[name]) and read[name].dtype == STATE[name].dtype for name in STATE)
    path.unlink()
    assert float(read["weight"].sum()) == 66  # not mapped from the deleted file


def test_tensors_of_other_memory_layouts_become_contiguous(tmp_path: Path) -> None:
    originals = {"t": torch.rand(6, 4).T, "c": torch.rand(2, 3, 4, 4).to(memory_format=torch.channels_last)}
    torch.save(originals | {"p": nn.Parameter(torch.rand(3))}, tmp_path / "some.pt")
    read = open_tensors(tmp_path / "some.pt").load(["t", "c", "p"])
    assert all(torch.equal(read[name], originals[name]) and read[name].is_contiguous() for name in originals)
    assert type(read["p"]) is torch.Tensor


@pytest.mark.parametrize("entry", ["state_dict", "model_state_dict", "model", "params", "learner"])
def test_the_only_state_dict_is_found_among_other_entries(tmp_path: Path, entry: str) -> None:
    net = nn.Linear(2, 2)
    optimiser = torch.optim.Adam(net.parameters())
    net(torch.rand(3, 2)).sum().backward()
    optimiser.step()
    beside = {"epoch": 7, "best": torch.tensor(0.5), "optimizer": optimiser.state_dict(), "args": {"lr": 0.1, "a": [1]}}
    torch.save({**beside, entry: net.state_dict()}, tmp_path / "some.pt")
    file = open_tensors(tmp_path / "some.pt")
    assert list(file.tensors) == ["weight", "bias"]
    assert entry in file.kind


def test_recursive_and_shared_dictionaries_are_searched_once(tmp_path: Path) -> None:
    recursive: dict[str, Any] = {"w": torch.zeros(3)}
    recursive["again"] = recursive
    torch.save(recursive, tmp_path / "some.pt")
    assert list(open_tensors(tmp_path / "some.pt").tensors) == ["w"]
    wide: dict[str, Any] = {}
    for _ in range(6):
        wide = {str(number): wide for number in range(50)}
    torch.save(wide, tmp_path / "some.pt")
    with pytest.raises(UserError, match="no tensors"):
        open_tensors(tmp_path / "some.pt")


REFUSED: dict[str, tuple[Any, str]] = {
    "module": (nn.Linear(2, 2), r" torch\.nn\.modules\.linear\.Linear.*torch\.save\(model\.state_dict\(\)"),
    "sparse": ({"w": torch.eye(3).to_sparse()}, r" torch\._utils\._rebuild_sparse_tensor"),
    "system": ({"w": Calls(os.system, "touch gone-off")}, r" (posix|nt)\.system"),
    "memory": ({"w": torch.zeros(2), "b": Calls(bytearray, 10**12)}, r" builtins\.bytearray"),
    "made": ({"w": Calls(torch.Tensor, 10**6, 10**5)}, r" torch\.Tensor"),
    "list": ([torch.zeros(2)], "a list, not a state dict"),
    "empty": ({}, "no tensors"),
    "numbers": ({"epoch": 3, "best": torch.tensor(1.0)}, "no tensors"),
    "optimiser": (
        {"state": {0: {"step": torch.ones(1)}}, "param_groups": [{"lr": 0.1, "params": [0]}]},
        "state of an optimizer",
    ),
    "two": ({"model": STATE, "ema": dict(STATE)}, "'model', 'ema'"),
    "stretched": ({"w": torch.zeros(1).expand(10**6, 10**5)}, r"'w' of shape \(1000000, 100000\)"),
    "overlapping": ({"w": torch.zeros(300).as_strided((200, 100), (1, 1))}, r"'w' of shape \(200, 100\)"),
    "shared": ({str(n): STATE["weight"] for n in range(3)} | {"big": torch.zeros(50)}, ""),
}


@pytest.mark.parametrize("what", REFUSED)
def test_other_content_than_a_state_dict_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, what: str) -> None:
    monkeypatch.chdir(tmp_path)
    content, pattern = REFUSED[what]
    torch.save(content, tmp_path / "some.pt")
    if not pattern:
        open_tensors(tmp_path / "some.pt")
        return
    with pytest.raises(UserError, match=pattern):
        open_tensors(tmp_path / "some.pt")
    assert not (tmp_path / "gone-off").exists()


def test_many_tensors_with_shared_storage_are_refused(tmp_path: Path) -> None:
    one = torch.zeros(20_000)
    torch.save({str(number): one for number in range(60)}, tmp_path / "some.pt")
    with pytest.raises(UserError, match="shared storage"):
        open_tensors(tmp_path / "some.pt")


@pytest.mark.filterwarnings("ignore:.torch.jit")
def test_old_pickles_and_torchscript_are_refused(tmp_path: Path) -> None:
    torch.save(STATE, tmp_path / "old.pt", _use_new_zipfile_serialization=False)
    with pytest.raises(UserError, match=r"before version 1\.6"):
        open_tensors(tmp_path / "old.pt")
    torch.jit.script(nn.Linear(2, 2)).save(str(tmp_path / "script.pt"))
    with pytest.raises(UserError, match="TorchScript"):
        open_tensors(tmp_path / "script.pt")


@pytest.mark.parametrize(
    ("content", "what"),
    [
        (b"", "neither a safetensors file nor a state dict"),
        (b"not tensors at all", "neither"),
        (b"\xff" * 3000, "neither"),
        (b"\x89HDF\r\n\x1a\n" + bytes(100), "HDF5"),
        (b"\x1f\x8b\x08" + bytes(100), "gzip.*Unpack"),
        (b'{"metadata": {"total_size": 3}, "weight_map": {}}', "JSON"),
        (b"\x93NUMPY\x01\x00" + bytes(100), "NumPy"),
        (b"PK\x03\x04" + bytes(100), "is damaged"),
        (struct.pack("<Q", 20) + b'{"a":1}' + bytes(40), "is not a safetensors file"),
        (struct.pack("<Q", 10**18) + b'{"a":1}', "neither"),
    ],
)
def test_other_files_are_refused(tmp_path: Path, content: bytes, what: str) -> None:
    (tmp_path / "some.pt").write_bytes(content)
    with pytest.raises(UserError, match=what):
        open_tensors(tmp_path / "some.pt")


def test_a_missing_file_and_a_folder_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="does not exist"):
        open_tensors(tmp_path / "none.pt")
    with pytest.raises(UserError, match="is a folder"):
        open_tensors(tmp_path)


def test_another_zip_file_is_refused(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "some.pt", "w") as archive:
        archive.writestr("a.txt", "a")
    with pytest.raises(UserError, match=r"zip file that torch\.save did not write"):
        open_tensors(tmp_path / "some.pt")


def test_archives_that_contain_weights_are_named(tmp_path: Path) -> None:
    torch.save(STATE, tmp_path / "best.pt")
    with zipfile.ZipFile(tmp_path / "run.zip", "w") as archive:
        archive.write(tmp_path / "best.pt", "run/best.pt")
    with pytest.raises(UserError, match=r"'best\.pt'"):
        open_tensors(tmp_path / "run.zip")
    np.savez(tmp_path / "some.npz", weight=np.ones(3))
    with pytest.raises(UserError, match="NumPy arrays"):
        open_tensors(tmp_path / "some.npz")


def test_compressed_records_are_refused(tmp_path: Path) -> None:
    torch.save({"w": torch.zeros(100_000)}, tmp_path / "some.pt")
    packed = repacked(tmp_path / "some.pt", tmp_path / "packed.pt", zipfile.ZIP_DEFLATED)
    assert packed.stat().st_size < 5000
    with pytest.raises(UserError, match="compressed or overlapping"):
        open_tensors(packed)


def test_a_record_shorter_than_its_tensor_is_refused(tmp_path: Path) -> None:
    torch.save({"w": torch.zeros(100_000)}, tmp_path / "some.pt")
    short = repacked(
        tmp_path / "some.pt", tmp_path / "short.pt", zipfile.ZIP_STORED, lambda n, b: b[:16] if "/data/" in n else b
    )
    with pytest.raises(UserError, match=r"'w' of shape \(100000,\)"):
        open_tensors(short)


def test_a_zip_file_with_a_prefix_is_refused(tmp_path: Path) -> None:
    torch.save(STATE, tmp_path / "some.pt")
    content = (tmp_path / "some.pt").read_bytes()
    (tmp_path / "some.pt").write_bytes(b"PK\x03\x04" + bytes(60) + content)
    with pytest.raises(UserError, match=r"compressed or overlapping|is damaged"):
        open_tensors(tmp_path / "some.pt")


@pytest.mark.slow
def test_opening_allocates_no_memory_for_values(tmp_path: Path) -> None:
    """Opening files of 120 MB takes less than 40 MB of memory."""
    torch.save({"w": torch.zeros(30_000_000)}, tmp_path / "big.pt")
    save_file({"w": torch.zeros(30_000_000)}, tmp_path / "big.safetensors")
    code = """
import resource, sys
from pathlib import Path
import torch
from core.checkpoints.tensor_file import open_tensors
torch.save({"w": torch.zeros(3)}, sys.argv[1] + "/small.pt")
open_tensors(Path(sys.argv[1], "small.pt"))
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
for name in ("big.pt", "big.safetensors"):
    assert open_tensors(Path(sys.argv[1], name)).tensors["w"].shape == (30_000_000,)
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)
"""
    command = [sys.executable, "-c", code, str(tmp_path)]
    grown = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout
    assert int(grown) < 40_000
    (tmp_path / "big.pt").unlink()
    (tmp_path / "big.safetensors").unlink()


def test_sha256_is_that_of_the_bytes(tmp_path: Path) -> None:
    (tmp_path / "some").write_bytes(b"abc")
    assert sha256(tmp_path / "some") == "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"


# --- random damage


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    folder = tmp_path_factory.mktemp("whole")
    torch.save({"model": STATE, "epoch": 3}, folder / "a.pt")
    save_file(STATE, folder / "a.safetensors")
    return {name: (folder / name).read_bytes() for name in ("a.pt", "a.safetensors")}


def open_bytes(content: bytes, path: Path) -> None:
    """Open the file and read its tensors, or raise UserError; any other error fails the test."""
    path.write_bytes(content)
    with suppress(UserError):
        file = open_tensors(path)
        file.load(list(file.tensors))


@given(
    content=st.binary(max_size=400), start=st.sampled_from([b"", b"PK\x03\x04", b"\x80\x02", b"\x08" + bytes(7) + b"{"])
)
@examples(300, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_random_bytes_are_refused(tmp_path: Path, content: bytes, start: bytes) -> None:
    open_bytes(start + content, tmp_path / "some")


@given(data=st.data())
@examples(600, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
def test_damaged_files_are_refused_or_read(tmp_path: Path, whole: dict[str, bytes], data: st.DataObject) -> None:
    """Files are truncated, or bytes are changed or repeated; memory grows by at most 300 MB."""
    content = bytearray(whole[data.draw(st.sampled_from(sorted(whole)))])
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    for _ in range(data.draw(st.integers(1, 4))):
        at = data.draw(st.integers(0, max(0, len(content) - 1)))
        kind = data.draw(st.sampled_from(["cut", "change", "repeat"]))
        if kind == "cut":
            del content[at:]
        elif kind == "change":
            content[at : at + 1] = data.draw(st.binary(min_size=1, max_size=8))
        else:
            content[at:at] = content[at : at + 30]
    open_bytes(bytes(content), tmp_path / "some")
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 300_000
