"""Do an experiment: every repetition on every data set, each by one process, and then the folder of results."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pandas as pd

from core import __version__
from core.actions.compute import Compute
from core.data import load_images
from core.data.store import stored_image_sets
from core.evidence.methods import missing
from core.experiments.bench import Bench, Unit
from core.experiments.catalog import Experiment, experiment_of
from core.experiments.drawing import draw_result
from core.experiments.outcome import TITLES, Figures
from core.experiments.problems import experiments_home
from core.experiments.profiles import DATA, MNIST, profile_of
from core.experiments.results import PARTS, Result, write_result
from core.influence.basis import ENGINE_VERSION
from core.runtime.distributed import world
from core.runtime.errors import UserError
from core.runtime.files import read_json, replacing_folder
from core.runtime.progress import Progress, SubProgress
from core.workspace.runs import Runs, RunWriter

_UNITS = 1000  # of progress, a repetition on one data set
OFFLINE = "mnist5k"


def result_folder(name: str, profile: str) -> Path:
    """Where an experiment's results lie unless another folder is asked for."""
    return experiments_home() / f"{name}-{profile}"


def image_sets() -> dict[str, str]:
    """By the paper's name of a data set, an image set of that name that is here; MNIST always is, with 5,000 images."""
    here = {name.lower() for stored in stored_image_sets() for name in stored.names}
    return {MNIST: OFFLINE} | {name: name for name in DATA if name in here}


def conduct(
    name: str,
    profile_name: str,
    images: Mapping[str, str],
    seeds: int,
    out: Path,
    compute: Compute,
    progress: Progress,
    command: str,
) -> Path:
    """Measure what is not measured yet and write the folder ``out``.

    Args:
        images: The image set for each of the paper's data sets that is to be used.
        seeds: Repetitions; 0 means as many as the profile has.

    Raises:
        UserError: there is no such experiment, profile, data set or image set, or ``out`` holds something else.
    """
    experiment, profile = experiment_of(name), profile_of(profile_name)
    if seeds < 0 or not images:
        raise UserError("An experiment needs a seed and a data set at least.", "For example --images mnist=mnist5k.")
    if unknown := sorted(set(images) - set(DATA)):
        raise UserError(f"The paper has no data set {unknown[0]!r}.", f"It has: {', '.join(DATA)}.")
    _refuse_foreign(out, name, profile_name)
    seeds = seeds or profile.seeds
    hashes = {data: load_images(source).hash for data, source in images.items()}
    # Seed by seed, so that one that was cancelled half way has whole seeds of every data set.
    units = [Unit(profile, data, images[data], seed) for seed in range(seeds) for data in DATA if data in images]
    runs, begun = Runs(experiments_home() / "runs", waits=True), time.perf_counter()
    progress.stage(experiment.title, _UNITS * len(units))

    def one(unit: Unit, count: int) -> str:
        within = SubProgress(progress, _UNITS * count)
        question = _question(experiment, unit, hashes[unit.data], compute)

        def work(run: RunWriter) -> None:
            bench = Bench(unit, compute, run, within, command)
            bench.begin(experiment.title, experiment.weight(unit.profile))
            run.write_table("figures.parquet", experiment.measure(bench))

        done = runs.get_or_compute(f"experiment-{name}", question, work)
        within.finish(f"{TITLES[unit.data]}, seed {unit.seed}")
        return done.id

    done = runs.collect_distributed(world().map_distributed(units, one))
    tables = [
        run.table("figures.parquet").assign(data=unit.data, seed=unit.seed)
        for run, unit in zip(done, units, strict=True)
    ]
    figures = Figures(pd.concat(tables, ignore_index=True), profile, dict(images))
    config = {
        "experiment": name,
        "title": experiment.title,
        "words": experiment.words,
        "profile": profile_name,
        "settings": profile.described(),
        "images": dict(images),
        "hashes": hashes,
        "seeds": seeds,
        "dtype": compute.dtype,
        "device": str(compute.torch_device()),
        "processes": world().size,
        "command": command,
        "version": __version__,
        "runs": [run.id for run in done],
        "processor_seconds": round(sum(run.processor_seconds for run in done), 1),
        "seconds": round(time.perf_counter() - begun, 1),
    }
    world().on_rank_zero(lambda: _write(out, experiment, figures, config))
    return out


def _question(experiment: Experiment, unit: Unit, data_hash: str, compute: Compute) -> dict[str, Any]:
    profile = replace(unit.profile, words="", seeds=0)  # neither changes what one repetition gives
    described = asdict(profile)
    without = missing(experiment.libraries)  # once they are installed, it is another question
    return {
        "experiment": experiment.name,
        "version": experiment.version,
        "engine": ENGINE_VERSION,
        "profile": described,
        "data": unit.data,
        "images": data_hash,
        "seed": unit.seed,
        "dtype": compute.dtype,
        **({"without": without} if without else {}),
    }


def _write(out: Path, experiment: Experiment, figures: Figures, config: dict[str, Any]) -> None:
    outcome = experiment.conclude(figures)
    names = [part.name for kind in (outcome.tables, outcome.plots, outcome.grids) for part in kind]
    result = Result(config | {"order": names}, outcome.says, outcome.tables, outcome.plots, outcome.grids)
    with replacing_folder(out, PARTS) as folder:  # whole or not at all, whenever it is cut short
        write_result(folder, result, _flat(figures.table))
        draw_result(folder, result)


def _flat(table: pd.DataFrame) -> pd.DataFrame:
    """Without columns of lists, which a csv or a spreadsheet would not take."""
    return table[[name for name in table if not table[name].map(lambda value: isinstance(value, list)).any()]]


def _refuse_foreign(out: Path, name: str, profile: str) -> None:
    """Not to write over something else."""
    if not out.exists() or (out.is_dir() and not any(out.iterdir())):
        return
    if (out / "config.json").exists():
        have = read_json(out / "config.json")
        if isinstance(have, dict) and (have.get("experiment"), have.get("profile")) == (name, profile):
            return
    raise UserError(f"{out} holds something else.", "Choose another --out, or delete it.")
