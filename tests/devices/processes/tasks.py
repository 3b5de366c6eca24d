"""What the processes of `worker.py` do: each task writes what process 0 found into the folder."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest
from jax.sharding import NamedSharding
from jax.sharding import PartitionSpec as P

from jaxnn import backprop, losses, models, optim, per_example, train
from jaxnn.layers import BatchNorm, Conv, Dense, Dropout, Flatten, Relu
from jaxnn.train.sweeps.store import Store

KEY = jax.random.key(0)
N, B = 48, 16
LOSS = losses.softmax_cross_entropy
MLP = models.serial(Dense(32), Relu, Dropout(0.2), Dense(8))
CNN = models.serial(Conv(8, 3, b_init=None), BatchNorm(), Relu, Flatten, Dense(8))
OPT = optim.adam(1e-3)


def mesh() -> jax.sharding.Mesh:
    return jax.make_mesh((8,), ("data",), axis_types=(jax.sharding.AxisType.Auto,))


def problem(*shape: int) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    return rng.standard_normal((N, *shape)), rng.integers(0, 8, N).astype(np.int32)


def fitted(net: Any, data: Any, **settings: Any) -> train.FitResult:
    how: dict[str, Any] = {"key": KEY, "epochs": 3, "batch_size": B, "progress": False, "mesh": mesh()} | settings
    return train.fit(net, LOSS, OPT, data, **how)


def write(folder: Path, name: str, tree: Any) -> None:
    """The arrays of a pytree, gathered, by process 0."""
    from jax.experimental import multihost_utils

    whole = [
        np.asarray(leaf) if not isinstance(leaf, jax.Array) or leaf.is_fully_addressable
        else multihost_utils.process_allgather(leaf, tiled=True)
        for leaf in jax.tree.leaves(tree)
    ]  # fmt: skip
    if jax.process_index() == 0:
        np.savez(folder / f"{name}.npz", *whole)


def result(found: train.FitResult) -> Any:
    return found[:3], [
        {k: v for k, v in r.items() if k not in ("seconds", "examples_per_second")} for r in found.history
    ]


def split_start() -> train.TrainState:
    """Parameters and optimizer state split over the devices."""
    example = jax.ShapeDtypeStruct((16,), np.float64)
    return train.shard_params(train.init(MLP, OPT, jax.random.split(KEY)[0], example), mesh(), smallest=16)


class Rows:
    def __init__(self, x: Any, y: Any) -> None:
        self.arrays, self.read = (x, y), 0

    def __len__(self) -> int:
        return N

    def rows(self, indices: Any) -> Any:
        self.read += len(indices)
        return tuple(a[indices] for a in self.arrays)


def training(folder: Path) -> None:
    """Data parallelism and FSDP, from memory and from streams."""
    x, y = problem(16)
    held = {"validation": (x[:16], y[:16])}
    write(folder, "mlp", result(fitted(MLP, (x, y), **held)))
    write(folder, "cnn", result(fitted(CNN, problem(6, 6, 2))))
    write(folder, "fsdp", result(fitted(MLP, (x, y), start=split_start(), **held)))
    source = Rows(x, y)
    write(folder, "rows", result(fitted(MLP, source, **held)))
    assert source.read <= (3 * N + 2 * B) // jax.process_count() + 3 * B, source.read
    rows = slice(*(np.array([0, B]) // jax.process_count() + B // jax.process_count() * jax.process_index()))

    def batches(position: train.Position) -> Any:
        first = position.step * B % N
        return x[first : first + B][rows], y[first : first + B][rows]

    write(folder, "function", result(fitted(MLP, batches, steps_per_epoch=3)))
    spread = NamedSharding(mesh(), P("data"))
    share = N // jax.process_count()
    mine = slice(share * jax.process_index(), share * (jax.process_index() + 1))
    whole = tuple(jax.make_array_from_process_local_data(spread, a[mine]) for a in (x, y))
    write(folder, "shares", result(fitted(MLP, whole)))


def gradients(folder: Path) -> None:
    """Tapes, statistics and hand-written gradients of arrays that span the processes."""
    x, y = problem(16)
    spread = NamedSharding(mesh(), P("data"))
    share = N // jax.process_count()
    mine = slice(share * jax.process_index(), share * (jax.process_index() + 1))
    xs, ys = (jax.make_array_from_process_local_data(spread, a[mine]) for a in (x, y))
    net = models.mlp([16, 32, 8])
    params, state = net.init(KEY, (16,))
    params = jax.device_put(jax.tree.map(np.asarray, params), NamedSharding(mesh(), P()))

    @jax.jit
    def found(params: Any, x: Any, y: Any) -> Any:
        tape = backprop.record(net, LOSS)(params, state, x, y)
        norms = per_example.sq_norms(tape)
        total, _ = per_example.clipped_grad(tape, 0.5)
        by_hand = backprop.value_and_grad(net, LOSS)(params, state, x, y)

        def one(p: Any, x: Any, y: Any) -> Any:
            return LOSS(net.predict(p, state, x[None]), y[None])[0]

        streamed = per_example.value_and_grad(one)(params, x, y)
        return norms, total, by_hand, streamed

    write(folder, "gradients", found(params, xs, ys))


def saving(folder: Path) -> None:
    """A run in .npz checkpoints, and one of split parameters in those of orbax: each call trains two epochs more."""
    data = problem(16)
    for name, how in (("npz", {"folder": folder / "npz"}), ("orbax", {})):
        if name == "orbax":
            how = {"folder": train.OrbaxCheckpoints(folder / "orbax"), "start": split_start()}
        done = max((about_of(path) for path in (folder / "npz").glob("step-*.npz")), default=0) if name == "npz" else 0
        done = done if name == "npz" else max(train.OrbaxCheckpoints(folder / "orbax").steps(), default=0) // 3
        found = fitted(MLP, data, epochs=done + 2, save_every=2, **how)
        write(folder, name, result(found))
        write(folder, f"{name}-expected", result(fitted(MLP, data, epochs=done + 2, start=how.get("start"))))


def about_of(path: Path) -> int:
    return int(path.stem.split("-")[1]) // 3


def stopping(folder: Path) -> None:
    """SIGTERM of one process stops all at one step, though orbax, too, may ask JAX whether that has come."""

    def send(record: Any, ts: Any) -> None:
        if record["epoch"] == 2 and jax.process_index() == jax.process_count() - 1:
            os.kill(os.getpid(), signal.SIGTERM)

    how: dict[str, Any] = {"epochs": 400, "folder": train.OrbaxCheckpoints(folder / "stop"), "save_every": 1}
    found = fitted(MLP, problem(16), on_epoch=send, start=split_start(), **how)
    assert found.stopped == "SIGTERM", found.stopped
    assert 2 <= len(found.history) < 400
    write(folder, "stopped", [np.asarray(len(found.history))])


def refused(folder: Path) -> None:
    """What cannot work in several processes says what to do instead."""
    with pytest.raises(ValueError, match=r"lies in parts on the devices of several processes.*OrbaxCheckpoints"):
        fitted(MLP, problem(16), start=split_start(), folder=folder / "parts")
    before = signal.signal(signal.SIGTERM, lambda number, frame: None)
    with pytest.raises(ValueError, match=r"SIGTERM has the handler refused.<locals>.<lambda>.*Remove it before"):
        fitted(MLP, problem(16), folder=folder / "handler")
    signal.signal(signal.SIGTERM, before or signal.SIG_DFL)


def sweeping(folder: Path) -> None:
    """The processes share the chunks of a sweep and its folder."""
    x, y = problem(16)
    settings = {"rate": np.linspace(0.01, 0.1, 6)}
    how: dict[str, Any] = {"keys": jax.random.split(KEY, 2), "epochs": 3, "batch_size": B, "progress": False}
    net = models.mlp([16, 8, 8])

    def swept(place: Path | None) -> Any:
        return train.sweep(lambda s: optim.sgd(s["rate"]), settings, net, LOSS, (x, y), chunk=4, folder=place, **how)

    made: list[tuple[int, int]] = []
    save = Store.save

    def counted(self: Any, start: int, stop: int, found: Any) -> None:
        made.append((start, stop))
        save(self, start, stop, found)

    Store.save = counted  # type: ignore[method-assign]
    found = swept(folder / "sweep")
    Store.save = save  # type: ignore[method-assign]
    assert len(made) == len(list((folder / "sweep").glob("runs-*.npz"))) // jax.process_count() > 0, made
    write(folder, "sweep", found.curves)
    write(folder, "sweep-expected", swept(None).curves)


TASKS: dict[str, Callable[[Path], None]] = {
    "training": training,
    "gradients": gradients,
    "saving": saving,
    "stopping": stopping,
    "refused": refused,
    "sweeping": sweeping,
}
