"""Private gradients and steps against algorithm 1 of Abadi et al. 2016 written out, and broken versions of it."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import hypothesis
import hypothesis.strategies as st
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import scipy.stats

from jaxnn import backprop, data, losses, models, optim, per_example
from jaxnn.layers import BatchNorm, Dense, Tanh
from jaxnn.per_example import PrivateState, automatic, dp_sgd, private_grad, psac
from jaxnn.per_example.margin import safe_norms
from tests.helpers import assert_close, float64, random, slow, strict
from tests.per_example.cases import gap, vector
from tests.per_example.cases import make as make_case

EXACT = 1e-12
CAUGHT = 0.05
"""What a check must find of a broken version, relative to what is right."""

KEY = jax.random.key(7)


def loss(params: Any, x: Any, y: Any) -> Any:
    """Of one example: x (3,), y ()."""
    hidden = jnp.tanh(params["w"].T @ x + params["b"])
    return 0.5 * jnp.square(jnp.sum(hidden) - y)


def problem(n: int = 7) -> tuple[Any, Any, Any]:
    return {"w": 0.3 * random(0, 3, 2), "b": 0.1 * random(1, 2)}, random(2, n, 3), 3 * random(3, n)


def linear(params: Any, x: Any) -> Any:
    """x . p over all arrays: the gradient of an example is x itself."""
    return sum(jnp.vdot(p, v) for p, v in zip(jax.tree.leaves(params), jax.tree.leaves(x), strict=True))


gradients_of_rows = jax.jit(jax.vmap(jax.grad(loss), (None, 0, 0)))


def rows(params: Any, *data: Any) -> np.ndarray:
    """The gradients of single examples, (N, P) in float64."""
    g = gradients_of_rows(params, *data)
    return np.concatenate([np.asarray(leaf, np.float64).reshape(len(data[0]), -1) for leaf in jax.tree.leaves(g)], 1)


Gradient = Callable[..., Any]
Make = Callable[..., Gradient]
"""(loss, clip, noise_multiplier, batch_size, microbatch_size=None) -> gradient(params, *data, key, weights) -> g~."""


def ours(loss: Any, clip: Any, noise_multiplier: float, batch_size: float, microbatch_size: Any = None) -> Gradient:
    settings = {"clip": clip, "noise_multiplier": noise_multiplier, "batch_size": batch_size}
    found = private_grad(per_example.record(loss), **settings, microbatch_size=microbatch_size)
    return lambda *args, **kwargs: found(*args, **kwargs)[0]


def written_out(fault: str = "") -> Make:
    """Algorithm 1 from the gradients themselves, with one fault."""

    def make(loss: Any, clip: Any, noise_multiplier: float, batch_size: float, microbatch_size: Any = None) -> Gradient:
        def gradient(params: Any, *data: Any, key: Any, weights: Any = None) -> Any:
            n = len(jax.tree.leaves(data)[0])
            size = n if microbatch_size is None else microbatch_size
            w = jnp.ones(n) if weights is None or fault == "padding counts" else weights
            g = jax.vmap(jax.grad(loss), (None, *(0,) * len(data)))(params, *data)
            g = jax.tree.map(lambda v: v.astype(jnp.promote_types(v.dtype, jnp.float32)), g)

            def of(v: Any, like: Any) -> Any:
                return v.reshape(-1, *(1,) * (like.ndim - 1))

            def squares(v: Any) -> Any:
                return jnp.sum(jnp.square(v.reshape(n, -1)), 1)

            whole = sum(squares(v) for v in jax.tree.leaves(g))

            def total(v: Any) -> Any:
                norm = jnp.sqrt(squares(v) if fault == "each array clipped" else whole)
                c = jnp.ones(n) if fault == "sum clipped" else jnp.minimum(1, clip / norm)
                c = jnp.where(norm > clip, c, clip / norm) if fault == "short ones lengthened" else c
                if fault == "NaN times 0":
                    return jnp.sum(of(w * c, v) * v, 0)
                return jnp.sum(jnp.where(of((w > 0) & jnp.isfinite(norm), v), of(c, v) * v, 0), 0)

            sums = jax.tree.map(total, g)
            if fault == "sum clipped":
                norm = jnp.sqrt(sum(jnp.sum(jnp.square(v)) for v in jax.tree.leaves(sums)))
                sums = jax.tree.map(lambda v: jnp.minimum(1, clip / norm) * v, sums)
            deviation = noise_multiplier * (1.0 if fault == "noise without C" else clip)
            deviation /= batch_size if fault == "noise divided twice" else 1
            deviation *= {"noise each microbatch": (n / size) ** 0.5, "variance for deviation": 0.5}.get(fault, 1.0)
            leaves, structure = jax.tree.flatten(sums)
            key = jax.random.key(0) if fault == "one key for all steps" else key
            keys = jax.random.split(key, len(leaves))
            if fault == "one key for all arrays":
                keys = [key] * len(leaves)
            shift = 1.0 if fault == "shifted" else 0.0

            def noise(key: Any, v: Any) -> Any:
                dtype = jnp.bfloat16 if fault == "noise in half precision" else v.dtype
                return (deviation * (shift + jax.random.normal(key, v.shape, dtype))).astype(v.dtype)

            noisy = jax.tree.unflatten(structure, [v + noise(k, v) for k, v in zip(keys, leaves, strict=True)])
            divisor = jnp.sum(w) if fault == "actual batch" else batch_size
            if fault == "sum cast first":
                noisy = jax.tree.map(lambda v, p: v.astype(p.dtype), noisy, params)
            return jax.tree.map(lambda v, p: (v / divisor).astype(p.dtype), noisy, params)

        return gradient

    return make


def clipped_mean_error(make: Make) -> float:
    """Without noise, in float64: a padded batch whose expected size is another than its own."""
    with float64():
        params, x, y = problem()
        g = rows(params, x, y)
        bound = float(np.median(np.linalg.norm(g, axis=1)))
        w = np.array([1, 1, 0, 1, 1, 0, 1.0])
        expected = (w * np.minimum(1, bound / np.linalg.norm(g, axis=1))) @ g / 6.5
        x[2] = np.nan  # padding may hold anything
        got = jax.jit(make(loss, bound, 0.0, 6.5))(params, x, y, key=KEY, weights=w)
        found = vector(got)
        return 1.0 if not np.isfinite(found).all() else gap(found, expected)


def noise_error(make: Make) -> float:
    """How far the noise of two steps, two arrays and two sizes of microbatch is from independent standard normal.

    Of 4,000 numbers a mean has standard error 0.016, a deviation 0.011, a correlation 0.016; each is held to 4 of them,
    which is what 0.05 of 1 is about.
    """
    params = {"a": np.zeros(4000, np.float32), "b": np.zeros((40, 100), np.float32)}
    x = jax.tree.map(lambda p: np.zeros((4, *p.shape), np.float32), params)
    drawn = []
    for size in (None, 2):
        gradient = jax.jit(make(linear, 0.5, 3.0, 20.0, size))
        for seed in (1, 2):
            found = gradient(params, x, key=jax.random.key(seed))
            # sigma C / L is the deviation that this noise must have.
            drawn.append(np.stack([np.ravel(found[k]) for k in ("a", "b")]) / (3.0 * 0.5 / 20.0))
    same_keys = max(np.abs(drawn[i] - drawn[i + 2]).max() for i in range(2))
    four = np.concatenate(drawn[:2])
    correlations = np.corrcoef(four) - np.eye(4)
    errors = [np.abs(four.mean(1)).max() / 4 * 3, np.abs(np.concatenate(drawn).std(1) - 1).max(), same_keys]
    return float(max(*errors, np.abs(correlations).max() / 4 * 3))


def half_precision_error(make: Make) -> float:
    """Parameters in bfloat16: one rounding, at the very end. A sum of 1,000 halves must not stop at 256."""
    params = {"a": np.zeros(300, jnp.bfloat16)}
    x = {"a": np.full((1000, 300), 0.25, jnp.bfloat16)}
    gradient = jax.jit(make(linear, 100.0, 0.01, 24.0, 100))
    found = gradient(params, x, key=KEY)["a"]
    assert found.dtype == jnp.bfloat16
    noise = jax.jit(lambda key: jax.random.normal(jax.random.split(key, 1)[0], (300,)))(KEY)
    expected = ((250 + np.asarray(noise)) / 24).astype(jnp.bfloat16)
    return float(np.mean(np.asarray(found) != expected))


CHECKS = {"mean": clipped_mean_error, "noise": noise_error, "half precision": half_precision_error}
FAULTS = {
    "padding counts": "mean",
    "each array clipped": "mean",
    "sum clipped": "mean",
    "short ones lengthened": "mean",
    "NaN times 0": "mean",
    "actual batch": "mean",
    "noise without C": "noise",
    "noise divided twice": "noise",
    "noise each microbatch": "noise",
    "variance for deviation": "noise",
    "one key for all arrays": "noise",
    "one key for all steps": "noise",
    "shifted": "noise",
    "noise in half precision": "half precision",
    "sum cast first": "half precision",
}


QUICK_FAULTS = ["padding counts", "each array clipped", "noise without C", "one key for all arrays"]


@pytest.mark.parametrize("name", ["mean", "noise", *slow("half precision")])
def test_private_gradient(name: str) -> None:
    limit = {"mean": EXACT, "noise": CAUGHT, "half precision": 0.01}[name]
    assert CHECKS[name](ours) <= limit
    assert CHECKS[name](written_out()) <= limit


@pytest.mark.parametrize("fault", [*QUICK_FAULTS, *slow(*(fault for fault in FAULTS if fault not in QUICK_FAULTS))])
def test_the_checks_catch_broken_versions(fault: str) -> None:
    assert CHECKS[FAULTS[fault]](written_out(fault)) > 1.5 * CAUGHT


@pytest.mark.slow
def test_noise_is_normal() -> None:
    """Kolmogorov and Smirnov's distance of 20,000 numbers: less than 0.0138 in 999 of 1,000 samples."""
    gradient = ours(linear, 2.0, 0.5, 1.0)
    found = gradient(jnp.zeros(20_000), jnp.zeros((1, 20_000)), key=KEY)
    assert scipy.stats.kstest(np.asarray(found), "norm").statistic < 0.0138


