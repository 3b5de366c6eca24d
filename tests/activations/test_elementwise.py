"""Elementwise activations and their derivatives: values, gradients, kinks, extremes, dtypes, errors."""

from __future__ import annotations

import inspect
from functools import cache, partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.special
from hypothesis import given
from hypothesis import strategies as st

from jaxnn import activations as act
from tests.helpers import assert_close, float64, slow, strict

ALL = list(act.DERIVATIVES)
DERIVATIVES = [act.DERIVATIVES[f] for f in ALL]
SMOOTH = [
    act.linear, act.sigmoid, act.tanh, act.softplus, act.relu_squared, act.gelu, act.gelu_tanh, act.silu, act.mish,
]  # fmt: skip
SETTINGS = {
    act.heaviside: {"at_zero": 0.25},
    act.leaky_relu: {"negative_slope": 0.3},
    act.elu: {"alpha": 1.7},
}
KINKS = {
    act.sign: {0.0: 0.0},
    act.perceptron_sign: {0.0: 0.0},
    act.heaviside: {0.0: 0.0},
    act.piecewise_linear: {-0.5: 0.0, 0.5: 0.0},
    act.hard_tanh: {-1.0: 0.0, 1.0: 0.0},
    act.relu: {0.0: 0.0},
    act.leaky_relu: {0.0: 0.3},
    act.elu: {0.0: 1.7},
    act.selu: {0.0: act.SELU_ALPHA * act.SELU_SCALE},
}
"""Kinks and the documented derivative there, under SETTINGS."""

DTYPES = [jnp.float32, jnp.float64, jnp.bfloat16, jnp.float16]

# From the far tails through zero, no kink among them; 1e-3 is near each kink at 0.
POINTS = np.concatenate([-np.geomspace(25, 1e-3, 40), np.geomspace(1e-3, 25, 40)])
named = partial(pytest.mark.parametrize, ids=lambda f: f.__name__)


def phi(z: np.ndarray) -> np.ndarray:
    return np.exp(-z * z / 2) / np.sqrt(2 * np.pi)


def gelu_gate(z: np.ndarray) -> np.ndarray:
    return np.sqrt(2 / np.pi) * (z + 0.044715 * z**3)


def mish_step(z: np.ndarray) -> np.ndarray:
    return np.tanh(np.logaddexp(z, 0))


EXPECTED = {
    act.sign: np.sign,
    act.perceptron_sign: lambda z: np.where(z >= 0, 1.0, -1.0),
    act.heaviside: lambda z: np.heaviside(z, 0.25),
    act.linear: lambda z: z,
    act.piecewise_linear: lambda z: np.clip(z + 0.5, 0, 1),
    act.hard_tanh: lambda z: np.clip(z, -1, 1),
    act.sigmoid: scipy.special.expit,
    act.tanh: np.tanh,
    act.softplus: lambda z: np.logaddexp(z, 0),
    act.relu: lambda z: np.maximum(z, 0),
    act.relu_squared: lambda z: np.maximum(z, 0) ** 2,
    act.leaky_relu: lambda z: np.maximum(z, 0) + 0.3 * np.minimum(z, 0),
    act.elu: lambda z: np.maximum(z, 0) + 1.7 * np.expm1(np.minimum(z, 0)),
    act.selu: lambda z: act.SELU_SCALE * (np.maximum(z, 0) + act.SELU_ALPHA * np.expm1(np.minimum(z, 0))),
    act.gelu: lambda z: z * scipy.special.ndtr(z),
    act.gelu_tanh: lambda z: z * scipy.special.expit(2 * gelu_gate(z)),
    act.silu: lambda z: z * scipy.special.expit(z),
    act.mish: lambda z: z * mish_step(z),
}
"""Float64 NumPy and SciPy forms of the same equations, under SETTINGS."""

JAX_NN = {
    act.piecewise_linear: lambda z: jax.nn.hard_sigmoid(6 * z),
    act.hard_tanh: jax.nn.hard_tanh,
    act.sigmoid: jax.nn.sigmoid,
    act.tanh: jax.nn.tanh,
    act.softplus: jax.nn.softplus,
    act.relu: jax.nn.relu,
    act.relu_squared: lambda z: jnp.square(jax.nn.relu(z)),
    act.leaky_relu: lambda z: jax.nn.leaky_relu(z, 0.3),
    act.elu: lambda z: jax.nn.elu(z, 1.7),
    act.selu: jax.nn.selu,
    act.gelu: partial(jax.nn.gelu, approximate=False),
    act.gelu_tanh: partial(jax.nn.gelu, approximate=True),
    act.silu: jax.nn.silu,
    act.mish: jax.nn.mish,
}


