"""Dropout: in training mode, a random subset of the inputs is set to zero."""

from __future__ import annotations

from types import MappingProxyType

import jax
import jax.numpy as jnp

from jaxnn.checks import require_between, require_floating, require_key, require_same_shape
from jaxnn.layers.base import Example, Kind, Layer
from jaxnn.numerics import accumulate
from jaxnn.types import Array, Key, Params, Scalar, Shape, State

KIND = Kind("dropout")


def mask(key: Key, shape: Shape, rate: Scalar) -> Array:
    """The mask of kept elements: independent bools, True with probability 1 - rate.

    Args:
        key: typed random key.
        shape: of the mask.
        rate: the fraction DROPPED, in [0, 1); may be traced, and is then not checked.

    Example:
        >>> mask(jax.random.key(0), (1000,), 0.5).mean().round(1)
        Array(0.5, dtype=float32)
    """
    require_between("dropout", "rate", rate, 0.0, 1.0, open_high=True)
    require_key("dropout", key)
    return jax.random.bernoulli(key, 1 - rate, shape)


def apply_mask(x: Array, kept: Array, rate: Scalar) -> Array:
    """y = x / (1 - rate) where kept, else 0: linear in x and self-adjoint, so it also maps cotangents.

    Args:
        x: (...), floating: the input, or a cotangent of the output.
        kept: bools of the same shape, from `mask`.
        rate: of the mask.

    Example:
        >>> apply_mask(jnp.array([1.0, 1.0]), jnp.array([True, False]), 0.5)
        Array([2., 0.], dtype=float32)
    """
    require_same_shape("dropout", x=x, mask=kept)
    wide = accumulate(x)
    return jnp.where(kept, wide / (1 - jnp.asarray(rate, wide.dtype)), jnp.zeros((), wide.dtype)).astype(x.dtype)


def apply(x: Array, *, key: Key, rate: Scalar) -> Array:
    """y = x m / (1 - rate), m ~ Bernoulli(1 - rate) element-wise: E[y] = x ("inverted" dropout).

    The division is in training, so that evaluation is the identity (the paper multiplies the weights by 1 - rate in
    evaluation instead).

    Args:
        x: (...), floating.
        key: typed random key, a new one per step.
        rate: the fraction DROPPED, in [0, 1), as in flax and PyTorch; may be traced, and is then not checked.

    Returns:
        (...) in the dtype of x.

    Raises:
        TypeError: x is not floating, or key is not a typed key.
        ValueError: rate lies outside [0, 1), or key is None or an array of keys.

    Reference: Srivastava, N., Hinton, G., Krizhevsky, A., Sutskever, I. & Salakhutdinov, R. (2014). Dropout: a simple
        way to prevent neural networks from overfitting, sections 4 and 10.

    Example:
        >>> y = apply(jnp.ones(4), key=jax.random.key(0), rate=0.5)
        >>> set(y.tolist()) <= {0.0, 2.0}
        True
    """
    require_floating("dropout", "x", x.dtype, "Convert it: x.astype(jnp.float32).")
    return apply_mask(x, mask(key, x.shape, rate), rate)


def Dropout(rate: Scalar) -> Layer:
    """Dropout of a fraction `rate` of the inputs (N, ...) in training mode; the identity in evaluation mode.

    Args:
        rate: the fraction DROPPED, in [0, 1).

    Example:
        >>> Dropout(0.5).predict((), (), jnp.ones(2))
        Array([1., 1.], dtype=float32)
    """
    require_between("dropout", "rate", rate, 0.0, 1.0, open_high=True)

    def layer_init(key: Key, example: Example) -> tuple[Params, State]:
        return (), ()

    def layer_apply(
        params: Params, state: State, x: Array, *, key: Key | None = None, train: bool = False
    ) -> tuple[Array, State]:
        if not train:
            return x, state
        require_key("dropout", key)
        return apply(x, key=key, rate=rate), state  # type: ignore[arg-type]

    return Layer(layer_init, layer_apply, KIND, MappingProxyType({"rate": rate}))
