"""Specs of optimizers: rule and flags, apart from the numbers.

An optimizer stays a pair of functions. A table, with `update` as the key, holds the arguments of the factory in two
parts: a hashable structure, the key of a compiled program, and a pytree of numbers, the inputs of that program.
"""

from __future__ import annotations

import functools
import inspect
import weakref
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple, ParamSpec, TypeAlias
from weakref import WeakKeyDictionary

import jax
import numpy as np

from jaxnn.optim.base import Optimizer, Transformation
from jaxnn.optim.scalars import is_zero

P = ParamSpec("P")


class Structure(NamedTuple):
    """An optimizer without its numbers: hashable, and equal for optimizers that differ only in these.

    Attributes:
        rule: the factory.
        arguments: `jax.tree.structure` of the tuple of its arguments, in the order of its signature.
        names: of the leaves of these arguments, with their path: "learning_rate", "betas[0]", "links[1]".
        leaves: `Number`, a `Structure`, or `Fixed`.
    """

    rule: Callable[..., Any]
    arguments: Any
    names: tuple[str, ...]
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


Numbers: TypeAlias = dict[str, Any]
"""By the names of a structure: for each `Number` a real number or array, for each `Structure` its own numbers."""

_SPECS: WeakKeyDictionary[Callable[..., Any], tuple[weakref.ref[Any], Structure, Numbers]] = WeakKeyDictionary()
"""By `update`: the `init` that goes with it, and the spec."""


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
            _SPECS[opt.update] = (weakref.ref(opt.init), *_parted(make, bound.arguments, scalars))
        return opt

    return make


def _parted(rule: Callable[..., Any], arguments: dict[str, Any], scalars: set[str]) -> tuple[Structure, Numbers]:
    given = list(arguments)
    paths, structure = jax.tree_util.tree_flatten_with_path(tuple(arguments.values()), is_leaf=_is_transformation)
    names = tuple(given[path[0].idx] + jax.tree_util.keystr(path[1:]) for path, _ in paths)
    leaves: list[Any] = []
    numbers: Numbers = {}
    for name, (path, leaf) in zip(names, paths, strict=True):
        known = spec(leaf) if _is_transformation(leaf) else None
        if known is not None:
            leaves.append(known[0])
            numbers[name] = known[1]
        elif _is_number(leaf, given[path[0].idx] in scalars):
            leaves.append(Number())
            numbers[name] = float(leaf) if isinstance(leaf, int) else leaf  # 1 and 1.0 are inputs of one program
        else:
            leaves.append(Fixed(leaf))
    return Structure(rule, structure, names, tuple(leaves)), numbers


def spec(opt: Transformation) -> tuple[Structure, Numbers] | None:
    """(structure, numbers) of an optimizer; None unless a factory decorated with `specified` made it.

    Functions, schedules and foreign transformations among the arguments are compared by identity: make them once, and
    equal optimizers of them have equal structures. What `inject_hyperparams` makes, an `Optimizer` of your own, and one
    whose init or update you have replaced have no spec.

    Args:
        opt: an optimizer.

    Returns:
        structure: hashable; factory, flags, counts and Python zeros.
        numbers: learning rate, decays, eps ... by name, Python numbers or arrays; for an optimizer among the arguments,
            its own numbers.

    Example:
        >>> from jaxnn import optim
        >>> one, other = optim.adam(1e-3), optim.adam(1e-2, b1=0.8)
        >>> spec(one)[0] == spec(other)[0], spec(one)[0] == spec(optim.adam(1e-3, b1=0.0))[0]
        (True, False)
        >>> spec(other)[1]
        {'learning_rate': 0.01, 'b1': 0.8, 'b2': 0.999, 'eps': 1e-08}
    """
    try:
        init, structure, numbers = _SPECS[opt.update]
    except (AttributeError, TypeError, KeyError):  # no optimizer, no weak reference to its update, or not ours
        return None
    return (structure, numbers) if opt.init is init() else None


