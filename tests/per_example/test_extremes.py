"""Where naive formulas fail: large means, shared signs, infinities, tied weights, coupled examples."""

from __future__ import annotations

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxnn import backprop, losses, models, per_example
from jaxnn.layers import BatchNorm, Dense
from jaxnn.tape import Addition, Convolution, Lookup, Product, Scaling, Whole
from tests.backprop.checking import drawn
from tests.helpers import float64, random
from tests.per_example.cases import flat, gap, make, tape_of, vector

N, D, P = 64, 6, 5


def _tape(use: Any) -> Any:
    """The tape of one use of one parameter "w"."""
    n = jax.tree.leaves(use)[0].shape[0]
    return tape_of(jnp.zeros(n), jnp.zeros(n), {"w": jax.ShapeDtypeStruct(use.shape, jnp.float32)}, {"w": (use,)})


def _product_tape(a: np.ndarray, delta: np.ndarray) -> Any:
    return _tape(Product(a, delta))


def _slow_but(names: list[str], quick: str) -> list[Any]:
    return [name if name == quick else pytest.param(name, marks=pytest.mark.slow) for name in names]


def variance_error(use: Any, g: np.ndarray, variance: Any = None) -> float:
    """How far the variance of a use is from that of its gradients (float64), relative in norm."""
    got = np.asarray(jax.jit(variance or per_example.variance)(_tape(use))["w"])
    assert np.all(got >= 0) or variance
    return float(np.linalg.norm(got - g.var(0)) / np.linalg.norm(g.var(0)))


def naive_variance(tape: Any, ddof: int = 0) -> Any:
    """The mean of squares less the square of the mean."""
    return jax.tree.map(lambda m, g: m - jnp.square(g), per_example.second_moment(tape), per_example.mean_grad(tape))


def _spread_batch(kind: str, positions: int) -> tuple[np.ndarray, np.ndarray]:
    """float32 (a, delta) whose gradients are near 1 with spread 1e-3."""
    a, delta = 1 + 1e-3 * random(0, N, positions, D), 1 + 1e-3 * random(1, N, positions, P)
    if kind == "shared signs":
        signs = np.sign(random(2, N, positions, 1))
        a, delta = signs * a, signs * delta
    return a.astype(np.float32), delta.astype(np.float32)


def near_one(kind: str, positions: int = 1) -> tuple[Product, np.ndarray]:
    """A product with such gradients, and these in float64."""
    a, delta = _spread_batch(kind, positions)
    g = np.einsum("ntd,ntp->ndp", a.astype(np.float64), delta.astype(np.float64))
    return Product(a, delta), g


@pytest.mark.parametrize("positions", [1, 3])
@pytest.mark.parametrize("kind", ["means near 1", "shared signs"])
def test_variance_of_gradients_that_hardly_differ(kind: str, positions: int) -> None:
    # One rounding of each gradient, 3e-8 of its mean against a spread of 1e-3; the mean of 3 positions is 3.
    assert variance_error(*near_one(kind, positions)) < (1e-5 if positions == 1 else 3e-5)
    assert variance_error(*near_one(kind, positions), naive_variance) > 1e-2


def _others() -> dict[str, tuple[Any, np.ndarray]]:
    """Gradients near 1 with spread 1e-3 in every other kind of use, and the same in float64."""
    a, delta = _spread_batch("shared signs", 1)
    near_1 = _spread_batch("means near 1", 1)[1]
    wide_a, wide_delta, wide = (v[:, 0].astype(np.float64) for v in (a, delta, near_1))
    rows = np.zeros((N, 3, P))
    rows[np.arange(N), np.arange(N) % 2] = wide  # half of each row's gradients near 1, the others 0
    products = np.einsum("nd,np->ndp", wide_a, wide_delta)
    return {
        "convolution": (Convolution(a[:, :, None], delta[:, :, None], (1, 1)), products),
        "addition": (Addition(near_1), wide),
        "scaling": (Scaling(a[..., :P], delta), wide_a[:, :P] * wide_delta),
        "whole": (Whole(near_1[:, 0]), wide),
        "lookup": (Lookup(np.arange(N)[:, None] % 2, near_1, 3), rows),
    }


@pytest.mark.parametrize("kind", _slow_but(["convolution", "addition", "scaling", "whole", "lookup"], "lookup"))
def test_variance_in_every_kind_of_use(kind: str) -> None:
    assert variance_error(*_others()[kind]) < 1e-5
    if kind != "lookup":  # there, gradients of 0 and 1 differ enough
        assert variance_error(*_others()[kind], naive_variance) > 1e-2


def test_centred_variance_with_large_means_and_its_failure() -> None:
    assert variance_error(*near_one("means near 1"), per_example.variance_centred) < 1e-5
    assert variance_error(*near_one("shared signs"), per_example.variance_centred) > 1e-2


def test_variance_of_equal_gradients_is_zero() -> None:
    tape = _product_tape(np.full((5, 1, 2), 0.1, np.float32), np.full((5, 1, 3), 0.3, np.float32))
    variance = np.asarray(jax.jit(per_example.variance)(tape)["w"])
    assert np.all(variance >= 0)
    assert np.all(variance < 1e-17)


