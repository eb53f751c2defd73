"""Which items of a review queue are decided, and which labels were found wrong, found right, or are open."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import pandas as pd

from core.decisions.records import Entry, Item
from core.decisions.table import table_items


@dataclass(frozen=True, eq=False)
class QueueDecisions:
    """What counts for the items of a queue, by position.

    Attributes:
        entries: The decision that counts for the item, whatever its cause; of an item in conflict the newest one.
        conflicts: The reviewers' own final decisions, where they conflict.
        is_wrong: By position, True: the label was found wrong (remove or relabel as a label error); False: found right
            (keep); absent: open. An item that was removed or kept for another cause is decided, and its label is open.
    """

    entries: dict[int, Entry]
    conflicts: dict[int, tuple[Entry, ...]]
    is_wrong: dict[int, bool]

    @cached_property
    def decided(self) -> int:
        """Number of items with a final decision, whatever its cause, and without a conflict: the progress of a review.

        Nobody needs to look at them again. Only those in ``is_wrong`` say something about label errors.
        """
        return sum(entry.is_final for position, entry in self.entries.items() if position not in self.conflicts)

    @property
    def errors_found(self) -> int:
        """Number of items whose label was found wrong."""
        return sum(self.is_wrong.values())


class QueuePositions:
    """The positions of a queue's ``items``, which are in its order, each once, by what a decision can be about."""

    def __init__(self, items: Sequence[Item]) -> None:
        self.of_item = {item: position for position, item in enumerate(items)}
        self._of_image: dict[str, list[int]] = {}
        for position, item in enumerate(items):
            if item.kind == "instance":
                self._of_image.setdefault(item.image_id, []).append(position)

    def decisions(self, current: Mapping[Item, Entry], conflicts: Mapping[Item, tuple[Entry, ...]]) -> QueueDecisions:
        """Return which items are decided, and which labels were found wrong, which found right, and which are open.

        - Only a decision on the label counts (:attr:`Decision.is_on_label`). **Wrong**: it is to remove or to relabel.
          **Right**: it is to keep. Any other label is **open**, such as that of an item that was removed as harmful.
        - A decision on the item itself counts first. In a queue of task rows, a decision on the image counts for every
          row that shows it and has no final decision of its own, as the image is edited in every task. In a queue of
          images, a decision on one row of a task says nothing about the image, and a removed task says nothing about
          labels.
        - On one item, the newest decision in force counts (:mod:`core.decisions.log`). "unsure" and "clear" are not
          final: they leave an item open, and do not hide a decision on the image. No more does a decision on the row
          that has another cause than the label.
        - An item in conflict is open until somebody resolves it; so are the rows of an image in conflict, except
          those with a final decision of their own.

        The arguments are :meth:`DecisionLog.current` and :meth:`DecisionLog.conflicts`; for one reviewer alone,
        :meth:`DecisionLog.decisions_of` and nothing.
        """
        entries, contested = self._resolve(current, conflicts)
        on_labels = {item: entry for item, entry in current.items() if entry.is_on_label}
        labels, open_labels = self._resolve(on_labels, conflicts)
        is_wrong = {place: entry.verdict != "keep" for place, entry in labels.items() if place not in open_labels}
        return QueueDecisions(entries, contested, is_wrong)

    def _resolve(
        self, current: Mapping[Item, Entry], conflicts: Mapping[Item, tuple[Entry, ...]]
    ) -> tuple[dict[int, Entry], dict[int, tuple[Entry, ...]]]:
        """Return the entry that counts for each position, and the opinions on positions in conflict."""
        entries: dict[int, Entry] = {}
        contested: dict[int, tuple[Entry, ...]] = {}
        for lookup in (self._rows_of, self._exact):  # the more specific decision comes second and takes precedence
            for item, entry in current.items():
                for position in lookup(item):
                    if entry.is_final or position not in entries or not entries[position].is_final:
                        entries[position] = entry
                    if entry.is_final:
                        contested.pop(position, None)
            for item, opinions in conflicts.items():
                for position in lookup(item):
                    contested[position] = opinions
        return entries, contested

    def _rows_of(self, item: Item) -> Iterable[int]:
        return self._of_image.get(item.image_id, ()) if item.kind == "image" else ()

    def _exact(self, item: Item) -> Iterable[int]:
        position = self.of_item.get(item)
        return () if position is None else (position,)


def queue_items(items: pd.DataFrame) -> list[Item]:
    """Return what a decision on each row of ``items.parquet`` is about."""
    return table_items(items.rename(columns={"level": "kind"}))
