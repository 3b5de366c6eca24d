"""Normalization layers: equations, peers, statistics, extremes."""

from __future__ import annotations

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxnn.layers import batch_norm, group_norm, layer_norm, rms_norm
from tests.helpers import assert_close, float64, random, strict

X = 3 + 2 * random(0, 4, 3, 2, 6)
PARAMS = {"scale": 1 + 0.3 * random(1, 6), "shift": random(2, 6)}
STATE = {"mean": random(3, 6), "var": np.exp(random(4, 6))}
EPS = 0.1  # large, so that its place in the root shows
AXES = (0, 1, 2)


def of_default_dtype(values):
    """float64 inside `float64()`, else float32."""
    return jax.tree.map(lambda a: np.asarray(a, jnp.result_type(float)), values)


def transcription(name: str, x: np.ndarray, eps: float) -> np.ndarray:
    """The equations in NumPy."""
    if name == "rms_norm":
        return PARAMS["scale"] * x / np.sqrt((x**2).mean(-1, keepdims=True) + eps)
    if name == "group_norm":
        grouped = x.reshape(*x.shape[:-1], 3, 2)
        axes = (1, 2, 4)
    else:
        grouped, axes = x, (3,) if name == "layer_norm" else AXES
    mean, var = grouped.mean(axes, keepdims=True), grouped.var(axes, keepdims=True)
    return PARAMS["scale"] * ((grouped - mean) / np.sqrt(var + eps)).reshape(x.shape) + PARAMS["shift"]


NORMS = {
    "batch_norm": lambda p, x, eps: batch_norm.apply(p, of_default_dtype(STATE), x, train=True, eps=eps)[0],
    "layer_norm": lambda p, x, eps: layer_norm.apply(p, x, eps=eps),
    "group_norm": lambda p, x, eps: group_norm.apply(p, x, groups=3, eps=eps),
    "rms_norm": lambda p, x, eps: rms_norm.apply({"scale": p["scale"]}, x, eps=eps),
}


def check(name: str, y, rtol: float = 1e-12) -> None:
    assert_close(y, transcription(name, X, EPS), rtol=rtol)


@functools.cache
def found() -> dict:
    """Every norm and every broken one at X, by one program; eps is traced, as a swept hyperparameter would be."""
    norms = NORMS | {mutant.__name__: mutant for mutant in (*MUTANTS, interleaved)}
    with float64(), strict():
        return jax.jit(lambda p, x, eps: {name: norm(p, x, eps) for name, norm in norms.items()})(PARAMS, X, EPS)


@pytest.mark.parametrize("name", NORMS)
def test_equation(name):
    check(name, found()[name])


def eps_outside(p, x, eps):
    mean, std = x.mean(-1, keepdims=True), x.std(-1, keepdims=True)
    return layer_norm.scale_and_shift((x - mean) / (std + eps), p)


def unbiased(p, x, eps):
    mean, var = x.mean(-1, keepdims=True), x.var(-1, keepdims=True, ddof=1)
    return layer_norm.scale_and_shift((x - mean) / jnp.sqrt(var + eps), p)


def without_shift(p, x, eps):
    return layer_norm.apply(p | {"shift": 0 * p["shift"]}, x, eps=eps)


def interleaved(p, x, eps):
    y = group_norm.apply(group_norm.init(6, dtype=x.dtype), x[..., np.array([0, 3, 1, 4, 2, 5])], groups=3, eps=eps)
    return layer_norm.scale_and_shift(y[..., np.array([0, 2, 4, 1, 3, 5])], p)


MUTANTS = [eps_outside, unbiased, without_shift]


@pytest.mark.parametrize("mutant", MUTANTS)
def test_broken_norms_are_caught(mutant):
    with pytest.raises(AssertionError):
        check("layer_norm", found()[mutant.__name__])


def test_interleaved_groups_are_caught():
    with pytest.raises(AssertionError):
        check("group_norm", found()["interleaved"])


