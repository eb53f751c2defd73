"""The command line: everything the pages do, and what they start for long work.

Progress goes to stderr, paths of results to stdout. Exit codes: 0 done, 2 wrong input (the last line of stderr
says what and what to do), 130 or 143 cancelled (what was finished is kept and found again), 1 anything else.

Under ``torchrun`` several processes do one command together (docs/scale.md); rank 0 alone speaks.
"""

from __future__ import annotations

import os
import shlex
import signal
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from pathlib import Path
from typing import Annotated, Any, NoReturn

import typer

from core.cli_experiments import experiments
from core.cli_review import review
from core.cli_sets import sets
from core.cli_shared import (
    DEFAULT_WORKSPACE,
    BackboneOption,
    ChannelsOption,
    ChunkOption,
    CurvatureOption,
    CurvatureTasksOption,
    DampingOption,
    DeviceOption,
    DtypeOption,
    EncodingOption,
    EvaluationOption,
    FinetuneOption,
    FormatOption,
    GradientOption,
    InnerOption,
    InvertOption,
    MethodOption,
    ProbesOption,
    RankOption,
    RotationsOption,
    SizeOption,
    SolveIterationsOption,
    SolverOption,
    SolveSeedOption,
    SplitsOption,
    SubsampleOption,
    ToleranceOption,
    WorkspaceOption,
    chosen_compute,
    chosen_ranking,
    live_progress,
    open_workspace,
)
from core.cli_whatif import (
    ImagesOption,
    RelabelOption,
    TasksOption,
    chosen_changes,
    estimate_words,
    named_changes,
    print_changes,
    print_ends,
    print_whatif,
)
from core.runtime.distributed import (
    PeerLostError,
    exit_process,
    is_distributed,
    is_initialized,
    is_last_attempt,
    is_rank_zero,
    joined,
    single_process,
    world,
)
from core.runtime.errors import Cancelled, UserError
from core.runtime.memory import disable_malloc_trim

