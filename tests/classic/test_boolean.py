"""Every Boolean function of up to four inputs, and random ones of ten, minimised and not."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import hypothesis
import hypothesis.strategies as st
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxnn.classic import boolean
from jaxnn.classic.boolean import dnf, inputs, lookup_net, lookup_params, minimized, shared
from jaxnn.classic.minimize import minimize_together
from jaxnn.classic.threshold import Network
from jaxnn.types import Array, Params
from tests.classic.nets import run, widened
from tests.helpers import slow

TRUE_ROWS = {"sparse": 0.1, "even": 0.5, "dense": 0.9}


def all_tables(n: int) -> np.ndarray:
    """The truth tables of all 2^(2^n) functions of n inputs, one a row."""
    return ((np.arange(2 ** (2**n), dtype=np.uint32)[:, None] >> np.arange(2**n, dtype=np.uint32)) & 1).astype(bool)


@partial(jax.jit, static_argnums=0)
def all_outputs(make: Callable[[Array], Params], tables: Array) -> Array:
    n = (tables.shape[1] - 1).bit_length()
    net = lookup_net(n)
    return jax.vmap(lambda table: net.predict(make(table), (), jnp.asarray(inputs(n)))[:, 0])(tables)


def outputs(network: Network, n: int) -> np.ndarray:
    return run(widened(network, 2**n), inputs(n))


def wrong_order(table: Array) -> Params:
    """A mutant: the rows read from the other end."""
    return lookup_params(table[::-1])


def high_threshold(table: Array) -> Params:
    """A mutant: an output that takes two true rows at once."""
    *rest, output, end = lookup_params(table)
    return *rest, {**output, "b": output["b"] - 1}, end


@pytest.mark.parametrize("n", [3, *slow(1, 2, 4)])
def test_every_function_of_up_to_four_inputs(n: int) -> None:
    tables = all_tables(n)
    assert len(np.unique(tables, axis=0)) == 2 ** (2**n) == {1: 4, 2: 16, 3: 256, 4: 65536}[n]
    np.testing.assert_array_equal(np.asarray(all_outputs(lookup_params, tables)), tables)


@pytest.mark.parametrize("mutant", [wrong_order, high_threshold])
def test_a_broken_lookup_is_found(mutant: Callable[[Array], Params]) -> None:
    tables = all_tables(2)
    assert not np.array_equal(np.asarray(all_outputs(mutant, tables)), tables)


@pytest.mark.parametrize("make", [minimized, *slow(dnf)])
def test_every_function_of_three_inputs_by_its_own_net(make: Callable[..., Network]) -> None:
    for table in all_tables(3):
        network = make(table)
        np.testing.assert_array_equal(outputs(network, 3), table)
        assert network.units - 1 <= max(table.sum(), 1)


@pytest.mark.parametrize("share", ["even", *slow("sparse", "dense")])
def test_random_functions_of_ten_inputs(share: str) -> None:
    rng = np.random.default_rng(0)
    for _ in range(2):
        table = rng.random(1024) < TRUE_ROWS[share]
        full, small = dnf(table), minimized(table)
        np.testing.assert_array_equal(outputs(full, 10), table)
        np.testing.assert_array_equal(outputs(small, 10), table)
        assert full.units - 1 == table.sum()
        assert full.parameters == 12 * table.sum() + 1
        assert small.units < full.units


@pytest.mark.slow
@hypothesis.given(
    st.sampled_from([1, 2, 4, 6]).flatmap(lambda n: st.lists(st.booleans(), min_size=2**n, max_size=2**n))
)
def test_minimised_and_unminimised_agree(table: list[bool]) -> None:
    n = (len(table) - 1).bit_length()
    full, small = dnf(table), minimized(table)
    np.testing.assert_array_equal(outputs(full, n), table)
    np.testing.assert_array_equal(outputs(small, n), table)
    assert small.units <= full.units


def test_rows_that_do_not_matter_make_the_network_smaller() -> None:
    table, free = np.zeros(16, int), np.zeros(16, int)
    table[[8, 9]] = 1  # of a decimal digit: is it at least 8?
    free[10:] = 1
    network = minimized(table, free)
    assert network.units - 1 == 1 < minimized(table).units
    np.testing.assert_array_equal(outputs(network, 4)[:10], table[:10])
    assert np.count_nonzero(network.params[0]["w"]) == 1


def test_several_functions_share_hidden_units() -> None:
    adder = boolean.parse(["A ^ B ^ C", "AB + AC + BC", "ABC", "0", "1"])
    network = shared(adder.table)
    np.testing.assert_array_equal(np.asarray(network(inputs(3))) == 1, adder.table.T)
    terms = minimize_together(adder.table).terms
    assert network.units == len(terms) + 5
    assert len(terms) == 8  # four of parity, of which ABC is also the third function; three of majority; and 1
    constant = shared([[0, 0], [0, 0]])
    np.testing.assert_array_equal(constant([[0], [1]]), 0)
    assert constant.units == 3


@pytest.mark.parametrize("share", ["even", *slow("sparse", "dense")])
def test_random_functions_share_hidden_units(share: str) -> None:
    rng = np.random.default_rng(1)
    tables, free = rng.random((6, 128)) < TRUE_ROWS[share], rng.random((6, 128)) < 0.1
    network = shared(tables, free)
    outputs = np.asarray(network(inputs(7))) == 1
    np.testing.assert_array_equal(outputs.T[~free], tables[~free])
    assert network.units - 6 < sum(minimized(*each).units - 1 for each in zip(tables, free, strict=True))


def test_constants() -> None:
    for value in (False, True):
        for make in (dnf, minimized):
            np.testing.assert_array_equal(outputs(make([value] * 8), 3), value)
    assert minimized([1] * 8).units == 2
    assert dnf([1] * 8).units == 9


@pytest.mark.parametrize(
    ("call", "text"),
    [
        (lambda: dnf([0, 1, 1]), r"2\^n rows \(2\^n,\), got shape \(3,\)"),
        (lambda: dnf([[0, 1]]), r"got shape \(1, 2\)"),
        (lambda: dnf([0, 2]), r"holds 0 and 1 \(or booleans\), got \[0, 2\]"),
        (lambda: lookup_params(np.zeros(5)), r"got shape \(5,\)"),
        (lambda: minimized([0, 1], [0, 1, 1, 1]), r"dont_care must have the table's shape \(2,\), got \(4,\)"),
        (lambda: boolean.inputs(0), "n must be at least 1"),
    ],
)
def test_bad_input_is_named(call: Callable[[], object], text: str) -> None:
    with pytest.raises(ValueError, match=text):
        call()
