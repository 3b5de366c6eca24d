"""Initializers: moments, shapes of distributions, bounds, orthogonality, dtypes, keys, errors.

Statistics use n = 200,000 entries of a (400, 500) weight and fixed keys. With s the standard deviation and k the
kurtosis of an entry, the sample mean has standard deviation s / sqrt(n) and the sample variance s^2 sqrt((k - 1) / n);
both must lie within 5 of these of theory. For a normal that allows 1.6% in the variance; swapped fans are 20% off, a
missing factor 2 is 50% off, and a truncation without correction 23%.
"""

from __future__ import annotations

import math
from functools import cache, partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.stats

from jaxnn import initializers as init
from tests.helpers import float64, slow, strict

SHAPE = (400, 500)
KEY = jax.random.key(0)
NORMAL, UNIFORM = scipy.stats.norm(), scipy.stats.uniform(-math.sqrt(3), 2 * math.sqrt(3))
CUT = scipy.stats.truncnorm(-2, 2)
TRUNCATED = scipy.stats.truncnorm(-2, 2, scale=1 / CUT.std())


def check_distribution(w: np.ndarray, law, stddev, *, mean=0.0) -> None:
    """Mean, variance and, by Kolmogorov-Smirnov on 20,000 entries, the whole law (given with mean 0, variance 1)."""
    w = w.astype(np.float64).ravel()
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


@cache
def drawn() -> dict[str, np.ndarray]:
    """Of each law and of each broken one 200,000 entries, by one program."""
    laws = {name: case[0] for name, case in (LAWS | MUTANTS).items()}

    @jax.jit
    def every(key: Any) -> dict[str, Any]:
        found = {name: f(key, SHAPE) for name, f in laws.items()}
        found |= {name: f(key, KERNEL) for name, f in KERNELS.items()}
        return found | {"uniform": init.uniform(-1.0, 3.0)(key, SHAPE)}

    return jax.tree.map(np.asarray, every(KEY))


@pytest.mark.parametrize("name", LAWS)
def test_law_and_moments(name) -> None:
    check_distribution(drawn()[name], *LAWS[name][1:])


def test_uniform_moments() -> None:
    check_distribution(drawn()["uniform"], UNIFORM, 4 / math.sqrt(12), mean=1.0)


KERNEL = (5, 4, 10, 250)
"""5 x 4 positions, 10 channels in each group: fan_in 200."""


KERNELS = {
    "he_normal of a kernel": init.he_normal,
    "receptive field forgotten": init.variance_scaling(2.0, fan=lambda shape: shape[-2]),
}


