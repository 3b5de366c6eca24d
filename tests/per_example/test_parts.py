"""Selection of layers, microbatches, noise over batches, plans, error messages."""

from __future__ import annotations

import re
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxnn import models, per_example
from jaxnn.layers import Dense
from jaxnn.tape import Tape, Whole
from tests.helpers import assert_close, float64, random, slow
from tests.per_example.cases import flat, gap, make, tape_of, vector


@jax.jit
def _of_parts(tape: Any) -> Any:
    return (
        per_example.sq_norms(tape, "[1]"),
        per_example.sq_norms(tape, "[3]['w']"),
        per_example.sq_norms(tape, ["[1]", "[3]"]),
        per_example.variance(per_example.select(tape, "[3]")),
        per_example.sq_norms_by_layer(tape),
        per_example.sq_norms_by_parameter(tape),
    )


def test_selected_layers() -> None:
    with float64():
        made = make("mlp")
        first, weight, all_of_it, variance, by_layer, by_parameter = _of_parts(made.tape)
        grads = made.grads()
        layer_1, weight_3, layer_3 = flat(grads[1]), flat(grads[3]["w"][:, None]), flat(grads[3])
        assert gap(first, (layer_1**2).sum(1)) < 1e-12
        assert gap(weight, (weight_3**2).sum(1)) < 1e-12
        assert gap(all_of_it, (flat(grads) ** 2).sum(1)) < 1e-12
        assert list(by_layer) == ["[1]", "[3]"]
        assert list(by_parameter) == ["[1]['b']", "[1]['w']", "[3]['b']", "[3]['w']"]
        assert gap(by_layer["[1]"], first) < 1e-12
        assert gap(by_parameter["[3]['w']"], weight) < 1e-12
        assert variance[1] == {"b": None, "w": None}
        assert gap(vector(variance[3]), layer_3.var(0)) < 1e-10


def test_one_digit_is_not_the_beginning_of_another() -> None:
    net = models.serial(*[Dense(2)] * 11)
    params, _ = jax.eval_shape(lambda: net.init(jax.random.key(0), (2,)))
    paths = [jax.tree_util.keystr(path) for path, _ in jax.tree_util.tree_flatten_with_path(params)[0]]
    assert sum(path.startswith("[1") for path in paths) == 4
    leaves, structure = jax.tree.flatten(params)
    shapes = tuple(jax.ShapeDtypeStruct(p.shape, p.dtype) for p in leaves)
    tape = Tape(np.zeros(1), np.zeros(1), ((),) * len(leaves), tuple(paths), structure, shapes)
    kept = per_example.select(tape, "[1]")
    assert kept.paths == ("[1]['b']", "[1]['w']")
    tape = make("mlp", np.float32).tape
    with pytest.raises(ValueError, match=re.escape("no parameter has a path that begins with '[2]'")):
        per_example.norms(tape, "[2]")
    with pytest.raises(ValueError, match="no parameter"):
        per_example.norms(tape, "[")


@pytest.mark.parametrize("size", [4, *slow(1, 2, 6, 9)])
def test_microbatches(size: int) -> None:
    with float64():
        made = make("conv_stride")

        def clipped(x: Any, y: Any) -> Any:
            return per_example.clipped_grad(made.record(made.params, made.state, x, y), 0.5)

        sums, norms = jax.jit(lambda x, y: per_example.over_microbatches(clipped, (x, y), size))(made.x, made.y)
        g = flat(made.grads())
        assert gap(norms, np.linalg.norm(g, axis=1)) < 1e-10
        assert gap(vector(sums), np.minimum(1, 0.5 / np.linalg.norm(g, axis=1)) @ g) < 1e-10


@pytest.mark.slow
def test_tapes_of_microbatches_laid_end_to_end() -> None:
    with float64():
        made = make("sequence")

        @jax.jit
        def variance(x: Any, y: Any) -> Any:
            def recorded(x: Any, y: Any) -> Any:
                return (), made.record(made.params, made.state, x, y)

            tape = per_example.over_microbatches(recorded, (x, y), 4)[1]
            return per_example.variance(tape), tape

        found, tape = variance(made.x, made.y)
        assert_close(tape, made.tape, rtol=1e-12, atol=1e-13)
        assert gap(vector(found), flat(made.grads()).var(0)) < 1e-10


def test_microbatch_errors() -> None:
    with pytest.raises(ValueError, match="must return the pair"):
        per_example.over_microbatches(lambda x: x, (np.ones(4),), 2)
    with pytest.raises(ValueError, match="with the same N"):
        per_example.over_microbatches(lambda x, y: ((), x), (np.ones(4), np.ones(3)), 2)
    with pytest.raises(ValueError, match="with the same N"):
        per_example.over_microbatches(lambda x: ((), x), (np.ones((0, 2)),), 2)
    with pytest.raises(ValueError, match="size must be at least 1"):
        per_example.over_microbatches(lambda x: ((), x), (np.ones(4),), 0)


