"""A queue run in the form of the contract, made in no time: every tenth item is suspicious."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd

from core.actions.compute import Compute
from core.actions.queue import KIND, QueueSettings, cache_key
from core.review.forecast import ERROR_LLR
from core.workspace.runs import Run, RunWriter
from core.workspace.workspace import Workspace

SCORES = ("loss", "margin", "classifier", "neighbours", "support_loss", "self_influence", "harm")


def queue_rows(items: pd.DataFrame) -> pd.DataFrame:
    """Rows of a queue in this order, with usual values of the columns that ``items`` lacks."""
    usual = {
        "level": "image",
        "task_id": "",
        "role": "",
        "class": "1",
        "suggested": "7",
        "second": "8",
        "occurrences": 1,
        "suspicion": 0.5,
        "probability": 0.5,
        "suggested_probability": 0.5,
    }
    missing = {name: value for name, value in usual.items() if name not in items}
    return items.assign(**missing, rank=range(len(items)))


def candidates() -> pd.DataFrame:
    """What was measured of three scores on two spoilt copies."""
    return pd.DataFrame(
        [
            {
                "candidate": name,
                "planted": kind,
                "average_precision": precision,
                "low": precision - 0.1,
                "high": precision + 0.1,
                "recall": precision,
                "seconds": 1.0,
                "chosen": name == "loss",
            }
            for kind, worse in (("uniform", 0.0), ("hardest", 0.2))
            for name, precision in (("margin", 0.6 - worse), ("loss", 0.8 - worse), ("combination", 0.7 - worse))
        ]
    )


def curves() -> pd.DataFrame:
    """Curves of the same."""
    pairs = candidates()[["candidate", "planted"]]
    return pd.concat([pairs.assign(checked=share, found=share**0.5) for share in (0.0, 0.25, 1.0)], ignore_index=True)


def write_queue(
    workspace: Workspace, *, level: str = "image", most: int | None = None, seed: int = 0, planted: bool = False
) -> Run:
    """Write a queue over the training images (or instances) of a workspace.

    Args:
        planted: As if wrong labels had been planted; without, it is not calibrated.
    """
    project = workspace.project()
    rng = np.random.default_rng(seed)
    rows = project.tasks.train.rows[["task_id", "role", "image_id", "class"]]
    if level == "image":
        items = rows.groupby("image_id", sort=True).agg({"class": "first", "task_id": "size"}).reset_index()
        items = items.rename(columns={"task_id": "occurrences"}).assign(task_id="", role="")
    else:
        items = rows.assign(occurrences=1)
    items = items.sample(frac=1.0, random_state=seed).head(most or len(items)).reset_index(drop=True)
    n, classes = len(items), np.array(sorted(project.images.class_names), dtype=object)
    suspicion = np.sort(rng.random(n))[::-1]
    wrong = suspicion > np.quantile(suspicion, 0.9)
    other = classes[rng.integers(0, len(classes), n)]
    items = items.assign(
        rank=np.arange(n),
        level=level,
        suspicion=suspicion,
        probability=suspicion**2,
        suggested=np.where(wrong, other, items["class"]),
        suggested_probability=np.round(0.3 + 0.7 * suspicion, 3),
        second=classes[rng.integers(0, len(classes), n)],
        **{name: rng.normal(suspicion, 0.2) for name in SCORES},
    )
    if planted:
        items[ERROR_LLR] = np.linspace(4, -8, n)
    images = sorted(set(items["image_id"]))
    features = rng.normal(size=(len(images), 8))
    places = pd.DataFrame({"image_id": images, "x": features[:, 0], "y": features[:, 1]})

    def compute(work: RunWriter) -> None:
        work.write_table("items.parquet", items)
        work.write_table("map.parquet", places)
        work.write(lambda folder: np.save(Path(folder) / "features.npy", features.astype(np.float16)))
        work.write_json("summary.json", {"level": level, "items": n, "ranking": "loss", "calibrated": planted})
        if planted:
            work.write_table("candidates.parquet", candidates())
            work.write_table("curves.parquet", curves())

    # What no setting of the queue decides is in the key only where it is not as usual.
    unusual = {} if (level, most) == ("image", None) else {"level": level, "most": most}
    key = cache_key(project, QueueSettings(seed=seed, calibrate=planted), Compute())
    return workspace.runs.get_or_compute(KIND, key | unusual, compute)
