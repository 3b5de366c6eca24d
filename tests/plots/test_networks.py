"""Diagrams of networks: each number that is drawn is read back and held against NumPy and `jax.grad`."""

from __future__ import annotations

import functools
import re
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from matplotlib.collections import LineCollection

from jaxnn import backprop, losses, models, plots
from jaxnn.layers import Conv, Dense, Dropout, Flatten, Relu, Sigmoid, Softmax, Tanh
from jaxnn.plots import layout, networks
from tests.helpers import random, slow

LABEL = re.compile(r"\$(.+?)\$(?: = (\S+))?")
NET = models.serial(Dense(4), Tanh, Dense(2), Sigmoid)
PARAMS: Any = (
    {"w": random(0, 3, 4, dtype=np.float32), "b": random(1, 4, dtype=np.float32)}, (),
    {"w": random(2, 4, 2, dtype=np.float32), "b": random(3, 2, dtype=np.float32)}, (),
)  # fmt: skip
X, Y = random(4, 3, 3, dtype=np.float32), random(5, 3, 2, dtype=np.float32)


@functools.cache
def drawn(edges: Any = "weights", n: int = 1) -> Any:
    return plots.network(NET, PARAMS, x=X[:n], y=Y[:n], loss=losses.half_squared_error, edges=edges)


def labels(ax: Any) -> dict[str, str]:
    """What follows each symbol: " = 0.5" as "0.5", "" if nothing."""
    return {symbol: number or "" for text in ax.texts for symbol, number in LABEL.findall(text.get_text())}


def numbers(ax: Any, pattern: str) -> dict[tuple[int, ...], float]:
    """The numbers after the symbols of this pattern, by its groups."""
    found = ((re.fullmatch(pattern, symbol), number) for symbol, number in labels(ax).items())
    return {tuple(map(int, match.groups())): float(number) for match, number in found if match}


def edges_of(ax: Any) -> list[LineCollection]:
    return [each for each in ax.collections if isinstance(each, LineCollection)]


def forward(params: Any, x: np.ndarray) -> list[np.ndarray]:
    """z1, a1, z2, a2 by NumPy."""
    z1 = x @ params[0]["w"] + params[0]["b"]
    z2 = np.tanh(z1) @ params[2]["w"] + params[2]["b"]
    return [z1, np.tanh(z1), z2, 1 / (1 + np.exp(-z2))]


@functools.cache
def gradients(n: int) -> Any:
    """Of the mean loss, by `jax.grad`."""

    def cost(params: Any) -> Any:
        return jnp.mean(losses.half_squared_error(NET.predict(params, (), X[:n]), Y[:n]))

    return jax.jit(jax.grad(cost))(PARAMS)


def assert_weights(ax: Any, pattern: str, params: Any) -> None:
    """Each label w_jk^l says w[k - 1, j - 1] of layer l, to three digits."""
    found = numbers(ax, pattern)
    assert len(found) == 3 * 4 + 4 * 2
    for (j, k, number), value in found.items():
        assert value == pytest.approx(float(params[2 * number - 2]["w"][k - 1, j - 1]), rel=6e-3)


def test_the_symbols_alone() -> None:
    fig = plots.network(NET, PARAMS, values=False, title="symbols")
    ax = fig.axes[0]
    found = labels(ax)
    assert set(found.values()) == {""}
    weights = {f"w_{{{j}{k}}}^{{{n}}}" for n, d, m in ((1, 3, 4), (2, 4, 2)) for j in range(1, m + 1)
               for k in range(1, d + 1)}  # fmt: skip
    biases = {f"b_{{{j}}}^{{{n}}}" for n, m in ((1, 4), (2, 2)) for j in range(1, m + 1)}
    units = {f"x_{{{k}}}" for k in (1, 2, 3)} | {symbol.replace("b", "a") for symbol in biases}
    assert set(found) == weights | biases | units
    assert len(ax.patches) == 9
    assert {tuple(width) for each in edges_of(ax) for width in [set(each.get_linewidths())]} == {(1.6,)}
    assert ax.get_legend() is None
    assert ax.get_title() == "symbols"


