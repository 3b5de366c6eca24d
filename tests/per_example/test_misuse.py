"""What users do wrong: an error that says what was got, what was expected and how to mend it."""

from __future__ import annotations

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxnn import backprop, losses, models, per_example, train
from jaxnn.backprop import Rule, keep_input
from jaxnn.layers import Dense, Kind, stateless
from jaxnn.per_example.sample import sample_tape
from jaxnn.tape import Addition, Scaling

NET = models.serial(Dense(3))
LOSS = losses.softmax_cross_entropy
PARAMS: Any = ({"w": np.ones((4, 3), np.float32), "b": np.zeros(3, np.float32)},)
X, Y = np.ones((6, 4), np.float32), np.arange(6) % 3


@functools.cache
def tape_of(n: int = 6) -> Any:
    return jax.eval_shape(lambda p: backprop.record(NET, LOSS)(p, (), X[:n], Y[:n]), PARAMS)


@functools.cache
def columns_of() -> Any:
    return jax.eval_shape(lambda p: backprop.ggn_record(NET, LOSS)(p, (), X, Y), PARAMS)


@pytest.mark.parametrize(
    "loss", [lambda o, y: LOSS(o, y).mean(), lambda o, y: jnp.stack([LOSS(o, y)] * 2, 1), lambda o, y: LOSS(o, y)[:2]]
)
@pytest.mark.parametrize("record", [backprop.record, backprop.ggn_record])
def test_a_loss_that_is_not_one_number_for_each_example(record: Any, loss: Any) -> None:
    with pytest.raises(ValueError, match=r"expected one loss for each example, shape \(6,\), got shape"):
        jax.eval_shape(record(NET, loss), PARAMS, (), X, Y)


def gain(name: str, uses: Any, forward: Any = keep_input) -> Any:
    kind = Kind(name)
    backprop.register(kind, Rule(forward, lambda layer, p, x, dy: dy * p["s"], uses))
    return stateless(kind, lambda p, x: x * p["s"], lambda key, example: {"s": jnp.ones(())})


@pytest.mark.parametrize(
    ("name", "uses", "told"),
    [
        ("wide", lambda x, dy: {"s": (Scaling(x[:, None], dy[:, None]),)}, r"wide: a use of \['s'\] has .* \(3,\)"),
        ("bare", lambda x, dy: {"s": Addition(dy)}, "bare: the rule's uses must be a pytree like the parameters"),
        ("array", lambda x, dy: {"s": (dy,)}, "array: the rule's uses must be a pytree like the parameters"),
        ("missing", lambda x, dy: {}, "missing: the rule's uses must be a pytree like the parameters"),
    ],
)
def test_uses_that_do_not_fit_their_parameter(name: str, uses: Any, told: str) -> None:
    net = models.serial(Dense(3), gain(name, lambda layer, p, x, dy: uses(x, dy)))
    params = (*PARAMS, {"s": np.ones((), np.float32)})
    for make in (backprop.record(net, LOSS), backprop.value_and_grad(net, LOSS)):
        with pytest.raises(ValueError, match=told):
            jax.eval_shape(make, params, (), X, Y)


def test_a_forward_without_a_cache() -> None:
    def forward(layer: Any, params: Any, state: Any, x: Any, *, key: Any, train: bool) -> Any:
        return x, state

    net = models.serial(Dense(3), gain("pair", None, forward))
    with pytest.raises(TypeError, match=r"pair: a rule's forward must return \(y, state, cache\), got tuple"):
        jax.eval_shape(backprop.record(net, LOSS), (*PARAMS, {"s": np.ones((), np.float32)}), (), X, Y)


OF_A_TAPE = {
    "norms": per_example.norms,
    "sq_norms_by_layer": per_example.sq_norms_by_layer,
    "clipped_grad": lambda tape: per_example.clipped_grad(tape, 1.0),
    "clipped_grad_by_layer": lambda tape: per_example.clipped_grad_by_layer(tape, 1.0),
    "weighted_grad": lambda tape: per_example.weighted_grad(tape, np.ones(6)),
    "mean_grad": per_example.mean_grad,
    "variance": per_example.variance,
    "gram": per_example.gram,
    "jvp_examples": lambda tape: per_example.jvp_examples(tape, PARAMS),
    "materialize": per_example.materialize,
    "plan": per_example.plan,
    "select": lambda tape: per_example.select(tape, "[0]"),
    "noise_scale": per_example.noise_scale,
}


