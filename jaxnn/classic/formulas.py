"""Boolean formulas as truth tables: a tokenizer, and an evaluation of all rows at once by operator precedence.

| operation | written | binds |
|---|---|---|
| NOT | `A'` after an operand; `~A`, `!A`, `NOT A` before it | most tightly |
| AND | `AB` (nothing between), `A & B`, `A * B`, `A AND B` | |
| XOR | `A ^ B`, `A XOR B` | |
| OR | `A + B`, `A OR B`, or a vertical bar | least tightly |
| constants | `0`, `1` | |

The words are in capitals or in small letters. The signs of mathematical print are understood too.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

MOST_INPUTS = 20
"""The largest number of inputs: a truth table has 2^20 rows."""

SIGNS = {
    **dict.fromkeys("+|\N{LOGICAL OR}", "or"),
    **dict.fromkeys("^\N{CIRCLED PLUS}", "xor"),
    **dict.fromkeys("&*\N{MIDDLE DOT}\N{LOGICAL AND}", "and"),
    **dict.fromkeys("~!\N{NOT SIGN}", "not"),
    **dict.fromkeys("'\N{RIGHT SINGLE QUOTATION MARK}\N{PRIME}", "prime"),
    "(": "open",
    ")": "close",
    "0": "constant",
    "1": "constant",
}
"""The kind of token of each sign."""

BINDING = {"or": 1, "xor": 2, "and": 3, "not": 4}
"""How tightly an operator binds."""

WORD = r"(?<![A-Za-z])(?:NOT|AND|OR|XOR|not|and|or|xor)(?![A-Za-z0-9_])"

ONE_LETTER = r"[A-Za-z](?:_?[0-9]{1,9}(?![0-9]))?"
"""An input without a list of names: a letter, perhaps with a number, such as A, x1, X_12."""


class Token(NamedTuple):
    """A piece of a formula: its kind, its text, and the index of its first character."""

    kind: str
    text: str
    at: int


class Function(NamedTuple):
    """Boolean functions of named inputs.

    Attributes:
        names: of the n inputs, in the order of the bits of a row, the highest first.
        table: (2^n,) bool, in the order of `boolean.inputs`; (K, 2^n) for K formulas.
    """

    names: tuple[str, ...]
    table: np.ndarray


def parse(text: str | Sequence[str], names: Sequence[str] | None = None) -> Function:
    """The truth table of a Boolean formula, or of several with the same inputs.

    Args:
        text: a formula such as "AB' + A'B", "~(x1 ^ x2) & x3" or "A AND NOT B", see `jaxnn.classic.formulas`; or a
            sequence of K formulas.
        names: of the inputs, in the order of the bits; a string is a sequence of letters. None for the inputs that
            occur, in alphabetical order (x2 before x10): each is then one letter, perhaps with a number. With a list,
            names may be words, such as ["rain", "wind"], and inputs that do not occur count too.

    Returns:
        Function: names and table. `minimize.minimize(table)` gives terms, `minimize.text(terms, names)` writes them.

    Raises:
        ValueError: not a formula, with the position of what is wrong; an input that is not among the names; no input,
            or more than 20; names that are equal, or not words.
        TypeError: not text.

    Example:
        >>> parse("AB' + A'B").table.astype(int)
        array([0, 1, 1, 0])
        >>> adder = parse(["A ^ B ^ C", "AB + C(A + B)"])  # sum and carry
        >>> adder.names, adder.table.shape
        (('A', 'B', 'C'), (2, 8))
        >>> parse("A + )B")
        Traceback (most recent call last):
        ValueError: parse: expected an input, 0, 1, NOT or "(" at character 5 of "A + )B", got ")".
    """
    several = hasattr(text, "__iter__") and not isinstance(text, str)
    formulas: list[Any] = list(text) if several else [text]
    if not all(isinstance(formula, str) for formula in formulas):
        raise TypeError(f"parse: expected text such as \"AB' + A'B\", or a list of such formulas, got {text!r}.")
    if not formulas:
        raise ValueError("parse: expected at least one formula, got an empty list.")
    known = None if names is None else _checked(names)
    tokens = [_tokens(formula, known) for formula in formulas]
    found = {token.text for each in tokens for token in each if token.kind == "input"}
    inputs = tuple(sorted(found, key=_natural)) if known is None else known
    if len(inputs) > MOST_INPUTS:
        raise ValueError(f"parse: at most {MOST_INPUTS} inputs, got {len(inputs)}: a table has 2^{MOST_INPUTS} rows.")
    size = 2 ** len(inputs)
    bits = (np.arange(size)[:, None] >> np.arange(len(inputs))[::-1]) & 1
    columns = dict(zip(inputs, bits.astype(bool).T, strict=True))
    tables = [_evaluated(each, columns, size, formula) for each, formula in zip(tokens, formulas, strict=True)]
    if not inputs:  # after the evaluation, which finds what is wrong with the formulas themselves
        raise ValueError(f'parse: "{_short(formulas[0])}" has no inputs. Name them, e.g. names="AB".')
    return Function(inputs, tables[0] if isinstance(text, str) else np.stack(tables))


def _checked(names: Sequence[str]) -> tuple[str, ...]:
    """The names as a tuple, if each is a word and none occurs twice."""
    if not hasattr(names, "__iter__"):
        raise TypeError(f"parse: names must be a sequence of words, got {names!r}.")
    names = tuple(names)
    for name in names:
        if not isinstance(name, str) or not re.fullmatch(r"[A-Za-z_]\w*", name) or re.fullmatch(WORD, name):
            raise ValueError(f"parse: names must be words of letters, digits and _, and no operators, got {name!r}.")
    if len(set(names)) < len(names):
        raise ValueError(f"parse: names must differ, got {', '.join(names)}.")
    return names


def _tokens(text: str, names: tuple[str, ...] | None) -> list[Token]:
    """The tokens of a formula, without white space."""
    longest_first = sorted(names or (), key=len, reverse=True)
    name = ONE_LETTER if names is None else "|".join(map(re.escape, longest_first)) or "(?!)"
    pattern = re.compile(rf"\s+|(?P<word>{WORD})|(?P<input>{name})|(?P<constant>(?<![A-Za-z0-9_])[01](?![0-9]))")
    tokens: list[Token] = []
    at = 0
    while at < len(text):
        found = pattern.match(text, at)
        piece = found[0] if found else text[at]
        kind = found.lastgroup if found else None if piece in "01" else SIGNS.get(piece)
        if kind == "word":
            kind = piece.lower()
        if found is None and kind is None:
            raise ValueError(f"parse: {piece!r} {_place(text, at)} is no sign of a formula{_known(piece, names)}.")
        if kind:
            tokens.append(Token(kind, piece, at))
        at += len(piece)
    return tokens


def _evaluated(tokens: list[Token], columns: dict[str, np.ndarray], size: int, text: str) -> np.ndarray:
    """The table of a formula: operators wait on a stack for their right operand and for operators that bind tighter."""
    values: list[np.ndarray] = []
    waiting: list[Token] = []

    def apply_while(least: int) -> None:
        while waiting and BINDING.get(waiting[-1].kind, 0) >= least:
            kind, right = waiting.pop().kind, values.pop()
            values.append(~right if kind == "not" else _combined(kind, values.pop(), right))

    complete = False  # whether an operand has just ended, so that an operator may follow
    for token in tokens:
        starts = token.kind in ("input", "constant", "not", "open")
        if complete and starts:  # nothing between two operands: AND
            apply_while(BINDING["and"])
            waiting.append(Token("and", "", token.at))
            complete = False
        if not complete and not starts:
            raise ValueError(
                f'parse: expected an input, 0, 1, NOT or "(" {_place(text, token.at)}, got "{token.text}".'
            )
        if token.kind == "input":
            values.append(columns[token.text])
        elif token.kind == "constant":
            values.append(np.full(size, token.text == "1"))
        elif token.kind == "prime":
            values[-1] = ~values[-1]
        elif token.kind == "close":
            apply_while(1)
            if not waiting:
                raise ValueError(f'parse: the ")" {_place(text, token.at)} closes nothing.')
            waiting.pop()
        else:
            if not starts:
                apply_while(BINDING[token.kind])
            waiting.append(token)
        complete = token.kind in ("input", "constant", "prime", "close")
    if not complete:
        raise ValueError(f'parse: "{_short(text)}" ends where an input, 0, 1, NOT or "(" is expected.')
    apply_while(1)
    if waiting:
        raise ValueError(f'parse: the "(" {_place(text, waiting[-1].at)} is not closed.')
    return values[0]


def _combined(kind: str, left: np.ndarray, right: np.ndarray) -> np.ndarray:
    return np.asarray({"and": np.logical_and, "or": np.logical_or, "xor": np.logical_xor}[kind](left, right))


def _natural(name: str) -> tuple[str, int]:
    """The letter and the number of a name, so that x2 comes before x10."""
    return name[0], int(name[1:].lstrip("_") or -1)


def _place(text: str, at: int) -> str:
    """Where a character is, counted from 1."""
    return f'at character {at + 1} of "{_short(text)}"'


def _short(text: str, most: int = 60) -> str:
    return text if len(text) <= most else f"{text[: most - 3]}..."


def _known(piece: str, names: tuple[str, ...] | None) -> str:
    """What the inputs are, in front of the full stop."""
    if piece in "01":
        return '. A constant stands apart from names and digits, as in "A 1"'
    if names is None:
        return ". An input is one letter, perhaps with a number, such as A or x1; pass names=[...] for words"
    return f". The inputs are {', '.join(names)}"
