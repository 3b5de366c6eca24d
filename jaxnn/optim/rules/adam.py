"""Adam, Nadam and their forms with decoupled weight decay: steps scaled by running moments of the gradient."""

from __future__ import annotations

from typing import Any, NamedTuple

from jaxnn.numerics import safe_divide, safe_sqrt
from jaxnn.optim.arguments import require_decay, require_nonnegative
from jaxnn.optim.base import Optimizer, initial_moment, per_leaf
from jaxnn.optim.descent import Mask, descent
from jaxnn.optim.scalars import abs_sq, cast_like, increment, is_zero, one_minus_power, zero_count
from jaxnn.optim.spec import specified
from jaxnn.types import Array, DTypeLike, Params, PyTree, Scalar, ScalarOrSchedule


class AdamState(NamedTuple):
    """`count`: int32 steps taken; `mu`: mean of gradients (None in `scale_by_adam` for a Python b1 = 0); `nu`: mean of
    their squares, real."""

    count: Array  # type: ignore[assignment] # optax's name; it hides tuple.count
    mu: PyTree
    nu: PyTree


@specified
def scale_by_adam(
    b1: Scalar = 0.9,
    b2: Scalar = 0.999,
    eps: Scalar = 1e-8,
    eps_root: Scalar = 0.0,
    mu_dtype: DTypeLike | None = None,
    *,
    nesterov: bool = False,
) -> Optimizer:
    """Adam's direction, which `adam` multiplies by -learning_rate.

    mu <- b1 mu + (1 - b1) g;   nu <- b2 nu + (1 - b2) |g|^2;   t = 1, 2, ...
    mu_hat = mu / (1 - b1^t), or for Nadam b1 mu / (1 - b1^(t+1)) + (1 - b1) g / (1 - b1^t);   nu_hat = nu / (1 - b2^t)
    direction = mu_hat / (sqrt(nu_hat + eps_root) + eps)

    eps is outside the root, eps_root inside; 0/0 := 0.

    Args:
        b1, b2: decays of the moments, in [0, 1). A Python b1 = 0.0 keeps no mu.
        eps: added to the root.
        eps_root: added under the root; bounds its derivative where the update itself is differentiated.
        mu_dtype: of mu; None means float32 for half-precision parameters, else the parameter's. nu always has this
            default, real.
        nesterov: whether to use Nesterov's momentum.

    Reference: Kingma, D. P. & Ba, J. (2015). Adam: a method for stochastic optimization, algorithm 1. Dozat, T. (2016).
        Incorporating Nesterov momentum into Adam.

    Example:
        >>> import jax.numpy as jnp
        >>> opt = scale_by_adam()
        >>> opt.update(jnp.array([3.0]), opt.init(jnp.zeros(1)))[0]
        Array([1.], dtype=float32)
    """
    require_decay("adam", b1=b1, b2=b2)
    require_nonnegative("adam", eps=eps, eps_root=eps_root)
    keeps_mu = not is_zero(b1)

    def init(params: Params) -> AdamState:
        mu = initial_moment(params, mu_dtype) if keeps_mu else None
        return AdamState(zero_count(), mu, initial_moment(params, real=True))

    def update(
        updates: PyTree, state: AdamState, params: Params | None = None, **extra: Any
    ) -> tuple[PyTree, AdamState]:
        count = increment(state.count)
        c1, next_c1, c2 = one_minus_power(b1, count), one_minus_power(b1, count + 1), one_minus_power(b2, count)

        def rule(g: Array, mu: Array | None, nu: Array) -> tuple[Array, Array | None, Array]:
            d1, d2 = cast_like(b1, nu), cast_like(b2, nu)
            nu = d2 * nu + (1 - d2) * abs_sq(g)
            nu_hat = nu / cast_like(c2, nu)
            mu_hat = g
            if mu is not None:
                mu = d1 * mu + (1 - d1) * g
                mu_hat = mu / cast_like(c1, nu)
                if nesterov:
                    mu_hat = d1 * mu / cast_like(next_c1, nu) + (1 - d1) * g / cast_like(c1, nu)
            # eps outside the root, as published: it damps entries with |g| below it. eps_root is optax's: it bounds the
            # derivative of the root for meta-gradients.
            return safe_divide(mu_hat, safe_sqrt(nu_hat + cast_like(eps_root, nu)) + cast_like(eps, nu)), mu, nu

        updates, mu, nu = per_leaf(rule, updates, (state.mu, state.nu), params)
        return updates, AdamState(count, mu, nu)

    return Optimizer(init, update)


