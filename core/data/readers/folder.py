"""Read class folders, or class folders below ``train``, ``val`` and ``test``, from disk or from a zip archive."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

from core.data.archive import FolderTree, Tree, open_tree
from core.data.listing import SPLITS, Listing, make_table
from core.data.readers.common import SPLIT_WORDS, ReadOptions, format_names, is_image, source_name
from core.runtime.errors import UserError
from core.runtime.progress import format_count

LAYOUT = "Make one folder per class and put its images in it: cats/1.png, dogs/1.png; or train/cats/1.png, and so on."


def read_folder(path: Path, options: ReadOptions) -> Listing:
    """Read ``root/<class>/**/<image>`` or ``root/<split>/<class>/**/<image>``.

    Ids are paths below the root, which is the folder or archive itself or the only folder in it. Rows are in the order
    of torchvision's ``ImageFolder``; train comes before val before test.

    Raises:
        UserError: there are no images, they are not in class folders, or there is only one class.
    """
    tree = open_tree(path)
    images = [name for name in tree.files if is_image(name)]
    if not images:
        found = format_names(tree.files) if tree.files else "nothing"
        raise UserError(f"There are no images in {path}; found: {found}.", LAYOUT)
    root = _root(images)
    rows, loose = _rows([name.removeprefix(root) for name in images], path)
    if len({row.name for row in rows}) < 2:
        where = f"in one folder, {rows[0].name!r}" if rows else "outside class folders"
        raise UserError(f"The images of {path} are all {where}; at least two classes are required.", LAYOUT)
    return Listing(
        source_name(path),
        make_table([row.file for row in rows], [row.name for row in rows], [row.split for row in rows]),
        lambda position: tree.read(root + rows[position].file),
        tree.stamp(),
        notes=_notes(tree, root, rows, loose, len(tree.files) - len(images)),
    )


class _Row(NamedTuple):
    file: str  # relative to the root
    name: str  # class name
    split: str

    @property
    def order(self) -> tuple[int, str, str, str]:
        """Return ImageFolder's sort key: the folders of a class are sorted as whole paths, then the files in each."""
        folder, _, file = self.file.rpartition("/")
        return SPLITS.index(self.split) if self.split else 0, self.name, folder, file


def _root(images: list[str]) -> str:
    """Return the prefix to strip: the single top-level folder that archives often have."""
    tops = {name.partition("/")[0] for name in images}
    if len(tops) != 1 or min(name.count("/") for name in images) < 2:
        return ""
    (top,) = tops
    inner = {name.split("/", 2)[1] for name in images}
    if top.lower() in SPLIT_WORDS and not all(word.lower() in SPLIT_WORDS for word in inner):
        return ""
    return f"{top}/"


def _rows(files: list[str], path: Path) -> tuple[list[_Row], list[str]]:
    """Return the sorted images in class folders, and the images outside them."""
    parts = {file: file.split("/") for file in files}
    tops = {part[0] for part in parts.values() if len(part) > 1}
    split_tops = {top for top in tops if top.lower() in SPLIT_WORDS}
    if split_tops == tops:
        loose = [file for file, part in parts.items() if len(part) < 3]
        if tops and len(loose) == len(files):
            shown = format_names(sorted(tops))
            raise UserError(f"The images in the folders {shown} of {path} are not in class folders.", LAYOUT)
        rows = [_Row(file, part[1], SPLIT_WORDS[part[0].lower()]) for file, part in parts.items() if len(part) > 2]
    elif len({SPLIT_WORDS[top.lower()] for top in split_tops}) > 1:
        raise UserError(
            f"{path} has both the splits {format_names(sorted(split_tops))} and the folders "
            f"{format_names(sorted(tops - split_tops))}.",
            "Move the class folders into the splits, or import a folder that contains only the splits.",
        )
    else:
        loose = [file for file, part in parts.items() if len(part) < 2]
        rows = [_Row(file, part[0], "") for file, part in parts.items() if len(part) > 1]
    return sorted(rows, key=lambda row: row.order), loose


def _notes(tree: Tree, root: str, rows: list[_Row], loose: list[str], others: int) -> tuple[str, ...]:
    notes = []
    depth = 2 if rows[0].split else 1
    if rows[0].split:
        parts = [f"{format_count(sum(row.split == split for row in rows), 'image')} in {split}" for split in SPLITS]
        notes.append(f"Split by folder: {', '.join(parts)}.")
    if loose:
        notes.append(f"{format_count(len(loose), 'image')} outside class folders skipped: {format_names(loose)}.")
    if others:
        notes.append(f"{format_count(others, 'file')} skipped whose name is not that of an image.")
    if empty := sorted(_class_folders(tree, root, depth) - {"/".join(row.file.split("/")[:depth]) for row in rows}):
        notes.append(f"{format_count(len(empty), 'class folder')} without images: {format_names(empty)}.")
    return tuple(notes)


def _class_folders(tree: Tree, root: str, depth: int) -> set[str]:
    """Return the folders at the depth of class folders, with or without images."""
    inside = (name.removeprefix(root).split("/") for name in tree.files if name.startswith(root))
    found = {"/".join(parts[:depth]) for parts in inside if len(parts) > depth}
    if isinstance(tree, FolderTree):  # only folders on disk can be empty
        base = tree.path / root
        folders = [folder.relative_to(base) for folder in base.glob("/".join("*" * depth)) if folder.is_dir()]
        found |= {folder.as_posix() for folder in folders if not any(part.startswith(".") for part in folder.parts)}
    return found
