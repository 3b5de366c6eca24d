"""Muon: orthogonalized momentum for matrices, and Adam for the rest."""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from jaxnn.checks import require_positive_int
from jaxnn.optim.arguments import require_decay, require_nonnegative
from jaxnn.optim.base import Optimizer, initial_moment, map_leaves, per_leaf, widened
from jaxnn.optim.descent import Mask, called_on_stored, descent
from jaxnn.optim.matrix.muon_axes import (
    MuonDimensionNumbers,
    NumbersOrFn,
    fans,
    is_numbers,
    matrices,
    matrix_axes,
    numbers_tree,
)
from jaxnn.optim.matrix.newton_schulz import Preconditioning, coefficient_rows, orthogonalized, require_preconditioning
from jaxnn.optim.rules.adam import adamw
from jaxnn.optim.scalars import cast_like, increment, one_minus_power, zero_count
from jaxnn.optim.spec import specified
from jaxnn.optim.wrappers.partition import partition
from jaxnn.types import Array, DTypeLike, Params, PyTree, Scalar, ScalarOrSchedule

JORDAN = (3.4445, -4.7750, 2.0315)
DION = (
    (4.0848, -6.8946, 2.9270),
    (3.9505, -6.3029, 2.6377),
    (3.7418, -5.5913, 2.3037),
    (2.8769, -3.1427, 1.2046),
    (2.8366, -3.0525, 1.2012),
)
PRESETS = {"standard": JORDAN, "dion": DION}


class MuonState(NamedTuple):
    """`count`: int32 steps taken; `mu`: mean of gradients; `ns_coeffs`: coefficients of the Newton-Schulz steps."""

    count: Array  # type: ignore[assignment] # optax's name; it hides tuple.count
    mu: PyTree
    ns_coeffs: Array


@specified
@called_on_stored("weight_dimension_numbers")
def scale_by_muon(
    ns_coeffs: Any = JORDAN,
    ns_steps: int = 5,
    beta: Scalar = 0.95,
    eps: Scalar = 1e-8,
    mu_dtype: DTypeLike | None = None,
    *,
    nesterov: bool = True,
    adaptive: bool = False,
    preconditioning: Preconditioning = "frobenius",
    weight_dimension_numbers: NumbersOrFn = None,
) -> Optimizer:
    """Muon's direction: the nearly orthogonalized mean of gradients, which `muon` scales by shape and -learning_rate.

    mu <- beta mu + (1 - beta) g;   t = 1, 2, ...
    mu_hat = mu / (1 - beta^t), or with `nesterov` beta mu / (1 - beta^(t+1)) + (1 - beta) g / (1 - beta^t)
    direction = O, or if `adaptive` <mu_hat, O> O, with O = `orthogonalize_via_newton_schulz`(mu_hat)

    Newton-Schulz runs in the accumulation dtype: float32 for bfloat16 (in optax, bfloat16). The published rule has no
    bias correction; without `nesterov` and `adaptive` that changes only the weight of eps.

    Args:
        ns_coeffs: (a, b, c), or one row for each step, of which the last `ns_steps` are used.
        ns_steps: Newton-Schulz steps; static.
        beta: decay of mu, in [0, 1).
        eps: added to the norm that divides a matrix.
        mu_dtype: of mu; None means the accumulation dtype.
        nesterov: whether to use Nesterov's momentum.
        adaptive: whether to multiply by the inner product over the whole array (the dual norm of mu_hat).
        preconditioning: see `orthogonalize_via_newton_schulz`.
        weight_dimension_numbers: the row and column axes of each array, as for `muon`; None: every array is a matrix.

    Raises:
        ValueError: an array that is not a matrix.

    Reference: Jordan, K. et al. (2024). Muon: an optimizer for hidden layers in neural networks. Bernstein, J. &
        Newhouse, L. (2024). Old optimizer, new norm: an anthology (`adaptive`).

    Example:
        >>> opt = scale_by_muon()
        >>> opt.update(jnp.diag(jnp.array([4.0, 3.0])), opt.init(jnp.zeros((2, 2))))[0].round(1)
        Array([[1.1, 0. ],
               [0. , 0.7]], dtype=float32)
    """
    require_decay("muon", beta=beta)
    require_nonnegative("muon", eps=eps)
    require_preconditioning("muon", preconditioning)
    require_positive_int("muon", "ns_steps", ns_steps)
    coefficient_rows("muon", ns_coeffs, ns_steps)

    def init(params: Params) -> MuonState:
        map_leaves(
            lambda p, numbers: matrix_axes("muon", jnp.shape(p), numbers),
            params,
            numbers_tree(weight_dimension_numbers, params),
        )
        coeffs = jnp.asarray(ns_coeffs, float)
        return MuonState(
            zero_count(), initial_moment(params, mu_dtype), coeffs[-ns_steps:] if coeffs.ndim == 2 else coeffs
        )

    @widened
    def update(
        updates: PyTree, state: MuonState, params: Params | None = None, **extra: Any
    ) -> tuple[PyTree, MuonState]:
        count = increment(state.count)
        c, next_c = one_minus_power(beta, count), one_minus_power(beta, count + 1)
        rows = coefficient_rows("muon", state.ns_coeffs, ns_steps)

        def mean(g: Array, mu: Array) -> tuple[Array, Array]:
            d = cast_like(beta, mu)
            mu = d * mu + (1 - d) * g
            ahead = (
                d * mu / cast_like(next_c, mu) + (1 - d) * g / cast_like(c, mu) if nesterov else mu / cast_like(c, mu)
            )
            return ahead, mu

        def direction(mu_hat: Array, numbers: MuonDimensionNumbers | None) -> Array:
            axes = matrix_axes("muon", mu_hat.shape, numbers)
            o = orthogonalized(mu_hat, axes, rows, preconditioning, eps)
            return jnp.sum(jnp.conj(mu_hat) * o) * o if adaptive else o

        mu_hat, mu = per_leaf(mean, updates, (state.mu,), params)
        directions = map_leaves(direction, mu_hat, numbers_tree(weight_dimension_numbers, mu_hat))
        return directions, MuonState(count, mu, state.ns_coeffs)

    return Optimizer(init, update)


