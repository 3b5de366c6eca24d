"""Broken statistics. Each is caught by the check that the tests hold the right one against."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxnn import backprop, losses, models, per_example
from jaxnn.layers import Dense, Tanh
from jaxnn.per_example import forms, measures, tied
from jaxnn.tape import Addition, Convolution, Product
from tests.backprop.checking import drawn
from tests.backprop.mutants import Mutant, in_place_of
from tests.helpers import float64, random
from tests.per_example.cases import gap, vector
from tests.per_example.oracles import CENTRED, EXACT, STATISTICS, error
from tests.per_example.test_extremes import TIED, naive_variance, near_one, tied_error, variance_error
from tests.per_example.test_tied import tied_gap

mutant = functools.partial(Mutant, tolerance=EXACT)


@functools.cache
def of(name: str, statistic: str) -> Callable[[], float]:
    """The error of one statistic of one net."""
    return functools.partial(error, name, CENTRED if statistic == "centred" else STATISTICS[statistic])


def instead(name: str, broken: Callable[..., Any]) -> Any:
    """broken(the right one, its arguments) in place of a statistic."""
    return in_place_of(per_example, name, lambda right: functools.partial(broken, right))


def uses_changed(tape: Any, kind: type, change: Callable[[Any], Any]) -> Any:
    """A tape with other uses of one kind."""
    uses = tuple(tuple(change(u) if isinstance(u, kind) else u for u in of_one) for of_one in tape.uses)
    return dataclasses.replace(tape, uses=uses)


def without_biases(tape: Any) -> Any:
    return uses_changed(tape, Addition, lambda use: Addition(0 * use.delta))


def split(tape: Any) -> Any:
    """The tape in which every position is an example of its own: (N, T, D) as (N T, 1, D)."""

    def apart(x: Any) -> Any:
        return x.reshape(-1, 1, x.shape[-1])

    uses = jax.tree.map(apart, tape.uses)
    return dataclasses.replace(tape, uses=uses, losses=jnp.zeros(uses[0][0].delta.shape[0]))


def one_use_each(tape: Any) -> list[Any]:
    return [dataclasses.replace(tape, uses=((use,),)) for use in tape.uses[0]]


def scaled(tree: Any, factor: Any) -> Any:
    return jax.tree.map(lambda g: g * factor, tree)


def pads_swapped(use: Any) -> Any:
    return dataclasses.replace(use, padding=tuple(pads[::-1] for pads in use.padding))


def flipped(v: Any) -> Any:
    """A kernel with its spatial axes reversed; other parameters as they are."""
    return v[::-1, ::-1] if v.ndim == 4 else v


def reversed_axes(factor: Any) -> Any:
    return factor[::-1, ::-1]


def added(before: Any, found: Any, trace: Any = 1.0) -> Any:
    """Noise of batches added up, with the trace times something."""
    found = found._replace(trace=found.trace * trace)
    return found if before is None else jax.tree.map(jnp.add, before, found)


def with_plain_norm(found: Any, tape: Any, before: Any) -> Any:
    squares = [jnp.sum(jnp.square(g)) for g in jax.tree.leaves(per_example.mean_grad(tape))]
    return added(before, found._replace(sq_norm=sum(squares)))


def factors_instead(factors: Callable[[Any, Any], Any]) -> Any:
    """Other factors in the place of min(1, C / n)."""
    return in_place_of(
        per_example, "clipped_grad", lambda right: lambda tape, clip: right(tape, functools.partial(factors, clip))
    )


def among_present(right: Any, tape: Any, ddof: int = 0) -> Any:
    """The variance of a row over the examples that look it up."""

    def of_present(g: Any) -> Any:
        there = g != 0
        count = jnp.maximum(jnp.sum(there, 0), 1)
        mean = jnp.sum(g, 0) / count
        return jnp.sum(jnp.where(there, (g - mean) ** 2, 0.0), 0) / count

    return jax.tree.map(of_present, per_example.materialize(tape))


def without_last_square(right: Any, tape: Any, ddof: int = 0) -> Any:
    """The matrix form less its - C^2."""
    square = {
        path: jnp.square(jnp.einsum("nd,np->dp", *(x[:, 0] - x[:, 0].mean(0) for x in (use.a, use.delta))) / len(use.a))
        for path, (use,) in zip(tape.paths, tape.uses, strict=True)
        if isinstance(use, Product)
    }
    found = right(tape, ddof)
    return jax.tree_util.tree_map_with_path(lambda path, v: v + square.get(jax.tree_util.keystr(path), 0), found)


def microbatch_error() -> float:
    """How far the sum of gradients over microbatches of 4, 4, 2 is from that of all."""
    with float64():
        x = random(0, 10, 3)
        sums, each = per_example.over_microbatches(lambda x: (jnp.sum(x, 0), x), (x,), 4)
        return max(gap(sums, np.sum(x, 0)), gap(each, x) if each.shape == x.shape else np.inf)


# Curvature, against the whole matrix from `jax.jacrev` and diag(p) - p p'.

CURVED = models.serial(Dense(4), Tanh, Dense(3), Tanh, Dense(3))
LONG, KFAC_NET = random(1, 3, 2, 5), models.serial(Dense(3))


def _jacobian(params: Any, x: Any) -> Any:
    """(N, K, P)."""
    rows = jax.jacrev(lambda p: CURVED.predict(p, (), x))(params)
    return jnp.concatenate([r.reshape(*r.shape[:2], -1) for r in jax.tree.leaves(rows)], axis=-1)


def _hessians(outputs: np.ndarray) -> np.ndarray:
    p = np.exp(outputs) / np.exp(outputs).sum(-1, keepdims=True)
    return np.einsum("na,ab->nab", p, np.eye(p.shape[-1])) - p[:, :, None] * p[:, None, :]


def curvature_error(name: str, n: int = 3) -> float:
    """How far a summary of the GGN of n examples, or the tangent kernel, is from the whole matrix."""
    with float64():
        x, y = random(0, n, 5), np.arange(n) % 3
        params, _ = drawn(CURVED, x)

        @jax.jit
        def both(params: Any, x: Any) -> Any:
            columns = backprop.ggn_record(CURVED, losses.softmax_cross_entropy)(params, (), x, y)
            summaries: dict[str, Callable[[], Any]] = {
                "diagonal": lambda: per_example.diag_ggn(columns),
                "trace": lambda: per_example.trace(columns),
                "kfac": lambda: per_example.kfac_expand(columns),
                "ntk": lambda: per_example.ntk(backprop.output_record(CURVED)(params, (), x)),
            }
            return summaries[name](), _jacobian(params, x), CURVED.predict(params, (), x)

        got, jacobian, outputs = both(params, x)
        ggn = np.einsum("nap,nab,nbq->pq", jacobian, _hessians(np.asarray(outputs)), jacobian) / n
        if name == "ntk":
            return gap(got, np.einsum("nap,mbp->nmab", jacobian, jacobian))
        if name == "kfac":
            return max(_block_errors(got, ggn))
        return gap(vector(got), np.diag(ggn) if name == "diagonal" else np.trace(ggn)[None])


def _block_errors(factors: Any, ggn: np.ndarray) -> list[float]:
    """A (x) G against the layers' blocks; parameters come as b, w, and [w; b] has the bias last."""
    errors, start = [], 0
    for a, g in factors.values():
        inputs, p = a.shape[0] - 1, g.shape[0]
        stop = start + p * (inputs + 1)
        order = np.concatenate([np.arange(start + p, stop), np.arange(start, start + p)])
        errors.append(gap(np.kron(a, g), ggn[np.ix_(order, order)]))
        start = stop
    return errors