def test_an_empty_batch_is_noise_too() -> None:
    gradient = jax.jit(ours(linear, 1.0, 1.0, 2.0))
    params, weights = np.zeros(50, np.float32), np.zeros(3, np.float32)
    empty = gradient(params, np.full((3, 50), np.nan, np.float32), key=KEY, weights=weights)
    of_zeros = gradient(params, np.zeros((3, 50), np.float32), key=KEY, weights=np.ones(3, np.float32))
    np.testing.assert_array_equal(empty, of_zeros)
    assert np.all(np.asarray(empty) != 0)


@pytest.mark.slow
@pytest.mark.parametrize("size", [1, 3, 7, 20])
def test_microbatches_change_nothing(size: int) -> None:
    with float64(), strict():
        params, x, y = problem()
        weights = np.array([1, 0, 1, 1, 0, 1, 1], bool)
        recorder = per_example.record(lambda *args: (loss(*args), {"y": args[2]}), has_aux=True)
        settings = {"clip": 0.7, "noise_multiplier": 1.3, "batch_size": 5}
        whole, parts = (
            jax.jit(private_grad(recorder, **settings, microbatch_size=s))(params, x, y, key=KEY, weights=weights)
            for s in (None, size)
        )
        assert_close(parts, whole, rtol=EXACT)
        np.testing.assert_array_equal(whole[1].aux["y"], y)
        np.testing.assert_allclose(whole[1].norms, np.linalg.norm(rows(params, x, y), axis=1), rtol=EXACT)
        one_by_one = jax.jit(jax.vmap(loss, (None, 0, 0)))(params, x, y)
        np.testing.assert_allclose(whole[1].losses, one_by_one, rtol=EXACT)


