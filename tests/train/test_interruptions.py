"""What the code around a run may do: raise, leave a loop, run beside another; the folder stays right."""

from __future__ import annotations

import contextlib
import copy
import gc
import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxnn import data, layers, models, optim, train
from jaxnn.data import Partial
from jaxnn.train.loop import Epochs
from jaxnn.train.saving.pace import Pace
from tests.helpers import slow
from tests.train.problems import KEY, LOSS, NET, OPT, K, classification

FIT: dict[str, Any] = {"key": KEY, "batch_size": 10, "validation": classification(1)}
CLIMBS = optim.sgd(lambda count: jnp.where(count < 15, 0.1, -0.1))  # the third of epochs of five steps is the best


def fitted(opt: Any = CLIMBS, **settings: Any) -> train.FitResult:
    return train.fit(NET, LOSS, opt, classification(), **FIT | {"epochs": 6, "progress": False} | settings)


def course(folder: Any, **settings: Any) -> Epochs:
    how = FIT | {"epochs": 9, "folder": folder, "say": lambda line: None} | settings
    return train.epochs(NET, LOSS, OPT, classification(), **how)


@pytest.mark.parametrize(
    ("epoch", "by"), [(3, "on_epoch"), *slow((1, "on_epoch"), (4, "on_epoch"), (1, "stopping"), (3, "stopping"))]
)
def test_an_error_of_the_callers_code_loses_no_choice(epoch: int, by: str, tmp_path: Path) -> None:
    whole = fitted(select="validation_loss")
    assert whole.epoch == 3

    def raises(history: Any) -> None:
        if history[-1]["epoch"] == epoch:
            raise RuntimeError("mine")

    settings: dict[str, Any] = {"on_epoch": lambda record, ts: raises([record])}
    if by == "stopping":
        settings = {"stopping": [raises]}
    with pytest.raises(RuntimeError, match="mine"):
        fitted(select="validation_loss", folder=tmp_path, **settings)
    found = fitted(select="validation_loss", folder=tmp_path)
    assert found.epoch == 3
    chex.assert_trees_all_equal(found[:3], whole[:3])


def test_select_is_that_of_the_folder(tmp_path: Path) -> None:
    fitted(select="validation_loss", folder=tmp_path)
    with pytest.raises(ValueError, match=r"with select='validation_loss', whose other epochs' .* got select=None"):
        fitted(folder=tmp_path)
    with pytest.raises(ValueError, match=r"stopping: no 'typo' in the history, which has epoch, loss"):
        fitted(select="typo", epochs=1)


def test_a_run_that_diverges_by_its_choice_does_so_again(tmp_path: Path) -> None:
    for _ in range(3):
        with pytest.raises(train.DivergedError, match="odd is NaN after epoch 1") as caught:
            fitted(select="odd", measure=_odd, folder=tmp_path)
        assert caught.value.epoch == 1


def _odd(*_: Any) -> dict[str, Any]:
    return {"odd": jnp.float32(np.nan)}


class Third:
    """Stops at its third call."""

    calls = 0

    def __call__(self, history: Any) -> str | None:
        self.calls += 1
        return "third" if self.calls == 3 else None

    def get_state(self) -> int:
        return self.calls

    def set_state(self, state: int) -> None:
        self.calls = state


def test_a_run_that_a_rule_with_a_state_ended_has_ended(tmp_path: Path) -> None:
    for _ in range(3):
        found = fitted(stopping=[lambda history: None, Third()], folder=tmp_path)
        assert (len(found.history), found.stopped) == (3, "third")
    assert len(fitted(folder=tmp_path).history) == 6, "without the rule it goes on"


def test_a_loop_that_is_left_saves_and_unlocks_at_once(tmp_path: Path) -> None:
    gc.disable()
    try:
        for record, _ in course(tmp_path):
            if record["epoch"] == 2:
                break
        with contextlib.closing(course(tmp_path)) as again:
            assert len(again.history) == 2
    finally:
        gc.enable()


def test_a_loop_is_not_copied() -> None:
    loop = course(None)
    for copied in (copy.copy, copy.deepcopy):
        with pytest.raises(TypeError, match="cannot be copied"):
            copied(loop)


def test_a_state_of_another_kind_is_refused_where_it_is_assigned() -> None:
    loop = course(None)
    _, ts = next(loop)
    half = jax.tree.map(lambda p: p.astype(jnp.bfloat16), ts.params)
    with pytest.raises(ValueError, match=r"epochs: ts.*bfloat16.*Keep structure, shapes and dtypes"):
        loop.ts = ts._replace(params=half)
    loop.ts = ts._replace(params=jax.tree.map(lambda p: p * 0, ts.params))
    assert next(loop).record["epoch"] == 2


