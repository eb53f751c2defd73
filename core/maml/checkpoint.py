"""A trained model on disk: ``model.safetensors`` (the meta-parameters) and ``model.json`` (what they belong to)."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from pydantic import BaseModel, ConfigDict, Field, ValidationError
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from core.errors import UserError
from core.files import content_hash, read_json, replacing, write_json
from core.maml.backbone import ConvNet, Params
from core.maml.objective import Bilevel

FORMAT = 1


class ModelSpec(BaseModel):
    """What a model is, apart from its parameters.

    Attributes:
        shape: Height, width and channels of the images.
        steps, rate: Inner gradient steps and learning rate.
        delta: Weight decay of the objective (a sum over tasks, :mod:`core.maml.objective`).
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    backbone: str = "convnet"
    ways: int = Field(ge=2)
    filters: int = Field(default=16, ge=1)
    shape: tuple[int, int, int] = (28, 28, 1)
    pooling: str = "stride"
    blocks: int = Field(default=4, ge=1)
    activation: str = "gelu"
    steps: int = Field(default=1, ge=1)
    rate: float = Field(default=0.4, gt=0)
    delta: float = Field(default=0.1, ge=0)

    def network(self) -> ConvNet:
        if self.backbone != "convnet":
            raise UserError(f"There is no backbone {self.backbone!r}.", "Known: convnet.")
        return ConvNet(self.ways, self.filters, self.shape, self.pooling, self.blocks, self.activation)

    def bilevel(self) -> Bilevel:
        return Bilevel(self.network(), self.steps, self.rate, self.delta)


@dataclass(frozen=True, eq=False)
class Model:
    """A model with its meta-parameters (on the CPU, as stored) and the story of its training.

    Attributes:
        story: JSON-serialisable: hashes of data and tasks, training settings, command, final report.
    """

    spec: ModelSpec
    params: Params
    story: dict[str, Any]

    @cached_property
    def hash(self) -> str:
        """Names this content: the spec and the parameters."""
        arrays = [part for name in sorted(self.params) for part in (name, self.params[name].numpy())]
        return content_hash(self.spec.model_dump(), *arrays)

    @property
    def size(self) -> int:
        return sum(value.numel() for value in self.params.values())


def save_model(model: Model, folder: Path) -> None:
    """Write both files, the description last."""
    with replacing(folder / "model.safetensors") as temporary:
        save_file({name: value.contiguous() for name, value in model.params.items()}, temporary)
    write_json(
        folder / "model.json", {"format": FORMAT, "spec": model.spec.model_dump(mode="json"), "story": model.story}
    )


def load_model(folder: Path) -> Model:
    """Read and check a model.

    Raises:
        UserError: a file is missing or damaged, a tensor is missing, too many, of another shape, or not finite.
    """
    path = folder / "model.json"
    described = read_json(path)
    try:
        if described["format"] != FORMAT:
            raise UserError(f"{path} has format {described['format']}, not {FORMAT}.", "Update TaskLens.")
        spec = ModelSpec.model_validate(described["spec"])
    except (KeyError, TypeError) as error:
        raise UserError(f"{path} is not a model description.", "Use a folder made by train.") from error
    except ValidationError as error:
        first = error.errors()[0]
        field = ".".join(str(part) for part in first["loc"])
        raise UserError(f"{path}: {field}: {first['msg']}.", "Correct the description.") from error
    return Model(spec, load_params(folder / "model.safetensors", spec), described.get("story", {}))


def load_params(path: Path, spec: ModelSpec) -> Params:
    """Read the meta-parameters of ``spec`` from a safetensors file; errors as in :func:`load_model`."""
    if not path.is_file():
        raise UserError(f"{path} does not exist.", "A model folder holds model.safetensors and model.json.")
    try:
        params = load_file(path)
    except (SafetensorError, OSError) as error:
        raise UserError(f"{path} is not a safetensors file: {error}.", "Restore the file or train again.") from error
    expected = spec.network().init(0)
    for name in sorted(expected.keys() | params.keys()):
        if name not in params:
            raise UserError(f"{path}: the tensor {name!r} is missing.", "The description is of another network.")
        if name not in expected:
            raise UserError(f"{path}: the tensor {name!r} is not part of this network.", "Check model.json.")
        have, want = tuple(params[name].shape), tuple(expected[name].shape)
        if have != want:
            raise UserError(f"{path}: {name!r} has shape {have}, the description asks for {want}.", "Check model.json.")
        if params[name].dtype not in (torch.float32, torch.float64):
            raise UserError(f"{path}: {name!r} is {params[name].dtype}.", "Save it as float32 or float64.")
        if not torch.isfinite(params[name]).all():
            raise UserError(f"{path}: {name!r} holds NaN or infinity.", "The training diverged; lower its rate.")
    return {name: params[name] for name in expected}
