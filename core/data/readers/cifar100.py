"""Read CIFAR-100's images (Krizhevsky 2009), pooled over their official parts, from any supported layout.

Few-shot learning splits the classes anew: see :mod:`core.data.readers.cifar_splits`.
"""

from __future__ import annotations

import gzip
import tarfile
import zipfile
import zlib
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np

from core.data.archive import Tree, file_stamp, open_tree
from core.data.decode import Raw
from core.data.listing import SPLITS, Listing, TargetFormat, make_table
from core.data.readers.common import DOWNLOAD_AGAIN, SPLIT_WORDS, is_image
from core.data.safe_pickle import parse_plain, read_plain
from core.runtime.errors import UserError
from core.runtime.failed_downloads import check_downloaded_file
from core.runtime.progress import format_count
from core.runtime.reading import check_input, open_input

SUPERCLASSES = {
    "aquatic_mammals": ("beaver", "dolphin", "otter", "seal", "whale"),
    "fish": ("aquarium_fish", "flatfish", "ray", "shark", "trout"),
    "flowers": ("orchid", "poppy", "rose", "sunflower", "tulip"),
    "food_containers": ("bottle", "bowl", "can", "cup", "plate"),
    "fruit_and_vegetables": ("apple", "mushroom", "orange", "pear", "sweet_pepper"),
    "household_electrical_devices": ("clock", "keyboard", "lamp", "telephone", "television"),
    "household_furniture": ("bed", "chair", "couch", "table", "wardrobe"),
    "insects": ("bee", "beetle", "butterfly", "caterpillar", "cockroach"),
    "large_carnivores": ("bear", "leopard", "lion", "tiger", "wolf"),
    "large_man-made_outdoor_things": ("bridge", "castle", "house", "road", "skyscraper"),
    "large_natural_outdoor_scenes": ("cloud", "forest", "mountain", "plain", "sea"),
    "large_omnivores_and_herbivores": ("camel", "cattle", "chimpanzee", "elephant", "kangaroo"),
    "medium_mammals": ("fox", "porcupine", "possum", "raccoon", "skunk"),
    "non-insect_invertebrates": ("crab", "lobster", "snail", "spider", "worm"),
    "people": ("baby", "boy", "girl", "man", "woman"),
    "reptiles": ("crocodile", "dinosaur", "lizard", "snake", "turtle"),
    "small_mammals": ("hamster", "mouse", "rabbit", "shrew", "squirrel"),
    "trees": ("maple_tree", "oak_tree", "palm_tree", "pine_tree", "willow_tree"),
    "vehicles_1": ("bicycle", "bus", "motorcycle", "pickup_truck", "train"),
    "vehicles_2": ("lawn_mower", "rocket", "streetcar", "tank", "tractor"),
}
"""The 20 superclasses in numerical order, with the 5 classes of each."""
CLASSES = tuple(sorted(name for names in SUPERCLASSES.values() for name in names))
"""The 100 classes in numerical order."""
FORM = TargetFormat(size=(32, 32), channels=3)

_SIZE = 32
_CLASS_SIZE = 600  # images per class
_PYTHON = "cifar-100-python"
_TARS = (f"{_PYTHON}.tar.gz", f"{_PYTHON}.tgz", f"{_PYTHON}.tar")
_MEMBERS = ("train", "test", "meta")
_MAX_MEMBER = 400_000_000
_MAX_UNPACKED = 1_000_000_000  # bytes of all members; the official archive has 187 million
_MAX_MEMBERS = 100
_EXPECTED = (
    f"It must contain the folder {_PYTHON} (train, test, meta), {_TARS[0]}, or one folder of images per class, named "
    "as in CIFAR-100, on disk or in a zip archive."
)


