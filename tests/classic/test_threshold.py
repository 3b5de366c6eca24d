"""Networks built by hand are ordinary nets: parameters are like those of init, and softened ones can be trained."""

from __future__ import annotations

from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxnn import backprop, losses, optim, train
from jaxnn.classic import approximation, boolean, gates, parity, regions
from jaxnn.classic.threshold import Network, bipolar, soften
from jaxnn.models import summary
from tests.classic.nets import run
from tests.helpers import assert_close, float64, slow

PENTAGON = regions.regular_polygon(5)
BUILT: dict[str, tuple[Network, int]] = {
    "XOR": (gates.xor(), 2),
    "minimised": (boolean.minimized([0, 1, 1, 1, 0, 0, 1, 1]), 3),
    "parity by counting": (parity.counter(4), 4),
    "parity by a chain": (parity.chain(4), 4),
    "parity by a tree": (parity.tree(5), 5),
    "polygon": (regions.polygon(PENTAGON), 2),
    "two polygons": (regions.union([PENTAGON, regions.mirrored(PENTAGON, 1)]), 2),
    "region": (regions.one_hidden_layer(lambda x, y: x**2 + y**2 < 0.5, -1, 1, directions=3, steps=4), 2),
    "pulse": (approximation.pulses(0, 1), 1),
    "staircase": (approximation.staircase(np.square, 0, 1, 0.1).network, 1),
    "surface": (approximation.surface(lambda x, y: x * y, 0, 1, 0.2).network, 2),
}


@pytest.mark.parametrize("name", BUILT)
def test_parameters_are_like_those_of_init(name: str) -> None:
    (net, params), n = BUILT[name]
    like, state = jax.eval_shape(lambda key: net.init(key, (n,)), jax.random.key(0))
    assert jax.tree.map(lambda p: (p.shape, p.dtype), params) == jax.tree.map(lambda p: (p.shape, p.dtype), like)
    assert state == ()


def test_sizes_are_those_of_the_summary(capsys: pytest.CaptureFixture[str]) -> None:
    network, n = BUILT["two polygons"]
    assert summary(network.net, (n,)) == network.parameters == 10 * 3 + 2 * 11 + 3
    assert (network.units, network.layers) == (10 + 2 + 1, 3)
    capsys.readouterr()


@pytest.mark.parametrize("name", ["XOR", "parity by counting", *slow("parity by a tree")])
def test_codes_and_sigmoids_keep_the_function(name: str) -> None:
    network, n = BUILT[name]
    bits = boolean.inputs(n)
    y = run(network, bits)
    assert 0 < y.mean() < 1
    np.testing.assert_array_equal(run(bipolar(network), 2 * bits - 1), 2 * y - 1)
    np.testing.assert_allclose(run(soften(network, 40.0), bits), y, atol=1e-6)
    if name == "XOR":
        # Weights that are not recoded do not know the other code.
        assert not np.array_equal(run(Network(bipolar(network).net, network.params), 2 * bits - 1), 2 * y - 1)


def test_a_linear_output_stays_when_softened() -> None:
    found = approximation.staircase(np.square, 0, 1, 0.1)
    x = np.linspace(0.05, 0.95, 7)[:, None]
    np.testing.assert_allclose(run(soften(found.network, 1e4), x), run(found.network, x), atol=1e-5)


@pytest.mark.slow
def test_a_softened_net_is_differentiated_by_hand_and_by_jax_alike_and_learns() -> None:
    with float64():
        net, params = soften(parity.tree(3), 3.0)
        x = jnp.asarray(boolean.inputs(3), float)
        y = jnp.asarray(parity.table(3), float)[:, None]
        loss_fn = train.mean_loss(net, losses.mse)
        by_jax = jax.value_and_grad(loss_fn, has_aux=True)
        by_hand = backprop.value_and_grad(net, losses.mse)

        @jax.jit
        def run(p):  # type: ignore[no-untyped-def]
            both = by_jax(p, (), x, y), by_hand(p, (), x, y)
            opt = optim.adam(0.03)

            def step(carry, _):  # type: ignore[no-untyped-def]
                p, s = carry
                (value, _), grads = by_jax(p, (), x, y)
                updates, s = opt.update(grads, s, p)
                return (optim.apply_updates(p, updates), s), value

            return both, jax.lax.scan(step, (p, opt.init(p)), length=200)[1]

        (of_jax, of_hand), values = run(params)
        assert_close(of_hand, of_jax, rtol=1e-10, atol=1e-14)
        assert float(values[-1]) < 0.1 * float(values[0])


def test_inputs_are_rows() -> None:
    with pytest.raises(ValueError, match=r"inputs \(N, D\), got shape \(2,\)\..* one number per input as x\[:, None\]"):
        approximation.pulses(1, 2)([0.5, 1.5])


def test_a_negative_sharpness_is_refused() -> None:
    with pytest.raises(ValueError, match=r"soften: sharpness must lie in \[0, inf\), got -1"):
        soften(gates.xor(), -1.0)


def test_a_softened_bipolar_net_has_tanh_units_and_gradients() -> None:
    network = soften(bipolar(gates.xor()), 3.0)
    codes = 2 * boolean.inputs(2) - 1
    np.testing.assert_allclose(run(network, codes), run(bipolar(gates.xor()), codes), atol=0.02)
    net, params = network
    hidden = np.tanh(3 * (codes @ [[1, -1], [-1, 1]] - 1))  # 2 b + sum of w: 2 (-1/2) + 0
    np.testing.assert_allclose(run(network, codes), np.tanh(3 * (hidden.sum(1) + 1)), rtol=1e-4, atol=1e-6)
    grads = jax.jit(jax.grad(lambda p: net.predict(p, (), jnp.asarray(codes)).sum()))(params)
    assert np.abs(grads[0]["w"]).max() > 0


@pytest.mark.parametrize(
    ("call", "text"),
    [
        (lambda: bipolar(soften(gates.xor())), r"must end in thresholds .* got activation\(function=sigmoid\)"),
        (lambda: bipolar(bipolar(gates.xor())), "must end in thresholds .* got activation"),
        (lambda: bipolar(approximation.pulses(0, 1)), "no activation"),
        (lambda: soften(soften(gates.xor())), "already softened"),
        (lambda: soften(gates.xor().net), "expected a Network, net and params together, got Layer"),
        (lambda: bipolar((1, 2)), "expected a Network, net and params together, got tuple"),
    ],
)
def test_networks_that_cannot_be_recoded_are_refused(call: Callable[[], object], text: str) -> None:
    with pytest.raises((ValueError, TypeError), match=text):
        call()


def test_a_threshold_has_no_gradient() -> None:
    net, params = gates.xor()
    grads = jax.jit(jax.grad(lambda p: net.predict(p, (), jnp.asarray(boolean.inputs(2))).sum()))(params)
    assert all(not p.any() for p in jax.tree.leaves(grads))
