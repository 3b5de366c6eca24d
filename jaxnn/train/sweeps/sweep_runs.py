"""One run of a sweep, in stages, as a function of its setting and its keys."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, TypeAlias

import jax
import jax.numpy as jnp

from jaxnn import tree
from jaxnn.data import Partial
from jaxnn.layers import Layer
from jaxnn.optim import Transformation
from jaxnn.optim.spec import Structure, build
from jaxnn.train.arguments import require_optimizer
from jaxnn.train.batches import example_of
from jaxnn.train.evaluate import make_evaluate
from jaxnn.train.keys import run_keys
from jaxnn.train.memo import memoized
from jaxnn.train.pieces import scan_epoch
from jaxnn.train.precision import checked_losses, without_skipped
from jaxnn.train.step import Augment, Measure, TrainState, ValueAndGrad, init
from jaxnn.train.sweeps.staged import Staged
from jaxnn.types import Array, Key, Loss, PyTree

MakeOptimizer: TypeAlias = Callable[[Any], Transformation]
"""setting -> optimizer; the numbers of the setting are traced."""

Probe: TypeAlias = Callable[[TrainState, Any, Any], dict[str, Array]]
"""(state after an epoch, training inputs, training targets) -> named scalars."""


@memoized
def run_of(
    net: Layer,
    loss: Loss,
    made_by: Structure | MakeOptimizer,
    vg: ValueAndGrad,
    metrics: tuple[tuple[str, Loss], ...],
    epochs: int,
    batch_size: int,
    partial: Partial,
    augment: Augment | None,
    measure: Measure | None,
    probe: Probe | None,
) -> Staged:
    """One run, of (setting or numbers, key, order) and the data: (curves, final, diverged)."""
    evaluate = make_evaluate(net, {"loss": loss, **dict(metrics)})

    def optimizer(setting: Any) -> Transformation:
        opt = build(made_by, setting) if isinstance(made_by, Structure) else made_by(setting)
        require_optimizer("sweep", opt, "what make_optimizer returns")
        return opt

    def begin(given: tuple[Any, Key, Key], x: PyTree, y: PyTree, held_out: Any, last: Any) -> tuple[TrainState, Array]:
        setting, key, _ = given
        return init(net, optimizer(setting), run_keys(key)[0], example_of(x, batch_size)), jnp.int32(0)

    def advance(
        carry: tuple[TrainState, Array], given: Any, e: Array, x: PyTree, y: PyTree, held_out: Any, last: Any
    ) -> tuple[tuple[TrainState, Array], dict[str, Array]]:
        (ts, diverged), (setting, _, order) = carry, given
        how: dict[str, Any] = {"batch_size": batch_size, "partial": partial, "augment": augment, "measure": measure}
        epoch = scan_epoch(vg, optimizer(setting), **how)
        new, report = epoch(ts, x, y, jax.random.fold_in(run_keys(order)[1], e))
        lost = ~jnp.isfinite(checked_losses(report)).all()
        report = without_skipped(report)
        values = {} if held_out is None else evaluate(new.params, new.state, *held_out)
        fine = ~lost & tree.all_finite(jax.tree.leaves((new.params, new.state)))
        for value in values.values():
            fine &= ~jnp.isnan(value)
        diverged = jnp.where((diverged == 0) & ~fine, e, diverged)
        ts = jax.tree.map(lambda after, before: jnp.where(diverged == 0, after, before), new, ts)
        record = _epoch_means(report) | {f"validation_{name}": value for name, value in values.items()}
        if probe is not None:
            record |= _probed(probe(ts, x, y), record)
        return (ts, diverged), _unless(diverged, record)

    def end(carry: tuple[TrainState, Array], given: Any, x: PyTree, y: PyTree, held_out: Any, last: Any) -> Any:
        ts, diverged = carry
        found = {} if last is None else evaluate(ts.params, ts.state, *last)
        return _unless(diverged, {f"test_{name}": v for name, v in found.items()}), diverged

    return Staged(epochs, begin, advance, end)


def _epoch_means(report: dict[str, Array]) -> dict[str, Array]:
    """Means over the steps of an epoch, each step weighted by its number of examples."""
    examples = report["examples"]

    def mean(values: Array) -> Array:
        weights = examples.astype(values.dtype)
        return jnp.sum(jnp.where(examples > 0, values * weights, 0)) / jnp.sum(weights)

    return {name: mean(values) for name, values in report.items() if name != "examples"}


def _probed(found: Any, known: Mapping[str, Array]) -> dict[str, Array]:
    """The scalars of a probe; raises unless their names differ from those of the other curves."""
    if not isinstance(found, Mapping) or any(jnp.shape(value) for value in found.values()):
        raise ValueError(
            f"sweep: probe must return a dict of scalars, got {jax.tree.map(jnp.shape, found)}. Return means, or one "
            "name per entry."
        )
    if taken := sorted(set(found) & set(known)):
        raise ValueError(f"sweep: probe returns {', '.join(taken)}, already the name of a curve. Rename it.")
    return dict(found)


def _unless(diverged: Array, record: dict[str, Array]) -> dict[str, Array]:
    """Metrics of a run, NaN if it has diverged."""
    return {name: jnp.where(diverged == 0, value, jnp.nan) for name, value in record.items()}
