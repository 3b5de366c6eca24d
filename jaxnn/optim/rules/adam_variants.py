"""Adam with another measure of the gradient's size: the decayed maximum (AdaMax), the largest mean square
(AMSGrad)."""

from __future__ import annotations

from typing import Any, NamedTuple

import jax.numpy as jnp

from jaxnn.numerics import safe_divide, safe_sqrt
from jaxnn.optim.arguments import require_decay, require_nonnegative
from jaxnn.optim.base import Optimizer, initial_moment, per_leaf
from jaxnn.optim.descent import Mask, descent
from jaxnn.optim.scalars import abs_sq, cast_like, increment, zero_count
from jaxnn.optim.spec import specified
from jaxnn.types import Array, DTypeLike, Params, PyTree, Scalar, ScalarOrSchedule


class AdamaxState(NamedTuple):
    """`count`: int32 steps taken; `mu`: mean of gradients; `nu`: decayed maximum of |g| + eps."""

    count: Array  # type: ignore[assignment] # optax's name; it hides tuple.count
    mu: PyTree
    nu: PyTree


class AmsgradState(NamedTuple):
    """`count`: int32 steps taken; `mu`, `nu`: means of gradients and of their squares; `nu_max`: the largest nu_hat so
    far (the largest nu if its bias is not corrected)."""

    count: Array  # type: ignore[assignment] # optax's name; it hides tuple.count
    mu: PyTree
    nu: PyTree
    nu_max: PyTree


@specified
def scale_by_adamax(b1: Scalar = 0.9, b2: Scalar = 0.999, eps: Scalar = 1e-8) -> Optimizer:
    """AdaMax's direction: Adam with the infinity norm of past gradients.

    mu <- b1 mu + (1 - b1) g;   nu <- max(b2 nu, |g| + eps);   t = 1, 2, ...
    direction = mu / (1 - b1^t) / nu

    There is no root; eps is added to |g|. The paper's rule has eps = 0, with 0/0 := 0.

    Args:
        b1, b2: decays, in [0, 1).
        eps: added to |g|.

    Reference: Kingma, D. P. & Ba, J. (2015). Adam: a method for stochastic optimization, algorithm 2.

    Example:
        >>> opt = scale_by_adamax()
        >>> opt.update(jnp.array([3.0]), opt.init(jnp.zeros(1)))[0]
        Array([1.], dtype=float32)
    """
    require_decay("adamax", b1=b1, b2=b2)
    require_nonnegative("adamax", eps=eps)

    def init(params: Params) -> AdamaxState:
        return AdamaxState(zero_count(), initial_moment(params), initial_moment(params, real=True))

    def update(
        updates: PyTree, state: AdamaxState, params: Params | None = None, **extra: Any
    ) -> tuple[PyTree, AdamaxState]:
        count = increment(state.count)

        def rule(g: Array, mu: Array, nu: Array) -> tuple[Array, Array, Array]:
            d1 = cast_like(b1, nu)
            mu = d1 * mu + (1 - d1) * g
            # eps beside |g|, inside the maximum, as in optax and PyTorch: nu itself is then at least eps.
            nu = jnp.maximum(cast_like(b2, nu) * nu, jnp.abs(g) + cast_like(eps, nu))
            return safe_divide(mu / (1 - d1 ** count.astype(nu.dtype)), nu), mu, nu

        updates, mu, nu = per_leaf(rule, updates, (state.mu, state.nu), params)
        return updates, AdamaxState(count, mu, nu)

    return Optimizer(init, update)


@specified
def adamax(learning_rate: ScalarOrSchedule, b1: Scalar = 0.9, b2: Scalar = 0.999, eps: Scalar = 1e-8) -> Optimizer:
    """AdaMax: update = -learning_rate mu_hat / nu; the equation and the arguments are in `scale_by_adamax`.

    There is no root; eps is added to |g|.

    Reference: Kingma, D. P. & Ba, J. (2015). Adam: a method for stochastic optimization, algorithm 2.

    Example:
        >>> opt = adamax(0.1)
        >>> opt.update(jnp.array([3.0]), opt.init(jnp.zeros(1)))[0]
        Array([-0.1], dtype=float32)
    """
    return descent(scale_by_adamax(b1, b2, eps), learning_rate, where="adamax")


