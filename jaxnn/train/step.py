"""One optimizer step, compiled."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple, TypeAlias

import jax
import jax.numpy as jnp
import numpy as np

from jaxnn import tree
from jaxnn.checks import as_arrays
from jaxnn.layers import Layer
from jaxnn.optim import Transformation, apply_updates
from jaxnn.optim.base import call_update
from jaxnn.optim.precision.loss_scale import loss_scale_of
from jaxnn.optim.spec import build, parted
from jaxnn.train.arguments import require_function, require_net, require_opt_state, require_optimizer
from jaxnn.train.memo import memoized
from jaxnn.train.precision import scaling
from jaxnn.train.statistics import Statistics, is_reserved
from jaxnn.types import Array, Key, Params, PyTree, State

ValueAndGrad: TypeAlias = Callable[..., tuple[tuple[Any, ...], Params]]
"""(params, state, x, y, *, key=None, weights=None) -> ((value, state), grads), as `jax.value_and_grad` makes it, or
((value, state, statistics), grads), as `per_example_vg` does."""

Augment: TypeAlias = Callable[[Key, Any], Any]
"""(key, x (N, ...)) -> x (N, ...), a random transformation of the inputs that preserves the labels."""

Measure: TypeAlias = Callable[[Params, Params, Params], dict[str, Array]]
"""(params, grads, updates) -> named scalars that each step reports besides its loss.

