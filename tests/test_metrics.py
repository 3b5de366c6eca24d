"""Metrics against scikit-learn, NumPy and jax.lax.top_k; ties, NaN, out-of-range labels; broken variants are found."""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from jaxnn import metrics
from tests.helpers import float64, random, strict

compiled = SimpleNamespace(
    accuracy=jax.jit(metrics.accuracy),
    error_rate=jax.jit(metrics.error_rate),
    top_k_accuracy=jax.jit(metrics.top_k_accuracy, static_argnames="k"),
    binary_accuracy=jax.jit(metrics.binary_accuracy),
    confusion_matrix=jax.jit(metrics.confusion_matrix, static_argnames="classes"),
    rmse=jax.jit(metrics.rmse),
    r_squared=jax.jit(metrics.r_squared),
)
"""The metrics compiled, which is faster in tests; the examples in their docstrings run without."""
N, K = 40, 5
OUTPUTS = random(0, N, K, dtype=np.float32)
LABELS = np.random.default_rng(1).integers(0, K, N)
OUTPUTS[np.arange(N), LABELS] += 1.0


def numpy_accuracy(outputs: np.ndarray, labels: np.ndarray) -> np.ndarray:
    return (np.argmax(outputs.astype(np.float64), axis=-1) == labels).astype(np.float64)


def assert_accuracy(accuracy: Callable[[Any, Any], Any]) -> None:
    with strict():
        got = accuracy(OUTPUTS, LABELS)
    assert got.shape == (N,)
    assert got.dtype == jnp.float32
    np.testing.assert_array_equal(got, numpy_accuracy(OUTPUTS, LABELS))


def test_accuracy_and_error_rate() -> None:
    assert_accuracy(compiled.accuracy)
    assert 0 < numpy_accuracy(OUTPUTS, LABELS).mean() < 1
    error = compiled.error_rate(OUTPUTS, LABELS)
    np.testing.assert_array_equal(error, 1 - numpy_accuracy(OUTPUTS, LABELS))


@pytest.mark.parametrize(
    "broken",
    [
        compiled.error_rate,
        lambda o, y: compiled.accuracy(-o, y),
        lambda o, y: compiled.accuracy(o, (y + 1) % K),
        lambda o, y: np.asarray(compiled.accuracy(o, y)).mean(),
        lambda o, y: compiled.top_k_accuracy(o, y, k=2),
    ],
)
def test_a_broken_accuracy_is_found(broken: Callable[[Any, Any], Any]) -> None:
    with pytest.raises(AssertionError):
        assert_accuracy(broken)


@pytest.mark.parametrize("ignored", [-1, 2])
def test_positions_that_do_not_count(ignored: int) -> None:
    rng = np.random.default_rng(0)
    outputs, labels = rng.standard_normal((5, 6, 4)).astype(np.float32), rng.integers(-1, 4, (5, 6))
    labels[0] = ignored
    counts = labels != ignored
    right = (outputs.argmax(-1) == labels) & counts
    expected = right.sum(1) / np.maximum(counts.sum(1), 1)
    np.testing.assert_allclose(metrics.accuracy(outputs, labels, ignore_index=ignored), expected, rtol=1e-6)
    wrong = (counts.sum(1) - right.sum(1)) / np.maximum(counts.sum(1), 1)
    np.testing.assert_allclose(metrics.error_rate(outputs, labels, ignore_index=ignored), wrong, rtol=1e-6)
    assert expected[0] == wrong[0] == 0
    assert not np.allclose(metrics.accuracy(outputs, labels), expected)


