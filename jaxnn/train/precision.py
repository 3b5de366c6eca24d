"""Mixed precision: the network in half precision, everything around it in float32."""

from __future__ import annotations

import dataclasses
import inspect
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxnn.checks import require_floating, require_function
from jaxnn.numerics import accumulate, accumulation_dtype
from jaxnn.optim.base import dtypes_of
from jaxnn.optim.precision.loss_scale import LossScaleState
from jaxnn.train.arguments import as_inputs
from jaxnn.types import Array, DType, DTypeLike, Key, Params, PyTree, State

WHERE = "precision"


def precision(vg: Callable[..., Any], compute: DTypeLike = jnp.bfloat16) -> InPrecision:
    """The same value and gradient with the network in half precision: parameters and inputs are cast to `compute`.

    | in `compute` | in float32 |
    |---|---|
    | activations, cotangents, operands of products | sums of products, element-wise arithmetic, statistics of norms |
    | each parameter's gradient, once it is summed | the loss, running statistics, statistics of per-example gradients |

    Parameters stay as they are, float32 or, with `optim.master_weights`, in half precision; the optimizer gets
    gradients in their dtypes. A regularizer sees the cast parameters; weight decay of the optimizer the parameters
    themselves.
    Evaluation does not change: `fit` evaluates the network at the parameters in their own dtypes.

    float16 needs a scaled loss, or cotangents below 6e-8 are 0 and gradients above 65,504 infinite:
    `optim.dynamic_loss_scale(opt)` has the scale in its state, and `make_step`, `make_epoch`, `fit`, `sweep` and
    `ensemble` pass it on. A step reports "loss_scale" and "skipped_steps", 1 if its gradient was not finite; then
    parameters, running statistics and the wrapped optimizer's state stay as they were. History has the means over the
    epoch: the fraction of steps skipped. The loss of a skipped step may be infinite or NaN, and does not count in the
    history; if the scale is 1 already, training has diverged.

    Args:
        vg: `jax.value_and_grad(mean_loss(net, loss), has_aux=True)`, `backprop.value_and_grad(net, loss)`,
            `per_example_vg(net, loss)`, or a function with these arguments and results.
        compute: bfloat16, float16, or any floating dtype.

    Returns:
        `vg(params, state, x, y, *, key=None, weights=None, loss_scale=None)` with the result of the one passed: the
        value in float32 (float64), the state in its own dtypes, gradients in the dtypes of the parameters. With a
        `loss_scale` S the cotangents are multiplied by S and the gradients divided by it, in float32, in which those of
        half-precision parameters then stay. Equal arguments make equal functions, for which one program is compiled.

    Raises:
        TypeError: vg is not a function, `compute` not a floating dtype; at the call, a loss scale for a vg without the
            argument `loss_scale`.

    Reference: Micikevicius, P. et al. (2018). Mixed precision training.

    Example:
        >>> from jaxnn import backprop, losses, models, optim, train
        >>> net, opt = models.mlp([4, 8, 3]), optim.adam(1e-3)
        >>> vg = train.precision(backprop.value_and_grad(net, losses.softmax_cross_entropy))
        >>> ts = train.init(net, opt, jax.random.key(0), (4,))
        >>> ts, report = train.make_step(vg, opt)(ts, jnp.ones((2, 4)), jnp.array([0, 2]))
        >>> ts.params[1]["w"].dtype, report["loss"].dtype
        (dtype('float32'), dtype('float32'))
    """
    require_function(WHERE, "vg", vg, "jax.value_and_grad(loss_fn, has_aux=True)", optional=False)
    require_floating(WHERE, "compute", compute, "Pass jnp.bfloat16 or jnp.float16.")
    return InPrecision(vg, jnp.dtype(compute))


