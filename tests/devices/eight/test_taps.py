"""Losses with taps of every shape, sharded over 8 devices, against vmap(grad) on one."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax
from jax.sharding import AxisType, NamedSharding
from jax.sharding import PartitionSpec as P

from jaxnn import per_example
from tests.backprop.checking import relative
from tests.devices.eight.test_tape import EXACT, mesh
from tests.helpers import float64, slow
from tests.per_example.recording.losses import Drawn, doubled_rounding

N, BOUND = 16, 0.5

Loss = Callable[[Any, Any], Any]


def rows(w: Any, i: Any) -> Any:
    """w[i], on any mesh."""
    return w.at[i].get(out_sharding=P()) if jax.sharding.get_abstract_mesh().explicit_axes else w[i]


def unrolled(p: Any, x: Any) -> Any:
    """A loop over numbers inside one over vectors."""

    def outer(h: Any, w: Any) -> Any:
        return lax.scan(lambda g, t: (jnp.sin(g * p["s"] + t * (x @ w)), None), h, p["t"])[0], x @ w

    last, each = lax.scan(outer, x[0], p["w"])
    return last + jnp.sum(each**2)


def cases() -> dict[str, tuple[Loss, Any, Any]]:
    """Loss, parameters and examples; the comments are the shapes of the taps of one example."""
    r = Drawn(0)
    x, words = r(N, 4), r.integers(7, N, 3)
    return {
        "vector": (lambda w, x: jnp.dot(x, w), r(4), x),  # ()
        "inner product": (lambda w, x: jnp.vdot(x, w) ** 2, r(4), x),  # ()
        "regression": (lambda p, x: (x[1:] @ p["w"] + p["b"] - x[0]) ** 2, {"w": r(3), "b": r()}, x),  # (), ()
        "two layers": (lambda p, x: jnp.tanh(x @ p["w"]) @ p["v"], {"w": r(4, 3), "v": r(3)}, x),  # (3,), ()
        "matrix": (lambda w, x: jnp.sum(jnp.sin(jnp.outer(x, x) @ w)), r(4, 3), x),  # (4, 3)
        "no entry": (lambda p, x: jnp.sum(x @ p["e"]) + x @ p["w"], {"e": r(4, 0), "w": r(4)}, x),  # (0,), ()
        "loops": (unrolled, {"w": r(3, 4), "s": r(), "t": r(2)}, x),  # (3,), (3, 2)
        "lookups": (
            lambda p, t: jnp.sum(rows(p["e"], t) @ p["v"]) + rows(p["s"], t[:1])[0] ** 2,
            {"e": r(7, 4), "v": r(4), "s": r(7)},
            words,
        ),  # (3, 4), (3,), (1,)
        "branches": (
            lambda p, x: p["s"] * lax.cond(x[0] > 0, lambda w: x @ w, lambda w: -2 * (x @ w), p["w"]),
            {"w": r(4), "s": r()},
            x,
        ),  # (4,) of the parameter, ()
        "own derivative": (lambda p, x: x @ doubled_rounding(3 * p["w"]) + p["s"] * x[0], {"w": r(4), "s": r()}, x),
        "several uses": (lambda w, x: (x @ w) ** 2 + jnp.sum(w * x) + jnp.sin(w)[0] * x[1], r(4), x),
        "integers": (lambda p, x: x[0] * p[0] + jnp.sum(x * p) ** 2, r(3), words),
    }


def statistics(tape: Any) -> dict[str, Any]:
    return {
        "norms": per_example.norms(tape),
        "clipped": per_example.clipped_grad(tape, BOUND)[0],
        "variance": per_example.variance(tape),
        "gram": per_example.gram(tape),
    }


def by_vmap(loss: Loss, params: Any, x: Any) -> dict[str, Any]:
    """The same of all gradients."""
    grads = jax.vmap(jax.grad(loss), (None, 0))(params, x)
    flat = jnp.concatenate([g.reshape(N, -1) for g in jax.tree.leaves(grads)], axis=1)
    norms = jnp.linalg.norm(flat, axis=1)
    factors = jnp.minimum(1, BOUND / norms)
    return {
        "norms": norms,
        "clipped": jax.tree.map(lambda g: jnp.tensordot(factors, g, 1), grads),
        "variance": jax.tree.map(lambda g: jnp.var(g, axis=0), grads),
        "gram": flat @ flat.T,
    }


QUICK = ("regression", "two layers", "lookups")
MESHES: list[Any] = [
    (AxisType.Explicit, (8,), "data", QUICK),
    *slow(
        (AxisType.Explicit, (8,), "data", ()),
        (AxisType.Auto, (8,), "data", ()),
        (AxisType.Explicit, (4, 2), "data", ()),
        (AxisType.Explicit, (4, 2), ("data", "model"), ()),
    ),
]


@pytest.mark.parametrize(("axis", "shape", "over", "names"), MESHES)
def test_taps_of_every_shape(axis: AxisType, shape: tuple[int, ...], over: Any, names: tuple[str, ...]) -> None:
    """All where no names are given; in one program, as hundreds of small ones would wait for each other's devices."""
    with float64():
        some = {name: case for name, case in cases().items() if name in names or not names}
        losses, params, data = ({name: case[i] for name, case in some.items()} for i in range(3))

        def expected(params: Any, data: Any) -> Any:
            return {name: by_vmap(loss, params[name], data[name]) for name, loss in losses.items()}

        def every(params: Any, data: Any) -> Any:
            return {
                name: statistics(per_example.record(loss)(params[name], data[name])) for name, loss in losses.items()
            }

        alone = jax.jit(expected)(params, data)
        where = mesh(axis, shape)
        with jax.set_mesh(where):
            together = jax.jit(every)(params, jax.device_put(data, P(over)))
        wrong = {name: off for name in losses if not (off := relative(together[name], alone[name])) <= EXACT}
        assert not wrong
        if axis is AxisType.Explicit:
            rows = NamedSharding(where, P(over))
            assert all(each["norms"].sharding.is_equivalent_to(rows, 1) for each in together.values())


