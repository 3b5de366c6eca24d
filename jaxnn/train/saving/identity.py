"""What makes two runs the same: a short text for each of network, optimizer, loss, data, batches and seed."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import jax
import numpy as np

from jaxnn.data import Draws
from jaxnn.layers import Layer
from jaxnn.train.saving.descriptions import array_text, described, digest, picked
from jaxnn.types import Key, PyTree

__all__ = ["described", "differences", "fingerprint", "identity"]

LONGEST, SHOWN = 10_000, 200
"""Characters of a text in a checkpoint, and of its part in a message."""


def identity(
    net: Layer,
    loss: Any,
    opt: Any,
    train: PyTree,
    key: Key,
    *,
    batch_size: int,
    partial: Any,
    others: Mapping[str, Any],
) -> dict[str, str]:
    """A text for each part of a run, equal in every process that makes the same run.

    The body of a function is not read: one of the same name may have changed. What else tells functions and objects
    apart, see `described`; and data, see `fingerprint`.
    """
    named = {name: described(value) for name, value in others.items() if value is not None}
    parts = {"network": described(net), "loss": described(loss)}
    if "gradient" in named:  # it holds other parts: what differs in one of them is told once
        for name, text in (parts | {"regularizer": named.get("regularizer", "")}).items():
            named["gradient"] = named["gradient"].replace(text, f"the {name}") if text else named["gradient"]
    texts = {
        **parts,
        "optimizer": described(opt),
        "data": fingerprint(train),
        "batch size": str(batch_size),
        "partial": str(getattr(partial, "value", partial)),
        "seed": f"{jax.random.key_impl(key)} {np.asarray(jax.random.key_data(key)).tolist()}",
        **named,
    }
    return {name: _bounded(text) for name, text in texts.items()}


def differences(saved: Mapping[str, str], now: Mapping[str, str]) -> list[str]:
    """A sentence for each part in which two runs differ."""
    none = "nothing"
    pairs = {
        name: (saved.get(name, none), now.get(name, none))
        for name in [*saved, *(name for name in now if name not in saved)]
    }
    return [_difference(name, *pair) for name, pair in pairs.items() if pair[0] != pair[1]]


def _difference(name: str, saved: str, now: str) -> str:
    """Both texts; of long ones the beginning, and what is near the first difference."""
    same = next((i for i, (a, b) in enumerate(zip(saved, now, strict=False)) if a != b), min(len(saved), len(now)))
    head, start = SHOWN // 4, same - SHOWN // 4
    if start > head and max(len(saved), len(now)) > SHOWN:
        saved, now = (f"{text[:head]}...{text[start:]}" for text in (saved, now))
    return f"{name}: saved {_short(saved)}, now {_short(now)}"


def _short(text: str) -> str:
    return text if len(text) <= SHOWN else f"{text[: SHOWN - 3]}..."


def _bounded(text: str) -> str:
    return text if len(text) <= LONGEST else f"{text[:LONGEST]}... {digest(text.encode())}"


def fingerprint(source: Any) -> str:
    """A text for training data.

    | data | text |
    |---|---|
    | what has `fingerprint()` | what that returns |
    | an object with `rows(indices)` and `len` | its length, and dtypes, shapes and a digest of at most 64 rows |
    | arrays, or an object with `x` and `y` | dtypes, shapes and a digest of at most 64 rows of each |
    | a stream: a function, an iterable | as `described`: a name, closure or attributes |

    Changes elsewhere than in the rows that are read, in the body of a function or in what iterators draw from are not
    seen. An iterable whose attributes change while it is read, such as a counter, is another one then: give it a
    `fingerprint()`.
    """
    own = getattr(source, "fingerprint", None)
    if callable(own):
        return str(own())
    if hasattr(source, "rows") and hasattr(source, "__len__"):  # as `source_of` decides
        return _of_rows(source)
    if isinstance(source, Draws):
        return f"{described(source.draw)} of {fingerprint(source.arrays)}, {source.steps} batches"
    if hasattr(source, "x") and hasattr(source, "y"):
        return _of_leaves((source.x, source.y))
    if hasattr(source, "shape") or isinstance(source, tuple | list | dict):
        return _of_leaves(source)
    return described(source)


def _of_leaves(arrays: PyTree) -> str:
    def is_leaf(part: Any) -> bool:
        return isinstance(part, Draws) or _is_nested_list(part)

    return ", ".join(map(_of_leaf, jax.tree.leaves(arrays, is_leaf=is_leaf))) or "nothing"


def _of_leaf(leaf: Any) -> str:
    if isinstance(leaf, Draws):
        return fingerprint(leaf)
    return array_text(leaf) if hasattr(leaf, "shape") or _is_nested_list(leaf) else described(leaf)


def _is_nested_list(value: Any) -> bool:
    """Whether this is an array as lists of numbers, or of lists of them."""
    if not isinstance(value, list):
        return False
    while isinstance(value, list) and value:
        value = value[0]
    return isinstance(value, int | float | complex)


def _of_rows(source: Any) -> str:
    """Of a source of rows, some of them; without a digest where they differ each time that they are read."""
    n = len(source)
    if not n:
        return "0 rows"
    first, second = (_of_batch(source.rows(picked(n)), n) for _ in range(2))
    if first == second:
        return ", ".join(first)
    return ", ".join(text.rpartition(" ")[0] for text in first)


def _of_batch(batch: Any, n: int) -> Iterable[str]:
    return [array_text(leaf, n) for leaf in jax.tree.leaves(batch)]
