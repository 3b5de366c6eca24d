"""Names of optimizers and grids of learning rates, read and refused."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import numpy as np
import optax
import pytest
from hypothesis import given
from hypothesis import strategies as st

from jaxnn import optim
from jaxnn.compare.entries import Entry, entries, entry, grid, rules


def first_update(opt: Any) -> np.ndarray:
    params = np.float32([[1, 2], [3, -4]])

    @jax.jit
    def second(params: Any) -> Any:
        updates, state = opt.update(params, opt.init(params), params)
        return opt.update(params, state, params + updates)[0]

    return np.asarray(second(params))


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("adam", optim.adam(0.1)),
        (" sgd:momentum=0.9:nesterov=True ", optim.sgd(0.1, momentum=0.9, nesterov=True)),
        ("optax:adamw:weight_decay=1e-2", optax.adamw(0.1, weight_decay=1e-2)),
        ("optax:lion", optax.lion(0.1)),
        ("optax:prodigy", optax.contrib.prodigy(0.1)),
    ],
)
def test_a_name_with_settings_makes_that_optimizer(text: str, expected: Any) -> None:
    found = entry(text)
    assert found.name == text.strip()
    np.testing.assert_allclose(first_update(found.make(0.1)), first_update(expected), rtol=1e-6)


@pytest.mark.filterwarnings("ignore:`optimistic_adam` is deprecated")
def test_every_rule_that_is_offered_can_be_made() -> None:
    params = {"w": np.ones((3, 2), np.float32), "b": np.ones(2, np.float32)}
    for library, least in (("ours", 45), ("optax", 30)):
        names = rules(library)
        assert len(names) >= least
        for name, rule in names.items():
            if name != "noisy_sgd":  # warns that no key was given
                assert jax.eval_shape(rule(learning_rate=np.float32(0.1)).init, params) is not None, name


def test_entries_of_ones_own_pass_through() -> None:
    mine = Entry("mine", lambda rate: optim.sgd(rate))
    assert entries([mine, "adam"])[0] is mine
    assert [e.name for e in entries("adam, lion,")] == ["adam", "lion"]


@pytest.mark.parametrize(
    ("call", "text"),
    [
        (lambda: entry("adma"), r"no optimizer 'adma' \(did you mean .*'adam'.*\?\); there are: "),
        (lambda: entry("optax:admaw"), r"no optimizer 'optax:admaw' \(did you mean .*'adamw'"),
        (lambda: entry("optax"), "no optimizer 'optax'"),
        (lambda: entry("scale_by_adam"), "no optimizer"),
        (lambda: entry("sgd:momentun=0.9"), r"no setting 'momentun' \(did you mean 'momentum'\?\); sgd has: momentum"),
        (lambda: entry("sgd:0.9"), "settings read name=value, such as momentum=0.9, got '0.9'"),
        (lambda: entry("sgd:momentum=__import__('os')"), "settings read name=value"),
        (lambda: entry(3), "a name or an Entry"),  # type: ignore[arg-type]
        (lambda: Entry("x", 3), "make must be a function"),  # type: ignore[arg-type]
        (lambda: entries(""), "expected at least one of optimizers"),
        (lambda: entries("adam,lion,adam"), "must differ, got adam more than once"),
        (lambda: grid(""), "learning rates must be finite numbers > 0"),
        (lambda: grid([]), "learning rates must be finite numbers > 0"),
        (lambda: grid("log:1e-3:1"), "got 'log:1e-3:1'"),
        (lambda: grid("log:0:1:3"), "must be finite numbers > 0"),
        (lambda: grid("0.1,-1"), "must be finite numbers > 0"),
        (lambda: grid("0.1,nan"), "must be finite numbers > 0"),
        (lambda: grid("much"), "must be finite numbers > 0"),
    ],
)
def test_bad_names_and_grids_are_named(call: Callable[[], Any], text: str) -> None:
    with pytest.raises((ValueError, TypeError), match=text):
        call()


@given(st.lists(st.floats(1e-8, 1e3), min_size=1, max_size=9))
def test_a_grid_rises_and_holds_each_rate_once(rates: list[float]) -> None:
    found = grid(rates)
    assert (np.diff(found) > 0).all()
    assert set(found.tolist()) == set(rates)
    np.testing.assert_array_equal(grid(",".join(map(repr, rates))), found)


def test_a_grid_by_its_ends_is_logarithmic() -> None:
    np.testing.assert_allclose(grid("log:1e-4:1:13"), 10.0 ** np.linspace(-4, 0, 13))
