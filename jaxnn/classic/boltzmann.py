"""The restricted Boltzmann machine: a distribution over binary vectors, learned by contrastive divergence.

P(v, h) = e^(-E) / Z, E = -v'w h - a'v - b'h, with visible units v (..., V) and hidden units h (..., H), each 0 or 1. No
unit is joined to one of its own layer: given one layer, the units of the other are independent. ValueError: shapes of
machine and units do not match, or there is no example.
"""

from __future__ import annotations

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

from jaxnn.checks import as_array, require_between, require_key, require_positive_int
from jaxnn.classic.neurons import as_rows
from jaxnn.data import Partial, batch_indices
from jaxnn.numerics import accumulation_dtype
from jaxnn.ops.matmul import add_bias
from jaxnn.types import Array, ArrayLike, Key, Scalar

_LARGEST = 24
_product = functools.partial(jnp.matmul, precision="highest")


class Machine(NamedTuple):
    """Parameters, or a gradient in them: weights w (V, H), visible biases a (V,), hidden biases b (H,)."""

    w: Array
    a: Array
    b: Array


def hidden_probability(machine: Machine, v: Array) -> Array:
    """P(h_j = 1 | v) = sigmoid(b_j + sum_i v_i w_ij): (..., H) from v (..., V)."""
    return jax.nn.sigmoid(add_bias(_product(v, machine.w), machine.b))


def visible_probability(machine: Machine, h: Array) -> Array:
    """P(v_i = 1 | h) = sigmoid(a_i + sum_j w_ij h_j): (..., V) from h (..., H)."""
    return jax.nn.sigmoid(add_bias(_product(h, machine.w.T), machine.a))


@functools.partial(jax.jit, static_argnames="steps")
def gibbs(machine: Machine, v: Array, *, key: Key, steps: int) -> Array:
    """Samples of v after `steps` >= 1 steps of Gibbs sampling from v (..., V): h ~ P(h | v), then v ~ P(v | h).

    Reference: Geman, S. & Geman, D. (1984). Stochastic relaxation, Gibbs distributions, and the Bayesian restoration of
        images.

    Example:
        >>> machine = Machine(jnp.zeros((2, 1)), jnp.array([-99.0, 99.0]), jnp.zeros(1))
        >>> gibbs(machine, jnp.ones(2), key=jax.random.key(0), steps=1)
        Array([0., 1.], dtype=float32)
    """
    require_key("boltzmann.gibbs", key)
    v = _checked("boltzmann.gibbs", machine, v)

    def step(v: Array, key: Key) -> tuple[Array, None]:
        hidden_key, visible_key = jax.random.split(key)
        h = _drawn(hidden_key, hidden_probability(machine, v))
        return _drawn(visible_key, visible_probability(machine, h)), None

    keys = jax.random.split(key, require_positive_int("boltzmann.gibbs", "steps", steps))
    return lax.scan(step, v.astype(accumulation_dtype(machine.a.dtype)), keys)[0]


def contrastive_divergence(
    machine: Machine, v: Array, *, key: Key, steps: int = 1, chains: Array | None = None
) -> tuple[Machine, Array]:
    """CD-k: a direction of ascent, <v h'> of the data minus <v h'> after k steps of Gibbs sampling from the data.

    It tends to the gradient of the mean log-likelihood as k grows. From `chains` instead of the data it is persistent
    contrastive divergence.

    Args:
        v: examples (N, V), each 0 or 1.
        steps: k.
        chains: samples (C, V) of an earlier call; None for CD-k.

    Returns:
        (direction, with means over N and C; the samples at its end, the `chains` of a next call).

    Reference: Hinton, G. E. (2002). Training products of experts by minimizing contrastive divergence. Tieleman, T.
        (2008). Training restricted Boltzmann machines using approximations to the likelihood gradient (persistent).

    Example:
        >>> machine = Machine(jnp.zeros((2, 1)), jnp.zeros(2), jnp.zeros(1))
        >>> contrastive_divergence(machine, jnp.ones((4, 2)), key=jax.random.key(0))[1].shape
        (4, 2)
    """
    v = _checked("boltzmann.contrastive_divergence", machine, v, ndim=2)
    start = v if chains is None else _checked("boltzmann.contrastive_divergence", machine, chains, ndim=2)
    samples = gibbs(machine, start, key=key, steps=steps)
    return jax.tree.map(jnp.subtract, _moments(machine, v.astype(samples.dtype)), _moments(machine, samples)), samples


def log_partition(machine: Machine) -> Array:
    """log Z, exactly: the log of the sum of e^(-E) over all states, by enumerating those of the smaller layer.

    ValueError: it has more than 24 units.

    Example:
        >>> log_partition(Machine(jnp.zeros((2, 3)), jnp.zeros(2), jnp.zeros(3))) / jnp.log(2)
        Array(5., dtype=float32)
    """
    _shapes("boltzmann.log_partition", machine)
    w, a, b = machine if machine.w.shape[0] <= machine.w.shape[1] else Machine(machine.w.T, machine.b, machine.a)
    if (units := w.shape[0]) > _LARGEST:
        raise ValueError(f"boltzmann.log_partition: the smaller layer must have at most {_LARGEST} units, got {units}.")

    def of_state(number: Array) -> Array:
        return _unnormalized(Machine(w, a, b), ((number >> jnp.arange(units)) & 1).astype(w.dtype))

    return jax.nn.logsumexp(lax.map(of_state, jnp.arange(2**units), batch_size=1024))


