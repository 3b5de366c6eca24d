"""Initializers: moments, shapes of distributions, bounds, orthogonality, dtypes, keys, errors.

Statistics use n = 200,000 entries of a (400, 500) weight and fixed keys. With s the standard deviation and k the
kurtosis of an entry, the sample mean has standard deviation s / sqrt(n) and the sample variance s^2 sqrt((k - 1) / n);
both must lie within 5 of these of theory. For a normal that allows 1.6% in the variance; swapped fans are 20% off, a
missing factor 2 is 50% off, and a truncation without correction 23%.
"""

from __future__ import annotations

import math
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.stats

from jaxnn import initializers as init
from tests.helpers import float64, strict

pytestmark = pytest.mark.sampled

SHAPE = (400, 500)
KEY = jax.random.key(0)
NORMAL, UNIFORM = scipy.stats.norm(), scipy.stats.uniform(-math.sqrt(3), 2 * math.sqrt(3))
CUT = scipy.stats.truncnorm(-2, 2)
TRUNCATED = scipy.stats.truncnorm(-2, 2, scale=1 / CUT.std())


def check_distribution(initializer, law, stddev, *, mean=0.0, shape=SHAPE) -> None:
    """Mean, variance and, by Kolmogorov-Smirnov on 20,000 entries, the whole law (given with mean 0, variance 1)."""
    w = np.asarray(initializer(KEY, shape), np.float64).ravel()
    n, kurtosis = w.size, float(law.stats(moments="k")) + 3
    assert abs(w.mean() - mean) < 5 * stddev / math.sqrt(n)
    assert abs(w.var() / stddev**2 - 1) < 5 * math.sqrt((kurtosis - 1) / n)
    assert scipy.stats.kstest((w[:20_000] - mean) / stddev, law.cdf).pvalue > 1e-4


FAN_IN, FAN_OUT = 400, 500
AVERAGE = 450
LAWS = {
    "normal": (init.normal(0.3), NORMAL, 0.3),
    "truncated_normal": (init.truncated_normal(0.3), TRUNCATED, 0.3),
    "centered_uniform": (init.centered_uniform(0.3), UNIFORM, 0.3),
    "lecun_normal": (init.lecun_normal, NORMAL, math.sqrt(1 / FAN_IN)),
    "lecun_uniform": (init.lecun_uniform, UNIFORM, math.sqrt(1 / FAN_IN)),
    "glorot_normal": (init.glorot_normal, NORMAL, math.sqrt(1 / AVERAGE)),
    "glorot_uniform": (init.glorot_uniform, UNIFORM, math.sqrt(1 / AVERAGE)),
    "he_normal": (init.he_normal, NORMAL, math.sqrt(2 / FAN_IN)),
    "he_uniform": (init.he_uniform, UNIFORM, math.sqrt(2 / FAN_IN)),
    "fan_out": (
        init.variance_scaling(3.0, fan=init.fan_out, distribution=init.truncated_normal),
        TRUNCATED,
        math.sqrt(3 / FAN_OUT),
    ),
    "own fan": (init.variance_scaling(1.0, fan=lambda shape: 7.0), NORMAL, math.sqrt(1 / 7)),
}
RANDOM = {
    **{name: case[0] for name, case in LAWS.items()},
    "uniform": init.uniform(-0.1, 0.3),
    "orthogonal": init.orthogonal(),
}
EVERY = {**RANDOM, "zeros": init.zeros, "constant": init.constant(0.3)}


@pytest.mark.parametrize("name", LAWS)
def test_law_and_moments(name) -> None:
    check_distribution(*LAWS[name])


def test_uniform_moments() -> None:
    check_distribution(init.uniform(-1.0, 3.0), UNIFORM, 4 / math.sqrt(12), mean=1.0)


KERNEL = (5, 4, 10, 250)
"""5 x 4 positions, 10 channels in each group: fan_in 200."""


def test_convolution_kernels_count_the_receptive_field() -> None:
    check_distribution(init.he_normal, NORMAL, math.sqrt(2 / 200), shape=KERNEL)


@pytest.mark.parametrize(
    ("shape", "expected"),
    [
        ((784, 10), (784, 10, 397)),
        ((3, 3, 16, 32), (144, 288, 216)),
        ((5, 16, 32), (80, 160, 120)),
        ((3, 3, 4, 32), (36, 288, 162)),
        ((3, 3, 1, 16), (9, 144, 76.5)),
    ],
    ids=["dense", "HWIO", "1-D", "4 groups of 16", "depthwise"],
)
def test_fans(shape, expected) -> None:
    assert (init.fan_in(shape), init.fan_out(shape), init.fan_avg(shape)) == expected