def test_noise_scale_is_unbiased_and_averages_before_dividing() -> None:
    """Gradients of known mean and covariance: 400 batches of 5 give both within four standard errors."""
    mean, batches, n, d = 0.3, 400, 5, 8
    g = mean + random(0, batches, n, d, dtype=np.float32)

    def tape(grads: Any) -> Any:
        return tape_of(jnp.zeros(n), grads, {"w": np.zeros(d, np.float32)}, {"w": (Whole(grads),)})

    def step(carry: Any, grads: Any) -> tuple[Any, Any]:
        new = per_example.noise_scale(tape(grads))
        return per_example.noise_scale(tape(grads), carry), (new.trace, new.sq_norm)

    @jax.jit
    def over_batches(g: Any) -> Any:
        found, of_batches = jax.lax.scan(step, per_example.NoiseScale.zero(), g)
        return found.means, found.scale, found.batches, of_batches

    (trace, signal), scale, number, (traces, signals) = jax.tree.map(np.asarray, over_batches(g))
    assert abs(trace - d) < 4 * np.std(traces) / batches**0.5
    assert abs(signal - d * mean**2) < 4 * np.std(signals) / batches**0.5
    assert number == batches
    assert abs(scale - trace / signal) < 1e-3 * scale


def test_noise_scale_takes_two_examples() -> None:
    with pytest.raises(ValueError, match="noise_scale: needs at least 2 examples, got a tape of 1"):
        per_example.noise_scale(make("mlp", np.float32, n=1).abstract)
    with pytest.raises(ValueError, match="variance: needs at least 2 examples"):
        per_example.variance(make("mlp", np.float32, n=1).abstract, ddof=1)


def test_the_plan_follows_the_shapes() -> None:
    rows = {row.path: row for row in per_example.plan(make("cnn", np.float32).abstract)}
    assert rows["[0]['w']"].strategy == "materialize in chunks"
    assert rows["[0]['w']"].positions == 49
    assert rows["[0]['w']"].flops == 2 * 6 * (49 + 1) * 18 * 4
    assert rows["[6]['w']"].strategy == "norm product"
    assert rows["[0]['b']"].strategy == "sum over positions"
    gram = per_example.plan(make("conv_gram", np.float32).abstract)[1]
    assert gram.strategy == "Gram"
    assert gram.flops == 2 * 6 * 4**2 * (72 + 30 + 1)
    assert per_example.plan(make("embedding", np.float32).abstract)[0].strategy == "sum over equal indices"


def test_the_plan_needs_no_numbers() -> None:
    made = make("sequence", np.float32)
    shapes = made.abstract
    assert per_example.plan(shapes) == per_example.plan(made.tape)
    table = str(per_example.plan(shapes))
    assert "materialize in chunks" in table
    assert len(table.splitlines()) == len(shapes.paths) + 4  # heads, two lines, total


def test_layer_bounds() -> None:
    made, bounds = make("mlp", np.float32), {"[1]": 0.1, "[3]": per_example.automatic(0.2)}
    tape = made.tape
    sums, norms = jax.jit(lambda tape: per_example.clipped_grad_by_layer(tape, bounds))(tape)
    assert set(norms) == {"[1]", "[3]"}
    first, second = flat(made.grads()[1]), flat(made.grads()[3])
    assert gap(vector(sums[1]), np.minimum(1, 0.1 / np.linalg.norm(first, axis=1)) @ first) < 1e-5
    assert gap(vector(sums[3]), (0.2 / (np.linalg.norm(second, axis=1) + 0.01)) @ second) < 1e-5
    with pytest.raises(ValueError, match="expected a bound for each of"):
        per_example.clipped_grad_by_layer(tape, {"[1]": 0.1})


def test_argument_errors() -> None:
    tape = make("mlp", np.float32).abstract
    with pytest.raises(ValueError, match=r"got shape \(6, 1\)"):
        per_example.weighted_grad(tape, np.ones((6, 1)))
    with pytest.raises(ValueError, match="must map norms"):
        jax.eval_shape(lambda tape: per_example.clipped_grad(tape, lambda norms: jnp.ones(())), tape)
    with pytest.raises(ValueError, match=r"flat: bound must lie in \[0, inf\]"):
        jax.eval_shape(lambda tape: per_example.clipped_grad(tape, -1.0), tape)
    with pytest.raises(ValueError, match="the same parameters"):
        per_example.gram(tape, make("residual", np.float32).abstract)
    with pytest.raises(ValueError, match="a pytree like params"):
        per_example.jvp_examples(tape, {})
    with pytest.raises(ValueError, match="empty batch"):
        per_example.mean_grad(make("mlp", np.float32, n=0).abstract)
