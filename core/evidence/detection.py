"""Detection of injected label noise by scores: area under the ROC curve and average precision, with chance."""

from __future__ import annotations

import numpy as np
import pandas as pd

from core.tasks.tasklist import KEY


def detection(
    planted: pd.DataFrame, tasks: pd.DataFrame, instances: pd.DataFrame, images: pd.DataFrame
) -> pd.DataFrame:
    """Measure every score that could detect the injected label noise.

    Args:
        planted: The injected errors (:mod:`core.tasks.generate`): flips within tasks have task_id and role,
            mislabelled images only image_id.
        tasks, instances, images: Tables of a ranking (:mod:`core.influence.scores`); a column ``suspicion``, larger
            for what looks wrong, is measured as ``recommended``.

    Returns:
        One row per score: level, score, items, bad, auc, average_precision; and a row ``chance`` per level.
    """
    rows = []
    if "task_id" in planted.columns:
        rows += _level("tasks", tasks, tasks["task_id"].isin(planted["task_id"]), _COMMON)
        key = pd.MultiIndex.from_frame(planted[KEY])
        bad = pd.MultiIndex.from_frame(instances[KEY]).isin(key)
        for role in ("support", "query"):
            of_role = (instances["role"] == role).to_numpy()
            rows += _level(f"{role} rows", instances[of_role], bad[of_role], _COMMON)
    else:
        parts = {"influence, as query": ("score_query", -1), "influence, as support": ("score_support", -1)}
        rows += _level("images", images, images["image_id"].isin(planted["image_id"]), _COMMON | parts)
    return pd.DataFrame(rows)


def noisy_task_auc(scores: np.ndarray, planted: pd.DataFrame | None, task_ids: list[str]) -> float:
    """Return the area under the ROC curve for tasks with injected noise, the most harmful first.

    Args:
        scores: ``(N,)``, positive = helpful.

    Returns:
        NaN if no noise was injected into tasks, or into all of them.
    """
    if planted is None or "task_id" not in planted.columns:
        return float("nan")
    from sklearn.metrics import roc_auc_score  # takes a second to import, and most pages do not need it

    noisy = np.isin(task_ids, planted["task_id"].unique())
    return float(roc_auc_score(noisy, -scores)) if 0 < noisy.sum() < len(noisy) else float("nan")


_COMMON = {"influence": ("score", -1), "adapted loss": ("loss", 1)}


def _level(
    level: str, table: pd.DataFrame, bad: pd.Series | np.ndarray, scores: dict[str, tuple[str, int]]
) -> list[dict[str, object]]:
    from sklearn.metrics import average_precision_score, roc_auc_score

    truth = np.asarray(bad, dtype=bool)

    def row(score: str, auc: float, precision: float) -> dict[str, object]:
        counts = {"level": level, "items": len(truth), "bad": int(truth.sum())}
        return counts | {"score": score, "auc": auc, "average_precision": precision}

    rows = []
    if 0 < truth.sum() < len(truth):
        recommended = {"recommended": ("suspicion", 1)} if "suspicion" in table else {}
        for name, (column, sign) in (recommended | scores).items():
            values = sign * table[column].to_numpy()
            rows.append(row(name, roc_auc_score(truth, values), average_precision_score(truth, values)))
    return [*rows, row("chance", 0.5, float(truth.mean()))]
