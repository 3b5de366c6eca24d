"""Gaussian gradient noise with a decaying variance."""

from __future__ import annotations

import warnings
from typing import Any, NamedTuple

import jax

from jaxnn.numerics import safe_sqrt
from jaxnn.optim.arguments import require_nonnegative
from jaxnn.optim.base import Optimizer, initial_moment, map_leaves, widened
from jaxnn.optim.descent import descent
from jaxnn.optim.keys import given_key, raw_key, typed_key
from jaxnn.optim.scalars import cast_like, increment, zero_count
from jaxnn.optim.spec import specified
from jaxnn.types import Array, Key, Params, PyTree, Scalar, ScalarOrSchedule


class AddNoiseState(NamedTuple):
    """`count`: int32 steps taken; `rng_key`: raw data of the random key of the next step, uint32."""

    count: Array  # type: ignore[assignment] # optax's name; it hides tuple.count
    rng_key: Array


def as_key(where: str, key: Key | int | None, seed: Key | int | None = None) -> Key:
    """A typed random key from a key, typed or raw, an integer key or a seed; without one, key 0 and a warning."""
    if key is not None and seed is not None:
        raise ValueError(f"{where}: needs one of key and seed, got both. Pass key={key!r} alone.")
    given: Any = seed if key is None else key
    if given is None:
        warnings.warn(f"{where}: no key was given, so every run draws the noise of key=0. Pass one.", stacklevel=4)
        given = 0
    return given_key(where, given)


@specified
def add_noise(eta: Scalar, gamma: Scalar, key: Key | int | None = None, *, seed: int | None = None) -> Optimizer:
    """The gradient plus Gaussian noise of decaying variance.

    direction = g + sigma_t n,   n ~ N(0, 1),   sigma_t^2 = eta / t^gamma,   t = 1, 2, ...

    The draws are those of optax for the same key in float32 and float64; half precision draws in float32 here. For
    complex parameters n is complex with E |n|^2 = 1.

    Args:
        eta: variance of the noise at the first step, >= 0.
        gamma: exponent of its decay, >= 0.
        key: random key, typed or raw, or integer. Without one the noise is that of key 0, with a warning.
        seed: older name of an integer key; ValueError if both are given.

    Reference: Neelakantan, A., Vilnis, L., Le, Q. V., Sutskever, I., Kaiser, L., Kurach, K. & Martens, J. (2015).
        Adding gradient noise improves learning for very deep networks, section 3.

    Example:
        >>> import jax.numpy as jnp
        >>> opt = add_noise(eta=0.01, gamma=0.55, key=0)
        >>> updates, state = opt.update(jnp.zeros(2), opt.init(jnp.zeros(2)))
        >>> bool(jnp.all(jnp.abs(updates) < 0.5))
        True
    """
    require_nonnegative("add_noise", eta=eta, gamma=gamma)
    first = as_key("add_noise", key, seed)

    def init(params: Params) -> AddNoiseState:
        initial_moment(params)  # for its check that every parameter is floating
        return AddNoiseState(zero_count(), raw_key(first))

    @widened
    def update(
        updates: PyTree, state: AddNoiseState, params: Params | None = None, **extra: Any
    ) -> tuple[PyTree, AddNoiseState]:
        count = increment(state.count)
        next_key, sample_key = jax.random.split(typed_key(state.rng_key, first))

        def leaf(g: Array, k: Key) -> Array:
            deviation = safe_sqrt(cast_like(eta, g) / cast_like(count, g) ** cast_like(gamma, g))
            return g + deviation * jax.random.normal(k, g.shape, g.dtype)

        noisy = map_leaves(leaf, updates, keys_like(sample_key, updates))
        return noisy, AddNoiseState(count, jax.random.key_data(next_key))

    return Optimizer(init, update)


@specified
def noisy_sgd(
    learning_rate: ScalarOrSchedule,
    eta: Scalar = 0.01,
    gamma: Scalar = 0.55,
    key: Key | int | None = None,
    *,
    seed: int | None = None,
) -> Optimizer:
    """Gradient descent with Gaussian noise of decaying variance: update = -learning_rate (g + noise).

    Args:
        eta, gamma, key, seed: see `add_noise`, which has the whole equation.

    Reference: Neelakantan, A., Vilnis, L., Le, Q. V., Sutskever, I., Kaiser, L., Kurach, K. & Martens, J. (2015).
        Adding gradient noise improves learning for very deep networks.

    Example:
        >>> import jax.numpy as jnp
        >>> opt = noisy_sgd(0.1, eta=0.0, key=0)
        >>> opt.update(jnp.array([3.0]), opt.init(jnp.zeros(1)))[0]
        Array([-0.3], dtype=float32)
    """
    return descent(add_noise(eta, gamma, key, seed=seed), learning_rate, where="noisy_sgd")


def keys_like(key: Key, tree: PyTree) -> PyTree:
    """A key for every leaf of a pytree, by one split."""
    structure: Any = jax.tree.structure(tree)
    return jax.tree.unflatten(structure, list(jax.random.split(key, structure.num_leaves)))
