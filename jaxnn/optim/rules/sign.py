"""Sign rules: of the gradient, of its running mean, or of a mixture of both."""

from __future__ import annotations

from typing import Any, Literal, NamedTuple, TypeAlias, get_args

import jax
import jax.numpy as jnp

from jaxnn.optim.arguments import require_decay, require_nonnegative, require_real
from jaxnn.optim.base import Optimizer, initial_moment, per_leaf
from jaxnn.optim.descent import Mask, descent
from jaxnn.optim.scalars import cast_like, increment, zero_count
from jaxnn.optim.scale import CountState
from jaxnn.optim.spec import specified
from jaxnn.types import Array, DTypeLike, Params, PyTree, Scalar, ScalarOrSchedule

LionMode: TypeAlias = Literal["hard", "smooth", "refined"]
"""Lion's function of its mixture c: sign(c), tanh(smooth_beta c), or c clipped to |c| <= 1."""


class SignumState(NamedTuple):
    """`count`: int32 steps taken; `ema`: running mean of gradients."""

    count: Array  # type: ignore[assignment] # optax's name; it hides tuple.count
    ema: PyTree


class LionState(NamedTuple):
    """`count`: int32 steps taken; `mu`: running mean of gradients."""

    count: Array  # type: ignore[assignment] # optax's name; it hides tuple.count
    mu: PyTree


@specified
def scale_by_sign() -> Optimizer:
    """The sign of every entry: -1, 0 or 1, with sign(0) = 0; z / |z| for complex z.

    direction = sign(g)

    Reference: Bernstein, J., Wang, Y.-X., Azizzadenesheli, K. & Anandkumar, A. (2018). signSGD: compressed optimisation
        for non-convex problems, algorithm 1.

    Example:
        >>> opt = scale_by_sign()
        >>> opt.update(jnp.array([-3.0, 0.0]), opt.init(jnp.zeros(2)))[0]
        Array([-1.,  0.], dtype=float32)
    """

    def update(
        updates: PyTree, state: CountState, params: Params | None = None, **extra: Any
    ) -> tuple[PyTree, CountState]:
        return per_leaf(lambda g: (jnp.sign(g),), updates, (), params)[0], CountState(increment(state.count))

    def init(params: Params) -> CountState:
        jax.eval_shape(initial_moment, params)  # raises where a parameter is not floating
        return CountState(zero_count())

    return Optimizer(init, update)


@specified
def sign_sgd(learning_rate: ScalarOrSchedule) -> Optimizer:
    """The sign step: update = -learning_rate sign(g), with sign(0) = 0.

    Every entry moves by the same amount, so the parameters oscillate around a minimum unless the learning rate decays.

    Reference: Bernstein, J., Wang, Y.-X., Azizzadenesheli, K. & Anandkumar, A. (2018). signSGD: compressed optimisation
        for non-convex problems, algorithm 1.

    Example:
        >>> opt = sign_sgd(0.5)
        >>> opt.update(jnp.array([-3.0, 0.1]), opt.init(jnp.zeros(2)))[0]
        Array([ 0.5, -0.5], dtype=float32)
    """
    return descent(scale_by_sign(), learning_rate, where="sign_sgd")


@specified
def signum(
    learning_rate: ScalarOrSchedule, beta: Scalar = 0.9, accumulator_dtype: DTypeLike | None = None
) -> Optimizer:
    """The sign step along the running mean of gradients.

    ema <- beta ema + (1 - beta) g;   update = -learning_rate sign(ema)

    Args:
        beta: decay of the mean, in [0, 1).
        accumulator_dtype: of the mean; None means the accumulation dtype.

    Reference: Bernstein, J., Wang, Y.-X., Azizzadenesheli, K. & Anandkumar, A. (2018). signSGD: compressed optimisation
        for non-convex problems, algorithm 2.

    Example:
        >>> opt = signum(0.5)
        >>> opt.update(jnp.array([-3.0, 0.1]), opt.init(jnp.zeros(2)))[0]
        Array([ 0.5, -0.5], dtype=float32)
    """
    require_decay("signum", beta=beta)

    def init(params: Params) -> SignumState:
        return SignumState(zero_count(), initial_moment(params, accumulator_dtype))

    def update(
        updates: PyTree, state: SignumState, params: Params | None = None, **extra: Any
    ) -> tuple[PyTree, SignumState]:
        def rule(g: Array, ema: Array) -> tuple[Array, Array]:
            ema = cast_like(beta, g) * ema + (1 - cast_like(beta, g)) * g
            return jnp.sign(ema), ema

        updates, ema = per_leaf(rule, updates, (state.ema,), params)
        return updates, SignumState(increment(state.count), ema)

    return descent(Optimizer(init, update), learning_rate, where="signum")


