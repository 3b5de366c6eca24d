"""Type aliases of the whole library."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, ClassVar, Protocol, TypeAlias

import jax
import numpy as np

from jaxnn import missing

Array: TypeAlias = jax.Array
"""A JAX array, traced or concrete."""

ArrayLike: TypeAlias = jax.typing.ArrayLike | list[Any] | tuple[Any, ...]
"""What `checks.as_array` takes: a JAX or NumPy array, a number, or nested lists of numbers."""

Key: TypeAlias = jax.Array
"""A typed random key, as `jax.random.key(seed)` makes it."""

PyTree: TypeAlias = Any
"""Arrays in nested dicts, lists, tuples and other registered containers; None is a pytree without leaves."""


class _Dataclass(Protocol):
    """A dataclass, an equinox module among them."""

    __dataclass_fields__: ClassVar[dict[str, Any]]


class _Unflattening(Protocol):
    """A class for `jax.tree_util.register_pytree_node_class`, or for its variant with keys."""

    @property
    def tree_unflatten(self) -> Any: ...


ArrayTree: TypeAlias = (
    Array | np.ndarray[Any, Any] | Mapping[Any, Any] | list[Any] | tuple[Any, ...] | _Dataclass | _Unflattening | None
)
"""A `PyTree` that type checkers check, at its top alone: a string, a number or a function is an error.

Python's types cannot say "anything but these", so what pytrees are is listed. A class registered from outside, by
`jax.tree_util.register_pytree_node`, is not in the list: annotate its instances as `Any`.
"""

Params: TypeAlias = PyTree
"""The trained values of a layer or network: nested dicts and tuples of float arrays."""

State: TypeAlias = PyTree
"""Running statistics of a network, not trained by gradients; `()` if it has none."""

Shape: TypeAlias = tuple[int, ...]
"""The sizes of an array's axes."""

DType: TypeAlias = np.dtype[Any]
"""The dtype of an array."""

DTypeLike: TypeAlias = jax.typing.DTypeLike
"""What `jnp.dtype` takes: `jnp.float32`, `"bfloat16"`, ..."""

Scalar: TypeAlias = float | np.floating[Any] | np.integer[Any] | np.ndarray[Any, Any] | Array
"""A real number: a Python int or float or an array of shape (), possibly traced."""

ScalarOrSchedule: TypeAlias = Scalar | Callable[[Any], jax.typing.ArrayLike]
"""A real number, or a function from the step count (0, 1, 2, ...) to one."""

Loss: TypeAlias = Callable[[Array, Array], Array]
"""(outputs (N, ...), targets (N, ...)) -> per-example losses (N,)."""

if not TYPE_CHECKING:  # type checkers know the names
    __getattr__ = missing.suggest(__name__)
