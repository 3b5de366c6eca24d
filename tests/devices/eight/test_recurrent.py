"""Recurrent networks with their batch sharded over 8 devices against the same on one."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AxisType, NamedSharding
from jax.sharding import PartitionSpec as P

from jaxnn import backprop, losses, models, per_example
from jaxnn.layers import GRU, LSTM, RNN, Dense, Embedding, LinearRecurrence, Padding, Reversed, Values
from tests.backprop.checking import relative, spread_out
from tests.helpers import float64

NET = models.serial(
    Padding(0), Embedding(7, 3), LSTM(3), models.parallel(GRU(2), Reversed(RNN(2))), GRU(3, reset_after=False),
    LinearRecurrence(3), Dense(3), Values,
)  # fmt: skip
N, T = 16, 5


def everything(params: Any, state: Any, x: Any, y: Any) -> Any:
    """The gradient, the state, and norms and clipped sum of the examples."""
    loss = losses.softmax_cross_entropy
    tape = backprop.record(NET, loss)(params, (), x, y)
    return backprop.value_and_grad(NET, loss)(params, state, x, y), per_example.clipped_grad(tape, 0.5)


def given() -> tuple[Any, ...]:
    rng = np.random.default_rng(0)
    example = jax.ShapeDtypeStruct((T,), jnp.int32)
    params = spread_out(jax.eval_shape(lambda: NET.init(jax.random.key(0), example)[0]), 3)
    state = spread_out(models.begin(NET, params, (), N), 50)
    x, y = (rng.integers(0, high, (N, T)).astype(np.int32) for high in (7, 3))
    return params, state, x, y


@pytest.mark.parametrize("axis", [AxisType.Auto, AxisType.Explicit])
def test_a_sharded_batch_gives_the_numbers_of_one_device(axis: AxisType) -> None:
    with float64():
        params, state, x, y = given()
        alone = jax.jit(everything)(params, state, x, y)
        mesh = jax.make_mesh((8,), ("data",), axis_types=(axis,))
        with jax.set_mesh(mesh):
            params = jax.device_put(params, NamedSharding(mesh, P()))
            state, x, y = jax.device_put((state, x, y), NamedSharding(mesh, P("data")))
            together = jax.jit(lambda *a: everything(*a))(params, state, x, y)
        assert relative(together, alone) <= 1e-12
        assert len({str(shard.index) for shard in together[1][1].addressable_shards}) == 8


def test_inside_shard_map_each_device_has_its_examples() -> None:
    with float64():
        params, state, x, y = given()
        norms = jax.jit(everything)(params, state, x, y)[1][1]
        mesh = jax.make_mesh((8,), ("data",), axis_types=(AxisType.Auto,))
        own = jax.shard_map(
            lambda params, state, x, y: everything(params, state, x, y)[1][1],
            mesh=mesh, in_specs=(P(), P("data"), P("data"), P("data")), out_specs=P("data"),
        )  # fmt: skip
        assert relative(jax.jit(own)(params, state, x, y), norms) <= 1e-12
