"""Decide on tasks, instances and images."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import pandas as pd

from core.actions.recommend import KIND as RECOMMENDATION_KIND
from core.actions.recommend import by_suspicion, recommended_levels
from core.decisions.causes import Cause, OptionalCause
from core.decisions.checks import check_known, class_number
from core.decisions.log import Decision, Item, Operation, Result, Verdict
from core.decisions.table import ITEM, table_items
from core.influence.settings import SELF_INFLUENCE
from core.recommendation.summary import LEVELS
from core.review.suggestions import suggested_relabels
from core.runtime.errors import UserError
from core.workspace.runs import Run
from core.workspace.workspace import Workspace


def worst_items(order: Run, by: str, count: int) -> list[Item]:
    """Return the first ``count`` ``tasks``, ``images`` or ``instances``, as ``by`` says.

    Args:
        order: A recommendation, for the most suspicious ones, or a ranking, for the most harmful ones.

    Raises:
        UserError: ``by`` is something else, or there are fewer items.
    """
    if by not in LEVELS:
        raise UserError(f"{order.id} has no table of {by!r}.", f"Use one of {', '.join(LEVELS)}.")
    table = ordered_table(order, by)
    if count > len(table):
        raise UserError(f"{order.id} has only {len(table)} {by}.", "Use a smaller number.")
    return table_items(table.head(count).assign(kind=by[:-1]).reindex(columns=list(ITEM), fill_value=""))


def ordered_table(order: Run, by: str) -> pd.DataFrame:
    """Return the items of a recommendation, the most suspicious first, or of a ranking, the most harmful first."""
    if order.kind == RECOMMENDATION_KIND:
        return by_suspicion(order, by)
    return order.table(f"{by}.parquet").sort_values("score", kind="stable", ignore_index=True)


def cause_of_order(order: Run, column: str = "") -> Cause:
    """Return the cause of removing the first items of an order (:func:`worst_items`), unless the reviewer states one.

    A recommendation, a ranking by self-influence, and the columns suspicion and loss of any table (``column``) put
    first what looks wrong; other rankings what harms a target.
    """
    is_suspicion = order.kind == RECOMMENDATION_KIND or order.config.get("method") == SELF_INFLUENCE
    is_suspicion |= column in ("suspicion", "loss")
    return "label-error" if is_suspicion else "harmful"


def proposed_items(workspace: Workspace, recommendation: Run, by: str) -> list[Item]:
    """Return the ``tasks``, ``images`` or ``instances`` that a recommendation proposes to remove.

    Those that reviewers have decided to keep, remove or relabel are left out.

    Raises:
        UserError: ``by`` is something else.
    """
    levels = recommended_levels(recommendation)
    return undecided_items(workspace, worst_items(recommendation, by, levels[by].proposed if by in levels else 0))


def undecided_items(workspace: Workspace, items: Iterable[Item]) -> list[Item]:
    """Return the items that reviewers have not decided to keep, remove or relabel."""
    decided = {item for item, entry in workspace.decisions.current().items() if entry.is_final}
    return [item for item in items if item not in decided]


def without_found_errors(workspace: Workspace, items: Sequence[Item], cause: str) -> list[Item]:
    """Return the items that a list may remove for a cause: without those whose label was found wrong.

    They are removed or relabelled already, and another cause would replace that finding.
    """
    current = workspace.decisions.current()
    found = {item for item, entry in current.items() if entry.is_on_label and entry.verdict != "keep"}
    return [item for item in items if cause == "label-error" or item not in found]


def mark(
    workspace: Workspace,
    items: Sequence[Item] = (),
    *,
    tasks: Sequence[str] = (),
    images: Sequence[str] = (),
    instances: Sequence[tuple[str, str, str]] = (),
    verdict: Verdict = "remove",
    label: str | None = None,
    cause: OptionalCause = "",
    reason: str = "",
    reviewer: str = "",
    source: str = "",
    saw: int | None = None,
    token: str = "",
) -> Result:
    """Append one group of decisions, all with the same verdict and cause, to the log of the workspace.

    Args:
        items: The items to decide on, together with those of the ids ``tasks``, ``images`` and ``instances``.
        instances: (task id, role, image id).
        label: Name of the new class; for the verdict "relabel" only.
        cause, reason, source: Of :class:`core.decisions.records.Decision`.
        saw, token: Of :class:`core.decisions.log.Operation`.

    Raises:
        UserError: no item is given, an item is not in the training tasks, the class or the cause is unknown, or the
            reviewer has no name.
    """
    all_items = [
        *items,
        *(Item("task", task_id=i) for i in tasks),
        *(Item("image", image_id=i) for i in images),
        *(Item("instance", task_id, role, image_id) for task_id, role, image_id in instances),
    ]
    if not all_items:
        raise UserError("No item to decide on was given.", "Choose tasks or images.")
    project = workspace.project()
    number = None if label is None else class_number(project.images, label)
    check_known(project.tasks.train, all_items)
    decisions = tuple(Decision(item, verdict, number, reason, reviewer, source, cause) for item in all_items)
    return workspace.decisions.submit([Operation("decide", reviewer, token, decisions, saw)])[0]


def suggestions_of_task(workspace: Workspace, queue: Run, task_id: str, least_probability: float) -> list[Decision]:
    """Return relabel decisions for the rows of a task (:func:`core.review.suggestions.suggested_relabels`)."""
    project = workspace.project()
    items = queue.table("items.parquet")
    return suggested_relabels(items, queue.id, project.tasks.train, project.images, task_id, least_probability)
