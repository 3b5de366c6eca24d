"""Microbatches, losses under optax's names, trees and projections of sharded arrays give the numbers of one device."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AxisType, NamedSharding, PartitionSpec

from jaxnn import losses, projections, tree
from jaxnn.microbatching import AccumulationType, microbatch
from tests.helpers import assert_close, slow

X = np.random.default_rng(0).standard_normal((32, 3)).astype(np.float32)
PIECES = microbatch(lambda x: (jnp.sum(x**2), jnp.sin(x)), 0, 8, (AccumulationType.SUM, AccumulationType.CONCAT))


def anywhere(x: Any) -> list[Any]:
    """What runs on Auto and on Explicit axes."""
    return [
        PIECES(x),
        losses.huber_loss(x),
        losses.softmax_cross_entropy(logits=x, labels=jax.nn.softmax(x), axis=-1),
        losses.cosine_similarity(x, x + 1),
        [tree.norm({"x": x}), tree.vdot(x, x), tree.scale(0.5, x)],
        tree.random_like(jax.random.key(0), {"x": x})["x"],
        projections.projection_l2_ball({"x": x}),
        projections.nearest_in_simplex(x),
    ]


def by_labels(x: Any) -> list[Any]:
    """Where labels or masks meet the batch: on Explicit axes these need `jax.sharding.auto_axes`."""
    labels = jnp.arange(x.shape[0]) % 3
    return [
        losses.softmax_cross_entropy_with_integer_labels(x, labels),
        losses.multiclass_sparsemax_loss(x, labels),
        losses.ntxent(x, labels),
        losses.ranking_softmax_loss(x, jnp.abs(x), where=x > 0),
        projections.projection_simplex({"x": x}),
    ]


@pytest.mark.parametrize("kind", [AxisType.Explicit, *slow(AxisType.Auto)])
def test_sharded_batches(kind: AxisType) -> None:
    mesh = jax.make_mesh((8,), ("d",), axis_types=(kind,))
    with jax.set_mesh(mesh):
        x = jax.device_put(X, NamedSharding(mesh, PartitionSpec("d", None)))
        got = jax.jit(anywhere)(x)
        assert got[1].sharding.spec[0] == "d" or kind is AxisType.Auto
        other = jax.jit(by_labels)(x) if kind is AxisType.Auto else None
    assert_close(jax.device_get(got), jax.device_get(jax.jit(anywhere)(X)), rtol=1e-5, atol=1e-6)
    if other is not None:
        assert_close(jax.device_get(other), jax.device_get(jax.jit(by_labels)(X)), rtol=1e-5, atol=1e-6)


def test_pieces_inside_shard_map() -> None:
    mesh = jax.make_mesh((8,), ("d",))
    rows = PartitionSpec("d", None)
    pairs = microbatch(lambda x: (jnp.sum(x**2), jnp.sin(x)), 0, 2, (AccumulationType.SUM, AccumulationType.CONCAT))

    def local(x: Any) -> Any:
        total, each = pairs(x)
        return jax.lax.psum(total, "d"), each

    run = jax.shard_map(local, mesh=mesh, in_specs=rows, out_specs=(PartitionSpec(), rows))
    got = jax.jit(run)(jax.device_put(X, NamedSharding(mesh, rows)))
    assert_close(jax.device_get(got), (np.sum(X**2), np.sin(X)), rtol=1e-5, atol=1e-6)
