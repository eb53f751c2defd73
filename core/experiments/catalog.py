"""All experiments by name."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import pandas as pd

from core.experiments import appendix, figure1, figure2, instances, ladder, table1, truth
from core.experiments.bench import Bench
from core.experiments.outcome import Figures, Outcome
from core.experiments.profiles import DATA, MNIST, Profile
from core.runtime.errors import UserError


@dataclass(frozen=True)
class Experiment:
    """One experiment.

    Attributes:
        words: One sentence on what it measures.
        data: The paper's data sets that it is done on unless others are asked for.
        measure: Figures of one repetition, a table with columns of its own.
        conclude: What the figures of all repetitions say.
        weight: About how much work one repetition is (:meth:`core.experiments.bench.Bench.piece`).
        libraries: Methods of it that need a package beside the ordinary install.
        version: Raised whenever what ``measure`` gives changes.
    """

    name: str
    title: str
    words: str
    data: tuple[str, ...]
    measure: Callable[[Bench], pd.DataFrame]
    conclude: Callable[[Figures], Outcome]
    weight: Callable[[Profile], int]
    libraries: tuple[str, ...] = ()
    version: int = 1


_ALL: Sequence[Experiment] = (
    Experiment(
        "table1-tasks",
        "Table 1: tasks",
        "40 % of the training tasks are removed, harmful ones or any: accuracy and time of retraining, of edits, of "
        "removals chosen by other methods, and of doing nothing or merely training a little longer.",
        DATA,
        table1.measure,
        table1.conclude,
        table1.weight,
        ("trak-1", "ekfac"),
        version=3,
    ),
    Experiment(
        "table1-instances",
        "Table 1: instances",
        "40 % of the support or of the query images of 20 tasks are removed: retraining against the edits.",
        DATA,
        instances.measure,
        instances.conclude,
        instances.weight,
        version=3,
    ),
    Experiment(
        "figure1",
        "Figure 1: harmful data found",
        "Wrong labels of four kinds: the share found and the accuracy after removal, against the share checked, by "
        "influence, self-influence, loss, the review queue and at random.",
        (MNIST,),
        figure1.measure,
        figure1.conclude,
        figure1.weight,
        version=2,
    ),
    Experiment(
        "figure2",
        "Figure 2: helpful data removed",
        "The most helpful tasks or instances are removed, or any: accuracy after retraining.",
        (MNIST,),
        figure2.measure,
        figure2.conclude,
        figure2.weight,
        version=2,
    ),
    Experiment(
        "appendix-e",
        "Appendix E: most helpful and most harmful tasks",
        "The tasks that influence ranks first and last, with their scores over models trained from several seeds.",
        DATA,
        appendix.measure,
        appendix.conclude,
        appendix.weight,
    ),
    Experiment(
        "truth",
        "Against the truth",
        "What every method foretells, held against retraining on random halves of the tasks (LDS) and without one "
        "task (leave-one-out).",
        DATA,
        truth.measure,
        truth.conclude,
        truth.weight,
        ("trak-1", "ekfac"),
        version=2,
    ),
    Experiment(
        "ladder",
        "The ladder of edits",
        "From a linear edit to a full retraining: how much of what retraining gains each rung gets, at which cost.",
        DATA,
        ladder.measure,
        ladder.conclude,
        ladder.weight,
        version=4,
    ),
)
EXPERIMENTS: dict[str, Experiment] = {one.name: one for one in _ALL}


def experiment_of(name: str) -> Experiment:
    """The experiment of that name.

    Raises:
        UserError: there is none.
    """
    if name not in EXPERIMENTS:
        raise UserError(f"There is no experiment {name!r}.", f"There are: {', '.join(EXPERIMENTS)}.")
    return EXPERIMENTS[name]
