"""Matrix products and loops: one dense layer on a batch computed in three ways, and what each executes and reads.

All three make the same multiplications. One matrix product executes them as one operation and reads each number of the
weights once for the batch; a loop over examples reads the weights again for each; a loop over single multiplications
reads two numbers for each. Counts are read from the program (`count`); times are measured by `seconds`.
"""

from __future__ import annotations

import math
import statistics
import time
from collections.abc import Callable, Iterator, Mapping
from types import MappingProxyType
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

from jaxnn.checks import require_positive_int
from jaxnn.types import Array

MULTIPLYING = ("mul", "dot_general", "conv_general_dilated")
"""The primitives that `count` counts, where their result is floating."""


class Counts(NamedTuple):
    """What a program executes.

    Attributes:
        multiplications: of floating numbers.
        operations: executions of a multiplying primitive, one after the other.
        numbers: operands read by them, each operation anew.
    """

    multiplications: int
    operations: int
    numbers: int

    @property
    def per_multiplication(self) -> float:
        """Numbers read per multiplication; NaN for a program without any."""
        return self.numbers / self.multiplications if self.multiplications else math.nan


def by_scalars(x: Array, w: Array) -> Array:
    """x w, one multiplication at a time: loops over examples, outputs and inputs.

    Example:
        >>> by_scalars(jnp.ones((2, 3)), jnp.ones((3, 1)))
        Array([[3.],
               [3.]], dtype=float32)
    """

    def inner(row: Array, column: Array) -> Array:
        def body(total: Array, pair: tuple[Array, Array]) -> tuple[Array, None]:
            a, b = pair
            return total + a * b, None

        return lax.scan(body, jnp.zeros((), row.dtype), (row, column))[0]

    return lax.map(lambda row: lax.map(lambda column: inner(row, column), w.T), x)


def by_vectors(x: Array, w: Array) -> Array:
    """x w, one example at a time: a loop of products of a vector with the matrix.

    Example:
        >>> by_vectors(jnp.ones((2, 3)), jnp.ones((3, 1)))
        Array([[3.],
               [3.]], dtype=float32)
    """
    return lax.map(lambda row: row @ w, x)


def by_matrix(x: Array, w: Array) -> Array:
    """x w, as one product of matrices."""
    return x @ w


WAYS: Mapping[str, Callable[[Array, Array], Array]] = MappingProxyType(
    {"scalar by scalar": by_scalars, "vector by matrix": by_vectors, "matrix by matrix": by_matrix}
)
"""Three ways to compute x (N, D) times w (D, P)."""


def count(program: Callable[..., Any], *arguments: Any) -> Counts:
    """The multiplications of a program, the operations that make them and the numbers that these read.

    Read from the traced program, which is not run: a loop counts as often as it is executed; of the branches of a
    condition or of a choice by platform, the one with most multiplications counts.

    Args:
        program: a function of JAX arrays.
        arguments: arrays, or `jax.ShapeDtypeStruct` for their shapes.

    Raises:
        ValueError: a `while` loop, whose number of iterations the program does not tell.

    Example:
        >>> count(by_matrix, jnp.ones((5, 3)), jnp.ones((3, 2)))
        Counts(multiplications=30, operations=1, numbers=21)
    """
    return _count(jax.make_jaxpr(program)(*arguments).jaxpr)


def seconds(
    n: int = 128, d: int = 784, p: int = 128, *, repeats: int = 5, clock: Callable[[], float] = time.perf_counter
) -> dict[str, float]:
    """The median time of each of `WAYS` on this machine, compiled, x (n, d) and w (d, p) in float32.

    Args:
        n, d, p: examples, inputs and outputs. `by_scalars` takes about n d p times 10 ns.
        repeats: timings of each, interleaved.
        clock: returns seconds; a fake clock makes the result reproducible.

    Returns:
        Seconds by name.

    Reference: Dongarra, J. J., Du Croz, J., Hammarling, S. & Duff, I. S. (1990). A set of level 3 basic linear algebra
        subprograms.

    Example:
        >>> sorted(seconds(4, 3, 2, repeats=1)) == sorted(WAYS)
        True
    """
    repeats = require_positive_int("products.seconds", "repeats", repeats)
    sizes = [require_positive_int("products.seconds", name, size) for name, size in (("n", n), ("d", d), ("p", p))]
    keys = jax.random.split(jax.random.key(0))
    x, w = jax.random.normal(keys[0], (sizes[0], sizes[1])), jax.random.normal(keys[1], (sizes[1], sizes[2]))
    compiled = {name: jax.jit(way).lower(x, w).compile() for name, way in WAYS.items()}
    times: dict[str, list[float]] = {name: [] for name in WAYS}
    for repeat in range(repeats + 1):
        for name, way in compiled.items():
            began = clock()
            jax.block_until_ready(way(x, w))
            times[name] += [clock() - began] if repeat else []  # the first run warms up
    return {name: statistics.median(each) for name, each in times.items()}


def _count(jaxpr: Any) -> Counts:
    """The counts of a traced program."""
    counts = [_count_equation(equation) for equation in jaxpr.eqns]
    return Counts(*map(sum, zip(*counts, strict=True))) if counts else Counts(0, 0, 0)


def _count_equation(equation: Any) -> Counts:
    name, params = equation.primitive.name, equation.params
    if name == "while":
        raise ValueError(
            "products.count: the program has a while loop, whose number of iterations is known only when it runs. "
            "Write it as lax.scan, lax.map, or lax.fori_loop with Python ints."
        )
    if name == "cond":
        return max(_count(branch.jaxpr) for branch in params["branches"])
    if inner := list(_inner(params)):
        times = params["length"] if name == "scan" else 1
        return Counts(*(times * sum(values) for values in zip(*map(_count, inner), strict=True)))
    (out, *_), operands = [v.aval for v in equation.outvars], [v.aval for v in equation.invars]
    if name not in MULTIPLYING or not jnp.issubdtype(out.dtype, jnp.floating):
        return Counts(0, 0, 0)
    return Counts(_multiplications(name, params, out, operands), 1, sum(a.size for a in operands))


def _inner(params: Mapping[str, Any]) -> Iterator[Any]:
    """The programs inside an operation, such as a compiled function or the body of a loop."""
    for value in params.values():
        if hasattr(value, "eqns"):
            yield value
        elif hasattr(value, "jaxpr"):
            yield value.jaxpr


def _multiplications(name: str, params: Mapping[str, Any], out: Any, operands: list[Any]) -> int:
    """The multiplications of one operation."""
    if name == "dot_general":
        (contracted, _), _ = params["dimension_numbers"]
        return int(out.size * math.prod(operands[0].shape[axis] for axis in contracted))
    if name == "conv_general_dilated":
        kernel = operands[1]
        return int(out.size * kernel.size // kernel.shape[params["dimension_numbers"].rhs_spec[0]])
    return int(out.size)
