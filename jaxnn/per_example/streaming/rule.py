"""The rule of an operation with a parameter: its gradient and the statistics, from the whole batch at once.

The operation z = f(w, x) of one example becomes a `jax.custom_vjp`. Its backward rule returns the cotangent of x by JAX's
own rule; the gradient of w, summed over examples, and what the statistics ask for it computes from (x, delta) of ALL
examples. The statistics are the cotangents of zeros that the operation takes beside w: JAX adds them up along with the
gradients, through `scan` and `checkpoint`, and nothing is stored.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.custom_batching import custom_vmap
from jax.extend.core import Literal

from jaxnn.per_example.recording.concatenating import ParamPart
from jaxnn.per_example.recording.reading import Site
from jaxnn.per_example.recording.rule import evaluated
from jaxnn.per_example.streaming.dense import TOTAL
from jaxnn.per_example.streaming.statistic import Gradients, Part, Statistic
from jaxnn.tape import Use
from jaxnn.types import Array, DType, PyTree

Slot = tuple[int, Hashable]
"""The number of a statistic, and one of its slots."""


class Asked(NamedTuple):
    """The statistics; for each parameter the parts that it contributes, by number of the statistic; the numbers of the
    parts of sites, by (`id` of the site, index of the part); the dtype of values of examples."""

    statistics: tuple[Statistic, ...]
    parts: tuple[dict[int, Part], ...]
    numbers: dict[tuple[int, int], int]
    dtype: DType

    @property
    def needs(self) -> frozenset[str]:
        """The moments that the statistics need together."""
        return frozenset().union(*(statistic.needs for statistic in self.statistics))


class Local(NamedTuple):
    """What a site has of one parameter: arrays of its shape, or in a loop of that of the slice.

    Attributes:
        base: the parameter or slice.
        sums: zeros, by number of the statistic, whose cotangents are the sums over examples.
        like: the arrays `like` of the `Part`, by number of the statistic.
        shared: the arrays `shared` of the `Part`, by number of the statistic.
        number: the number of the slice.
    """

    base: Array
    sums: dict[int, Array]
    like: dict[int, PyTree]
    shared: dict[int, PyTree]
    number: Array


class Row(NamedTuple):
    """What a site has of its example: a number that depends on it; zeros, by slot, whose cotangents are the values of
    the statistics; the factor of the parameters' gradients, or None."""

    mark: Array
    zeros: dict[Slot, Array]
    factor: Array | None


def at_site(site: Site, asked: Asked, operands: Sequence[Any], locals_: tuple[Local, ...], row: Row) -> Array:
    """The result of a site for one example; its derivative computes the statistics."""
    equation, at = site.equation, site.at
    literals = {i: v.val for i, v in enumerate(equation.invars) if isinstance(v, Literal)}
    others = {i: x for i, x in enumerate(operands) if i != at and i not in literals}
    real = [i for i, x in others.items() if jnp.issubdtype(jnp.result_type(x), jnp.inexact)]

    def all_operands(value: Array, others: dict[int, Array]) -> list[Any]:
        given = {at: value, **literals, **others}
        return [given[i] for i in range(len(given))]

    leaves = tuple(jax.ShapeDtypeStruct(local.base.shape, local.base.dtype) for local in locals_)
    # Of the parameter: a slice of it may have been cast ahead of its loop.
    dtypes = tuple({i: x.dtype for i, x in local.sums.items()} for local in locals_)

    # The value of the operand is a view of the bases. It is an argument so that nothing is rounded twice; its cotangent
    # is None, since that of the bases is the whole derivative.
    @jax.custom_vjp
    def operation(locals_: tuple[Local, ...], row: Row, value: Array, others: dict[int, Array]) -> Array:
        return of_each_example(evaluated(equation, all_operands(value, others))[0], row.mark)

    def forward(locals_: tuple[Local, ...], row: Row, value: Array, others: dict[int, Array]) -> Any:
        followers = tuple((local.like, local.shared, local.number) for local in locals_)
        return operation(locals_, row, value, others), (followers, row.factor, value, others)

    def backward(kept: Any, delta: Array) -> Any:
        followers, factor, value, others = kept

        def of_others(floating: dict[int, Array]) -> Array:
            return evaluated(equation, all_operands(value, {**others, **floating}))[0]

        (back,) = jax.vjp(of_others, {i: others[i] for i in real})[1](delta)
        seen = site.rule.seen(equation, at, all_operands(value, others))

        def of_batch(each: Any, followers: Any) -> Any:
            return _of_batch(site, asked, leaves, followers, *each)

        (grads, sums), zeros = from_all_examples(of_batch, (seen, delta, factor), followers)
        sums = [{i: x.astype(wide[i]) for i, x in each.items()} for each, wide in zip(sums, dtypes, strict=True)]
        of_locals = tuple(Local(g, s, None, None, None) for g, s in zip(grads, sums, strict=True))
        return of_locals, Row(None, zeros, None), None, {i: back.get(i) for i in others}

    operation.defvjp(forward, backward)
    slots = _slots(site, asked)
    mine = Row(row.mark, {slot: x for slot, x in row.zeros.items() if slot in slots}, row.factor)
    return operation(locals_, mine, operands[at], others)


