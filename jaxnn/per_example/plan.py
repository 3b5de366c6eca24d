"""What finding the norms of a tape takes, parameter by parameter."""

from __future__ import annotations

import math
from typing import NamedTuple

import jax

from jaxnn.per_example import blocks
from jaxnn.per_example.forms import GRAM, PRODUCT, Pieces, Solid, Sparse, by_view, joined, strategy
from jaxnn.per_example.outer import Outer
from jaxnn.per_example.select import require_tape
from jaxnn.tape import Addition, Convolution, GroupedProduct, Scaling, Tape, Unplaced, Use, Whole
from jaxnn.types import Shape


class Row(NamedTuple):
    """One parameter: its path and shape, the kinds of its uses, the positions T at which one example used it, how its
    norms are found, and what that takes for the whole batch: floating-point operations and temporary bytes."""

    path: str
    shape: Shape
    uses: str
    positions: int
    strategy: str
    flops: int
    bytes: int


class Plan(tuple[Row, ...]):
    """The rows of a plan; printed, a table."""

    def __str__(self) -> str:
        heads = ("parameter", "shape", "uses", "T", "strategy", "FLOPs", "bytes")
        total = ("total", "", "", "", "", f"{sum(r.flops for r in self):,}", f"{max([0, *(r.bytes for r in self)]):,}")
        cells = [
            (r.path, str(r.shape), r.uses, f"{r.positions:,}", r.strategy, f"{r.flops:,}", f"{r.bytes:,}") for r in self
        ]
        widths = [max(len(line[i]) for line in [heads, total, *cells]) for i in range(len(heads))]
        rule = tuple("-" * width for width in widths)
        right = {3, 5, 6}
        return "\n".join(
            "  ".join(
                c.rjust(w) if i in right else c.ljust(w) for i, (c, w) in enumerate(zip(line, widths, strict=True))
            ).rstrip()
            for line in [heads, rule, *cells, rule, total]
        )


def plan(tape: Tape) -> Plan:
    """How the norms of a tape are found and what that takes; known from shapes, so that a traced tape or one of
    `jax.eval_shape` will do.

    | strategy | where | operations |
    |---|---|---|
    | norm product | T = 1 | 2 N (d + p) |
    | Gram | T (d + p) < d p | 2 N T^2 (d + p) |
    | materialise in chunks | else | 2 N T d p |
    | sum over positions | additions, scalings | N T D |
    | sum over equal indices | lookups | N T D |
    | as given | gradients on the tape; in brackets the operation of which there is no rule | 2 N P |
    | materialise | uses of different kinds | those of each use |

    A use "whole" is of a parameter without a rule: its gradients were formed one by one. "as given" without a reason is
    a parameter that the loss does not use, or a rule that gave the gradients themselves.

    d and p are the inputs and outputs of one channel group of a product or convolution (counted once for each group),
    T the positions of all uses. The bytes are of the largest temporary array; in the last line, the largest of all
    (parameters are done one after another), while operations are added.

    Args:
        tape: of N examples.

    Returns:
        `Plan`, a tuple of `Row`; `print(plan(tape))` shows the table.

    Example:
        >>> from jaxnn.per_example.sample import sample_tape
        >>> print(plan(sample_tape()))
        parameter  shape   uses      T  strategy            FLOPs  bytes
        ---------  ------  --------  -  ------------------  -----  -----
        ['b']      (1,)    addition  1  sum over positions      2      8
        ['w']      (2, 1)  product   1  norm product           12     24
        ---------  ------  --------  -  ------------------  -----  -----
        total                                                  14     24
    """
    require_tape("plan", tape)
    rows = zip(tape.paths, tape.leaves, tape.uses, strict=True)
    return Plan(_row(path, leaf, uses, tape.examples) for path, leaf, uses in rows)


def _row(path: str, leaf: jax.ShapeDtypeStruct, uses: tuple[Use, ...], n: int) -> Row:
    plain = [use for those in by_view(uses, leaf.shape).values() for use in those]
    kinds = ", ".join(_kind(use) for use in plain) or "none"
    times = sum(_positions(use) for use in plain)
    # Of shapes alone: where the arrays lie plays no part.
    shapes = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype), uses)
    form = jax.eval_shape(lambda u: joined(u, leaf, n), shapes)
    if not isinstance(form, Pieces):
        return Row(path, leaf.shape, kinds, times, *_cost(form, plain, n, leaf.size))
    pieces = zip(form.parts, by_view(uses, leaf.shape).items(), strict=True)
    costs = [_cost(part, those, n, math.prod(view.shape)) for part, (view, those) in pieces]
    ways = ", ".join(dict.fromkeys(way for way, _, _ in costs))
    return Row(path, leaf.shape, kinds, times, ways, sum(c[1] for c in costs), max(c[2] for c in costs))


def _kind(use: Unplaced) -> str:
    return "grouped product" if isinstance(use, GroupedProduct) else type(use).__name__.lower()


def _positions(use: Unplaced) -> int:
    """T of one use."""
    if isinstance(use, Whole):
        return 1
    return math.prod(use.delta.shape[1:-1]) if isinstance(use, Convolution) else use.delta.shape[1]


def _cost(form: Solid, uses: list[Unplaced], n: int, size: int) -> tuple[str, int, int]:
    """(strategy, operations, bytes)."""
    times = sum(_positions(use) for use in uses)
    if isinstance(form, Sparse):
        return (
            "sum over equal indices",
            n * times * form.values.shape[-1],
            form.values.size * form.values.dtype.itemsize,
        )
    if isinstance(form, Outer):
        return _outer_cost(form)
    wide = form.grads.dtype.itemsize
    if all(isinstance(use, Whole) for use in uses):
        reasons = ", ".join(dict.fromkeys(use.because for use in uses if isinstance(use, Whole) and use.because))
        held = n * size * wide if reasons else 0
        return f"as given ({reasons})" if reasons else "as given", 2 * n * size * len(uses), held
    if all(isinstance(use, Addition | Scaling) for use in uses):
        return "sum over positions", n * times * size, n * size * wide
    return "materialise", 2 * n * times * size, n * size * wide


def _outer_cost(form: Outer) -> tuple[str, int, int]:
    n, times, (groups, d, p) = form.examples, form.times, form.block
    chosen, wide = strategy(form), form.dtype.itemsize
    if chosen == PRODUCT:
        return chosen, 2 * n * groups * (d + p), n * groups * (d + p) * wide
    if chosen == GRAM:
        most = max(1, min(n, blocks.CHUNK_BYTES // max(2 * groups * times**2 * wide, 1)))
        return chosen, 2 * n * groups * times**2 * (d + p), 2 * most * groups * times**2 * wide
    return chosen, 2 * n * times * groups * d * p, blocks.examples_of_chunk(form) * groups * d * p * wide
