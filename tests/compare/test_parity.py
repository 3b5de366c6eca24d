"""The parity tool must see what it is there to see: differences planted in a rule of a known size."""

from __future__ import annotations

import dataclasses
import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from jaxnn import optim
from jaxnn.compare import Case, measure, pair, problems
from jaxnn.compare.course import problem_course, random_course
from jaxnn.compare.differences import differences
from jaxnn.compare.parity import default_tolerance, same, shared_fields
from jaxnn.types import PyTree
from tests.helpers import slow
from tests.optim.mutants import mutated

STEPS = 10


def scaled(factor: float) -> optim.Optimizer:
    """Adam whose updates are a factor too large; its state is right as long as the gradients are the same."""
    adam = optim.adam(0.01)

    def update(grads: Any, state: Any, params: Any = None, **extra: Any) -> Any:
        updates, state = adam.update(grads, state, params)
        return jax.tree.map(lambda u: factor * u, updates), state

    return optim.Optimizer(adam.init, update)


def decayed(factor: float) -> optim.Optimizer:
    """Adam that hands on a second moment a factor too large, and uses the right one."""
    adam = optim.adam(0.01)

    def update(grads: Any, state: Any, params: Any = None, **extra: Any) -> Any:
        true = state._replace(nu=jax.tree.map(lambda v: v / factor, state.nu))
        updates, new = adam.update(grads, true, params)
        return updates, new._replace(nu=jax.tree.map(lambda v: factor * v, new.nu))

    return optim.Optimizer(adam.init, update)


def case(ours: optim.Optimizer, **settings: Any) -> Case:
    return Case(lambda library: ours, lambda: optax.adam(0.01), steps=STEPS, **settings)


@pytest.mark.parametrize("gap", [1e-3, *slow(1e-9)])
def test_a_difference_in_the_parameters_is_seen_in_its_size(gap: float) -> None:
    found = measure(case(scaled(1 + gap)), "same")
    assert 1e-4 * gap < found.params < gap
    assert found.params_ulp == pytest.approx(found.params / 2.0**-52)
    assert max(found.state.values()) < 1e-15


@pytest.mark.slow
def test_on_its_own_trajectory_a_difference_reaches_the_state() -> None:
    found = measure(case(scaled(1.001)))
    assert found.state["mu"] > 1e-6
    assert found.state["count"] == 0


def test_a_difference_in_one_state_field_is_seen_in_that_field() -> None:
    found = measure(case(decayed(1 + 1e-6)), "same")
    assert found.state["nu"] == pytest.approx(1e-6, rel=1e-6)
    assert max(found.params, found.state["mu"], found.state["count"]) < 1e-14
    assert found.largest == found.state["nu"]
    assert "nu" not in measure(case(decayed(1.5), fields={"nu": ""}), "same").state


@pytest.mark.slow
def test_nan_is_a_difference() -> None:
    assert not measure(case(scaled(math.nan))).largest <= 1e300


def test_fields_that_do_not_exist_are_named() -> None:
    ours, theirs = (library.adam(0.1).init(jnp.ones(1)) for library in (optim, optax))
    with pytest.raises(ValueError, match=r"no state field \['momentum'\]"):
        shared_fields(ours, theirs, {"momentum": "mu"})
    with pytest.raises(ValueError, match=r"no state field \['velocity'\]"):
        shared_fields(ours, theirs, {"nu": "velocity"})


def stumbling(step: int, gap: float) -> optim.Optimizer:
    """Gradient descent that adds a gap to the first entry of params/w in one step, counted from 1."""

    def update(grads: Any, state: Any, params: Any = None) -> Any:
        count = state["count"] + 1
        updates = jax.tree.map(lambda g: -0.1 * g, grads)
        w = updates["w"]
        updates["w"] = w.at[0, 0].add(jnp.where(count == step, gap, 0.0).astype(w.dtype))
        return updates, {"count": count}

    return optim.Optimizer(lambda params: {"count": jnp.zeros((), jnp.int32)}, update)


