"""Every statistic of a tape against the gradients of single examples by jax.vmap(jax.grad)."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxnn import per_example
from jaxnn.per_example import blocks, measures
from tests.helpers import float64, random, strict
from tests.per_example.cases import CASES, N, flat, gap, make, vector

WEIGHTS = random(5, N)


@jax.jit
def _compiled(tape: Any, other: Any, v: Any, weights: Any) -> dict[str, Any]:
    bound = jnp.median(per_example.norms(tape))
    clipped, norms = per_example.clipped_grad(tape, bound)
    by_layer, layer_norms = per_example.clipped_grad_by_layer(tape, bound)
    noise = per_example.noise_scale(other, per_example.noise_scale(tape))
    return {
        "sq_norms": per_example.sq_norms(tape),
        "norms": norms,
        "weighted_grad": per_example.weighted_grad(tape, weights),
        "mean_grad": per_example.mean_grad(tape),
        "clipped_grad": clipped,
        "clipped_by_layer": by_layer,
        "layer_norms": list(layer_norms.values()),
        "second_moment": per_example.second_moment(tape),
        "variance": per_example.variance(tape),
        "variance_1": per_example.variance(tape, ddof=1),
        "snr": per_example.snr(tape),
        "gram": per_example.gram(tape),
        "gram_other": per_example.gram(tape, other),
        "cosine": per_example.cosine(tape, other),
        "jvp": per_example.jvp_examples(tape, v),
        "noise": [noise.trace, noise.sq_norm, noise.scale],
        "materialize": per_example.materialize(tape),
    }


def _statistics(tape: Any, other: Any, params: Any) -> dict[str, np.ndarray]:
    """Each statistic by name, as NumPy arrays: trees as one vector."""
    v = jax.tree.map(lambda p: jnp.asarray(random(p.size, *p.shape), p.dtype), params)
    found = _compiled(tape, other, v, jnp.asarray(WEIGHTS, tape.losses.dtype))
    found |= {"materialize": flat(found["materialize"]), "layer_norms": np.stack(found["layer_norms"])}
    return {name: x if hasattr(x, "shape") else vector(x) for name, x in found.items()}


def _expected(grads: Any, other: Any, params: Any) -> dict[str, np.ndarray]:
    """The same from explicit gradients, by NumPy in float64."""
    g, h = flat(grads), flat(other)
    sizes = np.linalg.norm(g, axis=1)
    v = vector(jax.tree.map(lambda p: random(p.size, *p.shape), params))
    bound = np.median(sizes)
    layers: dict[str, list[int]] = {}
    for i, (path, _) in enumerate(jax.tree_util.tree_flatten_with_path(grads)[0]):
        layers.setdefault(jax.tree_util.keystr(path[:-1]), []).append(i)
    leaves = [flat([leaf]) for leaf in jax.tree.leaves(grads)]
    by_layer, layer_norms = list(leaves), []
    for members in layers.values():
        size = np.sqrt(sum((leaves[i] ** 2).sum(1) for i in members))
        layer_norms.append(size)
        for i in members:
            by_layer[i] = np.minimum(1, bound / np.sqrt(len(layers)) / size) @ leaves[i]
    noise = sum(np.array([_trace(f), _signal(f)]) for f in (g, h))
    return {
        "sq_norms": sizes**2,
        "norms": sizes,
        "weighted_grad": WEIGHTS @ g,
        "mean_grad": g.mean(0),
        "clipped_grad": np.minimum(1, bound / sizes) @ g,
        "clipped_by_layer": np.concatenate(by_layer),
        "layer_norms": np.stack(layer_norms),
        "second_moment": (g**2).mean(0),
        "variance": g.var(0),
        "variance_1": g.var(0, ddof=1),
        "snr": np.where(g.var(0) == 0, np.where(g.mean(0) == 0, 0, np.inf), g.mean(0) ** 2 / np.fmax(g.var(0), 1e-300)),
        "gram": g @ g.T,
        "gram_other": g @ h.T,
        "cosine": (g @ h.T) / sizes[:, None] / np.linalg.norm(h, axis=1),
        "jvp": g @ v,
        "noise": np.array([*noise, noise[0] / noise[1]]),
        "materialize": g,
    }


def _trace(g: np.ndarray) -> float:
    return float(g.var(0, ddof=1).sum())


def _signal(g: np.ndarray) -> float:
    """The mean of g_i . g_j over pairs i != j: an unbiased estimate of |G|^2, derived apart from the library's."""
    products = g @ g.T
    return float((products.sum() - np.trace(products)) / (len(g) * (len(g) - 1)))


def _gaps(name: str, dtype: Any) -> dict[str, float]:
    made, more = make(name, dtype), make(name, dtype, n=4, seed=1)
    more = more._replace(params=made.params, state=made.state)
    with strict():
        got = _statistics(made.tape, more.tape, made.params)
    expected = _expected(made.grads(), more.grads(), made.params)
    assert got.keys() == expected.keys()
    return {key: gap(got[key], expected[key]) for key in got}


