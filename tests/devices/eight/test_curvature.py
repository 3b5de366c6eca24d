"""Every statistic of curvature on 8 devices against the same on one."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AxisType
from jax.sharding import PartitionSpec as P

from jaxnn import backprop, losses, models, per_example
from jaxnn.layers import Conv, Dense, Embedding, Flatten, Layer, LayerNorm, MaxPool, Tanh
from tests.backprop.checking import relative
from tests.devices.eight.test_tape import EXACT, MINE, mesh, slow
from tests.helpers import float64

N = 16


class Problem(NamedTuple):
    net: Layer
    loss: Any
    params: Any
    state: Any
    x: Any
    y: Any


def problem(name: str) -> Problem:
    """Of each kind of use of a parameter, and of each kind of root of a loss's Hessian."""
    rng = np.random.default_rng(3)
    labels = jnp.asarray(rng.integers(0, 4, N), jnp.int32)
    targets = jnp.asarray(rng.uniform(0, 1, (N, 4)))
    if name == "images":
        net: Layer = models.serial(Conv(3, 3), MaxPool(2), Tanh, Flatten, MINE, Dense(4))
        shape, loss, y = (6, 6, 2), losses.softmax_cross_entropy, labels
    elif name == "words":
        net, shape = models.serial(Embedding(7, 4), Dense(4), LayerNorm(), Flatten, Dense(4)), (3,)
        loss, y = losses.log_cosh, targets  # its root comes from eigenvectors
    else:
        net, shape, loss, y = models.mlp([5, 8, 4]), (5,), getattr(losses, name), targets
    dtype = jnp.int32 if name == "words" else jnp.float64
    params, state = net.init(jax.random.key(0), jax.ShapeDtypeStruct(shape, dtype))
    params = jax.tree.map(lambda p: jnp.asarray(rng.standard_normal(p.shape)), params)
    x = rng.integers(0, 7, (N, *shape)) if name == "words" else rng.standard_normal((N, *shape))
    return Problem(net, loss, params, state, jnp.asarray(x, dtype), y)


def curvature(p: Problem) -> Callable[..., Any]:
    """(params, x, y, key) -> what is summed over examples, and what has a row for each."""

    def found(params: Any, x: Any, y: Any, key: Any) -> tuple[Any, Any]:
        columns = backprop.ggn_record(p.net, p.loss)(params, p.state, x, y)
        sampled = backprop.ggn_record(p.net, p.loss, samples=3)(params, p.state, x, y, key=key)
        outputs = backprop.output_record(p.net)(params, p.state, x)
        sums = {
            "diag_ggn": per_example.diag_ggn(columns),
            "diag_ggn sampled": per_example.diag_ggn(sampled),
            "trace": per_example.trace(columns),
            "kfac_expand": per_example.kfac_expand(columns),
            "kfac_reduce": per_example.kfac_reduce(columns),
            "empirical_fisher_diag": per_example.empirical_fisher_diag(
                backprop.record(p.net, p.loss)(params, p.state, x, y)
            ),
        }
        if losses.is_likelihood(p.loss):
            sums["diag_fisher"] = per_example.diag_fisher(columns)
        rows = {
            "ntk": per_example.ntk(outputs),
            "norms of one column": per_example.norms(columns.at(1)),
            "losses": columns.tape.losses,
            "outputs": columns.tape.outputs,
        }
        return sums, rows

    return found


NAMES = ["images", *slow("words", "sigmoid_binary_cross_entropy", "mse")]


@pytest.mark.parametrize("axis", [AxisType.Explicit, AxisType.Auto])
@pytest.mark.parametrize("name", NAMES)
def test_examples_sharded_over_a_mesh(axis: AxisType, name: str) -> None:
    with float64():
        p = problem(name)
        every, key = curvature(p), jax.random.key(1)
        alone = jax.jit(lambda *a: every(*a))(p.params, p.x, p.y, key)
        with jax.set_mesh(mesh(axis)):
            data = jax.device_put((p.x, p.y), P("data"))
            together = jax.jit(lambda *a: every(*a))(jax.device_put(p.params, P()), *data, key)
        assert relative(together, alone) <= EXACT


@pytest.mark.parametrize("name", NAMES)
def test_inside_shard_map_curvature_is_of_the_devices_own_examples(name: str) -> None:
    """Default checks, replicated parameters; psum over the devices gives the sums of one device."""
    with float64():
        p = problem(name)
        every, key = curvature(p), jax.random.key(1)

        def own(params: Any, x: Any, y: Any, key: Any) -> Any:
            found = every(params, x, y, key)
            return jax.tree.map(lambda x: jnp.asarray(x)[None], found), jax.lax.pmean(found[0], "data")

        specs = (P(), P("data"), P("data"), P())
        spread = jax.shard_map(own, mesh=mesh(AxisType.Auto, (4, 2)), in_specs=specs, out_specs=(P("data"), P()))
        each, mean = jax.jit(spread)(p.params, p.x, p.y, key)
        alone = jax.jit(lambda *a: every(*a))
        parts = [alone(p.params, p.x[i : i + 4], p.y[i : i + 4], key) for i in range(0, N, 4)]
        assert relative(each, jax.tree.map(lambda *x: jnp.stack(x), *parts)) <= EXACT
        whole = alone(p.params, p.x, p.y, key)[0]
        for linear in ("diag_ggn", "trace", "empirical_fisher_diag"):
            assert relative(mean[linear], whole[linear]) <= EXACT
