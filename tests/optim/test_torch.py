"""Rules that torch.optim has too, over the table of `benchmarks.torch_parity`, which must catch broken ones."""

from __future__ import annotations

import importlib.util

import pytest

from benchmarks.torch_parity import CASES, measure_torch
from tests.optim.mutants import CAUGHT, Mutant, mutated

# No importorskip here: tests.optim.mutants imports every test file.
pytestmark = pytest.mark.skipif(importlib.util.find_spec("torch") is None, reason="torch is not installed")

TOLERANCE = 1e-12
EQUAL = [name for name, case in CASES.items() if not case.restored_by]
DIFFERENT = [name for name, case in CASES.items() if case.restored_by]
BROKEN: list[Mutant] = [
    ("sgd", "sgd: momentum", "kept = g + cast_like(decay, g) * kept", "kept = 0.5 * g + cast_like(decay, g) * kept"),
    ("sgd", "sgd: nesterov", "(g + cast_like(decay, g) * kept if nesterov", "(kept if nesterov"),
    ("adam", "adam", "mu_hat = mu / cast_like(c1, nu)", "mu_hat = mu"),
    ("adam", "adamw", "safe_sqrt(nu_hat + cast_like(eps_root, nu)) + cast_like(eps, nu)",
     "safe_sqrt(nu_hat + cast_like(eps, nu))"),
    ("adam", "nadam: constant momentum", "d1 * mu / cast_like(next_c1, nu)", "d1 * mu / cast_like(c1, nu)"),
    ("radam", "radam: eps before the correction", "jnp.maximum(cast_like(threshold, nu), 4)",
     "jnp.maximum(threshold, 6)"),
    ("adam_variants", "adamax", "jnp.abs(g) + cast_like(eps, nu)", "0.99 * jnp.abs(g)"),
    ("adagrad", "adagrad: no eps", "fill=initial_accumulator_value", "fill=0.0"),
    ("adadelta", "adadelta", "jnp.sqrt(e_x + e)", "(jnp.sqrt(e_x) + e)"),
    ("rmsprop", "rmsprop: centered", "power - abs_sq(mu / weight)", "power"),
    ("rprop", "rprop", "jnp.where(s < 0, jnp.zeros_like(g), step * jnp.sign(g))", "step * jnp.sign(g)"),
    ("averages", "asgd", "jnp.maximum(count - start, 1)", "jnp.maximum(count - start + 1, 1)"),
    ("factored", "adafactor: rows", "jnp.maximum(_rms(p), 1e-3)", "jnp.maximum(_rms(p), 1.0)"),
]  # fmt: skip
"""(module, case, text in its source, text that breaks it)."""


@pytest.mark.slow
@pytest.mark.parametrize("name", EQUAL)
def test_equals_torch_in_parameters_and_state(name: str) -> None:
    found = measure_torch(CASES[name])
    assert found.largest <= TOLERANCE, found


@pytest.mark.slow
@pytest.mark.parametrize("name", DIFFERENT)
def test_differs_from_torch_as_said_and_names_what_restores_equality(name: str) -> None:
    case = CASES[name]
    assert case.differs
    assert case.restored_by in EQUAL
    assert CASES[case.restored_by].rule == case.rule
    assert measure_torch(case).largest > CAUGHT


def test_compares_state_too() -> None:
    """Each case names fields of both states; the three left out have none that correspond or share another's."""
    without = {name for name in EQUAL if not CASES[name].fields}
    assert without <= {"sgd", "asgd", "radam: decoupled decay"}


@pytest.mark.slow
@pytest.mark.parametrize("mutant", BROKEN, ids=lambda mutant: f"{mutant[1]}: {mutant[3]}")
def test_catches_a_broken_rule(mutant: Mutant) -> None:
    module, case, old, new = mutant
    assert measure_torch(CASES[case], mutated(module, old, new)).largest > CAUGHT


@pytest.mark.slow
def test_every_rule_of_torch_is_in_the_table() -> None:
    """A rule that torch gains fails here until it is compared or named as left out."""
    torch = pytest.importorskip("torch")
    # LBFGS takes several steps inside one call, from a closure; tests/optim/test_lbfgs.py has its algorithm.
    left_out = {"Optimizer", "SparseAdam", "LBFGS"}
    rules = {
        name
        for name, value in vars(torch.optim).items()
        if isinstance(value, type) and issubclass(value, torch.optim.Optimizer)
    }
    assert rules - left_out <= {case.rule for case in CASES.values()}
