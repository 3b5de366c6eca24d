"""Hyperparameters kept in the state, where schedules and the user can change them."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxnn.checks import require_number
from jaxnn.numerics import accumulation_dtype
from jaxnn.optim.base import Optimizer, dtypes_of
from jaxnn.optim.inner import init_inner, require_inner, update_inner
from jaxnn.optim.scalars import increment, zero_count
from jaxnn.types import Array, DType, DTypeLike, Params, PyTree, Scalar


class InjectStatefulHyperparamsState(NamedTuple):
    """`count`: int32 steps taken; `hyperparams`: values by name; `hyperparams_states`: of schedules; `inner_state`."""

    count: Array  # type: ignore[assignment] # optax's name; it hides tuple.count
    hyperparams: dict[str, Array]
    hyperparams_states: dict[str, Any]
    inner_state: Any


InjectHyperparamsState = InjectStatefulHyperparamsState
"""optax's older name, for a state without schedule states, which its functions no longer return."""


class WrappedScheduleState(NamedTuple):
    """`count`: int32 steps taken."""

    count: Array  # type: ignore[assignment] # optax's name; it hides tuple.count


class WrappedSchedule:
    """A schedule of the step count as a stateful schedule: `init()`, `update(state)`, `schedule(state)`.

    Example:
        >>> schedule = WrappedSchedule(lambda count: 1.0 / (1 + count))
        >>> schedule(schedule.update(schedule.init()))
        Array(0.5, dtype=float32, weak_type=True)
    """

    def __init__(self, schedule_fn: Callable[[Array], Scalar]) -> None:
        self.schedule_fn = schedule_fn

    def init(self) -> WrappedScheduleState:
        """The state at the first step."""
        return WrappedScheduleState(zero_count())

    def update(self, state: WrappedScheduleState, **extra_args: Any) -> WrappedScheduleState:
        """The state at the next step."""
        return WrappedScheduleState(increment(state.count))

    def __call__(self, state: WrappedScheduleState, **extra_args: Any) -> Scalar:
        """The value at this step."""
        return self.schedule_fn(state.count)


