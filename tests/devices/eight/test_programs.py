"""Compiled programs of the hand-written backward pass on inputs sharded over 8 devices against the same on one."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AxisType
from jax.sharding import PartitionSpec as P

from jaxnn import backprop, losses, models
from jaxnn.layers import BatchNorm, Conv, Dense, Dropout, Flatten, Relu
from tests.backprop.checking import relative
from tests.helpers import float64
from tests.per_example.programs import LOSS, NETS, PROGRAMS, program, shapes

pytestmark = pytest.mark.slow

COUPLED = models.serial(Conv(4, 3), BatchNorm(), Relu, Flatten, Dropout(0.3), Dense(10))
"""Its batch statistics go over all devices, its dropout mask is that of the whole batch."""

N = 32


def drawn(leaf: Any, rng: np.random.Generator) -> Any:
    if jnp.issubdtype(leaf.dtype, jnp.integer):
        return jnp.asarray(rng.integers(0, 10, leaf.shape), leaf.dtype)
    return jnp.asarray(rng.standard_normal(leaf.shape) / 2)


def difference(f: Any, *arguments: Any) -> tuple[float, Any]:
    """(the largest relative difference of both results, the sharded one); float64."""
    params, state, x, y = arguments
    # A new function for each: one compiled for arguments on one device is not asked again.
    alone = jax.jit(lambda *a: f(*a))(params, state, x, y)
    with jax.set_mesh(jax.make_mesh((8,), ("examples",), axis_types=(AxisType.Auto,))):
        params, state = jax.device_put((params, state), P())
        x, y = jax.device_put((x, y), P("examples"))
        together = jax.jit(lambda *a: f(*a))(params, state, x, y)
    return relative(together, alone), together


@pytest.mark.parametrize("net", NETS)
def test_inputs_sharded_over_eight_devices_give_the_same_numbers(net: str) -> None:
    """1e-12 of the largest entry: sums over examples are added in another order. Norms stay with their examples."""
    rng = np.random.default_rng(0)
    with float64():
        arguments = jax.tree.map(lambda leaf: drawn(leaf, rng), shapes(net, N))
        for name in PROGRAMS:
            gap, found = difference(program(net, name), *arguments)
            assert gap <= 1e-12, name
            if name == "norms":
                assert len({str(shard.index) for shard in found.addressable_shards}) == 8


@pytest.mark.parametrize("remat_every", [None, 2])
def test_layers_that_couple_examples_see_those_of_all_devices(remat_every: int | None) -> None:
    rng = np.random.default_rng(0)
    with float64():
        x = jax.ShapeDtypeStruct((N, 6, 6, 2), jnp.float64)
        params, state = jax.eval_shape(
            lambda: COUPLED.init(jax.random.key(0), jax.ShapeDtypeStruct(x.shape[1:], x.dtype))
        )
        labels = jax.ShapeDtypeStruct((N,), jnp.int32)
        arguments = jax.tree.map(lambda leaf: drawn(leaf, rng), (params, state, x, labels))
        vg = backprop.value_and_grad(COUPLED, LOSS, losses.l2(0.1), remat_every=remat_every)
        assert difference(lambda *a: vg(*a, key=jax.random.key(1)), *arguments)[0] <= 1e-12
