"""Characters and bytes as tokens: round trips, what lies outside, and the way through JSON."""

from __future__ import annotations

import json
from typing import Any

import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from jaxnn.data import text
from jaxnn.data.text import BYTES, Bytes, Characters


@given(st.text(st.characters(exclude_categories=[]), min_size=1), st.randoms())
def test_a_text_comes_back_from_its_characters_in_any_order(sample: str, random: Any) -> None:
    shuffled = sorted(set(sample))
    random.shuffle(shuffled)
    for symbols in (text.characters(sample), Characters(tuple(shuffled))):
        tokens = symbols.encode(sample)
        assert (tokens.shape, tokens.dtype) == ((len(sample),), np.int32)
        assert tokens.tolist() == [symbols.symbols.index(character) for character in sample]
        assert symbols.decode(tokens) == sample
        assert text.from_json(json.loads(json.dumps(symbols.as_json()))) == symbols


@given(st.text())
def test_a_text_comes_back_from_its_bytes(sample: str) -> None:
    tokens = BYTES.encode(sample)
    assert (tokens.dtype, tokens.tolist()) == (np.int32, list(sample.encode()))
    assert BYTES.decode(tokens) == sample


def test_symbols_are_in_the_order_of_code_points_and_hash() -> None:
    found = text.characters("bé\nab")
    assert found.symbols == ("\n", "a", "b", "é")
    assert (found.size, BYTES.size) == (4, 256)
    assert {found: 1, BYTES: 2}[text.characters("ab\né")] == 1


def test_half_a_character_is_replaced() -> None:
    assert BYTES.decode(BYTES.encode("aé")[:2]) == "a\ufffd"


def test_tokens_of_the_device_and_none_are_decoded() -> None:
    assert text.characters("ab").decode(jnp.array([1, 0], jnp.int32)) == "ba"
    for symbols in (text.characters("ab"), BYTES):
        assert symbols.decode([]) == ""
        assert symbols.encode("").shape == (0,)


def test_json_tells_the_characters_of_a_word_from_the_word() -> None:
    """A kind of its own: the symbols b, y, t, e, s are no bytes."""
    symbols = Characters(tuple("bytes"))
    assert text.from_json(symbols.as_json()) == symbols
    assert isinstance(text.from_json(BYTES.as_json()), Bytes)


BAD: list[tuple[type[Exception], str, Any]] = [
    (ValueError, r"'z' at position 2 is not among the 2 symbols", lambda: text.characters("ab").encode("abz")),
    (ValueError, r"'A' at position 0 is not among the 2 symbols", lambda: text.characters("ab").encode("A")),
    (TypeError, "text must be a string, got bytes", lambda: text.characters(b"ab")),
    (TypeError, "text must be a string, got list", lambda: BYTES.encode(["a"])),
    (ValueError, "at least 1 symbol, got none", lambda: text.characters("")),
    (ValueError, "must differ, got 'a' 2 times", lambda: Characters(("a", "b", "a"))),
    (ValueError, "must be one character, got 'ab'", lambda: Characters(("ab",))),
    (TypeError, "must be a tuple of strings, got 'ab'", lambda: Characters("ab")),
    (ValueError, r"must lie in 0 .. 1, got 2 at position 1", lambda: text.characters("ab").decode([0, 2])),
    (ValueError, r"must lie in 0 .. 255, got -1 at position 0", lambda: BYTES.decode([-1])),
    (ValueError, r"one axis \(L,\), got shape \(1, 2\)", lambda: BYTES.decode([[1, 2]])),
    (TypeError, "tokens must have an integer dtype, got float64", lambda: BYTES.decode([0.5])),
    (ValueError, "expected what as_json", lambda: text.from_json({"kind": "words"})),
    (ValueError, "expected what as_json", lambda: text.from_json({"kind": "characters"})),
    (ValueError, "expected what as_json", lambda: text.from_json("bytes")),
]


@pytest.mark.parametrize(("error", "told", "call"), BAD)
def test_what_is_no_token_is_named(error: type[Exception], told: str, call: Any) -> None:
    with pytest.raises(error, match=told):
        call()
