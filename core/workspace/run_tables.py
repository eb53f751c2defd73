"""The columns of the tables of runs: what :class:`core.workspace.runs.Run` checks whenever it reads one.

Only columns that a reader uses are declared; what earlier versions did not write is optional.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import cast

from core.runtime.stored import Kind


@dataclass(frozen=True)
class TableShape:
    """The columns that a table must have, and those that are checked only where it has them."""

    columns: Mapping[str, Kind]
    optional: Mapping[str, Kind] = field(default_factory=dict)
    may_be_empty: bool = False


def _columns(**names: str) -> dict[str, Kind]:
    """Return a kind for each of the names, which are separated by blanks: ``number="loss accuracy"``."""
    return {name: cast(Kind, kind.replace("_", " ")) for kind, listed in names.items() for name in listed.split()}


_SCORES = "classifier scoring_loss loss harm suspected self_influence"
TABLES: Mapping[tuple[str, str], TableShape] = {
    ("evaluate", "heldout.parquet"): TableShape(_columns(text="task_id", number="accuracy loss")),
    ("evaluate", "rows.parquet"): TableShape(
        _columns(text="task_id image_id class predicted_class", integer="label predicted", number="loss confidence")
    ),
    ("rank", "tasks.parquet"): TableShape(
        _columns(text="task_id", finite="score", number="loss accuracy", texts="classes")
    ),
    ("rank", "images.parquet"): TableShape(
        _columns(
            text="image_id class predicted_class",
            finite="score",
            number="score_support score_query loss disagree",
            integer="occurrences",
        )
    ),
    ("rank", "instances.parquet"): TableShape(
        _columns(
            text="task_id role image_id class predicted_class",
            integer="label predicted",
            finite="weight score",
            number="effect loss margin entropy confidence",
        )
    ),
    ("recommend", "tasks.parquet"): TableShape(
        _columns(text="task_id", finite="suspicion", number="probability"), _columns(number=_SCORES)
    ),
    ("recommend", "images.parquet"): TableShape(
        _columns(text="image_id class", finite="suspicion", number="probability"), _columns(number=_SCORES)
    ),
    ("recommend", "instances.parquet"): TableShape(
        _columns(text="task_id role image_id class", finite="suspicion", number="probability"), _columns(number=_SCORES)
    ),
    ("recommend", "candidates.parquet"): TableShape(
        _columns(text="level protocol candidate", number="auc average_precision first found seconds", flag="chosen"),
        may_be_empty=True,
    ),
    ("queue", "items.parquet"): TableShape(
        _columns(
            text="level task_id role image_id class",
            optional_text="suggested second",
            integer="rank occurrences",
            finite="suspicion",
            number="probability suggested_probability",
        ),
        _columns(
            number="loss margin classifier neighbours support_loss self_influence harm cross_validated discriminant "
            "kernel task_loss votes others evidence error_llr"
        ),
    ),
    ("queue", "map.parquet"): TableShape(_columns(text="image_id", number="x y")),
    ("queue", "candidates.parquet"): TableShape(
        _columns(text="candidate planted", number="average_precision low high recall seconds", flag="chosen")
    ),
    ("queue", "curves.parquet"): TableShape(_columns(text="candidate planted", number="checked found")),
    ("duplicates", "pairs.parquet"): TableShape(
        _columns(
            text="image_id other class other_class",
            number="distance ratio",
            flag="exact training other_training contradiction",
            integer="group",
        ),
        may_be_empty=True,
    ),
    ("duplicates", "leaks.parquet"): TableShape(
        _columns(
            text="kind part image_id class other other_class",
            number="distance",
            flag="exact contradiction",
            texts="tasks other_tasks",
        ),
        may_be_empty=True,
    ),
    ("evidence", "methods.parquet"): TableShape(
        _columns(
            text="method words kind note",
            number="lds lds_low lds_high lds_mean lds_mean_low lds_mean_high auc seconds memory_gb residual",
        )
    ),
    ("evidence", "measured.parquet"): TableShape(_columns(integer="subset seed", text="target", number="loss")),
    ("evidence", "predicted.parquet"): TableShape(_columns(integer="subset", text="target method", number="predicted")),
    ("curve", "points.parquet"): TableShape(
        _columns(text="order", finite="share removed accuracy loss", integer="seed")
    ),
    ("edit", "heldout.parquet"): TableShape(_columns(text="task_id", number="accuracy loss")),
    ("retraining", "heldout.parquet"): TableShape(_columns(text="task_id", number="accuracy loss")),
}
"""The shape of a table, by kind and name as in :data:`core.workspace.run_files.JSON_FILES`."""
