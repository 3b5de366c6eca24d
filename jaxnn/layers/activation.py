"""Activation functions as layers, without parameters."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

from jaxnn import activations
from jaxnn.checks import require_floating
from jaxnn.layers.base import Kind, Layer, stateless
from jaxnn.types import Array, Params

KIND = Kind("activation")


def Activation(function: Callable[..., Array], **settings: Any) -> Layer:
    """a = function(z, **settings), shape kept.

    Args:
        function: a function of one array, from `jaxnn.activations` or your own.
        settings: its keyword arguments, e.g. `negative_slope=0.2`.

    Example:
        >>> import jax.numpy as jnp
        >>> Activation(activations.leaky_relu, negative_slope=0.5).predict((), (), jnp.array([[-2.0, 2.0]]))
        Array([[-1., 2.]], dtype=float32)
    """
    if not callable(function):
        raise TypeError(f"Activation: expected a function such as jaxnn.activations.relu, got {function!r}.")
    bound = partial(function, **settings) if settings else function

    def apply(params: Params, z: Array) -> Array:
        require_floating("activation", "z", z.dtype, "Convert it: z.astype(jnp.float32).")
        return bound(z)

    return stateless(KIND, apply, function=function, **settings)


Identity = Activation(activations.linear)
HardTanh = Activation(activations.hard_tanh)
Sigmoid = Activation(activations.sigmoid)
Tanh = Activation(activations.tanh)
Relu = Activation(activations.relu)
ReluSquared = Activation(activations.relu_squared)
LeakyRelu = Activation(activations.leaky_relu)
Elu = Activation(activations.elu)
Selu = Activation(activations.selu)
Softplus = Activation(activations.softplus)
Gelu = Activation(activations.gelu)
Silu = Activation(activations.silu)
Mish = Activation(activations.mish)
Softmax = Activation(activations.softmax)
LogSoftmax = Activation(activations.log_softmax)
