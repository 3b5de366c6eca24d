"""Diagnostics of a run in the manner of Cockpit: norms, angles, distance, and gradient noise.

| name | after each epoch |
|---|---|
| `grad_norm` | mean over its steps of the norm of the gradient |
| `update_norm` | mean over its steps of the norm of the update u_t |
| `alignment` | mean over its steps of the cosine of u_(t-1) and u_t (0 if one is 0): 1 along a valley, -1 across it |
| `distance` | norm of the parameters minus their initial values |
| `noise_scale` | tr(Sigma) / norm(G)^2: the batch size at which noise and signal are equal |
| `snr` | signal-to-noise ratio norm(G)^2 N / tr(Sigma) of the mean gradient of a batch of N; 0 if tr(Sigma) is 0 |

G and Sigma are mean and covariance of the per-example gradients after the epoch, in evaluation mode, estimated from
`EXAMPLES` examples; an estimate of norm(G)^2 may be negative.

Reference: Schneider, F., Dangel, F. & Hennig, P. (2021). Cockpit: a practical debugging tool for the training of deep
neural networks.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from jaxnn import backprop, per_example, tree
from jaxnn.compare.problems import Problem
from jaxnn.numerics import safe_divide
from jaxnn.optim import Optimizer
from jaxnn.optim.base import call_update
from jaxnn.train import TrainState
from jaxnn.types import Array, Params, PyTree

EXAMPLES = 256
"""Number of training examples from which the noise is estimated."""


class WatchState(NamedTuple):
    """`inner_state`: of the rule; `start`: its first parameters; `previous`: its last updates; `steps`: int32; `sums`:
    over the steps of the epoch, by name."""

    inner_state: Any
    start: Params
    previous: PyTree
    steps: Array
    sums: dict[str, Array]


def watched(opt: Any, steps: int) -> Optimizer:
    """The same optimizer; statistics of its steps are accumulated in the state, over each epoch.

    Args:
        opt: ours or optax's.
        steps: number of steps per epoch.

    Returns:
        Optimizer with state WatchState.
    """

    def init(params: Params) -> WatchState:
        zero = jnp.zeros_like(tree.norm(params))
        sums = dict.fromkeys(("grad_norm", "update_norm", "alignment"), zero)
        return WatchState(opt.init(params), params, jax.tree.map(jnp.zeros_like, params), jnp.int32(0), sums)

    def update(
        updates: PyTree, state: WatchState, params: Params | None = None, **extra: Any
    ) -> tuple[PyTree, WatchState]:
        grads = updates
        updates, inner_state = call_update(opt, grads, state.inner_state, params, extra)
        found = {
            "grad_norm": tree.norm(grads),
            "update_norm": tree.norm(updates),
            "alignment": _cosine(updates, state.previous),
        }
        first = state.steps % steps == 0
        sums = {name: jnp.where(first, 0, state.sums[name]) + value for name, value in found.items()}
        return updates, WatchState(inner_state, state.start, updates, state.steps + 1, sums)

    return Optimizer(init, update)


def reading(ts: TrainState, steps: int) -> dict[str, Array]:
    """Statistics of the last epoch of a watched optimizer: grad_norm, update_norm, alignment, distance; each ().

    The alignment of a first epoch of one step is NaN.

    Args:
        ts: the TrainState after the epoch; its `opt_state` is a WatchState.
        steps: number of steps per epoch.
    """
    watch: WatchState = ts.opt_state
    found = {name: total / steps for name, total in watch.sums.items()}
    # The first step has no predecessor.
    pairs = jnp.where(watch.steps <= steps, steps - 1, steps)
    found["alignment"] = jnp.where(pairs > 0, watch.sums["alignment"] / pairs, jnp.nan)
    return found | {"distance": tree.norm(tree.subtract(ts.params, watch.start))}


def noise(problem: Problem, ts: TrainState, x: Array, y: Array, *, batch_size: int) -> dict[str, Array]:
    """Noise scale and signal-to-noise ratio at the parameters of `ts`, from the first `EXAMPLES` examples of (x, y).

    Args:
        problem: its network and loss are used.
        ts: parameters and state.
        x, y: training examples (N, ...).
        batch_size: that of the signal-to-noise ratio.

    Returns:
        {"noise_scale": (), "snr": ()}; NaN for a problem of one example, which has no noise.
    """
    if len(x) < 2:
        return {"noise_scale": jnp.asarray(jnp.nan), "snr": jnp.asarray(jnp.nan)}
    tape = backprop.record(problem.net, problem.loss)(ts.params, ts.state, x[:EXAMPLES], y[:EXAMPLES], train=False)
    found = per_example.noise_scale(tape)
    return {"noise_scale": found.scale, "snr": batch_size * safe_divide(found.sq_norm, found.trace)}


def _cosine(a: PyTree, b: PyTree) -> Array:
    """Cosine of the angle between two pytrees, 0 where one of them is 0."""
    return safe_divide(tree.vdot(a, b), tree.norm(a) * tree.norm(b))
