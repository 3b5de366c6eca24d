"""Decoding on 8 devices: prompts sharded over them give the tokens of one device."""

from __future__ import annotations

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AxisType, NamedSharding
from jax.sharding import PartitionSpec as P

from jaxnn import models
from jaxnn.layers import Layer
from tests.backprop.checking import spread_out
from tests.devices.eight.test_tape import mesh
from tests.helpers import slow

N, V = 8, 7
PROMPT = np.random.default_rng(0).integers(0, V, (N, 3)).astype(np.int32)
NETS: dict[str, Layer] = {
    "transformer": models.transformer(V, width=8, depth=2, heads=2),
    "stacked": models.transformer(V, width=8, depth=2, heads=2, stacked=True),
    "lstm": models.recurrent(V, 6),
}


@pytest.mark.parametrize("name", ["transformer", *slow("stacked", "lstm")])
@pytest.mark.parametrize("kind", [AxisType.Auto, *slow(AxisType.Explicit)])
def test_sharded_prompts_are_continued_as_on_one_device(name: str, kind: Any) -> None:
    net = NETS[name]
    example = jax.ShapeDtypeStruct((3,), jnp.int32)
    shapes, state = jax.eval_shape(lambda: net.init(jax.random.key(0), example))
    params = jax.tree.map(lambda p: np.asarray(p, np.float32), spread_out(shapes, 5))
    run = jax.jit(functools.partial(models.generate, net, count=6, temperature=0.0))
    alone = np.asarray(run(params, state, PROMPT))
    shared = mesh(kind)
    rows = jax.device_put(PROMPT, NamedSharding(shared, P(shared.axis_names[0])))
    everywhere = jax.device_put(params, NamedSharding(shared, P()))
    with jax.set_mesh(shared):
        found = run(everywhere, state, rows)
    np.testing.assert_array_equal(found, alone)
    assert not (found == alone[::-1]).all()


@pytest.mark.parametrize("name", ["lstm", *slow("transformer", "stacked")])
@pytest.mark.parametrize("kind", [AxisType.Explicit, *slow(AxisType.Auto)])
def test_a_state_from_begin_takes_sharded_tokens(name: str, kind: Any) -> None:
    """Piece by piece: the outputs of the whole on one device, and a state sharded as the tokens."""
    net = NETS[name]
    shapes, state = jax.eval_shape(lambda: net.init(jax.random.key(0), jax.ShapeDtypeStruct((3,), jnp.int32)))
    params = jax.tree.map(lambda p: np.asarray(p, np.float32), spread_out(shapes, 5))
    alone = jax.jit(net.predict)(params, state, PROMPT)
    shared = mesh(kind)
    with jax.set_mesh(shared):
        rows = jax.device_put(PROMPT, NamedSharding(shared, P(shared.axis_names[0])))
        everywhere = jax.device_put(params, NamedSharding(shared, P()))
        begun = models.begin(net, everywhere, state, N, 3)
        step = jax.jit(net.apply)
        first, begun = step(everywhere, begun, rows[:, :2])
        last, _ = step(everywhere, begun, rows[:, 2:])
    np.testing.assert_allclose(np.concatenate([first, last], 1), alone, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", ["transformer", *slow("stacked", "lstm")])
def test_inside_shard_map_each_device_continues_its_own_prompts(name: str) -> None:
    """Each stops by itself: the rows end at different steps."""
    net = NETS[name]
    example = jax.ShapeDtypeStruct((3,), jnp.int32)
    shapes, state = jax.eval_shape(lambda: net.init(jax.random.key(0), example))
    params = jax.tree.map(lambda p: np.asarray(p, np.float32), spread_out(shapes, 5))
    run = functools.partial(models.generate, net, count=6, temperature=0.0, stop=3)
    alone = np.asarray(jax.jit(run)(params, state, PROMPT))
    place = {"mesh": mesh(AxisType.Auto), "in_specs": (P(), P("data")), "out_specs": P("data")}
    found = jax.jit(jax.shard_map(lambda params, rows: run(params, state, rows), **place))(params, PROMPT)
    np.testing.assert_array_equal(found, alone)
