"""The computational graph of a chain, arrows, and weights as templates: read back from what is drawn."""

from __future__ import annotations

import functools
import re
from typing import Any

import numpy as np
import pytest

from jaxnn import losses, models, plots
from jaxnn.layers import Dense, Sigmoid, Tanh
from tests.helpers import float64

NET = models.serial(Dense(1), Sigmoid, Dense(1, b_init=None), Tanh, Dense(1))
W, B = (2.0, 1.5, -0.5), (-0.7, None, 0.3)
X, TARGET = 0.5, 1.0
NUMBER = re.compile(r"\$(.+?)\$(?: = |\n)(\S+)")


def params(w: Any = W, b: Any = B) -> Any:
    dense = [{"w": np.array([[v]])} | ({} if u is None else {"b": np.array([u])}) for v, u in zip(w, b, strict=True)]
    return dense[0], (), dense[1], (), dense[2]


@functools.cache
def drawn() -> Any:
    with float64():
        return plots.computational_graph(NET, params(), (), [[X]], [[TARGET]], losses.half_squared_error, title="chain")


def numbers(ax: Any) -> dict[str, float]:
    return {symbol: float(value) for text in ax.texts for symbol, value in NUMBER.findall(text.get_text())}


def values(w: Any = W, b: Any = B) -> dict[str, float]:
    """The chain by hand."""
    u1 = w[0] * X
    z1 = u1 + b[0]
    a1 = 1 / (1 + np.exp(-z1))
    z2 = w[1] * a1
    a2 = np.tanh(z2)
    u3 = w[2] * a2
    z3 = u3 + b[2]
    return {"x": X, "u_{1}": u1, "z_{1}": z1, "a_{1}": a1, "z_{2}": z2, "a_{2}": a2, "u_{3}": u3, "z_{3}": z3,
            "C": 0.5 * (z3 - TARGET) ** 2}  # fmt: skip


def test_every_value_of_the_chain() -> None:
    ax = drawn().axes[0]
    found = numbers(ax)
    expected = values() | {"w_{1}": W[0], "w_{2}": W[1], "w_{3}": W[2], "b_{1}": B[0], "b_{3}": B[2], "y": TARGET}
    assert {symbol for symbol in found if "partial" not in symbol} == set(expected)
    for symbol, value in expected.items():
        assert found[symbol] == pytest.approx(value, rel=6e-3), symbol
    names = [patch.get_gid() for patch in ax.patches if patch.get_gid()]
    assert names == ["times", "plus", "sigmoid", "times", "tanh", "times", "plus", "half squared error"]
    assert ax.get_title() == "chain"


def test_every_derivative_against_finite_differences() -> None:
    found, h = numbers(drawn().axes[0]), 1e-6
    for i in range(3):
        for mark, numbers_ in (("w", W), ("b", B)):
            if numbers_[i] is None:
                assert rf"\partial C/\partial b_{{{i + 1}}}" not in found
                continue
            up, down = list(numbers_), list(numbers_)
            up[i] += h
            down[i] -= h
            ends = [values(**{mark: each})["C"] for each in (up, down)]
            got = found[rf"\partial C/\partial {mark}_{{{i + 1}}}"]
            assert got == pytest.approx((ends[0] - ends[1]) / (2 * h), rel=6e-3)
    assert found[r"\partial C/\partial C"] == 1
    # A sum passes its derivative on; a product multiplies it by the other factor.
    by = {symbol.removeprefix(r"\partial C/\partial "): value for symbol, value in found.items() if "partial" in symbol}
    assert by["u_{1}"] == by["z_{1}"] == by["b_{1}"]
    assert by["a_{1}"] == pytest.approx(by["z_{2}"] * W[1], rel=1e-2)
    assert by["w_{3}"] == pytest.approx(by["u_{3}"] * found["a_{2}"], rel=1e-2)


