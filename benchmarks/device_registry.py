"""The registry of the programs that are compiled for accelerators: names, builders, rivals.

    @program("mlp variance", rivals=("mlp variance by vmap(grad)",))
    def _() -> Case:
        return Case(function, arguments)

A builder is called only when its program is wanted. Its arguments are shapes (`jax.ShapeDtypeStruct`): nothing is
computed to compile it.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

TARGETS = ("cuda", "tpu")
F32, BF16, I32 = jnp.float32, jnp.bfloat16, jnp.int32


class Case(NamedTuple):
    """A function with the shapes of its arguments, and how to compile it."""

    function: Callable[..., Any]
    args: tuple[Any, ...]
    carries: bool = False
    """Whether its first argument is donated and its first result takes the place of it, as in a training step."""
    mesh: Mapping[str, int] | None = None
    in_shardings: Any = None

    @property
    def options(self) -> dict[str, Any]:
        """Keywords for `tests.devices.hlo.compiled`."""
        placed = {} if self.mesh is None else {"mesh": self.mesh, "in_shardings": self.in_shardings}
        return placed | ({"donate_argnums": 0} if self.carries else {})


@dataclasses.dataclass(frozen=True)
class Program:
    name: str
    build: Callable[[], Case]
    rivals: tuple[str, ...] = ()
    """Other programs for the same purpose, the first the closest; a program without any is itself a rival."""
    quick: tuple[str, ...] = TARGETS
    """The targets for which the tests compile it too; what takes half a minute is left to the benchmark."""


PROGRAMS: dict[str, Program] = {}
"""By name, the most important first."""


def program(name: str, **options: Any) -> Callable[[Callable[[], Case]], Callable[[], Case]]:
    """Add a program; the decorated function builds it.

    Raises:
        ValueError: there is one of that name.
    """

    def add(build: Callable[[], Case]) -> Callable[[], Case]:
        if name in PROGRAMS:
            raise ValueError(f"there are two programs of the name {name!r}")
        PROGRAMS[name] = Program(name, functools.cache(build), **options)
        return build

    return add


def with_rivals(names: list[str]) -> list[str]:
    """These programs and their rivals, each once."""
    return list(dict.fromkeys(n for name in names for n in (name, *PROGRAMS[name].rivals)))


def shaped(shape: tuple[int, ...], dtype: Any = F32) -> jax.ShapeDtypeStruct:
    return jax.ShapeDtypeStruct(shape, dtype)
