"""Batch normalization: each channel standardized over the batch and all positions."""

from __future__ import annotations

import math
from collections.abc import Mapping
from types import MappingProxyType

import jax
import jax.numpy as jnp
from jax import lax

from jaxnn.checks import require_between, require_positive_int
from jaxnn.layers.base import Kind, Layer, param_dtype
from jaxnn.layers.moments import (
    example_channels,
    init_scale_and_shift,
    mean_and_variance,
    require_channels,
    require_eps,
    scale_and_shift,
    standardize,
)
from jaxnn.numerics import accumulation_dtype
from jaxnn.types import Array, DTypeLike, Key, Params, Scalar, State

KIND = Kind("batch_norm")


def init(features: int, *, dtype: DTypeLike = jnp.float32) -> Params:
    """Parameters {"scale": ones (C,), "shift": zeros (C,)}; deterministic, so without a key.

    Example:
        >>> init(2)["shift"]
        Array([0., 0.], dtype=float32)
    """
    return init_scale_and_shift("batch_norm", require_positive_int("batch_norm", "features", features), dtype)


def init_state(features: int, *, dtype: DTypeLike = jnp.float32) -> State:
    """Running statistics {"mean": zeros (C,), "var": ones (C,)}, float32, or float64 for float64 parameters.

    Example:
        >>> init_state(2, dtype=jnp.bfloat16)["var"]
        Array([1., 1.], dtype=float32)
    """
    wide = accumulation_dtype(dtype)
    return {"mean": jnp.zeros((features,), wide), "var": jnp.ones((features,), wide)}


def apply(
    params: Params, state: State, x: Array, *, train: bool, momentum: Scalar = 0.9, eps: Scalar = 1e-5
) -> tuple[Array, State]:
    """y = scale (x - mean) / sqrt(var + eps) + shift, eps inside the root.

    In training mode, mean and var are those of this batch over all axes but the last, var the biased variance of the n
    values of a channel. The running statistics are moving averages,

        running <- momentum running + (1 - momentum) batch,

    with the unbiased batch variance, var n / (n - 1). In evaluation mode the running statistics are used
    instead, and are not updated.

    Args:
        params: {"scale": (C,), "shift": (C,)}.
        state: {"mean": (C,), "var": (C,)}.
        x: (N, ..., C), floating.
        train: whether to use the statistics of this batch, and to update the running ones; static.
        momentum: the fraction of the running statistics that is KEPT, as in flax. PyTorch's `momentum` is the
            fraction replaced: 0.1 there is 0.9 here. PyTorch also records the unbiased variance; flax the biased one.
        eps: added to the variance, inside the root.

    Returns:
        (N, ..., C) in the dtype of x, and the state; statistics in float32 (float64 for float64).

    Raises:
        ValueError: training with fewer than two values per channel; a state without mean and var; x of other channels.

    Reference: Ioffe, S. & Szegedy, C. (2015). Batch normalization: accelerating deep network training by reducing
        internal covariate shift, algorithms 1 and 2 (running averages in place of the averages over batches of
        algorithm 2).

    Example:
        >>> y, state = apply(init(1), init_state(1), jnp.array([[1.0], [3.0]]), train=True, momentum=0.5, eps=0.0)
        >>> y.ravel(), state["mean"]
        (Array([-1.,  1.], dtype=float32), Array([1.], dtype=float32))
    """
    require_channels("batch_norm", x, params)
    if not isinstance(state, Mapping) or not {"mean", "var"} <= set(state):
        raise ValueError(
            f"batch_norm: state must be a dict with 'mean' and 'var', as init makes it, got {state!r:.40}. "
            "init returns the pair (params, state), and so does apply: pass the state on."
        )
    if train:
        n = math.prod(x.shape[:-1])
        _require_two("batch_norm", n, x)
        mean, variance = mean_and_variance(x, range(x.ndim - 1))
        recorded = {"mean": mean.ravel(), "var": variance.ravel() * (n / (n - 1))}
        state = {name: _follow(state[name], recorded[name], momentum) for name in ("mean", "var")}
    else:
        wide = accumulation_dtype(x.dtype)
        shape = (1,) * (x.ndim - 1) + (-1,)
        mean, variance = state["mean"].astype(wide).reshape(shape), state["var"].astype(wide).reshape(shape)
    return scale_and_shift(standardize(x, mean, variance, eps), params).astype(x.dtype), state


def BatchNorm(*, momentum: Scalar = 0.9, eps: Scalar = 1e-5) -> Layer:
    """Batch normalization on inputs (N, ..., C); its running statistics are the layer's state.

    Args:
        momentum: fraction in [0, 1] of the running statistics kept per training step (PyTorch's is 1 minus this).
        eps: added to the variance, inside the root.

    Example:
        >>> params, state = BatchNorm().init(jax.random.key(0), (28, 28, 3))
        >>> state["var"]
        Array([1., 1., 1.], dtype=float32)
    """
    require_between("batch_norm", "momentum", momentum, 0.0, 1.0)
    require_eps("batch_norm", eps)

    def layer_init(key: Key, one: jax.ShapeDtypeStruct) -> tuple[Params, State]:
        features, dtype = example_channels("batch_norm", one.shape), param_dtype(one)
        return init(features, dtype=dtype), init_state(features, dtype=dtype)

    def layer_apply(
        params: Params, state: State, x: Array, *, key: Key | None = None, train: bool = False
    ) -> tuple[Array, State]:
        return apply(params, state, x, train=train, momentum=momentum, eps=eps)

    return Layer(layer_init, layer_apply, KIND, MappingProxyType({"momentum": momentum, "eps": eps}))


def _follow(running: Array, batch: Array, momentum: Scalar) -> Array:
    """momentum running + (1 - momentum) batch, in the dtype of `running`; no gradient flows to `batch`."""
    keep = jnp.asarray(momentum, running.dtype)
    return keep * running + (1 - keep) * lax.stop_gradient(batch).astype(running.dtype)


def _require_two(where: str, n: int, x: Array) -> None:
    """Raise if the variance of n values is undefined or 0."""
    if n < 2:
        raise ValueError(
            f"{where}: training needs at least two values for each channel, got {n} (x {x.shape}). "
            "Use a larger batch, drop the last partial batch, use GroupNorm or LayerNorm, or evaluate with train=False."
        )
