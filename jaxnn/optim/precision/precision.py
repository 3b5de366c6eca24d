"""Updates of half-precision weights: master copies, stochastic rounding and compensated (Kahan) sums.

In bfloat16, 1 + 0.001 is 1: steps of 0.001 never move a weight near 1. Each combinator here wraps a whole optimizer,
which then works on gradients and parameters in the accumulation dtype (float32). Wrap outermost: inside a `chain`
parameters are already widened. `master_weights` and `stochastic_rounding` return float32 updates of half-precision
parameters: a bfloat16 update cannot represent every difference, and `apply_updates` adds in float32. `kahan` returns
updates in the parameter's dtype, since it keeps what rounding loses.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from jaxnn.numerics import accumulate, accumulation_dtype
from jaxnn.optim.arguments import require_params
from jaxnn.optim.base import Optimizer, Transformation, call_update, dtypes_of, initial_moment, map_leaves, widen
from jaxnn.optim.chain import require_transformation
from jaxnn.optim.keys import given_key, raw_key, typed_key
from jaxnn.optim.precision.rounding import rounded, rounded_at_random
from jaxnn.optim.spec import specified
from jaxnn.types import Array, DTypeLike, Key, Params, PyTree


class MasterWeightsState(NamedTuple):
    """`inner_state`: of the optimizer; `master`: the weights in float32, None where a parameter needs no copy."""

    inner_state: Any
    master: PyTree


class StochasticRoundingState(NamedTuple):
    """`inner_state`: of the optimizer; `key`: raw data of the random key of the next step, uint32."""

    inner_state: Any
    key: Array


class KahanState(NamedTuple):
    """`inner_state`: of the optimizer; `compensation`: exact sums minus parameters."""

    inner_state: Any
    compensation: PyTree


@specified
def master_weights(opt: Transformation) -> Optimizer:
    """Keep a float32 copy of half-precision parameters and update the copy.

    m <- m + step(m), from m = p;   update = round(m) - p, so that p + update = round(m), rounded to nearest

    `opt`, ours or optax's, computes step(m).

    The copy is authoritative: parameters changed from outside return to round(m). Parameters in float32 or float64
    need no copy. If a weight falls in one step below 2^-16 (bfloat16) or 2^-13 (float16) of its magnitude, p + update
    may be off by 2^-24 |p|, the resolution of float32; the next step corrects it. Updates of half-precision parameters
    are float32.

    Reference: Micikevicius, P. et al. (2018). Mixed precision training, section 3.1.

    Example:
        >>> from jaxnn import optim
        >>> opt = master_weights(optim.sgd(0.001))
        >>> params = jnp.ones((), jnp.bfloat16)
        >>> state = opt.init(params)
        >>> for _ in range(4):
        ...     updates, state = opt.update(jnp.ones((), jnp.bfloat16), state, params)
        ...     params = optim.apply_updates(params, updates)
        >>> print(params, state.master)
        0.996094 0.99600005
    """
    require_transformation("master_weights", "opt", opt)

    def init(params: Params) -> MasterWeightsState:
        master = map_leaves(lambda p: accumulate(jnp.asarray(p)) if _is_half(p) else None, params)
        return MasterWeightsState(opt.init(widen(params)), master)

    def update(
        updates: PyTree, state: MasterWeightsState, params: Params | None = None, **extra: Any
    ) -> tuple[PyTree, MasterWeightsState]:
        params = require_params("master_weights", params)
        weights = map_leaves(lambda p, m: p if m is None else m, params, state.master)
        steps, inner = call_update(opt, widen(updates), state.inner_state, weights, extra)

        def rule(step: Array, p: Array, m: Array | None) -> tuple[Array, Array | None]:
            if m is None:
                return step, None
            m = m + step
            return rounded(m, p.dtype) - accumulate(p), m

        updates, master = _each(rule, steps, params, state.master)
        return updates, MasterWeightsState(inner, master)

    return Optimizer(init, update)


@specified
def stochastic_rounding(opt: Transformation, key: Key) -> Optimizer:
    """Round half-precision parameters up or down at random, without bias.

    w = p + (the update of `opt`), in float32, between the neighbours a <= w < b that p's dtype can store:
    p + update = b with probability (w - a) / (b - a), else a;   so E[p + update] = w

    Needs no extra memory; each step adds noise of variance (w - a) (b - w). Parameters in float32 or float64 get the
    plain update. Updates of half-precision parameters are float32, and p + update is exactly a or b.

    Args:
        opt: the optimizer to wrap, ours or optax's.
        key: random key of the first step, typed or raw, or an integer.

    Reference: Gupta, S., Agrawal, A., Gopalakrishnan, K. & Narayanan, P. (2015). Deep learning with limited numerical
        precision, section 3.

    Example:
        >>> from jaxnn import optim
        >>> opt = stochastic_rounding(optim.sgd(0.001), jax.random.key(0))
        >>> params = jnp.ones(10_000, jnp.bfloat16)
        >>> updates, _ = jax.jit(opt.update)(params, opt.init(params), params)
        >>> abs((params + updates).mean() - 0.999) < 1e-4
        Array(True, dtype=bool)
    """
    require_transformation("stochastic_rounding", "opt", opt)
    first = given_key("stochastic_rounding", key)

    def init(params: Params) -> StochasticRoundingState:
        return StochasticRoundingState(opt.init(widen(params)), raw_key(first))

    def update(
        updates: PyTree, state: StochasticRoundingState, params: Params | None = None, **extra: Any
    ) -> tuple[PyTree, StochasticRoundingState]:
        params = require_params("stochastic_rounding", params)
        steps, inner = call_update(opt, widen(updates), state.inner_state, widen(params), extra)
        following, drawing = jax.random.split(typed_key(state.key, first))
        structure: Any = jax.tree.structure(steps)
        keys = [jax.random.fold_in(drawing, i) for i in range(structure.num_leaves)]

        def leaf(step: Array, p: Array, key: Key) -> Array:
            if not _is_half(p):
                return step
            wide = accumulate(p)
            return rounded_at_random(key, wide + step, p.dtype) - wide

        updates = map_leaves(leaf, steps, params, jax.tree.unflatten(structure, keys))
        return updates, StochasticRoundingState(inner, jax.random.key_data(following))

    return Optimizer(init, update)


@specified
def kahan(opt: Transformation, dtype: DTypeLike | None = None) -> Optimizer:
    """Keep the rounding error of each parameter and add it to the next step.

    y = step + c;   update = round(round(p + y) - p);   p' = round(p + update);   c <- (p + y) - p'

    round is to the dtype of p, to nearest; step is the update of `opt`, c the compensation, 0 at the start. The sum p +
    y and its difference from p' are computed without error. p' is round(p + y) wherever round(p + y) - p can be stored,
    i.e. unless p changes by more than a factor of 2.

    p + c is the running sum of all steps. In bfloat16 with a bfloat16 c it has about 16 bits instead of 8: steps below
    2^-18 |p| are lost again, unless c is float32 (`dtype`). With float32 parameters it helps sums of very many, very
    small steps.

    Args:
        opt: the optimizer to wrap, ours or optax's.
        dtype: of the compensation; None means each parameter's own.

    Reference: Kahan, W. (1965). Further remarks on reducing truncation errors; the error of a sum by Knuth, D. E.
        (1969). The art of computer programming, volume 2, section 4.2.2, theorem B. Zamirai, P., Zhang, J., Aberger, C.
        R. & De Sa, C. (2020). Revisiting bfloat16 training, algorithm 1.

    Example:
        >>> from jaxnn import optim
        >>> opt = kahan(optim.sgd(0.001))
        >>> params = jnp.ones((), jnp.bfloat16)
        >>> state = opt.init(params)
        >>> for _ in range(4):
        ...     updates, state = opt.update(jnp.ones((), jnp.bfloat16), state, params)
        ...     params = optim.apply_updates(params, updates)
        >>> print(params, state.compensation)
        0.996094 -9.20296e-05
    """
    require_transformation("kahan", "opt", opt)

    def init(params: Params) -> KahanState:
        zeros = initial_moment(params, dtype)
        return KahanState(opt.init(widen(params)), dtypes_of(zeros, params) if dtype is None else zeros)

    def update(
        updates: PyTree, state: KahanState, params: Params | None = None, **extra: Any
    ) -> tuple[PyTree, KahanState]:
        params = require_params("kahan", params)
        steps, inner = call_update(opt, widen(updates), state.inner_state, widen(params), extra)

        def rule(step: Array, p: Array, c: Array) -> tuple[Array, Array]:
            wide = accumulate(p)
            y = step + c.astype(step.dtype)
            total = wide + y
            back = total - wide
            lost = (wide - (total - back)) + (y - back)  # by the float32 sum
            change = rounded(rounded(total, p.dtype) - wide, p.dtype)
            landed = rounded(wide + change, p.dtype)
            return change.astype(p.dtype), ((total - landed) + lost).astype(c.dtype)

        updates, compensation = _each(rule, steps, params, state.compensation)
        return updates, KahanState(inner, compensation)

    return Optimizer(init, update)


def _is_half(p: Array) -> bool:
    """Whether a parameter is stored in less than its accumulation dtype."""
    kind = jnp.result_type(p)
    return jnp.issubdtype(kind, jnp.inexact) and kind != accumulation_dtype(kind)


def _each(rule: Callable[..., tuple[Any, Any]], steps: PyTree, params: Params, kept: PyTree) -> tuple[PyTree, PyTree]:
    """`rule(step, p, kept) -> (update, kept)` at every leaf; where a step is None, what was kept stays."""
    structure: Any
    leaves, structure = jax.tree.flatten(steps, is_leaf=lambda x: x is None)
    columns = zip(leaves, structure.flatten_up_to(params), structure.flatten_up_to(kept), strict=True)
    rows = [(None, k) if step is None else rule(step, p, k) for step, p, k in columns]
    updates, new = zip(*rows, strict=True) if rows else ((), ())
    return jax.tree.unflatten(structure, updates), jax.tree.unflatten(structure, new)
