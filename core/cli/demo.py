"""The command that runs the demo."""

from __future__ import annotations

import sys
import time
from pathlib import Path
from typing import Annotated

import typer

from core.cli.common import announce_device, live_progress, message
from core.cli.options import with_settings
from core.maml.settings import Compute


@with_settings
def demo(
    *,
    only: Annotated[str, typer.Option(help="Run only this demo: demo-noisy-tasks or demo-noisy-images.")] = "",
    home: Annotated[
        Path | None, typer.Option(help="Folder for the workspaces. Default: that of the dashboard.")
    ] = None,
    compute: Compute,
) -> None:
    """Run the whole workflow on the shipped models.

    Ranks, compares with the injected noise, removes, edits and exports.
    """
    from core.actions.demo import run_demo
    from core.runtime.files import home as default_home
    from core.workspace.demos import DEMOS

    start = time.perf_counter()
    announce_device(compute)
    for name in [only] if only else DEMOS:
        print(run_demo(name, home or default_home(), compute, live_progress(), message))
    message(f"total: {time.perf_counter() - start:.0f} s, peak memory {_peak_memory():.1f} GB")


def _peak_memory() -> float:
    """Return the peak memory of this process so far, in GB."""
    import resource

    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 1e9
