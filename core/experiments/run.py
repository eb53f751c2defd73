"""Run an experiment: every repetition on every data set, each in one process, then the result folder."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import asdict, replace
from itertools import chain
from pathlib import Path
from typing import Any

import pandas as pd

from core import __version__
from core.actions.compute import Compute
from core.data import load_images
from core.data.store import stored_image_sets
from core.evidence.methods import missing
from core.experiments.catalog import Experiment, experiment_of
from core.experiments.context import ExperimentContext
from core.experiments.drawing import draw_result
from core.experiments.problems import Repetition, experiments_home
from core.experiments.profiles import DATA, DATA_TITLES, MNIST, Profile, profile_of
from core.experiments.results import CONFIG, PARTS, ExperimentResult, result_sequence, write_result
from core.experiments.summary import Measurements
from core.influence.basis import ENGINE_VERSION
from core.runtime.distributed import world
from core.runtime.errors import UserError
from core.runtime.files import read_json
from core.runtime.progress import Progress, SubProgress
from core.runtime.replacing import replacing_folder
from core.runtime.sequence import next_number
from core.workspace.runs import Runs, RunWriter

_PROGRESS_UNITS = 1000  # per repetition on one data set


def result_folder(name: str, profile: str) -> Path:
    """Return the default folder of an experiment's results; one under its former name is used until it is deleted."""
    experiment = experiment_of(name)
    folder, former = (experiments_home() / f"{each}-{profile}" for each in (experiment.name, experiment.stored_name))
    return former if former.exists() and not folder.exists() else folder


def image_sets() -> dict[str, str]:
    """Return the image sets on this machine named after the paper's data sets, and 5,000 MNIST images in any case."""
    stored = {name.lower() for one in stored_image_sets() for name in one.names}
    return {MNIST: "mnist5k"} | {name: name for name in DATA if name in stored}


def run_experiment(
    name: str,
    profile_name: str,
    images: Mapping[str, str],
    seeds: int,
    out: Path,
    compute: Compute,
    progress: Progress,
    command: str,
) -> Path:
    """Measure what has not been measured yet and write the folder ``out``.

    Args:
        images: The image set to use for each of the paper's data sets.
        seeds: Repetitions; 0 means as many as the profile has.

    Raises:
        UserError: experiment, profile, data set or image set is unknown, or ``out`` contains something else.
    """
    experiment, profile = experiment_of(name), profile_of(profile_name)
    if seeds < 0 or not images:
        raise UserError(
            "An experiment needs at least one seed and one data set.", "For example --images mnist=mnist5k."
        )
    if unknown := sorted(set(images) - set(DATA)):
        raise UserError(f"The paper has no data set {unknown[0]!r}.", f"It has: {', '.join(DATA)}.")
    _check_folder(out, experiment, profile_name)
    seeds = seeds or profile.seeds
    hashes = {data: load_images(source).hash for data, source in images.items()}
    # Seed by seed, so that a cancelled run has complete seeds of every data set.
    units = [Repetition(profile, data, images[data], seed) for seed in range(seeds) for data in DATA if data in images]
    runs, start = Runs(experiments_home() / "runs", waits=True), time.perf_counter()
    progress.stage(experiment.title, _PROGRESS_UNITS * len(units))

    def measure(unit: Repetition, count: int) -> str:
        within = SubProgress(progress, _PROGRESS_UNITS * count)
        cache_key = _cache_key(experiment, unit, hashes[unit.data], compute)

        def work(run: RunWriter) -> None:
            context = ExperimentContext(unit, compute, run, within, command)
            run.write_table("figures.parquet", experiment.measure(context))

        finished = runs.get_or_compute(f"experiment-{experiment.stored_name}", cache_key, work)
        within.finish(f"{DATA_TITLES[unit.data]}, seed {unit.seed}", is_cached=not within.has_begun)
        return finished.id

    finished = runs.collect_distributed(world().map_distributed(units, measure))
    tables = [
        run.table("figures.parquet").assign(data=unit.data, seed=unit.seed)
        for run, unit in zip(finished, units, strict=True)
    ]
    measured = pd.concat(tables, ignore_index=True)
    config = {
        "experiment": experiment.name,
        "title": experiment.title,
        "words": experiment.description,
        "profile": profile_name,
        "settings": asdict(profile),
        "images": dict(images),
        "hashes": hashes,
        "seeds": seeds,
        "dtype": compute.dtype,
        "device": str(compute.torch_device()),
        "processes": world().size,
        "command": command,
        "version": __version__,
        "runs": [run.id for run in finished],
        "processor_seconds": round(sum(run.processor_seconds for run in finished), 1),
        "seconds": round(time.perf_counter() - start, 1),
    }
    world().on_rank_zero(lambda: _write(out, experiment, profile, measured, config))
    return out


def _cache_key(experiment: Experiment, unit: Repetition, data_hash: str, compute: Compute) -> dict[str, Any]:
    """Return what the measurements of a repetition depend on."""
    missing_packages = missing(experiment.libraries)  # once they are installed, the experiment measures more
    return {
        "experiment": experiment.stored_name,
        "version": experiment.version,
        "engine": ENGINE_VERSION,
        "profile": unit.profile.cache_key(),
        "model": unit.spec.model_dump(mode="json"),
        "data": unit.data,
        "images": data_hash,
        "seed": unit.seed,
        "dtype": compute.dtype,
        **({"without": missing_packages} if missing_packages else {}),
    }


def _write(out: Path, experiment: Experiment, profile: Profile, measured: pd.DataFrame, config: dict[str, Any]) -> None:
    summaries = [
        experiment.summarize(Measurements(rows, profile, str(data), config["images"][data]))
        for data, rows in measured.groupby("data", sort=False)
    ]
    findings, tables, plots, grids = (list(chain.from_iterable(kind)) for kind in zip(*summaries, strict=True))
    names = [part.name for part in (*tables, *plots, *grids)]
    # CSV files and spreadsheets cannot hold lists.
    plain = [name for name in measured if not measured[name].map(lambda value: isinstance(value, list)).any()]
    result = ExperimentResult(config | {"order": names}, findings, tables, plots, grids)
    with replacing_folder(out, PARTS) as folder:  # complete or not at all, whenever it is interrupted
        draw_result(folder, result)
        present = out.parent.glob(f"*/{CONFIG}")
        with next_number(out.parent, lambda: [result_sequence(path.parent) for path in present]) as sequence:
            write_result(folder, replace(result, config=result.config | {"sequence": sequence}), measured[plain])


def _check_folder(out: Path, experiment: Experiment, profile: str) -> None:
    """Refuse to overwrite anything but an earlier result of the same experiment and profile."""
    if not out.exists() or (out.is_dir() and not any(out.iterdir())):
        return
    config, names = out / CONFIG, (experiment.name, experiment.stored_name)
    found = read_json(config) if config.exists() else None
    if not isinstance(found, dict) or found.get("experiment") not in names or found.get("profile") != profile:
        raise UserError(f"{out} contains something else.", "Choose another --out, or delete it.")
