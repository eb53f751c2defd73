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
from core.experiments.profiles import DATA_TITLES, Profile
from core.experiments.results import Grid, Picture, Table
from core.experiments.summary import ExperimentSummary, Measurements, heading

TASKS_PER_END = 4
_NOTE = (
    "Score: by how many nats the mean loss of the targets rises when the task is removed; positive is helpful. Mean ± "
    "standard deviation over models trained from several seeds. The paper shows 0.0004 to 0.0009."
)


def weight(profile: Profile) -> int:
    """Return the work of a model and a ranking."""
    return TRAINING_WEIGHT + RANKING_WEIGHT


def measure(context: ExperimentContext) -> pd.DataFrame:
    """Return rows of task_id, score, and the images and classes (``words``) of each task."""
    problem = context.problem("none", seed=0, model_seed=context.unit.seed)
    scores = context.rank(problem, "task-if").table("tasks.parquet").set_index("task_id")["score"]
    rows = problem.project.tasks.train.rows
    support = rows[rows["role"] == "support"].groupby("task_id", sort=False)
    images, words = support["image_id"].agg(list), support["class"].agg(lambda part: ", ".join(dict.fromkeys(part)))
    table = pd.DataFrame({"score": scores, "images": images.loc[scores.index], "words": words.loc[scores.index]})
    return table.reset_index(names="task_id")


def summarize(measurements: Measurements) -> ExperimentSummary:
    """Return two grids, a table and a finding per data set."""
    findings, tables, grids = [], [], []
    for data in measurements.data:
        scores = measurements.select(data=data).pivot(index="task_id", columns="seed", values="score")
        tasks = measurements.select(data=data).drop_duplicates("task_id").set_index("task_id")
        order = scores.mean(axis=1).sort_values(kind="stable").index
        ends = {"helpful": list(order[::-1][:TASKS_PER_END]), "harmful": list(order[:TASKS_PER_END])}
        grids += [_grid(measurements, data, end, tasks.loc[shown], scores) for end, shown in ends.items()]
        rows = [
            [end, task, str(tasks.loc[task, "words"]), mean_sd(scores.loc[task], "+.2e")]
            for end, shown in ends.items()
            for task in shown
        ]
        tables.append(Table(f"tasks-{data}", DATA_TITLES[data], ["end", "task", "classes", "score"], rows, _NOTE))
        findings.append(_finding(data, scores, scores.loc[[*ends["helpful"], *ends["harmful"]]]))
    return ExperimentSummary(findings, tables, [], grids)


def _grid(measurements: Measurements, data: str, end: str, tasks: pd.DataFrame, scores: pd.DataFrame) -> Grid:
    pictures = []
    for task, row in tasks.iterrows():
        by_seed = scores.loc[str(task)].dropna().to_numpy(float)
        mean, sd = by_seed.mean(), np.std(by_seed, ddof=1) if len(by_seed) > 1 else np.nan
        spread = None if np.isnan(sd) else float(sd)
        pictures.append(Picture(f"task {task}", list(row["images"]), str(row["words"]), float(mean), spread))
    source = measurements.images[data]
    title = f"{DATA_TITLES[data]}: most {end} training tasks (support images)"
    return Grid(f"{data}-{end}", title, source, load_images(source).hash, pictures)


def _finding(data: str, scores: pd.DataFrame, shown: pd.DataFrame) -> str:
    pairs = list(combinations(scores.columns, 2))
    if not pairs:
        return f"{heading(data)} With one seed, the effect of chance on the ranking is not known."
    correlations = [spearmanr(scores[a], scores[b]).statistic for a, b in pairs]
    signs = np.sign(shown.to_numpy(float))
    stable = (np.nansum(np.abs(signs), axis=1) == np.abs(np.nansum(signs, axis=1))).sum()
    return (
        f"{heading(data)} Rankings by models from two different seeds have a rank correlation of "
        f"{mean_sd(correlations, '.2f')}; {int(stable)} of the {len(shown)} tasks shown have a score of the same sign "
        "for every seed."
    )
