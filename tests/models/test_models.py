"""Composition, the networks made by it, and the table of layers."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxnn import layers, models, tree
from jaxnn.layers import BatchNorm, Conv, Dense, Dropout, Flatten, MaxPool, Relu, Sequences
from jaxnn.models.summary import rows
from tests.helpers import assert_close, float64, random, strict

ONLY_Y = layers.Layer(lambda key, example: ((), ()), lambda p, s, x, **_: x, layers.Kind("mine"))
NORMED = models.serial(Dense(2), BatchNorm())


def made(net: layers.Layer, example: Any, seed: int = 0) -> tuple[Any, Any]:
    return jax.jit(lambda key: net.init(key, example))(jax.random.key(seed))


def shapes(net: layers.Layer, example: Any) -> tuple[Any, Any]:
    """Parameters and state without numbers."""
    return jax.eval_shape(lambda: net.init(jax.random.key(0), example))


def predicted(net: layers.Layer, params: Any, state: Any, shape: tuple[int, ...]) -> Any:
    """The shape and dtype of what a network makes of inputs, or the error that it raises."""
    return jax.eval_shape(net.predict, params, state, np.ones(shape, np.float32))


def test_serial_is_composition() -> None:
    net = models.serial(Dense(4), Relu, Dense(2))
    params, state = made(net, (3,))
    x = random(0, 5, 3, dtype=np.float32)
    first, last = ({k: np.asarray(v) for k, v in params[i].items()} for i in (0, 2))
    expected = np.maximum(x @ first["w"] + first["b"], 0) @ last["w"] + last["b"]
    assert_close(jax.jit(net.predict)(params, state, x), expected, rtol=1e-5, atol=1e-6)
    assert (params[1], state) == ((), ())


def test_serial_of_serials_is_serial() -> None:
    net = models.serial(models.serial(Dense(4), Relu), models.serial(), Dense(2))
    assert predicted(net, *shapes(net, (3,)), (5, 3)).shape == (5, 2)


@pytest.mark.slow
def test_state_is_empty_without_running_statistics_and_a_tuple_with_them() -> None:
    net = models.serial(Dense(4), BatchNorm(), Relu, models.serial(Dense(3), BatchNorm()))
    params, state = made(net, (3,))
    assert (state[0], state[2], state[3][0]) == ((), (), ())
    x = jnp.asarray(random(0, 6, 3), jnp.float32)
    _, new = net.apply(params, state, x, train=True)
    chex.assert_trees_all_equal_structs(new, state)
    assert not np.array_equal(new[1]["mean"], state[1]["mean"])
    assert_close(net.apply(params, state, x)[1], state, rtol=0)


def test_each_random_part_draws_its_own_numbers() -> None:
    net = models.parallel(Dropout(0.5), Dropout(0.5))
    x = np.ones((4, 50), np.float32)
    y = jax.jit(lambda key: net.apply(((), ()), (), x, key=key, train=True)[0])(jax.random.key(0))
    assert not np.array_equal(y[:, :50], y[:, 50:])


@pytest.mark.slow
def test_residual_adds_and_parallel_joins() -> None:
    x = jnp.asarray(random(0, 5, 3), jnp.float32)
    block = models.residual(Dense(3), Relu)
    params, state = made(block, (3,))
    dense = params[0][0]
    assert_close(block.predict(params, state, x), x + jnp.maximum(x @ dense["w"] + dense["b"], 0), rtol=1e-6)
    projected = models.residual(Dense(7), shortcut=Dense(7, b_init=None))
    params, state = made(projected, (3,))
    assert projected.predict(params, state, x).shape == (5, 7)
    pair = models.parallel(Dense(2), Dense(4))
    params, state = made(pair, (3,))
    expected = jnp.concatenate([x @ p["w"] + p["b"] for p in params], axis=-1)
    assert_close(pair.predict(params, state, x), expected, rtol=1e-6)
    summed = models.parallel(Dense(2), Dense(2), combine=sum)
    params, state = made(summed, (3,))
    assert summed.predict(params, state, x).shape == (5, 2)


@pytest.mark.slow
def test_a_residual_network_with_batch_norm_trains_in_one_jit() -> None:
    block = models.residual(Conv(4, 3, padding="SAME"), BatchNorm(), Relu, shortcut=Conv(4, 1))
    net = models.serial(block, MaxPool(2), Flatten, Dense(3))
    params, state = made(net, (8, 8, 2))
    apply = jax.jit(lambda p, s, x: net.apply(p, s, x, train=True))
    y, new = apply(params, state, jnp.asarray(random(0, 4, 8, 8, 2), jnp.float32))
    assert y.shape == (4, 3)
    chex.assert_trees_all_equal_structs(new, state)


@pytest.mark.parametrize(
    ("net", "example", "count"),
    [
        (models.mlp([3, 4, 2]), (3,), 26),
        (models.mlp([784, 512, 512, 10]), (28, 28, 1), 784 * 512 + 512 + 512 * 512 + 512 + 512 * 10 + 10),
        (models.linear(10), (28, 28, 1), 7850),
        (models.cnn(), (28, 28, 1), 320 + 18496 + 1600 * 128 + 128 + 1290),
        (
            models.cnn([4], [5], 3, batch_norm=True, padding="SAME", convolutions=2),
            (8, 8, 1),
            36 + 8 + 144 + 8 + 325 + 18,
        ),
    ],
)
def test_parameter_counts(net: layers.Layer, example: Any, count: int, capsys: Any) -> None:
    assert tree.size(shapes(net, example)[0]) == count
    assert models.summary(net, example) == count
    assert f"{count:,}" in capsys.readouterr().out.splitlines()[-1]


def test_an_activation_with_parameters_has_its_own_name_in_tables() -> None:
    net = models.serial(layers.Dense(2), layers.PRelu())
    assert [row.name for row in rows(net, (3,))] == ["dense", "prelu"]
    assert repr(layers.PRelu()) == "parametric_activation(form=prelu, start=0.25, shared=False)"


def test_summary_allocates_nothing_and_unfolds_serials() -> None:
    enormous = models.mlp([1_000_000, 1_000_000, 10])
    assert [row.name for row in rows(enormous, (1_000_000,))] == ["flatten", "dense", "relu", "dense"]
    table = rows(models.serial(models.serial(Dense(4), Relu), models.residual(Dense(4))), (3,))
    assert [(r.name, r.output, r.parameters) for r in table] == [
        ("dense", (4,), 16),
        ("relu", (4,), 0),
        ("residual(dense)", (4,), 20),
    ]


def test_the_rows_of_an_encoder_decoder_are_those_of_both() -> None:
    """A shared table counts once; the decoder reads what the encoder returns."""
    tokens = jax.ShapeDtypeStruct((6,), jnp.int32)
    net, x = models.encoder_decoder(10, width=8, depth=1, heads=2), Sequences(tokens, context=Sequences(tokens))
    table = rows(net, x)
    params = jax.eval_shape(lambda: net.init(jax.random.key(0), x)[0])
    assert sum(row.parameters for row in table) == sum(p.size for p in jax.tree.leaves(params))
    assert [row.name for row in table if "attention" in row.name] == [
        "residual(rms_norm, attention)", "residual(rms_norm, attention)", "residual(rms_norm, cross_attention)",
    ]  # fmt: skip
    assert table[-1].output == (6, 10)
    stacked = rows(models.transformer(10, width=8, depth=3, heads=2, stacked=True), tokens)
    assert stacked[1].name.startswith("3 x (residual(rms_norm, attention), residual(")


def test_a_tuple_of_arrays_is_no_batch() -> None:
    net = models.encoder_decoder(10, width=8, depth=1, heads=2)
    with pytest.raises(TypeError, match=r"got a tuple of 2 arrays.*context=Sequences\(source\)"):
        net.predict((), (), (np.ones((2, 3)), np.ones((2, 3))))


@pytest.mark.slow
def test_networks_follow_the_dtype_of_the_example() -> None:
    net = models.mlp([3, 4, 2])
    params, state = made(net, jax.ShapeDtypeStruct((3,), jnp.bfloat16))
    assert {leaf.dtype for leaf in jax.tree.leaves(params)} == {jnp.dtype(jnp.bfloat16)}
    assert net.predict(params, state, jnp.ones((2, 3), jnp.bfloat16)).dtype == jnp.bfloat16
    with float64():
        params, state = made(net, jax.ShapeDtypeStruct((3,), jnp.float64))
        assert net.predict(params, state, jnp.ones((2, 3), jnp.float64)).dtype == jnp.float64


@pytest.mark.slow
def test_networks_run_under_strict_promotion_jit_and_vmap_over_parameters() -> None:
    net = models.cnn([4], [5], 3, dropout=0.2)
    with strict():
        params, state = jax.vmap(lambda key: net.init(key, (8, 8, 1)))(jax.random.split(jax.random.key(0), 3))
        x = jnp.ones((2, 8, 8, 1))
        y = jax.jit(jax.vmap(net.predict, (0, 0, None)))(params, state, x)
        net.apply(jax.tree.map(lambda p: p[0], params), (), x, key=jax.random.key(0), train=True)
    assert y.shape == (3, 2, 3)
    assert len({float(v) for v in y[:, 0, 0]}) == 3


def test_layers_are_hashable_static_arguments() -> None:
    net = models.linear(2)
    params, _ = shapes(net, (3,))
    predict = jax.jit(lambda net, p, x: net.predict(p, (), x), static_argnums=0)
    assert predict.lower(net, params, np.ones((1, 3), np.float32)).out_info.shape == (1, 2)


def test_errors_inside_a_network_name_the_part() -> None:
    net = models.serial(Flatten, Dense(4), Relu, Dense(2))
    with pytest.raises(ValueError, match="dense: x must have 3 features") as caught:
        predicted(net, *shapes(net, (3,)), (5, 7))
    assert "in part 1 of serial (dense), given x of shape (5, 7)" in caught.value.__notes__[0]


@pytest.mark.parametrize(
    ("call", "error", "text"),
    [
        (lambda: models.serial(Dense), TypeError, r"part 0 must be a Layer, .*Call a factory first, as in Dense\(10\)"),
        (lambda: models.serial(Relu, None), TypeError, "part 1 must be a Layer, got None"),
        (lambda: models.parallel(), ValueError, "at least one layer"),
        (lambda: models.serial([Dense(2), Relu]), TypeError, r"Unpack it: serial\(\*parts\)"),
        (lambda: models.serial(jnp.sin), TypeError, r"wrap a function, as in Activation\(jnp.sin\)"),
        (lambda: Relu(), TypeError, "relu|activation is a layer already and is not called"),
        (lambda: models.linear(2).init(0, (3,)), TypeError, r"serial.init: key must be a typed key, .*got 0"),
        (lambda: models.linear(2).init(jax.random.PRNGKey(0), (3,)), TypeError, r"got an array of uint32 \(2,\)"),
        (lambda: layers.Layer(Relu.init, Relu.apply, "mine"), TypeError, 'Kind\\("mine"\\), got \'mine\''),
        (lambda: shapes(models.serial(ONLY_Y), (3,)), TypeError, r"apply must return the pair \(y, state\)"),
        (lambda: shapes(models.cnn(), (8, 8)), ValueError, r"must be an image \(H, W, C\), got shape \(8, 8\)"),
        (lambda: models.mlp(10), ValueError, "sizes must name the input"),
        (lambda: predicted(NORMED, shapes(NORMED, (3,))[0], (), (1, 3)), ValueError, "state must be a dict"),
        (lambda: models.mlp([3]), ValueError, r"such as \[784, 512, 10\], got \[3\]"),
        (lambda: models.mlp([3, 0, 2]), ValueError, "each of sizes must be at least 1, got 0"),
        (lambda: models.mlp([3, 4.0, 2]), TypeError, "must be an int, got 4.0"),
        (lambda: shapes(models.mlp([5, 2]), (3,)), ValueError, "sizes\\[0\\] is 5, but one example has 3 entries"),
        (lambda: shapes(models.cnn(), (4, 4, 1)), ValueError, "does not fit"),
        (lambda: shapes(models.linear(2), 3), TypeError, r"expected the shape of ONE example, .*got 3"),
        (lambda: shapes(models.linear(2), (0, 3)), ValueError, "every axis of an example must have size >= 1"),
        (
            lambda: predicted(models.residual(Dense(4)), *shapes(models.residual(Dense(4)), (3,)), (2, 3)),
            ValueError,
            r"the block outputs \(2, 4\) but the shortcut \(2, 3\)",
        ),
        (
            lambda: predicted(models.linear(2), shapes(models.linear(2), (3,)), (), (1, 3)),
            ValueError,
            "dense: params must be a dict with 'w'",
        ),
        (
            lambda: predicted(NORMED, shapes(NORMED, (3,))[0], (1, 2, 3), (1, 3)),
            ValueError,
            "expected the state that init returned",
        ),
    ],
)  # fmt: skip
def test_bad_input_is_named(call: Callable[[], Any], error: type[Exception], text: str) -> None:
    with pytest.raises(error, match=text):
        call()