def inject_hyperparams(
    inner_factory: Callable[..., Any], static_args: str | Iterable[str] = (), hyperparam_dtype: DTypeLike | None = None
) -> Callable[..., Optimizer]:
    """The factory, with numeric hyperparameters kept in the optimizer's state.

    Every number becomes an array in `state.hyperparams`: read it with `get_hyperparams` and change it, without
    recompilation, with `with_hyperparams`. Every schedule is evaluated at each update and its value kept there too.

    Static, and not in the state: names in `static_args`, names that end in "mask", bools, None, random keys, ints whose
    default is an int (counts and sizes), functions that are the factory's own defaults, and anything that is neither a
    number nor a function.

    Args:
        inner_factory: e.g. `optim.adam`, or an optax factory.
        static_args: names of arguments to keep static, e.g. a callable that is not a schedule.
        hyperparam_dtype: of float hyperparameters; None means the widest accumulation dtype of the parameters, so
            that 0.999 stays below 1 beside bfloat16 parameters. A JAX array keeps its own dtype, and an int stays an
            int unless its default is a float: pass learning_rate=1.0, not 1.

    Returns:
        A factory with the same arguments; any number may be a schedule, or an object with `init()`,
        `update(state, **extra)` and `__call__(state, **extra)`. Its Optimizer's state is
        `InjectStatefulHyperparamsState`.

    Raises:
        ValueError: a name in `static_args` that is not an argument of the factory.
        TypeError: at init, a function that is not a schedule of the step count and not named in `static_args`.

    Example:
        >>> from jaxnn import optim
        >>> opt = inject_hyperparams(optim.sgd)(learning_rate=0.5)
        >>> state = with_hyperparams(opt.init(jnp.zeros(1)), learning_rate=0.25)
        >>> opt.update(jnp.ones(1), state)[0], get_hyperparams(state)
        (Array([-0.25], dtype=float32), {'learning_rate': Array(0.25, dtype=float32)})
    """
    static = {static_args} if isinstance(static_args, str) else set(static_args)
    signature = inspect.signature(inner_factory)
    if not static <= set(signature.parameters):
        raise ValueError(
            f"inject_hyperparams: static_args must be arguments of the factory, got {sorted(static)} for "
            f"{list(signature.parameters)}."
        )

    @functools.wraps(inner_factory)
    def factory(*args: Any, **kwargs: Any) -> Optimizer:
        bound = signature.bind(*args, **kwargs)
        bound.apply_defaults()
        schedules: dict[str, Any] = {}
        numbers: dict[str, Any] = {}
        for name, value in bound.arguments.items():
            default = signature.parameters[name].default
            if name in static or name.endswith("mask") or _is_size(value, default):
                continue
            if callable(value):
                if value is default:  # a default function of the factory is not a schedule
                    continue
                has_state = hasattr(value, "init") and hasattr(value, "update")
                schedules[name] = value if has_state else WrappedSchedule(value)
            elif isinstance(value, int | float | jax.Array | np.ndarray | np.generic):
                if _is_key(value):
                    continue
                numbers[name] = float(value) if isinstance(value, int) and isinstance(default, float) else value

        def build(hyperparams: dict[str, Any]) -> Any:
            filled = inspect.BoundArguments(signature, type(bound.arguments)(bound.arguments | hyperparams))
            return require_inner("inject_hyperparams", inner_factory(*filled.args, **filled.kwargs))

        def init(params: Params) -> InjectStatefulHyperparamsState:
            dtype = _float_dtype(hyperparam_dtype, params)
            states = {name: schedule.init() for name, schedule in schedules.items()}
            values = numbers | {name: _first(name, schedule, states[name]) for name, schedule in schedules.items()}
            hyperparams = {name: _as_array(value, dtype) for name, value in values.items()}
            inner = init_inner(build(hyperparams), params)
            return InjectStatefulHyperparamsState(zero_count(), hyperparams, states, inner)

        def update(
            updates: PyTree, state: InjectStatefulHyperparamsState, params: Params | None = None, **extra: Any
        ) -> tuple[PyTree, InjectStatefulHyperparamsState]:
            dtype = _float_dtype(hyperparam_dtype, updates if params is None else params)
            states = state.hyperparams_states
            values = state.hyperparams | {name: s(states[name], **extra) for name, s in schedules.items()}
            hyperparams = dtypes_of(
                {name: _as_array(value, dtype) for name, value in values.items()}, dict(state.hyperparams)
            )
            updates, inner_state = update_inner(build(hyperparams), updates, state.inner_state, params, extra)
            new = {name: s.update(states[name], **extra) for name, s in schedules.items()}
            return updates, InjectStatefulHyperparamsState(increment(state.count), hyperparams, new, inner_state)

        return Optimizer(init, update)

    return factory


def inject_stateful_hyperparams(
    inner_factory: Callable[..., Any], static_args: str | Iterable[str] = (), hyperparam_dtype: DTypeLike | None = None
) -> Callable[..., Optimizer]:
    """`inject_hyperparams`, under optax's older name.

    Example:
        >>> from jaxnn import optim
        >>> get_hyperparams(inject_stateful_hyperparams(optim.sgd)(0.5).init(jnp.zeros(1)))
        {'learning_rate': Array(0.5, dtype=float32)}
    """
    return inject_hyperparams(inner_factory, static_args, hyperparam_dtype)


def get_hyperparams(state: Any) -> dict[str, Array]:
    """The hyperparameters that `inject_hyperparams`, ours or optax's, keeps anywhere in a state.

    A schedule's value is that of the last update.

    Raises:
        ValueError: there are none, or a name occurs in two places; pass one part of the state.

    Example:
        >>> from jaxnn import optim
        >>> get_hyperparams(inject_hyperparams(optim.sgd)(0.5).init(jnp.zeros(1)))
        {'learning_rate': Array(0.5, dtype=float32)}
    """
    found: dict[str, Array] = {}
    for node in _injected(state):
        if again := sorted(set(found) & set(node.hyperparams)):
            raise ValueError(
                f"get_hyperparams: {again} occur in several places of the state. Pass one part of it, such as "
                "state.inner_states['w'], or use named_state(state)."
            )
        found |= node.hyperparams
    if not found:
        raise ValueError(
            "get_hyperparams: the state holds none. Make the optimizer by inject_hyperparams(factory)(...)."
        )
    return found


