"""Dynamic loss scaling: steps whose float16 gradients overflow are skipped, and the scale adapts."""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from jaxnn.checks import require_between
from jaxnn.optim.base import Optimizer, Transformation, call_update, dtypes_of, is_float0
from jaxnn.optim.inner import init_inner, require_dtypes, require_inner, seen_by
from jaxnn.optim.scalars import increment, zero_count
from jaxnn.optim.spec import specified
from jaxnn.tree import all_finite
from jaxnn.types import Array, Params, PyTree, Scalar


class LossScaleState(NamedTuple):
    """`scale`: float32, of the next step's loss; `good_steps`: int32 finite gradients since it changed;
    `skipped_steps`: int32 steps skipped in all; `inner_state`: of the wrapped optimizer."""

    scale: Array
    good_steps: Array
    skipped_steps: Array
    inner_state: Any


@specified
def dynamic_loss_scale(
    inner: Transformation,
    initial: Scalar = 2.0**15,
    factor: Scalar = 2.0,
    period: Scalar = 2000,
    maximum: Scalar = 2.0**24,
) -> Optimizer:
    """Keep the scale S of the loss for float16 gradients; skip the steps whose gradients are not finite.

    not finite: update = 0, the inner state stays; S <- max(S / factor, 1); skipped_steps + 1
    finite: the inner update; after `period` such steps since S changed, S <- min(S factor, maximum)

    Small cotangents underflow in float16, 6e-8 and below are 0. `train.make_step` passes the scale of this state to
    `train.precision(vg, jnp.float16)`, which multiplies the loss's cotangent by S and divides the gradients by it, in
    float32: those that arrive here are not scaled.

    Args:
        inner: the optimizer, ours or optax's. `master_weights` goes around this: `master_weights(dynamic_loss_scale(
            opt))`.
        initial: the first scale.
        factor: by which it changes, >= 1; a power of 2 changes no digits, 1 keeps the scale.
        period: finite steps before it grows, >= 1.
        maximum: of the scale, >= initial.

    Reference: Micikevicius, P. et al. (2018). Mixed precision training, sections 3.2 and 4 (scaling); the rule of
        growth and decay is that of NVIDIA's Apex and DeepMind's jmp.

    Example:
        >>> from jaxnn import optim
        >>> opt, params = dynamic_loss_scale(optim.sgd(0.1)), jnp.ones(1)
        >>> updates, state = opt.update(jnp.array([jnp.inf]), opt.init(params), params)
        >>> updates, float(state.scale), int(state.skipped_steps)
        (Array([0.], dtype=float32), 16384.0, 1)
    """
    require_inner("dynamic_loss_scale", inner)
    for name, value in (("initial", initial), ("factor", factor), ("period", period), ("maximum", maximum)):
        require_between("dynamic_loss_scale", name, value, 1.0, float("inf"), open_high=True)

    def init(params: Params) -> LossScaleState:
        return LossScaleState(jnp.asarray(initial, jnp.float32), zero_count(), zero_count(), init_inner(inner, params))

    def update(
        updates: PyTree, state: LossScaleState, params: Params | None = None, **extra: Any
    ) -> tuple[PyTree, LossScaleState]:
        finite = all_finite(jax.tree.leaves(updates))
        # Zeros in place of infinities: what is computed and not taken makes no NaN, nor do its derivatives.
        updates = jax.tree.map(lambda g: g if is_float0(g) else jnp.where(finite, g, jnp.zeros_like(g)), updates)
        found, new = call_update(inner, seen_by(inner, updates), state.inner_state, seen_by(inner, params), extra)
        if not isinstance(inner, Optimizer):  # ours return half precision where they mean to, float32 where not
            found = dtypes_of(found, updates if params is None else params)
        new = require_dtypes("dynamic_loss_scale", new, state.inner_state)
        good = jnp.where(finite, state.good_steps + 1, 0)
        due = good >= period
        grown = jnp.where(due, jnp.minimum(state.scale * factor, maximum), state.scale)
        scale = jnp.where(finite, grown, jnp.maximum(state.scale / factor, 1)).astype(state.scale.dtype)
        skipped = jnp.where(finite, state.skipped_steps, increment(state.skipped_steps))
        kept = jax.tree.map(lambda n, old: jnp.where(finite, n, old), new, state.inner_state)
        taken = jax.tree.map(lambda u: jnp.where(finite, u, jnp.zeros_like(u)), found)
        return taken, LossScaleState(scale, jnp.where(due, 0, good), skipped, kept)

    return Optimizer(init, update)


def loss_scale_of(state: Any) -> LossScaleState | None:
    """The state of `dynamic_loss_scale` anywhere in an optimizer's state, or None.

    Raises:
        ValueError: there are several.
    """
    nodes = jax.tree.leaves(state, is_leaf=lambda x: isinstance(x, LossScaleState))
    found = [node for node in nodes if isinstance(node, LossScaleState)]
    if len(found) > 1:
        raise ValueError(
            f"dynamic_loss_scale: the state must hold one loss scale, got {len(found)}. Wrap the whole optimizer once."
        )
    return found[0] if found else None
