"""Inspect, import and export checkpoints of other libraries (see :mod:`core.checkpoints.matching`)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from core.checkpoints.matching import HALF_PRECISION, CheckpointHints, MatchedCheckpoint, match_checkpoint
from core.checkpoints.model import NETWORK_FIELDS, Model, ModelSpec, load_model, spec_of
from core.checkpoints.tensor_file import TensorFile, TensorInfo, open_tensors, sha256
from core.maml.adaptation import RATE_PREFIX, network_part
from core.maml.backbone import Params
from core.maml.module import ModuleNet
from core.runtime.errors import UserError
from core.runtime.files import replacing


@dataclass(frozen=True)
class CheckpointContents:
    """A summary of the content of a checkpoint.

    Attributes:
        kind: Description of the file type.
        tensors: Tensors that the file declares, in file order.
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


def inspect_checkpoint(
    path: Path,
    *,
    backbone: str | None = None,
    algorithm: str | None = None,
    shape: tuple[int, int, int] | None = None,
    ways: int | None = None,
    more: Mapping[str, Any] | None = None,
) -> CheckpointContents:
    """Inspect a checkpoint: a file or a TaskLens model folder.

    The arguments are those of :class:`core.checkpoints.matching.CheckpointHints`.

    Raises:
        UserError: the checkpoint cannot be read. If it can be read but does not match a network, the reason is in
            :attr:`Found.faults`.
    """
    folder = _model_folder(path, backbone)
    file = open_tensors(folder / "model.safetensors" if folder else path)
    tensors = tuple(file.tensors.values())
    kind = "model folder of TaskLens" if folder else file.kind
    try:
        if folder:
            return CheckpointContents(path, kind, tensors, load_model(folder).spec, (), ())
        understood = match_checkpoint(file, CheckpointHints(backbone, algorithm, shape, ways, more=more or {}))
        _, notes = _read_params(file, understood)
    except UserError as error:
        return CheckpointContents(path, kind, tensors, None, (), (str(error),))
    missing = "Inner steps and learning rate are not in a checkpoint: say how it was trained."
    return CheckpointContents(path, kind, tensors, understood.spec, (*understood.notes, *notes, missing), ())


def import_checkpoint(path: Path, ask: CheckpointHints) -> Model:
    """Import a checkpoint, which is a file or a TaskLens model folder, as a model.

    The metadata of a model that is imported from a file records its origin: path, kind, SHA-256 of the file and notes.

    Raises:
        UserError: the checkpoint cannot be read, does not match a network, or lacks a value that ``ask`` does not give
            either.
    """
    folder = _model_folder(path, ask.backbone)
    if folder:
        return _with_adaptation(load_model(folder), ask)
    file = open_tensors(path)
    understood = match_checkpoint(file, ask)
    _check_adaptation(understood.spec, ask)
    params, notes = _read_params(file, understood)
    origin = {
        "path": str(path.resolve()),
        "kind": file.kind,
        "sha256": sha256(path),
        "notes": [*understood.notes, *notes],
    }
    return Model(understood.spec.with_code_hash(), params, {"origin": origin})


def export_state(model: Model, *, wrapped: bool = False) -> dict[str, Tensor]:
    """Return a state dict that the learn2learn network or the user module loads with ``strict=True``.

    Such a state dict must contain the running statistics of batch normalisation. They have their initial values,
    because TaskLens does not use them.

    Args:
        wrapped: Prefix every name with ``module.``, as required by ``MAML(network)`` and ``GBML(network)``. The state
            of a ``meta-sgd`` model always has this form, for ``MetaSGD(network)``, with its rates as ``lrs``.

    Raises:
        UserError: the network is a built-in TaskLens network.
    """
    network = model.spec.network()
    if not isinstance(network, ModuleNet):
        raise UserError(f"{model.spec.backbone} is TaskLens's own network, which no other library has.")
    state = network.state_dict(network_part(model.params))
    rates = [model.params[f"{RATE_PREFIX}{name}"] for name in network.shapes if f"{RATE_PREFIX}{name}" in model.params]
    if not wrapped and not rates:
        return state
    return {f"module.{name}": value for name, value in state.items()} | {
        f"lrs.{position}": rate for position, rate in enumerate(rates)
    }


