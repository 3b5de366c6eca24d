"""Collectives of programs compiled for 8 devices, as the reader of compiled programs counts them."""

from __future__ import annotations

import functools

import jax
import jax.numpy as jnp
from jax.sharding import NamedSharding
from jax.sharding import PartitionSpec as P

from tests.devices import hlo


def read(f: object, *args: jax.ShapeDtypeStruct) -> hlo.Program:
    return hlo.read(jax.jit(f).lower(*args).compile().as_text(), "cpu")


def test_collectives_of_shard_map_times_the_turns_of_their_loop() -> None:
    mesh = jax.make_mesh((8,), ("data",), axis_types=(jax.sharding.AxisType.Auto,))

    @functools.partial(jax.shard_map, mesh=mesh, in_specs=P("data"), out_specs=P("data"), check_vma=False)
    def f(x: jax.Array) -> jax.Array:
        def body(c: jax.Array, _: None) -> tuple[jax.Array, None]:
            return jnp.tanh(jax.lax.psum(c, "data")), None

        x, _ = jax.lax.scan(body, x, None, length=3)
        x = jax.lax.ppermute(x, "data", [(i, (i + 1) % 8) for i in range(8)])
        x = jax.lax.all_gather(x, "data", tiled=True)
        return jax.lax.all_to_all(jnp.tanh(x), "data", 0, 0, tiled=True)

    found = read(f, jax.ShapeDtypeStruct((64, 4), jnp.float32))
    assert found.collectives == {"all-reduce": 3, "collective-permute": 1, "all-gather": 1, "all-to-all": 1}
    assert [loop.trips for loop in found.loops] == [3]


def test_a_gradient_on_shards_of_the_batch_has_one_reduction_and_an_eighth_of_the_products() -> None:
    mesh = jax.make_mesh((8,), ("data",), axis_types=(jax.sharding.AxisType.Auto,))
    rows, whole = NamedSharding(mesh, P("data")), NamedSharding(mesh, P())

    def loss(w: jax.Array, x: jax.Array) -> jax.Array:
        return jnp.sum(jnp.tanh(x @ w))

    w = jax.ShapeDtypeStruct((16, 32), jnp.float32, sharding=whole)
    x = jax.ShapeDtypeStruct((64, 16), jnp.float32, sharding=rows)
    found = read(jax.grad(loss), w, x)
    assert found.collectives == {"all-reduce": 1}
    assert found.all_flops == 2 * 2 * 8 * 16 * 32