Names that the report, or a record of `fit`, has already are refused: loss, examples, epoch, seconds,
examples_per_second, learning_rate, loss_scale, skipped_steps, validation_* and those of statistics."""


class TrainState(NamedTuple):
    """The carry of a training step: the parameters, the network's running statistics, the optimizer's state."""

    params: Params
    state: State
    opt_state: Any


def init(net: Layer, opt: Transformation, key: Key, example: Any) -> TrainState:
    """The `TrainState` at the start of training: fresh parameters, running statistics and optimizer state.

    Args:
        net: a network.
        opt: an optimizer of `jaxnn.optim`, or of optax.
        key: typed random key for the parameters.
        example: the shape of ONE example, or an array or ShapeDtypeStruct like it; what `net.init` takes.

    Example:
        >>> from jaxnn import models, optim
        >>> ts = init(models.linear(3), optim.sgd(0.1), jax.random.key(0), (4,))
        >>> ts.opt_state.count
        Array(0, dtype=int32)
    """
    require_net("init", net)
    require_optimizer("init", opt)
    params, state = net.init(key, example)
    # Some optimizers keep the parameters themselves in their state, and one buffer cannot be donated twice.
    return jax.tree.map(jnp.copy, TrainState(params, state, opt.init(params)))


def grad_norm(params: Params, grads: Params, updates: Params) -> dict[str, Array]:
    """A `Measure`: the Euclidean norm of the step's gradient over all parameters.

    Example:
        >>> grad_norm({}, {"w": jnp.array([3.0, 4.0])}, {})
        {'grad_norm': Array(5., dtype=float32)}
    """
    return {"grad_norm": tree.norm(grads)}


def make_step(vg: ValueAndGrad, opt: Transformation, *, measure: Measure | None = None) -> Callable[..., Any]:
    """One optimizer step on one batch, compiled; the old `TrainState` is donated.

    Args:
        vg: `jax.value_and_grad(mean_loss(...), has_aux=True)`, `per_example_vg(...)`, or a hand-written equivalent.
        opt: optimizer; its `update` receives the extra arguments `value`, `grad`, `value_fn`, `grad_fn`, `obj_fn`
            (functions of the parameters, on this batch; `obj_fn` is `value_fn` under the name that Hessian estimators
            use), unless its signature takes no extra arguments (as for plain optax transformations).
            With a vg of `per_example_vg` also `statistics`, the statistics of the batch.
        measure: more scalars to report, a dict by name, such as `grad_norm`.

    Returns:
        `step(ts, x, y, *, key=None, weights=None) -> (ts, report)`; report["loss"] is the value BEFORE the step. The
        means of the statistics of `per_example_vg` are reported by their names; of `optim.dynamic_loss_scale`
        "loss_scale" and "skipped_steps", see `precision`.

    Example:
        >>> from jaxnn import losses, models, optim
        >>> from jaxnn.train import mean_loss
        >>> net, opt = models.linear(2), optim.sgd(0.1)
        >>> step = make_step(jax.value_and_grad(mean_loss(net, losses.softmax_cross_entropy), has_aux=True), opt)
        >>> ts, report = step(init(net, opt, jax.random.key(0), (4,)), jnp.ones((3, 4)), jnp.array([0, 1, 1]))
        >>> report["loss"].shape
        ()
    """
    one_step(vg, opt, measure)  # its checks
    structure, numbers = parted(opt)
    return with_numbers("make_step", _step_program(vg, structure, measure), numbers)


@memoized
def _step_program(vg: ValueAndGrad, structure: Any, measure: Measure | None) -> Any:
    """The step of every optimizer of that structure, compiled."""

    def step(ts: TrainState, x: PyTree, y: PyTree, *, numbers: Any, **how: Any) -> Any:
        return one_step(vg, build(structure, numbers), measure)(ts, x, y, **how)

    return jax.jit(step, donate_argnums=0)


def one_step(vg: ValueAndGrad, opt: Transformation, measure: Measure | None) -> Callable[..., Any]:
    """The uncompiled step, shared by `make_step` and the scan of an epoch."""
    require_optimizer("make_step", opt)
    require_function("make_step", "vg", vg, "jax.value_and_grad(loss_fn, has_aux=True)", optional=False)
    if isinstance(vg, Layer):
        raise TypeError(
            "make_step: vg must be a function of a loss's value and gradient, got a network. Pass "
            "jax.value_and_grad(train.mean_loss(net, loss), has_aux=True) or backprop.value_and_grad(net, loss)."
        )

    def step(
        ts: TrainState, x: PyTree, y: PyTree, *, key: Key | None = None, weights: Array | None = None
    ) -> tuple[TrainState, dict[str, Array]]:
        if not isinstance(ts, TrainState):
            raise TypeError(f"make_step: expected a TrainState, as train.init makes it, got {type(ts).__name__}.")
        require_opt_state("make_step", "opt_state", opt, ts.opt_state, ts.params)

        scale = loss_scale_of(ts.opt_state)
        how = scaling(vg, scale)

        def on_batch(params: Params, **how: Any) -> tuple[tuple[Any, ...], Params]:
            return vg(params, ts.state, x, y, key=key, weights=weights, **how)

        (value, state, *more), grads = _value_state_grads(on_batch(ts.params, **how))

        def grad_fn(params: Params) -> Params:
            return on_batch(params, **how)[1]

        # optax's line searches reject an extra argument that value_fn does not name.
        def value_fn(params: Params, grad_fn: Any = None, obj_fn: Any = None, statistics: Any = None) -> Array:
            return on_batch(params)[0][0]

        extra: dict[str, Any] = {"value": value, "grad": grads, "value_fn": value_fn, "grad_fn": grad_fn}
        extra |= {"obj_fn": value_fn}
        report = {"loss": value}
        for found in more:
            extra["statistics"] = found.values
            report |= found.means
        updates, opt_state = call_update(opt, grads, ts.opt_state, ts.params, extra)
        report |= _measured(measure(ts.params, grads, updates), report) if measure else {}
        if scale is not None:
            skipped = loss_scale_of(opt_state).skipped_steps > scale.skipped_steps  # type: ignore[union-attr]
            state = jax.tree.map(lambda new, old: jnp.where(skipped, old, new), state, ts.state)
            report |= {"loss_scale": scale.scale, "skipped_steps": skipped.astype(jnp.float32)}
        return TrainState(apply_updates(ts.params, updates), state, opt_state), report

    return step


def _value_state_grads(result: Any) -> tuple[tuple[Any, ...], Params]:
    """The result of vg; raises unless it is ((value, state), grads) or ((value, state, statistics), grads)."""
    head = result[0] if isinstance(result, tuple) and len(result) == 2 else None
    if not isinstance(head, tuple) or not (len(head) == 2 or (len(head) == 3 and isinstance(head[2], Statistics))):
        raise TypeError(
            "make_step: vg must return ((value, state), grads), as jax.value_and_grad(loss_fn, has_aux=True) does, got "
            f"{jax.tree.structure(result)}. Is value_and_grad or has_aux=True missing?"
        )
    return result


def _measured(found: Any, report: Mapping[str, Any]) -> dict[str, Array]:
    """What `measure` returned; raises unless it is a dict of scalars whose names mean nothing else."""
    expected = "make_step: measure must return a dict of named real scalars"
    if not isinstance(found, Mapping):
        raise TypeError(f'{expected}, got {type(found).__name__}. Return {{"name": value}}, or pass measure=None.')
    for name, value in found.items():
        shape, kind = getattr(value, "shape", ()), getattr(value, "dtype", type(value))
        if not isinstance(name, str) or not _is_real(kind):
            raise TypeError(f"{expected}, got {name!r}: {getattr(kind, '__name__', kind)}. Name each number by a text.")
        if shape:
            raise ValueError(f"{expected}, got {name!r} of shape {shape}. Return its mean, or one name per entry.")
    if taken := [name for name in found if is_reserved(name) or name in report]:
        raise ValueError(
            f"make_step: measure returns {', '.join(taken)}, already the name of something else in the report of a "
            "step or the history of a fit. Rename it."
        )
    return dict(found)


def _is_real(kind: Any) -> bool:
    """Whether a dtype, or the type of a Python object, is that of real numbers or bools."""
    if kind in (bool, int, float):
        return True
    is_dtype = isinstance(kind, np.dtype)
    return is_dtype and any(jnp.issubdtype(kind, real) for real in (jnp.bool_, jnp.integer, jnp.floating))


def with_numbers(where: str, program: Any, numbers: Any) -> Callable[..., Any]:
    """A compiled step or epoch with an optimizer's numbers; x and y may be anything that NumPy converts."""

    def on_arrays(ts: TrainState, x: PyTree, y: PyTree, *args: Any, **kwargs: Any) -> Any:
        return program(ts, as_arrays(where, "x", x), as_arrays(where, "y", y), *args, **kwargs, numbers=numbers)

    # Attributes of a compiled function that e.g. jax.export uses.
    for name in ("lower", "trace", "eval_shape"):
        setattr(on_arrays, name, functools.partial(getattr(program, name), numbers=numbers))
    on_arrays.clear_cache = program.clear_cache  # type: ignore[attr-defined]
    return on_arrays