app = typer.Typer(
    name="python -m core",
    help="TaskLens: find the training tasks and images that hurt a MAML few-shot classifier.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)

app.add_typer(review, name="review")
app.add_typer(sets, name="sets")
app.command()(experiments)

TOGETHER = ("train", "evaluate", "rank", "evidence", "edit", "curve", "experiments")
"""Commands that several processes can do together."""


@app.command()
def data(
    path: Annotated[
        Path | None,
        typer.Option(help="Folder, zip archive or manifest; with --download, where to put what is fetched."),
    ] = None,
    name: Annotated[str, typer.Option(help="What to call the image set.")] = "",
    format: FormatOption = "auto",
    splits: SplitsOption = None,
    size: SizeOption = "",
    channels: ChannelsOption = 0,
    invert: InvertOption = False,
    rotations: RotationsOption = False,
    encoding: EncodingOption = None,
    skip_unreadable: Annotated[
        bool, typer.Option("--skip-unreadable", help="Leave out images that cannot be read.")
    ] = False,
    download: Annotated[
        bool, typer.Option("--download", help="Fetch it into --path first; --format says what.")
    ] = False,
    list_: Annotated[bool, typer.Option("--list", help="Print the image sets that there are.")] = False,
) -> None:
    """Read images with labels, once, into an image set that tasks can be drawn from."""
    from core.actions.images import ImportOptions, add_images, known_images
    from core.data.download import download as fetch
    from core.data.store import damaged_image_sets

    if list_:
        for row in known_images():
            print("\t".join(row))
        for fault in damaged_image_sets():
            _say(fault)
        return
    if path is None:
        raise UserError("There is no path of images.", "Use --path, or --list to see what there is.")
    progress = live_progress()
    if download:
        fetch(format, path, progress)
    wishes = ImportOptions(format, splits, size, channels, invert, rotations, encoding or "", skip_unreadable)
    stored = add_images(path, wishes, name=name, command=_command(), progress=progress)
    for note in stored.story["notes"]:
        _say(note)
    left_out = f"; {stored.unreadable:,} unreadable left out" if stored.unreadable else ""
    height, width, bands = stored.shape
    _say(
        f"{stored.name}: {stored.count:,} images of {height} x {width} x {bands}, {stored.classes:,} classes{left_out}"
    )
    print(stored.folder)


@app.command()
def tasks(
    out: Annotated[Path, typer.Option(help="Folder to write.")],
    data: Annotated[str, typer.Option(help="Image set: mnist5k, or the name or folder of one of yours.")] = "mnist5k",
    ways: Annotated[int, typer.Option(help="Classes a task.")] = 5,
    shots: Annotated[int, typer.Option(help="Support images a class.")] = 5,
    queries: Annotated[int, typer.Option(help="Query images a class.")] = 10,
    count: Annotated[int, typer.Option(min=0, help="Training tasks; 0 means every combination of classes once.")] = 0,
    heldout: Annotated[int, typer.Option(min=1, help="Held-out tasks.")] = 100,
    split: Annotated[
        str,
        typer.Option(
            help="official: the split that the images come with. images: hold out images of every class. "
            "classes: hold out whole classes. auto: official where there is one, else images."
        ),
    ] = "auto",
    heldout_split: Annotated[
        str, typer.Option(help="Part of the official split that held-out tasks are drawn from: test or val.")
    ] = "test",
    heldout_share: Annotated[float, typer.Option(help="Share of the images or classes held out.")] = 0.3,
    noise: Annotated[
        str,
        typer.Option(
            help="Labels to spoil in the training tasks: none, tasks:SHARE:LABELS, images:SHARE, lookalike:SHARE, "
            "or easy, hard, image, confusion. What was spoilt is recorded in planted.parquet."
        ),
    ] = "none",
    seed: Annotated[int, typer.Option(help="Same seed, same tasks.")] = 0,
    skip_small_classes: Annotated[
        bool, typer.Option("--skip-small-classes", help="Leave out classes with fewer images than a task takes.")
    ] = False,
    train_list: Annotated[
        Path | None, typer.Option(help="Your own training tasks instead of drawn ones; needs --heldout-list.")
    ] = None,
    heldout_list: Annotated[Path | None, typer.Option(help="Your own held-out tasks.")] = None,
) -> None:
    """Draw training and held-out tasks from an image set, with planted noise if wanted, or take your own lists."""
    from core.tasks.generate import TaskSettings, from_lists, generate, write_folder

    if (train_list is None) != (heldout_list is None):
        raise UserError("One list alone is not enough.", "Give both --train-list and --heldout-list.")
    if train_list and heldout_list:
        made = from_lists(data, train_list, heldout_list)
    else:
        made = generate(
            TaskSettings(
                data,
                ways,
                shots,
                queries,
                count or None,
                heldout,
                split,
                heldout_split,
                heldout_share,
                noise,
                seed,
                skip_small_classes,
            )
        )
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
    backbone: BackboneOption = "convnet",
    filters: Annotated[
        int | None, typer.Option(help="Channels of every block; 16, or 64 for the networks of learn2learn.")
    ] = None,
    pooling: Annotated[
        str, typer.Option(help="Of convnet: stride or max; of cnn4: max or stride; of resnet12: mean or none.")
    ] = "",
    hidden: Annotated[
        str, typer.Option(help="Widths of mlp (64; none for a linear model), omniglot-fc or resnet12, with commas.")
    ] = "",
    shrink: Annotated[
        int | None, typer.Option(min=1, help="The mlp sees images averaged over squares of this side.")
    ] = None,
    activation: Annotated[
        str,
        typer.Option(help="Of convnet and mlp: gelu (default), tanh or the literature's relu (never stationary)."),
    ] = "",
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
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Say what training and the work after it would cost, and stop.")
    ] = False,
    device: DeviceOption = "auto",
    dtype: DtypeOption = "float32",
    chunk: ChunkOption = 0,
) -> None:
    """Meta-train a MAML model and say how far from stationary it ended."""
    from core.actions.train import train_model
    from core.checkpoints.model import check_unused_fields, spec_of
    from core.maml.training import TrainSettings

    try:
        widths = () if hidden == "none" else tuple(int(width) for width in hidden.split(",") if hidden)
    except ValueError as error:
        raise UserError(f"The widths {hidden!r} are not whole numbers.", "For example 64,64, or none.") from error
    given = {
        "filters": filters,
        "pooling": pooling or None,
        "hidden": widths if hidden else None,
        "shrink": shrink,
        "activation": activation or None,
    }
    network = {name: value for name, value in given.items() if value is not None} | _backbone(backbone)
    check_unused_fields(network["backbone"], network.keys())
    wanted = {
        "ways": 2,  # like the size of the images, this comes from the tasks
        "algorithm": algorithm,
        "delta": delta,
        "steps": inner_steps,
        "rate": inner_rate,
        "proximity": proximity,
        "inner_tolerance": inner_tolerance,
    }
    spec = spec_of(wanted | network)
    settings = TrainSettings(iterations, meta_batch, learning_rate, polish, tolerance, seed)
    if dry_run:
        from core.actions.inspect import inspect_problem

        with single_process():
            _show(inspect_problem(tasks, None, spec, settings, chosen_compute(device, dtype, chunk), live_progress()))
        return
    model = train_model(tasks, out, spec, settings, chosen_compute(device, dtype, chunk), live_progress(), _command())
    report = model.story["report"]
    accuracy, at = report["heldout_accuracy"], report["stationarity"]
    print(
        f"held-out accuracy {accuracy['mean']:.3f} [{accuracy['low']:.3f}, {accuracy['high']:.3f}], "
        f"gradient norm {at['gradient_norm']:.3g}, gradient ratio {at['ratio']:.1e}",
        file=sys.stderr,
    )
    print(out)


