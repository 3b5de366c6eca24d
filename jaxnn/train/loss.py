"""The training loss of a network: the one place where the mean over examples is taken."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeAlias

import jax
import jax.numpy as jnp

from jaxnn import losses
from jaxnn.checks import as_arrays
from jaxnn.layers import Layer
from jaxnn.layers.sequences import require_array
from jaxnn.losses.mean import combined_weights, weighted_mean
from jaxnn.placement import compiler_sharded
from jaxnn.train.arguments import as_inputs, require_function, require_net, taking
from jaxnn.train.memo import memoized
from jaxnn.types import Array, Key, Loss, Params, PyTree, State

LossFunction: TypeAlias = Callable[..., tuple[Array, State]]
"""(params, state, x, y, *, key=None, weights=None) -> (value, state)."""


def mean_loss(net: Layer, loss: Loss, regularizer: Callable[[Params], Array] | None = None) -> LossFunction:
    """C(params) = sum_i w_i loss(net(x_i), y_i) / sum_i w_i + regularizer(params), in training mode.

    Without weights every w_i is 1: the mean over the batch. A loss that masks positions
    (`functools.partial(losses.softmax_cross_entropy, ignore_index=-1)`) weights each example by its number of unmasked
    positions, so that the value is the mean over all unmasked positions.

    Args:
        net: a network.
        loss: per-example loss, (outputs (N, ...), targets (N, ...)) -> (N,).
        regularizer: a function of the parameters, such as `losses.l2(1e-4)`; added to the mean.

    Returns:
        `loss_fn(params, state, x, y, *, key=None, weights=None, loss_scale=None) -> (value, state)`: value a scalar,
        state with updated running statistics; `weights` (N,) are the w_i, multiplied by those of a masking loss. If all
        are 0 the mean is 0. `loss_scale` multiplies the gradient, not the value; `precision` divides by it.
        Differentiate with `jax.value_and_grad(loss_fn, has_aux=True)`.

    Raises:
        TypeError: net is not a Layer, or loss or regularizer not a function.
        ValueError: the loss does not return one value per example, the shape of the weights does not match, or N = 0.

    Example:
        >>> import jax.numpy as jnp
        >>> from jaxnn import models
        >>> net = models.linear(3)
        >>> params, state = net.init(jax.random.key(0), (4,))
        >>> loss_fn = mean_loss(net, losses.softmax_cross_entropy)
        >>> vg = jax.jit(jax.value_and_grad(loss_fn, has_aux=True))
        >>> (value, state), grads = vg(params, state, jnp.ones((2, 4)), jnp.array([0, 2]))
        >>> grads[1]["w"].shape
        (4, 3)
    """

    require_net("mean_loss", net)
    require_function("mean_loss", "loss", loss, "losses.softmax_cross_entropy", optional=False)
    require_function("mean_loss", "regularizer", regularizer, "losses.l2(1e-4)")

    def value_and_state(
        params: Params, state: State, x: PyTree, y: PyTree, key: Key | None, weights: Array | None, scale: Array | None
    ) -> tuple[Array, State]:
        with taking("mean_loss", "x", x):
            outputs, state = net.apply(params, state, x, key=key, train=True)
        require_array("mean_loss", outputs)
        value = weighted_mean(loss(outputs, y), combined_weights(losses.example_weights(loss, y), weights))
        value = value if regularizer is None else value + regularizer(params).astype(value.dtype)
        return value if scale is None else _with_cotangent_scaled(value, scale), state

    def loss_fn(
        params: Params,
        state: State,
        x: PyTree,
        y: PyTree,
        *,
        key: Key | None = None,
        weights: Array | None = None,
        loss_scale: Array | None = None,
    ) -> tuple[Array, State]:
        x, y = as_inputs("mean_loss", "x", x), as_arrays("mean_loss", "y", y)
        # On Explicit axes the product of a batch with sharded weights, or indexing by a label, is ambiguous.
        return compiler_sharded(value_and_state, (None, state), params, state, x, y, key, weights, loss_scale)

    return loss_fn


@jax.custom_vjp
def _with_cotangent_scaled(value: Array, scale: Array) -> Array:
    """The value, whose cotangent is multiplied by the scale: the gradients of half precision that follow it are."""
    return value


def _forward(value: Array, scale: Array) -> tuple[Array, Array]:
    return value, scale


def _backward(scale: Array, cotangent: Array) -> tuple[Array, Array]:
    return cotangent * scale.astype(cotangent.dtype), jnp.zeros_like(scale)


_with_cotangent_scaled.defvjp(_forward, _backward)


@memoized
def default_value_and_grad(net: Layer, loss: Loss, regularizer: Callable[[Params], Array] | None) -> Any:
    """`jax.value_and_grad(mean_loss(net, loss, regularizer), has_aux=True)`: one function for equal arguments."""
    return jax.value_and_grad(mean_loss(net, loss, regularizer), has_aux=True)