@pytest.mark.parametrize("groups", [1, 2])
def test_fan_in_is_the_number_of_terms_in_one_output(groups) -> None:
    x, w = jnp.ones((1, 8, 8, 4)), jnp.ones((3, 2, 4 // groups, 6))
    y = jax.lax.conv_general_dilated(
        x, w, (1, 1), "VALID", dimension_numbers=("NHWC", "HWIO", "NHWC"), feature_group_count=groups
    )
    assert float(y[0, 0, 0, 0]) == init.fan_in(w.shape)


@pytest.mark.parametrize(
    ("ours", "theirs"),
    [
        (
            init.variance_scaling(2.0, distribution=init.truncated_normal),
            jax.nn.initializers.variance_scaling(2.0, "fan_in", "truncated_normal"),
        ),
        (
            init.variance_scaling(2.0, fan=init.fan_out, distribution=init.centered_uniform),
            jax.nn.initializers.variance_scaling(2.0, "fan_out", "uniform"),
        ),
        (init.glorot_normal, jax.nn.initializers.variance_scaling(1.0, "fan_avg", "normal")),
    ],
    ids=["he_truncated", "fan_out_uniform", "glorot_normal"],
)
def test_spread_equals_that_of_jax(ours, theirs) -> None:
    a, b = (np.asarray(f(KEY, SHAPE, jnp.float32), np.float64) for f in (ours, theirs))
    # A ratio of variances scatters by 2 / sqrt(n) at most.
    assert abs(a.var() / b.var() - 1) < 5 * 2 / math.sqrt(200_000)
    # The largest entries of bounded laws agree closely, those of a normal to the scatter of an extreme of 200,000.
    assert abs(np.abs(a).max() / np.abs(b).max() - 1) < 0.25


def test_bounds() -> None:
    truncated = np.abs(init.truncated_normal(0.3)(KEY, SHAPE)).max() / 0.3
    assert 0.999 * 2 / CUT.std() < truncated <= (1 + 1e-6) * 2 / CUT.std()
    flat = np.asarray(init.uniform(-0.1, 0.3)(KEY, SHAPE))
    assert np.float32(-0.1) <= flat.min() < -0.0999
    assert 0.2999 < flat.max() <= np.float32(0.3)
    half = np.asarray(init.uniform(-0.1, 0.3)(KEY, SHAPE, jnp.bfloat16), np.float32)
    assert half.min() >= float(jnp.bfloat16(-0.1))
    assert half.max() <= float(jnp.bfloat16(0.3))
    glorot = np.abs(init.glorot_uniform(KEY, SHAPE)).max()
    assert 0.999 * math.sqrt(6 / 900) < glorot <= (1 + 1e-6) * math.sqrt(6 / 900)


def test_constants() -> None:
    np.testing.assert_array_equal(init.zeros(None, (2, 3)), np.zeros((2, 3), np.float32))
    np.testing.assert_array_equal(init.constant(-2)(KEY, (2, 3)), np.full((2, 3), -2, np.float32))
    np.testing.assert_array_equal(init.normal(0.0)(KEY, (2, 3)), np.zeros((2, 3), np.float32))
    np.testing.assert_array_equal(init.uniform(0.5, 0.5)(KEY, (2, 3)), np.full((2, 3), 0.5, np.float32))


SHAPES = {"tall": (12, 5), "wide": (5, 12), "square": (5, 5), "kernel": (2, 2, 3, 5), "wide kernel": (1, 1, 5, 12)}


def check_orthogonal(initializer, shape, dtype, tolerance, gain) -> None:
    w = np.asarray(initializer(KEY, shape, dtype), np.float64)
    matrix = w.reshape(-1, shape[-1])
    gram = matrix.T @ matrix if matrix.shape[0] >= matrix.shape[1] else matrix @ matrix.T
    assert w.shape == shape
    np.testing.assert_allclose(gram, gain**2 * np.eye(len(gram)), atol=tolerance)


@pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES)
def test_orthogonal(shape) -> None:
    with float64(), strict():
        check_orthogonal(init.orthogonal(), shape, jnp.float32, 1e-5, 1.0)
        check_orthogonal(init.orthogonal(gain=1.7), shape, jnp.float64, 1e-12, 1.7)


def test_orthogonal_in_half_precision() -> None:
    check_orthogonal(init.orthogonal(), (12, 5), jnp.bfloat16, 0.02, 1.0)


def test_orthogonal_is_uniform_among_all() -> None:
    """An entry of a uniform (Haar) 2 x 2 orthogonal matrix has mean 0 and variance 1/2; Q without its signs has not."""
    keys = jax.random.split(KEY, 2000)
    bound = 5 * math.sqrt(0.5 / 2000)
    w = np.asarray(jax.jit(jax.vmap(lambda k: init.orthogonal()(k, (2, 2))))(keys), np.float64)
    assert (np.abs(w.mean(axis=0)) < bound).all()
    assert (np.abs(w.var(axis=0) - 0.5) < 5 * math.sqrt(0.125 / 2000)).all()  # the variance of cos^2 is 1/8
    assert abs(np.linalg.det(w).mean()) < 5 / math.sqrt(2000)  # as many rotations as reflections
    unsigned = np.linalg.qr(np.random.default_rng(0).standard_normal((2000, 2, 2)))[0]
    assert not (np.abs(unsigned.mean(axis=0)) < bound).all()


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.float64, jnp.bfloat16, jnp.float16])
@pytest.mark.parametrize("name", EVERY)
def test_dtype_shape_and_finiteness(name, dtype) -> None:
    with float64(), strict():
        w = EVERY[name](KEY, (3, 4), dtype)
    assert w.dtype == dtype
    assert w.shape == (3, 4)
    assert not w.weak_type
    assert np.isfinite(np.asarray(w, np.float64)).all()


