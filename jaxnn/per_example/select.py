"""Parts of a tape, and the checks that its statistics share."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import jax

from jaxnn.tape import Tape


def select(tape: Tape, layer: str | Sequence[str]) -> Tape:
    """The tape of some of the parameters: every statistic of it is that of a network in which only these are trained.

    Args:
        tape: any tape.
        layer: the beginning of a path, such as "[0]" or "[0]['w']", or several.

    Returns:
        A tape with None in place of all other parameters.

    Raises:
        ValueError: no parameter has such a path.

    Example:
        >>> from jaxnn.per_example.sample import sample_tape
        >>> select(sample_tape(), "['w']").paths
        ("['w']",)
    """
    prefixes = (layer,) if isinstance(layer, str) else tuple(layer)
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


def require_independent(where: str, tape: Tape, at_least: int = 0) -> None:
    """Raise unless examples have gradients of their own, and there are enough of them.

    Raises:
        ValueError: the tape went through a layer in which examples see each other, or holds too few examples.

    Example:
        >>> from jaxnn.per_example.sample import sample_tape
        >>> require_independent("variance", sample_tape(), 3)
        Traceback (most recent call last):
        ValueError: variance: needs at least 3 examples, got a tape of 2.
    """
    if tape.coupled:
        raise ValueError(
            f"{where}: a single example has no gradient of its own here: in {', '.join(tape.coupled)} every example's "
            "loss depends on the whole batch. Record with train=False, where the statistics are constants, or use "
            "GroupNorm or LayerNorm. mean_grad is exact all the same."
        )
    if tape.examples < at_least:
        plural = "" if at_least == 1 else "s"
        raise ValueError(f"{where}: needs at least {at_least} example{plural}, got a tape of {tape.examples}.")
