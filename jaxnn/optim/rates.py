"""The learning rate of an optimizer's last step, for histories and logs."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import jax

from jaxnn.optim.base import Transformation
from jaxnn.optim.spec import Fixed, Numbers, Structure, spec

NAME = "learning_rate"


def learning_rate(opt: Transformation, opt_state: Any) -> float | None:
    """The learning rate with which the last step was taken, eta_(t - 1) after t steps; eta_0 before the first.

    It is read from `spec(opt)`, a schedule at the count of the state, or from what `inject_hyperparams` keeps in the
    state. Arrays must be concrete.

    Args:
        opt: an optimizer.
        opt_state: its state.

    Returns:
        A float; None for an optimizer without a learning rate or without a spec, or with several that differ.

    Example:
        >>> from jaxnn import optim, schedules
        >>> import jax.numpy as jnp
        >>> opt = optim.chain(optim.clip(1.0), optim.sgd(schedules.linear_schedule(1.0, 0.0, 4)))
        >>> state = opt.init(jnp.zeros(2))
        >>> for _ in range(3):
        ...     _, state = opt.update(jnp.ones(2), state)
        >>> learning_rate(opt, state)
        0.5
    """
    kept = [float(values[NAME]) for values in _fields(opt_state, "hyperparams") if NAME in values]
    known = spec(opt)
    rates = kept or ([] if known is None else _rates(*known))
    counts = [int(count) for count in _fields(opt_state, "count")]
    step = max(max(counts, default=1) - 1, 0)
    values = {float(rate(step)) if callable(rate) else float(rate) for rate in rates}
    return values.pop() if len(values) == 1 else None


def _rates(structure: Structure, numbers: Numbers) -> list[Any]:
    """The learning rates among the arguments of a factory, and of those among its arguments: numbers and schedules."""
    found: list[Any] = []
    for name, leaf in zip(structure.names, structure.leaves, strict=True):
        if isinstance(leaf, Structure):
            found += _rates(leaf, numbers[name])
        elif name == NAME and not (isinstance(leaf, Fixed) and not callable(leaf.value)):
            found.append(leaf.value if isinstance(leaf, Fixed) else numbers[name])
    return found


def _fields(state: Any, name: str) -> Iterator[Any]:
    """The fields of that name in a state and the states inside it."""

    def has(node: Any) -> bool:
        return name in getattr(node, "_fields", ())

    for node in jax.tree.leaves(state, is_leaf=has):
        if has(node):
            yield getattr(node, name)
            rest = tuple(getattr(node, other) for other in node._fields if other != name)
            yield from _fields(rest, name)
