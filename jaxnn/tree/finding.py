"""Lookup and replacement of a pytree's values by their dict key, NamedTuple field or NamedTuple class name."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator
from typing import Any, TypeAlias

import jax

from jaxnn.types import PyTree

KeyPath: TypeAlias = tuple[Any, ...]
"""JAX's key entries from the root of a tree, with `NamedTupleKey` for fields of NamedTuples."""


@dataclasses.dataclass(frozen=True)
class NamedTupleKey:
    """The path entry of a NamedTuple's field, with the name of the NamedTuple.

    A filter can thus distinguish the `count` of one state from that of another.

    Example:
        >>> str(NamedTupleKey("AdamState", "count"))
        'AdamState.count'
    """

    tuple_name: str
    name: str

    def __str__(self) -> str:
        return f"{self.tuple_name}.{self.name}"


def get_all_with_path(
    tree: PyTree, key: Any, filtering: Callable[[KeyPath, Any], bool] | None = None
) -> list[tuple[KeyPath, Any]]:
    """All values under a name, with their paths, depth first, each before those nested in it.

    Args:
        tree: pytree, such as an optimizer's state.
        key: a dict key, a field of a NamedTuple, or the name of a NamedTuple (whose value is the tuple itself).
        filtering: predicate of (path, value).

    Returns:
        (path, value) pairs, including those nested in found values.

    Example:
        >>> get_all_with_path([{"w": 1.0}, {"w": {"w": 2.0}}], "w")[0]
        ((SequenceKey(idx=0), DictKey(key='w')), 1.0)
    """
    return [(path, value) for path, name, value in _named((), tree) if name == key and _passes(filtering, path, value)]


def get(
    tree: PyTree, key: Any, default: Any | None = None, filtering: Callable[[KeyPath, Any], bool] | None = None
) -> Any:
    """The value under a name.

    Args:
        tree, key, filtering: as for `get_all_with_path`.
        default: returned if there is none.

    Raises:
        KeyError: there are several.

    Example:
        >>> get([{"count": 3}, {"mu": 1.0}], "count")
        3
    """
    found = get_all_with_path(tree, key, filtering)
    if len(found) > 1:
        places = ", ".join("".join(map(_shown, path)) for path, _ in found)
        raise KeyError(f"several values are called {key!r}, at {places}: pass filtering=, or use get_all_with_path.")
    return found[0][1] if found else default


def set(tree: PyTree, filtering: Callable[[KeyPath, Any], bool] | None = None, /, **kwargs: Any) -> PyTree:
    """A copy of a pytree with all values under some names replaced.

    Args:
        tree, filtering: as for `get_all_with_path`.
        kwargs: the new value of each name; replaced values are not searched.

    Raises:
        KeyError: a name has no value (that passes the filter).

    Example:
        >>> set([{"count": 3}, {"mu": 1.0}], count=0)
        [{'count': 0}, {'mu': 1.0}]
    """
    for key in kwargs:
        if not get_all_with_path(tree, key, filtering):
            end = " that passes the filter" if filtering else ""
            raise KeyError(f"no value is called {key!r}{end}.")
    return _replaced((), tree, kwargs, filtering)


def _is_named_tuple(node: Any) -> bool:
    return isinstance(node, tuple) and hasattr(node, "_fields")


def _children(node: Any) -> tuple[list[tuple[Any, Any]], Any]:
    """(path entry, child) of each child of a node, and its structure; no children for a leaf."""
    flat, structure = jax.tree_util.tree_flatten_with_path(node, is_leaf=lambda x: x is not node)
    if len(flat) == 1 and not flat[0][0]:
        return [], structure
    kind = type(node).__name__
    named = _is_named_tuple(node)
    return [(NamedTupleKey(kind, path[-1].name) if named else path[-1], child) for path, child in flat], structure


def _shown(entry: Any) -> str:
    """A path entry in brackets, as JAX shows those of sequences and dicts."""
    return f"[{entry}]" if isinstance(entry, NamedTupleKey) else str(entry)


def _name(entry: Any) -> Any:
    """The name of a child: the field of a NamedTuple or the key of a dict, else None."""
    if isinstance(entry, NamedTupleKey):
        return entry.name
    return entry.key if isinstance(entry, jax.tree_util.DictKey) else None


def _named(path: KeyPath, node: Any) -> Iterator[tuple[KeyPath, Any, Any]]:
    """(path, name, value) of all named values."""
    if _is_named_tuple(node):
        yield path, type(node).__name__, node
    for entry, child in _children(node)[0]:
        name = _name(entry)
        if name is not None:
            yield (*path, entry), name, child
        yield from _named((*path, entry), child)


def _passes(filtering: Callable[[KeyPath, Any], bool] | None, path: KeyPath, value: Any) -> bool:
    return filtering is None or bool(filtering(path, value))


def _replaced(path: KeyPath, node: Any, new: dict[str, Any], filtering: Callable[[KeyPath, Any], bool] | None) -> Any:
    if _is_named_tuple(node) and type(node).__name__ in new and _passes(filtering, path, node):
        return new[type(node).__name__]
    children, structure = _children(node)
    if not children:
        return node

    def child(entry: Any, value: Any) -> Any:
        name, below = _name(entry), (*path, entry)
        if name in new and _passes(filtering, below, value):
            return new[name]
        return _replaced(below, value, new, filtering)

    return structure.unflatten([child(entry, value) for entry, value in children])