def test_every_dtype() -> None:
    dtypes = [jnp.bfloat16, jnp.float16, jnp.float32, jnp.float64]

    def everything(outputs: Any, labels: Any) -> Any:
        targets = outputs + jnp.ones((), outputs.dtype)
        return {
            "accuracy": metrics.accuracy(outputs, labels),
            "top 1": metrics.top_k_accuracy(outputs, labels.astype(jnp.uint8), k=1),
            "binary": metrics.binary_accuracy(outputs[:, 0], labels > 2),
            "rmse": metrics.rmse(outputs, targets),
            "r_squared": metrics.r_squared(outputs, targets),
            "confusion": metrics.confusion_matrix(outputs, labels, classes=K),
        }

    with float64(), strict():
        found = jax.jit(lambda o, y: [everything(o.astype(dtype), y) for dtype in dtypes])(OUTPUTS, LABELS)
    for dtype, got in zip(dtypes, found, strict=True):
        wide = jnp.float64 if dtype == jnp.float64 else jnp.float32
        expected = dict.fromkeys(got, wide) | {"confusion": jnp.int32}
        assert {name: values.dtype for name, values in got.items()} == expected, dtype
        for name in ("accuracy", "top 1"):
            rounded = OUTPUTS.astype(dtype).astype(np.float64)
            np.testing.assert_array_equal(got[name], numpy_accuracy(rounded, LABELS), err_msg=f"{name} {dtype}")


def test_labels_as_distributions_and_one_hot() -> None:
    one_hot = np.eye(K, dtype=np.float32)[LABELS]

    @jax.jit
    def found(outputs: Any) -> Any:
        some = [metrics.accuracy(outputs, y) for y in (one_hot, one_hot.astype(np.int32), 0.9 * one_hot + 0.02)]
        return some, [metrics.top_k_accuracy(outputs, y, k=3) for y in (one_hot, LABELS)]

    accuracies, (top, expected) = found(OUTPUTS)
    for got in accuracies:
        np.testing.assert_array_equal(got, numpy_accuracy(OUTPUTS, LABELS))
    np.testing.assert_array_equal(top, expected)


def test_axes_in_between_are_averaged() -> None:
    got = compiled.accuracy(OUTPUTS.reshape(10, 2, 2, K), LABELS.reshape(10, 2, 2))
    np.testing.assert_allclose(got, numpy_accuracy(OUTPUTS, LABELS).reshape(10, 4).mean(axis=1))
    top = compiled.top_k_accuracy(OUTPUTS.reshape(20, 2, K), LABELS.reshape(20, 2), k=K)
    np.testing.assert_array_equal(top, np.ones(20))


@jax.jit
def for_every_k(outputs: Any, labels: Any) -> Any:
    """Accuracy; and for each k ours, and whether the label is among the indices of `jax.lax.top_k`."""
    ours = [metrics.top_k_accuracy(outputs, labels, k=k) for k in range(1, K + 1)]
    theirs = [jnp.any(jax.lax.top_k(outputs, k)[1] == labels[:, None], axis=1) for k in range(1, K + 1)]
    return metrics.accuracy(outputs, labels), ours, theirs


@given(seed=st.integers(0, 10_000), levels=st.sampled_from([2, 4, 1000]))
def test_top_k_equals_lax_top_k_with_ties(seed: int, levels: int) -> None:
    rng = np.random.default_rng(seed)
    outputs, labels = rng.integers(0, levels, (N, K)).astype(np.float32), rng.integers(0, K, N).astype(np.int32)
    with strict():
        first, ours, theirs = for_every_k(outputs, labels)
    np.testing.assert_array_equal(ours, theirs)
    np.testing.assert_array_equal(ours[0], first)
    np.testing.assert_array_equal(ours[-1], 1)


def test_ties_go_to_the_first_class() -> None:
    outputs, labels = np.zeros((3, 3), np.float32), np.arange(3)
    np.testing.assert_array_equal(compiled.accuracy(outputs, labels), [1, 0, 0])
    np.testing.assert_array_equal(compiled.top_k_accuracy(outputs, labels, k=2), [1, 1, 0])
    np.testing.assert_array_equal(compiled.confusion_matrix(outputs, labels, classes=3), [[1, 0, 0]] * 3)


