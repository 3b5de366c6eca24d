"""Every statistic of a tape against the gradients of single examples by jax.vmap(jax.grad)."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxnn import backprop, losses, models, per_example
from jaxnn.layers import Dense, Dropout, Tanh
from jaxnn.ops import steps
from jaxnn.per_example import blocks, measures
from jaxnn.tape import Scaling, Whole
from tests.backprop.checking import drawn
from tests.helpers import float64, random
from tests.per_example.cases import CASES, flat, gap, make, vector
from tests.per_example.oracles import CENTRED, EXACT, SINGLE, error, gaps

SHORT = ["mlp"]
"""The nets on which the quick suite takes every statistic."""

FAMILIES = ["embedding", "lstm_padded", "own_layers"]
"""Lookups, recurrences, and layers of a user's own; `test_programs` takes a convolution, `test_norms_in_small_chunks` a
sequence."""


def _slow_but(name: str, quick: list[str]) -> Any:
    return name if name in quick else pytest.param(name, marks=pytest.mark.slow)


@pytest.mark.parametrize("name", [_slow_but(name, SHORT) for name in CASES])
def test_statistics_equal_those_of_explicit_gradients(name: str) -> None:
    found = gaps(name)
    assert max(found.values()) <= EXACT, found


@pytest.mark.parametrize("name", FAMILIES)
def test_one_net_of_each_family(name: str) -> None:
    found = gaps(name, ["sq_norms", "variance"])
    assert max(found.values()) <= EXACT, found


@pytest.mark.slow
@pytest.mark.parametrize("name", CASES)
def test_in_float32(name: str) -> None:
    found = gaps(name, dtype=np.float32)
    assert max(found.values()) <= SINGLE, found


SMALL = ["mlp", "cnn", "conv_groups", "conv_gram", "embedding", "sequence", "sequence_gram"]


def _small_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(blocks, "CHUNK_BYTES", 700)
    monkeypatch.setattr(measures, "AT_ONCE", 4)
    monkeypatch.setattr(steps, "CPU_BYTES", 700)


@pytest.mark.slow
@pytest.mark.parametrize("name", SMALL)
def test_in_small_chunks(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    _small_chunks(monkeypatch)
    found = gaps(name)
    assert max(found.values()) <= EXACT, found


@pytest.mark.slow
def test_norms_in_small_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    _small_chunks(monkeypatch)
    found = gaps("sequence", ["sq_norms"])
    assert max(found.values()) <= EXACT, found


@pytest.mark.parametrize(
    "name", [_slow_but(name, ["mlp"]) for name in ["mlp", "linear_no_bias", "conv_one_position", "layer_norm"]]
)
def test_centred_variance_is_the_variance(name: str) -> None:
    assert error(name, CENTRED) <= EXACT


def test_centred_variance_needs_one_position() -> None:
    with pytest.raises(ValueError, match=r"\[0\]\['w'\] is used at 4 positions"):
        jax.eval_shape(per_example.variance_centred, make("sequence", np.float32).abstract)


@pytest.mark.slow
def test_in_training_mode_each_example_keeps_its_mask() -> None:
    """Dropout draws one mask for the batch: the oracle differentiates each loss of the whole batch."""
    net = models.serial(Dense(4), Dropout(0.3), Tanh, Dense(5), Dropout(0.5), Dense(3))
    with float64():
        x, y, key = jnp.asarray(random(0, 5, 4)), jnp.asarray(np.array([0, 1, 2, 0, 1])), jax.random.key(3)
        params, state = drawn(net, x)

        @jax.jit
        def both(params: Any) -> Any:
            def each(params: Any) -> Any:
                return losses.softmax_cross_entropy(net.apply(params, state, x, key=key, train=True)[0], y)

            tape = backprop.record(net, losses.softmax_cross_entropy)(params, state, x, y, key=key, train=True)
            clipped, norms = per_example.clipped_grad(tape, 0.5)
            return (per_example.materialize(tape), norms, clipped), jax.jacrev(each)(params)

        (materialized, norms, clipped), oracle = both(params)
        g = flat(oracle)
        sizes = np.linalg.norm(g, axis=1)
        assert gap(flat(materialized), g) <= EXACT
        assert gap(norms, sizes) <= EXACT
        assert gap(vector(clipped), np.minimum(1, 0.5 / sizes) @ g) <= EXACT


def test_a_layer_of_ones_own_is_recorded_with_its_rule_and_without() -> None:
    """The net of `test_one_net_of_each_family` holds both: one falls back to jax.vjp, and the table says so."""
    net, tape = CASES["own_layers"].net, make("own_layers", np.float32).abstract
    assert [row.rule for row in backprop.coverage(net).rows] == ["by hand", "jax.vjp", "by hand", "by hand"]
    uses = dict(zip(tape.paths, tape.uses, strict=True))
    assert isinstance(uses["[1]['s']"][0], Whole)
    assert isinstance(uses["[2]['s']"][0], Scaling)
    assert {row.path: row.strategy for row in per_example.plan(tape)}["[1]['s']"] == "as given"


def test_half_precision_is_accumulated_in_float32() -> None:
    made = make("mlp", np.float32)
    half = jax.tree.map(lambda p: p.astype(jnp.bfloat16), made.params)

    @jax.jit
    def statistics(params: Any, state: Any, x: Any, y: Any) -> Any:
        tape = made.record(params, state, x, y)
        return per_example.clipped_grad(tape, 0.5), per_example.variance(tape), per_example.materialize(tape)

    (sums, norms), variance, materialized = statistics(half, made.state, made.x.astype(jnp.bfloat16), made.y)
    assert norms.dtype == np.float32
    assert {leaf.dtype for leaf in jax.tree.leaves(sums)} == {jnp.dtype(jnp.bfloat16)}
    assert {leaf.dtype for leaf in jax.tree.leaves(variance)} == {np.dtype(np.float32)}
    assert gap(norms, np.linalg.norm(flat(materialized), axis=1)) < 1e-6
