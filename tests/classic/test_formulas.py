"""Boolean formulas against Python's own operators, and what is said of those that are none."""

from __future__ import annotations

import re
from collections.abc import Callable

import hypothesis
import hypothesis.strategies as st
import numpy as np
import pytest

from jaxnn.classic import boolean, minimize, parity
from jaxnn.classic.formulas import Function, parse

TABLES = [
    ("AB' + A'B", "AB", [0, 1, 1, 0]),
    ("A ^ B", "AB", [0, 1, 1, 0]),
    ("A", "A", [0, 1]),
    ("A''", "A", [0, 1]),
    ("~~A'", "A", [1, 0]),
    ("NOT A AND B", "AB", [0, 1, 0, 0]),
    ("not (A or B)", "AB", [1, 0, 0, 0]),
    ("A XOR B AND B", "AB", [0, 1, 1, 0]),
    ("A + B ^ B", "AB", [0, 0, 1, 1]),
    ("(A + B)'", "AB", [1, 0, 0, 0]),
    ("~A'B", "AB", [0, 0, 0, 1]),
    ("A(B + 1)", "AB", [0, 0, 1, 1]),
    ("A 1 + 0", "A", [0, 1]),
    ("A & B | !A * !B", "AB", [1, 0, 0, 1]),
    ("B + A'", "AB", [1, 1, 0, 1]),
    ("b B", "Bb", [0, 0, 0, 1]),
    ("A NOTB", "ABNOT", None),
    ("ANDY", "ADNY", None),
    ("\N{NOT SIGN}A\N{LOGICAL AND}B\N{LOGICAL OR}C", "ABC", [0, 1, 1, 1, 0, 1, 0, 1]),
    ("A\N{MIDDLE DOT}B \N{CIRCLED PLUS} C\N{RIGHT SINGLE QUOTATION MARK}", "ABC", [1, 0, 1, 0, 1, 0, 0, 1]),
]


@pytest.mark.parametrize(("text", "names", "table"), TABLES)
def test_tables(text: str, names: str, table: list[int] | None) -> None:
    found = parse(text)
    assert "".join(found.names) == names
    assert found.table.dtype == bool
    if table is not None:
        np.testing.assert_array_equal(found.table, table)


def test_inputs_are_ordered_by_letter_and_number_or_as_named() -> None:
    assert parse("x10 x9 x_1 A").names == ("A", "x_1", "x9", "x10")
    np.testing.assert_array_equal(parse("A", names="BA").table, [0, 1, 0, 1])
    np.testing.assert_array_equal(parse("1", names="AB").table, [1, 1, 1, 1])
    words = parse("rain' wind + raincoat", names=["wind", "rain", "raincoat"])
    assert words.names == ("wind", "rain", "raincoat")
    bits = boolean.inputs(3).astype(bool)
    np.testing.assert_array_equal(words.table, (~bits[:, 1] & bits[:, 0]) | bits[:, 2])
    np.testing.assert_array_equal(parse("A1 + A", names=["A", "A1"]).table, [0, 1, 1, 1])


def test_several_formulas_have_the_same_inputs() -> None:
    adder = parse(["A ^ B ^ C", "AB + C(A + B)", "0"])
    assert adder.table.shape == (3, 8)
    bits = boolean.inputs(3).sum(1)
    np.testing.assert_array_equal(adder.table[0] + 2 * adder.table[1], bits)
    np.testing.assert_array_equal(adder.table[2], False)
    assert parse(["A"]).table.shape == (1, 2)
    assert boolean.parse is parse
    assert isinstance(adder, Function)


def expressions(depth: int = 4) -> st.SearchStrategy[tuple[str, str]]:
    """A formula, and the same in Python, its inputs a .. d as integers of 0 and 1."""
    leaf = st.sampled_from([*(("ABCD"[i], f"bits[:, {i}]") for i in range(4)), ("1", "one"), ("0", "(1 - one)")])

    def grown(inner: st.SearchStrategy[tuple[str, str]]) -> st.SearchStrategy[tuple[str, str]]:
        two = st.tuples(inner, inner)
        return st.one_of(
            inner.map(lambda e: (f"({e[0]})'", f"(1 - {e[1]})")),
            inner.map(lambda e: (f"~({e[0]})", f"(1 - {e[1]})")),
            inner.map(lambda e: (f"NOT ({e[0]})", f"(1 - {e[1]})")),
            two.map(lambda e: (f"({e[0][0]})({e[1][0]})", f"({e[0][1]} & {e[1][1]})")),
            two.map(lambda e: (f"({e[0][0]} & {e[1][0]})", f"({e[0][1]} & {e[1][1]})")),
            two.map(lambda e: (f"({e[0][0]} + {e[1][0]})", f"({e[0][1]} | {e[1][1]})")),
            two.map(lambda e: (f"({e[0][0]} XOR {e[1][0]})", f"({e[0][1]} ^ {e[1][1]})")),
        )

    return st.recursive(leaf, grown, max_leaves=12)


@hypothesis.given(expressions())
@hypothesis.settings(max_examples=60)
def test_formulas_equal_python(pair: tuple[str, str]) -> None:
    text, code = pair
    bits = boolean.inputs(4).astype(int)
    expected = eval(code, {"bits": bits, "one": np.ones(16, int)})
    np.testing.assert_array_equal(parse(text, names="ABCD").table, expected)


