"""Broken streamed passes. Each is caught by a test of this folder, named beside it, that the right one passes."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.custom_batching import custom_vmap

from jaxnn.ops.views import View
from jaxnn.per_example.recording.preparing import reading_of
from jaxnn.per_example.streaming import clipping, gradient, norms, program, rule, running, sites
from jaxnn.per_example.streaming.moments import SecondMoment
from jaxnn.per_example.streaming.statistic import Gradients
from jaxnn.tape import Addition
from tests.per_example.streaming import test_arguments as arguments
from tests.per_example.streaming import test_clipping as clipped
from tests.per_example.streaming import test_projections as projections
from tests.per_example.streaming import test_statistics as statistics
from tests.per_example.streaming.losses import QUICK

Patch = pytest.MonkeyPatch


class Mutant(NamedTuple):
    """A broken variant, and the test, with its arguments, that fails on it."""

    name: str
    breaks: Callable[[Patch], None]
    test: Callable[..., None]
    arguments: tuple[Any, ...]


def instead(owner: Any, name: str, broken: Callable[..., Any]) -> Callable[[Patch], None]:
    """broken(the right one, its arguments) in place of a function."""

    def breaks(patch: Patch) -> None:
        right = getattr(owner, name)
        patch.setattr(owner, name, lambda *args, **kwargs: broken(right, *args, **kwargs))

    return breaks


def _no_biases(patch: Patch) -> None:
    right = Gradients.sq_norms.fget  # type: ignore[attr-defined]

    def broken(self: Gradients) -> Any:
        return right(self) * (not isinstance(self.uses[0], Addition))

    patch.setattr(Gradients, "sq_norms", property(broken))


def _outer_dropped(right: Any, body: Any, i: int, param: Any) -> Any:
    found = right(body, i, param)
    return None if found is None else found._replace(outer=1.0)


def _repeats_entered(right: Any, body: Any, i: int, param: Any) -> Any:
    class Injective(View):
        repeats = False

    view = param.view
    return right(body, i, param._replace(view=Injective(view.source, view.steps)))


def _all_streamed(right: Any, jaxpr: Any, leaves: Any) -> set[int]:
    """Uses that share entries as if they did not."""
    there = set(range(len(leaves))) - set(reading_of(jaxpr, leaves).fallen)
    return there - set(sites.local_reading(jaxpr, leaves, there).fallen)


def _first_use(right: Any, self: Any, seen: Any, deltas: Any) -> Any:
    return {i: uses[:1] for i, uses in right(self, seen, deltas).items()}


def _averaged(right: Any, f: Any, each: Any, shared: Any, places: Any) -> Any:
    def mean(each: Any, shared: Any) -> Any:
        sums, rows = f(each, shared)
        return jax.tree.map(lambda x: x / jax.tree.leaves(rows)[0].shape[0], sums), rows

    return right(mean, each, shared, places)


def _one_sum_each(right: Any, f: Any, each: Any, shared: Any, places: Any) -> Any:
    """Sums that come back as batched: vmap adds N of them."""

    @custom_vmap
    def of_one(each: Any, shared: Any) -> Any:
        return right(f, each, shared, places)

    @of_one.def_vmap
    def _(size: int, batched: Any, each: Any, shared: Any) -> Any:
        rows = jax.tree.map(lambda x, b: x if b else jnp.broadcast_to(x, (size, *x.shape)), each, batched[0])
        sums, found = f(rows, shared)
        sums = jax.tree.map(lambda x: jnp.broadcast_to(x, (size, *x.shape)), sums)
        return (sums, found), (jax.tree.map(lambda _: True, sums), jax.tree.map(lambda _: True, found))

    return of_one(each, shared)


def _first_like(right: Any, *args: Any) -> Any:
    sums, like, number = right(*args)
    return sums, jax.tree.map(lambda x: jnp.broadcast_to(x[:1], x.shape), like), number


def _one_number(right: Any, *args: Any) -> Any:
    sums, like, number = right(*args)
    return sums, like, jnp.zeros_like(number)


def _same_operation(right: Any, *args: Any) -> Any:
    found = right(*args)
    return found._replace(numbers=dict.fromkeys(found.numbers, 0))


def _unscaled(right: Any, site: Any, part: Any, seen: Any, delta: Any, outer: float) -> Any:
    return right(site, part._replace(param=part.param._replace(scale=1.0)), seen, delta, outer)


def _of_all(right: Any, self: Any, found: Any, batch: Any) -> Any:
    return right(self, found, batch._replace(kept=batch.examples))


def _sizes_squared(right: Any, self: Any, gradients: Any, part: Any) -> Any:
    return sum((jnp.square(norms.size_of(use)) for use in gradients.uses), jnp.zeros(gradients.examples))


HARD, LIKE_VMAP = statistics.test_hard_losses, statistics.test_every_statistic
REMOVED, UNBIASED = arguments.test_rows_of_weight_0_are_removed_exactly, projections.test_inner_products_are_unbiased

MUTANTS = [
    Mutant("the 1 of the bias missed", _no_biases, HARD, ("biases of a loop",)),
    Mutant("factor ahead of a loop dropped", instead(sites, "_as_slice", _outer_dropped), HARD,
           ("factor ahead of a loop",)),
    Mutant("factor of a slice dropped", instead(rule, "_use", _unscaled), HARD, ("views ahead of a loop",)),
    Mutant("repeated slices as if apart", instead(sites, "_as_slice", _repeats_entered), HARD,
           ("biases broadcast ahead of a loop",)),
    Mutant("tied counted as streamed", instead(program, "streamed_leaves", _all_streamed), HARD,
           ("jit called twice, tied",)),
    Mutant("overlapping slices as if apart", lambda patch: patch.setattr(View, "apart_from", lambda *_: True), HARD,
           ("overlapping parts of a stack in two loops",)),
    Mutant("a second use missed", instead(program.Program, "rest", _first_use), HARD, ("jit called twice, tied",)),
    Mutant("sums averaged", instead(rule, "from_all_examples", _averaged), HARD, ("positions",)),
    Mutant("sums counted N times", instead(rule, "from_all_examples", _one_sum_each), HARD, ("positions",)),
    Mutant("positions summed before they are squared",
           lambda patch: patch.setattr(rule, "of_each_example", lambda x, mark: x), HARD, ("positions",)),
    Mutant("positions of a loop summed before they are squared",
           lambda patch: patch.setattr(rule, "of_each_example", lambda x, mark: x), HARD, ("positions in a loop",)),
    Mutant("slices of a direction not sliced", instead(running, "_slices", _first_like), HARD, ("loops in loops",)),
    Mutant("weights squared", instead(gradient, "weighted", lambda right, each, w: right(each, w**2)),
           statistics.test_weights, ("mlp",)),
    Mutant("moments of all examples, removed ones too", instead(SecondMoment, "combine", _of_all),
           statistics.test_weights, ("mlp",)),
    Mutant("removed rows computed", instead(gradient, "without_removed", lambda right, given, w: given.mapped), REMOVED,
           ("mlp", np.nan, (0, 1, 2, 0, -1))),
    Mutant("groups without their share of the bound",
           instead(clipping, "_bounds", lambda right, clip, slices: dict.fromkeys(slices, clip)),
           clipped.test_by_parameter, (None,)),
    Mutant("slices of a stack counted as one group",
           instead(clipping, "slices_of", lambda right, jaxpr, leaves: [1] * len(leaves)),
           clipped.test_by_parameter, (None,)),
    Mutant("the second pass without its factors",
           instead(clipping, "gradient_of_sum", lambda right, found, given, w: right(found, given, w * 0 + 1)),
           clipped.test_flat_clipping, (QUICK[0], "two passes")),
    Mutant("removed rows not zeroed", instead(gradient, "zero_where", lambda right, removed, tree: tree), REMOVED,
           ("mlp", np.nan, (0, 1, 2, 0, -1))),
    Mutant("one random matrix for all slices of a loop", instead(running, "_slices", _one_number), UNBIASED,
           ("slices of a loop",)),
    Mutant("one random matrix for two slices", instead(gradient, "asked_of", _same_operation), UNBIASED,
           ("slices that are concatenated again",)),
    Mutant("sizes of uses added after the square", instead(norms.Margin, "of_use", _sizes_squared),
           statistics.test_the_margin_is_that_of_safe_norms, ("tied_autoencoder",)),
]  # fmt: skip

right_one_passes = functools.cache(lambda test, arguments: test(*arguments))