@pytest.mark.parametrize("first", [0, 1])
def test_runs_side_by_side_all_note_a_signal(first: int, tmp_path: Path) -> None:
    before = signal.getsignal(signal.SIGTERM)
    loops = [course(tmp_path / name) for name in ("a", "b")]
    for loop in loops:
        next(loop)
    os.kill(os.getpid(), signal.SIGTERM)
    assert [list(loop) for loop in loops] == [[], []]
    assert [loop.stopped for loop in loops] == ["SIGTERM", "SIGTERM"]
    assert signal.getsignal(signal.SIGTERM) is before
    loops = [course(tmp_path / name) for name in ("a", "b")]
    for loop in loops:
        next(loop)
    loops[first].close()
    os.kill(os.getpid(), signal.SIGTERM)  # the other still notes it
    loops[1 - first].close()
    assert loops[1 - first].stopped == "SIGTERM"
    assert signal.getsignal(signal.SIGTERM) is before


def test_a_handler_that_is_put_back_late_does_not_loop(tmp_path: Path) -> None:
    before = signal.getsignal(signal.SIGINT)
    loop = course(tmp_path)
    next(loop)
    ours = signal.signal(signal.SIGINT, signal.SIG_IGN)
    loop.close()
    signal.signal(signal.SIGINT, ours)
    with pytest.raises(KeyboardInterrupt):
        os.kill(os.getpid(), signal.SIGINT)
    signal.signal(signal.SIGINT, before)


def test_a_child_leaves_the_folder_to_its_parent(tmp_path: Path) -> None:
    loop = course(tmp_path)
    next(loop)
    loop._process += 1  # as a fork has it
    loop.close()
    assert (tmp_path / "lock.json").is_file()
    assert not list(tmp_path.glob("step-*"))
    loop._process -= 1
    loop.close()
    assert list(tmp_path.glob("step-*"))


def test_the_working_directory_may_change(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "elsewhere").mkdir()
    fitted(folder="run", epochs=2, save_every=1, on_epoch=lambda record, ts: os.chdir(tmp_path / "elsewhere"))
    assert list((tmp_path / "run").glob("step-*"))
    assert not list((tmp_path / "elsewhere").iterdir())


@pytest.mark.parametrize("total", [1, 2, 7, 100, 101, 187])
@pytest.mark.parametrize("every", [1, 3, 50, 100, 250])
def test_a_number_of_steps_makes_few_programs_and_bounds_what_is_lost(total: int, every: int) -> None:
    pace, done, saved, lengths = Pace("fit", every), 0, 0, set()
    for _ in range(5):
        left = total
        while left:
            count = pace.length(done, left, total)
            lengths.add(count)
            done, left = done + count, left - count
            assert done - saved <= every
            if pace.due(done):
                saved = done
    assert len(lengths) <= 2
    goes_on = Pace("fit", every)
    assert goes_on.length(3 * total, total, total) in lengths


@pytest.mark.parametrize(("other", "text"), [({"steps_per_epoch": 3}, "steps per epoch: saved 4, now 3")])
def test_other_lengths_of_epochs_are_another_run(other: dict[str, Any], text: str, tmp_path: Path) -> None:
    x, y = classification()

    def batches(position: train.Position) -> Any:
        return x[:10], y[:10]

    how: dict[str, Any] = {"key": KEY, "epochs": 2, "progress": False, "folder": tmp_path}
    train.fit(NET, LOSS, OPT, batches, **how, steps_per_epoch=4)
    with pytest.raises(ValueError, match=text):
        train.fit(NET, LOSS, OPT, batches, **how, **other)


def test_padding_in_running_statistics_is_refused_of_rows_too(tmp_path: Path) -> None:
    x, y = classification()
    for name, array in (("x", x), ("y", y)):
        np.save(tmp_path / f"{name}.npy", array)
    net = models.serial(layers.Dense(8), layers.BatchNorm(), layers.Dense(K))
    rows = data.memmap(tmp_path)
    how: dict[str, Any] = {"key": KEY, "epochs": 1, "partial": Partial.WEIGHT, "progress": False}
    with pytest.raises(ValueError, match="fit: the network has running statistics"):
        train.fit(net, LOSS, OPT, rows, **how, batch_size=16)
    train.fit(net, LOSS, OPT, rows, **how, batch_size=10)


class Passes:
    """A loader whose passes differ, with states that do not say which pass it is."""

    def __init__(self) -> None:
        self.passes = 0

    def __iter__(self) -> Iterator[Any]:
        self.passes += 1
        return OnePass(self.passes)


