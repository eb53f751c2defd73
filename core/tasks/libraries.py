"""How a fixed episode is written for learn2learn, torchmeta and easyfsl.

None of them has a file of its own for tasks, so each form here is the smallest that the library's own classes take
as it stands: the fields are named after the arguments and attributes that they become (``docs/exchange.md`` has the
lines that do it). All three name an image by its position in a data set. Beside the position stands the image id,
which tells whether that is the same data set.

They know no weights, and their own samplers give an image the label of its class. Here a label is that of the row,
because a task list may say otherwise.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import zip_longest
from typing import NamedTuple, Self

from pydantic import BaseModel, ConfigDict

from core.data import ImageSet
from core.runtime.errors import UserError


class Row(NamedTuple):
    """One image in one role of a task.

    Attributes:
        position: Of the image in the image set.
        image_id: The same image by its id.
        label: 0 ... ways - 1.
        name: What an error calls this row of a file.
    """

    position: int
    image_id: str
    label: int
    name: str = ""


@dataclass(frozen=True)
class Episode:
    """A task as every library sees it; ``classes[label]`` is the name of a class."""

    task_id: str
    classes: list[str]
    support: list[Row]
    query: list[Row]


class _Form(BaseModel):
    """Values are taken as they are: no text for a number, no fraction for a whole number. Other fields are ignored."""

    model_config = ConfigDict(strict=True)


class Learn2LearnTask(_Form):
    """``indices`` become the ``DataDescription``s of a ``Taskset``; ``adaptation_indices`` are places among them.

    Support and query rows take turns as long as there are both: where there are as many queries as support rows,
    that is what the examples of learn2learn expect (``adaptation_indices[np.arange(shots * ways) * 2] = True``).
    """

    task_id: str
    classes: list[str]
    indices: list[int]
    labels: list[int]
    adaptation_indices: list[int]
    image_ids: list[str]

    @classmethod
    def of(cls, episode: Episode, images: ImageSet) -> Self:
        pairs = zip_longest([(row, True) for row in episode.support], [(row, False) for row in episode.query])
        order = [entry for pair in pairs for entry in pair if entry is not None]
        return cls(
            task_id=episode.task_id,
            classes=episode.classes,
            indices=[row.position for row, _ in order],
            labels=[row.label for row, _ in order],
            adaptation_indices=[place for place, (_, adapts) in enumerate(order) if adapts],
            image_ids=[row.image_id for row, _ in order],
        )

    def episode(self, source: str, images: ImageSet) -> Episode:
        where = f"{source}, task {self.task_id!r}"
        rows = _rows(where, "", self.indices, self.labels, self.image_ids)
        places = self.adaptation_indices
        if places != sorted(set(places)) or (places and not 0 <= places[0] <= places[-1] < len(rows)):
            raise UserError(
                f"{where}: adaptation_indices are not places among its {len(rows)} rows, in rising order.",
                "They count from 0.",
            )
        adapts = set(places)
        support, query = ([row for at, row in enumerate(rows) if (at in adapts) == kind] for kind in (True, False))
        return Episode(self.task_id, self.classes, support, query)


class TorchmetaSplit(_Form):
    """``indices`` are those of a ``SubsetTask``; ``labels`` are its targets."""

    indices: list[int]
    labels: list[int]
    image_ids: list[str]

    @classmethod
    def of(cls, rows: list[Row]) -> Self:
        return cls(
            indices=[row.position for row in rows],
            labels=[row.label for row in rows],
            image_ids=[row.image_id for row in rows],
        )


class TorchmetaTask(_Form):
    """``train`` and ``test`` are the keys of the ``OrderedDict`` that is a task there."""

    task_id: str
    classes: list[str]
    train: TorchmetaSplit
    test: TorchmetaSplit

    @classmethod
    def of(cls, episode: Episode, images: ImageSet) -> Self:
        support, query = (TorchmetaSplit.of(rows) for rows in (episode.support, episode.query))
        return cls(task_id=episode.task_id, classes=episode.classes, train=support, test=query)

    def episode(self, source: str, images: ImageSet) -> Episode:
        where = f"{source}, task {self.task_id!r}"
        support, query = (
            _rows(where, f"{name} ", split.indices, split.labels, split.image_ids)
            for name, split in (("train", self.train), ("test", self.test))
        )
        return Episode(self.task_id, self.classes, support, query)


class EasyfslTask(_Form):
    """The five parts of what ``TaskSampler.episodic_collate_fn`` returns, with positions in the place of images.

    ``true_class_ids[label]`` is the number of a class in the image set.
    """

    task_id: str
    classes: list[str]
    support_images: list[int]
    support_labels: list[int]
    query_images: list[int]
    query_labels: list[int]
    true_class_ids: list[int]
    support_image_ids: list[str]
    query_image_ids: list[str]

    @classmethod
    def of(cls, episode: Episode, images: ImageSet) -> Self:
        return cls(
            task_id=episode.task_id,
            classes=episode.classes,
            support_images=[row.position for row in episode.support],
            support_labels=[row.label for row in episode.support],
            query_images=[row.position for row in episode.query],
            query_labels=[row.label for row in episode.query],
            true_class_ids=[images.class_names.index(name) for name in episode.classes],
            support_image_ids=[row.image_id for row in episode.support],
            query_image_ids=[row.image_id for row in episode.query],
        )

    def episode(self, source: str, images: ImageSet) -> Episode:
        where = f"{source}, task {self.task_id!r}"
        known = dict(enumerate(images.class_names))
        if [known.get(number) for number in self.true_class_ids] != self.classes:
            raise UserError(
                f"{where}: true_class_ids {self.true_class_ids} are not the classes {self.classes} of {images.name}.",
                "Load the images that the file was made for.",
            )
        support = _rows(where, "support ", self.support_images, self.support_labels, self.support_image_ids)
        query = _rows(where, "query ", self.query_images, self.query_labels, self.query_image_ids)
        return Episode(self.task_id, self.classes, support, query)


Task = Learn2LearnTask | TorchmetaTask | EasyfslTask
FORMS: dict[str, type[Task]] = {"learn2learn": Learn2LearnTask, "torchmeta": TorchmetaTask, "easyfsl": EasyfslTask}
LIBRARIES = tuple(FORMS)


def _rows(where: str, part: str, positions: list[int], labels: list[int], image_ids: list[str]) -> list[Row]:
    """The rows of lists that stand side by side; errors count rows from 1."""
    if not len(positions) == len(labels) == len(image_ids):
        raise UserError(
            f"{where}: its {part}rows have {len(positions)} positions, {len(labels)} labels and "
            f"{len(image_ids)} image ids.",
            "Every row needs one of each.",
        )
    columns = zip(positions, image_ids, labels, strict=True)
    return [Row(*cells, f"{part}row {number}") for number, cells in enumerate(columns, 1)]