def settings_of(f):
    return SETTINGS.get(f, {})


def autodiff(f, z):
    return jax.grad(lambda x: jnp.sum(f(x, **settings_of(f))))(z)


@jax.jit
def every(z: Any) -> dict[str, tuple[Any, Any, Any]]:
    """By name of each activation: its value, the hand-written derivative, and jax.grad, under SETTINGS."""
    return {
        f.__name__: (f(z, **settings_of(f)), act.derivative_of(f)(z, **settings_of(f)), autodiff(f, z)) for f in ALL
    }


@jax.jit
def every_jax_nn(z: Any) -> dict[str, tuple[Any, Any]]:
    return {f.__name__: (g(z), jax.grad(lambda x, g=g: jnp.sum(g(x)))(z)) for f, g in JAX_NN.items()}


PLACES = {
    "points": POINTS,
    "between kinks": np.linspace(-3, 3, 80) + 0.0123,
    "left tail": np.linspace(-20, -2, 80),
}
"""Where the program in float64 is evaluated; of one size, so that it is compiled once."""


@cache
def at(place: str) -> dict[str, tuple[Any, Any, Any]]:
    with float64():
        return jax.tree.map(np.asarray, every(PLACES[place]))


@cache
def jax_nn_at_points() -> dict[str, tuple[Any, Any]]:
    with float64():
        return jax.tree.map(np.asarray, every_jax_nn(POINTS))


def check_value(f, value):
    np.testing.assert_allclose(value, EXPECTED[f](POINTS), rtol=2e-12, atol=0)


def check_derivative(f, derivative, automatic):
    """The hand derivative against jax.grad to 1e-12 relative; jax's rules for expm1 and tanh round in the tail."""
    atol = 1e-15 if f in (act.elu, act.selu, act.tanh) else 0
    np.testing.assert_allclose(derivative, automatic, rtol=1e-12, atol=atol, err_msg=f.__name__)


@named("f", ALL)
def test_value_equals_numpy(f) -> None:
    check_value(f, at("points")[f.__name__][0])


@named("f", JAX_NN)
def test_value_and_gradient_equal_jax_nn(f) -> None:
    assert_close(at("points")[f.__name__][:2], jax_nn_at_points()[f.__name__], rtol=1e-9, atol=1e-14)


def test_value_and_gradient_equal_torch() -> None:
    torch = pytest.importorskip("torch")
    functional = torch.nn.functional
    theirs = {
        act.hard_tanh: functional.hardtanh,
        act.sigmoid: torch.sigmoid,
        act.tanh: torch.tanh,
        act.softplus: partial(functional.softplus, threshold=50),
        act.relu: functional.relu,
        act.relu_squared: lambda x: functional.relu(x) ** 2,
        act.leaky_relu: partial(functional.leaky_relu, negative_slope=0.3),
        act.elu: partial(functional.elu, alpha=1.7),
        act.selu: functional.selu,
        act.gelu: functional.gelu,
        act.gelu_tanh: partial(functional.gelu, approximate="tanh"),
        act.silu: functional.silu,
        act.mish: functional.mish,
    }
    for f, g in theirs.items():
        x = torch.tensor(POINTS, dtype=torch.float64, requires_grad=True)
        y = g(x)
        (slope,) = torch.autograd.grad(y.sum(), x)
        expected = y.detach().numpy(), slope.numpy()
        for ours, torchs in zip(at("points")[f.__name__], expected, strict=False):
            np.testing.assert_allclose(ours, torchs, rtol=1e-9, atol=1e-14, err_msg=f.__name__)
        if f in KINKS and f not in (act.elu, act.selu):  # at their kink, torch takes the other branch
            kinks = torch.tensor(list(KINKS[f]), dtype=torch.float64, requires_grad=True)
            (slope,) = torch.autograd.grad(g(kinks).sum(), kinks)
            np.testing.assert_allclose(list(KINKS[f].values()), slope.numpy(), rtol=1e-9, err_msg=f.__name__)


@named("f", ALL)
def test_derivative_equals_autodiff(f) -> None:
    check_derivative(f, *at("points")[f.__name__][1:])


