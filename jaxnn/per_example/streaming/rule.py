"""The rule of an operation with a parameter: its gradient and the statistics, from the whole batch at once.

The operation z = f(w, x) of one example becomes a `jax.custom_vjp`. Its backward rule returns the cotangent of x by
JAX's own rule; the gradient of w, summed over examples, and what the statistics ask for it computes from (x, delta) of
ALL examples. The statistics are the cotangents of zeros that the operation takes beside w: JAX adds them up along with
the gradients, through `scan` and `checkpoint`, and nothing is stored.
"""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Callable, Hashable, Sequence
from typing import Any, NamedTuple, TypeVar

import jax
import jax.numpy as jnp
from jax.custom_batching import custom_vmap
from jax.extend.core import Literal
from jax.sharding import PartitionSpec

from jaxnn.numerics import Precision
from jaxnn.per_example.recording.concatenating import ParamPart
from jaxnn.per_example.recording.reading import Site
from jaxnn.per_example.recording.rule import evaluated
from jaxnn.per_example.streaming.dense import TOTAL
from jaxnn.per_example.streaming.statistic import Gradients, Part, Statistic, value_of
from jaxnn.placement import compiler_sharded, explicit_spec, foreign_mesh, rows_spec, spec_of
from jaxnn.tape import Use
from jaxnn.types import Array, DType, PyTree

Tree = TypeVar("Tree")
Slot = tuple[int, Hashable]
"""The number of a statistic, and one of its slots."""


class Asked(NamedTuple):
    """What a backward pass computes.

    Attributes:
        statistics: the statistics.
        parts: for each parameter the parts that it contributes, by number of the statistic.
        numbers: the numbers of the parts of sites, by (`id` of the site, index of the part).
        dtype: that of values of examples.
        gradient: whether the gradient of the parameters; if not, what the rule returns for it is for derivatives of the
            whole pass alone, and the compiler drops it.
        precision: of the products that form sums over examples alone.
        clips: for parameters whose gradients are scaled by a function of their own norm, this function of (its arrays,
            norms (N,)).
    """

    statistics: tuple[Statistic, ...]
    parts: tuple[dict[int, Part], ...]
    numbers: dict[tuple[int, int], int]
    dtype: DType
    gradient: bool
    precision: Precision
    clips: dict[int, Callable[[PyTree, Array], Array]]

    @property
    def needs(self) -> frozenset[str]:
        """The moments that are needed together."""
        own = {TOTAL} if self.gradient else set[str]()
        return frozenset(own).union(*(statistic.needs for statistic in self.statistics))


class Local(NamedTuple):
    """What a site has of one parameter: arrays of its shape, or in a loop of that of the slice.

    Attributes:
        base: the parameter or slice.
        sums: zeros, by number of the statistic, whose cotangents are the sums over examples.
        like: the arrays `like` of the `Part`, by number of the statistic.
        shared: the arrays `shared` of the `Part`, by number of the statistic.
        number: the number of the slice.
        bound: the arrays of its function in `Asked.clips`.
    """

    base: Array
    sums: dict[int, Array]
    like: dict[int, PyTree]
    shared: dict[int, PyTree]
    number: Array
    bound: PyTree = ()


class Row(NamedTuple):
    """What a site has of its example: a number that depends on it; zeros, by slot, whose cotangents are the values of
    the statistics; factors of the gradients, by parameter, for those that have one."""

    mark: Array
    zeros: dict[Slot, Array]
    factors: dict[int, Array]


