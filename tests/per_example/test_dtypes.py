"""Every statistic in every dtype, by the form for CPUs and by that for accelerators, against float64 gradients.

The activations and cotangents are rounded to the dtype first: the oracle differentiates the loss that has these as its
inputs and its cotangents.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax
from jax.extend.core import Jaxpr, Var

from jaxnn import numerics, per_example
from jaxnn.ops import steps
from jaxnn.per_example import blocks, measures
from jaxnn.per_example.margin import safe_norms
from jaxnn.tape import Addition, Convolution, GroupedProduct, Lookup, Product, Scaling, Whole
from tests.helpers import float64, random, strict
from tests.per_example.cases import flat, gap, tape_of, vector
from tests.per_example.oracles import EXACT, STATISTICS, Explicit, Given, parts_of

N = 6
TOLERANCE = {jnp.bfloat16: 1e-6, jnp.float16: 1e-6, jnp.float32: 1e-6, jnp.float64: EXACT}
"""The largest difference relative to the largest entry: in half precision that of float32."""


def _rows_of(w: Any, x: Any) -> Any:
    return jnp.einsum("tgd,dgp->tgp", x, w)


def _conv(w: Any, x: Any) -> Any:
    numbers = ("NHWC", "HWIO", "NHWC")
    return lax.conv_general_dilated(x[None], w, (1, 1), "VALID", dimension_numbers=numbers)[0]


CHOSEN = ["sq_norms", "weighted_grad", "mean_grad", "second_moment", "variance", "gram, two batches", "jvp_examples"]
"""One for each way to compute; the others are made of these."""

KINDS: dict[str, tuple[tuple[int, ...], tuple[int, ...], Callable[..., Any], Callable[[Any, Any], Any]]] = {
    "product": ((1, 9), (1, 7), Product, lambda w, x: x @ w),
    "gram": ((3, 20), (3, 24), Product, lambda w, x: x @ w),
    "materialized": ((30, 5), (30, 4), Product, lambda w, x: x @ w),
    "grouped": ((3, 2, 16), (3, 2, 12), GroupedProduct, _rows_of),
    "convolution": ((6, 5, 2), (4, 4, 3), lambda a, delta: Convolution(a, delta, (3, 2)), _conv),
    "convolution, gram": ((3, 3, 16), (2, 2, 24), lambda a, delta: Convolution(a, delta, (2, 2)), _conv),
    "addition": ((1,), (5, 4), lambda a, delta: Addition(delta), lambda w, x: w),
    "scaling": ((5, 4), (5, 4), Scaling, lambda w, x: x * w),
    "whole": ((1,), (7,), lambda a, delta: Whole(delta), lambda w, x: w),
    "lookup": ((4,), (4, 3), lambda indices, delta: Lookup(indices, delta, 5), lambda w, indices: w[indices]),
}
"""The shapes of one example's a and delta, the use, and the operation of the parameter w that it is a use of."""


def _drawn(dtype: Any, seed: int, n: int) -> dict[str, tuple[Any, Any]]:
    """(a, delta) of each kind; of a lookup, (indices, delta)."""
    found = {}
    for k, (name, (seen, sent, _, _)) in enumerate(KINDS.items()):
        a, delta = (random(seed + 10 * k + i, n, *shape).astype(dtype) for i, shape in enumerate((seen, sent)))
        found[name] = np.random.default_rng(seed).integers(0, 5, (n, 4)) if name == "lookup" else a, delta
    return found


@functools.partial(jax.jit, static_argnums=0)
def _gradients(shapes: tuple[tuple[int, ...], ...], drawn: dict[str, tuple[Any, Any]]) -> dict[str, Any]:
    """Those of sum(delta . operation(w, a)) for each example, (n, *shape)."""

    def of_one(w: Any, a: Any, delta: Any, operation: Any) -> Any:
        return jnp.sum(operation(w, a) * delta)

    return {
        name: jax.vmap(jax.grad(functools.partial(of_one, operation=KINDS[name][3])), (None, 0, 0))(
            jnp.zeros(shape), *drawn[name]
        )
        for name, shape in zip(KINDS, shapes, strict=True)
    }