def _slots(site: Site, asked: Asked) -> set[Slot]:
    parts = [(i, part) for each in site.parts for i, part in asked.parts[each.param.leaf].items()]
    return {(i, part.slot) for i, part in parts if part.shape is not None}


def of_each_example(x: Array, mark: Array) -> Array:
    """x, batched by `vmap` over the examples even where it does not depend on them, as positions looked up in a table:
    its cotangents must come one by one, not summed."""

    @custom_vmap
    def same(x: Array, mark: Array) -> Array:
        return x

    @same.def_vmap
    def _(size: int, batched: list[bool], x: Array, mark: Array) -> tuple[Array, bool]:
        return (x if batched[0] else jnp.broadcast_to(x, (size, *x.shape))), True

    return same(x, mark)


def from_all_examples(f: Callable[[PyTree, PyTree], tuple[PyTree, PyTree]], each: PyTree, shared: PyTree) -> Any:
    """f(arrays (N, ...), shared) -> (sums over examples, arrays (N, ...)), from inside a `vmap` over the examples.

    The sums come back as not batched: JAX then takes them as they are for the cotangents of arrays that all examples
    share. Under `vmap` alone the value of each example would be materialized, a' delta of shape (N, D, P), and summed.
    """

    @custom_vmap
    def of_one(each: PyTree, shared: PyTree) -> tuple[PyTree, PyTree]:
        sums, rows = f(jax.tree.map(lambda x: x[None], each), shared)
        return sums, jax.tree.map(lambda x: x[0], rows)

    @of_one.def_vmap
    def _(size: int, batched: list[Any], each: PyTree, shared: PyTree) -> tuple[Any, Any]:
        def row(x: Array, there: bool) -> Array:
            return x if there else jnp.broadcast_to(x, (size, *x.shape))

        sums, rows = f(jax.tree.map(row, each, batched[0]), shared)
        return (sums, rows), (jax.tree.map(lambda _: False, sums), jax.tree.map(lambda _: True, rows))

    return of_one(each, shared)


def _of_batch(
    site: Site,
    asked: Asked,
    leaves: tuple[jax.ShapeDtypeStruct, ...],
    followers: tuple[Any, ...],
    seen: PyTree,
    delta: Array,
    factors: Array | None,
) -> tuple[tuple[list[Array], list[dict[int, Array]]], dict[Slot, Array]]:
    """((gradients of the bases, sums over examples of each), values of the statistics (N, ...)) of a site."""
    grads, sums, rows = [], [], dict[Slot, Array]()
    for place, (part, leaf, (like, shared, of_slice)) in enumerate(zip(site.parts, leaves, followers, strict=True)):
        number = asked.numbers[id(site), place], of_slice

        def gradients(scale: float, wanted: frozenset[str], part: Any = part, leaf: Any = leaf, n: Any = number) -> Any:
            use = _use(site, part, seen, delta, scale)
            return Gradients((use,), leaf, delta.shape[0], n, factors, wanted)

        outer = part.param.outer
        # A constant factor ahead of a loop over slices is not in the gradient of the slice.
        of_base = gradients(1.0, asked.needs | {TOTAL} if outer == 1 else frozenset({TOTAL}))
        whole = of_base if outer == 1 else gradients(outer, asked.needs)
        found = dict[int, Array]()
        for i, wanted in asked.parts[part.param.leaf].items():
            value = asked.statistics[i].of_use(whole, wanted._replace(like=like[i], shared=shared[i]))
            if wanted.shape is None:
                found[i] = value.reshape(leaf.shape)
            else:
                slot, value = (i, wanted.slot), value.astype(asked.dtype)
                rows[slot] = rows[slot] + value if slot in rows else value
        sums.append(found)
        grads.append(of_base.total)
    return (grads, sums), rows


def _use(site: Site, part: ParamPart, seen: PyTree, delta: Array, outer: float) -> Use:
    """The use of a part's base, its gradient times `outer`."""
    error, scale = part.of_result(delta), part.param.scale * outer
    if scale != 1:
        error = error * jnp.asarray(scale, error.dtype)
    return site.rule.use(site.equation, site.at, part.param, part.of_seen(seen), error)
