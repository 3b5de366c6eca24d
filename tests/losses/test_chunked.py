"""Cross-entropy of an output layer in chunks of classes: equal to that of its logits, in less memory."""

from __future__ import annotations

import functools
import re
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxnn import losses
from jaxnn.losses import logits as arithmetic
from tests.helpers import assert_close, float64, random, slow, strict

N, T, D, V = 3, 5, 4, 23
A, W, B = random(0, N, T, D), random(1, D, V), random(2, V)
LABELS = np.random.default_rng(3).integers(0, V, (N, T))
SOME = LABELS.copy()
SOME[0, 1] = SOME[2] = -1
SHARES = np.array([1.0, -2.0, 0.5])

chunked = losses.chunked_softmax_cross_entropy


def plain(a: Any, w: Any, labels: Any, *, b: Any = None, **options: Any) -> Any:
    z = a @ w if b is None else a @ w + b.reshape((1,) * (a.ndim - 1) + (-1,))
    return losses.softmax_cross_entropy(z, labels, **options)


def derivatives(loss: Any, biased: bool, smoothed: bool) -> Any:
    """Losses, gradients, a change and Hessian-vector products of a weighted sum of losses."""

    def run(a: Any, w: Any, b: Any, labels: Any, shares: Any, smoothing: Any) -> Any:
        def total(point: Any) -> Any:
            a, w, b, s = point
            options = {"label_smoothing": s} if smoothed else {}
            each = loss(a, w, labels, b=b if biased else None, ignore_index=-1, **options)
            return jnp.vdot(shares, each), each

        def gradient(point: Any) -> Any:
            return jax.grad(total, has_aux=True)(point)[0]

        point = (a, w, b, smoothing)
        _, change, each = jax.jvp(total, (point,), (point,), has_aux=True)
        return each, gradient(point), change, jax.jvp(gradient, (point,), (point,))[1]

    return jax.jit(run)


@functools.cache
def expected(biased: bool, smoothing: float) -> Any:
    with float64():
        return derivatives(plain, biased, smoothing > 0)(A, W, B, SOME, SHARES, smoothing)


CASES = [(7, 1, False, 0.0), (5, 0, True, 0.1), *slow((1, 1, True, 0.1), (23, 0, False, 0.0), (100, 1, True, 0.0))]


@pytest.mark.parametrize(("chunk", "class_axis", "biased", "smoothing"), CASES)
def test_values_and_derivatives_of_two_orders_are_those_of_the_logits(
    chunk: int, class_axis: int, biased: bool, smoothing: float
) -> None:
    def loss(a: Any, w: Any, labels: Any, **options: Any) -> Any:
        return chunked(a, w if class_axis else w.T, labels, class_axis=class_axis, chunk=chunk, **options)

    with float64(), strict():
        found = derivatives(loss, biased, smoothing > 0)(A, W, B, SOME, SHARES, smoothing)
    assert_close(found, expected(biased, smoothing), rtol=1e-12, atol=1e-12)


MUTANTS = {
    "classes in two chunks": ("fresh", lambda logits, c, like: jnp.ones(like.shape, bool)),
    "labels of another chunk": ("start", lambda logits, c: jnp.asarray(0, c.dtype)),
}