def test_a_difference_is_seen_at_its_step_and_leaf_in_its_size() -> None:
    found = measure(pair(stumbling(4, 1e-3), optax.sgd(0.1), steps=6), "same")
    w = found.leaves.index("params/w")
    assert found.leaves == ("params/parts/0", "params/parts/1", "params/parts/2", "params/w")
    assert np.all(found.max_difference[:3] == 0)
    assert np.all(np.delete(found.max_difference, w, axis=1) == 0)
    np.testing.assert_allclose(found.max_difference[3:, w], 1e-3, rtol=1e-12)
    np.testing.assert_allclose(found.mean_difference[3:, w], 1e-3 / 15, rtol=1e-12)
    np.testing.assert_allclose(found.relative[3:, w], 1e-3 / found.entry[3:, w], rtol=1e-12)
    np.testing.assert_allclose(found.ulp, found.relative * 2.0**52)
    assert np.all(np.diff(found.entry, axis=0) >= 0)
    assert found.params == found.relative.max()
    assert found.params_mean == pytest.approx(found.params / 15)
    assert (found.first, found.equal) == ((4, "params/w"), False)
    assert "first beyond the tolerance at step 4, in params/w" in found.describe()
    assert str(found) == found.describe()
    table = found.table()
    assert {len(column) for column in table.values()} == {6 * 4}
    at = (table["step"] == 4) & (table["leaf"] == "params/w")
    assert table["max_difference"][at] == found.max_difference[3, w]


def test_the_verdict_has_the_tolerance_that_is_asked_for() -> None:
    case = pair(stumbling(1, 1e-3), optax.sgd(0.1), steps=2)
    assert measure(case, "same", tolerance=0.1).equal
    assert not measure(case, "same", tolerance=1e-9).equal


def test_costs_are_counted() -> None:
    found = measure(case(optim.adam(0.01)))
    entries = sum(p.size for p in jax.tree.leaves(random_course(jnp.dtype(jnp.float64)).params))
    assert found.ours.state_bytes == found.theirs.state_bytes == 2 * 8 * entries + 4
    for cost in (found.ours, found.theirs):
        assert 0 < cost.seconds_per_step < 1
        assert cost.compile_seconds > 0


@pytest.mark.slow
def test_a_network_on_its_data_is_a_course_too() -> None:
    digits = problems.load("digits-mlp")
    found = measure(case(optim.adam(0.01)), problem=digits)
    assert found.equal
    assert found.tolerance == 1e-9
    assert found.largest < 1e-13
    assert {"params/1/w", "params/3/b", "state/mu/1/w"} <= set(found.leaves)
    short = measure(case(optim.adam(0.01)), problem=digits, dtype=jnp.float32)
    assert short.equal
    assert (short.dtype, short.eps) == ("float32", 2.0**-23)
    assert short.largest > 1e-9
    broken = measure(case(scaled(1.0001)), problem=digits)
    assert not broken.equal
    assert broken.first is not None


@pytest.mark.slow
def test_a_problem_gives_every_example_once_an_epoch_and_goes_on() -> None:
    digits = problems.load("digits-mlp")
    course = problem_course(digits, jnp.dtype(jnp.float32))
    per_epoch = len(digits.train) // digits.batch_size
    rows = [np.asarray(step.x).reshape(32, -1) for step in course.steps(per_epoch + 2)]
    epoch = np.concatenate(rows[:per_epoch])
    both = len(np.unique(np.asarray(digits.train.x).reshape(len(digits.train), -1), axis=0))
    assert len(np.unique(epoch, axis=0)) >= len(epoch) - (len(digits.train) - both)
    assert not np.array_equal(rows[0], rows[per_epoch])


@pytest.mark.slow
def test_state_that_optax_widens_at_the_first_step_is_compared() -> None:
    found = measure(dataclasses.replace(same("adam", 0.01), steps=2), "same", dtype=jnp.bfloat16)
    assert found.eps == 2.0**-7
    assert np.isfinite(found.largest)