OPERATORS = {"+": 1, "^": 2, "&": 3, "": 3}


@hypothesis.given(st.lists(st.tuples(st.sampled_from(["", "~"]), st.sampled_from("ABCD"), st.sampled_from(["", "'"]),
                                     st.sampled_from(list(OPERATORS))), min_size=1, max_size=8))  # fmt: skip
@hypothesis.settings(max_examples=60)
def test_precedence_without_parentheses(parts: list[tuple[str, str, str, str]]) -> None:
    """AND of literals, XOR of these, OR of those: split at the loosest operator first."""
    bits = dict(zip("ABCD", boolean.inputs(4).T.astype(int), strict=True))

    def value(parts: list[tuple[str, str, str, str]]) -> np.ndarray:
        if len(parts) == 1:
            before, name, after, _ = parts[0]
            return bits[name] ^ (before == "~") ^ (after == "'")
        at = min(range(len(parts) - 1), key=lambda i: OPERATORS[parts[i][3]])
        left, right = value(parts[: at + 1]), value(parts[at + 1 :])
        return {"+": np.bitwise_or, "^": np.bitwise_xor}.get(parts[at][3], np.bitwise_and)(left, right)

    text = "".join("".join(part) for part in parts[:-1]) + "".join(parts[-1][:3])
    np.testing.assert_array_equal(parse(text, names="ABCD").table, value(parts))


@pytest.mark.parametrize("n", [1, 3, 5])
def test_what_minimize_writes_is_read_back(n: int) -> None:
    rng = np.random.default_rng(n)
    names = [f"x{i}" for i in range(n)]
    for share in (0.0, 0.3, 0.7, 1.0):
        table = rng.random(2**n) < share
        text = minimize.text(minimize.minimize(table), names)
        np.testing.assert_array_equal(parse(text, names=names).table, table)


def test_a_formula_of_a_network() -> None:
    network = boolean.minimized(parse("A'B'C + A'BC' + AB'C' + ABC").table)
    np.testing.assert_array_equal(boolean.truth_table(network, 3), parity.table(3))


def test_deep_and_long_formulas() -> None:
    np.testing.assert_array_equal(parse("(" * 5000 + "A" + ")" * 5000).table, [0, 1])
    np.testing.assert_array_equal(parse("~" * 5001 + "A").table, [1, 0])
    assert parse(" + ".join(f"x{i}" for i in range(16))).table.sum() == 2**16 - 1


BAD: list[tuple[str | list[str], dict[str, object], str]] = [
    ("A + )B", {}, 'expected an input, 0, 1, NOT or "(" at character 5 of "A + )B", got ")"'),
    ("A ++ B", {}, 'at character 4 of "A ++ B", got "+"'),
    ("'A", {}, 'at character 1 of "\'A", got "\'"'),
    ("A + ()", {}, 'at character 6 of "A + ()", got ")"'),
    ("A AND OR B", {}, 'at character 7 of "A AND OR B", got "OR"'),
    ("A +", {}, '"A +" ends where an input'),
    ("", {}, '"" ends where an input'),
    ("A NOT", {}, '"A NOT" ends where an input'),
    ("(A + (B)", {}, 'the "(" at character 1 of "(A + (B)" is not closed'),
    ("A) + B", {}, 'the ")" at character 2 of "A) + B" closes nothing'),
    ("A $ B", {}, "'$' at character 3 of \"A $ B\" is no sign of a formula. An input is one letter"),
    ("A 2", {}, "'2' at character 3"),
    ("A + 10", {}, "'1' at character 5 of \"A + 10\" is no sign of a formula. A constant stands apart"),
    ("A1", {"names": "A"}, "A constant stands apart"),
    ("AX", {"names": "AB"}, "'X' at character 2 of \"AX\" is no sign of a formula. The inputs are A, B."),
    ("1 + 0", {}, '"1 + 0" has no inputs. Name them, e.g. names="AB"'),
    ("A", {"names": ["A", "A"]}, "names must differ, got A, A"),
    ("A", {"names": ["A", "and"]}, "no operators, got 'and'"),
    ("A", {"names": ["A", "2x"]}, "got '2x'"),
    ("A", {"names": [""]}, "got ''"),
    ([], {}, "at least one formula"),
    (["A", "B +"], {}, '"B +" ends'),
    (" + ".join(f"x{i}" for i in range(21)), {}, "at most 20 inputs, got 21"),
    ("A" + " + A" * 40 + " +", {}, "... ends where".replace("...", '..."')),
]


@pytest.mark.parametrize(("text", "settings", "message"), BAD)
def test_what_is_wrong_is_said_with_its_place(text: str, settings: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=re.escape(message)):
        parse(text, **settings)  # type: ignore[arg-type]


@pytest.mark.parametrize("text", [3, ["A", None], [["A"]]])
def test_other_types_are_refused(text: object) -> None:
    with pytest.raises(TypeError, match="parse: expected text such as"):
        parse(text)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "broken",
    [lambda text: text.replace("+", "^"), lambda text: text.replace("'", ""), lambda text: text.replace("B)", "B) +")],
    ids=["operator", "prime", "one more"],
)
def test_other_formulas_are_told_apart(broken: Callable[[str], str]) -> None:
    text = "(A + B)(B' + C) + AB'"
    assert not np.array_equal(parse(broken(text), names="ABC").table, parse(text).table)