def test_a_label_stands_on_its_edge() -> None:
    """w_jk^l leads from unit k of layer l - 1 to unit j of layer l."""
    ax = drawn().axes[0]
    units = {text.get_text().partition("$ ")[0].split("\n")[0]: text.get_position() for text in ax.texts}
    for text in ax.texts:
        if match := re.match(r"\$w_\{(\d)(\d)\}\^\{(\d)\}", text.get_text()):
            j, k, number = match.groups()
            start = np.array(units[f"$x_{{{k}}}$" if number == "1" else f"$a_{{{k}}}^{{1}}$"])
            end, at = np.array(units[f"$a_{{{j}}}^{{{number}}}$"]), np.array(text.get_position())
            t = (at - start)[0] / (end - start)[0]
            assert 0.1 < t < 0.9
            np.testing.assert_allclose(at, start + t * (end - start), atol=1e-9)
            assert np.tan(np.radians(text.get_rotation())) == pytest.approx(
                (end - start)[1] / (end - start)[0], abs=1e-9
            )


def test_weights_biases_sums_and_activations() -> None:
    ax = drawn().axes[0]
    assert_weights(ax, r"w_{(\d)(\d)}\^{(\d)}", PARAMS)
    z1, a1, z2, a2 = forward(PARAMS, X[:1])
    for symbol, expected in {"b": (PARAMS[0]["b"], PARAMS[2]["b"]), "z": (z1[0], z2[0])}.items():
        found = numbers(ax, rf"{symbol}_{{(\d)}}\^{{(\d)}}")
        assert len(found) == 6
        for (j, number), value in found.items():
            assert value == pytest.approx(float(expected[number - 1][j - 1]), rel=6e-3)
    inside = dict(text.get_text().split("\n") for text in ax.texts if re.match(r"\$[ax]", text.get_text()))
    for name, values in (("x_{%d}", X[0]), ("a_{%d}^{1}", a1[0]), ("a_{%d}^{2}", a2[0])):
        for j, value in enumerate(values, start=1):
            assert float(inside[f"${name % j}$"]) == pytest.approx(float(value), rel=6e-3)


def test_deltas_and_gradients_of_one_example() -> None:
    ax = drawn("gradients").axes[0]
    grads = gradients(1)
    assert_weights(ax, r"\\partial C/\\partial w_{(\d)(\d)}\^{(\d)}", grads)
    found = numbers(ax, r"\\delta_{(\d)}\^{(\d)}")
    assert len(found) == 6
    for (j, number), value in found.items():
        assert value == pytest.approx(float(grads[2 * number - 2]["b"][j - 1]), rel=6e-3)  # delta = dC/db
    assert not numbers(ax, r"w_{(\d)(\d)}\^{(\d)}")


def test_gradients_of_several_examples_are_those_of_the_mean() -> None:
    ax = drawn("gradients", 3).axes[0]
    grads = gradients(3)
    assert_weights(ax, r"\\partial C/\\partial w_{(\d)(\d)}\^{(\d)}", grads)
    for (j, number), value in numbers(ax, r"\\partial C/\\partial b_{(\d)}\^{(\d)}").items():
        assert value == pytest.approx(float(grads[2 * number - 2]["b"][j - 1]), rel=6e-3)
    assert not numbers(ax, r"\\delta_{(\d)}\^{(\d)}"), "a delta is of one example"
    assert all("\n" not in text.get_text() for text in ax.texts if text.get_text().startswith("$a"))


def test_a_wrong_diagram_would_be_noticed() -> None:
    flipped = jax.tree.map(lambda w: -w, PARAMS)
    swapped = ({**PARAMS[0], "w": PARAMS[0]["w"][::-1]}, (), PARAMS[2], ())
    summed = jax.tree.map(lambda g: 3 * g, gradients(3))
    for edges, n, wrong in (("weights", 1, flipped), ("weights", 1, swapped), ("gradients", 3, summed)):
        pattern = r"w_{(\d)(\d)}\^{(\d)}" if edges == "weights" else r"\\partial C/\\partial w_{(\d)(\d)}\^{(\d)}"
        with pytest.raises(AssertionError):
            assert_weights(drawn(edges, n).axes[0], pattern, wrong)