def factors_error(reduce: bool) -> float:
    """How far the factors of a layer used at two positions are from their definitions."""
    with float64():
        x, y = LONG, np.array([[0, 1], [2, 2], [1, 0]])
        params, _ = drawn(KFAC_NET, x)

        @jax.jit
        def found(params: Any) -> Any:
            columns = backprop.ggn_record(KFAC_NET, losses.softmax_cross_entropy)(params, (), x, y)
            factors = per_example.kfac_reduce(columns) if reduce else per_example.kfac_expand(columns)
            return factors["[0]"], columns.tape.uses[0][0].delta

        (a, g), delta = found(params)
        seen, delta = np.concatenate([LONG, np.ones((3, 2, 1))], -1), np.asarray(delta)
        if reduce:
            seen, delta = seen.mean(1, keepdims=True), delta.sum(2, keepdims=True)
        positions = seen.shape[1]
        expected_a = np.einsum("ntd,nte->de", seen, seen) / (3 * positions)
        return max(gap(a, expected_a), gap(g, np.einsum("cntp,cntq->pq", delta, delta) / 3))


def sampled_error() -> float:
    """How far the mean of 3,000 sampled columns is from the diagonal: statistical, so with a large tolerance."""
    with float64():
        x, y = random(0, 2, 5), np.zeros(2, np.int32)
        params, _ = drawn(CURVED, x)

        def diagonal(samples: int | None, key: Any) -> Any:
            recorded = backprop.ggn_record(CURVED, losses.softmax_cross_entropy, samples=samples)
            return per_example.diag_ggn(recorded(params, (), x, y, key=key))

        key = jax.random.key(0)
        return gap(vector(jax.jit(lambda k: diagonal(3000, k))(key)), vector(jax.jit(lambda k: diagonal(None, k))(key)))


