"""Every rule against `jax.vjp` of the layer's forward function, float64, over drawn shapes and settings."""

from __future__ import annotations

from typing import Any

import hypothesis
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import strategies as st

from jaxnn import activations, backprop, layers, models
from jaxnn.layers import Activation, Conv, Dense, DepthwiseConv, Embedding, Flatten, Kind
from tests.backprop.checking import EXACT, assert_exact, rule_error, spread_out
from tests.helpers import float64, random

FEW, MANY = 8, 48


@st.composite
def conv_cases(draw: Any) -> tuple[layers.Layer, np.ndarray]:
    """A convolution over one to three axes, and inputs that it fits."""
    axes = draw(st.integers(1, 3))
    window = tuple(draw(st.integers(1, 3)) for _ in range(axes))
    stride = tuple(draw(st.integers(1, 3)) for _ in range(axes))
    dilation = tuple(draw(st.integers(1, 2)) for _ in range(axes))
    padding: Any = draw(st.sampled_from(["VALID", "SAME", "pairs"]))
    if padding == "pairs":
        padding = tuple((draw(st.integers(0, 2)), draw(st.integers(0, 2))) for _ in range(axes))
    sizes = tuple((k - 1) * d + 1 + draw(st.integers(0, 3)) for k, d in zip(window, dilation, strict=True))
    groups = draw(st.sampled_from([1, 1, 2, 3]))
    channels = groups * draw(st.integers(1, 2))
    settings: dict[str, Any] = {"stride": stride, "padding": padding, "dilation": dilation}
    settings |= draw(st.sampled_from([{}, {"b_init": None}]))
    if draw(st.integers(0, 5)) == 0:
        layer = DepthwiseConv(window, multiplier=draw(st.integers(1, 2)), **settings)
    else:
        layer = Conv(groups * draw(st.integers(1, 2)), window, groups=groups, **settings)
    return layer, random(draw(st.integers(0, 99)), draw(st.integers(1, 3)), *sizes, channels)


@hypothesis.settings(max_examples=FEW)
@hypothesis.given(conv_cases())
def test_conv(case: Any) -> None:
    assert_exact(*case)


@pytest.mark.slow
@hypothesis.settings(max_examples=MANY)
@hypothesis.given(conv_cases())
def test_conv_in_many_geometries(case: Any) -> None:
    assert_exact(*case)


@st.composite
def pool_cases(draw: Any) -> tuple[layers.Layer, np.ndarray]:
    """A pooling over one to three axes, half of them of small integers, full of ties."""
    axes = draw(st.integers(1, 3))
    window = tuple(draw(st.integers(1, 3)) for _ in range(axes))
    stride = draw(st.one_of(st.none(), st.tuples(*[st.integers(1, 3)] * axes)))
    padding: Any = draw(st.sampled_from(["VALID", "SAME", "pairs"]))
    if padding == "SAME" and stride is not None:  # padding as large as the window is refused
        stride = tuple(min(s, k) for s, k in zip(stride, window, strict=True))
    if padding == "pairs":
        padding = tuple((draw(st.integers(0, k - 1)), draw(st.integers(0, k - 1))) for k in window)
    sizes = tuple(k + draw(st.integers(0, 3)) for k in window)
    x = random(draw(st.integers(0, 99)), draw(st.integers(1, 2)), *sizes, draw(st.integers(1, 2)))
    x = draw(st.sampled_from([x, np.round(x)]))
    if draw(st.booleans()):
        return layers.MaxPool(window, stride=stride, padding=padding), x
    return layers.AveragePool(window, stride=stride, padding=padding, count_padding=draw(st.booleans())), x


@hypothesis.settings(max_examples=FEW)
@hypothesis.given(pool_cases())
def test_pooling(case: Any) -> None:
    assert_exact(*case)


@pytest.mark.slow
@hypothesis.settings(max_examples=MANY)
@hypothesis.given(pool_cases())
def test_pooling_in_many_geometries(case: Any) -> None:
    assert_exact(*case)


@pytest.mark.parametrize("layer", [layers.GlobalAveragePool, layers.GlobalMaxPool], ids=lambda layer: layer.kind.name)
@pytest.mark.parametrize("axes", [1, 2])
def test_global_pooling(layer: layers.Layer, axes: int) -> None:
    assert_exact(layer, np.round(random(0, 3, *(3,) * axes, 2)))


@pytest.mark.parametrize("shape", [(5, 4), (2, 3, 4), (2, 3, 2, 4)])
@pytest.mark.parametrize("settings", [{}, {"b_init": None}])
def test_dense(shape: tuple[int, ...], settings: Any) -> None:
    assert_exact(Dense(3, **settings), random(0, *shape))