@specified
@called_on_stored("muon_weight_dimension_numbers")
def muon(
    learning_rate: ScalarOrSchedule,
    ns_coeffs: Any = JORDAN,
    ns_steps: int = 5,
    beta: Scalar = 0.95,
    eps: Scalar = 1e-8,
    weight_decay: ScalarOrSchedule = 0.0,
    weight_decay_mask: Mask = None,
    mu_dtype: DTypeLike | None = None,
    *,
    nesterov: bool = True,
    adaptive: bool = False,
    preconditioning: Preconditioning = "frobenius",
    adam_b1: Scalar = 0.9,
    adam_b2: Scalar = 0.999,
    adam_eps_root: Scalar = 0.0,
    adam_weight_decay: ScalarOrSchedule = 0.0,
    adam_learning_rate: ScalarOrSchedule | None = None,
    muon_weight_dimension_numbers: NumbersOrFn = None,
    consistent_rms: Scalar | None = None,
) -> Optimizer:
    """Muon for matrices and AdamW for the rest.

    Matrices: update = -learning_rate (s direction + weight_decay params), `scale_by_muon` having the direction, and
    s = sqrt(max(1, columns / rows)), or with `consistent_rms` s = consistent_rms sqrt(max(rows, columns))
    The rest: `adamw` with the arguments adam_..., and the same eps, mu_dtype and nesterov

    Rows are inputs and columns outputs, as in x w. The decay is multiplied by the learning rate. Every matrix is
    orthogonalized, embeddings and the last layer too, which the authors leave to Adam: see `muon_with_roles`.

    Args:
        ns_coeffs: as for `scale_by_muon`, or "standard" or "dion".
        ns_steps, beta, eps, mu_dtype, nesterov, adaptive, preconditioning: see `scale_by_muon`.
        weight_decay: of matrices, number or schedule.
        weight_decay_mask: which matrices decay.
        adam_b1, adam_b2, adam_eps_root, adam_weight_decay: of the rest, all of which decays; see `adamw`.
        adam_learning_rate: of the rest; None means `learning_rate`.
        muon_weight_dimension_numbers: `MuonDimensionNumbers` for arrays to orthogonalize and None for the rest, in a
            pytree like the parameters or a prefix of it, or a function of the parameters that returns one. None: all
            arrays of 2 axes.
        consistent_rms: the root mean square of a full-rank direction whatever its shape; 0.2 is like Adam's.

    Returns:
        Optimizer with state `PartitionState`: a `MaskedState` of a `MuonState` under "muon", of an `AdamState` under
            "adam".

    Raises:
        ValueError: axes out of range for an array.

    Reference: Jordan, K. et al. (2024). Muon: an optimizer for hidden layers in neural networks. Liu, J. et al. (2025).
        Muon is scalable for LLM training, section 2.2 (`consistent_rms`, decay).

    Example:
        >>> opt, params = muon(0.1), {"w": jnp.zeros((2, 2)), "b": jnp.zeros(2)}
        >>> grads = {"w": jnp.diag(jnp.array([4.0, 3.0])), "b": jnp.ones(2)}
        >>> jax.jit(opt.update)(grads, opt.init(params), params)[0]["w"].round(3) + 0.0
        Array([[-0.112,  0.   ],
               [ 0.   , -0.072]], dtype=float32)
    """
    rate = learning_rate if adam_learning_rate is None else adam_learning_rate
    require_nonnegative("muon", adam_learning_rate=rate, adam_weight_decay=adam_weight_decay)
    require_nonnegative("muon", consistent_rms=consistent_rms)
    if isinstance(ns_coeffs, str) and ns_coeffs not in PRESETS:
        raise ValueError(f"muon: ns_coeffs must be numbers or one of {', '.join(PRESETS)}, got {ns_coeffs!r}.")
    numbers = matrices if muon_weight_dimension_numbers is None else muon_weight_dimension_numbers
    direction = scale_by_muon(
        PRESETS[ns_coeffs] if isinstance(ns_coeffs, str) else ns_coeffs,
        ns_steps,
        beta,
        eps,
        mu_dtype,
        nesterov=nesterov,
        adaptive=adaptive,
        preconditioning=preconditioning,
        weight_dimension_numbers=numbers,
    )
    hidden = descent(
        scaled_by_shape(direction, numbers, consistent_rms),
        learning_rate,
        weight_decay=weight_decay,
        mask=weight_decay_mask,
        where="muon",
    )
    rest = adamw(
        rate, adam_b1, adam_b2, eps, adam_eps_root, mu_dtype, weight_decay=adam_weight_decay, nesterov=nesterov
    )

    def labels(params: Params) -> PyTree:
        return jax.tree.map(
            lambda n: "adam" if n is None else "muon", numbers_tree(numbers, params), is_leaf=is_numbers
        )

    return partition({"muon": hidden, "adam": rest}, labels)


@specified
def scaled_by_shape(direction: Optimizer, numbers: NumbersOrFn, consistent_rms: Scalar | None) -> Optimizer:
    """Muon's direction times a number that depends on the shape of its matrices; `muon` has the equation."""

    def update(updates: PyTree, state: Any, params: Params | None = None, **extra: Any) -> tuple[PyTree, Any]:
        steps, new = direction.update(updates, state, params, **extra)

        def leaf(step: Array, n: MuonDimensionNumbers | None) -> Array:
            rows, columns = fans(step.shape, matrix_axes("muon", step.shape, n))
            if consistent_rms is None:
                return cast_like(max(1.0, columns / max(rows, 1)) ** 0.5, step) * step
            return cast_like(consistent_rms, step) * cast_like(max(rows, columns) ** 0.5, step) * step

        return map_leaves(leaf, steps, numbers_tree(numbers, steps)), new

    return Optimizer(direction.init, update)