def near_one_variance() -> float:
    return variance_error(*near_one("shared signs"))


DIAGONAL, TRACE, NTK = (functools.partial(curvature_error, name) for name in ("diagonal", "trace", "ntk"))
BLOCKS = functools.partial(curvature_error, "kfac", 1)
EXPANDED, REDUCED = functools.partial(factors_error, False), functools.partial(factors_error, True)
TIED_DENSE = functools.partial(tied_error, TIED[0])
TABLE = functools.partial(tied_gap, "sq_norms", "clipped_grad")
TABLE_GRAM = functools.partial(tied_gap, "gram", "gram, two batches")
TABLE_SQUARES = functools.partial(tied_gap, "second_moment", "variance")


def one_row_further(right: Any, u: Any, indices: Any) -> Any:
    return right(u, indices + 1)


def without_lookups(right: Any, form: Any) -> Any:
    return right(dataclasses.replace(form, sparse=dataclasses.replace(form.sparse, values=0 * form.sparse.values)))


def other_factors(name: str, a: Callable[[Any], Any] = lambda a: a, g: Callable[[Any], Any] = lambda g: g) -> Any:
    return instead(
        name,
        lambda right, columns: {k: per_example.Factors(a(f.a), g(f.g)) for k, f in right(columns).items()},
    )


def no_constant(a: Any) -> Any:
    """Zeros for the products of the bias's 1."""
    return a.at[-1].set(0).at[:, -1].set(0)


def root_of_diagonal(right: Any) -> Any:
    def root(loss: Any) -> Any:
        def columns(outputs: Any, targets: Any) -> Any:
            half = jnp.sqrt(jax.nn.softmax(outputs))
            return jnp.moveaxis(half[..., None] * jnp.eye(half.shape[-1], dtype=half.dtype), -1, 0)

        return columns

    return root


def labels_of_the_data(right: Any) -> Any:
    return lambda loss: lambda key, outputs, targets: losses.derivative_of(loss)(outputs, targets)


def columns_summed(right: Any, columns: Any) -> Any:
    """(sum_c g_c)^2 for the sum of squares."""
    summed = uses_of_columns(columns, lambda delta: jnp.sum(delta, 0, keepdims=True))
    return right(dataclasses.replace(summed, count=1))


def uses_of_columns(columns: Any, change: Callable[[Any], Any]) -> Any:
    changed = uses_changed(columns.tape, object, lambda use: dataclasses.replace(use, delta=change(use.delta)))
    return dataclasses.replace(columns, tape=changed)


