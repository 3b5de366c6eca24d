"""Examples drawn at random in the compiled epoch, instead of a data set that is permuted."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any, TypeAlias

import jax

from jaxnn.checks import require_function, require_key, require_leading_axis, require_positive_int
from jaxnn.types import Key, PyTree

Draw: TypeAlias = Callable[[Key, PyTree, int], tuple[PyTree, PyTree]]
"""(key, arrays, n) -> (x, y), n examples: arrays (n, ...) or pytrees of them."""


@dataclasses.dataclass(frozen=True, eq=False)
class Draws:
    """A stream of training examples, for `train.fit` and its parts in place of (x, y): every batch is drawn anew.

    `draw(key, arrays, n)` returns n examples (x, y). It is a pure function of its arguments, called under `jax.jit`
    inside the scan over the steps of an epoch, with another key for each batch: the same key gives the same examples,
    different keys independent ones. n is the batch size. What it needs from outside comes from `arrays`; arrays in its
    closure would be constants of the compiled program. On a mesh it may shard what it returns.

    A Draws is a pytree with `arrays` as its children. Compiled programs are kept by `draw`, compared by `==` and hash:
    a function by its identity, so define it once; one with settings is best a frozen dataclass with `__call__`.

    Attributes:
        arrays: pytree of arrays on the device, such as the tokens of a corpus; () if the examples are made up.
        draw: as above, hashable.
        steps: batches of one epoch, >= 1.

    Raises:
        TypeError: draw is not a function, or is not hashable; steps is not an int.
        ValueError: steps < 1.

    Example:
        >>> def sums(key, arrays, n):  # an endless stream: two numbers, and their sum
        ...     x = jax.random.uniform(key, (n, 2))
        ...     return x, x.sum(axis=1, keepdims=True)
        >>> x, y = Draws((), sums, steps=100).batch(jax.random.key(0), 8)
        >>> x.shape, y.shape
        ((8, 2), (8, 1))
    """

    arrays: PyTree
    draw: Draw
    steps: int

    def __post_init__(self) -> None:
        require_function("Draws", "draw", self.draw, "lambda key, arrays, n: (x, y)", optional=False)
        require_positive_int("Draws", "steps", self.steps)
        try:
            hash(self.draw)
        except TypeError as error:
            raise TypeError(f"Draws: draw must be hashable, got {self.draw!r} ({error}). Freeze it.") from None

    def batch(self, key: Key, n: int) -> tuple[PyTree, PyTree]:
        """n examples (x, y), checked.

        Raises:
            TypeError: the key is not a typed key, or draw does not return a pair.
            ValueError: n < 1, or draw returns arrays of another number of examples.
        """
        require_key("Draws.batch", key)
        n = require_positive_int("Draws.batch", "n", n)
        found: Any = self.draw(key, self.arrays, n)
        if not isinstance(found, tuple) or len(found) != 2:
            raise TypeError(f"Draws: draw must return the pair (x, y), got {jax.tree.structure(found)}.")
        if (size := require_leading_axis("Draws", "x and y of draw", found)) != n:
            raise ValueError(f"Draws: draw must return as many examples as asked for, {n}, got {size}.")
        return found


jax.tree_util.register_dataclass(Draws, data_fields=["arrays"], meta_fields=["draw", "steps"])
