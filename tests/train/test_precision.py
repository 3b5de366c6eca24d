"""Mixed precision: products on half-precision operands, float32 around them, and scaled losses in float16."""

from __future__ import annotations

import functools
import itertools
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxnn import activations, backprop, data, layers, losses, metrics, models, optim, per_example, train
from jaxnn.layers import BatchNorm, Conv, Dense, Flatten, GroupNorm, LayerNorm, MaxPool, Relu, RMSNorm
from jaxnn.train.precision import without_skipped
from tests.helpers import assert_close, float64, random, slow
from tests.train.problems import KEY, LOSS, NET, D, K, classification

HALVES = (jnp.bfloat16, jnp.float16)
EPS = {jnp.bfloat16: 2.0**-8, jnp.float16: 2.0**-11}
TOKENS = jax.ShapeDtypeStruct((7,), jnp.int32)
NETS: dict[str, tuple[Any, Any]] = {
    "mlp": (NET, (D,)),
    "cnn": (
        models.serial(Conv(4, 3), BatchNorm(), Relu, MaxPool(2), Conv(6, 3), GroupNorm(2), Relu, Flatten, Dense(K)),
        (12, 12, 2),
    ),
    "transformer": (models.transformer(20, depth=2, width=16, heads=2), TOKENS),
    "stacked": (models.transformer(20, depth=2, width=16, heads=2, stacked=True), TOKENS),
    "rnn": (models.recurrent(20, 16, cell=layers.RNN), TOKENS),
    "lstm": (models.recurrent(20, 16), TOKENS),
    "gru": (models.recurrent(20, 16, cell=layers.GRU), TOKENS),
    "linear recurrence": (models.recurrent(20, 16, cell=layers.LinearRecurrence), TOKENS),
}


@functools.cache
def batch(name: str, n: int = 6) -> tuple[Any, Any, Any, Any]:
    """Parameters, state, x and y."""
    net, example = NETS[name]
    params, state = jax.jit(net.init, static_argnums=1)(KEY, example)
    rng = np.random.default_rng(0)
    if example is TOKENS:
        x = rng.integers(0, 20, (n, 7))
        return params, state, x, np.roll(x, -1, 1)
    return params, state, rng.standard_normal((n, *example)).astype(np.float32), rng.integers(0, K, n)


WAYS: dict[str, Callable[[Any], Any]] = {
    "jax.grad": lambda net: jax.value_and_grad(train.mean_loss(net, LOSS), has_aux=True),
    "backprop": lambda net: backprop.value_and_grad(net, LOSS),
    "per_example": lambda net: train.per_example_vg(net, LOSS),
}
PAIRS = [
    (name, way)
    for name in NETS
    for way in WAYS
    if way != "per_example" or name in ("mlp", "transformer", "stacked", "lstm")
]
QUICK = [("mlp", "jax.grad"), ("mlp", "backprop")]
ALL = [*QUICK, *slow(*(pair for pair in PAIRS if pair not in QUICK))]


@functools.cache
def way_of(name: str, way: str) -> Any:
    return WAYS[way](NETS[name][0])


def operands(vg: Any, *args: Any, platform: str) -> list[tuple[str, ...]]:
    """The dtypes of the operands of every product and convolution, as lowered for a platform."""
    text = jax.jit(lambda *args: vg(*args, key=KEY)).trace(*args).lower(lowering_platforms=(platform,)).as_text()
    found = re.findall(r"stablehlo\.(?:dot_general|convolution).*: \(tensor<(\S+)>, tensor<(\S+)>\) ->", text)
    return [tuple(kind.split("x")[-1] for kind in pair) for pair in found]


@pytest.mark.parametrize(("name", "way"), [("mlp", "jax.grad"), *slow(*PAIRS[1:])])
def test_all_products_have_half_precision_operands(name: str, way: str) -> None:
    vg, args = way_of(name, way), batch(name)
    for platform in ("cuda", "tpu"):
        for compute, short in zip(HALVES, ("bf16", "f16"), strict=True):
            found = operands(train.precision(vg, compute), *args, platform=platform)
            assert len(found) >= 5
            assert set(found) == {(short, short)}
        assert set(operands(vg, *args, platform=platform)) == {("f32", "f32")}, "what is looked for is found"


