"""From the named arrays of another library to the parameters and state of a network, and back."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxnn.checks import require_floating
from jaxnn.interchange.host import host_array
from jaxnn.interchange.layout import Orders, arranged
from jaxnn.interchange.matching import Library, Names, Unit, matched
from jaxnn.interchange.sites import Arrays, Site, rebuilt, sites, ties
from jaxnn.layers.base import Example, Layer, as_example, require_net
from jaxnn.numerics import accumulation_dtype
from jaxnn.tree import named_leaves
from jaxnn.types import Params, State


def shapes_of(where: str, net: Layer, example: Example) -> tuple[Params, State]:
    """Shapes and dtypes of the parameters and state that `net.init` makes."""
    require_net(where, net)
    shape = as_example(example)
    return jax.eval_shape(lambda key: net.init(key, shape), jax.random.key(0))


def on_host(where: str, found: Any) -> dict[str, np.ndarray[Any, Any]]:
    """All arrays by name, as NumPy's."""
    if not isinstance(found, Mapping):
        raise TypeError(
            f"{where}: expected a dict of arrays by name, got {type(found).__name__}. Pass model.state_dict(), or the "
            "variables of a flax module."
        )
    return {str(name): host_array(where, str(name), x) for name, x in found.items()}


def names_in(
    where: str,
    library: Library,
    net: Layer,
    shapes: tuple[Params, State],
    found: Mapping[str, Any],
    names: Names | None,
) -> dict[str, Unit]:
    """Path of each layer -> its module."""
    return matched(where, library, list(sites(net, *shapes)), found, names, ties(net))


def read(
    where: str,
    library: Library,
    net: Layer,
    shapes: tuple[Params, State],
    found: Mapping[str, np.ndarray[Any, Any]],
    names: Names | None,
    orders: Mapping[str, Orders],
) -> tuple[Params, State]:
    """(params, state) of the other library's arrays: JAX arrays in their dtypes."""
    units = names_in(where, library, net, shapes, found, names)
    made: dict[str, Arrays] = {}
    for site in sites(net, *shapes):
        unit, form = units[site.path], library.form(where, site, units[site.path])
        theirs = {name: found[library.full(unit, name)] for name in library.shapes(where, site, unit)}
        _require_floating(where, library, site, unit, theirs)
        ours = site._replace(arrays=form.read(site.layer, theirs))
        made[site.path] = arranged(ours, orders.get(site.path, Orders()), inverse=True)
    params, state = rebuilt(net, *shapes, made)
    # jnp.array copies: jnp.asarray may share memory with a tensor that PyTorch goes on training.
    wide = jax.tree.map(lambda x: jnp.array(x.astype(accumulation_dtype(x.dtype))), state)
    return jax.tree.map(jnp.array, params), wide


def _require_floating(where: str, library: Library, site: Site, unit: Unit, theirs: Arrays) -> None:
    """Raise TypeError for integers where the arrays of a layer are floating, such as quantized weights."""
    if not all(jnp.issubdtype(x.dtype, jnp.floating) for x in site.arrays.values()):
        return
    for name, x in theirs.items():
        require_floating(
            where,
            f"{library.full(unit, name)!r} of layer {site}",
            x.dtype,
            "Convert it to float32, quantized weights with their scales.",
        )


def require_shapes(where: str, trees: tuple[Params, State], shapes: tuple[Params, State]) -> None:
    """Raise unless parameters and state are those of the network for these examples."""
    for name, tree, wanted in zip(("params", "state"), trees, shapes, strict=True):
        got, expected = ({path: np.shape(x) for path, x in named_leaves(each).items()} for each in (tree, wanted))
        if got != expected:
            differ = [path for path in {**expected, **got} if got.get(path) != expected.get(path)]
            raise ValueError(
                f"{where}: {name} must be those of the network for such an example; {differ[0]!r} must be "
                f"{expected.get(differ[0], 'absent')}, got {got.get(differ[0], 'none')}. Pass what its init or "
                "training returned, and the shape of one example that it was made for."
            )


def write(
    where: str,
    library: Library,
    net: Layer,
    trees: tuple[Params, State],
    names: Names | None,
    orders: Mapping[str, Orders],
) -> dict[str, np.ndarray[Any, Any]]:
    """The arrays of a network in the form of the other library, by name: NumPy arrays of their own memory."""
    written: dict[str, np.ndarray[Any, Any]] = {}
    layers, tied = list(sites(net, *_hosted(where, trees))), ties(net)
    by_path = {site.path: site for site in layers}
    if unknown := [path for path in names or {} if tied.get(path, path) not in by_path]:
        raise ValueError(
            f"{where}: names has {unknown[0]!r}, where the network has no layer with parameters. It has "
            f"{', '.join(map(str, layers))}."
        )
    for path in [*by_path, *(to for to in tied if to in (names or {}))]:
        site = by_path[tied.get(path, path)]
        unit = library.unit(site, (names or {}).get(path))
        _write_layer(where, library, site, unit, orders.get(path, Orders()), written)
    return written


def _write_layer(
    where: str, library: Library, site: Site, unit: Unit, orders: Orders, written: dict[str, np.ndarray[Any, Any]]
) -> None:
    """Add the arrays of one layer."""
    theirs = library.written(where, site._replace(arrays=arranged(site, orders)), unit)
    for name, x in {**theirs, **library.form(where, site, unit).optional}.items():
        full = library.full(unit, name)
        if full in written:
            raise ValueError(f"{where}: two layers write {full!r}, the second is {site}. Give each a module: names.")
        written[full] = np.array(x, order="C")


def _hosted(where: str, trees: tuple[Params, State]) -> tuple[Params, State]:
    leaves, structure = jax.tree.flatten_with_path(trees)
    arrays = [host_array(where, jax.tree_util.keystr(path), x) for path, x in leaves]
    return jax.tree.unflatten(structure, arrays)
