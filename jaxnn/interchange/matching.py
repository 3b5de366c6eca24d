"""Which layer of ours is which module of another library: by form and order, or by names."""

from __future__ import annotations

import itertools
import re
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any, NamedTuple, TypeAlias

import numpy as np

from jaxnn.checks import nearest_name
from jaxnn.interchange.forms import Form
from jaxnn.interchange.sites import Arrays, Site
from jaxnn.layers.base import Kind
from jaxnn.types import Shape

Unit: TypeAlias = str | tuple[str, ...]
"""The name of a module of another library; with *, a pattern of the names of its arrays; several names for a layer that
is several modules there."""

Names: TypeAlias = Mapping[str, Unit]
"""Path of our layer -> its module."""

LISTED = 6
"""How many layers and modules a message lists."""


class Library(NamedTuple):
    """How another library stores parameters.

    Attributes:
        name: for messages.
        separator: between the parts of a name.
        forms: of each kind of layer, its form as one module.
        modules: of some kinds, their form as several modules.
        grouped: names of all arrays -> (module, name in it) of each.
        unit: (layer, the name that is given or None) -> the name of its module.
    """

    name: str
    separator: str
    forms: Mapping[Kind, Form]
    modules: Mapping[Kind, Form]
    grouped: Callable[[Collection[str]], dict[str, tuple[Unit, str]]]
    unit: Callable[[Site, Unit | None], Unit]

    def form(self, where: str, site: Site, unit: Unit | None = None) -> Form:
        """The form of a layer as one module, or as the several that a tuple names."""
        form = (self.modules if isinstance(unit, tuple) else self.forms).get(site.layer.kind)
        if form is not None:
            return form
        if isinstance(unit, tuple):
            raise ValueError(f"{where}: layer {site} is one module of {self.name}, got names for several: {unit}.")
        if site.layer.kind in self.modules:
            raise ValueError(
                f"{where}: layer {site} is several modules in {self.name}: name them in the order of its matrices, "
                f'names={{"{site.path}": ("...", "...")}}.'
            )
        known = ", ".join(kind.name for kind in self.forms)
        raise ValueError(f"{where}: {self.name} has no layer such as {site}; what it has: {known}.")

    def full(self, unit: Unit, name: str) -> str:
        """The name of an array of a module."""
        if isinstance(unit, tuple):
            number, _, name = name.partition(self.separator)
            return self.full(unit[int(number)], name)
        if "*" in unit:
            return unit.replace("*", name)
        return f"{unit}{self.separator}{name}" if unit else name

    def written(self, where: str, site: Site, unit: Unit | None = None) -> Arrays:
        """The arrays of a layer in the form of the library."""
        form = self.form(where, site, unit)
        try:
            return form.write(site.layer, site.arrays)
        except ValueError as error:
            raise ValueError(f"{where}: layer {site}: {error}.") from None

    def shapes(self, where: str, site: Site, unit: Unit | None = None) -> dict[str, Shape]:
        """The shapes that a layer's arrays have in the library, by name."""
        zeros = {name: np.broadcast_to(np.int8(0), x.shape) for name, x in site.arrays.items()}
        return {name: x.shape for name, x in self.written(where, site._replace(arrays=zeros), unit).items()}


def matched(
    where: str,
    library: Library,
    layers: Sequence[Site],
    found: Mapping[str, np.ndarray[Any, Any]],
    names: Names | None,
    tied: Mapping[str, str],
) -> dict[str, Unit]:
    """The module of each layer.

    A layer that `names` does not hold is matched with the first module left that has arrays of its names and shapes.

    Args:
        where: function, for messages.
        layers, found: ours, and all arrays of the library by name.
        names: those that are known.
        tied: path of a tied layer -> path of the layer whose parameters it has.

    Raises:
        ValueError: a layer without a module, a module without a layer, a wrong shape, or an order that is not known.
    """
    chosen = _named(where, library, layers, found, names or {}, tied)
    taken = {library.full(unit, name) for site, unit in chosen for name in library.shapes(where, site, unit)}
    ordered = _are_ordered(found)
    left, known = _units(library, found, taken, ordered), {site.path for site, _ in chosen}
    missing: list[tuple[Site, dict[str, Shape]]] = []
    groups: dict[Any, list[Unit]] = {}
    for site in layers:
        if site.path in known:
            continue
        wanted = library.shapes(where, site)
        unit = next((unit for unit, shapes in left.items() if shapes == wanted), None)
        if unit is None:
            missing.append((site, wanted))
            continue
        del left[unit]
        chosen.append((site, unit))
        groups.setdefault(tuple(sorted(wanted.items())), []).append(unit)
    result: dict[str, Unit] = {site.path: unit for site, unit in chosen}
    for to, source in tied.items():
        if to not in result and source in result:
            copy = next((unit for unit in left if _copies(library, found, unit, left[unit], result[source])), None)
            if copy is not None:
                del left[copy]
                result[to] = copy
    if missing or left:
        raise ValueError(_difference(where, library, missing, left))
    if not ordered:
        _require_order(where, groups.values())
    return result


