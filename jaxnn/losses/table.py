"""The derivative of each loss, by function."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from types import MappingProxyType

import jax
import jax.numpy as jnp

from jaxnn.losses import binary, density, divergence, margin, regression, softmax
from jaxnn.types import Array, Loss

DERIVATIVES: Mapping[Callable[..., Array], Callable[..., Array]] = MappingProxyType(
    {
        binary.binary_cross_entropy: binary.binary_cross_entropy_grad,
        binary.sigmoid_binary_cross_entropy: binary.sigmoid_binary_cross_entropy_grad,
        density.gaussian_nll: density.gaussian_nll_grad,
        density.mixture_density_nll: density.mixture_density_nll_grad,
        divergence.cross_entropy: divergence.cross_entropy_grad,
        divergence.kl_divergence: divergence.kl_divergence_grad,
        margin.hinge: margin.hinge_grad,
        margin.logistic: margin.logistic_grad,
        margin.multiclass_hinge: margin.multiclass_hinge_grad,
        margin.perceptron_loss: margin.perceptron_loss_grad,
        margin.square_loss: margin.square_loss_grad,
        regression.absolute_error: regression.absolute_error_grad,
        regression.cosine_distance: regression.cosine_distance_grad,
        regression.euclidean_error: regression.euclidean_error_grad,
        regression.half_squared_error: regression.half_squared_error_grad,
        regression.huber: regression.huber_grad,
        regression.log_cosh: regression.log_cosh_grad,
        regression.mse: regression.mse_grad,
        regression.sum_squared_error: regression.sum_squared_error_grad,
        softmax.softmax_cross_entropy: softmax.softmax_cross_entropy_grad,
    }
)
"""From each loss to its derivative, which takes the same arguments and settings."""


def derivative_of(loss: Loss) -> Callable[[Array, Array], Array]:
    """The derivative of each example's loss with respect to its outputs, as a function of (outputs, targets).

    Settings bound by `functools.partial` apply. A loss without a `_grad` is differentiated by `jax.vjp`.

    Example:
        >>> from jaxnn.losses import huber
        >>> derivative_of(functools.partial(huber, delta=0.5))(jnp.array([[3.0]]), jnp.array([[0.0]]))
        Array([[0.5]], dtype=float32)
    """
    if isinstance(loss, functools.partial) and not loss.args:
        return functools.partial(derivative_of(loss.func), **loss.keywords)
    if loss in DERIVATIVES:
        return DERIVATIVES[loss]

    def by_vjp(outputs: Array, targets: Array, **settings: object) -> Array:
        each, pull = jax.vjp(lambda y: loss(y, targets, **settings), outputs)
        return pull(jnp.ones_like(each))[0]

    return by_vjp
