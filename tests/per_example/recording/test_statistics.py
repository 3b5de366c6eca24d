"""Tapes of losses of many libraries: every statistic against the gradients of single examples by vmap(grad)."""

from __future__ import annotations

from typing import Any

import jax
import numpy as np
import pytest

from jaxnn import per_example
from tests.helpers import float64, random
from tests.per_example.cases import flat, gap, vector
from tests.per_example.oracles import CENTRED, EXACT, STATISTICS, Explicit, Given, parts_of
from tests.per_example.recording.losses import FALLEN, LOSSES, Made, N, make

FEW = ["sq_norms", "clipped_grad", "variance", "materialize"]
QUICK = ["mlp", "views", "fallbacks"]
"""Products, views of a parameter, and what has no rule; `test_random_programs` takes the operations together."""


def gaps(made: Made, names: list[str]) -> dict[str, float]:
    """How far statistics of a tape are from those of explicit gradients; one program for all. Called in float64."""
    data, other = ([x[part] for x in made.data] for part in (slice(N), slice(N, None)))
    direction = jax.tree.map(lambda p: random(p.size, *p.shape), made.params)
    weights, bound = random(5, N), 0.7
    record = per_example.record(made.loss)
    each = jax.vmap(jax.grad(made.loss), (None, *(0 for _ in made.data)))

    @jax.jit
    def both(params: Any, data: Any, other: Any) -> Any:
        given = Given(record(params, *data), record(params, *other), direction, weights, bound)
        return {name: STATISTICS[name].ours(given) for name in names}, each(params, *data), each(params, *other)

    found, g, h = both(made.params, data, other)
    explicit = Explicit(flat(g), flat(h), vector(direction), weights, bound, parts_of(made.params))
    return {name: gap(vector(found[name]), STATISTICS[name].expected(explicit).ravel()) for name in names}


@pytest.mark.parametrize("name", [n if n in QUICK else pytest.param(n, marks=pytest.mark.slow) for n in LOSSES])
def test_a_few_statistics(name: str) -> None:
    with float64():
        found = gaps(make(name, 2 * N), FEW)
    assert max(found.values()) <= EXACT, found


@pytest.mark.slow
@pytest.mark.parametrize("name", LOSSES)
def test_every_statistic(name: str) -> None:
    with float64():
        found = gaps(make(name, 2 * N), list(STATISTICS))
    assert max(found.values()) <= EXACT, found


@pytest.mark.slow
@pytest.mark.parametrize("name", LOSSES)
def test_what_falls_back_and_why(name: str) -> None:
    """No parameter of a library's layers but flax' concatenated cells: the table says which, and every one else has a
    rule."""
    with float64():
        made = make(name)
        plan = per_example.plan(jax.eval_shape(per_example.record(made.loss), made.params, *made.data))
    fallen = {row.path: row.strategy for row in plan if "whole" in row.uses}
    assert fallen == {path: f"as given ({why})" for path, why in FALLEN.get(name, {}).items()}


@pytest.mark.slow
def test_centred_variance_of_a_transposed_weight() -> None:
    with float64():
        made = make("mlp")
        tape = jax.jit(per_example.record(made.loss))(made.params, *made.data)
        g = flat(jax.jit(jax.vmap(jax.grad(made.loss), (None, 0, 0)))(made.params, *made.data))
        assert gap(vector(CENTRED.ours(Given(tape, None, None, None, None))), np.var(g, 0, ddof=1)) <= EXACT
