"""Read Omniglot (Lake et al. 2015): the official archives, unpacked or not, wherever other libraries place them."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any, NamedTuple

from pydantic import TypeAdapter, ValidationError

from core.data.archive import Tree, open_tree
from core.data.listing import Listing, TargetFormat, make_table
from core.data.readers.common import ReadOptions, is_image
from core.data.readers.split_lists import find_split_lists
from core.runtime.errors import UserError
from core.runtime.progress import format_count, left_out_note

PARTS = {"images_background": 964, "images_evaluation": 659}
"""The two official archives and the number of characters in each."""
_SPLIT_OF_PART = {"images_background": "train", "images_evaluation": "test", "": ""}
DRAWERS = 20
FORM = TargetFormat(size=(28, 28), channels=1, invert=True)

_FOLDERS = ("", "omniglot-py", "omniglot", "python")  # torchvision and learn2learn create the second
_IMAGE = re.compile(r"(?:^|/)((?:(images_(?:background|evaluation))/)?([^/]+/character\d+)/\d+_(\d+)\.png)$")
_LISTS = TypeAdapter(dict[str, dict[str, list[str]]])
_EXPECTED = "Put images_background.zip and images_evaluation.zip, or the folders of the same names, in it."


def read_omniglot(path: Path, options: ReadOptions) -> Listing:
    """Read a folder with the two archives or folders, the same in ``omniglot-py``, or a single archive.

    Classes are ``Alphabet/characterNN``; ids ``images_background/Alphabet/characterNN/0001_01.png``; groups are the
    drawers 01 to 20. Rows are sorted by id within each part. The split comes from lists in torchmeta's format
    (``{"background": {"Greek": ["character01", ...]}}``) if there are any; otherwise background is for training and
    evaluation for testing (Lake et al. 2015). Folders of alphabets outside these two parts have no split.

    Raises:
        UserError: neither part is found, or a list has another format.
    """
    sources = _sources(path)
    trees = [open_tree(source) for source in sources]
    images, others = _images(trees, _images_beside(path, sources))
    if not images:
        raise UserError(f"There is no Omniglot in {path}.", _EXPECTED)
    lists = find_split_lists(path, options.splits, "omniglot_vinyals")
    notes = [*_completeness_notes(images, lists is not None), *others]
    if lists is None:
        splits = {image.name: _SPLIT_OF_PART[image.part] for image in images}
        if any(splits.values()):
            notes.append("Split: the background alphabets for training, the evaluation alphabets for testing.")
    else:
        splits, list_notes = lists.assign({image.name for image in images}, _class_names)
        notes += list_notes
        images = [image for image in images if image.name in splits]
        if not images:
            raise UserError(f"The lists in {lists.where} contain no character of {path}.", "Use lists of Omniglot.")
    _, _, ids, _, names, drawers = zip(*images, strict=True)
    return Listing(
        "omniglot",
        make_table(ids, names, [splits[name] for name in names], drawers),
        lambda position: images[position].tree.read(images[position].file),
        [[tree.stamp() for tree in trees], lists.lists if lists else None],
        form=FORM,
        notes=tuple(notes),
    )


def is_omniglot(names: list[str]) -> bool:
    """Return whether files with these names are for :func:`read_omniglot`."""
    archives = {f"{folder}/{part}.zip".lstrip("/") for folder in _FOLDERS for part in PARTS}
    if not archives.isdisjoint(names):
        return True
    if any("images_" in name and (match := _IMAGE.search(name)) and match[2] for name in names):
        return True
    images = list(filter(is_image, names))
    return bool(images) and all(map(_IMAGE.search, images))


class _Image(NamedTuple):
    tree: Tree
    file: str
    id: str
    part: str
    name: str  # of its class: alphabet/character
    drawer: str


def _sources(path: Path) -> list[Path]:
    """Return the archives or folders to read; prefer a part's archive, because its folder may be half unpacked."""
    if not path.is_dir():
        return [path]
    found = []
    for part in PARTS:
        for folder in _FOLDERS:
            archive, unpacked = path / folder / f"{part}.zip", path / folder / part
            if archive.is_file() or unpacked.is_dir():
                found.append(archive if archive.is_file() else unpacked)
                break
    return found or [path]


def _images_beside(path: Path, sources: list[Path]) -> list[str]:
    """Return the names of the images in the folder that are in none of the sources."""
    if not path.is_dir() or path in sources:
        return []
    folders = tuple(f"{source.relative_to(path).as_posix()}/" for source in sources)
    return [name for name in open_tree(path).files if is_image(name) and not name.startswith(folders)]


def _images(trees: list[Tree], beside: list[str]) -> tuple[list[_Image], list[str]]:
    """Return the images of characters, and notes on other images, those ``beside`` the parts too, and on copies."""
    found: dict[str, _Image] = {}
    others, copies = list(beside), []
    for tree in trees:
        # A part that is opened as a folder lacks its own name in the paths.
        prefix = f"{tree.path.name}/" if tree.path.name in PARTS else ""
        for file in tree.files:
            if match := _IMAGE.search(prefix + file):
                image = _Image(tree, file, match[1], match[2] or "", match[3], match[4])
                if found.setdefault(image.id, image) is not image:
                    copies.append(file)
            elif is_image(file):
                others.append(file)
    notes = [left_out_note(others, "image", "not of Omniglot")] if others else []
    notes += [left_out_note(copies, "image", "of a character that is there already")] if copies else []
    return [found[name] for name in sorted(found, key=lambda name: name.split("/"))], notes


def _completeness_notes(images: list[_Image], has_lists: bool) -> list[str]:
    if not any(image.part for image in images):
        note = "Omniglot's characters, one folder per alphabet"
        if has_lists:
            return [f"{note}."]
        folders = "images_background and images_evaluation"
        return [f"{note}; without the folders {folders} they have no split: --splits names lists of one."]
    notes = []
    for part, characters in PARTS.items():
        members = [image for image in images if image.part == part]
        classes = len({image.name for image in members})
        if not members:
            notes.append(f"{part} is missing; the official data set has {characters} more characters in it.")
        elif (classes, len(members)) != (characters, characters * DRAWERS):
            notes.append(
                f"{part} has {format_count(classes, 'character')} and {format_count(len(members), 'image')}; "
                f"the official one has {characters} and {characters * DRAWERS:,}."
            )
    return notes


def _class_names(content: Any, file: str) -> list[str]:
    try:
        parts = _LISTS.validate_python(content, strict=True)
    except ValidationError as error:
        raise UserError(
            f"{file} does not list characters by part and alphabet.",
            'It must look like {"background": {"Greek": ["character01"]}, "evaluation": {}}.',
        ) from error
    members = [item for alphabets in parts.values() for item in alphabets.items()]
    return [f"{alphabet}/{character}" for alphabet, characters in members for character in characters]
