"""The commands of docs/scale.md do what it says: several processes on one machine, and two machines."""

from __future__ import annotations

import os
import re
import shlex
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from core.runtime.files import HOME_VARIABLE
from tests.cli.shell import ROOT, Shell

BLOCKS = re.findall(r"```bash\n(.*?)```", (ROOT / "docs" / "scale.md").read_text(encoding="utf-8"), re.DOTALL)
TASKS = ["--count", "8", "--ways", "3", "--shots", "1", "--queries", "2", "--heldout", "6"]


def start(folder: Path, line: str) -> subprocess.Popen[str]:
    words = shlex.split(line)
    assert words[0] == "torchrun"
    command = [sys.executable, "-m", "torch.distributed.run", *words[1:]]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), HOME_VARIABLE: str(folder / "home"), "OMP_NUM_THREADS": "1"}
    pipe = subprocess.PIPE
    return subprocess.Popen(command, cwd=folder, env=environment, stdout=pipe, stderr=pipe, text=True)


def free_port() -> int:
    with socket.socket() as found:
        found.bind(("localhost", 0))
        return found.getsockname()[1]


@pytest.mark.slow
def test_the_commands_run_on_one_machine_and_on_two(tmp_path: Path) -> None:
    (train,), (rank,) = (block.splitlines() for block in BLOCKS)
    shell = Shell(tmp_path)
    tasks, model = tmp_path / "mine" / "tasks", tmp_path / "mine" / "model"
    shell.done("tasks", "--out", tasks, *TASKS)
    trained = start(tmp_path, train)
    out, err = trained.communicate()
    assert trained.returncode == 0, err
    assert out.splitlines() == ["mine/model"]
    shell.done("open", "--tasks", tasks, "--model", model, "-w", "mine")
    here = rank.replace("--nproc-per-node 8", "--nproc-per-node 1").replace("gpu1:29400", f"localhost:{free_port()}")
    assert here.count("localhost") == 1
    machines = [start(tmp_path, here) for _ in range(2)]
    said = [machine.communicate() for machine in machines]
    assert [machine.returncode for machine in machines] == [0, 0], said
    (path,) = [line for out, _ in said for line in out.splitlines()]
    assert shell.done("rank", "--workspace", "mine", "--target", "h0", "--device", "cpu").path == Path(path)