def test_half_precision_statistics():
    """bfloat16 images around 100: the exact result for the stored numbers, rounded once."""
    x = (100 + 10 * random(0, 4, 3, 2, 6)).astype(jnp.bfloat16)
    with strict():
        every = jax.jit(lambda p, x: {name: norm(p, x, 1e-5) for name, norm in NORMS.items()})(
            of_default_dtype(PARAMS), x
        )
    for name, got in every.items():
        assert got.dtype == jnp.bfloat16, name
        assert_close(got, transcription(name, np.asarray(x, np.float64), 1e-5), rtol=2**-8, atol=1e-4)


def check_large_mean(norm) -> None:
    """Mean 4,096, variance 1, in float32: E[x^2] - E[x]^2 has no digit left."""
    x = (4096 + random(0, 64, 1, 1, 6)).astype(np.float32)
    ones = {"scale": np.ones(6, np.float32), "shift": np.zeros(6, np.float32)}
    wide = x.astype(np.float64)
    expected = (wide - wide.mean(0)) / np.sqrt(wide.var(0) + 1e-5)
    assert_close(norm(ones, x, 1e-5), expected, rtol=1e-3, atol=1e-3)


def test_variance_does_not_cancel():
    def one_pass(p, x, eps):
        var = jnp.mean(x * x, AXES) - jnp.mean(x, AXES) ** 2
        return (x - jnp.mean(x, AXES)) / jnp.sqrt(var + eps)

    check_large_mean(jax.jit(NORMS["batch_norm"]))
    with pytest.raises(AssertionError):
        check_large_mean(jax.jit(one_pass))


def test_constant_inputs_have_finite_gradients():
    @jax.jit
    def every(params, x):
        results = {}
        for name, norm in NORMS.items():
            y, vjp = jax.vjp(lambda p, x, norm=norm: norm(p, x, 1e-5), params, x)
            results[name] = y, vjp(jnp.ones_like(y))
        return results

    for name, (y, grads) in every(of_default_dtype(PARAMS), np.zeros((4, 3, 2, 6), np.float32)).items():
        assert_close(y, np.broadcast_to(0 if name == "rms_norm" else PARAMS["shift"], y.shape), rtol=1e-6)
        assert all(np.isfinite(g).all() for g in jax.tree.leaves(grads)), name


@pytest.mark.parametrize("name", list(NORMS)[1:])
def test_flax_agrees(name):
    linen = pytest.importorskip("flax.linen")
    theirs = {
        "layer_norm": lambda: linen.LayerNorm(epsilon=EPS, use_fast_variance=False),
        "group_norm": lambda: linen.GroupNorm(3, epsilon=EPS, use_fast_variance=False),
        "rms_norm": lambda: linen.RMSNorm(epsilon=EPS),
    }[name]()
    named = {"scale": PARAMS["scale"]} | ({} if name == "rms_norm" else {"bias": PARAMS["shift"]})
    with float64():
        expected = jax.jit(theirs.apply)({"params": named}, X)
    assert_close(found()[name], expected, rtol=1e-12)


@pytest.mark.parametrize("name", list(NORMS)[1:])
def test_torch_agrees(name):
    torch = pytest.importorskip("torch")
    scale, shift = torch.tensor(PARAMS["scale"]), torch.tensor(PARAMS["shift"])
    if name == "group_norm":
        images = torch.tensor(np.ascontiguousarray(np.moveaxis(X, -1, 1)))
        expected = np.moveaxis(torch.nn.functional.group_norm(images, 3, scale, shift, EPS).numpy(), 1, -1)
    elif name == "layer_norm":
        expected = torch.nn.functional.layer_norm(torch.tensor(X), (6,), scale, shift, EPS).numpy()
    else:
        expected = torch.nn.functional.rms_norm(torch.tensor(X), (6,), scale, EPS).numpy()
    assert_close(transcription(name, X, EPS), expected, rtol=1e-12)
    check(name, found()[name])


MOMENTUM = 0.8
N = X[..., 0].size


@functools.cache
def ours(train: bool):
    """y and new state, momentum and eps traced."""
    apply = jax.jit(
        lambda momentum, eps: batch_norm.apply(PARAMS, STATE, jnp.asarray(X), train=train, momentum=momentum, eps=eps)
    )
    with float64(), strict():
        return jax.tree.map(np.asarray, apply(MOMENTUM, EPS))


