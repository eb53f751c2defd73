"""Step 2 of the Load page: training and held-out tasks, sampled from the images or provided by the user."""

from __future__ import annotations

from pathlib import Path

import streamlit as st

from core.data import load_images
from core.runtime.errors import UserError
from core.runtime.settings import arguments_of
from core.runtime.stored import read_stored
from core.tasks.generate import TasksFile
from core.tasks.settings import HELDOUT_PARTS, PRESETS, TaskSettings
from core.ui.load.shared import choose_folder, name_input, newest_first, place_for, start_job
from core.ui.shell import settings_widgets as widgets
from core.ui.shell.command import show_commands
from core.ui.shell.guard import report_errors
from core.ui.shell.jobs import is_running, job_panel
from core.ui.shell.text import plain
from core.ui.shell.uploads import save_upload
from core.workspace.workspace import library_jobs

_SOURCES = ("Draw tasks", "My own lists")
_SPLITS = {
    "official": "official split of the images",
    "images": "hold out images of every class",
    "classes": "hold out whole classes",
}


def tasks_step(images: str) -> Path | None:
    """Choose or create a folder of tasks over the image set; return it."""
    st.subheader("2 · Tasks")
    folders = _folders(load_images(images).hash)
    chosen = choose_folder("Tasks over these images", "tasks", folders, ["tasks"], key="load_tasks")
    if not folders:
        st.info(f"There are no tasks over {plain(images)} yet.")
    with st.expander("Add tasks", expanded=not folders), report_errors():
        source = st.segmented_control("Source", _SOURCES, default=_SOURCES[0], required=True, key="load_tasks_way")
        _draw(images) if source == _SOURCES[0] else _user_lists(images)
    job_panel(library_jobs(), "tasks")
    return chosen


def _folders(data_hash: str) -> dict[str, str]:
    """Return the folders of tasks over the images of that hash, each with a description."""
    words = {}
    for path in newest_first("tasks", "tasks.json"):
        try:
            description = read_stored(path, TasksFile)
        except UserError as error:  # one damaged folder must not hide the others
            st.warning(plain(error))
            continue
        if description.get("data_hash") == data_hash:
            words[path.parent.name] = _words(description["settings"])
    return words


def _words(settings: object) -> str:
    match settings:
        case {"ways": ways, "shots": shots, "count": count, "noise": noise}:
            number = f"{count:,} tasks" if isinstance(count, int) else "every combination of classes"
            label_noise = "" if noise == "none" else f", noise {noise}"
            return f"{ways}-way {shots}-shot, {number}{label_noise}"
        case {"lists": [str(train), str(heldout), *_]}:
            return f"from {train} and {heldout}"
    return "custom tasks"


def _draw(images: str) -> None:
    opened = load_images(images)
    parts = [] if opened.splits is None else [part for part in HELDOUT_PARTS if (opened.splits == part).any()]
    most = max(2, len(opened.class_names))
    sizes = {
        "shots": TaskSettings.shots,
        "queries": TaskSettings.queries,
        "count": 200,
        "heldout": TaskSettings.heldout,
    }
    if opened.splits is not None:
        sizes |= {"shots": 1, "queries": 5, "count": 1000}
    one, *places, last = st.columns(6)
    ways = widgets.number(
        one, TaskSettings, "ways", key=f"load_ways_{images}", value=min(TaskSettings.ways, most), maximum=most
    )
    shots, queries, count, heldout = (
        widgets.number(place, TaskSettings, field, key=f"load_{field}_{images}", value=value)
        for place, (field, value) in zip(places, sizes.items(), strict=True)
    )
    validation = widgets.number(last, TaskSettings, "validation", key=f"load_validation_{images}", placeholder="auto")
    one, two, three, four = st.columns([3, 2, 2, 1])
    splits = [name for name in _SPLITS if name != "official" or parts]
    split = widgets.select(
        one, TaskSettings, "split", key=f"load_split_{images}", choices=splits, format_func=_SPLITS.__getitem__
    )
    given = {"split": split}
    if split == "official":
        given["heldout_split"] = widgets.select(
            two, TaskSettings, "heldout_split", key=f"load_part_{images}", choices=parts
        )
    else:
        given["heldout_share"] = widgets.number(two, TaskSettings, "heldout_share", key=f"load_share_{images}")
    noise = widgets.select(three, TaskSettings, "noise", key="load_noise", choices=list(PRESETS))
    seed = widgets.number(four, TaskSettings, "seed", key="load_seed")
    name = name_input("tasks", f"{images}-{ways}way-{shots}shot", key="load_tasks_name")
    small = widgets.checkbox(st, TaskSettings, "skip_small", key="load_small")
    settings = TaskSettings(
        images,
        ways,
        shots,
        queries,
        count,
        heldout,
        validation=validation,
        noise=noise,
        seed=seed,
        skip_small=small,
        **given,
    )
    _create(name, ["tasks", *arguments_of(settings, always=("data", "ways", "shots", *given))])


def _user_lists(images: str) -> None:
    st.caption(
        "Two tables with one row per image, role and task: task_id, role, image_id, label, class (Parquet, CSV or "
        "JSON; see docs/tasks.md), or lists written for learn2learn, torchmeta or easyfsl."
    )
    left, middle, right = st.columns(3)
    kinds = ["parquet", "csv", "json"]
    train = left.file_uploader("Training tasks", type=kinds, key="load_train_list")
    heldout = middle.file_uploader("Held-out tasks", type=kinds, key="load_heldout_list")
    validation = right.file_uploader("Validation tasks (optional)", type=kinds, key="load_validation_list")
    name = name_input("tasks", f"{images}-mine", key="load_tasks_name")
    if train and heldout:
        lists = ["--train-list", str(save_upload(train)), "--heldout-list", str(save_upload(heldout))]
        lists += ["--validation-list", str(save_upload(validation))] if validation else []
        _create(name, ["tasks", "--data", images, *lists])
    else:
        st.caption("Choose training and held-out tasks.")


def _create(name: str, args: list[str]) -> None:
    place = place_for("tasks", name)
    exists = (place / "tasks.json").exists()
    args = [*args, "--out", str(place)]
    busy = exists or is_running(library_jobs(), "tasks")
    if st.button("Create tasks", type="primary", key="load_make_tasks", disabled=busy):
        start_job(f"Create tasks {name}", args)
    if exists:
        st.caption(f"Tasks named {plain(name)} already exist. Choose another name.")
    show_commands(args)
