"""Where and how precisely to compute, and a project's tensors made so."""

from __future__ import annotations

from copy import copy
from dataclasses import dataclass
from functools import cached_property

import torch

from core.maml.backbone import Params
from core.maml.episodes import Episodes
from core.maml.objective import Bilevel
from core.maml.passes import default_chunk_size
from core.runtime.errors import UserError
from core.tasks.tasklist import TaskList
from core.workspace.workspace import Project

DTYPES = {"float32": torch.float32, "float64": torch.float64}


@dataclass(frozen=True)
class Compute:
    """How to compute.

    Attributes:
        device: ``auto`` (CUDA where there is one), ``cpu``, ``cuda`` or ``cuda:N``.
        dtype: ``float32`` or ``float64``.
        chunk: Tasks run at once; memory grows with it. 0 means as many as are fast here
            (:func:`core.maml.passes.default_chunk_size`).
    """

    device: str = "auto"
    dtype: str = "float32"
    chunk: int = 0

    def resolved(self) -> torch.device:
        """The device, checked.

        Raises:
            UserError: there is no such device here.
        """
        if self.device == "auto":
            return torch.device("cuda" if torch.cuda.is_available() else "cpu")
        try:
            device = torch.device(self.device)
            torch.zeros(1, device=device)
        except (RuntimeError, AssertionError) as error:
            raise UserError(f"The device {self.device!r} cannot be used here.", "Use auto or cpu.") from error
        return device

    def torch_dtype(self) -> torch.dtype:
        if self.dtype not in DTYPES:
            raise UserError(f"There is no precision {self.dtype!r}.", f"Use {' or '.join(DTYPES)}.")
        return DTYPES[self.dtype]


class Loaded:
    """A project's tensors on a device."""

    def __init__(self, project: Project, compute: Compute) -> None:
        self.project, self.compute, self.device = project, compute, compute.resolved()
        self.model: Bilevel = project.model.spec.bilevel()
        self.params = self.place(project.model.params)

    def place(self, params: Params) -> Params:
        return {name: value.to(self.device, self.compute.torch_dtype()) for name, value in params.items()}

    def at(self, params: Params) -> Loaded:
        """The same with other meta-parameters."""
        other = copy(self)
        other.params = self.place(params)
        return other

    def episodes(self, tasks: TaskList) -> Episodes:
        dtype, images = self.compute.torch_dtype(), self.project.images
        chunk = self.compute.chunk or default_chunk_size(
            self.model, images.shape, -(-len(tasks.rows) // len(tasks)), self.device, dtype
        )
        return Episodes(tasks, images, device=self.device, dtype=dtype, chunk=chunk)

    @cached_property
    def train(self) -> Episodes:
        return self.episodes(self.project.tasks.train)

    @cached_property
    def heldout(self) -> Episodes:
        return self.episodes(self.project.tasks.heldout)