@dataclass(frozen=True)
class Pool:
    """A collection of CIFAR-100's images from any source.

    Attributes:
        rows: The class (one of :data:`CLASSES`), the id (``train/apple/apple_s_000022.png``, or the path in the archive
            of images) and a function that reads the image; sorted by class and id.
        stamp: Changes when the files change.
        tree: Folder or archive of the image files; None if the images come from arrays.
        own_splits: Split of every class, if the image files are sorted into splits that share no class.
    """

    rows: Sequence[tuple[str, str, Callable[[], Raw]]]
    stamp: Any
    tree: Tree | None = None
    own_splits: dict[str, str] = field(default_factory=dict)


def read_pool(path: Path) -> Pool:
    """Find and list the images.

    Raises:
        UserError: there are no images at ``path``, or a file is damaged.
    """
    if files := _read_python_files(path):
        return _pool_of_arrays(*files)
    zips = sorted(file for file in path.glob("*.zip") if file.is_file()) if path.is_dir() else []
    pools = [pool for source in (path, *zips) if (pool := _pool_of_files(open_tree(source)))]
    if not pools:
        raise UserError(f"There are no images of CIFAR-100 in {path}.", _EXPECTED)
    if len(pools) == 1:
        return pools[0]
    rows = sorted((row for pool in pools for row in pool.rows), key=lambda row: row[:2])
    for (name, image_id, _), following in pairwise(rows):
        if (name, image_id) == following[:2]:
            what = f"Two archives in the folder contain {image_id!r}."
            raise UserError(what, "Keep one of them, or import it alone.")
    return Pool(rows, [pool.stamp for pool in pools])


def listing(name: str, pool: Pool, splits: dict[str, str], notes: list[str]) -> Listing:
    """List the images whose class has a split; raise UserError if there are none."""
    rows = [row for row in pool.rows if row[0] in splits]
    if not rows:
        raise UserError(f"{name}: no class of the images is in the lists of splits.", "Use the published lists.")
    classes, ids, readers = zip(*rows, strict=True)
    counts = Counter(classes)
    sizes = sorted(set(counts.values()))
    if sizes != [_CLASS_SIZE]:
        spread = f"{sizes[0]:,}" if len(sizes) == 1 else f"{sizes[0]:,} to {sizes[-1]:,}"
        number = format_count(len(counts), "class", "classes")
        notes = [*notes, f"{number} with {spread} images each; the full data set has {_CLASS_SIZE}."]
    table = make_table(ids, classes, [splits[class_name] for class_name in classes])
    return Listing(name, table, lambda row: readers[row](), [pool.stamp, splits], form=FORM, notes=tuple(notes))


def is_python_archive(names: list[str]) -> bool:
    """Return whether files with these names are the official pickles, packed or not."""
    files = set(names)
    unpacked = any({f"{folder}train", f"{folder}test", f"{folder}meta"} <= files for folder in ("", f"{_PYTHON}/"))
    return unpacked or any(tar in files for tar in _TARS)


def has_class_folders(names: list[str]) -> bool:
    """Return whether most of CIFAR-100's classes are present as folders of images."""
    folders = {name.split("/")[-2] for name in names if name.count("/") and is_image(name)}
    return len(folders & set(CLASSES)) > 50


def has_split_pickles(names: list[str], prefix: str) -> bool:
    """Return whether one of the files is for :func:`read_split_pickles`."""
    files = {f"{prefix}_{split}.pickle" for split in SPLITS}
    return any(name.endswith(".pickle") and name.rpartition("/")[2] in files for name in names)


