"""Read the label issues of cleanlab as decisions or as proposals to review.

The tables are read as ``to_csv`` or ``to_parquet`` saves them (cleanlab 2.9):

- ``Datalab.get_issues("label")``: is_label_issue, label_score, given_label, predicted_label (class names).
- ``CleanLearning.get_label_issues()`` and ``find_label_issues()``: is_label_issue, label_quality, given_label,
  predicted_label (numbers).
- ``pandas.Series(cleanlab.filter.find_label_issues(...))``: the mask, or with ``return_indices_ranked_by`` the
  positions of the issues.

Images are found by name: by a column of image ids or files (:mod:`core.decisions.image_names`), or by an index of text.
They are found by position only on request, and only if ``given_label`` is in every row the class that the image at this
position has, in the image set or in a training task. Positions are those of ``ImageFolder`` if the image set knows
them, else its own (:mod:`core.data.numbering`).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple, cast

import numpy as np
import pandas as pd

from core.data import ImageSet
from core.data.numbering import numbering, numbering_text, positions_in
from core.decisions.image_names import check_unique, name_columns, positions_of_names
from core.decisions.records import Decision, Item, Verdict
from core.runtime.errors import UserError
from core.runtime.progress import format_count
from core.tasks.tasklist import TaskList

_ISSUE, _SCORES = "is_label_issue", ("label_score", "label_quality")
_Reader = Callable[[pd.Series], np.ndarray]
_IDS = "ids are the image ids, or the paths of an ImageFolder: ids = [path for path, _ in dataset.samples]"
_NAMED_TABLE = f'Save it with names: issues.insert(0, "image_id", ids), where {_IDS}.'
_NAMED_MASK = f'Save pandas.DataFrame({{"image_id": ids, "is_label_issue": mask}}), where {_IDS}.'
_NAMED_INDICES = f"Save pandas.Series(numpy.array(ids)[indices]), where {_IDS}."


def is_cleanlab(table: pd.DataFrame) -> bool:
    """Return whether this is a table by cleanlab rather than one of decisions."""
    return _ISSUE in table.columns or _unnamed_column(table) is not None


def issue_decisions(
    table: pd.DataFrame,
    source: str,
    images: ImageSet,
    tasks: TaskList,
    as_: str,
    reviewer: str,
    by_position: bool = False,
) -> tuple[list[Decision], list[str]]:
    """Return the decisions that the issues in a table become, worst first, and sentences on what was left out.

    Args:
        tasks: The training tasks; issues on images outside them are left out.
        as_: The verdict, one of :data:`core.decisions.records.ISSUE_VERDICTS`.
        by_position: Find images by position if the table does not name them.

    Raises:
        UserError: a row names no image or no class; nothing names the images, and they are not to be found by position
            or the given labels do not prove the order; or there is no predicted class to relabel to.
    """
    table, positions, issue, classes, notes = _Joiner(table, source, images, tasks, by_position).join()
    if as_ == "relabel" and classes is None:
        raise UserError(
            f"{source}: without the columns given_label and predicted_label there is no class to relabel to.",
            "Save the table of Datalab or CleanLearning, or choose unsure or remove.",
        )
    score = next((pd.to_numeric(table[name], errors="coerce").to_numpy() for name in _SCORES if name in table), None)
    rows = np.flatnonzero(issue)
    if score is not None:
        rows = rows[np.argsort(score[rows], kind="stable")]
    used = set(tasks.rows["image_id"])
    inside = [row for row in rows if str(images.ids[positions[row]]) in used]
    decisions, unchanged = [], 0
    for row in inside:
        verdict, label, reason = as_, None, "cleanlab: label issue"
        if score is not None:
            reason += f", quality {score[row]:.3g}"
        if classes is not None:
            given, predicted = (int(labels[row]) for labels in classes)
            reason += f", predicted {images.class_names[predicted]}"
            if as_ == "relabel" and given == predicted:
                verdict, unchanged = "unsure", unchanged + 1
            elif as_ == "relabel":
                label = predicted
        item = Item("image", image_id=str(images.ids[positions[row]]))
        why = reason, reviewer, f"cleanlab:{source}"
        decisions.append(Decision(item, cast(Verdict, verdict), label, *why, cause="label-error"))
    if len(rows) > len(inside):
        notes.append(
            f"{format_count(len(rows) - len(inside), 'issue')} on images that are in no training task: left out"
        )
    if unchanged:
        notes.append(
            f"{format_count(unchanged, 'issue')} whose predicted class is the given one: unsure instead of relabelled"
        )
    return decisions, notes


def _unnamed_column(table: pd.DataFrame) -> str | None:
    """Return the single column of a mask or of positions that was saved without a name; None if there is none."""
    columns = [str(name) for name in table.columns if not _is_index(name)]
    return columns[0] if len(columns) == 1 and columns[0] in ("0", "index", "indices", "label_issues") else None


def _is_index(name: object) -> bool:
    return str(name).startswith("Unnamed: ") or str(name) == "__index_level_0__"


def _as_bools(column: pd.Series, source: str, name: str) -> np.ndarray:
    words = column.map(lambda value: str(value).lower())
    bad = np.flatnonzero(~words.isin(["true", "1", "false", "0"]))
    if bad.size:
        raise UserError(f"{source}, row {bad[0] + 1}: {name} is {column.iloc[bad[0]]!r}.", "Use True or False.")
    return words.isin(["true", "1"]).to_numpy(bool)


def _whole_numbers(column: pd.Series) -> np.ndarray:
    """Return ``(n,)`` of float: whole numbers, and NaN for anything else."""
    if column.dtype.kind in "mM":  # pandas would count the ticks of dates and durations
        return np.full(len(column), np.nan)
    numbers = pd.to_numeric(column, errors="coerce").to_numpy(np.float64, na_value=np.nan)
    with np.errstate(invalid="ignore"):  # infinity
        return np.where(numbers % 1 == 0, numbers, np.nan)


def _are_counts(column: pd.Series) -> bool:
    """Return whether all values are whole numbers as programs write them, so not names such as 007."""
    numbers = _whole_numbers(column)
    return not np.isnan(numbers).any() and all(
        not isinstance(value, str) or value == f"{number:.0f}" for value, number in zip(column, numbers, strict=True)
    )


class _Joined(NamedTuple):
    """The rows of a table whose images were found.

    Attributes:
        positions: ``(n,)`` in the image set.
        issue: ``(n,)`` bool.
        classes: ``(n,)`` numbers each of the given and predicted classes; None without these columns.
        notes: Sentences for the user.
    """

    table: pd.DataFrame
    positions: np.ndarray
    issue: np.ndarray
    classes: tuple[np.ndarray, np.ndarray] | None
    notes: list[str]


class _Joiner:
    """A reader that finds the image of every row of a table, by name or by position."""

    def __init__(self, table: pd.DataFrame, source: str, images: ImageSet, tasks: TaskList, by_position: bool) -> None:
        self.table, self.source, self.images, self.by_position = table.rename(columns=str), source, images, by_position
        self.number_of = {name: number for number, name in enumerate(images.class_names)}
        pairs = tasks.rows[["image_id", "class"]].drop_duplicates().itertuples(index=False)
        self.allowed = {(images.index[image], self.number_of[name]) for image, name in pairs}
        self.allowed |= set(enumerate(images.labels.tolist()))

    def join(self) -> _Joined:
        column = _ISSUE if _ISSUE in self.table else cast(str, _unnamed_column(self.table))
        values = self.table[column]
        if column == _ISSUE or {str(value).lower() for value in values} <= {"true", "false"}:
            issue, names = _as_bools(values, self.source, column), self._names()
            fix = _NAMED_TABLE if column == _ISSUE else _NAMED_MASK
        else:
            issue = np.ones(len(values), bool)
            names = [] if _are_counts(values) else [("value" if column == "0" else column, values)]
            fix = _NAMED_INDICES
        found = self._join_by_name(names)
        if found is not None:
            positions, notes = found
            if self.by_position:
                notes = [*notes, "images are found by name, so their positions are not used"]
            rows = np.arange(len(self.table))
            given = self._given(rows, positions, "Check the names of the images.")
            return _Joined(self.table, positions, issue, self._classes(rows, given), notes)
        return self._join_by_position(issue, fix)

    def _names(self) -> list[tuple[str, pd.Series]]:
        """Return what may name the images: columns with a usual name, the most definite first, and the index."""
        names = [(name, self.table[name]) for name in name_columns(self.table)]
        index = self._index()
        if index is not None and not _are_counts(index):
            names.append(("index", index))
        return [(what, column) for what, column in names if what == "image_id" or not self._is_count_of_rows(column)]

    def _is_count_of_rows(self, column: pd.Series) -> bool:
        """Return whether a column with a usual name of images, such as ``image``, only numbers them."""
        return _are_counts(column) and not all(str(value) in self.images.index for value in column)

    def _index(self) -> pd.Series | None:
        """Return the index that was saved with the table; None if there is none."""
        if name := next((name for name in self.table.columns if _is_index(name)), None):
            return self.table[name]
        is_default = self.table.index.equals(pd.RangeIndex(len(self.table)))
        return None if is_default else self.table.index.to_series()

    def _join_by_name(self, names: list[tuple[str, pd.Series]]) -> tuple[np.ndarray, list[str]] | None:
        """Return the positions of the named images, and how they were found; None if nothing names images.

        Raises:
            UserError: no column names one image per row, or two columns name different images.
        """
        found: list[tuple[str, np.ndarray, str]] = []
        error: UserError | None = None
        for what, column in names:
            try:
                found.append((what, *positions_of_names(column, self.source, what, self.images)))
            except UserError as unknown:
                error = error or unknown
        if not found:
            if error:
                raise error
            return None
        what, positions, note = found[0]
        for other, others, _ in found[1:]:
            if (different := np.flatnonzero(positions != others)).size:
                raise UserError(
                    f"{self.source}, row {different[0] + 1}: {what} and {other} name different images.",
                    "Delete one of the two columns.",
                )
        return check_unique(positions, self.source, what), [note] if note else []

    def _join_by_position(self, issue: np.ndarray, fix: str) -> _Joined:
        """Find images by position.

        Raises:
            UserError: that was not requested, or the given labels do not prove that the order is right.
        """
        if "given_label" not in self.table:
            what = "It has no column given_label, by which positions could be checked."
            raise UserError(f"{self.source} does not name its images. {what}", fix)
        whose = numbering(self.images)
        order = numbering_text(self.images, whose)
        if not self.by_position:
            raise UserError(
                f"{self.source} does not name its images.",
                f"{fix} Or match its rows by position (--by-position) if these are the positions of {order}.",
            )
        number_of_image = positions_in(self.images, whose)
        listed = np.flatnonzero(number_of_image >= 0)
        position_in_set = np.full(number_of_image.max() + 1, -1)
        position_in_set[number_of_image[listed]] = listed
        numbers = self._row_numbers(len(position_in_set), order)
        positions = position_in_set[numbers]
        rows = np.flatnonzero(positions >= 0)
        if not rows.size:
            raise UserError(f"{self.source} has no row on an image of {self.images.name}.", _NAMED_TABLE)
        given = self._given(rows, positions[rows], f"The rows may be in another order than {order}. {_NAMED_TABLE}")
        others = {
            "one less": self._at(numbers[rows] - 1, position_in_set),
            "one more": self._at(numbers[rows] + 1, position_in_set),
            f"that of the image set {self.images.name}": self._at(numbers[rows], np.arange(len(self.images))),
        }
        for words, other in others.items():
            if other is not None and (other != positions[rows]).any() and self._fits(given[0], other):
                raise UserError(
                    f"{self.source}: the given labels also fit if every position is {words}, so they prove no order.",
                    f"{_NAMED_TABLE} Or save all rows instead of a part.",
                )
        notes = [
            f"rows matched by position in {order}: the given labels agree in all {len(rows):,} rows, but cannot prove "
            "the order within a class"
        ]
        if len(rows) < len(numbers):
            notes.append(f"{format_count(len(numbers) - len(rows), 'row')} on files that were not imported: left out")
        return _Joined(self.table.iloc[rows], positions[rows], issue[rows], self._classes(rows, given), notes)

    def _row_numbers(self, count: int, order: str) -> np.ndarray:
        """Return the ``(n,)`` positions below ``count`` that the index of the table contains, or those of its rows."""
        index = self._index()
        rows = np.arange(len(self.table))
        numbers = rows.astype(np.float64) if index is None else _whole_numbers(index)
        if np.array_equal(numbers, rows):  # the index that pandas numbers rows with
            if len(rows) == count:
                return rows
            raise UserError(
                f"{self.source} has {len(rows):,} rows, but there are {count:,} positions in {order}.",
                f"{_NAMED_TABLE} Or save all rows.",
            )
        bad = np.flatnonzero(~((numbers >= 0) & (numbers < count)))  # NaN among them
        if bad.size:
            raise UserError(
                f"{self.source}, row {bad[0] + 1}: index is not one of the {count:,} positions in {order}.",
                _NAMED_TABLE,
            )
        return check_unique(numbers.astype(np.int64), self.source, "index")

    def _at(self, numbers: np.ndarray, position_in_set: np.ndarray) -> np.ndarray | None:
        """Return ``(n,)`` positions in the image set, -1 for files that are not in it; None if a number has none."""
        if numbers.min() < 0 or numbers.max() >= len(position_in_set):
            return None
        return position_in_set[numbers]

    def _fits(self, given: np.ndarray, positions: np.ndarray) -> bool:
        """Return whether the images at these positions, as far as there are any, have the given classes."""
        pairs = zip(positions.tolist(), given.tolist(), strict=True)
        return all(pair[0] < 0 or pair in self.allowed for pair in pairs)

    def _by_class_name(self, column: pd.Series) -> np.ndarray:
        return np.array([self.number_of.get(str(value), -1) for value in column], np.int64)

    def _by_class_number(self, column: pd.Series) -> np.ndarray:
        numbers = _whole_numbers(column)
        return np.where((numbers >= 0) & (numbers < len(self.number_of)), numbers, -1).astype(np.int64)

    def _given(self, rows: np.ndarray, positions: np.ndarray, fix: str) -> tuple[np.ndarray, list[_Reader]]:
        """Return the numbers of the given classes, and how labels can be read so that all given ones are right.

        Args:
            rows: ``(n,)`` rows of the table.
            positions: ``(n,)`` their images.
            fix: What the user can do about a wrong label.

        Raises:
            UserError: a given label is not a class that the image has.
        """
        if "given_label" not in self.table:
            return np.full(len(rows), -1), []
        column = self.table["given_label"].iloc[rows]
        readers: list[_Reader] = [self._by_class_name, self._by_class_number]
        given = [read(column) for read in readers]
        right = [
            np.array([pair in self.allowed for pair in zip(positions.tolist(), labels.tolist(), strict=True)], bool)
            for labels in given
        ]
        best = int(right[1].sum() > right[0].sum())
        if not right[best].all():
            wrong = int(np.flatnonzero(~right[best])[0])
            image = positions[wrong]
            raise UserError(
                f"{self.source}, row {rows[wrong] + 1}: given_label is {column.iloc[wrong]!r}, but image "
                f"{str(self.images.ids[image])!r} is {self.images.class_names[self.images.labels[image]]!r}.",
                fix,
            )
        return given[best], [read for read, fits in zip(readers, right, strict=True) if fits.all()]

    def _classes(
        self, rows: np.ndarray, given: tuple[np.ndarray, list[_Reader]]
    ) -> tuple[np.ndarray, np.ndarray] | None:
        """Return the numbers of the given and the predicted classes; None without these columns.

        Raises:
            UserError: a predicted label is not a class, or it is another class by its name than by its number and the
                given labels do not show which is meant.
        """
        numbers, readers = given
        if not readers or "predicted_label" not in self.table:
            return None
        column = self.table["predicted_label"].iloc[rows]
        first, last = readers[0](column), readers[-1](column)
        predicted = np.where(first < 0, last, first)
        is_ambiguous = (first >= 0) & (last >= 0) & (first != last)
        if (wrong := np.flatnonzero((predicted < 0) | is_ambiguous)).size:
            row = int(wrong[0])
            is_a = "the name of one class and the number of another" if is_ambiguous[row] else "not a class"
            raise UserError(
                f"{self.source}, row {rows[row] + 1}: predicted_label is {column.iloc[row]!r}, which is {is_a} "
                f"of {self.images.name}.",
                "Use the names of its classes, or their numbers from 0.",
            )
        return numbers, predicted
