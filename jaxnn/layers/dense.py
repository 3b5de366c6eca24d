"""The fully connected layer, y = x w + b.

Texts that write z = W a + b for a column a have W = w', (out, in); here rows are examples and w is (in, out).
"""

from __future__ import annotations

import jax
import jax.numpy as jnp

from jaxnn.checks import require_floating, require_positive_int
from jaxnn.initializers import Initializer, he_normal, zeros
from jaxnn.layers.base import Kind, Layer, param, param_dtype, stateless
from jaxnn.ops.matmul import linear
from jaxnn.types import Array, DTypeLike, Key, Params

KIND = Kind("dense")


def init(
    key: Key,
    in_features: int,
    out_features: int,
    *,
    w_init: Initializer = he_normal,
    b_init: Initializer | None = zeros,
    dtype: DTypeLike = jnp.float32,
) -> Params:
    """Parameters {"w": (D_in, D_out), "b": (D_out,)}; without "b" if `b_init` is None.

    Args:
        in_features, out_features: D_in and D_out.
        w_init, b_init: initializers; the default w ~ N(0, 2 / D_in) (He et al. 2015, for ReLU), b = 0.
        dtype: of w and b.

    Example:
        >>> jax.tree.map(jnp.shape, init(jax.random.key(0), 784, 512))
        {'b': (512,), 'w': (784, 512)}
    """
    d_in = require_positive_int("dense", "in_features", in_features)
    d_out = require_positive_int("dense", "out_features", out_features)
    w_key, b_key = jax.random.split(key)
    params = {"w": w_init(w_key, (d_in, d_out), dtype)}
    return params if b_init is None else params | {"b": b_init(b_key, (d_out,), dtype)}


def apply(params: Params, x: Array) -> Array:
    """y = x w + b on the last axis.

    Args:
        params: {"w": (D_in, D_out)} and, optionally, "b" (D_out,).
        x: (..., D_in), floating.

    Returns:
        (..., D_out) in the promoted dtype of x and w.

    Example:
        >>> apply({"w": jnp.eye(2), "b": jnp.array([1.0, 0.0])}, jnp.array([[3.0, 4.0]]))
        Array([[4., 4.]], dtype=float32)
    """
    require_floating("dense", "x", x.dtype, "Convert it: x.astype(jnp.float32).")
    w = param("dense", params, "w")
    if x.ndim == 0 or x.shape[-1] != w.shape[0]:
        raise ValueError(
            f"dense: x must have {w.shape[0]} features on its last axis to match w {w.shape}, got x {x.shape}. "
            "Put Flatten in front for images, or initialise with the shape of one example of this x."
        )
    return linear(x, w, params.get("b"))


def Dense(features: int, *, w_init: Initializer = he_normal, b_init: Initializer | None = zeros) -> Layer:
    """A layer of `features` units on inputs (N, ..., D_in): y = x w + b on the last axis.

    Args:
        features: D_out.
        w_init, b_init: initializers of w and b, as in `init`; `b_init=None` omits the bias.

    Example:
        >>> params, state = Dense(10).init(jax.random.key(0), (784,))
        >>> params["w"].shape
        (784, 10)
    """
    features = require_positive_int("Dense", "features", features)

    def layer_init(key: Key, example: jax.ShapeDtypeStruct) -> Params:
        if not example.shape:
            raise ValueError("Dense: an example must have at least one axis, got shape (); use (1,) for one feature.")
        return init(key, example.shape[-1], features, w_init=w_init, b_init=b_init, dtype=param_dtype(example))

    return stateless(KIND, apply, layer_init, features=features, w_init=w_init, b_init=b_init)
