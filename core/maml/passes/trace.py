"""Evaluate a convolutional network on many tasks at once, with explicit derivatives of its loss and gradient.

Values are hyper-dual numbers (:mod:`core.maml.passes.hyperdual`). The tasks of a chunk are stored side by side as
groups of channels, ``(images, positions, tasks x channels)``. A convolution with separate weights per task is then one
grouped convolution, which on a CPU is as fast as an ordinary one, and everything between convolutions is one operation
for all tasks.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from core.maml.backbone import Params
from core.maml.passes.hyperdual import (
    AB,
    VALUE,
    A,
    ActivationAndPool,
    B,
    BatchNormalisation,
    Hyper,
    NormScale,
    compose,
    is_monotonic,
    product,
    set_component,
    square,
)
from core.maml.passes.plan import ConvBlockPlan, ConvPlan

_CACHE_BYTES = 1 << 20  # bytes that fit into the cache of a core


def _flatten_positions(image: Tensor) -> Tensor:
    """Return ``(images, height, width, channels)`` as ``(positions, channels)``."""
    return image.reshape(-1, image.shape[-1])


class _FirstBlock:
    """A first block, which reads the images.

    Images have no derivatives. The convolution, the normalisation and the positions of the maxima therefore need not
    store tensors of the size of the output, and take few passes over such tensors.

    For the patch p under the kernel, with a 1 appended, the normalised convolution is linear in p. Its weights are
    ``k w`` and ``shift - k w . mean p``, and the variance over the batch is ``w . Cov(p) w``, where the mean and the
    covariance depend on the images only. All nonlinear operations act on tensors of the size of the weights.
    """

    def __init__(self, block: ConvBlockPlan, activation: str, x: Tensor, filters: int) -> None:
        """Build the patches of the images ``x``, ``(T, n, channels, height, width)``."""
        self._block, self._tasks, self._images = block, x.shape[0], x.shape[1]
        step = block.stride
        # Subtract the mean brightness, which the normalisation removes anyway, to avoid cancellation below.
        padded = F.pad(x, (1, 1, 1, 1)) - x.mean((1, 2, 3, 4), keepdim=True)
        patches = padded.unfold(3, 3, step).unfold(4, 3, step).permute(0, 1, 3, 4, 2, 5, 6)
        self._height, self._width = patches.shape[2:4]
        self._patches = x.new_empty(self._tasks, self._images * self._height * self._width, 9 * x.shape[2] + 1)
        self._patches[..., :-1].view(patches.shape).copy_(patches)
        self._patches[..., -1] = 1
        moments = self._patches.mT @ self._patches / self._patches.shape[1]
        self._mean = moments[:, -1, :-1].contiguous()
        self._covariance = moments[:, :-1, :-1] - self._mean[:, :, None] * self._mean[:, None]
        self._w, self._dv, self._g, self._norm_scale = Hyper(), Hyper(), Hyper(), NormScale()
        # Process blocks of images that stay in the cache between two operations.
        size = self._images
        if x.device.type == "cpu" and block.pool > 1 and is_monotonic(activation):
            size = max(1, _CACHE_BYTES // (self._height * self._width * self._tasks * filters * x.element_size()))
        self._parts = [
            (slice(start, min(start + size, self._images)), ActivationAndPool(activation, block.pool, mean=block.mean))
            for start in range(0, self._images, size)
        ]

    def forward(self, component: int, theta: Params) -> Tensor | None:
        """Return a component of the block output, ``(n, height, width, T x channels)``."""
        weight = theta.get(self._block.conv)
        set_component(self._w, component, None if weight is None else weight.flatten(2))
        v = square(self._w, component, lambda x, y: ((x @ self._covariance) * y).sum(-1))
        self._norm_scale.forward(component, v, theta.get(self._block.scale))
        linear = product(self._w, self._norm_scale.k, component, lambda w, k: w * k[..., None])
        constant = None if linear is None else -(linear @ self._mean[..., None])
        if self._block.shift in theta:
            shift = theta[self._block.shift][..., None]
            constant = shift if constant is None else constant + shift
        weights = None
        if constant is not None:
            if linear is None:
                linear = constant.new_zeros(*constant.shape[:2], self._mean.shape[1])
            weights = torch.cat([linear, constant], -1).mT
        parts = (
            part.forward(component, None if weights is None else self._times_patches(images, weights))
            for images, part in self._parts
        )
        outputs = [part for part in parts if part is not None]
        return torch.cat(outputs) if len(outputs) > 1 else outputs[0] if outputs else None

    def backward(self, component: int, dout: Tensor | None) -> Params:
        """Return a component of the derivatives with respect to the parameters."""
        by_weights: Tensor | None = None  # derivative with respect to the linear weights and the constant
        for images, part in self._parts:
            du = part.backward(component, None if dout is None else dout[images])
            if du is not None:
                parts = self._rows(images).mT @ du.reshape(-1, self._tasks, du.shape[-1] // self._tasks).transpose(0, 1)
                by_weights = parts if by_weights is None else by_weights.add_(parts)
        dshift = None if by_weights is None else by_weights[:, -1]
        # The derivative with respect to the linear weights, including their effect through the constant.
        if by_weights is not None:
            self._g[component] = by_weights[:, :-1].mT - by_weights[:, -1, :, None] * self._mean[:, None]
        dk = product(self._g, self._w, component, lambda g, w: (g * w).sum(-1))
        dscale, dv = self._norm_scale.backward(component, dk)
        set_component(self._dv, component, None if dv is None else 2 * dv)
        dw = product(self._g, self._norm_scale.k, component, lambda g, k: g * k[..., None])
        second_order = product(self._dv, self._w, component, lambda d, w: d[..., None] * (w @ self._covariance))
        if second_order is not None:
            dw = second_order if dw is None else dw + second_order
        out = {
            self._block.conv: None if dw is None else dw.unflatten(2, (-1, 3, 3)),
            self._block.scale: dscale,
            self._block.shift: dshift,
        }
        return {name: value for name, value in out.items() if value is not None}

    def _rows(self, images: slice) -> Tensor:
        positions = self._height * self._width
        return self._patches[:, images.start * positions : images.stop * positions]

    def _times_patches(self, images: slice, weights: Tensor) -> Tensor:
        """Return the patches times ``weights`` ``(T, patch, channels)``, with the tasks side by side."""
        rows, channels = self._rows(images), weights.shape[-1]
        out = rows.new_empty(rows.shape[1], self._tasks, channels)
        torch.bmm(rows, weights, out=out.transpose(0, 1))
        return out.view(-1, self._height, self._width, self._tasks * channels)


class _LaterBlock:
    """A block after the first one."""

    def __init__(self, block: ConvBlockPlan, activation: str, tasks: int) -> None:
        self._block, self._tasks = block, tasks
        self._norm = BatchNormalisation()
        self._activation = ActivationAndPool(activation, block.pool, mean=block.mean)
        self._x, self._w, self._dz = Hyper(), Hyper(), Hyper()

    def forward(self, component: int, x: Tensor | None, theta: Params) -> Tensor | None:
        """Return a component of the output; input and output are ``(n, height, width, T x channels)``."""
        set_component(self._x, component, None if x is None else x.permute(0, 3, 1, 2))
        weight = theta.get(self._block.conv)
        if weight is not None:
            self._w[component] = weight.flatten(0, 1).contiguous(memory_format=torch.channels_last)
        z = product(self._x, self._w, component, self._convolve)
        if component == VALUE:
            assert z is not None
            self._shape = z.permute(0, 2, 3, 1).shape
        scale, shift = (
            theta[name].flatten() if name in theta else None for name in (self._block.scale, self._block.shift)
        )
        z = None if z is None else _flatten_positions(z.permute(0, 2, 3, 1))
        y = self._norm.forward(component, z, scale, shift)
        return self._activation.forward(component, None if y is None else y.view(self._shape))

    def backward(self, component: int, dout: Tensor | None) -> tuple[Tensor | None, Params]:
        """Return a component of the derivatives with respect to the input and the parameters."""
        dy = self._activation.backward(component, dout)
        dz, dscale, dshift = self._norm.backward(component, None if dy is None else _flatten_positions(dy))
        set_component(self._dz, component, None if dz is None else dz.view(self._shape).permute(0, 3, 1, 2))
        dw = product(self._x, self._dz, component, self._by_weight)
        dx = product(self._dz, self._w, component, self._by_input)
        out = {self._block.conv: dw, self._block.scale: dscale, self._block.shift: dshift}
        parts = {name: value.unflatten(0, (self._tasks, -1)) for name, value in out.items() if value is not None}
        return None if dx is None else dx.permute(0, 2, 3, 1), parts

    def _convolve(self, x: Tensor, w: Tensor) -> Tensor:
        out = F.conv2d(x, w, stride=self._block.stride, padding=1, groups=self._tasks)
        return out.contiguous(memory_format=torch.channels_last)

    def _by_weight(self, x: Tensor, dz: Tensor) -> Tensor:
        return self._backward(dz, x, self._w[VALUE], [False, True, False])[1]

    def _by_input(self, dz: Tensor, w: Tensor) -> Tensor:
        out = self._backward(dz, self._x[VALUE], w, [True, False, False])[0]
        return out.contiguous(memory_format=torch.channels_last)

    def _backward(self, dz: Tensor, x: Tensor, w: Tensor, which: list[bool]) -> tuple[Tensor, ...]:
        stride = [self._block.stride] * 2
        return torch.ops.aten.convolution_backward(
            dz, x, w, None, stride, [1, 1], [1, 1], False, [0, 0], self._tasks, which
        )


class Trace:
    """An evaluation of the network and its loss, with one set of parameters and one set of images per task.

    Images are ``(T, n, channels, height, width)``, labels and (components of) the weights of the row losses ``(T, n)``;
    the loss is the weighted sum over n.
    """

    def __init__(self, plan: ConvPlan, x: Tensor, y: Tensor, weights: Hyper) -> None:
        self._plan, self._y, self._weights, self._tasks = plan, y, weights, x.shape[0]
        self._first = _FirstBlock(plan.blocks[0], plan.activation, x, plan.filters)
        self._layers = [_LaterBlock(block, plan.activation, self._tasks) for block in plan.blocks[1:]]
        self.logits, self.rows, self.gradient = Hyper(), Hyper(), dict[int, Params]()
        self._features, self._weight = Hyper(), Hyper()
        self._log_probability, self._probability, self._dlogits = Hyper(), Hyper(), Hyper()

    def forward(self, component: int, theta: Params) -> None:
        """Compute a component of the logits ``(T, n, ways)`` and of the row losses ``(T, n)``.

        ``theta`` is this component of the parameters, each with a first axis T; missing parameters are 0.
        """
        x = self._first.forward(component, theta)
        for layer in self._layers:
            x = layer.forward(component, x, theta)
        if x is not None:
            self._shape = x.shape
            x = x.unflatten(3, (self._tasks, -1)).permute(0, 3, 4, 1, 2)  # (n, T, channels, height, width)
            x = (x.mean((3, 4)) if self._plan.mean else x.flatten(2)).transpose(0, 1).contiguous()
            self._features[component] = x
        set_component(self._weight, component, theta.get(self._plan.weight))
        logits = product(self._features, self._weight, component, lambda f, w: f @ w.mT)
        if self._plan.bias in theta:
            shift = theta[self._plan.bias][:, None]
            logits = shift.expand(*self._y.shape, -1).clone() if logits is None else logits.add_(shift)
        set_component(self.logits, component, logits)
        self._classify(component)

    def _classify(self, component: int) -> None:
        o, p = self.logits, self._probability
        if component == VALUE:
            self._log_probability[VALUE] = F.log_softmax(o[VALUE], -1)
            p[VALUE] = self._log_probability[VALUE].exp()
        else:
            change = None
            if component in o:
                change = o[component] - (p[VALUE] * o[component]).sum(-1, keepdim=True)
            if component == AB and A in o and B in o:
                # The second derivative of -logsumexp is minus the covariance of the two changes.
                mixed = -(p[VALUE] * self._log_probability[A] * self._log_probability[B]).sum(-1, keepdim=True)
                change = mixed.expand_as(o[VALUE]) if change is None else change + mixed
            set_component(self._log_probability, component, change)
            # The exponential is its own derivative.
            set_component(p, component, compose(lambda _: p[VALUE], self._log_probability, component))
        if component in self._log_probability:
            chosen = self._log_probability[component].gather(2, self._y[..., None])[..., 0]
            self.rows[component] = -chosen

    def loss(self, component: int) -> Tensor | None:
        """Return a component of the loss, ``(T,)``."""
        return product(self.rows, self._weights, component, lambda rows, w: (rows * w).sum(1))

    def backward(self, component: int, dlogits: Tensor | None = None) -> Params:
        """Compute a component of the gradient of the loss with respect to the parameters, each ``(T, ...)``.

        ``dlogits`` ``(T, n, ways)`` is used instead of the derivative of the loss with respect to the logits.
        """
        if dlogits is None:
            residual = {VALUE: self._probability[VALUE] - F.one_hot(self._y, self._probability[VALUE].shape[-1])}
            residual |= {part: value for part, value in self._probability.items() if part != VALUE}
            dlogits = product(residual, self._weights, component, lambda r, w: r * w[..., None])
        set_component(self._dlogits, component, dlogits)
        out: Params = {}
        by_weight = product(self._dlogits, self._features, component, lambda d, f: d.mT @ f)
        if by_weight is not None:
            out[self._plan.weight] = by_weight
        if dlogits is not None:
            out[self._plan.bias] = dlogits.sum(1)
        dx = product(self._dlogits, self._weight, component, torch.matmul)
        if dx is not None:
            dx = self._to_feature_maps(dx)
        for layer in reversed(self._layers):
            dx, parts = layer.backward(component, dx)
            out |= parts
        out |= self._first.backward(component, dx)
        self.gradient[component] = out
        return out

    def _to_feature_maps(self, by_features: Tensor) -> Tensor:
        """Return the derivative with respect to the last feature maps from that of ``(T, n, features)``."""
        images, height, width, channels = self._shape
        d = by_features.transpose(0, 1)
        if self._plan.mean:
            return (d / (height * width)).reshape(images, 1, 1, channels).expand(self._shape).contiguous()
        return d.reshape(images, channels, height, width).permute(0, 2, 3, 1).contiguous()
