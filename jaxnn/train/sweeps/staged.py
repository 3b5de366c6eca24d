"""Runs in stages: a beginning, epochs that can be done in pieces, an end."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxnn.train.memo import memoized
from jaxnn.types import PyTree


class Staged(NamedTuple):
    """A run that can be saved between its epochs.

    Attributes:
        epochs: how many.
        begin: (given, *shared) -> the carry before the first.
        advance: (carry, given, e, *shared) -> (carry after epoch e, from 1; scalars that the epoch reports).
        end: (carry, given, *shared) -> a tuple, the results besides the reports.
    """

    epochs: int
    begin: Callable[..., PyTree]
    advance: Callable[..., tuple[PyTree, PyTree]]
    end: Callable[..., tuple[PyTree, ...]]


class Stages(NamedTuple):
    """The functions of a staged run that are compiled. Of reports the last axis is that of epochs.

    Attributes:
        epochs: how many.
        whole: (given, *shared) -> (reports, *results).
        begin: (given, *shared) -> carry.
        piece: count -> the function ((carry, given), done, *shared) -> (carry after `count` more epochs, reports).
        end: ((carry, given), *shared) -> results.
    """

    epochs: int
    whole: Callable[..., PyTree]
    begin: Callable[..., PyTree]
    piece: Callable[[int], Callable[..., tuple[PyTree, PyTree]]]
    end: Callable[..., tuple[PyTree, ...]]


@memoized
def alone(run: Staged) -> Stages:
    """The functions of one run."""

    @memoized
    def piece(count: int) -> Callable[..., tuple[PyTree, PyTree]]:
        def some(at: tuple[PyTree, PyTree], done: Any, *shared: PyTree) -> tuple[PyTree, PyTree]:
            carry, given = at
            numbers = done + jnp.arange(1, count + 1, dtype=jnp.int32)
            return jax.lax.scan(lambda c, e: run.advance(c, given, e, *shared), carry, numbers)

        return some

    def whole(given: PyTree, *shared: PyTree) -> PyTree:
        carry, reports = piece(run.epochs)((run.begin(given, *shared), given), jnp.int32(0), *shared)
        return reports, *run.end(carry, given, *shared)

    return Stages(run.epochs, whole, run.begin, piece, lambda at, *shared: run.end(*at, *shared))


@memoized
def alike(run: Staged) -> Stages:
    """The functions of runs side by side that differ in the first entry of what is given, their settings, alone.

    Their minibatches are the same: `vmap` over the setting alone permutes and gathers them once, and the first layers
    of all these networks become one matrix product.
    """
    one = alone(run)

    def given_by(settings_first: Callable[..., Any]) -> Callable[..., Any]:
        def each(given: Any, *shared: PyTree) -> Any:
            settings, *rest = given
            return jax.vmap(lambda setting: settings_first((setting, *rest), *shared))(settings)

        return each

    def at_each(function: Callable[..., Any]) -> Callable[..., Any]:
        def each(at: tuple[PyTree, Any], *others: PyTree) -> Any:
            carry, (settings, *rest) = at
            return jax.vmap(lambda c, setting: function((c, (setting, *rest)), *others))(carry, settings)

        return each

    pieces = memoized(lambda count: at_each(one.piece(count)))
    return Stages(run.epochs, given_by(one.whole), given_by(one.begin), pieces, at_each(one.end))


def joined(reports: list[PyTree]) -> PyTree:
    """The reports of successive pieces as one."""
    return jax.tree.map(lambda *parts: np.concatenate(parts, axis=-1), *reports)
