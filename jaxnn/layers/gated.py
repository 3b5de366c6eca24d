"""Gated dense layers: a dense layer multiplied by the activation of another."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from jaxnn import activations
from jaxnn.checks import require_floating, require_positive_int
from jaxnn.initializers import Initializer, lecun_normal
from jaxnn.layers.base import Kind, Layer, param, param_dtype, stateless
from jaxnn.numerics import accumulate
from jaxnn.ops.matmul import linear
from jaxnn.types import Array, DTypeLike, Key, Params

KIND = Kind("gated_dense")


def init(
    key: Key,
    in_features: int,
    out_features: int,
    *,
    w_init: Initializer = lecun_normal,
    b_init: Initializer | None = None,
    dtype: DTypeLike = jnp.float32,
) -> Params:
    """Parameters {"w": (D_in, D_out), "v": (D_in, D_out)}, with "b", "c" (D_out,) unless `b_init` is None.

    Example:
        >>> jax.tree.map(jnp.shape, init(jax.random.key(0), 3, 4))
        {'v': (3, 4), 'w': (3, 4)}
    """
    d_in = require_positive_int("gated_dense", "in_features", in_features)
    d_out = require_positive_int("gated_dense", "out_features", out_features)
    keys = jax.random.split(key, 4)
    params = {name: w_init(k, (d_in, d_out), dtype) for name, k in zip("wv", keys[:2], strict=True)}
    if b_init is not None:
        params |= {name: b_init(k, (d_out,), dtype) for name, k in zip("bc", keys[2:], strict=True)}
    return params


def products(params: Params, x: Array) -> tuple[Array, Array]:
    """(z, u) = (x w + b, x v + c), (..., D_out) each.

    Example:
        >>> z, u = products({"w": jnp.eye(2), "v": 3 * jnp.eye(2)}, jnp.array([[2.0, -1.0]]))
        >>> u
        Array([[ 6., -3.]], dtype=float32)
    """
    require_floating("gated_dense", "x", x.dtype, "Convert it: x.astype(jnp.float32).")
    w = param("gated_dense", params, "w")
    if x.ndim == 0 or x.shape[-1] != w.shape[0]:
        raise ValueError(
            f"gated_dense: x must have {w.shape[0]} features on its last axis to match w {w.shape}, got x {x.shape}."
        )
    return linear(x, w, params.get("b")), linear(x, param("gated_dense", params, "v"), params.get("c"))


def apply(params: Params, x: Array, *, function: Callable[[Array], Array] = activations.silu) -> Array:
    """y = f(x w + b) * (x v + c), element-wise, on the last axis.

    SwiGLU for f = SiLU, GEGLU for GELU, ReGLU for ReLU, the gated linear unit for the sigmoid.

    Args:
        params: {"w": (D_in, D_out), "v": (D_in, D_out)} and, optionally, "b" and "c" (D_out,).
        x: (..., D_in), floating.
        function: f, element-wise.

    Returns:
        (..., D_out) in the promoted dtype of x and w.

    References:
        Dauphin, Y. N., Fan, A., Auli, M. & Grangier, D. (2017). Language modeling with gated convolutional networks.
        Shazeer, N. (2020). GLU variants improve transformer, equation 5.

    Example:
        >>> apply({"w": jnp.eye(2), "v": 3 * jnp.eye(2)}, jnp.array([[2.0, -1.0]]), function=activations.relu)
        Array([[12., -0.]], dtype=float32)
    """
    z, u = products(params, x)
    return (accumulate(function(z)) * accumulate(u)).astype(z.dtype)


def GatedDense(
    features: int,
    function: Callable[[Array], Array] = activations.silu,
    *,
    w_init: Initializer = lecun_normal,
    b_init: Initializer | None = None,
) -> Layer:
    """A gated layer of `features` units on inputs (N, ..., D_in), y = f(x w) * (x v); followed by `Dense`, a gated MLP.

    Args:
        features: D_out.
        function: f, by default SiLU (SwiGLU); `activations.gelu` makes GEGLU.
        w_init, b_init: as in `init`.

    Example:
        >>> params, state = GatedDense(8).init(jax.random.key(0), (3,))
        >>> params["v"].shape
        (3, 8)
    """
    features = require_positive_int("GatedDense", "features", features)
    if not callable(function):
        raise TypeError(f"GatedDense: expected a function such as jaxnn.activations.silu, got {function!r}.")

    def layer_init(key: Key, example: Any) -> Params:
        if not example.shape:
            raise ValueError("GatedDense: an example must have at least one axis, got shape ().")
        return init(key, example.shape[-1], features, w_init=w_init, b_init=b_init, dtype=param_dtype(example))

    def layer_apply(params: Params, x: Array) -> Array:
        return apply(params, x, function=function)

    return stateless(KIND, layer_apply, layer_init, features=features, gate=function, w_init=w_init, b_init=b_init)
