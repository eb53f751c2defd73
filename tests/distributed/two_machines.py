"""Run commands in each of two processes as if on two machines: every rank has its own disk.

Run by :mod:`tests.distributed.ranks` with a folder that contains ``rank0`` and ``rank1``, and with commands as JSON, in
which DISK stands for the folder of the rank.
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

import pytest

from core.cli.app import run_app
from core.cli.common import announce_device, open_workspace
from core.maml.settings import Compute
from core.runtime.distributed import exit_process, joined, world
from core.runtime.errors import UserError
from core.runtime.files import HOME_VARIABLE
from core.runtime.hashing import content_hash


def product_hash(workspace: str) -> str:
    """Return a curvature product of which every chunk is computed by one of the ranks."""
    import torch

    from core.actions.compute import load
    from core.influence.curvature import Curvature
    from core.maml.vectors import flatten

    loaded = load(open_workspace(workspace).project(), Compute("cpu", chunk=1))
    curvature = Curvature("gauss-newton", loaded.model, loaded.params, loaded.train)
    return content_hash(curvature(torch.ones_like(flatten(loaded.params))).numpy())


def check_sums() -> None:
    """Tensors of several dtypes are summed together, each in its own."""
    import torch

    tiny = torch.full((3, 1), 1 + 1e-12, dtype=torch.float64)
    ones, sums, counts = world().sum([torch.ones(2), tiny, torch.tensor(3)])
    assert torch.equal(ones, torch.full((2,), 2.0))
    assert torch.equal(sums, 2 * tiny)
    assert torch.equal(counts, torch.tensor(6))


def main() -> None:
    disk = Path(sys.argv[1]) / f"rank{os.environ['RANK']}"
    os.environ[HOME_VARIABLE] = str(disk / "home")
    with joined():
        for command in json.loads(sys.argv[2]):
            sys.argv = ["core", *[part.replace("DISK", str(disk)) for part in command]]
            code = run_app()
            assert set(world().gather(code)) == {0}, command
        assert len(set(world().gather(product_hash("mine")))) == 1
        check_sums()
        with pytest.raises(UserError, match="one device, but there are 2 processes"):
            announce_device(Compute("cuda:0"))
    exit_process(0)


if __name__ == "__main__":
    main()
