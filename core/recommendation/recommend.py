"""Recommend what to remove: the best score on injected label noise, the order by it, and how many items are wrong."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import pandas as pd

from core.maml.loaded import Loaded
from core.maml.storage import StepWriter
from core.recommendation.choice import COLUMNS, Choice, CopyScores, choose
from core.recommendation.copies import PROTOCOLS, TASK_PROTOCOLS, NoisyTaskCopy, noisy_copy
from core.recommendation.probability import wrong_probabilities
from core.recommendation.scores import (
    SCORES,
    Directions,
    LabelClassifier,
    Seconds,
    label_scores,
    model_directions,
    row_scores,
    task_scores,
    with_self_influence,
)
from core.recommendation.settings import RecommendSettings
from core.recommendation.summary import CANDIDATE_WORDS, LEVELS, SUSPICIOUS, LevelRecommendation, measured_sentence
from core.review.calibration import COMBINATION, suspicion
from core.review.member_scores import timed
from core.runtime.errors import UserError
from core.runtime.progress import NamedProgress, Progress
from core.tasks.tasklist import KEY

_LEAST_AUC = 0.6
"""Below it, a score tells wrong items from right ones too badly to say how many there are."""
_GIVEN_TASKS = (
    "New tasks could not be drawn from the images, so noise was injected into the given tasks; noise that they already "
    "have counts as correct there."
)
_USELESS = "No score finds injected errors much better than chance, so no number of removals is proposed."


@dataclass(frozen=True, eq=False)
class ScoredLevels:
    """Which items look wrong, by the score that finds injected label noise best on these data.

    Attributes:
        tables: By level, the items in the order of the task list, without rows of weight 0: ids (task_id; image_id; or
            task_id, role and image_id), for images and rows the class, one column per score, ``suspicion`` (the
            recommended score; larger is more suspicious) and ``probability`` (that the item is wrong; NaN if it cannot
            be told). There is ``self_influence`` only where the recommended score uses it, as it takes long.
        candidates: The tables of :class:`core.recommendation.choice.Choice` of all levels.
        levels: What is recommended, by level.
        seconds: By part and stage.
    """

    tables: dict[str, pd.DataFrame]
    candidates: pd.DataFrame
    levels: dict[str, LevelRecommendation]
    seconds: dict[str, float]


def recommend(loaded: Loaded, settings: RecommendSettings, steps: StepWriter, progress: Progress) -> ScoredLevels:
    """Compare the scores on copies of the data with injected label noise, and order the data by the best one.

    Raises:
        UserError: fewer classes with two images than classes per task.
    """
    seconds: dict[str, Seconds] = {"model": {}, "data": {}}
    with timed(seconds["model"], "features"):
        classifier = LabelClassifier(loaded, progress)
    along = model_directions(loaded, steps, progress, seconds["model"])
    log_p = classifier.log_probabilities()
    seconds["data"]["classifier"] = classifier.seconds
    labels = label_scores(loaded, classifier.classes, log_p, settings.rounds, settings.seed, progress, seconds["data"])
    given = row_scores(loaded, labels, along, steps, progress, seconds["data"])
    copies: dict[str, list[CopyScores]] = {level: [] for level in LEVELS}
    notes = {level: {along.note} - {""} for level in LEVELS}
    for protocol in PROTOCOLS["instances"]:
        try:
            copy = noisy_copy(loaded.images, loaded.tasks, protocol, settings.seed)
        except UserError as error:
            notes["images"].add(f"The noise {protocol!r} could not be injected. {error}")
            continue
        if not copy.is_redrawn:
            notes["tasks"].add(_GIVEN_TASKS)
        named, seconds[f"noise {protocol!r}"] = NamedProgress(progress, f"noise {protocol!r}"), {}
        inputs = loaded, copy, classifier, along, settings, steps, named, seconds[f"noise {protocol!r}"]
        for level, scored in _score_copy(*inputs):
            copies[level].append(scored)
    choices = {level: choose(level, copies[level]) if copies[level] else None for level in LEVELS}
    takes_self_influence = {level for level, choice in choices.items() if choice and choice.uses("self_influence")}
    if "tasks" in takes_self_influence:
        given["tasks"] = task_scores(loaded, labels, along, progress, seconds["data"])
    if takes_self_influence - {"tasks"}:
        given |= with_self_influence(loaded, given, along, steps, progress, seconds["data"])
    found = {
        level: _recommend_level(level, given[level], choice, tuple(sorted(notes[level])))
        for level, choice in choices.items()
    }
    tables = [choice.table for choice in choices.values() if choice]
    return ScoredLevels(
        {level: table for level, (table, _) in found.items()},
        pd.concat(tables, ignore_index=True) if tables else pd.DataFrame(columns=list(COLUMNS)),
        {level: summary for level, (_, summary) in found.items()},
        {f"{part}: {stage}": value for part, stages in seconds.items() for stage, value in stages.items()},
    )


def _score_copy(
    loaded: Loaded,
    copy: NoisyTaskCopy,
    classifier: LabelClassifier,
    along: Directions,
    settings: RecommendSettings,
    steps: StepWriter,
    progress: Progress,
    seconds: Seconds,
) -> Iterator[tuple[str, CopyScores]]:
    """Yield the levels that the protocol of a copy is for, with their scores."""
    of_copy = loaded.with_tasks(copy.tasks)
    log_p = classifier.log_probabilities(copy.labels)
    seconds["classifier"] = classifier.seconds
    labels = label_scores(of_copy, classifier.classes, log_p, settings.rounds, settings.seed, progress, seconds)
    of_rows = of_copy.with_tasks(copy.tasks.select(copy.row_tasks))
    tables = row_scores(of_rows, labels[labels["task_id"].isin(copy.row_tasks)], along, steps, progress, seconds)
    tables |= with_self_influence(of_rows, tables, along, steps, progress, seconds)
    if copy.protocol in TASK_PROTOCOLS:
        tables["tasks"] = task_scores(of_copy, labels, along, progress, seconds)
    for level, table in tables.items():
        is_wrong = _ids(level, table).isin(list(copy.wrong[level]))
        if copy.protocol in PROTOCOLS[level] and 0 < is_wrong.sum() < len(is_wrong):
            yield level, CopyScores(copy.protocol, table, is_wrong, seconds)


def _ids(level: str, table: pd.DataFrame) -> pd.Index:
    if level == "instances":
        return pd.MultiIndex.from_frame(table[KEY])
    return pd.Index(table[f"{level[:-1]}_id"])


def _recommend_level(
    level: str, table: pd.DataFrame, choice: Choice | None, notes: tuple[str, ...]
) -> tuple[pd.DataFrame, LevelRecommendation]:
    """Return the given items with suspicion and probability, and the summary; ``table`` holds their scores."""
    candidate, weights = (choice.candidate, choice.weights) if choice else (SCORES[0], {})
    is_combination = candidate == COMBINATION
    score = suspicion(table[list(weights)], COMBINATION, weights) if is_combination else table[candidate].to_numpy()
    probability = np.full(len(table), np.nan)
    if choice and choice.auc >= _LEAST_AUC:
        probability = wrong_probabilities(choice.odds, table[choice.evidence].to_numpy(), score)
    elif choice:
        notes = (*notes, _USELESS)
    proposed = probability[probability >= SUSPICIOUS]
    summary = LevelRecommendation(
        level,
        candidate,
        CANDIDATE_WORDS[candidate],
        measured_sentence(level, candidate, choice.table if choice else None),
        len(table),
        len(proposed),
        float(proposed.mean()) if len(proposed) else None,
        None if np.isnan(probability).any() else float(probability.sum()),
        weights if is_combination else {},
        notes,
    )
    return table.assign(suspicion=score, probability=probability), summary