def test_nan_outputs_and_labels_out_of_range_are_wrong() -> None:
    outputs = np.float32([[1.0, np.nan], [np.nan, 1.0], [0.0, 1.0], [0.0, 1.0], [0.0, np.inf]])
    labels = np.array([1, -1, -1, 2, 1])
    for got in (compiled.accuracy(outputs, labels), compiled.top_k_accuracy(outputs, labels, k=2)):
        np.testing.assert_array_equal(got, [0, 0, 0, 0, 1])
    np.testing.assert_array_equal(compiled.confusion_matrix(outputs, labels, classes=2), [[0, 0], [0, 1]])
    np.testing.assert_array_equal(compiled.binary_accuracy(np.float32([np.nan, np.nan]), np.array([0, 1])), [0, 0])


@pytest.mark.slow
def test_binary_accuracy() -> None:
    outputs = jnp.array([-1.0, 0.0, 0.25, 0.75])
    for positive, negative in ((1, 0), (1, -1), (True, False), (1.0, 0.0)):
        labels = jnp.array([negative, negative, negative, positive])
        with strict():
            np.testing.assert_array_equal(compiled.binary_accuracy(outputs, labels), [1, 1, 0, 1])
            np.testing.assert_array_equal(compiled.binary_accuracy(outputs, labels, threshold=0.5), [1, 1, 1, 1])
            column = compiled.binary_accuracy(outputs[:, None], labels[:, None])
    np.testing.assert_array_equal(column, [1, 1, 0, 1])
    multi = compiled.binary_accuracy(outputs.reshape(2, 2), jnp.array([[0, 1], [1, 1]]))
    np.testing.assert_array_equal(multi, [0.5, 1])


def assert_confusion(confusion: Callable[[Any, Any], Any]) -> None:
    guess = np.argmax(OUTPUTS, axis=1)
    expected = np.zeros((K, K), int)
    np.add.at(expected, (LABELS, guess), 1)
    got = np.asarray(confusion(guess, LABELS))
    assert got.sum() == N
    np.testing.assert_array_equal(got, expected)


def test_confusion_matrix() -> None:
    def mapped(p: Any, y: Any) -> Any:
        one = jax.vmap(lambda a, b: metrics.confusion_matrix(a, b, classes=K))
        return one(p.reshape(4, 10), y.reshape(4, 10)).sum(axis=0)

    with strict():
        assert_confusion(lambda p, y: compiled.confusion_matrix(p, y, classes=K))
        assert_confusion(lambda _, y: compiled.confusion_matrix(OUTPUTS, y, classes=K))
        assert_confusion(lambda p, y: compiled.confusion_matrix(p.reshape(4, 10), y.reshape(4, 10), classes=K))
        assert_confusion(jax.jit(mapped))
    with pytest.raises(AssertionError):  # rows and columns exchanged
        assert_confusion(lambda p, y: compiled.confusion_matrix(y, p, classes=K))


def test_confusion_leaves_out_what_is_out_of_range() -> None:
    got = compiled.confusion_matrix(np.array([0, 1, -1, 2, 1]), np.array([0, -1, 0, 1, 2]), classes=2)
    np.testing.assert_array_equal(got, [[1, 0], [0, 0]])
    np.testing.assert_array_equal(
        compiled.confusion_matrix(np.array([200], np.uint8), np.array([-100], np.int8), classes=2), np.zeros((2, 2))
    )


def numpy_r_squared(y: np.ndarray, d: np.ndarray) -> float:
    y, d = np.float64(y), np.float64(d)
    return float(np.mean(1 - ((d - y) ** 2).sum(0) / ((d - d.mean(0)) ** 2).sum(0)))


def assert_regression(rmse: Callable[[Any, Any], Any], r_squared: Callable[[Any, Any], Any]) -> None:
    d = random(3, 30, 4) * np.array([1.0, 10.0, 0.1, 1.0]) + 5
    y = d + random(4, 30, 4) * 0.3
    with float64(), strict():
        np.testing.assert_allclose(rmse(y, d), np.sqrt(np.mean((y - d) ** 2)), rtol=1e-12)
        np.testing.assert_allclose(r_squared(y, d), numpy_r_squared(y, d), rtol=1e-12)
        one = r_squared(y[:, 0], d[:, 0])
        np.testing.assert_allclose(one, numpy_r_squared(y[:, 0], d[:, 0]), rtol=1e-12)


