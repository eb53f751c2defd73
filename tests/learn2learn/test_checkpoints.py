"""Checkpoints of learn2learn are imported, and edited ones are exported, with identical values."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.func import grad

from core.checkpoints.foreign import export_state, import_checkpoint, inspect_checkpoint, write_state
from core.checkpoints.matching import CheckpointHints
from core.checkpoints.model import BACKBONE_FIELDS, Model, ModelSpec, load_model, save_model
from core.runtime.errors import UserError
from tests.learn2learn.test_networks import NAMES, PAIRS, build, close, l2l, task_of


def ask_of(spec: ModelSpec, **more: Any) -> CheckpointHints:
    return CheckpointHints(shape=spec.shape, ways=spec.ways, **{"steps": spec.steps, "rate": spec.rate, **more})


def import_saved(state: Any, path: Path, ask: CheckpointHints) -> Model:
    torch.save(state, path)
    return import_checkpoint(path, ask)


def trained_a_little(learner: nn.Module, spec: ModelSpec) -> None:
    """Change running statistics and rates, as a training does."""
    task = task_of(spec)
    with torch.no_grad():
        learner(task.xs)
        for value in learner.parameters():
            value += 0.1 * torch.rand_like(value)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("wrapper", ["none", "maml", "gbml"])
def test_a_checkpoint_round_trips(name: str, wrapper: str, tmp_path: Path) -> None:
    l2l_network, _, spec = build(name)
    trained_a_little(l2l_network, spec)
    wrapped = {
        "none": lambda: l2l_network,
        "maml": lambda: l2l.algorithms.MAML(l2l_network, lr=0.2),
        "gbml": lambda: l2l.algorithms.GBML(l2l_network, transform=lambda parameter: None, lr=0.2),
    }[wrapper]()
    more = {"pooling": spec.pooling} if "pooling" in BACKBONE_FIELDS[spec.backbone] else {}
    model = import_saved(wrapped.state_dict(), tmp_path / "theirs.pt", ask_of(spec, more=more))
    assert model.spec == spec.model_copy(update={"delta": 0.0})
    assert list(model.params) == [key for key, _ in l2l_network.named_parameters()]
    task = task_of(spec)
    close(model.spec.network()(model.params, task.xs), l2l_network(task.xs).detach())
    save_model(model, tmp_path / "ours")
    edited = load_model(tmp_path / "ours")
    edited = Model(edited.spec, {key: value * 1.5 for key, value in edited.params.items()}, {})
    path = write_state(edited, tmp_path / "ours")
    assert path is not None
    assert path.name == "learn2learn.pt"
    back = PAIRS[name].l2l_network().double()
    back.load_state_dict(torch.load(path, weights_only=True))
    close(back(task.xs).detach(), edited.spec.network()(edited.params, task.xs))
    wrapped_state = {f"module.{name}": value for name, value in export_state(edited).items()}
    l2l.algorithms.MAML(back, lr=0.1).load_state_dict(wrapped_state)
    assert all(torch.equal(value, edited.params[key]) for key, value in back.named_parameters())


def same_meta_gradient(meta: Any, model: Model, spec: ModelSpec) -> None:
    task = task_of(spec)
    learner = meta.clone()
    for _ in range(spec.steps):
        learner.adapt(F.cross_entropy(learner(task.xs), task.ys))
    loss = F.cross_entropy(learner(task.xq), task.yq)
    loss.backward()
    bilevel = model.spec.bilevel()
    close(bilevel.task_loss(model.params, task), loss.detach())
    actual = grad(bilevel.task_loss)(model.params, task)
    size = max(float(value.grad.abs().max()) for value in meta.parameters())
    for (key, value), rate in zip(meta.module.named_parameters(), meta.lrs, strict=True):
        close(actual[key], value.grad, size)
        close(actual[f"rates.{key}"], rate.grad, size)


@pytest.mark.parametrize("name", NAMES)
def test_meta_sgd_round_trips_with_its_rates(name: str, tmp_path: Path) -> None:
    l2l_network, _, spec = build(name)
    meta = l2l.algorithms.MetaSGD(l2l_network, lr=0.1).double()
    trained_a_little(meta, spec)
    more = {"pooling": spec.pooling} if "pooling" in BACKBONE_FIELDS[spec.backbone] else {}
    model = import_saved(meta.state_dict(), tmp_path / "theirs.pt", ask_of(spec, rate=None, more=more))
    assert model.spec.algorithm == "meta-sgd"
    if name != "omniglot-cnn":  # MetaSGD of learn2learn does not adapt convolutions that are registered twice
        same_meta_gradient(meta, model, spec)
    back = l2l.algorithms.MetaSGD(PAIRS[name].l2l_network(), lr=0.5).double()
    back.load_state_dict(export_state(model))
    assert all(torch.equal(a, b) for a, b in zip(back.parameters(), meta.parameters(), strict=True))


def test_the_network_and_its_sizes_are_identified_by_names_and_shapes(tmp_path: Path) -> None:
    complete = {
        "omniglot-cnn": (l2l.vision.models.OmniglotCNN(20, hidden_size=32), {"filters": 32, "ways": 20}),
        "omniglot-fc": (l2l.vision.models.OmniglotFC(784, 5), {"hidden": (256, 128, 64, 64), "shape": (28, 28, 1)}),
        "cnn4": (l2l.vision.models.MiniImagenetCNN(5, hidden_size=32), {"filters": 32, "shape": (84, 84, 3)}),
        "resnet12": (
            l2l.vision.models.ResNet12(64, hidden_size=2560, avg_pool=False),
            {"pooling": "none", "shape": (32, 32, 3), "ways": 64},
        ),
    }
    for backbone, (net, numbers) in complete.items():
        torch.save({"epoch": 3, "model_state_dict": net.state_dict()}, tmp_path / "some.pth")
        contents = inspect_checkpoint(tmp_path / "some.pth")
        assert contents.faults == ()
        assert contents.spec is not None
        assert contents.spec.backbone == backbone
        assert {key: getattr(contents.spec, key) for key in numbers} == numbers
        assert "model_state_dict" in contents.kind
        assert any(backbone in note for note in contents.notes)
        assert [one.name for one in contents.tensors] == list(net.state_dict())


def test_learned_transforms_are_refused(tmp_path: Path) -> None:
    transform = l2l.optim.ModuleTransform(l2l.nn.Scale)
    learner = l2l.algorithms.GBML(l2l.vision.models.OmniglotFC(48, 3, sizes=[6, 5]), transform=transform)
    torch.save(learner.state_dict(), tmp_path / "gbml.pt")
    with pytest.raises(UserError, match=r"GBML.*compute_update"):
        import_checkpoint(tmp_path / "gbml.pt", CheckpointHints(shape=(8, 6, 1), steps=1, rate=0.1))


def test_a_whole_wrapper_saved_as_a_pickle_is_refused(tmp_path: Path) -> None:
    torch.save(l2l.algorithms.MAML(l2l.vision.models.OmniglotFC(4, 5), lr=0.1), tmp_path / "maml.pt")
    with pytest.raises(UserError, match=r" learn2learn\.algorithms\.maml\.MAML.*state_dict"):
        inspect_checkpoint(tmp_path / "maml.pt")
