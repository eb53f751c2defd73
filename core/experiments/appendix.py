"""Appendix E: the tasks that influence ranks first and last, as pictures with their scores.

The tasks are the same for every seed; the model is trained from another seed each time, so that the spread of a score
says how much of it is chance of the training.
"""

from __future__ import annotations

import numpy as np
import pandas as pd
from scipy.stats import spearmanr

from core.data import load_images
from core.experiments.bench import RANKING, TRAINING, Bench
from core.experiments.outcome import TITLES, Figures, Outcome, mean_sd
from core.experiments.profiles import Profile
from core.experiments.results import Grid, Picture, Table

SHOWN = 4


def weight(profile: Profile) -> int:
    """A model and a ranking."""
    return TRAINING + RANKING


def measure(bench: Bench) -> pd.DataFrame:
    """Rows of task_id, score, and of the tasks images and words."""
    on = bench.problem("none", seed=0, model_seed=bench.unit.seed)
    scores = bench.ranked(on, "task-if").table("tasks.parquet").set_index("task_id")["score"]
    rows = on.loaded.project.tasks.train.rows
    support = rows[rows["role"] == "support"].groupby("task_id", sort=False)
    images, words = support["image_id"].agg(list), support["class"].agg(lambda part: ", ".join(dict.fromkeys(part)))
    table = pd.DataFrame({"score": scores, "images": images.loc[scores.index], "words": words.loc[scores.index]})
    return table.reset_index(names="task_id")


def conclude(figures: Figures) -> Outcome:
    """Two grids and a table of every data set, and what they say."""
    says, tables, grids = [], [], []
    for data in figures.data:
        by_seed = figures.of(data=data).pivot(index="task_id", columns="seed", values="score")
        mean, sd = by_seed.mean(axis=1), by_seed.std(axis=1, ddof=1)
        first = figures.of(data=data).drop_duplicates("task_id").set_index("task_id")
        order = mean.sort_values(kind="stable").index
        source = figures.images[data]
        hash_ = load_images(source).hash
        ends = {"helpful": list(order[::-1][:SHOWN]), "harmful": list(order[:SHOWN])}
        for end, chosen in ends.items():
            pictures = [
                Picture(
                    f"task {task}",
                    list(first.loc[task, "images"]),
                    str(first.loc[task, "words"]),
                    float(mean[task]),
                    None if np.isnan(sd[task]) else float(sd[task]),
                )
                for task in chosen
            ]
            title = f"{TITLES[data]}: most {end} training tasks (support images)"
            grids.append(Grid(f"{data}-{end}", title, source, hash_, pictures))
        rows = [
            [end, task, str(first.loc[task, "words"]), mean_sd(by_seed.loc[task], "+.2e")]
            for end, chosen in ends.items()
            for task in chosen
        ]
        note = "Score: nats that the loss of all targets rises when the task is removed; positive helps. " + (
            "Mean ± standard deviation over models trained from several seeds. The paper shows 0.0004 to 0.0009."
        )
        tables.append(Table(f"tasks-{data}", TITLES[data], ["end", "task", "classes", "score"], rows, note))
        says.append(_says(data, by_seed, ends))
    return Outcome(says, tables, [], grids)


def _says(data: str, by_seed: pd.DataFrame, ends: dict[str, list[str]]) -> str:
    seeds = list(by_seed.columns)
    pairs = [(a, b) for at, a in enumerate(seeds) for b in seeds[at + 1 :]]
    said = f"**{TITLES[data]}.** "
    if not pairs:
        return said + "One seed: how far the ranking is chance is not known."
    agreement = [spearmanr(by_seed[a], by_seed[b]).statistic for a, b in pairs]
    same = (
        np.sign(by_seed.loc[[*ends["helpful"], *ends["harmful"]]]).abs().sum(axis=1)
        == np.sign(by_seed.loc[[*ends["helpful"], *ends["harmful"]]]).sum(axis=1).abs()
    )
    return said + (
        f"Rankings of models from two seeds agree with a rank correlation of {mean_sd(agreement, '.2f')}; "
        f"{int(same.sum())} of the {len(same)} tasks shown have a score of the same sign with every seed."
    )
