"""Random projections: linear, the same for every batch, unbiased, of k numbers in all."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

from jaxnn.per_example import Projection, SqNorms, value_and_grad
from jaxnn.per_example.streaming.projections import apportioned, sides
from tests.helpers import float64, random
from tests.per_example.cases import flat, gap
from tests.per_example.recording.losses import Drawn, make
from tests.per_example.streaming.losses import layer, scanned

Loss = Callable[[Any, Any], Any]


def _nested(p: Any, x: Any) -> Any:
    return scanned(lambda h, ws: (lax.scan(layer, h, ws)[0], None), x, p["w"])


def _conv(p: Any, x: Any) -> Any:
    numbers = ("NWC", "WIO", "NWC")
    h = lax.conv_general_dilated(x.reshape(1, 2, 2), p["w"], (1,), "SAME", dimension_numbers=numbers)
    return jnp.sum(jnp.tanh(h) ** 2)


def _rows(x: Any) -> Any:
    return jnp.clip(jnp.floor(3 + 2 * x), 0, 4).astype(jnp.int32)


CASES: dict[str, tuple[dict[str, tuple[int, ...]], Loss]] = {
    "mlp": (
        {"w": (4, 3), "b": (3,), "v": (3, 2)},
        lambda p, x: jnp.sum((jnp.tanh(x @ p["w"] + p["b"]) @ p["v"] - 1) ** 2),
    ),
    "slices that are concatenated again": (
        {"w": (4, 3)},
        lambda p, x: jnp.sum(jnp.tanh(x @ jnp.concatenate([p["w"][:2], p["w"][2:]])) ** 2),
    ),
    "two uses of slices": (
        {"w": (4, 4)},
        lambda p, x: jnp.sum(jnp.tanh(x @ p["w"][:, :2]) * jnp.sin(x @ p["w"][:, 2:])),
    ),
    "slices of a loop": ({"w": (3, 4, 4)}, lambda p, x: scanned(layer, x, -2 * p["w"].transpose(0, 2, 1))),
    "loops in loops": ({"w": (2, 2, 4, 4)}, _nested),
    "tied": ({"w": (4, 3)}, lambda p, x: jnp.sum((jnp.tanh(x @ p["w"]) @ p["w"].T - x) ** 2)),
    "small parameters": (
        {"b": (4,), "s": (4,), "t": ()},
        lambda p, x: jnp.sum(jnp.tanh(x + p["b"]) * x * p["s"]) + jnp.sum(x) ** 2 * p["t"],
    ),
    "convolution": ({"w": (2, 2, 3)}, _conv),
    "lookup": ({"w": (5, 3)}, lambda p, x: jnp.sum(jnp.tanh(p["w"][_rows(x)]) * x[:, None])),
    "lookup and product": (
        {"w": (5, 3)},
        lambda p, x: jnp.sum(jnp.tanh(p["w"][_rows(x)] * x[:, None] @ p["w"].T)),
    ),
    "fallback": ({"w": (4, 3)}, lambda p, x: jnp.sum(x @ jnp.exp(p["w"]) * jnp.sort(p["w"])[0])),
}
KEYS, K = 2000, 3


def _made(name: str) -> tuple[Any, Loss]:
    shapes, loss = CASES[name]
    r = Drawn(3)
    return {path: r(*shape) for path, shape in shapes.items()}, loss


def bias(name: str) -> float:
    """How far the mean of <P'g, P'h> over keys is from <g, h>, in standard errors: the largest of all pairs."""
    with float64():
        params, loss = _made(name)
        x = random(5, 5, 4)

        @jax.jit
        def both(keys: Any) -> Any:
            projected = jax.vmap(lambda key: value_and_grad(loss, Projection(key, K))(params, x)[0][1])(keys)
            return projected, jax.vmap(jax.grad(loss), (None, 0))(params, x)

        projected, grads = both(jax.random.split(jax.random.key(0), KEYS))
        g, found = flat(grads), np.asarray(projected)
    products = np.einsum("knp,kmp->knm", found, found)
    errors = np.abs(products.mean(0) - g @ g.T)
    return float(np.max(errors / (products.std(0) / KEYS**0.5 + 1e-12)))


QUICK = ("slices that are concatenated again",)


@pytest.mark.parametrize("name", [n if n in QUICK else pytest.param(n, marks=pytest.mark.slow) for n in CASES])
def test_inner_products_are_unbiased(name: str) -> None:
    """Over 2,000 keys, within 4.5 standard errors for each of 15 pairs. A matrix shared by two slices is caught."""
    assert bias(name) < 4.5


@pytest.mark.parametrize("name", ["mlp", *(pytest.param(n, marks=pytest.mark.slow) for n in CASES if n != "mlp")])
def test_they_are_one_linear_map_for_every_batch(name: str) -> None:
    """P from the projections of one batch gives those of another, of another size, by g P."""
    with float64():
        params, loss = _made(name)
        size = sum(np.size(p) for p in params.values())
        train, test = random(5, size + 10, 4), random(6, 7, 4)
        vg = value_and_grad(loss, Projection(jax.random.key(1), K))

        @jax.jit
        def both(x: Any) -> Any:
            return vg(params, x)[0][1], jax.vmap(jax.grad(loss), (None, 0))(params, x)

        (a, g), (b, h) = both(train), both(test)
        matrix = np.linalg.lstsq(flat(g), np.asarray(a), rcond=1e-9)[0]
        assert a.shape == (len(train), K)
        assert gap(flat(g) @ matrix, a) < 1e-8
        assert gap(flat(h) @ matrix, b) < 1e-6


@pytest.mark.parametrize("k", [1, 7, 20])
def test_k_numbers_in_all(k: int) -> None:
    """Less than one number for each parameter, or more than some have entries, up to all entries."""
    params, loss = _made("mlp")
    shape = jax.eval_shape(
        lambda x: value_and_grad(loss, Projection(jax.random.key(0), k))(params, x)[0][1], np.ones((3, 4))
    )
    assert shape.shape == (3, k)


def test_as_many_as_there_are_entries() -> None:
    params, loss = _made("mlp")
    f = jax.jit(lambda x: value_and_grad(loss, Projection(jax.random.key(0), 21))(params, x)[0][1])
    assert np.isfinite(f(np.ones((3, 4), np.float32))).all()
    assert f(np.ones((3, 4), np.float32)).shape == (3, 21)


def test_numbers_of_each_parameter() -> None:
    params, loss = _made("mlp")
    f = value_and_grad(loss, Projection(jax.random.key(0), per_layer=(2, 2)))
    found = jax.eval_shape(lambda x: f(params, x)[0][1], np.ones((5, 4), np.float32))
    assert {path: x.shape for path, x in found.items()} == {"['b']": (5, 3), "['v']": (5, 4), "['w']": (5, 4)}


def test_the_same_key_gives_the_same_numbers_and_another_key_others() -> None:
    """Under jit and without, with other statistics beside it, and with a traced key."""
    params, loss = _made("mlp")
    x = np.asarray(Drawn(5)(4, 4), np.float32)
    params = jax.tree.map(lambda p: np.asarray(p, np.float32), params)
    alone = jax.jit(lambda key, x: value_and_grad(loss, Projection(key, 5))(params, x)[0][1])
    beside = jax.jit(lambda x: value_and_grad(loss, (SqNorms(), Projection(jax.random.key(1), 5)))(params, x)[0][1][1])
    first = alone(jax.random.key(1), x)
    np.testing.assert_allclose(beside(x), first, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(alone(jax.random.key(1), x[::-1]), first[::-1], rtol=1e-5, atol=1e-6)
    assert gap(alone(jax.random.key(2), x), first) > 0.1


@pytest.mark.slow
def test_nearest_gradients_stay_nearest() -> None:
    """Cosines of 40 projected numbers of 51 rank examples nearly as those of the gradients."""
    with float64():
        made = make("mlp", 20)
        vg = value_and_grad(made.loss, Projection(jax.random.key(3), 40))
        found = np.asarray(jax.jit(vg)(made.params, *made.data)[0][1])
        g = flat(jax.jit(jax.vmap(jax.grad(made.loss), (None, 0, 0)))(made.params, *made.data))
    cosines = [a @ a.T / np.outer(*[np.linalg.norm(a, axis=1)] * 2) for a in (found, g)]
    off = ~np.eye(20, dtype=bool)
    assert np.corrcoef(*(c[off] for c in cosines))[0, 1] > 0.8


def test_numbers_are_split_by_size() -> None:
    assert apportioned(10, [70, 20, 10]) == [7, 2, 1]
    assert apportioned(1, [3, 3, 3]) == [1, 0, 0]
    assert sum(apportioned(17, [5, 0, 13, 1])) == 17
    for count in range(1, 13):
        k1, k2 = sides(count, 3, 4)
        assert k1 * k2 >= count
        assert k1 <= 3
        assert k2 <= 4
