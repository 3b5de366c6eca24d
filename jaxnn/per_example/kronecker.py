"""KFAC: each layer's block of the GGN as a Kronecker product of two small matrices."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp

from jaxnn.numerics import accumulate, exact_einsum
from jaxnn.ops.views import Transpose, View
from jaxnn.per_example.forms import Form, joined
from jaxnn.per_example.outer import Outer, Pairs, end_to_end
from jaxnn.per_example.placing import TOTAL, returns
from jaxnn.per_example.select import layers_of, require_columns
from jaxnn.tape import Addition, Columns, Convolution, GroupedProduct, Placed, Product, Use, errors
from jaxnn.types import Array, Shape


class Factors(NamedTuple):
    """The block of one weight and its bias is about A (x) G, `jnp.kron(a, g)`, for [w; b] flattened in row-major order.

    Attributes:
        a: (d, d), or (d + 1, d + 1) with a bias, its entry last; d = D_in, or C_in times the size of the kernel.
        g: (p, p), p = D_out.

    Those of a stack of L blocks (`models.stack`) have an axis of L in front.
    """

    a: Array
    g: Array


@returns(TOTAL)
def kfac_expand(columns: Columns) -> dict[str, Factors]:
    """A = 1/(N T) sum_it [a_it; 1][a_it; 1]', G = 1/N sum_it sum_c delta_itc delta_itc': positions count as examples.

    a_it is the input of a layer at position t of example i, delta_itc the cotangent of its output for column c. For
    T = 1 and N = 1, with exact columns (`samples=None`), A (x) G equals the layer's block of the GGN; for T = 1 and
    N > 1 it approximates the mean of the products by the product of the means. For T > 1 it assumes that the
    contributions of the positions are uncorrelated (KFC's convention for convolutions, "expand"); see `kfac_reduce`.

    Args:
        columns: from `backprop.ggn_record`.

    Returns:
        The `Factors`, float32 or float64, by the path of each layer with a weight matrix, also in a stack of blocks, or
        an ungrouped convolution. Others (norms, embeddings, a table tied to one, grouped convolutions, convolutions and
        stacks in a stack, weights used through a view) are left out. A layer with several such weights has an entry for
        each, by the weight's own path and without the bias.

    References:
        Martens, J. & Grosse, R. (2015). Optimizing neural networks with Kronecker-factored approximate curvature.
        Grosse, R. & Martens, J. (2016). A Kronecker-factored approximate Fisher matrix for convolution layers.
        Eschenhagen, R., Immer, A., Turner, R., Schneider, F. & Hennig, P. (2023). Kronecker-factored approximate
        curvature for modern neural network architectures, equation 8.

    Example:
        >>> from jaxnn.per_example.sample import sample_columns
        >>> kfac_expand(sample_columns())[""].g
        Array([[1.5]], dtype=float32)
    """

    def factors(a: Array, delta: Array) -> Factors:
        n, times = a.shape[:2]
        seen, sent = exact_einsum("ntgd,ntge->gde", a, a), exact_einsum("cntgp,cntgq->gpq", delta, delta)
        return Factors(seen / (n * times), sent / n)

    return _by_layer("kfac_expand", columns, factors)


@returns(TOTAL)
def kfac_reduce(columns: Columns) -> dict[str, Factors]:
    """A = 1/N sum_i [mean_t a_it; 1][...]', G = 1/N sum_i sum_c [sum_t delta_itc][...]': positions count as one.

    Arguments and results are those of `kfac_expand`, to which it is equal for T = 1. For T > 1 it is exact for a linear
    layer whose outputs are immediately averaged over the positions, with N = 1.

    Reference: Eschenhagen, R., Immer, A., Turner, R., Schneider, F. & Hennig, P. (2023). Kronecker-factored approximate
        curvature for modern neural network architectures, equation 12.

    Example:
        >>> from jaxnn.per_example.sample import sample_columns
        >>> kfac_reduce(sample_columns())[""].a
        Array([[5., 1., 2.],
               [1., 2., 1.],
               [2., 1., 1.]], dtype=float32)
    """

    def factors(a: Array, delta: Array) -> Factors:
        n, mean, total = a.shape[0], jnp.mean(accumulate(a), axis=1), jnp.sum(accumulate(delta), axis=2)
        return Factors(exact_einsum("ngd,nge->gde", mean, mean) / n, exact_einsum("cngp,cngq->gpq", total, total) / n)

    return _by_layer("kfac_reduce", columns, factors)


def _by_layer(where: str, columns: Columns, factors: Callable[[Array, Array], Factors]) -> dict[str, Factors]:
    """The factors by path, each from (a, delta) with the row of the bias."""
    require_columns(where, columns)
    tape, first = columns.tape, columns.at(0)
    places = layers_of(tape.paths)
    biased = {place for place, uses in zip(places, tape.uses, strict=True) if _only(uses, Addition)}
    found = {
        i: pair
        for i, uses in enumerate(tape.uses)
        if (pair := _pair(uses, first.uses[i], tape.leaves[i], tape.examples)) is not None
    }
    # Of a layer with several weights the path alone would be ambiguous, and so would the weight that a bias belongs to.
    count = Counter(places[i] for i in found)
    named = {}
    for i, (a, delta) in found.items():
        alone = count[places[i]] == 1
        each = factors(_with_one(a) if alone and places[i] in biased else a, delta)
        stacked = isinstance(tape.uses[i][0], Placed)
        named[places[i] if alone else tape.paths[i]] = each if stacked else Factors(each.a[0], each.g[0])
    return named


def _pair(
    uses: tuple[Use, ...], first: tuple[Use, ...], leaf: jax.ShapeDtypeStruct, examples: int
) -> tuple[Array, Array] | None:
    """a (N, T, G, d), delta (C, N, T, G, p) of a weight with factors, G = 1, or of the G weights of a stack.

    Args:
        uses: of the weight, with the deltas of all columns.
        first: the same with those of one column.
        leaf: the weight.
        examples: N.
    """
    if _only(uses, Product) or _only(uses, Convolution):
        form: Form = joined(first, leaf, examples)
    elif uses and all(_in_stack(use, leaf.shape) for use in uses):
        form = end_to_end([Pairs(use.use.a, use.use.delta) for use in first])  # type: ignore[union-attr]
    else:
        return None
    if not isinstance(form, Outer) or (form.block[0] != 1 and not isinstance(uses[0], Placed)):
        return None
    groups, _, p = form.block
    deltas = [errors(use).astype(form.delta.dtype) for use in uses]
    return form.a, jnp.concatenate([d.reshape(*d.shape[:2], -1, groups, p) for d in deltas], axis=2)


def _in_stack(use: Use, shape: Shape) -> bool:
    """Whether this is a use of all weights (L, d, p) of a stack, each by its own block."""
    if not isinstance(use, Placed) or not isinstance(use.use, GroupedProduct) or len(shape) != 3:
        return False
    return use.view == View(shape).then(Transpose((1, 0, 2)))


def _with_one(a: Array) -> Array:
    """[a; 1]: the bias is the weight of a constant input 1."""
    return jnp.concatenate([a, jnp.ones((*a.shape[:-1], 1), a.dtype)], axis=-1)


def _only(uses: tuple[Use, ...], kind: type) -> bool:
    return bool(uses) and all(isinstance(use, kind) for use in uses)