@app.command("model")
def model_command(
    checkpoint: Annotated[
        Path | None,
        typer.Option(help="A state dict (.pt, .pth), a .safetensors file, or a model folder of TaskLens."),
    ] = None,
    out: Annotated[Path | None, typer.Option(help="Folder to write.")] = None,
    backbone: Annotated[
        str, typer.Option(help="As for train; may be left out where the names in the checkpoint tell it.")
    ] = "",
    algorithm: Annotated[
        str, typer.Option(help="maml, fomaml, anil, meta-sgd or imaml; default: what the checkpoint tells.")
    ] = "",
    inner_steps: Annotated[
        int | None, typer.Option(min=1, help="Gradient steps of the adaptation that it was trained with.")
    ] = None,
    inner_rate: Annotated[float | None, typer.Option(help="Their learning rate.")] = None,
    tasks: Annotated[
        Path | None, typer.Option(help="Folder made by the tasks command, which the model has to fit.")
    ] = None,
    shape: Annotated[str, typer.Option(help="Instead of tasks: HEIGHT,WIDTH,CHANNELS of the images.")] = "",
    ways: Annotated[int | None, typer.Option(min=2, help="Instead of tasks: classes a task.")] = None,
    pooling: Annotated[str, typer.Option(help="As for train, where the checkpoint does not tell it.")] = "",
    activation: Annotated[str, typer.Option(help="Of convnet and mlp, as for train.")] = "",
    proximity: Annotated[float | None, typer.Option(help="Of imaml, as for train.")] = None,
    delta: Annotated[
        float | None, typer.Option(help="Weight decay that it was trained with, as for train; 0 if not said.")
    ] = None,
    allow: Annotated[
        str, typer.Option(help="Only let this package.module:factory be imported on this machine; runs its code.")
    ] = "",
) -> None:
    """Make a model of a checkpoint from elsewhere: learn2learn's, or a state dict of your own network."""
    from core.actions.import_model import import_model
    from core.checkpoints.factory import allow as allow_factory
    from core.checkpoints.matching import CheckpointHints

    if allow:
        allow_factory(allow)
        _say(f"{allow} may be imported on this machine.")
        if checkpoint is None:
            return
    if checkpoint is None or out is None:
        raise UserError("There is no checkpoint or no folder to write.", "Give --checkpoint and --out.")
    if backbone:
        _backbone(backbone)
    more = {"pooling": pooling, "activation": activation, "proximity": proximity, "delta": delta}
    asked = CheckpointHints(
        backbone or None,
        algorithm or None,
        _shape(shape) if shape else None,
        ways,
        inner_steps,
        inner_rate,
        {name: value for name, value in more.items() if value not in ("", None)},
    )
    made = import_model(checkpoint, out, asked, tasks, _command())
    for note in made.story.get("origin", {}).get("notes", []):
        _say(note)
    _say(f"{made.spec.words}; {made.size:,} parameters")
    print(out)


