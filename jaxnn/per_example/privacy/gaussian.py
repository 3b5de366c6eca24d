"""The Gaussian mechanism: independent normal noise on every element of a pytree."""

from __future__ import annotations

import math

import jax
import jax.numpy as jnp

from jaxnn.checks import require_between, require_floating, require_key
from jaxnn.numerics import accumulate
from jaxnn.types import Array, Key, PyTree, Scalar


def add_gaussian_noise(key: Key, tree: PyTree, deviation: Scalar) -> PyTree:
    """x + deviation z for every array x, z standard normal and independent, from one subkey per array.

    Args:
        key: typed random key; secret, and used for nothing else.
        tree: a pytree of floating arrays, such as a sum of clipped gradients.
        deviation: standard deviation >= 0, the noise multiplier times the sensitivity of `tree`; may be traced.

    Returns:
        A pytree like `tree` in the accumulation dtype (float32, float64), so that noise is not rounded to half
        precision before the sum is divided.

    Raises:
        TypeError: a key that is not typed; arrays that are not floating.
        ValueError: deviation negative or infinite, if known; no key, or an array of keys.

    Reference: Dwork, C. & Roth, A. (2014). The algorithmic foundations of differential privacy, theorem 3.22 (the
        Gaussian mechanism).

    Example:
        >>> add_gaussian_noise(jax.random.key(0), {"w": jnp.ones(2, jnp.bfloat16)}, 0.0)
        {'w': Array([1., 1.], dtype=float32)}
    """
    require_key("add_gaussian_noise", key)
    require_between("add_gaussian_noise", "deviation", deviation, 0, math.inf, open_high=True)
    leaves, structure = jax.tree.flatten(tree)

    def noisy(key: Key, x: Array) -> Array:
        require_floating("add_gaussian_noise", "each array", jnp.result_type(x), "Its noise would be rounded away.")
        wide = accumulate(jnp.asarray(x))
        return wide + jnp.asarray(deviation, wide.dtype) * jax.random.normal(key, wide.shape, wide.dtype)

    keys = jax.random.split(key, len(leaves))
    return jax.tree.unflatten(structure, [noisy(keys[i], x) for i, x in enumerate(leaves)])
