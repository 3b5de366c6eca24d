"""Run as a process with 8 host devices: every program on sharded inputs against the same on one device, as JSON."""

from __future__ import annotations

import functools
import json
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from jaxnn import backprop, losses, models, per_example
from jaxnn.layers import BatchNorm, Conv, Dense, Dropout, Flatten, Relu
from tests.backprop.checking import relative
from tests.per_example.programs import LOSS, NETS, PROGRAMS, program, shapes
from tests.per_example.recording.losses import make

COUPLED = models.serial(Conv(4, 3), BatchNorm(), Relu, Flatten, Dropout(0.3), Dense(10))
"""Its batch statistics go over all devices, its dropout mask is that of the whole batch."""

N = 32


def drawn(leaf: Any, rng: np.random.Generator) -> Any:
    if jnp.issubdtype(leaf.dtype, jnp.integer):
        return jnp.asarray(rng.integers(0, 10, leaf.shape), leaf.dtype)
    return jnp.asarray(rng.standard_normal(leaf.shape) / 2)


def differences(f: Any, params: Any, state: Any, x: Any, y: Any, **more: Any) -> tuple[float, Any]:
    """(the largest relative difference of both results, the sharded one)."""
    mesh = Mesh(np.array(jax.devices()), ("examples",))
    spread, everywhere = (NamedSharding(mesh, PartitionSpec(*axes)) for axes in (("examples",), ()))
    # A new function for each: one compiled for arguments on one device is not asked again.
    alone = jax.jit(lambda *a: f(*a, **more))(params, state, x, y)
    params, state = jax.device_put((params, state), everywhere)
    x, y = jax.device_put((x, y), spread)
    assert len(x.sharding.device_set) == 8
    together = jax.jit(lambda *a: f(*a, **more))(params, state, x, y)
    return relative(together, alone), together


def shapes_of_coupled() -> tuple[Any, ...]:
    x = jax.ShapeDtypeStruct((N, 6, 6, 2), jnp.float64)
    params, state = jax.eval_shape(lambda: COUPLED.init(jax.random.key(0), jax.ShapeDtypeStruct(x.shape[1:], x.dtype)))
    return params, state, x, jax.ShapeDtypeStruct((N,), jnp.int32)


def recorded_statistics(loss: Any, params: Any, state: Any, x: Any, y: Any) -> Any:
    """Norms, which stay with their examples, and sums over all of them."""
    tape = per_example.record(loss)(params, x, y)
    return per_example.norms(tape), per_example.clipped_grad(tape, 0.5), per_example.variance(tape)


def main() -> None:
    rng = np.random.default_rng(0)
    gaps, devices = {}, {}
    for net in NETS:
        arguments = jax.tree.map(lambda leaf: drawn(leaf, rng), shapes(net, N))
        for name in PROGRAMS:
            gaps[f"{net}, {name}"], found = differences(program(net, name), *arguments)
            if name == "norms":
                devices[net] = len({str(shard.index) for shard in found.addressable_shards})
    arguments = jax.tree.map(lambda leaf: drawn(leaf, rng), shapes_of_coupled())
    vg, call = backprop.value_and_grad(COUPLED, LOSS, losses.l2(0.1)), {"key": jax.random.key(1)}
    for name in ("attention", "scanned_blocks", "fallbacks"):
        made = make(name, N)
        f = functools.partial(recorded_statistics, made.loss)
        gaps[f"recorded {name}"], found = differences(f, made.params, (), *made.data)
        devices[f"recorded {name}"] = len({str(shard.index) for shard in found[0].addressable_shards})
    gaps["coupled"], _ = differences(vg, *arguments, **call)
    gaps["coupled, remat"], _ = differences(backprop.value_and_grad(COUPLED, LOSS, remat_every=2), *arguments, **call)
    print(json.dumps({"devices": jax.device_count(), "gaps": gaps, "devices of norms": devices}))


if __name__ == "__main__":
    main()