def _backbone(name: str) -> dict[str, Any]:
    """Fields of a model's description; a factory that is named on the command line may be imported from then on."""
    from core.checkpoints.factory import allow, is_factory

    if not is_factory(name):
        return {"backbone": name}
    allow(name)
    return {"backbone": "module", "factory": name}


def _shape(text: str) -> tuple[int, int, int]:
    try:
        height, width, channels = (int(number) for number in text.split(","))
        if min(height, width, channels) < 1:
            raise ValueError
    except ValueError as error:
        raise UserError(f"{text!r} is not a size of images.", "For example 84,84,3.") from error
    return height, width, channels


@app.command("inspect")
def inspect_command(
    path: Annotated[
        Path | None, typer.Option(help="Images that are not imported yet, as the data command takes.")
    ] = None,
    format: FormatOption = "auto",
    splits: SplitsOption = None,
    size: SizeOption = "",
    channels: ChannelsOption = 0,
    invert: InvertOption = False,
    rotations: RotationsOption = False,
    encoding: EncodingOption = None,
    checkpoint: Annotated[Path | None, typer.Option(help="A checkpoint that is not imported yet.")] = None,
    backbone: Annotated[str, typer.Option(help="Of the checkpoint, as the model command takes it.")] = "",
    tasks: Annotated[Path | None, typer.Option(help="Folder made by the tasks command.")] = None,
    model: Annotated[
        Path | None, typer.Option(help="Folder made by the train or model command; needs --tasks.")
    ] = None,
    workspace: Annotated[str, typer.Option("--workspace", "-w", help="A workspace: its tasks and model.")] = "",
    json: Annotated[bool, typer.Option("--json", help="Print the findings as JSON.")] = False,
    device: DeviceOption = "auto",
    dtype: DtypeOption = "float32",
    chunk: ChunkOption = 0,
) -> None:
    """Say what was found, what does not fit, and what the work would cost, before anything long is begun."""
    from core.actions.images import ImportOptions
    from core.actions.inspect import Inspection, inspect_checkpoint_file, inspect_problem
    from core.actions.inspect_images import inspect_images

    if workspace:
        folder = open_workspace(workspace).folder
        tasks, model = folder / "tasks", folder / "model"
    if not (path or checkpoint or tasks):
        raise UserError("There is nothing to inspect.", "Use --path, --checkpoint, --tasks or --workspace.")
    report = Inspection()
    if path:
        wishes = ImportOptions(format, splits, size, channels, invert, rotations, encoding or "")
        report += inspect_images(path, wishes)[0]
    if checkpoint:
        if backbone:
            _backbone(backbone)  # a factory that is named here may be imported
        report += inspect_checkpoint_file(checkpoint, backbone, tasks)
    if tasks:
        report += inspect_problem(tasks, model, None, None, chosen_compute(device, dtype, chunk), live_progress())
    _show(report, json)