def test_a_broken_rule_is_flagged() -> None:
    library = mutated("adam", "nu_hat = nu / cast_like(c2, nu)", "nu_hat = nu")
    found = measure(dataclasses.replace(same("adam", 0.01), steps=3), library=library)
    assert not found.equal


def test_tolerances_are_wider_on_a_problem_and_in_short_dtypes() -> None:
    adam = same("adam", 0.1)
    assert default_tolerance(adam, dtype=jnp.complex128) == 1e-12
    assert default_tolerance(adam, problems.load("digits-mlp"), jnp.float32) == 1e-2
    assert default_tolerance(dataclasses.replace(adam, tolerance=0.5), dtype=jnp.bfloat16) == 0.5


@pytest.mark.parametrize(
    ("ours", "theirs", "figures"),
    [
        ([math.inf, 1.0], [math.inf, 2.0], [1.0, 0.5, 2.0]),
        ([math.nan, 1.0], [math.nan, 2.0], [math.nan, math.nan, 2.0]),
        ([math.inf, 1.0], [3.0, 1.0], [math.inf, math.inf, 3.0]),
        ([1 + 1j, 0], [1 - 1j, 0], [2.0, 1.0, 2**0.5]),
    ],
)
def test_differences_of_unusual_numbers(ours: list[Any], theirs: list[Any], figures: list[float]) -> None:
    found = differences({"w": np.array(ours), "none": np.zeros(0)}, {"w": np.array(theirs), "none": np.zeros(0)})
    assert found.names == ("w",)
    np.testing.assert_allclose([part[0] for part in found[1:]], figures)


@pytest.mark.parametrize(
    ("ours", "theirs", "text"),
    [
        ({"w": np.zeros(2)}, {"w": np.zeros(3)}, r"parity: w has shape \(2,\) in ours and \(3,\) in theirs"),
        ({"w": np.zeros(2)}, {}, "the pytrees differ in their leaves: ours has w"),
    ],
)
def test_trees_that_differ_are_named(ours: PyTree, theirs: PyTree, text: str) -> None:
    with pytest.raises(ValueError, match=text):
        differences(ours, theirs)


@pytest.mark.slow
def test_bad_input_is_named() -> None:
    adam = same("adam", 0.1)
    with pytest.raises(TypeError, match=r"pair: ours must be an optimizer with init and update, got 0\.1"):
        pair(0.1, optax.sgd(0.1))
    with pytest.raises(TypeError, match=r"pair: theirs must be .* Call the factory"):
        pair(optim.sgd(0.1), optax.sgd)
    with pytest.raises(TypeError, match=r"pair: no setting 'stpes' \(did you mean 'steps'\?\)"):
        pair(optim.sgd(0.1), optax.sgd(0.1), stpes=3)
    with pytest.raises(ValueError, match="pair: steps must be at least 1, got 0"):
        pair(optim.sgd(0.1), optax.sgd(0.1), steps=0)
    with pytest.raises(ValueError, match=r"gradients must be one of \('same', 'own'\), got 'both'"):
        measure(adam, "both")  # type: ignore[arg-type]
    with pytest.raises(
        TypeError, match=r"problem must be a Problem, such as problems.load\(\"digits-mlp\"\), got 'dig"
    ):
        measure(adam, problem="digits-mlp")  # type: ignore[arg-type]
    digits = problems.load("digits-mlp")
    with pytest.raises(ValueError, match=r"needs a pytree of matrices, but params/1/b has shape \(32,\)"):
        measure(dataclasses.replace(adam, matrices=True), problem=digits)
    with pytest.raises(ValueError, match="needs positive parameters, but params/1/b has others"):
        measure(dataclasses.replace(adam, positive=True), problem=digits)


@pytest.mark.slow
def test_a_rule_that_changes_the_shapes_of_its_state_is_named() -> None:
    growing = optim.Optimizer(lambda params: {"m": jnp.zeros(1)}, lambda g, s, p: (g, {"m": jnp.zeros(2)}))
    with pytest.raises(ValueError, match="must keep the structure and the shapes of its state"):
        measure(pair(growing, optax.sgd(0.1), steps=2))
