"""Appendix E: the tasks that influence ranks first and last, as images with their scores.

The tasks are the same for every seed; the model is trained from another seed each time, so that the spread of a score
shows how much of it the seed of the training decides.
"""

from __future__ import annotations

from itertools import combinations

import numpy as np
import pandas as pd
from scipy.stats import spearmanr

from core.data import load_images
from core.experiments.context import RANKING_WEIGHT, TRAINING_WEIGHT, ExperimentContext
from core.experiments.formatting import mean_sd
from core.experiments.results import Grid, Picture
from core.experiments.summary import ExperimentSummary, Measurements

TASKS_PER_END = 4
_NOTE = (
    "Score: by how many nats the mean loss of the targets rises when the task is removed; positive is helpful. Mean ± "
    "standard deviation over models trained from several seeds. The paper shows 0.0004 to 0.0009."
)


def measure(context: ExperimentContext) -> pd.DataFrame:
    """Return rows of task_id, score, and the images and classes (``words``) of each task."""
    context.expect(TRAINING_WEIGHT + RANKING_WEIGHT)
    problem = context.problem("none", seed=0)
    scores = context.rank(problem, "task-if").table("tasks.parquet").set_index("task_id")["score"]
    rows = problem.project.tasks.train.rows
    support = rows[rows["role"] == "support"].groupby("task_id", sort=False)
    images, words = support["image_id"].agg(list), support["class"].agg(lambda part: ", ".join(dict.fromkeys(part)))
    table = pd.DataFrame({"score": scores, "images": images.loc[scores.index], "words": words.loc[scores.index]})
    return table.reset_index(names="task_id")


def summarize(measurements: Measurements) -> ExperimentSummary:
    """Return two grids, a table and a finding."""
    scores = measurements.select().pivot(index="task_id", columns="seed", values="score")
    tasks = measurements.select().drop_duplicates("task_id").set_index("task_id")
    order = scores.mean(axis=1).sort_values(kind="stable").index
    ends = {"helpful": list(order[::-1][:TASKS_PER_END]), "harmful": list(order[:TASKS_PER_END])}
    rows = [
        {"end": end, "task": task, "classes": str(tasks.loc[task, "words"]), "score": mean_sd(scores.loc[task], "+.2e")}
        for end, shown in ends.items()
        for task in shown
    ]
    return ExperimentSummary(
        [_finding(measurements, scores, scores.loc[[*ends["helpful"], *ends["harmful"]]])],
        [measurements.text_table("tasks", rows, _NOTE)],
        grids=[_grid(measurements, end, tasks.loc[shown], scores) for end, shown in ends.items()],
    )


def _grid(measurements: Measurements, end: str, tasks: pd.DataFrame, scores: pd.DataFrame) -> Grid:
    pictures = []
    for task, row in tasks.iterrows():
        by_seed = scores.loc[str(task)].dropna().to_numpy(float)
        spread = float(np.std(by_seed, ddof=1)) if len(by_seed) > 1 else None
        pictures.append(Picture(f"task {task}", list(row["images"]), str(row["words"]), float(by_seed.mean()), spread))
    title, source = f"{measurements.title}: most {end} training tasks (support images)", measurements.images
    return Grid(f"{measurements.data}-{end}", title, source, load_images(source).hash, pictures)


def _finding(measurements: Measurements, scores: pd.DataFrame, shown: pd.DataFrame) -> str:
    pairs = list(combinations(scores.columns, 2))
    if not pairs:
        return f"{measurements.heading()} With one seed, the effect of chance on the ranking is not known."
    correlations = [spearmanr(scores[a], scores[b]).statistic for a, b in pairs]
    signs = np.sign(shown.to_numpy(float))
    stable = (np.nansum(np.abs(signs), axis=1) == np.abs(np.nansum(signs, axis=1))).sum()
    return (
        f"{measurements.heading()} Rankings by models from two different seeds have a rank correlation of "
        f"{mean_sd(correlations, '.2f')}; {int(stable)} of the {len(shown)} tasks shown have a score of the same sign "
        "for every seed."
    )
