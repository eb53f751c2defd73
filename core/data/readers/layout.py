"""Infer from the names of image files which of their folders are splits, which are classes, and which are neither.

Only names are looked at. Where two readings differ in the number of classes, none is chosen: the error names both.
"""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import NamedTuple

from core.data.listing import SPLITS
from core.data.readers.common import format_names, split_word, words_of
from core.runtime.errors import UserError
from core.runtime.progress import format_count

LAYOUT = "Make one folder per class and put its images in it: cats/1.png, dogs/1.png; or train/cats/1.png, and so on."
NO_CLASS_FOLDER, MASK_FOLDERS = "not in a class folder", "masks or annotations of other images, by their folders"
MASK_FILES = "masks of the images beside them, by their names"
"""Reasons for which images are left out."""
_CONTAINERS = {"image", "images", "img", "imgs", "jpg", "jpeg", "jpegs", "png", "jpegimages", "pictures", "photos"} | {
    *("data", "dataset", "files", "all", "raw", "rgb", "unlabeled", "unlabelled", "pred", "prediction", "predict")
}
"""Names of folders that hold images without saying what is on them."""
_UNLABELLED = {"unlabeled", "unlabelled", "pred", "prediction", "predict", "extra", "submission", "unsup"}
_MASKS = {"mask", "masks", "segmentation", "segmentations", "segmaps", "annotation", "annotations", "annots"} | {
    *("trimap", "trimaps", "groundtruth", "ground_truth", "gt", "depth", "depths", "heatmaps", "saliency", "labels")
}
"""Names of folders whose images describe other images pixel by pixel."""
_MASK_FILE = re.compile(r"[ _.-](mask|seg|segmentation|groundtruth|gt|trimap|annotation)([ _-]?\d+)?$", re.IGNORECASE)
_PARALLEL = 0.9
"""Share of a folder's file names that must occur beside it for its images to be masks of the others."""


class Row(NamedTuple):
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

    rows: list[Row]
    root: str
    split_folders: Mapping[str, list[str]]
    left_out: Mapping[str, list[str]]
    notes: tuple[str, ...]


class LayoutError(UserError):
    """The folders do not say what the classes are."""


class _Image(NamedTuple):
    file: str  # as in the tree
    folders: tuple[str, ...]  # those that are not yet explained

    def below(self, depth: int = 1) -> _Image:
        return _Image(self.file, self.folders[depth:])

    @property
    def stem(self) -> str:
        return self.file.rpartition("/")[2].rpartition(".")[0]


_BySplit = dict[str, list[_Image]]


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
    images = [_Image(file, tuple(file.split("/")[:-1])) for file in files]
    images, root = _unwrap(images)
    images, deeper = _unwrap(reader.without_masks(images))
    by_split, split_folders = reader.divide(images)
    if not split_folders:
        by_split = _divide_below_classes(by_split)
    by_split = {split: reader.without_masks(members) for split, members in by_split.items()}
    by_split = _unwrap_splits(by_split)
    first, last = reader.find_levels(by_split)
    rows = []
    for split, members in by_split.items():
        for image in members:
            if len(image.folders) >= last:
                rows.append(Row(image.file, "/".join(image.folders[first - 1 : last]), split))
            else:
                reader.leave_out(NO_CLASS_FOLDER, [image])
    if len({row.name for row in rows}) < 2:
        found = f"in one folder, {rows[0].name!r}" if rows else "outside class folders"
        raise LayoutError(f"The images of {where} are all {found}; at least two classes are required.", LAYOUT)
    rows.sort(key=row_order)
    return Layout(rows, root + deeper, split_folders, reader.left_out, tuple(reader.notes))


def row_order(row: Row) -> tuple[int, str, str, str]:
    """Return ImageFolder's sort key: the folders of a class are sorted as whole paths, then the files in each."""
    folder, _, file = row.file.rpartition("/")
    return SPLITS.index(row.split) if row.split else 0, row.name, folder, file


def _tops(images: Iterable[_Image]) -> dict[str, list[_Image]]:
    """Group the images in folders by their first one."""
    tops: dict[str, list[_Image]] = defaultdict(list)
    for image in images:
        if image.folders:
            tops[image.folders[0]].append(image)
    return tops


def _unwrap(images: list[_Image]) -> tuple[list[_Image], str]:
    """Remove folders around everything, such as that of an archive; return their names with a slash at the end."""
    root = ""
    while True:
        tops = _tops(images)
        if len(tops) != 1 or all(len(image.folders) < 2 for image in images):
            return images, root
        (top,) = tops
        inner = [name for name in _tops(image.below() for image in images) if name]
        if split_word(top) and not (inner and all(split_word(name) for name in inner)):
            return images, root
        images = [image.below() for image in images]
        root += f"{top}/"


