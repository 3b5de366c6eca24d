"""Mean, variance, scale and shift, shared by the normalization layers.

Variances take two passes, mean((x - mean x)^2): mean(x^2) - mean(x)^2 cancels when the mean is large. All arithmetic is
float32 (float64 for float64), whatever the dtype of x.
"""

from __future__ import annotations

from collections.abc import Sequence

import jax.numpy as jnp
from jax import lax

from jaxnn.checks import require_between, require_floating
from jaxnn.numerics import accumulate
from jaxnn.ops.matmul import add_bias
from jaxnn.types import Array, DTypeLike, Params, Scalar


def init_scale_and_shift(where: str, features: int, dtype: DTypeLike) -> Params:
    """Parameters of the identity: {"scale": ones (C,), "shift": zeros (C,)}."""
    require_floating(where, "dtype", dtype, "Parameters are floating.")
    return {"scale": jnp.ones((features,), dtype), "shift": jnp.zeros((features,), dtype)}


def mean_and_variance(x: Array, axes: Sequence[int]) -> tuple[Array, Array]:
    """Mean and biased variance (divided by n) over some axes (keepdims), in the accumulation dtype."""
    x = accumulate(x)
    mean = jnp.mean(x, tuple(axes), keepdims=True)
    return mean, jnp.mean(jnp.square(x - mean), tuple(axes), keepdims=True)


def standardize(x: Array, mean: Array, variance: Array, eps: Scalar) -> Array:
    """(x - mean) / sqrt(variance + eps), accumulation dtype; with eps > 0 also defined at variance 0."""
    return (accumulate(x) - mean) * lax.rsqrt(variance + jnp.asarray(eps, variance.dtype))


def scale_and_shift(x: Array, params: Params) -> Array:
    """x scale + shift per channel (last axis), in the accumulation dtype; without "shift", x scale."""
    x = accumulate(x)
    y = x * lax.broadcast_in_dim(params["scale"].astype(x.dtype), x.shape, (x.ndim - 1,))
    return add_bias(y, params["shift"]) if "shift" in params else y


def require_channels(where: str, x: Array, params: Params, *, minimum_rank: int = 2) -> None:
    """Raise unless x is floating and (N, ..., C), with the C of the parameters."""
    require_floating(where, "x", x.dtype, "Convert it: x.astype(jnp.float32).")
    scale = params["scale"]
    if x.ndim < minimum_rank or x.shape[-1] != scale.shape[0]:
        axes = "N, ..." if minimum_rank == 2 else "N, *spatial"
        raise ValueError(
            f"{where}: x must be ({axes}, {scale.shape[0]}) to match scale {scale.shape}, got x {x.shape}. "
            "Add the missing batch axis (x[None]), or initialise with the shape of one example of this x."
        )


def require_eps(where: str, eps: Scalar) -> None:
    """Raise ValueError unless 0 <= eps < infinity; a traced eps passes."""
    require_between(where, "eps", eps, 0.0, float("inf"), open_high=True)


def example_channels(where: str, shape: Sequence[int]) -> int:
    """The channels C of one example (..., C); raises for shape ()."""
    if not shape:
        raise ValueError(f"{where}: an example must have at least one axis, got shape (); use (1,) for one feature.")
    return shape[-1]
