"""A slow, plain second implementation of the engine: torch.autograd, one task at a time, dense matrices."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.functional import hessian, jacobian

from core.maml.adaptation import network_part
from core.maml.backbone import MLP
from tests.problems import Problem


def forward(problem: Problem, flat: Tensor, x: Tensor) -> Tensor:
    """Logits by PyTorch's own layers, parameters cut out of one vector."""
    net, at = problem.model.network, 0
    parts = {}
    for name, value in network_part(problem.params).items():
        parts[name] = flat[at : at + value.numel()].reshape(value.shape)
        at += value.numel()
    if isinstance(net, MLP):
        x = F.avg_pool2d(x, net.shrink).flatten(1)
        for layer in range(len(net.hidden)):
            x = torch.tanh(x @ parts[f"layers.{layer}.weight"].T + parts[f"layers.{layer}.bias"])
        return x @ parts["head.weight"].T + parts["head.bias"]
    for b in range(net.blocks):
        x = F.conv2d(x, parts[f"blocks.{b}.conv.weight"], stride=2 if net.pooling == "stride" else 1, padding=1)
        # PyTorch's own batch norm has no third derivative; tests/maml/test_backbone.py compares ours with it.
        variance, mean = torch.var_mean(x, (0, 2, 3), correction=0, keepdim=True)
        scale, shift = parts[f"blocks.{b}.norm.weight"], parts[f"blocks.{b}.norm.bias"]
        x = (x - mean) / torch.sqrt(variance + 1e-5) * scale[:, None, None] + shift[:, None, None]
        x = torch.relu(x) if net.activation == "relu" else 0.5 * x * (1 + torch.erf(x / 2**0.5))
        if net.pooling != "stride":
            x = F.max_pool2d(x, 2) if net.pooling == "max" else F.avg_pool2d(x, 2)
    x = x.mean((2, 3)) if net.pooling == "stride" else x.flatten(1)
    return x @ parts["head.weight"].T + parts["head.bias"]


def flat_params(problem: Problem) -> Tensor:
    return torch.cat([v.flatten() for v in problem.params.values()])


def task_tensors(problem: Problem, task_id: str) -> tuple[Tensor, ...]:
    rows = problem.tasks.rows[problem.tasks.rows["task_id"] == task_id]
    out = []
    for role in ("support", "query"):
        part = rows[rows["role"] == role]
        pixels = problem.images.images[[problem.images.index[i] for i in part["image_id"]]]
        out.append(torch.from_numpy(pixels.astype(np.float64) / 255).permute(0, 3, 1, 2))
        out.append(torch.tensor(part["label"].to_numpy()))
        out.append(torch.tensor(part["weight"].to_numpy()))
    return tuple(out)


def adapted(problem: Problem, flat: Tensor, task_id: str, s: Tensor) -> Tensor:
    """Unrolled steps, in all variants: parameters that do not adapt have rate 0, learned rates lie behind theta."""
    xs, ys, *_ = task_tensors(problem, task_id)
    how, net = problem.model.adaptation, network_part(problem.params)
    sizes = {name: value.numel() for name, value in net.items()}
    theta = base = flat[: sum(sizes.values())]
    moves = torch.cat([torch.full((n,), how.adapted == "all" or k.startswith("head.")) for k, n in sizes.items()])
    rate = torch.zeros(len(theta), dtype=flat.dtype)
    rates = flat[len(theta) :].detach() if problem.model.first_order else flat[len(theta) :]
    rate[moves] = rates if how.learned_rates else how.rate
    if problem.model.first_order:
        theta = base.detach().requires_grad_()
    for _ in range(how.steps):
        loss = (s * F.cross_entropy(forward(problem, theta, xs), ys, reduction="none")).sum() / len(s)
        (gradient,) = torch.autograd.grad(loss, theta, create_graph=True)
        theta = theta - rate * gradient
    return base + (theta - base.detach()) if problem.model.first_order else theta