@given(z=st.floats(-1e4, 1e4))
def test_smooth_derivative_equals_autodiff_anywhere(z: float) -> None:
    with float64():
        found = every(np.full(len(POINTS), z))
    for f in SMOOTH:
        check_derivative(f, *found[f.__name__][1:])


@named("f", ALL)
def test_derivative_equals_a_central_difference(f) -> None:
    points, step = PLACES["between kinks"], 1e-6
    slope = (EXPECTED[f](points + step) - EXPECTED[f](points - step)) / (2 * step)
    np.testing.assert_allclose(at("between kinks")[f.__name__][1], slope, rtol=1e-8, atol=1e-8)


@pytest.mark.parametrize(
    ("f", "truth"),
    [
        (act.elu, lambda z: 1.7 * np.exp(z)),
        (act.selu, lambda z: act.SELU_SCALE * act.SELU_ALPHA * np.exp(z)),
        (act.gelu, lambda z: scipy.special.ndtr(z) + z * phi(z)),
        (act.softplus, scipy.special.expit),
    ],
    ids=["elu", "selu", "gelu", "softplus"],
)
def test_derivative_keeps_its_digits_in_the_left_tail(f, truth) -> None:
    np.testing.assert_allclose(at("left tail")[f.__name__][1], truth(PLACES["left tail"]), rtol=1e-12)


KINK_POINTS = [-1.0, -0.5, 0.0, 0.5, 1.0]
EXTREMES = [-1e4, -100.0, -1e-30, 0.0, 100.0, 1e4]


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", *slow("float64", "float16")])
def test_kinks_extremes_and_nan_in_every_dtype(dtype) -> None:
    """The documented derivative at kinks is that of jax.grad; finite far from 0; NaN is passed on."""
    with float64(), strict():
        found = jax.tree.map(np.asarray, every(np.array([*KINK_POINTS, *EXTREMES, np.nan], dtype)))
    for f in ALL:
        for result in found[f.__name__]:
            assert result.dtype == dtype, f.__name__
            assert result.shape == (12,), f.__name__
            in_range = result[:-1] if f is not act.relu_squared or dtype != "float16" else result[:-2]  # 1e4 squared
            assert np.isfinite(in_range.astype(np.float64)).all(), f.__name__
        assert np.isnan(found[f.__name__][0][-1]), f.__name__
        values, eps = found[f.__name__][0][: len(KINK_POINTS)], float(jnp.finfo(dtype).eps)
        np.testing.assert_allclose(
            values.astype(np.float64), EXPECTED[f](np.array(KINK_POINTS)), rtol=4 * eps, err_msg=f.__name__
        )
        for kink, slope in KINKS.get(f, {}).items():
            hand_and_automatic = [float(result[KINK_POINTS.index(kink)]) for result in found[f.__name__][1:]]
            np.testing.assert_allclose(hand_and_automatic, slope, rtol=eps, err_msg=f"{f.__name__} at {kink}")


def test_derivative_of_mish_at_the_largest_number() -> None:
    assert act.mish_derivative(jnp.finfo(jnp.float32).max) == 1


def test_every_nonsmooth_activation_has_its_kinks_listed() -> None:
    assert set(ALL) == set(KINKS) | set(SMOOTH)


def test_value_at_the_jump() -> None:
    expected = [
        (act.sign, {}, 0.0),
        (act.perceptron_sign, {}, 1.0),
        (act.heaviside, {}, 0.5),
        (act.heaviside, {"at_zero": 0}, 0.0),
        (act.heaviside, {"at_zero": 0.5}, 0.5),
        (act.heaviside, {"at_zero": 1}, 1.0),
    ]
    found = jax.jit(lambda z: [f(z, **settings) for f, settings, _ in expected])(np.array([0.0, -0.0], np.float32))
    for (f, settings, value), got in zip(expected, found, strict=True):
        np.testing.assert_array_equal(got, value, err_msg=f"{f.__name__} {settings}")


def test_defaults() -> None:
    leaky, elu = jax.jit(lambda z: (act.leaky_relu(z), act.elu(z)))(np.array([-2.0, 2.0], np.float32))
    assert_close(leaky, np.array([-0.02, 2.0]), rtol=1e-6)
    assert_close(elu, np.array([np.expm1(-2), 2.0]), rtol=1e-6)


