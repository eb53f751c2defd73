"""Identify the network of a checkpoint from the names and shapes of its tensors.

Names are tried unchanged, and then without common prefixes (``module.``, ``model.``) and the wrappers of learn2learn.
``MAML`` only adds a prefix. ``MetaSGD`` also stores one rate per parameter, ``lrs.0`` and so on in the order of
``module.parameters()``; these become ``rates.<name>`` in TaskLens. ``GBML`` stores the weights of learned transforms,
which TaskLens does not implement.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import chain, product
from pathlib import Path
from typing import Any

from torch import Tensor

from core.checkpoints.factory import is_factory
from core.checkpoints.model import ModelSpec, check_unused_fields, spec_of
from core.checkpoints.tensor_file import TensorFile
from core.maml.adaptation import RATE_PREFIX
from core.maml.architectures import BACKBONE_ALIASES, OMNIGLOT_SHAPE
from core.maml.backbone import MLP, POOLINGS, ConvNet, Params, Shapes
from core.maml.module import RUNNING_STATISTICS, ModuleNet
from core.runtime.errors import UserError

HALF_PRECISION = ("float16", "bfloat16")
"""Data types that are accepted and converted to float32."""
_SUPPORTED_DTYPES = ("float32", "float64", *HALF_PRECISION)
_COMMON_SIDES = (28, 32, 84)


@dataclass(frozen=True)
class CheckpointHints:
    """A set of user-specified properties of a checkpoint; None means that the file determines the value.

    Attributes:
        backbone: A backbone of :class:`core.checkpoints.model.ModelSpec`, or ``package.module:factory``.
        shape: Height, width and channels of the images.
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
        names_in_file: Tensor name in the file for every meta-parameter.
        equal_pairs: Pairs of tensor names in the file that must have equal values.
        constants: Expected values of buffers, by tensor name in the file.
        notes: Sentences about what was inferred, omitted or converted.
    """

    spec: ModelSpec
    names_in_file: Mapping[str, str]
    equal_pairs: Sequence[tuple[str, str]]
    constants: Mapping[str, Tensor]
    notes: tuple[str, ...]


@dataclass(frozen=True)
class _NameMapping:
    """The names in a file of the tensors, by name without prefix, and of the MetaSGD rates, by position."""

    file: TensorFile
    tensors: Mapping[str, str]
    rates: Mapping[int, str]

    def below(self, prefix: str) -> dict[str, str]:
        return {name.removeprefix(prefix): in_file for name, in_file in self.tensors.items() if name.startswith(prefix)}


def _name_mappings(file: TensorFile) -> Iterator[_NameMapping]:
    """Yield the names unchanged, then with one common prefix after another removed."""
    mapping = _NameMapping(file, {name: name for name in file.tensors}, {})
    while True:
        yield mapping
        first = {name.split(".", 1)[0] for name in mapping.tensors}
        if {"module", "lrs"} == first and all(re.fullmatch(r"\d{1,6}", name) for name in mapping.below("lrs.")):
            rates = {int(position): in_file for position, in_file in mapping.below("lrs.").items()}
            mapping = _NameMapping(file, mapping.below("module."), rates)
        elif {"module", "compute_update"} == first:
            raise UserError(
                f"{file.path} is a GBML model with learned transforms (compute_update), which are not supported.",
                "Use MAML or MetaSGD, or GBML without transforms.",
            )
        elif len(first) == 1 and all("." in name for name in mapping.tensors):
            mapping = _NameMapping(file, mapping.below(f"{next(iter(first))}."), mapping.rates)
        else:
            return


_WEIGHTS = {
    "omniglot-cnn": ("base.0.conv.weight", r"base\.\d+\.conv\.weight", "classifier.weight"),
    "omniglot-fc": ("features.1.0.linear.weight", r"features\.1\.\d+\.linear\.weight", "classifier.weight"),
    "cnn4": ("features.0.conv.weight", r"features\.\d+\.conv\.weight", "classifier.weight"),
    "resnet12": ("features.layer1.0.conv1.weight", r"features\.layer\d\.0\.conv1\.weight", "classifier.weight"),
    "convnet": ("blocks.0.conv.weight", r"blocks\.\d+\.conv\.weight", "head.weight"),
    "mlp": ("layers.0.weight", r"layers\.\d+\.weight", "head.weight"),
}
"""The first and the last weight, which identify a backbone, and between them the pattern of the weights of all blocks,
whose count and output widths are hyperparameters of the network."""


class _HeadMismatchError(UserError):
    """An error that is raised if only the head, whose shape depends on the image size, does not match."""


def _has_names_of(backbone: str, names: Mapping[str, Any]) -> bool:
    first, _, head = _WEIGHTS[backbone]
    if backbone == "mlp" and {name for name in names if not name.startswith(RATE_PREFIX)} == {head, "head.bias"}:
        return True  # the linear model has no hidden layers
    return first in names and head in names


def match_checkpoint(file: TensorFile, hints: CheckpointHints) -> MatchedCheckpoint:
    """Match a file to its network; raise UserError, which names the tensor, if none or not the requested one fits."""
    if not file.tensors:
        raise UserError(f"{file.path} contains no tensors.", "Choose a file of weights.")
    for tensor in file.tensors.values():
        if 0 in tensor.shape:  # the other axes of an empty tensor may declare any size
            raise UserError(f"{file.path}: {tensor.name!r} of shape {tensor.shape} is empty.", "Save it again.")
    if hints.backbone is not None and is_factory(hints.backbone):
        return _match_module(file, hints)
    backbone = BACKBONE_ALIASES.get(hints.backbone or "", hints.backbone)
    if backbone is not None and backbone not in _WEIGHTS:
        names = ", ".join((*_WEIGHTS, *BACKBONE_ALIASES))
        raise UserError(f"Unknown backbone {backbone!r}.", f"Use {names}, or package.module:factory.")
    for mapping in _name_mappings(file):
        for name in [backbone] if backbone else _WEIGHTS:
            if _has_names_of(name, mapping.tensors):
                return _match_backbone(mapping, name, hints)
    actual = ", ".join(repr(name) for name in list(file.tensors)[:3])
    if backbone:
        first, _, head = _WEIGHTS[backbone]
        expected = f"{first!r} and {head!r}"
        raise UserError(
            f"{file.path} is not a checkpoint of {backbone}, which has {expected}; the file has {actual}, ...",
            "Name another backbone, or omit --backbone.",
        )
    raise UserError(
        f"{file.path} does not match a network that TaskLens knows: it has the tensors {actual}, ...",
        "Name the function that builds your network: --backbone package.module:factory.",
    )


def _match_backbone(mapping: _NameMapping, backbone: str, hints: CheckpointHints) -> MatchedCheckpoint:
    check_unused_fields(backbone, hints.more)
    _, block, head_name = _WEIGHTS[backbone]
    shapes = {name: mapping.file.tensors[in_file].shape for name, in_file in mapping.tensors.items()}
    head = shapes[head_name]
    if len(head) != 2:
        raise UserError(f"{mapping.file.path}: {head_name!r} has shape {head}, not two axes.")
    _check_classes(mapping.file.path, head[0], hints)
    blocks = [shapes[name] for name in sorted(filter(re.compile(block).fullmatch, shapes), key=_numbers_in)]
    if any(len(shape) != (4 if "conv" in block else 2) for shape in blocks):
        raise UserError(f"{mapping.file.path}: a weight of {backbone} has the wrong number of axes: {blocks}.")
    known = {"backbone": backbone, "ways": head[0], **_given_fields(hints), "algorithm": _algorithm(mapping, hints)}
    if backbone in ("omniglot-fc", "mlp", "resnet12"):
        known["hidden"] = tuple(shape[0] for shape in blocks)
    else:
        known |= {"filters": blocks[0][0], "blocks": len(blocks)}
    inputs = blocks[0][1] if blocks else head[1]
    candidates = [hints.shape] if hints.shape else _common_shapes(backbone, inputs)
    matches: list[MatchedCheckpoint] = []
    errors: list[UserError] = []
    for pooling, shape in product(_poolings(backbone, hints), candidates):
        fields = known | {"shape": shape} | ({"pooling": pooling} if pooling else {})
        if backbone == "mlp" and "shrink" not in hints.more:
            fields["shrink"] = max(1, round((shape[0] * shape[1] * shape[2] / max(1, inputs)) ** 0.5))
        try:
            matches.append(_match_tensors(mapping, spec_of(fields)))
        except UserError as error:
            errors.append(error)
    is_ambiguous = len({match.spec.pooling for match in matches}) > 1
    matches = [match for match in matches if match.spec.pooling == matches[0].spec.pooling]
    only_head_differs = not matches and any(isinstance(error, _HeadMismatchError) for error in errors)
    if hints.shape is None and (len(matches) > 1 or only_head_differs):
        raise UserError(
            f"{mapping.file.path} is a checkpoint of {backbone}, which does not determine the image size.",
            "Specify the tasks, or --shape HEIGHT,WIDTH,CHANNELS.",
        )
    if not matches:
        raise errors[0]
    return _add_notes(matches[0], hints, is_ambiguous, bool(mapping.rates))


def _numbers_in(name: str) -> list[int]:
    return [int(number) for number in re.findall(r"\d{1,9}", name)]


def _add_notes(
    match: MatchedCheckpoint, hints: CheckpointHints, is_ambiguous: bool, has_rates: bool
) -> MatchedCheckpoint:
    """Return the match with notes on inferred values; ``is_ambiguous``: other poolings match as well."""
    spec = match.spec
    notes = []
    if hints.backbone is None:
        notes.append(f"The tensor names are those of {spec.backbone}.")
    if hints.shape is None:
        notes.append(f"Inferred image size: {spec.shape[0]} x {spec.shape[1]}, channels: {spec.shape[2]}.")
    if spec.backbone == "omniglot-cnn" and has_rates:
        notes.append(
            "In learn2learn, MetaSGD does not adapt the convolutions of OmniglotCNN, which it registers twice; in "
            "TaskLens they adapt at the rates in the file."
        )
    if is_ambiguous:
        notes.append(f"Assumed pooling (not stored in the checkpoint): {spec.pooling}.")
    if spec.backbone in ("convnet", "mlp") and "activation" not in hints.more:
        notes.append(f"Assumed activation (not stored in a checkpoint): {spec.activation}.")
    return replace(match, notes=(*notes, *match.notes))


def _common_shapes(backbone: str, inputs: int) -> list[tuple[int, int, int]]:
    if backbone == "omniglot-cnn":
        return [OMNIGLOT_SHAPE]
    flat = backbone in ("omniglot-fc", "mlp")
    return [(side, side, bands) for side in _COMMON_SIDES for bands in ((1, 3) if flat else (inputs,))]


def _poolings(backbone: str, hints: CheckpointHints) -> tuple[str, ...]:
    poolings = {"convnet": POOLINGS, "cnn4": ("max", "stride"), "resnet12": ("mean", "none")}
    return ("",) if "pooling" in hints.more else poolings.get(backbone, ("",))


def _match_module(file: TensorFile, hints: CheckpointHints) -> MatchedCheckpoint:
    check_unused_fields("module", hints.more)
    if hints.shape is None or hints.ways is None:
        raise UserError(
            "A custom network needs the image size and the number of classes.",
            "Specify the tasks, or --shape HEIGHT,WIDTH,CHANNELS and --ways.",
        )
    mappings = list(_name_mappings(file))
    fields = {"backbone": "module", "factory": hints.backbone, "ways": hints.ways, "shape": hints.shape}
    fields |= _given_fields(hints)
    expected = spec_of(fields).network().shapes.keys()
    best = max(mappings, key=lambda mapping: len(expected & mapping.tensors.keys()))
    return _match_tensors(best, spec_of(fields | {"algorithm": _algorithm(best, hints)}), hints)


def _given_fields(hints: CheckpointHints) -> dict[str, Any]:
    given = {name: value for name in ("steps", "rate") if (value := getattr(hints, name)) is not None}
    return {"delta": 0.0, **hints.more, **given}  # the examples of learn2learn have no weight decay


def _algorithm(mapping: _NameMapping, hints: CheckpointHints) -> str:
    has_rates = bool(mapping.rates) or any(name.startswith(RATE_PREFIX) for name in mapping.tensors)
    algorithm = hints.algorithm or ("meta-sgd" if has_rates else "maml")
    if has_rates and algorithm != "meta-sgd":
        raise UserError(f"{mapping.file.path} contains learned inner rates, as for meta-sgd, not {algorithm}.")
    if algorithm == "meta-sgd" and not has_rates:
        raise UserError(
            f"{mapping.file.path} contains no learned inner rates (lrs.0, ...), which meta-sgd needs.",
            "Save the state dict of MetaSGD itself, or use maml.",
        )
    return algorithm


def _check_classes(path: Path, classes: int, hints: CheckpointHints) -> None:
    if hints.ways is not None and classes != hints.ways:
        raise UserError(
            f"{path} is a checkpoint for {classes}-way tasks, but the tasks are {hints.ways}-way.",
            f"Draw {classes}-way tasks, or use a checkpoint that was trained on {hints.ways}-way tasks.",
        )


def _match_tensors(mapping: _NameMapping, spec: ModelSpec, hints: CheckpointHints | None = None) -> MatchedCheckpoint:
    """Match every meta-parameter of ``spec`` with a tensor of the file."""
    network, path = spec.network(), mapping.file.path
    expected, buffers = network.shapes, Params()
    aliases: dict[str, str] = {}
    notes: tuple[str, ...] = ()
    if isinstance(network, ModuleNet):
        aliases, buffers, notes = network.aliases, network.constants, network.notes
    names_in_file: dict[str, str] = {}
    equal_pairs: list[tuple[str, str]] = []
    constants: dict[str, Tensor] = {}
    ignored = 0
    for name, in_file in mapping.tensors.items():
        canonical = aliases.get(name, name)
        if canonical in expected:
            if canonical in names_in_file:
                equal_pairs.append((names_in_file[canonical], in_file))
            names_in_file.setdefault(canonical, in_file)
        elif name in buffers:
            constants[in_file] = buffers[name]
        elif name.rsplit(".", 1)[-1] in RUNNING_STATISTICS:
            ignored += 1
        elif not (spec.algorithm == "meta-sgd" and name.startswith(RATE_PREFIX)):
            raise UserError(
                f"{path}: the tensor {name!r} is not part of {spec.backbone_name}.", "Name another backbone."
            )
    for name, shape in expected.items():
        if name not in names_in_file:
            raise UserError(
                f"{path}: the tensor {name!r} of shape {shape}, which {spec.backbone_name} has, is missing.",
                "Save the whole state dict, or name another backbone.",
            )
    mismatched = [name for name in expected if mapping.file.tensors[names_in_file[name]].shape != expected[name]]
    if mismatched:
        _raise_shape_mismatch(mapping, mismatched, names_in_file, network, spec, hints)
    names_in_file = {name: names_in_file[name] for name in expected}
    if spec.algorithm == "meta-sgd":
        names_in_file |= _match_rates(mapping, expected)
    for in_file in (*names_in_file.values(), *chain(*equal_pairs)):
        dtype = mapping.file.tensors[in_file].dtype
        if dtype not in _SUPPORTED_DTYPES:
            raise UserError(f"{path}: {in_file!r} is {dtype}.", "Save it in float32 or float64.")
    if ignored:
        notes = (*notes, f"Running statistics in the file are ignored (tensors: {ignored}).")
    return MatchedCheckpoint(spec, names_in_file, equal_pairs, constants, notes)


def _raise_shape_mismatch(
    mapping: _NameMapping,
    mismatched: list[str],
    names_in_file: Mapping[str, str],
    network: ConvNet | MLP | ModuleNet,
    spec: ModelSpec,
    hints: CheckpointHints | None,
) -> None:
    """Raise an error that names the tensor of wrong shape, with the likely cause if only the head is affected."""
    actual, expected = mapping.file.tensors[names_in_file[mismatched[0]]].shape, network.shapes[mismatched[0]]
    head = network.last_linear if isinstance(network, ModuleNet) else network.head
    only_head_differs = all(name.startswith(f"{head}.") for name in mismatched)
    if only_head_differs and hints is not None and actual and actual[0] != expected[0]:
        _check_classes(mapping.file.path, actual[0], hints)
    cause = "another image size or another pooling" if only_head_differs else "another network"
    error = _HeadMismatchError if only_head_differs else UserError
    raise error(
        f"{mapping.file.path}: {mismatched[0]!r} has shape {actual}, but {spec.backbone_name} needs {expected}.",
        f"The checkpoint is of {cause}: correct the settings, or use another checkpoint.",
    )


def _match_rates(mapping: _NameMapping, expected: Shapes) -> dict[str, str]:
    """Return the name in the file of every rate, found by name (TaskLens) or by position (MetaSGD)."""
    path = mapping.file.path
    if not mapping.rates:
        names_in_file = {name: mapping.tensors.get(f"{RATE_PREFIX}{name}") for name in expected}
    elif set(mapping.rates) != set(range(len(expected))):
        raise UserError(
            f"{path} has {len(mapping.rates)} learned rates for {len(expected)} parameters.", "Save the whole MetaSGD."
        )
    else:
        names_in_file = {name: mapping.rates[position] for position, name in enumerate(expected)}
    out = {}
    for name, in_file in names_in_file.items():
        if in_file is None:
            raise UserError(f"{path}: the learned rate of {name!r} is missing.", "Save the whole model.")
        shape = mapping.file.tensors[in_file].shape
        if shape != expected[name]:
            raise UserError(
                f"{path}: the rate {in_file!r} has shape {shape}, but its parameter {name!r} has {expected[name]}.",
                "Save the MetaSGD of this network, with its parameters in the order of registration.",
            )
        out[f"{RATE_PREFIX}{name}"] = in_file
    return out
