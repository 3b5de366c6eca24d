"""Layer normalization: each position of each example standardized over its features."""

from __future__ import annotations

import jax
import jax.numpy as jnp

from jaxnn.checks import require_positive_int
from jaxnn.layers.base import Kind, Layer, param_dtype, stateless
from jaxnn.layers.moments import (
    example_channels,
    init_scale_and_shift,
    mean_and_variance,
    require_channels,
    require_eps,
    scale_and_shift,
    standardize,
)
from jaxnn.types import Array, DTypeLike, Key, Params, Scalar

KIND = Kind("layer_norm")


def init(features: int, *, dtype: DTypeLike = jnp.float32) -> Params:
    """Parameters {"scale": ones (D,), "shift": zeros (D,)}; deterministic, so without a key.

    Example:
        >>> init(2)["scale"]
        Array([1., 1.], dtype=float32)
    """
    return init_scale_and_shift("layer_norm", require_positive_int("layer_norm", "features", features), dtype)


def apply(params: Params, x: Array, *, eps: Scalar = 1e-5) -> Array:
    """y = scale (x - mean) / sqrt(var + eps) + shift, mean and (biased) var over the last axis.

    Args:
        params: {"scale": (D,), "shift": (D,)}.
        x: (N, ..., D), floating.
        eps: added to the variance, inside the root.

    Returns:
        (N, ..., D) in the dtype of x; statistics in float32 (float64 for float64). With eps > 0 a constant
        row gives `shift`, up to the rounding of its mean.

    Reference: Ba, J. L., Kiros, J. R. & Hinton, G. E. (2016). Layer normalization, equations 3 and 4 (which have no
        eps).

    Example:
        >>> apply(init(2), jnp.array([[1.0, 3.0]]), eps=0.0)
        Array([[-1.,  1.]], dtype=float32)
    """
    require_channels("layer_norm", x, params)
    mean, variance = mean_and_variance(x, (x.ndim - 1,))
    return scale_and_shift(standardize(x, mean, variance, eps), params).astype(x.dtype)


def LayerNorm(*, eps: Scalar = 1e-5) -> Layer:
    """Layer normalization over the last axis of inputs (N, ..., D); eps is added to the variance, inside the root.

    Example:
        >>> params, state = LayerNorm().init(jax.random.key(0), (5, 8))
        >>> params["scale"].shape
        (8,)
    """
    require_eps("layer_norm", eps)

    def layer_init(key: Key, example: jax.ShapeDtypeStruct) -> Params:
        return init(example_channels("layer_norm", example.shape), dtype=param_dtype(example))

    def layer_apply(params: Params, x: Array) -> Array:
        return apply(params, x, eps=eps)

    return stateless(KIND, layer_apply, layer_init, eps=eps)
