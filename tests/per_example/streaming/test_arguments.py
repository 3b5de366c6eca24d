"""What the loss may be given: several parameters, shared arguments, keys, integers, other axes, aux, weights."""

from __future__ import annotations

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxnn import per_example
from jaxnn.per_example import Directional, Margin, Projection, SecondMoment, SqNorms
from tests.helpers import float64
from tests.per_example.cases import flat, gap, vector
from tests.per_example.oracles import EXACT
from tests.per_example.recording.losses import Drawn, cross_entropy, make

N = 4
AXES = (None, None, 0, 0)


def made() -> tuple[Any, Any, tuple[Any, Any]]:
    r = Drawn(0)
    return {"w": r(3, 5), "b": r(5)}, r(5, 2), (r(N, 3), r.integers(2, N))


def loss(p: Any, v: Any, x: Any, y: Any) -> Any:
    return cross_entropy(jnp.tanh(x @ p["w"] + p["b"]) @ v, y)


def errors(f: Any, args: Any, axes: Any = AXES, argnums: Any = 0, **options: Any) -> float:
    """The largest error of norms, second moment and gradient of a pass; its results have the structure of jax.grad."""
    vg = per_example.value_and_grad(f, (SqNorms(), SecondMoment()), argnums=argnums, in_axes=axes, **options)

    @jax.jit
    def both(*args: Any) -> Any:
        return vg(*args), jax.vmap(jax.grad(f, argnums), axes)(*args)

    ((_, (squares, moment)), total), g = both(*args)
    assert jax.tree.structure(total) == jax.tree.structure(moment) == jax.tree.structure(g)
    rows = flat(g)
    pairs = [(squares, (rows**2).sum(1)), (vector(moment), (rows**2).mean(0)), (vector(total), rows.sum(0))]
    return float(np.max([gap(got, want) for got, want in pairs]))


@pytest.mark.parametrize("argnums", [(1, 0), *(pytest.param(a, marks=pytest.mark.slow) for a in (0, 1, (0, 1), (-3,)))])
def test_argnums_as_of_jax_grad(argnums: Any) -> None:
    with float64():
        p, v, data = made()
        assert errors(loss, (p, v, *data), argnums=argnums) <= EXACT


def test_the_axis_of_examples_may_be_any() -> None:
    with float64():
        p, v, (x, y) = made()
        batch = {"x": np.moveaxis(np.asarray(x), 0, 1), "more": (y, np.float64(2.0))}

        def of_dict(p: Any, v: Any, batch: Any) -> Any:
            return batch["more"][1] * loss(p, v, batch["x"], batch["more"][0])

        assert errors(of_dict, (p, v, batch), (None, None, {"x": -1, "more": (0, None)})) <= EXACT


def test_keys_of_each_example() -> None:
    """Dropout: each example has a mask of its own, also where another example is in the place of a removed one."""
    with float64():
        p, v, data = made()
        keys = jax.random.split(jax.random.key(0), N)

        def dropped(p: Any, v: Any, x: Any, y: Any, key: Any) -> Any:
            h = jnp.tanh(x @ p["w"] + p["b"])
            return cross_entropy(jnp.where(jax.random.bernoulli(key, 0.5, h.shape), h, 0.0) @ v, y), key

        axes = (*AXES, 0)
        vg = per_example.value_and_grad(dropped, argnums=(0, 1), in_axes=axes, has_aux=True)
        weights = np.array([0.0, 1.0, 0.0, 2.0])

        @jax.jit
        def both(*args: Any) -> Any:
            g = jax.vmap(jax.grad(dropped, (0, 1), has_aux=True), axes)(*args)[0]
            return vg(*args), vg(*args, weights=weights), g

        ((_, squares, aux), _), ((_, some, _), total), g = both(p, v, *data, keys)
        assert gap(squares, (flat(g) ** 2).sum(1)) <= EXACT
        assert gap(some, weights**2 * (flat(g) ** 2).sum(1)) <= EXACT
        assert gap(vector(total), weights @ flat(g)) <= EXACT
        assert jnp.array_equal(jax.random.key_data(aux), jax.random.key_data(keys))


