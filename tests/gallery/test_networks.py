"""The pictures of networks and of one update show what their captions say: read back from what is drawn."""

from __future__ import annotations

import re
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from matplotlib.collections import LineCollection

from jaxnn import data, landscapes, metrics, optim
from jaxnn.gallery import networks, updates
from tests.gallery.reading import drawn

PICTURES = {picture.name: picture for picture in networks.PICTURES}
NUMBER = re.compile(r"\$(.+?)\$(?: = |\n)(\S+)")


def numbers(ax: Any) -> dict[str, float]:
    return {symbol: float(value) for text in ax.texts for symbol, value in NUMBER.findall(text.get_text())}


def arrows(ax: Any) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """The start and the change of each arrow by the name that follows it."""
    found, last = {}, None
    for text in ax.texts:
        if text.arrow_patch is not None:
            last = np.array(text.xyann), np.array(text.xy) - np.array(text.xyann)
        elif last is not None:
            found[text.get_text()] = last
    return found


def test_the_notation_has_20_weights_and_6_biases() -> None:
    ax = drawn("network-notation").axes[0]
    assert "20 weights and 6 biases" in PICTURES["network-notation"].caption.replace("\n", " ")
    assert sum(len(each.get_segments()) for each in ax.collections if isinstance(each, LineCollection)) == 20
    texts = " ".join(text.get_text() for text in ax.texts)
    assert len(re.findall(r"w_\{\d\d\}", texts)) == 20
    assert len(re.findall(r"b_\{\d\}", texts)) == 6


def test_gradients_of_xor_are_delta_times_activation() -> None:
    forward, backward = drawn("backpropagation-xor").axes
    found, grads = numbers(forward), numbers(backward)
    a = {name: value for name, value in found.items() if name[0] in "ax"}
    delta = {name: value for name, value in grads.items() if "delta" in name}
    given = [name for name in grads if name.startswith(r"\partial")]
    assert len(given) == 6
    for name in given:
        j, k, layer = re.findall(r"\d", name)
        before = a[f"x_{{{k}}}"] if layer == "1" else a[f"a_{{{k}}}^{{1}}"]
        expected = delta[rf"\delta_{{{j}}}^{{{layer}}}"] * before
        assert grads[name] == pytest.approx(expected, rel=1e-2)
        assert (grads[name] == 0) == (layer == "1" and k == "1"), "the weights from A = 0"
        assert grads[name] <= 0
    (edges,) = (each for each in backward.collections[:1] if isinstance(each, LineCollection))
    grey = sum(np.ptp(colour[:3]) < 1e-6 for colour in edges.get_colors())
    assert grey == 2, "a gradient of 0 has the colour of neither sign"
    output = found["a_{1}^{2}"]
    assert output == pytest.approx(1 / (1 + np.exp(-found["z_{1}^{2}"])), abs=2e-3)
    assert delta[r"\delta_{1}^{2}"] == pytest.approx((output - 1) * output * (1 - output), rel=1e-2)
    cost = float(re.findall(r"C = (\S+)", backward.get_title())[0])
    assert cost == pytest.approx((output - 1) ** 2 / 2, rel=1e-2)


def test_the_chain_reuses_each_derivative() -> None:
    found = numbers(drawn("computational-graph").axes[0])
    by = {name.removeprefix(r"\partial C/\partial "): value for name, value in found.items() if "partial" in name}
    assert by["w_{1}"] == pytest.approx(by["u_{1}"] * found["x"], rel=1e-2)
    assert by["u_{1}"] == by["z_{1}"], "a sum passes its derivative on"
    assert by["a_{1}"] == pytest.approx(by["z_{2}"] * found["w_{2}"], rel=1e-2)
    for z, a in (("z_{1}", "a_{1}"), ("z_{2}", "a_{2}"), ("z_{3}", "a_{3}")):
        assert by[z] == pytest.approx(by[a] * found[a] * (1 - found[a]), rel=1e-2)


