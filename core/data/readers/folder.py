"""Read class folders, or class folders below folders of splits, from disk or from a zip archive."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from core.data.archive import FolderTree, Tree, open_tree
from core.data.listing import SPLITS, Listing, make_table
from core.data.readers.common import (
    UNREAD_IMAGES,
    ReadOptions,
    is_image,
    source_name,
    split_word,
)
from core.data.readers.imagefolder import imagefolder_positions
from core.data.readers.layout import LAYOUT, Layout, LayoutError, PlacedImage, check_classes, infer_layout
from core.runtime.errors import UserError
from core.runtime.progress import format_count, format_names, left_out_note

_SHOWN_KINDS = 5


def read_folder(path: Path, options: ReadOptions) -> Listing:
    """Read ``root/<class>/**/<image>`` or ``root/<split>/<class>/**/<image>``; tables beside the images are ignored.

    Ids are paths below the root, which is the folder or archive itself or the only folder in it. Rows are in the order
    of torchvision's ``ImageFolder``; train comes before val before test.

    Raises:
        UserError: there are no images, they are not in class folders, there is only one class, or the classes are
            ambiguous.
    """
    tree = open_tree(path)
    return folder_listing(tree, layout_of(tree, images_in(tree), options))


def layout_of(tree: Tree, images: list[str], options: ReadOptions) -> Layout:
    """Return the layout of the images; raise LayoutError as :func:`core.data.readers.layout.infer_layout` does.

    Where class folders consist of links to a folder with the files, that folder is no class.
    """
    if pool := _pool(images, tree.copies):
        try:
            rest = [name for name in images if name not in pool]
            layout = infer_layout(rest, str(tree.path), options.class_levels)
            return replace(layout, left_out={**layout.left_out, "the files that links lead to": sorted(pool)})
        except LayoutError:  # all of these are in class folders, and the links are beside them
            pass
    return infer_layout(images, str(tree.path), options.class_levels)


def _pool(images: list[str], copies: Mapping[str, str]) -> set[str]:
    """Return the images in folders of which every image is what a link in another folder leads to."""
    linked = {file for link, file in copies.items() if link.rpartition("/")[0] != file.rpartition("/")[0]}
    others = {name.rpartition("/")[0] for name in images if name not in linked}
    return {name for name in images if name in linked and name.rpartition("/")[0] not in others}


def images_in(tree: Tree) -> list[str]:
    """Return the names of the images; raise UserError if there are none."""
    images = [name for name in tree.files if is_image(name)]
    if not images:
        found = format_names(tree.files) if tree.files else "nothing"
        raise UserError(f"There are no images in {tree.path}; found: {found}.", LAYOUT)
    return images


def folder_listing(
    tree: Tree, layout: Layout, notes: Iterable[str] = (), groups: Sequence[str] = (), read_files: Iterable[str] = ()
) -> Listing:
    """Return the listing of the images that a layout places.

    Args:
        notes: Further sentences for the user.
        groups: The group of every row of the layout.
        read_files: Files other than images that were read.
    """
    placed = {row.file for row in layout.rows}
    copies = {file for file in placed & tree.copies.keys() if tree.copies[file] in placed}
    kept = [at for at, row in enumerate(layout.rows) if row.file not in copies]
    rows = [layout.rows[at] for at in kept]
    check_classes(rows, str(tree.path))
    ids = [row.file.removeprefix(layout.root) for row in rows]
    table = make_table(
        ids, [row.name for row in rows], [row.split for row in rows], [groups[at] for at in kept] if groups else ()
    )
    folders = [folder for split in SPLITS for folder in layout.split_folders.get(split, ())] or [""]
    roots = [layout.root + folder for folder in folders]
    positions = imagefolder_positions(tree.path, roots, [row.file for row in rows])
    if positions is not None:
        table = table.assign(position=positions)
    return Listing(
        source_name(tree.path),
        table,
        lambda position: tree.read(rows[position].file),
        tree.stamp(),
        notes=(*layout.notes, *notes, *_left_out_notes(tree, layout, rows, copies, set(read_files))),
    )


def _left_out_notes(
    tree: Tree, layout: Layout, rows: list[PlacedImage], copies: set[str], read_files: set[str]
) -> list[str]:
    """Return a sentence on every kind of file that is not used."""
    notes = [left_out_note(files, "image", reason) for reason, files in layout.left_out.items()]
    if copies:
        notes.append(left_out_note(sorted(copies), "link", "to images that are listed under another name"))
    others = [name for name in tree.files if not is_image(name) and name not in read_files]
    unread = [name for name in others if name.lower().endswith(UNREAD_IMAGES)]
    if unread:
        endings = ", ".join(sorted({Path(name).suffix.lower() for name in unread}))
        why = f"in a format that is not read ({endings}); convert to PNG or JPEG"
        notes.append(left_out_note(unread, "image", why))
    if rest := sorted(set(others) - set(unread)):
        kinds = Counter(Path(name).suffix.lower() or "no extension" for name in rest)
        shown = ", ".join(f"{count:,} {kind}" for kind, count in kinds.most_common(_SHOWN_KINDS))
        count = format_count(len(rest), "file that is not an image", "files that are not images")
        notes.append(f"Left out: {count} ({shown}): {format_names(rest)}.")
    hidden = [name for name in tree.hidden if name.endswith("/") or is_image(name)]
    if hidden:
        notes.append(left_out_note(hidden, "item", "hidden, or made by the operating system"))
    if tree.repeated_folders:
        notes.append(left_out_note(tree.repeated_folders, "link", "to folders that are listed under another name"))
    if tree.outside:
        why = "to places outside the folders that the dashboard may read"
        notes.append(left_out_note(tree.outside, "link", why))
    if empty_splits := _empty_splits(tree, layout):
        notes.append(f"{format_count(len(empty_splits), 'split folder')} without images: {format_names(empty_splits)}.")
    if empty := _empty_class_folders(tree, layout, rows):
        notes.append(f"{format_count(len(empty), 'class folder')} without images: {format_names(empty)}.")
    return notes


def _empty_splits(tree: Tree, layout: Layout) -> list[str]:
    """Return the folders on disk beside those of the splits that are called like one."""
    if not layout.split_folders or not isinstance(tree, FolderTree):
        return []
    known = {folder for folders in layout.split_folders.values() for folder in folders}
    beside = (one.name for one in (tree.path / layout.root).iterdir() if one.is_dir())
    return sorted(name for name in beside if split_word(name) and f"{name}/" not in known)


def _empty_class_folders(tree: Tree, layout: Layout, rows: list[PlacedImage]) -> list[str]:
    """Return the folders at the depth of the class folders below which no image is used."""
    used = {row.file for row in rows} | {file for files in layout.left_out.values() for file in files}
    empty = set()
    for folder in [folder for folders in layout.split_folders.values() for folder in folders] or [""]:
        prefix = layout.root + folder
        inside = (name.removeprefix(prefix) for name in tree.files if name.startswith(prefix))
        found = {name.partition("/")[0] for name in inside if "/" in name}
        if isinstance(tree, FolderTree):  # only folders on disk can be empty
            found |= {one.name for one in (tree.path / prefix).iterdir() if one.is_dir()}
            hidden = (name.removeprefix(prefix) for name in tree.hidden if name.endswith("/"))
            found -= {name.rstrip("/") for name in hidden}
        filled = {file.removeprefix(prefix).partition("/")[0] for file in used if file.startswith(prefix)}
        filled |= {name.removeprefix(prefix).partition("/")[0] for name in tree.repeated_folders}
        empty |= {f"{folder}{name}" for name in found - filled}
    return sorted(empty)
