"""Layer-wise steps, proportional to the norm of the parameters: trust ratios, LARS, LAMB and Fromage."""

from __future__ import annotations

from typing import Any

import jax.numpy as jnp

from jaxnn.numerics import safe_divide
from jaxnn.optim.arguments import require_nonnegative, require_params
from jaxnn.optim.base import EmptyState, Optimizer, map_leaves, per_leaf, widened
from jaxnn.optim.descent import Mask, add_decay, called_on_stored, descent, mask_tree
from jaxnn.optim.norms import norm, scalar_dtype
from jaxnn.optim.rules.adam import AdamState, scale_by_adam
from jaxnn.optim.rules.sgd import TraceState, trace
from jaxnn.optim.scalars import at_count, cast_like, increment, is_zero, zero_count
from jaxnn.optim.scale import CountState
from jaxnn.optim.spec import specified
from jaxnn.types import Array, Params, PyTree, Scalar, ScalarOrSchedule


@specified
def scale_by_trust_ratio(min_norm: Scalar = 0.0, trust_coefficient: Scalar = 1.0, eps: Scalar = 0.0) -> Optimizer:
    """Multiplies the update u of each parameter array p by a trust ratio, which makes its norm proportional to |p|.

    ratio = trust_coefficient max(|p|, min_norm) / (max(|u|, min_norm) + eps);   update = ratio u
    ratio = 1 where one of the two bounded norms is 0, so that a parameter that starts at 0 moves.

    Args:
        min_norm: lower bound of both norms, >= 0.
        trust_coefficient: >= 0.
        eps: added to the norm of the update.

    Reference: You, Y., Gitman, I. & Ginsburg, B. (2017). Large batch training of convolutional networks, algorithm 1.

    Example:
        >>> opt, params = scale_by_trust_ratio(), jnp.array([0.6, 0.8])
        >>> opt.update(jnp.array([0.0, 5.0]), opt.init(params), params)[0]
        Array([0., 1.], dtype=float32)
    """
    require_nonnegative("scale_by_trust_ratio", min_norm=min_norm, trust_coefficient=trust_coefficient, eps=eps)

    def update(updates: PyTree, state: Any, params: Params | None = None, **extra: Any) -> tuple[PyTree, Any]:
        params = require_params("scale_by_trust_ratio", params)

        def rule(u: Array, p: Array) -> tuple[Array, Array]:
            return _trusted(u, p, min_norm, trust_coefficient, eps), p

        return per_leaf(rule, updates, (params,), params)[0], state

    return Optimizer(lambda params: EmptyState(), update)


@specified
@called_on_stored("weight_decay_mask", "trust_ratio_mask")
def lars(
    learning_rate: ScalarOrSchedule,
    weight_decay: ScalarOrSchedule = 0.0,
    weight_decay_mask: Mask = True,
    trust_coefficient: Scalar = 0.001,
    eps: Scalar = 0.0,
    trust_ratio_mask: Mask = True,
    momentum: Scalar = 0.9,
    nesterov: bool = False,
) -> Optimizer:
    """Momentum with a rate for each array p, proportional to |p| / |u|.

    u = g + weight_decay p;   ratio = trust_coefficient |p| / (|u| + eps), 1 where |p| or |u| is 0
    trace <- momentum trace - learning_rate ratio u
    update = trace, or with `nesterov` momentum trace - learning_rate ratio u

    The learning rate and the ratio are inside the trace, so a schedule acts on new gradients alone. The decay comes
    before the ratio: it changes the direction of the step and is multiplied by the learning rate. The paper has |g| +
    weight_decay |p| for |u| in the ratio: the same without decay.

    Args:
        trust_coefficient, eps: see `scale_by_trust_ratio`; eps is added to the norm, outside its root.
        trust_ratio_mask: which arrays get the ratio (biases usually do not); for the others it is 1.
        momentum: decay of the trace, >= 0. A Python 0 keeps no trace.
        nesterov: whether to use Nesterov's momentum.

    Returns:
        Optimizer with state `TraceState(trace, count)`; trace has the sign of the updates.

    Reference: You, Y., Gitman, I. & Ginsburg, B. (2017). Large batch training of convolutional networks, algorithm 1.

    Example:
        >>> opt, params = lars(1.0), jnp.array([3.0, 4.0])
        >>> opt.update(jnp.array([0.0, 2.0]), opt.init(params), params)[0]
        Array([ 0.   , -0.005], dtype=float32)
    """
    require_nonnegative("lars", learning_rate=learning_rate, weight_decay=weight_decay, momentum=momentum)
    require_nonnegative("lars", trust_coefficient=trust_coefficient, eps=eps)
    summed = trace(momentum, nesterov)

    @widened
    def update(
        updates: PyTree, state: TraceState, params: Params | None = None, **extra: Any
    ) -> tuple[PyTree, TraceState]:
        params, steps = require_params("lars", params), updates
        if not is_zero(weight_decay):
            steps = add_decay(steps, params, at_count(weight_decay, state.count), weight_decay_mask, where="lars")
        rate = at_count(learning_rate, state.count)

        def scaled(u: Array, trusts: bool, p: Array) -> Array:
            return -cast_like(rate, u) * (_trusted(u, p, 0.0, trust_coefficient, eps) if trusts else u)

        steps = map_leaves(scaled, steps, mask_tree("lars", trust_ratio_mask, steps, params), params)
        return summed.update(steps, state, params)

    return Optimizer(summed.init, update)


