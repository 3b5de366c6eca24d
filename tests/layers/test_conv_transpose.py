"""Transposed and separable convolutions, reshaping, upsampling: against torch, against jax.vjp, and per example."""

from __future__ import annotations

import itertools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxnn import backprop, layers, losses, models, per_example
from jaxnn.layers import ConvTranspose, Dense, Flatten, Reshape, Upsample
from jaxnn.ops.conv import conv
from tests.backprop.checking import assert_all_exact, drawn, rule_error
from tests.helpers import assert_close, float64, random, slow, strict

GEOMETRIES: list[dict[str, Any]] = [
    {"window": 3},
    {"window": 2, "stride": 2},
    {"window": 3, "stride": 2, "padding": "SAME"},
    {"window": 2, "stride": 3, "padding": "SAME"},
    {"window": 2, "stride": 2, "dilation": 2},
    {"window": 3, "stride": 2, "padding": (1, 0)},
    {"window": 1, "stride": 2},
]


def settled(geometry: dict[str, Any], axes: int) -> dict[str, Any]:
    """A geometry for a number of axes."""
    pairs = geometry.get("padding")
    return geometry | ({"padding": (pairs,) * axes} if isinstance(pairs, tuple) else {})


@pytest.mark.slow
def test_rules_are_those_of_jax() -> None:
    cases: dict[str, Any] = {
        "reshape": (Reshape(2, -1), random(0, 3, 4, 3)),
        "upsample": (Upsample((2, 3)), random(1, 2, 3, 2, 4)),
        "separable": (models.separable_conv(4, 2, multiplier=2), random(2, 2, 3, 4, 3, 2)),
    }
    for axes, (i, geometry) in itertools.product((1, 2, 3), enumerate(GEOMETRIES)):
        layer = ConvTranspose(2, **settled(geometry, axes))
        cases[f"{axes} axes, {geometry}"] = layer, random(10 * axes + i, 2, *[3] * axes, 3)
    assert_all_exact(cases)
    assert all(backprop.coverage(layer).complete for layer, _ in cases.values())


def test_it_is_the_adjoint_of_the_convolution() -> None:
    """<conv(z), x> = <z, convT(x)> for all z, x."""
    cases = [(axes, settled(geometry, axes)) for axes, geometry in itertools.product((1, 2), GEOMETRIES)]

    def products(given: Any) -> Any:
        found = []
        for (_, geometry), (params, x) in zip(cases, given, strict=True):
            y = ConvTranspose(4, b_init=None, **geometry).predict(params, (), x)
            z = random(4, *y.shape)
            rest = {name: value for name, value in geometry.items() if name != "window"}
            found.append((jnp.sum(conv(z, jnp.swapaxes(params["w"], -1, -2), **rest) * x), jnp.sum(z * y)))
        return found

    with float64(), strict():
        xs = [random(3, 2, *[3] * axes, 5) for axes, _ in cases]
        layers_of = [ConvTranspose(4, b_init=None, **geometry) for _, geometry in cases]
        given = [(drawn(layer, x)[0], x) for layer, x in zip(layers_of, xs, strict=True)]
        for seen, made in jax.jit(products)(given):
            assert_close(seen, made, rtol=1e-12)


@pytest.mark.parametrize("axes", [2, *slow(1, 3)])
def test_it_is_torchs(axes: int) -> None:
    torch = pytest.importorskip("torch")
    function = getattr(torch.nn.functional, f"conv_transpose{axes}d")
    for stride, dilation in ((1, 1), (2, 1), (3, 2)):
        layer = ConvTranspose(2, 3, stride=stride, dilation=dilation)
        x = random(axes, 2, *[4] * axes, 3)
        with float64(), strict():
            params, state = drawn(layer, x)
            got = np.asarray(layer.predict(params, state, x))
        w = torch.tensor(params["w"]).permute(axes, axes + 1, *range(axes))
        inputs, bias = torch.tensor(x).movedim(-1, 1), torch.tensor(params["b"])
        expected = function(inputs, w, bias, stride=stride, dilation=dilation).movedim(1, -1).numpy()
        assert_close(got, expected, rtol=0, atol=1e-12)


def test_gradients_of_examples() -> None:
    net = models.serial(
        ConvTranspose(3, 2, stride=2), Upsample(2), models.separable_conv(2, 3), Reshape(-1, 2), Flatten, Dense(2)
    )
    loss, x, y = losses.softmax_cross_entropy, random(5, 4, 2, 2, 2), np.array([0, 1, 1, 0])
    with float64(), strict():
        params, state = drawn(net, x)

        def one(params: Any, x: Any, y: Any) -> Any:
            return loss(net.predict(params, state, x[None]), y[None])[0]

        def both(params: Any) -> Any:
            each = jax.vmap(jax.grad(one), (None, 0, 0))(params, x, y)
            tape = backprop.record(net, loss)(params, state, x, y)
            expected = sum(jnp.sum(g.reshape(4, -1) ** 2, axis=1) for g in jax.tree.leaves(each))
            return per_example.sq_norms(tape), expected, per_example.materialize(tape), each

        norms, expected, whole, each = jax.jit(both)(params)
    assert_close(norms, expected, rtol=1e-10)
    assert_close(whole, each, rtol=1e-9, atol=1e-12)


def test_half_precision_is_kept() -> None:
    for dtype in (jnp.bfloat16, jnp.float16):
        example = jax.ShapeDtypeStruct((3, 3, 2), dtype)
        net = models.serial(ConvTranspose(3, 3, stride=2), Upsample(2))
        params, state = net.init(jax.random.key(0), example)
        y = jax.eval_shape(net.predict, params, state, jax.ShapeDtypeStruct((2, *example.shape), dtype))
        assert (y.shape, y.dtype) == ((2, 14, 14, 3), dtype)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: ConvTranspose(2, 3).init(jax.random.key(0), (4,)), "an example must be"),
        (lambda: ConvTranspose(2, 3, padding="FULL"), 'padding must be "SAME"'),
        (lambda: layers.conv_transpose.apply({"w": np.ones((3, 2, 4))}, jnp.ones((1, 5, 3))), "to match w"),
        (lambda: layers.conv_transpose.output_sizes((1,), (2,), 1, ((1, 1),), 1), "leaves no output"),
        (lambda: Reshape(4).predict((), (), jnp.ones((2, 3))), "do not fit"),
        (lambda: Reshape(2, -1).predict((), (), jnp.ones((2, 3))), "do not fit"),
        (lambda: Reshape(-1, -1), "at most one size"),
        (lambda: Upsample(2).predict((), (), jnp.ones((2, 3))), "at least one spatial axis"),
    ],
)
def test_wrong_arguments_raise(call: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        call()


def test_a_reversed_kernel_is_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    rule = backprop.linear.CONV_TRANSPOSE

    def broken(layer: Any, params: Any, x: Any, dy: Any) -> Any:
        return rule.input_grad(layer, params | {"w": params["w"][::-1]}, x, dy)

    other = backprop.Rule(rule.forward, broken, rule.uses)
    monkeypatch.setitem(backprop.rule.RULES, layers.conv_transpose.KIND, other)
    assert rule_error(ConvTranspose(2, 3), random(0, 2, 4, 3)) > 1e-2
