"""The derivative of each element-wise activation, by function."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType

from jaxnn.activations import gates, rectifiers, sigmoids, steps
from jaxnn.types import Array

DERIVATIVES: Mapping[Callable[..., Array], Callable[..., Array]] = MappingProxyType(
    {
        steps.sign: steps.sign_derivative,
        steps.perceptron_sign: steps.perceptron_sign_derivative,
        steps.heaviside: steps.heaviside_derivative,
        steps.linear: steps.linear_derivative,
        steps.piecewise_linear: steps.piecewise_linear_derivative,
        steps.hard_tanh: steps.hard_tanh_derivative,
        sigmoids.sigmoid: sigmoids.sigmoid_derivative,
        sigmoids.tanh: sigmoids.tanh_derivative,
        sigmoids.softplus: sigmoids.softplus_derivative,
        rectifiers.relu: rectifiers.relu_derivative,
        rectifiers.relu_squared: rectifiers.relu_squared_derivative,
        rectifiers.leaky_relu: rectifiers.leaky_relu_derivative,
        rectifiers.elu: rectifiers.elu_derivative,
        rectifiers.selu: rectifiers.selu_derivative,
        gates.gelu: gates.gelu_derivative,
        gates.gelu_tanh: gates.gelu_tanh_derivative,
        gates.silu: gates.silu_derivative,
        gates.mish: gates.mish_derivative,
    }
)
"""From each element-wise activation to its derivative, which takes the same z and settings."""


def derivative_of(activation: Callable[..., Array]) -> Callable[..., Array]:
    """The derivative of an element-wise activation, a function of the same z and settings.

    Args:
        activation: one of the keys of `DERIVATIVES`.

    Raises:
        ValueError: it has no derivative here; the message lists those that have one.

    Example:
        >>> import jax.numpy as jnp
        >>> from jaxnn.activations import leaky_relu
        >>> derivative_of(leaky_relu)(jnp.array([-1.0, 1.0]), negative_slope=0.5)
        Array([0.5, 1. ], dtype=float32)
    """
    if not callable(activation) or activation not in DERIVATIVES:
        known = ", ".join(f.__name__ for f in DERIVATIVES)
        got = getattr(activation, "__qualname__", None) or repr(activation)
        raise ValueError(
            f"derivative_of: no elementwise derivative for {got}. Known: {known}. softmax and log_softmax are vector "
            "functions: use softmax_vjp or log_softmax_vjp; for your own function use jax.vjp."
        )
    return DERIVATIVES[activation]