def read_split_pickles(path: Path, prefix: str, name: str) -> Listing | None:
    """Read the pickles of MetaOptNet and learn2learn, such as ``FC100_train.pickle``; return None if there are none.

    The files contain class numbers without names: classes are called ``train 00`` and so on, ids ``train/00000``.

    Raises:
        UserError: a file contains no images and labels.
    """
    files = {split: path / f"{prefix}_{split}.pickle" for split in SPLITS}
    found = {split: file for split, file in files.items() if file.is_file()}
    if not found:
        return None
    images: list[np.ndarray] = []
    ids, classes, splits = [], [], []
    for split, file in found.items():
        content = _plain_dict(read_plain(file), file.name, prefix)
        pixels, labels = content.get("data"), _labels(content.get("labels"), file.name)
        shape = (len(labels), _SIZE, _SIZE, 3)
        if not isinstance(pixels, np.ndarray) or pixels.dtype != np.uint8 or pixels.shape != shape:
            what = f"{file.name} does not contain 'data', colour images of 32 x 32 pixels, with one of 'labels' each."
            raise UserError(what, DOWNLOAD_AGAIN)
        images.extend(pixels)
        ids += [f"{split}/{position:05d}" for position in range(len(labels))]
        classes += [f"{split} {label:02d}" for label in labels]
        splits += [split] * len(labels)
    notes = [f"Split by file; {prefix} pickles contain no class names, so the classes are numbered."]
    notes += [f"{file.name} is missing." for file in files.values() if not file.is_file()]
    stamp = [file_stamp(file) for file in found.values()]
    return Listing(name, make_table(ids, classes, splits), images.__getitem__, stamp, form=FORM, notes=tuple(notes))


def _labels(values: Any, name: str) -> list[int]:
    if isinstance(values, np.ndarray) and values.ndim == 1:
        values = values.tolist()
    if not isinstance(values, list) or not all(type(value) is int and value >= 0 for value in values):
        raise UserError(f"{name}: the labels are not a list of integers of 0 or more.", DOWNLOAD_AGAIN)
    return values


def _read_python_files(path: Path) -> tuple[dict[str, Any], Any] | None:
    """Return the content of the official pickles by member name, and their stamp."""
    for folder in (path, path / _PYTHON):
        files = {member: folder / member for member in _MEMBERS if (folder / member).is_file()}
        if "meta" in files and len(files) > 1:
            return {name: read_plain(file) for name, file in files.items()}, [*map(file_stamp, files.values())]
    tars = [path] if path.is_file() and not zipfile.is_zipfile(path) else [path / name for name in _TARS]
    for tar in tars:
        if tar.is_file():
            return _read_tar(tar), file_stamp(tar)
    return None


def _read_tar(path: Path) -> dict[str, Any]:
    check_input(path)
    check_downloaded_file(path)
    contents: dict[str, Any] = {}
    try:
        with open_input(path) as start:
            is_gzip = start.read(2) == b"\x1f\x8b"
        with open_input(path) as file, gzip.open(file) if is_gzip else nullcontext(file) as stream:
            bounded: Any = _BoundedReader(stream)
            with tarfile.open(fileobj=bounded) as archive:
                unpacked = 0
                # Iterate lazily: check each size before unpacking anything after it.
                for _ in range(_MAX_MEMBERS):
                    member = archive.next()
                    if member is None:
                        break
                    unpacked += member.size
                    if not 0 <= member.size <= _MAX_MEMBER or unpacked > _MAX_UNPACKED:
                        what = f"{path.name} contains {member.name[:80]!r} of {member.size:,} bytes."
                        raise UserError(what, DOWNLOAD_AGAIN)
                    name = member.name.rpartition("/")[2]
                    part = archive.extractfile(member) if member.isreg() and name in _MEMBERS else None
                    if part is not None:
                        contents[name] = parse_plain(part.read(), f"{path.name}: {name}")
    except (tarfile.TarError, OSError, EOFError, zlib.error, ValueError, RecursionError) as error:
        # RecursionError: an unbounded chain of headers
        raise UserError(f"{path.name} is damaged or not a tar archive: {error}.", DOWNLOAD_AGAIN) from error
    if "meta" not in contents or len(contents) < 2:
        raise UserError(f"{path.name} is not CIFAR-100: it lacks {_PYTHON}/meta, train or test.", DOWNLOAD_AGAIN)
    return contents


class _BoundedReader:
    """A file wrapper that bounds reads, because ``tarfile`` reads as much at once as a header claims."""

    def __init__(self, stream: Any) -> None:
        self._stream = stream
        self.seek, self.tell = stream.seek, stream.tell

    def read(self, count: int) -> bytes:
        if count > _MAX_MEMBER:
            raise ValueError(f"a header claims {count:,} bytes")
        return self._stream.read(count)


