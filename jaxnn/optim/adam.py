"""Adam: steps scaled by running moments of the gradient."""

from __future__ import annotations

from typing import Any, NamedTuple

import jax.numpy as jnp

from jaxnn.checks import require_between
from jaxnn.optim.base import Optimizer, at_count, increment, is_zero, like, moment, per_leaf
from jaxnn.types import Array, DType, Params, PyTree, Scalar, ScalarOrSchedule


class AdamState(NamedTuple):
    """`count`: int32 steps taken; `mu`: mean of gradients (None if b1 is a Python 0); `nu`: mean of their squares."""

    count: Array  # type: ignore[assignment] # optax's name; it hides tuple.count
    mu: PyTree
    nu: PyTree


def adam(
    learning_rate: ScalarOrSchedule,
    b1: Scalar = 0.9,
    b2: Scalar = 0.999,
    eps: Scalar = 1e-8,
    eps_root: Scalar = 0.0,
    mu_dtype: DType | None = None,
    *,
    nesterov: bool = False,
) -> Optimizer:
    """Adam; with `nesterov`, Nadam.

    mu <- b1 mu + (1 - b1) g;   nu <- b2 nu + (1 - b2) g^2;   t = 1, 2, ...
    mu_hat = mu / (1 - b1^t), or for Nadam b1 mu / (1 - b1^(t+1)) + (1 - b1) g / (1 - b1^t);   nu_hat = nu / (1 - b2^t)
    update = -learning_rate mu_hat / (sqrt(nu_hat + eps_root) + eps)

    eps is outside the root, eps_root inside.

    Args:
        learning_rate: number or schedule of the step count (0 at the first update); may be traced.
        b1, b2: decays of the moments, in [0, 1); may be traced. A Python b1 = 0.0 keeps no mu.
        eps: added to the root, against division by zero.
        eps_root: added under the root; needed when the update itself is differentiated.
        mu_dtype: of mu; None means float32 for half-precision parameters, else the parameter's. nu likewise.
        nesterov: whether to use Nesterov's momentum.

    Returns:
        Optimizer with state `AdamState(count, mu, nu)`.

    Raises:
        ValueError: b1 or b2, known while tracing, outside [0, 1).

    Reference:
        Kingma, D. P. & Ba, J. (2015). Adam: a method for stochastic optimization, algorithm 1.
        Dozat, T. (2016). Incorporating Nesterov momentum into Adam.

    Example:
        >>> opt = adam(0.1)
        >>> params = jnp.array([1.0])
        >>> updates, state = opt.update(jnp.array([3.0]), opt.init(params), params)
        >>> updates
        Array([-0.1], dtype=float32)
    """
    require_between("adam", "b1", b1, 0, 1, open_high=True)
    require_between("adam", "b2", b2, 0, 1, open_high=True)
    keeps_mu = not is_zero(b1)

    def init(params: Params) -> AdamState:
        mu = moment(params, mu_dtype) if keeps_mu else None
        return AdamState(jnp.zeros((), jnp.int32), mu, moment(params))

    def update(grads: PyTree, state: AdamState, params: Params | None = None, **extra: Any) -> tuple[PyTree, AdamState]:
        rate = at_count(learning_rate, state.count)
        count = increment(state.count)

        def rule(g: Array, mu: Array | None, nu: Array) -> tuple[Array, Array | None, Array]:
            d1, d2, t = like(b1, g), like(b2, g), count.astype(g.dtype)
            nu = d2 * nu + (1 - d2) * g * g
            nu_hat = nu / (1 - d2**t)
            if mu is None:
                mu_hat = g
            else:
                mu = d1 * mu + (1 - d1) * g
                mu_hat = mu / (1 - d1**t)
                if nesterov:
                    mu_hat = d1 * mu / (1 - d1 ** (t + 1)) + (1 - d1) * g / (1 - d1**t)
            return -like(rate, g) * mu_hat / (jnp.sqrt(nu_hat + like(eps_root, g)) + like(eps, g)), mu, nu

        updates, mu, nu = per_leaf(rule, grads, (state.mu, state.nu), params)
        return updates, AdamState(count, mu, nu)

    return Optimizer(init, update)
