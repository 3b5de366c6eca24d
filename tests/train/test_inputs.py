"""Whatever holds numbers is taken as those numbers, in any byte order; what does not, or would be wrapped, is named."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxnn import backprop, losses, metrics, optim, train
from jaxnn.data import make_dataset, take
from tests.train.problems import KEY, LOSS, NET, OPT, VG, D, K, classification, started

X, Y = (a[:12] for a in classification())
STEP, EPOCH = train.make_step(VG, OPT), train.make_epoch(VG, OPT, batch_size=4)
OUTPUTS = np.random.default_rng(0).standard_normal((12, K)).astype(np.float32)
START = started()

USERS: dict[str, Any] = {
    "make_step": lambda x, y: STEP(started(), x, y)[1]["loss"],
    "make_epoch": lambda x, y: EPOCH(started(), x, y, KEY)[1]["loss"],
    "fit": lambda x, y: train.fit(NET, LOSS, OPT, (x, y), key=KEY, epochs=1, batch_size=4, progress=False).params,
    "evaluate": lambda x, y: train.evaluate(NET, START.params, (), x, y, {"loss": LOSS, "error": metrics.error_rate}),
    "make_outputs": lambda x, y: train.make_outputs(NET)(START.params, (), x),
    "predict": lambda x, y: NET.predict(START.params, (), x),
    "record": lambda x, y: backprop.record(NET, LOSS)(START.params, (), x, y).losses,
    "value_and_grad": lambda x, y: backprop.value_and_grad(NET, LOSS)(START.params, (), x, y),
    "losses": lambda x, y: LOSS(OUTPUTS, y),
    "metrics": lambda x, y: metrics.error_rate(OUTPUTS, y),
    "make_dataset": lambda x, y: make_dataset(x, y).y,
    "take": lambda x, y: take((x, y), [3, 1]),
}
OF_LABELS_ALONE = ("losses", "metrics")
OF_INPUTS_ALONE = ("make_outputs", "predict")

MADE_OF_NUMBERS: dict[str, Any] = {
    "lists": lambda a: a.tolist(),
    "big-endian": lambda a: a.astype(a.dtype.newbyteorder(">")),
    "wide": lambda a: a.astype(">f8" if a.dtype.kind == "f" else ">i8"),
    "strided": lambda a: np.repeat(np.asfortranarray(a), 2, axis=0)[::2],
}


TRACED = ("predict", "record", "value_and_grad", "losses", "metrics")
"""What is called inside a program of the user's, where the numbers are constants."""


def assert_same(name: str, expected: Any, found: dict[str, Any]) -> None:
    for form, result in found.items():
        for a, b in zip(jax.tree.leaves(result), jax.tree.leaves(expected), strict=True):
            np.testing.assert_allclose(a, b, rtol=1e-6, err_msg=f"{name} of {form}")


@pytest.mark.parametrize("name", [name for name in USERS if name not in TRACED])
def test_numbers_in_any_form_are_the_same_numbers(name: str) -> None:
    found = {form: USERS[name](made(X), made(Y)) for form, made in MADE_OF_NUMBERS.items()}
    assert_same(name, USERS[name](X, Y), found)


def test_numbers_in_any_form_are_the_same_constants() -> None:
    def of(x: Any, y: Any) -> dict[str, Any]:
        return {name: USERS[name](x, y) for name in TRACED}

    expected, found = jax.jit(
        lambda: (of(X, Y), {form: of(made(X), made(Y)) for form, made in MADE_OF_NUMBERS.items()})
    )()
    for name in TRACED:
        assert_same(name, expected[name], {form: results[name] for form, results in found.items()})


def changed(labels: np.ndarray, value: Any) -> np.ndarray:
    return np.where(np.arange(len(labels)) == 5, value, labels)


BAD_LABELS = [
    (changed(Y.astype(np.int64), 2**32 + 1), ValueError, r"must fit into int32, got 4294967297 at index \(5,\)"),
    (changed(Y.astype(np.int64), -(2**32)), ValueError, r"must fit into int32, got -4294967296 at index \(5,\)"),
    (changed(Y.astype(np.uint64), np.uint64(2**63)), ValueError, r"must fit into uint32, got 9223372036854775808"),
    ([2**40, *Y.tolist()[1:]], ValueError, r"must fit into int32, got 1099511627776 at index \(0,\)"),
    ([2**70, *Y.tolist()[1:]], TypeError, "must be an array of numbers, got list of object"),
    (Y.astype(str), TypeError, "must be an array of numbers, got ndarray of str"),
    (np.ma.masked_array(Y, Y == 1), ValueError, "must be a plain array, got a masked one"),
]


@pytest.mark.parametrize("name", [name for name in USERS if name not in OF_INPUTS_ALONE])
def test_labels_are_looked_at_before_they_are_wrapped(name: str) -> None:
    for labels, error, text in BAD_LABELS:
        with pytest.raises(error, match=text):
            USERS[name](X, labels)


BAD_INPUTS = [
    ({"image": X}, TypeError, "must be an array of numbers, got dict"),
    (X.astype(object), TypeError, "must be an array of numbers, got ndarray of object"),
    (np.ma.masked_array(X, X > 1), ValueError, "must be a plain array, got a masked one"),
    ([[1.0, 2.0], [3.0]] * 6, ValueError, "ragged nested lists"),
]


@pytest.mark.parametrize("name", [name for name in USERS if name not in (*OF_LABELS_ALONE, "take")])
def test_inputs_that_are_no_array_are_named(name: str) -> None:
    for inputs, error, text in BAD_INPUTS:
        with pytest.raises(error, match=text):
            USERS[name](inputs, Y)


def test_examples_may_be_trees_for_a_loss_that_takes_them() -> None:
    def loss_fn(params: Any, state: Any, x: Any, y: Any, *, key: Any = None, weights: Any = None) -> Any:
        return jnp.mean((x["a"] @ params["w"] - y["of"]) ** 2), state

    opt, x, y = optim.sgd(0.1), {"a": X.tolist()}, {"of": X[:, 0].astype(">f4")}
    epoch = train.make_epoch(jax.value_and_grad(loss_fn, has_aux=True), opt, batch_size=12)
    params = {"w": np.zeros(D, np.float32)}
    ts, report = epoch(train.TrainState(params, (), opt.init(params)), x, y, KEY)
    np.testing.assert_allclose(report["loss"], [np.mean(X[:, 0] ** 2)], rtol=1e-5)
    np.testing.assert_allclose(ts.params["w"], 0.2 * X.T @ X[:, 0] / 12, rtol=1e-4, atol=1e-6)


def test_the_starts_and_settings_of_other_programs_are_numbers_too() -> None:
    big = np.arange(1.0, 4.0).astype(">f4")
    np.testing.assert_allclose(train.map_runs(lambda r, s: r * s[0], big, (big,), progress=False), [1, 2, 3])
    end = train.minimize(lambda x: jnp.sum(x**2), optim.sgd(0.5), big, steps=1)
    np.testing.assert_array_equal(end.x, np.zeros(3))
    for value in (np.array([2**32]), np.array(["a"])):
        with pytest.raises((TypeError, ValueError), match=r"map_runs: inputs must"):
            train.map_runs(lambda r: r, value, progress=False)


def test_a_regression_loss_takes_no_strings() -> None:
    with pytest.raises(TypeError, match="mse: targets must be an array of numbers, got list of str"):
        losses.mse(OUTPUTS, [["1"] * K] * 12)
