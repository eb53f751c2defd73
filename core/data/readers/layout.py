"""Infer from the names of image files which of their folders are splits, which are classes, and which are neither.

Only names are looked at. Where two readings differ in the number of classes, none is chosen: the error names both.
"""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from itertools import chain
from typing import NamedTuple

from core.data.listing import SPLITS
from core.data.readers.common import split_word, words_of
from core.runtime.errors import UserError
from core.runtime.progress import format_count, format_names

LAYOUT = "Make one folder per class and put its images in it: cats/1.png, dogs/1.png; or train/cats/1.png, and so on."
NO_CLASS_FOLDER = "not in a class folder"
MASK_FOLDERS = "masks, annotations or thumbnails of other images, by their folders"
MASK_FILES = "masks of the images beside them, by their names"
"""Reasons for which images are left out."""
_CONTAINERS = {
    *("image", "images", "img", "imgs", "jpg", "jpeg", "jpegs", "png", "jpegimages", "pictures", "photos", "dcim"),
    *("data", "dataset", "files", "all", "raw", "rgb", "unlabeled", "unlabelled", "pred", "prediction", "predict"),
    *("input", "inputs", "target", "targets"),
}
"""Names of folders that hold images without saying what is on them."""
_PART_WORDS = {"part", "parts", "batch", "batches", "chunk", "shard", "canon", "image", "images", "img", "imgs", "data"}
"""Words of the names of folders that hold a part of the images, such as ``images_001``."""
_UNSORTED = {"unlabeled", "unlabelled", "unsorted", "todo"}
_UNLABELLED = {"unlabeled", "unlabelled", "pred", "prediction", "predict", "extra", "submission", "unsup"}
_MASKS = {
    *("mask", "masks", "segmentation", "segmentations", "segmaps", "segmentationclass", "segmentationobject", "segmim"),
    *("annotation", "annotations", "annots", "trimap", "trimaps", "groundtruth", "ground_truth", "gt", "labels"),
    *("depth", "depths", "heatmaps", "saliency", "thumb", "thumbs", "thumbnails", "previews"),
}
"""Names of folders whose images describe other images, or repeat them."""
_MASK_WORDS = ("mask", "seg", "groundtruth", "gt", "trimap", "annotation", "label", "depth")
_MASK_FILE = re.compile(
    r"(?:[_.-](?:masks?|seg|segmentation|groundtruth|gt|trimap|annotation|label|labelids|depth|depthcrop|maskcrop)"
    r"(?:[ _-]?\d+)?|(?<=\d)mask)\.\w+$",
    re.IGNORECASE,
)
"""End of the name of a file that is a mask; it contains one of the words."""
_PARALLEL = 0.9
"""Share of a folder's file names that must occur beside it for its images to be masks of the others."""


def _is_container(name: str) -> bool:
    """Return whether a folder is called after images or parts of a data set rather than after a class."""
    words = [word for word in words_of(name) if not word.isdigit()]
    return name.lower() in _CONTAINERS or (bool(words) and all(word in _PART_WORDS for word in words))


class PlacedImage(NamedTuple):
    """An image file with its class, and its split or ``""``."""

    file: str
    name: str
    split: str


@dataclass(frozen=True)
class Layout:
    """A reading of file names.

    Attributes:
        rows: In the order of torchvision's ``ImageFolder``, train before val before test.
        root: Folder that contains the classes or splits, with a slash at its end; ``""``: the top.
        split_folders: The folders, relative to the root and with a slash at their end, of each split; none without
            splits above the classes.
        left_out: The images that are not used, by the reason.
        notes: Sentences on how the folders were read and what else they could mean.
    """

    rows: list[PlacedImage]
    root: str
    split_folders: Mapping[str, list[str]]
    left_out: Mapping[str, list[str]]
    notes: tuple[str, ...]


class LayoutError(UserError):
    """The folders do not say what the classes are."""


class _Folder(NamedTuple):
    """A folder with images directly in it."""

    levels: tuple[str, ...]  # names of the folders above and itself that are not yet explained
    files: list[str]  # as in the tree

    def below(self) -> _Folder:
        return _Folder(self.levels[1:], self.files)

    @property
    def stems(self) -> list[str]:
        return [file.rpartition("/")[2].rpartition(".")[0] for file in self.files]


