"""Optimizer state in 8 bits: what a code keeps, how many bytes it takes, and that training goes as in float32."""

from __future__ import annotations

import itertools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxnn import optim, tree
from jaxnn.optim.precision.quantized import dequantize, quantize
from tests.helpers import assert_close, random, slow, strict
from tests.optim.mutants import mutated
from tests.optim.running import along, traced

KEY = 5
LEVELS = (np.arange(128) / 127.0) ** 4


def nearest(x: np.ndarray) -> np.ndarray:
    """The paper's scheme in float64: each block of 256 by its largest magnitude, codes nearest in the fourth root."""
    out = []
    for block in np.split(x.astype(np.float64), range(256, x.size, 256)):
        scale = np.abs(block).max()
        code = np.rint(127 * (np.abs(block) / (scale or 1.0)) ** 0.25)
        code = np.where(block == 0, 0, np.maximum(code, 1)).astype(int)
        out.append(np.sign(block) * LEVELS[code] * scale)
    return np.concatenate(out)


@pytest.mark.parametrize("n", [1, 257, *slow(255, 256, 5000)])
def test_equals_the_scheme_in_numpy(n: int) -> None:
    x = (random(0, n) * 10.0 ** np.random.default_rng(1).uniform(-6, 2, n)).astype(np.float32)
    x[:: max(n // 7, 2)] = 0.0
    coded, decoded = jax.jit(quantize), jax.jit(dequantize)
    codes, scales = coded(x)
    assert codes.dtype == jnp.int8
    assert scales.shape == (-(-n // 256),)
    back = decoded(codes, scales)
    assert_close(back, nearest(x), rtol=1e-5)
    again, same = coded(back)
    np.testing.assert_array_equal(again, codes)
    np.testing.assert_array_equal(same, scales)


@pytest.mark.slow
def test_the_largest_of_a_block_and_zeros_are_exact_and_nothing_else_becomes_zero() -> None:
    x = (random(2, 2560).reshape(10, 256) * np.array([[1e-20], [1e10]] * 5)).astype(np.float32)
    x[3], x[:, 1], x[:, 2] = 0, x[:, 0] * 1e-12, 0
    for key in (None, jax.random.key(KEY)):
        back = np.asarray(jax.jit(lambda x, key=key: dequantize(*quantize(x, 256, key)))(x))
        peak = np.abs(x).argmax(axis=1)
        np.testing.assert_array_equal(back[np.arange(10), peak], x[np.arange(10), peak])
        np.testing.assert_array_equal(back == 0, x == 0)
        np.testing.assert_array_equal(np.sign(back), np.sign(x))
        near = np.abs(x) > 0.5 * np.abs(x).max(axis=1, keepdims=True)
        assert (np.abs(back - x)[near] <= (0.016 if key is None else 0.04) * np.abs(x)[near] / 0.5).all()


@pytest.mark.slow
def test_one_outlier_spoils_its_own_block_only() -> None:
    x = random(3, 1024, dtype=np.float32)
    outlier = np.array([1e6, *x[1:]], np.float32)
    spoiled, whole = map(np.asarray, jax.jit(lambda *both: [dequantize(*quantize(x)) for x in both])(outlier, x))
    np.testing.assert_array_equal(spoiled[256:], whole[256:])
    assert np.abs(spoiled[1:256] - x[1:256]).max() > 0.05


@pytest.mark.slow
def test_rounding_at_random_is_unbiased() -> None:
    x = np.float32([1.0, 0.3, 0.011, 1e-4, -0.77, 3e-7, 0.0, -2e-3])
    draws = np.asarray(drawn(optim, jnp.asarray(x), 20_000, 8), np.float64)
    code = np.floor(127 * np.abs(x.astype(np.float64)) ** 0.25).astype(int).clip(0, 126)
    gap = LEVELS[code + 1] - LEVELS[code]
    assert (np.abs(draws.mean(0) - x) <= 5 * gap / 2 / np.sqrt(20_000) + 1e-7).all()
    assert (np.abs(draws - x) <= gap * 1.001).all()


def drawn(library: Any, x: jax.Array, draws: int, block_size: int = 256) -> jax.Array:
    """x coded with random rounding and back, many times over."""
    coded = jax.vmap(lambda key: library.dequantize(*library.quantize(x, block_size, key), block_size))
    return jax.jit(lambda: coded(jax.random.split(jax.random.key(KEY), draws)))()


def test_the_state_takes_a_quarter_of_the_bytes() -> None:
    params = {"w": np.ones((256, 512), np.float32), "b": np.ones(512, np.float32), "none": None}

    def state_bytes(opt: optim.Optimizer) -> int:
        return sum(x.size * x.dtype.itemsize for x in jax.tree.leaves(jax.eval_shape(opt.init, params)))

    for opt in (optim.adam(1e-3), optim.sgd(0.1, momentum=0.9), optim.adamw(1e-3), optim.lion(1e-3)):
        whole, small = state_bytes(opt), state_bytes(optim.quantized_state(opt))
        large = whole * tree.size({"w": params["w"]}) / tree.size(params)
        assert small <= (1 + 4 / 256) / 4 * large + (whole - large) + 8
        assert small / whole < 0.26


def teacher(seed: int) -> tuple[jax.Array, jax.Array]:
    """2,048 points in 32 dimensions with the labels of a random network."""
    x = random(seed, 2048, 32, dtype=np.float32)
    hidden = np.tanh(x @ random(seed + 1, 32, 32, dtype=np.float32) / 6)
    return jnp.asarray(x), jnp.asarray(np.argmax(hidden @ random(seed + 2, 32, 8, dtype=np.float32), 1))


def trained(opt: optim.Optimizer, steps: int = 400) -> tuple[float, Any]:
    """(training loss after some steps of minibatches, the optimizer's state) of a network 32-128-128-8."""
    x, y = teacher(7)
    sizes = (32, 128, 128, 8)
    params = [
        {"w": jnp.asarray(random(i, n, m, dtype=np.float32)) / n**0.5, "b": jnp.zeros(m)}
        for i, (n, m) in enumerate(itertools.pairwise(sizes))
    ]

    def loss(params: Any, x: jax.Array, y: jax.Array) -> jax.Array:
        for layer in params[:-1]:
            x = jnp.tanh(x @ layer["w"] + layer["b"])
        logits = x @ params[-1]["w"] + params[-1]["b"]
        return -jnp.mean(jnp.take_along_axis(jax.nn.log_softmax(logits), y[:, None], axis=1))

    def body(carry: Any, key: Any) -> tuple[Any, None]:
        params, state = carry
        index = jax.random.randint(key, (64,), 0, len(x))
        updates, state = opt.update(jax.grad(loss)(params, x[index], y[index]), state, params)
        return (optim.apply_updates(params, updates), state), None

    def run() -> Any:
        keys = jax.random.split(jax.random.key(1), steps)
        (final, state), _ = jax.lax.scan(body, (params, opt.init(params)), keys)
        return loss(final, x, y), state

    value, state = jax.jit(run)()
    return float(value), state


@pytest.mark.slow
@pytest.mark.parametrize("key", [None, KEY], ids=["nearest", "unbiased"])
@pytest.mark.parametrize("opt", [optim.adam(1e-3), optim.sgd(0.1, momentum=0.9)], ids=["adam", "momentum"])
def test_trains_as_float32_does(opt: optim.Optimizer, key: Any) -> None:
    whole, _ = trained(opt)
    small, state = trained(optim.quantized_state(opt, key=key))
    codes = [x for x in jax.tree.leaves(state.inner_state) if x.dtype == jnp.int8]
    assert sorted({x.shape for x in codes}) == [(32, 128), (128, 128)]
    assert whole < 0.5  # of log 8 = 2.08 at the start
    assert abs(small / whole - 1) < 0.03


def moments_after(opt: optim.Optimizer, steps: int = 3000) -> Any:
    """Adam's state where the first of every 8 gradients is 1 for 1,000 steps and then 0, the others 1 all along."""
    quiet = jnp.arange(4096) % 8 == 0
    params = jnp.zeros(4096)

    def body(state: Any, t: Any) -> tuple[Any, None]:
        grads = jnp.where(quiet & (t >= 1000), jnp.zeros(4096), jnp.ones(4096))
        return opt.update(grads, state, params)[1], None

    return quiet, jax.jit(lambda: jax.lax.scan(body, opt.init(params), jnp.arange(steps))[0])()


@pytest.mark.slow
def test_a_moment_whose_gradient_stops_decays_if_rounding_is_unbiased() -> None:
    """To the nearest, 0.1% less than the largest of the block is no less at all."""
    exact = (1 - 0.999**1000) * 0.999**2000
    quiet, state = moments_after(optim.quantized_state(optim.adam(1e-3), key=KEY))
    nu = dequantize(state.inner_state.nu, state.scales.nu)
    assert abs(float(nu[quiet].mean()) / exact - 1) < 0.05
    np.testing.assert_allclose(nu[~quiet].mean(), 1 - 0.999**3000, rtol=5e-3)
    assert dequantize(state.inner_state.mu, state.scales.mu)[quiet].max() < 1e-6
    quiet, state = moments_after(optim.quantized_state(optim.adam(1e-3)))
    assert dequantize(state.inner_state.nu, state.scales.nu)[quiet].min() > 0.5


@pytest.mark.slow
def test_a_rare_gradient_does_not_divide_by_nothing() -> None:
    """Beside gradients a million times larger nu stays above 0, and the step below the learning rate."""
    opt = optim.quantized_state(optim.adam(1.0))
    params = jnp.zeros(4096)
    rare = jnp.arange(4096) % 256 == 7
    state = opt.init(params)
    step = jax.jit(opt.update)
    for t in range(20):
        grads = jnp.where(rare, jnp.full(4096, 1e-6 if t == 0 else 0.0), jnp.ones(4096))
        updates, state = step(grads, state, params)
        assert (jnp.abs(updates[rare]) <= 1.001).all()


DTYPES = [(key, p, g) for key in (None, KEY) for p in (jnp.bfloat16, jnp.float32) for g in (jnp.bfloat16, jnp.float32)]
MIXED = [(None, jnp.float32, jnp.bfloat16), (KEY, jnp.bfloat16, jnp.float32)]


@pytest.mark.parametrize(
    ("key", "params_dtype", "grads_dtype"), [*MIXED, *slow(*(case for case in DTYPES if case not in MIXED))]
)
@traced
def test_keeps_its_dtypes_under_scan(key: Any, params_dtype: Any, grads_dtype: Any) -> None:
    opt = optim.quantized_state(optim.adam(1e-3), key=key)
    params = {"w": np.ones((70, 60), params_dtype), "b": np.ones(3, params_dtype), "none": None}

    def body(carry: Any, _: Any) -> tuple[Any, None]:
        params, state = carry
        grads = jax.tree.map(lambda p: jnp.ones(p.shape, grads_dtype), params)
        updates, state = opt.update(grads, state, params)
        return (optim.apply_updates(params, updates), state), None

    with strict():
        params, state = jax.eval_shape(lambda p: jax.lax.scan(body, (p, opt.init(p)), None, length=3)[0], params)
    assert {p.dtype for p in jax.tree.leaves(params)} == {jnp.dtype(params_dtype)}
    assert (state.inner_state.mu["w"].dtype, state.inner_state.mu["b"].dtype) == (jnp.int8, jnp.float32)


@pytest.mark.slow
def test_chooses_by_name_size_and_kind() -> None:
    params = {"w": jnp.ones((64, 64)), "b": jnp.ones(4095), "z": jnp.ones(5000, jnp.complex64), "none": None}
    state = optim.quantized_state(optim.adam(1e-3), fields=["nu"]).init(params)
    assert {str(x.dtype) for x in jax.tree.leaves(state.inner_state.mu)} == {"float32", "complex64"}
    assert state.inner_state.nu["w"].dtype == state.inner_state.nu["z"].dtype == jnp.int8  # |z|^2 is real
    assert state.inner_state.nu["b"].dtype == jnp.float32
    assert jax.tree.structure(state.scales.mu) == jax.tree.structure({"w": None, "b": None, "z": None, "none": None})
    small = optim.quantized_state(optim.adam(1e-3), min_size=1, block_size=16).init({"w": jnp.ones((5, 7))})
    assert small.inner_state.mu["w"].shape == (5, 7)
    assert small.scales.mu["w"].shape == (3,)
    inside = optim.chain(optim.clip_by_global_norm(1.0), optim.quantized_state(optim.adam(1e-3))).init(params)
    assert inside[1].inner_state.mu["w"].dtype == jnp.int8


@traced
def test_bad_arguments() -> None:
    with pytest.raises(ValueError, match="block_size must be at least 1, got 0"):
        optim.quantized_state(optim.adam(1e-3), block_size=0)
    with pytest.raises(TypeError, match="quantized_state: opt must be an optimizer with init and update"):
        optim.quantized_state(1e-3)
    with pytest.raises(TypeError, match="quantized_state: key must be"):
        optim.quantized_state(optim.adam(1e-3), key=np.zeros(3, np.uint32))


def error_of(library: Any, key: Any = None) -> float:
    """How far codes and back are from the scheme in NumPy, or for random rounding from x in the mean of draws."""
    x = (random(8, 1000) * 10.0 ** np.random.default_rng(9).uniform(-4, 0, 1000)).astype(np.float32)
    if key is None:
        back = jax.jit(lambda x: library.dequantize(*library.quantize(x)))(x)
        return float(np.max(np.abs(back - nearest(x)) / np.abs(nearest(x))))
    draws = np.asarray(drawn(library, jnp.asarray(x), 2000))
    return float(np.median(np.abs(draws.mean(0) - x) / np.abs(x)))


BROKEN = [
    (None, "LEVELS * safe_sqrt(safe_sqrt(ratio))", "LEVELS * safe_sqrt(ratio)"),
    (None, "jnp.clip(code, 1, LEVELS)", "jnp.clip(code, 60, LEVELS)"),
    (None, "signed = jnp.sign(x) *", "signed ="),
    (None, "largest(jnp.abs(blocks), 1)", "jnp.max(jnp.abs(blocks)) + 0 * jnp.abs(blocks)[:, 0]"),
    (None, "return (root * root) * (root * root)", "return root * root * root"),
    (KEY, "_level(low)) < ratio - _level(low)", "_level(low)) < code - low"),
    (KEY, "< ratio - _level(low)", "> ratio - _level(low)"),
]


@pytest.mark.parametrize("key", [None, *slow(KEY)])
def test_the_scheme_itself_is_not_off(key: Any) -> None:
    assert error_of(optim, key) <= (1e-5 if key is None else 2e-3)


@pytest.mark.slow
@pytest.mark.parametrize(("key", "old", "new"), BROKEN)
def test_a_broken_scheme_is_off(key: Any, old: str, new: str) -> None:
    assert error_of(mutated("quantized", old, new), key) > 5e-3


@pytest.mark.slow
def test_a_state_without_the_fields_is_an_error() -> None:
    params = jnp.ones((128, 64))
    with pytest.raises(
        ValueError, match=r"none of the fields \('mu', 'nu', 'trace'\).*its fields are \['count', 'ema'"
    ):
        optim.quantized_state(optim.signum(0.1)).init(params)
    assert optim.quantized_state(optim.signum(0.1), fields="ema").init(params).inner_state.ema.dtype == jnp.int8


@pytest.mark.slow
def test_an_entry_that_is_not_finite_leaves_its_block_alone() -> None:
    x = np.float32([2.0, np.inf, 1.0, -np.inf, 0.0, np.nan])
    back = np.asarray(jax.jit(lambda x: optim.dequantize(*optim.quantize(x, 6), 6))(x))
    np.testing.assert_array_equal(np.isnan(back), ~np.isfinite(x))
    np.testing.assert_allclose(back[[0, 2, 4]], [2.0, 1.0, 0.0], rtol=0.02)


def test_only_real_floating_arrays_are_quantized() -> None:
    for dtype in (np.complex64, np.int32):
        with pytest.raises(TypeError, match="quantize: x must have a floating dtype"):
            optim.quantize(np.ones(4, dtype))


def test_derivatives_pass_where_a_block_is_formed_twice() -> None:
    """In a loop of this many steps XLA forms a moment twice, and rounds it differently where it adds and multiplies."""
    opt = optim.quantized_state(optim.adam(0.05), min_size=1, block_size=4)
    start, idle = random(1, 4, 3, dtype=np.float32), np.float32([[1], [1], [0], [1]])

    def after(w: Any) -> Any:
        def body(carry: Any, _: None) -> tuple[Any, None]:
            w, state = carry
            updates, state = opt.update(jnp.sin(w) * w * idle, state, w)
            return (w + updates, state), None

        return jnp.sum(jax.lax.scan(body, (w, opt.init(w)), None, length=3)[0][0] ** 2)

    assert np.isfinite(jax.jit(jax.grad(after))(start)).all()


def test_nothing_to_quantize_is_no_error() -> None:
    opt = optim.masked(optim.quantized_state(optim.adam(0.1)), False)
    updates, _, _ = along(opt, {"w": np.zeros(2, np.float32)}, {"w": np.ones((1, 2), np.float32)})
    np.testing.assert_array_equal(updates["w"], 1.0)