def _bad(made: Any) -> Any:
    """The batch with an infinite first example: its activations and errors are infinite or NaN."""
    x = np.array(made.x)
    x[0] = np.inf
    return made.record(made.params, made.state, x, made.y)


@pytest.mark.parametrize("name", _slow_but(["mlp", "cnn", "conv_gram", "group_norm", "sequence"], ""))
def test_an_example_of_weight_0_adds_nothing_whatever_it_is(name: str) -> None:
    made, weighted = make(name, np.float32), jax.jit(per_example.weighted_grad)
    ones = np.ones(len(made.x), np.float32)
    weights = ones * (np.arange(len(ones)) > 0)
    assert not np.isfinite(vector(weighted(_bad(made), ones))).all()
    assert gap(vector(weighted(_bad(made), weights)), vector(weighted(made.tape, weights))) < 1e-6


@pytest.mark.parametrize("name", _slow_but(["mlp", "cnn", "conv_gram", "conv_stride"], "conv_stride"))
def test_clipping_leaves_out_an_example_that_is_not_finite(name: str) -> None:
    made = make(name, np.float32)

    @jax.jit
    def clipped(tape: Any) -> Any:
        return per_example.clipped_grad(tape, 0.5), per_example.clipped_grad_by_layer(tape, 0.5)[0]

    (sums, norms), by_layer = jax.tree.map(np.asarray, clipped(_bad(made)))
    assert not np.isfinite(norms[0])
    assert np.isfinite(vector(by_layer)).all()
    g = flat(made.grads())[1:]
    assert gap(vector(sums), np.minimum(1, 0.5 / np.linalg.norm(g, axis=1)) @ g) < 1e-5


@jax.jit
def _where_nothing_is(tape: Any) -> Any:
    slope = jax.grad(lambda t: per_example.norms(t).sum())(tape)
    return per_example.cosine(tape), per_example.clipped_grad(tape, 0.0)[0], per_example.snr(tape), slope


def test_zero_gradients() -> None:
    tape = _product_tape(np.zeros((4, 1, 2), np.float32), np.zeros((4, 1, 3), np.float32))
    for leaf in jax.tree.leaves(_where_nothing_is(tape)):
        assert np.all(np.asarray(leaf) == 0)


def test_clipped_gradients_are_within_the_bound() -> None:
    made = make("mlp", np.float32)
    g = flat(made.grads())
    clips = {"flat": per_example.flat(0.3), "automatic": per_example.automatic(0.3), "psac": per_example.psac(0.3)}

    @jax.jit
    def every(tape: Any) -> Any:
        norms = per_example.norms(tape)
        return {name: (per_example.clipped_grad(tape, clip)[0], clip(norms)) for name, clip in clips.items()}

    for name, (sums, factors) in jax.tree.map(np.asarray, every(made.tape)).items():
        assert np.all(np.linalg.norm(factors[:, None] * g, axis=1) <= 0.3 * (1 + 1e-6)), name
        assert gap(vector(sums), factors @ g) < 1e-5, name


# Tied weights: the tape by hand, the gradients by jax.grad.


def _product(a: np.ndarray, delta: np.ndarray) -> Product:
    return Product(a, delta)


def _tied_dense() -> tuple[Any, Any, np.ndarray]:
    """loss = sum(r . tanh(tanh(x w) w)) with one w for both layers, built with its uses apart."""
    w, x, r = (random(i, *s) for i, s in enumerate([(4, 4), (7, 4), (7, 4)]))
    h = np.tanh(x @ w)
    y = np.tanh(h @ w)
    delta2 = r * (1 - y**2)
    delta1 = (delta2 @ w.T) * (1 - h**2)
    uses = (_product(x[:, None], delta1[:, None]), _product(h[:, None], delta2[:, None]))
    of_one = jax.grad(lambda w, x, r: jnp.sum(r * jnp.tanh(jnp.tanh(x @ w) @ w)))
    oracle = jax.jit(jax.vmap(of_one, (None, 0, 0)))(w, x, r)
    return tape_of(jnp.zeros(7), jnp.zeros(7), {"w": w}, {"w": uses}), w, np.asarray(oracle)


def _tied_embedding() -> tuple[Any, Any, np.ndarray]:
    """loss = sum_t r_t . (tanh(w[i_t]) w'): the table is the output matrix too, its second use transposed."""
    w, r, indices = random(3, 5, 4), random(4, 7, 3, 5), np.random.default_rng(0).integers(0, 5, (7, 3))
    h = np.tanh(w[indices])
    delta = (r @ w) * (1 - h**2)
    uses = (Lookup(indices, delta, 5), _product(r, h))
    of_one = jax.grad(lambda w, i, r: jnp.sum(r * (jnp.tanh(w[i]) @ w.T)))
    oracle = jax.jit(jax.vmap(of_one, (None, 0, 0)))(w, indices, r)
    return tape_of(jnp.zeros(7), jnp.zeros(7), {"w": w}, {"w": uses}), w, np.asarray(oracle)


