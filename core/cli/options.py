"""What the commands share: options, and how a workspace is opened."""

from __future__ import annotations

import shlex
import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from core.runtime.distributed import is_rank_zero, world
from core.runtime.errors import UserError
from core.runtime.progress import LiveProgress, Progress

WorkspaceOption = Annotated[
    str, typer.Option("--workspace", "-w", help="Name of a workspace, or the path of its folder.")
]
DeviceOption = Annotated[str, typer.Option(help="auto, cpu, cuda or cuda:N.")]
DtypeOption = Annotated[str, typer.Option(help="float32 or float64.")]
ChunkOption = Annotated[
    int, typer.Option(min=0, help="Tasks run at once; memory grows with it. 0: as many as are fast here.")
]
FormatOption = Annotated[
    str,
    typer.Option(
        help="auto, folder, manifest, omniglot, mnist, cifar-fs, fc100, mini-imagenet or huggingface; see docs/data.md."
    ),
]
SplitsOption = Annotated[
    Path | None, typer.Option(help="Folder of split lists (train, val, test), where they do not lie beside the images.")
]
SizeOption = Annotated[str, typer.Option(help="Bring images to this size, as SIDE or HEIGHT,WIDTH.")]
ChannelsOption = Annotated[int, typer.Option(help="1 for grey, 3 for colour, 0 for what they are.")]
InvertOption = Annotated[bool, typer.Option("--invert", help="Turn dark on bright into bright on dark.")]
RotationsOption = Annotated[
    bool, typer.Option("--rotations", help="Add every class turned by 90, 180 and 270 degrees as further classes.")
]
EncodingOption = Annotated[str | None, typer.Option(help="Of a manifest that is not UTF-8, for example latin-1.")]
MethodOption = Annotated[
    str,
    typer.Option(
        help="task-if, task-if-exact, task-if-paper, task-if-fisher, direct-if, dot, tracin or self-influence; "
        "the options below change a part of it."
    ),
]
BackboneOption = Annotated[
    str,
    typer.Option(
        help="convnet, mlp, learn2learn's omniglot-cnn, omniglot-fc, mini-imagenet-cnn, cnn4 or resnet12, or your own "
        "network by the function that makes it: package.module:factory."
    ),
]
GradientOption = Annotated[str, typer.Option(help="Of the training data: total or direct.")]
EvaluationOption = Annotated[str, typer.Option(help="Of the target's loss: total, or direct as the paper shortens it.")]
InnerOption = Annotated[
    str, typer.Option(help="Inverse of the inner Hessian of an imaml model: cg, or ekfac as in the paper.")
]
ProbesOption = Annotated[int, typer.Option(min=0, help="Passes of the sketch of self-influence.")]
CurvatureOption = Annotated[
    str | None, typer.Option(help="gauss-newton, exact, direct, task-fisher or gamma (the paper's).")
]
SolverOption = Annotated[str | None, typer.Option(help="cg, neumann, low-rank, or dual for task-fisher.")]
CurvatureTasksOption = Annotated[
    int | None, typer.Option(min=0, help="Tasks the curvature is averaged over; 0 means all.")
]
SubsampleOption = Annotated[str | None, typer.Option(help="Which tasks: random, difficulty or uncertainty.")]
DampingOption = Annotated[
    float | None, typer.Option(help="Damping as a share of the largest eigenvalue of the curvature.")
]
RankOption = Annotated[
    int | None, typer.Option(min=0, help="Rank of the low-rank basis; with cg, of its preconditioner.")
]
ToleranceOption = Annotated[float | None, typer.Option(help="Relative residual of the solve.")]
SolveIterationsOption = Annotated[int | None, typer.Option(min=1, help="Most curvature products of the solve.")]
SolveSeedOption = Annotated[int | None, typer.Option(help="Seed of the draw of tasks for the curvature.")]
FinetuneOption = Annotated[int, typer.Option(min=1, help="Adam steps of a fine-tune.")]

DEFAULT_WORKSPACE = "demo-noisy-tasks"


def live_progress() -> Progress:
    return LiveProgress.from_environment() if is_rank_zero() else Progress()


def open_workspace(name: str) -> Any:
    from core.actions.demo import DEMOS, open_demo
    from core.workspace.workspace import Workspace, locate

    return world().local_rank_zero_first(lambda: open_demo(name)) if name in DEMOS else Workspace(locate(name))


def chosen_compute(device: str, dtype: str, chunk: int) -> Any:
    from core.actions.compute import Compute

    if world().size > 1 and ":" in device:
        raise UserError(f"{device} is one device, but there are {world().size} processes.", "Use auto, cuda or cpu.")
    compute = Compute(device, dtype, chunk)
    print(f"device: {compute.torch_device()}, {compute.dtype}", file=sys.stderr)
    return compute


def chosen_ranking(opened: Any, name: str) -> Any:
    def choose() -> str:
        if name != "newest":
            return opened.runs.get(name).id
        runs = opened.runs.all("rank")
        if not runs:
            raise UserError("There is no ranking in this workspace.", "Run the rank command first.")
        return runs[0].id

    (run,) = opened.runs.collect_distributed([world().on_rank_zero(choose)])
    return run


def say(line: str) -> None:
    print(line, file=sys.stderr)


def command_line() -> str:
    return shlex.join(["python", "-m", "core", *sys.argv[1:]])
