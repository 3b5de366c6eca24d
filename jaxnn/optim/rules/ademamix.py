"""AdEMAMix: Adam with a fast and a slow mean of gradients, and its simplification to one sum."""

from __future__ import annotations

from typing import Any, NamedTuple

from jaxnn.numerics import safe_divide, safe_sqrt
from jaxnn.optim.arguments import require_decay, require_nonnegative, require_real
from jaxnn.optim.base import Optimizer, initial_moment, per_leaf
from jaxnn.optim.descent import Mask, descent
from jaxnn.optim.scalars import abs_sq, at_count, cast_like, increment, zero_count
from jaxnn.optim.spec import specified
from jaxnn.types import Array, DTypeLike, Params, PyTree, Scalar, ScalarOrSchedule


class AdemamixState(NamedTuple):
    """`count`: int32 steps taken; `m1`, `m2`: fast and slow mean of gradients; `nu`: mean of their squares."""

    count: Array  # type: ignore[assignment] # optax's name; it hides tuple.count
    m1: PyTree
    m2: PyTree
    nu: PyTree


class SimplifiedAdemamixState(NamedTuple):
    """`count`: int32 steps taken; `m`: decayed sum of gradients; `n`: mean of their squares."""

    count: Array  # type: ignore[assignment] # optax calls it t; every state here has count
    m: PyTree
    n: PyTree


@specified
def scale_by_ademamix(
    b1: Scalar = 0.9,
    b2: Scalar = 0.999,
    b3: ScalarOrSchedule = 0.9999,
    alpha: ScalarOrSchedule = 6.0,
    eps: Scalar = 1e-8,
    eps_root: Scalar = 0.0,
    mu_dtype: DTypeLike | None = None,
) -> Optimizer:
    """AdEMAMix's direction: Adam with a second, slower mean of gradients.

    m1 <- b1 m1 + (1 - b1) g;   m2 <- b3 m2 + (1 - b3) g;   nu <- b2 nu + (1 - b2) |g|^2;   t = 1, 2, ...
    direction = (m1 / (1 - b1^t) + alpha m2) / (sqrt(nu / (1 - b2^t) + eps_root) + eps)

    eps is outside the root, eps_root inside; the slow mean m2 is not corrected for its bias; 0/0 := 0.

    Args:
        b1, b2: decays, in [0, 1).
        b3, alpha: decay, in [0, 1), and weight, >= 0, of the slow mean: numbers or schedules of the step count.
        eps, eps_root: added to the root, and under it.
        mu_dtype: of m1 and m2; None means float32 for half-precision parameters, else the parameter's.

    Reference: Pagliardini, M., Ablin, P. & Grangier, D. (2024). The AdEMAMix optimizer: better, faster, older,
        algorithm 1.

    Example:
        >>> import jax.numpy as jnp
        >>> opt = scale_by_ademamix(alpha=0.0)
        >>> opt.update(jnp.array([3.0]), opt.init(jnp.zeros(1)))[0]
        Array([1.], dtype=float32)
    """
    require_decay("ademamix", b1=b1, b2=b2, b3=b3)
    require_nonnegative("ademamix", alpha=alpha, eps=eps, eps_root=eps_root)

    def init(params: Params) -> AdemamixState:
        nu = initial_moment(params, real=True)
        return AdemamixState(zero_count(), initial_moment(params, mu_dtype), initial_moment(params, mu_dtype), nu)

    def update(
        updates: PyTree, state: AdemamixState, params: Params | None = None, **extra: Any
    ) -> tuple[PyTree, AdemamixState]:
        count, slow, weight = increment(state.count), at_count(b3, state.count), at_count(alpha, state.count)

        def rule(g: Array, m1: Array, m2: Array, nu: Array) -> tuple[Array, ...]:
            d1, d2, d3, t = cast_like(b1, nu), cast_like(b2, nu), cast_like(slow, nu), count.astype(nu.dtype)
            m1 = d1 * m1 + (1 - d1) * g
            m2 = d3 * m2 + (1 - d3) * g
            nu = d2 * nu + (1 - d2) * abs_sq(g)
            # eps outside the root, as published; eps_root is optax's, both as in Adam.
            root = safe_sqrt(nu / (1 - d2**t) + cast_like(eps_root, nu))
            return safe_divide(m1 / (1 - d1**t) + cast_like(weight, nu) * m2, root + cast_like(eps, nu)), m1, m2, nu

        updates, m1, m2, nu = per_leaf(rule, updates, (state.m1, state.m2, state.nu), params)
        return updates, AdemamixState(count, m1, m2, nu)

    return Optimizer(init, update)