def test_edges_are_as_wide_as_their_weights_are_large() -> None:
    ax = drawn().axes[0]
    largest = max(np.abs(PARAMS[i]["w"]).max() for i in (0, 2))
    for each, w in zip(edges_of(ax), (PARAMS[0]["w"], PARAMS[2]["w"]), strict=True):
        flat = w.ravel()[np.argsort(np.abs(w.ravel()))]  # the strongest on top
        np.testing.assert_allclose(each.get_linewidths(), np.maximum(4 * np.abs(flat) / largest, 0.4), rtol=1e-5)
        colours = [plots.COLOURS[0] if value >= 0 else plots.COLOURS[1] for value in flat]
        expected = [[int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)] for colour in colours]
        np.testing.assert_allclose(np.asarray(each.get_colors())[:, :3], expected)
        dashed = [dashes is not None for _, dashes in each.get_linestyles()]
        assert dashed == (flat < 0).tolist()
    assert f"{largest:.3g}, the largest" in ax.get_legend().get_texts()[2].get_text()


def test_nodes_are_tinted_by_sign_and_size() -> None:
    ax = drawn().axes[0]
    _, a1, _, a2 = forward(PARAMS, X[:1])
    fills = np.array([patch.get_facecolor()[:3] for patch in ax.patches])
    for values, fill in ((X[0], fills[:3]), (a1[0], fills[3:7]), (a2[0], fills[7:])):
        depth = (1 - fill).max(axis=1)
        order = np.argsort(np.abs(values))
        assert (np.diff(depth[order]) >= 0).all()
        blue = fill[:, 2] > fill[:, 0]
        assert (blue == (values > 0))[np.abs(values) > 0.05].all()


def test_a_layer_with_more_units_is_cut_in_the_middle() -> None:
    net, params = made(64, 20, 10)
    x = np.random.default_rng(0).uniform(size=(1, 8, 8, 1))
    ax = plots.network(net, params, x=x, most=6, outputs=list("0123456789")).axes[0]
    assert [text.get_text() for text in ax.texts].count("⋮") == 3
    assert len(ax.patches) == 18
    assert [len(each.get_segments()) for each in edges_of(ax)] == [36, 36]
    texts = [text.get_text() for text in ax.texts]
    assert [text for text in texts if text in list("0123456789")] == ["0", "1", "2", "7", "8", "9"]
    assert {"input\n64 units", "layer 1\n20 units, tanh", "layer 2, output\n10 units"} <= set(texts)
    flat = x.ravel()
    for index in (1, 3, 62, 64):
        assert f"$x_{{{index}}}$\n{flat[index - 1]:.3g}" in texts
    assert "$x_{4}$" not in "".join(texts)
    whole = plots.network(net, params, x=x, most=64).axes[0]
    assert len(whole.patches) == 94
    small = [text.get_text() for text in whole.texts]
    assert f"{flat[0]:.2f}" in small, "small nodes hold two decimals alone"


def test_indices_of_two_digits_are_separated() -> None:
    found = labels(plots.network(*made(2, 11)).axes[0])
    assert {"w_{11}^{1}", "w_{92}^{1}", "w_{10,1}^{1}", "w_{11,2}^{1}"} <= found.keys()
    assert "w_{1,1}^{1}" not in found


def probes(text: Any) -> np.ndarray:
    """Nine points on the middle line of a drawn text, in pixels, whatever its rotation; and its height."""
    angle = np.radians(text.get_rotation())
    text.set_rotation(0)
    box = text.get_window_extent()
    text.set_rotation(np.degrees(angle))
    middle = text.axes.transData.transform(text.get_position())
    if text.get_va() == "top":
        middle = middle - [0, box.height / 2]
    return middle + np.linspace(-0.5, 0.5, 9)[:, None] * box.width * np.array([np.cos(angle), np.sin(angle)])


