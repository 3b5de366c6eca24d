"""Compiled programs that are kept from call to call."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import ParamSpec, TypeVar

P = ParamSpec("P")
T = TypeVar("T")


def memoized(make: Callable[P, T]) -> Callable[P, T]:
    """A decorator of functions that make compiled programs: the 16 used last are kept, and reused for equal arguments.

    Arguments are structures of optimizers, settings, and functions by their identity: as by `jax.jit`, a function that
    reads a changed global is not traced again. With an argument that cannot be hashed a program is made each time.
    """
    known = functools.lru_cache(maxsize=16)(make)

    @functools.wraps(make)
    def memoized(*args: P.args, **kwargs: P.kwargs) -> T:
        try:
            hash((args, *kwargs.values()))
        except TypeError:
            return make(*args, **kwargs)
        return known(*args, **kwargs)  # type: ignore[arg-type] # hashable, as was just seen

    return memoized
