"""A trained model on disk: ``model.safetensors`` (the meta-parameters), ``model.json`` (what they belong to) and, where
the training kept them, ``trajectory.safetensors`` (meta-parameters on the way).
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import torch
from pydantic import BaseModel, ConfigDict, Field, ValidationError
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save_file

from core.errors import UserError
from core.files import content_hash, read_json, replacing, write_json
from core.maml.adaptation import Implicit, Unrolled
from core.maml.backbone import MLP, ConvNet, Params
from core.maml.objective import Bilevel
from core.maml.training import Snapshot

FORMAT = 1
TRAJECTORY = "trajectory.safetensors"


class ModelSpec(BaseModel):
    """What a model is, apart from its parameters.

    Attributes:
        algorithm: ``maml``; ``fomaml`` (first order: trained with the direct gradient); ``anil`` (only the head
            adapts); ``meta-sgd`` (inner rates are learned, ``rate`` is where they start); ``imaml`` (the inner problem
            is proximal and solved, :class:`core.maml.adaptation.Implicit`).
        shape: Height, width and channels of the images.
        filters, pooling, blocks: Of the backbone ``convnet``.
        hidden, shrink: Of the backbone ``mlp``; no hidden layers make it linear.
        steps, rate: Inner gradient steps and learning rate; ``imaml`` has none.
        proximity, inner_tolerance: Of ``imaml``.
        delta: Weight decay of the objective (a sum over tasks, :mod:`core.maml.objective`).
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    backbone: Literal["convnet", "mlp"] = "convnet"
    algorithm: Literal["maml", "fomaml", "anil", "meta-sgd", "imaml"] = "maml"
    ways: int = Field(ge=2)
    filters: int = Field(default=16, ge=1)
    shape: tuple[int, int, int] = (28, 28, 1)
    pooling: str = "stride"
    blocks: int = Field(default=4, ge=1)
    hidden: tuple[int, ...] = (64,)
    shrink: int = Field(default=1, ge=1)
    activation: str = "gelu"
    steps: int = Field(default=1, ge=1)
    rate: float = Field(default=0.4, gt=0)
    proximity: float = Field(default=1.0, gt=0)
    inner_tolerance: float = Field(default=1e-5, gt=0)
    delta: float = Field(default=0.1, ge=0)

    def network(self) -> ConvNet | MLP:
        if self.backbone == "mlp":
            return MLP(self.ways, self.hidden, self.shape, self.shrink, self.activation)
        return ConvNet(self.ways, self.filters, self.shape, self.pooling, self.blocks, self.activation)

    def adaptation(self) -> Unrolled | Implicit:
        if self.algorithm == "imaml":
            return Implicit(self.proximity, self.inner_tolerance)
        adapted = "head" if self.algorithm == "anil" else "all"
        return Unrolled(self.steps, self.rate, adapted, self.algorithm == "meta-sgd")

    def bilevel(self) -> Bilevel:
        return Bilevel(self.network(), self.adaptation(), self.delta, first_order=self.algorithm == "fomaml")

    @property
    def words(self) -> str:
        """The network and the way it adapts, in a line."""
        hidden = f"hidden layers of {', '.join(map(str, self.hidden))}" if self.hidden else "no hidden layer (linear)"
        shrunk = f", images averaged over {self.shrink} x {self.shrink} squares" if self.shrink > 1 else ""
        network = (
            f"{self.blocks} convolution blocks of {self.filters} filters, {self.activation}"
            if self.backbone == "convnet"
            else f"mlp with {hidden}, {self.activation}{shrunk}"
        )
        steps = "1 inner step" if self.steps == 1 else f"{self.steps} inner steps"
        adapts = (
            f"proximal inner problem of proximity {self.proximity:g}"
            if self.algorithm == "imaml"
            else f"{steps} at rate {self.rate:g}"
        )
        return f"{network}; {self.algorithm}, {adapts}; weight decay {self.delta:g}"

    def init(self, seed: int, dtype: torch.dtype = torch.float32) -> Params:
        """Fresh meta-parameters on the CPU."""
        params, adaptation = self.network().init(seed, dtype), self.adaptation()
        return params | (adaptation.rates(params) if isinstance(adaptation, Unrolled) else {})


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
        return content_hash(self.spec.model_dump(exclude_defaults=True), *arrays)

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


def save_trajectory(trajectory: list[Snapshot], folder: Path) -> None:
    """Write the snapshots of a training beside its model, which TracIn reads."""
    tensors = {
        f"{number}.{name}": value.cpu().float().contiguous()
        for number, snapshot in enumerate(trajectory)
        for name, value in snapshot.params.items()
    }
    rates = json.dumps([snapshot.rate for snapshot in trajectory])
    with replacing(folder / TRAJECTORY) as temporary:
        save_file(tensors, temporary, metadata={"rates": rates})


def load_trajectory(folder: Path, spec: ModelSpec) -> list[Snapshot]:
    """Read what :func:`save_trajectory` wrote.

    Raises:
        UserError: there is none, or it is damaged or of another network.
    """
    path = folder / TRAJECTORY
    if not path.is_file():
        raise UserError(
            "This model was kept without snapshots of its training, which TracIn follows.",
            "Train it with the train command, or use another method.",
        )
    try:
        with safe_open(path, "pt") as stream:
            rates = json.loads(stream.metadata()["rates"])
            tensors = {name: stream.get_tensor(name) for name in stream.keys()}  # noqa: SIM118
        names = spec.init(0)
        return [
            Snapshot({name: tensors[f"{number}.{name}"].view_as(names[name]) for name in names}, float(rate))
            for number, rate in enumerate(rates)
        ]
    except (SafetensorError, KeyError, TypeError, ValueError, RuntimeError, OSError) as error:
        raise UserError(f"{path} is damaged or of another network: {error}.", "Train the model again.") from error


def load_params(path: Path, spec: ModelSpec) -> Params:
    """Read the meta-parameters of ``spec`` from a safetensors file; errors as in :func:`load_model`."""
    if not path.is_file():
        raise UserError(f"{path} does not exist.", "A model folder holds model.safetensors and model.json.")
    try:
        params = load_file(path)
    except (SafetensorError, OSError) as error:
        raise UserError(f"{path} is not a safetensors file: {error}.", "Restore the file or train again.") from error
    expected = spec.init(0)
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
