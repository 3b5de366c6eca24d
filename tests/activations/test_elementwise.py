"""Elementwise activations and their derivatives: values, gradients, kinks, extremes, dtypes, errors."""

from __future__ import annotations

import inspect
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.special
from hypothesis import given
from hypothesis import strategies as st

from jaxnn import activations as act
from tests.helpers import assert_close, float64, strict

pytestmark = pytest.mark.sampled

ALL = list(act.DERIVATIVES)
DERIVATIVES = [act.DERIVATIVES[f] for f in ALL]
SMOOTH = [act.linear, act.sigmoid, act.tanh, act.softplus, act.gelu, act.gelu_tanh, act.silu, act.mish]
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


def check_value(f, expected, points=POINTS):
    with float64():
        got = f(jnp.asarray(points), **settings_of(f))
    np.testing.assert_allclose(np.asarray(got), expected(points), rtol=2e-12, atol=0)


def check_derivative(f, derivative, points=POINTS):
    """The hand derivative against jax.grad to 1e-12 relative; jax's rules for expm1 and tanh round in the tail."""
    atol = 1e-15 if f in (act.elu, act.selu, act.tanh) else 0
    with float64():
        z = jnp.asarray(points)
        got = derivative(z, **settings_of(f))
        assert_close(got, autodiff(f, z), rtol=1e-12, atol=atol)


@named("f", ALL)
def test_value_equals_numpy(f) -> None:
    check_value(f, EXPECTED[f])


@named("f", JAX_NN)
def test_value_and_gradient_equal_jax_nn(f) -> None:
    with float64():
        z = jnp.asarray(POINTS)
        assert_close(f(z, **settings_of(f)), JAX_NN[f](z), rtol=1e-9, atol=1e-14)
        theirs = jax.grad(lambda x: jnp.sum(JAX_NN[f](x)))(z)
        assert_close(act.derivative_of(f)(z, **settings_of(f)), theirs, rtol=1e-9, atol=1e-14)


def test_value_and_gradient_equal_torch() -> None:
    torch = pytest.importorskip("torch")
    functional = torch.nn.functional
    theirs = {
        act.hard_tanh: functional.hardtanh,
        act.sigmoid: torch.sigmoid,
        act.tanh: torch.tanh,
        act.softplus: partial(functional.softplus, threshold=50),
        act.relu: functional.relu,
        act.leaky_relu: partial(functional.leaky_relu, negative_slope=0.3),
        act.elu: partial(functional.elu, alpha=1.7),
        act.selu: functional.selu,
        act.gelu: functional.gelu,
        act.gelu_tanh: partial(functional.gelu, approximate="tanh"),
        act.silu: functional.silu,
        act.mish: functional.mish,
    }
    for f, g in theirs.items():
        # ELU's and SELU's kink apart (torch takes the other branch there), torch agrees at kinks too.
        kinks = [] if f in (act.elu, act.selu) else list(KINKS.get(f, {}))
        points = np.concatenate([POINTS, np.array(kinks)])
        x = torch.tensor(points, dtype=torch.float64, requires_grad=True)
        y = g(x)
        (slope,) = torch.autograd.grad(y.sum(), x)
        with float64():
            z = jnp.asarray(points)
            np.testing.assert_allclose(f(z, **settings_of(f)), y.detach().numpy(), rtol=1e-9, atol=1e-14)
            np.testing.assert_allclose(
                act.derivative_of(f)(z, **settings_of(f)), slope.numpy(), rtol=1e-9, atol=1e-14, err_msg=f.__name__
            )


@named("f", ALL)
def test_derivative_equals_autodiff(f) -> None:
    check_derivative(f, act.derivative_of(f))


@named("f", SMOOTH)
@given(z=st.floats(-1e4, 1e4))
def test_smooth_derivative_equals_autodiff_anywhere(f, z: float) -> None:
    check_derivative(f, act.derivative_of(f), np.array([z]))


@named("f", ALL)
def test_derivative_equals_a_central_difference(f) -> None:
    points = np.linspace(-3, 3, 41) + 0.0123  # no kink within the step
    step = 1e-6
    slope = (EXPECTED[f](points + step) - EXPECTED[f](points - step)) / (2 * step)
    with float64():
        got = act.derivative_of(f)(jnp.asarray(points), **settings_of(f))
    np.testing.assert_allclose(np.asarray(got), slope, rtol=1e-8, atol=1e-8)


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
    points = np.linspace(-20, -2, 40)
    with float64():
        got = act.derivative_of(f)(jnp.asarray(points), **settings_of(f))
    np.testing.assert_allclose(np.asarray(got), truth(points), rtol=1e-12)


@pytest.mark.parametrize("dtype", DTYPES)
def test_documented_derivative_at_kinks_is_that_of_autodiff(dtype) -> None:
    with float64():
        points = {f: jnp.array(list(KINKS[f]), dtype) for f in KINKS}

        def everything():
            return [(act.derivative_of(f)(z, **settings_of(f)), autodiff(f, z)) for f, z in points.items()]

        got = jax.jit(everything)()
        for f, (hand, automatic) in zip(KINKS, got, strict=True):
            for result in (hand, automatic):
                np.testing.assert_allclose(
                    np.asarray(result, np.float64),
                    list(KINKS[f].values()),
                    rtol=float(jnp.finfo(dtype).eps),
                    err_msg=f.__name__,
                )


def test_every_nonsmooth_activation_has_its_kinks_listed() -> None:
    assert set(ALL) == set(KINKS) | set(SMOOTH)


