"""Step 1 of the Load page: choose an existing image set, or import one."""

from __future__ import annotations

from pathlib import Path

import streamlit as st

from core.actions.image_settings import FORMATS
from core.actions.images import ImportOptions
from core.actions.inspect import Inspection
from core.actions.inspect_images import Preview, inspect_images
from core.data import SOURCES
from core.data.download import DOWNLOADABLE
from core.data.store import StoredImages, damaged_image_sets, stored_image_sets
from core.runtime.settings import arguments_of
from core.ui.grid.component import Tile, image_grid
from core.ui.load.shared import command, finished, show_report, start_job
from core.ui.shell import settings_widgets as widgets
from core.ui.shell.context import keep_widget_state, shown_errors
from core.ui.shell.jobs import job_panel
from core.ui.shell.text import count, plain, shortened
from core.ui.shell.uploads import save_upload
from core.workspace.workspace import library_jobs

_CHANNEL_NAMES = {0: "as they are", 1: "grayscale", 3: "color"}
_CHOICE, _SEEN = "load_images", "_load_images_seen"
_PLACES = ("A path on this machine", "An upload", "A public data set")


def images_step() -> str | None:
    """Choose or add an image set; return its name."""
    st.subheader("1 · Images")
    sets = _newest()
    if new := finished("data"):
        st.session_state[_CHOICE] = next((name for name, one in sets.items() if str(one.folder) == new), "mnist5k")
    names = [*SOURCES, *sets]
    if keep_widget_state(_CHOICE, names[-1] if sets else names[0]) not in names:
        st.session_state[_CHOICE] = names[0]
    chosen = st.selectbox(
        "Image set",
        names,
        key=_CHOICE,
        format_func=lambda name: (
            _label(sets[name]) if name in sets else f"{name} · real digits that come with TaskLens"
        ),
    )
    if chosen in sets and (notes := sets[chosen].story.get("notes")):
        st.caption(plain(" ".join(notes)))
    for fault in damaged_image_sets():
        st.warning(plain(fault))
    with st.expander("Add images", expanded=not sets), shown_errors():
        _add()
    job_panel(library_jobs(), "data")
    return chosen


def _newest() -> dict[str, StoredImages]:
    """Return the newest image set of each name."""
    found: dict[str, StoredImages] = {}
    for one in stored_image_sets():
        found.setdefault(one.name, one)
    return found


def _label(one: StoredImages) -> str:
    height, width, _ = one.shape
    left_out = f" · {one.unreadable:,} unreadable left out" if one.unreadable else ""
    return f"{one.name} · {one.count:,} images, {one.classes:,} classes, {height} x {width}{left_out}"


def _add() -> None:
    place = st.segmented_control("From", _PLACES, default=_PLACES[0], required=True, key="load_place")
    path, download = _path(place)
    wishes, name = _wishes(download)
    options = _options(wishes, name) + (["--download"] if download else [])
    look, take, _ = st.columns([2, 2, 5])
    asked = look.button("Look at it", disabled=path is None or bool(download), key="load_look", width="stretch")
    taken = take.button("Import", type="primary", disabled=path is None, key="load_import", width="stretch")
    if path is None:
        return
    if asked:
        st.session_state.pop(_SEEN, None)
        with shown_errors():
            st.session_state[_SEEN] = (path, wishes, *_inspected(path, wishes))
    if taken:
        start_job(f"Import {name or path.name}", ["data", "--path", str(path), *options])
    seen = st.session_state.get(_SEEN)
    if seen and seen[:2] == (path, wishes):
        _show(seen[2], seen[3])
    command(["data", "--path", str(path), *options])


def _path(place: str) -> tuple[Path | None, str]:
    """Return the location of the images, and the data set to download there first, if any."""
    if place == _PLACES[0]:
        given = st.text_input(
            "Folder, zip archive, or manifest (csv, parquet)",
            key="load_path",
            placeholder="/data/omniglot",
            help="A folder a class; the official files of Omniglot, MNIST, CIFAR-100, mini-ImageNet; a manifest with "
            "path and label; a data set saved by Hugging Face datasets. docs/data.md shows each.",
        ).strip()
        return (Path(given).expanduser(), "") if given else (None, "")
    if place == _PLACES[1]:
        upload = st.file_uploader(
            "Zip of class folders, or of a manifest with its images", type=["zip"], key="load_upload"
        )
        return (save_upload(upload), "") if upload else (None, "")
    left, right = st.columns(2)
    what = left.selectbox("Data set", DOWNLOADABLE, key="load_public")
    given = right.text_input("Folder to download to", key="load_public_path", placeholder="/data/omniglot").strip()
    return (Path(given).expanduser(), what) if given else (None, what)


def _wishes(download: str) -> tuple[ImportOptions, str]:
    """Return the import options for the images and their format; downloaded data sets have a fixed format."""
    one, two, three = st.columns([2, 2, 3])
    name = one.text_input("Name of the image set", key="load_name", placeholder="as found", max_chars=64).strip()
    formats = [download] if download else FORMATS
    format = widgets.select(two, ImportOptions, "format", key=f"load_format_{download}", choices=formats)
    splits = widgets.text(
        three, ImportOptions, "splits", key="load_splits", placeholder="beside the images, if anywhere"
    )
    one, two, three, four = st.columns([2, 2, 2, 3], vertical_alignment="bottom")
    size = widgets.text(one, ImportOptions, "size", key="load_size", placeholder="as they are")
    channels = widgets.select(
        two, ImportOptions, "channels", key="load_channels", format_func=_CHANNEL_NAMES.__getitem__
    )
    encoding = widgets.text(three, ImportOptions, "encoding", key="load_encoding", placeholder="UTF-8")
    with four:
        invert = widgets.checkbox(st, ImportOptions, "invert", key="load_invert")
        rotations = widgets.checkbox(st, ImportOptions, "rotations", key="load_rotations")
        skip = widgets.checkbox(st, ImportOptions, "skip_unreadable", key="load_skip")
    folder = Path(splits).expanduser() if splits else None
    return ImportOptions(format, folder, size, channels, invert, rotations, encoding, skip), name


def _options(wishes: ImportOptions, name: str) -> list[str]:
    """Return the options of the data command."""
    return [*(["--name", name] if name else []), *arguments_of(wishes)]


def _inspected(path: Path, wishes: ImportOptions) -> tuple[Inspection, Preview | None]:
    with st.spinner("Looking"):
        return inspect_images(path, wishes)


def _show(report: Inspection, preview: Preview | None) -> None:
    show_report(report)
    if preview is not None:
        pixels = preview.pixels[..., 0] if preview.pixels.shape[-1] == 1 else preview.pixels
        tiles = [Tile(str(at), shortened(name, 28), tooltip=name) for at, name in enumerate(preview.classes)]
        st.caption(f"{count(len(tiles), 'image')}, spread over the set, as they will be read:")
        image_grid(pixels, tiles, key="load_preview", label="Images as they will be read", selectable=False)