def _named(
    where: str,
    library: Library,
    layers: Sequence[Site],
    found: Mapping[str, np.ndarray[Any, Any]],
    names: Names,
    tied: Mapping[str, str],
) -> list[tuple[Site, Unit]]:
    """The layers with a known module; ValueError unless its arrays have their shapes."""
    by_path = {site.path: site for site in layers}
    chosen = []
    for path, given in names.items():
        site = by_path.get(tied.get(path, path))
        if site is None:
            raise ValueError(
                f"{where}: names has {path!r}, where the network has no layer with parameters"
                f"{nearest_name(path, by_path)}. It has {', '.join(map(str, layers[:LISTED]))} ..."
            )
        unit = library.unit(site, given)
        for name, shape in library.shapes(where, site, unit).items():
            full = library.full(unit, name)
            if full not in found:
                raise ValueError(f"{where}: layer {site} needs {full!r}, which is missing{nearest_name(full, found)}.")
            if found[full].shape != shape:
                raise ValueError(f"{where}: layer {site}: {full!r} must be {shape}, got {found[full].shape}.")
        chosen.append((site._replace(path=path), unit))
    return chosen


def _are_ordered(found: Mapping[str, np.ndarray[Any, Any]]) -> bool:
    """Whether the arrays stand in the order in which the modules were made.

    They do as PyTorch and flax return them, where a weight stands before its bias. Files, and JAX's pytrees, have names
    sorted as texts.
    """
    by_dtype: dict[Any, list[str]] = {}
    for name, x in found.items():  # a safetensors file may have one dtype after the other
        by_dtype.setdefault(x.dtype, []).append(name)
    return any(each != sorted(each) for each in by_dtype.values())


def _units(
    library: Library, found: Mapping[str, np.ndarray[Any, Any]], taken: Collection[str], ordered: bool
) -> dict[Unit, dict[str, Shape]]:
    """The shapes in each module that is not taken; if not ordered, sorted with numbers as numbers."""
    ignored = {name for form in library.forms.values() for name in form.optional}
    units: dict[Unit, dict[str, Shape]] = {}
    for name, (unit, inner) in library.grouped(list(found)).items():
        if inner not in ignored and name not in taken:
            units.setdefault(unit, {})[inner] = found[name].shape
    return units if ordered else dict(sorted(units.items(), key=lambda item: _pieces(str(item[0]))))


def _pieces(name: str) -> list[tuple[str, int]]:
    """A name with its numbers as numbers; of a recurrent module, each layer's reverse direction follows it."""
    name = re.sub(r"(_l\d+)(_reverse)?$", lambda found: f"{found[1]}_{1 if found[2] else 0}", name)
    return [(text, int(number or 0)) for text, number in re.findall(r"(\D*)(\d*)", name)]


def _copies(library: Library, found: Mapping[str, Any], unit: Unit, shapes: Mapping[str, Shape], source: Unit) -> bool:
    """Whether a module has the same arrays as another: one that is tied to it."""
    pairs = [(library.full(unit, name), library.full(source, name)) for name in shapes]
    return all(b in found and np.array_equal(found[a], found[b]) for a, b in pairs)


def _require_order(where: str, groups: Collection[list[Unit]]) -> None:
    """Raise if modules of one form have names that do not tell their order."""
    for group in groups:
        for first, second in itertools.pairwise(group):
            pairs = zip(_pieces(str(first)), _pieces(str(second)), strict=False)
            text, other = next(((a[0], b[0]) for a, b in pairs if a != b), ("", "-"))
            if text != other:
                raise ValueError(
                    f"{where}: {first!r} and {second!r} have the same shapes, and their names, sorted as they are, do "
                    "not tell which comes first. Pass what the other library itself returns, or "
                    "names={path of our layer: name}."
                )


def _difference(
    where: str,
    library: Library,
    missing: Sequence[tuple[Site, Mapping[str, Shape]]],
    left: Mapping[Unit, Mapping[str, Shape]],
) -> str:
    """The message about layers and modules that were not matched."""

    def listed(items: list[str]) -> str:
        more = f"; and {len(items) - LISTED} more" if len(items) > LISTED else ""
        return "; ".join(items[:LISTED]) + more

    def shapes(of: Mapping[str, Shape]) -> str:
        return ", ".join(f"{name} {shape}" for name, shape in of.items())

    parts = [f"{where}: the network and the arrays of {library.name} differ."]
    if missing:
        parts.append(f"Expected, for layers of ours: {listed([f'{s} {shapes(of)}' for s, of in missing])}.")
    if left:
        parts.append(f"Left over: {listed([f'{unit!r} {shapes(of)}' for unit, of in left.items()])}.")
    return " ".join(
        [*parts, "Make both networks alike, drop what is no parameter, or pass names={path of our layer: name}."]
    )
