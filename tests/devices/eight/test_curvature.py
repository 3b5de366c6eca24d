"""Every statistic of curvature on 8 devices against the same on one."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AxisType, NamedSharding
from jax.sharding import PartitionSpec as P

from jaxnn import backprop, losses, models, per_example
from jaxnn.layers import Conv, Dense, Embedding, Flatten, Layer, LayerNorm, MaxPool, Tanh
from tests.backprop.checking import relative
from tests.devices.eight.test_tape import EXACT, MINE, mesh, slow_pairs
from tests.helpers import float64, slow

N = 16


class Problem(NamedTuple):
    net: Layer
    loss: Any
    params: Any
    state: Any
    x: Any
    y: Any


def problem(name: str) -> Problem:
    """ "images" and "words" have parameters with all kinds of uses; others are losses, each with its kind of root."""
    rng = np.random.default_rng(3)
    y: Any = rng.uniform(0, 1, (N, 4))
    if name == "images":
        net: Layer = models.serial(Conv(4, 3), MaxPool(2), Tanh, Flatten, MINE, Dense(4))
        shape, loss, y = (6, 6, 2), losses.softmax_cross_entropy, rng.integers(0, 4, N).astype(np.int32)
    elif name == "words":
        net, shape = models.serial(Embedding(7, 4), Dense(4), LayerNorm(), Flatten, Dense(4)), (3,)
        loss = losses.log_cosh  # its root comes from eigenvectors
    else:
        net, shape, loss = models.mlp([5, 8, 4]), (5,), getattr(losses, name)
    dtype = jnp.int32 if name == "words" else jnp.float64
    params, state = jax.eval_shape(lambda key: net.init(key, jax.ShapeDtypeStruct(shape, dtype)), jax.random.key(0))
    params = jax.tree.map(lambda p: rng.standard_normal(p.shape), params)
    x = rng.integers(0, 7, (N, *shape)) if name == "words" else rng.standard_normal((N, *shape))
    return Problem(net, loss, params, state, x.astype(dtype), y)


def curvature(p: Problem) -> Callable[..., Any]:
    """(params, x, y, key) -> means over examples, the same of sampled columns, and what has a row for each example."""

    def found(params: Any, x: Any, y: Any, key: Any) -> tuple[Any, Any, Any]:
        columns = backprop.ggn_record(p.net, p.loss)(params, p.state, x, y)
        sampled = backprop.ggn_record(p.net, p.loss, samples=3)(params, p.state, x, y, key=key)
        outputs = backprop.output_record(p.net)(params, p.state, x)
        tape = backprop.record(p.net, p.loss)(params, p.state, x, y)
        fisher = per_example.diag_fisher if losses.is_likelihood(p.loss) else per_example.diag_ggn
        means = {
            "diagonals": (per_example.diag_ggn(columns), fisher(columns), per_example.empirical_fisher_diag(tape)),
            "trace": per_example.trace(columns),
            "kfac": (per_example.kfac_expand(columns), per_example.kfac_reduce(columns)),
        }
        rows = {
            "ntk": per_example.ntk(outputs),
            "norms of a column": per_example.norms(columns.at(1)),
            "norms of all columns": per_example.norms(columns.as_examples()),
            "losses": columns.tape.losses,
            "outputs": columns.tape.outputs,
        }
        return means, per_example.diag_ggn(sampled), rows

    return found


MESHES = [
    (AxisType.Explicit, "mse"),
    *slow_pairs(AxisType.Explicit, "images", "words", "sigmoid_binary_cross_entropy"),
    *slow_pairs(AxisType.Auto, "images", "words"),
]


@pytest.mark.parametrize(("axis", "name"), MESHES)
def test_examples_and_parameters_sharded_over_a_mesh(axis: AxisType, name: str) -> None:
    """The numbers of one device; no mesh is set. Rows stay with their examples, diagonals with the parameters."""
    with float64():
        p = problem(name)
        every, key, where = curvature(p), jax.random.key(1), mesh(axis, (4, 2))

        def put(x: Any, *spec: Any) -> Any:
            return jax.device_put(x, NamedSharding(where, P(*spec)))

        alone = jax.jit(lambda *a: every(*a))(p.params, p.x, p.y, key)
        params = jax.tree.map(lambda w: put(w, *(None,) * (w.ndim - 1), "model") if w.ndim > 1 else put(w), p.params)
        together = jax.jit(lambda *a: every(*a))(params, put(p.x, "data"), put(p.y, "data"), key)
        assert relative(together, alone) <= EXACT
        if axis is AxisType.Explicit:
            for row in jax.tree.leaves(together[2]):
                assert row.sharding.spec[0] == "data"
            for diagonal in (*together[0]["diagonals"], together[1]):
                for d, w in zip(jax.tree.leaves(diagonal), jax.tree.leaves(params), strict=True):
                    assert d.sharding.is_equivalent_to(w.sharding, w.ndim)


@pytest.mark.parametrize("name", ["mse", *slow("images", "words", "sigmoid_binary_cross_entropy")])
def test_inside_shard_map_curvature_is_of_the_devices_own_examples(name: str) -> None:
    """Default checks, replicated parameters: the means of the devices' means are those of one device."""
    with float64():
        p = problem(name)
        every, key = curvature(p), jax.random.key(1)

        def own(params: Any, x: Any, y: Any, key: Any) -> Any:
            found = every(params, x, y, jax.random.fold_in(key, jax.lax.axis_index("data")))
            whole = backprop.output_record(p.net)(params, p.state, jax.lax.all_gather(x, "data", tiled=True))
            rows = per_example.ntk(backprop.output_record(p.net)(params, p.state, x), whole)
            return jax.tree.map(lambda x: jnp.asarray(x)[None], found), rows, jax.lax.pmean(found[0], "data")

        shard = jax.shard_map(
            own,
            mesh=mesh(AxisType.Auto, (4, 2)),
            in_specs=(P(), P("data"), P("data"), P()),
            out_specs=(P("data"), P("data"), P()),
        )
        each, rows, means = jax.jit(shard)(p.params, p.x, p.y, key)
        alone = jax.jit(lambda *a: every(*a))
        keys = [jax.random.fold_in(key, i) for i in range(4)]
        parts = [alone(p.params, p.x[4 * i : 4 * i + 4], p.y[4 * i : 4 * i + 4], keys[i]) for i in range(4)]
        assert relative(each, jax.tree.map(lambda *x: np.stack(x), *parts)) <= EXACT
        whole = alone(p.params, p.x, p.y, key)
        assert relative((means, rows), (whole[0], whole[2]["ntk"])) <= EXACT