def with_hyperparams(state: Any, **hyperparams: Scalar) -> Any:
    """The state with new hyperparameter values, in the dtypes of the old ones, at every occurrence of a name.

    Raises:
        ValueError: a name that the state does not hold, or that follows a schedule, which would overwrite it; a float
            in place of an int.

    Example:
        >>> from jaxnn import optim
        >>> state = inject_hyperparams(optim.sgd)(0.5).init(jnp.zeros(1))
        >>> with_hyperparams(state, learning_rate=0.1).hyperparams
        {'learning_rate': Array(0.1, dtype=float32)}
    """
    nodes = _injected(state)
    known = {name for node in nodes for name in node.hyperparams}
    scheduled = {name for node in nodes for name in getattr(node, "hyperparams_states", {})}
    if wrong := sorted(set(hyperparams) - (known - scheduled)):
        raise ValueError(
            f"with_hyperparams: cannot set {wrong}; the state holds {sorted(known - scheduled)}, and "
            f"{sorted(scheduled)} follow a schedule. Make the optimizer by inject_hyperparams(factory)(...)."
        )

    def changed(node: Any) -> Any:
        if not _is_injected(node):
            return node
        here = {name: value for name, value in hyperparams.items() if name in node.hyperparams}
        kept = {name: _in_place_of(node.hyperparams[name], name, value) for name, value in here.items()}
        return node._replace(
            hyperparams=node.hyperparams | kept,
            inner_state=jax.tree.map(changed, node.inner_state, is_leaf=_is_injected),
        )

    return jax.tree.map(changed, state, is_leaf=_is_injected)


def _in_place_of(old: Any, name: str, value: Scalar) -> Array:
    """A new value in the dtype of the old one; ValueError for a fraction in place of an int."""
    require_number("with_hyperparams", name, value)
    new, dtype = jnp.asarray(value), jnp.result_type(old)
    if jnp.issubdtype(dtype, jnp.integer) and not jnp.issubdtype(new.dtype, jnp.integer):
        raise ValueError(f"with_hyperparams: {name} is an int, got {value!r}. Make the optimizer with a float: 1.0.")
    return new.astype(dtype)


def _first(name: str, schedule: Any, state: Any) -> Any:
    """A schedule's value before the first step; TypeError if the function is not a schedule."""
    try:
        value = schedule(state)
        require_number("inject_hyperparams", name, value)
    except (TypeError, ValueError) as error:
        raise TypeError(
            f"inject_hyperparams: {name} is a function and must be a schedule of the step count, got ({error}). "
            f'If it is something else, name it in static_args="{name}".'
        ) from error
    return value


def _is_injected(node: Any) -> bool:
    """Whether this is a state of `inject_hyperparams`, ours or optax's."""
    return isinstance(node, tuple) and isinstance(getattr(node, "hyperparams", None), dict)


def _injected(state: Any) -> list[Any]:
    """All such states, outermost first."""
    nodes = [node for node in jax.tree.leaves(state, is_leaf=_is_injected) if _is_injected(node)]
    return nodes + [inner for node in nodes for inner in _injected(node.inner_state)]


def _is_size(value: Any, default: Any) -> bool:
    """Whether an argument is a flag or a count, and so static."""
    return isinstance(value, bool | np.bool_) or (isinstance(value, int) and isinstance(default, int))


def _is_key(value: Any) -> bool:
    """Whether an argument is a random key, typed or raw."""
    kind = jnp.result_type(value)
    return jnp.issubdtype(kind, jax.dtypes.prng_key) or (kind == jnp.uint32 and jnp.ndim(value) == 1)


def _float_dtype(asked: DTypeLike | None, params: PyTree) -> DType:
    """The dtype for float hyperparameters beside these parameters, real."""
    if asked is not None:
        return jnp.dtype(asked)
    dtypes = [jnp.result_type(leaf) for leaf in jax.tree.leaves(params)]
    return jnp.zeros((), accumulation_dtype(*dtypes)).real.dtype


def _as_array(value: Any, dtype: DType) -> Array:
    """A hyperparameter as an array; Python and NumPy floats in `dtype`."""
    if isinstance(value, jax.Array) and not value.weak_type:
        return value
    array = jnp.asarray(value)
    return array.astype(dtype) if jnp.issubdtype(array.dtype, jnp.floating) else jnp.asarray(value, array.dtype)
