"""Find the images that tables name by paths of another folder, by file names or by names without extension."""

from __future__ import annotations

import unicodedata
from collections import defaultdict
from collections.abc import Iterable, Sequence

from core.data.readers.common import is_image, split_word

WHOLE_PATH, FILE_NAME, STEM = 3, 2, 1
"""What part of a path fits a file, the most reliable first; 0 for nothing."""


class ImageSearch:
    """A search for the images of a folder or archive.

    Names are compared without regard to case and Unicode form, because file systems and archives change both; a file
    whose name is exactly equal comes first.
    """

    def __init__(self, files: Iterable[str]) -> None:
        self._files = set(filter(is_image, files))
        self._by_key: dict[str, list[str]] = defaultdict(list)
        for file in sorted(self._files):
            name = file.rpartition("/")[2]
            for key in {_plain(name), _plain(name.rpartition(".")[0])}:
                self._by_key[key].append(file)
            # The innermost folder as well, as many files may be called 1.jpg.
            self._by_key[_plain("/".join(file.split("/")[-2:]))].append(file)

    def quality(self, path: str, folder: str = "") -> int:
        """Return which part of a path in a table in ``folder`` fits a file: :data:`WHOLE_PATH` and so on, or 0."""
        parts = _parts(path)
        if not parts:
            return 0
        if "/".join([*_parts(folder), *parts]) in self._files:
            return WHOLE_PATH
        found = self._by_key.get(_plain(parts[-1]), ())
        is_name = bool(found) and any(_plain(file.rpartition("/")[2]) == _plain(parts[-1]) for file in found[:1])
        return FILE_NAME if is_name else STEM if found else 0

    def find(self, path: str, label: str = "", split: str = "", folder: str = "") -> str | None:
        """Return the one image that a path of a table in ``folder`` means, or None if there is none or are several.

        Of several with the same file name, the one whose folders agree most counts, then the one in a folder called
        like the label, then the one in a folder of the split.
        """
        parts = _parts(path)
        if not parts:
            return None
        exact = "/".join([*_parts(folder), *parts])
        if exact in self._files:
            return exact
        found = self._by_key.get(_plain("/".join(parts[-2:]))) or self._by_key.get(_plain(parts[-1])) or []
        if len(found) > 1:
            agreement = {file: _common_end(file.split("/")[:-1], parts[:-1]) for file in found}
            most = max(agreement.values())
            found = [file for file in found if agreement[file] == most]
        for is_right in (
            lambda file: file.rpartition("/")[2] == parts[-1],
            lambda file: bool(label) and label in file.split("/")[:-1],
            lambda file: bool(split) and split in map(split_word, file.split("/")[:-1]),
        ):
            if len(found) > 1:
                found = [file for file in found if is_right(file)] or found
        return found[0] if len(found) == 1 else None


def has_folder(path: str) -> bool:
    """Return whether a path has more parts than the file name."""
    return len(_parts(path)) > 1


def _plain(name: str) -> str:
    return unicodedata.normalize("NFC", name).lower()


def _parts(path: str) -> list[str]:
    return [part for part in path.strip().replace("\\", "/").split("/") if part not in ("", ".")]


def _common_end(folders: Sequence[str], others: Sequence[str]) -> int:
    """Return the number of equal folders from the last one backwards."""
    count = 0
    for one, other in zip(reversed(folders), reversed(others), strict=False):
        if one != other:
            break
        count += 1
    return count