def _show(report: Any, as_json: bool = False) -> None:
    """A report on stdout."""
    if as_json:
        from dataclasses import asdict
        from json import dumps

        print(dumps(asdict(report)))
        return
    print("\n".join(["found:", *(f"  {line}" for line in report.found)]))
    if report.faults:
        print("\n".join(["does not fit:", *(f"  {line}" for line in report.faults)]))
    if report.costs:
        print("cost on this machine, measured on a few tasks:")
    for cost in report.costs:
        print(f"  {cost.stage:<10} {cost.time:<26} {cost.gb:>5.1f} GB   {cost.how_much}")


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
    chunk: ChunkOption = 0,
) -> None:
    """Accuracy on the held-out tasks, and how far the model is from stationary."""
    from core.actions.evaluate import evaluation

    run = evaluation(open_workspace(workspace), chosen_compute(device, dtype, chunk), live_progress())
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
    chunk: ChunkOption = 0,
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
    run = ranking(
        open_workspace(workspace), Target.parse(target), chosen, chosen_compute(device, dtype, chunk), live_progress()
    )
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
    chunk: ChunkOption = 0,
) -> None:
    """Hold rankings against retraining: how well does each method foretell the loss of models trained on other tasks?

    An interrupted run goes on where it was; retrained models are shared by all methods and by later runs.
    """
    from core.actions.evidence import EvidenceSettings
    from core.actions.evidence import evidence as evidence_action
    from core.evidence.methods import ALL_METHODS, DEFAULT_METHODS

    names = tuple(ALL_METHODS) if methods == "all" else tuple(methods.split(",")) if methods else DEFAULT_METHODS
    settings = EvidenceSettings(names, truth, subsets, seeds, retrain, iterations, targets)
    run = evidence_action(open_workspace(workspace), settings, chosen_compute(device, dtype, chunk), live_progress())
    shown = run.table("methods.parquet").drop(columns=["words", "note", "kind"])
    print(shown.to_string(index=False, float_format=lambda value: f"{value:.3f}"), file=sys.stderr)
    print(run.folder)


@app.command()
def edit(
    workspace: WorkspaceOption = DEFAULT_WORKSPACE,
    how: Annotated[
        list[str] | None,
        typer.Option(
            help="linear, newton, steps, steps-all, finetune, finetune-all or retrain; may be given several times. "
            "If not given, those that take seconds: linear, newton, finetune, finetune-all."
        ),
    ] = None,
    named_set: Annotated[
        str, typer.Option("--set", help="Name of a what-if set, instead of what reviewers decided.")
    ] = "",
    finetune_steps: FinetuneOption = 40,
    budget: Annotated[
        float, typer.Option(help="Of steps, as a share of what training the model took; at least 40 steps are made.")
    ] = 0.02,
    rewind: Annotated[
        bool,
        typer.Option(
            help="Begin steps at the snapshot of the training that some held-out tasks like best, where snapshots were "
            "kept, or at the present model."
        ),
    ] = True,
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
    chunk: ChunkOption = 0,
) -> None:
    """Edit the model for what reviewers removed and relabelled, and measure it on the held-out tasks."""
    from dataclasses import replace

    from core.actions.edit import edit as edit_action
    from core.editing.methods import DEFAULT_EDIT_METHODS, FINETUNE, SOLVE
    from core.editing.steps import start_text

    opened = open_workspace(workspace)
    changes, progress = world().on_rank_zero(lambda: chosen_changes(opened, named_set)), live_progress()
    compute = chosen_compute(device, dtype, chunk)
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
    for way in how or DEFAULT_EDIT_METHODS:
        run = edit_action(
            opened,
            way,
            changes,
            solver=settings,
            finetune=finetune,
            budget=budget,
            rewind=rewind,
            compute=compute,
            progress=progress,
        )
        figures = run.json("edit.json")
        accuracy, change = figures["accuracy"], figures["accuracy_change"]
        print(
            f"{way}: held-out accuracy {accuracy['mean']:.3f} [{accuracy['low']:.3f}, {accuracy['high']:.3f}], "
            f"change {change['mean']:+.3f} [{change['low']:+.3f}, {change['high']:+.3f}]{_cost_words(figures)}"
            + (f", begun at {words}" if (words := start_text(figures)) else ""),
            file=sys.stderr,
        )
        print(run.folder)


