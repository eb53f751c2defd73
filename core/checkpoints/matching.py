"""Identify the network of a checkpoint from the names and shapes of its tensors.

Names are tried unchanged, and then without common prefixes (``module.``, ``model.``) and the wrappers of learn2learn.
``MAML`` only adds a prefix. ``MetaSGD`` also stores one rate per parameter, ``lrs.0`` and so on in the order of
``module.parameters()``; these become ``rates.<name>`` in TaskLens. ``GBML`` stores the weights of learned transforms.
TaskLens does not implement updates by learned transforms, so such checkpoints are rejected.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import product
from pathlib import Path
from typing import Any

from torch import Tensor

from core.checkpoints.factory import is_factory
from core.checkpoints.model import ModelSpec, check_unused_fields, spec_of
from core.checkpoints.tensor_file import TensorFile
from core.maml.adaptation import RATE_PREFIX
from core.maml.architectures import BACKBONE_ALIASES, OMNIGLOT_SHAPE
from core.maml.backbone import MLP, ConvNet, Shapes
from core.maml.module import RUNNING_STATISTICS, ModuleNet
from core.runtime.errors import UserError

HALF_PRECISION = ("float16", "bfloat16")
"""Data types that are accepted and converted to float32."""
_SUPPORTED_DTYPES = ("float32", "float64", *HALF_PRECISION)
_NO_WEIGHT_DECAY = {"delta": 0.0}
"""Defaults of imported models: the examples of learn2learn train without weight decay."""
_COMMON_SIDES = (28, 32, 84)


@dataclass(frozen=True)
class CheckpointHints:
    """A set of user-specified properties of a checkpoint; None means that the file determines the value.

    Attributes:
        backbone: A backbone of :class:`core.checkpoints.model.ModelSpec`, or ``package.module:factory``.
        algorithm: An algorithm of :class:`core.checkpoints.model.ModelSpec`.
        shape: Height, width and channels of the images.
        ways: Classes per task.
        steps, rate: Number of inner steps and inner learning rate.
        more: Further fields of the model specification, such as ``pooling`` and ``delta``.
    """

    backbone: str | None = None
    algorithm: str | None = None
    shape: tuple[int, int, int] | None = None
    ways: int | None = None
    steps: int | None = None
    rate: float | None = None
    more: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class MatchedCheckpoint:
    """A mapping between a model and the tensors of a matching checkpoint.

    Attributes:
        spec: The model specification.
        where: Tensor name in the file for every meta-parameter.
        same: Pairs of tensor names in the file that must have equal values.
        constants: Expected values of buffers, by tensor name in the file.
        notes: Sentences about what was inferred, omitted or converted.
    """

    spec: ModelSpec
    where: Mapping[str, str]
    same: Sequence[tuple[str, str]]
    constants: Mapping[str, Tensor]
    notes: tuple[str, ...]


@dataclass(frozen=True)
class _NameMapping:
    """An interpretation of the names in a file.

    Attributes:
        tensors: Tensor name in the file for every name without prefix.
        rates: Tensor name in the file for every MetaSGD rate, by position.
    """

    file: TensorFile
    tensors: Mapping[str, str]
    rates: Mapping[int, str]

    @property
    def shapes(self) -> Shapes:
        return {name: self.file.tensors[where].shape for name, where in self.tensors.items()}

    def without(self, prefix: str) -> dict[str, str]:
        return {name.removeprefix(prefix): at for name, at in self.tensors.items() if name.startswith(prefix)}


def _name_mappings(file: TensorFile) -> Iterator[_NameMapping]:
    """Yield the names unchanged, then with one common prefix after another removed."""
    reading = _NameMapping(file, {name: name for name in file.tensors}, {})
    while True:
        yield reading
        first = {name.split(".", 1)[0] for name in reading.tensors}
        if {"module", "lrs"} == first and all(re.fullmatch(r"\d{1,6}", name) for name in reading.without("lrs.")):
            rates = {int(position): where for position, where in reading.without("lrs.").items()}
            reading = _NameMapping(file, reading.without("module."), rates)
        elif {"module", "compute_update"} == first:
            raise UserError(
                f"{file.path} is a GBML model whose transforms learn (compute_update), and an update by learned "
                "transforms is none of TaskLens's algorithms.",
                "Use MAML or MetaSGD, or GBML without transforms.",
            )
        elif len(first) == 1 and all("." in name for name in reading.tensors):
            reading = _NameMapping(file, reading.without(f"{next(iter(first))}."), reading.rates)
        else:
            return


_FIRST_AND_LAST_WEIGHT = {
    "omniglot-cnn": ("base.0.conv.weight", "classifier.weight"),
    "omniglot-fc": ("features.1.0.linear.weight", "classifier.weight"),
    "cnn4": ("features.0.conv.weight", "classifier.weight"),
    "resnet12": ("features.layer1.0.conv1.weight", "classifier.weight"),
    "convnet": ("blocks.0.conv.weight", "head.weight"),
    "mlp": ("layers.0.weight", "head.weight"),
}
"""Tensors that identify a backbone: its first and its last weight."""
_BLOCK_WEIGHTS = {
    "omniglot-cnn": r"base\.\d+\.conv\.weight",
    "omniglot-fc": r"features\.1\.\d+\.linear\.weight",
    "cnn4": r"features\.\d+\.conv\.weight",
    "resnet12": r"features\.layer\d\.0\.conv1\.weight",
    "convnet": r"blocks\.\d+\.conv\.weight",
    "mlp": r"layers\.\d+\.weight",
}
"""Patterns of the weight of every block; their count and output widths are hyperparameters of the network."""


class _HeadMismatchError(UserError):
    """An error that is raised if only the head, whose shape depends on the image size, does not match."""


def _has_names_of(backbone: str, names: Mapping[str, Any]) -> bool:
    if backbone == "mlp" and {name for name in names if not name.startswith(RATE_PREFIX)} == {
        "head.weight",
        "head.bias",
    }:
        return True  # the linear model has no hidden layers
    return all(name in names for name in _FIRST_AND_LAST_WEIGHT[backbone])


def match_checkpoint(file: TensorFile, ask: CheckpointHints) -> MatchedCheckpoint:
    """Match a file to its network.

    Raises:
        UserError: the file matches no network, or not the requested one. The message names the tensor.
    """
    if not file.tensors:
        raise UserError(f"{file.path} holds no tensors.", "Name a file of weights.")
    for tensor in file.tensors.values():
        if 0 in tensor.shape:  # the other axes of an empty tensor may declare any size
            raise UserError(f"{file.path}: {tensor.name!r} of shape {tensor.shape} holds no numbers.", "Save it again.")
    if ask.backbone is not None and is_factory(ask.backbone):
        return _match_module(file, ask)
    asked = BACKBONE_ALIASES.get(ask.backbone or "", ask.backbone)
    if asked is not None and asked not in _FIRST_AND_LAST_WEIGHT:
        known = ", ".join((*_FIRST_AND_LAST_WEIGHT, *BACKBONE_ALIASES))
        raise UserError(f"There is no backbone {asked!r}.", f"Use {known}, or package.module:factory.")
    for reading in _name_mappings(file):
        fitting = [
            name for name in ([asked] if asked else _FIRST_AND_LAST_WEIGHT) if _has_names_of(name, reading.tensors)
        ]
        if fitting:
            return _match_backbone(reading, fitting[0], ask)
    some = ", ".join(repr(name) for name in list(file.tensors)[:3])
    if asked:
        lacking = " and ".join(repr(name) for name in _FIRST_AND_LAST_WEIGHT[asked])
        raise UserError(
            f"{file.path} is not of {asked}: that has {lacking}, the file has {some} and so on.",
            "Name the backbone it is of, or leave --backbone out.",
        )
    raise UserError(
        f"{file.path} is of no network that TaskLens knows: it has the tensors {some} and so on.",
        "Name the function that makes your network: --backbone package.module:factory.",
    )


def _match_backbone(reading: _NameMapping, backbone: str, ask: CheckpointHints) -> MatchedCheckpoint:
    check_unused_fields(backbone, ask.more)
    shapes, head = reading.shapes, reading.shapes[_FIRST_AND_LAST_WEIGHT[backbone][1]]
    if len(head) != 2:
        raise UserError(f"{reading.file.path}: {_FIRST_AND_LAST_WEIGHT[backbone][1]!r} has shape {head}, not two axes.")
    _check_classes(reading.file.path, head[0], ask)
    first = sorted((name for name in shapes if re.fullmatch(_BLOCK_WEIGHTS[backbone], name)), key=_numbers_in)
    blocks = [shapes[name] for name in first]
    if any(len(shape) != (4 if "conv" in _BLOCK_WEIGHTS[backbone] else 2) for shape in blocks):
        raise UserError(f"{reading.file.path}: a weight of {backbone} has another number of axes: {blocks}.")
    fixed: dict[str, Any] = {"backbone": backbone, "ways": head[0], **_NO_WEIGHT_DECAY, **ask.more}
    fixed |= {"algorithm": _algorithm(reading, ask), **_adaptation_fields(ask)}
    if backbone in ("omniglot-fc", "mlp", "resnet12"):
        fixed["hidden"] = tuple(shape[0] for shape in blocks)
    else:
        fixed |= {"filters": blocks[0][0], "blocks": len(blocks)}
    inputs = blocks[0][1] if blocks else head[1]
    given = [ask.shape] if ask.shape else _common_shapes(backbone, inputs)
    fits: list[MatchedCheckpoint] = []
    faults: list[UserError] = []
    for pooling, shape in product(_poolings(backbone, ask), given):
        fields = fixed | {"shape": shape} | ({"pooling": pooling} if pooling else {})
        if backbone == "mlp" and "shrink" not in ask.more:
            fields["shrink"] = max(1, round((shape[0] * shape[1] * shape[2] / max(1, inputs)) ** 0.5))
        try:
            fits.append(_match_tensors(reading, spec_of(fields)))
        except UserError as error:
            faults.append(error)
    unsure = len({one.spec.pooling for one in fits}) > 1
    fits = [one for one in fits if one.spec.pooling == fits[0].spec.pooling]
    unfit_head = not fits and any(isinstance(fault, _HeadMismatchError) for fault in faults)
    if ask.shape is None and (len(fits) > 1 or unfit_head):
        raise UserError(
            f"{reading.file.path} is of {backbone}, but the size of its images does not follow from it.",
            "Give the tasks, or --shape HEIGHT,WIDTH,CHANNELS.",
        )
    if not fits:
        raise faults[0]
    return _add_notes(fits[0], ask, unsure, bool(reading.rates))


def _numbers_in(name: str) -> list[int]:
    return [int(number) for number in re.findall(r"\d{1,9}", name)]


def _add_notes(first: MatchedCheckpoint, ask: CheckpointHints, unsure: bool, learned: bool) -> MatchedCheckpoint:
    """Return the match with notes on inferred values; ``unsure`` means that other poolings match as well."""
    spec = first.spec
    notes = []
    if ask.backbone is None:
        notes.append(f"The names are those of {spec.backbone}.")
    if ask.shape is None:
        notes.append(f"Images are taken to be {spec.shape[0]} x {spec.shape[1]}, channels: {spec.shape[2]}.")
    if spec.backbone == "omniglot-cnn" and learned:
        notes.append(
            "learn2learn's MetaSGD leaves the convolutions of OmniglotCNN as they are, which it registers twice; here "
            "they adapt by the rates in the file."
        )
    if unsure:
        notes.append(f"Pooling does not show in this checkpoint and is taken to be {spec.pooling!r}.")
    if spec.backbone in ("convnet", "mlp") and "activation" not in ask.more:
        notes.append(f"The activation does not show in a checkpoint and is taken to be {spec.activation!r}.")
    return MatchedCheckpoint(spec, first.where, first.same, first.constants, (*notes, *first.notes))


def _common_shapes(backbone: str, inputs: int) -> list[tuple[int, int, int]]:
    if backbone == "omniglot-cnn":
        return [OMNIGLOT_SHAPE]
    flat = backbone in ("omniglot-fc", "mlp")
    return [(side, side, bands) for side in _COMMON_SIDES for bands in ((1, 3) if flat else (inputs,))]


def _poolings(backbone: str, ask: CheckpointHints) -> tuple[str, ...]:
    known = {"convnet": ("stride", "max"), "cnn4": ("max", "stride"), "resnet12": ("mean", "none")}
    return ("",) if "pooling" in ask.more else known.get(backbone, ("",))


def _match_module(file: TensorFile, ask: CheckpointHints) -> MatchedCheckpoint:
    check_unused_fields("module", ask.more)
    if ask.shape is None or ask.ways is None:
        raise UserError(
            "A network of your own is made for images of a size and a number of classes.",
            "Give the tasks, or --shape HEIGHT,WIDTH,CHANNELS and --ways.",
        )
    readings = list(_name_mappings(file))
    fields: dict[str, Any] = {"backbone": "module", "factory": ask.backbone, "ways": ask.ways, "shape": ask.shape}
    fields |= {**_NO_WEIGHT_DECAY, **_adaptation_fields(ask), **ask.more}
    expected = spec_of(fields).network().shapes.keys()
    best = max(readings, key=lambda reading: len(expected & reading.tensors.keys()))
    return _match_tensors(best, spec_of(fields | {"algorithm": _algorithm(best, ask)}), ask)


def _adaptation_fields(ask: CheckpointHints) -> dict[str, Any]:
    return {name: value for name in ("steps", "rate") if (value := getattr(ask, name)) is not None}


def _algorithm(reading: _NameMapping, ask: CheckpointHints) -> str:
    learned = bool(reading.rates) or any(name.startswith(RATE_PREFIX) for name in reading.tensors)
    chosen = ask.algorithm or ("meta-sgd" if learned else "maml")
    if learned and chosen != "meta-sgd":
        raise UserError(f"{reading.file.path} holds learned inner rates, so it is of meta-sgd, not {chosen}.")
    if chosen == "meta-sgd" and not learned:
        raise UserError(
            f"{reading.file.path} holds no learned inner rates (lrs.0 and so on), so it is not of meta-sgd.",
            "Save the state dict of MetaSGD itself, or use maml.",
        )
    return chosen


def _check_classes(path: Path, classes: int, ask: CheckpointHints) -> None:
    if ask.ways is not None and classes != ask.ways:
        raise UserError(
            f"{path} is a checkpoint for other classes: its head has {classes}, the tasks are {ask.ways}-way.",
            f"Draw tasks of {classes} classes, or use a checkpoint that was trained on {ask.ways}-way tasks.",
        )


def _match_tensors(reading: _NameMapping, spec: ModelSpec, ask: CheckpointHints | None = None) -> MatchedCheckpoint:
    """Match every meta-parameter of ``spec`` with a tensor of the file.

    Raises:
        UserError: a tensor is missing, unexpected, or has another shape or an unsupported data type.
    """
    network, path = spec.network(), reading.file.path
    expected = network.shapes
    aliases = network.aliases if isinstance(network, ModuleNet) else {}
    buffers = network.constants if isinstance(network, ModuleNet) else {}
    where: dict[str, str] = {}
    same: list[tuple[str, str]] = []
    constants: dict[str, Tensor] = {}
    left_out = 0
    for name, at in reading.tensors.items():
        canonical = aliases.get(name, name)
        if canonical in expected:
            if canonical in where:
                same.append((where[canonical], at))
            where.setdefault(canonical, at)
        elif name in buffers:
            constants[at] = buffers[name]
        elif name.rsplit(".", 1)[-1] in RUNNING_STATISTICS:
            left_out += 1
        elif not (spec.algorithm == "meta-sgd" and name.startswith(RATE_PREFIX)):
            raise UserError(
                f"{path}: the tensor {name!r} is not part of {spec.backbone_name}.", "Name the backbone it is of."
            )
    for name, shape in expected.items():
        if name not in where:
            raise UserError(
                f"{path}: the tensor {name!r} of shape {shape} is missing, which {spec.backbone_name} has.",
                "Save the whole state dict, or name the backbone it is of.",
            )
    wrong = [name for name in expected if reading.file.tensors[where[name]].shape != expected[name]]
    if wrong:
        _raise_shape_mismatch(reading, wrong, where, network, spec, ask)
    if spec.algorithm == "meta-sgd":
        where |= _match_rates(reading, expected)
    for name in (*where.values(), *(at for pair in same for at in pair)):
        if reading.file.tensors[name].dtype not in _SUPPORTED_DTYPES:
            raise UserError(
                f"{path}: {name!r} is {reading.file.tensors[name].dtype}.", "Save it in float32 or float64."
            )
    notes = list(network.notes) if isinstance(network, ModuleNet) else []
    if left_out:
        notes.append(f"Running statistics in the file (tensors: {left_out}) are left out.")
    names = [name for name in where if name.startswith(RATE_PREFIX)]
    return MatchedCheckpoint(spec, {name: where[name] for name in (*expected, *names)}, same, constants, tuple(notes))


def _raise_shape_mismatch(
    reading: _NameMapping,
    wrong: list[str],
    where: Mapping[str, str],
    network: ConvNet | MLP | ModuleNet,
    spec: ModelSpec,
    ask: CheckpointHints | None,
) -> None:
    """Raise an error that names the tensor of wrong shape, with the likely cause if only the head is affected."""
    have = reading.file.tensors[where[wrong[0]]].shape
    want = network.shapes[wrong[0]]
    head = network.last_linear if isinstance(network, ModuleNet) else network.head
    in_head = [name for name in wrong if name.startswith(f"{head}.")]
    if in_head == wrong and ask is not None and have and have[0] != want[0]:
        _check_classes(reading.file.path, have[0], ask)
    size = "images of another size, or of another pooling" if in_head == wrong else "another network"
    kind = _HeadMismatchError if in_head == wrong else UserError
    raise kind(
        f"{reading.file.path}: {wrong[0]!r} has shape {have}, {spec.backbone_name} has {want} there.",
        f"It is of {size}; correct the settings, or use the checkpoint that belongs to them.",
    )


def _match_rates(reading: _NameMapping, expected: Shapes) -> dict[str, str]:
    """Return the tensor name in the file of the rate of every parameter.

    Rates are found by name in TaskLens models, and by position in ``module.parameters()`` in MetaSGD checkpoints.
    """
    path = reading.file.path
    if not reading.rates:
        named = {name: reading.tensors.get(f"{RATE_PREFIX}{name}") for name in expected}
    elif set(reading.rates) != set(range(len(expected))):
        raise UserError(
            f"{path} has {len(reading.rates)} learned rates for {len(expected)} parameters.", "Save the whole MetaSGD."
        )
    else:
        named = {name: reading.rates[position] for position, name in enumerate(expected)}
    out = {}
    for name, at in named.items():
        if at is None:
            raise UserError(f"{path}: the learned rate of {name!r} is missing.", "Save the whole model.")
        have = reading.file.tensors[at].shape
        if have != expected[name]:
            raise UserError(
                f"{path}: the rate {at!r} has shape {have}, but the parameter in its place, {name!r}, has "
                f"{expected[name]}.",
                "Save the MetaSGD of this network, its parameters in their order.",
            )
        out[f"{RATE_PREFIX}{name}"] = at
    return out