def test_aux_has_the_axis_of_examples() -> None:
    """Of a removed example it is 0."""
    p, v, data = made()

    def with_aux(p: Any, v: Any, x: Any, y: Any) -> Any:
        return loss(p, v, x, y), {"label": y, "input": (x, None), "fixed": jnp.ones(2), "big": x > 0}

    vg = per_example.value_and_grad(with_aux, in_axes=AXES, has_aux=True)
    weights = np.array([1, 0, 1, 1])
    (losses, _, aux), _ = jax.jit(vg)(p, v, *data)
    (_, _, some), _ = jax.jit(functools.partial(vg, weights=weights))(p, v, *data)
    np.testing.assert_array_equal(aux["input"][0], np.asarray(data[0], np.float32))
    np.testing.assert_array_equal(aux["label"], data[1])
    assert aux["fixed"].tolist() == [[1.0, 1.0]] * N
    assert some["fixed"].tolist() == [[float(w)] * 2 for w in weights]
    assert aux["big"].dtype == some["big"].dtype == bool
    np.testing.assert_allclose(losses, jax.vmap(loss, AXES)(p, v, *data), rtol=1e-6)


def test_frozen_parameters_are_none_in_results() -> None:
    with float64():
        p, v, data = made()
        direction = ({"w": np.ones((3, 5)), "b": None}, np.ones((5, 2)))
        vg = per_example.value_and_grad(
            loss, {"n": SqNorms(by="parameter"), "s": SecondMoment(), "d": Directional(direction)}, argnums=(0, 1),
            in_axes=AXES, trainable=({"w": True, "b": False}, True),
        )  # fmt: skip
        each = jax.vmap(jax.grad(loss, (0, 1)), AXES)
        ((_, found), grads), g = jax.jit(lambda *args: (vg(*args), each(*args)))(p, v, *data)
        kept = flat((g[0]["w"], g[1]))
        assert grads[0]["b"] is None
        assert found["s"][0]["b"] is None
        assert sorted(found["n"]) == ["[0]['w']", "[1]"]
        assert gap(found["d"], kept.sum(1)) <= EXACT
        assert gap(vector(grads), kept.sum(0)) <= EXACT
        assert gap(sum(map(np.asarray, found["n"].values())), (kept**2).sum(1)) <= EXACT


def test_none_among_the_parameters_is_passed_on() -> None:
    p, v, data = made()

    def f(p: Any, x: Any, y: Any) -> Any:
        assert p["none"] is None
        return loss(p["some"], v, x, y)

    (_, found), grads = jax.eval_shape(per_example.value_and_grad(f, SecondMoment()), {"some": p, "none": None}, *data)
    assert found["none"] is grads["none"] is None


def removing(name: str, bad: float, weights: Any) -> float:
    """How far a pass with removed rows of `bad` is from one over the other rows alone, all statistics at once."""
    with float64():
        case = make(name)
        weights = np.asarray(weights, np.float64)
        direction = jax.tree.map(np.ones_like, case.params)
        statistics = {
            "n": SqNorms(), "p": SqNorms(by="parameter"), "m": Margin(), "d": Directional(direction),
            "r": Projection(jax.random.key(0), 4), "s": SecondMoment(),
        }  # fmt: skip
        vg = per_example.value_and_grad(case.loss, statistics)
        there = weights != 0
        x = np.asarray(case.data[0]).copy()
        x[~there] = bad
        spoilt = (x, *case.data[1:])
        few = [np.asarray(d)[there] for d in case.data]
        ((losses, found), grads), ((want_losses, want), want_grads) = jax.jit(
            lambda p: (vg(p, *spoilt, weights=weights), vg(p, *few, weights=weights[there]))
        )(case.params)
        rows, sums = ({k: t[k] for k in t if k != "s"} for t in (found, want)), (found["s"], want["s"])
        got, expected = ((losses, next(rows)), (want_losses, next(rows)))
        for leaf in jax.tree.leaves(got):
            assert not np.any(np.asarray(leaf)[~there]), "what is removed counts 0"
        pairs = zip(jax.tree.leaves(got), jax.tree.leaves(expected), strict=True)
        gaps = [gap(np.asarray(a)[there], b) for a, b in pairs]
        return float(np.max([*gaps, gap(vector(sums[0]), vector(sums[1])), gap(vector(grads), vector(want_grads))]))


