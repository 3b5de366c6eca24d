"""Texts that tell networks, optimizers, functions, objects and arrays apart, equal in every process."""

from __future__ import annotations

import collections
import contextlib
import dataclasses
import enum
import functools
import hashlib
import inspect
import itertools
import sys
import types
from collections.abc import Iterator, Mapping
from typing import Any

import jax
import numpy as np

from jaxnn.layers import Layer
from jaxnn.optim.spec import Fixed, Numbers, Structure, spec

ROWS = 64
"""The largest number of rows of an array that a digest reads."""

DEPTH = 16
"""Functions and objects inside each other that are described; those inside the last are known by their names."""

OTHER = frozenset({"__dict__", "__weakref__", "has_child"})
"""Attributes that are no settings; the last is whether a data set of grain was iterated."""

MUTABLE = (list, dict, set, bytearray, collections.deque)
LIBRARIES = frozenset({"jaxnn", "jax", "optax", "flax", "equinox"})
"""Packages whose functions keep no log or cache in lists and dicts that they hold."""

VALUES = sys.stdlib_module_names | {"jax", "jaxlib", "numpy"}
"""Packages whose objects are known by their repr."""


def described(value: Any, depth: int = 0) -> str:
    """A text for a network, an optimizer, a function, an object, a setting.

    - A layer is known by its kind, options and parts; one of your own also by its two functions.
    - A function is known by its name; one that a module does not have under its name also by what its closure holds and
      by its defaults: `losses.l2(1e-4)` is not `losses.l2(1e-3)`. A bound method is known by its object, too.
    - An object is known by the name of its class and by its attributes, also private ones, or by its own
      `fingerprint()`. Caches of `functools.cached_property` are left out.
    - Lists, dicts and sets that a function or an object holds are known by their type alone: they may be a log or a
      cache, which grows. In arguments of `functools.partial`, frozen dataclasses and options of layers, and in
      functions of JAX and its libraries, they are settings. A setting of your own belongs in a tuple.
    - Numbers and arrays are always settings: an object that counts its calls is another one after each.
    - Iterators, and what has `get_state` and `set_state` (or `state_dict` and `load_state_dict`), are known by the name
      of their class alone: which attributes are their place, and which are settings, cannot be told.

    Args:
        value: what to describe.
        depth: how many functions and objects it lies in, of `DEPTH`.
    """
    return _Description(depth).of(value)


class _Description:
    """One text; what occurs in it again is named only, so that a cycle ends."""

    def __init__(self, depth: int) -> None:
        self._depth = depth
        self._seen: dict[int, Any] = {}  # kept, so that no other object gets the id

    def of(self, value: Any) -> str:
        if isinstance(value, str):
            return value
        if isinstance(value, Layer):
            settings = dict(value.options) | _own_functions(value)
            options = [f"{name}={self.of(option)}" for name, option in settings.items()]
            return f"{value.kind.name}({', '.join([*options, *map(self.of, value.parts)])})"
        if (known := spec(value)) is not None:
            return self._call(*known)
        if isinstance(value, functools.partial):
            given = [self.of(each) for each in value.args] + [f"{k}={self.of(v)}" for k, v in value.keywords.items()]
            return f"{self.of(value.func)}({', '.join(given)})"
        if isinstance(value, tuple | list | set | frozenset | Mapping | inspect.BoundArguments):
            return self._container(value)
        if _is_array(value):
            return str(np.asarray(value).tolist()) if _is_one_number(value) else array_text(value)
        if isinstance(value, types.MethodType):
            return f"{self.of(value.__self__)}.{value.__name__}"
        if isinstance(value, types.FunctionType):
            return self._function(value)
        if hasattr(value, "__wrapped__") and not isinstance(value, type):  # what `jax.jit` returns
            return self.of(value.__wrapped__)
        name = getattr(value, "__qualname__", getattr(value, "__name__", None))
        return name if isinstance(name, str) else self._object(value)

    def _call(self, structure: Structure, numbers: Numbers) -> str:
        """An optimizer as the call of its factory with all arguments."""
        given = [
            f"{name}={self._call(leaf, numbers[name])}" if isinstance(leaf, Structure)
            else f"{name}={self.of(leaf.value if isinstance(leaf, Fixed) else numbers[name])}"
            for name, leaf in zip(structure.names, structure.leaves, strict=True)
        ]  # fmt: skip
        return f"{structure.rule.__name__}({', '.join(given)})"

    def _container(self, value: Any) -> str:
        if isinstance(value, inspect.BoundArguments):
            value = value.arguments
        if type(value).__module__ == "weakref":  # a cache
            return type(value).__qualname__
        if isinstance(value, Mapping):
            return "{" + ", ".join(f"{self.of(key)}: {self.of(each)}" for key, each in value.items()) + "}"
        texts = list(map(self.of, value))
        return f"({', '.join(sorted(texts) if isinstance(value, set | frozenset) else texts)})"

    def _function(self, value: types.FunctionType) -> str:
        library = _root(value.__globals__.get("__name__"))
        if library == "jax" and hasattr(value, "__wrapped__"):  # `jax.value_and_grad(f)` and the like
            return self.of(value.__wrapped__)
        name = f"{'jax' if _root(value.__module__) == 'jax' else value.__module__}.{value.__qualname__}"
        held = {} if _is_named(value) else _held_by(value)
        return self._with(name, value, held, by_value=library in LIBRARIES)

    def _object(self, value: Any) -> str:
        if isinstance(value, enum.Enum):
            return f"{type(value).__qualname__}.{value.name}"
        name = type(value).__qualname__
        if callable(own := getattr(value, "fingerprint", None)):
            return f"{name}({own()})"
        if _root(type(value).__module__) in VALUES:
            return _shown(value)
        if hasattr(value, "__next__") or _has_state(value):
            return name
        if not dataclasses.is_dataclass(value):
            held = dict(_attributes(value))
            return self._with(name, value, held, by_value=False) if held else _shown(value)
        fields = {each.name: getattr(value, each.name, None) for each in dataclasses.fields(value)}
        frozen = getattr(type(value), "__dataclass_params__").frozen  # noqa: B009 # unknown to type checkers
        return self._with(f"{name}()" if not fields else name, value, fields, by_value=frozen)

    def _with(self, name: str, owner: Any, held: Mapping[str, Any], *, by_value: bool) -> str:
        """The name of a function or an object, with what it holds."""
        if not held or id(owner) in self._seen or self._depth >= DEPTH:
            return name
        self._seen[id(owner)] = owner
        self._depth += 1
        one = self.of if by_value else self._held
        text = ", ".join(f"{part}={one(each)}" for part, each in held.items())
        self._depth -= 1
        return f"{name}({text})"

    def _held(self, value: Any) -> str:
        if isinstance(value, MUTABLE):
            return type(value).__qualname__
        if type(value) is tuple:
            return f"({', '.join(map(self._held, value))})"
        return self.of(value)


