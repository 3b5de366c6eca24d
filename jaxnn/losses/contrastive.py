"""Losses between embeddings: normalized temperature-scaled cross-entropy, and the triplet margin.

ValueError: shapes do not match, or norm_degree is not in [1, inf); TypeError: embeddings (anchors, positives,
negatives) are not floating.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp

from jaxnn import checks
from jaxnn.losses.base import absolute, float_info
from jaxnn.losses.cosine_along import unit_along
from jaxnn.losses.optax_form import axes_of, floating
from jaxnn.placement import compiler_sharded
from jaxnn.types import Array, ArrayLike, Scalar


def ntxent(embeddings: ArrayLike, labels: ArrayLike, temperature: Scalar = 0.07) -> Array:
    """NT-Xent: the mean over pairs (i, j) of one label, i != j, of -log (e^(s_ij) / (e^(s_ij) + sum_k e^(s_ik))).

    k runs over the examples with other labels than i; s_ij = cos(x_i, x_j) / temperature, where norms below the root of
    the machine epsilon (of float32 or float64) count as that root: a zero vector has cosine 0 with every other.

    Args:
        embeddings: x (N, D), floating.
        labels: (N,), e.g. integers; two examples with equal labels are a positive pair.
        temperature: > 0; may be traced.

    Returns:
        Scalar, float32 (float64 for float64 embeddings); 0 for a batch without positive pairs.

    Example:
        >>> x = jnp.array([[1.0, 0.0], [1.0, 0.0], [-1.0, 0.0], [-1.0, 0.0]])
        >>> ntxent(x, jnp.array([0, 0, 1, 1]), 1.0)
        Array(0.23954..., dtype=float32)

    Reference: Chen et al. 2020, "A simple framework for contrastive learning of visual representations", equation 1.
    """
    x = floating("ntxent", "embeddings", embeddings)
    group = checks.as_array("ntxent", "labels", labels)
    if x.ndim != 2 or group.shape != x.shape[:1]:
        raise ValueError(
            f"ntxent: embeddings must be (N, D) and labels (N,), one for each, got {x.shape} and {group.shape}."
        )
    # With Explicit axes, the sharding of a product of all pairs of sharded examples is ambiguous.
    return compiler_sharded(_pairwise, None, x, group, jnp.asarray(temperature, x.dtype))


def _pairwise(x: Array, group: Array, temperature: Array) -> Array:
    """The mean over positive pairs of `ntxent`."""
    # Norms are at least sqrt(eps): shorter vectors would have derivatives of up to 1 / |x|.
    unit = unit_along(x, (1,), float_info(x.dtype).eps)
    s = jnp.matmul(unit, unit.T, precision=jax.lax.Precision.HIGHEST) / temperature
    same = group[:, None] == group[None, :]
    rows, columns = (jax.lax.broadcasted_iota(jnp.int32, same.shape, a) for a in (0, 1))
    positive, negative = same & (rows != columns), ~same
    none = ~jnp.any(negative, axis=1, keepdims=True)
    others = jax.nn.logsumexp(s, axis=1, keepdims=True, where=negative | none)
    each = jnp.where(none, jnp.zeros_like(s), jax.nn.softplus(others - s))
    count = jnp.sum(positive.astype(x.dtype))
    return jnp.sum(jnp.where(positive, each, jnp.zeros_like(s))) / jnp.maximum(count, jnp.ones_like(count))


def triplet_margin_loss(
    anchors: ArrayLike,
    positives: ArrayLike,
    negatives: ArrayLike,
    axis: int = -1,
    norm_degree: Scalar = 2,
    margin: Scalar = 1.0,
    eps: Scalar = 1e-6,
) -> Array:
    """Triplet loss: max(0, |a - p| - |a - n| + margin), |x| = (sum_j |x_j|^q + eps)^(1/q).

    The derivative is 0 at the kink.

    Args:
        anchors, positives, negatives: a, p, n of one shape, floating.
        axis: the axis along which the vectors lie.
        norm_degree: q >= 1, finite; may be traced.
        margin: by how much farther away the negative should lie; may be traced.
        eps: >= 0, inside the root; with 0 the derivative of the norm of a zero vector is 0.

    Returns:
        The shape without `axis`, float32 (float64 for float64 anchors).

    Example:
        >>> triplet_margin_loss(jnp.zeros((1, 2)), jnp.zeros((1, 2)), jnp.array([[0.0, 0.5]]), eps=0.0)
        Array([0.5], dtype=float32)

    Reference: Balntas et al. 2016, "Learning local feature descriptors with triplets and shallow convolutional neural
    networks", section 3.
    """
    name = "triplet_margin_loss"
    a, p, n = (
        floating(name, kind, x)
        for kind, x in (("anchors", anchors), ("positives", positives), ("negatives", negatives))
    )
    checks.require_same_shape(name, anchors=a, positives=p, negatives=n)
    checks.require_between(name, "norm_degree", norm_degree, 1, float("inf"), open_high=True)
    axes = axes_of(name, axis, a.ndim)
    q, least = jnp.asarray(norm_degree, a.dtype), jnp.asarray(eps, a.dtype)

    def distance(x: Array) -> Array:
        total = (
            jnp.sum(jnp.square(x) if checks.concrete_number(norm_degree) == 2 else absolute(x) ** q, axis=axes) + least
        )
        # For eps = 0 a root of 0 has no finite derivative: define it as 0.
        zero = total == 0
        root = jnp.where(zero, jnp.ones_like(total), total) ** (1 / q)
        return jnp.where(zero, jnp.zeros_like(total), root)

    slack = distance(a - p.astype(a.dtype)) - distance(a - n.astype(a.dtype)) + jnp.asarray(margin, a.dtype)
    return jnp.where(slack <= 0, jnp.zeros_like(slack), slack)
