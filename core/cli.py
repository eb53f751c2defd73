"""The command line: everything the pages do, and what they start for long work.

Progress goes to stderr, paths of results to stdout. Exit codes: 0 done, 2 wrong input (the last line of stderr
says what and what to do), 130 or 143 cancelled (what was finished is kept and found again), 1 anything else.
"""

from __future__ import annotations

import shlex
import signal
import sys
from pathlib import Path
from typing import Annotated, Any, NoReturn

import typer

from core.errors import Cancelled, UserError
from core.progress import LiveProgress

app = typer.Typer(
    name="python -m core",
    help="TaskLens: find the training tasks and images that hurt a MAML few-shot classifier.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)

WorkspaceOption = Annotated[
    str, typer.Option("--workspace", "-w", help="Name of a workspace, or the path of its folder.")
]
DeviceOption = Annotated[str, typer.Option(help="auto, cpu, cuda or cuda:N.")]
DtypeOption = Annotated[str, typer.Option(help="float32 or float64.")]
ChunkOption = Annotated[int, typer.Option(min=1, help="Tasks run at once; memory grows with it.")]
MethodOption = Annotated[
    str,
    typer.Option(
        help="task-if, task-if-exact, task-if-paper, task-if-fisher, direct-if, dot, tracin or self-influence; "
        "the options below change a part of it."
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


def _progress() -> LiveProgress:
    return LiveProgress.from_environment()


def _workspace(name: str) -> Any:
    from core.actions.demo import DEMOS, open_demo
    from core.workspace.workspace import Workspace, locate

    return open_demo(name) if name in DEMOS else Workspace(locate(name))


def _compute(device: str, dtype: str, chunk: int) -> Any:
    from core.actions.compute import Compute

    compute = Compute(device, dtype, chunk)
    print(f"device: {compute.resolved()}, {compute.dtype}", file=sys.stderr)
    return compute


@app.command()
def tasks(
    out: Annotated[Path, typer.Option(help="Folder to write.")],
    data: Annotated[str, typer.Option(help="Image source.")] = "mnist5k",
    ways: Annotated[int, typer.Option(help="Classes a task.")] = 5,
    shots: Annotated[int, typer.Option(help="Support images a class.")] = 5,
    queries: Annotated[int, typer.Option(help="Query images a class.")] = 10,
    count: Annotated[int, typer.Option(min=0, help="Training tasks; 0 means every combination of classes once.")] = 0,
    heldout: Annotated[int, typer.Option(min=1, help="Held-out tasks.")] = 100,
    split: Annotated[str, typer.Option(help="Hold out images of every class, or whole classes.")] = "images",
    heldout_share: Annotated[float, typer.Option(help="Share of the images or classes held out.")] = 0.3,
    noise: Annotated[
        str,
        typer.Option(
            help="Labels to spoil in the training tasks: none, tasks:SHARE:LABELS, images:SHARE, lookalike:SHARE, "
            "or easy, hard, image, confusion. What was spoilt is recorded in planted.parquet."
        ),
    ] = "none",
    seed: Annotated[int, typer.Option(help="Same seed, same tasks.")] = 0,
) -> None:
    """Draw training and held-out tasks from an image set, with planted noise if wanted."""
    from core.tasks.generate import TaskSettings, generate, write_folder

    settings = TaskSettings(data, ways, shots, queries, count or None, heldout, split, heldout_share, noise, seed)
    made = generate(settings)
    made.description["command"] = _command()
    write_folder(made, out)
    print(f"{len(made.train)} training and {len(made.heldout)} held-out tasks", file=sys.stderr)
    print(out)


@app.command()
def train(
    tasks: Annotated[Path, typer.Option(help="Folder made by the tasks command.")],
    out: Annotated[Path, typer.Option(help="Folder to write; an interrupted training there goes on.")],
    algorithm: Annotated[
        str, typer.Option(help="maml, fomaml, anil, meta-sgd, or imaml (proximal inner problem, solved).")
    ] = "maml",
    backbone: Annotated[str, typer.Option(help="convnet or mlp.")] = "convnet",
    filters: Annotated[int, typer.Option(help="Channels of every block: 16, 32 or 64 in the literature.")] = 16,
    pooling: Annotated[str, typer.Option(help="stride or max.")] = "stride",
    hidden: Annotated[str, typer.Option(help="Widths of the mlp, with commas; none for a linear model.")] = "64",
    shrink: Annotated[int, typer.Option(min=1, help="The mlp sees images averaged over squares of this side.")] = 1,
    activation: Annotated[
        str, typer.Option(help="gelu, tanh, or the relu of the literature (never stationary).")
    ] = "gelu",
    inner_steps: Annotated[int, typer.Option(min=1, help="Gradient steps of the adaptation.")] = 1,
    inner_rate: Annotated[float, typer.Option(help="Learning rate of the adaptation.")] = 0.4,
    proximity: Annotated[float, typer.Option(help="Of imaml: the weight of its proximal term.")] = 1.0,
    inner_tolerance: Annotated[float, typer.Option(help="Of imaml: to which the inner problem is solved.")] = 1e-5,
    delta: Annotated[float, typer.Option(help="Weight decay of the objective, which is a sum over tasks.")] = 0.1,
    iterations: Annotated[int, typer.Option(min=0, help="Adam steps.")] = 1200,
    meta_batch: Annotated[int, typer.Option(min=1, help="Tasks an Adam step.")] = 12,
    learning_rate: Annotated[float, typer.Option(help="Of Adam, falling to 0 along a cosine.")] = 3e-3,
    polish: Annotated[int, typer.Option(min=0, help="Most full-batch L-BFGS iterations after that.")] = 0,
    tolerance: Annotated[float, typer.Option(help="Gradient ratio at which the polish stops.")] = 1e-4,
    seed: Annotated[int, typer.Option(help="Of initial parameters and task order.")] = 0,
    device: DeviceOption = "auto",
    dtype: DtypeOption = "float32",
    chunk: ChunkOption = 8,
) -> None:
    """Meta-train a MAML model and say how far from stationary it ended."""
    from pydantic import ValidationError

    from core.actions.train import train_model
    from core.maml.checkpoint import ModelSpec
    from core.maml.training import TrainSettings

    # The number of classes and the size of the images come from the tasks.
    try:
        widths = () if hidden == "none" else tuple(int(width) for width in hidden.split(","))
    except ValueError as error:
        raise UserError(f"The widths {hidden!r} are not whole numbers.", "For example 64,64, or none.") from error
    network = {"backbone": backbone, "filters": filters, "pooling": pooling, "hidden": widths, "shrink": shrink}
    wanted = {
        "ways": 2,
        "algorithm": algorithm,
        "activation": activation,
        "delta": delta,
        "steps": inner_steps,
        "rate": inner_rate,
        "proximity": proximity,
        "inner_tolerance": inner_tolerance,
    }
    try:
        spec = ModelSpec.model_validate(wanted | network)
    except ValidationError as error:
        first = error.errors()[0]
        raise UserError(f"{first['loc'][0]}: {first['msg']}, not {first['input']}.") from error
    settings = TrainSettings(iterations, meta_batch, learning_rate, polish, tolerance, seed)
    model = train_model(tasks, out, spec, settings, _compute(device, dtype, chunk), _progress(), _command())
    report = model.story["report"]
    accuracy, at = report["heldout_accuracy"], report["stationarity"]
    print(
        f"held-out accuracy {accuracy['mean']:.3f} [{accuracy['low']:.3f}, {accuracy['high']:.3f}], "
        f"gradient norm {at['gradient_norm']:.3g}, gradient ratio {at['ratio']:.1e}",
        file=sys.stderr,
    )
    print(out)


@app.command("open")
def open_command(
    tasks: Annotated[Path, typer.Option(help="Folder made by the tasks command.")],
    model: Annotated[Path, typer.Option(help="Folder made by the train command.")],
    workspace: WorkspaceOption,
) -> None:
    """Make a workspace from tasks and a model, for the dashboard and the commands below."""
    from core.workspace.workspace import create, locate

    print(create(locate(workspace), tasks, model).folder)


@app.command()
def evaluate(
    workspace: WorkspaceOption = DEFAULT_WORKSPACE,
    device: DeviceOption = "auto",
    dtype: DtypeOption = "float32",
    chunk: ChunkOption = 8,
) -> None:
    """Accuracy on the held-out tasks, and how far the model is from stationary."""
    from core.actions.evaluate import evaluation

    run = evaluation(_workspace(workspace), _compute(device, dtype, chunk), _progress())
    found = run.json("summary.json")
    accuracy, at = found["accuracy"], found["stationarity"]
    print(
        f"held-out accuracy {accuracy['mean']:.3f} [{accuracy['low']:.3f}, {accuracy['high']:.3f}] "
        f"over {found['tasks']} tasks, gradient ratio {at['ratio']:.1e}",
        file=sys.stderr,
    )
    print(run.folder)


@app.command("rank")
def rank_command(
    workspace: WorkspaceOption = DEFAULT_WORKSPACE,
    target: Annotated[str, typer.Option(help="all, held-out task ids with commas, or TASK/IMAGE.")] = "all",
    method: MethodOption = "task-if",
    gradient: GradientOption = "",
    evaluation: EvaluationOption = "",
    probes: ProbesOption = 0,
    inner: InnerOption = "",
    curvature: CurvatureOption = None,
    solver: SolverOption = None,
    curvature_tasks: CurvatureTasksOption = None,
    subsample: SubsampleOption = None,
    damping: DampingOption = None,
    rank: RankOption = None,
    tolerance: ToleranceOption = None,
    solve_iterations: SolveIterationsOption = None,
    solve_seed: SolveSeedOption = None,
    device: DeviceOption = "auto",
    dtype: DtypeOption = "float32",
    chunk: ChunkOption = 8,
) -> None:
    """Rank all training tasks, instances and images by influence: positive helps, negative harms."""
    from core.actions.rank import ranking
    from core.influence.methods import estimator
    from core.influence.targets import Target

    chosen = estimator(
        method,
        gradient=gradient,
        evaluation=evaluation,
        probes=probes,
        inner=inner,
        curvature=curvature,
        solver=solver,
        curvature_tasks=curvature_tasks,
        subsample=subsample,
        damping=damping,
        rank=rank,
        tolerance=tolerance,
        iterations=solve_iterations,
        seed=solve_seed,
    )
    run = ranking(_workspace(workspace), Target.parse(target), chosen, _compute(device, dtype, chunk), _progress())
    print(run.folder)


@app.command()
def evidence(
    workspace: WorkspaceOption = DEFAULT_WORKSPACE,
    methods: Annotated[
        str, typer.Option(help="Methods to rate, with commas; all of them: --methods all. See docs/method.md.")
    ] = "",
    truth: Annotated[str, typer.Option(help="half: random halves of the tasks (LDS). one: all but one task.")] = "half",
    subsets: Annotated[int, typer.Option(help="Retrained subsets.")] = 20,
    seeds: Annotated[int, typer.Option(help="Retrainings of each subset; 2 or more to know the ceiling.")] = 2,
    retrain: Annotated[str, typer.Option(help="fresh: as the model was. warm: from the present model.")] = "fresh",
    iterations: Annotated[int, typer.Option(help="Adam steps of a retraining; 0 means as the model was trained.")] = 0,
    targets: Annotated[int, typer.Option(help="Held-out tasks that are targets; 0 means all.")] = 20,
    device: DeviceOption = "auto",
    dtype: DtypeOption = "float32",
    chunk: ChunkOption = 8,
) -> None:
    """Hold rankings against retraining: how well does each method foretell the loss of models trained on other tasks?

    An interrupted run goes on where it was; retrained models are shared by all methods and by later runs.
    """
    from core.actions.evidence import EvidenceSettings
    from core.actions.evidence import evidence as evidence_action
    from core.evidence.methods import KNOWN, USUAL

    names = tuple(KNOWN) if methods == "all" else tuple(methods.split(",")) if methods else USUAL
    settings = EvidenceSettings(names, truth, subsets, seeds, retrain, iterations, targets)
    run = evidence_action(_workspace(workspace), settings, _compute(device, dtype, chunk), _progress())
    shown = run.table("methods.parquet").drop(columns=["words", "note", "kind"])
    print(shown.to_string(index=False, float_format=lambda value: f"{value:.3f}"), file=sys.stderr)
    print(run.folder)


@app.command()
def edit(
    workspace: WorkspaceOption = DEFAULT_WORKSPACE,
    how: Annotated[
        list[str] | None, typer.Option(help="linear, finetune, finetune-all or retrain; may be given several times.")
    ] = None,
    finetune_steps: FinetuneOption = 40,
    curvature: CurvatureOption = None,
    solver: SolverOption = None,
    curvature_tasks: CurvatureTasksOption = None,
    subsample: SubsampleOption = None,
    damping: DampingOption = None,
    rank: RankOption = None,
    tolerance: ToleranceOption = None,
    solve_iterations: SolveIterationsOption = None,
    solve_seed: SolveSeedOption = None,
    device: DeviceOption = "auto",
    dtype: DtypeOption = "float32",
    chunk: ChunkOption = 8,
) -> None:
    """Edit the model for what reviewers removed, and measure it on the held-out tasks."""
    from dataclasses import replace

    from core.actions.edit import FINETUNE, SOLVE
    from core.actions.edit import edit as edit_action

    opened = _workspace(workspace)
    removal, progress, compute = opened.removal(), _progress(), _compute(device, dtype, chunk)
    given: dict[str, Any] = {
        "curvature": curvature,
        "solver": solver,
        "curvature_tasks": curvature_tasks,
        "subsample": subsample,
        "damping": damping,
        "rank": rank,
        "tolerance": tolerance,
        "iterations": solve_iterations,
        "seed": solve_seed,
    }
    settings = replace(SOLVE, **{name: value for name, value in given.items() if value is not None})
    finetune = replace(FINETUNE, iterations=finetune_steps)
    for way in how or ["linear", "finetune", "finetune-all"]:
        run = edit_action(opened, way, removal, solver=settings, finetune=finetune, compute=compute, progress=progress)
        figures = run.json("edit.json")
        accuracy, change = figures["accuracy"], figures["accuracy_change"]
        print(
            f"{way}: held-out accuracy {accuracy['mean']:.3f} [{accuracy['low']:.3f}, {accuracy['high']:.3f}], "
            f"change {change['mean']:+.3f} [{change['low']:+.3f}, {change['high']:+.3f}]",
            file=sys.stderr,
        )
        print(run.folder)


@app.command()
def curve(
    ranking: Annotated[str, typer.Option(help="Id of a rank run, or newest.")] = "newest",
    workspace: WorkspaceOption = DEFAULT_WORKSPACE,
    by: Annotated[str, typer.Option(help="tasks or images.")] = "tasks",
    shares: Annotated[str, typer.Option(help="Shares to remove, with commas.")] = "0,0.1,0.2,0.3,0.4,0.5",
    orders: Annotated[str, typer.Option(help="harmful, loss, random; with commas.")] = "harmful,loss,random",
    seeds: Annotated[int, typer.Option(help="Repetitions.")] = 3,
    finetune_steps: FinetuneOption = 40,
    device: DeviceOption = "auto",
    dtype: DtypeOption = "float32",
    chunk: ChunkOption = 8,
) -> None:
    """Accuracy against the share removed: most harmful first, highest loss first, and at random."""
    from dataclasses import replace

    from core.actions.curve import FINETUNE, CurveSettings
    from core.actions.curve import curve as curve_action

    opened = _workspace(workspace)
    try:
        numbers = tuple(float(share) for share in shares.split(","))
    except ValueError as error:
        raise UserError(f"The shares {shares!r} are not numbers.", "For example 0,0.1,0.2.") from error
    run = curve_action(
        opened,
        _ranking(opened, ranking),
        CurveSettings(by, numbers, tuple(orders.split(",")), seeds),
        replace(FINETUNE, iterations=finetune_steps),
        _compute(device, dtype, chunk),
        _progress(),
    )
    print(run.folder)


def _ranking(opened: Any, name: str) -> Any:
    if name != "newest":
        return opened.runs.get(name)
    runs = opened.runs.all("rank")
    if not runs:
        raise UserError("There is no ranking in this workspace.", "Run the rank command first.")
    return runs[0]


@app.command()
def remove(
    workspace: WorkspaceOption = DEFAULT_WORKSPACE,
    ranking: Annotated[str, typer.Option(help="Id of a rank run, or newest.")] = "newest",
    worst: Annotated[int, typer.Option(min=0, help="Mark this many of the most harmful.")] = 0,
    by: Annotated[str, typer.Option(help="tasks or images.")] = "tasks",
    task: Annotated[list[str] | None, typer.Option(help="Id of a task to mark.")] = None,
    image: Annotated[list[str] | None, typer.Option(help="Id of an image to mark.")] = None,
    reason: Annotated[str, typer.Option(help="Kept with the decision.")] = "",
    reviewer: Annotated[str, typer.Option(help="Kept with the decision.")] = "command line",
    undo: Annotated[bool, typer.Option("--undo", help="Take back this reviewer's last marking instead.")] = False,
) -> None:
    """Mark tasks or images for removal, or take the last marking back; prints what is marked now."""
    from core.actions.decide import mark, worst_items

    opened = _workspace(workspace)
    if undo:
        opened.decisions.undo(reviewer)
    else:
        items, source = [], ""
        if worst:
            ranked = _ranking(opened, ranking)
            items, source = worst_items(ranked, by, worst), ranked.id
        mark(opened, items, tasks=task or [], images=image or [], reason=reason, reviewer=reviewer, source=source)
    removal = opened.removal()
    for kind in ("tasks", "images", "instances"):
        for name in sorted(getattr(removal, kind)):
            print(f"{kind[:-1]}\t{name if isinstance(name, str) else '/'.join(name)}")


@app.command()
def export(
    workspace: WorkspaceOption = DEFAULT_WORKSPACE,
    out: Annotated[Path | None, typer.Option(help="Folder to write; default: exports/ of the workspace.")] = None,
    formats: Annotated[str, typer.Option(help="Of the task list, with commas.")] = "parquet,csv,json",
    drop_rows: Annotated[
        bool, typer.Option("--drop-rows", help="Take removed rows out instead of giving them weight 0.")
    ] = False,
    model: Annotated[str, typer.Option(help="Id of an edit run whose model goes along.")] = "",
) -> None:
    """Write the cleaned task list, the removed items with reasons, and an edited model."""
    from core.actions.export import export as export_action

    opened = _workspace(workspace)
    edited = opened.runs.get(model) if model else None
    folder = out or opened.folder / "exports" / "cleaned"
    print(export_action(opened, folder, formats=tuple(formats.split(",")), drop_rows=drop_rows, edited=edited))


@app.command()
def demo(
    only: Annotated[str, typer.Option(help="Only this demo: demo-noisy-tasks or demo-noisy-images.")] = "",
    home: Annotated[
        Path | None, typer.Option(help="Folder of the workspaces; default: where the dashboard looks.")
    ] = None,
    device: DeviceOption = "auto",
    dtype: DtypeOption = "float32",
    chunk: ChunkOption = 8,
) -> None:
    """Do the whole path on the shipped models: rank, rate against planted noise, remove, edit, export."""
    import time

    from core.actions.demo import DEMOS, walk
    from core.workspace.workspace import home as default_home

    start, compute = time.perf_counter(), _compute(device, dtype, chunk)
    for name in [only] if only else DEMOS:
        print(walk(name, home or default_home(), compute, _progress(), _say))
    _say(f"total: {time.perf_counter() - start:.0f} s, at most {_peak_memory():.1f} GB of memory")


def _say(line: str) -> None:
    print(line, file=sys.stderr)


def _peak_memory() -> float:
    """Most memory this process held so far, in GB."""
    import resource

    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 1e9


def _command() -> str:
    return shlex.join(["python", "-m", "core", *sys.argv[1:]])


def main() -> NoReturn:
    """Run a command and exit with its code."""

    def cancel(number: int, _: object) -> None:
        raise Cancelled(128 + number)

    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, cancel)
    try:
        app()
    except UserError as error:
        print(error, file=sys.stderr)
        raise SystemExit(2) from None
    except Cancelled as cancelled:
        print("Cancelled; what was finished is kept.", file=sys.stderr)
        raise SystemExit(cancelled.args[0]) from None
    raise SystemExit(0)
