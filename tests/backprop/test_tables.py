"""`backprop.trace_table` against numbers worked out by hand, and `backprop.coverage`."""

from __future__ import annotations

import io
from math import exp
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from rich.console import Console

from jaxnn import backprop, layers, losses, models
from jaxnn.layers import Dense, Kind, Sigmoid, parametric
from tests.helpers import float64


def s(z: float) -> float:
    return 1 / (1 + exp(-z))


def test_scalar_chain_of_four_layers() -> None:
    """y = f3(w3 f2(w2 f1(w1 x + b1))), 1/2 (d - y)^2: Rumelhart, Hinton & Williams 1986, each factor written out."""
    x, d, w1, b1, w2, w3 = 0.5, 1.0, 2.0, -1.0, 1.5, -0.5
    net = models.serial(Dense(1), Sigmoid, Dense(1, b_init=None), Sigmoid, Dense(1, b_init=None), Sigmoid)
    with float64():
        one = lambda v: jnp.array([[v]])  # noqa: E731
        params = ({"w": one(w1), "b": jnp.array([b1])}, (), {"w": one(w2)}, (), {"w": one(w3)}, ())
        trace = backprop.trace_table(net, params, (), one(x), one(d), losses.half_squared_error)
    # z1 = 0 exactly, so f1 = 1/2 and f1' = 1/4.
    f1, f2 = 0.5, s(0.75)
    f3 = s(w3 * f2)
    dw3 = -(d - f3) * f3 * (1 - f3) * f2
    dz3 = -(d - f3) * f3 * (1 - f3)
    dz2 = dz3 * w3 * f2 * (1 - f2)
    dz1 = dz2 * w2 * f1 * (1 - f1)
    expected = {
        "z1": 0.0, "a1": f1, "z2": 0.75, "a2": f2, "z3": w3 * f2, "a3": f3, "C": 0.5 * (d - f3) ** 2,
        "dC/da3": f3 - d, "delta3": dz3, "dC/dw3": dw3, "dC/da2": dz3 * w3, "delta2": dz2, "dC/dw2": dz2 * f1,
        "dC/da1": dz2 * w2, "delta1": dz1, "dC/dw1": dz1 * x, "dC/db1": dz1,
    }  # fmt: skip
    for name, value in expected.items():
        np.testing.assert_allclose(np.asarray(trace[name]).item(), value, rtol=1e-12, atol=1e-15, err_msg=name)
    assert [step.name for step in trace.steps if step.name not in ("a0", "C_i")] == list(expected)
    # To six decimals by pocket calculator: f2 = .679179, f3 = s(-.339589) = .415909, C = .170581.
    assert [round(float(trace[name].item()), 6) for name in ("a2", "a3", "C")] == [0.679179, 0.415909, 0.170581]
    assert "sigmoid'(z3) . dC/da3" in str(trace)


def test_xor_network() -> None:
    """XOR = OR(AND(x1, not x2), AND(not x1, x2)) with steep sigmoids, every number by loops over the formulas."""
    net = models.serial(Dense(2), Sigmoid, Dense(1), Sigmoid)
    w1, b1 = [[4.0, -4.0], [-4.0, 4.0]], [-2.0, -2.0]
    w2, b2 = [[6.0], [6.0]], [-3.0]
    xs, ds = [[0.0, 0.0], [0.0, 1.0], [1.0, 0.0], [1.0, 1.0]], [0.0, 1.0, 1.0, 0.0]
    with float64():
        params = ({"w": jnp.array(w1), "b": jnp.array(b1)}, (), {"w": jnp.array(w2), "b": jnp.array(b2)}, ())

        @jax.jit
        def both(*arguments: Any) -> Any:
            trace = backprop.trace_table(net, *arguments, losses.half_squared_error)
            vg = backprop.value_and_grad(net, losses.half_squared_error)
            return {step.name: step.value for step in trace.steps}, vg(*arguments)

        trace, ((value, _), grads) = both(params, (), jnp.array(xs), jnp.asarray(np.array(ds)[:, None]))
    assert (np.asarray(trace["a2"])[:, 0] > 0.5).tolist() == [False, True, True, False]
    total = {"dC/dw1": np.zeros((2, 2)), "dC/db1": np.zeros(2), "dC/dw2": np.zeros((2, 1)), "dC/db2": np.zeros(1)}
    for n, (x, d) in enumerate(zip(xs, ds, strict=True)):
        z1 = [x[0] * w1[0][j] + x[1] * w1[1][j] + b1[j] for j in range(2)]
        a1 = [s(z) for z in z1]
        z2 = a1[0] * w2[0][0] + a1[1] * w2[1][0] + b2[0]
        a2 = s(z2)
        delta2 = (a2 - d) * a2 * (1 - a2)
        delta1 = [delta2 * w2[j][0] * a1[j] * (1 - a1[j]) for j in range(2)]
        rows = {"z1": z1, "a1": a1, "z2": [z2], "a2": [a2], "delta2": [delta2], "delta1": delta1}
        for name, row in rows.items():
            np.testing.assert_allclose(trace[name][n], row, rtol=1e-12, err_msg=name)
        for j in range(2):
            total["dC/dw2"][j, 0] += a1[j] * delta2 / 4
            total["dC/db1"][j] += delta1[j] / 4
            for k in range(2):
                total["dC/dw1"][k, j] += x[k] * delta1[j] / 4
        total["dC/db2"][0] += delta2 / 4
    for name, grad in total.items():
        np.testing.assert_allclose(trace[name], grad, rtol=1e-12, atol=1e-17, err_msg=name)
    # At (0, 0) by hand: both hidden units s(-2) = .119203, z2 = 12 x .119203 - 3 = -1.569565.
    np.testing.assert_allclose(trace["z1"][0], [-2, -2])
    np.testing.assert_allclose(trace["z2"][0], [-1.569565], atol=1e-6)
    np.testing.assert_allclose(trace["C"], value, rtol=1e-12)
    for name, grad in [("dC/dw1", grads[0]["w"]), ("dC/db2", grads[2]["b"])]:
        np.testing.assert_allclose(trace[name], grad, rtol=1e-12)


