"""Seeds x hyperparameters x data orders: thousands of training runs in one program, and their metrics as one table."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxnn.checks import as_numpy, count_of, require_leading_axis, require_positive_int
from jaxnn.data import Partial
from jaxnn.layers import Layer
from jaxnn.optim.spec import Structure, spec
from jaxnn.train.arguments import (
    as_pair,
    as_training,
    require_function,
    require_metrics,
    require_net,
    require_optimizer,
    require_targets,
)
from jaxnn.train.batches import concrete, one_of
from jaxnn.train.loss import default_value_and_grad
from jaxnn.train.memo import memoized
from jaxnn.train.saving.pace import SAVE_EVERY, SaveEvery
from jaxnn.train.step import Augment, Measure, ValueAndGrad
from jaxnn.train.sweeps.runs import map_program, mapped
from jaxnn.train.sweeps.staged import Staged, alike, alone
from jaxnn.train.sweeps.sweep_runs import MakeOptimizer, Probe, run_of
from jaxnn.train.sweeps.tables import save_table
from jaxnn.types import Array, Key, Loss, Params, PyTree

ALIKE = 16
"""The largest number of settings that are trained side by side on the same minibatches."""


@dataclasses.dataclass(frozen=True, repr=False)
class Sweep:
    """The results of N runs of E epochs.

    Attributes:
        settings: the hyperparameters of each run, a pytree like one setting, leaves (N, ...).
        index: {"setting": (N,), "seed": (N,), "order": (N,)}, the indices of each run.
        curves: name -> (N, E): "loss", the scalars of `measure` and `probe`, and "validation_*", as in the history of
            `fit`; NaN from the epoch on in which a run diverged.
        final: name -> (N,): "test_loss" and "test_*" after the last epoch, if a test set was passed; NaN for a run that
            diverged.
        diverged: (N,), the epoch, from 1, in which the loss, a parameter or a running statistic became NaN or infinite,
            or a validation metric NaN; 0 for a run that did not diverge.
    """

    settings: PyTree
    index: dict[str, np.ndarray]
    curves: dict[str, np.ndarray]
    final: dict[str, np.ndarray]
    diverged: np.ndarray

    def __repr__(self) -> str:
        runs, epochs = self.curves["loss"].shape
        names = ", ".join([*self.curves, *self.final])
        told = f"{count_of(runs, 'run')}, {count_of(epochs, 'epoch')}"
        return f"Sweep of {told}, {int((self.diverged > 0).sum())} diverged; {names}"

    def table(self) -> dict[str, np.ndarray]:
        """One row per run and epoch, as columns (N E,): run, setting, seed, order, hyperparameters, epoch, curves.

        A hyperparameter is named by its path in the settings, prefixed by "settings." where another column has that
        name ("setting_value" if the settings are one array); an array-valued one has a column per entry. "diverged" is
        1 where the run had diverged by that epoch, else 0; `final` is repeated in every row of its run.
        """
        n, epochs = self.curves["loss"].shape
        columns = {"run": np.arange(n)} | self.index
        others = {"epoch", "diverged", *columns, *self.curves, *self.final}
        for path, leaf in jax.tree_util.tree_leaves_with_path(self.settings):
            name = jax.tree_util.keystr(path, simple=True, separator=".") or "setting_value"
            name = f"settings.{name}" if name in others else name
            for place in np.ndindex(leaf.shape[1:]):
                columns[name + "".join(f"[{i}]" for i in place)] = leaf[(slice(None), *place)]
        rows = {name: np.repeat(values, epochs) for name, values in columns.items()}
        ends = {name: np.repeat(values, epochs) for name, values in self.final.items()}
        epoch = np.tile(np.arange(1, epochs + 1), n)
        ended = np.repeat(self.diverged, epochs)
        rows |= {"epoch": epoch, "diverged": ((ended > 0) & (epoch >= ended)).astype(int)}
        return rows | {name: values.reshape(-1) for name, values in self.curves.items()} | ends

    def save(self, path: str | Path) -> Path:
        """Write the table to a file named *.csv or *.npz (for `np.load`), and return its path.

        Raises:
            ValueError: another suffix.
        """
        return save_table(self.table(), path)


def sweep(
    make_optimizer: MakeOptimizer,
    settings: PyTree,
    net: Layer,
    loss: Loss,
    train: Any,
    *,
    keys: Key,
    epochs: int,
    orders: Key | None = None,
    batch_size: int = 128,
    validation: Any = None,
    test: Any = None,
    metrics: Mapping[str, Loss] | None = None,
    regularizer: Callable[[Params], Array] | None = None,
    value_and_grad: ValueAndGrad | None = None,
    augment: Augment | None = None,
    partial: Partial = Partial.DROP,
    measure: Measure | None = None,
    probe: Probe | None = None,
    memory: int | None = None,
    chunk: int | None = None,
    folder: str | Path | None = None,
    save_every: SaveEvery = SAVE_EVERY,
    progress: bool | Callable[[int, int], None] = True,
) -> Sweep:
    """Train a network once per setting, seed and data order: `vmap` over whole runs, one compiled program.

    Without `orders`, the run of setting s and seed r equals that of `fit` with `make_optimizer(s)` and `key=keys[r]`,
    up to the rounding of batched kernels. A run that diverges is frozen at the state of the epoch before, and marked in
    `Sweep.diverged`; it does not affect the others.

    Args:
        make_optimizer: setting -> optimizer, e.g. `lambda s: optim.adam(s["learning_rate"])`. The numbers are traced:
            no Python branch on them. Schedules may depend on them too.
        settings: pytree of S settings, leaves (S, ...): `{"learning_rate": np.logspace(-4, -1, 13)}`.
        net, loss, train: as for `fit`.
        keys: R typed keys, shape (R,): a seed fixes the initial parameters and, without `orders`, all randomness.
        epochs: of each run.
        orders: O typed keys of data order, augmentation and dropout, each combined with every seed; None derives them
            from the seed.
        batch_size, validation, metrics, regularizer, value_and_grad, augment, partial, measure: as for `fit`.
        test: (x, y) or a Dataset; the loss and `metrics` on it after the last epoch are `final`.
        probe: (TrainState, x, y) -> more scalars to report after each epoch; x and y are the whole training data, or
            the `Draws` and ().
        memory, chunk, folder, progress: as for `map_runs`: N = S R O runs need not fit into memory at once, and an
            interrupted sweep resumes from its folder if called with the same chunk on as many devices.
        save_every: with a folder, epochs (an int) or the time (seconds as a float, or a timedelta) between two saves
            inside a chunk: a kill costs at most that much, or one epoch of a chunk.

    Returns:
        Sweep, its runs ordered by setting, seed, order, the last varying fastest.

    Raises:
        TypeError, ValueError: an argument is of the wrong type or shape, or the data do not match.
        FolderInUseError, OSError, MemoryError: as for `map_runs`.

    Example:
        >>> from jaxnn import losses, models, optim
        >>> x = jnp.linspace(-1.0, 1.0, 64)[:, None]
        >>> found = sweep(lambda s: optim.sgd(s["rate"]), {"rate": np.array([0.01, 0.1, 1e3])}, models.linear(1),
        ...               losses.half_squared_error, (x, 3 * x + 1), keys=jax.random.split(jax.random.key(0), 2),
        ...               epochs=20, batch_size=16, progress=False)
        >>> found.curves["loss"].shape, found.diverged.tolist()
        ((6, 20), [0, 0, 0, 0, ...])
    """
    require_net("sweep", net)
    require_function("sweep", "make_optimizer", make_optimizer, "lambda s: optim.adam(s['rate'])", optional=False)
    require_function("sweep", "probe", probe, "lambda ts, x, y: {'norm': tree.norm(ts.params)}")
    require_metrics("sweep", metrics or {})
    epochs = require_positive_int("sweep", "epochs", epochs)
    x, y = as_training("sweep", train)
    held_out, last = (
        None if part is None else as_pair("sweep", name, part, trees=True)
        for name, part in (("validation", validation), ("test", test))
    )
    if metrics and held_out is None and last is None:
        raise ValueError(
            f"sweep: metrics ({', '.join(metrics)}) are evaluated on validation and test data; pass validation=(x, y) "
            "or test=(x, y)."
        )
    index, inputs = _grid(settings, keys, orders)
    first = concrete(x, y, keys[0], batch_size)
    _require_targets(net, loss, keys[0], {"training": first, "validation": held_out, "test": last})
    made_by, given = _optimizers(make_optimizer, settings, inputs[0], index["setting"])
    vg = value_and_grad or default_value_and_grad(net, loss, regularizer)
    measured = tuple((metrics or {}).items())
    # A function of the user's is called anew in each sweep: what it reads may have changed since the last.
    make = run_of if isinstance(made_by, Structure) else run_of.__wrapped__  # type: ignore[attr-defined]
    run = make(net, loss, made_by, vg, measured, epochs, batch_size, partial, augment, measure, probe)
    curves, final, diverged = _map_alike(
        run, (given, *inputs[1:]), int(index["setting"][-1]) + 1, (x, y, held_out, last),
        memory=memory, chunk=chunk, folder=folder, save_every=save_every, progress=progress,
    )  # fmt: skip
    chosen = jax.tree.map(np.asarray, inputs[0])
    return Sweep(chosen, index, curves, final, diverged)


def _optimizers(
    make_optimizer: MakeOptimizer, settings: PyTree, chosen: PyTree, index: np.ndarray
) -> tuple[Structure | MakeOptimizer, PyTree]:
    """The structure and numbers of all runs' optimizers; `make_optimizer` and the settings if no structure is common.

    With a structure the program does not depend on the settings: a sweep over others, even by another function,
    compiles nothing. There is none with a schedule, or a function made anew for each setting, in the optimizer.
    """
    structures: list[Structure | None] = []

    def numbers(setting: PyTree) -> PyTree:
        opt = make_optimizer(setting)
        require_optimizer("sweep", opt, "what make_optimizer returns")
        structure, found = spec(opt) or (None, ())
        structures.append(structure)
        return jax.tree.map(jnp.asarray, found)

    # Traced, as in the program, and twice: a function that is made anew has another identity the second time.
    jax.eval_shape(lambda setting: numbers(setting), jax.tree.map(lambda leaf: jnp.asarray(leaf[0]), settings))
    mapped_numbers = jax.vmap(numbers)(settings)
    one, other = structures
    if one is None or one != other:
        return make_optimizer, chosen
    return one, jax.tree.map(lambda leaf: np.asarray(leaf)[index], mapped_numbers)


@memoized
def _jitted(run: Callable[..., PyTree], devices: int) -> Any:
    return jax.jit(mapped(run, devices))


def _map_alike(
    run: Staged, inputs: tuple[PyTree, Key, Key], settings: int, shared: tuple[PyTree, ...], *, chunk: int | None,
    **how: Any,
) -> PyTree:  # fmt: skip
    """`map_runs`, with runs that differ only in the setting side by side."""
    # Every device needs at least one group.
    most = max(min(ALIKE, chunk or ALIKE, len(inputs[1]) // jax.local_device_count()), 1)
    together = max(count for count in range(1, most + 1) if settings % count == 0)
    if together == 1:
        return map_program(alone(run), inputs, shared, jitted=_jitted, chunk=chunk, **how)
    chosen, seeds, orders = inputs
    n = len(seeds)
    # Run n = (setting, seed, order), the setting slowest; rows: (settings / together) * (seeds * orders) x together.
    rows = np.arange(n).reshape(-1, together, n // settings).swapaxes(1, 2).reshape(-1, together)
    grouped = (jax.tree.map(lambda leaf: leaf[rows], chosen), seeds[rows[:, 0]], orders[rows[:, 0]])

    try:
        found = map_program(alike(run), grouped, shared, jitted=_jitted, chunk=chunk, each=together, **how)
    except MemoryError:  # a group side by side does not fit into memory; its runs one by one may
        return map_program(alone(run), inputs, shared, jitted=_jitted, chunk=chunk, **how)
    place = np.argsort(rows.reshape(-1))  # the inverse permutation: back to the order of the runs
    return jax.tree.map(lambda leaf: leaf.reshape(n, *leaf.shape[2:])[place], found)


def _grid(settings: PyTree, keys: Key, orders: Key | None) -> tuple[dict[str, np.ndarray], tuple[PyTree, Key, Key]]:
    """The indices of each run's setting, seed and order; and (its setting, its key, its order key), leaves (N, ...)."""
    given: dict[str, Any] = {"keys": keys} | ({} if orders is None else {"orders": orders})
    for name, each in given.items():
        kind = getattr(each, "dtype", None)
        if kind is None or not jax.dtypes.issubdtype(kind, jax.dtypes.prng_key) or each.ndim != 1 or not len(each):
            got = repr(each) if kind is None else f"{each.shape} of {kind}"
            raise ValueError(
                f"sweep: {name} must be typed keys of shape (R,), R >= 1, got {got}. Use jax.random.split(key, R)."
            )
    settings = jax.tree.map(lambda leaf: as_numpy("sweep", "settings", leaf), settings)
    remedy = (
        'Pass a pytree such as {"learning_rate": np.logspace(-4, -1, 13)}. A list is a pytree of numbers: convert it '
        "to an array."
    )
    count = require_leading_axis("sweep", "settings", settings, remedy, size="S")
    grid = np.array(
        list(itertools.product(range(count), range(len(keys)), range(1 if orders is None else len(orders))))
    )
    index = dict(zip(("setting", "seed", "order"), grid.T, strict=True))
    chosen = jax.tree.map(lambda leaf: leaf[index["setting"]], settings)
    seeds = keys[index["seed"]]
    return index, (chosen, seeds, seeds if orders is None else orders[index["order"]])


def _require_targets(net: Layer, loss: Loss, key: Key, parts: Mapping[str, tuple[PyTree, PyTree] | None]) -> None:
    """Raise unless the targets fit the network's outputs and the loss, as `fit` does."""
    given = {name: pair for name, pair in parts.items() if pair is not None}
    x, _ = given["training"]
    params, state = net.init(key, one_of(x))
    for name, pair in given.items():
        require_targets("sweep", name, net, params, state, pair, loss)