@pytest.mark.parametrize("name", OF_A_TAPE)
def test_what_is_no_tape(name: str) -> None:
    with pytest.raises(TypeError, match=r"expected a Tape, as per_example\.record.*got tuple"):
        OF_A_TAPE[name](PARAMS)
    with pytest.raises(TypeError, match=r"got Columns\. Its \.at\(column\) is the tape of one column"):
        OF_A_TAPE[name](columns_of())


@pytest.mark.parametrize(
    "f",
    [
        per_example.diag_ggn,
        per_example.diag_fisher,
        per_example.trace,
        per_example.ntk,
        per_example.kfac_expand,
        per_example.kfac_reduce,
    ],
)
def test_what_are_no_columns(f: Any) -> None:
    with pytest.raises(
        TypeError, match=r"expected Columns, which backprop\.ggn_record or output_record makes, got Tape"
    ):
        f(tape_of())


@pytest.mark.parametrize("name", sorted(set(OF_A_TAPE) - {"norms", "sq_norms_by_layer", "plan", "select"}))
def test_an_empty_batch(name: str) -> None:
    with pytest.raises(ValueError, match=r"needs at least|N = 0"):
        OF_A_TAPE[name](tape_of(0))
    assert jax.eval_shape(per_example.norms, tape_of(0)).shape == (0,)


@pytest.mark.parametrize("layer", [1, [], [0]])
def test_what_is_no_path(layer: Any) -> None:
    with pytest.raises(ValueError, match="expected a prefix of a path"):
        per_example.select(tape_of(), layer)


def test_sums_of_another_kind_and_data_that_is_no_tuple() -> None:
    with pytest.raises(TypeError, match="before must be the NoiseScale of the batches before, got int"):
        per_example.noise_scale(tape_of(), 0)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="data must be the tuple of f's arguments"):
        per_example.over_microbatches(lambda x: (x, ()), X, 2)  # type: ignore[arg-type]


@pytest.mark.parametrize("vg", [backprop.value_and_grad(NET, LOSS), train.mean_loss(NET, LOSS)])
def test_weights_may_be_a_list_and_must_be_one_for_each_example(vg: Any) -> None:
    jax.eval_shape(lambda p: vg(p, (), X, Y, weights=[1.0] * 6), PARAMS)
    for wrong in (1.0, [1.0] * 5):
        with pytest.raises(ValueError, match="weights must have one entry for each example"):
            jax.eval_shape(lambda p, w=wrong: vg(p, (), X, Y, weights=w), PARAMS)


@pytest.mark.slow
def test_numpy_in_float64_is_taken_as_jax_takes_it() -> None:
    x = np.ones((6, 4))
    (value, _), grads = backprop.value_and_grad(NET, LOSS)(PARAMS, (), x, Y)
    assert value.dtype == grads[0]["w"].dtype == jnp.float32
    assert per_example.norms(backprop.record(NET, LOSS)(PARAMS, (), x, Y)).dtype == jnp.float32


def test_a_clip_function_that_was_not_made_and_a_clip_for_each_example() -> None:
    tape = sample_tape()
    with pytest.raises(TypeError, match=r"clip must be automatic\(C\).*got automatic itself"):
        jax.eval_shape(lambda tape: per_example.clipped_grad(tape, per_example.automatic), tape)
    with pytest.raises(ValueError, match=r"array of shape \(2,\).*weighted_grad"):
        jax.eval_shape(lambda tape: per_example.clipped_grad(tape, jnp.ones(2)), tape)
    with pytest.raises(TypeError, match="must be one number C or a mapping from layers, got a function"):
        per_example.clipped_grad_by_layer(tape, per_example.flat(1.0))  # type: ignore[arg-type]


def test_a_ddof_that_is_no_int() -> None:
    for statistic in (per_example.variance, per_example.snr):
        with pytest.raises(TypeError, match=r"ddof must be an int, got 1\.5"):
            statistic(sample_tape(), ddof=1.5)  # type: ignore[arg-type]
