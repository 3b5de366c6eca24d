"""Root-mean-square normalization: each position of each example divided by the RMS of its features."""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jax import lax

from jaxnn.checks import require_floating, require_positive_int
from jaxnn.layers.base import Kind, Layer, param_dtype, stateless
from jaxnn.layers.moments import example_channels, require_channels, require_eps, scale_and_shift
from jaxnn.numerics import accumulate
from jaxnn.types import Array, DTypeLike, Key, Params, Scalar

KIND = Kind("rms_norm")


def init(features: int, *, dtype: DTypeLike = jnp.float32) -> Params:
    """Parameters {"scale": ones (D,)}; deterministic, so without a key.

    Example:
        >>> init(2)["scale"]
        Array([1., 1.], dtype=float32)
    """
    require_floating("rms_norm", "dtype", dtype, "Parameters are floating.")
    return {"scale": jnp.ones((require_positive_int("rms_norm", "features", features),), dtype)}


def apply(params: Params, x: Array, *, eps: Scalar = 1e-5) -> Array:
    """y = scale x / sqrt(mean(x^2) + eps), the mean over the last axis.

    Args:
        params: {"scale": (D,)}.
        x: (N, ..., D), floating.
        eps: added to the mean square, inside the root; with eps > 0 a row of zeros stays zero.

    Returns:
        (N, ..., D) in the dtype of x; the mean square in float32 (float64 for float64).

    Reference: Zhang, B. & Sennrich, R. (2019). Root mean square layer normalization, equation 4 (which has no eps).

    Example:
        >>> apply(init(2), jnp.array([[3.0, -3.0]]), eps=0.0)
        Array([[ 1., -1.]], dtype=float32)
    """
    require_channels("rms_norm", x, params)
    wide = accumulate(x)
    mean_square = jnp.mean(jnp.square(wide), -1, keepdims=True)
    y = wide * lax.rsqrt(mean_square + jnp.asarray(eps, wide.dtype))
    return scale_and_shift(y, params).astype(x.dtype)


def RMSNorm(*, eps: Scalar = 1e-5) -> Layer:
    """RMS normalization over the last axis of inputs (N, ..., D); eps is added to the mean square, inside the root.

    Example:
        >>> params, state = RMSNorm().init(jax.random.key(0), (8,))
        >>> list(params)
        ['scale']
    """
    require_eps("rms_norm", eps)

    def layer_init(key: Key, example: jax.ShapeDtypeStruct) -> Params:
        return init(example_channels("rms_norm", example.shape), dtype=param_dtype(example))

    def layer_apply(params: Params, x: Array) -> Array:
        return apply(params, x, eps=eps)

    return stateless(KIND, layer_apply, layer_init, eps=eps)
