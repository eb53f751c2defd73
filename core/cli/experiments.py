"""The commands that run the demo and the paper's experiments."""

from __future__ import annotations

import sys
import time
from pathlib import Path
from typing import Annotated

from typer import Argument, Option

from core.cli.common import announce_device, live_progress, message, this_command
from core.cli.options import metavar, with_settings
from core.maml.settings import Compute
from core.runtime.errors import UserError


@with_settings
def experiments(
    *,
    name: Annotated[
        str,
        Argument(
            help="Name of the experiment: table1-tasks, table1-instances, figure1, figure2, appendix-e, truth or "
            "edit-methods; see --list."
        ),
    ] = "",
    profile: Annotated[
        str,
        Option(
            help="Scale. tiny: a check that it runs; small: two CPU cores; full: the paper's, for a GPU.",
            metavar=metavar("tiny", "small", "full"),
        ),
    ] = "small",
    images: Annotated[
        list[str] | None,
        Option(
            help="Image sets for the paper's data sets omniglot, mnist, mini-imagenet and fc100, as "
            "mnist=mnist5k,omniglot=NAME. Repeatable. Default: image sets of these names, and the shipped MNIST."
        ),
    ] = None,
    seeds: Annotated[int, Option(min=0, help="Repetitions; 0 means as many as the profile has.")] = 0,
    out: Annotated[Path | None, Option(help="Folder to write. Default: in the library of images.")] = None,
    list_: Annotated[bool, Option("--list", help="List the experiments and what they measure.")] = False,
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
    """Read ``mnist=mnist5k,...``; raise UserError if it is not of that form, or names a data set twice."""
    pairs = [[side.strip() for side in part.split("=", 1)] for part in text.split(",") if part.strip()]
    if not pairs or any(len(pair) != 2 or not all(pair) for pair in pairs):
        raise UserError(f"Invalid image sets: {text!r}.", "For example mnist=mnist5k,omniglot=omniglot.")
    names = [data for data, _ in pairs]
    if repeated := sorted({name for name in names if names.count(name) > 1}):
        raise UserError(f"{repeated[0]!r} has two image sets.", "Choose one of them.")
    return dict(pairs)


@with_settings
def demo(
    *,
    only: Annotated[
        str, Option(help="Only this demo: demo-noisy-tasks, demo-noisy-images or demo-colour. Default: all.")
    ] = "",
    home: Annotated[Path | None, Option(help="Folder for the workspaces. Default: that of the dashboard.")] = None,
    compute: Compute,
) -> None:
    """Print what label noise costs in each demo, and decide.

    Compares what removing and relabelling data win back: as recommended, by influence, at random, and with the labels
    corrected; fine-tuned and retrained. Then removes the recommended tasks, or relabels the recommended images, and
    exports. Results that came with the demos are found.
    """
    from core.actions.demo import run_demo
    from core.runtime.files import home as default_home
    from core.workspace.demos import DEMOS

    start = time.perf_counter()
    announce_device(compute)
    for name in [only] if only else DEMOS:
        print(run_demo(name, home or default_home(), compute, live_progress(), message))
    message(f"total: {time.perf_counter() - start:.0f} s, peak memory {_peak_memory():.1f} GB")


def _peak_memory() -> float:
    """Return the peak memory of this process so far, in GB."""
    import resource

    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 1e9
