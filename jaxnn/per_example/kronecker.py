"""KFAC: each layer's block of the GGN as a Kronecker product of two small matrices."""

from __future__ import annotations

from collections import Counter
from typing import NamedTuple

import jax.numpy as jnp

from jaxnn.numerics import accumulate, exact_einsum
from jaxnn.per_example.forms import joined
from jaxnn.per_example.outer import Outer
from jaxnn.per_example.placing import TOTAL, returns
from jaxnn.per_example.select import layers_of, require_columns
from jaxnn.tape import Addition, Columns, Convolution, Product, Use, errors
from jaxnn.types import Array


class Factors(NamedTuple):
    """The block of one weight and its bias is about A (x) G, `jnp.kron(a, g)`, for [w; b] flattened in row-major order.

    Attributes:
        a: (d, d), or (d + 1, d + 1) with a bias, its entry last; d = D_in, or C_in times the size of the kernel.
        g: (p, p), p = D_out.
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
        The `Factors`, float32 or float64, by the path of each layer with a weight matrix or an ungrouped convolution.
        Others (norms, embeddings, grouped convolutions, weights used through a view) are left out. A layer with several
        such weights has an entry for each, by the weight's own path and without the bias.

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
    found = {}
    for place, a, delta, biased in _pairs("kfac_expand", columns):
        n, times = a.shape[:2]
        seen = _with_one(a) if biased else a
        found[place] = Factors(
            exact_einsum("ntd,nte->de", seen, seen) / (n * times),
            exact_einsum("cntp,cntq->pq", delta, delta) / n,
        )
    return found


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
    found = {}
    for place, a, delta, biased in _pairs("kfac_reduce", columns):
        mean, total = jnp.mean(accumulate(a), axis=1), jnp.sum(accumulate(delta), axis=2)
        seen = _with_one(mean) if biased else mean
        found[place] = Factors(
            exact_einsum("nd,ne->de", seen, seen) / seen.shape[0],
            exact_einsum("cnp,cnq->pq", total, total) / seen.shape[0],
        )
    return found


def _with_one(a: Array) -> Array:
    """[a; 1]: the bias is the weight of a constant input 1."""
    return jnp.concatenate([a, jnp.ones((*a.shape[:-1], 1), a.dtype)], axis=-1)


def _pairs(where: str, columns: Columns) -> list[tuple[str, Array, Array, bool]]:
    """(path, a (N, T, d), delta (C, N, T, p), whether a row for the bias is added) of each weight with factors."""
    require_columns(where, columns)
    tape, first = columns.tape, columns.at(0)
    places = layers_of(tape.paths)
    biased = {place for place, uses in zip(places, tape.uses, strict=True) if _only(uses, Addition)}
    found = []
    for i, uses in enumerate(tape.uses):
        if not (_only(uses, Product) or _only(uses, Convolution)):
            continue
        form = joined(first.uses[i], tape.leaves[i], tape.examples)
        if not isinstance(form, Outer) or form.block[0] != 1:
            continue
        delta = jnp.concatenate([_positions(use, form) for use in uses], axis=2)
        found.append((i, form.a[:, :, 0], delta))
    # Of a layer with several weights the path alone would be ambiguous, and so would the weight that a bias belongs to.
    count = Counter(places[i] for i, _, _ in found)
    alone = [count[places[i]] == 1 for i, _, _ in found]
    return [
        (places[i], a, delta, places[i] in biased) if one else (tape.paths[i], a, delta, False)
        for one, (i, a, delta) in zip(alone, found, strict=True)
    ]


def _only(uses: tuple[Use, ...], kind: type) -> bool:
    return bool(uses) and all(isinstance(use, kind) for use in uses)


def _positions(use: Use, form: Outer) -> Array:
    """The deltas of one use, (C, N, T, p)."""
    delta = errors(use).astype(form.delta.dtype)
    return delta.reshape(*delta.shape[:2], -1, delta.shape[-1])
