"""The rule of an output layer in chunks: one loop over the classes for the gradients and all statistics.

Each chunk of the cotangents is formed once, from the log-sum-exps, for the cotangent of the inputs, the gradient of the
matrix and the statistics. To these a chunk is a slice of the matrix, as in a loop over slices of a stacked parameter:
what it contributes is added up.
"""

from __future__ import annotations

import dataclasses
import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.extend.core import Literal

from jaxnn.losses.logits import Logits, bias_grad, input_grad, log_sums, put, smoothing_grad
from jaxnn.per_example.recording.reading import Site
from jaxnn.per_example.recording.rule import evaluated, placed
from jaxnn.per_example.recording.softmax import A as INPUT
from jaxnn.per_example.recording.softmax import class_axis_of, operands_of, places_in, size_of_chunk
from jaxnn.per_example.streaming import rule
from jaxnn.per_example.streaming.dense import SQ_NORMS, TOTAL, weights_of
from jaxnn.per_example.streaming.rule import Asked, Local, Row, Slot, from_all_examples, of_each_example
from jaxnn.per_example.streaming.statistic import Gradients, value_of
from jaxnn.tape import Product, SoftmaxProduct
from jaxnn.types import Array, Shape


def at_softmax_product(site: Site, asked: Asked, operands: list[Any], local: Local, row: Row) -> Array:
    """The losses of the positions of one example; their derivative computes the statistics."""
    equation, at = site.equation, site.at
    literals = {i: v.val for i, v in enumerate(equation.invars) if isinstance(v, Literal)}
    given = {i: x for i, x in enumerate(operands) if i != at and i not in literals}
    class_axis, size = class_axis_of(equation) or 0, size_of_chunk(equation)
    (local,), row = rule.beside(operands[at], ((local,), row))
    (leaf,), places = rule.leaves_of((local,)), rule.places_of((local,))
    dtypes = {i: x.dtype for i, x in local.sums.items()}

    def all_operands(value: Array | None, given: dict[int, Array]) -> list[Any]:
        everything = {at: value, **literals, **given}
        return [everything[i] for i in range(len(everything))]

    @jax.custom_vjp
    def operation(local: Local, row: Row, value: Array, given: dict[int, Array]) -> Array:
        return of_each_example(evaluated(equation, all_operands(value, given))[0], row.mark)

    def forward(local: Local, row: Row, value: Array, given: dict[int, Array]) -> Any:
        def of_batch(each: Any, w: Array) -> tuple[tuple[()], tuple[Array, Array]]:
            mine = each[0]
            return (), log_sums(Logits(mine.a, w, mine.b, class_axis, size), mine.labels, mine.smoothing)

        mine = operands_of(equation, all_operands(None, given))
        with rule.mesh_of(value):
            each, sums = from_all_examples(of_batch, (mine, row.mark), value, ())[1]
        return each, (rule.followers_of((local,)), row.factors, value, given, sums)

    def backward(kept: Any, share: Array) -> Any:
        with rule.mesh_of(share):
            return derivatives(kept, share)

    def derivatives(kept: Any, share: Array) -> Any:
        followers, factors, value, given, sums = kept
        mine = operands_of(equation, all_operands(None, given))

        def of_batch(each: Any, shared: Any) -> Any:
            (a, _, labels, b, smoothing), sums, share, factors = each
            use = SoftmaxProduct(a, labels, sums, share, shared[0], b, smoothing, class_axis, size)
            return _of_batch(site, asked, leaf, shared[1], use, factors)

        found = from_all_examples(of_batch, (mine, sums, share, factors), (value, followers), places)
        (grads, totals), (zeros, back) = found
        totals = {i: x.astype(dtypes[i]) for i, x in totals[0].items()}
        none: Any = None  # for the arrays that have no derivative
        names = {INPUT: "a"} | {i: name for name, i in places_in(equation).items() if i is not None}
        of_given = {i: back[names[i]].astype(x.dtype) if i in names else none for i, x in given.items()}
        return Local(grads[0], totals, none, none, none, none), Row(none, zeros, none), None, of_given

    operation.defvjp(forward, backward)
    return operation(local, rule.row_at(site, asked, row), operands[at], given)


class _Sums(NamedTuple):
    """What a loop over chunks adds up: the cotangents of the inputs and of the bias; the values of statistics, by slot;
    the gradient of the matrix, and sums over examples of its shape, by statistic."""

    inputs: Array
    bias: Array | None
    rows: dict[Slot, Array]
    grad: Array
    totals: dict[int, Array]


