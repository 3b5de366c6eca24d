"""What a recorded loss may be given: several parameters, shared arguments, keys, other axes, aux, weights."""

from __future__ import annotations

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxnn import per_example
from tests.helpers import float64
from tests.per_example.cases import flat, gap, vector
from tests.per_example.oracles import EXACT
from tests.per_example.recording.losses import Drawn, cross_entropy

N = 4


def made() -> tuple[Any, Any, Any]:
    r = Drawn(0)
    return {"w": r(3, 5), "b": r(5)}, r(5, 2), (r(N, 3), r.integers(2, N))


def loss(p: Any, v: Any, x: Any, y: Any) -> Any:
    return cross_entropy(jnp.tanh(x @ p["w"] + p["b"]) @ v, y)


def expected(argnums: Any = 0, f: Any = loss) -> Any:
    p, v, data = made()
    return jax.jit(jax.vmap(jax.grad(f, argnums), (None, None, 0, 0)))(p, v, *data)


def materialized(record: Any, *args: Any, **kwargs: Any) -> Any:
    return jax.jit(lambda *a, **k: per_example.materialize(record(*a, **k)))(*args, **kwargs)


def test_argnums_as_of_jax_grad() -> None:
    with float64():
        p, v, data = made()

        @jax.jit
        def every(*args: Any) -> Any:
            pairs = []
            for argnums in (0, 1, (0, 1), (1, 0), (-3,)):
                axes = (None, None, 0, 0)
                found = per_example.materialize(per_example.record(loss, argnums=argnums, in_axes=axes)(*args))
                pairs.append((found, jax.vmap(jax.grad(loss, argnums), axes)(*args)))
            return pairs

        for found, want in every(p, v, *data):
            assert jax.tree.structure(found) == jax.tree.structure(want)
            assert gap(flat(found), flat(want)) <= EXACT


@pytest.mark.slow
def test_paths_are_those_of_the_parameters() -> None:
    p, v, data = made()
    for settings, paths in [
        ({}, ("['b']", "['w']")),
        ({"argnums": (1, 0)}, ("[0]", "[1]['b']", "[1]['w']")),
        ({"argnums": 1}, ("",)),
    ]:
        record = per_example.record(loss, in_axes=(None, None, 0, 0), **settings)
        assert jax.eval_shape(record, p, v, *data).paths == paths


def test_the_axis_of_examples_may_be_any() -> None:
    with float64():
        p, v, (x, y) = made()
        batch = {"x": np.moveaxis(np.asarray(x), 0, 1), "more": (y, np.float64(2.0))}
        axes = (None, None, {"x": -1, "more": (0, None)})

        def of_dict(p: Any, v: Any, batch: Any) -> Any:
            return batch["more"][1] * loss(p, v, batch["x"], batch["more"][0])

        found = materialized(per_example.record(of_dict, in_axes=axes), p, v, batch)
        assert gap(flat(found), 2 * flat(expected())) <= EXACT


def test_keys_of_each_example() -> None:
    """Dropout: each example has a mask of its own, the one that vmap(grad) gives it."""
    with float64():
        p, v, data = made()
        keys = jax.random.split(jax.random.key(0), N)

        def dropped(p: Any, v: Any, x: Any, y: Any, key: Any) -> Any:
            h = jnp.tanh(x @ p["w"] + p["b"])
            return cross_entropy(jnp.where(jax.random.bernoulli(key, 0.5, h.shape), h, 0.0) @ v, y)

        axes = (None, None, 0, 0, 0)
        found = materialized(per_example.record(dropped, argnums=(0, 1), in_axes=axes), p, v, *data, keys)
        want = jax.jit(jax.vmap(jax.grad(dropped, (0, 1)), axes))(p, v, *data, keys)
        assert gap(flat(found), flat(want)) <= EXACT


def test_aux_has_the_axis_of_examples() -> None:
    p, v, data = made()

    def with_aux(p: Any, v: Any, x: Any, y: Any) -> Any:
        return loss(p, v, x, y), {"label": y, "input": (x, None), "fixed": jnp.ones(2)}

    record = per_example.record(with_aux, in_axes=(None, None, 0, 0), has_aux=True)
    (tape, aux), each = jax.jit(lambda *args: (record(*args), jax.vmap(loss, (None, None, 0, 0))(*args)))(p, v, *data)
    assert aux["input"][0].shape == data[0].shape
    assert aux["fixed"].shape == (N, 2)
    np.testing.assert_array_equal(aux["label"], data[1])
    np.testing.assert_array_equal(tape.losses, each)