@pytest.mark.parametrize("name", MUTANTS)
def test_broken_variants_fail(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(arithmetic.Logits, *MUTANTS[name])
    with pytest.raises(AssertionError):
        test_values_and_derivatives_of_two_orders_are_those_of_the_logits(7, 1, False, 0.0)


@pytest.mark.slow
def test_vmap_scan_checkpoint_and_one_position() -> None:
    def in_all(loss: Any) -> Any:
        def run(a: Any, w: Any, labels: Any) -> Any:
            def one(w: Any, a: Any, y: Any) -> Any:  # of one example, and of one position
                return loss(a[None], w, y[None])[0] + loss(a[:1], w, y[:1])[0]

            def looped(w: Any) -> Any:
                step = jax.checkpoint(lambda total, x: (total + one(w, *x), None))
                return jax.lax.scan(step, jnp.zeros(()), (a, labels))[0]

            mean = jax.grad(lambda w: jax.vmap(one, (None, 0, 0))(w, a, labels).mean())(w)
            each = jax.vmap(jax.grad(one), (None, 0, 0))(w, a, labels)
            sets = jax.vmap(jax.grad(one), (0, None, None))(jnp.stack([w, 2 * w]), a[0], labels[0])
            return mean, each, sets, jax.grad(looped)(w)

        return jax.jit(run)

    with float64():
        found = in_all(functools.partial(chunked, chunk=6))(A, W, LABELS)
        assert_close(found, in_all(plain)(A, W, LABELS), rtol=1e-11, atol=1e-12)


HALVES = [("bfloat16", "bfloat16"), ("float32", "bfloat16"), *slow(("float16", "float16"))]


@pytest.mark.parametrize(("of_a", "of_w"), HALVES)
def test_half_precision_is_summed_in_float32(of_a: str, of_w: str) -> None:
    a, w = jnp.asarray(A, of_a), jnp.asarray(W, of_w)

    def loss(a: Any, w: Any) -> Any:
        return chunked(a, w, LABELS, chunk=4).sum()

    with strict():
        value, grads = jax.jit(jax.value_and_grad(loss, (0, 1)))(a, w)
    assert (value.dtype, *(str(g.dtype) for g in grads)) == (jnp.float32, of_a, of_w)
    wide = [np.asarray(x, np.float64) for x in (a, w)]
    with float64():
        exact, slopes = jax.value_and_grad(lambda a, w: plain(a, w, LABELS).sum(), (0, 1))(*wide)
    assert_close(value, exact, rtol=1e-6)
    for g, slope in zip(grads, slopes, strict=True):
        # Of bfloat16 cotangents of logits and parts of a's are rounded too.
        eps = float(jnp.finfo(g.dtype).eps)
        several = of_a == of_w == "bfloat16"
        assert_close(g, slope, rtol=eps, atol=eps * float(np.abs(slope).max()) if several else 1e-6)


@pytest.mark.slow
def test_positions_that_do_not_count_may_hold_anything() -> None:
    bad = A.copy()
    bad[0, 1], bad[2, 0], bad[2, 1] = np.nan, np.inf, -np.inf

    def run(a: Any) -> Any:
        return jax.vjp(lambda a, w: chunked(a, w, SOME, ignore_index=-1, chunk=6), a, W)

    with float64():
        (each, pull), (clean, pull_clean) = run(bad), run(A)
        found, other = pull(jnp.ones(N)), pull_clean(jnp.ones(N))
        assert_close((each, found), (clean, other), rtol=0)
        assert each[2] == 0
        assert not np.any(found[0][2])


def test_labels_out_of_range() -> None:
    bad = LABELS.copy()
    bad[1, 2] = V
    with pytest.raises(ValueError, match=rf"labels must lie in \[0, {V}\), got {V} at index \(1, 2\)"):
        chunked(A, W, bad)
    run = jax.jit(jax.value_and_grad(lambda a, y: chunked(a, jnp.asarray(W, jnp.float32), y).sum()))
    a = A.astype(np.float32)
    each = jax.jit(chunked)(a, W.astype(np.float32), bad)
    assert np.array_equal(np.isnan(each), [False, True, False])
    _, grad = run(a, bad)
    assert np.isnan(grad[1, 2]).all()
    assert np.isfinite(np.asarray(grad)[[0, 2]]).all()


@pytest.mark.slow
def test_logits_that_are_minus_infinity_and_huge() -> None:
    b = np.where(np.arange(V) < 12, -np.inf, 0).astype(np.float32)  # whole chunks of excluded classes
    a, w, y = (A * 1e3).astype(np.float32), W.astype(np.float32), LABELS % 11 + 12

    def run(loss: Any) -> Any:
        return jax.value_and_grad(lambda a, w: loss(a, w, y, b=b).sum(), (0, 1))(a, w)

    found = run(functools.partial(chunked, chunk=4))
    assert all(np.isfinite(x).all() for x in jax.tree.leaves(found))
    assert_close(found, run(plain), rtol=1e-5, atol=1e-3)


def temporaries(f: Any, *args: Any) -> int:
    return jax.jit(f).lower(*args).compile().memory_analysis().temp_size_in_bytes


def test_memory_is_that_of_a_chunk() -> None:
    shapes = [jax.ShapeDtypeStruct(s, jnp.float32) for s in ((8, 32, 64), (64, 8192), (8192, 64))]
    a, w, table = shapes
    y = jax.ShapeDtypeStruct((8, 32), jnp.int32)

    def of(loss: Any, **options: Any) -> Any:
        return jax.value_and_grad(lambda a, w, y: loss(a, w, y, **options).mean(), (0, 1))

    def of_examples(a: Any, w: Any, y: Any) -> Any:
        return jax.vmap(lambda a, y: chunked(a[None], w, y[None], chunk=512)[0])(a, y).mean()

    logits = 8 * 32 * 8192 * 4
    assert temporaries(of(plain), a, w, y) > 2 * logits
    assert temporaries(of(chunked, chunk=512), a, w, y) < logits / 3
    assert temporaries(of(chunked, chunk=512, class_axis=0), a, table, y) < logits / 3
    assert temporaries(jax.grad(of_examples, 1), a, w, y) < logits / 3


F = np.ones
BAD: list[tuple[type[Exception], str, Any]] = [
    (ValueError, "a must have shape (N, ..., D), no axis but the first empty, got (4,)", lambda: chunked(F(4), W, 0)),
    (ValueError, "w must have shape (D, V) with D = 4 for a (3, 5, 4), got (23, 4). class_axis=0",
     lambda: chunked(A, W.T, LABELS)),
    (ValueError, "w must have shape (V, D) with D = 4", lambda: chunked(A, W, LABELS, class_axis=0)),
    (ValueError, "class_axis must be 0 or 1, the axis of w that counts classes, got 2",
     lambda: chunked(A, W, LABELS, class_axis=2)),
    (ValueError, "b must have shape (23,) for w (4, 23), got (4,)", lambda: chunked(A, W, LABELS, b=F(4))),
    (ValueError, "labels must have shape (3, 5)", lambda: chunked(A, W, LABELS[:, :1])),
    (ValueError, "chunk must be at least 1, got 0", lambda: chunked(A, W, LABELS, chunk=0)),
    (ValueError, "label_smoothing must lie in [0, 1), got 1", lambda: chunked(A, W, LABELS, label_smoothing=1.0)),
    (TypeError, "a must have a floating dtype, got int32", lambda: chunked(LABELS, W, LABELS)),
    (TypeError, "w must have a floating dtype, got int32", lambda: chunked(A, LABELS, LABELS)),
    (TypeError, "labels must have an integer dtype, got float32", lambda: chunked(A, W, A[:, :, 0])),
    (TypeError, "ignore_index must be an int or None, got 'x'", lambda: chunked(A, W, LABELS, ignore_index="x")),
]  # fmt: skip


@pytest.mark.parametrize(("kind", "message", "call"), BAD, ids=[message for _, message, _ in BAD])
def test_bad_arguments(kind: type[Exception], message: str, call: Any) -> None:
    with pytest.raises(kind, match=re.escape(f"chunked_softmax_cross_entropy: {message}")):
        call()


def test_no_examples_and_no_positions() -> None:
    assert chunked(np.ones((0, 3, 4), np.float32), W.astype(np.float32), np.ones((0, 3), int)).shape == (0,)
    with pytest.raises(ValueError, match="no axis but the first empty"):
        chunked(np.ones((2, 0, 4), np.float32), W.astype(np.float32), np.ones((2, 0), int))