def _two_lookups() -> tuple[Any, Any, np.ndarray]:
    """Two places look up one table, with repeated and (dropped) negative indices."""
    w, rng = random(5, 6, 3), np.random.default_rng(1)
    first, second = (rng.integers(-1, 6, (8, t)) for t in (4, 2))
    d1, d2 = random(6, 8, 4, 3), random(7, 8, 2, 3)
    dense = np.zeros((8, 6, 3))
    for indices, delta in ((first, d1), (second, d2)):
        for i, t in np.ndindex(*indices.shape):
            if indices[i, t] >= 0:
                dense[i, indices[i, t]] += delta[i, t]
    uses = tuple(Lookup(i, d, 6) for i, d in ((first, d1), (second, d2)))
    return tape_of(jnp.zeros(8), jnp.zeros(8), {"w": w}, {"w": uses}), w, dense


def _bias_and_rest() -> tuple[Any, Any, np.ndarray]:
    """A parameter added at some places and used in an unknown way at another."""
    delta, whole, b = random(8, 5, 4, 3), random(9, 5, 3), np.zeros(3)
    uses = Addition(delta), Whole(whole)
    return tape_of(jnp.zeros(5), jnp.zeros(5), {"w": b}, {"w": uses}), b, delta.sum(1) + whole


TIED = [_tied_dense, _tied_embedding, _two_lookups, _bias_and_rest]


def tied_error(make_tied: Any) -> float:
    """How far the statistics of tied weights are from those of their gradients."""
    with float64():
        tape, w, grads = make_tied()
        g = grads.reshape(len(grads), -1)
        sizes, v = np.linalg.norm(g, axis=1), random(10, *w.shape)
        bound = np.median(sizes)

        @jax.jit
        def statistics(tape: Any, v: Any, bound: Any) -> Any:
            return (
                per_example.sq_norms(tape),
                per_example.materialize(tape)["w"],
                per_example.gram(tape),
                per_example.second_moment(tape)["w"],
                per_example.variance(tape)["w"],
                per_example.mean_grad(tape)["w"],
                per_example.jvp_examples(tape, {"w": v}),
                per_example.clipped_grad(tape, bound)[0]["w"],
            )

        expected = (
            sizes**2, g, g @ g.T, (g**2).mean(0), g.var(0), g.mean(0), g @ v.ravel(), np.minimum(1, bound / sizes) @ g,
        )  # fmt: skip
        found = statistics(tape, v, bound)
        return max(gap(np.ravel(x), np.ravel(e)) for x, e in zip(found, expected, strict=True))


@pytest.mark.parametrize("make_tied", [TIED[0], *(pytest.param(f, marks=pytest.mark.slow) for f in TIED[1:])])
def test_tied_weights(make_tied: Any) -> None:
    assert tied_error(make_tied) < 1e-12


def test_an_unused_parameter_has_zero_gradients() -> None:
    tape = tape_of(jnp.zeros(3), jnp.zeros(3), {"w": jnp.zeros((2, 2))}, {"w": ()})

    @jax.jit
    def statistics(tape: Any) -> Any:
        along = per_example.jvp_examples(tape, {"w": jnp.ones((2, 2))})
        return per_example.norms(tape), per_example.gram(tape), along, per_example.materialize(tape)["w"]

    found = statistics(tape)
    assert [leaf.shape for leaf in found] == [(3,), (3, 3), (3,), (3, 2, 2)]
    assert all(np.all(np.asarray(leaf) == 0) for leaf in found)


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
    """The recording of the coupled net, and its parameters, state, inputs and labels by NumPy."""
    record = functools.partial(backprop.record(COUPLED, losses.softmax_cross_entropy), train=train)
    x = random(0, 5, 3, dtype=np.float32)
    params, state = jax.tree.map(lambda p: np.asarray(p, np.float32), drawn(COUPLED, x))
    return record, (params, state, x, np.array([0, 1, 2, 0, 1]))


@functools.cache
def _coupled_tape() -> Any:
    record, arguments = _coupled(train=True)
    return jax.eval_shape(record, *arguments)


@pytest.mark.parametrize("name", STATISTICS)
def test_coupled_examples_have_no_statistics(name: str) -> None:
    with pytest.raises(
        ValueError, match=rf"{name}: per-example gradients are undefined here: in batch_norm at \[1\] .*GroupNorm"
    ):
        jax.eval_shape(STATISTICS[name], _coupled_tape())


def test_the_mean_is_exact_where_examples_are_coupled() -> None:
    record, arguments = _coupled(train=True)
    vg = backprop.value_and_grad(COUPLED, losses.softmax_cross_entropy)
    both = jax.jit(lambda *a: (per_example.mean_grad(record(*a)), vg(*a)[1]))
    mean, grad = both(*arguments)
    np.testing.assert_allclose(vector(mean), vector(grad), rtol=1e-5, atol=1e-7)
    record, arguments = _coupled(train=False)
    assert jax.eval_shape(record, *arguments).coupled == ()