def test_frozen_parameters_are_none_in_results() -> None:
    with float64():
        p, v, data = made()
        record = functools.partial(per_example.record, loss, argnums=(0, 1), in_axes=(None, None, 0, 0))

        @jax.jit
        def statistics(*args: Any) -> Any:
            tape = record(trainable=({"w": True, "b": False}, True))(*args)
            clipped, _ = per_example.clipped_grad(tape, 0.5)
            return clipped, per_example.materialize(tape), per_example.norms(record(trainable=False)(*args))

        clipped, gradients, of_none = statistics(p, v, *data)
        assert clipped[0]["b"] is None
        whole = expected((0, 1))
        assert gap(flat(gradients), flat(({"w": whole[0]["w"]}, whole[1]))) <= EXACT
        assert of_none.tolist() == [0.0] * N
        for trainable, paths in [(({"w": True, "b": False}, True), ("[0]['w']", "[1]")), ((False, True), ("[1]",))]:
            assert jax.eval_shape(record(trainable=trainable), p, v, *data).paths == paths


def test_none_among_the_parameters_is_passed_on() -> None:
    p, v, data = made()

    def f(p: Any, x: Any, y: Any) -> Any:
        assert p["none"] is None
        return loss(p["some"], v, x, y)

    mean = jax.eval_shape(
        lambda *args: per_example.mean_grad(per_example.record(f)(*args)), {"some": p, "none": None}, *data
    )
    assert mean["none"] is None


def test_weights_of_examples() -> None:
    """The tape of w_i loss_i; a row of padding with weight 0 does no harm, though its gradient is NaN."""
    with float64():
        p, v, (x, y) = made()
        x = np.asarray(x).copy()
        x[1] = np.inf
        weights = np.array([1.0, 0.0, -2.0, 0.5])
        record = per_example.record(loss, argnums=(0, 1), in_axes=(None, None, 0, 0))

        @jax.jit
        def statistics(*args: Any) -> Any:
            tape = record(*args, weights=weights)
            moments = per_example.weighted_grad(tape, jnp.ones(N)), per_example.variance(tape)
            return per_example.materialize(tape), *moments, tape.losses

        g = flat(expected((0, 1)))
        g[1] = 0
        g *= weights[:, None]
        gradients, total, variance, each = statistics(p, v, x, y)
        assert gap(flat(gradients), g) <= EXACT
        assert gap(vector(total), g.sum(0)) <= EXACT
        assert gap(vector(variance), g.var(0)) <= EXACT
        assert each[1] == 0


def test_weights_reach_views_and_fallbacks() -> None:
    with float64():
        r = Drawn(3)
        params, x, weights = {"w": r(3, 4), "u": r(3)}, np.array(r(N, 4)), np.array([0.0, 1, 2, 3])

        def f(p: Any, x: Any) -> Any:
            return jnp.sum(jnp.tanh(p["w"][:2, ::-1] @ x)) + jnp.prod(jnp.cumsum(p["u"] * x[:3]) + jnp.sort(p["u"]))

        want = jax.jit(jax.vmap(jax.grad(f), (None, 0)))(params, x)
        x[0] = np.nan
        found = materialized(per_example.record(f), params, x, weights=weights)
        assert gap(flat(found), np.asarray(weights)[:, None] * flat(want)) <= EXACT


def test_numbers_and_lists_of_numbers_will_do() -> None:
    norms = jax.jit(lambda x: per_example.norms(per_example.record(lambda w, x: w * x)(2.0, x)))
    assert norms(np.array([3.0, 4.0], np.float32)).tolist() == [3.0, 4.0]


@pytest.mark.slow
@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_half_precision_has_statistics_in_float32(dtype: str) -> None:
    """Parameters kept in float32 and cast, or kept in half precision: sums run in float32 either way."""
    with float64():
        p, v, (x, y) = jax.tree.map(lambda a: a.astype(np.float32) if a.dtype == np.float64 else a, made())

    def cast(p: Any, v: Any, x: Any, y: Any) -> Any:
        half = jax.tree.map(lambda a: a.astype(dtype), (p, v, x))
        return loss(*half, y).astype(jnp.float32)

    record = per_example.record(cast, argnums=(0, 1), in_axes=(None, None, 0, 0))
    stored = jax.tree.map(lambda a: a.astype(dtype), (p, v))

    def statistics(*args: Any) -> Any:
        tape = record(*args)
        return tape, per_example.norms(tape), per_example.clipped_grad(tape, 1.0)[0], per_example.materialize(tape)

    for params, out in (((p, v), jnp.float32), (stored, jnp.dtype(dtype))):
        tape, norms, clipped, gradients = jax.jit(statistics)(*params, x, y)
        assert {use.delta.dtype for uses in tape.uses for use in uses} == {jnp.dtype(dtype)}
        assert norms.dtype == jnp.float32
        assert {g.dtype for g in jax.tree.leaves(clipped)} == {jnp.dtype(out)}
        want = flat(jax.jit(jax.vmap(jax.grad(loss, (0, 1)), (None, None, 0, 0)))(p, v, x, y))
        assert gap(flat(gradients), want) < 0.02
