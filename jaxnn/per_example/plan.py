"""The cost of the norms of a tape, by parameter."""

from __future__ import annotations

import inspect
import math
from typing import Any, NamedTuple, Protocol

import jax
import jax.numpy as jnp

from jaxnn.per_example import blocks
from jaxnn.per_example.chunked import Chunked
from jaxnn.per_example.forms import GRAM, MATERIALISE, PRODUCT, Mixed, Pieces, Solid, by_view, joined, strategy
from jaxnn.per_example.outer import Outer
from jaxnn.per_example.select import require_tape
from jaxnn.per_example.sparse import Sparse
from jaxnn.per_example.tied import Tied, bytes_of_cross
from jaxnn.tape import Convolution, GroupedProduct, Scaling, SoftmaxProduct, Tape, Unplaced, Use, Whole
from jaxnn.types import PyTree, Shape


class Row(NamedTuple):
    """One parameter: its path and shape, the kinds of its uses, the positions T at which one example uses it, the
    strategy for its norms, and the cost for the whole batch: floating-point operations and temporary bytes."""

    path: str
    shape: Shape
    uses: str
    positions: int
    strategy: str
    flops: int
    bytes: int


class Plan(tuple[Row, ...]):
    """The rows of a plan; prints as a table, under the line `way` if there is one."""

    way: str = ""

    def __str__(self) -> str:
        heads = ("parameter", "shape", "uses", "T", "strategy", "FLOPs", "bytes")
        total = ("total", "", "", "", "", f"{sum(r.flops for r in self):,}", f"{max([0, *(r.bytes for r in self)]):,}")
        cells = [
            (r.path, str(r.shape), r.uses, f"{r.positions:,}", r.strategy, f"{r.flops:,}", f"{r.bytes:,}") for r in self
        ]
        widths = [max(len(line[i]) for line in [heads, total, *cells]) for i in range(len(heads))]
        rule = tuple("-" * width for width in widths)
        right = {3, 5, 6}
        return (f"{self.way}\n" if self.way else "") + "\n".join(
            "  ".join(
                c.rjust(w) if i in right else c.ljust(w) for i, (c, w) in enumerate(zip(line, widths, strict=True))
            ).rstrip()
            for line in [heads, rule, *cells, rule, total]
        )


class Planned(Protocol):
    """`record(loss)`, `value_and_grad(loss)` or `clipped_value_and_grad(loss, ...)`."""

    def plan(self, *args: Any) -> Plan:
        """The plan for these arguments."""


def plan(tape: Tape | Planned, *args: PyTree) -> Plan:
    """A table of how norms are computed, and their cost, for `print`; its rows are `Row`.

    `plan(tape)`, or `plan(record(loss), *args)`, is of the norms of a tape. `plan(vg, *args)` is of `vg =
    value_and_grad(loss)` or `clipped_value_and_grad(loss, ...)`: whether each parameter is streamed, taped or
    materialized, on the default backend; FLOPs are those of the norms besides the gradient, bytes those of one use,
    also where `vg` is asked for other statistics. The plan of a clipped sum says in its `way` which passes it makes,
    with the bytes of both. All follows from shapes: the tape may be traced, or of `jax.eval_shape`, and args may be
    `jax.ShapeDtypeStruct`.

    | strategy | where | operations |
    |---|---|---|
    | norm product | T = 1 | 2 N (d + p) |
    | Gram | T (d + p) < d p | 2 N T^2 (d + p + 1) |
    | materialize in chunks | else; uses of several kinds or of overlapping views | 2 N (T + 1) d p |
    | by chunks, and one of these | a softmax product | these + 2 N T d p, of the logits |
    | tied, and one of these | lookups (S positions) and products of one table | these + 2 N S T (p + 1) + 4 N S p |
    | sum over positions | additions; scalings | N (T + 1) D; N (2 T + 1) D |
    | sum over equal indices | lookups | 4 N T D |
    | as given | gradients on the tape; in brackets the operation without a rule | 2 N P |

    Operations are those that a compiler counts, selections among them; integer ones are left out. "tied, materialize in
    chunks" adds the lookups' rows to the products' gradients: these + 3 N S p.

    A use "whole" is that of a parameter that falls back to per-example differentiation. "as given" without brackets is
    a parameter that the loss does not use, or that of a rule which returns materialized gradients.

    d and p are the inputs and outputs of one channel group of a product or convolution (counted for each group; of a
    tied table its rows and columns), T the positions of all such uses, D the entries of one position, P those of the
    parameter. Bytes are those of the largest temporary array; the last line has the sum of the operations and the
    maximum of the bytes, since parameters are processed one after another.

    Example:
        >>> from jaxnn.per_example.sample import sample_tape
        >>> print(plan(sample_tape()))
        parameter  shape   uses      T  strategy            FLOPs  bytes
        ---------  ------  --------  -  ------------------  -----  -----
        ['b']      (1,)    addition  1  sum over positions      4      8
        ['w']      (2, 1)  product   1  norm product           12     24
        ---------  ------  --------  -  ------------------  -----  -----
        total                                                  16     24
    """
    if not isinstance(tape, Tape):
        if not callable(tape):
            require_tape("plan", tape)
        function: Any = tape
        found = inspect.unwrap(function)  # of jax.jit
        if not hasattr(found, "plan"):
            raise TypeError(
                "plan: expected a Tape, or value_and_grad(loss), clipped_value_and_grad(loss, C) or record(loss) and "
                f"its arguments, got {found!r:.60}."
            )
        made: Plan = found.plan(*args)
        return made
    if args:
        raise TypeError(
            f"plan: expected a tape alone, or value_and_grad(loss) and its arguments, got {len(args)} more."
        )
    rows = zip(tape.paths, tape.leaves, tape.uses, strict=True)
    return Plan(_row(path, leaf, uses, tape.examples) for path, leaf, uses in rows)


