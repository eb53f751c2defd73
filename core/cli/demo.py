"""The command that runs the demo."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from core.cli.options import ChunkOption, DeviceOption, DtypeOption, chosen_compute, live_progress, say


def demo(
    only: Annotated[str, typer.Option(help="Only this demo: demo-noisy-tasks or demo-noisy-images.")] = "",
    home: Annotated[
        Path | None, typer.Option(help="Folder of the workspaces; default: where the dashboard looks.")
    ] = None,
    device: DeviceOption = "auto",
    dtype: DtypeOption = "float32",
    chunk: ChunkOption = 0,
) -> None:
    """Do the whole path on the shipped models: rank, rate against planted noise, remove, edit, export."""
    import time

    from core.actions.demo import DEMOS, walk
    from core.runtime.files import home as default_home

    start, compute = time.perf_counter(), chosen_compute(device, dtype, chunk)
    for name in [only] if only else DEMOS:
        print(walk(name, home or default_home(), compute, live_progress(), say))
    say(f"total: {time.perf_counter() - start:.0f} s, at most {_peak_memory():.1f} GB of memory")


def _peak_memory() -> float:
    """Most memory this process held so far, in GB."""
    import resource

    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 1e9