def test_each_device_forms_its_own_rows_of_the_kernel() -> None:
    """An eighth of the products; all of them were formed on every device."""
    net = models.mlp([64, 64, 4])
    params, state = jax.eval_shape(lambda key: net.init(key, (64,)), jax.random.key(0))
    x, where = jax.ShapeDtypeStruct((64, 64), jnp.float32), mesh(AxisType.Auto)

    def flops(*args: Any) -> Any:
        kernel = jax.jit(lambda params, x: per_example.ntk(backprop.output_record(net)(params, state, x)))
        return kernel.lower(*args).compile().cost_analysis()["flops"]

    def shard(leaf: Any, *spec: str) -> Any:
        return jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=NamedSharding(where, P(*spec)))

    assert flops(jax.tree.map(shard, params), shard(x, "data")) < flops(params, x) / 4


def test_gathered_columns_raise() -> None:
    net = models.linear(3)
    params, state = jax.eval_shape(lambda key: net.init(key, (2,)), jax.random.key(0))

    def kernel(params: Any, x: Any) -> Any:
        columns = backprop.output_record(net)(params, state, x)
        gathered = jax.tree.map(lambda x: jax.lax.all_gather(x, "data", tiled=True), columns)
        return per_example.ntk(columns, gathered)

    sharded = jax.shard_map(kernel, mesh=mesh(AxisType.Auto), in_specs=(P(), P("data")), out_specs=P("data"))
    with pytest.raises(ValueError, match="gather the inputs"):
        jax.eval_shape(sharded, params, jax.ShapeDtypeStruct((8, 2), jnp.float32))