@dataclasses.dataclass(frozen=True)
class InPrecision:
    """`precision(vg, compute)`: see there."""

    vg: Callable[..., Any]
    compute: DType

    def __call__(
        self,
        params: Params,
        state: State,
        x: PyTree,
        y: PyTree,
        *,
        key: Key | None = None,
        weights: Array | None = None,
        loss_scale: Array | None = None,
    ) -> Any:
        """((value, state[, statistics]), grads)."""
        scaled = {} if loss_scale is None else {"loss_scale": loss_scale}
        if scaled and not _takes_scale(self.vg):
            raise TypeError(
                f"{WHERE}: optim.dynamic_loss_scale needs a function with the argument loss_scale, which multiplies "
                f"its gradients, got {self.vg!r:.80}. Pass jax.value_and_grad(train.mean_loss(net, loss), "
                "has_aux=True), backprop.value_and_grad(net, loss) or train.per_example_vg(net, loss)."
            )
        x = as_inputs(WHERE, "x", x)
        (value, new, *more), grads = self.vg(
            _cast(params, self.compute), state, _cast(x, self.compute), y, key=key, weights=weights, **scaled
        )

        def stored(g: Array, p: Array) -> Array:
            if loss_scale is None:
                return g.astype(p.dtype)
            return (accumulate(g) / loss_scale).astype(accumulation_dtype(p.dtype))

        before: Any = jax.tree.structure(state)
        new = dtypes_of(new, state) if before == jax.tree.structure(new) else new
        return (accumulate(value), new, *more), jax.tree.map(stored, grads, params)


def _cast(tree: PyTree, dtype: DType) -> PyTree:
    """The pytree with its real floating leaves in this dtype."""

    def leaf(x: Any) -> Any:
        return x.astype(dtype) if jnp.issubdtype(jnp.result_type(x), jnp.floating) else x

    return jax.tree.map(leaf, tree)


def _takes_scale(vg: Callable[..., Any]) -> bool:
    """Whether a function has an argument `loss_scale`, or takes any by name."""
    params = inspect.signature(vg).parameters
    return "loss_scale" in params or any(p.kind is p.VAR_KEYWORD for p in params.values())


def scaling(vg: Callable[..., Any], found: LossScaleState | None) -> dict[str, Array]:
    """The argument by which `vg` gets the scale of an optimizer's state, if it has one."""
    if found is None:
        return {}
    if not isinstance(vg, InPrecision):
        raise TypeError(
            "make_step: optim.dynamic_loss_scale needs gradients that are divided by its scale, as those of "
            f"train.precision(vg, jnp.float16) are, got {vg!r:.80}."
        )
    return {"loss_scale": found.scale}


def checked_losses(report: dict[str, Any]) -> Any:
    """The losses of steps, NumPy or traced, with 0 for a skipped step whose loss overflowed at a scale above 1."""
    if "loss_scale" not in report:
        return report["loss"]
    xp: Any = np if isinstance(report["loss"], np.ndarray) else jnp
    excused = (report["skipped_steps"] > 0) & (report["loss_scale"] > 1)
    return xp.where(excused & ~xp.isfinite(report["loss"]), xp.zeros((), report["loss"].dtype), report["loss"])


def without_skipped(report: dict[str, Any]) -> dict[str, Any]:
    """The report of an epoch, NumPy or traced, with the means over the other steps where a skipped one overflowed.

    Where the scale of the loss was 1 nothing is left to lower: these steps stay, and so they do if all are skipped.
    """
    if "loss_scale" not in report:
        return report
    xp: Any = np if isinstance(report["loss"], np.ndarray) else jnp
    may = (report["skipped_steps"] > 0) & (report["loss_scale"] > 1)
    counted = xp.where(may, 0, report["examples"])
    total = counted.sum()

    def filled(values: Any) -> Any:
        mean = (xp.where(may, 0, values) * counted).sum() / xp.maximum(total, 1)
        return xp.where(may & ~xp.isfinite(values) & (total > 0), mean, values).astype(values.dtype)

    return {name: filled(values) for name, values in report.items()}
