"""A sweep against the same runs by `fit`, in float32 and float64; its table; runs that diverge."""

from __future__ import annotations

import csv
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxnn import losses, metrics, models, optim, train
from jaxnn.data import Partial
from jaxnn.layers import BatchNorm, Dense, Dropout, Flatten, Relu
from jaxnn.train import Sweep, sweep
from jaxnn.train.sweeps.runs import map_program
from tests.helpers import float64, slow, strict

KEYS = jax.random.split(jax.random.key(7), 3)
N, D, K = 60, 4, 3


def examples(dtype: Any = np.float32) -> tuple[np.ndarray, np.ndarray]:
    generator = np.random.default_rng(0)
    y = np.arange(N) % K
    return (generator.standard_normal((N, D)) + np.eye(K, D)[y]).astype(dtype), y.astype(np.int32)


NETS = {
    "mlp": models.mlp([D, 8, K]),
    "norm": models.serial(Flatten, Dense(6), BatchNorm(), Relu, Dropout(0.2), Dense(K)),
}
MAKERS: dict[str, Callable[[Any], optim.Optimizer]] = {
    "sgd": lambda s: optim.sgd(s["rate"], momentum=s["decay"]),
    "adam": lambda s: optim.adam(s["rate"], b1=s["decay"]),
    "schedule": lambda s: optim.adamw(optim.cosine_decay_schedule(s["rate"], 100), weight_decay=1 - s["decay"]),
}
SETTINGS = {"rate": np.array([0.01, 0.05]), "decay": np.array([0.9, 0.5])}


def by_fit(net: Any, opt: optim.Optimizer, pair: Any, key: Any, epochs: int, **settings: Any) -> dict[str, np.ndarray]:
    result = train.fit(net, losses.softmax_cross_entropy, opt, pair, key=key, epochs=epochs, progress=False, **settings)
    return {name: np.array([record[name] for record in result.history]) for name in result.history[0]}


def assert_equals_fit(
    net: Any, make: Any, pair: Any, rtol: float, epochs: int, runs: Any = range(6), **given: Any
) -> None:
    settings = {name: values.astype(pair[0].dtype) for name, values in SETTINGS.items()}
    found = sweep(
        make, settings, net, losses.softmax_cross_entropy, pair, keys=KEYS, epochs=epochs, progress=False, **given
    )
    assert found.curves["loss"].shape == (6, epochs)
    for run in runs:
        setting = {name: values[found.index["setting"][run]] for name, values in settings.items()}
        alone = by_fit(net, make(setting), pair, KEYS[found.index["seed"][run]], epochs, **given)
        for name, values in found.curves.items():
            np.testing.assert_allclose(values[run], alone[name], rtol=rtol, err_msg=name)


@pytest.mark.parametrize(
    ("maker", "runs"), [("adam", (1, 5)), *slow(("adam", range(6)), ("sgd", range(6)), ("schedule", range(6)))]
)
def test_a_sweep_equals_separate_runs_in_float64(maker: str, runs: Any) -> None:
    with float64(), strict():  # 102 steps
        assert_equals_fit(NETS["mlp"], MAKERS[maker], examples(np.float64), 1e-12, 34, runs, batch_size=20)


@pytest.mark.slow
def test_a_sweep_equals_separate_runs_in_float32() -> None:
    assert_equals_fit(NETS["mlp"], MAKERS["adam"], examples(), 1e-5, 34, batch_size=20)


def jitter(key: Any, x: Any) -> Any:
    return x + 0.1 * jax.random.normal(key, x.shape, x.dtype)


@pytest.mark.slow
def test_all_that_fit_knows_a_sweep_knows() -> None:
    pair, held_out = examples(), examples()
    assert_equals_fit(
        NETS["norm"], MAKERS["sgd"], pair, 1e-4, 3,
        batch_size=20, validation=held_out, metrics={"error": metrics.error_rate},
        regularizer=losses.l2(1e-3), measure=train.grad_norm, augment=jitter,
    )  # fmt: skip
    assert_equals_fit(NETS["mlp"], MAKERS["sgd"], pair, 1e-4, 3, batch_size=25, partial=Partial.WEIGHT)