def query_losses(problem: Problem, flat: Tensor, task_id: str, s: Tensor | None = None) -> Tensor:
    _, _, ws, xq, yq, _ = task_tensors(problem, task_id)
    theta = adapted(problem, flat, task_id, ws if s is None else s)
    return F.cross_entropy(forward(problem, theta, xq), yq, reduction="none")


def task_loss(problem: Problem, flat: Tensor, task_id: str, s: Tensor | None = None) -> Tensor:
    weights = task_tensors(problem, task_id)[5]
    return (weights * query_losses(problem, flat, task_id, s)).sum() / len(weights)


def leaf(problem: Problem) -> Tensor:
    return flat_params(problem).requires_grad_()


def gradient(problem: Problem, task_id: str) -> Tensor:
    flat = leaf(problem)
    return torch.autograd.grad(task_loss(problem, flat, task_id), flat)[0]


def dense_hessian(problem: Problem, task_ids: list[str]) -> Tensor:
    flat = flat_params(problem)

    def loss(p: Tensor, task_id: str) -> Tensor:
        return task_loss(problem, p.requires_grad_(), task_id)

    return torch.stack([_dense(hessian, partial(loss, task_id=task_id), flat) for task_id in task_ids]).sum(0)


def _dense(derivative: Callable[..., Tensor], of: Callable[[Tensor], Tensor], at: Tensor) -> Tensor:
    try:
        return derivative(of, at, vectorize=True)
    except RuntimeError:  # PyTorch 2.9 and 2.10 cannot vectorize derivatives of max-pooling
        return derivative(of, at)


def dense_gauss_newton(problem: Problem, task_ids: list[str]) -> Tensor:
    out = torch.zeros(len(flat_params(problem)), len(flat_params(problem)), dtype=torch.float64)
    for task_id in task_ids:
        _, _, ws, xq, yq, q = task_tensors(problem, task_id)

        def logits(p: Tensor, task_id: str = task_id, ws: Tensor = ws, xq: Tensor = xq) -> Tensor:
            return forward(problem, adapted(problem, p.requires_grad_(), task_id, ws), xq)

        rows = _dense(jacobian, logits, flat_params(problem))
        z = logits(flat_params(problem)).detach()
        for row in range(len(q)):
            a = hessian(lambda one, row=row, yq=yq: F.cross_entropy(one[None], yq[row : row + 1]), z[row])
            out += q[row] / len(q) * rows[row].T @ a @ rows[row]
    return out


def first_order(problem: Problem) -> Problem:
    return replace(problem, model=replace(problem.model, first_order=True))


def dense_direct(problem: Problem, task_ids: list[str]) -> Tensor:
    return dense_hessian(first_order(problem), task_ids)


def dense_task_fisher(problem: Problem, task_ids: list[str]) -> Tensor:
    rows = torch.stack([gradient(problem, task_id) for task_id in task_ids])
    return rows.T @ rows


def dense_gamma(problem: Problem, task_ids: list[str]) -> Tensor:
    norms = [gradient(first_order(problem), task_id).abs().sum() for task_id in task_ids]
    return torch.eye(len(flat_params(problem)), dtype=torch.float64) * sum(norms)


def query_row_gradients(problem: Problem, task_id: str) -> Tensor:
    """``(Q, P)``: D_lambda of each query row's share of the task loss at weight 1."""
    flat = leaf(problem)
    losses = query_losses(problem, flat, task_id)
    return torch.stack([torch.autograd.grad(one / len(losses), flat, retain_graph=True)[0] for one in losses])


def support_row_gradients(problem: Problem, task_id: str) -> Tensor:
    """``(S, P)``: D_lambda d L_O / d s_z, the minus of D_lambda P(z) of Prop. 4.8."""
    flat = leaf(problem)
    s = task_tensors(problem, task_id)[2].clone().requires_grad_()
    (by_s,) = torch.autograd.grad(task_loss(problem, flat, task_id, s=s), s, create_graph=True)
    return torch.stack([torch.autograd.grad(one, flat, retain_graph=True)[0] for one in by_s])
