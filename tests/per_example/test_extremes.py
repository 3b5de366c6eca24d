"""Where naive formulas fail: large means, shared signs, infinities, tied weights, coupled examples."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxnn import backprop, losses, models, per_example
from jaxnn.layers import BatchNorm, Dense
from jaxnn.tape import Addition, Lookup, Product, Whole
from tests.helpers import float64, random
from tests.per_example.cases import flat, gap, make, tape_of, vector

N, D, P = 64, 6, 5


def _product_tape(a: np.ndarray, delta: np.ndarray) -> Any:
    a, delta = jnp.asarray(a), jnp.asarray(delta)
    params = {"w": jnp.zeros((a.shape[-1], delta.shape[-1]), a.dtype)}
    return tape_of(jnp.zeros(len(a), a.dtype), delta, params, {"w": (Product(a, delta),)})


def _spread_batch(kind: str, positions: int) -> tuple[np.ndarray, np.ndarray]:
    """float32 (a, delta) whose gradients are near 1 with spread 1e-3."""
    a, delta = 1 + 1e-3 * random(0, N, positions, D), 1 + 1e-3 * random(1, N, positions, P)
    if kind == "shared signs":
        signs = np.sign(random(2, N, positions, 1))
        a, delta = signs * a, signs * delta
    return a.astype(np.float32), delta.astype(np.float32)


@pytest.mark.parametrize("positions", [1, 3])
@pytest.mark.parametrize("kind", ["means near 1", "shared signs"])
def test_variance_of_gradients_that_hardly_differ(kind: str, positions: int) -> None:
    a, delta = _spread_batch(kind, positions)
    g = np.einsum("ntd,ntp->ndp", a.astype(np.float64), delta.astype(np.float64))
    tape = _product_tape(a, delta)
    expected = g.var(0)
    for got in (per_example.variance(tape)["w"], jax.jit(per_example.variance)(tape)["w"]):
        # One rounding of each gradient, 3e-8 of its mean against a spread of 1e-3; the mean of 3 positions is 3.
        assert np.linalg.norm(got - expected) / np.linalg.norm(expected) < (1e-5 if positions == 1 else 3e-5)
        assert np.all(np.asarray(got) >= 0)
    naive = per_example.second_moment(tape)["w"] - jnp.square(per_example.mean_grad(tape)["w"])
    assert np.linalg.norm(naive - expected) / np.linalg.norm(expected) > 1e-2


def test_centred_variance_with_large_means_and_its_failure() -> None:
    a, delta = _spread_batch("means near 1", 1)
    expected = np.einsum("ntd,ntp->ndp", a.astype(np.float64), delta.astype(np.float64)).var(0)
    got = per_example.variance_centred(_product_tape(a, delta))["w"]
    assert gap(got, expected) < 1e-5
    a, delta = _spread_batch("shared signs", 1)
    expected = np.einsum("ntd,ntp->ndp", a.astype(np.float64), delta.astype(np.float64)).var(0)
    assert gap(per_example.variance_centred(_product_tape(a, delta))["w"], expected) > 1e-2


def test_variance_of_equal_gradients_is_zero() -> None:
    tape = _product_tape(np.full((5, 1, 2), 0.1, np.float32), np.full((5, 1, 3), 0.3, np.float32))
    variance = per_example.variance(tape)["w"]
    assert np.all(variance >= 0)
    assert np.all(variance < 1e-17)


def _bad(made: Any) -> Any:
    """The batch with an infinite first example: its activations and errors are infinite or NaN."""
    return made.record(made.params, made.state, made.x.at[0].set(jnp.inf), made.y)


@pytest.mark.parametrize("name", ["mlp", "cnn", "conv_gram", "group_norm", "sequence"])
def test_an_example_of_weight_0_adds_nothing_whatever_it_is(name: str) -> None:
    made = make(name, np.float32)
    weights = jnp.ones(len(made.x)).at[0].set(0.0)
    expected = vector(per_example.weighted_grad(made.tape, weights))
    assert not np.isfinite(vector(per_example.mean_grad(_bad(made)))).all()
    assert gap(vector(per_example.weighted_grad(_bad(made), weights)), expected) < 1e-6


@pytest.mark.parametrize("name", ["mlp", "cnn", "conv_gram"])
def test_clipping_leaves_out_an_example_that_is_not_finite(name: str) -> None:
    made = make(name, np.float32)
    expected = vector(per_example.clipped_grad(jax.tree.map(lambda x: x[1:], made.tape), 0.5)[0])
    got, norms = per_example.clipped_grad(_bad(made), 0.5)
    assert not np.isfinite(norms[0])
    assert gap(vector(got), expected) < 1e-5
    by_layer, _ = per_example.clipped_grad_by_layer(_bad(made), 0.5)
    assert np.isfinite(vector(by_layer)).all()


def test_zero_gradients() -> None:
    tape = _product_tape(np.zeros((4, 1, 2), np.float32), np.zeros((4, 1, 3), np.float32))
    assert np.all(per_example.cosine(tape) == 0)
    assert np.all(per_example.clipped_grad(tape, 0.0)[0]["w"] == 0)
    assert np.all(per_example.snr(tape)["w"] == 0)
    assert np.all(jax.grad(lambda t: per_example.norms(t).sum())(tape).uses[0][0].a == 0)


def test_clipped_gradients_are_within_the_bound() -> None:
    tape = make("mlp", np.float32).tape
    whole = flat(per_example.materialize(tape))
    for clip in (per_example.flat(0.3), per_example.automatic(0.3), per_example.psac(0.3)):
        factors = np.asarray(clip(per_example.norms(tape)))
        assert np.all(np.linalg.norm(factors[:, None] * whole, axis=1) <= 0.3 * (1 + 1e-6))
        assert gap(vector(per_example.clipped_grad(tape, clip)[0]), factors @ whole) < 1e-5


# Tied weights: the tape by hand, the gradients by jax.grad.


def _tied_dense() -> tuple[Any, Any, np.ndarray]:
    """loss = sum(r . tanh(tanh(x w) w)) with one w for both layers, built with its uses apart."""
    w, x, r = (jnp.asarray(random(i, *s)) for i, s in enumerate([(4, 4), (7, 4), (7, 4)]))
    h = jnp.tanh(x @ w)
    y = jnp.tanh(h @ w)
    delta2 = r * (1 - y**2)
    delta1 = (delta2 @ w.T) * (1 - h**2)
    uses = (Product(x[:, None], delta1[:, None]), Product(h[:, None], delta2[:, None]))
    losses = jnp.sum(r * y, axis=1)
    oracle = jax.vmap(jax.grad(lambda w, x, r: jnp.sum(r * jnp.tanh(jnp.tanh(x @ w) @ w))), (None, 0, 0))(w, x, r)
    return tape_of(losses, y, {"w": w}, {"w": uses}), w, np.asarray(oracle)


def _tied_embedding() -> tuple[Any, Any, np.ndarray]:
    """loss = sum_t r_t . (tanh(w[i_t]) w'): the table is the output matrix too, its second use transposed."""
    w, r = jnp.asarray(random(3, 5, 4)), jnp.asarray(random(4, 7, 3, 5))
    indices = jnp.asarray(np.random.default_rng(0).integers(0, 5, (7, 3)))
    h = jnp.tanh(w[indices])
    delta = (r @ w) * (1 - h**2)
    uses = (Lookup(indices, delta, 5), Product(r, h))
    oracle = jax.vmap(jax.grad(lambda w, i, r: jnp.sum(r * (jnp.tanh(w[i]) @ w.T))), (None, 0, 0))(w, indices, r)
    return tape_of(jnp.zeros(7), h, {"w": w}, {"w": uses}), w, np.asarray(oracle)


def _two_lookups() -> tuple[Any, Any, np.ndarray]:
    """Two places look up one table, with repeated and (dropped) negative indices."""
    w, rng = jnp.asarray(random(5, 6, 3)), np.random.default_rng(1)
    first, second = (jnp.asarray(rng.integers(-1, 6, (8, t))) for t in (4, 2))
    d1, d2 = jnp.asarray(random(6, 8, 4, 3)), jnp.asarray(random(7, 8, 2, 3))
    dense = np.zeros((8, 6, 3))
    for indices, delta in ((first, d1), (second, d2)):
        for i, t in np.ndindex(*indices.shape):
            if indices[i, t] >= 0:
                dense[i, indices[i, t]] += delta[i, t]
    return tape_of(jnp.zeros(8), w, {"w": w}, {"w": (Lookup(first, d1, 6), Lookup(second, d2, 6))}), w, dense


def _bias_and_rest() -> tuple[Any, Any, np.ndarray]:
    """A parameter added at some places and used in an unknown way at another."""
    delta, whole = jnp.asarray(random(8, 5, 4, 3)), jnp.asarray(random(9, 5, 3))
    b = jnp.zeros(3)
    return (
        tape_of(jnp.zeros(5), b, {"w": b}, {"w": (Addition(delta), Whole(whole))}),
        b,
        np.asarray(delta.sum(1) + whole),
    )


@pytest.mark.parametrize("make_tied", [_tied_dense, _tied_embedding, _two_lookups, _bias_and_rest])
def test_tied_weights(make_tied: Any) -> None:
    with float64():
        tape, w, grads = make_tied()
        g = grads.reshape(len(grads), -1)
        assert gap(per_example.sq_norms(tape), (g**2).sum(1)) < 1e-12
        assert gap(per_example.materialize(tape)["w"], grads) < 1e-12
        assert gap(per_example.gram(tape), g @ g.T) < 1e-12
        assert gap(vector(per_example.second_moment(tape)), (g**2).mean(0)) < 1e-12
        assert gap(vector(per_example.variance(tape)), g.var(0)) < 1e-12
        assert gap(vector(per_example.mean_grad(tape)), g.mean(0)) < 1e-12
        v = random(10, *w.shape)
        assert gap(per_example.jvp_examples(tape, {"w": jnp.asarray(v)}), g @ v.ravel()) < 1e-12
        sizes = np.linalg.norm(g, axis=1)
        bound = np.median(sizes)
        assert gap(vector(per_example.clipped_grad(tape, bound)[0]), np.minimum(1, bound / sizes) @ g) < 1e-12


def test_an_unused_parameter_has_zero_gradients() -> None:
    tape = tape_of(jnp.zeros(3), jnp.zeros(3), {"w": jnp.zeros((2, 2))}, {"w": ()})
    assert np.all(per_example.norms(tape) == 0)
    assert per_example.materialize(tape)["w"].shape == (3, 2, 2)
    assert np.all(per_example.gram(tape) == 0)
    assert np.all(per_example.jvp_examples(tape, {"w": jnp.ones((2, 2))}) == 0)


# Wrong formulas, each of which the comparison above would catch.


def test_mutants_are_told_apart() -> None:
    with float64():
        made = make("mlp")
        tape, g = made.tape, flat(made.grads())
        weights = per_example.select(tape, ["[1]['w']", "[3]['w']"])
        assert gap(per_example.sq_norms(weights), (g**2).sum(1)) > 1e-3  # the +1 for the bias forgotten
        divided = jax.tree.map(lambda x: x, tape)
        for use in jax.tree.leaves(divided.uses, is_leaf=lambda u: hasattr(u, "delta")):
            object.__setattr__(use, "delta", use.delta / len(g))
        assert gap(vector(per_example.mean_grad(divided)), g.mean(0)) > 0.1  # 1/N twice
        tied, _, grads = _tied_dense()
        apart = sum(
            per_example.sq_norms(tape_of(tied.losses, tied.outputs, {"w": grads[0]}, {"w": (use,)}))
            for use in tied.uses[0]
        )
        assert gap(apart, (grads**2).sum((1, 2))) > 1e-2  # the norms of the uses added
        long = make("sequence")
        use, explicit = long.tape.uses[1][0], flat(long.grads()[0]["w"][:, None])
        squared = np.einsum("ntd,ntp->dp", np.square(use.a), np.square(use.delta)) / len(explicit)
        assert gap(squared.ravel(), (explicit**2).mean(0)) > 1e-2  # squares inside the sum over positions


# Batch-coupled layers.


COUPLED = models.serial(Dense(4), BatchNorm(), Dense(3))
STATISTICS = {
    "sq_norms": per_example.sq_norms,
    "weighted_grad": lambda tape: per_example.weighted_grad(tape, jnp.ones(5)),
    "clipped_grad": lambda tape: per_example.clipped_grad(tape, 1.0),
    "clipped_grad_by_layer": lambda tape: per_example.clipped_grad_by_layer(tape, 1.0),
    "second_moment": per_example.second_moment,
    "variance": per_example.variance,
    "variance_centred": per_example.variance_centred,
    "snr": per_example.snr,
    "gram": per_example.gram,
    "jvp_examples": lambda tape: per_example.jvp_examples(tape, ()),
    "noise_scale": per_example.noise_scale,
    "materialize": per_example.materialize,
}


def _coupled(train: bool) -> tuple[Any, Any]:
    params, state = COUPLED.init(jax.random.key(0), (3,))
    x, y = jnp.asarray(random(0, 5, 3, dtype=np.float32)), jnp.array([0, 1, 2, 0, 1])
    tape = backprop.record(COUPLED, losses.softmax_cross_entropy)(params, state, x, y, train=train)
    (_, _), grad = backprop.value_and_grad(COUPLED, losses.softmax_cross_entropy)(params, state, x, y)
    return tape, grad


@pytest.mark.parametrize("name", STATISTICS)
def test_coupled_examples_have_no_statistics(name: str) -> None:
    with pytest.raises(ValueError, match=rf"{name}: a single example .* in batch_norm at \[1\] .*GroupNorm"):
        STATISTICS[name](_coupled(train=True)[0])


def test_the_mean_is_exact_where_examples_are_coupled() -> None:
    tape, grad = _coupled(train=True)
    np.testing.assert_allclose(vector(per_example.mean_grad(tape)), vector(grad), rtol=1e-5, atol=1e-7)
    assert _coupled(train=False)[0].coupled == ()
