"""A convolutional network on many tasks at once, with its loss, its gradient, and their derivatives written out.

Values are hyper-dual numbers (Fike and Alonso 2011): with two directions a and b whose squares are 0, every quantity
is ``x + x_a e_a + x_b e_b + x_ab e_a e_b``. Put into the gradient of a loss they give, exactly and without a graph:
the gradient itself, its derivative along a (a Hessian product), and the derivative of that along b (a third
derivative). A component needs only those of its subsets, so that one can be added when its direction becomes known,
and nothing that is there already is computed again.

The tasks of a chunk lie side by side as groups of channels, ``(images, places, tasks x channels)`` in memory: a
convolution with its own weights for every task is then one grouped convolution, which on a CPU runs as fast as an
ordinary one, and everything between convolutions is one operation for all tasks.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TypeVar

import torch
import torch.nn.functional as F
from torch import Tensor

from core.maml.backbone import BATCH_NORM_EPSILON, Params
from core.maml.passes.plan import Block, Plan

VALUE, A, B, AB = 0, 1, 2, 3
"""Components of a hyper-dual number."""

Hyper = dict[int, Tensor]
"""A hyper-dual number by components; one that is missing is 0."""
Side = TypeVar("Side")


def _parts(left: Hyper, right: Hyper, component: int) -> Iterator[tuple[Tensor, Tensor]]:
    """The pairs whose products make a component of a product."""
    for part in (VALUE, A, B, AB):
        if part & component == part and part in left and component ^ part in right:
            yield left[part], right[component ^ part]


def _sum(terms: Iterator[Tensor]) -> Tensor | None:
    """Their sum, in the place of the first."""
    whole = None
    for term in terms:
        whole = term if whole is None else whole.add_(term)
    return whole


def product(
    left: Hyper, right: Hyper, component: int, times: Callable[[Tensor, Tensor], Tensor] = torch.mul
) -> Tensor | None:
    """A component of a product that is linear in both; None where it is 0."""
    return _sum(times(x, y) for x, y in _parts(left, right, component))


def composed(first: Callable[[], Tensor], second: Callable[[], Tensor], u: Hyper, component: int) -> Tensor | None:
    """A component other than the value of ``f(u)``, elementwise, from the first two derivatives of f at the value."""
    whole = first() * u[component] if component in u else None
    if component == AB and A in u and B in u:
        bent = second() * u[A] * u[B]
        whole = bent if whole is None else whole.add_(bent)
    return whole


def put(into: Hyper, component: int, value: Tensor | None) -> None:
    if value is not None:
        into[component] = value


class Normalised:
    """``(z - mean z) (v + epsilon)^(-1/2) scale + shift``, v the variance of z over the batch, and its backward.

    Big tensors are ``(places, channels)``, those of a channel ``(channels,)``. The normalised value is ``c k + shift``
    with c the centred z and ``k = scale / sqrt(v + epsilon)``: whatever bends lies in the small tensors alone.
    """

    def __init__(self) -> None:
        self.c: Hyper = {}
        self.scale: Hyper = {}
        self.v: Hyper = {}
        self.r: Hyper = {}
        self.k: Hyper = {}
        self.dy: Hyper = {}
        self.db: Hyper = {}
        self.dr: Hyper = {}
        self.e: Hyper = {}
        self.bent: Hyper = {}
        self.d: Hyper = {}
        self.dscale: Hyper = {}
        self.dk: Hyper = {}
        self._odd: list[Tensor] = []

    def _power(self, n: int) -> Tensor:
        """``(v + epsilon)^(-(2 n + 1) / 2)`` at the value."""
        while len(self._odd) <= n:
            self._odd.append(self._odd[-1] * self.r[VALUE] ** 2 if self._odd else self.r[VALUE])
        return self._odd[n]

    def forward(self, component: int, z: Tensor | None, scale: Tensor | None, shift: Tensor | None) -> Tensor | None:
        """A component of the result; takes ``z`` over."""
        put(self.scale, component, scale)
        if z is not None:
            self.c[component] = z.sub_(z.mean(0))
        put(self.v, component, product(self.c, self.c, component, lambda x, y: (x * y).mean(0)))
        if component == VALUE:
            self.r[VALUE] = torch.rsqrt(self.v[VALUE] + BATCH_NORM_EPSILON)
        else:
            first, second = (lambda: -0.5 * self._power(1)), (lambda: 0.75 * self._power(2))
            put(self.r, component, composed(first, second, self.v, component))
        put(self.k, component, product(self.r, self.scale, component))
        out: Tensor | None = None
        for c, k in _parts(self.c, self.k, component):
            if out is None:
                out = c * k if shift is None else torch.addcmul(shift, c, k)
            else:
                out.addcmul_(c, k)
        if out is None and shift is not None:
            out = shift.expand(self.c[VALUE].shape).clone()
        return out

    def backward(self, component: int, dy: Tensor | None) -> tuple[Tensor | None, Tensor | None, Tensor | None]:
        """A component of the derivatives by z, scale and shift; keeps ``dy``."""
        places = len(self.c[VALUE])
        if dy is not None:
            self.dy[component], self.db[component] = dy, dy.sum(0)
        put(self.dk, component, product(self.dy, self.c, component, lambda x, y: (x * y).sum(0)))
        put(self.dr, component, product(self.dk, self.scale, component))
        if component == VALUE:
            self.bent[VALUE] = -0.5 * self._power(1)
        else:
            first, second = (lambda: 0.75 * self._power(2)), (lambda: -1.875 * self._power(3))
            put(self.bent, component, composed(first, second, self.v, component))
        # e is 2 / places times the derivative by v, d takes the mean away.
        put(self.e, component, product(self.dr, self.bent, component))
        if component in self.e:
            self.e[component] *= 2 / places
        put(self.d, component, product(self.k, self.db, component))
        if component in self.d:
            self.d[component] *= -1 / places
        out: Tensor | None = None
        for big, small in (*_parts(self.dy, self.k, component), *_parts(self.c, self.e, component)):
            if out is None:
                out = torch.addcmul(self.d[component], big, small) if component in self.d else big * small
            else:
                out.addcmul_(big, small)
        return out, product(self.dk, self.r, component), self.db.get(component)


class Activation:
    """An activation, elementwise, and its backward."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.u: Hyper = {}
        self.slope: Hyper = {}
        self.dout: Hyper = {}
        self._kept: dict[int, Tensor] = {}

    def forward(self, component: int, u: Tensor | None) -> Tensor | None:
        put(self.u, component, u)
        if component == VALUE:
            self._kept[0] = {"relu": F.relu, "gelu": F.gelu, "tanh": torch.tanh}[self.name](self.u[VALUE])
            return self._kept[0]
        if self.name == "relu":
            return None if u is None else torch.ops.aten.threshold_backward(u, self.u[VALUE], 0)
        return composed(lambda: self._derivative(1), lambda: self._derivative(2), self.u, component)

    def backward(self, component: int, dout: Tensor | None) -> Tensor | None:
        if self.name == "relu":
            return None if dout is None else torch.ops.aten.threshold_backward(dout, self.u[VALUE], 0)
        put(self.dout, component, dout)
        if component == VALUE:
            self.slope[VALUE] = self._derivative(1)
        else:
            slope = composed(lambda: self._derivative(2), lambda: self._derivative(3), self.u, component)
            put(self.slope, component, slope)
        return product(self.slope, self.dout, component)

    def _derivative(self, order: int) -> Tensor:
        """The derivative of that order at the value."""
        if order not in self._kept:
            u, f = self.u[VALUE], self._kept[0]
            if self.name == "tanh":
                slope = 1 - f * f
                made = {1: lambda: slope, 2: lambda: -2 * f * slope, 3: lambda: (6 * f * f - 2) * slope}[order]()
            elif order == 1:
                made = torch.ops.aten.gelu_backward(torch.ones_like(u), u)
            else:
                density = torch.exp(u * u * -0.5).mul_((2 * torch.pi) ** -0.5)
                made = density.mul_(2 - u * u) if order == 2 else density.mul_((u * u - 4) * u)
            self._kept[order] = made
        return self._kept[order]


