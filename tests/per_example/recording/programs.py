"""Random losses: a state h (T, D) goes through a list of operations, each with parameters, new or used before.

What hypothesis draws is the list of names and small integers, so that a failure shrinks to the shortest program.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from hypothesis import strategies as st
from jax import lax
from jax.ad_checkpoint import checkpoint_name

from tests.per_example.recording.losses import Drawn, Made, cross_entropy, doubled_rounding

T, D = 3, 4

Op = Callable[[Any, Callable[..., Any], int], Any]
"""(h (T, D), the parameter of a shape, an integer) -> h (T, D)."""


def _grouped(h: Any, w: Any, i: int) -> Any:
    return jnp.einsum("tgd,gde->tge", h.reshape(T, 2, D // 2), w(2, D // 2, D // 2)).reshape(T, D)


def _interleaved(h: Any, w: Any, i: int) -> Any:
    """The contracted axis between the free ones."""
    return jnp.einsum("td,adb->tab", h, w(2, D, D // 2)).reshape(T, D)


def _by_time(h: Any, w: Any, i: int) -> Any:
    """Time as the batch axis of the product."""
    return jnp.einsum("td,tde->te", h, w(T, D, D))


def _conv(h: Any, w: Any, i: int) -> Any:
    groups = 1 + i % 2
    kernel = w(2, D // groups, D)
    return lax.conv_general_dilated(
        h[None], kernel, (1,), [(i % 3, 1 - i % 3 + i % 2)], rhs_dilation=(1 + i % 2,), feature_group_count=groups,
        dimension_numbers=("NWC", "WIO", "NWC"),
    )[0]  # fmt: skip


def _conv_transposed(h: Any, w: Any, i: int) -> Any:
    return lax.conv_general_dilated(
        h.T[None], w(D, D, 2), (2,), [(1, 1)], lhs_dilation=(2,), dimension_numbers=("NCW", "OIW", "NCW")
    )[0].T


def _scan_constant(h: Any, w: Any, i: int) -> Any:
    kernel, bias = w(D, D), w(D)

    def step(carry: Any, x: Any) -> Any:
        carry = jnp.tanh(carry @ kernel + x * bias)
        return carry, carry * bias

    return lax.scan(step, h[0], h, reverse=i % 2 == 1)[1]


def _scan_stacked(h: Any, w: Any, i: int) -> Any:
    layers = w(2, D, D), w(2, D), w(2, D)
    return lax.scan(lambda h, p: (jnp.tanh(h @ p[0] + p[1]) * p[2], None), h, layers)[0]


def _scan_of_scans(h: Any, w: Any, i: int) -> Any:
    stacked, shared = w(2, D, D), w(D, D)

    def outer(h: Any, p: Any) -> Any:
        return lax.fori_loop(0, 2, lambda _, h: jnp.tanh(h @ p @ shared.T), h), None

    return lax.scan(outer, h, stacked)[0]


def _scan_repeated(h: Any, w: Any, i: int) -> Any:
    """A loop over repetitions of a bias and of a scale."""
    repeated = jnp.broadcast_to(w(T, D), (2, T, D)), jnp.broadcast_to(w(1, D), (2, D))
    return lax.scan(lambda h, p: (jnp.tanh(h + p[0]) * p[1], None), h, repeated)[0]


def _embedding(h: Any, w: Any, i: int) -> Any:
    indices = jnp.clip(jnp.floor(3 + 2 * h[:, 0]), 0, 6).astype(jnp.int32)
    return h + w(7, D)[indices] + w(7, D)[indices[0]]


def _norm(h: Any, w: Any, i: int) -> Any:
    h = (h - h.mean(-1, keepdims=True)) * lax.rsqrt(h.var(-1, keepdims=True) + 1)
    return h * w(D) + w(1, D)


def _slope_in_the_input(h: Any, w: Any, i: int) -> Any:
    kernel, scale = w(D, D), w()
    return jax.grad(lambda h: jnp.sum(jnp.sin(scale * h @ kernel) ** 2))(h)


def _branch(h: Any, w: Any, i: int) -> Any:
    return lax.cond(h[0, 0] > 0, lambda p: h @ p, lambda p: 2 * h @ p.T, w(D, D))


def _while(h: Any, w: Any, i: int) -> Any:
    """A loop that no derivative passes: it sees what `stop_gradient` leaves."""
    steps = lax.while_loop(lambda c: c[1] < 2, lambda c: (c[0] @ c[0], c[1] + 1), (lax.stop_gradient(w(D, D)), 0))
    return h + 0.1 * jnp.tanh(steps[0][0])


OPS: dict[str, Op] = {
    "right": lambda h, w, i: h @ w(D, D),
    "left": lambda h, w, i: (w(D, D) @ h.T).T,
    "mix positions": lambda h, w, i: w(T, T) @ h,
    "transposed": lambda h, w, i: h @ w(D, D).T,
    "flipped and cut": lambda h, w, i: h @ w(D, 2 * D)[::-1, i % 2 :: 2],
    "part": lambda h, w, i: h @ lax.dynamic_slice(w(2 * D, D), (i, 0), (D, D)),
    "reshaped": lambda h, w, i: h @ w(D * D).reshape(D, D),
    "scaled": lambda h, w, i: (h @ (-0.5 * w(D, D))) / 2,
    "bias": lambda h, w, i: h - w(D) + w(T, 1),
    "scale": lambda h, w, i: h * w(D) / (2 + jnp.tanh(w(T, D))),
    "one number": lambda h, w, i: h * w() + w(1),
    "norm": _norm,
    "grouped": _grouped,
    "interleaved": _interleaved,
    "by time": _by_time,
    "convolution": _conv,
    "transposed convolution": _conv_transposed,
    "scan, constants": _scan_constant,
    "scan, stacked": _scan_stacked,
    "scan of scans": _scan_of_scans,
    "scan, repeated": _scan_repeated,
    "embedding": _embedding,
    "relu": lambda h, w, i: jax.nn.relu(h - 0.1),
    "tanh": lambda h, w, i: jnp.tanh(h),
    "named": lambda h, w, i: h @ checkpoint_name(w(D, D), "kernel").astype(jnp.float64),
    "slope in the input": _slope_in_the_input,
    "slope": lambda h, w, i: jnp.where(h > 0, h, w() * h),
    "maximum": lambda h, w, i: jnp.maximum(h, w(D)) ** 2 / 4,
    "jit": lambda h, w, i: jax.jit(lambda h, p: jnp.sin(h @ p))(h, w(D, D)),
    "checkpoint": lambda h, w, i: jax.checkpoint(lambda h, p: jnp.sin(h @ p))(h, w(D, D)),
    "vmap": lambda h, w, i: jax.vmap(w(D, D).__matmul__)(h),
    "own derivative": lambda h, w, i: h + doubled_rounding(h @ w(D, D)),
    "while": _while,
    "joined": lambda h, w, i: h @ jnp.concatenate([w(D, 2), w(D, 2)], 1) + jnp.concatenate([w(1), w(D - 1)]),
    "joined inputs": lambda h, w, i: h @ jnp.concatenate([w(1, D), w(D - 1, D)]) * jnp.stack([w(D)] * T),
    # What has no rule:
    "branch": _branch,
    "sorted": lambda h, w, i: h + jnp.sort(w(D)),
    "product of two": lambda h, w, i: h @ (w(D, 2) @ w(2, D)),
    "square": lambda h, w, i: h * w(D) ** 2,
    "own derivative of a parameter": lambda h, w, i: h @ jnp.tanh(doubled_rounding(2 * w(D, D))),
    "joined with data": lambda h, w, i: h @ jnp.concatenate([w(D, 2), h[:2].T], 1),
    "complex": lambda h, w, i: jnp.real(jnp.fft.ifft(jnp.fft.fft(h) * w(D))),
    "cumulative": lambda h, w, i: h * jnp.cumsum(w(D)),
}

PROGRAMS = st.lists(st.tuples(st.sampled_from(sorted(OPS)), st.integers(0, 3), st.booleans()), min_size=1, max_size=5)
"""Names of operations, an integer for each, and whether it takes parameters that were used before."""


def loss_of(program: list[tuple[str, int, bool]], seed: int, n: int) -> Made:
    """The loss of a program, with parameters for it and a batch. Called in float64."""
    shapes: list[tuple[int, ...]] = []

    def forward(take: Callable[[bool, tuple[int, ...]], Any], h: Any) -> Any:
        for name, i, again in program:
            h = OPS[name](h, functools.partial(_asked, take, again), i)
        return h

    def _asked(take: Any, again: bool, *shape: int) -> Any:
        return take(again, shape)

    def counting(again: bool, shape: tuple[int, ...]) -> Any:
        if not (again and shape in shapes):
            shapes.append(shape)
        return jnp.zeros(shape)

    jax.eval_shape(lambda h: forward(counting, h), jax.ShapeDtypeStruct((T, D), jnp.float64))
    r = Drawn(seed)
    params = [*(r(*shape) for shape in shapes), r(T * D, 3)]

    def loss(params: list[Any], x: Any, y: Any) -> Any:
        used: list[tuple[int, ...]] = []

        def take(again: bool, shape: tuple[int, ...]) -> Any:
            if again and shape in used:
                return params[used.index(shape)]
            used.append(shape)
            return params[len(used) - 1]

        return cross_entropy(jnp.tanh(forward(take, x)).reshape(-1) @ params[-1], y)

    return Made(loss, params, (r(n, T, D), r.integers(3, n)))