@pytest.mark.parametrize(("name", "way"), ALL)
def test_dtypes_and_errors_of_value_and_gradient(name: str, way: str) -> None:
    vg, (params, state, x, y) = way_of(name, way), batch(name)
    with float64():
        wide = jax.tree.map(lambda a: a.astype(np.float64) if a.dtype == np.float32 else a, (params, state, x))
        (value, *_), exact = jax.jit(vg)(*wide, y, key=KEY)
    for compute in HALVES:
        scale = {"loss_scale": jnp.float32(128)} if compute == jnp.float16 else {}
        (got, new, *more), grads = jax.jit(functools.partial(train.precision(vg, compute), **scale))(
            params, state, x, y, key=KEY
        )
        assert got.dtype == jnp.float32
        assert jax.tree.map(jnp.result_type, (new, grads)) == jax.tree.map(jnp.result_type, (state, params))
        assert all(leaf.dtype == jnp.float32 for leaf in jax.tree.leaves(more))
        np.testing.assert_allclose(got, value, rtol=8 * EPS[compute])
        assert relative(grads, exact) < 8 * EPS[compute]
        (single, *_), _ = jax.jit(vg)(params, state, x, y, key=KEY)
        assert got != single, "nothing was computed in half precision"


def relative(got: Any, exact: Any) -> float:
    """The norm of the error of a pytree of gradients over that of the exact ones."""
    g, e = (np.concatenate([np.ravel(np.asarray(p, np.float64)) for p in jax.tree.leaves(t)]) for t in (got, exact))
    return float(np.linalg.norm(g - e) / np.linalg.norm(e))


@pytest.mark.slow
def test_gradients_are_no_worse_than_those_of_flax_in_bfloat16() -> None:
    nn = pytest.importorskip("flax.linen", reason="flax is not installed: pip install flax")
    sizes = (64, 64, K)

    def dense(dtype: Any, wide: Any) -> Any:
        parts = [nn.Dense(size, dtype=dtype, param_dtype=wide) for size in sizes]
        return nn.Sequential([parts[0], nn.tanh, parts[1], nn.tanh, parts[2]])

    ours = models.serial(Dense(64), layers.Tanh, Dense(64), layers.Tanh, Dense(K))
    found: dict[str, list[float]] = {"ours": [], "backprop": [], "flax": []}
    for seed in range(10):
        x, y = classification(seed, 64)
        params, _ = ours.init(jax.random.key(seed), (D,))
        theirs = {
            f"layers_{i}": {"kernel": p["w"], "bias": p["b"]} for i, p in zip((0, 2, 4), params[::2], strict=True)
        }

        def value(module: Any, params: Any, x: Any = x, y: Any = y) -> Any:
            return LOSS(module.apply({"params": params}, x), y).astype(np.float64).mean()

        with float64():
            wide = jax.tree.map(lambda p: p.astype(np.float64), theirs)
            exact = jax.grad(functools.partial(value, dense(jnp.float64, jnp.float64)))(wide, x.astype(np.float64))
        of_flax = jax.grad(lambda p, x=x, y=y: LOSS(dense(jnp.bfloat16, jnp.float32).apply({"params": p}, x), y).mean())
        found["flax"].append(relative(of_flax(theirs), exact))
        for name, way in (("ours", "jax.grad"), ("backprop", "backprop")):
            grads = train.precision(WAYS[way](ours))(params, (), x, y)[1]
            named = {
                f"layers_{i}": {"kernel": g["w"], "bias": g["b"]} for i, g in zip((0, 2, 4), grads[::2], strict=True)
            }
            found[name].append(relative(named, exact))
    mean = {name: np.mean(errors) for name, errors in found.items()}
    assert mean["ours"] <= 1.1 * mean["flax"], mean
    assert mean["backprop"] <= 1.1 * mean["flax"], mean
    assert mean["flax"] < 2 * EPS[jnp.bfloat16], mean


