"""Draw parts of the Why page: the choice of a failure, and the effect of removing the most harmful items."""

from __future__ import annotations

from collections.abc import Sequence

import pandas as pd
import streamlit as st

from core.actions.evaluate import failing_images, failing_tasks, most_harmful
from core.decisions.log import Item
from core.editing.whatif import TargetChange, WhatIfEstimator
from core.influence.targets import Target
from core.ui.edit.results import direction, in_points
from core.ui.ranking.panel import misclassified_labels
from core.ui.shell.context import table
from core.ui.shell.early_values import early_option
from core.ui.shell.guard import guarded, report_errors
from core.ui.shell.text import count, plain
from core.ui.whatif.panel import estimate_words
from core.workspace.runs import Run

_KINDS = ("A held-out task", "A query image")
_KIND, _CHOSEN = "why_kind", "why_target"


def choose_target(evaluated: Run) -> Target | None:
    """Draw the choice of a failure, worst first, and return the chosen one; None if nothing failed."""
    tasks, rows = table(evaluated, "heldout.parquet"), table(evaluated, "rows.parquet")
    targets = {_KINDS[0]: failing_tasks(tasks), _KINDS[1]: failing_images(rows)}
    _from_link(targets)
    kind, which, previous, following = st.columns([2.4, 5, 1, 1], vertical_alignment="bottom")
    chosen_kind = kind.segmented_control("What failed", _KINDS, default=_KINDS[0], key=_KIND, required=True)
    chosen_kind = chosen_kind or _KINDS[0]  # a browser can send none
    by_name = {str(target): target for target in targets[chosen_kind]}
    names = list(by_name)
    if not names:
        st.info("The model classifies every query image of the held-out tasks correctly.")
        return None
    st.session_state[_CHOSEN] = early_option(_CHOSEN, names, names[0])
    if chosen_kind == _KINDS[0]:
        named = zip(tasks["task_id"], tasks["accuracy"], tasks["loss"], strict=True)
        words = {task: f"{task} · accuracy {accuracy:.0%} · loss {loss:.2f}" for task, accuracy, loss in named}
    else:
        words = misclassified_labels(rows)
    name = which.selectbox("Worst first", names, format_func=words.__getitem__, key=_CHOSEN)
    at = names.index(name)
    for column, label, to, end in ((previous, "Previous", at - 1, 0), (following, "Next", at + 1, len(names) - 1)):
        column.button(
            label,
            disabled=at == end,
            key=f"why_{label}",
            width="stretch",
            on_click=guarded(st.session_state.update, label),
            args=({_CHOSEN: names[to % len(names)]},),
        )
    st.query_params["target"] = name
    return by_name[name]


def _from_link(targets: dict[str, list[Target]]) -> None:
    """Choose the target in the URL, on the first run only."""
    linked = st.query_params.get("target", "")
    if not linked or _CHOSEN in st.session_state:
        return
    for kind, these in targets.items():
        if linked in map(str, these):
            st.session_state[_KIND], st.session_state[_CHOSEN] = kind, linked


def removal_panel(estimator: WhatIfEstimator, target: Target, by: str, scores: pd.DataFrame) -> list[Item]:
    """Show what removing the most harmful items would do; return them if the user removes them."""
    harmful = int((scores["score"] < 0).sum())
    st.subheader(f"If the worst {by} were removed")
    if not harmful:
        st.info(f"No {by} have a harmful score for this target: removing any is estimated to increase its loss.")
        return []
    most = min(harmful, max(1, len(scores) // 2))
    number, button = st.columns([2, 6], vertical_alignment="bottom")
    wanted = number.number_input(f"How many {by}", 1, most, min(10, most), key=f"why_count_{by}")
    changes = most_harmful(scores, by, int(wanted))
    with report_errors("The estimate"):
        found = estimator.changes(changes, target)
        assert found.target is not None
        frame = pd.DataFrame(
            _target_rows(found.target), columns=["", "now", "edited model (estimate)", "to first order"]
        )
        st.dataframe(frame, hide_index=True)
        st.markdown(
            f"All held-out tasks: accuracy ≈ *{in_points(found.accuracy_change)}*, "
            f"{direction(found.accuracy_change)}; loss ≈ "
            f"*{found.loss_change.text('+.4f')}*  :gray-badge[estimate, not measured]"
        )
        st.caption(
            f"Estimated by a linear edit ({estimate_words(found.residual, int(estimator.report['rank']))}). "
            "These items were chosen for this one target; removing them can hurt others. To measure the effect, remove "
            "them, save the decisions as a set on the What if page and retrain."
        )
    if button.button(f"Remove these {count(len(changes), by[:-1])}", key=f"why_remove_worst_{by}"):
        return items_of(by, sorted(changes.tasks or changes.images))
    return []


def items_of(by: str, ids: Sequence[str]) -> list[Item]:
    """Return the tasks or the images (``by``) with these ids as items to decide on."""
    return [Item("task", task_id=i) if by == "tasks" else Item("image", image_id=i) for i in ids]


def _target_rows(one: TargetChange) -> list[tuple[str, str, str, str]]:
    rows = [("Loss of the target", f"{one.loss:.4f}", f"{one.loss_after:.4f}", f"{one.loss_predicted:.4f}")]
    if one.probability is not None:
        values = (one.probability, one.probability_after, one.probability_predicted)
        now, after, predicted = (f"{value:.1%}" for value in values)
        rows.append(("Probability of its class", now, after, predicted))
    return rows


def target_words(target: Target, evaluated: Run) -> str:
    """Return the adapted model's prediction for the target in words."""
    task = target.tasks[0]
    tasks = table(evaluated, "heldout.parquet").set_index("task_id")
    accuracy, loss = tasks["accuracy"][task], tasks["loss"][task]
    words = f"Task {plain(task)}: accuracy {accuracy:.0%} on its query images, loss {loss:.3f}"
    if not target.image:
        return words
    rows = table(evaluated, "rows.parquet")
    row = rows[(rows["task_id"] == task) & (rows["image_id"] == target.image)].iloc[0]
    return (
        f"**{plain(target.image)}** is {plain(row['class'])}, predicted as **{plain(row['predicted_class'])}**; "
        f"probability of its class {row['confidence']:.1%}, loss {row['loss']:.3f}. {words}"
    )