def _row(path: str, leaf: jax.ShapeDtypeStruct, uses: tuple[Use, ...], n: int) -> Row:
    plain = [use for those in by_view(uses, leaf.shape).values() for use in those]
    kinds = ", ".join(kind_of(use) for use in plain) or "none"
    times = sum(positions_of(use) for use in plain)
    # Shapes without shardings: these have no influence, and eval_shape would need their mesh.
    shapes = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype), uses)
    form = jax.eval_shape(lambda u: joined(u, leaf, n), shapes)
    if not isinstance(form, Pieces):
        return Row(path, leaf.shape, kinds, times, *cost_of(form, plain, n, leaf.size))
    pieces = zip(form.parts, by_view(uses, leaf.shape).items(), strict=True)
    costs = [cost_of(part, those, n, math.prod(view.shape)) for part, (view, those) in pieces]
    ways = ", ".join(dict.fromkeys(way for way, _, _ in costs))
    return Row(path, leaf.shape, kinds, times, ways, sum(c[1] for c in costs), max(c[2] for c in costs))


def kind_of(use: Unplaced) -> str:
    """The kind of a use, as the table names it."""
    names: dict[type, str] = {GroupedProduct: "grouped product", SoftmaxProduct: "softmax product"}
    return names.get(type(use), type(use).__name__.lower())


def positions_of(use: Unplaced) -> int:
    """T of one use."""
    if isinstance(use, Whole):
        return 1
    return math.prod(use.delta.shape[1:-1]) if isinstance(use, Convolution) else use.delta.shape[1]


def cost_of(form: Solid, uses: list[Unplaced], n: int, size: int) -> tuple[str, int, int]:
    """(strategy, operations, bytes)."""
    if isinstance(form, Sparse):
        return "sum over equal indices", _sparse_flops(form), form.values.size * form.values.dtype.itemsize
    if isinstance(form, Outer):
        return _outer_cost(form)
    if isinstance(form, Chunked):
        return _chunked_cost(form)
    if isinstance(form, Tied):
        return _tied_cost(form)
    if isinstance(form, Mixed):
        return MATERIALISE, _dense_flops(form) + 2 * n * size, _chunk_bytes(form)
    times, wide = sum(positions_of(use) for use in uses), form.grads.dtype.itemsize
    if all(isinstance(use, Whole) for use in uses):
        reasons = ", ".join(dict.fromkeys(use.because for use in uses if isinstance(use, Whole) and use.because))
        held = n * size * wide if reasons else 0
        return f"as given ({reasons})" if reasons else "as given", (len(uses) + 1) * n * size, held
    # T - 1 additions, a square and an addition for each entry, and the products of a scaling.
    terms = times + 1 + sum(positions_of(use) for use in uses if isinstance(use, Scaling))
    return "sum over positions", n * terms * size, n * size * wide


def _outer_cost(form: Outer) -> tuple[str, int, int]:
    n, times, (groups, d, p) = form.examples, form.times, form.block
    chosen, wide = strategy(form), form.dtype.itemsize
    if chosen == PRODUCT:
        return chosen, 2 * n * groups * (d + p), n * groups * (d + p) * wide
    if chosen == GRAM:
        held = blocks.examples_of_gram_chunk(form) * blocks.bytes_of_gram(form)
        return chosen, 2 * n * groups * times**2 * (d + p + 1), held
    return chosen, _dense_flops(form) + 2 * n * groups * d * p, _chunk_bytes(form)


def _chunked_cost(form: Chunked) -> tuple[str, int, int]:
    """Of all chunks, and of their logits and cotangents."""
    logits = form.use.logits
    part = jax.eval_shape(lambda form: form.at(jnp.int32(0)), form)
    chosen, flops, held = _outer_cost(part) if isinstance(part, Outer) else _tied_cost(part)
    positions = form.examples * form.times
    cotangents = positions * logits.size * form.dtype.itemsize
    return f"by chunks, {chosen}", logits.count * flops + 2 * positions * math.prod(form.use.shape), held + cotangents


def _tied_cost(form: Tied) -> tuple[str, int, int]:
    chosen, n, (_, d, p) = strategy(form), form.examples, form.outer.block
    if chosen == MATERIALISE:
        return f"tied, {chosen}", _dense_flops(form) + 2 * n * d * p, _chunk_bytes(form)
    _, flops, held = _outer_cost(form.outer)
    each = bytes_of_cross(form.sparse, form.outer)
    most = blocks.examples_of_chunk_of(n, each)
    flops += _sparse_flops(form.sparse) + 2 * n * form.outer.times * form.sparse.indices.shape[1] * (p + 1)
    return f"tied, {chosen}", flops, max(held, most * each)


def _sparse_flops(form: Sparse) -> int:
    """Masked, added at equal indices if there are several, squared, summed."""
    return (4 if form.indices.shape[1] > 1 else 3) * form.values.size


def _dense_flops(form: Solid) -> int:
    """Operations to materialize all gradients."""
    n = form.examples
    if isinstance(form, Outer):
        groups, d, p = form.block
        return 2 * n * form.times * groups * d * p
    if isinstance(form, Sparse):
        return _sparse_flops(form) - form.values.size
    if isinstance(form, Tied):
        return _dense_flops(form.outer) + _dense_flops(form.sparse)
    if isinstance(form, Mixed):
        sums = (len(form.parts) - 1) * n * math.prod(form.views[0].source)
        return sum(map(_dense_flops, form.parts)) + sums
    return 0


def _chunk_bytes(form: Outer | Tied | Mixed) -> int:
    return blocks.examples_of_chunk(form) * form.gradient_bytes