def test_half_precision_is_the_rounded_float32_result() -> None:
    """To the last bit: no intermediate result is rounded to half precision."""

    def both(z: Any) -> Any:
        return {f.__name__: (f(z), f(z.astype(jnp.float32)).astype(z.dtype)) for f in ALL + DERIVATIVES}

    compiled = jax.jit(both, compiler_options={"xla_allow_excess_precision": False})
    for dtype in ("bfloat16", "float16"):
        for name, (got, expected) in compiled(POINTS.astype(dtype)).items():
            assert got.dtype == dtype, name
            np.testing.assert_array_equal(np.asarray(got), np.asarray(expected), err_msg=f"{name} in {dtype}")


def test_vmap() -> None:
    z = POINTS.reshape(2, 8, 5).astype(np.float32)
    with strict():
        mapped = jax.jit(jax.vmap(lambda z: [f(z, **settings_of(f)) for f in ALL]))(z)
    for f, got in zip(ALL, mapped, strict=True):
        expected = EXPECTED[f](z.astype(np.float64))
        np.testing.assert_allclose(got, expected, rtol=1e-4, atol=1e-30, err_msg=f.__name__)


def test_numbers_and_empty_arrays() -> None:
    functions = [act.relu, act.leaky_relu, act.elu_derivative, act.sign]
    with strict():
        found = jax.jit(lambda: [(f(0.25), f(np.float32(0.25)), f(np.zeros((0, 3), np.float32))) for f in functions])()
    for f, (of_number, of_array, empty) in zip(functions, found, strict=True):
        assert of_number.dtype == jnp.float32, f.__name__
        assert of_number == of_array, f.__name__
        assert empty.shape == (0, 3), f.__name__


def test_settings_may_be_traced_and_of_another_dtype() -> None:
    z, values = np.array([-1.0, 0.0, 2.0], np.float32), np.array([0.1, 0.7], np.float32)
    pairs = [(act.heaviside, "at_zero"), (act.leaky_relu, "negative_slope"), (act.elu, "alpha")]
    functions = [(g, name) for f, name in pairs for g in (f, act.derivative_of(f))]

    @jax.jit
    def swept_and_each(values: Any) -> Any:
        swept = [jax.vmap(lambda s, g=g, name=name: g(z, **{name: s}))(values) for g, name in functions]
        return swept, [jnp.stack([g(z, **{name: v}) for v in (0.1, 0.7)]) for g, name in functions]

    assert_close(*swept_and_each(values), rtol=1e-6)
    with float64(), strict():
        for g, name in functions:
            assert jax.eval_shape(g, z, **{name: np.float64(0.1)}).dtype == jnp.float32


def test_derivative_takes_the_settings_of_its_activation() -> None:
    for f, derivative in act.DERIVATIVES.items():
        assert derivative.__name__ == f"{f.__name__}_derivative"
        assert inspect.signature(derivative) == inspect.signature(f)


def test_everything_is_exported() -> None:
    assert jax.eval_shape(lambda z: act.relu(z=z), np.ones(2)).shape == (2,)  # z may be named
    for f in ALL + DERIVATIVES:
        assert getattr(act, f.__name__) is f
        assert f.__name__ in act.__all__


def test_the_table_is_read_only() -> None:
    with pytest.raises(TypeError, match="item assignment"):
        act.DERIVATIVES[act.relu] = act.tanh  # type: ignore[index]


@named("f", ALL + DERIVATIVES)
def test_integers_are_refused(f) -> None:
    with pytest.raises(TypeError, match=f"{f.__name__}: z must have a floating dtype, got int32. Convert it"):
        f(np.arange(3, dtype=np.int32))


@pytest.mark.parametrize("z", [True, 1, np.array([True]), 1j])
def test_other_dtypes_are_refused(z) -> None:
    with pytest.raises(TypeError, match="relu: z must have a floating dtype"):
        act.relu(z)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda z: act.heaviside(z, at_zero=2), r"heaviside: at_zero must lie in \[0, 1\], got 2"),
        (lambda z: act.heaviside_derivative(z, at_zero=-1), r"heaviside: at_zero must lie in \[0, 1\], got -1"),
        (lambda z: jax.jit(partial(act.heaviside, at_zero=2))(z), r"heaviside: at_zero must lie in \[0, 1\], got 2"),
        (lambda z: act.leaky_relu(z, negative_slope=z), r"negative_slope must be one number, got shape \(3,\)"),
        (lambda z: act.elu_derivative(z, alpha=[1.0]), r"elu: alpha must be one number, got shape \(1,\)"),
        (lambda z: act.derivative_of(act.softmax), "no elementwise derivative for softmax. Known: sign, .*softmax_vjp"),
        (lambda z: act.derivative_of(jnp.sin), "no elementwise derivative for .*jax.vjp"),
        (lambda z: act.derivative_of("relu"), "no elementwise derivative for 'relu'"),
        (lambda z: act.derivative_of([]), r"no elementwise derivative for \[\]"),
    ],
)
def test_bad_settings_are_refused(call, message) -> None:
    with pytest.raises(ValueError, match=message):
        call(np.ones(3, np.float32))


