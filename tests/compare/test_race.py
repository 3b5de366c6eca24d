"""The protocol of a race: what is tried, what is chosen, what counts; stops, and goes on."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxnn import landscapes, optim, train
from jaxnn.compare import problems
from jaxnn.compare.costs import costs
from jaxnn.compare.entries import Entry, entries
from jaxnn.compare.race import race, way
from jaxnn.compare.result import Race, Result
from tests.compare.bowl import bowl

RATES = (1e-3, 0.05, 10.0)
QUICK: dict[str, Any] = {"learning_rates": RATES, "seeds": 3, "ways_on": (), "progress": False}


@pytest.fixture(scope="module")
def found() -> Race:
    return race("sgd,optax:sgd", bowl(), **QUICK)


@pytest.mark.slow
def test_the_rate_of_the_best_validation_figure_is_run_with_fresh_seeds(found: Race) -> None:
    problem = bowl()
    tuning_key, fresh_key = jax.random.split(jax.random.key(0))

    def swept(rates: Any, keys: Any, **more: Any) -> train.Sweep:
        return train.sweep(
            lambda rate: optim.sgd(rate), np.asarray(rates, np.float32), problem.net, problem.loss, problem.train,
            keys=keys, epochs=3, batch_size=8, validation=problem.validation, progress=False, **more,
        )  # fmt: skip

    tried = swept(RATES, jax.random.split(tuning_key, 1)).curves["validation_loss"][:, -1]
    ours, theirs = found.results
    assert np.isnan(tried[2]) or tried[2] > 1e6
    np.testing.assert_allclose(ours.tuning[:2, 0], tried[:2], rtol=1e-5)
    assert ours.rate == theirs.rate == 0.05
    fresh = swept([0.05], jax.random.split(fresh_key, 3), test=problem.test)
    np.testing.assert_allclose(ours.final, fresh.final["test_loss"], rtol=1e-5)
    np.testing.assert_allclose(theirs.final, ours.final, rtol=1e-5)
    for name, curve in fresh.curves.items():
        np.testing.assert_allclose(ours.curves[name], curve, rtol=1e-5)
    assert (ours.figure, ours.final_name) == ("validation_loss", "test_loss")
    assert abs(fresh.final["test_loss"] - fresh.curves["validation_loss"][:, -1]).min() > 1  # which one it is matters


@pytest.mark.slow
def test_of_equal_figures_the_lower_loss_decides() -> None:
    problem = dataclasses.replace(bowl(), metrics={"sign": lambda y, _: jnp.sign(y)}, figure="validation_sign")
    (found,) = race("sgd", problem, **(QUICK | {"learning_rates": (1e-4, 0.05, 1e-2)})).results
    assert (found.tuning == 1).all()
    assert found.rate == 0.05


@pytest.mark.slow
def test_diagnostics_and_costs_are_there(found: Race) -> None:
    for r in found.results:
        for name in ("grad_norm", "update_norm", "alignment", "distance", "noise_scale", "snr"):
            assert r.curves[name].shape == (3, 3)
            assert np.isfinite(r.curves[name]).all()
        assert r.cost is not None
        assert r.cost.step_seconds > 0
        assert r.cost.compile_seconds > 0
    assert found.results[0].cost.state_bytes == 4  # type: ignore[union-attr] # the count


@pytest.mark.slow
def test_time_and_memory_of_what_has_more_of_both() -> None:
    def slow(rate: Any) -> optim.Optimizer:
        adam = optim.adam(rate)

        def update(grads: Any, state: Any, params: Any = None, **extra: Any) -> Any:
            work = jax.lax.fori_loop(0, 200, lambda i, m: m @ m / 100, jnp.ones((100, 100)))
            updates, state = adam.update(grads, state, params)
            return jax.tree.map(lambda u: u + 1e-30 * work[0, 0], updates), state

        return optim.Optimizer(adam.init, update)

    plain, heavy = costs([*entries("sgd"), Entry("slow", slow)], bowl(), rounds=3)
    assert heavy.state_bytes == 4 + 2 * 3 * 4
    assert heavy.step_seconds > plain.step_seconds
    assert heavy.temporary_bytes > plain.temporary_bytes


@pytest.mark.slow
def test_a_race_that_is_stopped_keeps_what_is_done_and_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    so_far: list[Race] = []

    def stop(race: Race) -> None:
        so_far.append(race)
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        race("sgd,adam", bowl(), **QUICK, folder=tmp_path, on_result=stop)
    assert [r.optimizer for r in so_far[0].results] == ["sgd"]
    ran: list[int] = []
    call = train.sweeps.chunks.StagedProgram.call
    monkeypatch.setattr(
        train.sweeps.chunks.StagedProgram,
        "call",
        lambda self, start, stop, *given: ran.append(stop - start) or call(self, start, stop, *given),
    )
    whole = race("sgd,adam", bowl(), **QUICK, folder=tmp_path)
    assert ran == [1, 3]  # adam's alone: its three rates side by side, its three seeds
    np.testing.assert_array_equal(whole.results[0].final, so_far[0].results[0].final)
    with pytest.raises(ValueError, match="holds runs of another sweep"):
        race("sgd", bowl(), **(QUICK | {"seeds": 2}), folder=tmp_path)


@pytest.mark.slow
def test_what_always_diverges_is_marked_and_stops_nothing() -> None:
    never = Entry("never", lambda rate: optim.sgd(1e30 * rate))
    found = race([never, "sgd"], bowl(), **QUICK)
    lost, fine = found.results
    assert lost.diverged == 3
    assert lost.performance == np.inf
    assert not np.isfinite(lost.tuned).any()
    assert lost.tuneability == 0
    assert lost.summary()["performance"] is None
    assert fine.diverged == 0


@pytest.mark.slow
def test_ways_are_those_of_the_rate_that_comes_lowest() -> None:
    place = landscapes.rosenbrock()
    rate, points = way(entries("sgd")[0], place, [1e-4, 1e-3, 1.0])
    assert rate == 1e-3
    alone = train.trajectory(place, optim.sgd(1e-3), jnp.asarray(place.start, jnp.float32), steps=300).x
    np.testing.assert_allclose(points, alone, rtol=1e-4)


def made(curve: Any, tuning: Any, **told: Any) -> Result:
    settings: dict[str, Any] = {"target": 0.5, "final": np.array([0.1, 0.2, 0.3, np.inf])} | told
    return Result(
        "sgd", "p", "validation_error", np.geomspace(1e-3, 1, len(tuning)), np.asarray(tuning, float)[:, None],
        settings.pop("rate", 0.1), {"validation_error": np.asarray(curve), "loss": np.asarray(curve)},
        settings.pop("final"), "test_error", 10, settings.pop("target"), **settings,
    )  # fmt: skip


def test_speed_is_the_first_epoch_at_or_below_the_target() -> None:
    curve = [[0.9, 0.5, 0.7], [0.4, 0.9, 0.9], [0.9, 0.9, 0.9], [0.6, np.nan, np.nan]]
    found = made(curve, [1, 1, 1, 1])
    np.testing.assert_array_equal(found.steps_to_target, [20, 10, np.inf, np.inf])
    assert found.summary()["reached"] == 2
    assert found.summary()["median_steps_to_target"] is None
    assert np.isinf(made(curve, [1, 1, 1, 1], target=None).steps_to_target).all()


def test_performance_is_a_mean_with_quartiles_and_divergence_is_infinite() -> None:
    found = made([[1.0]], [1, 1, 1, 1])
    assert (found.performance, found.diverged) == (np.inf, 1)
    found = made([[1.0]], [1, 1, 1, 1], final=np.array([0.1, 0.2, 0.3, 0.4, 0.5]))
    assert found.performance == pytest.approx(0.3)
    assert found.quartiles == (0.2, 0.4)


@pytest.mark.parametrize(
    ("tuning", "decades"),
    [
        ([2.0, 1.0, 1.2, 2.0], 2.0),  # rates 1e-3, 1e-2, 1e-1, 1: the middle two, each half a decade to both sides
        ([1.0, 1.0, 1.0, 1.0], 3.0),
        ([1.0, 2.0, 1.0, 1.0], 0.5),  # the first best, alone
        ([2.0, 2.0, 2.0, 1.0], 0.5),
        ([2.0, 1.0, np.inf, 1.0], 1.0),
    ],
)
def test_tuneability_is_the_width_of_the_good_rates(tuning: list[float], decades: float) -> None:
    assert made([[1.0]], tuning).tuneability == pytest.approx(decades)


def test_a_rate_at_the_edge_is_said_to_be() -> None:
    assert made([[1.0]], [1, 2, 2, 2], rate=1e-3).at_the_edge
    assert not made([[1.0]], [2, 2, 1, 2], rate=0.1).at_the_edge


@pytest.mark.slow
def test_the_table_has_a_row_for_each_seed_and_epoch(found: Race, tmp_path: Path) -> None:
    rows = found.table()
    assert {len(column) for column in rows.values()} == {2 * 3 * 3}
    pick = (rows["optimizer"] == "optax:sgd") & (rows["seed"] == 2) & (rows["epoch"] == 3)
    assert rows["loss"][pick] == found.results[1].curves["loss"][2, 2]
    with np.load(found.save(tmp_path) / "curves.npz") as file:
        for name, column in rows.items():
            np.testing.assert_array_equal(file[name], column)


def whole_loss(params: Any, x: Any) -> Any:
    return params * x


@pytest.mark.parametrize(
    ("call", "text"),
    [
        (lambda: race("adma", "digits-mlp"), "did you mean .*'adam'"),
        (lambda: race("adam", "digits-mpl"), "did you mean 'digits-mlp'"),
        (lambda: race("adam", ""), "at least one of problems"),
        (lambda: race("adam", []), "at least one of problems"),
        (lambda: race("adam", [bowl(), bowl()]), "must differ, got bowl more than once"),
        (lambda: race("adam", [3]), "a problem is a name or a Problem"),  # type: ignore[list-item]
        (lambda: race("adam", bowl(), learning_rates=[]), "finite numbers > 0"),
        (lambda: race("adam", bowl(), seeds=0), "seeds must be at least 1"),
        (lambda: race("adam", bowl(), tuning_seeds=0), "tuning_seeds must be at least 1"),
        (lambda: race("adam", bowl(), epochs=0), "epochs must be at least 1"),
        (lambda: race("adam", bowl(), ways_on=["rosenbrok"]), "did you mean 'rosenbrock'"),
        (
            lambda: race("adam", problems.from_function("p", lambda key: jnp.ones(2), whole_loss, np.ones((4, 2)))),
            "must return a scalar for one example",
        ),
    ],
)
def test_bad_races_are_named(call: Callable[[], Any], text: str) -> None:
    with pytest.raises((ValueError, TypeError), match=text):
        call()
