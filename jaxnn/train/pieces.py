"""An epoch, or a piece of it, as one compiled scan over minibatches."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, NamedTuple, TypeAlias

import jax
import jax.numpy as jnp

from jaxnn.checks import require_positive_int
from jaxnn.data import Partial
from jaxnn.optim import Transformation
from jaxnn.optim.spec import build, parted
from jaxnn.train.batches import Batch, plan
from jaxnn.train.keys import step_keys
from jaxnn.train.memo import memoized
from jaxnn.train.meshes import (
    Split,
    as_split,
    gathering,
    kept_in_place,
    require_divided,
    require_no_other_mesh,
    split_of,
    split_rows,
    with_specs,
)
from jaxnn.train.step import Augment, Measure, TrainState, ValueAndGrad, one_step, with_numbers
from jaxnn.types import Array, Key, Params, PyTree


class Epoch(NamedTuple):
    """What an epoch does, without its optimizer's numbers: the arguments of `make_epoch`, hashable."""

    vg: ValueAndGrad
    batch_size: int
    partial: Partial = Partial.DROP
    augment: Augment | None = None
    measure: Measure | None = None
    split: Split | None = None


def make_epoch(
    vg: ValueAndGrad,
    opt: Transformation,
    *,
    batch_size: int,
    partial: Partial = Partial.DROP,
    augment: Augment | None = None,
    measure: Measure | None = None,
    mesh: jax.sharding.Mesh | None = None,
    axis: str | tuple[str, ...] | None = None,
) -> Callable[..., tuple[TrainState, dict[str, Array]]]:
    """One epoch as one compiled `lax.scan` over freshly permuted, or drawn, minibatches, the data on the device.

    Params, running statistics and optimizer state are donated: the `TrainState` passed in must not be used afterwards.
    State and data may lie on a mesh, as for `fit`. The loss of a step is the value BEFORE its update: an overflow in
    the last update shows only in `tree.all_finite(jax.tree.leaves(ts.params))`.

    Args:
        vg, opt, measure: as for `make_step`.
        batch_size: N for batch gradient descent, 1 for stochastic; more than N only with `Partial.WEIGHT`.
        partial: the last, smaller batch: `Partial.DROP` omits it from this epoch, `Partial.WEIGHT` pads it with
            examples of weight 0 (not with batch normalization, whose statistics would include them). No effect on a
            `Draws`, whose batches are full.
        augment: a random transformation of the inputs of each batch, from `jaxnn.data.augment`.
        mesh, axis: each batch is split over this axis (None: the first; or several) of this mesh, on which state and
            data lie: data parallelism. None: over the axes that x is split along, if any.

    Returns:
        `epoch(ts, x, y, key) -> (ts, report)`: x and y arrays with N examples on the first axis, or pytrees of them if
        `vg` takes such batches; or x a `data.Draws` and y (), for `draws.steps` batches, the i-th (from 0)
        `draws.batch(fold_in(split(key)[0], i), batch_size)`. report["loss"] and the values of `measure` have shape
        (steps,); report["examples"] is the number of examples of each step.

    Raises:
        TypeError, ValueError: as for `make_step`; a batch that the devices of `axis` do not divide.

    Example:
        >>> from jaxnn import losses, models, optim
        >>> from jaxnn.train import init, mean_loss
        >>> net, opt = models.linear(2), optim.sgd(0.1)
        >>> vg = jax.value_and_grad(mean_loss(net, losses.softmax_cross_entropy), has_aux=True)
        >>> epoch = make_epoch(vg, opt, batch_size=4)
        >>> ts = init(net, opt, jax.random.key(0), (3,))
        >>> ts, report = epoch(ts, jnp.ones((10, 3)), jnp.zeros(10, jnp.int32), jax.random.key(1))
        >>> report["loss"].shape
        (2,)
    """
    return _compiled("make_epoch", vg, opt, None, batch_size, partial, augment, measure, mesh, axis)


