"""Inspect, import and export checkpoints of other libraries (see :mod:`core.checkpoints.matching`)."""

from __future__ import annotations

import io
from dataclasses import dataclass
from itertools import chain
from pathlib import Path

import torch
from torch import Tensor

from core.checkpoints.matching import HALF_PRECISION, CheckpointHints, MatchedCheckpoint, match_checkpoint
from core.checkpoints.model import NETWORK_FIELDS, Model, ModelSpec, load_model, spec_of
from core.checkpoints.outputs import check_finite, check_outputs
from core.checkpoints.tensor_file import TensorFile, TensorInfo, open_tensors, sha256
from core.maml.adaptation import RATE_PREFIX, network_part
from core.maml.backbone import Params
from core.maml.module import ModuleNet
from core.runtime.errors import UserError
from core.runtime.replacing import replacing


@dataclass(frozen=True)
class CheckpointContents:
    """A summary of the content of a checkpoint.

    Attributes:
        kind: Description of the file type.
        spec: Specification of the matching model, or None if there are faults. Inner steps and rate are the requested
            values or placeholders.
        notes: Sentences about what was inferred, omitted or converted.
        faults: Sentences about why the checkpoint cannot be imported, each with a remedy.
    """

    path: Path
    kind: str
    tensors: tuple[TensorInfo, ...]
    spec: ModelSpec | None
    notes: tuple[str, ...]
    faults: tuple[str, ...]


def inspect_checkpoint(path: Path, hints: CheckpointHints = CheckpointHints()) -> CheckpointContents:
    """Inspect a checkpoint: a file or a TaskLens model folder.

    Raises:
        UserError: the checkpoint cannot be read. If it can be read but does not match a network, the reason is in
            :attr:`CheckpointContents.faults`.
    """
    folder = _model_folder(path, hints.backbone)
    file = open_tensors(folder / "model.safetensors" if folder else path)
    tensors = tuple(file.tensors.values())
    kind = "model folder of TaskLens" if folder else file.kind
    try:
        if folder:
            return CheckpointContents(path, kind, tensors, load_model(folder).spec, (), ())
        match = match_checkpoint(file, hints)
        _, notes = _read_params(file, match)
    except UserError as error:
        return CheckpointContents(path, kind, tensors, None, file.notes, (str(error),))
    missing = "A checkpoint does not contain the number of inner steps and the inner learning rate: specify both."
    return CheckpointContents(path, kind, tensors, match.spec, (*file.notes, *match.notes, *notes, missing), ())


def import_checkpoint(path: Path, hints: CheckpointHints) -> Model:
    """Import a checkpoint, which is a file or a TaskLens model folder, as a model.

    The metadata of a model that is imported from a file records its origin: path, kind, SHA-256 of the file and notes.

    Raises:
        UserError: the checkpoint cannot be read, does not match a network, or lacks a value that ``hints`` lacks too.
    """
    folder = _model_folder(path, hints.backbone)
    if folder:
        return _with_adaptation(load_model(folder), hints)
    file = open_tensors(path)
    match = match_checkpoint(file, hints)
    algorithm = match.spec.algorithm
    if algorithm != "imaml" and hints.steps is None:
        raise UserError("A checkpoint does not contain the number of inner steps.", "Specify --inner-steps.")
    if algorithm not in ("imaml", "meta-sgd") and hints.rate is None:
        raise UserError("A checkpoint does not contain the inner learning rate.", "Specify --inner-rate.")
    params, notes = _read_params(file, match)
    notes = [*file.notes, *match.notes, *notes]
    origin = {"path": str(path.resolve()), "kind": file.kind, "sha256": sha256(path), "notes": notes}
    return Model(match.spec.with_code_hash(), params, {"origin": origin})