class OnePass:
    def __init__(self, number: int) -> None:
        self.number, self.at = number, 0

    def __iter__(self) -> Iterator[Any]:
        return self

    def __next__(self) -> Any:
        if self.at == 4:
            raise StopIteration
        self.at += 1
        rng = np.random.default_rng((self.number, self.at))
        return rng.standard_normal((10, 7)).astype(np.float32), rng.integers(0, K, 10)

    def get_state(self) -> int:
        return self.at

    def set_state(self, state: int) -> None:
        self.at = state


class Itself(OnePass):
    """A loader that is its own iterator, and begins another pass each time."""

    def __init__(self) -> None:
        super().__init__(0)

    def __iter__(self) -> Iterator[Any]:
        self.number, self.at = self.number + 1, 0
        return self

    def get_state(self) -> Any:
        return [self.number, self.at]

    def set_state(self, state: Any) -> None:
        self.number, self.at = state


@pytest.mark.parametrize("make", [Passes, Itself])
@pytest.mark.parametrize("asked", [None, 3])
def test_passes_that_differ_go_on(make: Any, asked: int | None, tmp_path: Path) -> None:
    def trained(epochs: int, folder: Any) -> Any:
        how: dict[str, Any] = {"key": KEY, "steps_per_epoch": asked, "save_every": 2, "progress": False}
        net = models.linear(K)
        return train.fit(net, LOSS, OPT, make(), **how, epochs=epochs, folder=folder)

    whole = trained(5, None)
    for epochs in (1, 2, 4, 5):
        found = trained(epochs, tmp_path)
    chex.assert_trees_all_equal(found[:3], whole[:3])


@pytest.mark.slow
def test_a_script_ends_while_batches_are_copied() -> None:
    script = """
import itertools, numpy as np, jax
from jaxnn import losses, models, optim, train
x, y = np.zeros((20000, 512), np.float32), np.zeros(20000, int)
ahead = train.prefetch(itertools.repeat((x, y)))
next(ahead)
class Endless:
    def __iter__(self):
        while True:
            yield x, y
train.fit(models.linear(3), losses.softmax_cross_entropy, optim.sgd(.1), Endless(), key=jax.random.key(0), epochs=1,
          steps_per_epoch=3, progress=False)
print("done")
"""
    for _ in range(3):
        ended = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
        assert (ended.returncode, ended.stdout) == (0, "done\n"), ended.stderr


def test_checkpoints_of_the_other_kind_are_named(tmp_path: Path) -> None:
    (tmp_path / "300").mkdir()
    with pytest.raises(ValueError, match=re.escape("300 is a checkpoint of orbax: pass train.OrbaxCheckpoints")):
        fitted(folder=tmp_path)
    pytest.importorskip("orbax.checkpoint", reason="orbax is not installed")
    other = tmp_path / "other"
    fitted(folder=other, epochs=1)
    with pytest.raises(ValueError, match=r"step-0000000005.npz is a checkpoint of the default kind: pass the folder"):
        fitted(folder=train.OrbaxCheckpoints(other), epochs=1)


def test_orbax_takes_no_part_in_where_processes_agree_to_stop(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("orbax.checkpoint", reason="orbax is not installed")
    import orbax.checkpoint.checkpoint_manager as manager

    monkeypatch.setattr(manager.utils, "reached_preemption", None)  # asks JAX, by numbers of its own
    with train.OrbaxCheckpoints(tmp_path) as checkpoints:
        checkpoints.save(7, {"w": jnp.ones(3)})
        checkpoints.wait()
        assert checkpoints.steps() == [7]


def test_what_cannot_work_is_said_at_the_call(tmp_path: Path) -> None:
    x, y = classification()
    with pytest.raises(TypeError, match=r"fit: key and data must be concrete, .* outside of jax.jit"):
        jax.jit(lambda x: fitted_on(x, y))(x)
    with pytest.raises(TypeError, match=r"fit: folder must be a path, or checkpoints such as .*, got 3"):
        fitted(folder=3)
    with pytest.raises(TypeError, match="histories and states of rules must be JSON, got: Object of type float32"):
        fitted(folder=tmp_path, stopping=[Odd()])
    assert not (tmp_path / "lock.json").exists()
    mesh = jax.make_mesh((1,), ("data",))
    with (
        jax.set_mesh(jax.make_mesh((1,), ("other",))),
        pytest.raises(ValueError, match=r"mesh must be the one that jax.set_mesh has set, {'other': 1}, or none"),
    ):
        fitted(mesh=mesh)


def fitted_on(x: Any, y: Any) -> Any:
    return train.fit(NET, LOSS, OPT, (x, y), key=KEY, epochs=1, progress=False).params


class Odd(Third):
    def get_state(self) -> Any:
        return np.float32(self.calls)