# Deliberately broken variants: the checks above must find each.
MUTANT_VALUES = {
    "tanh form passed as erf": (act.gelu, act.gelu_tanh),
    "cubic coefficient": (
        act.gelu_tanh,
        lambda z: z * jax.nn.sigmoid(2 * np.sqrt(2 / np.pi) * (z + 0.0447 * z**3)),
    ),
    "erf argument without sqrt 2": (act.gelu, lambda z: z * (1 + jax.scipy.special.erf(z)) / 2),
    "selu without lambda": (act.selu, lambda z: act.elu(z, alpha=act.SELU_ALPHA)),
    "mish without softplus": (act.mish, lambda z: z * jnp.tanh(z)),
    "softplus naive": (act.softplus, lambda z: jnp.log(1 + jnp.exp(z))),
    "ramp without its shift": (act.piecewise_linear, lambda z: jnp.clip(z, 0, 1)),
    "elu slope ignored": (act.elu, lambda z, alpha: act.elu(z)),
}


@cache
def of_mutants(values: bool) -> dict[str, np.ndarray]:
    """Values, or derivatives, of all broken variants at POINTS, by one program."""
    mutants = MUTANT_VALUES if values else MUTANT_DERIVATIVES
    with float64():
        return jax.jit(lambda z: {name: g(z, **settings_of(f)) for name, (f, g) in mutants.items()})(POINTS)


@pytest.mark.parametrize("name", MUTANT_VALUES)
def test_a_wrong_value_is_found(name) -> None:
    with pytest.raises(AssertionError):
        check_value(MUTANT_VALUES[name][0], of_mutants(True)[name])


MUTANT_DERIVATIVES = {
    "sigmoid: s instead of s (1 - s)": (act.sigmoid, act.sigmoid),
    "sigmoid: taken at the output": (act.sigmoid, lambda z: act.sigmoid_derivative(act.sigmoid(z))),
    "tanh: 1 - tanh": (act.tanh, lambda z: 1 - jnp.tanh(z)),
    "silu: product rule forgotten": (act.silu, act.sigmoid),
    "gelu: z phi dropped": (act.gelu, lambda z: jax.scipy.stats.norm.cdf(z)),
    "gelu_tanh: inner factor 3 dropped": (
        act.gelu_tanh,
        lambda z: (
            act.gelu_tanh_derivative(z)
            - jax.nn.sigmoid(2 * (u := jnp.sqrt(2 / jnp.pi) * (z + 0.044715 * z**3)))
            * (1 - jax.nn.sigmoid(2 * u))
            * z
            * 2
            * jnp.sqrt(2 / jnp.pi)
            * 2
            * 0.044715
            * z
            * z
        ),
    ),
    "mish: sigmoid dropped": (
        act.mish,
        lambda z: jnp.tanh(jax.nn.softplus(z)) + z * (1 - jnp.tanh(jax.nn.softplus(z)) ** 2),
    ),
    "selu: lambda dropped": (act.selu, lambda z: act.elu_derivative(z, alpha=act.SELU_ALPHA)),
    "relu: sign flipped": (act.relu, lambda z: act.relu_derivative(-z)),
}


@pytest.mark.parametrize("name", MUTANT_DERIVATIVES)
def test_a_wrong_derivative_is_found(name) -> None:
    f = MUTANT_DERIVATIVES[name][0]
    with pytest.raises(AssertionError):
        check_derivative(f, of_mutants(False)[name], at("points")[f.__name__][2])


def test_a_relu_with_a_split_or_nan_eating_kink_is_found() -> None:
    @jax.jit
    def naive(z: Any) -> Any:
        return autodiff(lambda z: jnp.maximum(z, 0), z), jnp.where(z > 0, z, 0.0)

    split, eaten = naive(np.array([0.0, np.nan], np.float32))
    assert split[0] == 0.5  # what the check at kinks guards against
    assert not np.isnan(eaten[1])  # what the check of NaN guards against
