"""Define the format of a fixed episode for learn2learn, torchmeta and easyfsl.

None of these libraries has a task file format, so each format is the smallest that the library's own classes accept
unchanged: the fields are named after the arguments and attributes that they become (``docs/exchange.md`` shows the code
to load them). All three identify an image by its position in a data set. The image id is stored beside the position,
to check that the data set is the same.

The libraries do not support weights, and their own samplers label an image by its class. These files store the label of
the row, because a task list may assign another one.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import zip_longest
from typing import Any, NamedTuple, Self

from pydantic import BaseModel, ConfigDict

from core.data import ImageSet
from core.runtime.errors import UserError


class Row(NamedTuple):
    """One image in one role of a task."""

    position: int  # of the image in the image set
    image_id: str
    label: int
    name: str = ""  # of the row in errors


@dataclass(frozen=True)
class Episode:
    """A task in a form common to all libraries; ``classes[label]`` is the name of a class."""

    task_id: str
    classes: list[str]
    support: list[Row]
    query: list[Row]


class _Form(BaseModel):
    """A model that validates strictly: no strings for numbers, no fractions for integers. Other fields are ignored."""

    model_config = ConfigDict(strict=True)


class _Task(_Form):
    task_id: str
    classes: list[str]


class Learn2LearnTask(_Task):
    """A task for learn2learn.

    ``indices`` become the ``DataDescription``s of a ``Taskset``; ``adaptation_indices`` are positions in this list.
    Support and query rows alternate while both remain: with as many query as support rows, this is the order that the
    examples of learn2learn expect (``adaptation_indices[np.arange(shots * ways) * 2] = True``).
    """

    indices: list[int]
    labels: list[int]
    adaptation_indices: list[int]
    image_ids: list[str]

    @classmethod
    def of(cls, episode: Episode, images: ImageSet) -> Self:
        """Build the task from an episode."""
        pairs = zip_longest([(row, True) for row in episode.support], [(row, False) for row in episode.query])
        order = [entry for pair in pairs for entry in pair if entry is not None]
        return cls(
            task_id=episode.task_id,
            classes=episode.classes,
            adaptation_indices=[position for position, (_, is_support) in enumerate(order) if is_support],
            **_lists([row for row, _ in order]),
        )

    def episode(self, where: str, images: ImageSet) -> Episode:
        """Return the episode of this task, called ``where`` in errors.

        Raises:
            UserError: the lists differ in length, or an adaptation index is out of range or out of order.
        """
        rows = _rows(where, "", self.indices, self.labels, self.image_ids)
        positions = self.adaptation_indices
        if positions != sorted(set(positions)) or (positions and not 0 <= positions[0] <= positions[-1] < len(rows)):
            raise UserError(
                f"{where}: adaptation_indices are not ascending positions of its {len(rows)} rows.",
                "Positions count from 0.",
            )
        in_support = set(positions)
        query = [row for position, row in enumerate(rows) if position not in in_support]
        return Episode(self.task_id, self.classes, [rows[position] for position in positions], query)


class TorchmetaSplit(_Form):
    """A support or query set for torchmeta: ``indices`` are those of a ``SubsetTask``, ``labels`` its targets."""

    indices: list[int]
    labels: list[int]
    image_ids: list[str]


class TorchmetaTask(_Task):
    """A task for torchmeta; ``train`` and ``test`` are the keys of the ``OrderedDict`` that represents a task there."""

    train: TorchmetaSplit
    test: TorchmetaSplit

    @classmethod
    def of(cls, episode: Episode, images: ImageSet) -> Self:
        """Build the task from an episode."""
        train, test = (TorchmetaSplit(**_lists(rows)) for rows in (episode.support, episode.query))
        return cls(task_id=episode.task_id, classes=episode.classes, train=train, test=test)

    def episode(self, where: str, images: ImageSet) -> Episode:
        """Return the episode of this task, called ``where`` in errors.

        Raises:
            UserError: the lists of a set differ in length.
        """
        support, query = (
            _rows(where, f"{name} ", split.indices, split.labels, split.image_ids)
            for name, split in (("train", self.train), ("test", self.test))
        )
        return Episode(self.task_id, self.classes, support, query)


class EasyfslTask(_Task):
    """A task for easyfsl: the five outputs of ``TaskSampler.episodic_collate_fn``, with positions instead of images.

    ``true_class_ids[label]`` is the number of a class in the image set.
    """

    support_images: list[int]
    support_labels: list[int]
    query_images: list[int]
    query_labels: list[int]
    true_class_ids: list[int]
    support_image_ids: list[str]
    query_image_ids: list[str]

    @classmethod
    def of(cls, episode: Episode, images: ImageSet) -> Self:
        """Build the task from an episode."""
        return cls(
            task_id=episode.task_id,
            classes=episode.classes,
            true_class_ids=[images.class_names.index(name) for name in episode.classes],
            **_lists(episode.support, "support_images", "support_labels", "support_image_ids"),
            **_lists(episode.query, "query_images", "query_labels", "query_image_ids"),
        )

    def episode(self, where: str, images: ImageSet) -> Episode:
        """Return the episode of this task, called ``where`` in errors.

        Raises:
            UserError: the lists differ in length, or ``true_class_ids`` do not match ``classes``.
        """
        class_of = dict(enumerate(images.class_names))
        if [class_of.get(number) for number in self.true_class_ids] != self.classes:
            raise UserError(
                f"{where}: true_class_ids {self.true_class_ids} are not the classes {self.classes} of {images.name}.",
                "Load the images that the file was written for.",
            )
        support = _rows(where, "support ", self.support_images, self.support_labels, self.support_image_ids)
        query = _rows(where, "query ", self.query_images, self.query_labels, self.query_image_ids)
        return Episode(self.task_id, self.classes, support, query)


Task = Learn2LearnTask | TorchmetaTask | EasyfslTask
FORMS: dict[str, type[Task]] = {"learn2learn": Learn2LearnTask, "torchmeta": TorchmetaTask, "easyfsl": EasyfslTask}
LIBRARIES = tuple(FORMS)


def _lists(
    rows: list[Row], positions: str = "indices", labels: str = "labels", image_ids: str = "image_ids"
) -> dict[str, Any]:
    """Return the positions, labels and image ids of rows, as fields of these names."""
    return {
        positions: [row.position for row in rows],
        labels: [row.label for row in rows],
        image_ids: [row.image_id for row in rows],
    }


def _rows(where: str, part: str, positions: list[int], labels: list[int], image_ids: list[str]) -> list[Row]:
    """Return the rows of parallel lists; errors count rows from 1."""
    if not len(positions) == len(labels) == len(image_ids):
        raise UserError(
            f"{where}: its {part}rows have {len(positions)} positions, {len(labels)} labels and "
            f"{len(image_ids)} image ids.",
            "Every row needs one of each.",
        )
    columns = zip(positions, image_ids, labels, strict=True)
    return [Row(*cells, f"{part}row {number}") for number, cells in enumerate(columns, 1)]
