"""Specs of optimizers: rule and flags, apart from the numbers.

An optimizer stays a pair of functions. A table, with `update` as the key, holds the arguments of its factory in two
parts: a hashable structure, the key of a compiled program, and a pytree of numbers, the inputs of that program.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from typing import Any, NamedTuple, ParamSpec
from weakref import WeakKeyDictionary

import jax
import numpy as np

from jaxnn.optim.base import Optimizer
from jaxnn.types import PyTree

P = ParamSpec("P")


class Structure(NamedTuple):
    """An optimizer without its numbers: hashable, and equal for optimizers that differ only in these.

    Attributes:
        rule: the factory.
        arguments: `jax.tree.structure` of the tuple of its arguments, in the order of its signature.
        leaves: of that pytree, each a `Number`, a `Structure` or a `Fixed`.
    """

    rule: Callable[..., Any]
    arguments: Any
    leaves: tuple[Any, ...]


class Number(NamedTuple):
    """Marks the place of one number."""


class Fixed:
    """An argument compared by value (flag, count, name, dtype or 0) or by identity (function, foreign optimizer)."""

    def __init__(self, value: Any) -> None:
        self.value = value
        by_value = isinstance(value, bool | int | float | complex | str | bytes | np.dtype | np.bool_ | type)
        self._key = (type(value), value) if by_value else (object, id(value))

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Fixed) and self._key == other._key

    def __hash__(self) -> int:
        return hash(self._key)

    def __repr__(self) -> str:
        return getattr(self.value, "__name__", None) or repr(self.value)


Numbers = tuple[Any, ...]
"""For each `Number` of a structure a real number or array, for each nested `Structure` its own tuple of numbers."""

_SPECS: WeakKeyDictionary[Callable[..., Any], tuple[Structure, Numbers]] = WeakKeyDictionary()


def specified(factory: Callable[P, Optimizer]) -> Callable[P, Optimizer]:
    """Decorator of factories whose optimizers `spec` knows.

    Numbers are numeric arguments annotated as `Scalar` or `ScalarOrSchedule`, and all arrays but bools. A Python 0
    stays in the structure, because it decides what is computed: `adam(b1=0.0)` keeps no mean.
    """
    signature = inspect.signature(factory)
    scalars = {name for name, p in signature.parameters.items() if "Scalar" in str(p.annotation)}

    @functools.wraps(factory)
    def make(*args: P.args, **kwargs: P.kwargs) -> Optimizer:
        opt = factory(*args, **kwargs)
        bound = signature.bind(*args, **kwargs)
        bound.apply_defaults()
        given = jax.tree.leaves(bound.arguments, is_leaf=_is_transformation)
        # A combinator may return its argument, whose spec is that of its own factory.
        if not any(_is_transformation(leaf) and leaf.update is opt.update for leaf in given):
            _SPECS[opt.update] = _parted(make, bound.arguments, scalars)
        return opt

    return make


def _parted(rule: Callable[..., Any], arguments: dict[str, Any], scalars: set[str]) -> tuple[Structure, Numbers]:
    names = list(arguments)
    paths, structure = jax.tree_util.tree_flatten_with_path(tuple(arguments.values()), is_leaf=_is_transformation)
    leaves: list[Any] = []
    numbers: list[Any] = []
    for path, leaf in paths:
        known = spec(leaf) if _is_transformation(leaf) else None
        if known is not None:
            leaves.append(known[0])
            numbers.append(known[1])
        elif _is_number(leaf, names[path[0].idx] in scalars):
            leaves.append(Number())
            numbers.append(leaf)
        else:
            leaves.append(Fixed(leaf))
    return Structure(rule, structure, tuple(leaves)), tuple(numbers)


def spec(opt: Any) -> tuple[Structure, Numbers] | None:
    """(structure, numbers) of an optimizer; None unless a factory decorated with `specified` made it.

    Functions, schedules and foreign transformations among the arguments are compared by identity.

    Args:
        opt: an optimizer.

    Returns:
        structure: hashable; factory, flags, counts and Python zeros.
        numbers: pytree of learning rate, decays, eps ...; leaves are Python numbers or arrays.

    Example:
        >>> from jaxnn import optim
        >>> one, other = optim.adam(1e-3), optim.adam(1e-2, b1=0.8)
        >>> spec(one)[0] == spec(other)[0], spec(one)[0] == spec(optim.adam(1e-3, b1=0.0))[0]
        (True, False)
        >>> spec(other)[1]
        (0.01, 0.8, 0.999, 1e-08)
    """
    try:
        return _SPECS.get(opt.update)
    except (AttributeError, TypeError):  # no optimizer, or an update that has no weak reference
        return None


def parted(opt: Any) -> tuple[Structure | Fixed, Numbers]:
    """`spec`, or the identity and no numbers for an optimizer without one; `build` inverts both."""
    return spec(opt) or (Fixed(opt), ())


def build(structure: Structure | Fixed, numbers: Numbers) -> Any:
    """The optimizer of that structure and these numbers, which may be traced.

    Args:
        structure, numbers: as returned by `spec`; other numbers of the same pytree structure are allowed.

    Raises:
        ValueError: the wrong number of numbers.

    Example:
        >>> from jaxnn import optim
        >>> structure, numbers = spec(optim.sgd(0.1))
        >>> build(structure, (0.5,)).update(np.ones(1, np.float32), optim.sgd(0.1).init(np.zeros(1, np.float32)))[0]
        Array([-0.5], dtype=float32)
    """
    if isinstance(structure, Fixed):
        return structure.value
    wanted = sum(not isinstance(leaf, Fixed) for leaf in structure.leaves)
    if len(numbers) != wanted:
        raise ValueError(
            f"build: {structure.rule.__name__} has {wanted} numbers, got {len(numbers)}. Pass those of spec(opt), "
            "changed or not."
        )
    given = iter(numbers)
    leaves = [
        leaf.value if isinstance(leaf, Fixed)
        else build(leaf, next(given)) if isinstance(leaf, Structure)
        else next(given)
        for leaf in structure.leaves
    ]  # fmt: skip
    signature = inspect.signature(structure.rule)
    arguments = dict(zip(signature.parameters, jax.tree.unflatten(structure.arguments, leaves), strict=True))
    bound = inspect.BoundArguments(signature, arguments)
    return structure.rule(*bound.args, **bound.kwargs)


def describe(opt: Any) -> str:
    """An optimizer as the call of its factory, without arguments that equal their defaults.

    Example:
        >>> from jaxnn import optim
        >>> print(describe(optim.chain(optim.clip(1.0), optim.adam(1e-3, nesterov=True))))
        chain(links=(clip(max_delta=1.0), adam(learning_rate=0.001, nesterov=True)))
    """
    known = spec(opt)
    return repr(opt) if known is None else _call(*known)


def _call(structure: Structure, numbers: Numbers) -> str:
    given = iter(numbers)
    leaves = [
        _Text(repr(leaf)) if isinstance(leaf, Fixed)
        else _Text(_call(leaf, next(given))) if isinstance(leaf, Structure)
        else _Text(repr(next(given)))
        for leaf in structure.leaves
    ]  # fmt: skip
    arguments: PyTree = jax.tree.unflatten(structure.arguments, leaves)
    parameters = inspect.signature(structure.rule).parameters.values()
    shown = [
        f"{parameter.name}={value!r}"
        for parameter, value in zip(parameters, arguments, strict=True)
        if repr(value) != repr(parameter.default)
    ]
    return f"{structure.rule.__name__}({', '.join(shown)})"


class _Text(str):
    """A text whose repr has no quotes."""

    def __repr__(self) -> str:
        return str(self)


def _is_transformation(x: Any) -> bool:
    return isinstance(x, tuple) and hasattr(x, "init") and hasattr(x, "update")


def _is_number(x: Any, scalar: bool) -> bool:
    if isinstance(x, jax.Array | np.ndarray | np.generic):
        return x.dtype != bool and x.dtype != object
    return scalar and isinstance(x, int | float) and not isinstance(x, bool) and x != 0
