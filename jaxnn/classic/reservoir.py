"""The echo-state network: a fixed random recurrent network, the reservoir, and a readout by least squares.

x(t) = (1 - leak) x(t - 1) + leak tanh(x(t - 1) w + u(t) w_in + b), y(t) = (1, x(t)) w_out

Only w_out is trained. Inputs u are (T, D), states x (T, N), in the dtype of the reservoir.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import NamedTuple, TypeAlias

import jax
import jax.numpy as jnp
from jax import lax

from jaxnn.checks import (
    as_array,
    concrete_number,
    require_between,
    require_function,
    require_key,
    require_number,
    require_positive,
    require_positive_int,
)
from jaxnn.classic.neurons import as_rows, require_finite, with_bias
from jaxnn.classic.radial import output_weights
from jaxnn.losses.base import concrete_array
from jaxnn.numerics import accumulate
from jaxnn.types import Array, ArrayLike, Key, Scalar

Activation: TypeAlias = Callable[[Array], Array]


class Reservoir(NamedTuple):
    """Fixed weights: recurrent w (N, N), input w_in (D, N), biases b (N,), and the leak ()."""

    w: Array
    w_in: Array
    b: Array
    leak: Array


def make(
    key: Key,
    inputs: int,
    units: int,
    *,
    radius: Scalar = 0.9,
    density: Scalar = 0.1,
    scale: Scalar = 1.0,
    bias: Scalar = 0.0,
    leak: Scalar = 1.0,
) -> Reservoir:
    """A random reservoir: sparse normal weights scaled to a spectral radius, uniform input weights and biases.

    It has the echo-state property, to forget x(0), if the largest singular value of w is below 1. A spectral radius
    below 1 is usually enough; beyond 1 the state 0 is unstable without input (leak 1, b = 0).

    Args:
        key: typed key.
        inputs: D.
        units: N.
        radius: the spectral radius of w, > 0.
        density: the probability that a weight of w is not 0, in [0, 1].
        scale: half the width of the uniform distribution of w_in.
        bias: that of b.
        leak: in [0, 1]; 1 for no memory of a unit but through w.

    Raises:
        ValueError: a setting is out of range, or w has the spectral radius 0, as a small or sparse one may: no factor
            changes that (under `jit` w is NaN then).

    Reference: Jaeger, H. (2001). The "echo state" approach to analysing and training recurrent neural networks.

    Example:
        >>> jax.eval_shape(lambda key: make(key, 1, 50), jax.random.key(0)).w.shape
        (50, 50)
    """
    require_key("reservoir.make", key)
    require_positive("reservoir.make", "radius", radius)
    for name, value in (("density", density), ("leak", leak)):
        require_between("reservoir.make", name, value, 0, 1)
    for name, value in (("scale", scale), ("bias", bias)):
        require_number("reservoir.make", name, value)
    d, n = (require_positive_int("reservoir.make", "inputs or units", size) for size in (inputs, units))
    keys = jax.random.split(key, 4)
    w = jnp.where(
        jax.random.bernoulli(keys[0], jnp.asarray(density, float), (n, n)), jax.random.normal(keys[1], (n, n)), 0
    )
    w_in, b = (jax.random.uniform(key, shape, minval=-1.0) for key, shape in ((keys[2], (d, n)), (keys[3], (n,))))
    size, scale, bias, leak = (jnp.asarray(value, w.dtype) for value in (radius, scale, bias, leak))
    found = spectral_radius(w)
    if concrete_number(found) == 0:
        raise ValueError(
            f"reservoir.make: the random w ({n}, {n}) has the spectral radius 0 with this key, so that none can be "
            "given to it. Take more units, a higher density or another key."
        )
    return Reservoir(w * (size / found), scale * w_in, bias * b, leak)


def spectral_radius(w: ArrayLike, *, squarings: int = 20) -> Array:
    """The largest absolute value of an eigenvalue of w (N, N): the limit of |w^n|^(1/n), n = 2^`squarings`.

    Unlike general eigenvalues it runs on every device.

    Reference: Gelfand, I. (1941). Normierte Ringe.

    Example:
        >>> spectral_radius(jnp.array([[0.0, 2.0], [-2.0, 0.0]])).round(3)  # eigenvalues 2i and -2i
        Array(2., dtype=float32)
    """

    w = accumulate(as_array("reservoir.spectral_radius", "w", w))
    if w.ndim != 2 or w.shape[0] != w.shape[1]:
        raise ValueError(f"reservoir.spectral_radius: w must be square, (N, N), got {w.shape}.")
    squarings = require_positive_int("reservoir.spectral_radius", "squarings", squarings, 0)
    largest = jnp.max(jnp.abs(w), initial=0)
    w = w / jnp.where(largest > 0, largest, 1)  # the squares of its entries might overflow

    def square(carry: tuple[Array, Array], share: Array) -> tuple[tuple[Array, Array], None]:
        power, log = carry
        size = jnp.linalg.norm(power)
        power = power / jnp.where(size > 0, size, 1)  # powers of a nilpotent w reach 0
        return (jnp.matmul(power, power, precision="highest"), log + share * jnp.log(size)), None

    shares = 0.5 ** jnp.arange(squarings + 1, dtype=w.dtype)
    return largest * jnp.exp(lax.scan(square, (w, jnp.zeros((), w.dtype)), shares)[0][1])


def states(
    reservoir: Reservoir, u: ArrayLike, *, start: ArrayLike | None = None, activation: Activation = jnp.tanh
) -> Array:
    """The states x(1), .., x(T), (T, N), driven by inputs u (T, D) from x(0) = `start` (N,), by default 0.

    Another element-wise `activation` takes the place of tanh.

    Example:
        >>> line = Reservoir(jnp.eye(3, k=1), jnp.eye(1, 3), jnp.zeros(3), jnp.ones(()))  # a delay line
        >>> states(line, [[1.0], [2.0], [3.0]], activation=lambda z: z)[-1]
        Array([3., 2., 1.], dtype=float32)
    """
    require_function("reservoir.states", "activation", activation, "jnp.tanh", optional=False)
    rows = as_rows("reservoir.states", "u", u).astype(reservoir.w.dtype)
    first = jnp.zeros_like(reservoir.b) if start is None else as_array("reservoir.states", "start", start)
    if rows.shape[1:] != reservoir.w_in.shape[:1] or first.shape != reservoir.b.shape:
        raise ValueError(
            f"reservoir.states: expected u (T, {reservoir.w_in.shape[0]}) and start {reservoir.b.shape}, got "
            f"{rows.shape} and {first.shape}."
        )
    first = first.astype(rows.dtype)
    return _states(reservoir, rows, first, activation)


@functools.partial(jax.jit, static_argnames="activation")
def _states(reservoir: Reservoir, u: Array, start: Array, activation: Activation) -> Array:
    return lax.scan(lambda x, u: (advance(reservoir, x, u, activation),) * 2, start, u)[1]


def advance(reservoir: Reservoir, x: Array, u: Array, activation: Activation = jnp.tanh) -> Array:
    """One step: x(t) (N,) from x(t - 1) (N,) and u(t) (D,)."""
    w, w_in, b, leak = reservoir
    z = jnp.matmul(x, w, precision="highest") + jnp.matmul(u, w_in, precision="highest") + b
    return (1 - leak) * x + leak * activation(z)


def readout(x: ArrayLike, y: ArrayLike, *, penalty: Scalar = 0.0) -> Array:
    """w_out (N + 1, K) of states (T, N) and targets (T, K) by `radial.output_weights`; the bias is not penalized.

    The first states depend on x(0): omit them.

    Example:
        >>> readout([[0.0], [1.0], [2.0]], [[1.0], [3.0], [5.0]]).round(2).tolist()
        [[1.0], [2.0]]
    """
    return output_weights(with_bias(x), y, penalty=penalty)


@functools.partial(jax.jit, static_argnames="steps")
def generate(reservoir: Reservoir, w_out: Array, x: Array, *, steps: int) -> Array:
    """The network on its own, with each output as the next input: u(t + 1) = y(t).

    Args:
        w_out: (N + 1, D), a readout trained on the next input.
        x: the last state (N,) with the true inputs.
        steps: T.

    Returns:
        The outputs y, (T, D), the first of them from x.

    Reference: Jaeger, H. & Haas, H. (2004). Harnessing nonlinearity: predicting chaotic systems and saving energy in
        wireless communication.

    Example:
        >>> counter = Reservoir(jnp.zeros((1, 1)), jnp.array([[0.5]]), jnp.zeros(1), jnp.ones(()))
        >>> generate(counter, jnp.array([[0.0], [1.0]]), jnp.array([0.0]), steps=2).shape
        (2, 1)
    """

    steps = require_positive_int("reservoir.generate", "steps", steps)
    d, n = reservoir.w_in.shape
    if w_out.shape != (n + 1, d) or x.shape != (n,):
        raise ValueError(
            f"reservoir.generate: expected w_out {(n + 1, d)} and x {(n,)}, got {w_out.shape} and {x.shape}."
        )

    def step(x: Array, _: None) -> tuple[Array, Array]:
        y = jnp.matmul(with_bias(x), w_out, precision="highest")
        return advance(reservoir, x, y), y

    return lax.scan(step, x, length=steps)[1]


def memory(x: ArrayLike, u: ArrayLike, *, delays: int) -> Array:
    """The memory function: r^2 of u(t - k) with its best linear reconstruction from x(t), k = 0 .. delays - 1.

    The sum over all k >= 0, the memory capacity, is at most N for independent inputs.

    Args:
        x: states (T, N), T much larger than N.
        u: inputs (T,) of these states.
        delays: K < T.

    Returns:
        (K,), each in [0, 1]. In a sample r^2 is too large by about N / T.

    Raises:
        ValueError: shapes do not match, or concrete values are not finite, or u is constant.

    Reference: Jaeger, H. (2001). Short term memory in echo state networks.

    Example:
        >>> u = jax.random.normal(jax.random.key(0), (200,))
        >>> memory(jnp.stack([u, jnp.roll(u, 1)], axis=1), u, delays=3).round(1)
        Array([1., 1., 0.], dtype=float32)
    """
    rows = as_rows("reservoir.memory", "x", x)
    inputs, n = jnp.asarray(u, rows.dtype), require_positive_int("reservoir.memory", "delays", delays)
    if inputs.shape != rows.shape[:1] or n >= len(rows):
        raise ValueError(
            f"reservoir.memory: expected x (T, N), u (T,) and delays < T, got {rows.shape}, {inputs.shape}, {n}."
        )
    require_finite("reservoir.memory", "u", inputs[:, None])
    known = concrete_array(inputs)
    if known is not None and (known == known[0]).all():
        raise ValueError("reservoir.memory: u must vary: nothing is remembered of a constant.")
    delayed = jnp.stack([jnp.roll(inputs, k)[n - 1 :] for k in range(n)], axis=1)
    rows = rows[n - 1 :]
    found = jnp.matmul(with_bias(rows), readout(rows, delayed), precision="highest")
    return jnp.var(found, axis=0) / jnp.var(delayed, axis=0)  # r^2 of a least-squares fit