@specified
def adamaxw(
    learning_rate: ScalarOrSchedule,
    b1: Scalar = 0.9,
    b2: Scalar = 0.999,
    eps: Scalar = 1e-8,
    weight_decay: ScalarOrSchedule = 1e-4,
    mask: Mask = None,
) -> Optimizer:
    """AdaMax with decoupled weight decay, multiplied by the learning rate.

    The equation, b1, b2 and eps are in `scale_by_adamax`: there is no root; eps is added to |g|.

    Reference: Loshchilov, I. & Hutter, F. (2019). Decoupled weight decay regularization.

    Example:
        >>> opt, params = adamaxw(0.1, weight_decay=0.5), jnp.ones(1)
        >>> opt.update(jnp.array([3.0]), opt.init(params), params)[0]
        Array([-0.15], dtype=float32)
    """
    direction = scale_by_adamax(b1, b2, eps)
    return descent(direction, learning_rate, weight_decay=weight_decay, mask=mask, where="adamaxw")


@specified
def scale_by_amsgrad(
    b1: Scalar = 0.9,
    b2: Scalar = 0.999,
    eps: Scalar = 1e-8,
    eps_root: Scalar = 0.0,
    mu_dtype: DTypeLike | None = None,
    bias_correction_mu: bool = True,
    bias_correction_nu: bool = True,
) -> Optimizer:
    """AMSGrad's direction: Adam whose denominator never shrinks.

    mu <- b1 mu + (1 - b1) g;   nu <- b2 nu + (1 - b2) |g|^2;   nu_max <- max(nu_max, nu_hat);   t = 1, 2, ...
    direction = mu_hat / (sqrt(nu_max + eps_root) + eps);   x_hat = x / (1 - b^t), b the decay of x, or x uncorrected

    eps is outside the root, eps_root inside; 0/0 := 0. The paper corrects neither mean and has no eps; PyTorch corrects
    nu after the maximum.

    Args:
        b1, b2: decays of the moments, in [0, 1).
        eps, eps_root: added to the root, and under it.
        mu_dtype: of mu; None means the accumulation dtype.
        bias_correction_mu, bias_correction_nu: whether to divide mu by 1 - b1^t, nu by 1 - b2^t.

    Reference: Reddi, S. J., Kale, S. & Kumar, S. (2018). On the convergence of Adam and beyond, algorithm 2.

    Example:
        >>> opt = scale_by_amsgrad()
        >>> opt.update(jnp.array([3.0]), opt.init(jnp.zeros(1)))[0]
        Array([1.], dtype=float32)
    """
    require_decay("amsgrad", b1=b1, b2=b2)
    require_nonnegative("amsgrad", eps=eps, eps_root=eps_root)

    def init(params: Params) -> AmsgradState:
        nu = initial_moment(params, real=True)
        return AmsgradState(zero_count(), initial_moment(params, mu_dtype), nu, initial_moment(params, real=True))

    def update(
        updates: PyTree, state: AmsgradState, params: Params | None = None, **extra: Any
    ) -> tuple[PyTree, AmsgradState]:
        count = increment(state.count)

        def rule(g: Array, mu: Array, nu: Array, nu_max: Array) -> tuple[Array, Array, Array, Array]:
            d1, d2, t = cast_like(b1, nu), cast_like(b2, nu), count.astype(nu.dtype)
            mu = d1 * mu + (1 - d1) * g
            nu = d2 * nu + (1 - d2) * abs_sq(g)
            mu_hat = mu / (1 - d1**t) if bias_correction_mu else mu
            nu_max = jnp.maximum(nu_max, nu / (1 - d2**t) if bias_correction_nu else nu)
            # eps and eps_root where Adam has them, as in optax: they guard entries that have had no gradient yet.
            return safe_divide(mu_hat, safe_sqrt(nu_max + cast_like(eps_root, nu)) + cast_like(eps, nu)), mu, nu, nu_max

        updates, mu, nu, nu_max = per_leaf(rule, updates, (state.mu, state.nu, state.nu_max), params)
        return updates, AmsgradState(count, mu, nu, nu_max)

    return Optimizer(init, update)


@specified
def amsgrad(
    learning_rate: ScalarOrSchedule,
    b1: Scalar = 0.9,
    b2: Scalar = 0.999,
    eps: Scalar = 1e-8,
    eps_root: Scalar = 0.0,
    mu_dtype: DTypeLike | None = None,
    bias_correction_mu: bool = True,
    bias_correction_nu: bool = True,
) -> Optimizer:
    """AMSGrad: update = -learning_rate mu_hat / (sqrt(nu_max + eps_root) + eps).

    The equation of the moments and the arguments are in `scale_by_amsgrad`.

    Reference: Reddi, S. J., Kale, S. & Kumar, S. (2018). On the convergence of Adam and beyond, algorithm 2.

    Example:
        >>> opt = amsgrad(0.1)
        >>> opt.update(jnp.array([3.0]), opt.init(jnp.zeros(1)))[0]
        Array([-0.1], dtype=float32)
    """
    direction = scale_by_amsgrad(b1, b2, eps, eps_root, mu_dtype, bias_correction_mu, bias_correction_nu)
    return descent(direction, learning_rate, where="amsgrad")
