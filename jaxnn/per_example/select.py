"""Parts of a tape, and the checks that its statistics share."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import jax

from jaxnn.tape import Columns, Tape, errors_of


def select(tape: Tape, layer: str | Sequence[str]) -> Tape:
    """The tape of some of the parameters: every statistic of it is that of a network in which only these are trained.

    Layers that couple the examples go on doing so, wherever they stand: its statistics raise as those of the whole do.

    Args:
        tape: any tape.
        layer: the beginning of a path, such as "[0]" or "[0]['w']", or several.

    Returns:
        A tape with None in place of all other parameters.

    Raises:
        TypeError: not a tape.
        ValueError: no parameter has such a path, or no path is given.

    Example:
        >>> from jaxnn.per_example.sample import sample_tape
        >>> select(sample_tape(), "['w']").paths
        ("['w']",)
    """
    require_tape("select", tape)
    prefixes = (layer,) if isinstance(layer, str) else tuple(layer) if isinstance(layer, Sequence) else ()
    if not prefixes or not all(isinstance(prefix, str) for prefix in prefixes):
        raise ValueError(f"select: expected the beginning of a path such as '[0]', or several, got {layer!r}.")
    for prefix in prefixes:
        if not any(_begins(path, prefix) for path in tape.paths):
            raise ValueError(
                f"per_example: no parameter has a path that begins with {prefix!r}; there are {tape.paths}."
            )
    kept = [any(_begins(path, prefix) for prefix in prefixes) for path in tape.paths]

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


def _begins(path: str, prefix: str) -> bool:
    """Whether the path begins with the whole keys of a prefix: "[1]" is no beginning of "[10]"."""
    rest = path.removeprefix(prefix)
    return path.startswith(prefix) and (not rest or rest[0] in "[.")


def layers_of(tape: Tape) -> tuple[str, ...]:
    """For each parameter, in the order of `tape.paths`, the path of the layer that holds it.

    Example:
        >>> from jaxnn.per_example.sample import sample_tape
        >>> layers_of(sample_tape())
        ('', '')
    """
    places, _ = jax.tree_util.tree_flatten_with_path(jax.tree.unflatten(tape.structure, range(len(tape.paths))))
    return tuple(jax.tree_util.keystr(path[:-1]) for path, _ in places)


def require_tape(where: str, tape: object) -> None:
    """Raise unless this is a tape of `backprop.record` or `per_example.record`.

    Raises:
        TypeError: something else, such as `Columns`.

    Example:
        >>> require_tape("norms", 3)
        Traceback (most recent call last):
        TypeError: norms: expected a Tape, as per_example.record(loss)(params, x, y) makes it, ... got int.
    """
    if isinstance(tape, Tape):
        return
    about = " Its .at(column) is the tape of one column." if isinstance(tape, Columns) else ""
    raise TypeError(
        f"{where}: expected a Tape, as per_example.record(loss)(params, x, y) makes it, or backprop.record, "
        f"got {type(tape).__name__}.{about}"
    )


def require_columns(where: str, columns: object, at_least: int = 1) -> None:
    """Raise unless these are `Columns` of at least so many examples that do not see each other.

    Raises:
        TypeError: something else, such as a tape.
        ValueError: as of `require_independent`; deltas that do not have C columns of N examples.

    Example:
        >>> require_columns("trace", 3)
        Traceback (most recent call last):
        TypeError: trace: expected Columns, which backprop.ggn_record or output_record makes, got int.
    """
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
                f"got shape {error.shape}. To join the examples of several devices, gather the inputs "
                "(jax.lax.all_gather(x, axis, tiled=True)) and record them, not the arrays of Columns."
            )


def require_independent(where: str, tape: Tape, at_least: int = 0) -> None:
    """Raise unless examples have gradients of their own, and there are enough of them.

    Raises:
        TypeError: not a tape.
        ValueError: the tape went through a layer in which examples see each other, or holds too few examples.

    Example:
        >>> from jaxnn.per_example.sample import sample_tape
        >>> require_independent("variance", sample_tape(), 3)
        Traceback (most recent call last):
        ValueError: variance: needs at least 3 examples, got a tape of 2.
    """
    require_tape(where, tape)
    if tape.coupled:
        raise ValueError(
            f"{where}: a single example has no gradient of its own here: in {', '.join(tape.coupled)} every example's "
            "loss depends on the whole batch. Record with train=False, where the statistics are constants, or use "
            "GroupNorm or LayerNorm. mean_grad is exact all the same."
        )
    if tape.examples < at_least:
        plural = "" if at_least == 1 else "s"
        raise ValueError(f"{where}: needs at least {at_least} example{plural}, got a tape of {tape.examples}.")
