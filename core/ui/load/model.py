"""Step 3 of the Load page: a model for the tasks, imported from a checkpoint or trained."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, get_args

import streamlit as st

from core.checkpoints.model import BACKBONE_FIELDS, Model, ModelSpec, load_model
from core.data import ImageSet
from core.maml.backbone import POOLINGS
from core.maml.recipes import TrainingRecipe, recipe_for
from core.maml.settings import Backbone, TrainSettings
from core.maml.training import STATE_FILE
from core.runtime.errors import UserError
from core.runtime.files import file_version
from core.runtime.settings import arguments, declared
from core.tasks.generate import TaskFolder, read_folder
from core.ui.load.images import PLACES
from core.ui.load.shared import choose_folder, name_input, newest_first, place_for, show_report, start_job
from core.ui.load.training import live_curve, model_curve
from core.ui.shell import settings_widgets as widgets
from core.ui.shell.command import show_commands
from core.ui.shell.guard import report_errors
from core.ui.shell.isolated import call_value, drop_call, prepare_calls, start_call
from core.ui.shell.jobs import is_running, job_panel, jobs_of
from core.ui.shell.paths import PathEntry, path_input
from core.ui.shell.text import plain
from core.ui.shell.uploads import save_upload
from core.workspace.workspace import check_fit, library_jobs

_GUESS, _INSPECTION = "auto-detect", "load_checkpoint"
_SOURCES = ("Train a model", "Use my checkpoint")
_PLACES = PLACES[:2]
_NOT_RECORDED = "Used in the adaptation. Checkpoints do not record it, and a wrong value makes all results wrong."
_BACKBONES = [name for name in get_args(Backbone) if name != "module"]


def model_step(tasks: Path) -> Path | None:
    """Choose, import or train a model that fits the tasks; return its folder."""
    st.subheader("3 · Model")
    fitting, others = _models(tasks)
    chosen = choose_folder("Models that fit these tasks", "models", fitting, ["train", "model"], key="load_model")
    if not fitting:
        st.info("There is no model for these tasks yet.")
    if others:
        with st.expander(f"Models that do not fit these tasks ({len(others)})"):
            st.markdown("\n".join(f"- {plain(name)}: {plain(why)}" for name, why in others.items()))
    with st.expander("Add a model", expanded=not fitting), report_errors():
        source = st.segmented_control("Source", _SOURCES, default=_SOURCES[0], required=True, key="load_model_way")
        _train(tasks) if source == _SOURCES[0] else _checkpoint(tasks)
    for job in ("train", "model"):
        job_panel(library_jobs(), job)
    live_curve()
    if chosen:
        model_curve(chosen.name, _model(str(chosen), file_version(chosen / "model.json")))
    return chosen


def _models(tasks: Path) -> tuple[dict[str, str], dict[str, str]]:
    """Return the models that fit the tasks with their descriptions, and the others with the reason."""
    folder, images = _tasks(str(tasks), file_version(tasks / "tasks.json"))
    fitting, others = {}, {}
    for path in newest_first("models", "model.json"):
        try:
            model = _model(str(path.parent), file_version(path))
            check_fit(images, folder, model)
            fitting[path.parent.name] = model.spec.description
        except UserError as error:
            others[path.parent.name] = str(error)
    return fitting, others


@st.cache_resource(max_entries=4, show_spinner="Reading the tasks")
def _tasks(folder: str, version: tuple[int, int, int]) -> tuple[TaskFolder, ImageSet]:
    read = read_folder(Path(folder))
    return read, read.images()


@st.cache_resource(max_entries=32, show_spinner=False)
def _model(folder: str, version: tuple[int, int, int]) -> Model:
    return load_model(Path(folder))


def _train(tasks: Path) -> None:
    _, images = _tasks(str(tasks), file_version(tasks / "tasks.json"))
    recipe = recipe_for(images.shape)
    st.caption(f"The defaults are those of the recipe for {recipe.words}; see docs/training.md.")
    one, two, three, four = st.columns(4)
    algorithm = widgets.select(one, ModelSpec, "algorithm", key="load_algorithm")
    backbone = widgets.select(two, ModelSpec, "backbone", key="load_backbone", choices=_BACKBONES)
    of_backbone = ModelSpec(ways=2, backbone=backbone)
    filters = widgets.number(
        three,
        ModelSpec,
        "filters",
        key=f"load_filters_{backbone}",
        value=of_backbone.filters,
        disabled="filters" not in BACKBONE_FIELDS[backbone],
    )
    defaults, key = recipe.model_fields({"backbone": backbone}), f"load_{recipe.words}"
    steps = widgets.number(four, ModelSpec, "steps", key=f"{key}_steps", value=defaults["steps"])
    one, two, three, four = st.columns(4)
    spec = {"steps": steps, "rate": widgets.number(one, ModelSpec, "rate", key=f"{key}_rate", value=defaults["rate"])}
    training = _training_settings(recipe, ("iterations", "meta_batch", "learning_rate"), (two, three, four))
    with st.expander("More settings"):
        one, two, *places = st.columns(6)
        if backbone == "convnet":
            spec["pooling"] = widgets.select(
                one, ModelSpec, "pooling", key=f"{key}_pooling", value=defaults["pooling"], choices=POOLINGS
            )
            spec["activation"] = widgets.select(
                two, ModelSpec, "activation", key=f"{key}_activation", value=defaults["activation"]
            )
        training |= _training_settings(recipe, ("polish", "checks", "patience", "seed"), places)
    name = name_input("model", f"{tasks.name}-{algorithm}", key="load_train_name")
    place = place_for("models", name)
    changed = {"algorithm": algorithm, "backbone": backbone}
    changed |= {field: value for field, value in spec.items() if value != defaults[field]}
    if filters != of_backbone.filters:
        changed["filters"] = filters
    line = ["train", "--tasks", str(tasks), *arguments(ModelSpec, changed, always=changed)]
    given = {field: value for field, value in training.items() if value != getattr(recipe.training, field)}
    line += [*arguments(TrainSettings, given, always=given), "--out", str(place)]
    exists, running = (place / "model.json").exists(), is_running(library_jobs(), "train")
    estimate, train, _ = st.columns([2, 2, 5])
    if estimate.button("Estimate training cost", key="load_cost", disabled=running, width="stretch"):
        start_job("Estimate training cost", [*line, "--dry-run"])
    label = "Resume training" if (place / STATE_FILE).exists() else "Train"
    if train.button(label, type="primary", key="load_train", disabled=exists or running, width="stretch"):
        start_job(f"Train {name}", line)
    if exists:
        st.caption(f"A model named {plain(name)} already exists. Choose another name.")
    finished = (job for job in jobs_of(library_jobs(), "train") if job.status() == "done")
    if estimated := next((job for job in finished if list(job.args) == [*line, "--dry-run"]), None):
        st.code("\n".join(estimated.results()), language=None, wrap_lines=True)
    show_commands(line)


def _training_settings(recipe: TrainingRecipe, fields: Sequence[str], places: Sequence[Any]) -> dict[str, Any]:
    """Draw a number input per training setting in ``places`` and return the values by field."""
    values = {}
    for place, field in zip(places, fields, strict=True):
        default, key = getattr(recipe.training, field), f"load_{recipe.words}_{field}"
        values[field] = widgets.number(place, TrainSettings, field, key=key, value=default)
    return values


def _checkpoint(tasks: Path) -> None:
    prepare_calls()
    place = st.segmented_control("From", _PLACES, default=_PLACES[0], required=True, key="load_model_place")
    if place == _PLACES[0]:
        entry = path_input(
            st,
            "Checkpoint file",
            key="load_checkpoint",
            placeholder="/models/maml.pt",
            help=".safetensors, .pt or .pth",
        )
    else:
        upload = st.file_uploader("Checkpoint", type=["safetensors", "pt", "pth"], key="load_checkpoint_upload")
        entry = PathEntry(save_upload(upload) if upload else None)
    file = entry.path
    one, two, three, four = st.columns(4)
    backbone = widgets.select(
        one, ModelSpec, "backbone", key="load_check_backbone", value=_GUESS, choices=[_GUESS, *_BACKBONES]
    )
    algorithms = [_GUESS, *declared(ModelSpec)["algorithm"].choices]
    algorithm = widgets.select(
        two, ModelSpec, "algorithm", key="load_check_algorithm", value=_GUESS, choices=algorithms
    )
    steps = widgets.number(three, ModelSpec, "steps", key="load_check_steps", value=None, help=_NOT_RECORDED)
    rate = widgets.number(four, ModelSpec, "rate", key="load_check_rate", value=None, help=_NOT_RECORDED)
    st.caption(
        "Import a network of your own (package.module:factory) on the command line, where you allow its code to run: "
        "see docs/models.md."
    )
    name = name_input("model", file.stem[:64] if file else "", key="load_check_name")
    inspect, start, _ = st.columns([2, 2, 5])
    wants_inspection = inspect.button("Inspect checkpoint", key="load_check_look", width="stretch")
    exists = bool(name) and (place_for("models", name) / "model.json").exists()
    busy = exists or is_running(library_jobs(), "model")
    wants_import = start.button("Import", type="primary", key="load_check_import", disabled=busy, width="stretch")
    if file is None:
        drop_call(_INSPECTION)
        if (wants_inspection or wants_import) and not entry.is_refused:
            raise UserError("No checkpoint is chosen.", "Enter a path or choose a file above.")
        return
    line = ["model", "--checkpoint", str(file), "--tasks", str(tasks)]
    hints = {"backbone": backbone, "algorithm": algorithm, "steps": steps, "rate": rate}
    line += arguments(ModelSpec, {name: value for name, value in hints.items() if value != _GUESS}, always=hints)
    line += ["--out", str(place_for("models", name))]
    if wants_import:
        start_job(f"Import {name}", line)
    call = {"path": str(file), "backbone": "" if backbone == _GUESS else backbone, "tasks": str(tasks)}
    if wants_inspection:
        start_call(_INSPECTION, "checkpoint", call)
    with report_errors("The inspection"):
        if found := call_value(_INSPECTION, "checkpoint", call):
            show_report(found["report"])
    if exists:
        st.caption(f"A model named {plain(name)} already exists. Choose another name.")
    show_commands(line)
