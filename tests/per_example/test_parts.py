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
from tests.helpers import assert_close, float64, random
from tests.per_example.cases import flat, gap, make, vector


def test_selected_layers() -> None:
    with float64():
        made = make("mlp")
        tape, grads = made.tape, made.grads()
        assert gap(per_example.sq_norms(tape, "[1]"), (flat(grads[1]) ** 2).sum(1)) < 1e-12
        assert gap(per_example.sq_norms(tape, "[3]['w']"), (flat(grads[3]["w"][:, None]) ** 2).sum(1)) < 1e-12
        both = per_example.sq_norms(tape, ["[1]", "[3]"])
        assert gap(both, per_example.sq_norms(tape)) < 1e-12
        by_layer, by_parameter = per_example.sq_norms_by_layer(tape), per_example.sq_norms_by_parameter(tape)
        assert list(by_layer) == ["[1]", "[3]"]
        assert list(by_parameter) == ["[1]['b']", "[1]['w']", "[3]['b']", "[3]['w']"]
        assert gap(by_layer["[1]"], by_parameter["[1]['b']"] + by_parameter["[1]['w']"]) < 1e-12
        part = per_example.select(tape, "[3]")
        variance = per_example.variance(part)
        assert variance[1] == {"b": None, "w": None}
        assert_close(variance[3], per_example.variance(tape)[3], rtol=1e-12)


def test_one_digit_is_not_the_beginning_of_another() -> None:
    net = models.serial(*[Dense(2)] * 11)
    params, _ = net.init(jax.random.key(0), (2,))
    paths = [jax.tree_util.keystr(path) for path, _ in jax.tree_util.tree_flatten_with_path(params)[0]]
    assert sum(path.startswith("[1") for path in paths) == 4
    case = make("mlp", np.float32)
    tape = case.tape
    with pytest.raises(ValueError, match=re.escape("no parameter has a path that begins with '[2]'")):
        per_example.norms(tape, "[2]")
    with pytest.raises(ValueError, match="no parameter"):
        per_example.norms(tape, "[")


@pytest.mark.parametrize("size", [1, 2, 4, 6, 9])
def test_microbatches(size: int) -> None:
    with float64():
        made = make("cnn")

        def clipped(x: Any, y: Any) -> Any:
            return per_example.clipped_grad(made.record(made.params, made.state, x, y), 0.5)

        got = jax.jit(lambda x, y: per_example.over_microbatches(clipped, (x, y), size))(made.x, made.y)
        assert_close(got, clipped(made.x, made.y), rtol=1e-10, atol=1e-12)


def test_tapes_of_microbatches_laid_end_to_end() -> None:
    with float64():
        made = make("conv_groups")

        def recorded(x: Any, y: Any) -> Any:
            return (), made.record(made.params, made.state, x, y)

        _, tape = per_example.over_microbatches(recorded, (made.x, made.y), 4)
        assert_close(tape, made.tape, rtol=1e-12, atol=1e-13)
        assert gap(vector(per_example.variance(tape)), flat(made.grads()).var(0)) < 1e-10


def test_microbatch_errors() -> None:
    with pytest.raises(ValueError, match="must return the pair"):
        per_example.over_microbatches(lambda x: x, (jnp.ones(4),), 2)
    with pytest.raises(ValueError, match="of one N"):
        per_example.over_microbatches(lambda x, y: ((), x), (jnp.ones(4), jnp.ones(3)), 2)
    with pytest.raises(ValueError, match="of one N"):
        per_example.over_microbatches(lambda x: ((), x), (jnp.ones((0, 2)),), 2)
    with pytest.raises(ValueError, match="size must be at least 1"):
        per_example.over_microbatches(lambda x: ((), x), (jnp.ones(4),), 0)