@pytest.mark.parametrize(
    "opt", [optim.adamw(0.1, weight_decay=0.1), *slow((optim.sgd(0.5),), (optim.adam(0.1),), (optax.adam(0.1),))]
)
def test_steps_are_the_optimizer_on_the_private_gradient_in_a_scan_too(opt: Any) -> None:
    with float64():
        params, x, y = problem()
        settings = {"clip": 1.0, "noise_multiplier": 0.4, "batch_size": 7.0}
        step = dp_sgd(per_example.record(loss), opt, **settings)
        gradient = private_grad(per_example.record(loss), **settings)
        keys = jax.random.split(KEY, 4)

        @jax.jit
        def scanned_from(params: Any) -> Any:
            start = PrivateState(params, opt.init(params))
            return start, jax.lax.scan(lambda state, key: step(state, x, y, key=key), start, keys)

        @jax.jit
        def one_step(state: Any, key: Any) -> Any:
            updates, opt_state = opt.update(gradient(state.params, x, y, key=key)[0], state.opt_state, state.params)
            return PrivateState(optim.apply_updates(state.params, updates), opt_state)

        expected, (scanned, report) = scanned_from(params)
        for key in keys:
            expected = one_step(expected, key)
        assert_close(scanned, expected, rtol=1e-9)
        assert report.losses.shape == report.norms.shape == (4, 7)
        assert report.aux is None