def make_piece(
    vg: ValueAndGrad,
    opt: Transformation,
    *,
    steps: int,
    batch_size: int,
    partial: Partial = Partial.DROP,
    augment: Augment | None = None,
    measure: Measure | None = None,
    mesh: jax.sharding.Mesh | None = None,
    axis: str | tuple[str, ...] | None = None,
) -> Callable[..., tuple[TrainState, dict[str, Array]]]:
    """`steps` successive steps of an epoch of `make_epoch`: what a long run saves, or looks at, in between.

    Pieces that follow each other make the epoch, to the bit: batches, dropout masks and augmentation are functions of
    the epoch's key and the number of the step.

    Args:
        steps: of a piece, >= 1; each number is a program of its own.
        vg, opt, batch_size, partial, augment, measure, mesh, axis: as for `make_epoch`.

    Returns:
        `piece(ts, x, y, key, first) -> (ts, report)`: steps first, ..., first + steps - 1 (from 0) of the epoch with
        that key. `ts` is donated; `first` may be traced, and the piece must end within the epoch.

    Raises:
        TypeError, ValueError: as for `make_epoch`; steps < 1, or more than an epoch has.

    Example:
        >>> from jaxnn import losses, models, optim
        >>> from jaxnn.train import init, mean_loss
        >>> net, opt = models.linear(2), optim.sgd(0.1)
        >>> vg = jax.value_and_grad(mean_loss(net, losses.softmax_cross_entropy), has_aux=True)
        >>> piece = make_piece(vg, opt, steps=2, batch_size=2)
        >>> ts, x, y = init(net, opt, jax.random.key(0), (3,)), jnp.ones((8, 3)), jnp.zeros(8, jnp.int32)
        >>> for first in (0, 2):  # an epoch of 4 steps
        ...     ts, report = piece(ts, x, y, jax.random.key(1), first)
        >>> ts.opt_state.count
        Array(4, dtype=int32)
    """
    steps = require_positive_int("make_piece", "steps", steps)
    return _compiled("make_piece", vg, opt, steps, batch_size, partial, augment, measure, mesh, axis)


def _compiled(
    where: str, vg: ValueAndGrad, opt: Transformation, steps: int | None, batch_size: int, partial: Partial,
    augment: Augment | None, measure: Measure | None, mesh: Any, axis: Any,
) -> Callable[..., tuple[TrainState, dict[str, Array]]]:  # fmt: skip
    """The compiled piece; the whole epoch for `steps` None, and then without the argument `first`."""
    one_step(vg, opt, measure)  # its checks
    structure, numbers = parted(opt)
    asked = as_split(where, mesh, axis)
    require_no_other_mesh(where, asked)
    require_divided(where, asked, batch_size)
    epoch = Epoch(vg, batch_size, partial, augment, measure)

    def program(ts: TrainState, x: PyTree) -> Callable[..., Any]:
        split = with_specs(asked or split_of(where, x), ts)
        return with_numbers(where, _program(epoch._replace(split=split), structure, steps), numbers)

    def piece(ts: TrainState, x: PyTree, *args: Any) -> Any:
        return program(ts, x)(ts, x, *args)

    # Attributes of a compiled function that e.g. jax.export uses.
    for name in ("lower", "trace", "eval_shape"):
        setattr(piece, name, lambda ts, x, *args, name=name: getattr(program(ts, x), name)(ts, x, *args))
    piece.clear_cache = _program(epoch, structure, steps).clear_cache  # type: ignore[attr-defined]
    return piece


@memoized
def _program(epoch: Epoch, structure: Any, steps: int | None) -> Any:
    """The piece of every optimizer of that structure, compiled."""

    def piece(ts: TrainState, x: PyTree, y: PyTree, key: Key, first: Any = 0, *, numbers: Any) -> Any:
        return scan_piece(epoch, build(structure, numbers), ts, x, y, key, first, steps)

    return jax.jit(piece, donate_argnums=0)


def scan_epoch(
    vg: ValueAndGrad,
    opt: Transformation,
    *,
    batch_size: int,
    partial: Partial = Partial.DROP,
    augment: Augment | None = None,
    measure: Measure | None = None,
) -> Callable[..., tuple[TrainState, dict[str, Array]]]:
    """`make_epoch` without the compilation, to `vmap`: same arguments, same returned function."""
    epoch = Epoch(vg, batch_size, partial, augment, measure)
    one_step(vg, opt, measure)  # its checks
    return lambda ts, x, y, key: scan_piece(epoch, opt, ts, x, y, key, 0, None)