@pytest.mark.slow
def test_a_test_set_is_looked_at_once_and_a_probe_after_each_epoch() -> None:
    x, y = examples()
    rates = np.array([0.1, 1e30], np.float32)
    found = sweep(
        lambda rate: optim.sgd(rate), rates, NETS["mlp"], losses.softmax_cross_entropy, (x, y), keys=KEYS[:2],
        epochs=3, batch_size=20, validation=(x, y), test=(x, y), metrics={"error": metrics.error_rate}, progress=False,
        probe=lambda ts, x, y: {"first_weight": ts.params[1]["w"][0, 0], "examples": jnp.sum(jnp.ones_like(y))},
    )  # fmt: skip
    assert set(found.final) == {"test_loss", "test_error"}
    np.testing.assert_allclose(found.final["test_loss"], found.curves["validation_loss"][:, -1])
    np.testing.assert_array_equal(np.isnan(found.final["test_error"]), [False, False, True, True])
    alone = train.fit(
        NETS["mlp"], losses.softmax_cross_entropy, optim.sgd(0.1), (x, y), key=KEYS[1], epochs=3, batch_size=20,
        progress=False,
    )  # fmt: skip
    np.testing.assert_allclose(found.curves["first_weight"][1, -1], alone.params[1]["w"][0, 0], rtol=1e-5)
    np.testing.assert_array_equal(found.curves["examples"][0], [N] * 3)
    rows = found.table()
    np.testing.assert_array_equal(rows["test_loss"][:3], [found.final["test_loss"][0]] * 3)


@pytest.mark.slow
def test_orders_are_met_with_every_seed() -> None:
    orders = jax.random.split(jax.random.key(3), 2)
    found = sweep(
        lambda rate: optim.sgd(rate), np.array([0.1]), NETS["mlp"], losses.softmax_cross_entropy, examples(),
        keys=KEYS[:2], orders=orders, epochs=2, batch_size=10, progress=False,
    )  # fmt: skip
    assert found.index["seed"].tolist() == [0, 0, 1, 1]
    assert found.index["order"].tolist() == [0, 1, 0, 1]
    assert len(np.unique(found.curves["loss"][:, -1])) == 4
    # The seed fixes the start: the whole-batch gradient of one epoch does not depend on the order.
    whole = sweep(
        lambda rate: optim.sgd(rate), np.array([0.1]), NETS["mlp"], losses.softmax_cross_entropy, examples(),
        keys=KEYS[:2], orders=orders, epochs=1, batch_size=N, progress=False,
    ).curves["loss"][:, 0]  # fmt: skip
    np.testing.assert_allclose(whole[[0, 2]], whole[[1, 3]], rtol=1e-6)
    assert abs(whole[0] - whole[2]) > 1e-3