@pytest.mark.slow
def test_any_network_can_be_traced() -> None:
    net = models.serial(layers.Conv(2, 2), layers.Relu, layers.MaxPool(2), models.serial(layers.Flatten, Dense(3)))
    x, y = jnp.ones((2, 5, 5, 1)), jnp.array([0, 1])
    params, state = jax.jit(lambda key: net.init(key, (5, 5, 1)))(jax.random.key(0))
    names: list[str] = []

    @jax.jit
    def both(params: Any) -> Any:
        trace = backprop.trace_table(net, params, state, x, y, losses.softmax_cross_entropy)
        names.extend(step.name for step in trace.steps)
        grads = backprop.value_and_grad(net, losses.softmax_cross_entropy)(params, state, x, y)[1]
        return {name: trace[name] for name in names}, grads

    trace, grads = both(params)
    assert names[:6] == ["a0", "z1", "a1", "a1'", "a1''", "z2"]
    assert len(set(names)) == len(names)
    np.testing.assert_allclose(trace["dC/dw1"], grads[0]["w"], rtol=1e-5, atol=1e-7)
    np.testing.assert_allclose(trace["dC/db2"], grads[3][1]["b"], rtol=1e-5, atol=1e-7)
    with pytest.raises(TypeError, match="net must be a Layer"):
        backprop.trace_table("net", params, state, x, y, losses.mse)  # type: ignore[arg-type]


def test_a_trace_is_shown_in_colour_and_asked_by_name() -> None:
    arguments = {"w": jnp.ones((1, 1)), "b": jnp.ones(1)}, (), jnp.ones((1, 1)), jnp.zeros((1, 1))
    trace = backprop.trace_table(Dense(1), *arguments, losses.half_squared_error)
    console = Console(width=160, record=True, file=io.StringIO())
    console.print(trace)
    assert "delta1" in console.export_text()
    with pytest.raises(KeyError, match="no step 'delta9'"):
        trace["delta9"]


def test_without_a_loss_the_forward_pass_alone_is_traced() -> None:
    net, params = models.serial(Dense(1), Sigmoid), ({"w": jnp.full((2, 1), 0.5), "b": jnp.zeros(1)}, ())
    x, y = jnp.ones((1, 2)), jnp.zeros((1, 1))
    trace = backprop.trace_table(net, params, (), x)
    assert [step.name for step in trace.steps] == ["a0", "z1", "a1"]
    whole = backprop.trace_table(net, params, (), x, y, losses.half_squared_error)
    assert trace.steps[-1] == whole.steps[2]
    with pytest.raises(ValueError, match="got y without loss"):
        backprop.trace_table(net, params, (), x, y)
    with pytest.raises(ValueError, match="got loss without y"):
        backprop.trace_table(net, params, (), x, loss=losses.half_squared_error)


def test_coverage_shows_what_is_left_to_jax() -> None:
    mine = layers.stateless(Kind("mine"), lambda params, x: 2 * x)
    joined = models.parallel(Dense(3), Dense(3), combine=lambda outputs: outputs[0] * outputs[1])
    net = models.serial(Dense(3), layers.Activation(jnp.sin), models.residual(mine), joined)
    table = backprop.coverage(net, lambda y, d: jnp.sum(y, 1))
    assert [(row.place, row.rule) for row in table.rows] == [
        ("[0]", "by hand"), ("[1]", "jax.vjp"), ("[2][0][0]", "jax.vjp"), ("[2][1]", "by hand"),
        ("[3][0]", "by hand"), ("[3][1]", "by hand"), ("[3]", "jax.vjp"), ("loss", "jax.vjp"),
    ]  # fmt: skip
    assert not table.complete
    assert "[2][0][0]" in str(table)
    backprop.register(mine.kind, backprop.Rule(backprop.keep_input, lambda layer, params, x, dy: 2 * dy))
    assert backprop.coverage(mine).complete


def every_layer() -> list[Any]:
    window = {"Conv": (2, 3), "DepthwiseConv": (3,), "MaxPool": (2,), "AveragePool": (2,), "GroupNorm": (1,)}
    sizes = {"Dense": (2,), "Dropout": (0.5,), "Embedding": (3, 2), "Attention": (1,), "CrossAttention": (1,), **window}
    sizes |= {"GatedDense": (2,), "LearnedPositions": (3,), "Padding": (0,)}
    sizes |= dict.fromkeys(("RNN", "LSTM", "GRU", "LinearRecurrence"), (2,)) | {"Reversed": (layers.LSTM(2),)}
    sizes |= {"ConvTranspose": (2, 3), "Reshape": (-1,), "Upsample": (2,)}
    made = [layers.Parametric(parametric.PRELU, start=0.2)]
    for name in layers.__all__:
        item = getattr(layers, name)
        if name[0].isupper() and name not in ("Layer", "Kind", "Activation", "Parametric", "Sequences"):
            made.append(item if isinstance(item, layers.Layer) else item(*sizes.get(name, ())))
    return made


@pytest.mark.parametrize("layer", every_layer(), ids=lambda layer: repr(layer)[:40])
def test_every_layer_of_the_library_has_a_rule(layer: Any) -> None:
    assert backprop.coverage(layer).complete
