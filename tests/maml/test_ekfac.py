"""EK-FAC against dense matrices: built from plain autograd through plain layers, row by row and class by class."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor
from torch.func import vmap

from core.maml.backbone import MLP, ConvNet, Layer, Params
from core.maml.ekfac import inverse
from core.maml.vectors import flatten, unflatten
from core.runtime.errors import UserError

Net = MLP | ConvNet
SHIFT = 0.05
MLPS = [MLP(3, (5, 4), (4, 6, 1), 2, "tanh"), MLP(3, (4,), (4, 4, 1), 1, "gelu"), MLP(3, (), (4, 4, 1), 2)]
CONVOLUTIONS = [
    ConvNet(3, filters=2, shape=(7, 6, 2), blocks=2),
    ConvNet(2, filters=3, shape=(6, 6, 1), pooling="max", blocks=2, activation="tanh"),
    ConvNet(3, filters=2, shape=(12, 9, 3), blocks=1, activation="relu"),
]


def random_task(net: Net, rows: int = 7, seed: int = 0) -> tuple[Params, Tensor, Tensor]:
    """Return perturbed parameters, images, and unequal weights, one of them 0 if there are several; in float64."""
    generator = torch.Generator().manual_seed(seed)
    theta = {
        name: value + 0.4 * torch.randn(value.shape, generator=generator, dtype=value.dtype)
        for name, value in net.init(seed, torch.float64).items()
    }
    x = torch.rand(rows, net.shape[2], *net.shape[:2], generator=generator, dtype=torch.float64)
    weights = 0.2 + 1.6 * torch.rand(rows, generator=generator, dtype=torch.float64)
    weights[1:2] = 0
    return theta, x, weights


def forward(net: Net, theta: Params, x: Tensor) -> tuple[Tensor, list[Tensor], list[Tensor]]:
    """Return the logits, and the inputs and outputs of every layer, computed by PyTorch functions."""
    inputs, outputs = [], []

    def keep(given: Tensor, out: Tensor) -> Tensor:
        inputs.append(given)
        outputs.append(out)
        return out

    act = {"relu": torch.relu, "gelu": F.gelu, "tanh": torch.tanh}[net.activation]
    if isinstance(net, MLP):
        x = F.avg_pool2d(x, net.shrink).flatten(1)
        for i in range(len(net.hidden)):
            x = act(keep(x, x @ theta[f"layers.{i}.weight"].T + theta[f"layers.{i}.bias"]))
    else:
        for b in range(net.blocks):
            stride = 2 if net.pooling == "stride" else 1
            x = keep(x, F.conv2d(x, theta[f"blocks.{b}.conv.weight"], stride=stride, padding=1))
            variance, mean = torch.var_mean(x, (0, 2, 3), correction=0, keepdim=True)
            scale, bias = theta[f"blocks.{b}.norm.weight"], theta[f"blocks.{b}.norm.bias"]
            x = act((x - mean) / torch.sqrt(variance + 1e-5) * scale[:, None, None] + bias[:, None, None])
            if net.pooling == "max":
                x = F.max_pool2d(x, 2)
        x = x.mean((2, 3)) if net.pooling == "stride" else x.flatten(1)
    return keep(x, x @ theta["head.weight"].T + theta["head.bias"]), inputs, outputs


def dense_fisher(net: Net, theta: Params, x: Tensor, weights: Tensor) -> np.ndarray:
    """Return the whole matrix F, ``(P, P)``."""
    leaves = {name: value.clone().requires_grad_() for name, value in theta.items()}
    logs = F.log_softmax(forward(net, leaves, x)[0], 1)
    total = 0
    for z in range(len(x)):
        for c in range(net.ways):
            parts = torch.autograd.grad(-logs[z, c], list(leaves.values()), retain_graph=True)
            g = flatten(dict(zip(leaves, parts, strict=True))).numpy()
            total = total + float(weights[z] * logs[z, c].detach().exp()) / len(x) * np.outer(g, g)
    return total


def positions(inputs: np.ndarray, layer: Layer, weight: np.ndarray) -> np.ndarray:
    """Return the inputs of one row at every position, with a 1 for the bias: ``(positions, columns)``."""
    if weight.ndim == 2:
        return np.append(inputs, 1.0)[None]
    padded = np.pad(inputs, [(0, 0), (layer.padding,) * 2, (layer.padding,) * 2])
    height, width = weight.shape[2:]
    tops = range(0, padded.shape[1] - height + 1, layer.stride)
    lefts = range(0, padded.shape[2] - width + 1, layer.stride)
    return np.array([padded[:, i : i + height, j : j + width].ravel() for i in tops for j in lefts])


class Slow:
    """The block of one layer, computed by loops. Axes: rows of the weight gradient, then its columns and the bias."""

    def __init__(
        self, layer: Layer, weight: Tensor, inputs: Tensor, gradients: list[Tensor], p: Tensor, weights: Tensor
    ) -> None:
        rows, ways = p.shape
        a = [positions(inputs[z].numpy(), layer, weight.numpy()) for z in range(rows)]
        g = [[gradients[c][z].numpy().reshape(len(weight), -1).T for c in range(ways)] for z in range(rows)]
        class_weights = (weights[:, None] * p).numpy() / rows
        self.a = sum(class_weights[z].sum() * np.outer(one, one) for z in range(rows) for one in a[z])
        self.g = sum(
            class_weights[z, c] * np.outer(one, one) for z in range(rows) for c in range(ways) for one in g[z][c]
        )
        self.mass = class_weights.sum()
        self.u_a, self.u_g = np.linalg.eigh(self.a)[1], np.linalg.eigh(self.g)[1]
        self.eigenvalues = np.zeros((len(self.g), len(self.a)))
        for z in range(rows):
            for c in range(ways):
                full = sum(np.outer(one, other) for one, other in zip(g[z][c], a[z], strict=True))
                self.eigenvalues += class_weights[z, c] * (self.u_g.T @ full @ self.u_a) ** 2
        basis = np.kron(self.u_g, self.u_a)
        self.matrix = basis @ np.diag(self.eigenvalues.ravel()) @ basis.T


def slow_blocks(net: Net, theta: Params, x: Tensor, weights: Tensor) -> Iterator[tuple[Layer, np.ndarray, Slow]]:
    """Return every layer with the positions of its parameters in the flat vector, in the order of :class:`Slow`."""
    leaves = {name: value.clone().requires_grad_() for name, value in theta.items()}
    logits, inputs, outputs = forward(net, leaves, x)
    logs = F.log_softmax(logits, 1)
    by_class = [torch.autograd.grad(-logs[:, c].sum(), outputs, retain_graph=True) for c in range(net.ways)]
    where = unflatten(torch.arange(len(flatten(theta))), theta)
    for k, layer in enumerate(net.layers):
        gradients = [parts[k] for parts in by_class]
        slow = Slow(layer, theta[layer.weight], inputs[k].detach(), gradients, logs.detach().exp(), weights)
        at = where[layer.weight].flatten(1)
        if layer.bias is not None:
            at = torch.cat([at, where[layer.bias][:, None]], 1)
        yield layer, at.flatten().numpy(), slow


def dense_inverse(net: Net, theta: Params, x: Tensor, weights: Tensor, shift: float = SHIFT) -> np.ndarray:
    apply = inverse(net, theta, x, weights, shift)
    columns = torch.eye(len(flatten(theta)), dtype=torch.float64)
    return torch.stack([flatten(apply(unflatten(column, theta))) for column in columns]).numpy().T


def dense(net: Net, theta: Params, x: Tensor, weights: Tensor) -> np.ndarray:
    """Return the EK-FAC matrix."""
    return np.linalg.inv(dense_inverse(net, theta, x, weights, 1.0)) - np.eye(len(flatten(theta)))


def close(actual: np.ndarray, expected: np.ndarray) -> None:
    """Assert a relative error of at most 1e-8 in the norm."""
    assert actual.shape == expected.shape
    assert np.linalg.norm(actual - expected) <= 1e-8 * np.linalg.norm(expected)


def test_a_linear_model_of_one_row_is_exact() -> None:
    """This case has a single Kronecker product."""
    net = MLPS[-1]
    theta, x, weights = random_task(net, rows=1)
    close(dense(net, theta, x, weights), dense_fisher(net, theta, x, weights))


@pytest.mark.parametrize("rows", [1, 3, 40])
@pytest.mark.parametrize("net", [*MLPS, *CONVOLUTIONS], ids=str)
def test_the_inverse_equals_that_of_loops(net: Net, rows: int) -> None:
    """With fewer and with more rows than inputs, so that bases are thin and full."""
    theta, x, weights = random_task(net, rows)
    expected = np.diag(np.diag(dense_fisher(net, theta, x, weights)))
    for _, at, slow in slow_blocks(net, theta, x, weights):
        expected[np.ix_(at, at)] = slow.matrix
    close(dense_inverse(net, theta, x, weights), np.linalg.inv(expected + SHIFT * np.eye(len(expected))))


@pytest.mark.parametrize("net", MLPS, ids=str)
def test_every_block_of_an_mlp_keeps_the_trace_and_is_closer_than_kfac(net: Net) -> None:
    """Rows do not interact, so the second moments are those of the dense blocks. K-FAC is the product of A and G."""
    theta, x, weights = random_task(net, rows=40)
    fisher, ours = dense_fisher(net, theta, x, weights), dense(net, theta, x, weights)
    for _, at, slow in slow_blocks(net, theta, x, weights):
        block, actual = fisher[np.ix_(at, at)], ours[np.ix_(at, at)]
        kfac = np.kron(slow.g, slow.a) / slow.mass
        assert np.trace(actual) == pytest.approx(np.trace(block), rel=1e-8)
        error = np.linalg.norm(actual - block)
        assert 0 < error < 0.999 * np.linalg.norm(kfac - block)
        # No other diagonal in this basis is closer.
        basis = np.kron(slow.u_g, slow.u_a)
        best = basis @ np.diag(np.diag(basis.T @ block @ basis)) @ basis.T
        assert error == pytest.approx(np.linalg.norm(best - block), rel=1e-6)


@pytest.mark.parametrize("net", CONVOLUTIONS, ids=str)
def test_scale_and_shift_of_the_normalisation_get_the_exact_diagonal(net: Net) -> None:
    theta, x, weights = random_task(net)
    names = unflatten(torch.arange(len(flatten(theta))), theta)
    at = np.concatenate([part.numpy() for name, part in names.items() if ".norm." in name])
    actual = dense(net, theta, x, weights)
    close(actual[np.ix_(at, at)], np.diag(np.diag(dense_fisher(net, theta, x, weights))[at]))
    assert np.abs(np.delete(actual[at], at, 1)).max() < 1e-12


@pytest.mark.parametrize("net", [MLPS[0], *CONVOLUTIONS[:2]], ids=str)
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32], ids=str)
def test_several_tasks_under_vmap_equal_a_loop(net: Net, dtype: torch.dtype) -> None:
    """The shift also differs between tasks; gradients are disabled."""
    tasks = [random_task(net, seed=seed) for seed in range(3)]
    theta = {name: torch.stack([task[0][name] for task in tasks]).to(dtype) for name in tasks[0][0]}
    x, weights = (torch.stack([task[k] for task in tasks]).to(dtype) for k in (1, 2))
    generator = torch.Generator().manual_seed(9)
    v = {name: torch.randn(value.shape, generator=generator, dtype=dtype) for name, value in theta.items()}
    shifts = torch.tensor([0.05, 0.5, 2], dtype=dtype)

    def product(theta: Params, x: Tensor, weights: Tensor, v: Params, shift: Tensor | float) -> Params:
        return inverse(net, theta, x, weights, shift)(v)

    with torch.no_grad():
        together = vmap(product)(theta, x, weights, v, shifts)
    assert list(together) == list(theta)
    for k, shift in enumerate(shifts):
        one, direction = ({name: value[k] for name, value in part.items()} for part in (theta, v))
        single = flatten(product(one, x[k], weights[k], direction, float(shift)))
        actual = flatten({name: value[k] for name, value in together.items()})
        assert actual.dtype == dtype
        assert (actual - single).norm() <= (1e-10 if dtype == torch.float64 else 1e-4) * single.norm()
        one, direction = ({name: value.double() for name, value in part.items()} for part in (one, direction))
        exact = flatten(product(one, x[k].double(), weights[k].double(), direction, float(shift)))
        assert (actual - exact).norm() <= (1e-10 if dtype == torch.float64 else 1e-3) * exact.norm()


@pytest.mark.parametrize("net", [MLPS[0], CONVOLUTIONS[0]], ids=str)
def test_a_task_of_weight_0_leaves_only_the_shift(net: Net) -> None:
    theta, x, weights = random_task(net)
    close(dense_inverse(net, theta, x, 0 * weights), np.eye(len(flatten(theta))) / SHIFT)


def test_a_row_of_weight_0_counts_only_in_the_number_of_rows() -> None:
    net = MLPS[0]
    theta, x, weights = random_task(net)
    included = weights > 0
    fewer = dense(net, theta, x[included], weights[included])
    close(dense(net, theta, x, weights), fewer * int(included.sum()) / len(x))


@pytest.mark.parametrize("shift", [0, -0.1, float("nan")])
def test_a_shift_that_is_not_positive_is_refused(shift: float) -> None:
    net = MLPS[0]
    theta, x, weights = random_task(net)
    with pytest.raises(UserError, match=r"shift.*above 0"):
        inverse(net, theta, x, weights, shift)
    # A tensor may differ from task to task under vmap, which cannot raise.
    out = inverse(net, theta, x, weights, torch.tensor(shift, dtype=torch.float64))(theta)
    assert all(value.isnan().all() for value in out.values())


def test_a_network_without_layer_inputs_is_refused() -> None:
    net = MLPS[0]
    theta, x, weights = random_task(net)
    with pytest.raises(UserError, match=r"EK-FAC.*cg"):
        inverse(lambda params, images: net(params, images), theta, x, weights, SHIFT)