def _own_functions(layer: Layer) -> dict[str, Any]:
    """Init and apply of a layer that was not made here: its options may not tell all."""
    found: dict[str, Any] = {}
    for name in ("init", "apply"):
        function: Any = getattr(layer, name)
        while _is_ours(function):
            function = _held_by(function).get(name)
        if function is not None and not _is_ours(getattr(function, "func", None)):
            found[name] = function
    return found


def _is_ours(function: Any) -> bool:
    return isinstance(function, types.FunctionType) and _root(function.__globals__.get("__name__")) == "jaxnn"


def _root(module: Any) -> str:
    """The package of a module."""
    return str(module).partition(".")[0]


def _is_named(function: types.FunctionType) -> bool:
    """Whether its module has the function, or a decorated form of it, under its name."""
    found: Any = sys.modules.get(function.__module__)
    for part in function.__qualname__.split("."):
        found = getattr(found, part, None)
    return found is not None and (found is function or inspect.unwrap(found) is function)


def _held_by(function: types.FunctionType) -> dict[str, Any]:
    """Defaults and closure of a function, but for itself."""
    found: dict[str, Any] = {}
    defaults = function.__defaults__ or ()
    code = function.__code__
    found |= dict(zip(code.co_varnames[code.co_argcount - len(defaults) : code.co_argcount], defaults, strict=True))
    found |= function.__kwdefaults__ or {}
    for name, cell in zip(code.co_freevars, function.__closure__ or (), strict=True):
        with contextlib.suppress(ValueError):  # not filled yet
            found[name] = cell.cell_contents
    return {name: each for name, each in found.items() if each is not function}


def _attributes(value: Any) -> Iterator[tuple[str, Any]]:
    kind = type(value)
    slots = (getattr(one, "__slots__", ()) for one in kind.__mro__)
    names = itertools.chain.from_iterable([each] if isinstance(each, str) else each for each in slots)
    for name in dict.fromkeys([*names, *getattr(value, "__dict__", ())]):
        cached = isinstance(inspect.getattr_static(kind, name, None), functools.cached_property)
        if hasattr(value, name) and not cached and name not in OTHER:
            yield name, getattr(value, name)


def _has_state(value: Any) -> bool:
    pairs = (("get_state", "set_state"), ("state_dict", "load_state_dict"))
    return any(hasattr(value, get) and hasattr(value, put) for get, put in pairs)


def _shown(value: Any) -> str:
    """The repr of a value; the name of its class where that has an address, or says what it is like now."""
    text = repr(value)
    return type(value).__qualname__ if text.startswith("<") or " at 0x" in text else text


def _is_array(value: Any) -> bool:
    has_values = isinstance(value, jax.Array | jax.ShapeDtypeStruct) or hasattr(value, "__array__")
    return has_values and hasattr(value, "shape") and hasattr(value, "dtype") and not isinstance(value, type)


def _is_one_number(array: Any) -> bool:
    return not isinstance(array, jax.ShapeDtypeStruct) and not _is_key(array) and bool(np.size(array) == 1)


def _is_key(array: Any) -> bool:
    return isinstance(array, jax.Array) and jax.dtypes.issubdtype(array.dtype, jax.dtypes.prng_key)


def array_text(array: Any, length: int | None = None) -> str:
    """Dtype, shape and a digest of at most 64 rows of an array; `length` for its first axis, if it is rows of more."""
    if isinstance(array, jax.ShapeDtypeStruct):
        return f"{array.dtype}{list(array.shape)}"
    array = array if hasattr(array, "shape") else np.asarray(array)
    about = f"{array.dtype}{[*array.shape] if length is None else [length, *array.shape[1:]]}"
    if array.dtype == object:
        return about  # its bytes are addresses
    if isinstance(array, jax.Array) and not array.is_fully_addressable and not array.is_fully_replicated:
        return about  # the examples are in other processes
    if _is_key(array):
        array = jax.random.key_data(array)
    if isinstance(array, jax.Array) and not array.is_fully_addressable:
        array = array.addressable_data(0)
    rows = array[picked(len(array))] if array.ndim else array
    return f"{about} {digest(np.ascontiguousarray(rows).tobytes())}"


def picked(n: int) -> np.ndarray[Any, Any]:
    """The indices of at most 64 of n rows, evenly spaced."""
    return np.unique(np.linspace(0, max(n - 1, 0), min(ROWS, n)).round().astype(int))


def digest(content: bytes) -> str:
    """The first 16 digits of a SHA-256."""
    return hashlib.sha256(content).hexdigest()[:16]
