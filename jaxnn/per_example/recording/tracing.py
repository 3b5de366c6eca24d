"""The jaxpr of the loss of one example, and the checks of that loss."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jax.extend.core import Jaxpr

from jaxnn.per_example.recording.arguments import Arguments
from jaxnn.per_example.recording.viewing import VARYING
from jaxnn.types import PyTree

HINT = (
    "per_example.{where} calls the loss with ONE example: an array (N, ...) of the batch arrives as (...). "
    "Write it for one example: loss(params, x, y) with model(params, x[None])[0] if the model expects a batch, no "
    "mean over examples, dropout keys as an argument with one key for each example, and running statistics in "
    "evaluation mode."
)

SILENT = ("axis_index", "shard_map", *VARYING)
"""Operations with mesh axis names that do not communicate."""


@dataclasses.dataclass(frozen=True)
class Traced:
    """`jaxpr` of (*parameters, *other arrays) -> (loss, *leaves of aux), its constants, and the unflattening of aux."""

    jaxpr: Jaxpr
    consts: Sequence[Any]
    aux: Callable[[list[Any]], PyTree]


def traced(loss: Callable[..., Any], given: Arguments, has_aux: bool) -> Traced:
    """Traces the loss of one example; errors of the loss itself get a note."""
    structure: list[Any] = []

    def flat(leaves: list[Any], mapped: list[Any]) -> Any:
        result = loss(*given.rebuilt(leaves, mapped))
        value, aux = _pair(given.where, result) if has_aux else (result, ())
        rest, tree = jax.tree.flatten(aux)
        structure.append(tree)
        return _checked(given.where, value, has_aux), rest

    traces: list[Any] = []

    def of_one(mapped: list[Any]) -> None:
        # Traced under vmap for the types that one example's arrays have there: varying over mesh axes inside shard_map,
        # and sharded on an Explicit mesh.
        traces.append(jax.make_jaxpr(flat)(list(given.leaves), mapped))

    try:
        jax.vmap(of_one, in_axes=(given.axes,), axis_size=given.examples)(given.mapped)
    except NameError as error:
        if "axis name" not in str(error):
            raise
        raise ValueError(
            f"{given.where}: the loss uses an axis name of vmap or pmap ({error}), as batch normalization in training "
            "mode does: per-example gradients are undefined here. Use running statistics (evaluation mode), GroupNorm "
            "or LayerNorm."
        ) from error
    except Exception as error:
        error.add_note(_note(given))
        raise
    closed = traces[-1]
    # JAX counts the name of a mesh axis as an effect; it is not a side effect.
    if effects := sorted(str(e) for e in closed.jaxpr.effects if type(e).__name__ != "NamedAxisEffect"):
        raise ValueError(
            f"{given.where}: the loss has side effects ({', '.join(effects)}): "
            "jax.debug.print, callbacks and the like. Remove them, and return such values as aux (has_aux=True)."
        )
    if names := sorted(_collectives(closed.jaxpr)):
        raise ValueError(
            f"{given.where}: the loss communicates between devices ({', '.join(names)}): per-example gradients are "
            f"undefined on one device. Parameters: gather them before {given.where} is called, by "
            "jax.lax.all_gather(shard, axis, tiled=True, to='invarying'). Examples or layers sharded over several "
            "devices: use jax.jit with NamedSharding instead of shard_map."
        )
    return Traced(closed.jaxpr, closed.consts, lambda rest: jax.tree.unflatten(structure[-1], rest))


def _collectives(jaxpr: Jaxpr) -> set[str]:
    """The operations that communicate over named axes, except those inside a `shard_map` of the loss itself."""
    found: set[str] = set()
    for equation in jaxpr.eqns:
        name = equation.primitive.name
        if name in SILENT:
            continue
        axes = equation.params.get("axes", equation.params.get("axis_name", ()))
        if any(isinstance(axis, str) for axis in (axes if isinstance(axes, tuple) else (axes,))):
            found.add(name)
        for inner in jax.tree.leaves(list(equation.params.values())):
            body: Any = getattr(inner, "jaxpr", inner)
            if hasattr(body, "eqns"):
                found |= _collectives(body)
    return found


def _note(given: Arguments) -> str:
    shapes = ", ".join(f"{x.dtype.name}{list(x.shape)}" for x in given.one_example())
    return f"{HINT.format(where=given.where)} Here the arrays of one example were: {shapes}."


def _pair(where: str, result: Any) -> tuple[Any, Any]:
    if not isinstance(result, tuple) or len(result) != 2:
        got = f"an array of shape {result.shape}" if hasattr(result, "shape") else type(result).__name__
        raise TypeError(f"{where}: with has_aux=True the loss must return a pair (loss, aux), got {got}.")
    return result


def _checked(where: str, value: Any, has_aux: bool) -> Any:
    if isinstance(value, tuple) and not has_aux:
        raise TypeError(
            f"{where}: the loss returned a tuple; a number was expected. For (loss, aux) pass has_aux=True."
        )
    if not hasattr(value, "dtype"):
        if not isinstance(value, int | float | complex):
            raise TypeError(
                f"{where}: the loss must return one number, got {type(value).__name__}. Other results are returned "
                "beside it, as (loss, aux), with has_aux=True."
            )
        value = jnp.asarray(value)
    if value.shape != ():
        raise ValueError(
            f"{where}: the loss of one example must be one number, of shape (), got shape {tuple(value.shape)}."
        )
    if not jnp.issubdtype(value.dtype, jnp.floating):
        raise TypeError(f"{where}: the loss must be a real floating number, got {value.dtype.name}.")
    return value