@pytest.mark.slow
def test_the_cost_changes_as_the_gradients_say() -> None:
    diagram, bars = drawn("sensitivity").axes
    widths = np.array([bar.get_width() for bar in bars.patches])
    diamonds = next(line for line in bars.lines if line.get_marker() == "D").get_xdata()
    np.testing.assert_allclose(diamonds, widths, atol=0.02)
    assert (np.diff(np.abs(widths)) >= 0).all(), "the most sensitive on top"
    names = [tick.get_text().strip("$") for tick in bars.get_yticklabels()]
    shown = numbers(diagram)
    for name, width in zip(names, widths, strict=True):
        assert shown[rf"\partial C/\partial {name}"] == pytest.approx(width, rel=1e-2)
    most, ratio, least = re.fullmatch(r"\$(.+)\$ changes C (\d+) times as much as \$(.+)\$", bars.get_title()).groups()  # type: ignore[union-attr]
    each = dict(zip(names, np.abs(widths), strict=True))
    weights = {name: value for name, value in each.items() if name[0] == "w"}
    assert (most, least) == (max(weights, key=weights.__getitem__), min(weights, key=weights.__getitem__))
    assert int(ratio) == round(weights[most] / weights[least])
    # Second-order terms are all that is left: half the step halves the difference.
    net, params = networks.sensitive()
    one, half = (networks.changes(net, params, networks.CORNERS, networks.XOR, step=step) for step in (0.08, 0.04))
    left = [sum(abs(change.measured - change.gradient) for change in found) for found in (one, half)]
    assert 1.8 < left[0] / left[1] < 2.2


@pytest.mark.slow
def test_the_digit_is_recognized() -> None:
    image, diagram = drawn("digit-network").axes
    texts = [text.get_text() for text in diagram.texts]
    assert texts.count("⋮") == 1
    assert len(diagram.patches) == 16 + 16 + 10
    assert 64 - 16 == 48
    answer, chance = re.fullmatch(r"answer: (\d), probability (\S+)", diagram.get_title()).groups()  # type: ignore[union-attr]
    assert image.get_title().startswith(f"a {answer} of")
    outputs = [float(text) for text in texts if re.fullmatch(r"[01]\.\d\d", text)][-10:]
    assert sum(outputs) == pytest.approx(1, abs=0.06)
    assert outputs[int(answer)] == pytest.approx(float(chance), abs=0.006)
    assert float(chance) > 0.5
    digits = data.load("digits")
    np.testing.assert_array_equal(image.images[0].get_array(), digits.validation.x[0, ..., 0])


@pytest.mark.slow
def test_most_hidden_units_match_several_digits() -> None:
    fig = drawn("hidden-templates")
    units = {ax.get_title(): ax.images[0].get_array() for ax in fig.axes if ax.get_title().startswith("unit")}
    _, result = networks.digit_net()
    w = np.asarray(next(filter(None, result.params))["w"])
    for j in range(16):
        np.testing.assert_allclose(units[f"unit {j + 1}"], w[:, j].reshape(8, 8))
    named = [ax.get_title().split() for ax in fig.axes if re.fullmatch(r"(\d )+", ax.get_title())]
    assert len(named) == 16
    several = sum(len(each) > 1 for each in named)
    shared, units_, error = re.findall(r"[\d.]+", fig.get_suptitle())
    assert (int(shared), int(units_)) == (several, 16)
    assert several > 8, "most"
    found, counts = networks.excited()
    assert (counts.sum(axis=1) == found.shape[1]).all()
    digits = data.load("digits")
    logits = networks.digit_net()[0].predict(result.params, (), digits.validation.x)
    wrong = float(metrics.error_rate(logits, digits.validation.y).mean())
    assert float(error) == pytest.approx(100 * wrong, abs=0.06)
    assert wrong < 0.05


def test_a_perceptron_is_updated_on_mistakes_only() -> None:
    fig = drawn("perceptron-update")
    for ax, met in zip(fig.axes, updates.MEETINGS, strict=True):
        w, x = np.array(met.w), np.array(met.x)
        found, title = arrows(ax), ax.get_title()
        np.testing.assert_allclose(found["$w$"][1], w)
        output = 1 if w @ x >= 0 else -1
        boundaries = {line.get_label(): line for line in ax.lines}
        after = w
        if output == met.y:
            assert "no mistake, no update" in title
            assert set(found) == {"$w$"}
            assert "boundary before" not in boundaries
        else:
            assert "a mistake, so update" in title
            fig.canvas.draw()
            name = next(text for text in ax.texts if text.get_text() == "$w + y x$")
            before = np.linspace(-3, 3, 601)[:, None] * [-w[1], w[0]]
            assert not name.get_window_extent().count_contains(ax.transData.transform(before)), "beside the boundary"
            np.testing.assert_allclose(found["$y x$"], (w, met.y * x))
            after = found["$w + y x$"][1]
            np.testing.assert_allclose(after, w + met.y * x, rtol=1e-6)
            then = float(re.findall(r"then (\S+):", title)[0])
            assert then == pytest.approx(float(after @ x), abs=0.006)
            assert met.y * after @ x == pytest.approx(met.y * w @ x + x @ x)
            assert ("corrected" in title) == (met.y * (after @ x) > 0)
            assert float(np.dot(boundaries["boundary before"].get_xy2(), w)) == pytest.approx(0, abs=1e-6)
        assert float(re.findall(r"x\$ = (-?[\d.]+)", title)[0]) == pytest.approx(float(w @ x), abs=0.006)
        assert float(np.dot(boundaries["boundary afterwards"].get_xy2(), after)) == pytest.approx(0, abs=1e-5)
    titles = [ax.get_title() for ax in fig.axes]
    assert ["corrected" in t for t in titles] == [True, False, False]
    assert ["still" in t for t in titles] == [False, True, False]


