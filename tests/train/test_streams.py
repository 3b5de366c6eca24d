"""Batches from outside of the compiled program: the same losses as from memory, in order, and saved with the run."""

from __future__ import annotations

import os
import sys
import threading
import time
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest

from jaxnn import data, train
from jaxnn.data import Partial, augment
from jaxnn.train.saving.identity import fingerprint
from tests.helpers import slow
from tests.train.problems import KEY, LOSS, OPT, D, K, N, classification
from tests.train.test_resume import CNN, MLP, Killed, assert_same, images, killed_after

EPOCHS = 3


def fitted(source: Any, **settings: Any) -> train.FitResult:
    how = {"net": MLP, "key": KEY, "epochs": EPOCHS, "batch_size": 10, "progress": False} | settings
    return train.fit(how.pop("net"), LOSS, how.pop("opt", OPT), source, **how)


class InMemory:
    """A source of rows."""

    def __init__(self, x: Any, y: Any) -> None:
        self.x_, self.y_ = x, y

    def __len__(self) -> int:
        return len(self.x_)

    def rows(self, indices: Any) -> Any:
        return self.x_[indices], self.y_[indices]

    def fingerprint(self) -> str:
        return "mine"


def folder_of(x: Any, y: Any, folder: Path, files: int) -> data.Memmap:
    folder.mkdir()
    for i, (xs, ys) in enumerate(zip(np.array_split(x, files), np.array_split(y, files), strict=True)):
        np.save(folder / (f"x-{i}.npy" if files > 1 else "x.npy"), xs)
        np.save(folder / (f"y-{i}.npy" if files > 1 else "y.npy"), ys)
    return data.memmap(folder)


@pytest.mark.parametrize("partial", [Partial.DROP, *slow(Partial.WEIGHT)])
def test_rows_are_trained_on_as_from_memory(partial: Partial, tmp_path: Path) -> None:
    x, y = classification()
    how: dict[str, Any] = {"partial": partial, "batch_size": 12}
    expected = fitted((x, y), **how)
    for source in (InMemory(x, y), folder_of(x, y, tmp_path / "1", 1), folder_of(x, y, tmp_path / "3", 3)):
        assert_same(fitted(source, **how), expected)


@pytest.mark.slow
def test_images_are_augmented_as_from_memory() -> None:
    x, y = images()
    how: dict[str, Any] = {"net": CNN, "augment": augment.shift(1), "batch_size": 4}
    assert_same(fitted(InMemory(x, y), **how), fitted((x, y), **how))


def batches(position: train.Position) -> Any:
    """A pure function of its position."""
    rng = np.random.default_rng((position.seed, position.epoch, position.step))
    x = rng.standard_normal((10, D)).astype(np.float32)
    return x, (x[:, 0] > 0).astype(np.int64)


class Loader:
    """An iterable that begins anew, each time in another order, as loaders do."""

    def __init__(self, steps: int = 4) -> None:
        self.rng, self.steps = np.random.default_rng(0), steps

    def __iter__(self) -> Any:
        return iter([batches(train.Position(int(self.rng.integers(1 << 30)), 0, i)) for i in range(self.steps)])


class Stateful:
    """An iterable whose iterators can be saved, as those of grain."""

    def __init__(self, as_bytes: bool, end: int = 1 << 30) -> None:
        self.as_bytes, self.end, self.drawn = as_bytes, end, 0

    def __iter__(self) -> Any:
        return StatefulIterator(self)


class StatefulIterator:
    def __init__(self, source: Stateful) -> None:
        self.source, self.at = source, 0

    def __iter__(self) -> Any:
        return self

    def __next__(self) -> Any:
        if self.at == self.source.end:
            raise StopIteration
        self.source.drawn += 1
        self.at += 1
        return batches(train.Position(0, 0, self.at))

    def get_state(self) -> Any:
        return str(self.at).encode() if self.source.as_bytes else {"at": self.at}

    def set_state(self, state: Any) -> None:
        self.at = int(state.decode()) if self.source.as_bytes else state["at"]


SOURCES: dict[str, tuple[Any, dict[str, Any]]] = {
    "function": (lambda: batches, {"steps_per_epoch": 4}),
    "rows": (lambda: InMemory(*classification()), {}),
    "list": (lambda: [batches(train.Position(0, 0, i)) for i in range(4)], {}),
    "loader": (Loader, {}),
    "loader, cut": (Loader, {"steps_per_epoch": 3}),
    "iterator": (lambda: (batches(train.Position(0, 0, i)) for i in range(99)), {"steps_per_epoch": 4}),
    "state": (lambda: Stateful(False), {"steps_per_epoch": 4}),
    "bytes": (lambda: Stateful(True), {"steps_per_epoch": 4}),
    "state, a pass each": (lambda: Stateful(False, 4), {}),
    "state, passes of 6": (lambda: Stateful(False, 6), {"steps_per_epoch": 4}),
}


