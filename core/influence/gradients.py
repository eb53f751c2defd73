"""Variants of a model whose gradients an estimator uses."""

from __future__ import annotations

from dataclasses import replace

from core.influence.settings import Estimator
from core.maml.adaptation import Implicit
from core.maml.objective import Bilevel
from core.runtime.errors import UserError


def training_model(model: Bilevel, estimator: Estimator) -> Bilevel:
    """Return the model whose gradients and curvature the training tasks are scored with."""
    return configure_gradient(model, estimator.gradient, estimator.inner)


def target_model(model: Bilevel, estimator: Estimator) -> Bilevel:
    """Return the model whose gradient is that of the target's loss."""
    return configure_gradient(model, estimator.evaluation, estimator.inner)


def configure_gradient(model: Bilevel, gradient: str, inner: str = "cg") -> Bilevel:
    """Return the model with ``total`` or ``direct`` gradients, and with this inverse of the inner Hessian.

    Raises:
        UserError: EK-FAC is requested, but there is no inner Hessian to invert.
    """
    if inner != "cg":
        if not isinstance(model.adaptation, Implicit):
            raise UserError(
                "EK-FAC inverts the inner Hessian, but this model adapts by gradient steps, which have none.",
                "Use --inner cg, or train with --algorithm imaml.",
            )
        model = replace(model, adaptation=replace(model.adaptation, inverse=inner))
    return replace(model, first_order=True) if gradient == "direct" else model
