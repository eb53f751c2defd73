"""Identify the network of a checkpoint from the names and shapes of its tensors.

A network can lie below any prefix (``module.``, ``model.net.``). Tensors outside the prefix are left out with a note;
several prefixes with different networks are an error. Of the wrappers of learn2learn, ``MAML`` only adds a prefix.
``MetaSGD`` also stores one rate per parameter, ``lrs.0`` and so on in the order of
``module.parameters()``; these become ``rates.<name>`` in TaskLens. ``GBML`` stores the weights of learned transforms,
which TaskLens does not implement.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import chain, product
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from core.checkpoints.factory import is_factory
from core.checkpoints.model import ModelSpec, check_unused_fields, spec_of
from core.checkpoints.tensor_file import TensorFile
from core.checkpoints.tensor_names import DATA_PARALLEL, is_learned_rate, is_loss_or_metric, prefixes, without_parts
from core.maml.adaptation import RATE_PREFIX
from core.maml.architectures import BACKBONE_ALIASES, OMNIGLOT_SHAPE
from core.maml.backbone import MLP, POOLINGS, ConvNet, Params, Shapes
from core.maml.module import RUNNING_STATISTICS, ModuleNet
from core.runtime.errors import UserError
from core.runtime.progress import format_names

HALF_PRECISION = ("float16", "bfloat16")
"""Data types that are accepted and converted to float32."""
_SUPPORTED_DTYPES = ("float32", "float64", *HALF_PRECISION)
_COMMON_SIDES = (28, 32, 84)
_MAX_LEFT_OUT = 20  # tensors that a note names
_USE_FACTORY = "name the function that builds the network: --backbone package.module:factory"


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
    """The names in a file of the tensors below a prefix, by name without it, and of MetaSGD's rates, by position.

    Attributes:
        prefix: The prefix without the parts that wrappers insert (:func:`core.checkpoints.tensor_names.without_parts`).
        outside: Names in the file of all other tensors, by name without the parts of wrappers.
        copies: Other prefixes with a network of equal names and values.
    """

    file: TensorFile
    prefix: str
    tensors: Mapping[str, str]
    rates: Mapping[int, str]
    outside: Mapping[str, str]
    copies: tuple[str, ...] = ()

    def notes(self) -> tuple[str, ...]:
        """Return notes on the tensors that are not read."""
        notes = [f"{copy!r} has the same tensors as {self.prefix!r}, which are read." for copy in self.copies]
        if others := self._others():
            where = f"below {self.prefix!r}" if self.prefix else "without a prefix"
            notes.append(f"The network is {where}; tensors left out: {format_names(others, _MAX_LEFT_OUT)}.")
        return tuple(notes)

    def _others(self) -> list[str]:
        return [in_file for name, in_file in self.outside.items() if not name.startswith(self.copies)]

    def check(self) -> None:
        """Raise UserError for empty tensors, whose other axes may declare any size, and for unknown learned rates."""
        for in_file in self._others():
            if is_learned_rate(in_file) and not is_loss_or_metric(in_file):
                raise UserError(
                    f"{self.file.path}: the tensor {in_file!r}, beside the network {_show(self.prefix)}, could be a "
                    "learned inner rate; only those of learn2learn's MetaSGD are read.",
                    f"If the network does not need it, save the network alone: {_save_below(self.prefix)}.",
                )
        for name, in_file in self.tensors.items():
            if 0 in (shape := self.file.tensors[in_file].shape) and not is_loss_or_metric(name):
                raise UserError(f"{self.file.path}: {in_file!r} of shape {shape} is empty.", "Save it again.")


def _mapping_below(file: TensorFile, names: Mapping[str, str], prefix: str) -> _NameMapping:
    """Return the names below ``prefix``; ``names`` are those in the file by name without the parts of wrappers."""
    rates, used = _rates_beside(file, names, prefix)
    outside = {name: names[name] for name in names if not name.startswith(prefix) and name not in used}
    return _NameMapping(file, prefix, _below(names, prefix), rates, outside)


def _rates_beside(file: TensorFile, names: Mapping[str, str], prefix: str) -> tuple[dict[int, str], set[str]]:
    """Return the rates by position, and their names, of the outermost MetaSGD around the network below ``prefix``."""
    parts = prefix.split(".")[:-1]
    for position, part in enumerate(parts):
        around = "".join(f"{part}." for part in parts[:position])
        if part != DATA_PARALLEL:
            continue
        if any(name.startswith(f"{around}compute_update.") for name in names):
            raise UserError(
                f"{file.path} is a GBML model with learned transforms (compute_update), which are not supported.",
                "Use MAML or MetaSGD, or GBML without transforms.",
            )
        rates = {name.removeprefix(f"{around}lrs."): name for name in names if name.startswith(f"{around}lrs.")}
        for number, name in rates.items():
            if not re.fullmatch(r"\d{1,6}", number):
                raise UserError(
                    f"{file.path}: the tensor {names[name]!r} is not a learned rate of MetaSGD, which are called "
                    f"'{around}lrs.0', '{around}lrs.1' and so on.",
                    "Save the state dict of MetaSGD itself.",
                )
        if rates:
            return {int(number): names[name] for number, name in rates.items()}, set(rates.values())
    return {}, set()


def _show(prefix: str) -> str:
    return repr(prefix) if prefix else "without a prefix"


def _save_below(prefix: str) -> str:
    """Return code that saves the tensors below ``prefix`` without it."""
    return (
        f"torch.save({{name.removeprefix({prefix!r}): value for name, value in state_dict.items() "
        f"if name.startswith({prefix!r})}}, 'model.pt')"
    )


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


def match_checkpoint(file: TensorFile, hints: CheckpointHints) -> MatchedCheckpoint:
    """Match a file to its network; raise UserError, which names the tensor, if none or not the requested one fits."""
    if not file.tensors:
        raise UserError(f"{file.path} contains no tensors.", "Choose a file of weights.")
    if hints.backbone is not None and is_factory(hints.backbone):
        return _match_module(file, hints)
    backbone = BACKBONE_ALIASES.get(hints.backbone or "", hints.backbone)
    if backbone is not None and backbone not in _WEIGHTS:
        names = ", ".join((*_WEIGHTS, *BACKBONE_ALIASES))
        raise UserError(f"Unknown backbone {backbone!r}.", f"Use {names}, or package.module:factory.")
    wanted = (backbone,) if backbone else tuple(_WEIGHTS)
    for names_in_file in _possible_names(file):
        found: dict[str, str] = {}
        for name in wanted:
            for prefix in _prefixes_of(name, names_in_file):
                found.setdefault(prefix, name)
        if found:
            mapping = _choose(file, names_in_file, found)
            return _match_backbone(mapping, found[mapping.prefix], hints)
    raise _unknown_network(file, backbone)


def _possible_names(file: TensorFile) -> Iterator[Mapping[str, str]]:
    """Yield the names in the file by name without wrappers, then also without ``module`` inside a network."""
    names = without_parts(file.tensors)
    yield names
    plain = {name: names[inner] for name, inner in without_parts(names, (DATA_PARALLEL,)).items()}
    if plain.keys() != names.keys():
        yield plain


def _prefixes_of(backbone: str, names: Mapping[str, str]) -> list[str]:
    """Return the prefixes below which the file has the first and the last weight of a backbone."""
    first, _, head = _WEIGHTS[backbone]
    found = [prefix for prefix in prefixes(names, {first}) if f"{prefix}{head}" in names]
    found = [prefix for prefix in found if not prefix.endswith(RATE_PREFIX)]  # the rates have the names of the network
    if backbone == "mlp":  # the linear model has no hidden layers
        for prefix in prefixes(names, {head}):
            rest = {name for name in names if not is_loss_or_metric(name) and not _is_rate(name, prefix)}
            if rest == {f"{prefix}{head}", f"{prefix}head.bias"}:
                found.append(prefix)
    return list(dict.fromkeys(found))


def _is_rate(name: str, prefix: str) -> bool:
    """Return whether ``name`` is a learned rate of TaskLens or learn2learn for the network below ``prefix``."""
    return name.startswith(f"{prefix}{RATE_PREFIX}") or bool(re.fullmatch(r"(.*\.)?lrs\.\d{1,6}", name))


def _choose(file: TensorFile, names: Mapping[str, str], found: Mapping[str, str | None]) -> _NameMapping:
    """Return the mapping of the only prefix; several are accepted if all have tensors of equal names and values.

    Args:
        found: The backbone below each prefix, or None for a module of the user.

    Raises:
        UserError: there are several different networks; the text names their prefixes.
    """
    first, *others = found
    if not others:
        return _mapping_below(file, names, first)
    mappings = [_below(names, prefix) for prefix in found]
    if all(one.keys() == mappings[0].keys() for one in mappings):
        values = file.load([in_file for one in mappings for in_file in one.values()])
        if all(torch.equal(values[mappings[0][n]], values[one[n]]) for one in mappings for n in one):
            first = next((prefix for prefix in found if _rates_beside(file, names, prefix)[0]), first)
            copies = tuple(prefix for prefix in found if prefix != first)
            return replace(_mapping_below(file, names, first), copies=copies)
    listed = ", ".join(f"{_show(prefix)}{f' ({name})' if name else ''}" for prefix, name in found.items())
    by_name = len(set(found.values())) == len(found)
    chosen_code = _save_below(next(prefix for prefix in found if prefix))
    raise UserError(
        f"{file.path} contains several networks, with the prefixes {listed}.",
        f"Save the right one alone, for example {chosen_code}{', or name it by --backbone' if by_name else ''}.",
    )


def _below(names: Mapping[str, str], prefix: str) -> dict[str, str]:
    return {name.removeprefix(prefix): in_file for name, in_file in names.items() if name.startswith(prefix)}


def _unknown_network(file: TensorFile, backbone: str | None) -> UserError:
    """Return the error for a file without the first and the last weight of a known network, or of ``backbone``."""
    names = without_parts(file.tensors)
    shown = format_names(list(file.tensors))
    for name in (backbone,) if backbone else _WEIGHTS:
        first, _, head = _WEIGHTS[name]
        for prefix in prefixes(names, {first}):
            others = [n for n in names if n.startswith(prefix) and not n.startswith(prefix + first.split(".")[0] + ".")]
            instead = f"; it has {format_names([names[n] for n in others])} instead" if others else ""
            return UserError(
                f"{file.path} has {names[prefix + first]!r}, as {name}, but its last layer {prefix + head!r} is "
                f"missing{instead}.",
                f"Save the whole network with this layer, or {_USE_FACTORY}.",
            )
    if backbone:
        first, _, head = _WEIGHTS[backbone]
        return UserError(
            f"{file.path} is not a checkpoint of {backbone}, which has {first!r} and {head!r}; the file has {shown}.",
            "Name another backbone, or omit --backbone.",
        )
    return UserError(
        f"{file.path} does not match a network that TaskLens knows: it has {shown}.", f"{_USE_FACTORY.capitalize()}."
    )


def _match_backbone(mapping: _NameMapping, backbone: str, hints: CheckpointHints) -> MatchedCheckpoint:
    check_unused_fields(backbone, hints.more)
    mapping.check()
    _, block, head_name = _WEIGHTS[backbone]
    shapes = {name: mapping.file.tensors[in_file].shape for name, in_file in mapping.tensors.items()}
    head = shapes[head_name]
    if len(head) != 2:
        raise UserError(
            f"{mapping.file.path}: {mapping.tensors[head_name]!r} has shape {head}, not two axes.",
            "Use the checkpoint of a network whose last layer is linear.",
        )
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
    fields = {"backbone": "module", "factory": hints.backbone, "ways": hints.ways, "shape": hints.shape}
    fields |= _given_fields(hints)
    network = spec_of(fields).network()
    assert isinstance(network, ModuleNet)
    mapping = _module_mapping(file, network)
    mapping.check()
    return _match_tensors(mapping, spec_of(fields | {"algorithm": _algorithm(mapping, hints)}), hints)


def _module_mapping(file: TensorFile, network: ModuleNet) -> _NameMapping:
    """Return the mapping of the prefix with all parameters of a module of the user, or else with the most of them."""
    expected, aliases = network.shapes, network.aliases
    wanted = {*expected, *aliases, *network.constants}
    for names in _possible_names(file):
        complete = []
        for prefix in dict.fromkeys(prefixes(names, wanted)):
            if prefix.endswith(RATE_PREFIX):
                continue
            below = {name: in_file for name in wanted if (in_file := names.get(f"{prefix}{name}"))}
            if expected.keys() == {aliases.get(name, name) for name in below} - network.constants.keys():
                fits = all(
                    file.tensors[in_file].shape == expected[aliases.get(name, name)]
                    for name, in_file in below.items()
                    if name not in network.constants
                )
                complete.append((prefix, fits))
        if complete:
            fitting = [prefix for prefix, fits in complete if fits] or [prefix for prefix, _ in complete]
            return _choose(file, names, dict.fromkeys(fitting))
    names = without_parts(file.tensors)
    counts = Counter(prefixes(names, wanted))
    return _mapping_below(file, names, max(counts, key=lambda prefix: counts[prefix], default=""))


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
    losses: list[str] = []
    unknown: list[str] = []
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
            (losses if is_loss_or_metric(name) else unknown).append(in_file)
    missing = [name for name in expected if name not in names_in_file]
    if unknown or missing:
        raise _names_error(mapping, spec, unknown, missing, expected)
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
    if losses:
        notes = (*notes, f"Tensors of a loss or metric left out: {format_names(losses, _MAX_LEFT_OUT)}.")
    notes = (*notes, *mapping.notes())
    return MatchedCheckpoint(spec, names_in_file, equal_pairs, constants, notes)


def _names_error(
    mapping: _NameMapping, spec: ModelSpec, unknown: list[str], missing: list[str], expected: Shapes
) -> UserError:
    """Return the error for tensors of the file that the network lacks, or of the network that the file lacks."""
    network = spec.backbone_name
    lacking = f"{mapping.prefix}{missing[0]}" if missing else ""
    more = f" (and {len(missing) - 1:,} more)" if len(missing) > 1 else ""
    if not unknown:
        return UserError(
            f"{mapping.file.path}: the tensor {lacking!r} of shape {expected[missing[0]]}, which {network} has, is "
            f"missing{more}.",
            "Save the whole state dict, or name another backbone.",
        )
    shape = mapping.file.tensors[unknown[0]].shape
    others = f" (and {len(unknown) - 1:,} more)" if len(unknown) > 1 else ""
    lacks = f", which has {lacking!r} of shape {expected[missing[0]]}{more} instead" if missing else ""
    if spec.backbone == "module":
        fix = "Correct the function that builds the network, or save the state dict of the network alone."
    elif missing:
        fix = f"If it is your own network, {_USE_FACTORY}."
    else:
        fix = f"Save the state dict of the network alone, or {_USE_FACTORY}."
    return UserError(
        f"{mapping.file.path}: the tensor {unknown[0]!r} of shape {shape}{others} is not part of {network}{lacks}.", fix
    )


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
        f"{mapping.file.path}: {names_in_file[mismatched[0]]!r} has shape {actual}, but {spec.backbone_name} needs "
        f"{expected}.",
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
