"""Step 1 of the Load page: choose an existing image set, or import one."""

from __future__ import annotations

from typing import Any

import numpy as np
import streamlit as st

from core.actions.image_settings import FORMATS
from core.actions.images import ImportOptions
from core.actions.inspect import PREVIEW_IMAGES
from core.actions.isolated import THUMBNAILS, image_arguments
from core.data import SOURCES
from core.data.download import DOWNLOADABLE
from core.data.store import StoredImages, damaged_image_sets, stored_image_sets
from core.runtime.errors import UserError
from core.runtime.settings import arguments_of
from core.ui.grid.component import Tile, image_grid
from core.ui.load.shared import new_result, show_report, start_job
from core.ui.shell import settings_widgets as widgets
from core.ui.shell.command import show_commands
from core.ui.shell.context import keep_widget_state
from core.ui.shell.guard import report_errors
from core.ui.shell.isolated import call_folder, call_value, drop_call, prepare_calls, start_call
from core.ui.shell.jobs import job_panel
from core.ui.shell.paths import PathEntry, path_input
from core.ui.shell.text import count, plain, shorten
from core.ui.shell.uploads import save_upload
from core.workspace.workspace import library_jobs

_CHANNEL_NAMES = {0: "unchanged", 1: "greyscale", 3: "colour"}
_CHOICE, _PREVIEW = "load_images", "load_images"
PLACES = ("Path on this machine", "File upload", "Public data set")


def images_step() -> str | None:
    """Choose or add an image set; return its name."""
    st.subheader("1 · Images")
    sets: dict[str, StoredImages] = {}
    for one in stored_image_sets():  # newest first
        sets.setdefault(one.name, one)
    if new := new_result("data"):
        st.session_state[_CHOICE] = next((name for name, one in sets.items() if str(one.folder) == new), "mnist5k")
    names = [*SOURCES, *sets]
    keep_widget_state(_CHOICE, next(iter(sets), names[0]), names)
    chosen = st.selectbox(
        "Image set",
        names,
        key=_CHOICE,
        format_func=lambda name: _label(sets[name]) if name in sets else f"{name} · {SOURCES[name].words}",
    )
    if chosen in sets and (notes := sets[chosen].notes):
        with st.expander("How these images were read"):
            st.markdown("\n".join(f"- {plain(note)}" for note in notes))
    for fault in damaged_image_sets():
        st.warning(plain(fault))
    with st.expander("Add images", expanded=not sets), report_errors():
        _add()
    job_panel(library_jobs(), "data")
    return chosen


def _label(one: StoredImages) -> str:
    height, width, _ = one.shape
    skipped = f" · {one.unreadable:,} unreadable skipped" if one.unreadable else ""
    return f"{one.name} · {one.count:,} images, {one.classes:,} classes, {height} x {width}{skipped}"


def _add() -> None:
    prepare_calls()
    place = st.segmented_control("From", PLACES, default=PLACES[0], required=True, key="load_place")
    entry, download = _path(place)
    options, name, is_refused = _import_options(download)
    args = [*(["--name", name] if name else []), *arguments_of(options), *(["--download"] if download else [])]
    # The buttons are enabled before there is a path: a click that ends typing would meet a disabled button.
    preview, start, _ = st.columns([3, 3, 4])
    wants_preview = preview.button("Preview images", disabled=bool(download), key="load_look", width="stretch")
    wants_import = start.button("Import", type="primary", key="load_import", width="stretch")
    path = entry.path
    if path is None or is_refused:
        drop_call(_PREVIEW)
        if (wants_preview or wants_import) and not (entry.is_refused or is_refused):
            raise UserError("No images are chosen.", "Enter a path or choose a file above.")
        return
    arguments = image_arguments(path, options)
    if wants_preview:
        start_call(_PREVIEW, "images", arguments)
    if wants_import:
        start_job(f"Import {name or path.name}", ["data", "--path", str(path), *args])
    with report_errors("The preview"):
        if found := call_value(_PREVIEW, "images", arguments):
            _show(found)
    show_commands(["data", "--path", str(path), *args])