def _uses(dtype: Any, seed: int, n: int) -> tuple[dict[str, Any], np.ndarray, dict[str, Any]]:
    """(a use of each kind, the gradients (n, P) of its numbers in float64, their parameters' shapes)."""
    drawn = _drawn(dtype, seed, n)
    uses = {name: KINDS[name][2](*pair) for name, pair in drawn.items()}
    wide = jax.tree.map(lambda x: x if x.dtype == np.int64 else x.astype(np.float64), drawn)
    grads = _gradients(tuple(uses[name].shape for name in KINDS), wide)
    params = {name: jax.ShapeDtypeStruct(use.shape, numerics.accumulation_dtype(dtype)) for name, use in uses.items()}
    return uses, flat(grads), params


def _given(dtype: Any) -> tuple[Given, Explicit]:
    """The tapes of N and of 4 examples in a dtype, and the explicit gradients; inside `float64()`."""
    found = [_uses(dtype, seed, n) for seed, n in ((0, N), (500, 4))]
    wide = numerics.accumulation_dtype(dtype)
    tapes = [
        tape_of(np.zeros(n, wide), np.zeros(n, wide), params, {name: (uses[name],) for name in params})
        for (uses, _, params), n in zip(found, (N, 4), strict=True)
    ]
    (g, h), params = (each[1] for each in found), found[0][2]
    direction = {name: random(7, *p.shape).astype(wide) for name, p in params.items()}
    weights, bound = random(5, N).astype(wide), np.asarray(np.median(np.linalg.norm(g, axis=1)), wide)
    zeros = {name: np.zeros(p.shape) for name, p in params.items()}
    # Every parameter is a layer of its own.
    parts = [("", part) for _, part in parts_of(zeros)]
    explicit = Explicit(g, h, vector(direction), weights.astype(np.float64), float(bound), parts)
    return Given(*tapes, direction, weights, bound), explicit


def gaps(dtype: Any, names: list[str] = CHOSEN) -> dict[str, float]:
    """How far each statistic is from that of the explicit gradients."""
    statistics = {name: STATISTICS[name] for name in names}
    with float64():
        given, explicit = _given(dtype)
        with strict():
            found = jax.jit(lambda given: {name: s.ours(given) for name, s in statistics.items()})(given)
        return {name: gap(vector(found[name]), s.expected(explicit).ravel()) for name, s in statistics.items()}


@pytest.fixture
def accelerators(monkeypatch: pytest.MonkeyPatch) -> None:
    """The forms for accelerators on this machine, each product by pieces, in several chunks."""
    use_accelerator_forms(monkeypatch)


def use_accelerator_forms(monkeypatch: pytest.MonkeyPatch, chunk_bytes: int = 4000) -> None:
    """See `accelerators`; `chunk_bytes` are those of a chunk."""

    def chosen(*arrays: Any, default: Any, **others: Any) -> Any:
        return default(*arrays)

    monkeypatch.setattr(lax, "platform_dependent", chosen)
    monkeypatch.setattr(numerics, "_known", lambda *arrays: False)
    monkeypatch.setattr(numerics, "PIECES_FROM", 0)
    monkeypatch.setattr(numerics, "PIECES_INNER", 0)
    for module in (steps, blocks, measures):
        monkeypatch.setattr(module, "OTHER_BYTES", chunk_bytes)
    monkeypatch.setattr(blocks, "CHUNK_BYTES", 4000)


@pytest.mark.slow
@pytest.mark.parametrize("dtype", TOLERANCE)
def test_on_cpu(dtype: Any) -> None:
    found = gaps(dtype)
    assert max(found.values()) <= TOLERANCE[dtype], found


@pytest.mark.slow
@pytest.mark.parametrize("dtype", TOLERANCE)
def test_on_accelerators(dtype: Any, accelerators: None) -> None:
    found = gaps(dtype)
    assert max(found.values()) <= TOLERANCE[dtype], found