def test_values_come_before_their_derivatives_from_left_to_right() -> None:
    ax = drawn().axes[0]
    at = {symbol: text.get_position() for text in ax.texts for symbol, _ in NUMBER.findall(text.get_text())}
    chain = ["x", "u_{1}", "z_{1}", "a_{1}", "z_{2}", "a_{2}", "u_{3}", "z_{3}", "C"]
    assert (np.diff([at[symbol][0] for symbol in chain]) > 0).all()
    for symbol in chain[1:]:
        assert at[symbol][1] > at[rf"\partial C/\partial {symbol}"][1]


def test_chains_alone_have_a_graph() -> None:
    wide, one = models.serial(Dense(2)), np.ones((1, 1))
    with pytest.raises(ValueError, match=r"layers of one unit and one example, got layers of 1, 2 units, 1 examples"):
        plots.computational_graph(wide, ({"w": np.ones((1, 2))},), (), one, np.ones((1, 2)), losses.half_squared_error)
    with pytest.raises(ValueError, match="2 examples"):
        plots.computational_graph(NET, params(), (), np.ones((2, 1)), np.ones((2, 1)), losses.half_squared_error)


def test_an_arrow_leads_from_its_start_by_its_change() -> None:
    _, ax = plots.figure()
    ax.set(xlim=(-1, 3), ylim=(-1, 3))
    plots.arrow(ax, [0, 1], np.array([2.0, -0.5]), "$w$", colour="red", dashed=True)
    drawn_arrow, name = ax.texts
    assert (drawn_arrow.xyann, drawn_arrow.xy) == ((0.0, 1.0), (2.0, 0.5))
    assert drawn_arrow.arrow_patch.get_linestyle() not in ("-", "solid")
    assert (name.get_text(), name.get_color(), name.xy) == ("$w$", "red", (1.0, 0.75))
    assert name.xyann[1] > 0, "left of an arrow to the right is above it"
    assert (ax.get_xlim(), ax.get_ylim()) == ((-1, 3), (-1, 3))
    plots.arrow(ax, [0, 0], [0, 0], "$0$")
    assert ax.lines[0].get_xydata().tolist() == [[0, 0]]
    with pytest.raises(ValueError, match=r"arrow: expected a finite start and change \(2,\), got \[0\.0\]"):
        plots.arrow(ax, [0.0], [1.0, 1.0])
    with pytest.raises(ValueError, match="finite"):
        plots.arrow(ax, [0.0, 0.0], [np.inf, 1.0])


def test_templates_show_the_weights_of_each_unit_on_one_scale() -> None:
    w = np.random.default_rng(0).normal(size=(6, 3))
    fig = plots.templates(w, (2, 3, 1), ["a", "b", "c"], columns=2, title="three")
    shown = [ax for ax in fig.axes if ax.images]
    assert [ax.get_title() for ax in shown] == ["a", "b", "c"]
    for j, ax in enumerate(shown):
        np.testing.assert_array_equal(ax.images[0].get_array(), w[:, j].reshape(2, 3))
        assert ax.images[0].get_clim() == (-np.abs(w).max(), np.abs(w).max())
    assert fig.get_suptitle() == "three"
    white = shown[0].images[0].cmap(0.5)
    assert min(white[:3]) > 0.95
    for bad, message in (
        ((w, (2, 2)), "D = H W"),
        ((w[0], (2, 3)), "D = H W"),
        ((w, (2, 3), ["a"]), "per unit, 3, got 1"),
    ):
        with pytest.raises(ValueError, match=message):
            plots.templates(*bad)


def test_signed_images_are_shown_about_white() -> None:
    _, ax = plots.figure()
    assert plots.show(ax, np.ones((2, 2, 1)), limit=3.0).get_clim() == (-3, 3)
    assert plots.show(ax, np.ones((2, 2, 1))).get_clim() == (0, 1)
    assert plots.show(ax, np.ones((4, 1))).get_array().shape == (4, 1)