def _cost_words(figures: dict[str, Any]) -> str:
    """What an edit took; edits of earlier versions do not say it."""
    if "cost" not in figures:
        return ""
    cost, share = figures["cost"]["meta_gradients"], figures["cost"]["share_of_retraining"]
    return f", cost {cost:,.0f} meta-gradients" + ("" if share is None else f" ({share:.1%} of retraining)")


@app.command()
def whatif(
    workspace: WorkspaceOption = DEFAULT_WORKSPACE,
    tasks: TasksOption = "",
    images: ImagesOption = "",
    relabel: RelabelOption = None,
    target: Annotated[
        str, typer.Option(help="Score the training tasks for this target instead: all, task ids, or TASK/IMAGE.")
    ] = "",
    top: Annotated[int, typer.Option(min=1, help="Most harmful and most helpful tasks to print for a target.")] = 5,
    prepare: Annotated[bool, typer.Option("--prepare", help="Only do the long part, once, that answers need.")] = False,
    device: DeviceOption = "auto",
    dtype: DtypeOption = "float32",
    chunk: ChunkOption = 0,
) -> None:
    """Estimate at once what changes would do, or which tasks matter for a target; the first time prepares for it."""
    from core.actions.preparation import prepare as prepare_action
    from core.actions.whatif import open_estimator
    from core.influence.targets import Target

    if target and (tasks or images or relabel):
        raise UserError("A target is scored, a set is tried.", "Give either --target, or what is to change.")
    opened, compute = open_workspace(workspace), chosen_compute(device, dtype, chunk)
    run = prepare_action(opened, compute, live_progress())
    if prepare:
        print(run.folder)
        return
    instant = open_estimator(opened, compute)
    if target:
        scored = instant.target(Target.parse(target))
        print(estimate_words(instant.report, scored.residual, scored.seconds))
        print_ends(scored.table, "task_id", top)
        return
    print_whatif(instant, named_changes(tasks, images, relabel) or opened.changes())


@app.command()
def why(
    target: Annotated[str, typer.Option(help="What fails: a held-out task, or one of its query images as TASK/IMAGE.")],
    workspace: WorkspaceOption = DEFAULT_WORKSPACE,
    top: Annotated[int, typer.Option(min=1, help="Most harmful and most helpful tasks and images to print.")] = 5,
    remove: Annotated[
        int, typer.Option(min=0, help="Estimate what removing this many of the most harmful images would do.")
    ] = 0,
    device: DeviceOption = "auto",
    dtype: DtypeOption = "float32",
    chunk: ChunkOption = 0,
) -> None:
    """Why did this fail? The training tasks and images that harm and help a held-out task or image most."""
    from core.actions.preparation import prepare
    from core.actions.whatif import open_estimator
    from core.actions.why import most_harmful
    from core.influence.targets import Target

    opened, compute, wanted = open_workspace(workspace), chosen_compute(device, dtype, chunk), Target.parse(target)
    prepare(opened, compute, live_progress())
    instant = open_estimator(opened, compute)
    tasks, images = instant.target(wanted), instant.images(wanted)
    print(estimate_words(instant.report, images.residual, tasks.seconds + images.seconds))
    print_ends(tasks.table, "task_id", top, "task")
    print_ends(images.table, "image_id", top, "image")
    if remove:
        print_whatif(instant, most_harmful(images.table, "images", remove), wanted)


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
    chunk: ChunkOption = 0,
) -> None:
    """Accuracy against the share removed: most harmful first, highest loss first, and at random."""
    from dataclasses import replace

    from core.actions.curve import curve as curve_action
    from core.editing.curves import CurveSettings
    from core.editing.methods import FINETUNE

    opened = open_workspace(workspace)
    try:
        numbers = tuple(float(share) for share in shares.split(","))
    except ValueError as error:
        raise UserError(f"The shares {shares!r} are not numbers.", "For example 0,0.1,0.2.") from error
    run = curve_action(
        opened,
        chosen_ranking(opened, ranking),
        CurveSettings(by, numbers, tuple(orders.split(",")), seeds),
        replace(FINETUNE, iterations=finetune_steps),
        chosen_compute(device, dtype, chunk),
        live_progress(),
    )
    print(run.folder)


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

    opened = open_workspace(workspace)
    if undo:
        opened.decisions.undo(reviewer)
    else:
        items, source = [], ""
        if worst:
            ranked = chosen_ranking(opened, ranking)
            items, source = worst_items(ranked, by, worst), ranked.id
        mark(opened, items, tasks=task or [], images=image or [], reason=reason, reviewer=reviewer, source=source)
    print_changes(opened.changes())


