"""Checkpoints made elsewhere: what is in one, a model of it (:mod:`core.checkpoints.matching`), and the way back."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from core.checkpoints.matching import WIDENED, CheckpointHints, MatchedCheckpoint, match_checkpoint
from core.checkpoints.model import NETWORK_FIELDS, Model, ModelSpec, load_model, spec_of
from core.checkpoints.tensor_file import Declared, TensorFile, open_tensors, sha256
from core.maml.adaptation import RATES, network_part
from core.maml.backbone import Params
from core.maml.module import ModuleNet
from core.runtime.errors import UserError
from core.runtime.files import replacing


@dataclass(frozen=True)
class Found:
    """What a checkpoint holds.

    Attributes:
        kind: What kind of file it is, in words.
        tensors: What the file declares, in its order.
        spec: The model it is of; inner steps and rate are those asked for, or stand-ins. None where there are faults.
        notes: Sentences on what was inferred, left out or converted.
        faults: Sentences on why no model can be made of it, each with what to do.
    """

    path: Path
    kind: str
    tensors: tuple[Declared, ...]
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
) -> Found:
    """Look into a checkpoint: a file, or a model folder of ours. Arguments as in :class:`Ask`.

    Raises:
        UserError: it cannot be read at all. What can be read and does not fit is in :attr:`Found.faults`.
    """
    folder = _own_folder(path, backbone)
    file = open_tensors(folder / "model.safetensors" if folder else path)
    tensors = tuple(file.tensors.values())
    kind = "model folder of TaskLens" if folder else file.kind
    try:
        if folder:
            return Found(path, kind, tensors, load_model(folder).spec, (), ())
        understood = match_checkpoint(file, CheckpointHints(backbone, algorithm, shape, ways, more=more or {}))
        _, notes = _numbers(file, understood)
    except UserError as error:
        return Found(path, kind, tensors, None, (), (str(error),))
    missing = "Inner steps and learning rate are not in a checkpoint: say how it was trained."
    return Found(path, kind, tensors, understood.spec, (*understood.notes, *notes, missing), ())


def import_checkpoint(path: Path, ask: CheckpointHints) -> Model:
    """Make a model of a checkpoint: a file, or a model folder of ours.

    Its story says where it comes from: path, kind, SHA-256 of the file, notes.

    Raises:
        UserError: it cannot be read, does not fit, or something is not said that is not in it either.
    """
    folder = _own_folder(path, ask.backbone)
    if folder:
        return _retold(load_model(folder), ask)
    file = open_tensors(path)
    understood = match_checkpoint(file, ask)
    _refuse_unsaid(understood.spec, ask)
    params, notes = _numbers(file, understood)
    origin = {
        "path": str(path.resolve()),
        "kind": file.kind,
        "sha256": sha256(path),
        "notes": [*understood.notes, *notes],
    }
    return Model(understood.spec.pinned(), params, {"origin": origin})


def export_state(model: Model, *, wrapped: bool = False) -> dict[str, Tensor]:
    """A state dict that learn2learn's network (or the user's own module) takes strictly.

    Running statistics of batch normalisation, which such a state dict must have, are as fresh: no one uses them here.

    Args:
        wrapped: For ``MAML(network)`` or ``GBML(network)`` instead of the network alone: every name begins with
            ``module.``. A ``meta-sgd`` model always is, for ``MetaSGD(network)``, and holds its rates as ``lrs``.

    Raises:
        UserError: the network is TaskLens's own.
    """
    network = model.spec.network()
    if not isinstance(network, ModuleNet):
        raise UserError(f"{model.spec.backbone} is TaskLens's own network, which no other library has.")
    state = network.state_dict(network_part(model.params))
    rates = [model.params[f"{RATES}{name}"] for name in network.shapes if f"{RATES}{name}" in model.params]
    if not wrapped and not rates:
        return state
    return {f"module.{name}": value for name, value in state.items()} | {
        f"lrs.{position}": rate for position, rate in enumerate(rates)
    }


def write_state(model: Model, folder: Path) -> Path | None:
    """Write :func:`export_state` beside a model: ``learn2learn.pt``, or ``state_dict.pt`` for the user's own module.

    Returns:
        The file, or None for TaskLens's own networks.
    """
    if model.spec.backbone in ("convnet", "mlp"):
        return None
    path = folder / ("state_dict.pt" if model.spec.backbone == "module" else "learn2learn.pt")
    with replacing(path) as temporary:
        torch.save(export_state(model), temporary)
    return path


def _own_folder(path: Path, backbone: str | None) -> Path | None:
    """The model folder that ``path`` names, unless the user says that its tensors are of another network."""
    folder = path if path.is_dir() else path.parent
    named = path.is_dir() or path.name == "model.safetensors"
    return folder if named and backbone is None and (folder / "model.json").is_file() else None


def _retold(model: Model, ask: CheckpointHints) -> Model:
    """A model of ours with another way of adapting."""
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
    # What was measured of it was measured with the other adaptation.
    story = {name: value for name, value in model.story.items() if name not in ("report", "history")}
    return Model(spec, model.params, story)


def _refuse_unsaid(spec: ModelSpec, ask: CheckpointHints) -> None:
    if spec.algorithm == "imaml":
        return
    if ask.steps is None:
        raise UserError("A checkpoint does not say how many inner steps it adapts by.", "Give --inner-steps.")
    if ask.rate is None and spec.algorithm != "meta-sgd":
        raise UserError("A checkpoint does not say its inner learning rate.", "Give --inner-rate.")


def _numbers(file: TensorFile, understood: MatchedCheckpoint) -> tuple[Params, list[str]]:
    """Read the meta-parameters, checked; half precision becomes float32, which holds each of its numbers exactly."""
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
    if any(file.tensors[at].dtype in WIDENED for at in where.values()):
        notes.append("Half precision was widened to float32; what training lost by it is lost.")
    return {
        name: read[at].float() if file.tensors[at].dtype in WIDENED else read[at] for name, at in where.items()
    }, notes
