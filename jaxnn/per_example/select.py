"""Parts of a tape, and the checks that its statistics share."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Sequence

import jax

from jaxnn.checks import count_of
from jaxnn.tape import Columns, Tape, errors_of


def select(tape: Tape, layer: str | Sequence[str]) -> Tape:
    """The tape restricted to some parameters, None in place of the others: statistics as if only these were trained.

    A layer that couples the examples does so wherever it is: statistics of the restricted tape raise as well.

    Args:
        tape: any tape.
        layer: a prefix of the parameters' paths, such as "[0]" or "[0]['w']", or several.

    Raises:
        TypeError: not a tape.
        ValueError: no path has this prefix, or no prefix.

    Example:
        >>> from jaxnn.per_example.sample import sample_tape
        >>> select(sample_tape(), "['w']").paths
        ("['w']",)
    """
    require_tape("select", tape)
    prefixes = (layer,) if isinstance(layer, str) else tuple(layer) if isinstance(layer, Sequence) else ()
    if not prefixes or not all(isinstance(prefix, str) for prefix in prefixes):
        raise ValueError(f"select: expected a prefix of a path such as '[0]', or several, got {layer!r}.")
    for prefix in prefixes:
        if not any(begins(path, prefix) for path in tape.paths):
            raise ValueError(
                f"per_example: no parameter has a path that begins with {prefix!r}; there are {tape.paths}."
            )
    kept = [any(begins(path, prefix) for prefix in prefixes) for path in tape.paths]

    def those(values: Sequence) -> tuple:  # type: ignore[type-arg]
        return tuple(value for value, keep in zip(values, kept, strict=True) if keep)

    marks = jax.tree.unflatten(tape.structure, [0 if keep else None for keep in kept])
    return dataclasses.replace(
        tape,
        uses=those(tape.uses),
        paths=those(tape.paths),
        leaves=those(tape.leaves),
        structure=jax.tree.structure(marks),
    )


def begins(path: str, prefix: str) -> bool:
    """Whether the path starts with all keys of the prefix: "[1]" is not a prefix of "[10]"."""
    rest = path.removeprefix(prefix)
    return path.startswith(prefix) and (not rest or rest[0] in "[.")


LAST_KEY = re.compile(r"""(\[('[^']*'|"[^"]*"|[^\[\]'"]*)\]|\.\w+)$""")


def layers_of(paths: Sequence[str]) -> list[str]:
    """The path of each parameter's layer: its own without the last key.

    A last key `.value` that has no others beside it is left out first: `flax.nnx` stores each array in a variable.

    Example:
        >>> layers_of(["[1]['w']", "['a.b'].scale", "['w']", "['c']['w'].value", ".q.value", ".q.key"])
        ['[1]', "['a.b']", '', "['c']", '.q', '.q']
    """

    def bare(path: str) -> str:
        stem = path.removesuffix(".value")
        return stem if sum(begins(other, stem) for other in paths) == 1 else path

    return [LAST_KEY.sub("", bare(path) if path.endswith(".value") else path) for path in paths]


def require_tape(where: str, tape: object) -> None:
    """Raises TypeError unless this is a tape of `backprop.record` or `per_example.record`."""
    if isinstance(tape, Tape):
        return
    about = " Its .at(column) is the tape of one column." if isinstance(tape, Columns) else ""
    raise TypeError(
        f"{where}: expected a Tape, as per_example.record(loss)(params, x, y) makes it, or backprop.record, "
        f"got {type(tape).__name__}.{about}"
    )


def require_columns(where: str, columns: object, at_least: int = 1) -> None:
    """Raises unless these are `Columns` of at least so many uncoupled examples, with deltas (C, N, ...)."""
    if not isinstance(columns, Columns):
        raise TypeError(
            f"{where}: expected Columns, which backprop.ggn_record or output_record makes, "
            f"got {type(columns).__name__}."
        )
    require_independent(where, columns.tape, at_least)
    expected = columns.count, columns.tape.examples
    for error in jax.tree.leaves(errors_of(columns.tape)):
        if error.shape[:2] != expected:
            raise ValueError(
                f"{where}: expected deltas (C, N, ...) with C = {expected[0]} columns of N = {expected[1]} examples, "
                f"got shape {error.shape}. To combine the examples of several devices, gather the inputs "
                "(jax.lax.all_gather(x, axis, tiled=True)) and record them, not the arrays of Columns."
            )


def require_independent(where: str, tape: Tape, at_least: int = 0) -> None:
    """Raises unless per-example gradients are defined and there are at least so many examples."""
    require_tape(where, tape)
    if tape.coupled:
        raise ValueError(
            f"{where}: per-example gradients are undefined here: in {', '.join(tape.coupled)} every example's loss "
            "depends on the whole batch. Record with train=False, where the statistics are constants, or use "
            "GroupNorm or LayerNorm. mean_grad is exact nonetheless."
        )
    if tape.examples < at_least:
        raise ValueError(f"{where}: needs at least {count_of(at_least, 'example')}, got a tape of {tape.examples}.")