def write_state(model: Model, folder: Path) -> Path | None:
    """Write the result of :func:`export_state` to the model folder.

    The file is ``learn2learn.pt``, or ``state_dict.pt`` for a user-defined module.

    Returns:
        The path of the file, or None for built-in TaskLens networks.
    """
    if model.spec.backbone in ("convnet", "mlp"):
        return None
    path = folder / ("state_dict.pt" if model.spec.backbone == "module" else "learn2learn.pt")
    with replacing(path) as temporary:
        torch.save(export_state(model), temporary)
    return path


def _model_folder(path: Path, backbone: str | None) -> Path | None:
    """Return the model folder that ``path`` names, or None if there is none or the user names another network."""
    folder = path if path.is_dir() else path.parent
    named = path.is_dir() or path.name == "model.safetensors"
    return folder if named and backbone is None and (folder / "model.json").is_file() else None


def _with_adaptation(model: Model, ask: CheckpointHints) -> Model:
    """Return a TaskLens model with the adaptation settings of ``ask``."""
    learned = model.spec.algorithm == "meta-sgd"
    if ask.algorithm and (ask.algorithm == "meta-sgd") != learned:
        raise UserError(
            f"The model is of {model.spec.algorithm}: its inner rates are {'learned' if learned else 'not learned'}.",
            f"Leave {ask.algorithm} out.",
        )
    for name in sorted(NETWORK_FIELDS & ask.more.keys()):
        raise UserError(f"The model folder says its {name} itself.", f"Leave --{name} out.")
    for name in ("shape", "ways"):
        have, want = getattr(model.spec, name), getattr(ask, name)
        if want is not None and have != want:
            raise UserError(f"The model has {name} {have}, not {want}.", "Use the tasks that it was made for.")
    given = {"algorithm": ask.algorithm, "steps": ask.steps, "rate": ask.rate, **ask.more}
    spec = spec_of(model.spec.model_dump() | {name: value for name, value in given.items() if value is not None})
    if spec == model.spec:
        return model
    # The report and the history were measured with the previous adaptation, so they no longer apply.
    metadata = {name: value for name, value in model.metadata.items() if name not in ("report", "history")}
    return Model(spec, model.params, metadata)


def _check_adaptation(spec: ModelSpec, ask: CheckpointHints) -> None:
    if spec.algorithm == "imaml":
        return
    if ask.steps is None:
        raise UserError("A checkpoint does not say how many inner steps it adapts by.", "Give --inner-steps.")
    if ask.rate is None and spec.algorithm != "meta-sgd":
        raise UserError("A checkpoint does not say its inner learning rate.", "Give --inner-rate.")


def _read_params(file: TensorFile, understood: MatchedCheckpoint) -> tuple[Params, list[str]]:
    """Read and check the meta-parameters, and return them with notes.

    Half precision is converted to float32, which represents all of its values exactly.
    """
    where, notes = understood.where, []
    pairs = [at for pair in understood.same for at in pair]
    read = file.load(list({*where.values(), *pairs, *understood.constants}))
    for name, value in read.items():
        if not torch.isfinite(value).all():
            raise UserError(
                f"{file.path}: {name!r} holds NaN or infinity.", "The training diverged; use an earlier checkpoint."
            )
    for one, other in understood.same:
        if not torch.equal(read[one], read[other]):
            raise UserError(
                f"{file.path}: {one!r} and {other!r} are one tensor in the network, but differ in the file.",
                "Save it again from the network.",
            )
    for name, value in understood.constants.items():
        same = torch.allclose if value.is_floating_point() else torch.equal
        if read[name].shape != value.shape or not same(read[name].to(value.dtype), value):
            raise UserError(
                f"{file.path}: the buffer {name!r} is not what the factory fills it with, and only parameters are "
                "kept in a model.",
                "Let the factory make it with these numbers.",
            )
    if any(file.tensors[at].dtype in HALF_PRECISION for at in where.values()):
        notes.append("Half precision was widened to float32; what training lost by it is lost.")
    return {
        name: read[at].float() if file.tensors[at].dtype in HALF_PRECISION else read[at] for name, at in where.items()
    }, notes
