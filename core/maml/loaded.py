"""Provide a model and its tasks as tensors on one device and in one precision."""

from __future__ import annotations

from collections.abc import Mapping
from copy import copy
from functools import cached_property
from typing import Self

from core.data import ImageSet
from core.maml.backbone import Params
from core.maml.episodes import Episodes
from core.maml.objective import Bilevel
from core.maml.passes import default_chunk_size
from core.maml.settings import Compute
from core.tasks.tasklist import TaskList


class Loaded:
    """A model with its training, held-out and validation tasks on a device.

    Attributes:
        hashes: Content hashes by name (``data``, ``tasks``, ``heldout``, ``model``), the start of every cache key.
    """

    def __init__(
        self,
        model: Bilevel,
        params: Params,
        images: ImageSet,
        tasks: TaskList,
        heldout_tasks: TaskList,
        compute: Compute,
        hashes: Mapping[str, str],
        validation_tasks: TaskList | None = None,
    ) -> None:
        self.model, self.images, self.tasks, self.heldout_tasks = model, images, tasks, heldout_tasks
        self.validation_tasks = validation_tasks
        self.compute, self.device, self.hashes = compute, compute.torch_device(), hashes
        self.params = self.place(params)

    def place(self, params: Params) -> Params:
        """Return the parameters on the device and in the precision of the computation."""
        return {name: value.to(self.device, self.compute.torch_dtype()) for name, value in params.items()}

    def with_params(self, params: Params) -> Self:
        """Return a copy with other meta-parameters and the same hashes."""
        other = copy(self)
        other.params = self.place(params)
        return other

    def with_tasks(self, tasks: TaskList) -> Self:
        """Return a copy with other training tasks over the same images and the same hashes."""
        other = copy(self)
        other.tasks = tasks
        other.__dict__.pop("train", None)  # of the former tasks
        return other

    def episodes(self, tasks: TaskList) -> Episodes:
        """Return the tensors of any tasks over the same images."""
        dtype = self.compute.torch_dtype()
        chunk = self.compute.chunk or default_chunk_size(
            self.model, self.images.shape, -(-len(tasks.rows) // len(tasks)), self.device, dtype
        )
        return Episodes(tasks, self.images, device=self.device, dtype=dtype, chunk=chunk)

    @cached_property
    def train(self) -> Episodes:
        """Return the tensors of the training tasks."""
        return self.episodes(self.tasks)

    @cached_property
    def heldout(self) -> Episodes:
        """Return the tensors of the held-out tasks."""
        return self.episodes(self.heldout_tasks)

    @property
    def validation_count(self) -> int:
        """Return the number of validation tasks."""
        return 0 if self.validation_tasks is None else len(self.validation_tasks)

    @cached_property
    def validation(self) -> Episodes | None:
        """Return the tensors of the validation tasks, if there are any."""
        return None if self.validation_tasks is None else self.episodes(self.validation_tasks)