def test_a_step_without_noise_by_hand() -> None:
    with float64():
        params, x, y = problem()
        g = rows(params, x, y)
        step = dp_sgd(per_example.record(loss), optim.sgd(0.5), clip=0.8, noise_multiplier=0.0, batch_size=10)
        state, _ = jax.jit(step)(PrivateState(params, optim.sgd(0.5).init(params)), x, y, key=KEY)
        expected = vector(params) - 0.5 * np.minimum(1, 0.8 / np.linalg.norm(g, axis=1)) @ g / 10
        np.testing.assert_allclose(vector(state.params), expected, rtol=EXACT)


@pytest.mark.parametrize(
    "opt", [optax.adamw(0.1, weight_decay=0.5), *slow((optim.adamw(0.1, weight_decay=0.5),), (optax.sgd(0.1),))]
)
def test_frozen_parameters_stay_and_the_others_go_as_if_they_were_alone(opt: Any) -> None:
    params, x, y = jax.tree.map(lambda v: v.astype(np.float32), problem())
    settings = {"clip": 1.0, "noise_multiplier": 0.0, "batch_size": 7}
    params = {**params, "static": None}  # as equinox.partition leaves it
    some = per_example.record(loss, trainable={"w": True, "b": False, "static": None})
    alone = per_example.record(lambda w, *xy: loss({"w": w, "b": params["b"]}, *xy))

    @functools.partial(jax.jit, static_argnums=0)
    def three_steps(record: Any, params: Any) -> Any:
        step = dp_sgd(record, opt, **settings)
        start = PrivateState(params, opt.init(params))
        return jax.lax.scan(lambda state, _: (step(state, x, y, key=KEY)[0], None), start, length=3)[0].params

    whole, part = three_steps(some, params), three_steps(alone, params["w"])
    np.testing.assert_array_equal(whole["b"], params["b"])
    assert_close(whole["w"], part, rtol=1e-5)
    assert gap(whole["w"], params["w"]) > 0.05


@pytest.mark.slow
def test_the_optimizer_sees_nothing_but_the_private_gradient() -> None:
    seen = []

    def update(grads: Any, state: Any, params: Any, **extra: Any) -> Any:
        seen.append((grads, extra))
        return grads, state

    params, x, y = jax.tree.map(lambda v: v.astype(np.float32), problem())
    step = dp_sgd(
        per_example.record(loss), optim.Optimizer(lambda p: (), update), clip=1.0, noise_multiplier=1.0, batch_size=7
    )
    step(PrivateState(params, ()), x, y, key=KEY)
    ((grads, extra),) = seen
    assert extra == {"grad": grads}


