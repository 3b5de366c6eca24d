"""Sweeps that are stopped inside a chunk go on there, to the bit."""

from __future__ import annotations

import os
import signal
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from jaxnn import metrics, models, optim, train
from jaxnn.layers import BatchNorm, Dense, Dropout, Relu
from jaxnn.train.sweeps.store import Store
from tests.helpers import slow
from tests.train.problems import LOSS, K, classification

NET = models.serial(Dense(8), BatchNorm(), Relu, Dropout(0.2), Dense(K))
RATES = {"rate": np.array([0.01, 0.1, 3e38, 0.3])}  # the third diverges


def swept(folder: Any = None, **settings: Any) -> train.Sweep:
    import jax

    how: dict[str, Any] = {
        "keys": jax.random.split(jax.random.key(0), 2), "epochs": 7, "batch_size": 10, "validation": classification(1),
        "test": classification(2), "metrics": {"error": metrics.error_rate}, "progress": False, "folder": folder,
    }  # fmt: skip
    rates = settings.pop("rates", RATES)
    return train.sweep(lambda s: optim.adam(s["rate"]), rates, NET, LOSS, classification(), **how | settings)


def assert_same(found: train.Sweep, expected: train.Sweep) -> None:
    for a, b in ((found.curves, expected.curves), (found.final, expected.final)):
        assert a.keys() == b.keys()
        for name in a:
            np.testing.assert_array_equal(a[name], b[name], err_msg=name)
    np.testing.assert_array_equal(found.diverged, expected.diverged)


class Killed(Exception):
    pass


def killed_after(saves: int, monkeypatch: pytest.MonkeyPatch) -> None:
    save, done = Store.save_unfinished, []

    def counted(self: Any, *args: Any) -> None:
        if len(done) == saves:
            raise Killed
        done.append(1)
        save(self, *args)

    monkeypatch.setattr(Store, "save_unfinished", counted)


# Four settings are side by side; chunks of 4 are two groups, each of 7 epochs.
@pytest.mark.parametrize(("every", "saves"), [(3, 1), *slow((1, 3), (2, 4), (5, 1))])
@pytest.mark.parametrize("chunk", [4, *slow(1)])
def test_a_sweep_goes_on_inside_a_chunk(
    every: int, saves: int, chunk: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = swept(chunk=chunk)
    assert (expected.diverged > 0).sum() == 2
    with monkeypatch.context() as context:
        killed_after(saves, context)
        with pytest.raises(Killed):
            swept(tmp_path, chunk=chunk, save_every=every)
    assert len(list(tmp_path.glob("unfinished-*.npz"))) == (every < 5)
    assert_same(swept(tmp_path, chunk=chunk, save_every=every), expected)
    assert not list(tmp_path.glob("unfinished-*"))
    assert_same(swept(tmp_path, chunk=chunk), expected)  # nothing is left to do


@pytest.mark.slow
def test_a_signal_saves_and_says_where(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    save = Store.save_unfinished

    def sending(self: Any, *args: Any) -> None:
        save(self, *args)
        os.kill(os.getpid(), signal.SIGTERM)

    with monkeypatch.context() as context:
        context.setattr(Store, "save_unfinished", sending)
        with pytest.raises(
            train.Stopped, match=r"SIGTERM: what was done is saved in .*; the same call goes on"
        ) as stop:
            swept(tmp_path, save_every=3)
    assert stop.value.name == "SIGTERM"
    assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL
    assert_same(swept(tmp_path), swept())


@pytest.mark.slow
@pytest.mark.parametrize(("method", "calls"), [("save", 1), ("save_unfinished", 2)])
def test_a_signal_in_the_last_epochs_saves_all_runs_and_stops(
    method: str, calls: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real, done = getattr(Store, method), []

    def sending(self: Any, *args: Any) -> None:
        real(self, *args)
        done.append(1)
        if len(done) == calls:
            os.kill(os.getpid(), signal.SIGTERM)

    with monkeypatch.context() as context:
        context.setattr(Store, method, sending)
        with pytest.raises(train.Stopped, match="SIGTERM"):
            swept(tmp_path, save_every=3)
    assert not list(tmp_path.glob("unfinished-*"))
    monkeypatch.setattr(train.sweeps.chunks.StagedProgram, "call", None)  # nothing is left to compute
    assert_same(swept(tmp_path), swept())


def test_what_does_not_fit_is_refused_or_done_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as context:
        killed_after(1, context)
        with pytest.raises(Killed):
            swept(tmp_path, save_every=3)
    (path,) = tmp_path.glob("unfinished-*.npz")
    with pytest.raises(ValueError, match="holds runs of another sweep"):
        swept(tmp_path, rates={"rate": RATES["rate"] / 2})
    whole = path.read_bytes()
    path.write_bytes(whole[:-100])
    with pytest.raises(ValueError, match=path.name):
        swept(tmp_path)
    path.write_bytes(whole)
    assert_same(swept(tmp_path, chunk=4), swept(chunk=4))  # of another size: its runs are computed again


@pytest.mark.parametrize("every", [0, -1.0, "soon"])
def test_bad_intervals_are_named(every: Any, tmp_path: Path) -> None:
    with pytest.raises((TypeError, ValueError), match="sweep: save_every must be"):
        swept(tmp_path, save_every=every)