def test_noise_scale_is_unbiased_and_averages_before_dividing() -> None:
    """Gradients of known mean and covariance: 400 batches of 5 give both within four standard errors."""
    from jaxnn.tape import Whole
    from tests.per_example.cases import tape_of

    mean, batches, n, d = 0.3, 400, 5, 8
    g = jnp.asarray(mean + random(0, batches, n, d, dtype=np.float32))

    def tape(grads: Any) -> Any:
        return tape_of(jnp.zeros(n), grads, {"w": jnp.zeros(d)}, {"w": (Whole(grads),)})

    def step(carry: Any, grads: Any) -> tuple[Any, Any]:
        new = per_example.noise_scale(tape(grads))
        return per_example.noise_scale(tape(grads), carry), (new.trace, new.sq_norm)

    found, (traces, signals) = jax.lax.scan(step, per_example.no_noise(), g)
    trace, signal = found.means
    assert abs(trace - d) < 4 * np.std(traces) / batches**0.5
    assert abs(signal - d * mean**2) < 4 * np.std(signals) / batches**0.5
    assert float(found.batches) == batches
    assert abs(found.scale - trace / signal) < 1e-3 * found.scale


def test_noise_scale_takes_two_examples() -> None:
    with pytest.raises(ValueError, match="noise_scale: needs at least 2 examples, got a tape of 1"):
        per_example.noise_scale(make("mlp", np.float32, n=1).tape)
    with pytest.raises(ValueError, match="variance: needs at least 2 examples"):
        per_example.variance(make("mlp", np.float32, n=1).tape, ddof=1)


def test_the_plan_follows_the_shapes() -> None:
    rows = {row.path: row for row in per_example.plan(make("cnn", np.float32).tape)}
    assert rows["[0]['w']"].strategy == "materialise in chunks"
    assert rows["[0]['w']"].positions == 49
    assert rows["[0]['w']"].flops == 2 * 6 * 49 * 18 * 4
    assert rows["[6]['w']"].strategy == "norm product"
    assert rows["[0]['b']"].strategy == "sum over positions"
    gram = per_example.plan(make("conv_gram", np.float32).tape)[1]
    assert gram.strategy == "Gram"
    assert gram.flops == 2 * 6 * 4**2 * (72 + 30)
    assert per_example.plan(make("embedding", np.float32).tape)[0].strategy == "sum over equal indices"


def test_the_plan_needs_no_numbers() -> None:
    made = make("cnn", np.float32)
    shapes = jax.eval_shape(made.record, made.params, made.state, made.x, made.y)
    assert per_example.plan(shapes) == per_example.plan(made.tape)
    table = str(per_example.plan(shapes))
    assert "materialise in chunks" in table
    assert len({len(line.split("  ")[0]) for line in table.splitlines()}) >= 1


def test_layer_bounds() -> None:
    tape = make("mlp", np.float32).tape
    whole, norms = per_example.clipped_grad_by_layer(tape, {"[1]": 0.1, "[3]": per_example.automatic(0.2)})
    assert set(norms) == {"[1]", "[3]"}
    first = per_example.materialize(tape)[1]
    factors = np.minimum(1, 0.1 / np.asarray(norms["[1]"]))
    assert gap(vector(whole[1]), factors @ flat(first)) < 1e-5
    with pytest.raises(ValueError, match="expected a bound for each of"):
        per_example.clipped_grad_by_layer(tape, {"[1]": 0.1})


def test_argument_errors() -> None:
    tape = make("mlp", np.float32).tape
    with pytest.raises(ValueError, match=r"got shape \(6, 1\)"):
        per_example.weighted_grad(tape, jnp.ones((6, 1)))
    with pytest.raises(ValueError, match="must map norms"):
        per_example.clipped_grad(tape, lambda norms: jnp.ones(()))
    with pytest.raises(ValueError, match=r"flat: bound must lie in \[0, inf\)"):
        per_example.clipped_grad(tape, -1.0)
    with pytest.raises(ValueError, match="the same parameters"):
        per_example.gram(tape, make("residual", np.float32).tape)
    with pytest.raises(ValueError, match="a tree like params"):
        per_example.jvp_examples(tape, {})
    with pytest.raises(ValueError, match="empty batch"):
        per_example.mean_grad(make("mlp", np.float32, n=0).tape)