def test_rmse_and_r_squared() -> None:
    assert_regression(compiled.rmse, compiled.r_squared)


@pytest.mark.parametrize(
    ("rmse", "r_squared"),
    [
        (lambda y, d: np.square(compiled.rmse(y, d)), compiled.r_squared),
        (lambda y, d: np.asarray(compiled.rmse(y, d)) * np.sqrt(1.05), compiled.r_squared),
        (compiled.rmse, lambda y, d: compiled.r_squared(d, y)),
        (compiled.rmse, lambda y, d: 1 - np.asarray(compiled.r_squared(y, d))),
        (compiled.rmse, lambda y, d: compiled.r_squared(y.reshape(-1), d.reshape(-1))),
    ],
)
def test_a_broken_regression_metric_is_found(rmse: Any, r_squared: Any) -> None:
    with pytest.raises(AssertionError):
        assert_regression(rmse, r_squared)


def test_against_scikit_learn() -> None:
    sklearn = pytest.importorskip("sklearn.metrics")
    guess = np.argmax(OUTPUTS, axis=1)
    outputs, labels = OUTPUTS, LABELS
    assert float(np.mean(compiled.accuracy(outputs, labels))) == pytest.approx(sklearn.accuracy_score(LABELS, guess))
    matrix = compiled.confusion_matrix(outputs, labels, classes=K)
    np.testing.assert_array_equal(matrix, sklearn.confusion_matrix(LABELS, guess, labels=range(K)))
    for k in (2, 3):
        expected = sklearn.top_k_accuracy_score(LABELS, OUTPUTS, k=k, labels=range(K))
        assert float(np.mean(compiled.top_k_accuracy(outputs, labels, k=k))) == pytest.approx(expected)
    y, d = OUTPUTS, random(5, N, K, dtype=np.float32)
    d[:, 2] = 7.0  # a constant component counts 0
    y = y.copy()
    y[:, 3] = d[:, 3] = 4.0  # an exact constant component counts 1
    assert float(compiled.r_squared(y, d)) == pytest.approx(sklearn.r2_score(d, y), rel=1e-5)
    rmse = sklearn.root_mean_squared_error(d.reshape(-1), y.reshape(-1))
    assert float(compiled.rmse(y, d)) == pytest.approx(rmse, rel=1e-6)


def test_constant_targets_give_no_nan() -> None:
    targets = np.full(10, 0.1, np.float32)  # the rounded mean of ten 0.1 need not be 0.1

    @jax.jit
    def found(y: Any) -> Any:
        gradient = jax.grad(lambda y: metrics.r_squared(y, targets) + metrics.rmse(y, targets))(y)
        one, zero = np.ones(1, np.float32), np.zeros(1, np.float32)
        return metrics.r_squared(y, targets), gradient, metrics.r_squared(one, zero)

    exact, gradient, single = found(targets)
    assert (float(exact), float(single)) == (1, 0)
    np.testing.assert_array_equal(gradient, np.zeros(10))
    assert float(found(targets + np.float32(1e-3))[0]) == 0


def test_half_precision_is_summed_in_float32() -> None:
    outputs = np.full(4096, 0.1, jnp.bfloat16)
    np.testing.assert_allclose(compiled.rmse(outputs, np.zeros_like(outputs)), float(outputs[0]), rtol=1e-5)
    large = np.full(8, 300.0, np.float16)  # its square overflows float16
    assert float(compiled.rmse(large, -large)) == 600


def test_everything_under_jit_and_vmap() -> None:
    outputs, labels = OUTPUTS.reshape(4, 10, K), LABELS.reshape(4, 10)

    @jax.jit
    def all_of(o: jax.Array, y: jax.Array) -> list[jax.Array]:
        return [
            compiled.accuracy(o, y),
            compiled.top_k_accuracy(o, y, k=2),
            compiled.binary_accuracy(o[:, 0], y, threshold=o[0, 0]),
            compiled.rmse(o, o * 2),
            compiled.r_squared(o, o * 2),
        ]

    with strict():
        got = jax.jit(jax.vmap(all_of))(outputs, labels)
    for i in range(4):
        for g, e in zip(got, all_of(outputs[i], labels[i]), strict=True):
            np.testing.assert_allclose(g[i], e, rtol=1e-6)