def parted(opt: Any) -> tuple[Structure | Fixed, Numbers]:
    """`spec(opt)`, or (`Fixed(opt)`, {}) for an optimizer without one; `build` inverts both."""
    return spec(opt) or (Fixed(opt), {})


def build(structure: Structure | Fixed, numbers: Numbers) -> Transformation:
    """The optimizer of that structure and these numbers, which may be traced.

    A Python 0 among the numbers is a number here: the moment that it would leave out is kept.

    Args:
        structure, numbers: as returned by `spec`; the numbers may be replaced by others of the same names.

    Raises:
        TypeError: no structure, or no dict of numbers.
        ValueError: numbers of other names.

    Example:
        >>> from jaxnn import optim
        >>> structure, numbers = spec(optim.chain(optim.clip(1.0), optim.sgd(0.1)))
        >>> numbers["links[1]"]["learning_rate"] = 0.5
        >>> describe(build(structure, numbers))
        'chain(clip(max_delta=1.0), sgd(learning_rate=0.5))'
    """
    if isinstance(structure, Fixed):
        return structure.value
    if not isinstance(structure, Structure) or not isinstance(numbers, Mapping):
        raise TypeError(
            f"build: expected the structure and the numbers that spec(opt) returns, got {type(structure).__name__} and "
            f"{type(numbers).__name__}."
        )
    names = [name for name, leaf in zip(structure.names, structure.leaves, strict=True) if not isinstance(leaf, Fixed)]
    if set(numbers) != set(names):
        raise ValueError(
            f"build: {structure.rule.__name__} has the numbers {', '.join(names) or 'none'}, got "
            f"{', '.join(map(str, numbers)) or 'none'}. Pass those of spec(opt), changed or not."
        )
    made = [
        leaf.value if isinstance(leaf, Fixed)
        else build(leaf, numbers[name]) if isinstance(leaf, Structure)
        else np.zeros(()) if is_zero(numbers[name])
        else numbers[name]
        for name, leaf in zip(structure.names, structure.leaves, strict=True)
    ]  # fmt: skip
    signature = inspect.signature(structure.rule)
    arguments = dict(zip(signature.parameters, jax.tree.unflatten(structure.arguments, made), strict=True))
    bound = inspect.BoundArguments(signature, arguments)
    return structure.rule(*bound.args, **bound.kwargs)


def describe(opt: Transformation) -> str:
    """An optimizer as the call of its factory, without arguments that equal their defaults; its repr if it has no spec.

    Example:
        >>> from jaxnn import optim
        >>> print(describe(optim.chain(optim.clip(1.0), optim.adam(1e-3, nesterov=True))))
        chain(clip(max_delta=1.0), adam(learning_rate=0.001, nesterov=True))
    """
    known = spec(opt)
    return repr(opt) if known is None else _call(*known)


def _call(structure: Structure, numbers: Numbers) -> str:
    pairs = list(zip(structure.names, structure.leaves, strict=True))
    given = [leaf.value if isinstance(leaf, Fixed) else numbers[name] for name, leaf in pairs]
    texts = [
        _Text(_call(leaf, numbers[name]) if isinstance(leaf, Structure) else repr(numbers.get(name, leaf)))
        for name, leaf in pairs
    ]
    values, shown = (jax.tree.unflatten(structure.arguments, leaves) for leaves in (given, texts))
    parts: list[str] = []
    for parameter, value, text in zip(
        inspect.signature(structure.rule).parameters.values(), values, shown, strict=True
    ):
        if parameter.kind is parameter.VAR_POSITIONAL:
            parts += map(repr, text)
        elif not _same(value, parameter.default):
            parts.append(f"{parameter.name}={text!r}")
    return f"{structure.rule.__name__}({', '.join(parts)})"


def _same(value: Any, default: Any) -> bool:
    """Whether an argument is its default; in place of an optimizer `value` has its numbers."""
    known = spec(default)
    return value is default or repr(value) == repr(default if known is None else known[1])


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