@specified
def ademamix(
    learning_rate: ScalarOrSchedule,
    b1: Scalar = 0.9,
    b2: Scalar = 0.999,
    b3: ScalarOrSchedule = 0.9999,
    alpha: ScalarOrSchedule = 5.0,
    eps: Scalar = 1e-8,
    eps_root: Scalar = 0.0,
    mu_dtype: DTypeLike | None = None,
    weight_decay: ScalarOrSchedule = 0.0,
    mask: Mask = None,
) -> Optimizer:
    """AdEMAMix with decoupled weight decay, multiplied by the learning rate.

    The equation and the other arguments are in `scale_by_ademamix`: eps is outside the root, eps_root inside.

    Reference: Pagliardini, M., Ablin, P. & Grangier, D. (2024). The AdEMAMix optimizer: better, faster, older.

    Example:
        >>> import jax.numpy as jnp
        >>> opt = ademamix(0.1, alpha=0.0)
        >>> opt.update(jnp.array([3.0]), opt.init(jnp.zeros(1)))[0]
        Array([-0.1], dtype=float32)
    """
    direction = scale_by_ademamix(b1, b2, b3, alpha, eps, eps_root, mu_dtype)
    return descent(direction, learning_rate, weight_decay=weight_decay, mask=mask, where="ademamix")


@specified
def scale_by_simplified_ademamix(
    b1: Scalar = 0.99, b2: Scalar = 0.95, alpha: ScalarOrSchedule = 0.0, eps: Scalar = 1e-8, eps_root: Scalar = 0.0
) -> Optimizer:
    """The direction of simplified AdEMAMix: a decayed SUM of gradients plus alpha times the newest one.

    m <- b1 m + g;   n <- b2 n + (1 - b2) g^2;   t = 1, 2, ...
    direction = (m + alpha g) / (sqrt(n / (1 - b2^t) + eps_root) + eps)

    eps is outside the root, eps_root inside; 0/0 := 0. m is a sum, so the learning rate is about 1 - b1 times Adam's.

    Args:
        b1, b2: decays, in [0, 1).
        alpha: weight of the newest gradient: a number >= 0 or a schedule of the step count.
        eps, eps_root: added to the root, and under it.

    Reference: Morwani, D., Vyas, N., Zhang, H. & Kakade, S. (2025). Connections between schedule-free optimizers,
        AdEMAMix, and accelerated SGD variants.

    Example:
        >>> import jax.numpy as jnp
        >>> opt = scale_by_simplified_ademamix(alpha=1.0)
        >>> opt.update(jnp.array([3.0]), opt.init(jnp.zeros(1)))[0]
        Array([2.], dtype=float32)
    """
    require_decay("simplified_ademamix", b1=b1, b2=b2)
    require_nonnegative("simplified_ademamix", alpha=alpha, eps=eps, eps_root=eps_root)

    def init(params: Params) -> SimplifiedAdemamixState:
        require_real("simplified_ademamix", params)
        return SimplifiedAdemamixState(zero_count(), initial_moment(params), initial_moment(params))

    def update(
        updates: PyTree, state: SimplifiedAdemamixState, params: Params | None = None, **extra: Any
    ) -> tuple[PyTree, SimplifiedAdemamixState]:
        count, weight = increment(state.count), at_count(alpha, state.count)

        def rule(g: Array, m: Array, n: Array) -> tuple[Array, Array, Array]:
            d2 = cast_like(b2, n)
            m = cast_like(b1, n) * m + g
            n = d2 * n + (1 - d2) * abs_sq(g)
            # eps outside the root, as published; eps_root is optax's, both as in Adam.
            root = safe_sqrt(n / (1 - d2 ** count.astype(n.dtype)) + cast_like(eps_root, n))
            return safe_divide(m + cast_like(weight, n) * g, root + cast_like(eps, n)), m, n

        updates, m, n = per_leaf(rule, updates, (state.m, state.n), params)
        return updates, SimplifiedAdemamixState(count, m, n)

    return Optimizer(init, update)


@specified
def simplified_ademamix(
    learning_rate: ScalarOrSchedule,
    b1: Scalar = 0.99,
    b2: Scalar = 0.95,
    alpha: ScalarOrSchedule = 0.0,
    eps: Scalar = 1e-8,
    eps_root: Scalar = 0.0,
    weight_decay: ScalarOrSchedule = 0.0,
    mask: Mask = None,
) -> Optimizer:
    """Simplified AdEMAMix with decoupled weight decay, multiplied by the learning rate.

    The equation and the other arguments are in `scale_by_simplified_ademamix`: eps is outside the root, eps_root
    inside.

    Reference: Morwani, D., Vyas, N., Zhang, H. & Kakade, S. (2025). Connections between schedule-free optimizers,
        AdEMAMix, and accelerated SGD variants.

    Example:
        >>> import jax.numpy as jnp
        >>> opt = simplified_ademamix(0.1)
        >>> opt.update(jnp.array([3.0]), opt.init(jnp.zeros(1)))[0]
        Array([-0.1], dtype=float32)
    """
    direction = scale_by_simplified_ademamix(b1, b2, alpha, eps, eps_root)
    return descent(direction, learning_rate, weight_decay=weight_decay, mask=mask, where="simplified_ademamix")