@pytest.mark.parametrize("name", CASES)
def test_statistics_equal_those_of_explicit_gradients(name: str) -> None:
    with float64():
        gaps = _gaps(name, np.float64)
    assert max(gaps.values()) < 1e-10, gaps


@pytest.mark.parametrize("name", ["mlp", "cnn", "conv_gram", "embedding", "sequence", "group_norm"])
def test_in_float32(name: str) -> None:
    made = make(name, np.float32)
    with float64():  # the same numbers, differentiated in float64
        wide = made._replace(
            **{k: jax.tree.map(lambda x: x.astype(np.float64), getattr(made, k)) for k in ("params", "state")},
            x=made.x if made.x.dtype == np.int32 else made.x.astype(np.float64),
        )
        g = flat(wide.grads())
    tape = made.tape
    clipped, norms = jax.jit(per_example.clipped_grad)(tape, 0.5)
    assert gap(norms, np.linalg.norm(g, axis=1)) < 1e-5
    assert gap(vector(clipped), np.minimum(1, 0.5 / np.linalg.norm(g, axis=1)) @ g) < 1e-5
    assert gap(vector(per_example.variance(tape)), g.var(0)) < 1e-5
    assert gap(vector(per_example.second_moment(tape)), (g**2).mean(0)) < 1e-5
    assert gap(per_example.gram(tape), g @ g.T) < 1e-5


@pytest.mark.parametrize("name", ["mlp", "cnn", "conv_groups", "conv_gram", "embedding", "sequence", "sequence_gram"])
def test_in_small_chunks(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(blocks, "CHUNK_BYTES", 700)
    monkeypatch.setattr(measures, "AT_ONCE", 4)
    jax.clear_caches()  # the budget is read while tracing
    with float64():
        gaps = _gaps(name, np.float64)
    jax.clear_caches()
    assert max(gaps.values()) < 1e-10, gaps


@pytest.mark.parametrize("name", ["mlp", "linear_no_bias", "conv_one_position", "embedding", "layer_norm"])
def test_centred_variance_is_the_variance(name: str) -> None:
    with float64():
        made = make(name)
        got = vector(per_example.variance_centred(made.tape, ddof=1))
        assert gap(got, flat(made.grads()).var(0, ddof=1)) < 1e-10


def test_centred_variance_needs_one_position() -> None:
    with pytest.raises(ValueError, match=r"\[0\]\['w'\] is used at 4 positions"):
        per_example.variance_centred(make("sequence", np.float32).tape)


@pytest.mark.parametrize("name", ["mlp", "cnn", "embedding", "sequence_gram"])
def test_under_jit_and_over_seeds(name: str) -> None:
    def statistics(params: Any, state: Any, x: Any, y: Any) -> tuple[Any, ...]:
        tape = made.record(params, state, x, y)
        clipped = per_example.clipped_grad(tape, 0.5)
        return clipped, per_example.variance(tape), per_example.gram(tape), per_example.noise_scale(tape)

    with float64():
        made, other = make(name), make(name, seed=3)
        apart = [jax.jit(statistics)(*case[1:]) for case in (made, other)]
        together = jax.tree.map(lambda *x: jnp.stack(x), *(case[1:] for case in (made, other)))
        at_once = jax.jit(jax.vmap(statistics))(*together)
        for i, expected in enumerate(apart):
            for got, want in zip(jax.tree.leaves(at_once), jax.tree.leaves(expected), strict=True):
                np.testing.assert_allclose(got[i], want, rtol=1e-10, atol=1e-12)


def test_a_tape_passes_through_jit_and_back() -> None:
    made = make("conv_padding", np.float32)  # its padding was given as lists
    tape = jax.jit(made.record)(made.params, made.state, made.x, made.y)
    norms = jax.jit(per_example.norms)(tape)
    assert gap(norms, per_example.norms(made.tape)) < 1e-6


def test_half_precision_is_accumulated_in_float32() -> None:
    made = make("mlp", np.float32)
    half = jax.tree.map(lambda p: p.astype(jnp.bfloat16), made.params)
    tape = made.record(half, made.state, made.x.astype(jnp.bfloat16), made.y)
    assert per_example.sq_norms(tape).dtype == np.float32
    sums, norms = per_example.clipped_grad(tape, 0.5)
    assert norms.dtype == np.float32
    assert {leaf.dtype for leaf in jax.tree.leaves(sums)} == {jnp.dtype(jnp.bfloat16)}
    assert {leaf.dtype for leaf in jax.tree.leaves(per_example.variance(tape))} == {np.dtype(np.float32)}
    assert gap(norms, np.linalg.norm(flat(per_example.materialize(tape)), axis=1)) < 1e-6
