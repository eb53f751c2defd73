"""The command that runs the paper's experiments."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from core.cli.common import announce_device, live_progress, message, this_command
from core.cli.options import metavar, with_settings
from core.maml.settings import Compute
from core.runtime.errors import UserError


@with_settings
def experiments(
    *,
    name: Annotated[
        str,
        typer.Argument(
            help="table1-tasks, table1-instances, figure1, figure2, appendix-e, truth or edit-methods; see --list."
        ),
    ] = "",
    profile: Annotated[
        str,
        typer.Option(
            help="Scale. tiny: a check that it runs; small: two CPU cores; full: the paper's, for a GPU.",
            metavar=metavar("tiny", "small", "full"),
        ),
    ] = "small",
    images: Annotated[
        list[str] | None,
        typer.Option(
            help="Image sets for the paper's data sets omniglot, mnist, mini-imagenet and fc100, as "
            "mnist=mnist5k,omniglot=NAME. Repeatable. Default: image sets of these names, and the shipped MNIST."
        ),
    ] = None,
    seeds: Annotated[int, typer.Option(min=0, help="Repetitions; 0 means as many as the profile has.")] = 0,
    out: Annotated[Path | None, typer.Option(help="Folder to write. Default: in the library of images.")] = None,
    list_: Annotated[bool, typer.Option("--list", help="List the experiments and what they measure.")] = False,
    compute: Compute,
) -> None:
    """Run or resume one of the paper's experiments.

    Writes a folder of tables, plots and findings, and prints it.
    """
    from core.experiments.catalog import EXPERIMENTS, experiment_of
    from core.experiments.run import image_sets, result_folder, run_experiment

    if list_:
        for one in EXPERIMENTS.values():
            print(f"{one.name}\t{one.title}\t{one.description}")
        return
    if not name:
        raise UserError("The name of an experiment is missing.", f"Use one of {', '.join(EXPERIMENTS)}.")
    experiment, available = experiment_of(name), image_sets()
    if images:
        chosen = _named_images(",".join(images))
    else:
        chosen = {data: available[data] for data in experiment.data if data in available}
        for data in experiment.data:
            if data not in chosen:
                message(f"{data} is left out: there is no image set of that name (docs/data.md).")
    folder = out or result_folder(experiment.name, profile)
    announce_device(compute)
    print(run_experiment(name, profile, chosen, seeds, folder, compute, live_progress(), this_command()))


def _named_images(text: str) -> dict[str, str]:
    """Read ``mnist=mnist5k,...``.

    Raises:
        UserError: it is not of that form, or names a data set twice.
    """
    pairs = [part.split("=", 1) for part in text.split(",") if part.strip()]
    if not pairs or any(len(pair) != 2 or not all(side.strip() for side in pair) for pair in pairs):
        raise UserError(f"Invalid image sets: {text!r}.", "For example mnist=mnist5k,omniglot=omniglot.")
    names = [data.strip() for data, _ in pairs]
    if repeated := sorted({name for name in names if names.count(name) > 1}):
        raise UserError(f"{repeated[0]!r} has two image sets.", "Choose one of them.")
    return {data.strip(): name.strip() for data, name in pairs}