class _LayoutReader:
    """The steps of :func:`infer_layout` that leave something out, explain it, or refuse the folders."""

    def __init__(self, where: str, class_levels: tuple[int, int] | None) -> None:
        self.where, self.class_levels = where, class_levels
        self.left_out: dict[str, list[str]] = {}
        self.notes: list[str] = []

    def leave_out(self, reason: str, images: Iterable[_Image]) -> None:
        self.left_out.setdefault(reason, []).extend(image.file for image in images)

    def without_masks(self, images: list[_Image]) -> list[_Image]:
        """Leave out images that describe others: in a folder beside theirs, or beside them under a longer name."""
        for reason, masks in ((MASK_FILES, _mask_files(images)), (MASK_FOLDERS, _in_mask_folders(images))):
            if masks:
                self.leave_out(reason, (image for image in images if image.file in masks))
                images = [image for image in images if image.file not in masks]
        return images

    def divide(self, images: list[_Image]) -> tuple[_BySplit, dict[str, list[str]]]:
        """Divide the images by split folders, if these are at the top; return the folders of each split as well."""
        tops = _tops(images)
        words = _split_words(tops)
        others = [top for top in tops if top not in words]
        is_nested = {top: any(len(image.folders) > 1 for image in members) for top, members in tops.items()}
        are_classes = not any(is_nested[top] for top in words) and len(set(words.values())) < 2 and len(tops) > 1
        if not words or are_classes:  # are_classes: car, bus and train; test1 and test2
            return {"": images}, {}
        aside = {top for top in others if top.lower() in _MASKS or set(words_of(top)) & _UNLABELLED}
        aside |= {top for top in others if top.lower() in _CONTAINERS and not is_nested[top]}
        if rest := sorted(set(others) - aside):
            if self.class_levels:
                return {"": images}, {}
            raise LayoutError(
                f"{self.where} has both the splits {format_names(sorted(words))} and the folders {format_names(rest)}.",
                "Move the class folders into the splits, or import a folder that contains only the splits; if all of "
                "these are classes, add --class-level 1.",
            )
        for top in sorted(aside):
            self.leave_out(f"beside the splits, in {top!r}", tops[top])
        if loose := [image for image in images if not image.folders]:
            self.leave_out(NO_CLASS_FOLDER, loose)
        by_split: _BySplit = {}
        folders: dict[str, list[str]] = {}
        for split in SPLITS:
            if members := sorted(top for top, word in words.items() if word == split):
                by_split[split] = [image.below() for top in members for image in tops[top]]
                folders[split] = [f"{top}/" for top in members]
        if any(folders[split] != [f"{split}/"] for split in by_split):
            parts = [f"{format_names(folders[split])} is {split}" for split in by_split]
            self.notes.append(f"Splits by folder: {'; '.join(parts)}.")
        return by_split, folders

    def find_levels(self, by_split: _BySplit) -> tuple[int, int]:
        """Return the first and the last level of the folders that are the class."""
        images = [image for members in by_split.values() for image in members]
        inside = [image for image in images if image.folders]
        if not inside:
            raise LayoutError(f"The images of {self.where} are not in class folders.", _loose_advice(images))
        if self.class_levels:
            deepest = max(len(image.folders) for image in inside)
            if self.class_levels[1] > deepest:
                levels = format_count(deepest, "level")
                what = f"{self.where} has {levels} of folders with images, not {self.class_levels[1]}."
                raise LayoutError(what, "Use a smaller --class-level.")
            return self.class_levels
        tops = _tops(inside)
        if all(top.lower() in _CONTAINERS | _MASKS for top in tops):
            shown = format_names(sorted(tops))
            raise LayoutError(
                f"The folders {shown} of {self.where} are not named after classes.",
                f"{LAYOUT} If they are the classes, add --class-level 1.",
            )
        leaves = {top: {image.folders for image in members} for top, members in tops.items()}
        nested = sorted(top for top, folders in leaves.items() if len(folders) > 1)
        if not all((top,) in leaves[top] for top in nested):
            raise LayoutError(*_readings(inside, self.where))
        if nested:
            deep = [image.file for image in inside if len(image.folders) > 1]
            self.notes.append(
                f"{format_count(len(deep), 'image')} in folders below the class folders count as these classes: "
                f"{format_names(deep)}. To make folders of the second level classes, add --class-level 1-2."
            )
        return 1, 1


def _in_mask_folders(images: list[_Image]) -> set[str]:
    """Return the files in folders with the name of masks whose images belong to those of the folders beside them."""
    children: dict[tuple[str, ...], _BySplit] = defaultdict(lambda: defaultdict(list))
    for image in images:
        for depth, name in enumerate(image.folders):
            children[image.folders[:depth]][name].append(image)
    masks: set[str] = set()
    for parent, members in children.items():
        names = {name for name in members if name.lower() in _MASKS}
        others = [name for name in members if name not in names]
        for name in names if others else ():
            if _is_mask_folder(members[name], [members[other] for other in others], others, len(parent)):
                masks |= {image.file for image in members[name]}
    return masks


