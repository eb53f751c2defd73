"""Compute with hyper-dual numbers, and evaluate the elementwise parts of a convolutional network on them.

With two directions a and b whose units have square 0, every quantity is ``x + x_a e_a + x_b e_b + x_ab e_a e_b`` (Fike
and Alonso 2011). Evaluating the gradient of a loss on such numbers yields, exactly and without a graph, the gradient
itself, its derivative along a (a Hessian product), and the derivative of that along b (a third derivative). A component
depends only on the components of its subsets. It can therefore be added when its direction becomes known, without
recomputing the existing components.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import torch
import torch.nn.functional as F
from torch import Tensor

from core.maml.backbone import ACTIVATIONS, BATCH_NORM_EPSILON

VALUE, A, B, AB = 0, 1, 2, 3
"""Components of a hyper-dual number."""

Hyper = dict[int, Tensor]
"""A hyper-dual number as a dictionary of components; missing components are 0."""


def _factor_pairs(left: Hyper, right: Hyper, component: int) -> Iterator[tuple[Tensor, Tensor]]:
    """Yield the pairs whose products sum to a component of a product."""
    for part in (VALUE, A, B, AB):
        if part & component == part and part in left and component ^ part in right:
            yield left[part], right[component ^ part]


def product(
    left: Hyper, right: Hyper, component: int, times: Callable[[Tensor, Tensor], Tensor] = torch.mul
) -> Tensor | None:
    """Return a component of a bilinear product, or None if it is 0."""
    out = None
    for x, y in _factor_pairs(left, right, component):
        out = times(x, y) if out is None else out.add_(times(x, y))
    return out


def square(x: Hyper, component: int, times: Callable[[Tensor, Tensor], Tensor]) -> Tensor | None:
    """Return a component of the product of ``x`` with itself, for symmetric ``times``; each pair is computed once."""
    if component == VALUE:
        return times(x[VALUE], x[VALUE])
    lower = {part: value for part, value in x.items() if part < component ^ part}
    half = product(lower, x, component, times)
    return None if half is None else half.mul_(2)


def compose(derivative: Callable[[int], Tensor], u: Hyper, component: int) -> Tensor | None:
    """Return a component (other than the value) of the elementwise ``f(u)``.

    ``derivative`` returns the derivative of f of order 1 or 2 at the value of u.
    """
    out = derivative(1) * u[component] if component in u else None
    if component == AB and A in u and B in u:
        second_order = derivative(2) * u[A] * u[B]
        out = second_order if out is None else out.add_(second_order)
    return out


def set_component(into: Hyper, component: int, value: Tensor | None) -> None:
    """Store a component, unless it is None and thus 0."""
    if value is not None:
        into[component] = value


class NormScale:
    """An operation that computes ``k = scale / sqrt(v + epsilon)`` for tensors of any shape, with its backward."""

    def __init__(self) -> None:
        self.k: Hyper = {}
        self._scale, self._v, self._r = Hyper(), Hyper(), Hyper()  # r = 1 / sqrt(v + epsilon)
        self._dk, self._dr, self._slope = Hyper(), Hyper(), Hyper()
        self._odd_powers: list[Tensor] = []

    def _derivative(self, order: int) -> Tensor:
        """Return the derivative of r of an order from 1 to 3 at the value of v."""
        if not self._odd_powers:
            self._odd_powers.append(self._r[VALUE])
        while len(self._odd_powers) <= order:
            self._odd_powers.append(self._odd_powers[-1] * self._r[VALUE] ** 2)
        return (-0.5, 0.75, -1.875)[order - 1] * self._odd_powers[order]

    def forward(self, component: int, v: Tensor | None, scale: Tensor | None) -> None:
        """Compute a component of :attr:`k`."""
        set_component(self._v, component, v)
        set_component(self._scale, component, scale)
        if component == VALUE:
            self._r[VALUE] = torch.rsqrt(self._v[VALUE] + BATCH_NORM_EPSILON)
            self._slope[VALUE] = self._derivative(1)
        else:
            set_component(self._r, component, compose(self._derivative, self._v, component))
            slope = compose(lambda order: self._derivative(order + 1), self._v, component)
            set_component(self._slope, component, slope)
        set_component(self.k, component, product(self._r, self._scale, component))

    def backward(self, component: int, dk: Tensor | None) -> tuple[Tensor | None, Tensor | None]:
        """Return a component of the derivatives with respect to scale and v."""
        set_component(self._dk, component, dk)
        set_component(self._dr, component, product(self._dk, self._scale, component))
        return product(self._dk, self._r, component), product(self._dr, self._slope, component)


class BatchNormalisation:
    """A batch normalisation ``(z - mean z) (v + epsilon)^(-1/2) scale + shift``, with its backward.

    v is the variance of z over the batch. Large tensors are ``(positions, channels)``. The normalised value is
    ``c k + shift``, where c is the centred z, so the nonlinear part only involves the small tensors of
    :class:`NormScale`.
    """

    def __init__(self) -> None:
        self._norm_scale = NormScale()
        self._c, self._dy, self._dshift, self._e = Hyper(), Hyper(), Hyper(), Hyper()

    def forward(self, component: int, z: Tensor | None, scale: Tensor | None, shift: Tensor | None) -> Tensor | None:
        """Return a component of the result; ``z`` is overwritten."""
        if z is not None:
            self._c[component] = z.sub_(z.mean(0))
        v = square(self._c, component, lambda x, y: (x * y).mean(0))
        self._norm_scale.forward(component, v, scale)
        out: Tensor | None = None
        for c, k in _factor_pairs(self._c, self._norm_scale.k, component):
            if out is None:
                out = c * k if shift is None else torch.addcmul(shift, c, k)
            else:
                out.addcmul_(c, k)
        if out is None and shift is not None:
            out = shift.expand(self._c[VALUE].shape).clone()
        return out

    def backward(self, component: int, dy: Tensor | None) -> tuple[Tensor | None, Tensor | None, Tensor | None]:
        """Return a component of the derivatives with respect to z, scale and shift; ``dy`` is stored."""
        positions = len(self._c[VALUE])
        if dy is not None:
            self._dy[component], self._dshift[component] = dy, dy.sum(0)
        dk = product(self._dy, self._c, component, lambda x, y: (x * y).sum(0))
        dscale, dv = self._norm_scale.backward(component, dk)
        set_component(self._e, component, None if dv is None else dv * (2 / positions))
        mean = product(self._norm_scale.k, self._dshift, component)  # of the result, times the number of positions
        k = self._norm_scale.k
        out: Tensor | None = None
        for big, small in (*_factor_pairs(self._dy, k, component), *_factor_pairs(self._c, self._e, component)):
            if out is None:
                out = big * small if mean is None else torch.addcmul(mean * (-1 / positions), big, small)
            else:
                out.addcmul_(big, small)
        return out, dscale, self._dshift.get(component)


def is_monotonic(activation: str) -> bool:
    """Return whether an activation is nondecreasing; it then commutes with max-pooling and is cheaper after it."""
    return activation != "gelu"


class ActivationAndPool:
    """An elementwise activation followed by pooling, with its backward; max-pooling comes first where that is cheaper.

    Tensors are ``(images, height, width, channels)``. The value determines the positions that max-pooling selects.
    """

    def __init__(self, activation: str, pool: int, *, mean: bool = False) -> None:
        self._name, self._side, self._mean = activation, pool, mean
        self._pool_first = is_monotonic(activation) and not mean
        self._u, self._slope, self._dout = Hyper(), Hyper(), Hyper()
        self._derivatives: dict[int, Tensor] = {}  # by order, the output itself being order 0

    def forward(self, component: int, y: Tensor | None) -> Tensor | None:
        """Return a component of the output."""
        if self._pool_first:
            return self._activate(component, self._pool(component, y))
        return self._pool(component, self._activate(component, y))

    def backward(self, component: int, dout: Tensor | None) -> Tensor | None:
        """Return a component of the derivative with respect to the input."""
        if self._pool_first:
            return self._unpool(self._by_activation(component, dout))
        return self._by_activation(component, self._unpool(dout))

    def _activate(self, component: int, u: Tensor | None) -> Tensor | None:
        set_component(self._u, component, u)
        if component == VALUE:
            self._derivatives[0] = ACTIVATIONS[self._name](self._u[VALUE])
            return self._derivatives[0]
        if self._name == "relu":
            return None if u is None else torch.ops.aten.threshold_backward(u, self._u[VALUE], 0)
        return compose(self._derivative, self._u, component)

    def _by_activation(self, component: int, dout: Tensor | None) -> Tensor | None:
        if self._name == "relu":
            return None if dout is None else torch.ops.aten.threshold_backward(dout, self._u[VALUE], 0)
        set_component(self._dout, component, dout)
        if component == VALUE:
            self._slope[VALUE] = self._derivative(1)
        else:
            slope = compose(lambda order: self._derivative(order + 1), self._u, component)
            set_component(self._slope, component, slope)
        return product(self._slope, self._dout, component)

    def _derivative(self, order: int) -> Tensor:
        """Return the derivative of the activation of an order from 1 to 3 at the value of its input."""
        if order not in self._derivatives:
            u, f = self._u[VALUE], self._derivatives[0]
            if self._name == "tanh":
                slope = 1 - f * f
                out = {1: lambda: slope, 2: lambda: -2 * f * slope, 3: lambda: (6 * f * f - 2) * slope}[order]()
            elif order == 1:
                out = torch.ops.aten.gelu_backward(torch.ones_like(u), u)
            else:
                density = torch.exp(u * u * -0.5).mul_((2 * torch.pi) ** -0.5)
                out = density.mul_(2 - u * u) if order == 2 else density.mul_((u * u - 4) * u)
            self._derivatives[order] = out
        return self._derivatives[order]

    def _pool(self, component: int, y: Tensor | None) -> Tensor | None:
        if y is None or self._side == 1:
            return y
        channels_first = y.permute(0, 3, 1, 2)
        if component == VALUE:
            self._input = channels_first
        if self._mean:
            return F.avg_pool2d(channels_first, self._side).permute(0, 2, 3, 1)
        if component == VALUE:
            top, self._index = F.max_pool2d(self._input, self._side, return_indices=True)
            self._positions = self._index.permute(0, 2, 3, 1)
            return top.permute(0, 2, 3, 1)
        images, height, width, channels = self._positions.shape
        out = y.reshape(images, -1, channels).gather(1, self._positions.reshape(images, -1, channels))
        return out.view(images, height, width, channels)

    def _unpool(self, dout: Tensor | None) -> Tensor | None:
        if dout is None or self._side == 1:
            return dout
        side, d = [self._side, self._side], dout.permute(0, 3, 1, 2)
        if self._mean:
            d = torch.ops.aten.avg_pool2d_backward(d, self._input, side, side, [0, 0], False, True, None)
        else:
            back = torch.ops.aten.max_pool2d_with_indices_backward
            d = back(d, self._input, side, side, [0, 0], [1, 1], False, self._index)
        return d.permute(0, 2, 3, 1)
