"""Quine-McCluskey against its definitions, by brute force, and against sympy."""

from __future__ import annotations

import itertools
import math
from typing import Any

import hypothesis
import hypothesis.strategies as st
import numpy as np
import pytest

from jaxnn.classic import parity
from jaxnn.classic.boolean import dnf, inputs, minimized
from jaxnn.classic.formulas import parse
from jaxnn.classic.minimize import covers, minimize, minimize_exactly, minimize_together, prime_implicants, text
from tests.classic.test_boolean import all_tables

tables = st.integers(1, 7).flatmap(lambda n: st.lists(st.booleans(), min_size=2**n, max_size=2**n)).map(np.array)


def true_at(term: tuple[int, ...], row: np.ndarray) -> bool:
    return all(sign == 0 or (sign == 1) == bool(bit) for sign, bit in zip(term, row, strict=True))


def primes_by_definition(table: np.ndarray) -> set[tuple[int, ...]]:
    rows = inputs((len(table) - 1).bit_length())
    terms = list(itertools.product((-1, 0, 1), repeat=rows.shape[1]))
    implicants = [t for t in terms if all(value or not true_at(t, row) for row, value in zip(rows, table, strict=True))]
    found = set(implicants)
    return {t for t in implicants if not any(s and (*t[:i], 0, *t[i + 1 :]) in found for i, s in enumerate(t))}


def least_by_trial(table: np.ndarray) -> int:
    """The size of the smallest set of prime implicants that covers the function."""
    primes = sorted(primes_by_definition(table))
    rows = inputs((len(table) - 1).bit_length())[table]
    for size in range(len(primes) + 1):
        for chosen in itertools.combinations(primes, size):
            if all(any(true_at(t, row) for t in chosen) for row in rows):
                return size
    raise AssertionError("the primes do not cover the function")


def assert_minimal(table: np.ndarray, terms: np.ndarray) -> None:
    """The terms are true exactly where the table is; each is prime, and none can be left out."""
    cover = covers(terms, inputs((len(table) - 1).bit_length()))
    np.testing.assert_array_equal(cover.any(0), table)
    times = cover.sum(0)
    for term in cover:
        assert (times[term] == 1).any(), "a term is redundant"
    primes = {tuple(t) for t in prime_implicants(table).tolist()}
    assert {tuple(t) for t in terms.tolist()} <= primes


def test_prime_implicants_of_every_function_of_three_inputs() -> None:
    for table in all_tables(3):
        assert {tuple(t) for t in prime_implicants(table).tolist()} == primes_by_definition(table)


def test_every_eighth_function_of_three_inputs_gets_the_fewest_terms() -> None:
    for table in all_tables(3)[::8]:
        exact = minimize_exactly(table)
        assert_minimal(table, exact)
        assert len(exact) == least_by_trial(table)
        assert len(exact) <= len(minimize(table)) <= table.sum()


@hypothesis.given(tables)
def test_minimised_is_equal_prime_and_irredundant(table: np.ndarray) -> None:
    assert_minimal(table, minimize(table))


@hypothesis.given(st.lists(st.sampled_from("01-"), min_size=32, max_size=32))
def test_rows_that_do_not_matter(cells: list[str]) -> None:
    table, free = (np.array([cell == mark for cell in cells]) for mark in "1-")
    for terms in (minimize(table, free), minimize_exactly(table, free)):
        outputs = covers(terms, inputs(5)).any(0)
        np.testing.assert_array_equal(outputs[~free], table[~free])
        assert len(terms) <= len(minimize(table))


@pytest.mark.parametrize(
    "broken",
    [
        lambda terms: terms[1:],
        lambda terms: np.concatenate([terms, terms[:1]]),
        lambda terms: -terms,
        lambda terms: np.concatenate([terms, [[1, 1, 1, 1]]]),
    ],
    ids=["a term lost", "a term twice", "signs", "a term that is not prime"],
)
def test_broken_terms_are_found(broken) -> None:  # type: ignore[no-untyped-def]
    table = np.isin(np.arange(16), [0, 1, 2, 5, 6, 7, 8, 9, 10, 14, 15])
    assert_minimal(table, minimize(table))
    with pytest.raises(AssertionError):
        assert_minimal(table, broken(minimize(table)))