def test_keys_and_microbatches_stay_with_their_examples() -> None:
    """Keys that are split for each example; the sum of losses, a number that a loop over microbatches carries."""

    def loss(w: Any, x: Any, key: Any) -> Any:
        return (x @ w) ** 2 * jax.random.normal(key)

    clip = per_example.clipped_grad_of(loss, l2_clip_norm=BOUND, keep_batch_dim=False, prng_argnum=2)

    def part(w: Any, x: Any) -> Any:
        tape = per_example.record(lambda w, x: (x @ w) ** 2)(w, x)
        return jnp.sum(tape.losses), per_example.norms(tape)

    def both(w: Any, x: Any, key: Any) -> Any:
        return clip(w, x, key), per_example.over_microbatches(lambda x: part(w, x), (x,), 8)

    with float64():
        rng, key = np.random.default_rng(0), jax.random.key(1)
        w, x = rng.standard_normal(4), rng.standard_normal((N, 4))
        alone = jax.jit(both)(w, x, key)
        with jax.set_mesh(mesh(AxisType.Explicit)):
            together = jax.jit(lambda *a: both(*a))(w, jax.device_put(x, P("data")), key)
        assert relative(together, alone) <= EXACT


def test_a_loop_begun_with_a_number_is_told_how_to_begin() -> None:
    def loss(w: Any, x: Any) -> Any:
        def step(h: Any, v: Any) -> Any:
            return jnp.tanh(h + v * w), None

        return lax.scan(step, 0.0, x)[0]

    w, record = np.float32(1), jax.jit(per_example.record(loss))
    with jax.set_mesh(mesh(AxisType.Explicit)), pytest.raises(ValueError, match="is not found in mesh") as caught:
        record(w, jax.device_put(np.ones((N, 4), np.float32), P("data")))
    assert any("zeros_like(x[0])" in note for note in caught.value.__notes__)