def export_state(model: Model) -> dict[str, Tensor]:
    """Return a state dict that the learn2learn network or the user module loads with ``strict=True``.

    The running statistics of batch normalisation in it have their initial values, because TaskLens does not use them.
    That of a ``meta-sgd`` model is for ``MetaSGD(network)``: names begin with ``module.``, and the rates are ``lrs``.

    Raises:
        UserError: the network is a built-in TaskLens network.
    """
    network = model.spec.network()
    if not isinstance(network, ModuleNet):
        raise UserError(f"{model.spec.backbone} is a network of TaskLens that no other library has.")
    state = network.state_dict(network_part(model.params))
    rates = [model.params[f"{RATE_PREFIX}{name}"] for name in network.shapes if f"{RATE_PREFIX}{name}" in model.params]
    if not rates:
        return state
    return {f"module.{name}": value for name, value in state.items()} | {
        f"lrs.{position}": rate for position, rate in enumerate(rates)
    }


def write_state(model: Model, folder: Path) -> Path | None:
    """Write the result of :func:`export_state` to ``learn2learn.pt``, or ``state_dict.pt`` for a user-defined module.

    Returns:
        The path of the file, or None for built-in TaskLens networks.
    """
    if model.spec.backbone in ("convnet", "mlp"):
        return None
    path = folder / ("state_dict.pt" if model.spec.backbone == "module" else "learn2learn.pt")
    content = io.BytesIO()
    torch.save(export_state(model), content)  # to a file, it does not say why it could not write
    with replacing(path) as temporary:
        temporary.write_bytes(content.getbuffer())
    return path


def _model_folder(path: Path, backbone: str | None) -> Path | None:
    """Return the model folder that ``path`` names, or None if there is none or the user names another network."""
    folder = path if path.is_dir() else path.parent
    is_named = path.is_dir() or path.name == "model.safetensors"
    return folder if is_named and backbone is None and (folder / "model.json").is_file() else None


def _with_adaptation(model: Model, hints: CheckpointHints) -> Model:
    if hints.algorithm and (hints.algorithm == "meta-sgd") != (model.spec.algorithm == "meta-sgd"):
        raise UserError(
            f"A model of {model.spec.algorithm} cannot adapt by {hints.algorithm}: only meta-sgd has learned rates.",
            f"Omit --algorithm {hints.algorithm}.",
        )
    for name in sorted(NETWORK_FIELDS & hints.more.keys()):
        raise UserError(f"The model folder determines the {name}.", f"Omit --{name}.")
    for name in ("shape", "ways"):
        actual, requested = getattr(model.spec, name), getattr(hints, name)
        if requested is not None and actual != requested:
            raise UserError(f"The model has {name} {actual}, not {requested}.", "Use tasks that match the model.")
    fields = {"algorithm": hints.algorithm, "steps": hints.steps, "rate": hints.rate, **hints.more}
    spec = spec_of(model.spec.model_dump() | {name: value for name, value in fields.items() if value is not None})
    if spec == model.spec:
        return model
    # The report and the history were measured with the previous adaptation, so they no longer apply.
    metadata = {name: value for name, value in model.metadata.items() if name not in ("report", "history")}
    return Model(spec, model.params, metadata)


def _read_params(file: TensorFile, match: MatchedCheckpoint) -> tuple[Params, list[str]]:
    """Read and check the meta-parameters, half precision as float32, and return them with notes."""
    names_in_file, notes = match.names_in_file, []
    tensors = file.load(list({*names_in_file.values(), *chain(*match.equal_pairs), *match.constants}))
    check_finite(file.path, tensors)
    for first, second in match.equal_pairs:
        if not torch.equal(tensors[first], tensors[second]):
            raise UserError(
                f"{file.path}: {first!r} and {second!r} are one tensor in the network, but differ in the file.",
                "Save the state dict of the network again.",
            )
    for name, value in match.constants.items():
        is_equal = torch.allclose if value.is_floating_point() else torch.equal
        if tensors[name].shape != value.shape or not is_equal(tensors[name].to(value.dtype), value):
            raise UserError(
                f"{file.path}: the buffer {name!r} differs from that of the factory, but a model contains only "
                "parameters.",
                "Fill the buffer with these values in the factory.",
            )
    half = {name for name, in_file in names_in_file.items() if file.tensors[in_file].dtype in HALF_PRECISION}
    if half:
        notes.append(f"Converted to float32 from half precision (tensors: {len(half)}).")
    params = {
        name: tensors[in_file].float() if name in half else tensors[in_file] for name, in_file in names_in_file.items()
    }
    check_outputs(file.path, match.spec.network(), match.spec.shape, params)
    return params, notes
