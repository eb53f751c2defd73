"""Custom modules: changes, refusals, and the results of the engine on them."""

from __future__ import annotations

import re
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.func import functional_call

from core.editing.linear import change_gradient
from core.influence.curvature import Curvature, task_gradients
from core.influence.scores import instance_table, task_table
from core.maml.adaptation import Unrolled
from core.maml.episodes import Episodes
from core.maml.module import ModuleNet, probe
from core.maml.objective import Bilevel
from core.runtime.errors import UserError
from tests.influence import reference
from tests.problems import Problem, tiny_images, tiny_tasks


def net(build: Callable[[], nn.Module], shape: tuple[int, int, int] = (6, 6, 1)) -> ModuleNet:
    return ModuleNet("mine:net", 3, shape, build)


def convolutional() -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(1, 4, 3, padding=1),
        nn.BatchNorm2d(4),
        nn.ReLU(inplace=True),
        nn.Dropout(0.5),
        nn.Flatten(),
        nn.Linear(144, 5),
        nn.BatchNorm1d(5, affine=False),
        nn.Tanh(),
        nn.Linear(5, 3),
    )


class Residual(nn.Module):
    """A module with in-place additions, a constant buffer, and a layer that is used twice."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(1, 4, 3, padding=1)
        self.again = nn.Conv2d(4, 4, 3, padding=1)
        self.norm = nn.GroupNorm(2, 4)
        self.register_buffer("mean", torch.full((1, 1, 1), 0.5))
        self.last = nn.Linear(4, 3)

    def forward(self, x: Tensor) -> Tensor:
        shortcut = self.first(x - self.mean)
        out = torch.relu_(self.again(shortcut))
        out = self.norm(self.again(out))
        out += shortcut
        return self.last(out.mean((2, 3)))


def test_batch_normalisation_uses_the_batch_and_dropout_is_off() -> None:
    network = net(convolutional)
    params = network.init(0, torch.float64)
    x = torch.rand(7, 1, 6, 6, dtype=torch.float64)
    plain = convolutional().double().train()
    plain[3].p = 0.0
    plain.load_state_dict(params, strict=False)
    actual, expected = network(params, x), plain(x)
    assert (actual - expected).abs().max() <= 1e-10 * expected.abs().max()
    assert list(params) == [name for name, _ in plain.named_parameters()]
    normalisation, dropout = network.notes
    assert "Batch normalisation (layers: 2)" in normalisation
    assert re.match(r"Dropout .*\(layers: 1\)", dropout)
    assert network.head == "8"
    probe(network)


def test_the_seed_determines_the_parameters_and_leaves_the_global_generator_unchanged() -> None:
    network = net(convolutional)
    torch.manual_seed(7)
    before = torch.get_rng_state()
    one, repeated, other = network.init(0), network.init(0), network.init(1)
    assert torch.equal(torch.get_rng_state(), before)
    assert all(torch.equal(one[name], repeated[name]) for name in one)
    assert not torch.equal(one["0.weight"], other["0.weight"])


def test_networks_of_equal_name_are_equal_and_have_the_same_repr() -> None:
    assert (
        repr(net(convolutional))
        == repr(net(convolutional))
        == ("ModuleNet(name='mine:net', ways=3, shape=(6, 6, 1), code='')")
    )
    assert net(convolutional) == net(convolutional)


def instance() -> nn.Module:
    norm = nn.InstanceNorm2d(2, affine=True, track_running_stats=True)
    return nn.Sequential(nn.Conv2d(1, 2, 3), norm, nn.ELU(inplace=True), nn.Flatten(), nn.Linear(32, 3))


@pytest.mark.parametrize(
    "build", [Residual, instance, lambda: nn.Sequential(nn.LayerNorm(6), nn.Flatten(), nn.Linear(36, 3))]
)
def test_supported_modules(build: Callable[[], nn.Module]) -> None:
    probe(net(build))


def test_a_transformer_is_supported() -> None:
    class Attention(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.mix = nn.MultiheadAttention(6, 2, dropout=0.3, batch_first=True)
            self.more = nn.TransformerEncoder(nn.TransformerEncoderLayer(6, 2, 8, batch_first=True), 1)
            self.last = nn.Linear(36, 3)

        def forward(self, x: Tensor) -> Tensor:
            rows = x[:, 0]
            return self.last(self.more(self.mix(rows, rows, rows, need_weights=False)[0]).flatten(1))

    probe(net(Attention))


def test_threads_do_not_mix_parameters() -> None:
    network = net(convolutional)
    sets = [network.init(seed) for seed in range(8)]
    x = torch.rand(5, 1, 6, 6)
    expected = [network(params, x) for params in sets]
    with ThreadPoolExecutor(8) as pool:
        actual = list(pool.map(lambda number: network(sets[number % 8], x), range(200)))
    assert all(torch.equal(logits, expected[number % 8]) for number, logits in enumerate(actual))


def test_tied_weights_are_one_parameter() -> None:
    class Tied(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.up, self.down = nn.Linear(36, 36), nn.Linear(36, 36)
            self.down.weight = self.up.weight
            self.last = nn.Linear(36, 3)

        def forward(self, x: Tensor) -> Tensor:
            return self.last(torch.tanh(self.down(torch.tanh(self.up(x.flatten(1))))))

    network = net(Tied)
    assert network.aliases == {"down.weight": "up.weight"}
    probe(network)
    params = network.init(0)
    state = network.state_dict(params)
    assert torch.equal(state["down.weight"], params["up.weight"])
    Tied().load_state_dict(state)


class Counting(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("seen", torch.zeros(()))
        self.last = nn.Linear(36, 3)

    def forward(self, x: Tensor) -> Tensor:
        self.seen += 1
        return self.last(x.flatten(1))


class Own(nn.BatchNorm2d):
    pass


class OwnRunning(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("running_mean", torch.zeros(1))
        self.last = nn.Linear(36, 3)


class Function(nn.Module):
    """A module that is defined by its forward function."""

    def __init__(self, forward: Callable[[nn.Linear, Tensor], Any]) -> None:
        super().__init__()
        self.last, self.function = nn.Linear(36, 3), forward

    def forward(self, x: Tensor) -> Any:
        return self.function(self.last, x)


def frozen() -> nn.Module:
    module = nn.Sequential(nn.Flatten(), nn.Linear(36, 4), nn.Linear(4, 3))
    module[1].requires_grad_(False)
    return module


def random_buffer() -> nn.Module:
    module = nn.Sequential(nn.Flatten(), nn.Linear(36, 3))
    module.register_buffer("noise", torch.rand(3))
    return module


@pytest.mark.parametrize(
    ("build", "what"),
    [
        (nn.Flatten, "it has no parameters"),
        (
            lambda: nn.Sequential(nn.Flatten(), nn.LazyLinear(3)),
            "'1' is an uninitialised LazyLinear",
        ),
        (lambda: nn.LSTM(36, 3), "it is a LSTM"),
        (
            lambda: nn.Sequential(Own(1), nn.Flatten(), nn.Linear(36, 3)),
            "'0' is a Own",
        ),
        (OwnRunning, "'running_mean' is a running statistic"),
        (lambda: nn.DataParallel(nn.Linear(36, 3)), "it is a DataParallel"),
        (lambda: nn.ModuleDict({"rates": nn.Linear(36, 3)}), r"parameter 'rates\.weight'.*learned inner rates"),
        (frozen, r"parameter '1\.weight' is frozen"),
        (Counting, "buffer 'seen' changes"),
        (random_buffer, "buffers differ"),
        (lambda: nn.Linear(36, 3), "images of 1x6x6 .*RuntimeError: mat1 and mat2"),
        (lambda: nn.Sequential(nn.Flatten(), nn.Linear(36, 4)), r"returns a tensor of shape \(3, 4\).*\(3, 3\)"),
        (lambda: Function(lambda last, x: (last(x.flatten(1)), 0)), "returns a tuple"),
        (lambda: Function(lambda last, x: last(x.flatten(1)) / 0), "logits are not finite"),
        (lambda: Function(lambda last, x: last(x.flatten(1)) + torch.rand(())), "two runs .* differ"),
        (
            lambda: Function(lambda last, x: last(x.flatten(1)) * (2 if float(x.sum()) > 0 else 1)),
            "cannot differentiate it twice",
        ),
        (
            lambda: Function(lambda last, x: torch.from_numpy(last(x.flatten(1)).detach().numpy())),
            "cannot differentiate it twice",
        ),
    ],
)
def test_unsupported_modules_are_refused_with_the_reason(build: Callable[[], nn.Module], what: str) -> None:
    with pytest.raises(UserError, match=rf"^mine:net .*{what}"):
        probe(net(build))


@pytest.mark.filterwarnings("ignore:.torch.jit.script")
def test_a_script_module_is_refused() -> None:
    module = torch.jit.script(nn.Linear(3, 3))
    with pytest.raises(UserError, match="RecursiveScriptModule"):
        net(lambda: module).shapes  # noqa: B018


def test_anil_needs_a_linear_layer() -> None:
    network = net(lambda: nn.Sequential(nn.Conv2d(1, 3, 6), nn.Flatten()))
    probe(network)
    with pytest.raises(UserError, match="mine:net has no linear layer"):
        network.head  # noqa: B018


# --- the engine on a module


def plain() -> nn.Module:
    return nn.Sequential(nn.AvgPool2d(7), nn.Flatten(), nn.Linear(1, 3), nn.Tanh(), nn.Linear(3, 3))


@pytest.fixture
def problem(monkeypatch: pytest.MonkeyPatch) -> Problem:
    """Return a problem with a module of 18 parameters, whose reference uses the forward pass of PyTorch layers."""
    images = tiny_images()
    tasks = tiny_tasks(images, ways=3, shots=2, queries=2, count=3)
    network = net(plain, (7, 7, 1))
    params = {name: 2 * value for name, value in network.init(3, torch.float64).items()}
    module = plain().double()

    def forward(_: Problem, flat: Tensor, x: Tensor) -> Tensor:
        sizes = [value.numel() for value in params.values()]
        parts = zip(params.items(), flat.split(sizes), strict=True)
        return functional_call(module, {name: part.view(value.shape) for (name, value), part in parts}, x)

    monkeypatch.setattr(reference, "forward", forward)
    model = Bilevel(network, Unrolled(2, 0.3), 0.2)
    return Problem(images, tasks, model, params, Episodes(tasks, images, dtype=torch.float64, chunk=2))


def close(actual: Any, expected: Any) -> None:
    actual, expected = (torch.as_tensor(value) for value in (actual, expected))
    assert (actual - expected).abs().max() <= 1e-8 * expected.abs().max()


def test_gradients_curvature_and_scores_equal_dense_algebra(problem: Problem) -> None:
    ids = problem.tasks.task_ids
    rows = torch.stack([reference.gradient(problem, one) for one in ids])
    close(task_gradients(problem.model, problem.params, problem.episodes), rows)
    hessian = reference.dense_hessian(problem, ids)
    gauss = reference.dense_gauss_newton(problem, ids)
    v = torch.randn(len(hessian), generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    for name, dense in (("exact", hessian), ("gauss-newton", gauss)):
        close(Curvature(name, problem.model, problem.params, problem.episodes)(v), dense @ v)
    weights = problem.tasks.rows["weight"].to_numpy().copy()
    weights[(problem.tasks.rows["task_id"] == ids[0]).to_numpy()] = 0
    close(change_gradient(problem.model, problem.params, problem.episodes, weights), rows[0])
    u = torch.linalg.solve(gauss + 0.3 * torch.eye(len(v), dtype=torch.float64), v)
    instances = instance_table(problem.model, problem.params, u, problem.episodes)
    tasks = task_table(instances).set_index("task_id")["score"]
    close(tasks[list(ids)].to_numpy(), rows @ u)
    for one in ids:
        in_task = instances[instances["task_id"] == one]
        for role, gradients in (("query", reference.query_row_gradients), ("support", reference.support_row_gradients)):
            close(in_task.loc[in_task["role"] == role, "score"].to_numpy(), gradients(problem, one) @ u)