@pytest.mark.slow
def test_models_of_flax_and_equinox_run_in_half_precision() -> None:
    nn = pytest.importorskip("flax.linen", reason="flax is not installed: pip install flax")
    eqx = pytest.importorskip("equinox", reason="equinox is not installed: pip install equinox")
    x, y = classification()
    for net in (
        train.from_flax(nn.Sequential([nn.Dense(8), nn.LayerNorm(), nn.relu, nn.Dense(K)])),
        train.from_equinox(lambda key: eqx.nn.MLP(D, K, width_size=8, depth=1, key=key)),
    ):
        vg = train.precision(jax.value_and_grad(train.mean_loss(net, LOSS), has_aux=True))
        params, state = net.init(KEY, (D,))
        assert set(operands(vg, params, state, x, y, platform="cuda")) == {("bf16", "bf16")}
        result = train.fit(net, LOSS, optim.adam(1e-2), (x, y), key=KEY, epochs=5, batch_size=10, value_and_grad=vg,
                           progress=False)  # fmt: skip
        assert result.history[-1]["loss"] < result.history[0]["loss"]
        assert {leaf.dtype for leaf in jax.tree.leaves(result.params)} == {jnp.dtype(jnp.float32)}


@pytest.mark.parametrize("way", ["backprop", *slow("jax.grad", "per_example")])
def test_a_loss_scale_leaves_no_trace_in_float32(way: str) -> None:
    """A power of two changes no digits: value, state, statistics and gradients are the same."""
    params, state, x, y = batch("mlp")
    regularizer = losses.l2(0.1)
    vg = {
        "jax.grad": lambda: jax.value_and_grad(train.mean_loss(NET, LOSS, regularizer), has_aux=True),
        "backprop": lambda: backprop.value_and_grad(NET, LOSS, regularizer),
        "per_example": lambda: train.per_example_vg(NET, LOSS, regularizer=regularizer),
    }[way]()
    for weights in (None, np.array([1, 2, 0, 1, 0.5, 1], np.float32)):
        plain = jax.jit(vg)(params, state, x, y, weights=weights)
        run = jax.jit(functools.partial(train.precision(vg, jnp.float32), weights=weights))
        # Other programs: the compiler may add in another order.
        assert_close(run(params, state, x, y), plain, rtol=1e-6, atol=1e-7)
        assert_close(run(params, state, x, y, loss_scale=jnp.float32(256)), plain, rtol=1e-6, atol=1e-7)
        times = jax.tree.map(lambda g: 256 * g, plain[1])
        assert_close(
            jax.jit(vg)(params, state, x, y, weights=weights, loss_scale=jnp.float32(256))[1],
            times,
            rtol=1e-6,
            atol=1e-5,
        )


@pytest.mark.slow
def test_statistics_are_those_of_gradients_without_the_scale() -> None:
    params, state, x, y = batch("mlp")
    direction = jax.tree.map(jnp.ones_like, params)
    statistics = {
        "norms": per_example.SqNorms(), "margin": per_example.Margin(), "second": per_example.SecondMoment(),
        "along": per_example.Directional(direction), "projected": per_example.Projection(KEY, 8),
    }  # fmt: skip
    vg = jax.jit(train.per_example_vg(NET, LOSS, statistics))
    plain = vg(params, state, x, y)[0][2]
    assert_close(vg(params, state, x, y, loss_scale=jnp.float32(64))[0][2], plain, rtol=1e-5, atol=1e-6)

    class Own(per_example.SqNorms):
        degree = None

    with pytest.raises(ValueError, match="how Own changes with the scale of the gradients"):
        train.per_example_vg(NET, LOSS, Own())(params, state, x, y, loss_scale=jnp.float32(64))


@pytest.mark.parametrize("way", ["jax.grad", *slow("backprop", "per_example")])
def test_small_gradients_survive_in_float16_with_a_scale_alone(way: str) -> None:
    """Derivatives of the loss of 1e-8 are 0 in float16."""
    net = models.serial(Dense(2), layers.Tanh, Dense(1))
    x, (params, state) = random(1, 64, 3, dtype=np.float32), net.init(KEY, (3,))
    y = net.predict(params, state, x.astype(np.float16)) * 0

    def loss(outputs: Any, targets: Any) -> Any:
        return 1e-8 * losses.half_squared_error(outputs + 1, targets)

    vg = {
        "jax.grad": lambda: jax.value_and_grad(train.mean_loss(net, loss), has_aux=True),
        "backprop": lambda: backprop.value_and_grad(net, loss),
        "per_example": lambda: train.per_example_vg(net, loss),
    }[way]()
    exact = jax.jit(vg)(params, state, x, y)[1]
    half = jax.jit(train.precision(vg, jnp.float16))
    assert relative(half(params, state, x, y)[1], exact) == 1
    assert relative(half(params, state, x, y, loss_scale=jnp.float32(2.0**24))[1], exact) < 0.01


