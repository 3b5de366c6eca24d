"""What the normalization layers share: mean, variance, the scale and shift of channels.

Variances are taken in two passes, mean((x - mean x)^2): mean(x^2) - mean(x)^2 cancels when the mean is large. All of it
runs in float32 (float64 for float64), whatever the dtype of x.
"""

from __future__ import annotations

from collections.abc import Sequence

import jax.numpy as jnp
from jax import lax

from jaxnn.checks import require_between, require_floating
from jaxnn.numerics import accumulate
from jaxnn.ops.matmul import add_bias
from jaxnn.types import Array, DType, Params, Scalar


def init_scale_and_shift(where: str, features: int, dtype: DType) -> Params:
    """Parameters that change nothing: {"scale": ones (C,), "shift": zeros (C,)}.

    Example:
        >>> init_scale_and_shift("layer_norm", 2, jnp.float32)["scale"]
        Array([1., 1.], dtype=float32)
    """
    require_floating(where, "dtype", dtype, "Parameters are floating.")
    return {"scale": jnp.ones((features,), dtype), "shift": jnp.zeros((features,), dtype)}


def mean_and_variance(x: Array, axes: Sequence[int]) -> tuple[Array, Array]:
    """Mean and biased variance (divided by n) over some axes, which are kept with size 1; in the accumulation dtype.

    Example:
        >>> mean, variance = mean_and_variance(jnp.array([[1.0, 3.0]]), (1,))
        >>> float(mean[0, 0]), float(variance[0, 0])
        (2.0, 1.0)
    """
    x = accumulate(x)
    mean = jnp.mean(x, tuple(axes), keepdims=True)
    return mean, jnp.mean(jnp.square(x - mean), tuple(axes), keepdims=True)


def standardize(x: Array, mean: Array, variance: Array, eps: Scalar) -> Array:
    """(x - mean) / sqrt(variance + eps): eps inside the root; in the accumulation dtype.

    Args:
        x: (..., C).
        mean, variance: of the rank of x, with size 1 on the axes they are shared over.
        eps: added to the variance.

    Example:
        >>> standardize(jnp.array([[1.0, 3.0]]), jnp.array([[2.0]]), jnp.array([[1.0]]), 0.0)
        Array([[-1.,  1.]], dtype=float32)
    """
    return (accumulate(x) - mean) * lax.rsqrt(variance + jnp.asarray(eps, variance.dtype))


def scale_and_shift(x: Array, params: Params) -> Array:
    """x scale + shift, channel by channel on the last axis; in the accumulation dtype. Without "shift", x scale.

    Example:
        >>> scale_and_shift(jnp.ones((1, 2)), {"scale": jnp.array([2.0, 3.0]), "shift": jnp.array([0.0, 1.0])})
        Array([[2., 4.]], dtype=float32)
    """
    x = accumulate(x)
    y = x * lax.broadcast_in_dim(params["scale"].astype(x.dtype), x.shape, (x.ndim - 1,))
    return add_bias(y, params["shift"]) if "shift" in params else y


def require_channels(where: str, x: Array, params: Params, *, minimum_rank: int = 2) -> None:
    """Raise unless x is floating and (N, ..., C), with the C of the parameters.

    Example:
        >>> require_channels("layer_norm", jnp.ones((2, 3)), {"scale": jnp.ones(4)})
        Traceback (most recent call last):
        ValueError: layer_norm: x must be (N, ..., 4) to meet scale (4,), got x (2, 3). ...
    """
    require_floating(where, "x", x.dtype, "Convert it: x.astype(jnp.float32).")
    scale = params["scale"]
    if x.ndim < minimum_rank or x.shape[-1] != scale.shape[0]:
        axes = "N, ..." if minimum_rank == 2 else "N, *spatial"
        raise ValueError(
            f"{where}: x must be ({axes}, {scale.shape[0]}) to meet scale {scale.shape}, got x {x.shape}. "
            "Add the missing batch axis (x[None]), or initialise with the shape of one example of this x."
        )


def require_eps(where: str, eps: Scalar) -> None:
    """Raise ValueError unless 0 <= eps < infinity; a traced eps passes.

    Example:
        >>> require_eps("layer_norm", -1.0)
        Traceback (most recent call last):
        ValueError: layer_norm: eps must lie in [0, inf), got -1.
    """
    require_between(where, "eps", eps, 0.0, float("inf"), open_high=True)


def example_channels(where: str, shape: Sequence[int]) -> int:
    """The channels C of one example (..., C); an error where it has no axis.

    Example:
        >>> example_channels("layer_norm", (28, 28, 3))
        3
    """
    if not shape:
        raise ValueError(f"{where}: an example must have at least one axis, got shape (); use (1,) for one feature.")
    return shape[-1]
