"""Gradient descent under the playground's penalties, as optimizers.

The original adds lambda R'(w) to the gradient of weights, not biases, with R(w) = 1/2 w^2 (L2, R' = w) or R(w) = |w|
(L1), and reports the loss without it. So here the penalty is part of the step, not of the loss.
"""

from __future__ import annotations

from typing import Any, Literal, NamedTuple, get_args

import jax
import jax.numpy as jnp

from jaxnn import optim, tree
from jaxnn.checks import require_between
from jaxnn.types import Array, Params, PyTree, Scalar

Regularization = Literal["none", "l1", "l2"]


class SparseState(NamedTuple):
    """`alive`: pytree of bool arrays like `params`, False where the penalty has moved a weight across 0: it stays 0."""

    alive: PyTree


def sparse_sgd(learning_rate: Scalar, strength: Scalar) -> optim.Optimizer:
    """Gradient descent with an L1 penalty; a weight that the penalty moves across 0 is 0 from then on.

    w' = w - learning_rate g;   w'' = w' - learning_rate strength sign(w);
    where w' w'' < 0 the penalty has moved the weight across 0: it becomes 0 and stays 0. Else w <- w''.

    g is the gradient. A weight that the gradient alone moves across 0 is kept, and so is one that is exactly 0. Biases
    (leaves that `tree.is_weight` excludes) take the plain step w'.

    Args:
        learning_rate: >= 0; may be traced.
        strength: lambda >= 0; may be traced.

    Returns:
        Optimizer with state `SparseState(alive)`; its update needs `params`.

    Raises:
        ValueError: an argument is negative or infinite, or the update receives no params.

    Reference: Smilkov, D. et al. (2017). Direct-manipulation visualization of deep networks; updateWeights in src/nn.ts
        of its source. Tibshirani, R. (1996). Regression shrinkage and selection via the lasso.

    Example:
        >>> opt = sparse_sgd(0.5, 1.0)
        >>> params = {"w": jnp.array([0.25, 2.0])}
        >>> updates, state = opt.update({"w": jnp.zeros(2)}, opt.init(params), params)
        >>> optim.apply_updates(params, updates), state.alive
        ({'w': Array([0. , 1.5], dtype=float32)}, {'w': Array([False,  True], dtype=bool)})
    """
    _require_numbers("sparse_sgd", learning_rate, strength)

    def init(params: Params) -> SparseState:
        return SparseState(jax.tree.map(lambda w: jnp.ones(w.shape, bool), params))

    def update(
        updates: PyTree, state: SparseState, params: Params | None = None, **extra: Any
    ) -> tuple[PyTree, SparseState]:
        if params is None:
            raise ValueError("sparse_sgd: update needs the parameters, got None. Call update(grads, state, params).")
        penalised = tree.is_weight(params)
        moved = jax.tree.map(lambda w, g: w - jnp.asarray(learning_rate, w.dtype) * g, params, updates)
        shrink = jnp.asarray(learning_rate) * strength

        def shrunk(w: Array, step: Array, penalise: bool) -> Array:
            return step - shrink.astype(w.dtype) * jnp.sign(w) if penalise else step

        after = jax.tree.map(shrunk, params, moved, penalised)
        alive = jax.tree.map(lambda a, s, t: a & (jnp.sign(s) * jnp.sign(t) >= 0), state.alive, moved, after)
        updates = jax.tree.map(lambda w, new, a: jnp.where(a, new, jnp.zeros_like(new)) - w, params, after, alive)
        return updates, SparseState(alive)

    return optim.Optimizer(init, update)


def make_optimizer(regularization: Regularization, learning_rate: Scalar, strength: Scalar) -> optim.Optimizer:
    """Gradient descent with the penalty of that name.

    none: w <- w - learning_rate g;   l2: w <- w - learning_rate (g + strength w), without strength w for
    biases;   l1: `sparse_sgd`

    Args:
        regularization: "none", "l1" or "l2".
        learning_rate: >= 0; may be traced.
        strength: lambda >= 0; may be traced. Ignored by "none".

    Raises:
        ValueError: an unknown name, or a negative or infinite number.

    Example:
        >>> opt = make_optimizer("l2", 0.5, 0.1)
        >>> params = {"b": jnp.ones(1), "w": jnp.ones(1)}
        >>> opt.update(jax.tree.map(jnp.zeros_like, params), opt.init(params), params)[0]
        {'b': Array([-0.], dtype=float32), 'w': Array([-0.05], dtype=float32)}
    """
    _require_numbers("make_optimizer", learning_rate, strength)
    if regularization == "none":
        return optim.sgd(learning_rate)
    if regularization == "l2":
        return optim.chain(optim.add_decayed_weights(strength, mask=tree.is_weight), optim.sgd(learning_rate))
    if regularization == "l1":
        return sparse_sgd(learning_rate, strength)
    known = ", ".join(get_args(Regularization))
    raise ValueError(f"make_optimizer: no regularization {regularization!r}; there are: {known}.")


def _require_numbers(where: str, learning_rate: Scalar, strength: Scalar) -> None:
    require_between(where, "learning_rate", learning_rate, 0, float("inf"), open_high=True)
    require_between(where, "strength", strength, 0, float("inf"), open_high=True)