def test_the_steps_of_momentum_are_those_of_the_rules() -> None:
    at = updates.Momentum()
    place, theta = landscapes.quadratic(at.condition), jnp.array(at.theta)
    momentum, nesterov = drawn("momentum-vectors").axes
    v, ahead = jnp.array(at.v), np.array(at.theta) - at.decay * np.array(at.v)
    rules = {
        momentum: (optim.sgd(at.rate, momentum=at.decay), v / at.rate, at.theta),
        nesterov: (optim.nesterov_lookahead(at.rate, at.decay), v, ahead),
    }
    ends = []
    for ax, (opt, kept, where) in rules.items():
        state = opt.init(theta)._replace(trace=kept)
        step, _ = opt.update(jax.grad(place)(theta), state, theta, grad_fn=jax.grad(place))
        found = arrows(ax)
        np.testing.assert_allclose(found["step"][1], step, rtol=1e-5)
        np.testing.assert_allclose(found[r"$-\gamma v$"][1], -at.decay * np.array(at.v))
        gradient = next(change for name, (_, change) in found.items() if "nabla" in name)
        np.testing.assert_allclose(gradient, -at.rate * np.asarray(jax.grad(place)(jnp.array(where))), rtol=1e-5)
        before, after = map(float, re.findall(r"[\d.]+", ax.get_title()))
        assert before == pytest.approx(float(place(theta)), abs=0.006)
        assert after == pytest.approx(float(place(theta + step)), abs=0.006)
        marked = next(line for line in ax.lines if line.get_marker() == "D").get_xydata()[0]
        np.testing.assert_allclose(marked, where)
        ends.append((after, gradient[1], float(theta[1] + step[1])))
    (plain, down, below), (looked, up, _) = ends
    assert looked < plain
    assert down < 0 < up, "Nesterov's gradient step points back"
    assert below < 0 < at.theta[1], "momentum overshoots the valley, theta_2 = 0"


@pytest.mark.slow
def test_adagrads_rate_dies_and_rmsprops_settles() -> None:
    left, right = drawn("adagrad-rate").axes
    rates = {str(line.get_label()).split(":")[0]: line.get_xydata() for line in left.lines}
    t, adagrad = rates["Adagrad"].T
    tail = t > 100
    slope = np.polyfit(np.log(t[tail]), np.log(adagrad[tail]), 1)[0]
    assert slope == pytest.approx(-0.5, abs=0.05)
    assert (np.diff(adagrad) <= 0).all()
    settled = rates["RMSprop"][t > 500, 1]
    assert settled.max() < 1.1 * settled.min()
    lines = {str(line.get_label()).split(",")[0]: line.get_ydata() for line in right.lines}
    peaks = {
        name: np.abs(lines[name]).reshape(-1, updates.PERIOD).max(axis=1)
        for name in ("Adagrad", "RMSprop", "the minimum")
    }
    assert (np.diff(peaks["Adagrad"]) < 0).all(), "less with every period"
    assert peaks["RMSprop"].min() > 0.9
    np.testing.assert_allclose(peaks["the minimum"], 1, atol=1e-3)
    told = dict(re.findall(r"(\w+) ([\d.]+)", right.get_title().partition(": ")[2]))
    for name, value in told.items():
        assert float(value) == pytest.approx(peaks[name][-1], abs=0.006)
    assert set(told) == {"Adagrad", "RMSprop"}