NORMED = models.serial(Dense(8), BatchNorm(), Relu, Dense(K))


def scaled_steps(initial: float, steps: int, **how: Any) -> tuple[list[train.TrainState], list[dict[str, float]]]:
    """The states and reports of some steps in float16, on one batch."""
    vg = train.precision(jax.value_and_grad(train.mean_loss(NORMED, LOSS), has_aux=True), jnp.float16)
    opt = optim.dynamic_loss_scale(optim.adam(1e-2), initial, **how)
    step, (x, y) = train.make_step(vg, opt, measure=train.grad_norm), classification()
    states, reports = [train.init(NORMED, opt, KEY, (D,))], []
    for _ in range(steps):
        ts, report = step(jax.tree.map(jnp.copy, states[-1]), x, y)
        states.append(ts)
        reports.append({name: float(value) for name, value in report.items()})
    return states, reports


def test_steps_that_overflow_are_skipped_counted_and_halve_the_scale() -> None:
    initial = 2.0**24
    states, reports = scaled_steps(initial, 12)
    skipped = [report["skipped_steps"] for report in reports]
    count = int(sum(skipped))
    assert skipped == [1.0] * count + [0.0] * (12 - count)
    assert 1 <= count < 10
    assert [report["loss_scale"] for report in reports[: count + 1]] == [initial / 2**i for i in range(count + 1)]
    for before, after in itertools.pairwise(states[: count + 1]):
        chex.assert_trees_all_equal((after.params, after.state), (before.params, before.state))
        chex.assert_trees_all_equal(after.opt_state.inner_state, before.opt_state.inner_state)
    assert states[count].opt_state.skipped_steps == count
    moved = jax.tree.map(lambda a, b: float(jnp.max(abs(a - b))), states[-1][:2], states[count][:2])
    assert min(jax.tree.leaves(moved)) > 0
    assert reports[-1]["loss"] < reports[0]["loss"]
    # The loss is reported as it is, and the gradient without the scale.
    _, single = scaled_steps(8.0, 1)
    np.testing.assert_allclose(reports[count]["grad_norm"], single[0]["grad_norm"], rtol=1e-2)
    np.testing.assert_allclose(reports[0]["loss"], single[0]["loss"], rtol=1e-6)


def test_the_scale_doubles_after_a_period() -> None:
    _, reports = scaled_steps(4.0, 7, period=3)
    assert [report["loss_scale"] for report in reports] == [4, 4, 4, 8, 8, 8, 16]
    assert not any(report["skipped_steps"] for report in reports)


def test_the_history_of_a_fit_has_the_skipped_steps() -> None:
    net, (x, y) = models.mlp([D, 8, K]), classification()
    vg = train.precision(backprop.value_and_grad(net, LOSS), jnp.float16)
    opt = optim.dynamic_loss_scale(optim.adam(1e-2), 2.0**24)
    result = train.fit(net, LOSS, opt, (x, y), key=KEY, epochs=4, batch_size=10, value_and_grad=vg, progress=False)
    assert result.history[0]["skipped_steps"] > 0
    assert result.history[-1]["skipped_steps"] == 0
    total = round(sum(record["skipped_steps"] * 5 for record in result.history))
    assert int(result.opt_state.skipped_steps) == total
    assert all(leaf.dtype == jnp.float32 for leaf in jax.tree.leaves(result.params))
    swept = train.sweep(lambda s: optim.dynamic_loss_scale(optim.adam(s["rate"]), 2.0**24), {"rate": np.array([1e-2])},
                        net, LOSS, (x, y), keys=KEY[None], epochs=4, batch_size=10, value_and_grad=vg,
                        progress=False)  # fmt: skip
    assert swept.diverged.tolist() == [0]
    for name in ("loss", "skipped_steps", "loss_scale"):
        np.testing.assert_allclose(swept.curves[name][0], [record[name] for record in result.history], rtol=1e-4)


