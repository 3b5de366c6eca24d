"""Training on pytrees of inputs and targets: (source, target) as one example, for networks that take such pairs."""

from __future__ import annotations

from typing import Any

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxnn import losses, optim, train
from jaxnn.data import Draws, Partial
from jaxnn.layers import Kind, Layer
from tests.helpers import assert_close
from tests.train.problems import KEY, LOSS, NET, OPT, K, changed, classification, started

X, Y = classification()
PAIR = (X[:, :4], X[:, 4:])


class OfPairs(Layer):
    """A network of the two parts of X: inputs concatenated, then NET."""

    def __post_init__(self) -> None:
        """Any example, unlike other layers."""

    def predict(self, params: Any, state: Any, x: Any) -> Any:
        return self.apply(params, state, x)[0]


def init(key: Any, example: Any) -> Any:
    source, target = example
    return NET.init(key, jax.ShapeDtypeStruct((source.shape[0] + target.shape[0],), source.dtype))


def apply(params: Any, state: Any, x: Any, *, key: Any = None, train: bool = False) -> Any:
    source, target = x
    return NET.apply(params, state, jnp.concatenate([source, target], axis=1), key=key, train=train)


PAIRS = OfPairs(init, apply, Kind("pairs"))
SETTINGS: dict[str, Any] = {"key": KEY, "epochs": 2, "batch_size": 8, "progress": False, "partial": Partial.WEIGHT}


def test_a_pair_of_inputs_trains_as_their_concatenation() -> None:
    held_out = {"validation": (PAIR, Y)}, {"validation": (X, Y)}
    pairs, whole = (
        train.fit(net, LOSS, OPT, (x, Y), **SETTINGS, **validation)
        for net, x, validation in zip((PAIRS, NET), (PAIR, X), held_out, strict=True)
    )
    assert_close(pairs.params, whole.params, rtol=1e-6)
    for a, b in zip(pairs.history, whole.history, strict=True):
        assert a["validation_loss"] == pytest.approx(b["validation_loss"], rel=1e-6)
    found = train.make_outputs(PAIRS, batch_size=7)(pairs.params, (), PAIR)
    np.testing.assert_allclose(found, NET.predict(pairs.params, (), X), rtol=1e-5)


def test_pairs_go_on_from_a_start_and_may_be_drawn() -> None:
    def rows(key: Any, arrays: Any, n: int) -> Any:
        return jax.tree.map(lambda a: a[jax.random.randint(key, (n,), 0, len(X))], arrays)

    pairs, whole = (Draws(jax.tree.map(jnp.asarray, (x, Y)), rows, 6) for x in (PAIR, X))
    found, expected = (
        train.fit(net, LOSS, OPT, data, **SETTINGS, start=started()) for net, data in ((PAIRS, pairs), (NET, whole))
    )
    assert_close(found.params, expected.params, rtol=1e-6)


def both(outputs: Any, targets: Any) -> Any:
    return LOSS(outputs, targets["label"]) + losses.mse(outputs, targets["scores"])


def test_targets_may_be_a_pytree() -> None:
    targets = {"label": Y, "scores": np.zeros((len(Y), K), np.float32)}
    result = train.fit(NET, both, OPT, (X, targets), **SETTINGS, validation=(X, targets))
    assert result.history[1]["validation_loss"] < result.history[0]["validation_loss"]
    with pytest.raises(ValueError, match=rf"labels must lie in \[0, {K}\)"):
        train.fit(NET, both, OPT, (X, targets | {"label": changed(Y, 7, K)}), **SETTINGS)


def test_lists_and_tuples_of_numbers_are_one_array() -> None:
    rows = tuple(tuple(row) for row in X.tolist())
    found, expected = (train.fit(NET, LOSS, OPT, (x, Y), **SETTINGS) for x in (rows, X))
    chex.assert_trees_all_equal(found.params, expected.params)


def test_the_example_of_a_pair_that_is_not_finite_is_named() -> None:
    with pytest.raises(train.DivergedError, match=r"The training x\[1\] of example 9 holds nan, at \[9, 1\]"):
        train.fit(PAIRS, LOSS, OPT, ((X[:, :4], changed(X[:, 4:], (9, 1), np.nan)), Y), **SETTINGS)


def test_what_does_not_fit_is_named() -> None:
    with pytest.raises(ValueError, match=r"same N >= 1, got shapes \(50, 4\), \(49, 2\), \(50,\)"):
        train.fit(PAIRS, LOSS, OPT, ((X[:, :4], X[1:, 4:]), Y), **SETTINGS)
    told = "train x must be an array of numbers, got tuple: this network takes no such pytree .*Pass the array"
    with pytest.raises(TypeError, match=told):
        train.fit(NET, LOSS, OPT, (PAIR, Y), **SETTINGS)
    with pytest.raises(
        ValueError, match=r"start.params\[1\]\['b'\].* Make it by train.init\(net, opt, key, \(\(4,\), "
    ):
        train.fit(PAIRS, LOSS, optim.sgd(0.1), (PAIR, Y), **SETTINGS, start=started()._replace(params=()))