_BySplit = dict[str, list[_Folder]]


def infer_layout(files: Iterable[str], where: str, class_levels: tuple[int, int] | None = None) -> Layout:
    """Find the classes and splits of image files.

    Args:
        files: Names of the images, with forward slashes.
        where: Name of the folder or archive in errors.
        class_levels: First and last level, from 1 below the root and the split folders, of the folders whose joined
            names are the class.

    Raises:
        LayoutError: the images are not in class folders, there is only one class, or there are several readings.
    """
    reader = _LayoutReader(where, class_levels)
    by_path: dict[str, list[str]] = defaultdict(list)
    for file in files:
        by_path[file.rpartition("/")[0]].append(file)
    folders = [_Folder(tuple(path.split("/")) if path else (), members) for path, members in by_path.items()]
    folders, root = _unwrap(folders)
    folders, deeper = _unwrap(reader.without_masks(folders))
    by_split, split_folders = reader.divide(folders)
    if not split_folders:
        by_split = _divide_below_classes(by_split)
    by_split = {split: reader.without_masks(members) for split, members in by_split.items()}
    by_split = _unwrap_splits(by_split, split_folders)
    first, last = reader.find_levels(by_split)
    rows = []
    for split, members in by_split.items():
        for folder in members:
            if len(folder.levels) >= last:
                name = "/".join(folder.levels[first - 1 : last])
                rows += [PlacedImage(file, name, split) for file in folder.files]
            else:
                reader.leave_out(NO_CLASS_FOLDER, folder.files)
    check_classes(rows, where)
    _check_splits(rows, where)
    rows.sort(key=row_order)
    return Layout(rows, root + deeper, split_folders, reader.left_out, tuple(reader.notes))


def check_classes(rows: Collection[PlacedImage], where: str) -> None:
    """Raise LayoutError unless there are at least two classes."""
    names = {row.name for row in rows}
    if len(names) < 2:
        found = f"in one folder, {names.pop()!r}" if names else "outside class folders"
        raise LayoutError(f"The images of {where} are all {found}; at least two classes are required.", LAYOUT)


def _check_splits(rows: Collection[PlacedImage], where: str) -> None:
    """Raise LayoutError if every split folder contains one folder, and each another one."""
    pairs = {(row.name, row.split) for row in rows}
    if len(pairs) == len({name for name, _ in pairs}) == len({split for _, split in pairs}):
        shown = ", ".join(f"{split} has only {name!r}" for name, split in sorted(pairs))
        raise LayoutError(f"Every split of {where} contains a single class, each a different one: {shown}.", LAYOUT)


def row_order(row: PlacedImage) -> tuple[int, str, str, str]:
    """Return ImageFolder's sort key: the folders of a class are sorted as whole paths, then the files in each."""
    folder, _, file = row.file.rpartition("/")
    return SPLITS.index(row.split) if row.split else 0, row.name, folder, file


def _tops(folders: Iterable[_Folder]) -> dict[str, list[_Folder]]:
    """Group folders by their first level."""
    tops: dict[str, list[_Folder]] = defaultdict(list)
    for folder in folders:
        if folder.levels:
            tops[folder.levels[0]].append(folder)
    return tops


def _unwrap(folders: list[_Folder]) -> tuple[list[_Folder], str]:
    """Remove folders around everything, such as that of an archive; return their names with a slash at the end."""
    root = ""
    while True:
        tops = _tops(folders)
        if len(tops) != 1 or all(len(folder.levels) < 2 for folder in folders):
            return folders, root
        (top,) = tops
        inner = _tops(folder.below() for folder in folders)
        if split_word(top) and not (inner and all(split_word(name) for name in inner)):
            return folders, root
        folders = [folder.below() for folder in folders]
        root += f"{top}/"