def test_convolution_kernels_count_the_receptive_field() -> None:
    check_distribution(drawn()["he_normal of a kernel"], NORMAL, math.sqrt(2 / 200))


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
    x, w = np.ones((1, 8, 8, 4), np.float32), np.ones((3, 2, 4 // groups, 6), np.float32)
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
    pair = jax.jit(lambda key: [f(key, SHAPE, jnp.float32) for f in (ours, theirs)])(KEY)
    a, b = (np.asarray(w, np.float64) for w in pair)
    # A ratio of variances scatters by 2 / sqrt(n) at most.
    assert abs(a.var() / b.var() - 1) < 5 * 2 / math.sqrt(200_000)
    # The largest entries of bounded laws agree closely, those of a normal to the scatter of an extreme of 200,000.
    assert abs(np.abs(a).max() / np.abs(b).max() - 1) < 0.25


def test_bounds() -> None:
    truncated = np.abs(drawn()["truncated_normal"]).max() / 0.3
    assert 0.999 * 2 / CUT.std() < truncated <= (1 + 1e-6) * 2 / CUT.std()
    flat, half = jax.jit(lambda key: [init.uniform(-0.1, 0.3)(key, SHAPE, t) for t in ("float32", "bfloat16")])(KEY)
    flat, half = np.asarray(flat), np.asarray(half, np.float32)
    assert np.float32(-0.1) <= flat.min() < -0.0999
    assert 0.2999 < flat.max() <= np.float32(0.3)
    assert half.min() >= float(jnp.bfloat16(-0.1))
    assert half.max() <= float(jnp.bfloat16(0.3))
    glorot = np.abs(drawn()["glorot_uniform"]).max()
    assert 0.999 * math.sqrt(6 / 900) < glorot <= (1 + 1e-6) * math.sqrt(6 / 900)


def test_constants() -> None:
    functions = [init.zeros, init.constant(-2), init.normal(0.0), init.uniform(0.5, 0.5)]
    found = jax.jit(lambda key: [init.zeros(None, (2, 3)), *(f(key, (2, 3)) for f in functions)])(KEY)
    for w, value in zip(found, (0, 0, -2, 0, 0.5), strict=True):
        np.testing.assert_array_equal(w, np.full((2, 3), value, np.float32))


SHAPES = {"tall": (12, 5), "wide": (5, 12), "square": (5, 5), "kernel": (2, 2, 3, 5), "wide kernel": (1, 1, 5, 12)}


def check_orthogonal(w: Any, shape, tolerance, gain) -> None:
    w = np.asarray(w, np.float64)
    matrix = w.reshape(-1, shape[-1])
    gram = matrix.T @ matrix if matrix.shape[0] >= matrix.shape[1] else matrix @ matrix.T
    assert w.shape == shape
    np.testing.assert_allclose(gram, gain**2 * np.eye(len(gram)), atol=tolerance)


def test_orthogonal() -> None:
    @jax.jit
    def every(key: Any) -> dict[str, Any]:
        gained = init.orthogonal(gain=1.7)
        return {n: (init.orthogonal()(key, s, jnp.float32), gained(key, s, jnp.float64)) for n, s in SHAPES.items()}

    with float64(), strict():
        for name, (single, double) in every(KEY).items():
            check_orthogonal(single, SHAPES[name], 1e-5, 1.0)
            check_orthogonal(double, SHAPES[name], 1e-12, 1.7)


def test_orthogonal_in_half_precision() -> None:
    check_orthogonal(jax.jit(lambda key: init.orthogonal()(key, (12, 5), jnp.bfloat16))(KEY), (12, 5), 0.02, 1.0)


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


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", *slow("float64", "float16")])
def test_dtype_shape_and_finiteness(dtype) -> None:
    with float64(), strict():
        found = jax.jit(lambda key: {name: f(key, (3, 4), dtype) for name, f in EVERY.items()})(KEY)
    for name, w in found.items():
        assert w.dtype == dtype, name
        assert w.shape == (3, 4), name
        assert not w.weak_type, name
        assert np.isfinite(np.asarray(w, np.float64)).all(), name


def test_half_precision_rounds_the_float32_draw() -> None:
    functions = {name: RANDOM[name] for name in ("uniform", "normal", "truncated_normal", "he_uniform")}

    @jax.jit
    def both(key: Any) -> dict[str, Any]:
        return {name: (f(key, (3, 4), jnp.bfloat16), f(key, (3, 4))) for name, f in functions.items()}

    for name, (half, single) in both(KEY).items():
        np.testing.assert_array_equal(np.asarray(half), np.asarray(single).astype(jnp.bfloat16), err_msg=name)


@jax.jit
def small(key: Any) -> dict[str, Any]:
    return {name: f(key, (3, 4)) for name, f in RANDOM.items()}


def test_reproducible_from_the_key_and_only_from_it() -> None:
    first, again, other = small(KEY), small(jax.random.key(0)), small(jax.random.key(1))
    for name in RANDOM:
        np.testing.assert_array_equal(first[name], again[name], err_msg=name)
        assert not np.isclose(first[name], other[name]).any(), name


def test_vmap_over_keys_draws_what_each_key_draws() -> None:
    keys = jax.random.split(KEY, 3)
    stacked, each = jax.jit(jax.vmap(small))(keys), [small(key) for key in keys]
    for name in RANDOM:
        rows = np.stack([found[name] for found in each])
        np.testing.assert_allclose(stacked[name], rows, rtol=1e-5, atol=1e-6, err_msg=name)
        assert not np.isclose(rows[0], rows[1]).any(), name


def test_default_dtype_list_shapes_and_empty_arrays() -> None:
    @jax.jit
    def every(key: Any) -> dict[str, Any]:
        shapes = ((3, 4), [3, np.int64(4)], (0, 4), (4, 0))
        return {name: [f(key, shape) for shape in shapes] for name, f in EVERY.items()}

    for name, (of_tuple, of_list, *empty) in every(KEY).items():
        assert of_tuple.dtype == jnp.float32, name
        np.testing.assert_array_equal(of_list, of_tuple, err_msg=name)
        assert [w.shape for w in empty] == [(0, 4), (4, 0)], name


def test_settings_may_be_traced() -> None:
    factories = [
        init.constant,
        init.normal,
        init.truncated_normal,
        init.centered_uniform,
        init.variance_scaling,
        init.orthogonal,
        lambda s: init.uniform(-s, s),
    ]
    values = (0.5, 2.0)

    @jax.jit
    def swept_and_each(settings: Any, key: Any) -> list[Any]:
        return [
            (jax.vmap(lambda s, f=f: f(s)(key, (3, 4)))(settings), [f(v)(key, (3, 4)) for v in values])
            for f in factories
        ]

    for swept, each in swept_and_each(np.array(values, np.float32), KEY):
        np.testing.assert_allclose(swept, np.stack(each), rtol=1e-5)
    with float64(), strict():
        for f in factories:
            half = jax.eval_shape(lambda s, key, f=f: f(s)(key, (3, 4), jnp.bfloat16), np.float64(0.5), KEY)
            assert half.dtype == jnp.bfloat16


def test_everything_is_exported() -> None:
    assert all(hasattr(init, name) for name in init.__all__)


VECTOR = (3,)
BAD = {
    "normal stddev": (lambda: init.normal(-1.0), ValueError, r"normal: stddev must lie in \[0, inf\), got -1"),
    "NaN stddev": (lambda: init.truncated_normal(math.nan), ValueError, "truncated_normal: stddev .* got nan"),
    "vector stddev": (lambda: init.normal([1.0, 2.0]), ValueError, r"stddev must be one number, got shape \(2,\)"),
    "text": (lambda: init.constant("zero"), TypeError, "constant: value must be a number, got 'zero'"),
    "uniform order": (lambda: init.uniform(1.0, -1.0), ValueError, "uniform: low must not exceed high, got low=1"),
    "uniform vector": (lambda: init.uniform(0.0, np.ones(2)), ValueError, "uniform: high must be one number"),
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
        lambda: init.he_normal(np.zeros(2, np.uint32), (3, 4)),
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
    "orthogonal gain": (lambda: init.orthogonal(np.ones(2)), ValueError, "orthogonal: gain must be one number"),
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
        check_distribution(drawn()[name], *MUTANTS[name][1:])


def test_a_wrong_receptive_field_is_found() -> None:
    with pytest.raises(AssertionError):
        check_distribution(drawn()["receptive field forgotten"], NORMAL, math.sqrt(2 / 200))


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
    w = jax.jit(lambda key: mutant(key, (12, 5), jnp.float32))(KEY)
    with pytest.raises(AssertionError):
        check_orthogonal(w, (12, 5), 1e-5, 1.0)
