"""Save and load trained models.

A model folder contains ``model.safetensors`` (the meta-parameters), ``model.json`` (the model specification and
metadata) and, if the training saved them, ``trajectory.safetensors`` (snapshots of the meta-parameters).
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path
from typing import Any, Literal, NotRequired, Required

import torch
from pydantic import ValidationError, model_validator
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from typing_extensions import TypedDict

from core.checkpoints.factory import code_hash, make_module
from core.checkpoints.outputs import check_finite, check_outputs
from core.checkpoints.tensor_file import read_safetensors
from core.maml.adaptation import RATE_PREFIX, Implicit, Unrolled
from core.maml.architectures import ARCHITECTURES, BACKBONE_ALIASES
from core.maml.backbone import MLP, ConvNet, Params, Shapes, head_of
from core.maml.module import ModuleNet
from core.maml.objective import Bilevel
from core.maml.settings import ModelFields
from core.maml.training import Snapshot
from core.runtime.errors import UserError
from core.runtime.files import write_json
from core.runtime.hashing import content_hash
from core.runtime.reading import check_input
from core.runtime.replacing import replacing
from core.runtime.sequence import next_number, number_of
from core.runtime.stored import OPEN, Count, Number, Text, read_stored

FORMAT = 1
TRAJECTORY = "trajectory.safetensors"
BACKBONE_FIELDS: dict[str, tuple[str, ...]] = {
    "convnet": ("filters", "blocks", "pooling", "activation"),
    "mlp": ("hidden", "shrink", "activation"),
    "module": (),
} | {name: tuple(known.defaults) for name, known in ARCHITECTURES.items()}
"""Fields of a model specification that each backbone uses in addition to ways and shape."""
NETWORK_FIELDS = frozenset(field for fields in BACKBONE_FIELDS.values() for field in fields)


class _Stationarity(TypedDict):
    __pydantic_config__ = OPEN  # type: ignore[misc]
    ratio: Number


class _Interval(TypedDict):
    mean: Number
    low: Number
    high: Number


class _Report(TypedDict, total=False):
    __pydantic_config__ = OPEN  # type: ignore[misc]
    stationarity: _Stationarity
    heldout_accuracy: _Interval
    heldout_loss: _Interval
    kept_step: Count | None


class _HistoryEntry(TypedDict, total=False):
    __pydantic_config__ = OPEN  # type: ignore[misc]
    done: Required[Count]
    phase: Required[Text]
    loss: Number
    training_accuracy: Number
    training_loss: Number
    validation_accuracy: Number
    validation_loss: Number


class _Training(TypedDict, total=False):
    __pydantic_config__ = OPEN  # type: ignore[misc]
    iterations: Required[Count]


class _Origin(TypedDict, total=False):
    __pydantic_config__ = OPEN  # type: ignore[misc]
    notes: list[Text]


class ModelMetadata(TypedDict, total=False):
    """The metadata of :class:`Model`; each part is there where the model was made in a way that has it."""

    __pydantic_config__ = OPEN  # type: ignore[misc]
    command: Text
    data: Text
    data_hash: Text
    tasks_hash: Text
    heldout_hash: Text
    training: _Training
    report: _Report
    history: list[_HistoryEntry]
    origin: _Origin


class ModelFile(TypedDict):
    """``model.json``; ``sequence`` counts the models beside it, so that their order does not depend on a clock."""

    __pydantic_config__ = OPEN  # type: ignore[misc]
    format: Literal[1]
    spec: dict[str, Any]
    story: NotRequired[ModelMetadata]
    sequence: NotRequired[Count]


class ModelSpec(ModelFields):
    """A model specification without parameters, with the fields of :class:`core.maml.settings.ModelFields`."""

    @model_validator(mode="before")
    @classmethod
    def _fill_defaults(cls, fields: Any) -> Any:
        """Fill in the default sizes of learn2learn for its networks."""
        backbone = fields.get("backbone") if isinstance(fields, dict) else None
        if not isinstance(backbone, str):
            return fields
        backbone = BACKBONE_ALIASES.get(backbone, backbone)
        defaults = ARCHITECTURES[backbone].defaults if backbone in ARCHITECTURES else {}
        return {**defaults, **fields, "backbone": backbone}

    @model_validator(mode="after")
    def _check_factory(self) -> ModelSpec:
        if (self.backbone == "module") != (self.factory is not None):
            raise ValueError("Specify a custom network as package.module:factory, the function that builds it")
        return self

    @property
    def backbone_name(self) -> str:
        """Return the name of the backbone on the command line."""
        return self.factory or self.backbone

    def with_code_hash(self) -> ModelSpec:
        """Return a copy that records the current code hash of the factory, if there is one."""
        if self.factory is None:
            return self
        return self.model_copy(update={"code": code_hash(self.factory, self.ways, self.shape)})

    def network(self) -> ConvNet | MLP | ModuleNet:
        """Return the network.

        Raises:
            UserError: the fields do not define a valid network, or the factory cannot be used or has changed.
        """
        if self.backbone == "mlp":
            return MLP(self.ways, self.hidden, self.shape, self.shrink, self.activation)
        if self.backbone == "convnet":
            return ConvNet(self.ways, self.filters, self.shape, self.pooling, self.blocks, self.activation)
        if self.factory is not None:
            if self.code not in ("", code_hash(self.factory, self.ways, self.shape)):
                raise UserError(
                    f"The code of {self.factory} has changed since this model was created.",
                    f"Restore the code, or import the checkpoint again: model --backbone {self.factory}.",
                )
            build = partial(make_module, self.factory, self.ways, self.shape)
            return ModuleNet(self.factory, self.ways, self.shape, build, self.code)
        architecture = ARCHITECTURES[self.backbone]
        sizes = {name: getattr(self, name) for name in architecture.defaults}
        build = partial(architecture.make, self.ways, self.shape, **sizes)
        name = f"{architecture.title}({', '.join(f'{key}={value!r}' for key, value in sizes.items())})"
        return ModuleNet(name, self.ways, self.shape, build, is_builtin=True)

    def adaptation(self) -> Unrolled | Implicit:
        """Return the adaptation that the algorithm uses."""
        if self.algorithm == "imaml":
            return Implicit(self.proximity, self.inner_tolerance)
        adapted = "head" if self.algorithm == "anil" else "all"
        return Unrolled(self.steps, self.rate, adapted, self.algorithm == "meta-sgd")

    def bilevel(self) -> Bilevel:
        """Return the bilevel model; raise UserError as :meth:`network`, or if there is no head for ``anil``."""
        network = self.network()
        if self.algorithm == "anil":
            head_of(network)  # fail early if the network has no head
        return Bilevel(network, self.adaptation(), self.delta, first_order=self.algorithm == "fomaml")

    @property
    def description(self) -> str:
        """Return a one-line description of the network and its adaptation."""
        steps = "1 inner step" if self.steps == 1 else f"{self.steps} inner steps"
        if self.algorithm == "imaml":
            adaptation = f"proximal inner problem with proximity {self.proximity:g}"
        else:
            adaptation = f"{steps} at {'learned rates' if self.algorithm == 'meta-sgd' else f'rate {self.rate:g}'}"
        return f"{self.network_description}; {self.algorithm}, {adaptation}; weight decay {self.delta:g}"

    @property
    def network_description(self) -> str:
        """Return a one-line description of the network."""
        blocks = f"{self.blocks} convolution blocks of {self.filters} filters"
        widths = ", ".join(map(str, self.hidden))
        hidden = f"hidden layers of {widths}" if self.hidden else "no hidden layer (linear)"
        shrunk = f", images averaged over {self.shrink} x {self.shrink} squares" if self.shrink > 1 else ""
        descriptions = {
            "convnet": f"{blocks}, pooling {self.pooling}, {self.activation}",
            "mlp": f"mlp with {hidden}, {self.activation}{shrunk}",
            "omniglot-cnn": f"learn2learn's OmniglotCNN: {blocks}",
            "omniglot-fc": f"learn2learn's OmniglotFC: {hidden}",
            "cnn4": f"learn2learn's CNN4: {blocks}, pooling {self.pooling}",
            "resnet12": f"learn2learn's ResNet12: {widths} filters, pooling {self.pooling}",
            "module": f"{self.factory}",
        }
        return descriptions[self.backbone]

    def init(self, seed: int, dtype: torch.dtype = torch.float32) -> Params:
        """Return initial meta-parameters on the CPU."""
        network, adaptation = self.network(), self.adaptation()
        params = network.init(seed, dtype)
        return params | (adaptation.rates(params, network) if isinstance(adaptation, Unrolled) else {})

    def shapes(self) -> Shapes:
        """Return the shape of every meta-parameter, without allocating them unless the network has a user factory."""
        shapes = self.network().shapes
        has_rates = self.algorithm == "meta-sgd"
        return shapes | ({f"{RATE_PREFIX}{name}": shape for name, shape in shapes.items()} if has_rates else {})


def spec_of(fields: Mapping[str, Any]) -> ModelSpec:
    """Return a model specification from the fields of a user; raise UserError that names an invalid one."""
    try:
        return ModelSpec.model_validate(dict(fields))
    except ValidationError as error:
        field, message, value = _first_error(error)
        raise UserError(f"{field}: {message}, not {value}." if field else f"{message}.") from error


def _first_error(error: ValidationError) -> tuple[str, str, Any]:
    """Return the field, the message and the value of the first validation error."""
    first = error.errors()[0]
    return ".".join(map(str, first["loc"])), first["msg"].removeprefix("Value error, "), first["input"]


def check_unused_fields(backbone: str, fields: Iterable[str]) -> None:
    """Raise UserError if the user specified a network field that ``backbone`` does not use."""
    name = BACKBONE_ALIASES.get(backbone, backbone)
    for field in sorted(NETWORK_FIELDS & set(fields)):
        if name in BACKBONE_FIELDS and field not in BACKBONE_FIELDS[name]:
            network = "A custom network" if name == "module" else f"The backbone {name}"
            raise UserError(f"{network} does not use --{field}.", "Omit it.")


@dataclass(frozen=True, eq=False)
class Model:
    """A model with its meta-parameters (on the CPU, as stored) and the JSON-serialisable metadata of its training.

    The metadata are hashes of data and tasks, training settings, command and final report.
    """

    spec: ModelSpec
    params: Params
    metadata: dict[str, Any]

    @cached_property
    def hash(self) -> str:
        """Return the content hash of the specification and the parameters."""
        arrays = [part for name in sorted(self.params) for part in (name, self.params[name].numpy())]
        return content_hash(self.spec.model_dump(exclude_defaults=True), *arrays)

    @property
    def size(self) -> int:
        """Return the number of meta-parameters (scalars)."""
        return sum(value.numel() for value in self.params.values())


def save_model(model: Model, folder: Path) -> None:
    """Write ``model.safetensors``, then ``model.json``."""
    with replacing(folder / "model.safetensors") as temporary:
        save_file({name: value.contiguous() for name, value in model.params.items()}, temporary)
    description = {"format": FORMAT, "spec": model.spec.model_dump(mode="json"), "story": model.metadata}
    with next_number(folder.parent, lambda: map(model_sequence, folder.parent.glob("*/model.json"))) as sequence:
        write_json(folder / "model.json", description | {"sequence": sequence})


def model_sequence(path: Path) -> int:
    """Return the number of a ``model.json`` among the models beside it; 0 if it has none or is damaged."""
    return number_of(lambda: read_stored(path, ModelFile).get("sequence", 0))


def load_model(folder: Path) -> Model:
    """Read and check a model.

    Raises:
        UserError: a file is missing or damaged, or a tensor is missing, unexpected, of another shape or not finite.
    """
    path = folder / "model.json"
    description = read_stored(path, ModelFile, fix="Use a folder written by train, or restore the file.")
    try:
        spec = ModelSpec.model_validate(description["spec"])
    except ValidationError as error:
        field, message, _ = _first_error(error)
        raise UserError(f"{path}: {f'{field}: ' if field else ''}{message}.", "Correct the description.") from error
    return Model(spec, _load_params(folder / "model.safetensors", spec), {**description.get("story", {})})


def save_trajectory(trajectory: list[Snapshot], folder: Path) -> None:
    """Write the snapshots of a training to the model folder, for TracIn and for edits that start from them."""
    tensors = {
        f"{number}.{name}": value.cpu().float().contiguous()
        for number, snapshot in enumerate(trajectory)
        for name, value in snapshot.params.items()
    }
    rates = json.dumps([snapshot.rate for snapshot in trajectory])
    with replacing(folder / TRAJECTORY) as temporary:
        save_file(tensors, temporary, metadata={"rates": rates})


def load_trajectory(folder: Path, spec: ModelSpec) -> list[Snapshot]:
    """Read the snapshots of :func:`save_trajectory`; raise UserError if missing, damaged or of another network."""
    path = folder / TRAJECTORY
    if not path.is_file():
        raise UserError(
            "This model has no snapshots of its training.", "Train it with the train command, or use another method."
        )
    check_input(path)
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


def _load_params(path: Path, spec: ModelSpec) -> Params:
    """Read the meta-parameters of ``spec``; names, shapes and data types are checked before any values are read."""
    file = read_safetensors(path)
    expected = spec.shapes()
    for name in sorted(expected.keys() | file.tensors.keys()):
        if name not in file.tensors:
            raise UserError(f"{path}: the tensor {name!r} is missing.", "Check model.json.")
        if name not in expected:
            raise UserError(f"{path}: the tensor {name!r} is not part of this network.", "Check model.json.")
        tensor, shape = file.tensors[name], expected[name]
        if tensor.shape != shape:
            raise UserError(f"{path}: {name!r} has shape {tensor.shape}, but needs {shape}.", "Check model.json.")
        if tensor.dtype not in ("float32", "float64"):
            raise UserError(f"{path}: {name!r} is {tensor.dtype}.", "Save it as float32 or float64.")
    params = file.load(list(expected))
    check_finite(path, params)
    check_outputs(path, spec.network(), spec.shape, params)
    return params