def test_pieces_whose_steps_are_all_skipped_are_no_divergence(tmp_path: Path) -> None:
    x, y = classification()
    x[5] = 1e6  # in float16 infinite: the step of its batch is skipped in each epoch
    vg = train.precision(jax.value_and_grad(train.mean_loss(NET, LOSS), has_aux=True), jnp.float16)
    how: dict[str, Any] = {"key": KEY, "epochs": 2, "batch_size": 10, "value_and_grad": vg, "progress": False}
    whole = train.fit(NET, LOSS, optim.dynamic_loss_scale(optim.sgd(0.1)), (x, y), **how)
    assert whole.history[0]["skipped_steps"] > 0
    by_steps = train.fit(
        NET, LOSS, optim.dynamic_loss_scale(optim.sgd(0.1)), (x, y), **how, folder=tmp_path, save_every=1
    )
    chex.assert_trees_all_equal(by_steps[:3], whole[:3])
    every = train.fit(NET, LOSS, optim.dynamic_loss_scale(optim.sgd(0.1)), (x, y), **how | {"batch_size": 50})
    assert [record["skipped_steps"] for record in every.history] == [1, 1]
    assert not np.isfinite(every.history[0]["loss"])


def test_a_skipped_loss_does_not_count_unless_the_scale_is_one() -> None:
    report = {
        "loss": np.float32([np.inf, 2, 4, np.nan]), "examples": np.float32([8, 8, 8, 8]),
        "skipped_steps": np.float32([1, 0, 0, 1]), "loss_scale": np.float32([8, 4, 4, 1]),
    }  # fmt: skip
    for array in (np.asarray, jnp.asarray):
        found = without_skipped({name: array(values) for name, values in report.items()})
        # The last step, at scale 1, is one of the others: its NaN stays, and so is the mean.
        assert np.isnan(found["loss"][3])
        finite = {name: array(values[:3]) for name, values in report.items()}
        np.testing.assert_array_equal(without_skipped(finite)["loss"], [3, 2, 4])
        np.testing.assert_array_equal(without_skipped(finite)["skipped_steps"], report["skipped_steps"][:3])
        alone = {name: array(values[:1]) for name, values in report.items()}
        assert np.isinf(without_skipped(alone)["loss"][0])
    assert without_skipped({"loss": report["loss"]})["loss"] is report["loss"]


@pytest.mark.slow
def test_a_forward_pass_that_overflows_at_scale_one_is_divergence() -> None:
    x, y = classification()
    vg = train.precision(jax.value_and_grad(train.mean_loss(NET, LOSS), has_aux=True), jnp.float16)
    opt = optim.dynamic_loss_scale(optim.adam(1e-2), 2.0)
    fit = functools.partial(train.fit, NET, LOSS, opt, key=KEY, batch_size=10, value_and_grad=vg, progress=False)
    with pytest.raises(train.DivergedError, match="the training loss became nan at step"):
        fit((1e30 * x, y), epochs=2)


@pytest.mark.slow
def test_functions_of_the_parameters_that_an_optimizer_gets_are_not_scaled() -> None:
    def update(updates: Any, state: Any, params: Any = None, *, value_fn: Any, grad_fn: Any, **extra: Any) -> Any:
        by_value, by_grad = jax.grad(value_fn)(params), grad_fn(params)
        assert_close(by_value, updates, rtol=0.05, atol=1e-3)
        chex.assert_trees_all_equal(by_grad, updates)
        return jax.tree.map(lambda g: -0.1 * g, updates), state

    x, y = classification()
    own = optim.GradientTransformationExtraArgs(lambda params: (), update)
    opt = optim.dynamic_loss_scale(own, 64.0)
    vg = train.precision(jax.value_and_grad(train.mean_loss(NET, LOSS), has_aux=True), jnp.float16)
    with jax.disable_jit():
        train.make_step(vg, opt)(train.init(NET, opt, KEY, (D,)), x, y)