def at_site(site: Site, asked: Asked, operands: Sequence[Any], locals_: tuple[Local, ...], row: Row) -> Array:
    """The result of a site for one example; its derivative computes the statistics."""
    equation, at = site.equation, site.at
    literals = {i: v.val for i, v in enumerate(equation.invars) if isinstance(v, Literal)}
    others = {i: x for i, x in enumerate(operands) if i != at and i not in literals}
    real = [i for i, x in others.items() if jnp.issubdtype(jnp.result_type(x), jnp.inexact)]

    def all_operands(value: Array, others: dict[int, Array]) -> list[Any]:
        given = {at: value, **literals, **others}
        return [given[i] for i in range(len(given))]

    leaves = leaves_of(locals_)
    locals_, row = beside(operands[at], (locals_, row))
    places = places_of(locals_)
    # Of the parameter: a slice of it may have been cast ahead of its loop.
    dtypes = tuple({i: x.dtype for i, x in local.sums.items()} for local in locals_)

    # The value of the operand is a view of the bases. It is an argument so that nothing is rounded twice; its cotangent
    # is None, since that of the bases is the whole derivative.
    @jax.custom_vjp
    def operation(locals_: tuple[Local, ...], row: Row, value: Array, others: dict[int, Array]) -> Array:
        return of_each_example(evaluated(equation, all_operands(value, others))[0], row.mark)

    def forward(locals_: tuple[Local, ...], row: Row, value: Array, others: dict[int, Array]) -> Any:
        return operation(locals_, row, value, others), (followers_of(locals_), row.factors, value, others)

    def backward(kept: Any, delta: Array) -> Any:
        with mesh_of(delta):
            return derivatives(kept, delta)

    def derivatives(kept: Any, delta: Array) -> Any:
        followers, factors, value, others = kept

        def of_others(floating: dict[int, Array]) -> Array:
            return evaluated(equation, all_operands(value, {**others, **floating}))[0]

        (back,) = jax.vjp(of_others, {i: others[i] for i in real})[1](delta)
        seen = site.rule.seen(equation, at, all_operands(value, others))

        def of_batch(each: Any, followers: Any) -> Any:
            return _of_batch(site, asked, leaves, followers, *each)

        (grads, sums), zeros = from_all_examples(of_batch, (seen, delta, factors), followers, places)
        sums = [{i: x.astype(wide[i]) for i, x in each.items()} for each, wide in zip(sums, dtypes, strict=True)]
        none: Any = None  # for the arrays that have no derivative
        of_locals = tuple(Local(g, s, none, none, none, none) for g, s in zip(grads, sums, strict=True))
        return of_locals, Row(none, zeros, none), None, {i: back.get(i) for i in others}

    operation.defvjp(forward, backward)
    return operation(locals_, row_at(site, asked, row), operands[at], others)


def leaves_of(locals_: tuple[Local, ...]) -> tuple[jax.ShapeDtypeStruct, ...]:
    """The shapes and dtypes of the bases."""
    return tuple(jax.ShapeDtypeStruct(local.base.shape, local.base.dtype) for local in locals_)


def places_of(locals_: tuple[Local, ...]) -> tuple[list[Any], list[Any]]:
    """How gradients and sums are sharded: as the bases and their zeros."""
    sums = [(local.base, local.sums) for local in locals_]
    of_bases, of_sums = map(list, zip(*jax.tree.map(lambda x: explicit_spec(x) or PartitionSpec(), sums), strict=True))
    return of_bases, of_sums


def followers_of(locals_: tuple[Local, ...]) -> tuple[Any, ...]:
    """(like, shared, number, bound) of each: what the backward rule needs of it."""
    return tuple((local.like, local.shared, local.number, local.bound) for local in locals_)


def row_at(site: Site, asked: Asked, row: Row) -> Row:
    """What a site needs of its example."""
    parts = [(i, part) for each in site.parts for i, part in asked.parts[each.param.leaf].items()]
    slots = {(i, part.slot) for i, part in parts if part.shape is not None}
    leaves = {part.param.leaf for part in site.parts}
    return Row(
        row.mark,
        {slot: x for slot, x in row.zeros.items() if slot in slots},
        {i: x for i, x in row.factors.items() if i in leaves},
    )


def mesh_of(x: Any) -> contextlib.AbstractContextManager[Any]:
    """Sets the mesh that x is on if its axes have other types than those of the current one."""
    mesh = foreign_mesh(x, jax.sharding.get_abstract_mesh())
    return contextlib.nullcontext() if mesh is None else jax.sharding.use_abstract_mesh(mesh)


def beside(x: Any, tree: Tree) -> Tree:
    """The arrays of a pytree with types of the mesh that x is on."""

    def moved(leaf: Any) -> Any:
        if (mesh := foreign_mesh(x, jax.typeof(leaf).sharding.mesh)) is None:
            return leaf
        with jax.sharding.use_abstract_mesh(mesh):
            return jax.sharding.reshard(leaf, PartitionSpec())

    return jax.tree.map(moved, tree)