@pytest.mark.slow
def test_numpy_arrays_are_taken() -> None:
    outputs = OUTPUTS.astype(np.float64)
    np.testing.assert_array_equal(metrics.accuracy(outputs, LABELS), numpy_accuracy(OUTPUTS, LABELS))
    assert metrics.binary_accuracy(outputs[:, 0], LABELS > 0).dtype == jnp.float32
    assert metrics.rmse(outputs, outputs).dtype == jnp.float32
    assert int(metrics.confusion_matrix(outputs, LABELS, classes=K).sum()) == N


F, I = np.zeros((4, 3), np.float32), np.zeros(4, np.int32)  # noqa: E741
BAD: list[tuple[type[Exception], str, Callable[[], Any]]] = [
    (
        ValueError,
        r"accuracy: labels must be ints of shape \(4,\) .* got \(4, 1\)",
        lambda: metrics.accuracy(F, I[:, None]),
    ),
    (ValueError, r"accuracy: labels must be .* got \(3,\)", lambda: metrics.accuracy(F, I[:3])),
    (
        ValueError,
        "error_rate|accuracy: outputs must be .* use binary_accuracy",
        lambda: metrics.error_rate(F[:, :1], I),
    ),
    (ValueError, r"accuracy: outputs must be \(N, ..., K\)", lambda: metrics.accuracy(F[:, 0], I)),
    (TypeError, "labels must have an integer dtype, got float32", lambda: metrics.accuracy(F, F[:, 0])),
    (
        TypeError,
        "outputs must have a floating dtype, got int32. .*not predicted classes",
        lambda: metrics.accuracy(I, I),
    ),
    (ValueError, "k must be at most the number of classes K = 3, got 4", lambda: metrics.top_k_accuracy(F, I, k=4)),
    (ValueError, "k must be at least 1, got 0", lambda: metrics.top_k_accuracy(F, I, k=0)),
    (TypeError, "k must be an int, got 1.5", lambda: metrics.top_k_accuracy(F, I, k=1.5)),  # type: ignore[arg-type]
    (
        ValueError,
        r"binary_accuracy: .*same shape.* \(4, 1\), labels \(4,\)",
        lambda: metrics.binary_accuracy(F[:, :1], I),
    ),
    (TypeError, "outputs must have a floating dtype", lambda: metrics.binary_accuracy(I, I)),
    (ValueError, "got a scalar", lambda: metrics.binary_accuracy(F[0, 0], I[0])),
    (ValueError, "classes = 2, got outputs", lambda: metrics.confusion_matrix(F, I, classes=2)),
    (ValueError, "same shape", lambda: metrics.confusion_matrix(I[:3], I, classes=2)),
    (ValueError, "classes must be at least 1", lambda: metrics.confusion_matrix(I, I, classes=0)),
    (TypeError, "labels must have an integer dtype", lambda: metrics.confusion_matrix(F, F, classes=3)),
    (
        TypeError,
        "predictions must have an integer dtype, got bool",
        lambda: metrics.confusion_matrix(I > 0, I, classes=2),
    ),
    (ValueError, "rmse: .*same shape", lambda: metrics.rmse(F[:, :1], F[:, 0])),
    (ValueError, "r_squared: .*same shape", lambda: metrics.r_squared(F[:, :1], F[:, 0])),
    (ValueError, "at least one example", lambda: metrics.rmse(F[:0], F[:0])),
    (ValueError, "got a scalar", lambda: metrics.r_squared(F[0, 0], F[0, 0])),
    (TypeError, "targets must have a floating dtype, got int32", lambda: metrics.rmse(F[:, 0], I)),
]


@pytest.mark.parametrize(("error", "message", "call"), BAD)
def test_bad_input_raises(error: type[Exception], message: str, call: Callable[[], Any]) -> None:
    with pytest.raises(error, match=message):
        call()
