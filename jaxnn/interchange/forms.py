"""How one kind of layer is stored in another library: the form of its arrays there, and the way back."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType
from typing import Any, NamedTuple

import numpy as np

from jaxnn.interchange.sites import Arrays
from jaxnn.layers.base import Layer


class Form(NamedTuple):
    """The form of a layer's arrays in another library.

    Attributes:
        write: `(layer, ours) -> theirs`, both dicts of NumPy arrays by name; the shapes that the other library must
            have are those of zeros, written.
        read: `(layer, theirs) -> ours`, the inverse.
        optional: entries of theirs that hold nothing of ours, by name: ignored when read, added when written.

    A layer of your own enters the table of a library by its kind; here y = s x, whose s PyTorch's module calls "gain":

        >>> import jax
        >>> from jaxnn import interchange
        >>> from jaxnn.layers import Kind, stateless
        >>> KIND = Kind("gain")
        >>> gain = stateless(KIND, lambda params, x: x * params["s"], lambda key, example: {"s": np.ones(())})
        >>> interchange.torch_forms.FORMS[KIND] = renamed(s=same("gain"))
        >>> interchange.to_torch(gain, *gain.init(jax.random.key(0), (3,)), (3,))
        {'gain': array(1.)}
        >>> del interchange.torch_forms.FORMS[KIND]
    """

    write: Callable[[Layer, Arrays], Arrays]
    read: Callable[[Layer, Arrays], Arrays]
    optional: Mapping[str, np.ndarray[Any, Any]] = MappingProxyType({})


Turn = Callable[[Any], Any]


class Layout(NamedTuple):
    """An array's name in another library, and how its axes are turned to theirs and back."""

    name: str
    turn: Turn
    back: Turn


def same(name: str) -> Layout:
    """The array as it is, under another name."""
    return Layout(name, lambda x: x, lambda x: x)


def transposed(name: str) -> Layout:
    """A matrix (in, out) as (out, in)."""
    return Layout(name, np.transpose, np.transpose)


def renamed(**layouts: Layout) -> Form:
    """The form of a layer each of whose arrays is one array there; arrays that a layer has not are left out.

    Example:
        >>> from jaxnn.layers import Dense
        >>> form = renamed(w=transposed("weight"), b=same("bias"))
        >>> form.write(Dense(3), {"w": np.ones((2, 3))})["weight"].shape
        (3, 2)
    """

    def write(layer: Layer, ours: Arrays) -> Arrays:
        if unknown := sorted(set(ours) - set(layouts)):
            raise ValueError(f"it has {', '.join(unknown)}, which has no counterpart there")
        return {one.name: one.turn(ours[name]) for name, one in layouts.items() if name in ours}

    def read(layer: Layer, theirs: Arrays) -> Arrays:
        return {name: one.back(theirs[one.name]) for name, one in layouts.items() if one.name in theirs}

    return Form(write, read)


def separate(parts: Sequence[Mapping[str, Layout]], separator: str = ".") -> Form:
    """The form of a layer that is several modules there; names begin with the number of the module, "0.weight".

    Example:
        >>> from jaxnn.layers import GatedDense
        >>> form = separate([{"w": transposed("weight")}, {"v": transposed("weight")}])
        >>> list(form.write(GatedDense(2), {"w": np.ones((3, 2)), "v": np.ones((3, 2))}))
        ['0.weight', '1.weight']
    """
    return renamed(
        **{
            ours: Layout(f"{i}{separator}{one.name}", one.turn, one.back)
            for i, part in enumerate(parts)
            for ours, one in part.items()
        }
    )


def blocks(x: Any, count: int, axis: int = 0) -> list[Any]:
    """`count` equal blocks of an axis."""
    return np.split(x, count, axis)