MUTANTS = [
    mutant("norms: root forgotten", of("mlp", "norms"), instead("norms", lambda right, t: right(t) ** 2)),
    mutant(
        "sq_norms: +1 for the bias forgotten",
        of("mlp", "sq_norms"),
        instead("sq_norms", lambda right, t: right(without_biases(t))),
    ),
    mutant(
        "sq_norms: positions apart",
        of("sequence", "sq_norms"),
        instead("sq_norms", lambda right, t: right(split(t)).reshape(t.examples, -1).sum(1)),
    ),
    mutant(
        "sq_norms: those of tied uses added",
        TIED_DENSE,
        instead("sq_norms", lambda right, t: sum(right(one) for one in one_use_each(t))),
    ),
    mutant("tied: factor 2 missing", TABLE, in_place_of(measures, "cross", lambda right: lambda *x: right(*x) / 2)),
    mutant("tied: cross term dropped", TABLE, in_place_of(measures, "cross", lambda right: lambda *x: 0 * right(*x))),
    mutant("tied: cross term's sign", TABLE, in_place_of(measures, "cross", lambda right: lambda *x: -right(*x))),
    mutant(
        "tied: one row further",
        TABLE,
        in_place_of(tied, "_at", lambda right: functools.partial(one_row_further, right)),
    ),
    mutant(
        "tied, gram: one row further",
        TABLE_GRAM,
        in_place_of(tied, "_at", lambda right: functools.partial(one_row_further, right)),
    ),
    mutant(
        "tied, gram: products of lookups with products dropped",
        TABLE_GRAM,
        in_place_of(measures, "cross_of_pairs", lambda right: lambda *x: 0 * right(*x)),
    ),
    mutant(
        "tied: lookups forgotten in chunks",
        TABLE_SQUARES,
        in_place_of(tied.Tied, "gradients", lambda right: lambda self: without_lookups(right, self)),
    ),
    mutant(
        "tied: transposed products as they are",
        TABLE,
        in_place_of(forms, "_as_table", lambda right: lambda view, use, tables: (next(iter(tables), view), use)),
    ),
    mutant(
        "sq_norms: uses of equal rows apart",
        of("embedding", "sq_norms"),
        instead(
            "sq_norms", lambda right, t: right(per_example.select(t, "[2]")) + jnp.sum(t.uses[0][0].delta ** 2, (1, 2))
        ),
    ),
    mutant(
        "sq_norms: padding of a convolution swapped",
        of("conv_padding", "sq_norms"),
        instead(
            "sq_norms",
            lambda right, t: right(uses_changed(t, Convolution, pads_swapped)),
        ),
    ),
    mutant(
        "norms by layer: weights only",
        of("mlp", "norms by layer"),
        instead("sq_norms_by_layer", lambda right, t: right(without_biases(t))),
    ),
    mutant(
        "weighted_grad: weights squared",
        of("mlp", "weighted_grad"),
        instead("weighted_grad", lambda right, t, w: right(t, w * w)),
    ),
    mutant(
        "weighted_grad: weights divided by their sum",
        of("mlp", "weighted_grad"),
        instead("weighted_grad", lambda right, t, w: right(t, w / jnp.sum(w))),
    ),
    mutant(
        "mean_grad: 1/N forgotten",
        of("mlp", "mean_grad"),
        instead("mean_grad", lambda right, t: scaled(right(t), t.examples)),
    ),
    mutant(
        "mean_grad: 1/N twice",
        of("mlp", "mean_grad"),
        instead("mean_grad", lambda right, t: scaled(right(t), 1 / t.examples)),
    ),
    mutant("clipped_grad: small gradients stretched", of("mlp", "clipped_grad"), factors_instead(lambda c, n: c / n)),
    mutant(
        "clipped_grad: root missing",
        of("mlp", "clipped_grad"),
        factors_instead(lambda c, n: jnp.minimum(1.0, c / n**2)),
    ),
    mutant(
        "clipped_grad: maximum for minimum",
        of("mlp", "clipped_grad"),
        factors_instead(lambda c, n: jnp.maximum(1.0, c / n)),
    ),
    mutant(
        "clipped_grad: each layer apart",
        of("mlp", "clipped_grad"),
        instead(
            "clipped_grad", lambda right, t, clip: (per_example.clipped_grad_by_layer(t, clip)[0], right(t, clip)[1])
        ),
    ),
    mutant(
        "clipped_grad: divided by N",
        of("mlp", "clipped_grad"),
        instead("clipped_grad", lambda right, t, clip: (scaled(right(t, clip)[0], 1 / t.examples), right(t, clip)[1])),
    ),
    mutant(
        "clipped_grad_by_layer: bound not shared out",
        of("mlp", "clipped_grad_by_layer"),
        instead("clipped_grad_by_layer", lambda right, t, clip: right(t, clip * 2**0.5)),
    ),
    mutant(
        "automatic: gamma forgotten",
        of("mlp", "clipped_grad, automatic"),
        instead("automatic", lambda right, bound, gamma: right(bound, 1e-30)),
    ),
    mutant(
        "psac: r forgotten",
        of("mlp", "clipped_grad, psac"),
        instead("psac", lambda right, bound, r: right(bound, 1e-30)),
    ),
    mutant(
        "second_moment: squares inside the sum over positions",
        of("sequence", "second_moment"),
        instead("second_moment", lambda right, t: scaled(right(split(t)), t.uses[0][0].delta.shape[1])),
    ),
    mutant(
        "second_moment: square of the mean",
        of("mlp", "second_moment"),
        instead("second_moment", lambda right, t: jax.tree.map(jnp.square, per_example.mean_grad(t))),
    ),
    mutant(
        "variance: ddof ignored", of("mlp", "variance, ddof 1"), instead("variance", lambda right, t, ddof=0: right(t))
    ),
    mutant("variance: always N - 1", of("mlp", "variance"), instead("variance", lambda right, t, ddof=0: right(t, 1))),
    mutant(
        "variance: not centred",
        of("mlp", "variance"),
        instead("variance", lambda right, t, ddof=0: per_example.second_moment(t)),
    ),
    mutant(
        "variance: mean of squares less square of the mean",
        near_one_variance,
        instead("variance", lambda right, t, ddof=0: jax.tree.map(lambda v: jnp.maximum(v, 0), naive_variance(t))),
        tolerance=1e-5,
    ),
    mutant(
        "variance: rows of a table among the examples that use them",
        of("embedding", "variance"),
        instead("variance", among_present),
    ),
    mutant(
        "variance_centred: last square forgotten",
        of("mlp", "centred"),
        instead("variance_centred", without_last_square),
    ),
    mutant("snr: its root", of("mlp", "snr"), instead("snr", lambda right, t: jax.tree.map(jnp.sqrt, right(t)))),
    mutant(
        "snr: of the mean gradient", of("mlp", "snr"), instead("snr", lambda right, t: scaled(right(t), t.examples))
    ),
    mutant(
        "gram: transposed",
        of("mlp", "gram, two batches"),
        instead("gram", lambda right, t, other=None: right(t, other).T),
    ),
    mutant(
        "gram: bias forgotten",
        of("mlp", "gram"),
        instead("gram", lambda right, t, other=None: right(without_biases(t))),
    ),
    mutant(
        "gram: each position with its like only",
        of("sequence", "gram"),
        instead(
            "gram",
            lambda right, t, other=None: jnp.einsum(
                "itjt->ij", right(split(t)).reshape(t.examples, t.uses[0][0].delta.shape[1], t.examples, -1)
            ),
        ),
    ),
    mutant(
        "cosine: only one norm",
        of("mlp", "cosine"),
        instead("cosine", lambda right, t, other: per_example.gram(t, other) / per_example.norms(t)[:, None]),
    ),
    mutant(
        "cosine: squared norms",
        of("mlp", "cosine"),
        instead(
            "cosine",
            lambda right, t, other: right(t, other) / jnp.outer(per_example.norms(t), per_example.norms(other)),
        ),
    ),
    mutant(
        "jvp_examples: biases left out",
        of("mlp", "jvp_examples"),
        instead("jvp_examples", lambda right, t, v: right(without_biases(t), v)),
    ),
    mutant(
        "jvp_examples: kernel flipped",
        of("conv_stride", "jvp_examples"),
        instead("jvp_examples", lambda right, t, v: right(t, jax.tree.map(flipped, v))),
    ),
    mutant(
        "noise_scale: N instead of N - 1",
        of("mlp", "noise_scale"),
        instead(
            "noise_scale", lambda right, t, before=None: added(before, right(t), trace=(t.examples - 1) / t.examples)
        ),
    ),
    mutant(
        "noise_scale: squared norm of the mean gradient as it is",
        of("mlp", "noise_scale"),
        instead("noise_scale", lambda right, t, before=None: with_plain_norm(right(t), t, before)),
    ),
    mutant(
        "materialize: of the mean loss",
        of("mlp", "materialize"),
        instead("materialize", lambda right, t: scaled(right(t), 1 / t.examples)),
    ),
    mutant(
        "materialize: channel groups exchanged",
        of("conv_groups", "materialize"),
        instead(
            "materialize",
            lambda right, t: right(
                uses_changed(
                    t,
                    Convolution,
                    lambda use: dataclasses.replace(use, delta=jnp.roll(use.delta, 2, -1)),
                )
            ),
        ),
    ),
    mutant(
        "over_microbatches: rest dropped",
        microbatch_error,
        instead("over_microbatches", lambda right, f, data, size: right(f, tuple(x[:8] for x in data), size)),
    ),
    mutant(
        "over_microbatches: mean for sum",
        microbatch_error,
        instead(
            "over_microbatches", lambda right, f, data, size: (right(f, data, size)[0] / 3, right(f, data, size)[1])
        ),
    ),
    mutant("GGN: root without p sqrt(p)'", DIAGONAL, in_place_of(losses, "hessian_root_of", root_of_diagonal)),
    mutant("diag_ggn: columns added before they are squared", DIAGONAL, instead("diag_ggn", columns_summed)),
    mutant(
        "diag_ggn: 1/N twice", DIAGONAL, instead("diag_ggn", lambda right, c: scaled(right(c), 1 / c.tape.examples))
    ),
    mutant("trace: 1/N forgotten", TRACE, instead("trace", lambda right, c: right(c) * c.tape.examples)),
    mutant(
        "GGN: labels of the data in place of the model's",
        sampled_error,
        in_place_of(losses, "sampled_error_of", labels_of_the_data),
        tolerance=0.1,
    ),
    mutant("KFAC: 1/T missing", EXPANDED, other_factors("kfac_expand", a=lambda a: 2 * a)),
    mutant("KFAC: 1/T in both factors", EXPANDED, other_factors("kfac_expand", g=lambda g: g / 2)),
    mutant("KFAC: 1 for the bias forgotten", BLOCKS, other_factors("kfac_expand", a=no_constant)),
    mutant(
        "KFAC: factors exchanged in the block", BLOCKS, other_factors("kfac_expand", a=reversed_axes, g=reversed_axes)
    ),
    mutant("KFAC reduce: sum for mean", REDUCED, other_factors("kfac_reduce", a=lambda a: 4 * a)),
    mutant("KFAC reduce: as expand", REDUCED, instead("kfac_reduce", lambda right, c: per_example.kfac_expand(c))),
    mutant("ntk: outputs exchanged", NTK, instead("ntk", lambda right, c: jnp.swapaxes(right(c), 2, 3))),
]

QUICK = ["sq_norms: +1 for the bias forgotten", "sq_norms: those of tied uses added", "variance: ddof ignored"]
