"""Type aliases of the whole library. Floor 0."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TypeAlias

import jax

from jaxnn import missing

Array: TypeAlias = jax.Array
"""A JAX array, traced or concrete."""

ArrayLike: TypeAlias = Any
"""What `jnp.asarray` takes: a JAX array, a NumPy array or a number."""

Key: TypeAlias = jax.Array
"""A typed random key, as `jax.random.key(seed)` makes it."""

PyTree: TypeAlias = Any
"""Nested dicts, lists, tuples and None with arrays as leaves."""

Params: TypeAlias = PyTree
"""The trained values of a layer or network: nested dicts and tuples of float arrays."""

State: TypeAlias = PyTree
"""Running statistics of a network, not trained by gradients; `()` if it has none."""

Shape: TypeAlias = tuple[int, ...]
"""The sizes of an array's axes."""

DType: TypeAlias = Any
"""What `jnp.dtype` takes: `jnp.float32`, `"bfloat16"`, ..."""

Scalar: TypeAlias = Any
"""A real number: a Python float or an array of shape (), possibly traced."""

ScalarOrSchedule: TypeAlias = Any
"""A real number, or a function from the step count (0, 1, 2, ...) to one."""

Loss: TypeAlias = Callable[[Array, Array], Array]
"""(outputs (N, ...), targets (N, ...)) -> per-example losses (N,)."""

if not TYPE_CHECKING:  # type checkers know the names
    __getattr__ = missing.suggest(__name__)
