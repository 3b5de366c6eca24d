"""Detection of divergence, and what became NaN or infinite first: the data, a parameter, a layer, the loss."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxnn.layers import Layer
from jaxnn.models.combinators import SERIAL, fold, spread
from jaxnn.models.ties import filled
from jaxnn.train.step import TrainState
from jaxnn.train.stopping import DivergedError
from jaxnn.types import Array, Key, Loss, Params, PyTree, State

RATE = "The likely cause is a learning rate that is too large: try a tenth of it, warm-up or gradient clipping."


def require_finite(
    losses: np.ndarray, ts: TrainState, epoch: int, first: int, before: Any, why: Callable[[int], str]
) -> None:
    """Raise `DivergedError` at the first loss, or else parameter or running statistic, that is not finite.

    The loss of a step is the one before its update: the last update of a piece shows in the parameters alone.
    `losses` (steps,) and the final state `ts` are those of a piece of the epoch that began with step `first`, `before`
    is the error's `result`, and `why(step)` (step of the epoch, from 0) returns sentences for its message.
    """
    bad = np.flatnonzero(~np.isfinite(losses))
    if bad.size:
        step, what = int(bad[0]), f"the training loss became {losses[bad[0]]}"
    elif found := not_finite({"params": ts.params, "state": ts.state}):
        step, what = len(losses) - 1, f"a parameter or running statistic, {found}, is no longer finite: it became so"
    else:
        return
    shown = losses[max(step - 3, 0) : step]
    step += first
    earlier = f" (the losses before it: {np.array2string(shown, precision=4)})" if shown.size else ""
    message = f"fit: {what} at step {step + 1} of epoch {epoch}{earlier}. {why(step)}"
    raise DivergedError(message, epoch=epoch, step=step + 1, result=before)


def require_no_nan(
    figures: Mapping[str, float], epoch: int, before: Any, validation: tuple[PyTree, PyTree] | None = None
) -> None:
    """Raise `DivergedError`, with `before` as its `result`, if one of these metrics is NaN."""
    for name, value in figures.items():
        if not np.isnan(value):
            continue
        found = "Look for outputs that overflow in evaluation."
        for part, examples in zip(("validation x", "validation y"), validation or (), strict=False):
            found = bad_example(part, examples) or found
        raise DivergedError(
            f"fit: {name} is NaN after epoch {epoch}, though the training loss is finite. {found}",
            epoch=epoch,
            step=0,
            result=before,
        )


@jax.jit
def _finite(leaves: list[Array]) -> list[Array]:
    """Whether all entries of each array are finite."""
    return [jnp.all(jnp.isfinite(leaf)) for leaf in leaves]


@jax.jit
def _finite_rows(array: Array) -> Array:
    """Whether all entries of each example are finite."""
    return jnp.all(jnp.isfinite(array), axis=tuple(range(1, array.ndim)))


def not_finite(tree: PyTree) -> str:
    """'<path> holds <value>' of the first floating leaf with a NaN or infinite entry; "" if there is none."""
    places = [(path, leaf) for path, leaf in jax.tree_util.tree_leaves_with_path(tree) if _is_floating(leaf)]
    found = jax.device_get(_finite([leaf for _, leaf in places]))
    for (path, leaf), fine in zip(places, found, strict=True):
        if not fine:
            values = np.asarray(leaf)
            return f"{jax.tree_util.keystr(path) or 'the only leaf'} holds {values[~np.isfinite(values)][0]}"
    return ""


def bad_example(name: str, examples: PyTree) -> str:
    """A sentence about the first example, in an array or pytree (N, ...), that is not finite; "" if all are."""
    found = (_bad_row(name, path, array) for path, array in jax.tree_util.tree_leaves_with_path(examples))
    return next((sentence for sentence in found if sentence), "")


def _bad_row(name: str, path: Any, array: Array) -> str:
    if not _is_floating(array):
        return ""
    name = f"{name}{jax.tree_util.keystr(path)}"
    bad = np.flatnonzero(~np.asarray(_finite_rows(array)))
    if not bad.size:
        return ""
    row = np.asarray(array[int(bad[0])])
    place = [int(i) for i in np.argwhere(~np.isfinite(row))[0]]
    return (
        f"The {name} of example {bad[0]} holds {row[tuple(place)]}, at {[int(bad[0]), *place]} ({bad.size} of "
        f"{len(array)} examples are not finite): correct or remove {'it' if bad.size == 1 else 'them'}."
    )


def cause(net: Layer, loss: Loss, replay: Callable[[], Any], before: TrainState, step: int, *, checked: bool) -> str:
    """Sentences that name the first quantity to become NaN or infinite in an epoch, and a remedy.

    Args:
        net, loss: the trained network and its loss.
        replay: () -> (the state before the step, its batch (x, y, key), its gradient), as `pieces.Replay` makes them.
        before: the state at the start of the epoch, or where the run was resumed in it.
        step: the first step, from 0, whose loss or new parameters are not finite.
        checked: whether the examples are known to be finite.
    """
    if found := not_finite((before.params, before.state)):
        # The path begins with the index in the pair.
        return f"It began with parameters or running statistics that are not finite: {found[3:]}. Look at `start`."
    # inf may be a valid initial value, e.g. the best value so far.
    if found := not_finite(jax.tree.map(_without_inf, before.opt_state)):
        return f"It began with an optimizer state that holds NaN: opt_state{found}. Look at `start.opt_state`."
    ts, (xs, ys, net_key), grads = replay()
    if found := not_finite(ts.params):
        return f"The update of step {step} made a parameter overflow: {found}. {RATE}"
    xs, ys, params, state = jax.tree.map(jnp.asarray, jax.device_get((xs, ys, ts.params, ts.state)))
    if not checked and (found := bad_example("x", xs) or bad_example("y", ys)):
        return f"In the batch of that step, after augment: {found} Look at what makes the batches, and at augment."
    if not_finite(xs):
        return "The data are finite, the output of augment is not."
    outputs = xs
    for name, outputs in _outputs(net, params, state, xs, net_key):
        if not_finite(outputs):
            return f"The parameters and inputs are finite; the first outputs that are not are those of {name}. {RATE}"
    if bad := np.flatnonzero(~np.isfinite(loss(outputs, ys))).tolist():
        return (
            f"The network's outputs are finite, the loss of example {bad[0]} of the batch is not: a logarithm or a "
            f"ratio at 0, or outputs too large (up to {float(jnp.max(jnp.abs(outputs))):.3g}). {RATE}"
        )
    if found := not_finite(grads):
        return (
            f"The loss is finite, its gradient is not: {found}. Look for an infinite derivative, or a NaN in the "
            "unselected branch of a `where`."
        )
    return f"The gradient is finite. {RATE}"


def _outputs(
    net: Layer, params: Params, state: State, x: PyTree, key: Key | None, place: str = ""
) -> Iterator[tuple[str, Array]]:
    """Name and outputs of each layer in training mode, in order; combinators but `serial` count as one layer."""
    if net.kind is not SERIAL:
        yield f"{net.kind.name}{f' at {place}' if place else ''}", net.apply(params, state, x, key=key, train=True)[0]
        return
    for i, (part, p, s) in enumerate(zip(net.parts, filled(net, params), spread(state, net.parts), strict=True)):
        for name, outputs in _outputs(part, p, s, x, fold(key, i), f"{place}[{i}]"):
            yield name, outputs
            x = outputs


def _without_inf(leaf: Array) -> Array:
    return jnp.where(jnp.isinf(leaf), jnp.zeros_like(leaf), leaf) if _is_floating(leaf) else leaf


def _is_floating(leaf: Any) -> bool:
    return jnp.issubdtype(leaf.dtype, jnp.floating)
