"""Group normalization: each example standardized over its positions and one group of channels at a time."""

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

KIND = Kind("group_norm")


def init(features: int, *, dtype: DTypeLike = jnp.float32) -> Params:
    """Parameters {"scale": ones (C,), "shift": zeros (C,)}; deterministic, so without a key.

    Example:
        >>> init(2)["scale"]
        Array([1., 1.], dtype=float32)
    """
    return init_scale_and_shift("group_norm", require_positive_int("group_norm", "features", features), dtype)


def apply(params: Params, x: Array, *, groups: int, eps: Scalar = 1e-5) -> Array:
    """y = scale (x - mean) / sqrt(var + eps) + shift, mean and var over all positions and a group's channels.

    Args:
        params: {"scale": (C,), "shift": (C,)}.
        x: (N, *spatial, C), floating; group g holds channels [g C/groups, (g + 1) C/groups).
        groups: number of groups, a divisor of C; 1 normalizes all channels together, C each one (instance norm).
        eps: added to the variance, inside the root.

    Returns:
        (N, *spatial, C) in the dtype of x; statistics in float32 (float64 for float64), the variance biased.

    Reference: Wu, Y. & He, K. (2018). Group normalization, equations 1, 2, 6 and 7.

    Example:
        >>> apply(init(4), jnp.array([[1.0, 3.0, 0.0, 8.0]]), groups=2, eps=0.0)
        Array([[-1.,  1., -1.,  1.]], dtype=float32)
    """
    require_channels("group_norm", x, params)
    _require_divides(groups, x.shape[-1])
    grouped = x.reshape(*x.shape[:-1], groups, x.shape[-1] // groups)
    mean, variance = mean_and_variance(grouped, (*range(1, x.ndim - 1), x.ndim))
    y = standardize(grouped, mean, variance, eps).reshape(x.shape)
    return scale_and_shift(y, params).astype(x.dtype)


def GroupNorm(groups: int, *, eps: Scalar = 1e-5) -> Layer:
    """Group normalization on inputs (N, *spatial, C), C a multiple of `groups`; eps is inside the root.

    Example:
        >>> params, state = GroupNorm(4).init(jax.random.key(0), (28, 28, 16))
        >>> params["scale"].shape
        (16,)
    """
    groups = require_positive_int("group_norm", "groups", groups)
    require_eps("group_norm", eps)

    def layer_init(key: Key, example: jax.ShapeDtypeStruct) -> Params:
        features = example_channels("group_norm", example.shape)
        _require_divides(groups, features)
        return init(features, dtype=param_dtype(example))

    def layer_apply(params: Params, x: Array) -> Array:
        return apply(params, x, groups=groups, eps=eps)

    return stateless(KIND, layer_apply, layer_init, groups=groups, eps=eps)


def _require_divides(groups: int, features: int) -> None:
    """Raise unless `groups` divides the channels."""
    if require_positive_int("group_norm", "groups", groups) > features or features % groups:
        raise ValueError(
            f"group_norm: groups must divide the channels, got groups={groups} and {features} channels. "
            "Use a divisor; 1 normalizes all channels together."
        )
