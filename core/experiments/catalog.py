"""All experiments by name."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import pandas as pd

from core.experiments import appendix, edit_methods, figure1, figure2, instances, ranking_validation, table1
from core.experiments.context import ExperimentContext
from core.experiments.profiles import DATA, MNIST
from core.experiments.summary import ExperimentSummary, Measurements
from core.runtime.errors import UserError


@dataclass(frozen=True)
class Experiment:
    """An experiment that measures and summarizes.

    Attributes:
        name: On the command line and in folder names.
        data: The paper's data sets that it uses unless others are given.
        measure: Returns the measurements of one repetition, a table with its own columns.
        summarize: Returns what the measurements of all repetitions on one data set show.
        libraries: Its methods that need optional packages.
        version: Raised whenever what ``measure`` returns changes.
        former_name: Its name in earlier versions, which still selects it and identifies its stored repetitions.
    """

    name: str
    title: str
    description: str
    data: tuple[str, ...]
    measure: Callable[[ExperimentContext], pd.DataFrame]
    summarize: Callable[[Measurements], ExperimentSummary]
    libraries: tuple[str, ...] = ()
    version: int = 1
    former_name: str = ""

    @property
    def stored_name(self) -> str:
        """The name in the keys of stored repetitions."""
        return self.former_name or self.name


_ALL = (
    Experiment(
        "table1-tasks",
        "Table 1: tasks",
        "Remove 40 % of the training tasks, harmful or random ones, and compare accuracy and cost of retraining, of "
        "the edits, of selections by other methods, and of two controls: no change, and training a little longer.",
        DATA,
        table1.measure,
        table1.summarize,
        libraries=("trak-1", "ekfac"),
        version=5,
    ),
    Experiment(
        "table1-instances",
        "Table 1: instances",
        "Remove 40 % of the support or query images of 20 tasks, and compare the edits with retraining.",
        DATA,
        instances.measure,
        instances.summarize,
        version=3,
    ),
    Experiment(
        "figure1",
        "Figure 1: finding label noise",
        "Inject four kinds of label noise, and measure how many errors are found and how accurate the model is after "
        "removal, for each share checked, by recommendation, influence, self-influence, loss, the review queue and at "
        "random.",
        (MNIST,),
        figure1.measure,
        figure1.summarize,
        version=3,
    ),
    Experiment(
        "figure2",
        "Figure 2: removing helpful data",
        "Remove the most helpful tasks or instances, or random ones, and measure accuracy after retraining.",
        (MNIST,),
        figure2.measure,
        figure2.summarize,
        version=2,
    ),
    Experiment(
        "appendix-e",
        "Appendix E: most helpful and most harmful tasks",
        "Show the tasks that influence ranks first and last, with their scores over models trained from several seeds.",
        DATA,
        appendix.measure,
        appendix.summarize,
    ),
    Experiment(
        "truth",
        "Rankings validated against retraining",
        "Measure how well every method predicts the loss of models retrained on random halves of the tasks (LDS) and "
        "without one task (leave-one-out).",
        DATA,
        ranking_validation.measure,
        ranking_validation.summarize,
        libraries=("trak-1", "ekfac"),
        version=2,
    ),
    Experiment(
        "edit-methods",
        "Edit methods, compared by cost",
        "Measure how much of the gain of retraining each edit method recovers, from a linear edit to retraining "
        "itself, and at which cost.",
        DATA,
        edit_methods.measure,
        edit_methods.summarize,
        version=5,
        former_name="ladder",
    ),
)
EXPERIMENTS: dict[str, Experiment] = {experiment.name: experiment for experiment in _ALL}


def experiment_of(name: str) -> Experiment:
    """Return the experiment with this name or former name; raise UserError if there is none."""
    for experiment in EXPERIMENTS.values():
        if name and name in (experiment.name, experiment.former_name):
            return experiment
    raise UserError(f"There is no experiment {name!r}.", f"There are: {', '.join(EXPERIMENTS)}.")