@pytest.mark.parametrize("shape", [(5,), (5, 4), (2, 3, 2, 4)])
def test_flatten(shape: tuple[int, ...]) -> None:
    assert_exact(Flatten, random(0, *shape))


@pytest.mark.parametrize("shape", [(6,), (3, 4), (2, 2, 3)])
def test_embedding(shape: tuple[int, ...]) -> None:
    assert_exact(Embedding(5, 3), np.random.default_rng(0).integers(0, 5, shape))


KINKS = np.array([[-2.0, -1.0, -0.5, 0.0, 0.5, 1.0, 2.0, 30.0, -30.0, 1e-9]])
SETTINGS: dict[Any, dict[str, Any]] = {
    activations.leaky_relu: {"negative_slope": 0.2},
    activations.elu: {"alpha": 0.5},
    activations.heaviside: {"at_zero": 1.0},
}


@pytest.mark.parametrize("function", activations.DERIVATIVES, ids=lambda f: f.__name__)
def test_activations_also_at_their_kinks(function: Any) -> None:
    x = np.concatenate([KINKS, random(0, 2, 10), 4 * random(1, 1, 10)])
    assert_exact(Activation(function), x)
    if function in SETTINGS:
        try:
            assert_exact(Activation(function, **SETTINGS[function]), x)
        except TypeError:
            pytest.skip(f"{function.__name__} takes other settings")


@pytest.mark.parametrize("function", [activations.softmax, activations.log_softmax], ids=lambda f: f.__name__)
@pytest.mark.parametrize("settings", [{}, {"axis": 1}])
def test_softmax(function: Any, settings: Any) -> None:
    x = 3 * random(0, 3, 4, 5)
    x[0, 0, 0] = 800.0
    assert_exact(Activation(function, **settings), x)


def test_an_activation_of_ones_own() -> None:
    assert_exact(Activation(jnp.sin), random(0, 3, 4))


NORMS = [layers.BatchNorm(), layers.LayerNorm(), layers.GroupNorm(2), layers.RMSNorm(), layers.GroupNorm(4, eps=0.1)]


@pytest.mark.parametrize("layer", NORMS, ids=repr)
@pytest.mark.parametrize("shape", [(5, 8), (3, 2, 8), (2, 3, 2, 8)])
@pytest.mark.parametrize("train", [True, False])
def test_norms(layer: layers.Layer, shape: tuple[int, ...], train: bool) -> None:
    if train or layer.kind is layers.batch_norm.KIND:
        assert_exact(layer, 10 + random(0, *shape), train=train)


@pytest.mark.parametrize("train", [True, False])
def test_dropout_with_the_mask_of_its_key(train: bool) -> None:
    assert_exact(layers.Dropout(0.4), random(0, 6, 5), key=jax.random.key(3), train=train)


def double(outputs: Any) -> Any:
    return outputs[0] * outputs[1]


COMBINED = {
    "serial": models.serial(Dense(4), layers.Tanh, models.serial(Dense(3), layers.Sigmoid)),
    "empty": models.serial(),
    "residual": models.residual(Dense(4), layers.Tanh, Dense(3)),
    "projection": models.residual(Dense(4), layers.Tanh, shortcut=Dense(4, b_init=None)),
    "parallel": models.parallel(Dense(4), models.serial(Dense(2), layers.Tanh), models.serial()),
    "combine": models.parallel(Dense(4), models.serial(Dense(4), layers.Sigmoid), combine=double),
    "nested": models.residual(models.parallel(Dense(1), models.residual(Dense(3), layers.Tanh)), Dense(3)),
    "random": models.serial(Dense(4), layers.Dropout(0.5), models.residual(Dense(4), layers.Dropout(0.2))),
    "statistics": models.serial(Dense(4), layers.BatchNorm(), models.parallel(layers.BatchNorm(), layers.Tanh)),
}


@pytest.mark.parametrize("name", COMBINED)
def test_layers_made_of_layers(name: str) -> None:
    assert_exact(COMBINED[name], random(0, 5, 3), key=jax.random.key(1))


def test_branches_that_see_integers() -> None:
    words = np.random.default_rng(0).integers(0, 5, (3, 4))
    assert_exact(models.parallel(Embedding(5, 2), Embedding(5, 3)), words)


def own_apply(params: Any, state: Any, x: Any, *, key: Any = None, train: bool = False) -> Any:
    noise = jax.random.normal(key, x.shape, x.dtype) if key is not None else jnp.zeros_like(x)
    return jnp.sin(x * jax.lax.broadcast_in_dim(params["s"], x.shape, (1,))) + noise, {"seen": state["seen"] + 1}


def own_init(key: Any, example: Any) -> Any:
    return {"s": jnp.ones(example.shape, example.dtype)}, {"seen": jnp.zeros((), example.dtype)}


OWN = layers.Layer(own_init, own_apply, Kind("own"))