SIX = {"rate": np.linspace(0.01, 0.06, 6), "decay": np.linspace(0.4, 0.9, 6)}


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many runs each call of `map_program` takes side by side."""
    calls: list[int] = []

    def counted(*args: Any, each: int = 1, **how: Any) -> Any:
        calls.append(each)
        return map_program(*args, each=each, **how)

    # The function `sweep` hides its module of the same name.
    monkeypatch.setattr(sys.modules["jaxnn.train.sweeps.sweep"], "map_program", counted)
    return calls


@pytest.mark.slow
@pytest.mark.parametrize(
    ("chunk", "alike"),
    [
        (None, 6),
        (4, 3),
        (1, 1),
    ],
)
def test_settings_side_by_side_are_the_runs_one_by_one(chunk: int | None, alike: int, asked: list[int]) -> None:
    with float64():
        pair, orders = examples(np.float64), jax.random.split(jax.random.key(3), 2)
        found = sweep(
            MAKERS["sgd"], SIX, NETS["norm"], losses.softmax_cross_entropy, pair, keys=KEYS, orders=orders, epochs=2,
            batch_size=20, chunk=chunk, progress=False,
        )  # fmt: skip
        assert asked == [alike]
        assert found.curves["loss"].shape == (36, 2)
        for run in (0, 7, 22, 35):
            one = {name: found.index[name][run] for name in ("setting", "seed", "order")}
            alone = sweep(
                MAKERS["sgd"], {name: values[[one["setting"]]] for name, values in SIX.items()}, NETS["norm"],
                losses.softmax_cross_entropy, pair, keys=KEYS[one["seed"], None], orders=orders[one["order"], None],
                epochs=2, batch_size=20, progress=False,
            )  # fmt: skip
            np.testing.assert_allclose(found.curves["loss"][run], alone.curves["loss"][0], rtol=1e-12)
            assert found.settings["rate"][run] == SIX["rate"][one["setting"]]


@pytest.mark.slow
def test_settings_too_many_for_the_memory_are_not_side_by_side(asked: list[int]) -> None:
    given: dict[str, Any] = {"keys": KEYS, "epochs": 2, "batch_size": 20, "progress": False}
    what = (MAKERS["sgd"], SIX, NETS["mlp"], losses.softmax_cross_entropy, examples())
    expected = sweep(*what, **given).curves["loss"]
    np.testing.assert_allclose(sweep(*what, memory=1, **given).curves["loss"], expected, rtol=1e-5)
    assert asked == [6, 6, 1]


def test_a_run_that_diverges_is_frozen_and_marked_and_disturbs_no_other() -> None:
    rates = np.array([0.1, 1e30, 0.05], np.float32)

    def found(rates: np.ndarray) -> Sweep:
        return sweep(
            lambda rate: optim.sgd(rate), rates, NETS["mlp"], losses.softmax_cross_entropy, examples(),
            keys=KEYS[:1], epochs=4, batch_size=20, validation=examples(), progress=False,
        )  # fmt: skip

    mixed, tame = found(rates), found(rates[[0, 2, 2]])
    assert mixed.diverged.tolist() == [0, 1, 0]
    for name, values in mixed.curves.items():
        np.testing.assert_allclose(values[[0, 2]], tame.curves[name][:2], rtol=1e-6)
        assert np.isnan(values[1]).all(), name
    assert mixed.table()["diverged"].tolist() == [False] * 4 + [True] * 4 + [False] * 4


@pytest.mark.slow
def test_parameters_that_blow_up_in_the_last_step_are_a_divergence() -> None:
    found = sweep(
        lambda rate: optim.sgd(rate * rate), np.array([1e30, 0.1]), NETS["mlp"], losses.softmax_cross_entropy,
        examples(), keys=KEYS[:1], epochs=1, batch_size=N, test=examples(), progress=False,
    )  # fmt: skip
    assert found.diverged.tolist() == [1, 0]
    assert np.isnan(found.final["test_loss"]).tolist() == [True, False]


def test_settings_called_like_columns_are_kept() -> None:
    found = sweep(
        lambda s: optim.sgd(s["loss"] * s["epoch"]), {"loss": np.array([0.1]), "epoch": np.array([7.0])}, NETS["mlp"],
        losses.softmax_cross_entropy, examples(), keys=KEYS[:1], epochs=2, batch_size=N, progress=False,
    )  # fmt: skip
    rows = found.table()
    np.testing.assert_allclose(rows["settings.loss"], 0.1, rtol=1e-6)
    np.testing.assert_array_equal(rows["settings.epoch"], 7)
    assert rows["epoch"].tolist() == [1, 2]
    np.testing.assert_array_equal(rows["loss"], found.curves["loss"][0])


@pytest.mark.slow
def test_a_run_may_diverge_late() -> None:
    # The rate grows by a factor of 1000 with each step.
    def make(rate: Any) -> optim.Optimizer:
        return optim.sgd(lambda count: rate * 1e3 ** count.astype(jnp.float32))

    x = jnp.ones((8, 1))
    found = sweep(make, np.array([1e-6, 0.0]), models.linear(1), losses.half_squared_error, (x, x), keys=KEYS[:1],
                  epochs=6, batch_size=4, progress=False)  # fmt: skip
    first = int(found.diverged[0])
    assert first > 1
    assert found.diverged[1] == 0
    curve = found.curves["loss"][0]
    assert np.isfinite(curve[: first - 1]).all()
    assert np.isnan(curve[first - 1 :]).all()


def small() -> Sweep:
    settings = {"rate": np.array([0.1, 0.2]), "decays": np.array([[0.9, 0.99], [0.8, 0.98]])}
    return sweep(
        lambda s: optim.adam(s["rate"], b1=s["decays"][0], b2=s["decays"][1]), settings, NETS["mlp"],
        losses.softmax_cross_entropy, examples(), keys=KEYS, epochs=2, batch_size=20, validation=examples(),
        progress=False,
    )  # fmt: skip


@pytest.mark.slow
def test_the_table_has_a_row_for_each_run_and_epoch(tmp_path: Path) -> None:
    found = small()
    rows = found.table()
    assert {len(column) for column in rows.values()} == {2 * 3 * 2}
    assert list(rows) == [
        "run", "setting", "seed", "order", "decays[0]", "decays[1]", "rate", "epoch", "diverged", "loss",
        "validation_loss",
    ]  # fmt: skip
    for row in range(12):
        run, epoch = rows["run"][row], rows["epoch"][row]
        assert rows["loss"][row] == found.curves["loss"][run, epoch - 1]
        assert rows["seed"][row] == run % 3
        assert rows["rate"][row] == pytest.approx([0.1, 0.2][run // 3])
        assert rows["decays[1]"][row] == pytest.approx([0.99, 0.98][run // 3])
    with np.load(found.save(tmp_path / "t.npz")) as file:
        for name, column in rows.items():
            np.testing.assert_array_equal(file[name], column)
    with found.save(tmp_path / "t.csv").open(newline="") as text:
        written = list(csv.DictReader(text))
    assert list(written[0]) == list(rows)
    np.testing.assert_allclose([float(r["loss"]) for r in written], rows["loss"], rtol=1e-6)
    with pytest.raises(ValueError, match=r"must end in \.npz or \.csv, got 't.txt'"):
        found.save(tmp_path / "t.txt")


@pytest.mark.slow
def test_a_sweep_goes_on_from_its_folder(tmp_path: Path) -> None:
    def found(**more: Any) -> Sweep:
        return sweep(
            lambda rate: optim.sgd(rate), np.array([0.1, 0.2]), NETS["mlp"], losses.softmax_cross_entropy, examples(),
            keys=KEYS, epochs=2, batch_size=20, progress=False, folder=tmp_path, **more,
        )  # fmt: skip

    first = found(chunk=4)
    assert len(list(tmp_path.iterdir())) == 2
    np.testing.assert_array_equal(found().curves["loss"], first.curves["loss"])
    with pytest.raises(ValueError, match="holds runs of another sweep"):
        found(measure=train.grad_norm)


GOOD: dict[str, Any] = {"keys": KEYS, "epochs": 1, "batch_size": 20, "progress": False}


@pytest.mark.parametrize(
    ("change", "settings", "text"),
    [
        ({"keys": KEYS[0]}, [0.1], "keys must be typed keys of shape"),
        ({"keys": jnp.ones(3)}, [0.1], "keys must be typed keys of shape"),
        ({"orders": KEYS[0]}, [0.1], "orders must be typed keys of shape"),
        ({}, [], r"settings must be arrays \(S, ...\) with the same S >= 1, got shapes \(0,\)"),
        ({}, 0.1, r"settings must be arrays .* got shapes \(\)"),
        ({}, {}, r"settings must be arrays .* got no array"),
        ({"metrics": {"error": metrics.error_rate}}, [0.1], "are evaluated on validation and test data"),
        ({"probe": 3}, [0.1], "probe must be a function"),
        ({"probe": lambda ts, x, y: {"p": y}}, [0.1], "probe must return a dict of scalars"),
        ({"probe": lambda ts, x, y: {"loss": 0.0}}, [0.1], "probe returns loss, already the name of a curve"),
        ({"keys": 0}, [0.1], "keys must be typed keys of shape"),
        ({"keys": KEYS[:0]}, [0.1], "R >= 1"),
        ({"orders": 3}, [0.1], "orders must be typed keys of shape"),
        ({"chunk": 0}, [0.1], "chunk must be at least 1"),
        ({"folder": ""}, [0.1], "folder must name a folder"),
        ({"test": (np.ones((3, D), np.float32), np.full(3, K))}, [0.1], "test"),
        ({"epochs": 0}, [0.1], "epochs must be at least 1"),
        ({"batch_size": 61}, [0.1], "exceeds the 60 examples"),
    ],
)
def test_bad_arguments_are_named(change: dict[str, Any], settings: Any, text: str) -> None:
    values = jax.tree.map(np.asarray, np.asarray(settings) if isinstance(settings, list) else settings)
    with pytest.raises((ValueError, TypeError), match=text):
        sweep(lambda s: optim.sgd(s), values, NETS["mlp"], losses.softmax_cross_entropy, examples(), **(GOOD | change))


def test_what_makes_no_optimizer_is_named() -> None:
    given = (np.array([0.1]), NETS["mlp"], losses.softmax_cross_entropy, examples())
    with pytest.raises(TypeError, match="what make_optimizer returns must be an optimizer"):
        sweep(lambda s: s, *given, **GOOD)
    with pytest.raises(TypeError, match="make_optimizer must be a function"):
        sweep(optim.sgd(0.1), *given, **GOOD)  # type: ignore[arg-type]