def check_running(state) -> None:
    """The paper's unbiased variance, and momentum as the fraction kept."""
    expected = {
        "mean": MOMENTUM * STATE["mean"] + (1 - MOMENTUM) * X.mean(AXES),
        "var": MOMENTUM * STATE["var"] + (1 - MOMENTUM) * X.var(AXES, ddof=1),
    }
    assert_close(state, expected, rtol=1e-12)


def test_running_statistics():
    _, state = ours(train=True)
    check_running(state)
    biased = state | {"var": MOMENTUM * STATE["var"] + (1 - MOMENTUM) * X.var(AXES)}
    replaced = {"mean": (1 - MOMENTUM) * STATE["mean"] + MOMENTUM * X.mean(AXES), "var": state["var"]}
    for mutant in (biased, replaced):
        with pytest.raises(AssertionError):
            check_running(mutant)


def test_evaluation_uses_the_running_statistics_and_keeps_them():
    y, state = ours(train=False)
    normal = (X - STATE["mean"]) / np.sqrt(STATE["var"] + EPS)
    assert_close(y, PARAMS["scale"] * normal + PARAMS["shift"], rtol=1e-12)
    assert_close(state, STATE, rtol=0)


def test_torch_batch_norm_agrees():
    """torch's momentum is the fraction replaced; its running variance is unbiased, as ours."""
    torch = pytest.importorskip("torch")
    for train in (True, False):
        mean, var = torch.tensor(STATE["mean"].copy()), torch.tensor(STATE["var"].copy())
        theirs = torch.nn.functional.batch_norm(
            torch.tensor(np.ascontiguousarray(np.moveaxis(X, -1, 1))),
            mean,
            var,
            torch.tensor(PARAMS["scale"]),
            torch.tensor(PARAMS["shift"]),
            train,
            1 - MOMENTUM,
            EPS,
        )
        y, state = ours(train)
        assert_close(y, np.moveaxis(theirs.numpy(), 1, -1), rtol=1e-12)
        assert_close(state, {"mean": mean.numpy(), "var": var.numpy()}, rtol=1e-12)


def test_flax_batch_norm_agrees_but_for_the_biased_variance():
    linen = pytest.importorskip("flax.linen")
    with float64():
        layer = linen.BatchNorm(use_running_average=False, momentum=MOMENTUM, epsilon=EPS, use_fast_variance=False)
        variables = {"params": {"scale": PARAMS["scale"], "bias": PARAMS["shift"]}, "batch_stats": STATE}
        theirs, changed = jax.jit(functools.partial(layer.apply, mutable=["batch_stats"]))(variables, X)
    y, state = ours(train=True)
    assert_close(y, theirs, rtol=1e-12)
    assert_close(state["mean"], changed["batch_stats"]["mean"], rtol=1e-12)
    theirs_of_batch = (np.asarray(changed["batch_stats"]["var"]) - MOMENTUM * STATE["var"]) / (1 - MOMENTUM)
    ours_of_batch = (np.asarray(state["var"]) - MOMENTUM * STATE["var"]) / (1 - MOMENTUM)
    assert_close(ours_of_batch, theirs_of_batch * N / (N - 1), rtol=1e-10)


def test_running_statistics_converge_to_those_of_the_data():
    """100 batches of a shifted, scaled normal: the layer standardizes it in evaluation, to 3 standard errors."""
    data = (5 + 3 * random(0, 100, 64, 1)).astype(np.float32)

    @jax.jit
    def run(data):
        params, state = batch_norm.init(1), batch_norm.init_state(1)
        return jax.lax.scan(lambda s, x: (batch_norm.apply(params, s, x, train=True)[1], None), state, data)[0]

    state = run(data)
    assert_close(state["mean"], np.array([5.0]), rtol=0, atol=3 * 3 / np.sqrt(64 * 19))
    assert_close(state["var"], np.array([9.0]), rtol=3 * np.sqrt(2 / (64 * 19)))


def test_running_statistics_carry_no_gradient():
    def of_state(x):
        return jnp.sum(batch_norm.apply(batch_norm.init(2), batch_norm.init_state(2), x, train=True)[1]["mean"])

    np.testing.assert_array_equal(jax.jit(jax.grad(of_state))(np.ones((3, 2), np.float32)), np.zeros((3, 2)))
