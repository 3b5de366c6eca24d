"""What comes before a backward pass: the mesh of the arguments, the traced loss, the uses of its parameters."""

from __future__ import annotations

import contextlib
import dataclasses
import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

import jax
from jax.extend.core import Jaxpr

from jaxnn.ops.views import View
from jaxnn.per_example.recording.arguments import Arguments
from jaxnn.per_example.recording.concatenating import leaves_of
from jaxnn.per_example.recording.param import Param
from jaxnn.per_example.recording.reading import Enter, Reading, as_positions, known, read
from jaxnn.per_example.recording.tracing import Traced, traced
from jaxnn.placement import explicit_mesh, on_mesh
from jaxnn.varying import vary, varying_axes


@contextlib.contextmanager
def on_their_mesh(args: tuple[Any, ...], where: str = "record") -> Iterator[None]:
    """Sets the arguments' mesh with Explicit axes if none is set; adds a remedy to JAX's errors about shardings.

    Messages begin with `where`, the function that was called."""
    mesh, unset = explicit_mesh(args), jax.sharding.get_abstract_mesh().empty
    if mesh is None:
        yield
        return
    if unset and not any(isinstance(x, jax.core.Tracer) for x in jax.tree.leaves(args)):
        raise ValueError(
            f"{where}: arrays are on a mesh with Explicit axes, but no mesh is set. Call it inside jax.jit with the "
            "arrays as arguments, or inside `with jax.set_mesh(mesh):`, or use a mesh with AxisType.Auto."
        )
    try:
        with jax.sharding.use_abstract_mesh(mesh) if unset else contextlib.nullcontext():
            yield
    except Exception as error:
        # ShardingTypeError is in no public module; the second is raised by a loop with a constant initial carry.
        if type(error).__name__ == "ShardingTypeError" or "is not found in mesh" in str(error):
            error.add_note(
                f"{where}: on a mesh with Explicit axes jax.vmap must accept the loss. Look up rows of a table by "
                "`w.at[i].get(out_sharding=jax.sharding.PartitionSpec())`, not by w[i]; one row by `i[None]`. Start a "
                "loop that carries a scalar from one computed from the example, such as `jnp.zeros_like(x[0])`, not "
                "from 0.0. On a mesh with AxisType.Auto the compiler chooses all shardings."
            )
        raise


def varying(loss: Callable[..., Any], given: Arguments, has_aux: bool, weights: Any = None) -> tuple[Traced, Arguments]:
    """The traced loss, and its arguments cast to vary over all mesh axes over which any value in it, or a weight,
    varies."""
    # Inside `shard_map` each device has its own examples. With parameters and examples varying alike, no differentiated
    # value is cast inside the loss; the transpose of such a cast is a sum over the devices.
    axes = varying_axes(given.leaves, given.mapped, weights)
    while True:
        leaves, mapped = vary(on_mesh((given.leaves, given.mapped)), axes)
        given = dataclasses.replace(given, leaves=leaves, mapped=mapped)
        found = traced(loss, given, has_aux)
        # More axes: of constants that the loss closes over, or of its `axis_index`. Repeat until there are none.
        more = axes | varying_axes(found.consts, [v.aval for v in found.jaxpr.outvars])
        if more == axes:
            return found, given
        axes = more


def reading_of(
    jaxpr: Jaxpr, leaves: Sequence[Any], chosen: Iterable[int] | None = None, enter: Enter = as_positions
) -> Reading:
    """The uses of those parameters that do not fall back, in a jaxpr of (*parameters, *other arrays) -> (loss, ...).

    `leaves` are the parameters, or their shapes; `chosen` the indices of those to follow, None for all.
    """
    # A parameter that falls back becomes a value that depends on the example, so operations with it are read anew: one
    # with another parameter may now have a rule, or none. Repeated until no more parameters fall back.
    sizes = [math.prod(leaf.shape) for leaf in leaves]
    followed = set(range(len(leaves)) if chosen is None else chosen)
    fallen: dict[int, str] = {}
    while True:
        params = {
            v: Param(i, View(tuple(leaf.shape)), base=v)
            for i, (v, leaf) in enumerate(zip(jaxpr.invars, leaves, strict=False))
            if i in followed and i not in fallen
        }
        reading = read(jaxpr, params, sizes, enter)
        if (value := known(reading, jaxpr.outvars[0])) is not None:
            reading.falls(dict.fromkeys(leaves_of(value), "the loss itself"))
        if not reading.fallen:
            reading.fallen = fallen
            return reading
        fallen |= reading.fallen