@pytest.mark.parametrize("name", ["uniform", "normal", "truncated_normal", "he_uniform"])
def test_half_precision_rounds_the_float32_draw(name) -> None:
    expected = RANDOM[name](KEY, (3, 4)).astype(jnp.bfloat16)
    np.testing.assert_array_equal(np.asarray(RANDOM[name](KEY, (3, 4), jnp.bfloat16)), np.asarray(expected))


@pytest.mark.parametrize("name", RANDOM)
def test_reproducible_from_the_key_and_only_from_it(name) -> None:
    f = RANDOM[name]
    first, again, other = f(KEY, (3, 4)), f(jax.random.key(0), (3, 4)), f(jax.random.key(1), (3, 4))
    np.testing.assert_array_equal(first, again)
    assert not np.isclose(first, other).any()


def test_vmap_over_keys_draws_what_each_key_draws() -> None:
    keys = jax.random.split(KEY, 3)
    stacked = jax.jit(jax.vmap(lambda k: {name: f(k, (3, 4)) for name, f in RANDOM.items()}))(keys)
    for name, f in RANDOM.items():
        each = np.stack([f(k, (3, 4)) for k in keys])
        np.testing.assert_allclose(stacked[name], each, rtol=1e-5, atol=1e-6, err_msg=name)
        assert not np.isclose(each[0], each[1]).any()


@pytest.mark.parametrize("name", EVERY)
def test_default_dtype_list_shapes_and_empty_arrays(name) -> None:
    assert EVERY[name](KEY, (3, 4)).dtype == jnp.float32
    np.testing.assert_array_equal(EVERY[name](KEY, [3, np.int64(4)]), EVERY[name](KEY, (3, 4)))
    assert EVERY[name](KEY, (0, 4)).shape == (0, 4)
    assert EVERY[name](KEY, (4, 0)).shape == (4, 0)


@pytest.mark.parametrize(
    "factory",
    [
        init.constant,
        init.normal,
        init.truncated_normal,
        init.centered_uniform,
        init.variance_scaling,
        init.orthogonal,
        lambda s: init.uniform(-s, s),
    ],
)
def test_settings_may_be_traced(factory) -> None:
    values = jnp.array([0.5, 2.0])
    swept = jax.jit(jax.vmap(lambda s: factory(s)(KEY, (3, 4))))(values)
    np.testing.assert_allclose(swept, np.stack([factory(float(v))(KEY, (3, 4)) for v in values]), rtol=1e-5)
    with float64(), strict():
        assert factory(jnp.float64(0.5))(KEY, (3, 4), jnp.bfloat16).dtype == jnp.bfloat16


def test_everything_is_exported() -> None:
    assert all(hasattr(init, name) for name in init.__all__)