def _two_pieces(x: Any) -> Any:
    first, second, third = PIECES(x)
    return first, second, jnp.zeros_like(third)


def _one_piece(x: Any) -> Any:
    first, second, third = PIECES(x)
    return first, jnp.zeros_like(second), jnp.zeros_like(third)


def _summed_in_half(f: Any, x: Any, y: Any, precision: Any = None) -> Any:
    """Without `preferred_element_type`: sums, or at least results, are rounded to the operands' dtype."""
    if x.dtype == y.dtype and x.dtype in numerics.OF_HALF:
        return f(x, y).astype(jnp.float32)
    return MULTIPLIED(f, x, y, precision)


PIECES, MULTIPLIED = numerics.pieces, numerics.multiplied
MUTANTS = {
    "no third piece": ("pieces", _two_pieces, "weighted_grad"),
    "no second piece": ("pieces", _one_piece, "weighted_grad"),
    "sums of bfloat16": ("multiplied", _summed_in_half, "mean_grad"),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", MUTANTS)
def test_a_broken_product_is_caught(name: str, accelerators: None, monkeypatch: pytest.MonkeyPatch) -> None:
    where, broken, statistic = MUTANTS[name]
    monkeypatch.setattr(numerics, where, broken)
    assert gaps(jnp.bfloat16, [statistic])[statistic] > TOLERANCE[jnp.bfloat16]


@pytest.mark.slow
def test_chunks_in_another_order_are_caught(accelerators: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(steps.Step, "joined", lambda step, chunks: chunks.reshape(-1, *chunks.shape[2:]))
    assert gaps(jnp.float32, ["sq_norms"])["sq_norms"] > 1e-2


BOUND = 0.3


def _cancelling() -> Product:
    """Examples of bfloat16 with two positions, whose contributions cancel to 1/16."""
    x = np.ones((8, 1, 12)) * (1 + np.arange(8)[:, None, None] / 8 + 2.0**-7)
    delta = np.concatenate([x, -x * (1 - 2.0**-4)], axis=1)
    return Product(np.ones((8, 2, 16), jnp.bfloat16), delta.astype(jnp.bfloat16))


def test_clipped_contributions_keep_the_bound_and_those_of_rounded_factors_do_not(accelerators: None) -> None:
    """Each example's own term of the sum that `dp_sgd` adds noise to, and c delta rounded toward 0 to bfloat16."""
    use = _cancelling()
    g = np.einsum("ntd,ntp->ndp", *(np.asarray(x, np.float64) for x in (use.a, use.delta)))
    shape = {"w": jax.ShapeDtypeStruct(use.shape, jnp.float32)}
    tape = tape_of(np.zeros(8, np.float32), np.zeros(8), shape, {"w": (use,)})

    @jax.jit
    def terms(tape: Any) -> Any:
        factors = per_example.flat(BOUND)(safe_norms(tape, per_example.norms(tape)))
        own = jnp.diag(factors)
        each = jax.vmap(lambda w: per_example.weighted_grad(tape, w)["w"])(own)
        share = lax.broadcast_in_dim(factors, use.delta.shape, (0,)) * use.delta.astype(jnp.float32)
        near = lax.reduce_precision(share, exponent_bits=8, mantissa_bits=7)
        down = jnp.where(jnp.abs(near) > jnp.abs(share), near * (1 - 2.0**-8), near)
        rounded = lax.reduce_precision(down, exponent_bits=8, mantissa_bits=7)
        return factors, each, jnp.einsum("ntd,ntp->ndp", use.a.astype(jnp.float32), rounded, precision="highest")

    factors, each, rounded = terms(tape)
    sizes = [np.linalg.norm(np.asarray(t, np.float64).reshape(8, -1), axis=1) for t in (each, rounded)]
    assert np.all(np.asarray(factors) < 1)
    assert np.max(sizes[0]) <= BOUND * (1 + 2.0**-20)
    assert gap(each, np.asarray(factors, np.float64)[:, None, None] * g) < 1e-5
    assert np.max(sizes[1]) > 1.01 * BOUND


HALVES = {jnp.dtype(dtype) for dtype in numerics.OF_HALF}
PRODUCTS = ("dot_general", "conv_general_dilated")


def _products(jaxpr: Jaxpr) -> Iterator[tuple[Any, list[Any]]]:
    """Each product of a jaxpr and of those inside it, and the dtypes that its operands were converted from."""
    before: dict[Any, Any] = {}
    for equation in jaxpr.eqns:
        name, (first, *_) = equation.primitive.name, [*equation.invars, None]
        same = {"reshape", "transpose", "squeeze", "broadcast_in_dim", "slice", "copy"}
        if isinstance(first, Var):
            if name == "convert_element_type":
                before[equation.outvars[0]] = first.aval.dtype
            elif name in same:
                before[equation.outvars[0]] = before.get(first, first.aval.dtype)
        if name in PRODUCTS:
            operands = [x for x in equation.invars if isinstance(x, Var)]
            yield equation, [before.get(x, x.aval.dtype) for x in operands]
        for value in jax.tree.leaves(equation.params, is_leaf=lambda v: hasattr(v, "eqns") or hasattr(v, "jaxpr")):
            inner = getattr(value, "jaxpr", value)
            if isinstance(inner, Jaxpr):
                yield from _products(inner)


def _faults(statistics: dict[str, Any], given: Given) -> list[str]:
    """What the products of statistics lose: digits, by an ambient precision or sums of halves, or tensor cores."""
    found = []
    for ambient in ("bfloat16", "tensorfloat32"):
        with jax.default_matmul_precision(ambient):
            jaxpr = jax.make_jaxpr(lambda given: {name: f(given) for name, f in statistics.items()})(given)
        for equation, sources in _products(jaxpr.jaxpr):
            now = {x.aval.dtype for x in equation.invars}
            kind, precision = equation.primitive.name, equation.params["precision"]
            exact = precision in (numerics.SIX_PRODUCTS, (numerics.EXACT,) * 2)
            by_default = precision == (lax.Precision.DEFAULT,) * 2
            if now <= HALVES:
                if equation.params["preferred_element_type"] != jnp.float32 or not (exact or by_default):
                    found.append(f"{kind} of halves: {equation}")
            elif set(sources) <= HALVES:  # a convolution may widen them, at a precision exact for them
                if kind == "dot_general" or not (by_default or sources[0] == jnp.float16):
                    found.append(f"{kind} of halves widened: {equation}")
            elif not exact:
                found.append(f"{kind} at {precision}: {equation}")
    return found


@pytest.mark.slow
@pytest.mark.parametrize("dtype", [jnp.bfloat16, jnp.float16, jnp.float32])
def test_no_product_depends_on_the_ambient_precision_or_widens_halves(dtype: Any) -> None:
    ours = {name: s.ours for name, s in STATISTICS.items()}
    with float64():
        given = _without("['whole']", _given(dtype)[0])
        assert not _faults(ours, given)
        plain = {
            "at the ambient precision": lambda t: jnp.einsum("np,nq->pq", *(2 * [t.direction["gram"]])),
            "widened": lambda t: numerics.exact_einsum("n...,n...->", *(2 * [_first(t).astype(jnp.float32)])),
        }
        caught = [name for name, f in plain.items() if _faults({name: f}, given)]
    assert caught == (list(plain) if jnp.dtype(dtype) in numerics.OF_HALF else ["at the ambient precision"])


def _without(path: str, given: Given) -> Given:
    """Without one parameter: gradients that are on the tape are widened once, when it is read."""
    kept = [p for p in given.tape.paths if p != path]
    tapes = [per_example.select(tape, kept) for tape in (given.tape, given.other)]
    return given._replace(tape=tapes[0], other=tapes[1], direction=given.direction | {path[2:-2]: None})


def _first(given: Given) -> Any:
    return jax.tree.leaves(given.tape.uses)[0]
