"""Approximate the inverse curvature of the inner problem by EK-FAC, which is built once and then cheap to apply.

The curvature is the Fisher matrix of the inner loss of one task, which equals its Gauss-Newton matrix,

    ``F = (1 / S) sum_z s_z sum_c p_c(z) g_zc g_zc^T``,

where p_c(z) is the predicted probability of class c for row z, and g_zc is the gradient of -log p_c(z) with respect to
the parameters. The sum over classes is exact, without sampling. The approximation (George et al. 2018, "Fast
approximate natural gradient descent in a Kronecker-factored eigenbasis") has one block per layer, which is diagonal in
the eigenbasis of K-FAC:

- The gradient of row z with respect to the weight of a layer is ``sum_t g_t a_t^T``, where a_t is the layer input at
  position t (with a 1 appended if there is a bias) and g_t is the gradient with respect to the layer output at t. A
  linear layer has one position, a convolution has one per patch (Grosse and Martens 2016, KFC).
- U_A and U_G are the eigenvectors of the weighted sums of ``a_t a_t^T`` and ``g_t g_t^T`` over rows, classes and
  positions. The scalings of KFC change only the eigenvalues, which are not used.
- The eigenvalue of the pair (i, j) is the second moment itself:
  ``(1 / S) sum_z s_z sum_c p_c(z) ((U_G^T (sum_t g_t a_t^T) U_A)_ij)^2``.

For parameters outside these layers (scale and shift of batch normalisation), the exact diagonal of F is used.

Batch normalisation makes the logits of one row depend on all rows. The layer blocks treat rows as independent, as is
usual: for each class c, the gradient of ``sum_z -log p_c(z)`` with respect to all outputs of a layer is computed, and
its part at the outputs of row z is used as the gradient of row z. This is exact if rows do not interact, as in
:class:`core.maml.backbone.MLP`. The diagonal of the other parameters does not make this assumption.
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
    """Return the function ``v -> (EKFAC(F) + shift I)^-1 v`` of one task.

    Use vmap over (theta, x, weights, v) for several tasks. The memory is that of ``ways`` backward passes through the
    S rows. The time is that of ``ways`` passes, or of ``(S + 1) ways`` passes if some parameters belong to no layer.

    Args:
        theta: Adapted parameters, at which F is evaluated.
        x: Support images ``(S, channels, height, width)``.
        weights: Nonnegative weights s, ``(S,)``.
        shift: Positive number that is added to the diagonal of F. It can be a tensor with one value per task under
            vmap; values that are not positive then yield NaN, because code under vmap cannot raise.

    Raises:
        UserError: the network is not :class:`Layered`, or the number ``shift`` is not positive.
    """
    network = require_layered(network)
    if isinstance(shift, Tensor):
        shift = torch.where(shift > 0, shift, torch.nan)
    elif not shift > 0:
        raise UserError(f"The EK-FAC matrix with the shift {shift} has no inverse.", "Use a shift above 0.")
    blocks = _layer_blocks(network, theta, x, weights, shift)
    diagonal = _diagonal(network, theta, x, weights)

    def apply(v: Params) -> Params:
        out = {name: v[name] / (value + shift) for name, value in diagonal.items()}
        for block in blocks:
            out.update(block(v))
        return {name: out[name] for name in theta}

    return apply


def require_layered(network: Network | Layered) -> Layered:
    """Return ``network`` if it is :class:`Layered`, else raise UserError."""
    if isinstance(network, Layered):
        return network
    raise UserError(
        "EK-FAC needs the inputs of all linear and convolution layers, which only convnet and mlp provide.", "Use cg."
    )


def _layer_blocks(network: Layered, theta: Params, x: Tensor, weights: Tensor, shift: float | Tensor) -> list[Apply]:
    """Return the inverse of the block of each layer."""
    inputs = network.trace(theta, x, {})[1]
    zeros = {layer.name: _zero_shift(layer, theta[layer.weight], inputs[layer.name]) for layer in network.layers}
    losses, vector_jacobian = vjp(lambda shifts: -F.log_softmax(network.trace(theta, x, shifts)[0], -1), zeros)[:2]
    ways = losses.shape[-1]
    classes = torch.eye(ways, dtype=losses.dtype, device=losses.device)
    (gradients,) = vmap(vector_jacobian)(classes[:, None].expand(ways, *losses.shape))
    class_weights = _class_weights(losses, weights).mT
    return [
        _block(layer, theta[layer.weight], inputs[layer.name], gradients[layer.name], class_weights, shift)
        for layer in network.layers
    ]


def _block(
    layer: Layer, weight: Tensor, inputs: Tensor, gradients: Tensor, class_weights: Tensor, shift: float | Tensor
) -> Apply:
    """Return the inverse of the block of one layer.

    ``inputs`` are ``(S, ...)``, ``gradients`` by the layer output ``(ways, S, ...)``, ``class_weights`` ``(ways, S)``.
    """
    a = _layer_inputs(layer, weight, inputs)
    g = gradients.flatten(3) if weight.dim() == 4 else gradients[..., None]
    u_a = _eigenvectors((class_weights.sum(0).sqrt()[:, None, None] * a).mT.flatten(0, 1))
    u_g = _eigenvectors((class_weights.sqrt()[..., None, None] * g).mT.flatten(0, 2))
    rotated = (u_g.mT @ g) @ (u_a.mT @ a).mT
    eigenvalues = torch.einsum("cz,czij->ij", class_weights, rotated * rotated)
    # Both bases may be thin: F is 0 on their orthogonal complement, where the inverse is 1 / shift.
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
    """Return the exact diagonal of F for parameters outside the layers, with one backward pass per row and class."""
    in_layers = {name for layer in network.layers for name in (layer.weight, layer.bias)}
    others = {name: value for name, value in theta.items() if name not in in_layers}
    if not others:
        return {}
    losses, vector_jacobian = vjp(lambda values: -F.log_softmax(network({**theta, **values}, x), -1), others)[:2]
    ones = torch.eye(losses.numel(), dtype=losses.dtype, device=losses.device).view(-1, *losses.shape)
    # Process the classes of one row at a time, so that the memory does not exceed that of the layer blocks.
    (gradients,) = vmap(vector_jacobian, chunk_size=losses.shape[-1])(ones)
    class_weights = _class_weights(losses, weights).flatten()
    return {name: torch.einsum("k,k...->...", class_weights, value * value) for name, value in gradients.items()}


def _class_weights(losses: Tensor, weights: Tensor) -> Tensor:
    """Return s_z p_c(z) / S, ``(S, ways)``, from -log p."""
    return torch.exp(-losses) * weights[:, None] / len(weights)


def _zero_shift(layer: Layer, weight: Tensor, inputs: Tensor) -> Tensor:
    """Return zeros of the shape of the layer output."""
    sides = [
        (n + 2 * layer.padding - k) // layer.stride + 1 for n, k in zip(inputs.shape[2:], weight.shape[2:], strict=True)
    ]
    return inputs.new_zeros(len(inputs), len(weight), *sides)


def _layer_inputs(layer: Layer, weight: Tensor, inputs: Tensor) -> Tensor:
    """Return the factors of the layer weight, ``(S, columns of the weight, positions)``, with a row of 1 for a bias."""
    a = inputs[..., None]
    if weight.dim() == 4:
        a = F.unfold(inputs, tuple(weight.shape[2:]), padding=layer.padding, stride=layer.stride)
    return a if layer.bias is None else torch.cat([a, torch.ones_like(a[:, :1])], 1)


def _eigenvectors(rows: Tensor) -> Tensor:
    """Return the orthonormal eigenvectors ``(d, r)`` of ``rows^T rows``, for ``rows`` ``(m, d)`` and r = min(m, d)."""
    if len(rows) < rows.shape[1]:  # few images, many pixels: much cheaper
        return torch.linalg.svd(rows, full_matrices=False).Vh.mT
    return torch.linalg.eigh(rows.mT @ rows).eigenvectors