@specified
@called_on_stored("mask")
def lamb(
    learning_rate: ScalarOrSchedule,
    b1: Scalar = 0.9,
    b2: Scalar = 0.999,
    eps: Scalar = 1e-6,
    eps_root: Scalar = 0.0,
    weight_decay: ScalarOrSchedule = 0.0,
    mask: Mask = None,
) -> Optimizer:
    """Adam with a rate for each array p, proportional to |p| / |u|.

    u = adam's direction + weight_decay p;   update = -learning_rate ratio u,  ratio = |p| / |u|, 1 where either is 0

    eps is outside the root. The decay comes before the ratio and is multiplied by the learning rate.

    Args:
        b1, b2, eps, eps_root: see `scale_by_adam`.
        mask: which parameters decay; all get the ratio.

    Reference: You, Y. et al. (2020). Large batch optimization for deep learning: training BERT in 76 minutes, algorithm
        2 (with phi the identity).

    Example:
        >>> opt, params = lamb(0.1), jnp.array([3.0, 4.0])
        >>> opt.update(jnp.array([2.0, 2.0]), opt.init(params), params)[0]
        Array([-0.35355338, -0.35355338], dtype=float32)
    """
    require_nonnegative("lamb", weight_decay=weight_decay)
    adam_direction, ratio = scale_by_adam(b1, b2, eps, eps_root), scale_by_trust_ratio()

    def update(
        updates: PyTree, state: AdamState, params: Params | None = None, **extra: Any
    ) -> tuple[PyTree, AdamState]:
        params = require_params("lamb", params)
        steps, new = adam_direction.update(updates, state, params)
        if not is_zero(weight_decay):
            steps = add_decay(steps, params, at_count(weight_decay, state.count), mask, where="lamb")
        return ratio.update(steps, (), params)[0], new

    return descent(Optimizer(adam_direction.init, update), learning_rate, where="lamb")


@specified
def fromage(learning_rate: ScalarOrSchedule, min_norm: Scalar = 1e-6) -> Optimizer:
    """Fromage: each array p moves by learning_rate |p|, then shrinks: where g is orthogonal to p, |p| is kept.

    p <- (p - learning_rate ratio g) / sqrt(1 + learning_rate^2),  ratio = max(|p|, min_norm) / max(|g|, min_norm)

    Args:
        learning_rate: number or schedule. 0.01 suits most networks.
        min_norm: lower bound of both norms, >= 0. With 0, ratio = 1 where a norm is 0.

    Reference: Bernstein, J., Vahdat, A., Yue, Y. & Liu, M.-Y. (2020). On the distance between two neural networks and
        the stability of learning, algorithm 1.

    Example:
        >>> opt, params = fromage(0.75), jnp.array([3.0, 4.0])
        >>> updates, state = opt.update(jnp.array([-8.0, 6.0]), opt.init(params), params)
        >>> params + updates
        Array([4.8..., 1.3999...], dtype=float32)
    """
    require_nonnegative("fromage", learning_rate=learning_rate, min_norm=min_norm)

    def init(params: Params) -> CountState:
        scalar_dtype(params)  # rejects integers
        return CountState(zero_count())

    def update(
        updates: PyTree, state: CountState, params: Params | None = None, **extra: Any
    ) -> tuple[PyTree, CountState]:
        params = require_params("fromage", params)
        rate = at_count(learning_rate, state.count)

        def rule(g: Array, p: Array) -> tuple[Array, Array]:
            eta = cast_like(rate, g)
            root = jnp.sqrt(1 + eta * eta)
            # 1 / root - 1 without the cancellation that would lose a small rate.
            shrink = -eta * eta / (root * (1 + root))
            return shrink * p - eta / root * _trusted(g, p, min_norm, 1.0, 0.0), p

        return per_leaf(rule, updates, (params,), params)[0], CountState(increment(state.count))

    return Optimizer(init, update)


def _trusted(u: Array, p: Array, min_norm: Scalar, coefficient: Scalar, eps: Scalar) -> Array:
    """u times its trust ratio against p; `scale_by_trust_ratio` has the equation."""
    least = cast_like(min_norm, u)
    p_norm, u_norm = jnp.maximum(norm(p), least), jnp.maximum(norm(u), least)
    # eps beside the norm bounds the ratio of a tiny update, as in optax. The paper has none: a norm of 0 gives ratio 1.
    ratio = cast_like(coefficient, u) * safe_divide(p_norm, u_norm + cast_like(eps, u))
    return jnp.where((p_norm == 0) | (u_norm == 0), jnp.ones_like(ratio), ratio) * u