def made(*sizes: int) -> tuple[Any, Any]:
    """A network of tanh layers and random parameters, without compiling anything."""
    net = models.mlp(sizes, activation=Tanh)
    layers = [
        {"w": random(i, *sizes[i : i + 2], dtype=np.float32), "b": random(9 + i, sizes[i + 1], dtype=np.float32)}
        for i in range(len(sizes) - 1)
    ]
    dense = iter(layers)
    return net, tuple(next(dense) if part.kind.name == "dense" else () for part in net.parts)


CASES = [
    *(((2, 2, 1), "weights"), ((3, 4, 2), "weights"), ((2, 8, 1), "weights"), ((2, 3, 1), "gradients")),
    *slow(((4, 4), "weights"), ((5, 3, 3, 5), "gradients"), ((3, 4, 2), "gradients"), ((1, 6, 1), "gradients")),
]


@pytest.mark.parametrize(("sizes", "edges"), CASES)
def test_labels_do_not_overlap(sizes: tuple[int, ...], edges: Any) -> None:
    net, params = made(*sizes)
    several: dict[str, Any] = {}
    if edges == "gradients":
        x, y = random(20, 2, sizes[0], dtype=np.float32), np.zeros((2, sizes[-1]), np.float32)
        several = {"x": x, "y": y, "loss": losses.half_squared_error}
    fig = plots.network(net, params, **several, edges=edges)
    fig.draw_without_rendering()
    ax = fig.axes[0]
    named = [text for text in ax.texts if re.match(r"\$(w|\\partial C/\\partial [wb])", text.get_text())]
    assert len([text for text in named if "w_" in text.get_text()]) >= sizes[0] * sizes[1]
    points = [probes(text) for text in named]
    for i, one in enumerate(points):
        for other in points[:i]:
            apart = np.linalg.norm(one[:, None] - other[None, :], axis=-1).min()
            assert apart > 0.1 * fig.dpi, f"{named[i].get_text()} comes within {apart / fig.dpi:.2f} inches of another"


def test_where_labels_would_overlap_there_are_none() -> None:
    crowded = layout.layout([8, 8], [0, 30], [[], []], 20)
    assert crowded.labels == [None, None]
    roomy = layout.layout([3, 3], [0, 8], [[], [6]], 20)
    assert roomy.labels[1] is not None
    assert roomy.labels[1].shape == (3, 3)


def test_flattening_dropout_nesting_and_missing_biases() -> None:
    inner = models.serial(Dropout(0.5), Dense(3, b_init=None), Tanh)
    net = models.serial(Flatten, inner, Dense(2), Softmax)
    params = ((), ((), {"w": random(0, 4, 3, dtype=np.float32)}, ()),
              {"w": random(1, 3, 2, dtype=np.float32), "b": np.ones(2, np.float32)}, ())  # fmt: skip
    state = ()
    x = np.ones((1, 2, 2), np.float32)
    ax = plots.network(net, params, state, x=x).axes[0]
    outputs = np.asarray(net.predict(params, state, x))[0]
    shown = [text.get_text() for text in ax.texts]
    assert f"$a_{{1}}^{{2}}$\n{outputs[0]:.3g}" in shown
    assert "layer 1\n3 units, tanh" in shown
    assert "layer 2, output\n2 units, softmax" in shown
    assert not [symbol for symbol in labels(ax) if re.fullmatch(r"b_\{\d\}\^\{1\}", symbol)]
    assert [symbol for symbol in labels(ax) if re.fullmatch(r"b_\{\d\}\^\{2\}", symbol)]


@pytest.mark.parametrize("dtype", [np.float64, jnp.bfloat16])
def test_other_dtypes(dtype: Any) -> None:
    params = jax.tree.map(lambda w: np.asarray(w).astype(dtype), PARAMS)
    x = X[:1].astype(dtype)
    ax = plots.network(NET, params, x=x, y=Y[:1].astype(dtype), loss=losses.half_squared_error, edges="gradients").axes[
        0
    ]
    for (j, number), value in numbers(ax, r"\\delta_{(\d)}\^{(\d)}").items():
        assert value == pytest.approx(float(gradients(1)[2 * number - 2]["b"][j - 1]), rel=0.1)