@app.command()
def export(
    workspace: WorkspaceOption = DEFAULT_WORKSPACE,
    out: Annotated[Path | None, typer.Option(help="Folder to write; default: exports/ of the workspace.")] = None,
    formats: Annotated[
        str,
        typer.Option(
            help="Of the task list, with commas: parquet, csv, json, and learn2learn, torchmeta, easyfsl, "
            "which never hold removed rows."
        ),
    ] = "parquet,csv,json",
    drop_rows: Annotated[
        bool, typer.Option("--drop-rows", help="Take removed rows out instead of giving them weight 0.")
    ] = False,
    model: Annotated[str, typer.Option(help="Id of an edit run whose model goes along.")] = "",
) -> None:
    """Write the cleaned task list, the removed items with reasons, and an edited model."""
    from core.actions.export import export as export_action

    opened = open_workspace(workspace)
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
    chunk: ChunkOption = 0,
) -> None:
    """Do the whole path on the shipped models: rank, rate against planted noise, remove, edit, export."""
    import time

    from core.actions.demo import DEMOS, walk
    from core.runtime.files import home as default_home

    start, compute = time.perf_counter(), chosen_compute(device, dtype, chunk)
    for name in [only] if only else DEMOS:
        print(walk(name, home or default_home(), compute, live_progress(), _say))
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


def _exit_code() -> int:
    """Run the command."""
    try:
        app()
    except SystemExit as end:
        return int(end.code or 0)
    return 0


@contextmanager
def _quiet() -> Iterator[None]:
    """Say nothing unless it is this process that speaks."""
    if is_rank_zero():
        yield
        return
    with Path(os.devnull).open("w") as nobody, redirect_stdout(nobody), redirect_stderr(nobody):
        yield


def _end(words: str, code: int) -> NoReturn:
    """End with one message, of whatever number of processes and attempts."""
    signal.signal(signal.SIGTERM, signal.SIG_IGN)  # torchrun sends it as soon as one process has ended
    if is_rank_zero() and is_last_attempt():
        print(words, file=sys.stderr)
    if is_initialized():
        exit_process(code)
    raise SystemExit(code) from None


def main() -> NoReturn:
    """Run a command and exit with its code."""

    def cancel(number: int, _: object) -> None:
        raise Cancelled(128 + number)

    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, cancel)
    # Of PyTorch about its own parts: nothing that users of the command line could do anything about.
    warnings.filterwarnings("ignore", category=FutureWarning, module=r"torch\.")
    disable_malloc_trim()
    try:
        if is_distributed() and not {*TOGETHER, "--help"}.intersection(sys.argv[1:2]):
            raise UserError(f"Only {', '.join(TOGETHER)} can be done by several processes.", "Start without torchrun.")
        with joined() as here, _quiet(), here.sync_errors():
            code = _exit_code()
    except UserError as error:
        _end(str(error), 2)
    except Cancelled as cancelled:
        _end("Cancelled; what was finished is kept.", cancelled.args[0])
    except PeerLostError as lost:
        _end(f"{lost} What was finished is kept.", 1)
    if here.size > 1:
        exit_process(code)
    raise SystemExit(code)