def _of_batch(
    site: Site,
    asked: Asked,
    leaf: jax.ShapeDtypeStruct,
    followers: tuple[Any, ...],
    use: SoftmaxProduct,
    factors: dict[int, Array],
) -> tuple[tuple[list[Array], list[dict[int, Array]]], tuple[dict[Slot, Array], dict[str, Array | None]]]:
    """(([the gradient of the base], [sums over examples]), (values of the statistics, cotangents of the operands))."""
    ((like, shared, of_slice, bound),) = followers
    (part,), logits, axis, n = site.parts, use.logits, use.class_axis, use.a.shape[0]
    param, i = part.param, part.param.leaf
    scale, operation = param.scale * param.outer, asked.numbers[id(site), 0]
    wanted = asked.parts[i]
    by_chunks = {k: part for k, part in wanted.items() if asked.statistics[k].adds_up}

    def gradients(
        made: Product | SoftmaxProduct, shape: Shape, number: Array, moments: frozenset[str], scales: Any
    ) -> Gradients:
        kind = jax.ShapeDtypeStruct(shape, leaf.dtype)
        found = placed(made, param.view) if isinstance(made, SoftmaxProduct) else made
        return Gradients((found,), kind, n, (operation, number), scales, moments, asked.precision)

    def of_chunk(c: Array, product: Product, outer: float, moments: frozenset[str], scales: Any) -> Gradients:
        made = product if outer == 1 else _scaled(product, outer, axis)
        return gradients(made, use.chunk_shape, of_slice * logits.count + c, moments, scales)

    scales = factors.get(i)
    if i in asked.clips:
        # A function of the norm over all chunks: known after a loop of its own.
        def norms(total: Array, c: Array) -> tuple[Array, None]:
            return total + of_chunk(c, use.at(c), scale, frozenset({SQ_NORMS}), None).sq_norms, None

        sq_norms = logits.scan(norms, logits.zeros((n,)))[0]
        scales = weights_of(functools.partial(asked.clips[i], bound), sq_norms)

    like_chunks = {k: jax.tree.map(lambda x: param.view(x), like[k]) for k in by_chunks}

    def add(sums: _Sums, c: Array) -> tuple[_Sums, None]:
        product = use.at(c)
        delta = product.delta if axis == 1 else product.a
        found, rows, totals = of_chunk(c, product, scale, asked.needs, scales), dict(sums.rows), dict(sums.totals)
        for k, asked_of in by_chunks.items():
            slices = jax.tree.map(lambda x: logits.of_chunk(x, c, axis), like_chunks[k])
            value = value_of(asked.statistics[k], found, asked_of._replace(like=slices, shared=shared[k]))
            if asked_of.shape is None:
                totals[k] = put(logits, totals[k], value.astype(totals[k].dtype), c, axis)
            else:
                rows[k, asked_of.slot] = rows[k, asked_of.slot] + value.astype(asked.dtype)
        if not asked.gradient or param.outer != 1:
            found = of_chunk(c, product, param.scale, frozenset({TOTAL}), None)
        inputs = sums.inputs + input_grad(logits, delta, c)
        bias = None if sums.bias is None else put(logits, sums.bias, bias_grad(logits, delta), c, -1)
        return _Sums(inputs, bias, rows, put(logits, sums.grad, found.total, c, axis), totals), None

    slots = {(k, part.slot): part.shape for k, part in wanted.items() if part.shape is not None}
    start = _Sums(
        logits.zeros(use.a.shape),
        None if use.b is None else logits.zeros(use.b.shape),
        {slot: logits.zeros((n, *shape)).astype(asked.dtype) for slot, shape in slots.items()},
        logits.zeros(use.shape).astype(leaf.dtype),
        {k: logits.zeros(use.shape) for k, part in by_chunks.items() if part.shape is None},
    )
    sums, _ = logits.scan(add, start)

    def put_back(x: Array) -> Array:  # a view of the base, as the operand is
        return param.view.adjoint(x).reshape(leaf.shape)

    rows, totals = dict(sums.rows), jax.tree.map(put_back, sums.totals)
    all_classes = dataclasses.replace(use, delta=use.delta * jnp.asarray(scale, use.delta.dtype))
    whole = gradients(all_classes, leaf.shape, of_slice, asked.needs, scales)
    for k, asked_of in wanted.items():
        if k in by_chunks:
            continue
        value = value_of(asked.statistics[k], whole, asked_of._replace(like=like[k], shared=shared[k]))
        if asked_of.shape is None:
            totals[k] = value
        else:
            rows[k, asked_of.slot] = rows[k, asked_of.slot] + value.astype(asked.dtype)
    slope = None if use.smoothing is None else smoothing_grad(logits, use.labels, use.delta)
    back = {"a": sums.inputs, "b": sums.bias, "smoothing": slope}
    return ([put_back(sums.grad)], [totals]), (rows, back)


def _scaled(product: Product, factor: float, class_axis: int) -> Product:
    """The product with its cotangents times a factor."""
    if class_axis == 0:
        return Product(product.a * jnp.asarray(factor, product.a.dtype), product.delta)
    return Product(product.a, product.delta * jnp.asarray(factor, product.delta.dtype))
