"""Every rule against `jax.vjp` of the layer's forward function, float64, over drawn shapes and settings."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import hypothesis
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import strategies as st

from jaxnn import activations, backprop, layers, losses, models, per_example
from jaxnn.layers import Activation, Conv, Dense, DepthwiseConv, Embedding, Flatten, Kind
from jaxnn.ops.views import Transpose, View
from jaxnn.tape import Placed, Product, Scaling, positions
from tests.backprop.checking import EXACT, assert_all_exact, assert_exact, drawn, rule_error
from tests.helpers import float64, random, slow

FEW, MANY = 3, 48


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
def test_conv_in_many_geometries() -> None:
    """At least 40 that differ in axes, window, stride, padding, dilation or groups, with some of each."""
    seen = set()

    @hypothesis.settings(max_examples=2 * MANY)
    @hypothesis.given(conv_cases())
    def check(case: Any) -> None:
        layer, x = case
        assert_exact(layer, x)
        seen.add((x.ndim - 2, *(layer.options[k] for k in ("window", "stride", "padding", "dilation", "groups"))))

    check()
    assert len(seen) >= 40
    axes, _, strides, paddings, dilations, groups = (set(values) for values in zip(*seen, strict=True))
    assert axes == {1, 2, 3}
    assert {"VALID", "SAME"} < paddings
    assert {1, 2, 3} == {s for stride in strides for s in stride}
    assert {1, 2} == {d for dilation in dilations for d in dilation}
    assert groups == {1, 2, 3, None}


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


@st.composite
def other_cases(draw: Any) -> tuple[layers.Layer, np.ndarray]:
    """Any other layer, over the last axis or over positions, with drawn settings and shapes."""
    positions = draw(st.lists(st.integers(1, 3), max_size=2))
    features = draw(st.sampled_from([1, 2, 4, 6]))
    x = random(draw(st.integers(0, 99)), draw(st.integers(2, 4)), *positions, features)
    spatial = x if positions else x[:, None]
    words = np.random.default_rng(draw(st.integers(0, 99))).integers(0, 5, x.shape[:-1])
    eps, axis = draw(st.sampled_from([1e-5, 0.1])), draw(st.integers(1, x.ndim - 1))
    groups = draw(st.sampled_from([g for g in (1, 2, 3) if features % g == 0]))
    function = draw(st.sampled_from(sorted(activations.DERIVATIVES, key=lambda f: f.__name__)))
    bias, outputs = draw(st.sampled_from([{}, {"b_init": None}])), draw(st.integers(1, 4))
    cases = [
        (Dense(outputs, **bias), x), (Embedding(5, features), words), (Flatten, x),
        (layers.Dropout(draw(st.sampled_from([0.1, 0.5, 0.9]))), x),
        (layers.BatchNorm(eps=eps), x), (layers.LayerNorm(eps=eps), x), (layers.RMSNorm(eps=eps), x),
        (layers.GroupNorm(groups, eps=eps), x), (Activation(function), 2 * x),
        (layers.PRelu(shared=draw(st.booleans())), x), (layers.Swish(start=0.7, shared=draw(st.booleans())), 2 * x),
        (Activation(activations.softmax, axis=axis), 3 * x), (Activation(activations.log_softmax, axis=axis), 3 * x),
        (layers.GlobalAveragePool, spatial), (layers.GlobalMaxPool, np.round(spatial)),
        (models.residual(Dense(features), layers.Tanh), x), (models.parallel(Dense(outputs), layers.Tanh), x),
    ]  # fmt: skip
    return draw(st.sampled_from(cases))


@hypothesis.settings(max_examples=FEW)
@hypothesis.given(other_cases(), st.booleans())
def test_other_layers(case: Any, train: bool) -> None:
    assert_exact(*case, key=jax.random.key(1), train=train)


@pytest.mark.slow
@hypothesis.settings(max_examples=3 * MANY)
@hypothesis.given(other_cases(), st.booleans())
def test_other_layers_in_many_settings(case: Any, train: bool) -> None:
    assert_exact(*case, key=jax.random.key(1), train=train)


# All kinds of layers once, several of them in one program.

OFF_CENTRE = 10 + random(0, 2, 3, 2, 8)
NORMS = [layers.BatchNorm(), layers.LayerNorm(), layers.GroupNorm(2), layers.RMSNorm(), layers.GroupNorm(4, eps=0.1)]
LINEAR = {
    "dense": (Dense(3), random(0, 5, 4)),
    "dense at positions": (Dense(3, b_init=None), random(0, 2, 3, 2, 4)),
    "embedding": (Embedding(5, 3), np.random.default_rng(0).integers(0, 5, (3, 4))),
    "dropout": (layers.Dropout(0.4), random(0, 6, 5)),
    "global average": (layers.GlobalAveragePool, random(0, 3, 3, 3, 2)),
    "global maximum": (layers.GlobalMaxPool, np.round(random(0, 3, 3, 3, 2))),
}


def test_linear_layers_and_dropout_with_the_mask_of_its_key() -> None:
    assert_all_exact(LINEAR, key=jax.random.key(3))


def test_norms() -> None:
    assert_all_exact({f"{norm!r}": (norm, OFF_CENTRE) for norm in NORMS})


def test_batch_norm_and_dropout_in_evaluation() -> None:
    cases = {"batch norm": (layers.BatchNorm(), OFF_CENTRE), "dropout": (layers.Dropout(0.4), OFF_CENTRE)}
    assert_all_exact(cases, train=False)


KINKS = np.concatenate([[[-2.0, -1.0, -0.5, 0.0, 0.5, 1.0, 2.0, 30.0, -30.0, 1e-9]], 2 * random(0, 2, 10)])
ACTIVATIONS = {f.__name__: (Activation(f), KINKS) for f in activations.DERIVATIVES} | {
    "steeper leak": (Activation(activations.leaky_relu, negative_slope=0.2), KINKS),
    "less elu": (Activation(activations.elu, alpha=0.5), KINKS),
    "heaviside of 1": (Activation(activations.heaviside, at_zero=1.0), KINKS),
    "one's own": (Activation(jnp.sin), KINKS),
}


def test_activations_also_at_their_kinks() -> None:
    assert_all_exact(ACTIVATIONS)


def test_softmax() -> None:
    x = 3 * random(0, 3, 4, 5)
    x[0, 0, 0] = 800.0
    functions = activations.softmax, activations.log_softmax
    assert_all_exact({f"{f.__name__} {s}": (Activation(f, **s), x) for f in functions for s in ({}, {"axis": 1})})


# The value at a kink, written out: what `jax.grad` gives could change without notice.

AT_A_KINK = {
    "relu": (layers.Relu, [-1.0, 0.0, 1.0], [0, 0, 1]),
    "leaky relu": (Activation(activations.leaky_relu, negative_slope=0.25), [-1.0, 0.0, 1.0], [0.25, 0.25, 1]),
    "sign": (Activation(activations.sign), [-1.0, 0.0, 1.0], [0, 0, 0]),
    "hard tanh": (Activation(activations.hard_tanh), [-1.0, 0.0, 1.0], [0, 1, 0]),
    "piecewise linear": (Activation(activations.piecewise_linear), [-0.5, 0.0, 0.5], [0, 1, 0]),
}
POOLED: dict[str, tuple[layers.Layer, Any, Any, Any]] = {
    # The first of equal maxima in row-major order: above before left, each window apart, overlapping windows added.
    "rows first": (layers.MaxPool(2), [[1, 2], [2, 2]], [[1]], [[0, 1], [0, 0]]),
    "all equal": (layers.MaxPool(2), [[3, 3], [3, 3]], [[1]], [[1, 0], [0, 0]]),
    "overlapping": (layers.MaxPool((1, 2), stride=1), [[5, 5, 5]], [[1, 10]], [[1, 10, 0]]),
    "whole": (layers.GlobalMaxPool, [[1, 7], [7, 7]], 1, [[0, 1], [0, 0]]),
}


def test_the_documented_value_at_a_kink() -> None:
    given = {name: np.array([z], np.float32) for name, (_, z, _) in AT_A_KINK.items()}

    @jax.jit
    def slopes(given: Any) -> Any:
        layers_at = {name: (layer, given[name]) for name, (layer, _, _) in AT_A_KINK.items()}
        return {n: backprop.rule_of(f).input_grad(f, (), z, jnp.ones_like(z)) for n, (f, z) in layers_at.items()}

    for name, dz in slopes(given).items():
        np.testing.assert_array_equal(dz[0], AT_A_KINK[name][2], err_msg=name)


def test_a_tie_goes_to_the_first_maximum() -> None:
    def adjoint(layer: layers.Layer, x: Any, dy: Any) -> Any:
        rule = backprop.rule_of(layer)
        y, _, cache = rule.forward(layer, (), (), x, key=None, train=True)
        return rule.input_grad(layer, (), cache, dy.reshape(y.shape))

    def of_image(x: Any) -> np.ndarray:
        return np.array(x, np.float32)[None, ..., None]

    images = {name: (of_image(x), of_image(dy)) for name, (_, x, dy, _) in POOLED.items()}
    found = jax.jit(lambda images: {name: adjoint(POOLED[name][0], *images[name]) for name in POOLED})(images)
    for name, (*_, expected) in POOLED.items():
        np.testing.assert_array_equal(found[name][0, ..., 0], expected, err_msg=name)


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


def assert_combined(names: Iterable[str]) -> None:
    assert_all_exact({name: (COMBINED[name], random(0, 5, 3)) for name in names}, key=jax.random.key(1))


def test_layers_made_of_layers() -> None:
    assert_combined(["nested", "statistics"])


@pytest.mark.slow
def test_all_layers_made_of_layers() -> None:
    assert_combined(COMBINED)


def test_branches_that_see_integers() -> None:
    words = np.random.default_rng(0).integers(0, 5, (3, 4))
    assert_exact(models.parallel(Embedding(5, 2), Embedding(5, 3)), words)


def own_apply(params: Any, state: Any, x: Any, *, key: Any = None, train: bool = False) -> Any:
    noise = jax.random.normal(key, x.shape, x.dtype) if key is not None else jnp.zeros_like(x)
    return jnp.sin(x * jax.lax.broadcast_in_dim(params["s"], x.shape, (1,))) + noise, {"seen": state["seen"] + 1}


def own_init(key: Any, example: Any) -> Any:
    return {"s": jnp.ones(example.shape, example.dtype)}, {"seen": jnp.zeros((), example.dtype)}


OWN = layers.Layer(own_init, own_apply, Kind("own"))


@pytest.mark.parametrize("key", [0, *slow(None)])
def test_a_layer_without_a_rule_is_differentiated_by_jax(key: Any) -> None:
    key = None if key is None else jax.random.key(key)
    assert backprop.rule_of(OWN) is backprop.AUTOMATIC
    assert_exact(OWN, random(0, 5, 3), key=key)
    assert_exact(models.serial(Dense(3), OWN, Dense(2)), random(0, 5, 3), key=key)
    with float64():
        x, dy, s = (random(i, *shape) for i, shape in enumerate([(5, 3), (5, 3), (3,)]))

        @jax.jit
        def uses(s: Any) -> Any:
            params, state = {"s": s}, {"seen": jnp.zeros(())}
            cache = backprop.AUTOMATIC.forward(OWN, params, state, x, key=key, train=True)[2]
            return backprop.AUTOMATIC.uses(OWN, params, cache, dy)["s"]

        (whole,) = uses(s)
        np.testing.assert_allclose(whole.grads, np.cos(x * np.asarray(s)) * np.asarray(x * dy), rtol=1e-12)


LAYERS = {
    "dense": (Dense(3), (4, 3)),
    "conv": (Conv(2, 3, stride=2, padding="SAME"), (2, 5, 5, 2)),
    "depthwise conv": (DepthwiseConv(2, dilation=2), (2, 5, 5, 2)),
    "batch norm": (layers.BatchNorm(), (4, 3)),
    "layer norm": (layers.LayerNorm(), (4, 3)),
    "group norm": (layers.GroupNorm(2), (2, 3, 4)),
    "rms norm": (layers.RMSNorm(), (4, 3)),
    "prelu": (layers.PRelu(), (4, 2, 3)),
    "shared swish": (layers.Swish(start=1.3, shared=True), (4, 2, 3)),
    "softmax": (layers.Softmax, (4, 3)),
    "gelu": (layers.Gelu, (4, 3)),
    "dropout": (layers.Dropout(0.3), (4, 3)),
    "max pool": (layers.MaxPool(2), (2, 4, 4, 1)),
    "average pool": (layers.AveragePool(3, stride=2), (2, 5, 5, 1)),
    "global average": (layers.GlobalAveragePool, (2, 5, 5, 1)),
    "global maximum": (layers.GlobalMaxPool, (2, 5, 5, 1)),
    "branches": (models.parallel(Dense(2), models.residual(Dense(3), layers.Tanh)), (4, 3)),
    "words": (models.serial(Embedding(3, 2), Flatten, Dense(2)), (4, 3)),
}


def along_and_differences(layer: layers.Layer, params: Any, state: Any, x: Any) -> Any:
    """<gradient, d> by the rule, and (f(v + h d) - f(v - h d)) / 2h along a random direction d, f = sum(y dy)."""
    rule, key = backprop.rule_of(layer), jax.random.key(2)
    y, _, cache = rule.forward(layer, params, state, x, key=key, train=True)
    dy = jnp.asarray(random(9, *y.shape))
    arguments, gradients = [params], [rule.param_grad(layer, params, cache, dy)]
    if jnp.issubdtype(x.dtype, jnp.floating):
        arguments, gradients = [*arguments, x], [*gradients, rule.input_grad(layer, params, cache, dy)]
    direction = jax.tree.map(lambda v: jnp.asarray(random(v.size, *v.shape)), arguments)

    def at(h: float) -> Any:
        params, *rest = jax.tree.map(lambda v, d: v + h * d, arguments, direction)
        return jnp.sum(layer.apply(params, state, *(rest or [x]), key=key, train=True)[0] * dy)

    along = sum(jnp.sum(g * d) for g, d in zip(*map(jax.tree.leaves, (gradients, direction)), strict=True))
    return along, (at(1e-5) - at(-1e-5)) / 2e-5


def assert_central_differences(names: Iterable[str]) -> None:
    with float64():
        inputs = {name: random(0, *LAYERS[name][1]) for name in names}
        if "words" in inputs:
            inputs["words"] = np.random.default_rng(0).integers(0, 3, LAYERS["words"][1])
        arguments = {name: (*drawn(LAYERS[name][0], x), x) for name, x in inputs.items()}
        every = jax.jit(lambda a: {name: along_and_differences(LAYERS[name][0], *a[name]) for name in a})
        for name, (along, differences) in every(arguments).items():
            np.testing.assert_allclose(along, differences, rtol=1e-7, err_msg=name)


def test_central_differences() -> None:
    assert_central_differences(["conv", "batch norm", "max pool"])


@pytest.mark.slow
def test_central_differences_of_every_layer() -> None:
    assert_central_differences(LAYERS)


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
    with pytest.raises(ValueError, match="mine: the rule's uses must be a pytree like the parameters"):
        rule_error(forgetful, random(0, 3, 2))


def test_what_a_rule_returns_is_held_to_its_shapes() -> None:
    """A cotangent (N, 1, D) would broadcast, and make per-example norms wrong without an error."""
    gain = layers.stateless(Kind("mine"), lambda params, x: x * params["s"], lambda key, example: {"s": np.float32(2)})
    net, x = models.serial(Dense(3), layers.Relu, gain), np.ones((4, 2), np.float32)

    def recorded(input_grad: Any, use: Any) -> Any:
        backprop.register(gain.kind, backprop.Rule(backprop.keep_input, input_grad, lambda *leaf: {"s": (use(*leaf),)}))
        params, state = net.init(jax.random.key(0), (2,))
        return jax.eval_shape(backprop.record(net, losses.mse), params, state, x, np.ones((4, 3), np.float32))

    def scaling(layer: Any, params: Any, x: Any, dy: Any) -> Any:
        return Scaling(x.reshape(4, 3, 1), dy.reshape(4, 3, 1))

    recorded(lambda layer, params, x, dy: dy * params["s"], scaling)
    with pytest.raises(
        ValueError, match=r"mine: the rule's input_grad must return dx of the shape of x, \(4, 3\)"
    ) as e:
        recorded(lambda layer, params, x, dy: dy[:, None], scaling)
    assert "in part 2 of serial (mine), given dy of shape (4, 3)" in e.value.__notes__
    with pytest.raises(ValueError, match=r"mine: a use of \['s'\] has delta of shape \(12, 1\)"):
        recorded(
            lambda layer, params, x, dy: dy * params["s"],
            lambda layer, p, x, dy: Scaling(x.reshape(12, 1), dy.reshape(12, 1)),
        )


def test_a_rule_may_use_a_view_of_its_parameter() -> None:
    """y = x w', w (D_out, D_in): all statistics are those of the dense layer of w', transposed."""
    kind = Kind("transposed")
    mine = layers.stateless(kind, lambda params, x: x @ params["w"].T)

    def uses(layer: Any, params: Any, x: Any, dy: Any) -> Any:
        view = View(params["w"].shape).then(Transpose((1, 0)))
        return {"w": (Placed(Product(positions(x), positions(dy)), view),)}

    backprop.register(kind, backprop.Rule(backprop.keep_input, lambda layer, params, x, dy: dy @ params["w"], uses))
    x, y = np.random.default_rng(0).normal(size=(4, 3)).astype(np.float32), np.array([0, 1, 1, 0])
    w = np.random.default_rng(1).normal(size=(3, 2)).astype(np.float32)
    loss = losses.softmax_cross_entropy

    def statistics(net: Any, params: Any) -> Any:
        columns, tape = backprop.ggn_record(net, loss)(params, (), x, y), backprop.record(net, loss)(params, (), x, y)
        grads = [per_example.diag_ggn(columns), per_example.weighted_grad(tape, [1.0, 0.5, 0.0, 2.0])]
        return (
            [g["w"] for g in grads],
            per_example.norms(tape),
            per_example.ntk(backprop.output_record(net)(params, (), x)),
        )

    statistics = jax.jit(statistics, static_argnums=0)
    grads, *rest = statistics(mine, {"w": w.T})
    plain, *others = statistics(Dense(2, b_init=None), {"w": w})
    for found, expected in zip([*rest, *(g.T for g in grads)], [*others, *plain], strict=True):
        np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-6)


def dense_init(key: Any, example: Any) -> Any:
    return {"w": jnp.ones((example.shape[-1], 2), example.dtype)}


def dense_apply(params: Any, x: Any) -> Any:
    return x @ params["w"]
