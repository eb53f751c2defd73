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
        str,
        typer.Option(help="tiny (shows that it runs), small (two CPU cores) or full (the paper's scale, for a GPU)."),
    ] = "small",
    images: Annotated[
        list[str] | None,
        typer.Option(
            help="Image sets for the paper's data sets omniglot, mnist, mini-imagenet and fc100, such as "
            "mnist=mnist5k,omniglot=NAME; can be repeated. Default: the image sets of these names, and the shipped "
            "MNIST."
        ),
    ] = None,
    seeds: Annotated[int, typer.Option(min=0, help="Repetitions; 0: the number of the profile.")] = 0,
    out: Annotated[
        Path | None, typer.Option(help="Result folder; default: a folder in the library of image sets.")
    ] = None,
    list_: Annotated[bool, typer.Option("--list", help="Print the experiments and what they measure.")] = False,
    device: DeviceOption = "auto",
    dtype: DtypeOption = "float32",
    chunk: ChunkOption = 0,
) -> None:
    """Run or resume one of the paper's experiments and write its folder of tables, plots and findings."""
    from core.experiments.catalog import EXPERIMENTS, experiment_of
    from core.experiments.run import image_sets, result_folder, run_experiment

    if list_:
        for one in EXPERIMENTS.values():
            print(f"{one.name}\t{one.title}\t{one.description}")
        return
    if not name:
        raise UserError("No experiment is named.", f"There are: {', '.join(EXPERIMENTS)}.")
    experiment, stored = experiment_of(name), image_sets()
    chosen = (
        _parse_images(",".join(images))
        if images
        else {data: stored[data] for data in experiment.data if data in stored}
    )
    for data in experiment.data:
        if data not in chosen and not images:
            print(f"Skipping {data}: there is no image set of that name (docs/data.md).", file=sys.stderr)
    folder = out or result_folder(name, profile)
    command = shlex.join(["python", "-m", "core", *sys.argv[1:]])
    compute, progress = chosen_compute(device, dtype, chunk), live_progress()
    print(run_experiment(name, profile, chosen, seeds, folder, compute, progress, command))


def _parse_images(text: str) -> dict[str, str]:
    """Parse ``mnist=mnist5k,...``."""
    pairs = [part.split("=", 1) for part in text.split(",") if part.strip()]
    if not pairs or any(len(pair) != 2 or not all(side.strip() for side in pair) for pair in pairs):
        raise UserError(f"The image sets {text!r} cannot be parsed.", "For example mnist=mnist5k,omniglot=omniglot.")
    names = [data.strip() for data, _ in pairs]
    if repeated := sorted({name for name in names if names.count(name) > 1}):
        raise UserError(f"{repeated[0]!r} has two image sets.", "Choose one of them.")
    return {data.strip(): name.strip() for data, name in pairs}