class _LayoutReader:
    """The steps of :func:`infer_layout` that leave something out, explain it, or refuse the folders."""

    def __init__(self, where: str, class_levels: tuple[int, int] | None) -> None:
        self.where, self.class_levels = where, class_levels
        self.left_out: dict[str, list[str]] = {}
        self.notes: list[str] = []

    def leave_out(self, reason: str, files: Iterable[str]) -> None:
        self.left_out.setdefault(reason, []).extend(files)

    def without_masks(self, folders: list[_Folder]) -> list[_Folder]:
        """Leave out images that describe others: in a folder beside theirs, or beside them under a longer name."""
        masks = {file for folder in folders for file in _mask_files(folder)}
        if masks:
            self.leave_out(MASK_FILES, sorted(masks))
            rest = [_Folder(above, [file for file in files if file not in masks]) for above, files in folders]
            folders = [folder for folder in rest if folder.files]
        if levels := _mask_folders(folders):
            self.leave_out(MASK_FOLDERS, _files(folder for folder in folders if folder.levels in levels))
            folders = [folder for folder in folders if folder.levels not in levels]
        return folders

    def divide(self, folders: list[_Folder]) -> tuple[_BySplit, dict[str, list[str]]]:
        """Divide the images by split folders, if these are at the top; return the folders of each split as well."""
        tops = _tops(folders)
        words = _split_words(tops, self.where) if not self.class_levels else _split_words(tops)
        others = [top for top in tops if top not in words]
        is_nested = {top: any(len(folder.levels) > 1 for folder in members) for top, members in tops.items()}
        are_classes = not any(is_nested[top] for top in words) and len(set(words.values())) < 2 and len(tops) > 1
        if not words or are_classes:  # are_classes: car, bus and train; test1 and test2
            unsorted = [top for top in tops if set(words_of(top)) & _UNSORTED and not self.class_levels]
            if len(tops) - len(unsorted) > 1:
                for top in unsorted:
                    self.leave_out(f"without a class by the folder {top!r}", _files(tops[top]))
                folders = [folder for folder in folders if not folder.levels or folder.levels[0] not in unsorted]
            return {"": folders}, {}
        aside = {top for top in others if top.lower() in _MASKS or set(words_of(top)) & _UNLABELLED}
        aside |= {top for top in others if _is_container(top) and not is_nested[top]}
        if rest := sorted(set(others) - aside):
            if self.class_levels:
                self.notes.append(
                    f"Folders called like splits are read like the others: {format_names(sorted(words))}."
                )
                return {"": folders}, {}
            raise LayoutError(
                f"{self.where} has both the splits {format_names(sorted(words))} and the folders {format_names(rest)}.",
                "Move the class folders into the splits, or import a folder that contains only the splits; if all of "
                "these are classes, add --class-level 1.",
            )
        for top in sorted(aside):
            self.leave_out(f"beside the splits, in {top!r}", _files(tops[top]))
        if loose := [folder for folder in folders if not folder.levels]:
            self.leave_out(NO_CLASS_FOLDER, _files(loose))
        by_split: _BySplit = {}
        names: dict[str, list[str]] = {}
        for split in SPLITS:
            if members := sorted(top for top, word in words.items() if word == split):
                by_split[split] = [folder.below() for top in members for folder in tops[top]]
                names[split] = [f"{top}/" for top in members]
        if any(names[split] != [f"{split}/"] for split in by_split):
            parts = [f"{format_names(names[split])} is {split}" for split in by_split]
            self.notes.append(f"Splits by folder: {'; '.join(parts)}.")
        return by_split, names

    def find_levels(self, by_split: _BySplit) -> tuple[int, int]:
        """Return the first and the last level of the folders that are the class."""
        folders = [folder for members in by_split.values() for folder in members]
        inside = [folder for folder in folders if folder.levels]
        if not inside:
            raise LayoutError(f"The images of {self.where} are not in class folders.", _loose_advice(folders))
        if self.class_levels:
            deepest = max(len(folder.levels) for folder in inside)
            if self.class_levels[1] > deepest:
                levels = format_count(deepest, "level")
                what = f"{self.where} has {levels} of folders with images, not {self.class_levels[1]}."
                raise LayoutError(what, "Use a smaller --class-level.")
            return self.class_levels
        tops = _tops(inside)
        if all(_is_container(top) or top.lower() in _MASKS for top in tops):
            what = f"The folders {format_names(sorted(tops))} of {self.where} are not named after classes."
            choice = " If they are the classes, add --class-level 1." if len(tops) > 1 else ""
            raise LayoutError(what, _loose_advice(folders) + choice)
        leaves = {top: {folder.levels for folder in members} for top, members in tops.items()}
        nested = sorted(top for top, levels in leaves.items() if len(levels) > 1)
        if not all((top,) in leaves[top] for top in nested):
            raise LayoutError(*_readings(inside, self.where))
        if nested:
            deep = sorted(_files(folder for folder in inside if len(folder.levels) > 1))
            self.notes.append(
                f"{format_count(len(deep), 'image')} in folders below the class folders count as these classes: "
                f"{format_names(deep)}. To make folders of the second level classes, add --class-level 1-2."
            )
        return 1, 1


