"""Tokens of single characters or bytes: a text as integers, and back."""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Mapping
from typing import Any

import numpy as np

from jaxnn.checks import as_numpy, require_integer
from jaxnn.types import ArrayLike


@dataclasses.dataclass(frozen=True)
class Characters:
    """Each character of a text as one token: its place among the symbols.

    Attributes:
        symbols: V different characters; `characters(text)` makes those of a text.

    Raises:
        TypeError: symbols is not a tuple of strings.
        ValueError: there is no symbol, one is not a single character, or one stands there twice.

    Example:
        >>> tokens = Characters(("a", "b", " ")).encode("b a")
        >>> tokens, Characters(("a", "b", " ")).decode(tokens)
        (array([1, 2, 0], dtype=int32), 'b a')
    """

    symbols: tuple[str, ...]

    def __post_init__(self) -> None:
        if not isinstance(self.symbols, tuple) or not all(isinstance(symbol, str) for symbol in self.symbols):
            raise TypeError(f"Characters: symbols must be a tuple of strings, got {self.symbols!r}. Pass tuple(text).")
        if not self.symbols:
            raise ValueError("Characters: there must be at least 1 symbol, got none.")
        for symbol, count in Counter(self.symbols).items():
            if len(symbol) != 1:
                raise ValueError(f"Characters: each symbol must be one character, got {symbol!r}.")
            if count > 1:
                raise ValueError(f"Characters: the symbols must differ, got {symbol!r} {count} times.")

    @property
    def size(self) -> int:
        """The number of different tokens, V."""
        return len(self.symbols)

    def encode(self, text: str) -> np.ndarray:
        """The tokens of a text, (L,) int32 in 0 .. V - 1, one for each character.

        Raises:
            TypeError: text is not a string.
            ValueError: a character is not among the symbols.
        """
        _require_text("Characters.encode", text)
        codes, known = _codes(text), _codes("".join(self.symbols))
        order = np.argsort(known)
        # A code beyond the largest known one would be placed after the last.
        places = order[np.minimum(np.searchsorted(known[order], codes), self.size - 1)]
        if (wrong := np.flatnonzero(known[places] != codes)).size:
            at = int(wrong[0])
            raise ValueError(
                f"Characters.encode: {text[at]!r} at position {at} is not among the {self.size} symbols. Make them "
                "from all texts, characters(text), or replace it."
            )
        return places.astype(np.int32)

    def decode(self, tokens: ArrayLike) -> str:
        """The text of some tokens (L,).

        Raises:
            TypeError: the tokens are not integers.
            ValueError: they have more than one axis, or one lies outside 0 .. V - 1.
        """
        return "".join(self.symbols[token] for token in _tokens("Characters.decode", tokens, self.size).tolist())

    def as_json(self) -> dict[str, Any]:
        """A value for JSON, from which `from_json` makes the same symbols."""
        return {"kind": "characters", "symbols": "".join(self.symbols)}


@dataclasses.dataclass(frozen=True)
class Bytes:
    """Each byte of a text in UTF-8 as one token, 0 .. 255: no text is outside; `BYTES` is the one instance needed.

    Example:
        >>> BYTES.encode("é!"), BYTES.decode([195, 169, 33])
        (array([195, 169,  33], dtype=int32), 'é!')
    """

    @property
    def size(self) -> int:
        """The number of different tokens, 256."""
        return 256

    def encode(self, text: str) -> np.ndarray:
        """The bytes of a text in UTF-8, (L,) int32.

        Raises:
            TypeError: text is not a string.
            ValueError: UTF-8 cannot represent a character, half of a surrogate pair.
        """
        _require_text("BYTES.encode", text)
        return np.frombuffer(text.encode(), np.uint8).astype(np.int32)

    def decode(self, tokens: ArrayLike) -> str:
        """The text of some tokens (L,); bytes that are not UTF-8, such as half a character, become U+FFFD.

        Raises:
            TypeError: the tokens are not integers.
            ValueError: they have more than one axis, or one lies outside 0 .. 255.
        """
        return _tokens("BYTES.decode", tokens, self.size).astype(np.uint8).tobytes().decode(errors="replace")

    def as_json(self) -> dict[str, Any]:
        """A value for JSON, from which `from_json` makes `BYTES`."""
        return {"kind": "bytes"}


BYTES = Bytes()
"""The 256 bytes of UTF-8 as tokens."""


def characters(text: str) -> Characters:
    """The different characters of a text, in the order of their code points, as tokens.

    Args:
        text: at least one character; those of the validation part too, or `encode` raises there.

    Raises:
        TypeError: text is not a string.
        ValueError: text is empty.

    Example:
        >>> characters("hello").symbols
        ('e', 'h', 'l', 'o')
    """
    _require_text("characters", text)
    return Characters(tuple(sorted(set(text))))


def from_json(value: Any) -> Characters | Bytes:
    """The `Characters` or `BYTES` whose `as_json()` the value is, after any trip through a JSON file.

    Raises:
        ValueError: it is no such value.

    Example:
        >>> from_json(characters("hello").as_json()) == characters("hello"), from_json(BYTES.as_json()) == BYTES
        (True, True)
    """
    kind = value.get("kind") if isinstance(value, Mapping) else None
    if kind == "bytes":
        return BYTES
    if kind == "characters" and isinstance(value.get("symbols"), str):
        return Characters(tuple(value["symbols"]))
    raise ValueError(f"from_json: expected what as_json of characters(text) or BYTES returns, got {value!r:.80}.")


def _codes(text: str) -> np.ndarray:
    """The code points of a text."""
    return np.frombuffer(text.encode("utf-32-le", "surrogatepass"), "<u4")


def _require_text(where: str, text: Any) -> None:
    if not isinstance(text, str):
        raise TypeError(f"{where}: text must be a string, got {type(text).__name__}.")


def _tokens(where: str, tokens: ArrayLike, size: int) -> np.ndarray:
    """The tokens as a NumPy array (L,); raises unless they are integers in 0 .. size - 1."""
    array = as_numpy(where, "tokens", tokens)
    if not array.size and array.ndim == 1:
        return np.zeros(0, np.int32)  # NumPy's [] is floating
    require_integer(where, "tokens", array.dtype)
    if array.ndim != 1:
        raise ValueError(f"{where}: tokens must have one axis (L,), got shape {array.shape}. Decode rows one by one.")
    if (wrong := np.flatnonzero((array < 0) | (array >= size))).size:
        at = int(wrong[0])
        raise ValueError(f"{where}: tokens must lie in 0 .. {size - 1}, got {array[at]} at position {at}.")
    return array