def test_zero_weights_and_a_single_unit() -> None:
    net = models.serial(Dense(1, b_init=None))
    ax = plots.network(net, ({"w": np.zeros((1, 1))},), x=[[2.0]]).axes[0]
    assert numbers(ax, r"w_{(\d)(\d)}\^{(\d)}") == {(1, 1, 1): 0.0}
    assert "layer 1, output\n1 unit" in [text.get_text() for text in ax.texts]


def test_a_diagram_says_which_size_it_needs() -> None:
    fig, ax = plots.figure()
    width, height = networks.diagram(ax, NET, PARAMS)
    alone = plots.network(NET, PARAMS)
    np.testing.assert_allclose(alone.get_size_inches(), [width, height])
    fig.set_size_inches(width, height)
    fig.draw_without_rendering()
    inch = ax.transData.transform([[0, 0], [1, 1]])
    assert np.ptp(inch[:, 0]) == pytest.approx(np.ptp(inch[:, 1]))
    assert np.ptp(inch[:, 0]) == pytest.approx(fig.dpi, rel=0.08), "a unit of the axes is about an inch"


CONV = models.serial(Conv(2, 2), Relu)
CONV_PARAMS: Any = ({"w": np.ones((2, 2, 1, 2), np.float32), "b": np.zeros(2, np.float32)}, ())
LOSS = losses.half_squared_error
BAD: list[tuple[type[Exception], str, tuple[Any, ...], dict[str, Any]]] = [
    (TypeError, "network: net must be a Layer", ("net", PARAMS), {}),
    (ValueError, "a serial of dense layers and activations, got layer 0, conv", (CONV, CONV_PARAMS), {}),
    (ValueError, "at least one dense layer", (models.serial(Tanh), ((),)), {}),
    (ValueError, "params must be a tuple with one entry for each of 4 parts", (NET, PARAMS[:2]), {}),
    (ValueError, r"weights \(4, 2\) from 4 units to 2, got \(3, 4\)", (NET, (PARAMS[0], (), PARAMS[0], ())), {}),
    (
        ValueError,
        r"weights \(3, 5\) from 3 units to 5, got \(3, 4\)",
        (models.serial(Dense(5), Tanh, Dense(2), Sigmoid), PARAMS),
        {},
    ),
    (ValueError, "y and loss need an input", (NET, PARAMS), {"y": Y, "loss": LOSS}),
    (ValueError, r"one input, x \(1, ...\), got shape \(3, 3\)", (NET, PARAMS), {"x": X}),
    (ValueError, r"one input, x \(1, ...\), got shape \(3,\)", (NET, PARAMS), {"x": X[0]}),
    (ValueError, "got y without loss", (NET, PARAMS), {"x": X[:1], "y": Y[:1]}),
    (TypeError, "loss must be a function", (NET, PARAMS), {"x": X[:1], "y": Y[:1], "loss": "mse"}),
    (ValueError, "gradients need an example and its loss", (NET, PARAMS), {"x": X[:1], "edges": "gradients"}),
    (ValueError, "edges must be 'weights' or 'gradients', got 'w'", (NET, PARAMS), {"edges": "w"}),
    (ValueError, "2 names of outputs, got 1", (NET, PARAMS), {"outputs": ["y"]}),
    (ValueError, "most must be", (NET, PARAMS), {"most": 1}),
    (ValueError, r"one vector per example .*, got outputs \(1, 2, 4\)", (NET, PARAMS), {"x": X[None, :2]}),
]


@pytest.mark.parametrize(("kind", "text", "given", "settings"), BAD, ids=[case[1][:24] for case in BAD])
def test_bad_input_is_named(kind: type[Exception], text: str, given: Any, settings: Any) -> None:
    with pytest.raises(kind, match=text):
        plots.network(*given, **settings)


def test_what_is_drawn_is_the_trace() -> None:
    trace = backprop.trace_table(NET, PARAMS, (), jnp.asarray(X[:1]), jnp.asarray(Y[:1]), LOSS)
    found = numbers(drawn("gradients").axes[0], r"\\delta_{(\d)}\^{(\d)}")
    for (j, number), value in found.items():
        assert f"{value:.3g}" == f"{float(trace[f'delta{number}'][0, j - 1]):.3g}"