@pytest.mark.parametrize(
    ("name", "bad", "weights"),
    [
        ("mlp", np.nan, [0, 1, 2, 0, -1]),
        *(
            pytest.param(name, bad, weights, marks=pytest.mark.slow)
            for name, bad, weights in [
                ("mlp", np.inf, [1, 1, 1, 1, 0]),
                ("scanned_blocks", np.nan, [0, 0, 0.5, 0, 0]),
                ("fallbacks", -np.inf, [0, 1, 2, 0, -1]),
                ("rnn", np.nan, [0, 1, 2, 0, -1]),
            ]
        ),
    ],
)
def test_rows_of_weight_0_are_removed_exactly(name: str, bad: float, weights: Any) -> None:
    assert removing(name, bad, weights) <= EXACT


@pytest.mark.parametrize(
    "name", ["mlp", *(pytest.param(n, marks=pytest.mark.slow) for n in ("fallbacks", "scanned_blocks"))]
)
def test_all_rows_removed(name: str) -> None:
    with float64():
        case = make(name)
        x = np.full_like(case.data[0], np.nan)
        vg = per_example.value_and_grad(
            case.loss, (SqNorms(), SecondMoment(), Projection(jax.random.key(0), 3), Margin())
        )
        found = jax.jit(lambda p, w: vg(p, x, *case.data[1:], weights=w))(case.params, np.zeros(len(x)))
    assert not np.any(vector(found))


@pytest.mark.parametrize("dtype", ["bool", "uint8", "int32"])
def test_integer_data_may_be_removed(dtype: str) -> None:
    x = np.array([[1, 0, 1], [1, 1, 1], [0, 0, 1], [1, 0, 0]]).astype(dtype)
    vg = per_example.value_and_grad(lambda w, x: jnp.vdot(w, x.astype(jnp.float32)))
    (_, found), total = jax.jit(vg)(np.ones(3, np.float32), x, weights=np.array([0, 1, 2, True]))
    assert found.tolist() == [0.0, 3.0, 4.0, 1.0]
    assert total.tolist() == [2.0, 1.0, 3.0]


def test_weights_may_be_traced_and_of_other_dtypes() -> None:
    p, v, data = made()
    vg = jax.jit(per_example.value_and_grad(loss, in_axes=AXES))
    want = vg(p, v, *data, weights=np.array([1.0, 0.0, 2.0, 1.0], np.float32))
    for weights in ([1, 0, 2, 1], jnp.array([1, 0, 2, 1], jnp.bfloat16)):
        assert gap(vector(vg(p, v, *data, weights=jnp.asarray(weights))), vector(want)) < 1e-6
    assert not np.any(vector(vg(p, v, *data, weights=np.array([True, False, True, True])))[0] - vector(want)[0])
    squares = vg(p, v, *data, weights=np.array([np.nan, 0, 1, 1], np.float32))[0][1]
    assert np.isnan(squares[0])
    assert np.isfinite(squares[1:]).all()


@pytest.mark.slow
@pytest.mark.parametrize(
    "statistics", [(), None, SqNorms(), [SqNorms(), SqNorms()], {"a": (SqNorms(), {"b": Margin()})}]
)
def test_statistics_in_any_pytree(statistics: Any) -> None:
    p, v, data = made()
    (_, found), _ = jax.eval_shape(per_example.value_and_grad(loss, statistics, in_axes=AXES), p, v, *data)
    is_leaf = lambda x: isinstance(x, per_example.Statistic)  # noqa: E731
    assert jax.tree.structure(found) == jax.tree.structure(statistics, is_leaf=is_leaf)
