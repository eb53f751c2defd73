"""The command for the paper's experiments."""

from __future__ import annotations

import shlex
import sys
from pathlib import Path
from typing import Annotated

import typer

from core.cli.options import ChunkOption, DeviceOption, DtypeOption, chosen_compute, live_progress
from core.runtime.errors import UserError


def experiments(
    name: Annotated[
        str,
        typer.Argument(
            help="table1-tasks, table1-instances, figure1, figure2, appendix-e, truth or ladder; see --list."
        ),
    ] = "",
    profile: Annotated[
        str, typer.Option(help="tiny (shows that it runs), small (two cores) or full (the paper's scale, for a GPU).")
    ] = "small",
    images: Annotated[
        list[str] | None,
        typer.Option(
            help="Image sets for the paper's data sets omniglot, mnist, mini-imagenet and fc100, as "
            "mnist=mnist5k,omniglot=NAME, or one each time; default: those of these names that there are, and the "
            "shipped MNIST."
        ),
    ] = None,
    seeds: Annotated[int, typer.Option(min=0, help="Repetitions; 0: as many as the profile has.")] = 0,
    out: Annotated[Path | None, typer.Option(help="Folder to write; default: in the library of images.")] = None,
    list_: Annotated[bool, typer.Option("--list", help="Print the experiments and what they measure.")] = False,
    device: DeviceOption = "auto",
    dtype: DtypeOption = "float32",
    chunk: ChunkOption = 0,
) -> None:
    """Do one of the paper's experiments, or what is left of it, and write its folder of tables, plots and sentences."""
    from core.experiments.catalog import EXPERIMENTS, experiment_of
    from core.experiments.conduct import conduct, image_sets, result_folder

    if list_:
        for one in EXPERIMENTS.values():
            print(f"{one.name}\t{one.title}\t{one.words}")
        return
    if not name:
        raise UserError("There is no name of an experiment.", f"There are: {', '.join(EXPERIMENTS)}.")
    experiment, here = experiment_of(name), image_sets()
    chosen = _named(",".join(images)) if images else {data: here[data] for data in experiment.data if data in here}
    for data in experiment.data:
        if data not in chosen and not images:
            print(f"{data} is left out: there is no image set of that name (docs/data.md).", file=sys.stderr)
    folder = out or result_folder(name, profile)
    command = shlex.join(["python", "-m", "core", *sys.argv[1:]])
    compute, progress = chosen_compute(device, dtype, chunk), live_progress()
    print(conduct(name, profile, chosen, seeds, folder, compute, progress, command))


def _named(text: str) -> dict[str, str]:
    """``mnist=mnist5k,...``."""
    pairs = [part.split("=", 1) for part in text.split(",") if part.strip()]
    if not pairs or any(len(pair) != 2 or not all(side.strip() for side in pair) for pair in pairs):
        raise UserError(f"The image sets {text!r} are not understood.", "For example mnist=mnist5k,omniglot=omniglot.")
    names = [data.strip() for data, _ in pairs]
    if twice := sorted({name for name in names if names.count(name) > 1}):
        raise UserError(f"{twice[0]!r} has two image sets.", "Choose one of them.")
    return {data.strip(): name.strip() for data, name in pairs}
