"""Gates: every row of their truth tables, in both codes."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import jax
import numpy as np
import pytest

from jaxnn.classic import gates
from jaxnn.classic.boolean import inputs, truth_table
from jaxnn.classic.threshold import Network, bipolar
from tests.classic.nets import run
from tests.helpers import slow, strict

GATES: dict[str, tuple[Callable[[], Network], int, Callable[..., np.ndarray]]] = {
    "AND": (gates.and_, 2, lambda x: x.all(1)),
    "AND of 3": (partial(gates.and_, 3), 3, lambda x: x.all(1)),
    "AND of 1": (partial(gates.and_, 1), 1, lambda x: x[:, 0]),
    "OR": (gates.or_, 2, lambda x: x.any(1)),
    "OR of 3": (partial(gates.or_, 3), 3, lambda x: x.any(1)),
    "NOT": (gates.not_, 1, lambda x: ~x[:, 0]),
    "NAND": (gates.nand, 2, lambda x: ~x.all(1)),
    "NAND of 3": (partial(gates.nand, 3), 3, lambda x: ~x.all(1)),
    "XOR": (gates.xor, 2, lambda x: x[:, 0] ^ x[:, 1]),
    "AB + CD": (
        lambda: gates.or_of_ands([[1, 1, 0, 0], [0, 0, 1, 1]]),
        4,
        lambda x: (x[:, 0] & x[:, 1]) | (x[:, 2] & x[:, 3]),
    ),
    "A'B + C": (
        lambda: gates.or_of_ands([[-1, 1, 0], [0, 0, 1]]),
        3,
        lambda x: (~x[:, 0] & x[:, 1]) | x[:, 2],
    ),
    "a term of nothing": (lambda: gates.or_of_ands([[0, 0]]), 2, lambda x: np.ones(4, bool)),
    "no term": (lambda: gates.or_of_ands(np.zeros((0, 2), int)), 2, lambda x: np.zeros(4, bool)),
}


def assert_is(network: Network, n: int, function: Callable[[np.ndarray], np.ndarray]) -> None:
    """The network puts out exactly what the function says for all 2^n inputs, and so does its twin on -1 and +1."""
    bits = inputs(n)
    expected = function(bits.astype(bool)).astype(float)
    with strict():
        np.testing.assert_array_equal(run(network, bits), expected)
        np.testing.assert_array_equal(run(bipolar(network), 2 * bits - 1), 2 * expected - 1)


ALIKE = ("AND of 3", "AND of 1", "OR of 3", "NAND of 3", "A'B + C")


@pytest.mark.parametrize("name", [*(name for name in GATES if name not in ALIKE), *slow(*ALIKE)])
def test_gate(name: str) -> None:
    make, n, function = GATES[name]
    assert_is(make(), n, function)


@pytest.mark.parametrize("name", ["AND", "OR", "NOT", "NAND", "XOR"])
@pytest.mark.parametrize("broken", ["bias", "weight", "sign"])
def test_a_broken_gate_is_found(name: str, broken: str) -> None:
    make, n, function = GATES[name]
    net, (first, *rest) = make()
    first = {
        "bias": {**first, "b": first["b"] + 1},
        "weight": {**first, "w": first["w"].at[0].set(0)},
        "sign": jax.tree.map(lambda p: -p, first),
    }[broken]
    with pytest.raises(AssertionError):
        assert_is(Network(net, (first, *rest)), n, function)


def test_sizes() -> None:
    assert gates.and_().units == gates.nand(7).units == 1
    assert (gates.xor().units, gates.xor().layers, gates.xor().parameters) == (3, 2, 9)
    assert truth_table(gates.xor(), 2).tolist() == [False, True, True, False]


def test_no_sum_meets_its_threshold() -> None:
    """The convention of the step at 0 can then make no difference, and a steep sigmoid is near the step."""
    for make, n, _ in GATES.values():
        x = np.asarray(inputs(n), float)
        for p in make().params:
            if p:
                z = x @ np.asarray(p["w"], float) + np.asarray(p["b"], float)
                assert np.abs(z).min() >= 0.5
                x = (z >= 0).astype(float)


@pytest.mark.parametrize(
    ("call", "text"),
    [
        (lambda: gates.and_(0), "inputs must be at least 1"),
        (lambda: gates.unit([[1.0]], 0.0), r"one row \(D,\).* got shape \(1, 1\)"),
        (lambda: gates.unit([1, 2], [0, 1]), "bias must be a real number"),
        (lambda: gates.unit([1, np.nan], 0), "must be finite"),
        (lambda: gates.xor()([0, 1]), r"inputs \(N, D\), got shape \(2,\)"),
        (lambda: gates.or_of_ands([[2, 0]]), r"of 1 \(the input\), -1 .* got \[\[2, 0\]\]"),
        (lambda: gates.or_of_ands([1, 0]), r"terms must be rows \(T, D\)"),
    ],
)
def test_bad_input_is_named(call: Callable[[], object], text: str) -> None:
    with pytest.raises((ValueError, TypeError), match=text):
        call()