@pytest.mark.parametrize(
    ("name", "every", "saves"),
    [("function", 3, 2), ("loader, cut", 2, 3), ("state", 3, 2), ("state, passes of 6", 3, 2),
     *slow(*((name, *how) for name in SOURCES for how in ((1, 5), (3, 1), (4, 2))))],
)  # fmt: skip
def test_streams_go_on_to_the_bit(
    name: str, every: int, saves: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    make, how = SOURCES[name]
    expected = fitted(make(), **how)
    with monkeypatch.context() as context:
        killed_after(saves, context)
        with pytest.raises(Killed):
            fitted(make(), **how, folder=tmp_path, save_every=every)
    source, saved = make(), train.checkpoints.Checkpoints(tmp_path).steps()[-1]
    assert_same(fitted(source, **how, folder=tmp_path, save_every=every), expected)
    if isinstance(source, Stateful):  # those before are not drawn again: one to learn the shapes, and those ahead
        assert source.drawn <= EPOCHS * 4 - saved + 1 + 3


def test_an_epoch_is_a_pass() -> None:
    result = fitted(Loader(), epochs=2)
    assert int(result.opt_state.count) == 8
    assert int(fitted(Loader(), epochs=2, steps_per_epoch=7).opt_state.count) == 14


@pytest.mark.parametrize(
    ("source", "settings", "error", "text"),
    [
        (batches, {}, ValueError, "how many batches of a function are an epoch.*steps_per_epoch"),
        (iter([batches(train.Position(0, 0, 0))] * 3), {}, ValueError, "ended after 0 batches of epoch 2: an iterator"),
        (
            iter([batches(train.Position(0, 0, 0))] * 3),
            {"steps_per_epoch": 5},
            ValueError,
            "ended after 3 of 5 batches of epoch 1.*steps_per_epoch <= 3",
        ),
        (iter(()), {}, ValueError, "have no batch"),
        ([(np.ones((4, D)), np.zeros(4, int)), (np.ones((3, D)), np.zeros(3, int)), *[(1, 2)] * 2], {}, ValueError,
         r"shapes of the first, x float32\[4, 6\] and y int32\[4\], got x float32\[3, 6\] and y int32\[3\]: drop or"),
        (iter([np.ones(3)]), {}, TypeError, r"must be a pair \(x, y\), got ndarray"),
        (iter([(np.ones((3, D)), np.zeros(2, int))]), {}, ValueError, "with the same N"),
        (iter([(np.ones((3, D)), np.full(3, K))]), {}, ValueError, r"labels must lie in \[0, 3\)"),
        (InMemory(*classification()), {"steps_per_epoch": 2}, ValueError, "the rows tell the steps"),
        (InMemory(*classification()), {"batch_size": 99}, ValueError, "batch_size 99 exceeds the 50 examples"),
        (batches, {"steps_per_epoch": 0}, ValueError, "steps_per_epoch must be at least 1"),
        (np.ones((3, D)), {}, TypeError, r"train must be a pair \(x, y\) or a Dataset, got ndarray"),
    ],
)  # fmt: skip
def test_bad_streams_say_what_to_do(source: Any, settings: Any, error: Any, text: str) -> None:
    with pytest.raises(error, match=text):
        fitted(source, **settings)


def test_an_error_of_the_source_comes_through() -> None:
    def broken(position: train.Position) -> Any:
        if position.step == 2 and position.epoch == 2:
            raise RuntimeError("the disk is gone")
        return batches(position)

    with pytest.raises(RuntimeError, match="the disk is gone"):
        fitted(broken, steps_per_epoch=4)


def test_a_step_that_diverges_is_replayed_where_batches_can_be_drawn_again() -> None:
    def spoiled(position: train.Position) -> Any:
        x, y = batches(position)
        return np.where((position.step == 2) & (np.arange(10) == 3)[:, None], np.nan, x).astype(np.float32), y

    with pytest.raises(train.DivergedError, match=r"step 3 of epoch 1.*The x of example 3 holds nan"):
        fitted(spoiled, steps_per_epoch=4)
    with pytest.raises(train.DivergedError, match="the batches of an iterable cannot be drawn again"):
        fitted([spoiled(train.Position(0, 1, i)) for i in range(4)])


def test_prefetch_keeps_order_and_stops() -> None:
    made: list[int] = []

    def items() -> Any:
        for i in range(100):
            made.append(i)
            yield i

    before = threading.active_count()
    ahead = train.prefetch(items(), lambda i: i * i, depth=3)
    assert [next(ahead) for _ in range(4)] == [0, 1, 4, 9]
    time.sleep(0.05)
    assert len(made) <= 4 + 3 + 1
    ahead.close()
    deadline = time.monotonic() + 5
    while threading.active_count() > before and time.monotonic() < deadline:
        time.sleep(0.01)
    assert threading.active_count() == before
    assert list(train.prefetch([1, 2], float)) == [1.0, 2.0]

    def fails(i: int) -> int:
        return 1 // (2 - i)

    found = train.prefetch(iter([0, 1, 2]), fails)
    assert [next(found), next(found)] == [0, 1]
    with pytest.raises(ZeroDivisionError):
        next(found)


def test_precision_of_the_caller_holds_in_the_thread() -> None:
    with jax.enable_x64(True):
        (found,) = train.prefetch([np.ones(2)])
        assert found.dtype == np.float64


def test_seeds_of_positions() -> None:
    from jaxnn.train.feeds.sources import seed_of

    assert [seed_of(jax.random.key(seed)) for seed in (0, 7, 2**31)] == [0, 7, 2**31]


def test_files_that_do_not_fit_are_named(tmp_path: Path) -> None:
    x, y = classification()
    with pytest.raises(FileNotFoundError, match=r"has neither x.npy nor x-\*.npy"):
        data.memmap(tmp_path)
    np.save(tmp_path / "x.npy", x)
    np.save(tmp_path / "y.npy", y[:-1])
    with pytest.raises(ValueError, match="one y for each x, at least one, got 50 x and 49 y"):
        data.memmap(tmp_path)
    (tmp_path / "y.npy").write_bytes(b"hello")
    with pytest.raises(ValueError, match=r"y\.npy is not an \.npy file"):
        data.memmap(tmp_path)
    np.save(tmp_path / "y.npy", y)
    source = data.memmap(tmp_path, prepare=lambda x, y: (x * 2, y))
    np.testing.assert_array_equal(source.rows([3, 1])[0], 2 * x[[3, 1]])
    with pytest.raises(ValueError, match=r"indices must lie in 0 \.\. 49, got 50 to 50"):
        source.rows([50])
    plain = fingerprint(data.memmap(tmp_path))
    assert fingerprint(source) != plain, "what the rows are made into"
    np.save(tmp_path / "y.npy", y[::-1])
    assert fingerprint(data.memmap(tmp_path)) != plain


@pytest.mark.parametrize("dtype", [np.float32, ">f8", np.complex64, bool])
def test_rows_of_large_files_are_read_where_they_lie(
    dtype: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys.modules[data.Memmap.__module__], "MAPPED", 100)
    x, y = classification()
    x = (x > 0 if dtype is bool else x).astype(dtype)
    source = folder_of(x, y, tmp_path / "a", 2)
    for order in (np.arange(N), np.arange(N)[::-1], np.array([], int), np.array([7, 7])):
        for found, expected in zip(source.rows(order), (x, y), strict=True):
            np.testing.assert_array_equal(found, expected[order])
            assert found.dtype == expected.dtype
    path = tmp_path / "a" / "x-1.npy"
    os.truncate(path, path.stat().st_size - 1)
    np.testing.assert_array_equal(source.rows([N - 2])[0], x[[N - 2]])
    with pytest.raises(ValueError, match=r"x-1.npy was cut: byte \d+ of it cannot be read"):
        source.rows([N - 1])
    np.save(tmp_path / "a" / "x-1.npy", np.asfortranarray(x[N // 2 :]))
    np.testing.assert_array_equal(data.memmap(tmp_path / "a").rows([N - 1, 3])[0], x[[N - 1, 3]])


@pytest.mark.slow
def test_grain_goes_on_to_the_bit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    grain = pytest.importorskip("grain")
    x, y = classification()

    def source() -> Any:
        pairs = grain.MapDataset.source([(a, b) for a, b in zip(x, y, strict=True)]).seed(3).shuffle().repeat()
        return pairs.batch(10, drop_remainder=True).to_iter_dataset()

    how: dict[str, Any] = {"steps_per_epoch": 5}
    expected = fitted(source(), **how)
    with monkeypatch.context() as context:
        killed_after(3, context)
        with pytest.raises(Killed):
            fitted(source(), **how, folder=tmp_path, save_every=3)
    assert_same(fitted(source(), **how, folder=tmp_path, save_every=3), expected)
