"""Losses of one example that are hard to stream: what is ahead of loops, slices that meet again, no dependence on the
example. Those of libraries and of random programs are in tests/per_example/recording."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from tests.per_example.recording.losses import Drawn, Made

N = 5

Loss = Callable[[Any, Any], Any]


def layer(h: Any, w: Any) -> tuple[Any, None]:
    return jnp.tanh(h @ w), None


def scanned(layer: Any, h: Any, ws: Any, **settings: Any) -> Any:
    return jnp.sum(lax.scan(layer, h, ws, **settings)[0])


def _ahead_of_a_loop(p: Any, x: Any) -> Any:
    """Constant factors, a transposition and two reversals of the stack, and a factor of the slice."""
    ws = (p["three"] * 0.5).transpose(0, 2, 1)[::-1, :, ::-1]
    return scanned(lambda h, w: layer(h, 2.0 * w), x, ws)


def _loops_in_loops(p: Any, x: Any) -> Any:
    """Factors ahead of both loops, rematerialized bodies, one loop reversed."""

    def inner(h: Any, w: Any) -> Any:
        return jnp.tanh(h @ (w * 0.7).T), None

    @jax.checkpoint
    def outer(h: Any, ws: Any) -> Any:
        return lax.scan(jax.checkpoint(inner), h, -ws, reverse=True)[0], None

    return scanned(outer, x, (4.0 * p["four"]).reshape(2, 2, 4, 4))


def _loop_of_a_shared_slice(p: Any, x: Any) -> Any:
    return scanned(lambda h, w: (lax.scan(lambda h, _: layer(h, w), h, None, length=2)[0], None), x, p["three"])


def _loop_in_a_loop_that_shares(p: Any, x: Any) -> Any:
    return scanned(lambda h, _: (lax.scan(layer, h, p["three"])[0], None), x, None, length=2)


def _two_loops(first: slice, second: slice) -> Loss:
    return lambda p, x: scanned(layer, lax.scan(layer, x, p["four"][first])[0], p["four"][second])


def _slices_in_the_body(second: slice) -> Loss:
    return lambda p, x: scanned(lambda h, w: (jnp.tanh(h @ w[:, :4] + h @ w[:, second]), None), x, p["wide"])


def _policy(p: Any, x: Any) -> Any:
    block = jax.checkpoint(lambda h, w: jnp.tanh(h @ w), policy=jax.checkpoint_policies.dots_saveable)
    return jnp.sum(block(block(x, p["w"]), p["v"]))


def _own_derivative(p: Any, x: Any) -> Any:
    @jax.custom_vjp
    def f(h: Any, w: Any) -> Any:
        return h @ w

    f.defvjp(lambda h, w: (h @ w, (h, w)), lambda kept, g: (2 * g @ kept[1].T, 3 * jnp.outer(kept[0], g)))
    return jnp.sum(jnp.tanh(f(jnp.tanh(x @ p["v"]), p["w"])))


def _jit_called_twice(second: str) -> Loss:
    @jax.jit
    def f(h: Any, w: Any) -> Any:
        return jnp.tanh(h @ w)

    return lambda p, x: jnp.sum(f(f(x, p["w"]), p[second]))


def _positions_in_a_loop(p: Any, x: Any) -> Any:
    return scanned(lambda h, t: (jnp.tanh(h + t), None), x, p["positions"][jnp.arange(3)])


HARD: dict[str, Loss] = {
    "factor ahead of a loop": lambda p, x: scanned(layer, x, -3.0 * p["three"]),
    "views ahead of a loop": _ahead_of_a_loop,
    "loops in loops": _loops_in_loops,
    "loop of a shared slice": _loop_of_a_shared_slice,
    "loop in a loop that shares": _loop_in_a_loop_that_shares,
    "stack concatenated with itself": lambda p, x: scanned(layer, x, jnp.concatenate([p["three"], p["three"]])),
    "stacks concatenated": lambda p, x: scanned(layer, x, jnp.concatenate([p["three"], p["four"]])),
    "halves of a stack in two loops": _two_loops(slice(2), slice(2, 4)),
    "overlapping parts of a stack in two loops": _two_loops(slice(3), slice(2, 4)),
    "a slice outside, the others in a loop": lambda p, x: scanned(layer, jnp.tanh(x @ p["four"][0]), p["four"][1:]),
    "slices in the body": _slices_in_the_body(slice(4, 8)),
    "overlapping slices in the body": _slices_in_the_body(slice(3, 7)),
    "twice in the body": lambda p, x: scanned(lambda h, w: (jnp.tanh(h @ w) @ w, None), x, p["three"]),
    "constant and slice in one body": lambda p, x: scanned(
        lambda h, w: (jnp.tanh(h @ w + h @ p["w"]), None), x, p["three"]
    ),
    "broadcast ahead of a loop": lambda p, x: scanned(layer, x, jnp.broadcast_to(p["w"], (3, 4, 4))),
    "biases broadcast ahead of a loop": lambda p, x: scanned(
        lambda h, b: (jnp.tanh(h + b), None), x, jnp.broadcast_to(p["w"][0], (3, 4))
    ),
    "slices that leave the loop": lambda p, x: jnp.sum(
        jnp.tanh(x @ lax.scan(lambda h, w: (h, w), x, p["three"])[1][0])
    ),
    "no iteration": lambda p, x: scanned(layer, x, p["none"]) + jnp.sum(jnp.tanh(x @ p["w"])),
    "one iteration": lambda p, x: scanned(layer, x, p["three"][:1]),
    "unrolled": lambda p, x: scanned(layer, x, p["four"], unroll=2),
    "map": lambda p, x: jnp.sum(lax.map(lambda w: jnp.tanh(x @ w).sum(), p["four"], batch_size=2)),
    "biases of a loop": lambda p, x: scanned(lambda h, b: (jnp.tanh(h + b), None), x, p["three"][:, 0]),
    "vmap over a stack": lambda p, x: jnp.sum(jax.vmap(lambda w: jnp.tanh(x @ w).sum())(p["four"])),
    "halves that are concatenated again": lambda p, x: jnp.sum(
        jnp.tanh(x @ jnp.concatenate([p["w"][:2], 3.0 * p["w"][2:]]))
    ),
    "positions": lambda p, x: jnp.sum(jnp.tanh(x[None] * jnp.ones((3, 1)) + p["positions"][jnp.arange(3)]) @ p["v"]),
    "positions in a loop": _positions_in_a_loop,
    "no dependence on the example": lambda p, x: jnp.sum(jnp.tanh(jnp.ones(4) @ p["w"])) + jnp.sum(x @ p["v"]),
    "the loss itself": lambda p, x: p["number"],
    "jit called twice": _jit_called_twice("v"),
    "jit called twice, tied": _jit_called_twice("w"),
    "policy": _policy,
    "stop_gradient": lambda p, x: jnp.sum(jnp.tanh(x @ p["v"]) + lax.stop_gradient(x @ p["v"]) @ p["w"]),
    "used without a derivative": lambda p, x: jnp.sum(jnp.tanh(x @ p["w"])) * (1.0 + jnp.argmax(p["w"])),
    "gradient inside": lambda p, x: jnp.sum(jax.grad(lambda x: jnp.sum(jnp.sin(x @ p["w"]) ** 2))(x) ** 2),
    "branches over data": lambda p, x: lax.cond(x[0] > 0, lambda h: jnp.sum(jnp.tanh(h @ p["w"])), jnp.sum, x @ p["v"]),
    "solve": lambda p, x: jnp.sum(jnp.linalg.solve(p["w"] + 4 * jnp.eye(4), x @ p["v"])),
    "exp of a parameter": lambda p, x: jnp.sum(x @ jnp.exp(p["w"])) ** 2 + jnp.sum(x @ p["v"]),
    "own derivative": _own_derivative,
}
"""Each of (params, x (4,)), with parameters that it does not use."""

QUICK = ("views ahead of a loop", "loops in loops", "twice in the body", "positions", "positions in a loop")


def hard(name: str, n: int = N) -> Made:
    """In float64."""
    r = Drawn(3)
    params = {
        "three": r(3, 4, 4), "four": r(4, 4, 4), "wide": r(2, 4, 8), "none": np.zeros((0, 4, 4)), "w": r(4, 4),
        "v": r(4, 4), "positions": r(6, 4), "number": r(),
    }  # fmt: skip
    return Made(HARD[name], params, (r(n, 4),))
