"""Training on 8 devices gives the numbers of one: any number of runs, sharded data and parameters on both meshes."""

from __future__ import annotations

import functools
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AxisType, NamedSharding
from jax.sharding import PartitionSpec as P

from jaxnn import losses, metrics, models, optim, train
from jaxnn.data import Partial, take
from jaxnn.layers import BatchNorm, Dense, Dropout, Layer, Relu
from tests.helpers import slow

DATA = np.linspace(-1.0, 1.0, 12, dtype=np.float32)


def run(given: Any, x: Any) -> Any:
    rate, key = given
    return {"sum": jnp.sum(jnp.sin(rate * x)), "noise": rate + jax.random.normal(key, (2,))}


def inputs(n: int) -> Any:
    return np.linspace(0.1, 1.0, 17, dtype=np.float32)[:n], jax.random.split(jax.random.key(0), 17)[:n]


@pytest.fixture(scope="module")
def one_by_one() -> Any:
    return jax.device_get(jax.jit(jax.vmap(run, (0, None)))(inputs(17), DATA))


def assert_runs(found: Any, one_by_one: Any, n: int) -> None:
    for name, values in one_by_one.items():
        np.testing.assert_allclose(found[name], values[:n], rtol=1e-6, err_msg=f"{n} runs: {name}")


@pytest.mark.parametrize("numbers", [(7, 17), *slow(range(1, 18))])
def test_any_number_of_runs(numbers: Any) -> None:
    for n in numbers:
        np.testing.assert_array_equal(train.map_runs(lambda r: r * 2, np.arange(n), progress=False), np.arange(n) * 2)


@pytest.mark.parametrize("n", [7, *slow(1)])
def test_runs_with_data_and_keys(n: int, one_by_one: Any) -> None:
    assert_runs(train.map_runs(run, inputs(n), (DATA,), progress=False), one_by_one, n)


@pytest.mark.parametrize("chunk", [3, 12, *slow(1, 8, 16)])
def test_runs_in_chunks_of_fewer_and_more_than_the_devices(chunk: int, one_by_one: Any) -> None:
    asked: list[int] = []
    found = train.map_runs(run, inputs(17), (DATA,), chunk=chunk, progress=lambda done, n: asked.append(done))
    assert_runs(found, one_by_one, 17)
    assert max(np.diff(asked)) == {12: 8}.get(chunk, chunk)


@pytest.mark.parametrize("n", [5, *slow(1)])
def test_inputs_that_make_many_runs_each(n: int, one_by_one: Any) -> None:
    rows = jax.tree.map(lambda leaf: leaf[:, None], inputs(n))
    found = train.map_runs(jax.vmap(run, (0, None)), rows, (DATA,), each=2, chunk=24, progress=False)
    assert_runs(jax.tree.map(lambda leaf: leaf[:, 0], found), one_by_one, n)


def test_chunks_that_fit_into_little_memory(one_by_one: Any) -> None:
    assert_runs(train.map_runs(run, inputs(17), (DATA,), memory=1, progress=False), one_by_one, 17)


