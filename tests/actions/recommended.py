"""A recommendation made by hand, for tests of what is done with one."""

from __future__ import annotations

from dataclasses import asdict

import numpy as np
import pandas as pd

from core.actions.recommend import KIND, cache_key
from core.maml.settings import Compute
from core.recommendation.settings import RecommendSettings
from core.recommendation.summary import LEVELS, LevelRecommendation
from core.tasks.tasklist import KEY
from core.workspace.runs import Run, RunWriter
from core.workspace.workspace import Workspace

PROPOSED = {"tasks": 2, "images": 3, "instances": 4}


def stored_recommendation(workspace: Workspace, seed: int = 0, last: str = "") -> Run:
    """Store a recommendation whose items are the less suspicious the later they come in the task list.

    The task ``last`` is the least suspicious one.
    """
    project = workspace.project()
    rows = project.tasks.train.rows
    tables = {
        "tasks": rows[["task_id"]].drop_duplicates().sort_values("task_id", key=lambda ids: ids == last, kind="stable"),
        "images": rows[["image_id", "class"]].drop_duplicates("image_id"),
        "instances": rows[[*KEY, "class"]],
    }

    def write(run: RunWriter) -> None:
        levels = {}
        for level in LEVELS:
            suspicion = np.linspace(3, 0, len(tables[level]))
            probability = np.where(np.arange(len(suspicion)) < PROPOSED[level], 0.9, 0.1)
            columns = {"scoring_loss": suspicion, "suspicion": suspicion, "probability": probability}
            run.write_table(f"{level}.parquet", tables[level].assign(**columns))
            wrong = float(probability.sum())
            levels[level] = LevelRecommendation(
                level, "scoring_loss", "loss", "By hand.", len(suspicion), PROPOSED[level], 0.9, wrong
            )
        measured = pd.DataFrame({"level": ["tasks"], "protocol": ["easy"], "candidate": ["scoring_loss"], "auc": [1.0]})
        run.write_table(
            "candidates.parquet", measured.assign(average_precision=1.0, first=0.4, found=1.0, seconds=1.0, chosen=True)
        )
        run.write_json("recommendation.json", {"levels": {k: asdict(v) for k, v in levels.items()}, "seconds": {}})

    key = cache_key(project, RecommendSettings(seed=seed), Compute("cpu"))
    return workspace.runs.get_or_compute(KIND, key, write)
