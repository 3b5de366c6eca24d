"""Monitoring: states by name, and measurements between the links of a chain."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from jaxnn.numerics import accumulate
from jaxnn.optim.base import Optimizer, call_update, dtypes_of, widen
from jaxnn.optim.chain import require_transformation
from jaxnn.optim.scale import stateless
from jaxnn.optim.spec import specified
from jaxnn.optim.wrappers.averages import EmaState, ema
from jaxnn.placement import full_like
from jaxnn.tree import named_leaves
from jaxnn.types import Array, DTypeLike, Params, PyTree, Scalar


class SnapshotState(NamedTuple):
    """`measurement`: {name: what was measured last}."""

    measurement: dict[str, PyTree]


class MonitorState(NamedTuple):
    """`measurements`: {name: what was measured last}; `measure_states`: one for each measure."""

    measurements: dict[str, PyTree]
    measure_states: tuple[Any, ...]


def named_state(state: Any, *, scalars_only: bool = False) -> dict[str, Array]:
    """The arrays of a state by path, for logging: named tuples by field, tuples by index, dicts by key.

    Args:
        state: of any optimizer, ours or optax's.
        scalars_only: whether to leave out arrays with axes.

    Example:
        >>> from jaxnn import optim
        >>> list(named_state(optim.adam(0.1).init({"w": jnp.zeros(2)})))
        ['count', 'mu/w', 'nu/w']
    """
    return {name: leaf for name, leaf in named_leaves(state).items() if not scalars_only or jnp.ndim(leaf) == 0}


@specified
def snapshot(measure_name: str, measure: Callable[[PyTree], PyTree]) -> Optimizer:
    """The updates unchanged; `measure(updates)` is kept in the state under a name.

    Args:
        measure_name: the key.
        measure: from updates, in the accumulation dtype, to a pytree of arrays. `init` calls it on the parameters.

    Example:
        >>> from jaxnn import optim
        >>> opt = snapshot("norm", optim.global_norm)
        >>> opt.update(jnp.array([3.0, 4.0]), opt.init(jnp.zeros(2)))[1].measurement
        {'norm': Array(5., dtype=float32)}
    """

    def init(params: Params) -> SnapshotState:
        return SnapshotState({measure_name: _measured(measure, params)})

    def update(
        updates: PyTree, state: SnapshotState, params: Params | None = None, **extra: Any
    ) -> tuple[PyTree, SnapshotState]:
        return updates, dtypes_of(SnapshotState({measure_name: _measured(measure, updates)}), state)

    return Optimizer(init, update)


@specified
def monitor(measures: Mapping[str, Any]) -> Optimizer:
    """The updates unchanged; several measurements, each with its own state, are kept by name.

    Args:
        measures: by name, functions from updates, in the accumulation dtype, to pytrees of arrays, or transformations
            whose "updates" are the measurement, such as `measure_with_ema(...)`.

    Returns:
        Optimizer with state `MonitorState(measurements, measure_states)`. Before the first update measurements are 0
        (optax has none: its state changes structure, which `lax.scan` rejects).

    Example:
        >>> from jaxnn import optim
        >>> opt = monitor({"norm": optim.global_norm})
        >>> opt.update(jnp.array([3.0, 4.0]), opt.init(jnp.zeros(2)))[1].measurements
        {'norm': Array(5., dtype=float32)}
    """
    links = {name: _as_measure(name, measure) for name, measure in measures.items()}

    def measured(
        updates: PyTree, states: tuple[Any, ...], params: Params | None, extra: dict[str, Any]
    ) -> MonitorState:
        measurements, new_states = {}, []
        for (name, link), kept in zip(links.items(), states, strict=True):
            found, new = call_update(link, widen(updates), kept, params, extra)
            measurements[name] = jax.tree.map(jnp.asarray, found)
            new_states.append(new)
        return MonitorState(measurements, tuple(new_states))

    def init(params: Params) -> MonitorState:
        wide = widen(params)
        states = tuple(link.init(wide) for link in links.values())
        found = measured(wide, states, wide, {}).measurements
        return MonitorState(jax.tree.map(lambda x: full_like(x, 0), found), states)

    def update(
        updates: PyTree, state: MonitorState, params: Params | None = None, **extra: Any
    ) -> tuple[PyTree, MonitorState]:
        new = measured(updates, state.measure_states, params, extra)
        return updates, new._replace(measurements=dtypes_of(new.measurements, state.measurements))

    return Optimizer(init, update)


@specified
def measure_with_ema(
    measure: Callable[[PyTree], PyTree], decay: Scalar, debias: bool = True, accumulator_dtype: DTypeLike | None = None
) -> Optimizer:
    """For `monitor`: the exponential moving average of a measurement.

    Args:
        measure: from updates to a pytree of arrays; bools count as 0 and 1, so that their average is a frequency.
        decay, debias, accumulator_dtype: as for `ema`.

    Example:
        >>> clipped = measure_with_ema(lambda u: jnp.linalg.norm(u) > 1, 0.9)
        >>> clipped.update(jnp.array([3.0, 4.0]), clipped.init(jnp.zeros(2)))[0]
        Array(1., dtype=float32)
    """
    average = ema(decay, debias, accumulator_dtype)

    def numbers(updates: PyTree) -> PyTree:
        return jax.tree.map(accumulate, _measured(measure, updates))

    def update(updates: PyTree, state: EmaState, params: Params | None = None, **extra: Any) -> tuple[PyTree, EmaState]:
        return average.update(numbers(updates), state)

    return Optimizer(lambda params: average.init(numbers(params)), update)


def _measured(measure: Callable[[PyTree], PyTree], updates: PyTree) -> PyTree:
    """A measurement as a pytree of arrays."""
    return jax.tree.map(jnp.asarray, measure(widen(updates)))


def _as_measure(name: str, measure: Any) -> Any:
    """A measure as a transformation."""
    if callable(measure):
        return stateless(lambda updates, params: measure(updates))
    return require_transformation("monitor", name, measure)