def _files(folders: Iterable[_Folder]) -> list[str]:
    return [file for folder in folders for file in folder.files]


def _mask_folders(folders: list[_Folder]) -> set[tuple[str, ...]]:
    """Return the levels of the folders of masks, by their names and the images of the folders beside or above them."""
    children: dict[tuple[str, ...], dict[str, list[_Folder]]] = defaultdict(lambda: defaultdict(list))
    for folder in folders:
        for depth, name in enumerate(folder.levels):
            children[folder.levels[:depth]][name].append(folder)
    with_images = {folder.levels for folder in folders}
    masks: set[tuple[str, ...]] = set()
    for parent, members in children.items():
        names = {name for name in members if name.lower() in _MASKS}
        others = {name: beside for name, beside in members.items() if name not in names}
        for name in names:
            is_inside = bool(parent) and parent in with_images  # cat/1.png and cat/masks/1.png
            if is_inside or (others and _are_masks(members[name], others, len(parent))):
                masks |= {folder.levels for folder in members[name]}
    return masks


def _are_masks(folders: list[_Folder], others: Mapping[str, list[_Folder]], depth: int) -> bool:
    """Return whether the images below a name of masks belong to those of the folders beside it."""
    if any(_is_container(name) or split_word(name) for name in others):
        return True
    beside = list(chain(*others.values()))
    are_nested = all(len(folder.levels) > depth + 1 for folder in chain(folders, beside))
    if len(others) < 2 and not are_nested:  # mask and no_mask are two classes
        return False

    def keys(folders: list[_Folder]) -> list[tuple[tuple[str, ...], str]]:
        """Return the innermost folder below the depth, if there is one, and the stem of every file."""
        return [(folder.levels[depth + 1 :][-1:], stem) for folder in folders for stem in folder.stems]

    # Numbered files occur in every class; a mask has the name of one image.
    counts, of_masks = Counter(keys(beside)), keys(folders)
    return sum(counts[key] == 1 for key in of_masks) >= _PARALLEL * len(of_masks)


def _mask_files(folder: _Folder) -> list[str]:
    """Return the files whose name is that of another file in the folder, followed by a word such as mask."""
    text = "\n".join(folder.files).lower()
    if not any(word in text for word in _MASK_WORDS):  # faster than the pattern, which matches few folders
        return []
    suspected = [(file, match) for file in folder.files if (match := _MASK_FILE.search(file))]
    if not suspected:
        return []
    known = {file.rpartition(".")[0] for file in folder.files}
    return [file for file, match in suspected if file[: match.start()] in known]


def _split_words(names: Collection[str], where: str = "") -> dict[str, str]:
    """Return the split that each folder names: ``seg_train``, ``fruits_Training`` beside ``fruits_Test``.

    Raises:
        LayoutError: folders such as trainA and testB name a split and something else, if ``where`` is not empty.
    """
    found = {name: split for name in names if (split := split_word(name))}
    if found:
        return found
    rests: dict[str, tuple[str, tuple[str, ...]]] = {}
    for name in names:
        words = words_of(name)
        hits = [word for word in words if split_word(word)]
        if len(hits) == 1:
            rests[name] = split_word(hits[0]), tuple(word for word in words if word != hits[0])
    if len(rests) != len(names) or len({split for split, _ in rests.values()}) < 2:
        return {}
    if len({rest for _, rest in rests.values()}) > 1 and where:
        raise LayoutError(
            f"The folders {format_names(sorted(names))} of {where} are named after a split and something else.",
            "Make folders train and test with the class folders in them; if all of these are classes, add "
            "--class-level 1.",
        )
    return {name: split for name, (split, _) in rests.items()}


