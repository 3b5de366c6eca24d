"""The epochs of a training run, one by one: the loop of `fit` as an iterator, which saves and resumes."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Literal

import jax

from jaxnn.checks import require_key, require_positive_int
from jaxnn.data import Partial
from jaxnn.layers import Layer
from jaxnn.optim import Transformation, averaged_params
from jaxnn.train.arguments import (
    as_pair,
    as_training,
    require_function,
    require_metrics,
    require_net,
    require_optimizer,
    require_start,
    require_targets,
    taking,
)
from jaxnn.train.checkpoints import CheckpointStore
from jaxnn.train.evaluate import make_evaluate
from jaxnn.train.feeds.arrays import ArrayFeed, Feed
from jaxnn.train.feeds.sources import source_of
from jaxnn.train.feeds.stream import StreamFeed
from jaxnn.train.keys import run_keys
from jaxnn.train.loop import Epochs, Run
from jaxnn.train.loss import default_value_and_grad
from jaxnn.train.memo import memoized
from jaxnn.train.meshes import as_split, put_on, require_divided, require_no_other_mesh
from jaxnn.train.pieces import Epoch, require_full
from jaxnn.train.progress import say
from jaxnn.train.saving.identity import fingerprint, identity
from jaxnn.train.saving.pace import SAVE_EVERY, SaveEvery
from jaxnn.train.saving.saver import Folder, Saver
from jaxnn.train.step import Augment, Measure, TrainState, ValueAndGrad, grad_norm, init
from jaxnn.types import Array, Key, Loss, Params, PyTree

MANY = 2**62
"""Steps of an epoch that only the end of its source ends."""


def epochs(
    net: Layer,
    loss: Loss,
    opt: Transformation,
    train: Any,
    *,
    key: Key,
    epochs: int,
    batch_size: int = 128,
    steps_per_epoch: int | None = None,
    validation: Any = None,
    metrics: Mapping[str, Loss] | None = None,
    regularizer: Callable[[Params], Array] | None = None,
    value_and_grad: ValueAndGrad | None = None,
    augment: Augment | None = None,
    partial: Partial = Partial.DROP,
    measure: Measure | None = None,
    start: TrainState | None = None,
    evaluated_at: Callable[[Any, Params], Params] | None = None,
    evaluate_on: Literal["average"] | None = None,
    mesh: jax.sharding.Mesh | None = None,
    axis: str | tuple[str, ...] | None = None,
    folder: Folder | None = None,
    save_every: SaveEvery = SAVE_EVERY,
    keep: int = 2,
    say: Callable[[str], None] = say,
) -> Epochs:
    """The epochs of `fit`, each as it ends: log, evaluate, change the state, keep it or stop in a loop of your own.

    Args:
        net, loss, opt, train, key, epochs, batch_size, steps_per_epoch, validation, metrics, regularizer,
            value_and_grad, augment, partial, measure, start, evaluated_at, evaluate_on, mesh, axis, folder, save_every,
            keep: as for `fit`, which also chooses among the epochs and reports.
        say: called with a line when the run goes on from a folder; prints to standard error by default.

    Returns:
        An iterator of `Event`s, pairs (record, ts): the metrics of the epoch, as in the history of `fit`, and the
        `TrainState` at its end. A state stays valid, as the next epoch trains a copy of it; pass a copy of it to what
        donates its argument, such as `make_step`. Training goes on from the iterator's `ts`, to which the loop may
        assign another state, e.g. one with a new learning rate (`optim.with_hyperparams`). Its `history` has the
        records of all epochs, its `stopped` the signal that ended it, if one did. Arguments are checked, and a folder
        is locked and read, at the call; training begins with the first epoch that is asked for. At its end the last
        epoch is saved and the folder unlocked; after a `break` by its `close()`, or when it goes out of scope.
        A record may get entries of your own, and `extra`, a dict, what your loop knows, as JSON: they are saved too.

    Raises:
        DivergedError: as `fit`; its `result` is the `TrainState` before that epoch.
        TypeError, ValueError, OSError: as `fit`, whose name stands in the messages.

    Example:
        >>> import jax.numpy as jnp
        >>> from jaxnn import losses, models, optim
        >>> x = jnp.linspace(-1.0, 1.0, 64)[:, None]
        >>> for record, ts in epochs(models.linear(1), losses.half_squared_error, optim.sgd(0.1), (x, 3 * x + 1),
        ...                          key=jax.random.key(0), epochs=50, batch_size=16):
        ...     if record["loss"] < 1e-3:
        ...         break
        >>> record["epoch"], ts.params[1]["w"].shape
        (31, (1, 1))
    """
    for name, function, example in (
        ("regularizer", regularizer, "losses.l2(1e-4)"),
        ("augment", augment, "augment.shift(2)"),
        ("measure", measure, "train.grad_norm"),
        ("evaluated_at", evaluated_at, "optim.schedule_free_eval_params"),
    ):
        require_function("fit", name, function, example)
    require_function("fit", "loss", loss, "losses.softmax_cross_entropy", optional=False)
    require_metrics("fit", metrics or {})
    require_net("fit", net)
    require_optimizer("fit", opt)
    require_key("fit", key)
    _require_concrete(key)
    count = require_positive_int("fit", "epochs", epochs, minimum=0)
    split = as_split("fit", mesh, axis)
    require_no_other_mesh("fit", split)
    held_out = None if validation is None else as_pair("fit", "validation", validation, trees=True)
    if metrics and held_out is None:
        raise ValueError(f"fit: metrics ({', '.join(metrics)}) are of the validation data; pass validation=(x, y) too.")
    vg = value_and_grad or default_value_and_grad(net, loss, regularizer)
    epoch = Epoch(vg, batch_size, partial, augment, grad_norm if measure is None else measure, split)
    feed = _feed(train, key, epoch, opt, steps_per_epoch)
    ts = started(net, opt, feed.example, key, start)
    if partial is Partial.WEIGHT and hasattr(train, "rows"):
        require_full("fit", ts, len(train), batch_size)
    if split is not None:
        ts, held_out = put_on(split.mesh, (ts, held_out))
    for name, data in (("training", feed.targets()), ("validation", held_out)):
        if data is not None:
            require_targets("fit", name, net, ts.params, ts.state, data, loss)
    _ = feed.steps  # with its checks
    evaluate = make_evaluation(net, (("loss", loss), *(metrics or {}).items()))
    run = Run(net, loss, opt, feed, key, count, evaluate, held_out, _evaluated_at(evaluated_at, evaluate_on))
    if folder is None:
        return Epochs(run, ts, None)
    others: dict[str, Any] = {"gradient": vg, "regularizer": regularizer, "augment": augment}
    others |= {"measure": measure, "metrics": dict(metrics or {}) or None, "steps per epoch": steps_per_epoch}
    others |= {"validation": None if validation is None else fingerprint(tuple(validation))}
    others |= {"evaluated at": run.evaluated_at}
    known = identity(net, loss, opt, train, key, batch_size=batch_size, partial=partial, others=others)
    if not isinstance(folder, str | os.PathLike | CheckpointStore):
        raise TypeError(f"fit: folder must be a path, or checkpoints such as OrbaxCheckpoints(path), got {folder!r}.")
    if isinstance(folder, str | os.PathLike) and str(folder).strip():
        folder = Path(folder).absolute()  # the working directory may change
    return Epochs(run, ts, Saver(folder, save_every, keep, known, say))


def _require_concrete(values: PyTree) -> None:
    """Raise TypeError inside `jax.jit` and other transformations."""
    if any(isinstance(leaf, jax.core.Tracer) for leaf in jax.tree.leaves(values)):
        raise TypeError(
            "fit: key and data must be concrete, got traced ones: it runs outside of jax.jit, jax.vmap and jax.grad. "
            "Call train.ensemble or train.sweep for many runs, or transform what train.make_epoch returns."
        )


def _evaluated_at(
    function: Callable[[Any, Params], Params] | None, name: Any
) -> Callable[[Any, Params], Params] | None:
    """`evaluated_at`, or what `evaluate_on` stands for."""
    if name is None:
        return function
    if name != "average" or function is not None:
        raise ValueError(
            f'fit: evaluate_on must be "average", without evaluated_at, got {name!r}'
            f"{'' if function is None else ' and evaluated_at'}. Pass a function as evaluated_at for anything else."
        )
    return averaged_params


def _feed(train: Any, key: Key, epoch: Epoch, opt: Transformation, steps_per_epoch: int | None) -> Feed:
    """The batches of the training data."""
    source = source_of(train, key, epoch, steps_per_epoch)
    if source is not None:
        return StreamFeed(source, epoch, opt)
    if steps_per_epoch is not None:
        raise ValueError("fit: steps_per_epoch is of streams; the number of examples, or of draws, tells the steps.")
    require_divided("fit", epoch.split, epoch.batch_size)
    _require_concrete(train)
    x, y = as_training("fit", train)
    if epoch.split is not None:
        x, y = put_on(epoch.split.mesh, (x, y))
    return ArrayFeed(x, y, key, epoch, opt)


def started(net: Layer, opt: Transformation, example: PyTree, key: Key, start: TrainState | None) -> TrainState:
    """The state that training begins with: `start`, checked, or a fresh one."""
    with taking("fit", "train x", example):
        if start is None:
            return init(net, opt, run_keys(key)[0], example)
        require_start("fit", "start", net, opt, start, example)
    return start


@memoized
def make_evaluation(net: Layer, metrics: tuple[tuple[str, Loss], ...]) -> Callable[..., dict[str, Array]]:
    """`make_evaluate`, kept for equal arguments."""
    return make_evaluate(net, dict(metrics))
