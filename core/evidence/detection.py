"""How well scores find planted noise: area under the ROC curve and average precision, beside chance."""

from __future__ import annotations

import numpy as np
import pandas as pd
from sklearn.metrics import average_precision_score, roc_auc_score

from core.tasks.tasklist import KEY


def detection(
    planted: pd.DataFrame, tasks: pd.DataFrame, instances: pd.DataFrame, images: pd.DataFrame
) -> pd.DataFrame:
    """Rate every score that could find what was planted.

    Args:
        planted: The truth (:mod:`core.tasks.generate`): flips within tasks have task_id and role, mislabelled
            images only image_id.
        tasks, instances, images: Tables of a ranking (:mod:`core.influence.scores`).

    Returns:
        One row a score: level, score, items, bad, auc, average_precision; a row ``chance`` a level.
    """
    rows = []
    if "task_id" in planted.columns:
        rows += _level("tasks", tasks, tasks["task_id"].isin(planted["task_id"]), _COMMON)
        key = pd.MultiIndex.from_frame(planted[KEY])
        bad = pd.MultiIndex.from_frame(instances[KEY]).isin(key)
        for role in ("support", "query"):
            here = (instances["role"] == role).to_numpy()
            rows += _level(f"{role} rows", instances[here], bad[here], _COMMON)
    else:
        parts = {"influence, as query": ("score_query", -1), "influence, as support": ("score_support", -1)}
        rows += _level("images", images, images["image_id"].isin(planted["image_id"]), _COMMON | parts)
    return pd.DataFrame(rows)


_COMMON = {"influence": ("score", -1), "adapted loss": ("loss", 1)}


def _level(
    level: str, table: pd.DataFrame, bad: pd.Series | np.ndarray, scores: dict[str, tuple[str, int]]
) -> list[dict[str, object]]:
    truth = np.asarray(bad, dtype=bool)
    common = {"level": level, "items": len(truth), "bad": int(truth.sum())}
    rows: list[dict[str, object]] = []
    if 0 < truth.sum() < len(truth):
        for name, (column, sign) in scores.items():
            values = sign * table[column].to_numpy()
            rows.append(
                {
                    **common,
                    "score": name,
                    "auc": roc_auc_score(truth, values),
                    "average_precision": average_precision_score(truth, values),
                }
            )
    return [*rows, {**common, "score": "chance", "auc": 0.5, "average_precision": float(truth.mean())}]
