"""Equal new optimizers, other rates and other seeds compile nothing: programs are kept by the structure."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

import jax
import numpy as np
import pytest

from jaxnn import losses, metrics, models, optim, train
from jaxnn.train.memo import memoized

NET = models.linear(3)
X, Y = np.random.default_rng(0).normal(size=(64, 8)).astype(np.float32), np.arange(64) % 3
COMPILED: list[str] = []
"""The events of compilation, from the first test on: a listener cannot be taken away."""


@pytest.fixture(scope="module", autouse=True)
def listening() -> None:
    def heard(event: str, _: float, **__: Any) -> None:
        if event.endswith("backend_compile_duration"):
            COMPILED.append(event)

    jax.monitoring.register_event_duration_secs_listener(heard)


@contextlib.contextmanager
def compiling(some: bool) -> Iterator[None]:
    before = len(COMPILED)
    yield
    assert (len(COMPILED) > before) is some


def fitted(opt: Any, seed: int) -> float:
    result = train.fit(
        NET, losses.softmax_cross_entropy, opt, (X, Y), key=jax.random.key(seed), epochs=2, batch_size=16,
        validation=(X, Y), metrics={"error": metrics.error_rate}, progress=False,
    )  # fmt: skip
    return result.history[-1]["validation_loss"]


def test_a_second_fit_compiles_nothing() -> None:
    first = fitted(optim.adam(1e-2), 0)
    with compiling(False):
        assert fitted(optim.adam(1e-2), 0) == first
        assert fitted(optim.adam(1e-1, b2=0.9, eps=1e-6), 0) != first
        fitted(optim.adam(1e-2), 1)
    with compiling(True):
        fitted(optim.adam(1e-2, b1=0.0), 0)


def test_numbers_that_are_passed_train_as_constants_do() -> None:
    """The step of a closure, whose numbers are constants, and that of the rule itself."""
    adam = optim.adam(1e-2)
    closed = optim.GradientTransformation(adam.init, lambda *args, **kwargs: adam.update(*args, **kwargs))
    assert optim.spec(closed) is None
    np.testing.assert_allclose(fitted(closed, 0), fitted(adam, 0), rtol=1e-6)


def swept(make: Any, rates: Any, seed: int) -> np.ndarray:
    found = train.sweep(
        make, {"rate": np.array(rates)}, NET, losses.softmax_cross_entropy, (X, Y),
        keys=jax.random.split(jax.random.key(seed), 2), epochs=2, batch_size=16, progress=False,
    )  # fmt: skip
    return found.curves["loss"][:, -1]


def test_a_second_sweep_compiles_nothing() -> None:
    first = swept(lambda s: optim.adam(s["rate"]), [1e-3, 1e-2], 0)
    with compiling(False):
        np.testing.assert_array_equal(swept(lambda s: optim.adam(s["rate"]), [1e-3, 1e-2], 0), first)
        assert (swept(lambda s: optim.adam(s["rate"], eps=1e-6), [1e-1, 1e-4], 3) != first).all()


@pytest.mark.slow
def test_a_sweep_over_schedules_makes_them_of_its_settings() -> None:
    def make(setting: Any) -> Any:
        return optim.sgd(optim.linear_schedule(setting["rate"], 0.0, 8))

    one, other = swept(make, [0.1, 0.2], 0), swept(make, [0.2, 0.1], 0)
    np.testing.assert_allclose(one, other[[2, 3, 0, 1]], rtol=1e-6)
    assert (one[:2] != one[2:]).all()


def test_a_function_that_reads_what_has_changed_is_traced_again() -> None:
    steps = [8]

    def make(setting: Any) -> Any:
        return optim.sgd(optim.linear_schedule(setting["rate"], 0.0, steps[0]))

    first = swept(make, [0.1, 0.2], 0)
    steps[0] = 2
    assert (swept(make, [0.1, 0.2], 0) != first).all()


def test_what_cannot_be_hashed_is_made_each_time() -> None:
    made: list[Any] = []

    @memoized
    def make(key: Any) -> int:
        made.append(key)
        return len(made)

    assert [make(1), make(1), make([1]), make([1])] == [1, 1, 2, 3]
