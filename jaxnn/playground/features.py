"""The seven input features of the playground, each a function of a point of the plane."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from types import MappingProxyType
from typing import NamedTuple

import jax.numpy as jnp

from jaxnn.checks import require_floating
from jaxnn.types import Array


class Feature(NamedTuple):
    """An input feature: its notation, and its function of the coordinates, (N,) and (N,) -> (N,)."""

    label: str
    function: Callable[[Array, Array], Array]


FEATURES = MappingProxyType(
    {
        "x": Feature("x", lambda x, y: x),
        "y": Feature("y", lambda x, y: y),
        "x2": Feature("x²", lambda x, y: x * x),
        "y2": Feature("y²", lambda x, y: y * y),
        "xy": Feature("xy", lambda x, y: x * y),
        "sinx": Feature("sin x", lambda x, y: jnp.sin(x)),
        "siny": Feature("sin y", lambda x, y: jnp.sin(y)),
    }
)
"""The features by their names on the command line: x, y, x^2, y^2, x y, sin x, sin y."""


INDEXED = MappingProxyType(
    {"x1": "x", "x2": "y", "x1^2": "x2", "x2^2": "y2", "x1x2": "xy", "sinx1": "sinx", "sinx2": "siny"}
)
"""The other names of the features, for coordinates x1 and x2, each with that of `FEATURES`."""


def canonical_features(where: str, names: Sequence[str]) -> Sequence[str]:
    """Names of `FEATURES`, from those or from those of `INDEXED`, in the same order.

    A list is of one kind: `x2` is x squared, but the second coordinate in a list with another name of `INDEXED`.
    Anything that is no sequence of names is returned as it is.

    Raises:
        ValueError: names of both kinds.

    Example:
        >>> canonical_features("playground", ("x1", "x2")), canonical_features("playground", ("x", "x2"))
        (('x', 'y'), ('x', 'x2'))
    """
    if isinstance(names, str) or not isinstance(names, Sequence):
        return names  # `require_features` says what is wrong
    indexed = [name for name in names if name in INDEXED and name not in FEATURES]
    if not indexed:
        return tuple(names)
    if others := [name for name in names if name not in INDEXED]:
        if others[0] not in FEATURES:
            raise ValueError(f"{where}: no feature {others[0]!r}; there are: {', '.join(INDEXED)}.")
        raise ValueError(
            f"{where}: features must be of one kind, got {indexed[0]} of {', '.join(INDEXED)} with {others[0]} of "
            f"{', '.join(FEATURES)}."
        )
    return tuple(INDEXED[name] for name in names)


def require_features(where: str, names: Sequence[str]) -> None:
    """Raise ValueError unless these are names of `FEATURES`, at least one, none repeated; TypeError for a string or no
    sequence.

    Example:
        >>> require_features("playground", ("x", "cosx"))
        Traceback (most recent call last):
        ValueError: playground: no feature 'cosx'; there are: x, y, x2, y2, xy, sinx, siny.
    """
    if isinstance(names, str) or not isinstance(names, Sequence):
        raise TypeError(f'{where}: features must be a tuple of names, such as ("x", "y"), got {names!r}.')
    unknown = [name for name in names if name not in FEATURES]
    if unknown:
        raise ValueError(f"{where}: no feature {unknown[0]!r}; there are: {', '.join(FEATURES)}.")
    if not names or len(set(names)) < len(names):
        raise ValueError(f"{where}: features must be at least one, none repeated, got {','.join(names) or 'none'}.")


def featurize(names: Sequence[str], points: Array) -> Array:
    """The chosen features of points of the plane, in the order of the names.

    Args:
        names: keys of `FEATURES`.
        points: (N, 2), floating.

    Returns:
        (N, F), in the dtype of the points.

    Raises:
        ValueError: an unknown or repeated name, no name, or points not of shape (N, 2).
        TypeError: points are not floating, or names is a string or no sequence.

    Example:
        >>> featurize(("x", "y2", "xy"), jnp.array([[2.0, 3.0]]))
        Array([[2., 9., 6.]], dtype=float32)
    """
    require_features("featurize", names)
    require_floating("featurize", "points", points.dtype)
    if points.ndim != 2 or points.shape[1] != 2:
        raise ValueError(f"featurize: points must have shape (N, 2), got {points.shape}.")
    return jnp.stack([FEATURES[name].function(points[:, 0], points[:, 1]) for name in names], axis=1)