@pytest.mark.slow
def test_settings_may_be_traced() -> None:
    """One compile for all: clip, noise multiplier and batch size; a negative bound lets nothing through."""
    params, x = np.zeros(3, np.float32), random(0, 4, 3, dtype=np.float32)

    @jax.jit
    def of(clip: Any, sigma: Any, size: Any) -> Any:
        return ours(linear, clip, sigma, size)(params, x, key=KEY)

    for settings in [(0.5, 0.0, 4.0), (1.0, 2.0, 5.0), (np.inf, 0.0, 4.0)]:
        np.testing.assert_allclose(of(*settings), ours(linear, *settings)(params, x, key=KEY), rtol=1e-6)
    np.testing.assert_array_equal(of(-1.0, 1.0, 4.0), jnp.zeros(3))
    assert of._cache_size() == 1


@pytest.mark.parametrize("record", ["backprop", *slow("per_example")])
def test_any_recorder(record: str) -> None:
    """The tape of the hand-written rules and that of the loss as a function of one example."""
    net = models.serial(Dense(4), Tanh, Dense(3))
    with float64():
        params, state = jax.jit(lambda key: net.init(key, jax.ShapeDtypeStruct((5,), jnp.float64)))(KEY)
        x, y = random(0, 6, 5), np.array([0, 1, 2, 0, 1, 2])

        def of_one(params: Any, x: Any, y: Any) -> Any:
            return losses.softmax_cross_entropy(net.predict(params, state, x[None]), y[None])[0]

        of_batch = backprop.record(net, losses.softmax_cross_entropy)
        recorder = per_example.record(of_one) if record == "per_example" else lambda p, x, y: of_batch(p, state, x, y)
        gradient = jax.jit(private_grad(recorder, clip=0.5, noise_multiplier=0.0, batch_size=6))
        found, report = gradient(params, x, y, key=KEY)
        g = np.concatenate(
            [
                np.asarray(leaf).reshape(6, -1)
                for leaf in jax.tree.leaves(jax.jit(jax.vmap(jax.grad(of_one), (None, 0, 0)))(params, x, y))
            ],
            1,
        )
        np.testing.assert_allclose(report.norms, np.linalg.norm(g, axis=1), rtol=1e-10)
        expected = np.minimum(1, 0.5 / np.linalg.norm(g, axis=1)) @ g / 6
        np.testing.assert_allclose(vector(found), expected, rtol=1e-9, atol=1e-12)


def test_some_layers_alone() -> None:
    """The tape of selected parameters: the others have no share in the norm, and stay."""
    with float64():
        params, x, y = problem()
        recorder = per_example.record(loss)
        step = dp_sgd(
            lambda *args: per_example.select(recorder(*args), "['b']"),
            optim.adam(0.5),
            clip=0.3,
            noise_multiplier=0.0,
            batch_size=7,
        )
        opt_state = jax.jit(optim.adam(0.5).init)(params)
        state, report = jax.jit(step)(PrivateState(params, opt_state), x, y, key=KEY)
        np.testing.assert_allclose(report.norms, np.linalg.norm(rows(params, x, y)[:, :2], axis=1), rtol=1e-10)
        np.testing.assert_array_equal(state.params["w"], params["w"])
        assert np.all(np.asarray(state.params["b"] != params["b"]))


ENTRIES = st.one_of(st.floats(-1e4, 1e4, width=32), st.sampled_from([0.0, 1e-30, 1e30, -3e38, np.nan, np.inf, -np.inf]))
CLIPS = {
    "number": (0.7, None),
    "automatic": (automatic(0.7, 0.01), 0.7),
    "psac": (psac(0.7), 0.7),
    "a function that clips too little": (lambda n: 3.0 + 0 * n, 0.7),
    "one that is NaN at 0 and negative": (lambda n: -1 / n + 0 / n, 0.7),
}


@functools.cache
def _sum_of_four(name: str) -> Any:
    clip, bound = CLIPS[name]
    found = private_grad(per_example.record(linear), clip=clip, bound=bound, noise_multiplier=0.0, batch_size=1)
    return jax.jit(lambda x, w: found(jnp.zeros(3), x, key=KEY, weights=w)[0])


