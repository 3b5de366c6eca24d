"""Runs that are stopped and go on: to the bit, from whatever step, with their history and their choice of the best."""

from __future__ import annotations

import datetime
import functools
import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxnn import losses, metrics, models, optim, schedules, train
from jaxnn.data import augment
from jaxnn.layers import BatchNorm, Conv, Dense, Dropout, Flatten, Relu
from tests.helpers import slow
from tests.train.problems import KEY, D, K, N, classification

LOSS = losses.softmax_cross_entropy
OPT = optim.adam(schedules.cosine_decay_schedule(1e-2, 30))
MLP = models.serial(Dense(8), Relu, Dropout(0.3), Dense(K))
METRICS = {"error": metrics.error_rate}
VG = jax.value_and_grad(train.mean_loss(MLP, LOSS), has_aux=True)
TIMES = ("seconds", "examples_per_second")


def images() -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    return rng.standard_normal((24, 6, 6, 1)).astype(np.float32), rng.integers(0, K, 24).astype(np.int32)


CNN = models.serial(Conv(4, 3), BatchNorm(), Relu, Flatten, Dropout(0.2), Dense(K))
PROBLEMS: dict[str, dict[str, Any]] = {
    "mlp": {"net": MLP, "train": classification(), "batch_size": 10, "validation": classification(1)},
    "cnn": {"net": CNN, "train": images(), "batch_size": 4, "augment": augment.shift(1), "validation": images()},
}


def fitted(problem: str = "mlp", **settings: Any) -> train.FitResult:
    how = PROBLEMS[problem] | {"key": KEY, "epochs": 4, "metrics": METRICS, "progress": False} | settings
    net, data = how.pop("net"), how.pop("train")
    return train.fit(net, LOSS, how.pop("opt", OPT), data, **how)


def assert_same(found: train.FitResult, expected: train.FitResult) -> None:
    """Equal to the bit, but for times."""
    chex.assert_trees_all_equal(found[:3], expected[:3])
    strip = lambda history: [{k: v for k, v in r.items() if k not in TIMES} for r in history]  # noqa: E731
    assert strip(found.history) == strip(expected.history)
    assert found[4:] == expected[4:]


@functools.cache
def uninterrupted(problem: str = "mlp", **settings: Any) -> train.FitResult:
    return fitted(problem, **settings)


class Killed(Exception):
    """Ends a fit between two of its operations."""