def of_each_example(x: Array, mark: Array) -> Array:
    """x, batched by `vmap` over the examples even where it does not depend on them, as positions looked up in a table:
    its cotangents must come one by one, not summed."""

    @custom_vmap
    def same(x: Array, mark: Array) -> Array:
        return x

    @same.def_vmap
    def _(size: int, batched: list[bool], x: Array, mark: Array) -> tuple[Array, bool]:
        if batched[0]:
            return x, True
        rows = jnp.broadcast_to(x, (size, *x.shape))
        if explicit_spec(mark) is None:
            return rows, True
        return jax.sharding.reshard(rows, spec_of(*rows_spec(mark), *jax.typeof(x).sharding.spec)), True

    return same(x, mark)


def from_all_examples(
    f: Callable[[PyTree, PyTree], tuple[PyTree, PyTree]], each: PyTree, shared: PyTree, places: PyTree
) -> Any:
    """f(arrays (N, ...), shared) -> (sums over examples, arrays (N, ...)), from inside a `vmap` over the examples.

    The sums come back as not batched: JAX then takes them as they are for the cotangents of arrays that all examples
    share. Under `vmap` alone the value of each example would be materialized, a' delta of shape (N, D, P), and summed.
    On a mesh with Explicit axes the compiler shards what is inside; `places` says how the sums are sharded.
    """

    def placed(each: PyTree, shared: PyTree) -> tuple[PyTree, PyTree]:
        rows = next((rows_spec(x) for x in jax.tree.leaves(each) if explicit_spec(x)), PartitionSpec())
        return compiler_sharded(f, (places, rows), each, shared)

    @custom_vmap
    def of_one(each: PyTree, shared: PyTree) -> tuple[PyTree, PyTree]:
        sums, rows = placed(jax.tree.map(lambda x: x[None], each), shared)
        return sums, jax.tree.map(lambda x: x[0], rows)

    @of_one.def_vmap
    def _(size: int, batched: list[Any], each: PyTree, shared: PyTree) -> tuple[Any, Any]:
        def row(x: Array, there: bool) -> Array:
            return x if there else jnp.broadcast_to(x, (size, *x.shape))

        sums, rows = placed(jax.tree.map(row, each, batched[0]), shared)
        return (sums, rows), (jax.tree.map(lambda _: False, sums), jax.tree.map(lambda _: True, rows))

    return of_one(each, shared)


def _of_batch(
    site: Site,
    asked: Asked,
    leaves: tuple[jax.ShapeDtypeStruct, ...],
    followers: tuple[Any, ...],
    seen: PyTree,
    delta: Array,
    factors: dict[int, Array],
) -> tuple[tuple[list[Array], list[dict[int, Array]]], dict[Slot, Array]]:
    """((gradients of the bases, sums over examples of each), values of the statistics (N, ...)) of a site."""
    grads, sums, rows = [], [], dict[Slot, Array]()
    for place, (part, leaf, follower) in enumerate(zip(site.parts, leaves, followers, strict=True)):
        like, shared, of_slice, bound = follower
        i, outer = part.param.leaf, part.param.outer
        clip = functools.partial(asked.clips[i], bound) if i in asked.clips else factors.get(i)

        numbers, examples = (asked.numbers[id(site), place], of_slice), delta.shape[0]
        use = _use(site, part, seen, delta, outer)
        whole = Gradients((use,), leaf, examples, numbers, clip, asked.needs, asked.precision)
        found = dict[int, Array]()
        for k, wanted in asked.parts[i].items():
            value = value_of(asked.statistics[k], whole, wanted._replace(like=like[k], shared=shared[k]))
            if wanted.shape is None:
                found[k] = value
            else:
                slot, value = (k, wanted.slot), value.astype(asked.dtype)
                rows[slot] = rows[slot] + value if slot in rows else value
        sums.append(found)
        # The derivative with respect to the base, whatever is asked for: of sums with factors, and of statistics alone,
        # it is what differentiates the whole pass again. A constant factor ahead of a loop over slices is not in it:
        # JAX applies that.
        if not asked.gradient or outer != 1:
            use = _use(site, part, seen, delta, 1.0)
            whole = Gradients((use,), leaf, examples, numbers, None, frozenset({TOTAL}), None)
        grads.append(whole.total)
    return (grads, sums), rows


def _use(site: Site, part: ParamPart, seen: PyTree, delta: Array, outer: float) -> Use:
    """The use of a part's base, its gradient times `outer`."""
    error, scale = part.of_result(delta), part.param.scale * outer
    if scale != 1:
        error = error * jnp.asarray(scale, error.dtype)
    return site.rule.use(site.equation, site.at, part.param, part.of_seen(seen), error)