class _Layer:
    """One block of the network."""

    def __init__(self, block: Block, activation: str, tasks: int, first: bool) -> None:
        self.block, self.tasks, self.first = block, tasks, first
        self.norm, self.act = Normalised(), Activation(activation)
        self.pool_first = activation != "gelu"  # the others rise: they commute with the maximum, and cost less after it
        self.x: Hyper = {}
        self.w: Hyper = {}
        self.dz: Hyper = {}
        self._full = self._pooled = (0, 0, 0, 0)
        self._index: Tensor | None = None

    def forward(self, component: int, x: Tensor | None, theta: Params) -> Tensor | None:
        put(self.x, component, x)
        weight = theta.get(self.block.conv)
        if weight is not None:
            self.w[component] = weight.flatten(0, 1).contiguous(memory_format=torch.channels_last)
        z = product(self.x, self.w, component, self._convolve)
        if component == VALUE:
            assert z is not None
            self._full = tuple(z.shape)
        scale, shift = (
            theta[name].flatten() if name in theta else None for name in (self.block.scale, self.block.shift)
        )
        y = self.norm.forward(component, None if z is None else self._flat(z), scale, shift)
        if self.pool_first:
            return self._image(self.act.forward(component, self._pool(component, y)))
        return self._image(self._pool(component, self.act.forward(component, y)))

    def backward(self, component: int, dout: Tensor | None) -> tuple[Tensor | None, Params]:
        """A component of the derivatives by the input (None for the first layer) and by the parameters."""
        flat = None if dout is None else self._flat(dout)
        if self.pool_first:
            dy = self._unpool(self.act.backward(component, flat))
        else:
            dy = self.act.backward(component, self._unpool(flat))
        dz, dscale, dshift = self.norm.backward(component, dy)
        if dz is not None:
            self.dz[component] = self._shaped(dz, self._full)
        dw = product(self.x, self.dz, component, self._by_weight)
        dx = None if self.first else product(self.dz, self.w, component, self._by_input)
        found = {self.block.conv: dw, self.block.scale: dscale, self.block.shift: dshift}
        return dx, {name: value.unflatten(0, (self.tasks, -1)) for name, value in found.items() if value is not None}

    def _convolve(self, x: Tensor, w: Tensor) -> Tensor:
        out = F.conv2d(x, w, stride=self.block.stride, padding=1, groups=self.tasks)
        return out.contiguous(memory_format=torch.channels_last)

    def _by_weight(self, x: Tensor, dz: Tensor) -> Tensor:
        return self._backward(dz, x, self.w[VALUE], [False, True, False])[1]

    def _by_input(self, dz: Tensor, w: Tensor) -> Tensor:
        out = self._backward(dz, self.x[VALUE], w, [True, False, False])[0]
        return out.contiguous(memory_format=torch.channels_last)

    def _backward(self, dz: Tensor, x: Tensor, w: Tensor, which: list[bool]) -> tuple[Tensor, ...]:
        stride = [self.block.stride] * 2
        return torch.ops.aten.convolution_backward(
            dz, x, w, None, stride, [1, 1], [1, 1], False, [0, 0], self.tasks, which
        )

    def _pool(self, component: int, y: Tensor | None) -> Tensor | None:
        side = self.block.pool
        if component == VALUE:
            assert y is not None
            self._pooled = self._full if side == 1 else (*self._full[:2], self._full[2] // side, self._full[3] // side)
            if side > 1:
                top, self._index = F.max_pool2d(self._shaped(y, self._full), side, return_indices=True)
                self._places = self._index.permute(0, 2, 3, 1).flatten(1, 2)
                return self._flat(top)
        if side == 1 or y is None:
            return y
        images = self._full[0]
        return y.view(images, -1, y.shape[1]).gather(1, self._places).flatten(0, 1)

    def _unpool(self, dy: Tensor | None) -> Tensor | None:
        side = self.block.pool
        if side == 1 or dy is None:
            return dy
        like = self._shaped(dy, self._pooled)
        whole = self._shaped(self.norm.c[VALUE], self._full)
        out = torch.ops.aten.max_pool2d_with_indices_backward(
            like, whole, [side, side], [side, side], [0, 0], [1, 1], False, self._index
        )
        return self._flat(out)

    def _image(self, y: Tensor | None) -> Tensor | None:
        return None if y is None else self._shaped(y, self._pooled)

    @staticmethod
    def _flat(image: Tensor) -> Tensor:
        """``(images, channels, height, width)``, channels last in memory, as ``(places, channels)``."""
        return image.permute(0, 2, 3, 1).reshape(-1, image.shape[1])

    @staticmethod
    def _shaped(flat: Tensor, shape: tuple[int, ...]) -> Tensor:
        images, channels, height, width = shape
        return flat.view(images, height, width, channels).permute(0, 3, 1, 2)


class Trace:
    """The network at one point a task, on one set of images a task, and the loss of the images.

    Args:
        x: ``(T, n, channels, height, width)``.
        y: Labels ``(T, n)``.
        weights: Of the rows' losses, ``(T, n)`` by components: the loss is their weighted sum over n.
    """

    def __init__(self, plan: Plan, x: Tensor, y: Tensor, weights: Hyper) -> None:
        tasks, images, channels, height, width = x.shape
        self._plan, self._y, self._weights, self._tasks, self._images = plan, y, weights, tasks, images
        side_by_side = x.permute(1, 3, 4, 0, 2).reshape(images, height, width, tasks * channels)
        self._x = side_by_side.permute(0, 3, 1, 2)
        self._layers = [_Layer(block, plan.activation, tasks, number == 0) for number, block in enumerate(plan.blocks)]
        self._features: Hyper = {}
        self._weight: Hyper = {}
        self.logits: Hyper = {}
        self._log_probability: Hyper = {}
        self._probability: Hyper = {}
        self._dlogits: Hyper = {}
        self.rows: Hyper = {}
        self.gradient: dict[int, Params] = {}

    def forward(self, component: int, theta: Params) -> None:
        """Make a component of the logits ``(T, n, ways)`` and of the rows' losses ``(T, n)``.

        Args:
            theta: That component of the parameters, each with a first axis T; those missing are 0.
        """
        x: Tensor | None = self._x if component == VALUE else None
        for layer in self._layers:
            x = layer.forward(component, x, theta)
        if x is not None:
            self._shape = x.shape
            x = x.unflatten(1, (self._tasks, -1))  # (n, T, channels, height, width)
            x = (x.mean((3, 4)) if self._plan.mean else x.flatten(2)).transpose(0, 1).contiguous()
            self._features[component] = x
        put(self._weight, component, theta.get(self._plan.weight))
        logits = product(self._features, self._weight, component, lambda f, w: f @ w.mT)
        if self._plan.bias in theta:
            shift = theta[self._plan.bias][:, None]
            logits = shift.expand(*self._y.shape, -1).clone() if logits is None else logits.add_(shift)
        put(self.logits, component, logits)
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
                # The second derivative of -logsumexp: minus the covariance of the two changes.
                mixed = -(p[VALUE] * self._log_probability[A] * self._log_probability[B]).sum(-1, keepdim=True)
                change = mixed.expand_as(o[VALUE]) if change is None else change + mixed
            put(self._log_probability, component, change)
            first = second = lambda: p[VALUE]  # the exponential is its own derivative
            put(p, component, composed(first, second, self._log_probability, component))
        if component in self._log_probability:
            chosen = self._log_probability[component].gather(2, self._y[..., None])[..., 0]
            self.rows[component] = -chosen

    def loss(self, component: int) -> Tensor | None:
        """A component of the loss, ``(T,)``."""
        return product(self.rows, self._weights, component, lambda rows, w: (rows * w).sum(1))

    def backward(self, component: int, dlogits: Tensor | None = None) -> Params:
        """Make a component of the gradient of the loss by the parameters, each ``(T, ...)``.

        Args:
            dlogits: Take this ``(T, n, ways)`` for the derivative by the logits, instead of that of the loss.
        """
        if dlogits is None:
            residual = {VALUE: self._probability[VALUE] - F.one_hot(self._y, self._probability[VALUE].shape[-1])}
            residual |= {part: value for part, value in self._probability.items() if part != VALUE}
            dlogits = product(residual, self._weights, component, lambda r, w: r * w[..., None])
        put(self._dlogits, component, dlogits)
        found: Params = {}
        by_weight = product(self._dlogits, self._features, component, lambda d, f: d.mT @ f)
        if by_weight is not None:
            found[self._plan.weight] = by_weight
        if dlogits is not None:
            found[self._plan.bias] = dlogits.sum(1)
        dx = product(self._dlogits, self._weight, component, torch.matmul)
        if dx is not None:
            dx = self._spread(dx)
        for layer in reversed(self._layers):
            dx, parts = layer.backward(component, dx)
            found |= parts
        self.gradient[component] = found
        return found

    def _spread(self, by_features: Tensor) -> Tensor:
        """From the features ``(T, n, features)`` back to the last image."""
        images, channels, height, width = self._shape
        d = by_features.transpose(0, 1)
        if self._plan.mean:
            d = (d / (height * width)).reshape(images, channels, 1, 1).expand(self._shape)
        else:
            d = d.reshape(images, channels, height, width)
        return d.contiguous(memory_format=torch.channels_last)
