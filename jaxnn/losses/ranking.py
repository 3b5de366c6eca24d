"""Ranking losses: scores of the items of a list against their relevance.

ValueError: shapes do not match; TypeError: logits are not floating.
"""

from __future__ import annotations

from collections.abc import Callable

import jax
import jax.numpy as jnp

from jaxnn.losses.optax_form import distributions, fitted, weighed
from jaxnn.types import Array, ArrayLike


def ranking_softmax_loss(
    logits: ArrayLike,
    labels: ArrayLike,
    *,
    where: ArrayLike | None = None,
    weights: ArrayLike | None = None,
    reduce_fn: Callable[..., ArrayLike] | None = jnp.mean,
) -> Array:
    """Softmax loss of a list: -sum_i w_i y_i log softmax(s)_i, reduced over the lists.

    With y the softmax of relevance grades it is the top-one loss of ListNet.

    Args:
        logits: scores s (..., L), floating; one list on the last axis.
        labels: relevance y (..., L), real.
        where: bools (..., L), which items are real, or (...), which lists are. The others never count, even if NaN; a
            list without items has loss 0 and is excluded from `reduce_fn`.
        weights: w (..., L), real; None for 1.
        reduce_fn: called as reduce_fn(losses, where=has_items), both (...); has_items is None without `where`. None
            returns the losses of all lists. With `jnp.mean`, the mean over no list is 0.

    Returns:
        What `reduce_fn` returns, or (...) for None; float32 (float64 for float64 logits).

    Example:
        >>> two = jnp.array([[True, True, False]])
        >>> ranking_softmax_loss(jnp.zeros((1, 3)), jnp.array([[1.0, 0.0, 0.0]]), where=two)
        Array(0.6931472, dtype=float32)

    Reference: Cao et al. 2007, "Learning to rank: from pairwise approach to listwise approach", section 4.
    """
    s, y, _, mask = distributions("ranking_softmax_loss", "logits", logits, labels, -1, where)
    if weights is not None:
        y = y * fitted("ranking_softmax_loss", s, "weights", weights)
    lists = None if mask is None else jnp.any(mask, axis=-1)
    none = False if lists is None else ~lists[..., None]
    normalizer = jax.nn.logsumexp(s, axis=-1, keepdims=True, where=None if mask is None else mask | none)
    losses = -jnp.sum(weighed(y, s - normalizer), axis=-1)
    if reduce_fn is None:
        return losses
    if reduce_fn is jnp.mean:
        count = jnp.asarray(losses.size, losses.dtype) if lists is None else jnp.sum(lists.astype(losses.dtype))
        return jnp.sum(losses) / jnp.maximum(count, jnp.ones_like(count))
    return jnp.asarray(reduce_fn(losses, where=lists))