@specified
def adam(
    learning_rate: ScalarOrSchedule,
    b1: Scalar = 0.9,
    b2: Scalar = 0.999,
    eps: Scalar = 1e-8,
    eps_root: Scalar = 0.0,
    mu_dtype: DTypeLike | None = None,
    *,
    nesterov: bool = False,
) -> Optimizer:
    """Adam; with `nesterov`, Nadam: update = -learning_rate mu_hat / (sqrt(nu_hat + eps_root) + eps).

    The equation of the moments and the arguments are in `scale_by_adam`.

    Reference: Kingma, D. P. & Ba, J. (2015). Adam: a method for stochastic optimization, algorithm 1.

    Example:
        >>> import jax.numpy as jnp
        >>> opt = adam(0.1)
        >>> params = jnp.array([1.0])
        >>> updates, state = opt.update(jnp.array([3.0]), opt.init(params), params)
        >>> updates
        Array([-0.1], dtype=float32)
    """
    return descent(scale_by_adam(b1, b2, eps, eps_root, mu_dtype, nesterov=nesterov), learning_rate, where="adam")


@specified
def adamw(
    learning_rate: ScalarOrSchedule,
    b1: Scalar = 0.9,
    b2: Scalar = 0.999,
    eps: Scalar = 1e-8,
    eps_root: Scalar = 0.0,
    mu_dtype: DTypeLike | None = None,
    weight_decay: ScalarOrSchedule = 1e-4,
    mask: Mask = None,
    *,
    nesterov: bool = False,
) -> Optimizer:
    """Adam with decoupled weight decay: update = -learning_rate (adam's direction + weight_decay params).

    The decay is multiplied by the learning rate. eps is outside the root, eps_root inside.

    Args:
        b1, b2, eps, eps_root, mu_dtype, nesterov: see `scale_by_adam`.
        mask: which parameters decay: a pytree of bools, a function of the parameters that returns one, or None for all
            (`jaxnn.tree.is_weight` leaves biases out).

    Reference: Loshchilov, I. & Hutter, F. (2019). Decoupled weight decay regularization, algorithm 2.

    Example:
        >>> import jax.numpy as jnp
        >>> opt = adamw(0.1, weight_decay=0.5)
        >>> params = jnp.array([1.0])
        >>> opt.update(jnp.array([3.0]), opt.init(params), params)[0]
        Array([-0.15], dtype=float32)
    """
    direction = scale_by_adam(b1, b2, eps, eps_root, mu_dtype, nesterov=nesterov)
    return descent(direction, learning_rate, weight_decay=weight_decay, mask=mask, where="adamw")


@specified
def nadam(
    learning_rate: ScalarOrSchedule,
    b1: Scalar = 0.9,
    b2: Scalar = 0.999,
    eps: Scalar = 1e-8,
    eps_root: Scalar = 0.0,
    mu_dtype: DTypeLike | None = None,
    *,
    nesterov: bool = True,
) -> Optimizer:
    """Adam with Nesterov's momentum: `adam(..., nesterov=True)`.

    The equation and the arguments are in `scale_by_adam`: eps is outside the root, eps_root inside.

    Reference: Dozat, T. (2016). Incorporating Nesterov momentum into Adam.

    Example:
        >>> import jax.numpy as jnp
        >>> opt = nadam(0.1)
        >>> opt.update(jnp.array([3.0]), opt.init(jnp.zeros(1)))[0]
        Array([-0.14736842], dtype=float32)
    """
    return descent(scale_by_adam(b1, b2, eps, eps_root, mu_dtype, nesterov=nesterov), learning_rate, where="nadam")


@specified
def nadamw(
    learning_rate: ScalarOrSchedule,
    b1: Scalar = 0.9,
    b2: Scalar = 0.999,
    eps: Scalar = 1e-8,
    eps_root: Scalar = 0.0,
    mu_dtype: DTypeLike | None = None,
    weight_decay: ScalarOrSchedule = 1e-4,
    mask: Mask = None,
    *,
    nesterov: bool = True,
) -> Optimizer:
    """Nadam with decoupled weight decay: `adamw(..., nesterov=True)`; the decay is multiplied by the learning rate.

    The other arguments are those of `scale_by_adam`: eps is outside the root, eps_root inside.

    Reference: Dozat, T. (2016). Incorporating Nesterov momentum into Adam. Loshchilov, I. & Hutter, F. (2019).
        Decoupled weight decay regularization.

    Example:
        >>> import jax.numpy as jnp
        >>> opt = nadamw(0.1, weight_decay=0.5)
        >>> params = jnp.array([1.0])
        >>> opt.update(jnp.array([3.0]), opt.init(params), params)[0]
        Array([-0.19736843], dtype=float32)
    """
    direction = scale_by_adam(b1, b2, eps, eps_root, mu_dtype, nesterov=nesterov)
    return descent(direction, learning_rate, weight_decay=weight_decay, mask=mask, where="nadamw")