def scan_piece(
    epoch: Epoch, opt: Transformation, ts: TrainState, x: PyTree, y: PyTree, key: Key, first: Any, steps: int | None
) -> tuple[TrainState, dict[str, Array]]:
    """Steps first, ..., first + steps - 1 of an epoch; None for all."""
    step = step_of(epoch, opt)
    order_key, step_key = jax.random.split(key)
    todo = plan(x, y, order_key, epoch.batch_size, epoch.partial)
    if todo.weighted:
        require_full("make_epoch", ts, jax.tree.leaves(x)[0].shape[0], epoch.batch_size)
    numbers, rows = jnp.arange(todo.steps), todo.rows
    if steps is not None:
        if steps > todo.steps:
            raise ValueError(f"make_piece: an epoch has {todo.steps} steps, fewer than a piece of {steps}.")
        part = functools.partial(jax.lax.dynamic_slice_in_dim, start_index=first, slice_size=steps)
        numbers, rows = jax.tree.map(part, (numbers, rows))

    def body(ts: TrainState, at: tuple[Array, PyTree]) -> tuple[TrainState, dict[str, Array]]:
        i, row = at
        batch, net_key = prepared(epoch, todo.batch(row), step_key, i)
        ts, report = step(ts, batch.x, batch.y, key=net_key, weights=batch.weights if todo.weighted else None)
        return ts, report | {"examples": jnp.sum(batch.weights)}

    return jax.lax.scan(body, ts, (numbers, rows))


def step_of(epoch: Epoch, opt: Transformation) -> Callable[..., tuple[TrainState, dict[str, Array]]]:
    """The step of an epoch on one batch, on the devices of its split."""
    step = one_step(gathering(epoch.vg, epoch.split), opt, epoch.measure)

    def placed(ts: TrainState, *args: Any, **how: Any) -> tuple[TrainState, dict[str, Array]]:
        ts, report = step(ts, *args, **how)
        return kept_in_place(ts, epoch.split), report

    return placed


def require_full(where: str, ts: TrainState, n: int, batch_size: int) -> None:
    """Raise ValueError if running statistics would include the padding of the last of n examples' batches."""
    if n % batch_size and jax.tree.leaves(ts.state):
        raise ValueError(
            f"{where}: the network has running statistics (batch normalization), which would include the "
            f"padding of the last batch: {n} examples in batches of {batch_size}. Use partial=Partial.DROP."
        )


def prepared(epoch: Epoch, batch: Batch, step_key: Key, i: Array) -> tuple[Batch, Key]:
    """The batch of step i, split over the devices, with augmented inputs; and the network's key."""
    batch = split_rows(batch, epoch.split)
    net_key, augment_key = step_keys(step_key, i)
    return batch if epoch.augment is None else batch._replace(x=epoch.augment(augment_key, batch.x)), net_key


Replay: TypeAlias = Callable[..., tuple[TrainState, tuple[PyTree, PyTree, Key], Params]]
"""(ts, x, y, key, first, step) -> the state before that step of the epoch (from 0), the batch, and the gradient."""


def replayed(epoch: Epoch, opt: Transformation) -> Replay:
    """The steps of an epoch from `first`, where the state was `ts`, to before `step`, to diagnose that step."""
    structure, numbers = parted(opt)
    return functools.partial(_replay_program(epoch, structure), numbers=numbers)


@memoized
def _replay_program(epoch: Epoch, structure: Any) -> Any:
    def replay(ts: TrainState, x: PyTree, y: PyTree, key: Key, first: Any, step: Array, *, numbers: Any) -> Any:
        one = step_of(epoch._replace(measure=None), build(structure, numbers))
        order_key, step_key = jax.random.split(key)
        todo = plan(x, y, order_key, epoch.batch_size, epoch.partial)

        def arguments(i: Array) -> tuple[tuple[PyTree, PyTree, Key], dict[str, Any]]:
            row = jax.tree.map(lambda rows: rows[i], todo.rows)
            (xs, ys, weights), net_key = prepared(epoch, todo.batch(row), step_key, i)
            return (xs, ys, net_key), {"key": net_key, "weights": weights if todo.weighted else None}

        def body(i: Array, ts: TrainState) -> TrainState:
            (xs, ys, _), how = arguments(i)
            return one(ts, xs, ys, **how)[0]

        ts = jax.lax.fori_loop(first, step, body, ts)
        batch, how = arguments(step)
        return ts, batch, epoch.vg(ts.params, ts.state, *batch[:2], **how)[1]

    return jax.jit(replay)