def killed_after(saves: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """The save after so many raises, as if the process ended there."""
    from jaxnn.train.saving.saver import Saver

    save, done = Saver.save, []

    def counted(self: Any, saved: Any) -> None:
        if len(done) == saves:
            raise Killed
        done.append(1)
        save(self, saved)

    monkeypatch.setattr(Saver, "save", counted)


@pytest.mark.parametrize(
    ("problem", "every", "saves"),
    [("mlp", 3, 3), *slow(("mlp", 1, 7), ("mlp", 7, 1), ("mlp", 5, 2), ("cnn", 1, 7), ("cnn", 4, 3), ("cnn", 6, 2))],
)
def test_a_run_goes_on_to_the_bit(
    problem: str, every: int, saves: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as context:
        killed_after(saves, context)
        with pytest.raises(Killed):
            fitted(problem, folder=tmp_path, save_every=every)
    assert_same(fitted(problem, folder=tmp_path, save_every=every), uninterrupted(problem))
    # And once more: it has ended, and is returned as it was.
    assert_same(fitted(problem, folder=tmp_path, save_every=every), uninterrupted(problem))


def test_pieces_are_the_epoch_to_the_bit() -> None:
    x, y = classification()
    vg = jax.value_and_grad(train.mean_loss(MLP, LOSS), has_aux=True)
    start = lambda: train.init(MLP, OPT, KEY, (D,))  # noqa: E731
    whole, report = train.make_epoch(vg, OPT, batch_size=10)(start(), x, y, KEY)
    for steps in (1, 2, 5):
        piece = train.make_piece(vg, OPT, steps=steps, batch_size=10)
        ts, losses_ = start(), []
        for first in range(0, 5, steps) if steps != 2 else (0, 2):
            ts, part = piece(ts, x, y, KEY, first)
            losses_.append(part["loss"])
        if steps == 2:
            ts, part = train.make_piece(vg, OPT, steps=1, batch_size=10)(ts, x, y, KEY, 4)
            losses_.append(part["loss"])
        chex.assert_trees_all_equal(ts, whole)
        np.testing.assert_array_equal(np.concatenate(losses_), report["loss"])
    with pytest.raises(ValueError, match="an epoch has 5 steps, fewer than a piece of 6"):
        train.make_piece(vg, OPT, steps=6, batch_size=10)(start(), x, y, KEY, 0)


@pytest.mark.parametrize("number", [signal.SIGTERM, *slow(signal.SIGINT)])
@pytest.mark.parametrize("every", [2, *slow(1000, datetime.timedelta(seconds=100))])
def test_a_signal_saves_and_ends_the_run(number: signal.Signals, every: Any, tmp_path: Path) -> None:
    before = signal.getsignal(number)

    def send(record: Any, ts: Any) -> None:
        if record["epoch"] == 2:
            os.kill(os.getpid(), number)

    stopped = fitted(folder=tmp_path, save_every=every, on_epoch=send)
    assert stopped.stopped == number.name
    assert len(stopped.history) == 2
    assert signal.getsignal(number) is before
    assert_same(fitted(folder=tmp_path, save_every=every), uninterrupted())


@pytest.mark.parametrize("rules", [[], [train.LossTolerance(1e9)]])
def test_a_signal_at_the_end_is_not_lost(rules: Any, tmp_path: Path) -> None:
    """Whoever trains several seeds in a row learns that it should stop."""

    def send(record: Any, ts: Any) -> None:
        if record["epoch"] == 4 or (rules and record["epoch"] == 2):
            os.kill(os.getpid(), signal.SIGTERM)

    how: dict[str, Any] = {"stopping": rules}
    assert fitted(folder=tmp_path, on_epoch=send, **how).stopped == "SIGTERM"
    assert_same(fitted(folder=tmp_path, **how), fitted(**how))


def test_a_signal_before_the_first_step_does_what_it_did(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """While the program is compiled there is nothing to save."""
    from jaxnn.train.feeds.arrays import ArrayFeed

    def sending(*args: Any) -> Any:
        os.kill(os.getpid(), signal.SIGINT)

    monkeypatch.setattr(ArrayFeed, "run", sending)
    with pytest.raises(KeyboardInterrupt):
        fitted(folder=tmp_path)
    assert not list(tmp_path.iterdir())


def test_pieces_end_where_a_save_is_due_or_after_a_second() -> None:
    from jaxnn.train.saving.pace import Pace

    by_steps = Pace("fit", 10)
    assert [by_steps.length(done, left, 25) for done, left in ((0, 25), (9, 16), (18, 7), (25, 25))] == [9, 9, 7, 9]
    fast, slow_ = Pace("fit", 60.0), Pace("fit", 60.0)
    for pace, each in ((fast, 0.001), (slow_, 0.5)):
        assert pace.length(0, 1000, 1000) == 1
        pace.ran(1, 30.0)  # with compilation
        pace.ran(1, each)
    assert [fast.length(0, left, total) for left, total in ((10_000, 10_000), (100, 10_000), (600, 600), (5, 600))] == [
        512, 1, 600, 1,
    ]  # fmt: skip
    assert slow_.length(0, 1000, 1000) == 1


def test_a_signal_within_an_epoch_ends_it_after_a_piece(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from jaxnn.train.feeds.arrays import ArrayFeed

    run = ArrayFeed.run

    def sending(self: Any, ts: Any, key: Any, epoch: int, first: int, count: int) -> Any:
        if (epoch, first) == (2, 2):
            os.kill(os.getpid(), signal.SIGTERM)
        return run(self, ts, key, epoch, first, count)

    with monkeypatch.context() as context:
        context.setattr(ArrayFeed, "run", sending)
        stopped = fitted(folder=tmp_path, save_every=2)
    assert (stopped.stopped, len(stopped.history)) == ("SIGTERM", 1)
    assert train.checkpoints.Checkpoints(tmp_path).steps()[-1] == 9
    assert_same(fitted(folder=tmp_path, save_every=2), uninterrupted())


@pytest.mark.slow
def test_the_best_epoch_and_the_rules_go_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rising = optim.sgd(lambda count: jnp.where(count < 12, 0.1, -0.5))  # descends for a while, then climbs
    how: dict[str, Any] = {"opt": rising, "epochs": 30, "stopping": [train.EarlyStopping("loss", patience=3)]}
    expected = fitted(**how)
    assert 1 < expected.epoch < len(expected.history) < 30
    for saves in (2, 5):
        folder = tmp_path / str(saves)
        with monkeypatch.context() as context:
            killed_after(saves, context)
            with pytest.raises(Killed):
                fitted(**how, folder=folder, save_every=4)
        assert_same(fitted(**how, folder=folder, save_every=4), expected)
        assert_same(fitted(**how, folder=folder, save_every=4), expected)


class Counting:
    """A stopping rule with a state of its own: stops when it was asked five times."""

    def __init__(self) -> None:
        self.asked = 0

    def __call__(self, history: Any) -> str | None:
        self.asked += 1
        return "enough" if self.asked == 5 else None

    def get_state(self) -> Any:
        return {"asked": self.asked}

    def set_state(self, state: Any) -> None:
        self.asked = state["asked"]


def test_a_rule_with_a_state_gets_it_back(tmp_path: Path) -> None:
    fitted(folder=tmp_path, epochs=3, stopping=[Counting()])
    result = fitted(folder=tmp_path, epochs=9, stopping=[Counting()])
    assert (len(result.history), result.stopped) == (5, "enough")


def test_a_run_can_have_more_epochs_later(tmp_path: Path) -> None:
    fitted(folder=tmp_path, epochs=2)
    assert_same(fitted(folder=tmp_path), uninterrupted())
    with pytest.raises(ValueError, match="holds a run of 4 epochs, more than epochs=3"):
        fitted(folder=tmp_path, epochs=3)


def test_a_loop_of_ones_own_goes_on_and_changes_the_state(tmp_path: Path) -> None:
    opt = optim.inject_hyperparams(optim.sgd)(learning_rate=0.1)
    data = classification()

    def course(folder: Any, epochs: int = 4) -> Any:
        return train.epochs(
            MLP, LOSS, opt, data, key=KEY, epochs=epochs, batch_size=10, folder=folder, say=lambda line: None
        )

    def trained(folder: Any, stop: int) -> tuple[list[Any], Any]:
        loop = course(folder)
        for record, ts in loop:
            loop.ts = ts._replace(opt_state=optim.with_hyperparams(ts.opt_state, learning_rate=0.1 / record["epoch"]))
            if record["epoch"] == stop:
                break
        loop.close()
        return loop.history, loop.ts

    history, ts = trained(None, 4)
    assert [record["learning_rate"] for record in history] == pytest.approx([0.1, 0.1, 0.05, 0.1 / 3])
    assert len(trained(tmp_path, 2)[0]) == 2
    again, found = trained(tmp_path, 4)
    chex.assert_trees_all_equal(found, ts)
    assert [r["loss"] for r in again] == [r["loss"] for r in history]


def test_another_run_is_refused_with_what_differs(tmp_path: Path) -> None:
    fitted(folder=tmp_path, epochs=1)
    x, y = classification()
    cases: list[tuple[dict[str, Any], str]] = [
        ({"opt": optim.adam(1e-3)}, "optimizer: saved adam(.*), now adam(learning_rate=0.001"),
        ({"batch_size": 5}, "batch size: saved 10, now 5"),
        ({"key": jax.random.key(1)}, "seed: saved threefry2x32"),
        ({"train": (x[::-1], y)}, "data: saved float32"),
        ({"net": models.serial(Dense(8), Relu, Dropout(0.4), Dense(K))}, "network: saved serial"),
        ({"value_and_grad": train.precision(VG)}, "gradient: saved jaxnn.train.loss.mean_loss"),
        ({"loss": 1, "regularizer": losses.l2(1e-4)}, "regularizer: saved nothing, now Penalty"),
    ]
    for settings, text in cases:
        settings.pop("loss", None)
        with pytest.raises(ValueError, match="holds another run: ") as caught:
            fitted(folder=tmp_path, epochs=1, **settings)
        assert all(part in str(caught.value) for part in text.split(".*")), caught.value
        assert "Use another folder, or empty this one." in str(caught.value)
    # The same run, made anew: nothing differs.
    again = optim.adam(schedules.cosine_decay_schedule(1e-2, 30))
    assert len(fitted(folder=tmp_path, epochs=2, opt=again).history) == 2


def test_two_runs_on_one_folder_are_refused(tmp_path: Path) -> None:
    loop = train.epochs(MLP, LOSS, OPT, classification(), key=KEY, epochs=2, batch_size=10, folder=tmp_path)
    with pytest.raises(train.FolderInUseError, match="is in use by process"):
        fitted(folder=tmp_path)
    loop.close()
    assert len(fitted(folder=tmp_path).history) == 4


def test_damage_is_named_and_the_good_one_offered(tmp_path: Path) -> None:
    fitted(folder=tmp_path, save_every=5)
    newest, before = (tmp_path / f"step-{step:010d}.npz" for step in (20, 15))
    content = newest.read_bytes()
    for damaged in (content[: len(content) // 2], b"", content[:-300], flipped(content)):
        newest.write_bytes(damaged)
        with pytest.raises(ValueError, match=newest.name) as caught:
            fitted(folder=tmp_path, save_every=5)
        assert f"; {before} is whole: to go on from step 15, delete or rename the other file." in str(caught.value)
        assert "\n" not in str(caught.value)
    newest.unlink()
    assert_same(fitted(folder=tmp_path, save_every=5), uninterrupted())


def flipped(content: bytes) -> bytes:
    """With one bit of the largest array changed."""
    at = content.index(b"ts/params/0/w.npy") + 300
    return content[:at] + bytes([content[at] ^ 1]) + content[at + 1 :]


def test_what_a_folder_keeps(tmp_path: Path) -> None:
    fitted(folder=tmp_path, save_every=1, keep=3)
    assert sorted(path.name for path in tmp_path.iterdir()) == [f"step-{step:010d}.npz" for step in (18, 19, 20)]
    (tmp_path / ".left.part").write_bytes(b"half")  # by a process that was killed
    fitted(folder=tmp_path, save_every=1, keep=3)
    assert not (tmp_path / ".left.part").exists()


@pytest.mark.parametrize(
    ("settings", "error", "text"),
    [
        ({"save_every": 0}, ValueError, "save_every must be at least 1"),
        ({"save_every": 0.0}, ValueError, r"save_every must be > 0: steps \(an int\) or seconds"),
        ({"save_every": float("nan")}, ValueError, "save_every must be > 0"),
        ({"save_every": "1h"}, TypeError, "save_every must be an int"),
        ({"keep": 0}, ValueError, "keep must be at least 1"),
        ({"folder": ""}, ValueError, "folder must name a folder"),
        ({"axis": "data"}, ValueError, "axis='data' names axes of a mesh: pass mesh= too"),
        ({"mesh": "data"}, TypeError, "mesh must be a Mesh"),
        ({"steps_per_epoch": 3}, ValueError, "steps_per_epoch is of streams"),
    ],
)
def test_bad_arguments_are_named(settings: Any, error: type[Exception], text: str, tmp_path: Path) -> None:
    with pytest.raises(error, match=text):
        fitted(**{"folder": tmp_path} | settings)
    assert not (tmp_path / "lock.json").exists()


def test_the_state_of_the_run_is_readable(tmp_path: Path) -> None:
    fitted(folder=tmp_path, epochs=2)
    (path,) = tmp_path.glob("*.npz")
    with np.load(path) as archive:
        assert archive["ts/params/0/w"].shape == (D, 8)
        about = json.loads(archive["__about__"].tobytes())["about"]
    assert (about["epochs"], about["step"], about["steps"]) == (2, 0, 2 * N // 10)
    assert about["run"]["batch size"] == "10"


LEFT = """
import sys, jax, numpy as np
from jaxnn import losses, models, optim, train
x = np.linspace(-1.0, 1.0, 64, dtype=np.float32)[:, None]
course = train.epochs(models.linear(1), losses.half_squared_error, optim.sgd(0.1), (x, 3 * x), key=jax.random.key(0),
                      epochs=50, batch_size=16, folder=sys.argv[1])
for record, ts in course:
    if record["epoch"] == 3:
        break
"""


@pytest.mark.slow
def test_a_script_that_ends_in_its_loop_saves(tmp_path: Path) -> None:
    subprocess.run([sys.executable, "-c", LEFT, str(tmp_path)], check=True, timeout=300)
    assert [path.name for path in tmp_path.iterdir()] == ["step-0000000012.npz"]
