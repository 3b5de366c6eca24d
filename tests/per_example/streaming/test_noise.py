"""Noise scale, variance and signal-to-noise ratio of the streamed pass, against those of the tape and of vmap(grad)."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxnn import per_example
from jaxnn.per_example import (
    NoiseScale,
    SecondMoment,
    SqNorms,
    Variance,
    microbatched_value_and_grad,
    noise_scale_of,
    snr_of,
    value_and_grad,
    variance_of,
)
from tests.helpers import assert_close, float64, slow
from tests.per_example.streaming.test_microbatched import N, loss, problem


def of_one(params: Any, tokens: Any, y: Any) -> Any:
    return loss(params["inner"], tokens, y)[0] * params["scale"]


HOW: dict[str, Any] = {"in_axes": (None, 0, -1)}


def nested() -> tuple[Any, Any, Any]:
    params, tokens, y = problem()
    return {"inner": params, "scale": jnp.asarray(0.5)}, tokens, y


def test_noise_scale_is_that_of_the_tape_over_microbatches_too() -> None:
    with float64(), jax.numpy_dtype_promotion("strict"):

        @jax.jit
        def found(*args: Any) -> Any:
            tape = per_example.record(of_one, **HOW)(*args)
            first = per_example.noise_scale(tape)
            expected = per_example.noise_scale(tape, first)
            (_, each), total = value_and_grad(of_one, **HOW)(*args)
            once = noise_scale_of(each, total)
            (_, in_parts), parts_total = microbatched_value_and_grad(of_one, size=3, **HOW)(*args)
            return expected, noise_scale_of(each, total, before=once), noise_scale_of(in_parts, parts_total), first

        expected, twice, in_parts, first = found(*nested())
        assert_close(twice, expected, rtol=1e-10)
        assert_close(in_parts, first, rtol=1e-10)
        assert isinstance(twice, NoiseScale)
        assert float(twice.batches) == 2
        assert_close(twice.scale, expected.trace / expected.sq_norm, rtol=1e-10)


@pytest.mark.parametrize("by", ["layer", *slow("parameter", {"some": ["['inner']['b']", "['scale']"]})])
def test_noise_scales_of_parts_are_those_of_a_tape_of_the_parts(by: Any) -> None:
    with float64():
        args = nested()
        (_, each), total = jax.jit(value_and_grad(of_one, SqNorms(by), **HOW))(*args)
        found = noise_scale_of(each, total, by=by)
        found = noise_scale_of(each, total, by=by, before=found)
        tape = jax.jit(per_example.record(of_one, **HOW))(*args)
        paths = tape.paths
        if by == "layer":
            prefixes: dict[str, Any] = {"['inner']": "['inner']", "": "['scale']"}
            assert_close(each, per_example.sq_norms_by_layer(tape), rtol=1e-10)
        else:
            prefixes = {path: path for path in paths} if by == "parameter" else by
        assert set(found) == set(prefixes)
        for name, prefix in prefixes.items():
            expected = per_example.noise_scale(per_example.select(tape, prefix))
            assert_close(found[name].means, (expected.trace, expected.sq_norm), rtol=1e-9)


@pytest.mark.slow
def test_removed_examples_do_not_count() -> None:
    with float64():
        params, tokens, y = nested()
        weights = jnp.asarray([1.0, 1, 1, 1, 1, 1, 0, 1, 0, 0, 0])
        kept = np.flatnonzero(weights)

        @jax.jit
        def noise(params: Any, tokens: Any, y: Any, weights: Any) -> Any:
            (_, each), total = value_and_grad(of_one, **HOW)(params, tokens, y, weights=weights)
            return noise_scale_of(each, total, examples=jnp.sum(weights))

        (_, each), total = value_and_grad(of_one, **HOW)(params, tokens[kept], y[:, kept])
        assert_close(noise(params, tokens, y, weights), noise_scale_of(each, total), rtol=1e-10)
        one = noise(params, tokens, y, jnp.zeros(N).at[3].set(1.0))
        assert_close(one, NoiseScale(*np.zeros(3)), rtol=0)


def test_moments_of_the_streamed_pass_are_those_of_the_tape() -> None:
    with float64(), jax.numpy_dtype_promotion("strict"):

        @jax.jit
        def found(*args: Any) -> Any:
            tape = per_example.record(of_one, **HOW)(*args)
            vg = value_and_grad(of_one, (SecondMoment(), Variance(1)), **HOW)
            (_, (second, variance)), total = vg(*args)
            (_, in_parts), parts_total = microbatched_value_and_grad(of_one, SecondMoment(), size=3, **HOW)(*args)
            one_pass = variance_of(parts_total, in_parts, N, ddof=1)
            expected = per_example.variance(tape, 1), per_example.snr(tape, 1)
            return expected, (variance, snr_of(total, variance, N)), (one_pass, snr_of(total, one_pass, N)), second

        expected, ours, one_pass, _ = found(*nested())
        # Rows of the table that no example looks up have no gradient: 0 / 0.
        assert_close(ours, expected, rtol=1e-9, atol=1e-14)
        assert_close(one_pass, expected, rtol=1e-7, atol=1e-10)


def test_estimates_are_unbiased() -> None:
    """Over all batches of 2 of 4 examples, drawn with replacement, the means are tr(Sigma) and |G|^2."""
    x = np.random.default_rng(0).standard_normal((4, 3))
    vg = jax.jit(value_and_grad(jnp.vdot))
    noise = None
    for i in range(4):
        for j in range(4):
            (_, each), total = vg(jnp.ones(3), x[[i, j]])
            noise = noise_scale_of(each, total, before=noise)
    assert noise is not None
    assert_close(noise.means, (x.var(axis=0).sum(), (x.mean(axis=0) ** 2).sum()), rtol=1e-5)


def test_sums_over_batches_may_be_donated() -> None:
    """No array is in the initial state twice."""
    vg = value_and_grad(lambda w, x: jnp.vdot(w, x))
    x = np.random.default_rng(0).normal(size=(2, 3, 4)).astype(np.float32)

    def step(before: NoiseScale, x: Any) -> NoiseScale:
        (_, each), total = vg(jnp.ones(4), x)
        return noise_scale_of(each, total, before=before)

    donating, sums, again = jax.jit(step, donate_argnums=0), NoiseScale.zero(), NoiseScale.zero()
    for batch in x:
        sums, again = donating(sums, batch), step(again, batch)
    assert_close(sums, again, rtol=1e-3)


@pytest.mark.parametrize(
    ("call", "text"),
    [
        (lambda: noise_scale_of(np.ones(1), np.ones(2)), "the number of examples must be at least 2"),
        (lambda: noise_scale_of(np.ones(5), np.ones(2), examples=1), "needs more than 1 example, got 1"),
        (lambda: noise_scale_of(np.ones(5), np.ones(2), examples=np.nan), "needs more than 1 example, got nan"),
        (lambda: noise_scale_of(np.ones(5), {"w": None}), "the gradient of some parameter"),
        (lambda: noise_scale_of(np.ones((5, 2)), np.ones(2)), r"an array \(N,\), got shape \(5, 2\)"),
        (lambda: noise_scale_of((np.ones(5),), np.ones(2)), "got tuple"),
        (lambda: noise_scale_of({"": np.ones(())}, np.ones(2), by="layer"), r"got shape \(\)"),
        (lambda: variance_of(np.ones(2), np.ones(2), 5, ddof=-1), "ddof must be at least 0"),
        (lambda: variance_of(np.ones(2), np.ones(3), 5), "must be a pytree like the gradient"),
        (lambda: snr_of(np.ones(2), np.ones(2), 0), "needs more than 0 examples, got 0"),
        (lambda: noise_scale_of({"a": np.ones(5)}, {"a": np.ones(2)}), "pass the `by`"),
        (lambda: noise_scale_of({"a": np.ones(5)}, {"a": np.ones(2)}, by="parameter"), r"expected .*\[\"\['a'\]\"\]"),
        (lambda: noise_scale_of(np.ones(5), {"a": np.ones(2)}, by="layer"), "got ndarray"),
        (lambda: noise_scale_of({"a": np.ones(5)}, {"a": np.ones(2)}, by={"a": "b"}), "no parameter has a path"),
        (lambda: variance_of(np.ones(2), np.ones(2), 1, ddof=1), "needs more than 1 example, got 1"),
    ],
)
def test_bad_input_is_named(call: Any, text: str) -> None:
    with pytest.raises(ValueError, match=text):
        call()


def test_before_must_be_a_noise_scale() -> None:
    with pytest.raises(TypeError, match="before must be the NoiseScale"):
        noise_scale_of(jnp.ones(3), jnp.ones(2), before=3)
    with pytest.raises(TypeError, match="before must be a dict of the NoiseScale"):
        noise_scale_of({"": jnp.ones(3)}, jnp.ones(2), by="layer", before=NoiseScale.zero())
    with pytest.raises(TypeError, match="examples must be a real number, got None"):
        variance_of(jnp.ones(2), jnp.ones(2), None)  # type: ignore[arg-type]