def _divide_below_classes(by_split: _BySplit) -> _BySplit:
    """Divide the images by split folders inside the class folders, as in ``cat/train/1.png``."""
    folders = [folder for members in by_split.values() for folder in members if folder.levels]
    loose = [folder for members in by_split.values() for folder in members if not folder.levels]
    for level in range(1, min((len(folder.levels) for folder in folders), default=0)):
        words = {name: split_word(name) for name in {folder.levels[level] for folder in folders}}
        if all(words.values()) and len(set(words.values())) > 1:
            divided: _BySplit = defaultdict(list, {"": loose} if loose else {})
            for levels, files in folders:
                divided[words[levels[level]]].append(_Folder(levels[:level] + levels[level + 1 :], files))
            return divided
    return by_split


def _unwrap_splits(by_split: _BySplit, split_folders: Mapping[str, list[str]]) -> _BySplit:
    """Remove folders around the classes of a split, such as ``train/train`` and ``test/images``."""
    if set(by_split) == {""}:
        return by_split
    while True:
        tops = {split: _tops(members) for split, members in by_split.items()}
        single = {split: next(iter(names)) for split, names in tops.items() if len(names) == 1}
        nested = {split for split in single if any(len(folder.levels) > 1 for folder in by_split[split])}
        is_shared = nested == set(by_split) and len(set(single.values())) == 1
        wrapped = set(single) if is_shared else set()
        for split, top in single.items():
            is_class = any(top in names for other, names in tops.items() if other != split and len(names) > 1)
            is_named = split_word(top) or _is_container(top) or f"{top}/" in split_folders.get(split, ())
            if is_named and not is_class:
                wrapped.add(split)
        if not wrapped:
            return by_split
        for split in wrapped:
            by_split[split] = [folder.below() for folder in by_split[split]]


def _readings(folders: list[_Folder], where: str) -> tuple[str, str]:
    """Return the error, and the choice, for folders in folders."""
    readings: dict[str, list[str]] = {}
    seen = set()
    for level in range(1, max(len(folder.levels) for folder in folders) + 1):
        reached = [folder.levels for folder in folders if len(folder.levels) >= level]
        for option, first in ((f"{level}", level - 1), (f"1-{level}", 0)):
            names = ["/".join(levels[first:level]) for levels in reached]
            numbers = {name: number for number, name in enumerate(dict.fromkeys(names))}
            partition = tuple(numbers[name] for name in names)
            if len(set(names)) > 1 and partition not in seen:
                seen.add(partition)
                readings[option] = sorted(set(names))
    shown = [f"{format_count(len(names), 'class', 'classes')} ({format_names(names)})" for names in readings.values()]
    choices = [f"--class-level {option} for {len(names):,}" for option, names in readings.items()]
    what = f"{where} contains folders in folders, and several levels could be the classes: {'; or '.join(shown)}."
    by_top = {top: {folder.levels[1:] for folder in members} for top, members in _tops(folders).items()}
    are_versions = len(by_top) > 1 and len({frozenset(levels) for levels in by_top.values()}) == 1
    fix = f"Choose with {', or '.join(choices)}."
    if are_versions:
        fix += f" If {format_names(sorted(by_top))} hold versions of the same images, import one of them."
    return what, fix


def _loose_advice(folders: list[_Folder]) -> str:
    """Return what to do with images outside class folders; their names may begin with their classes."""
    stems = [stem for folder in folders for stem in folder.stems]
    names = sorted({re.split(r"[^A-Za-z]", stem, maxsplit=1)[0] for stem in stems})
    if "" not in names and 1 < len(names) <= len(stems) // 2:
        return (
            f"Their names begin with {format_names(names)}: if these are the classes, import a table with the columns "
            f"path and label. Otherwise: {LAYOUT}"
        )
    return f"{LAYOUT} Or import a table with the columns path and label."