def test_what_does_not_divide_by_the_scale_raises() -> None:
    x, y = classification()
    plain = jax.value_and_grad(train.mean_loss(NET, LOSS), has_aux=True)
    opt = optim.dynamic_loss_scale(optim.sgd(0.1))
    ts = train.init(NET, opt, KEY, (D,))
    with pytest.raises(TypeError, match=r"dynamic_loss_scale needs gradients that are divided by its scale.*precision"):
        train.make_step(plain, opt)(ts, x, y)

    def own(params: Any, state: Any, x: Any, y: Any, *, key: Any = None, weights: Any = None) -> Any:
        return plain(params, state, x, y, key=key, weights=weights)

    with pytest.raises(TypeError, match="needs a function with the argument loss_scale"):
        train.make_step(train.precision(own, jnp.float16), opt)(ts, x, y)
    train.make_step(train.precision(own), optim.sgd(0.1))(train.init(NET, optim.sgd(0.1), KEY, (D,)), x, y)
    with pytest.raises(TypeError, match="compute must have a floating dtype, got int32"):
        train.precision(own, jnp.int32)
    with pytest.raises(TypeError, match="vg must be a function"):
        train.precision(3)


@pytest.mark.parametrize("compute", [jnp.float16, *slow(jnp.bfloat16)])
def test_half_precision_weights_with_master_weights(compute: Any) -> None:
    x, y = classification()
    params, state = jax.tree.map(lambda p: p.astype(compute), NET.init(KEY, (D,)))
    inner = optim.adam(1e-3) if compute == jnp.bfloat16 else optim.dynamic_loss_scale(optim.adam(1e-3))
    opt = optim.master_weights(inner)
    vg = train.precision(jax.value_and_grad(train.mean_loss(NET, LOSS), has_aux=True), compute)
    start = jax.tree.map(jnp.copy, train.TrainState(params, state, opt.init(params)))
    result = train.fit(NET, LOSS, opt, (x, y), key=KEY, epochs=10, batch_size=10, value_and_grad=vg, start=start,
                       progress=False)  # fmt: skip
    assert all(leaf.dtype == compute for leaf in jax.tree.leaves(result.params))
    assert all(leaf.dtype == jnp.float32 for leaf in jax.tree.leaves(result.opt_state.master))
    single = train.fit(NET, LOSS, optim.adam(1e-3), (x, y), key=KEY, epochs=10, batch_size=10, progress=False,
                       start=train.init(NET, optim.adam(1e-3), jax.random.split(KEY)[0], (D,)))  # fmt: skip
    drop = [r.history[0]["loss"] - r.history[-1]["loss"] for r in (result, single)]
    assert drop[0] > 0.5 * drop[1] > 0


def test_gradients_of_float16_weights_stay_float32_with_a_scale() -> None:
    params, state, x, y = batch("mlp")
    half = jax.tree.map(lambda p: p.astype(jnp.float16), params)
    vg = jax.jit(train.precision(way_of("mlp", "jax.grad"), jnp.float16))
    kinds = [jax.tree.leaves(vg(half, state, x, y, **how)[1])[0].dtype for how in ({}, {"loss_scale": jnp.float32(2)})]
    assert kinds == [jnp.float16, jnp.float32]


@pytest.mark.slow
def test_ensembles_and_sweeps_are_fits_and_averages_are_evaluated() -> None:
    x, y = classification()
    vg = train.precision(backprop.value_and_grad(NET, LOSS))
    how: dict[str, Any] = {"epochs": 3, "batch_size": 10, "value_and_grad": vg}
    opt = optim.average_params(optim.adam(1e-2), 0.9)
    keys = jax.random.split(KEY, 2)
    evaluated: dict[str, Any] = {"validation": (x, y), "evaluated_at": optim.averaged_params}
    fits = [train.fit(NET, LOSS, opt, (x, y), key=key, progress=False, **evaluated, **how) for key in keys]
    several, _ = train.ensemble(NET, LOSS, opt, (x, y), keys=keys, **how)
    swept = train.sweep(lambda s: optim.average_params(optim.adam(s["rate"]), 0.9), {"rate": np.array([1e-2])}, NET,
                        LOSS, (x, y), keys=keys, progress=False, **how)  # fmt: skip
    for i, fit in enumerate(fits):
        # Batched products round differently: by one unit of bfloat16 here and there.
        assert_close(jax.tree.map(lambda leaf, i=i: leaf[i], several.params), fit.params, rtol=0.05, atol=0.01)
        np.testing.assert_allclose(swept.curves["loss"][i], [r["loss"] for r in fit.history], rtol=0.01)
        average = optim.averaged_params(fit.opt_state, fit.params)
        at_average = train.evaluate(NET, average, fit.state, x, y, {"loss": LOSS})["loss"]
        np.testing.assert_allclose(fit.history[-1]["validation_loss"], at_average, rtol=1e-6)
        trained = train.evaluate(NET, fit.params, fit.state, x, y, {"loss": LOSS})["loss"]
        assert abs(trained - at_average) > 1e-4