VECTOR = (3,)
BAD = {
    "normal stddev": (lambda: init.normal(-1.0), ValueError, r"normal: stddev must lie in \[0, inf\), got -1"),
    "NaN stddev": (lambda: init.truncated_normal(math.nan), ValueError, "truncated_normal: stddev .* got nan"),
    "vector stddev": (lambda: init.normal([1.0, 2.0]), ValueError, r"stddev must be one number, got shape \(2,\)"),
    "text": (lambda: init.constant("zero"), TypeError, "constant: value must be a number, got 'zero'"),
    "uniform order": (lambda: init.uniform(1.0, -1.0), ValueError, "uniform: low must not exceed high, got low=1"),
    "uniform vector": (lambda: init.uniform(0.0, jnp.ones(2)), ValueError, "uniform: high must be one number"),
    "centered": (lambda: init.centered_uniform(-0.1), ValueError, "centered_uniform: stddev must lie in"),
    "scale": (lambda: init.variance_scaling(-2.0), ValueError, "variance_scaling: scale must lie in"),
    "fan text": (
        lambda: init.variance_scaling(2.0, fan="fan_in"),
        TypeError,
        "fan must be a function such as jaxnn.initializers.fan_in, got 'fan_in'",
    ),
    "distribution text": (
        lambda: init.variance_scaling(2.0, distribution="normal"),
        TypeError,
        "distribution must be a function such as jaxnn.initializers.truncated_normal, got 'normal'",
    ),
    "no key": (lambda: init.normal(1.0)(None, (3,)), ValueError, "normal: needs a random key, got None"),
    "raw key": (
        lambda: init.he_normal(jnp.zeros(2, jnp.uint32), (3, 4)),
        TypeError,
        r"key must be a typed key.*jax.random.key\(seed\)",
    ),
    "int shape": (lambda: init.normal(1.0)(KEY, 3), TypeError, r"normal: shape must be a tuple of ints, got 3"),
    "float shape": (lambda: init.zeros(KEY, (3.0,)), TypeError, r"zeros: shape must be a tuple of ints, got \(3.0,\)"),
    "negative": (lambda: init.uniform(0.0, 1.0)(KEY, (-1, 2)), ValueError, "sizes in shape must be at least 0"),
    "int dtype": (lambda: init.zeros(KEY, (3,), jnp.int32), TypeError, "zeros: dtype must have a floating dtype"),
    "int dtype of he": (lambda: init.he_normal(KEY, (3, 3), jnp.int32), TypeError, "floating dtype, got int32"),
    "lecun vector": (lambda: init.lecun_normal(KEY, VECTOR), ValueError, r"fan_in: shape must have at least 2 axes"),
    "glorot vector": (lambda: init.glorot_uniform(KEY, VECTOR), ValueError, r"fan_avg: .*, got \(3,\). For a vector"),
    "he scalar": (lambda: init.he_uniform(KEY, ()), ValueError, r"fan_in: .*, got \(\)"),
    "fan_out vector": (lambda: init.fan_out(VECTOR), ValueError, "fan_out: shape must have at least 2 axes"),
    "orthogonal vector": (lambda: init.orthogonal()(KEY, VECTOR), ValueError, "orthogonal: shape must have at least 2"),
    "orthogonal gain": (lambda: init.orthogonal(jnp.ones(2)), ValueError, "orthogonal: gain must be one number"),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_input_is_refused(name) -> None:
    call, error, message = BAD[name]
    with pytest.raises(error, match=message):
        call()


# Deliberately broken variants: the checks above must find each.
MUTANTS = {
    "fans swapped": (init.variance_scaling(2.0, fan=init.fan_out), NORMAL, math.sqrt(2 / FAN_IN)),
    "fan_avg for fan_in": (init.variance_scaling(2.0, fan=init.fan_avg), NORMAL, math.sqrt(2 / FAN_IN)),
    "factor 2 missing": (init.variance_scaling(1.0), NORMAL, math.sqrt(2 / FAN_IN)),
    "variance for stddev": (init.normal(0.3**2), NORMAL, 0.3),
    "truncation not corrected": (
        lambda key, shape: 0.3 * jax.random.truncated_normal(key, -2.0, 2.0, shape),
        TRUNCATED,
        0.3,
    ),
    "normal for truncated": (init.normal(0.3), TRUNCATED, 0.3),
    "uniform without sqrt 3": (init.uniform(-0.3, 0.3), UNIFORM, 0.3),
    "uniform from 0": (init.uniform(0.0, 0.6 * math.sqrt(3)), UNIFORM, 0.3),
    "normal for uniform": (init.normal(0.3), UNIFORM, 0.3),
}


@pytest.mark.parametrize("name", MUTANTS)
def test_a_wrong_law_is_found(name) -> None:
    with pytest.raises(AssertionError):
        check_distribution(*MUTANTS[name])


def test_a_wrong_receptive_field_is_found() -> None:
    mutant = init.variance_scaling(2.0, fan=lambda shape: shape[-2])
    with pytest.raises(AssertionError):
        check_distribution(mutant, NORMAL, math.sqrt(2 / 200), shape=KERNEL)


@pytest.mark.parametrize(
    "mutant",
    [
        lambda key, shape, dtype: jax.random.normal(key, shape, dtype) / math.sqrt(shape[0]),
        lambda key, shape, dtype: init.orthogonal()(key, shape[::-1], dtype).reshape(shape),
        partial(init.orthogonal(math.sqrt(2))),
    ],
    ids=["normal", "axes swapped", "gain squared"],
)
def test_a_wrong_orthogonal_is_found(mutant) -> None:
    with pytest.raises(AssertionError):
        check_orthogonal(mutant, (12, 5), jnp.float32, 1e-5, 1.0)