@pytest.mark.parametrize("key", [None, 0])
def test_a_layer_without_a_rule_is_differentiated_by_jax(key: Any) -> None:
    key = None if key is None else jax.random.key(key)
    assert backprop.rule_of(OWN) is backprop.AUTOMATIC
    assert_exact(OWN, random(0, 5, 3), key=key)
    assert_exact(models.serial(Dense(3), OWN, Dense(2)), random(0, 5, 3), key=key)
    with float64():
        x, dy = jnp.asarray(random(1, 5, 3)), jnp.asarray(random(2, 5, 3))
        params, state = {"s": jnp.asarray(random(3, 3))}, {"seen": jnp.zeros(())}
        cache = backprop.AUTOMATIC.forward(OWN, params, state, x, key=key, train=True)[2]
        (whole,) = backprop.AUTOMATIC.uses(OWN, params, cache, dy)["s"]
        np.testing.assert_allclose(whole.grads, jnp.cos(x * params["s"]) * x * dy, rtol=1e-12)


LAYERS = {
    "dense": (Dense(3), (4, 3)),
    "conv": (Conv(2, 3, stride=2, padding="SAME"), (2, 5, 5, 2)),
    "batch_norm": (layers.BatchNorm(), (4, 3)),
    "layer_norm": (layers.LayerNorm(), (4, 3)),
    "group_norm": (layers.GroupNorm(2), (2, 3, 4)),
    "rms_norm": (layers.RMSNorm(), (4, 3)),
    "softmax": (layers.Softmax, (4, 3)),
    "gelu": (layers.Gelu, (4, 3)),
    "max_pool": (layers.MaxPool(2), (2, 4, 4, 1)),
    "average_pool": (layers.AveragePool(3, stride=2), (2, 5, 5, 1)),
}


@pytest.mark.parametrize("name", LAYERS)
def test_central_differences(name: str) -> None:
    """(f(v + h d) - f(v - h d)) / 2h along random directions d, f = sum(y dy), against <gradient, d>."""
    layer, shape = LAYERS[name]
    with float64():
        x = jnp.asarray(random(0, *shape))
        params, state = layer.init(jax.random.key(0), jax.ShapeDtypeStruct(shape[1:], x.dtype))
        params = spread_out(params)
        rule = backprop.rule_of(layer)

        @jax.jit
        def both(params: Any, x: Any) -> Any:
            y, _, cache = rule.forward(layer, params, state, x, key=None, train=True)
            dy = jnp.asarray(random(9, *y.shape))
            ours = rule.input_grad(layer, params, cache, dy), rule.param_grad(layer, params, cache, dy)
            direction = jax.tree.map(lambda v: jnp.asarray(random(v.size, *v.shape)), (x, params))

            def at(h: float) -> Any:
                x_h, params_h = jax.tree.map(lambda v, d: v + h * d, (x, params), direction)
                return jnp.sum(layer.apply(params_h, state, x_h, train=True)[0] * dy)

            along = sum(jnp.sum(g * d) for g, d in zip(*map(jax.tree.leaves, (ours, direction)), strict=True))
            return along, (at(1e-5) - at(-1e-5)) / 2e-5

        along, differences = both(params, x)
        np.testing.assert_allclose(along, differences, rtol=1e-7)


def test_a_rule_of_ones_own_is_used_and_a_wrong_one_seen() -> None:
    gain = layers.stateless(Kind("gain"), lambda params, x: 2 * x)
    backprop.register(gain.kind, backprop.Rule(backprop.keep_input, lambda layer, params, x, dy: 2 * dy))
    assert rule_error(gain, random(0, 3, 2)) <= EXACT
    backprop.register(gain.kind, backprop.Rule(backprop.keep_input, lambda layer, params, x, dy: 3 * dy))
    assert rule_error(gain, random(0, 3, 2)) > 0.1
    assert rule_error(models.serial(Dense(2), gain), random(0, 3, 2)) > 0.1


def test_errors_of_registration() -> None:
    with pytest.raises(TypeError, match="kind must be a Kind"):
        backprop.register("gain", backprop.AUTOMATIC)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="rule must be a Rule"):
        backprop.register(Kind("gain"), lambda dy: dy)  # type: ignore[arg-type]
    forgetful = layers.stateless(Kind("mine"), dense_apply, dense_init)
    backprop.register(forgetful.kind, backprop.Rule(backprop.keep_input, lambda layer, params, x, dy: dy))
    with pytest.raises(ValueError, match="mine: the rule's uses must be a tree like the parameters"):
        rule_error(forgetful, random(0, 3, 2))


def dense_init(key: Any, example: Any) -> Any:
    return {"w": jnp.ones((example.shape[-1], 2), example.dtype)}


def dense_apply(params: Any, x: Any) -> Any:
    return x @ params["w"]