def test_a_folder_serves_any_number_of_devices(
    tmp_path: Path, one_by_one: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    devices = jax.local_devices()
    for number, n, runs in ((1, 3, (0, 3)), (8, 8, (3, 11)), (3, 3, (11, 14))):
        monkeypatch.setattr(jax, "local_devices", lambda number=number: devices[:number])

        def stop(done: int, n: int, last: int = runs[1]) -> None:
            if done >= last:
                raise KeyboardInterrupt

        with pytest.raises(KeyboardInterrupt):
            train.map_runs(run, inputs(17), (DATA,), chunk=n, folder=tmp_path, progress=stop)
    monkeypatch.undo()
    assert len(list(tmp_path.iterdir())) == 3
    assert_runs(train.map_runs(run, inputs(17), (DATA,), folder=tmp_path, progress=False), one_by_one, 17)


NET = models.serial(Dense(24), BatchNorm(), Relu, Dropout(0.2), Dense(3))
LOSS = losses.softmax_cross_entropy
# Not Adam: the first bias has gradient 0, for batch normalization comes after, and Adam makes steps of its rounding.
OPT = optim.sgd(0.1, momentum=0.9)
KINDS = {"auto": AxisType.Auto, "explicit": AxisType.Explicit}
FIT = {"key": jax.random.key(0), "epochs": 2, "batch_size": 16, "metrics": {"error": metrics.error_rate}}


def problem() -> tuple[np.ndarray, np.ndarray]:
    x = np.random.default_rng(0).standard_normal((64, 16)).astype(np.float32)
    return x, (x[:, 0] > 0).astype(np.int32) + (x[:, 1] > 0)


def started(net: Layer, opt: optim.Optimizer) -> train.TrainState:
    return initial(net, opt, jax.random.split(FIT["key"])[0])


def mesh_of(kind: str) -> jax.sharding.Mesh:
    return jax.make_mesh((8,), ("data",), axis_types=(KINDS[kind],))


def put(tree: Any, kind: str, split: bool) -> Any:
    """On the mesh: split along the first axis where 8 divides it, or replicated."""

    def spec(leaf: Any) -> P:
        return P("data") if split and leaf.ndim and leaf.shape[0] % 8 == 0 else P()

    return jax.tree.map(lambda leaf: jax.device_put(leaf, NamedSharding(mesh_of(kind), spec(leaf))), tree)


@functools.partial(jax.jit, static_argnums=(0, 1))
def initial(net: Layer, opt: optim.Optimizer, key: Any) -> train.TrainState:
    return train.init(net, opt, key, (16,))


def assert_near(found: Any, expected: Any) -> None:
    for a, b in zip(jax.tree.leaves(found), jax.tree.leaves(expected), strict=True):
        np.testing.assert_allclose(np.asarray(a), np.asarray(b), rtol=1e-4, atol=1e-6)


@pytest.fixture(scope="module")
def alone() -> train.FitResult:
    data = problem()
    return train.fit(NET, LOSS, OPT, data, validation=data, progress=False, **FIT)


@pytest.mark.parametrize(
    ("kind", "data_split", "params_split"),
    [
        ("explicit", True, True),
        *slow(
            ("auto", True, True),
            ("explicit", True, False),
            ("explicit", False, True),
            ("auto", True, False),
            ("auto", False, True),
        ),
    ],
)
def test_fit_on_a_mesh_is_fit_on_one_device(kind: str, data_split: bool, params_split: bool, alone: Any) -> None:
    data, start = put(problem(), kind, data_split), put(started(NET, OPT), kind, params_split)
    found = train.fit(NET, LOSS, OPT, data, validation=data, start=start, progress=False, **FIT)
    assert_near(found[:3], alone[:3])
    for name in ("loss", "validation_loss", "validation_error"):
        np.testing.assert_allclose([r[name] for r in found.history], [r[name] for r in alone.history], rtol=1e-4)
    kernel, trace = found.params[0]["w"], found.opt_state.trace[0]["w"]
    assert kernel.sharding.is_equivalent_to(start.params[0]["w"].sharding, 2)
    assert trace.sharding.is_equivalent_to(kernel.sharding, 2)


@pytest.mark.parametrize("kind", ["explicit", *slow("auto")])
def test_an_epoch_whose_batches_do_not_divide_among_the_devices(kind: str) -> None:
    net, opt = models.mlp([16, 24, 3]), optim.adam(0.01)
    vg = jax.value_and_grad(train.mean_loss(net, LOSS, losses.l2(1e-3)), has_aux=True)
    epoch = train.make_epoch(vg, opt, batch_size=20, partial=Partial.WEIGHT, measure=train.grad_norm)
    expected = epoch(started(net, opt), *problem(), jax.random.key(1))
    found = epoch(put(started(net, opt), kind, True), *put(problem(), kind, True), jax.random.key(1))
    assert_near(found, expected)
    assert found[1]["examples"].tolist() == [20, 20, 20, 4]


def test_examples_are_gathered_where_the_data_lie() -> None:
    x, y = put(problem(), "explicit", True)
    for rows, spec in (([5, 1, 1, 60, 0, 2, 3, 9], P("data")), ([5, 1, 63], P())):
        xs, ys = take((x, y), jnp.array(rows))
        np.testing.assert_array_equal(xs, problem()[0][rows])
        np.testing.assert_array_equal(ys, problem()[1][rows])
        assert ys.sharding.is_equivalent_to(NamedSharding(mesh_of("explicit"), spec), 1)


@pytest.mark.slow
def test_members_and_outputs_on_explicit_axes_are_those_of_one_device() -> None:
    net, opt = models.mlp([16, 24, 3]), optim.sgd(0.05)
    x, y = problem()
    how = {"keys": jax.random.split(jax.random.key(0), 3), "epochs": 2, "batch_size": 16}
    expected = train.ensemble(net, LOSS, opt, (x, y), **how)
    assert_near(train.ensemble(net, LOSS, opt, put((x, y), "explicit", True), **how), expected)
    params, state, _ = started(net, opt)
    placed = put(params, "explicit", True)
    outputs = train.make_outputs(net, batch_size=24)
    found = outputs(placed, state, put(x, "explicit", True))
    assert_near(found, outputs(params, state, x))
    assert found.sharding.is_equivalent_to(NamedSharding(mesh_of("explicit"), P("data")), 2)
    with jax.set_mesh(mesh_of("explicit")):
        assert_near(train.evaluate(net, placed, state, x, y, {"loss": LOSS}),
                    train.evaluate(net, params, state, x, y, {"loss": LOSS}))  # fmt: skip


def on_one_device(monkeypatch: pytest.MonkeyPatch) -> None:
    one = jax.local_devices()[:1]
    monkeypatch.setattr(jax, "local_devices", lambda: one)
    monkeypatch.setattr(jax, "local_device_count", lambda: 1)


@pytest.mark.parametrize("settings", slow(3, 9))
def test_a_sweep_of_any_number_of_runs(settings: int, monkeypatch: pytest.MonkeyPatch) -> None:
    net, rates, data = models.mlp([16, 8, 3]), {"rate": np.linspace(0.01, 0.1, settings)}, problem()
    how: dict[str, Any] = {"keys": jax.random.split(jax.random.key(0), 1), "epochs": 2, "batch_size": 16}
    found = train.sweep(
        lambda s: optim.sgd(s["rate"]), rates, net, LOSS, put(data, "explicit", True), progress=False, **how
    )
    on_one_device(monkeypatch)
    expected = train.sweep(lambda s: optim.sgd(s["rate"]), rates, net, LOSS, data, progress=False, **how)
    np.testing.assert_allclose(found.curves["loss"], expected.curves["loss"], rtol=1e-5)


@pytest.mark.slow
def test_a_race_is_the_race_of_one_device(monkeypatch: pytest.MonkeyPatch) -> None:
    from jaxnn.compare.race import race

    how: dict[str, Any] = {
        "learning_rates": "1e-3,1e-2,1e-1",
        "seeds": 3,
        "epochs": 3,
        "ways_on": (),
        "progress": False,
    }
    found = race("sgd,adam", "quadratic", **how)
    on_one_device(monkeypatch)
    for a, b in zip(found.results, race("sgd,adam", "quadratic", **how).results, strict=True):
        assert (a.optimizer, a.rate) == (b.optimizer, b.rate)
        np.testing.assert_allclose(a.final, b.final, rtol=1e-5)


@pytest.mark.parametrize("kind", [AxisType.Explicit, *slow(AxisType.Auto)])
def test_statistics_of_per_example_gradients(kind: AxisType) -> None:
    """`per_example_vg` on a mesh: the numbers of one device, rows sharded as the examples."""
    net = models.mlp([6, 8, 3])
    params, state = net.init(jax.random.key(0), (6,))
    x, y = np.random.default_rng(0).standard_normal((16, 6)).astype(np.float32), np.arange(16) % 3
    weights = np.r_[np.ones(13), np.zeros(3)].astype(np.float32)
    vg = jax.jit(train.per_example_vg(net, losses.softmax_cross_entropy, regularizer=losses.l2(0.1)))
    mesh = jax.make_mesh((8,), ("data",), axis_types=(kind,))

    def place(a: Any, *spec: Any) -> Any:
        return jax.device_put(a, NamedSharding(mesh, P(*spec)))

    rows = place(x, "data"), place(y, "data")
    (value, _, found), grads = vg(jax.tree.map(place, params), state, *rows, weights=place(weights, "data"))
    assert found.values.sharding.spec == P("data")
    (expected, _, one), one_grads = vg(params, state, x, y, weights=weights)
    got = jax.tree.leaves((value, grads, found))
    for a, b in zip(got, jax.tree.leaves((expected, one_grads, one)), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6)


@pytest.mark.slow
def test_statistics_inside_shard_map_are_those_of_the_device() -> None:
    net = models.mlp([6, 8, 3])
    params, state = net.init(jax.random.key(0), (6,))
    x, y = np.random.default_rng(0).standard_normal((16, 6)).astype(np.float32), np.arange(16) % 3
    weights = np.r_[np.ones(13), np.zeros(3)].astype(np.float32)
    loss, penalty = losses.softmax_cross_entropy, losses.l2(0.1)
    vg = train.per_example_vg(net, loss, regularizer=penalty)
    plain = jax.value_and_grad(train.mean_loss(net, loss, penalty), has_aux=True)
    mesh, rows = jax.make_mesh((8,), ("data",), axis_types=(AxisType.Auto,)), P("data")

    def local(params: Any, x: Any, y: Any, weights: Any) -> Any:
        (value, _, found), grads = vg(params, state, x, y, weights=weights)
        (expected, _), expected_grads = plain(params, state, x, y, weights=weights)
        return (value[None], grads), (expected[None], expected_grads), found.values

    spec = (rows, P())
    mapped = jax.shard_map(local, mesh=mesh, in_specs=(P(), rows, rows, rows), out_specs=(spec, spec, rows))
    ours, expected, squares = jax.jit(mapped)(params, x, y, weights)
    for a, b in zip(jax.tree.leaves(ours), jax.tree.leaves(expected), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(squares, vg(params, state, x, y, weights=weights)[0][2].values, rtol=1e-5)
