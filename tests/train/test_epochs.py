"""The loop of epochs that `fit` is, driven by hand."""

from __future__ import annotations

from typing import Any

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxnn import metrics, optim, train
from tests.train.problems import LOSS, NET, OPT, classification, started

SETTINGS: dict[str, Any] = {
    "key": jax.random.key(0),
    "epochs": 3,
    "batch_size": 10,
    "validation": classification(1),
    "metrics": {"error": metrics.error_rate},
}
TIMES = ("seconds", "examples_per_second")


def untimed(record: dict[str, float]) -> dict[str, float]:
    return {name: value for name, value in record.items() if name not in TIMES}


def test_fit_is_this_loop() -> None:
    result = train.fit(NET, LOSS, OPT, classification(), **SETTINGS, progress=False)
    found = list(train.epochs(NET, LOSS, OPT, classification(), **SETTINGS))
    assert [untimed(record) for record, _ in found] == [untimed(record) for record in result.history]
    chex.assert_trees_all_equal(found[-1][1], train.TrainState(result.params, result.state, result.opt_state))


def test_every_state_can_be_kept_and_gone_on_from() -> None:
    states = [ts for _, ts in train.epochs(NET, LOSS, OPT, classification(), **SETTINGS)]
    norms = [float(jnp.linalg.norm(ts.params[1]["w"])) for ts in states]  # a donated buffer would raise
    assert len(set(norms)) == 3
    again = train.epochs(NET, LOSS, OPT, classification(), **SETTINGS, start=states[0])
    assert next(again)[1].opt_state.count == 2 * states[0].opt_state.count


def test_an_epoch_copies_the_state_once(monkeypatch: pytest.MonkeyPatch) -> None:
    loop = train.epochs(NET, LOSS, OPT, classification(), **SETTINGS)
    _, ts = next(loop)
    copied: list[Any] = []
    copy = jnp.copy
    monkeypatch.setattr(jnp, "copy", lambda x: copied.append(x) or copy(x))
    next(loop)
    assert len(copied) == len(jax.tree.leaves(ts))


def test_a_loop_trains_as_far_as_it_is_asked() -> None:
    seen = []
    for record, ts in train.epochs(NET, LOSS, OPT, classification(), **SETTINGS | {"epochs": 10**9}):
        seen.append(int(ts.opt_state.count))
        if record["epoch"] == 2:
            break
    assert seen == [seen[0], 2 * seen[0]]


def test_arguments_are_checked_before_the_first_epoch() -> None:
    with pytest.raises(TypeError, match="fit: key must be a typed key"):
        train.epochs(NET, LOSS, OPT, classification(), **SETTINGS | {"key": 0})
    with pytest.raises(ValueError, match="batch_size 51 exceeds the 50 examples"):
        train.epochs(NET, LOSS, OPT, classification(), **SETTINGS | {"batch_size": 51})
    with pytest.raises(TypeError, match="fit: loss must be a function"):
        train.epochs(NET, "mse", OPT, classification(), **SETTINGS)
    with pytest.raises(ValueError, match="pass validation"):
        train.epochs(NET, LOSS, OPT, classification(), **SETTINGS | {"validation": None})


def test_a_loop_that_diverges_gives_back_the_state_before() -> None:
    start = started()
    loop = train.epochs(NET, LOSS, optim.sgd(1e30, momentum=0.9), classification(), **SETTINGS, start=start)
    with pytest.raises(train.DivergedError) as caught:
        list(loop)
    assert caught.value.epoch == 1
    chex.assert_trees_all_equal(caught.value.result, start)


def test_what_a_callback_does_to_a_record_moves_no_epoch() -> None:
    """As one would number the epochs of a run that continues."""
    opt = optim.sgd(lambda count: jnp.where(count < 3, 0.1, -0.1))  # descends for three epochs, then climbs

    def shift(record: Any, ts: Any) -> None:
        record["epoch"] += 100

    settings: dict[str, Any] = SETTINGS | {"epochs": 6, "batch_size": 50, "progress": False, "select": "loss"}
    plain = train.fit(NET, LOSS, opt, classification(), **settings)
    shifted = train.fit(NET, LOSS, opt, classification(), **settings, on_epoch=shift)
    assert plain.epoch == shifted.epoch
    assert 1 < plain.epoch < 6
    chex.assert_trees_all_equal(plain.params, shifted.params)


def test_a_result_is_no_alias_of_the_start() -> None:
    start = started()
    result = train.fit(NET, LOSS, OPT, classification(), **SETTINGS | {"epochs": 0}, start=start, progress=False)
    jax.tree.map(lambda x: x.delete(), start)
    assert np.isfinite(result.params[1]["w"]).all()


def test_an_error_of_a_callback_keeps_its_own_result() -> None:
    mine = train.DivergedError("mine", epoch=1, step=1, result="mine")

    def fails(record: Any, ts: Any) -> None:
        raise mine

    with pytest.raises(train.DivergedError, match="mine"):
        train.fit(NET, LOSS, OPT, classification(), **SETTINGS, on_epoch=fails, progress=False)
    assert mine.result == "mine"