@pytest.mark.parametrize(
    "name",
    ["number", "one that is NaN at 0 and negative", *slow("automatic", "psac", "a function that clips too little")],
)
@hypothesis.given(
    rows=st.lists(st.lists(ENTRIES, min_size=3, max_size=3), min_size=5, max_size=5), which=st.integers(0, 3)
)
def test_one_example_moves_the_sum_by_at_most_the_bound(name: str, rows: Any, which: int) -> None:
    """Removed, zeroed out, replaced: whatever it and the others hold. Float32 rounds sums of length 4 C."""
    *x, other = np.array(rows, np.float32)
    x, ones = np.stack(x), np.ones(4, np.float32)
    f = _sum_of_four(name)
    whole = np.asarray(f(x, ones), np.float64)
    assert np.isfinite(whole).all()
    without, zeroed, replaced = ones.copy(), x.copy(), x.copy()
    without[which], zeroed[which], replaced[which] = 0, 0, other
    rounding = 1e-5
    assert np.linalg.norm(whole - f(x, without)) <= 0.7 + rounding
    assert np.linalg.norm(whole - f(zeroed, ones)) <= 0.7 + rounding
    assert np.linalg.norm(whole - f(replaced, ones)) <= 1.4 + rounding


def test_clip_functions_keep_their_factors() -> None:
    with float64():
        params, x, y = problem()
        g = rows(params, x, y)

        @jax.jit
        def every(params: Any) -> Any:
            found = {}
            for name in ("automatic", "psac"):
                clip, bound = CLIPS[name]
                gradient = private_grad(
                    per_example.record(loss), clip=clip, bound=bound, noise_multiplier=0.0, batch_size=7
                )
                found[name] = gradient(params, x, y, key=KEY)[0], clip(np.linalg.norm(g, axis=1))
            return found

        for name, (sums, factors) in every(params).items():
            np.testing.assert_allclose(vector(sums), np.asarray(factors) @ g / 7, rtol=1e-10, err_msg=name)


def test_layers_that_couple_examples_are_refused() -> None:
    net = models.serial(Dense(4), BatchNorm(), Dense(2))
    params, state = jax.eval_shape(lambda: net.init(KEY, (3,)))
    of_batch = backprop.record(net, losses.softmax_cross_entropy)

    def gradient(params: Any, state: Any, x: Any, y: Any) -> Any:
        def recorder(p: Any, x: Any, y: Any) -> Any:
            return of_batch(p, state, x, y, train=True)

        return private_grad(recorder, clip=1.0, noise_multiplier=1.0, batch_size=4)(params, x, y, key=KEY)

    with pytest.raises(ValueError, match="per-example gradients are undefined here"):
        jax.eval_shape(gradient, params, state, np.ones((4, 3), np.float32), np.zeros(4, np.int32))


GOOD = {"clip": 1.0, "noise_multiplier": 1.0, "batch_size": 4}


