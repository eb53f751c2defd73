"""The commands on a workspace: evaluate and rank, remove items, edit the model, measure curves, and export."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, cast

from typer import Option

from core.cli.common import (
    announce_device,
    find_order,
    find_ranking,
    find_recommendation,
    interval_text,
    live_progress,
    message,
    open_workspace,
    print_changes,
)
from core.cli.options import (
    DEFAULT_WORKSPACE,
    REVIEWER,
    Fields,
    RankingOption,
    ReasonOption,
    ReviewerOption,
    SelectedFields,
    WorkspaceOption,
    cause_option,
    metavar,
    with_settings,
)
from core.decisions.causes import CAUSE_WORDS, Cause, named_cause
from core.editing.settings import CurveSettings, EditSettings, FinetuneSettings, NewtonSettings
from core.evidence.settings import EvidenceSettings
from core.influence.settings import Estimator, SolveSettings
from core.maml.settings import Compute
from core.recommendation.settings import RecommendSettings
from core.recommendation.summary import CANDIDATE_WORDS, LEVELS, PROTOCOL_WORDS
from core.runtime.distributed import world
from core.runtime.errors import UserError
from core.runtime.progress import format_count

if TYPE_CHECKING:
    from core.actions.edit_results import EditResult


@with_settings
def evaluate(*, workspace: WorkspaceOption = DEFAULT_WORKSPACE, compute: Compute) -> None:
    """Measure the accuracy on the held-out tasks.

    Also reports how close the model is to a stationary point.
    """
    from core.actions.evaluate import evaluation

    run = evaluation(open_workspace(workspace), announce_device(compute), live_progress())
    summary = run.json("summary.json")
    message(
        f"held-out accuracy {interval_text(summary['accuracy'])} over {summary['tasks']} tasks, "
        f"gradient ratio {summary['stationarity']['ratio']:.1e}"
    )
    print(run.folder)


@with_settings
def rank_command(
    *,
    workspace: WorkspaceOption = DEFAULT_WORKSPACE,
    target: Annotated[
        str, Option(help="Target: all, ids of held-out tasks separated by commas, or a query image as TASK/IMAGE.")
    ] = "all",
    method: Annotated[Fields, SelectedFields(Estimator, "name", with_defaults=True)],
    parts: Annotated[Fields, SelectedFields(Estimator, "gradient", "evaluation", "probes", "inner")],
    solve: Annotated[Fields, SelectedFields(SolveSettings)],
    compute: Compute,
) -> None:
    """Rank training tasks, instances and images by influence.

    Positive scores help, negative scores harm. Options without a default take that of the method.
    """
    from core.actions.rank import ranking
    from core.influence.methods import estimator
    from core.influence.targets import Target

    chosen = estimator(**method, **parts, **solve)
    run = ranking(open_workspace(workspace), Target.parse(target), chosen, announce_device(compute), live_progress())
    print(run.folder)


@with_settings
def recommend(*, workspace: WorkspaceOption = DEFAULT_WORKSPACE, settings: RecommendSettings, compute: Compute) -> None:
    """Recommend which tasks, images and rows to remove.

    Injects label noise into copies of the data, measures which score finds it best, orders the data by that score, and
    estimates how many items are wrong. Takes about a minute on the demo.
    """
    from core.actions.recommend import recommend as compute_recommendation
    from core.actions.recommend import recommended_levels

    run = compute_recommendation(open_workspace(workspace), settings, announce_device(compute), live_progress())
    columns = ["level", "protocol", "candidate", "auc", "average_precision", "found", "first", "seconds"]
    table = run.table("candidates.parquet")[columns].replace({"candidate": CANDIDATE_WORDS, "protocol": PROTOCOL_WORDS})
    table = table.rename(columns={"found": "errors_found", "first": "among_the_first"})
    message(table.to_string(index=False, float_format=lambda value: f"{value:.3f}"))
    for level, found in recommended_levels(run).items():  # last, so that they stay on the screen
        message("\n".join(["", f"{level}: {found.sentence}", found.proposal, *found.notes]))
    print(run.folder)


@with_settings
def evidence(*, workspace: WorkspaceOption = DEFAULT_WORKSPACE, settings: EvidenceSettings, compute: Compute) -> None:
    """Evaluate rankings against retraining.

    How well does each method predict the loss of models retrained on subsets of the tasks? An interrupted run is
    resumed. Retrained models are shared by all methods and by later runs.
    """
    from core.actions.evidence import evidence as compute_evidence
    from core.evidence.agreement import MEASURES, agreement_of, comparable_figures

    run = compute_evidence(open_workspace(workspace), settings, announce_device(compute), live_progress())
    methods = run.table("methods.parquet")
    for measure, words in MEASURES.items():
        agreement = agreement_of(methods, measure)
        if agreement.finding:
            message(f"{words}: {agreement.finding} {agreement.advice(settings.retrain)}".strip())
    table = comparable_figures(methods).drop(columns=["words", "note", "kind"])
    message(table.to_string(index=False, float_format=lambda value: f"{value:.3f}"))
    print(run.folder)


@with_settings
def edit(
    *,
    workspace: WorkspaceOption = DEFAULT_WORKSPACE,
    named_set: Annotated[
        str, Option("--set", help="Name of a what-if set to apply, instead of the reviewers' decisions.")
    ] = "",
    control_of: Annotated[
        list[str] | None,
        Option(help="Id of a stored edit: only compute its control, with the settings of that edit. Repeatable."),
    ] = None,
    settings: EditSettings,
    finetune: FinetuneSettings,
    newton: NewtonSettings,
    solve: Annotated[Fields, SelectedFields(SolveSettings)],
    compute: Compute,
) -> None:
    """Edit the model for removed and relabelled data.

    Each edited model is measured on the held-out tasks, and compared with its control: the same procedure without the
    changes, which is computed once and stored. The difference is the net effect of the changes. The options of the
    solve are those of linear; their defaults are in docs/method.md.
    """
    from core.actions.edit import compute_control
    from core.actions.edit import edit as edit_model
    from core.actions.edit_cost import control_cost
    from core.actions.edit_results import edit_result
    from core.editing.methods import SOLVE

    opened, progress = open_workspace(workspace), live_progress()
    if control_of:
        announce_device(compute)
        for edited in opened.runs.collect_distributed(control_of):
            print(compute_control(opened, edited, compute, progress).folder)
            _report([edit_result(opened, edited)])
        return
    changes = world().on_rank_zero(lambda: opened.sets.get(named_set).changes if named_set else opened.changes())
    announce_device(compute)
    options: dict[str, Any] = {
        "solver": replace(SOLVE, **solve),
        "finetune": finetune.training,
        "newton": newton,
        "budget": settings.budget,
        "rewind": settings.rewind,
        "compute": compute,
    }
    done, project = [], opened.project()
    try:
        for method in settings.methods:
            if cost := control_cost(opened, project, method, **options):
                message(f"{method}: its control is computed too, for about {cost:,.0f} meta-gradients; it is stored")
            run = edit_model(opened, method, changes, progress=progress, **options)
            print(run.folder)
            done.append(edit_result(opened, run))
    finally:
        _report(done)


def _report(results: list[EditResult]) -> None:
    """Print the results of edits, the largest net effect first, and what the procedures do by themselves."""
    from core.actions.edit_results import by_net_effect, procedure_finding
    from core.editing.steps import start_text

    for result in by_net_effect(results):
        parts = [
            _effect_text(result),
            f"held-out accuracy {interval_text(result.figures['accuracy'])}",
            result.cost_text,
            *([f"started at {start}"] if (start := start_text(result.figures)) else []),
        ]
        message(f"{result.method}: {', '.join(parts)}")
    if finding := procedure_finding(results):
        message(finding)


def _effect_text(result: EditResult) -> str:
    from core.editing.net_effect import NO_CONTROL

    gross = f"{result.change.percent('+', ' points')} from the unedited model"
    if result.effect is None:
        return f"{NO_CONTROL}, {gross}" if result.lacks_control else f"control, {gross}"
    kind = "estimated net effect" if result.is_estimate else "net effect"
    text = f"{kind} {result.effect.accuracy.percent('+', ' points')}"
    if result.effect.procedure is None:
        return text
    return f"{text}, the procedure by itself {result.effect.procedure.percent('+', ' points')}"


@with_settings
def curve(
    *,
    ranking: RankingOption = "newest",
    workspace: WorkspaceOption = DEFAULT_WORKSPACE,
    settings: CurveSettings,
    finetune: FinetuneSettings,
    compute: Compute,
) -> None:
    """Measure accuracy against the share of data removed.

    Data are removed in the recommended order, if the workspace has a recommendation, most harmful first, highest loss
    first, and at random.
    """
    from core.actions.curve import curve as measure_curve

    opened = open_workspace(workspace)
    ranked = find_ranking(opened, ranking)
    announce_device(compute)
    run = measure_curve(opened, ranked, settings, finetune.training, compute, live_progress())
    print(run.folder)


def remove(
    workspace: WorkspaceOption = DEFAULT_WORKSPACE,
    ranking: Annotated[
        str,
        Option(
            help="Order of --worst: id of a rank or recommend run, or newest for the newest ranking. Default: the "
            "newest recommendation, or without one the newest ranking."
        ),
    ] = "",
    worst: Annotated[int, Option(min=0, help="Number of items to remove from the start of the order.")] = 0,
    recommended: Annotated[
        bool, Option("--recommended", help="Remove what is proposed, except for items that are decided already.")
    ] = False,
    by: Annotated[str, Option(help="Items that --worst or --recommended removes.", metavar=metavar(*LEVELS))] = LEVELS[
        0
    ],
    task: Annotated[list[str] | None, Option(help="Id of a task to remove. Repeatable.")] = None,
    image: Annotated[list[str] | None, Option(help="Id of an image to remove. Repeatable.")] = None,
    cause: Annotated[
        str,
        cause_option(
            "what --reason names; else label-error for a recommendation or a ranking by self-influence, harmful for "
            "another ranking, and other for --task and --image"
        ),
    ] = "",
    reason: ReasonOption = "",
    reviewer: ReviewerOption = REVIEWER,
    undo: Annotated[bool, Option("--undo", help="Undo this reviewer's last decision instead.")] = False,
) -> None:
    """Decide to remove tasks or images.

    Prints all changes that reviewers have decided.
    """
    from core.actions.decide import cause_of_order, mark, proposed_items, undecided_items, worst_items
    from core.decisions.log import Item

    opened = open_workspace(workspace)
    if undo:
        undone = len(opened.decisions.undo(reviewer).reversed_entries)
        message(f"{format_count(undone, 'decision')} undone" if undone else "Nothing to undo.")
    else:
        items, source = [*(Item("task", i) for i in task or []), *(Item("image", image_id=i) for i in image or [])], ""
        why, chosen = cause or named_cause(reason) or "other", recommended or worst
        if worst and recommended:
            raise UserError("--worst and --recommended both say how many to remove.", "Use one of them.")
        if recommended and ranking:
            raise UserError("--ranking gives the order of --worst; --recommended has its own.", "Use one of them.")
        if chosen:
            run = find_recommendation(opened) if recommended else find_order(opened, ranking)
            by_label, source = cause_of_order(run) == "label-error", run.id
            why = cause or named_cause(reason) or cause_of_order(run)
            if recommended:
                new = proposed_items(opened, run, by)
            else:
                new = undecided_items(opened, worst_items(run, by, worst))
            if recommended and not new:
                raise UserError(f"{source} proposes no {by} to remove that are not decided yet.", "Try another --by.")
            order = "most suspicious" if by_label else "most harmful"
            message(f"{len(new):,} {by}, {order} first, by {source}; cause: {CAUSE_WORDS[why]}")
            if decided := 0 if recommended else worst - len(new):
                message(f"{decided:,} of the {worst:,} {by} are decided already: unchanged")
            items = [*new, *items]
        if items or not chosen:
            mark(opened, items, cause=cast(Cause, why), reason=reason, reviewer=reviewer, source=source)
    print_changes(opened.changes())


def export(
    workspace: WorkspaceOption = DEFAULT_WORKSPACE,
    out: Annotated[Path | None, Option(help="Folder to write. Default: exports/ of the workspace.")] = None,
    formats: Annotated[
        str,
        Option(
            help="Formats of the task list, separated by commas: parquet, csv, json, and learn2learn, torchmeta, "
            "easyfsl, which always leave out removed rows."
        ),
    ] = "parquet,csv,json",
    drop_rows: Annotated[
        bool, Option("--drop-rows", help="Leave out removed rows instead of giving them weight 0.")
    ] = False,
    model: Annotated[str, Option(help="Id of an edit run whose model to include.")] = "",
) -> None:
    """Export the cleaned tasks and an edited model.

    Also exports the removed items with reasons; prints the folder. Says whose positions the lists for other libraries
    contain, and which images they leave out.
    """
    from core.actions.export import export as export_workspace
    from core.actions.export import export_notes

    opened = open_workspace(workspace)
    edited = opened.runs.get(model) if model else None
    folder = out or opened.folder / "exports" / "cleaned"
    written = export_workspace(opened, folder, formats=tuple(formats.split(",")), drop_rows=drop_rows, edited=edited)
    for note in export_notes(written):
        message(note)
    print(written)
