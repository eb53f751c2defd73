"""EK-FAC: an inverse of the inner problem's curvature that is built once and then costs a few small products.

The curvature is the Fisher matrix of the inner loss of one task (:mod:`core.maml.objective`), which for the
cross-entropy is its Gauss-Newton matrix,

    ``F = (1 / S) sum_z s_z sum_c p_c(z) g_zc g_zc^T``,

with p_c(z) the model's own probability of class c for row z and g_zc the gradient of -log p_c(z) by the
parameters. The sum over classes is taken in full; nothing is sampled. The approximation (George et al. 2018, "Fast
approximate natural gradient descent in a Kronecker-factored eigenbasis") keeps one block per layer and, in it, the
diagonal in the basis that K-FAC would use:

- The gradient of row z by a layer's weight is ``sum_t g_t a_t^T``: a_t the layer's input at place t, with a 1 below
  it where there is a bias, g_t the gradient by the layer's output there. A linear layer has one place, a
  convolution one for every patch (Grosse and Martens 2016, KFC).
- U_A and U_G are the eigenvectors of the weighted sums of ``a_t a_t^T`` and ``g_t g_t^T`` over rows, classes and
  places. KFC's scalings (1 / number of places, homogeneity) move eigenvalues only, and those are not used.
- The eigenvalue of the pair (i, j) is the second moment itself:
  ``(1 / S) sum_z s_z sum_c p_c(z) ((U_G^T (sum_t g_t a_t^T) U_A)_ij)^2``.

Parameters of no layer (scale and shift of a batch normalisation) get the diagonal of F, exactly.

Batch normalisation makes the logits of one row depend on all rows. For the blocks of the layers, rows are treated as
independent, as is usual: for each class c the gradient of ``sum_z -log p_c(z)`` is taken by all outputs of a layer,
and what falls on the outputs of row z counts as the gradient of row z. Where the rows do not meet, as in
:class:`core.maml.backbone.MLP`, that is exact. The diagonal of the other parameters makes no such assumption.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.func import vjp, vmap

from core.maml.backbone import Layer, Layered, Network, Params
from core.runtime.errors import UserError

Apply = Callable[[Params], Params]


def inverse(network: Network | Layered, theta: Params, x: Tensor, weights: Tensor, shift: float | Tensor) -> Apply:
    """``v -> (EKFAC(F) + shift I)^-1 v`` for one task; with vmap over (theta, x, weights, v), for several.

    Memory is that of ``ways`` backward passes through the S rows. Time is that of ``ways`` passes, or of
    ``(S + 1) ways`` if there are parameters of no layer.

    Args:
        network: A :class:`Layered` network.
        theta: Where F is taken: the adapted parameters.
        x: Support images ``(S, channels, height, width)``.
        weights: s, ``(S,)``, none negative.
        shift: Added to F; positive. A tensor may be one number per task under vmap; where that is not positive the
            result is NaN, as vmap cannot raise.

    Returns:
        A function of a dictionary with the names and shapes of ``theta``, to another such.

    Raises:
        UserError: the network is not :class:`Layered`, or the number ``shift`` is not positive.
    """
    network = layered(network)
    if isinstance(shift, Tensor):
        shift = torch.where(shift > 0, shift, torch.nan)
    elif not shift > 0:
        raise UserError(f"EK-FAC with the shift {shift} has no inverse.", "Use a shift above 0.")
    blocks = _layer_blocks(network, theta, x, weights, shift)
    diagonal = _diagonal(network, theta, x, weights)

    def apply(v: Params) -> Params:
        out = {name: v[name] / (value + shift) for name, value in diagonal.items()}
        for block in blocks:
            out.update(block(v))
        return {name: out[name] for name in theta}

    return apply


def layered(network: Network | Layered) -> Layered:
    """The same network; errors as in :func:`inverse`."""
    if isinstance(network, Layered):
        return network
    raise UserError(
        "EK-FAC needs the inputs of linear and convolution layers; this network does not give them (convnet and mlp "
        "do).",
        "Use cg.",
    )


def _layer_blocks(network: Layered, theta: Params, x: Tensor, weights: Tensor, shift: float | Tensor) -> list[Apply]:
    """The inverse of each layer's block, from and to that layer's share of the parameters."""
    inputs = network.traced(theta, x, {})[1]
    zeros = {layer.name: _no_shift(layer, theta[layer.weight], inputs[layer.name]) for layer in network.layers}
    logs, back = vjp(lambda shifts: -F.log_softmax(network.traced(theta, x, shifts)[0], -1), zeros)[:2]
    ways = logs.shape[-1]
    classes = torch.eye(ways, dtype=logs.dtype, device=logs.device)
    (gradients,) = vmap(back)(classes[:, None].expand(ways, *logs.shape))
    mass = _mass(logs, weights).mT
    return [
        _block(layer, theta[layer.weight], inputs[layer.name], gradients[layer.name], mass, shift)
        for layer in network.layers
    ]


def _block(
    layer: Layer, weight: Tensor, inputs: Tensor, gradients: Tensor, mass: Tensor, shift: float | Tensor
) -> Apply:
    """One layer's inverse.

    Args:
        inputs: ``(S, ...)``.
        gradients: By the layer's output, ``(ways, S, ...)``.
        mass: s_z p_c(z) / S, ``(ways, S)``.
    """
    a = _places(layer, weight, inputs)
    g = gradients.flatten(3) if weight.dim() == 4 else gradients[..., None]
    u_a = _eigenvectors((mass.sum(0).sqrt()[:, None, None] * a).mT.flatten(0, 1))
    u_g = _eigenvectors((mass.sqrt()[..., None, None] * g).mT.flatten(0, 2))
    rotated = (u_g.mT @ g) @ (u_a.mT @ a).mT
    eigenvalues = torch.einsum("cz,czij->ij", mass, rotated * rotated)
    # Both bases may be thin: F is 0 on all that they leave out, where the inverse is 1 / shift.
    change = 1 / (eigenvalues + shift) - 1 / shift

    def apply(v: Params) -> Params:
        matrix = v[layer.weight].flatten(1)
        if layer.bias is not None:
            matrix = torch.cat([matrix, v[layer.bias][:, None]], 1)
        matrix = matrix / shift + u_g @ (change * (u_g.mT @ matrix @ u_a)) @ u_a.mT
        if layer.bias is None:
            return {layer.weight: matrix.reshape(weight.shape)}
        return {layer.weight: matrix[:, :-1].reshape(weight.shape), layer.bias: matrix[:, -1]}

    return apply


def _diagonal(network: Layered, theta: Params, x: Tensor, weights: Tensor) -> Params:
    """The diagonal of F for the parameters of no layer, exactly: one backward pass per row and class."""
    taken = {name for layer in network.layers for name in (layer.weight, layer.bias)}
    others = {name: value for name, value in theta.items() if name not in taken}
    if not others:
        return {}
    logs, back = vjp(lambda values: -F.log_softmax(network({**theta, **values}, x), -1), others)[:2]
    ones = torch.eye(logs.numel(), dtype=logs.dtype, device=logs.device).view(-1, *logs.shape)
    # The classes of one row at a time, to keep the memory of the layers' blocks.
    (gradients,) = vmap(back, chunk_size=logs.shape[-1])(ones)
    mass = _mass(logs, weights).flatten()
    return {name: torch.einsum("k,k...->...", mass, value * value) for name, value in gradients.items()}


def _mass(logs: Tensor, weights: Tensor) -> Tensor:
    """s_z p_c(z) / S, ``(S, ways)``, of -log p."""
    return torch.exp(-logs) * weights[:, None] / len(weights)


def _no_shift(layer: Layer, weight: Tensor, inputs: Tensor) -> Tensor:
    """Zeros of the shape of the layer's output."""
    sides = [
        (n + 2 * layer.padding - k) // layer.stride + 1 for n, k in zip(inputs.shape[2:], weight.shape[2:], strict=True)
    ]
    return inputs.new_zeros(len(inputs), len(weight), *sides)


def _places(layer: Layer, weight: Tensor, inputs: Tensor) -> Tensor:
    """What the layer multiplies its weight with: ``(S, columns of the weight, places)``, a 1 below for a bias."""
    a = inputs[..., None]
    if weight.dim() == 4:
        a = F.unfold(inputs, tuple(weight.shape[2:]), padding=layer.padding, stride=layer.stride)
    return a if layer.bias is None else torch.cat([a, torch.ones_like(a[:, :1])], 1)


def _eigenvectors(rows: Tensor) -> Tensor:
    """Orthonormal eigenvectors ``(d, r)`` of ``rows^T rows`` for ``rows`` of shape ``(m, d)``; r = min(m, d).

    Fewer rows than columns (few images, many pixels) have a thin singular basis at a fraction of the cost.
    """
    if len(rows) < rows.shape[1]:
        return torch.linalg.svd(rows, full_matrices=False).Vh.mT
    return torch.linalg.eigh(rows.mT @ rows).eigenvectors
