"""Softmax cross-entropy: positions that do not count, labels out of range, weights of examples."""

from __future__ import annotations

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import scipy.special

from jaxnn import losses
from tests.helpers import assert_close, float64, slow

Z = np.random.default_rng(0).standard_normal((5, 4, 3))
SINGLE = Z.astype(np.float32)
LABELS = np.array([[0, 1, 2, 2], [-1, 1, -1, 0], [-1, -1, -1, -1], [2, -1, 0, 1], [1, 1, 1, -1]])


@functools.cache
def traced(ignore_index: int | None = None) -> Any:
    """Value, hand-written derivative and jax.grad with traced labels."""

    def run(z: Any, labels: Any) -> Any:
        def loss(z: Any) -> Any:
            return losses.softmax_cross_entropy(z, labels, ignore_index=ignore_index)

        hand = losses.softmax_cross_entropy_grad(z, labels, ignore_index=ignore_index)
        return loss(z), hand, jax.grad(lambda z: loss(z).sum())(z)

    return jax.jit(run)


@functools.partial(jax.jit, static_argnames=("ignore_index", "label_smoothing"))
def batch_mean(z: Any, labels: Any, ignore_index: int | None = -1, label_smoothing: float = 0.0) -> Any:
    """sum_i w_i loss_i / sum_i w_i and its derivative, as a training loss forms them."""
    options = {"ignore_index": ignore_index, "label_smoothing": label_smoothing}
    weights = losses.example_weights(functools.partial(losses.softmax_cross_entropy, **options), labels)
    weights = weights / weights.sum()
    grad = losses.softmax_cross_entropy_grad(z, labels, **options)
    return jnp.sum(weights * losses.softmax_cross_entropy(z, labels, **options)), weights[:, None, None] * grad


@pytest.mark.parametrize("smoothing", [0.2, *slow(0.0)])
def test_weighted_mean_over_examples_is_torchs_mean_over_positions(smoothing: float) -> None:
    torch = pytest.importorskip("torch")
    z = torch.tensor(Z.reshape(-1, 3), requires_grad=True)
    expected = torch.nn.functional.cross_entropy(
        z, torch.tensor(LABELS.reshape(-1)), ignore_index=-1, label_smoothing=smoothing
    )
    expected.backward()
    with float64():
        value, grad = batch_mean(Z, LABELS, label_smoothing=smoothing)
    # The weights are float32, whose ratios of small counts are the only rounding.
    assert_close(value, expected.item(), rtol=3e-7)
    assert_close(grad, z.grad.numpy().reshape(Z.shape), rtol=3e-7, atol=1e-12)


def test_the_unweighted_mean_over_examples_differs() -> None:
    with float64():
        value, _ = batch_mean(Z, LABELS, label_smoothing=0.2)
        loss = functools.partial(losses.softmax_cross_entropy, ignore_index=-1, label_smoothing=0.2)
        plain = np.mean(jax.jit(loss)(Z, LABELS))
    assert abs(float(value - plain)) > 1e-2


def test_torch_with_distributions_and_smoothing() -> None:
    torch = pytest.importorskip("torch")
    d = np.random.default_rng(1).dirichlet(np.ones(3), 5)
    expected = torch.nn.functional.cross_entropy(
        torch.tensor(Z[:, 0]), torch.tensor(d), label_smoothing=0.1, reduction="none"
    )
    with float64():
        got = jax.jit(functools.partial(losses.softmax_cross_entropy, label_smoothing=0.1))(Z[:, 0], d)
    assert_close(got, expected.numpy(), rtol=1e-12)


@pytest.mark.slow
def test_optax() -> None:
    with float64():
        z, labels = jnp.asarray(Z[:, 0]), jnp.asarray(np.abs(LABELS[:, 0]))
        expected = optax.softmax_cross_entropy_with_integer_labels(z, labels)
        assert_close(losses.softmax_cross_entropy(z, labels), expected, rtol=1e-12)
        smooth = optax.smooth_labels(jax.nn.one_hot(labels, 3, dtype=z.dtype), 0.1)
        expected = optax.softmax_cross_entropy(z, smooth)
        assert_close(losses.softmax_cross_entropy(z, labels, label_smoothing=0.1), expected, rtol=1e-12)


def test_an_example_without_positions_has_loss_and_gradient_0() -> None:
    value, hand, auto = traced(-1)(SINGLE, LABELS)
    for grad in (hand, auto):
        assert not np.any(np.asarray(grad)[LABELS == -1])
        assert np.all(np.any(np.asarray(grad)[LABELS != -1] != 0, axis=-1))
    assert value[2] == 0
    assert np.all(np.asarray(value)[[0, 1, 3, 4]] > 0)


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_logits_at_ignored_positions_do_not_matter(bad: float) -> None:
    spoilt = np.where((LABELS == -1)[..., None], bad, Z)
    got, expected = (traced(-1)(z, LABELS) for z in (spoilt.astype(np.float32), SINGLE))
    assert all(np.all(np.isfinite(e)) for e in expected)
    assert_close(got, expected, rtol=0)


