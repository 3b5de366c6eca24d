"""Shardings of statistics of a tape on a mesh with Explicit axes.

Sums over examples contract a sharded axis, for which an Explicit mesh requires an output sharding. A statistic declares
here what it returns; its inside is partitioned by the compiler, as on a mesh with Auto axes.
"""

from __future__ import annotations

import enum
import functools
from collections.abc import Callable
from typing import Any, ParamSpec, TypeVar

import jax
from jax.sharding import PartitionSpec

from jaxnn.placement import compiler_sharded, explicit_mesh, explicit_spec, rows_spec
from jaxnn.tape import Columns, Tape
from jaxnn.types import PyTree

P = ParamSpec("P")
R = TypeVar("R")


class Result(enum.Enum):
    """What a statistic returns: ROWS (N, ...), sharded as the examples; PARAMS, a pytree like `params`, sharded as they
    are; TOTAL, replicated."""

    ROWS = "rows"
    PARAMS = "params"
    TOTAL = "total"


ROWS, PARAMS, TOTAL = Result.ROWS, Result.PARAMS, Result.TOTAL


def specs(tape: Tape, results: PyTree) -> PyTree:
    """The `PartitionSpec`s of `results`, a `Result` or a pytree of them, for a tape."""

    def spec(kind: Result) -> PyTree:
        if kind is PARAMS:
            leaves = [explicit_spec(leaf) or PartitionSpec() for leaf in tape.leaves]
            return jax.tree.unflatten(tape.structure, leaves)
        return rows_spec(tape.losses) if kind is ROWS else PartitionSpec()

    return jax.tree.map(spec, results)


def returns(results: PyTree) -> Callable[[Callable[P, R]], Callable[P, R]]:
    """Decorator: declares what a statistic, whose first argument is a `Tape` or `Columns`, returns."""

    def decorated(statistic: Callable[P, R]) -> Callable[P, R]:
        @functools.wraps(statistic)
        def placed(*args: P.args, **kwargs: P.kwargs) -> R:
            first: Any = args[0] if args else kwargs.get("tape", kwargs.get("columns"))
            tape = first.tape if isinstance(first, Columns) else first
            if not isinstance(tape, Tape) or explicit_mesh((args, kwargs)) is None:
                return statistic(*args, **kwargs)

            def inside(given: Any) -> R:
                return statistic(*given[0], **given[1])

            return compiler_sharded(inside, specs(tape, results), (args, kwargs))

        return placed

    return decorated