@pytest.mark.parametrize(
    ("settings", "error", "message"),
    [
        ({"noise_multiplier": -1.0}, ValueError, r"noise_multiplier must lie in \[0, inf\), got -1"),
        ({"noise_multiplier": np.inf}, ValueError, "noise_multiplier must lie in"),
        ({"noise_multiplier": None}, TypeError, "noise_multiplier must be a real number"),
        ({"clip": np.inf}, ValueError, "noise cannot hide an unbounded gradient; pass a finite clip"),
        ({"clip": automatic(), "bound": np.inf}, ValueError, "noise cannot hide an unbounded gradient"),
        ({"clip": -1.0}, ValueError, "clip must lie in"),
        ({"clip": np.nan}, ValueError, "clip must lie in"),
        ({"clip": automatic()}, ValueError, "a clip function needs bound=C"),
        ({"clip": automatic(), "bound": -1.0}, ValueError, "bound must lie in"),
        ({"bound": 1.0}, ValueError, "a number clip=1.0 is the bound itself"),
        ({"batch_size": 0}, ValueError, "batch_size must be a finite number > 0, got 0"),
        ({"microbatch_size": 0}, ValueError, "microbatch_size must be at least 1"),
    ],
)
def test_settings_out_of_range(settings: Any, error: Any, message: str) -> None:
    for make, where in (
        (private_grad, "private_grad"),
        (lambda *args, **kw: dp_sgd(args[0], optim.sgd(1.0), **kw), "dp_sgd"),
    ):
        with pytest.raises(error, match=f"{where}: .*{message}"):
            make(per_example.record(linear), **(GOOD | settings))


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        ({"weights": np.ones(3)}, ValueError, r"one entry for each of 4 rows, shape \(4,\), got \(3,\)"),
        ({"weights": np.ones((4, 1))}, ValueError, r"shape \(4,\), got \(4, 1\)"),
        ({"weights": np.full(4, 2.0)}, ValueError, "0 for padding, got"),
        ({"weights": np.full(4, np.nan)}, ValueError, "0 for padding, got"),
        ({"key": None}, ValueError, "needs a random key"),
        ({"key": jax.random.PRNGKey(0)}, TypeError, "key must be a typed key, got an array of uint32"),
        ({"key": jax.random.split(KEY)}, ValueError, "one key"),
        ({"x": np.ones((0, 2))}, ValueError, "same N >= 1"),
        ({"x": (np.ones((4, 2)), np.ones(3))}, ValueError, "same N >= 1"),
        ({"x": ()}, ValueError, "same N >= 1"),
    ],
)
def test_data_that_do_not_fit(call: Any, error: Any, message: str) -> None:
    def first(params: Any, x: Any) -> Any:
        return linear(params, jax.tree.leaves(x)[0])

    arguments = {"x": np.ones((4, 2), np.float32), "key": KEY} | call
    with pytest.raises(error, match=message):
        private_grad(per_example.record(first), **GOOD)(np.zeros(2, np.float32), arguments.pop("x"), **arguments)


def test_traced_weights_are_cut() -> None:
    """Where they cannot be looked at, they cannot break the bound either."""
    gradient = jax.jit(ours(linear, 1.0, 0.0, 1.0))
    weights = np.array([3.0, -1.0, np.nan, 0.5], np.float32)
    found = gradient(np.zeros(4, np.float32), 10 * np.eye(4, dtype=np.float32), key=KEY, weights=weights)
    np.testing.assert_allclose(found, [1, 0, 0, 0.5], rtol=1e-6)


def test_recorders_and_optimizers_that_are_none() -> None:
    with pytest.raises(TypeError, match="recorder must be a function"):
        private_grad(None, **GOOD)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="opt must be an optimizer"):
        dp_sgd(per_example.record(linear), 0.1, **GOOD)
    params, x = np.zeros(2, np.float32), np.ones((4, 2), np.float32)

    def called(recorder: Any, params: Any = params, **settings: Any) -> None:
        jax.eval_shape(lambda params: private_grad(recorder, **(GOOD | settings))(params, x, key=KEY), params)

    with pytest.raises(TypeError, match="expected a Tape"):
        called(lambda params, x: jnp.zeros(()))
    with pytest.raises(ValueError, match="got a tape of 2 examples from 4 rows"):
        called(lambda params, x: per_example.record(linear)(params, x[:2]))
    with pytest.raises(ValueError, match="take the parameters first"):
        called(lambda params, x: per_example.record(linear)(params["p"], x), {"p": params})
    with pytest.raises(ValueError, match="must map norms"):
        called(per_example.record(linear), clip=lambda n: 1.0, bound=1.0)
    with pytest.raises(TypeError, match="each array must have a floating dtype"):
        per_example.add_gaussian_noise(KEY, {"n": np.ones(2, np.int32)}, 1.0)


def cancelling(scale: float, seed: int, times: int = 8) -> tuple[Any, Any]:
    """Positions that see nearly the same, with errors that add up to 0: a (T, 64), delta (T, 64)."""
    a = scale * random(seed, 64) + random(seed + 1, times, 64)
    delta = random(seed + 2, times, 64)
    return a.astype(np.float32), (delta - delta.mean(0)).astype(np.float32)


