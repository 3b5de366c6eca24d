"""A few examples at a time: intermediate arrays of bounded size, which on a CPU stay in a core's own cache.

There an array of tens of MiB that is made, read once and dropped costs more than the arithmetic on it: fresh memory
comes from the operating system page by page. On an accelerator as much as memory allows is best.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

import jax
import jax.numpy as jnp
from jax import lax

from jaxnn.placement import filled_as
from jaxnn.types import Array, PyTree

CPU_BYTES = 2**20
"""How much the intermediate arrays of one step may take on a CPU: 1 MiB, half a core's cache."""

OTHER_BYTES = 2**28
"""The same on other platforms: 256 MiB."""

Tree = TypeVar("Tree", bound=PyTree)


def by_steps(form: Callable[[int], Callable[..., Tree]], bytes_each: int, *arrays: Array) -> Tree:
    """form(step)(*arrays): as many examples at a time as fill CPU_BYTES on a CPU, OTHER_BYTES elsewhere.

    Args:
        form: from a step, a divisor of N, to a function of the arrays.
        bytes_each: what the intermediate arrays of one example take.
        arrays: each (N, ...).

    Example:
        >>> by_steps(lambda step: lambda x: map_examples(jnp.sin, step, x), 4, jnp.zeros(3))
        Array([0., 0., 0.], dtype=float32)
    """
    n = arrays[0].shape[0]
    few, many = step_of(n, bytes_each, CPU_BYTES), step_of(n, bytes_each, OTHER_BYTES)
    if few == many:
        return form(few)(*arrays)
    return lax.platform_dependent(*arrays, cpu=form(few), default=form(many))


def step_of(n: int, bytes_each: int, most_bytes: int) -> int:
    """The most examples that divide N and fill no more than so many bytes, but at least one.

    Example:
        >>> step_of(128, 20, 1000), step_of(7, 20, 60), step_of(7, 1, 60)
        (32, 1, 7)
    """
    most = most_bytes // max(bytes_each, 1)
    return next((d for d in range(min(n, most), 0, -1) if n % d == 0), min(n, 1))


def map_examples(f: Callable[..., Tree], step: int, *arrays: Array) -> Tree:
    """f(*arrays), `step` examples at a time; what it returns has the axis of examples first.

    Example:
        >>> map_examples(lambda x: x.sum(1), 2, jnp.ones((4, 3)))
        Array([3., 3., 3., 3.], dtype=float32)
    """
    n = arrays[0].shape[0]
    if step == n:
        return f(*arrays)
    found = lax.map(lambda start: f(*_examples(start, step, arrays)), jnp.arange(0, n, step))
    return jax.tree.map(lambda y: y.reshape(n, *y.shape[2:]), found)


def sum_examples(f: Callable[..., Array], step: int, *arrays: Array) -> Array:
    """The sum of f(`step` examples of each array) over the steps.

    Example:
        >>> sum_examples(lambda x: x.sum(0), 2, jnp.ones((4, 3)))
        Array([4., 4., 4.], dtype=float32)
    """
    n = arrays[0].shape[0]
    if step == n:
        return f(*arrays)

    def add(total: Array, start: Array) -> tuple[Array, None]:
        return total + f(*_examples(start, step, arrays)), None

    first = jax.eval_shape(lambda: f(*_examples(jnp.int32(0), step, arrays)))
    return lax.scan(add, filled_as(first), jnp.arange(0, n, step))[0]


def _examples(start: Array, step: int, arrays: tuple[Array, ...]) -> list[Array]:
    return [lax.dynamic_slice_in_dim(a, start, step) for a in arrays]