def _path(place: str) -> tuple[PathEntry, str]:
    """Return the location of the images, and the data set to download there first, if any."""
    if place == PLACES[0]:
        entry = path_input(
            st,
            "Folder, zip archive, or manifest (csv, parquet)",
            key="load_path",
            placeholder="/data/omniglot",
            help="One folder per class; the official files of Omniglot, MNIST, CIFAR-100 or mini-ImageNet; a manifest "
            "with path and label; or a data set saved by Hugging Face datasets. docs/data.md describes each.",
        )
        return entry, ""
    if place == PLACES[1]:
        upload = st.file_uploader(
            "Zip archive of class folders, or of a manifest with its images", type=["zip"], key="load_upload"
        )
        return PathEntry(save_upload(upload) if upload else None), ""
    left, right = st.columns(2)
    what = left.selectbox("Data set", DOWNLOADABLE, key="load_public")
    return path_input(right, "Folder to download to", key="load_public_path", placeholder="/data/omniglot"), what


def _import_options(download: str) -> tuple[ImportOptions, str, bool]:
    """Return the import options, the name of the image set, and whether a path among the options is refused.

    Downloaded data sets have a fixed format.
    """
    one, two, three = st.columns([2, 2, 3])
    name = one.text_input("Name of the image set", key="load_name", placeholder="auto-detect", max_chars=64).strip()
    formats = [download] if download else FORMATS
    format = widgets.select(two, ImportOptions, "format", key=f"load_format_{download}", choices=formats)
    splits = widgets.path(
        three, ImportOptions, "splits", key="load_splits", placeholder="auto-detect next to the images"
    )
    one, two, three = st.columns([2, 2, 3])
    level = widgets.text(one, ImportOptions, "class_level", key="load_class_level", placeholder="auto-detect")
    encoding = widgets.text(two, ImportOptions, "encoding", key="load_encoding", placeholder="UTF-8")
    table = widgets.text(three, ImportOptions, "table", key="load_table", placeholder="auto-detect")
    one, two, three = st.columns([2, 2, 3])
    size = widgets.text(one, ImportOptions, "size", key="load_size", placeholder="unchanged")
    fit = widgets.select(two, ImportOptions, "fit", key="load_fit")
    channels = widgets.select(
        three, ImportOptions, "channels", key="load_channels", format_func=_CHANNEL_NAMES.__getitem__
    )
    with st.container(horizontal=True):
        invert = widgets.checkbox(st, ImportOptions, "invert", key="load_invert")
        rotations = widgets.checkbox(st, ImportOptions, "rotations", key="load_rotations")
        skip = widgets.checkbox(st, ImportOptions, "skip_unreadable", key="load_skip")
    options = ImportOptions(
        format=format,
        splits=splits.path,
        class_level=level,
        table=table,
        size=size,
        fit=fit,
        channels=channels,
        invert=invert,
        rotations=rotations,
        encoding=encoding,
        skip_unreadable=skip,
    )
    return options, name, splits.is_refused


def _show(found: dict[str, Any]) -> None:
    show_report(found["report"])
    if preview := found["preview"]:
        classes, counts = preview["classes"], preview["counts"]
        sizes = [f"{name}: {count(counts[name], 'image')}" for name in classes]
        tiles = [
            Tile(str(at), shorten(name, 28), tooltip=size)
            for at, (name, size) in enumerate(zip(classes, sizes, strict=True))
        ]
        shown, total = len(set(classes)), len(counts)
        which = f"each of the {total:,} classes" if shown == total else f"the first {shown} of {total:,} classes"
        how = "as they will be stored" if preview["is_final"] else "on squares, until a size and a fit are chosen"
        st.caption(f"Up to {PREVIEW_IMAGES} images of {which}, {how}:")
        label = "Images as they will be stored"
        pixels = np.load(call_folder(_PREVIEW) / THUMBNAILS, allow_pickle=False)
        image_grid(pixels, tiles, key="load_preview", label=label, selectable=False)
