"""The table of activations: that of the docstring is computed, and is that of their formulas."""

from __future__ import annotations

import math
import re

import pytest
from scipy import optimize, special

from jaxnn import activations as act
from jaxnn.activations import DERIVATIVES, Properties, properties

INF = math.inf
DIP = {
    "gelu": optimize.minimize_scalar(lambda z: z * special.ndtr(z), bounds=(-3, 0), method="bounded").fun,
    "silu": optimize.minimize_scalar(lambda z: z * special.expit(z), bounds=(-3, 0), method="bounded").fun,
}
"""The lowest values of two smooth activations."""

EXPECTED = {
    act.sign: Properties("steps", -1, 1, True, 0),
    act.heaviside: Properties("steps", 0, 1, True, 0),
    act.linear: Properties("linear", -INF, INF, True, 1),
    act.piecewise_linear: Properties("piecewise linear", 0, 1, True, 1),
    act.sigmoid: Properties("curved", 0, 1, True, 1 / 4),
    act.tanh: Properties("curved", -1, 1, True, 1),
    act.relu: Properties("piecewise linear", 0, INF, True, 0),
    act.leaky_relu: Properties("piecewise linear", -INF, INF, True, 0.01),
    act.softplus: Properties("curved", 0, INF, True, 1 / 2),
    act.elu: Properties("curved", -1, INF, True, 1),
    act.selu: Properties("curved", -act.SELU_SCALE * act.SELU_ALPHA, INF, True, act.SELU_SCALE * act.SELU_ALPHA),
    act.gelu: Properties("curved", DIP["gelu"], INF, False, 1 / 2),
    act.silu: Properties("curved", DIP["silu"], INF, False, 1 / 2),
}


def test_properties_are_those_of_the_formulas() -> None:
    for function, expected in EXPECTED.items():
        found = properties(function)
        assert (found.shape, found.monotone) == (expected.shape, expected.monotone), function.__name__
        told, true = (found.low, found.high, found.slope), (expected.low, expected.high, expected.slope)
        assert told == pytest.approx(true, abs=1e-6), function.__name__
        assert found.bounded == (math.isfinite(expected.low) and math.isfinite(expected.high))


def test_the_table_of_the_docstring_is_computed() -> None:
    rows = re.findall(
        r"^\| `(\w+)` \| ([a-z ]+) \| (\S+) to (\S+) \| (yes|no) \| (yes|no) \| (\S+) \|$", act.__doc__ or "", re.M
    )
    assert [name for name, *_ in rows] == [f.__name__ for f in DERIVATIVES]
    for name, shape, low, high, bounded, monotone, slope in rows:
        found = properties(getattr(act, name))
        assert shape == found.shape, name
        assert (float(low), float(high)) == pytest.approx((found.low, found.high), abs=0.006), name
        assert (bounded == "yes", monotone == "yes") == (found.bounded, found.monotone), name
        assert float(slope) == pytest.approx(found.slope, abs=1e-4), name


def test_settings_count() -> None:
    assert properties(act.elu, alpha=2.0).low == pytest.approx(-2)
    assert properties(act.leaky_relu, negative_slope=-0.5) == Properties("piecewise linear", 0, INF, False, -0.5)
    assert properties(act.leaky_relu, negative_slope=0.0).low == 0
    assert properties(act.leaky_relu, negative_slope=1.0).shape == "linear"


def test_vector_functions_have_none() -> None:
    with pytest.raises(ValueError, match="no elementwise derivative for softmax"):
        properties(act.softmax)


def test_the_perceptrons_sign_and_the_thresholds_value_are_named() -> None:
    assert "`perceptron_sign`" in (act.sign.__doc__ or "")
    assert act.perceptron_sign(0.0) == 1 == act.heaviside(0.0, at_zero=1)
    assert "value 1/2 at 0" in (act.heaviside.__doc__ or "")
    assert act.heaviside(0.0) == 0.5
    assert act.sign(0.0) == 0