def log_likelihood(machine: Machine, v: Array) -> Array:
    """The mean of log P(v) over examples v (N, V), exactly, in nats; its `jax.grad` is exact too.

    log P(v) = a'v + sum_j softplus(b_j + v'w_j) - log Z

    Example:
        >>> log_likelihood(Machine(jnp.zeros((2, 3)), jnp.zeros(2), jnp.zeros(3)), jnp.ones((5, 2))) / jnp.log(2)
        Array(-2., dtype=float32)
    """
    v = _checked("boltzmann.log_likelihood", machine, v, ndim=2)
    return jnp.mean(_unnormalized(machine, v)) - log_partition(machine)


def fit(
    x: ArrayLike,
    *,
    key: Key,
    hidden: int,
    epochs: int,
    batch_size: int,
    learning_rate: Scalar,
    steps: int = 1,
    persistent: bool = False,
) -> Machine:
    """Ascent by contrastive divergence from biases 0 and weights N(0, 0.01^2), in batches sampled without replacement.

    Args:
        x: examples (N, V), each 0 or 1.
        hidden: H, the number of hidden units.
        epochs: passes through all examples; those that do not fill a batch of `batch_size` are dropped.
        learning_rate: of a step on the mean over a batch; may be traced.
        steps: k.
        persistent: whether the chains, random at first, go on from batch to batch.

    Returns:
        The machine after each epoch, all arrays with a leading axis (epochs, ...).

    Example:
        >>> settings = {"hidden": 3, "epochs": 5, "batch_size": 2, "learning_rate": 0.5}
        >>> jax.eval_shape(lambda key: fit([[1, 1], [0, 0]], key=key, **settings), jax.random.key(0)).w.shape
        (5, 2, 3)
    """
    require_key("boltzmann.fit", key)
    rows = as_rows("boltzmann.fit", "x", x, values=(0, 1))
    size = require_positive_int("boltzmann.fit", "batch_size", batch_size)
    require_between("boltzmann.fit", "learning_rate", learning_rate, 0, float("inf"), open_high=True)
    if size > len(rows):
        raise ValueError(f"boltzmann.fit: batch_size must be at most the number of examples, {len(rows)}, got {size}.")
    counts = (require_positive_int("boltzmann.fit", name, n) for name, n in (("epochs", epochs), ("steps", steps)))
    init_key, run_key = jax.random.split(key)
    shape = (rows.shape[1], require_positive_int("boltzmann.fit", "hidden", hidden))
    w = 0.01 * jax.random.normal(init_key, shape, rows.dtype)
    machine = Machine(w, jnp.zeros_like(w[:, 0]), jnp.zeros_like(w[0]))
    return _fit(rows, machine, run_key, jnp.asarray(learning_rate, rows.dtype), *counts, size, bool(persistent))


@functools.partial(jax.jit, static_argnums=(4, 5, 6, 7))
def _fit(
    x: Array, machine: Machine, key: Key, rate: Array, epochs: int, steps: int, size: int, persistent: bool
) -> Machine:
    def step(carry: tuple[Machine, Array], batch: tuple[Array, Key]) -> tuple[tuple[Machine, Array], None]:
        (machine, chains), (index, key) = carry, batch
        start = chains if persistent else None
        ascent, chains = contrastive_divergence(machine, x[index], key=key, steps=steps, chains=start)
        return (jax.tree.map(lambda p, g: p + rate * g, machine, ascent), chains), None

    def epoch(carry: tuple[Machine, Array], key: Key) -> tuple[tuple[Machine, Array], Machine]:
        order_key, sample_key = jax.random.split(key)
        index, _ = batch_indices(order_key, len(x), size, partial=Partial.DROP)
        carry, _ = lax.scan(step, carry, (index, jax.random.split(sample_key, len(index))))
        return carry, carry[0]

    keys = jax.random.split(key, epochs + 1)
    chains = _drawn(keys[0], jnp.full((size, x.shape[1]), 0.5, x.dtype))
    return lax.scan(epoch, (machine, chains), keys[1:])[1]


def _shapes(where: str, machine: Machine) -> None:
    w, a, b = (jnp.shape(part) for part in machine)
    if len(w) != 2 or a != w[:1] or b != w[1:]:
        raise ValueError(f"{where}: expected a machine with w (V, H), a (V,) and b (H,), got {w}, {a} and {b}.")


def _checked(where: str, machine: Machine, v: ArrayLike, ndim: int | None = None) -> Array:
    """Visible units (..., V) as an array, (N, V) with N >= 1 for `ndim` 2."""
    _shapes(where, machine)
    units = as_array(where, "v", v)
    if units.ndim != (ndim or max(units.ndim, 1)) or units.shape[-1] != machine.w.shape[0] or not units.size:
        expected = "(N, V), N >= 1" if ndim else "(..., V)"
        raise ValueError(f"{where}: v must be {expected}, with V = {machine.w.shape[0]}, got {units.shape}.")
    return units


def _unnormalized(machine: Machine, v: Array) -> Array:
    """log of the sum over h of e^(-E(v, h)): a'v + sum_j softplus(b_j + v'w_j)."""
    hidden = jnp.sum(jax.nn.softplus(add_bias(_product(v, machine.w), machine.b)), axis=-1)
    return _product(v, machine.a) + hidden


def _moments(machine: Machine, v: Array) -> Machine:
    """The means of v h', v and h over examples v (N, V), with P(h | v) in place of h."""
    h = hidden_probability(machine, v)
    return Machine(_product(v.T, h) / len(v), jnp.mean(v, axis=0), jnp.mean(h, axis=0))


def _drawn(key: Key, probability: Array) -> Array:
    return jax.random.bernoulli(key, probability).astype(probability.dtype)