@pytest.mark.parametrize("bad", [-1, 3, 300, -(2**31), 2**31 - 1])
def test_a_traced_label_out_of_range_is_nan_for_its_example_only(bad: int) -> None:
    labels = np.array([0, bad, 2, 1, 0], np.int32)
    for result in traced()(SINGLE[:, 0], labels):
        nan = np.isnan(np.asarray(result)).reshape(5, -1)
        assert nan[1].all()
        assert not nan[[0, 2, 3, 4]].any()


def test_a_label_beyond_32_bits_does_not_wrap() -> None:
    with float64():
        value, _, _ = traced()(SINGLE[:, 0], np.array([0, 2**32, 2, 1, -(2**32)]))
    assert np.isnan(value).tolist() == [False, True, False, False, True]


def test_optax_wraps_minus_one_where_we_do_not() -> None:
    theirs = jax.jit(optax.softmax_cross_entropy_with_integer_labels)
    wrapped, last = (theirs(SINGLE[:1, 0], np.array([label])) for label in (-1, 2))
    assert_close(wrapped, last, rtol=0)
    with pytest.raises(ValueError, match=r"got -1 at index \(0,\)"):
        losses.softmax_cross_entropy(SINGLE[:1, 0], np.array([-1]))


def test_only_the_ignored_label_is_exempt() -> None:
    for result in traced(-1)(SINGLE[:, 0], np.array([0, -1, -2, 1, 3])):
        nan = np.isnan(np.asarray(result)).reshape(5, -1).any(axis=1)
        assert nan.tolist() == [False, False, True, False, True]


def test_integer_labels_of_any_width() -> None:
    z = np.random.default_rng(0).standard_normal((3, 1000)).astype(np.float32)
    labels, dtypes = np.array([0, 5, 100]), (np.int8, np.uint8, np.int16, np.uint32, np.int32)
    found = jax.jit(lambda z: [losses.softmax_cross_entropy(z, labels.astype(dtype)) for dtype in dtypes])(z)
    expected = -scipy.special.log_softmax(z.astype(np.float64), axis=-1)[np.arange(3), labels]
    for dtype, got in zip(dtypes, found, strict=True):
        np.testing.assert_allclose(got, expected, rtol=1e-6, err_msg=dtype.__name__)


@pytest.mark.slow
def test_a_byte_label_can_be_ignored() -> None:
    loss = functools.partial(losses.softmax_cross_entropy, ignore_index=255)
    labels = np.array([0, 255], np.uint8)
    assert loss(np.zeros((2, 4), np.float32), labels)[1] == 0
    assert losses.example_weights(loss, labels).tolist() == [1.0, 0.0]


def test_classes_masked_by_minus_infinity() -> None:
    z = np.array([[1.0, -np.inf, 2.0]] * 2, np.float32)
    value, hand, auto = traced()(z, np.array([2, 1]))
    assert_close(value, np.array([np.logaddexp(1.0, 2.0) - 2.0, np.inf]), rtol=1e-6)
    p = np.exp(1.0) / (np.exp(1.0) + np.exp(2.0))
    for grad in (hand, auto):
        assert_close(grad[0], np.array([p, 0.0, -p]), rtol=1e-6)


@pytest.mark.slow
def test_an_unnormalised_distribution_is_weighted() -> None:
    z, d = jnp.array([[1.0, 0.0, 2.0]]), jnp.array([[0.5, 0.0, 0.25]])
    auto = jax.grad(lambda z: losses.softmax_cross_entropy(z, d).sum())(z)
    assert_close(losses.softmax_cross_entropy_grad(z, d), auto, rtol=1e-5)


class TestExampleWeights:
    LOSS = functools.partial(losses.softmax_cross_entropy, ignore_index=-1)

    def test_counts_positions(self) -> None:
        weights = losses.example_weights(self.LOSS, LABELS)
        assert weights.dtype == jnp.float32
        assert weights.tolist() == [4.0, 2.0, 0.0, 3.0, 3.0]

    def test_one_label_for_each_example(self) -> None:
        assert losses.example_weights(self.LOSS, np.array([2, -1])).tolist() == [1.0, 0.0]

    def test_looks_through_nested_partials_and_the_outermost_wins(self) -> None:
        nested = functools.partial(functools.partial(self.LOSS, label_smoothing=0.1), ignore_index=2)
        assert losses.example_weights(nested, np.array([[2, 2, 0]])).tolist() == [1.0]

        class Named(functools.partial):  # not flattened by functools
            pass

        nested = Named(Named(losses.softmax_cross_entropy, ignore_index=0), label_smoothing=0.1)
        assert losses.example_weights(nested, np.array([[2, 2, 0]])).tolist() == [2.0]

    def test_traces(self) -> None:
        weights = jax.jit(lambda labels: losses.example_weights(self.LOSS, labels))(LABELS)
        assert weights.tolist() == [4.0, 2.0, 0.0, 3.0, 3.0]

    @pytest.mark.parametrize(
        "loss",
        [
            losses.softmax_cross_entropy,
            functools.partial(losses.softmax_cross_entropy, label_smoothing=0.1),
            functools.partial(losses.softmax_cross_entropy, ignore_index=None),
            functools.partial(LOSS, ignore_index=None),
            losses.mse,
            functools.partial(losses.huber, delta=2.0),
            lambda z, d: losses.mse(z, d),
        ],
    )
    def test_is_none_for_other_losses(self, loss: Any) -> None:
        assert losses.example_weights(loss, LABELS) is None
