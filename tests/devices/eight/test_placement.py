"""New arrays lie where the old ones do, and computations that no type can place run on meshes with Explicit axes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AxisType, NamedSharding
from jax.sharding import PartitionSpec as P

from jaxnn import placement, tree
from jaxnn.placement import compiler_sharded, full_like, vector_along
from tests.helpers import slow


def divided(kind: AxisType, x: Any, *spec: str | None) -> jax.Array:
    return jax.device_put(x, NamedSharding(jax.make_mesh((8,), ("x",), axis_types=(kind,)), P(*spec)))


@pytest.mark.parametrize(
    ("kind", "jit"),
    [(AxisType.Auto, True), (AxisType.Explicit, False), *slow((AxisType.Auto, False), (AxisType.Explicit, True))],
)
def test_full_like_is_divided_as_its_model(kind: AxisType, jit: bool) -> None:
    transform = jax.jit if jit else lambda f: f
    x = divided(kind, np.float32([[np.nan, 1.0]] * 8), "x")
    for found in transform(lambda x: (full_like(x, 0.5), full_like(x, 0.5, jnp.bfloat16)))(x):
        assert found.sharding.is_equivalent_to(x.sharding, 2)
        np.testing.assert_array_equal(np.asarray(found, np.float32), 0.5)
    along = transform(lambda x: (vector_along(x, 0), vector_along(x, 1)))(x)
    assert [v.shape for v in along] == [(8,), (2,)]
    assert [v.addressable_shards[0].data.size for v in along] == [1, 2]
    np.testing.assert_array_equal(np.asarray(along[0]), 0)


def test_full_like_has_no_derivative_and_may_be_mapped_over() -> None:
    def filled(x: Any, fill: Any) -> Any:
        return jnp.sum(x * full_like(x, fill))

    assert [float(jnp.sum(g)) for g in jax.jit(jax.grad(filled, (0, 1)))(np.ones(3, np.float32), 2.0)] == [6.0, 3.0]
    one = np.ones(2, np.float32)
    over_fills, over_models = jax.jit(
        lambda fills, x: (jax.vmap(lambda fill: full_like(one, fill))(fills), jax.vmap(lambda x: full_like(x, 3.0))(x))
    )(np.float32([0, 1]), np.ones((2, 2), np.float32))
    np.testing.assert_array_equal(over_fills, [[0, 0], [1, 1]])
    np.testing.assert_array_equal(over_models, np.full((2, 2), 3.0))


@pytest.mark.parametrize(
    "transform", [lambda f: jax.jit(jax.grad(lambda x: jnp.sum(f(x)))), *slow(jax.jit, lambda f: f)]
)
def test_what_no_type_can_place_is_left_to_the_compiler(transform: Callable[[Any], Any]) -> None:
    """A product over the divided axis of both its operands, with a number of the mesh and one of none beside it."""

    def product(x: Any) -> Any:
        total = jnp.sum(x)
        return compiler_sharded(lambda x, total, factor: factor * total * (x @ (x.T @ x)), x, x, total, 0.5)

    values = np.arange(16.0, dtype=np.float32).reshape(8, 2)
    found = transform(product)(divided(AxisType.Explicit, values, "x"))
    assert found.sharding.spec == P("x", None)
    np.testing.assert_allclose(found, transform(product)(jnp.asarray(values)), rtol=1e-5)
    x = divided(AxisType.Explicit, values, "x")
    parts = jax.jit(lambda x: compiler_sharded(lambda x: (x.T @ x, x), (None, x), x))(x)
    assert [part.sharding.is_fully_replicated for part in parts] == [True, False]
    with pytest.raises(Exception, match="harded"):  # it is indeed what a type cannot place
        x.T @ x


@pytest.mark.parametrize("kind", [AxisType.Explicit, *slow(AxisType.Auto)])
def test_packed_parameters_are_divided_evenly_and_unpacked_where_they_lay(kind: AxisType) -> None:
    params = {
        "w": divided(kind, np.arange(32, dtype=np.float32).reshape(8, 4), "x"),
        "v": divided(kind, np.arange(16, dtype=np.float32).reshape(2, 8), None, "x"),
        "half": divided(kind, np.ones(3, jnp.bfloat16)),
    }

    def packed(params: Any) -> Any:
        buffers, unpack = tree.pack(params)
        slopes = jax.grad(lambda buffers: jnp.sum(unpack(buffers)["w"] ** 2))(buffers)
        return buffers, slopes, unpack(buffers)

    buffers, slopes, again = jax.jit(packed)(params)
    np.testing.assert_array_equal(buffers["float32"], [*range(16), *range(32)])
    np.testing.assert_array_equal(slopes["float32"], [0] * 16 + [2 * i for i in range(32)])
    for name, p in params.items():
        np.testing.assert_array_equal(again[name], p)
    if kind == AxisType.Explicit:
        assert buffers["float32"].addressable_shards[0].data.shape == (6,)
        assert all(again[name].sharding.is_equivalent_to(p.sharding, p.ndim) for name, p in params.items())


def test_a_batch_has_at_most_as_many_shards_as_its_mesh_has_devices() -> None:
    """On Auto and Explicit axes; inside `shard_map` an array is on one device."""
    x = np.ones((16, 3), np.float32)

    def counted(x: Any) -> Any:
        return x * placement.shards((x, None))

    assert np.max(counted(x)) == 1
    for axis in (AxisType.Auto, AxisType.Explicit):
        mesh = jax.make_mesh((4, 2), ("data", "model"), axis_types=(axis, axis))
        assert np.max(jax.jit(counted)(jax.device_put(x, NamedSharding(mesh, P("data"))))) == 8
        with jax.set_mesh(mesh):
            assert np.max(jax.jit(counted)(x)) == 8
    mesh = jax.make_mesh((4, 2), ("data", "model"), axis_types=(AxisType.Auto,) * 2)
    for names, expected in (({"data", "model"}, 1), ({"data"}, 2)):
        own = jax.shard_map(counted, mesh=mesh, in_specs=P("data"), out_specs=P("data"), axis_names=names)
        assert np.max(jax.jit(own)(x)) == expected