def _pool_of_arrays(parts: dict[str, Any], stamp: Any) -> Pool:
    meta = _plain_dict(parts["meta"], "meta", "CIFAR-100")
    names = meta.get("fine_label_names")
    if not isinstance(names, list) or len(names) != len(CLASSES) or not all(isinstance(name, str) for name in names):
        raise UserError("meta does not contain the names of CIFAR-100's 100 classes.", DOWNLOAD_AGAIN)
    images: list[tuple[str, str, np.ndarray]] = []
    for part in sorted(parts.keys() - {"meta"}):
        content = _plain_dict(parts[part], part, "CIFAR-100")
        pixels, labels = content.get("data"), _labels(content.get("fine_labels"), part)
        files = content.get("filenames")
        if (
            not isinstance(pixels, np.ndarray)
            or pixels.dtype != np.uint8
            or pixels.shape != (len(labels), 3 * _SIZE**2)
        ):
            what = f"{part} does not contain 3,072 bytes of 'data' for each of its {len(labels):,} labels."
            raise UserError(what, DOWNLOAD_AGAIN)
        if any(label >= len(names) for label in labels):
            raise UserError(
                f"{part}: label {max(labels)} is too large; there are {len(names)} classes.", DOWNLOAD_AGAIN
            )
        if not isinstance(files, list) or len(files) != len(labels) or not all(isinstance(file, str) for file in files):
            files = [f"{position:05d}.png" for position in range(len(labels))]
        images += [
            (names[label], f"{part}/{names[label]}/{file}", image)
            for label, file, image in zip(labels, files, pixels, strict=True)
        ]
    seen: Counter[str] = Counter()
    rows: list[tuple[str, str, Callable[[], Raw]]] = []
    for name, image_id, image in sorted(images, key=lambda row: row[:2]):
        unique = f"{image_id}#{seen[image_id]}" if seen[image_id] else image_id
        rows.append((name, unique, partial(_channels_last, image)))
        seen[image_id] += 1
    return Pool(rows, stamp)


def _channels_last(image: np.ndarray) -> Raw:
    return np.ascontiguousarray(image.reshape(3, _SIZE, _SIZE).transpose(1, 2, 0))


def _plain_dict(content: Any, name: str, dataset: str) -> dict[str, Any]:
    """Return the dictionary with text keys and lists of text, decoding the bytes of re-saved old pickles."""
    if not isinstance(content, dict):
        raise UserError(f"{name} is not a file of {dataset}.", DOWNLOAD_AGAIN)

    def text(value: Any) -> Any:
        return str(value, "latin-1") if isinstance(value, bytes) else value

    return {str(text(key)): [*map(text, v)] if isinstance(v, list) else v for key, v in content.items()}


def _pool_of_files(tree: Tree) -> Pool | None:
    """List images in folders named after the classes."""
    known = set(CLASSES)
    by_folder: dict[str, list[tuple[str, str]]] = {}
    for file in tree.files:
        *above, folder, _ = ["", *file.split("/")]
        if folder in known and is_image(file):
            by_folder.setdefault("/".join(above), []).append((folder, file))
    if not by_folder:
        return None
    # Archives of CIFAR-FS that have been used contain every image twice: as packed and sorted into splits.
    unsplit = [name for name in by_folder if name.endswith("/data")]
    files = sorted(row for name in unsplit or by_folder for row in by_folder[name])
    rows = [(name, file, partial(tree.read, file)) for name, file in files]
    # The folders are splits if every one has the name of a split and no class is in two of them.
    words = {folder: SPLIT_WORDS.get(folder.rpartition("/")[2].lower(), "") for folder in by_folder}
    pairs = {(name, words[folder]) for folder, members in by_folder.items() for name, _ in members}
    splits = dict(pairs)
    is_split = not unsplit and len(splits) == len(pairs) and set(splits.values()) == set(SPLITS)
    return Pool(rows, tree.stamp(), tree, splits if is_split else {})