def _is_mask_folder(images: list[_Image], others: list[list[_Image]], names: Sequence[str], depth: int) -> bool:
    """Return whether the images of a folder with the name of masks belong to those of the folders beside it."""
    if any(name.lower() in _CONTAINERS for name in names):
        return True
    are_nested = all(len(image.folders) > depth + 1 for image in chain(images, *others))
    if len(others) < 2 and not are_nested:  # mask and no_mask are two classes
        return False
    stems = {image.stem for other in others for image in other}
    return sum(image.stem in stems for image in images) >= _PARALLEL * len(images)


def _mask_files(images: list[_Image]) -> set[str]:
    """Return the files whose name is that of another file in the same folder, followed by a word such as mask."""
    suspected = [(image, match) for image in images if (match := _MASK_FILE.search(image.stem))]
    known = {(image.folders, image.stem) for image in images} if suspected else set()
    return {image.file for image, match in suspected if (image.folders, image.stem[: match.start()]) in known}


def _split_words(names: Collection[str]) -> dict[str, str]:
    """Return the split that each folder names: ``seg_train``, ``fruits_Training`` beside ``fruits_Test``."""
    found = {name: split for name in names if (split := split_word(name))}
    if found:
        return found
    rests: dict[str, tuple[str, tuple[str, ...]]] = {}
    for name in names:
        words = words_of(name)
        hits = [word for word in words if split_word(word)]
        if len(hits) == 1:
            rests[name] = split_word(hits[0]), tuple(word for word in words if word != hits[0])
    is_split = len(rests) == len(names) > 1 and len({rest for _, rest in rests.values()}) == 1
    return {name: split for name, (split, _) in rests.items()} if is_split else {}


def _divide_below_classes(by_split: _BySplit) -> _BySplit:
    """Divide the images by split folders inside the class folders, as in ``cat/train/1.png``."""
    images = [image for members in by_split.values() for image in members if image.folders]
    loose = [image for members in by_split.values() for image in members if not image.folders]
    for level in range(1, min((len(image.folders) for image in images), default=0)):
        words = {name: split_word(name) for name in {image.folders[level] for image in images}}
        if all(words.values()) and len(set(words.values())) > 1:
            divided: _BySplit = defaultdict(list, {"": loose} if loose else {})
            for image in images:
                kept = image.folders[:level] + image.folders[level + 1 :]
                divided[words[image.folders[level]]].append(_Image(image.file, kept))
            return divided
    return by_split


def _unwrap_splits(by_split: _BySplit) -> _BySplit:
    """Remove folders around the classes of a split, such as ``train/train`` and ``test/images``."""
    if set(by_split) == {""}:
        return by_split
    while True:
        tops = {split: _tops(members) for split, members in by_split.items()}
        single = {split: next(iter(names)) for split, names in tops.items() if len(names) == 1}
        nested = {split for split in single if any(len(image.folders) > 1 for image in by_split[split])}
        is_shared = nested == set(by_split) and len(set(single.values())) == 1
        wrapped = {split for split, top in single.items() if split_word(top) or top.lower() in _CONTAINERS or is_shared}
        if not wrapped:
            return by_split
        for split in wrapped:
            by_split[split] = [image.below() for image in by_split[split]]


def _readings(images: list[_Image], where: str) -> tuple[str, str]:
    """Return the error, and the choice, for folders in folders."""
    readings: dict[str, list[str]] = {}
    counts = set()
    for level in range(1, max(len(image.folders) for image in images) + 1):
        reached = [image.folders for image in images if len(image.folders) >= level]
        joined = sorted({"/".join(folders[:level]) for folders in reached})
        alone = sorted({folders[level - 1] for folders in reached})
        for option, names in ((f"{level}", alone), (f"1-{level}", joined)):
            if len(names) > 1 and len(names) not in counts:
                counts.add(len(names))
                readings[option] = names
    shown = [f"{format_count(len(names), 'class', 'classes')} ({format_names(names)})" for names in readings.values()]
    choices = [f"--class-level {option} for {len(names):,}" for option, names in readings.items()]
    what = f"{where} contains folders in folders, and several levels could be the classes: {'; or '.join(shown)}."
    by_top = {top: {image.folders[1:] for image in members} for top, members in _tops(images).items()}
    are_versions = len(by_top) > 1 and len({frozenset(folders) for folders in by_top.values()}) == 1
    fix = f"Choose with {', or '.join(choices)}."
    if are_versions:
        fix += f" If {format_names(sorted(by_top))} hold versions of the same images, import one of them."
    return what, fix


def _loose_advice(images: list[_Image]) -> str:
    """Return what to do with images outside class folders; their names may begin with their classes."""
    prefixes = Counter(re.split(r"[^A-Za-z]", image.stem, maxsplit=1)[0] for image in images)
    names = sorted(prefixes)
    if "" not in prefixes and 1 < len(names) <= len(images) // 2:
        return (
            f"Their names begin with {format_names(names)}: if these are the classes, import a table with the columns "
            f"path and label. Otherwise: {LAYOUT}"
        )
    return f"{LAYOUT} Or import a table with the columns path and label."
