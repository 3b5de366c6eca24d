"""Which parts of a network are tied to which others, by path: where their parameters come from."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, TypeAlias

import jax
import jax.numpy as jnp

from jaxnn.layers.base import Kind, Layer
from jaxnn.layers.tying import TIED, UNEMBEDDING
from jaxnn.types import Params

Path: TypeAlias = tuple[int, ...]
"""The place of a layer in a network: the index among the parts, then among that part's parts, ..."""

STACK = Kind("stack")
"""Kind of a stack of blocks, whose parameters have an axis of blocks: ties end at it."""


def find_ties(parts: Sequence[Layer]) -> tuple[tuple[Path, Path], ...]:
    """(path of a tied layer, path of the layer it is tied to) of all that these parts contain and no part resolves.

    Raises:
        ValueError: a layer stands before the one that it is tied to.

    Example:
        >>> from jaxnn.layers import Embedding, Relu, tied
        >>> embed = Embedding(7, 4)
        >>> find_ties((embed, Relu, tied(embed)))
        (((2,), (0,)),)
    """
    sources: dict[Layer, Path] = {}
    for i, part in enumerate(parts):
        _collect(part, (i,), sources)
    found = []
    for i, part in enumerate(parts):
        for path, source in _open_ties(part, (i,)).items():
            if source in sources and path < sources[source]:
                raise ValueError(
                    f"tied: the layer at {list(path)} is tied to the {source.kind.name} layer at "
                    f"{list(sources[source])}, which stands after it. Swap them: tie the later one to the earlier one."
                )
            if source in sources:
                found.append((path, sources[source]))
    return tuple(found)


def _collect(layer: Layer, path: Path, sources: dict[Layer, Path]) -> None:
    """Add the first path of each layer inside, its own included."""
    sources.setdefault(layer, path)
    if layer.kind is not STACK:
        for i, part in enumerate(layer.parts):
            _collect(part, (*path, i), sources)


def _open_ties(layer: Layer, path: Path) -> dict[Path, Layer]:
    """The tied layers inside that no part of the layer resolves, and the layer that each is tied to."""
    if layer.kind in (TIED, UNEMBEDDING):
        return {path: layer.options["of"]}
    if layer.kind is STACK:
        return {}
    inside = {p: of for i, part in enumerate(layer.parts) for p, of in _open_ties(part, (*path, i)).items()}
    resolved = {(*path, *to) for to, _ in layer.options.get("ties", ())}
    return {p: of for p, of in inside.items() if p not in resolved}


def filled(layer: Layer, params: Params) -> Params:
    """The parameters with those of each tied layer in its place: references, not copies."""
    return fill(layer.options.get("ties", ()), params)


def fill(ties: Sequence[tuple[Path, Path]], params: Params) -> Params:
    """`filled`, by paths."""
    for to, source in ties:
        try:
            params = put(params, to, at(params, source))
        except (TypeError, IndexError, KeyError):
            raise ValueError(
                f"tied: params have nothing at {list(source)}, the layer that the one at {list(to)} is tied to. Pass "
                "the parameters of this network: params, state = net.init(key, example)."
            ) from None
    return params


def at(tree: Any, path: Path) -> Any:
    """The entry of nested tuples at a path."""
    for i in path:
        tree = tree[i]
    return tree


def put(tree: Any, path: Path, value: Any) -> Any:
    """Nested tuples with another entry at a path."""
    if not path:
        return value
    first, *rest = path
    return tuple(put(entry, tuple(rest), value) if i == first else entry for i, entry in enumerate(tree))


def shapes_of_tied(layer: Layer, example: Any) -> Params:
    """The shapes of a tied layer's parameters, for inputs like `example`."""
    source = layer.options["of"]
    inputs = jax.ShapeDtypeStruct((1,), jnp.int32) if layer.kind is UNEMBEDDING else example
    return jax.eval_shape(lambda key: source.init(key, inputs)[0], jax.random.key(0))