def test_equal_arguments_make_one_function() -> None:
    vg = way_of("mlp", "jax.grad")
    assert train.precision(vg) == train.precision(vg, jnp.bfloat16) != train.precision(vg, jnp.float16)
    assert hash(train.precision(vg)) == hash(train.precision(vg, "bfloat16"))


@pytest.mark.slow
def test_rematerialized_networks_have_the_same_gradients() -> None:
    params, state, x, y = batch("transformer")
    net = NETS["transformer"][0]
    plain = jax.jit(train.precision(backprop.value_and_grad(net, LOSS)))(params, state, x, y)
    saving = jax.jit(train.precision(backprop.value_and_grad(net, LOSS, remat_every=1)))(params, state, x, y)
    assert_close(saving, plain, rtol=2 * EPS[jnp.bfloat16], atol=1e-3)
    checkpointed = jax.checkpoint(train.mean_loss(net, LOSS))
    by_jax = jax.jit(train.precision(jax.value_and_grad(checkpointed, has_aux=True)))(params, state, x, y)
    plain = jax.jit(train.precision(way_of("transformer", "jax.grad")))(params, state, x, y)
    assert_close(by_jax, plain, rtol=2 * EPS[jnp.bfloat16], atol=1e-3)


@pytest.mark.slow
@pytest.mark.parametrize("compute", [jnp.bfloat16, jnp.float16])
def test_statistics_of_norms_softmax_and_losses_are_float32(compute: Any) -> None:
    """They are those of the rounded inputs in float64, rounded once."""
    x = (3 + random(5, 64, 16)).astype(compute)
    wide = x.astype(np.float64)
    with float64():
        for layer in (BatchNorm(), LayerNorm(), GroupNorm(4), RMSNorm()):
            (params, state), (half, own) = (
                layer.init(KEY, jax.ShapeDtypeStruct((16,), jnp.float64)),
                layer.init(KEY, (16,)),
            )
            exact, expected = layer.apply(params, state, wide, train=True)
            got, new = layer.apply(jax.tree.map(lambda p: p.astype(compute), half), own, x, train=True)
            assert got.dtype == compute
            assert all(leaf.dtype == jnp.float32 for leaf in jax.tree.leaves(new))
            np.testing.assert_allclose(np.asarray(got, np.float64), exact, rtol=1.01 * EPS[compute], atol=1e-6)
            assert_close(new, expected, rtol=1e-6)
        np.testing.assert_allclose(
            np.asarray(activations.softmax(x), np.float64), activations.softmax(wide), rtol=1.01 * EPS[compute]
        )
        labels = np.arange(64) % 16
        for loss, targets in (
            (losses.softmax_cross_entropy, labels),
            (losses.mse, np.zeros_like(wide)),
            (losses.sigmoid_binary_cross_entropy, np.ones_like(wide)),
        ):
            narrow = targets if targets is labels else targets.astype(np.float32)
            mean = train.mean_loss(layers.stateless(layers.Kind("same"), lambda params, x: x), loss)
            value = mean((), (), x, narrow)[0]
            assert value.dtype == jnp.float32
            np.testing.assert_allclose(value, np.mean(loss(wide, targets)), rtol=2e-6)


@pytest.mark.slow
def test_digits_in_bfloat16_reach_the_error_of_float32() -> None:
    digits = data.load("digits")
    net = models.mlp([64, 64, 10])
    errors = []
    for vg in (None, train.precision(backprop.value_and_grad(net, LOSS))):
        ts, _ = train.ensemble(net, LOSS, optim.adam(3e-3), digits.train, keys=jax.random.split(KEY, 10), epochs=15,
                               batch_size=64, value_and_grad=vg)  # fmt: skip
        logits = jax.vmap(net.predict, (0, 0, None))(ts.params, ts.state, digits.test.x)
        errors.append(np.array([metrics.error_rate(each, digits.test.y).mean() for each in logits]))
    assert errors[0].mean() < 0.06
    assert errors[1].mean() <= errors[0].mean() + errors[0].std(ddof=1), errors