def product(w: Any, a: Any, delta: Any) -> Any:
    """Its gradient is a' delta."""
    return jnp.vdot(a @ w, delta)


def longest(make: Any) -> float:
    """The largest share of one example in the sum, in bounds, over examples whose terms cancel."""
    one = jax.jit(lambda a, delta: make(jnp.zeros((64, 64)), a[None], delta[None]))
    pairs = [cancelling(scale, seed) for scale in (1.0, 1e2, 1e3, 1e4, 1e5, 1e6) for seed in range(3)]
    return max(float(np.linalg.norm(one(*pair))) for pair in pairs) / 0.5


def test_examples_whose_terms_cancel_keep_the_bound() -> None:
    """Norms from products of positions come out as 0 there, for gradients of length 200: unseen, they would pass."""
    record = per_example.record(product)
    plain = longest(lambda w, a, delta: per_example.clipped_grad(record(w, a, delta), 0.5)[0])
    private = longest(lambda *args: ours(product, 0.5, 0.0, 1.0)(*args, key=KEY))
    adapted = longest(
        per_example.clipped_grad_of(product, l2_clip_norm=0.5, batch_argnums=(1, 2), keep_batch_dim=False)
    )
    assert plain > 100, "these examples are no test"
    assert max(private, adapted) <= 1 + 1e-5


@pytest.mark.parametrize("name", ["mlp", "conv_stride", *slow("cnn", "sequence_gram", "embedding", "layer_norm")])
def test_the_margin_is_small_where_nothing_cancels(name: str) -> None:
    @jax.jit
    def both(tape: Any) -> Any:
        norms = per_example.norms(tape)
        return safe_norms(tape, norms), norms

    safe, norms = map(np.asarray, both(make_case(name, np.float32).tape))
    assert np.all(safe >= norms)
    assert np.all(safe <= (1 + 1e-4) * norms)


@pytest.mark.slow
def test_digits_are_learnt_privately() -> None:
    """Softmax regression, 400 Poisson batches of 180 expected, in one scan: epsilon 4.9 at delta 1e-5 for sigma 2."""
    x, y = (jnp.asarray(v) for v in (data.digits().x, data.digits().y))
    x, n = x.reshape(len(x), -1), len(x)
    net, opt = models.linear(10), optim.sgd(1.0, momentum=0.9)
    params, state = net.init(KEY, x.shape[1:])

    def of_one(params: Any, x: Any, y: Any) -> Any:
        return losses.softmax_cross_entropy(net.predict(params, state, x[None]), y[None])[0]

    @jax.jit
    def accuracy(noise_multiplier: Any) -> Any:
        step = dp_sgd(per_example.record(of_one), opt, clip=1.0, noise_multiplier=noise_multiplier, batch_size=0.1 * n)

        def one(state: Any, key: Any) -> Any:
            for_batch, for_noise = jax.random.split(key)
            indices, weights = per_example.poisson_batch(for_batch, n, 0.1, 270)
            return step(state, x[indices], y[indices], key=for_noise, weights=weights)

        trained, _ = jax.lax.scan(one, PrivateState(params, opt.init(params)), jax.random.split(KEY, 400))
        return jnp.mean(jnp.argmax(net.predict(trained.params, state, x), 1) == y)

    assert per_example.poisson_size(n, 0.1, 400, 1e-7) <= 270
    found = jax.vmap(accuracy)(jnp.array([2.0, 20.0]))
    assert found[0] > 0.85
    assert found[1] < found[0] - 0.1, "ten times the noise is not to be seen"


def test_a_state_that_is_none() -> None:
    step = per_example.dp_sgd(
        per_example.record(lambda p, x: p["w"] * x), optim.sgd(0.1), clip=1.0, noise_multiplier=1.0, batch_size=2
    )
    with pytest.raises(TypeError, match=r"state must be PrivateState\(params, opt.init\(params\)\), got dict"):
        step({"w": np.float32(1)}, np.ones(2, np.float32), key=KEY)