def test_known_numbers_of_prime_implicants() -> None:
    for n in (3, 5, 7):
        majority = inputs(n).sum(1) > n / 2
        assert len(prime_implicants(majority)) == len(minimize(majority)) == math.comb(n, (n + 1) // 2)
        assert len(prime_implicants(parity.table(n))) == 2 ** (n - 1)


def test_greedy_may_need_more_terms_than_the_fewest() -> None:
    """Over the functions of four inputs drawn here the difference is real, and small."""
    rng = np.random.default_rng(1)
    drawn = rng.random((60, 32)) < 0.5
    greedy, exact = (sum(len(method(table)) for table in drawn) for method in (minimize, minimize_exactly))
    assert exact < greedy < 1.05 * exact


@pytest.mark.slow
def test_every_function_of_four_inputs() -> None:
    rows = inputs(4)
    for table in all_tables(4):
        terms = minimize(table)
        np.testing.assert_array_equal(covers(terms, rows).any(0), table)
        assert len(terms) <= table.sum()


@pytest.mark.slow
def test_no_more_terms_than_sympy() -> None:
    logic = pytest.importorskip("sympy.logic", reason="sympy, an oracle for minimisation, is not installed")
    symbols = pytest.importorskip("sympy").symbols("a:5")
    rng = np.random.default_rng(2)
    for _ in range(20):
        table = rng.random(32) < 0.5
        form = logic.SOPform(symbols, [row.astype(int).tolist() for row in inputs(5)[table]])
        theirs = len(form.args) if form.func.__name__ == "Or" else 1
        assert len(minimize_exactly(table)) <= theirs


def primes_of_products(tables: np.ndarray) -> set[tuple[int, ...]]:
    """Terms that are prime implicants of the AND of some of the functions, by definition."""
    chosen = itertools.product((False, True), repeat=len(tables))
    return set().union(*(primes_by_definition(tables[list(some)].all(0)) for some in chosen if any(some)))


def least_shared_by_trial(tables: np.ndarray) -> int:
    """The size of the smallest set of terms of which each function is an OR."""
    rows = inputs((tables.shape[1] - 1).bit_length())
    terms = np.array(sorted(primes_of_products(tables))).reshape(-1, rows.shape[1])
    cover = covers(terms, rows)
    serves = ~(cover[:, None] & ~tables).any(-1)
    for size in range(len(terms) + 1):
        for some in itertools.combinations(range(len(terms)), size):
            pick = list(some)
            if ((cover[pick][:, None] & serves[pick][..., None]).any(0) == tables).all():
                return size
    raise AssertionError("the terms do not cover the functions")


def assert_shared(tables: np.ndarray, free: np.ndarray, terms: np.ndarray, uses: np.ndarray) -> None:
    """Each function is the OR of the terms that it uses; no use, and no term, can be left out."""
    cover = covers(terms, inputs((tables.shape[1] - 1).bit_length()))
    assert len(np.unique(terms, axis=0)) == len(terms)
    assert uses.shape == (len(tables), len(terms))
    assert uses.any(0).all(), "a term without use"
    for table, either, used in zip(tables, free, uses, strict=True):
        outputs = cover[used].any(0)
        np.testing.assert_array_equal(outputs[~either], table[~either])
        for term in np.flatnonzero(used):
            rest = used & (np.arange(len(terms)) != term)
            assert (outputs & table & ~either & ~cover[rest].any(0)).any(), "a use is redundant"


@pytest.mark.parametrize("exactly", [False, True])
def test_functions_that_share_terms(exactly: bool) -> None:
    rng = np.random.default_rng(0)
    for n, count in ((1, 1), (2, 3), (3, 2), (4, 5), (5, 3)):
        tables, free = rng.random((count, 2**n)) < 0.5, rng.random((count, 2**n)) < 0.2
        for either in (free, np.zeros_like(free)):
            terms, uses = minimize_together(tables, either, exactly=exactly)
            assert_shared(tables, either, terms, uses)
            apart = sum(len(minimize_exactly(*each)) for each in zip(tables, either, strict=True))
            assert len(terms) <= apart or not exactly


def test_the_fewest_shared_terms_against_all_sets() -> None:
    rng = np.random.default_rng(3)
    for tables in rng.random((12, 2, 8)) < 0.5:
        exact = minimize_together(tables, exactly=True)
        assert len(exact.terms) == least_shared_by_trial(tables)
        assert {tuple(term) for term in exact.terms.tolist()} <= primes_of_products(tables)
        assert len(minimize_together(tables).terms) >= len(exact.terms)


def test_a_term_that_is_not_prime_for_one_function_serves_it_and_another() -> None:
    tables = np.array([[0, 0, 0, 0, 0, 1, 1, 0], [0, 0, 0, 1, 0, 1, 0, 1]], bool)  # AB'C + ABC', and AC + BC
    terms, uses = minimize_together(tables, exactly=True)
    shared = terms[uses.all(0)]
    assert shared.tolist() == [[1, -1, 1]], "AB'C"
    assert [1, -1, 1] not in prime_implicants(tables[1]).tolist()
    assert len(terms) == 3 < len(minimize_exactly(tables[0])) + len(minimize_exactly(tables[1]))


def test_one_function_shares_with_itself() -> None:
    for table in all_tables(3)[1::7]:
        terms, uses = minimize_together(table[None])
        np.testing.assert_array_equal(terms, minimize(table))
        assert uses.all()


@pytest.mark.parametrize(
    "broken",
    [
        lambda terms, uses: (terms, uses[::-1]),
        lambda terms, uses: (terms, uses | True),
        lambda terms, uses: (-terms, uses),
    ],
    ids=["functions exchanged", "all terms used", "signs"],
)
def test_broken_sharing_is_found(broken) -> None:  # type: ignore[no-untyped-def]
    tables = np.array([[0, 0, 0, 0, 0, 1, 1, 0], [0, 0, 0, 1, 0, 1, 0, 1]], bool)
    free = np.zeros_like(tables)
    found = minimize_together(tables)
    assert_shared(tables, free, *found)
    with pytest.raises(AssertionError):
        assert_shared(tables, free, *broken(*found))


@pytest.mark.parametrize(
    ("tables", "free", "message"),
    [
        ([0, 1], None, r"\(K, 2\^n\), K >= 1, got shape \(2,\)"),
        (np.zeros((0, 4)), None, r"got shape \(0, 4\)"),
        ([[0, 1, 1]], None, r"tables: a truth table of n inputs has 2\^n rows"),
        ([[0, 1, 2, 0]], None, r"holds 0 and 1 \(or booleans\), got \[0, 1, 2\]"),
        ([[0, 1]], [[0, 1], [0, 1]], r"the shape of tables, \(1, 2\), got \(2, 2\)"),
    ],
)
def test_tables_that_do_not_fit_together_are_refused(tables: object, free: object, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        minimize_together(tables, free)  # type: ignore[arg-type]


@pytest.mark.parametrize("given", ["AB", parse("AB")])
@pytest.mark.parametrize("make", [minimize, dnf, minimized])
def test_a_formula_is_no_table(make: Any, given: Any) -> None:
    with pytest.raises(TypeError, match=r"expected a truth table .* Pass boolean.parse\(formula\).table"):
        make(given)


def test_text() -> None:
    assert text(np.array([[1, -1, 0], [0, 0, 1]])) == "AB' + C"
    assert text(np.array([[1, -1, 0], [0, 0, 1]]), ["rain", "wind", "sun"]) == "rain wind' + sun"
    assert text(np.array([[1, -1]]), ["x", "y"]) == "xy'"


def test_too_many_inputs_are_refused() -> None:
    with pytest.raises(ValueError, match="one per input, 3, got 1"):
        text(np.ones((1, 3)), ["p"])
    with pytest.raises(ValueError, match="one per input, 27, got 26"):
        text(np.ones((1, 27)))
    with pytest.raises(ValueError, match="at most 14 inputs, got 15"):
        prime_implicants(np.zeros(2**15, bool))