@specified
def scale_by_lion(
    b1: Scalar = 0.9,
    b2: Scalar = 0.99,
    mu_dtype: DTypeLike | None = None,
    *,
    mode: LionMode = "hard",
    smooth_beta: Scalar = 1.0,
) -> Optimizer:
    """Lion's direction, which `lion` multiplies by -learning_rate.

    c = b1 mu + (1 - b1) g;   mu <- b2 mu + (1 - b2) g
    direction = sign(c) ("hard"), tanh(smooth_beta c) ("smooth"), c where |c| < 1 and sign(c) elsewhere ("refined")

    Args:
        b1: weight of the mean in the mixture, in [0, 1).
        b2: decay of the mean, in [0, 1).
        mu_dtype: of mu; None means the accumulation dtype.
        mode: "hard", "smooth" or "refined"; static. The paper's is "hard".
        smooth_beta: slope of tanh at 0 in the mode "smooth".

    Raises:
        TypeError: complex parameters in the mode "smooth".

    Reference: Chen, X. et al. (2023). Symbolic discovery of optimization algorithms, algorithm 2.

    Example:
        >>> opt = scale_by_lion(0.5, mode="refined")
        >>> opt.update(jnp.array([1.0]), opt.init(jnp.zeros(1)))[0]
        Array([0.5], dtype=float32)
    """
    require_decay("lion", b1=b1, b2=b2)
    require_nonnegative("lion", smooth_beta=smooth_beta)
    if mode not in get_args(LionMode):
        raise ValueError(f"lion: mode must be one of {get_args(LionMode)}, got {mode!r}.")

    def init(params: Params) -> LionState:
        if mode == "smooth":
            require_real("scale_by_lion", params)
        return LionState(zero_count(), initial_moment(params, mu_dtype))

    def update(
        updates: PyTree, state: LionState, params: Params | None = None, **extra: Any
    ) -> tuple[PyTree, LionState]:
        def rule(g: Array, mu: Array) -> tuple[Array, Array]:
            mixed = cast_like(b1, g) * mu + (1 - cast_like(b1, g)) * g
            direction = jnp.sign(mixed)
            if mode == "smooth":
                direction = jnp.tanh(cast_like(smooth_beta, g) * mixed)
            elif mode == "refined":
                direction = jnp.where(jnp.abs(mixed) < 1, mixed, direction)
            return direction, cast_like(b2, g) * mu + (1 - cast_like(b2, g)) * g

        updates, mu = per_leaf(rule, updates, (state.mu,), params)
        return updates, LionState(increment(state.count), mu)

    return Optimizer(init, update)


@specified
def lion(
    learning_rate: ScalarOrSchedule,
    b1: Scalar = 0.9,
    b2: Scalar = 0.99,
    mu_dtype: DTypeLike | None = None,
    weight_decay: ScalarOrSchedule = 1e-3,
    mask: Mask = None,
) -> Optimizer:
    """Lion: update = -learning_rate (sign(b1 mu + (1 - b1) g) + weight_decay params), then mu <- b2 mu + (1 - b2) g.

    b1, b2 and mu_dtype are those of `scale_by_lion`. The decay is decoupled and multiplied by the learning rate. A
    learning rate 3 to 10 times smaller than AdamW's, with a decay as many times larger, is usual.

    Reference: Chen, X. et al. (2023). Symbolic discovery of optimization algorithms, algorithm 2.

    Example:
        >>> opt = lion(0.1, weight_decay=0.5)
        >>> params = jnp.array([1.0])
        >>> opt.update(jnp.array([3.0]), opt.init(params), params)[0]
        Array([-0.15], dtype=float32)
    """
    return descent(scale_by_lion(b1, b2, mu_dtype), learning_rate, weight_decay=weight_decay, mask=mask, where="lion")