@pytest.mark.parametrize(
    ("f", "settings", "value"),
    [
        (act.sign, {}, 0.0),
        (act.perceptron_sign, {}, 1.0),
        (act.heaviside, {}, 0.5),
        (act.heaviside, {"at_zero": 0}, 0.0),
        (act.heaviside, {"at_zero": 0.5}, 0.5),
        (act.heaviside, {"at_zero": 1}, 1.0),
    ],
)
@pytest.mark.parametrize("zero", [0.0, -0.0])
def test_value_at_the_jump(f, settings, value, zero) -> None:
    assert float(f(jnp.float32(zero), **settings)) == value


def test_defaults() -> None:
    z = jnp.array([-2.0, 2.0])
    assert_close(act.leaky_relu(z), np.array([-0.02, 2.0]), rtol=1e-6)
    assert_close(act.elu(z), np.array([np.expm1(-2), 2.0]), rtol=1e-6)
    assert act.relu_derivative(jnp.float32(0)) == jax.grad(jax.nn.relu)(0.0) == 0


@pytest.mark.parametrize("dtype", DTYPES)
def test_finite_at_extremes(dtype) -> None:
    with float64(), strict():
        z = jnp.array([-1e4, -100.0, -1e-30, 0.0, 100.0, 1e4], dtype)
        results = jax.jit(lambda z: [(f(z), act.derivative_of(f)(z), autodiff(f, z)) for f in ALL])(z)
        for f, triple in zip(ALL, results, strict=True):
            for result in triple:
                assert result.dtype == dtype, f.__name__
                assert result.shape == z.shape, f.__name__
                assert np.isfinite(np.asarray(result, np.float64)).all(), f.__name__


@named("f", ALL)
def test_nan_is_passed_on(f) -> None:
    assert np.isnan(f(jnp.float32(jnp.nan)))


@named("f", ALL + DERIVATIVES)
def test_half_precision_is_the_rounded_float32_result(f) -> None:
    for dtype in (jnp.bfloat16, jnp.float16):
        z = jnp.asarray(POINTS, dtype)
        got = f(z)
        assert got.dtype == dtype
        np.testing.assert_array_equal(np.asarray(got), np.asarray(f(z.astype(jnp.float32)).astype(dtype)))


def test_jit_and_vmap() -> None:
    z = jnp.asarray(POINTS.reshape(2, 8, 5), jnp.float32)

    def everything(z):
        return [f(z, **settings_of(f)) for f in ALL]

    with strict():
        compiled, mapped = jax.jit(everything)(z), jax.jit(jax.vmap(everything))(z)
        for f, a, b in zip(ALL, compiled, mapped, strict=True):
            expected = EXPECTED[f](np.asarray(z, np.float64))
            np.testing.assert_allclose(a, expected, rtol=1e-4, atol=1e-30, err_msg=f.__name__)
            np.testing.assert_allclose(b, a, rtol=1e-4, atol=1e-30, err_msg=f.__name__)


@named("f", [act.relu, act.leaky_relu, act.elu_derivative, act.sign])
def test_numbers_and_empty_arrays(f) -> None:
    with strict():
        assert f(0.25).dtype == jnp.float32
        assert float(f(0.25)) == float(f(jnp.float32(0.25)))
        assert f(jnp.zeros((0, 3))).shape == (0, 3)


@pytest.mark.parametrize(
    ("f", "name"), [(act.heaviside, "at_zero"), (act.leaky_relu, "negative_slope"), (act.elu, "alpha")]
)
def test_settings_may_be_traced_and_of_another_dtype(f, name) -> None:
    z = jnp.array([-1.0, 0.0, 2.0])
    values = jnp.array([0.1, 0.7])
    for g in (f, act.derivative_of(f)):
        swept = jax.jit(jax.vmap(lambda s, g=g: g(z, **{name: s})))(values)
        assert_close(swept, jnp.stack([g(z, **{name: float(v)}) for v in values]), rtol=1e-6)
        with float64(), strict():
            assert g(z, **{name: jnp.float64(0.1)}).dtype == jnp.float32


def test_derivative_takes_the_settings_of_its_activation() -> None:
    for f, derivative in act.DERIVATIVES.items():
        assert derivative.__name__ == f"{f.__name__}_derivative"
        assert inspect.signature(derivative) == inspect.signature(f)


def test_everything_is_exported() -> None:
    assert act.relu(z=jnp.ones(2)).shape == (2,)  # z may be named
    for f in ALL + DERIVATIVES:
        assert getattr(act, f.__name__) is f
        assert f.__name__ in act.__all__


def test_the_table_is_read_only() -> None:
    with pytest.raises(TypeError, match="item assignment"):
        act.DERIVATIVES[act.relu] = act.tanh  # type: ignore[index]


@named("f", ALL + DERIVATIVES)
def test_integers_are_refused(f) -> None:
    with pytest.raises(TypeError, match=f"{f.__name__}: z must have a floating dtype, got int32. Convert it"):
        f(jnp.arange(3))


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
        call(jnp.ones(3))


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


@pytest.mark.parametrize("name", MUTANT_VALUES)
def test_a_wrong_value_is_found(name) -> None:
    f, mutant = MUTANT_VALUES[name]
    with pytest.raises(AssertionError):
        check_value(lambda z, **s: mutant(z, **settings_of(f)), EXPECTED[f])


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
    f, mutant = MUTANT_DERIVATIVES[name]
    with pytest.raises(AssertionError):
        check_derivative(f, mutant)


def test_a_relu_with_a_split_or_nan_eating_kink_is_found() -> None:
    assert autodiff(lambda z: jnp.maximum(z, 0), jnp.zeros(1))[0] == 0.5  # what the check at kinks guards against
    assert not np.isnan(jnp.where(jnp.float32(jnp.nan) > 0, jnp.nan, 0.0))  # what the check of NaN guards against
